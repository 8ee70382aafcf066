//! The ways in which a program takes signals, for a participant (`peer.rs`).

use anyhow::bail;
use rtcore::sys::rtsignal::{self, SignalSet};
use rtcore::sys::sched;
use rtcore::sys::sigaction::{Action, RawInfo};
use std::os::unix::process::CommandExt as _;
use std::sync::atomic::{AtomicU64, Ordering};

static HANDLED: AtomicU64 = AtomicU64::new(0);

extern "C" fn count(_: i32, _: &RawInfo, _: *const ()) {
    HANDLED.fetch_add(1, Ordering::Relaxed);
}

pub fn obey(words: &[&str]) -> anyhow::Result<String> {
    match words {
        // A handler that counts, for as long as the process lives.
        ["handler", signo] => std::mem::forget(Action::install(signo.parse()?, count)?),
        ["handled"] => return Ok(format!("{}\n", HANDLED.load(Ordering::Relaxed))),
        ["ignore", signo] => rtsignal::ignore([signo.parse()?]),
        ["unblock", signo] => SignalSet::of([signo.parse()?]).unblock()?,
        // Sleeps in sigwaitinfo(2), unlike `sigwait`, whose signals stay blocked. `VALUE TID`
        // lines.
        ["waitinfo", signo, count] => {
            let set = SignalSet::of([signo.parse()?]);
            let mut data = String::new();
            for _ in 0..count.parse::<usize>()? {
                match rtsignal::wait(&set) {
                    Ok(got) => data += &format!("{} {}\n", got.value, sched::gettid()),
                    Err(e) => bail!("{e:?}"),
                }
            }
            return Ok(data);
        }
        // Becomes another program of the same kind: handlers are gone, the mask stays.
        ["exec"] => bail!(
            "{}",
            std::process::Command::new(std::env::current_exe()?)
                .arg("--peer")
                .exec()
        ),
        other => bail!("what is {other:?}?"),
    }
    Ok(String::new())
}
