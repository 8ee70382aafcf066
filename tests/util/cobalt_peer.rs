//! A participant on Cobalt's calls, which are the stand-in's here: told what to do line by line,
//! see `peer.rs`.

use super::patience_ns;
use super::peer::{Answer, serve, unhex};
use super::session_peer::Links;
use super::signal_peer::Life;
use anyhow::{Context as _, bail};
use rtcore::skin::{OpenQueue, SignalAddress, Skin, cobalt};
use rtcore::sys::mqueue::Access;
use rtcore::sys::rtsignal::SignalSet;
use rtcore::sys::{Errno, sched};
use std::ffi::CString;
use std::path::Path;

/// Longest wait for room.
/// Nothing announces room: how often to look.
const LOOK_NS: u64 = 500_000;

/// Body of a `--cobalt-peer LIBRARY` process. Its main thread, which obeys, is the Cobalt thread.
pub fn main(library: &str) -> std::process::ExitCode {
    let bound = cobalt::load(Some(Path::new(library))).and_then(cobalt::Loaded::bind);
    let skin = match bound {
        Ok(skin) => skin,
        Err(e) => {
            eprintln!("cobalt peer: {e}");
            return std::process::ExitCode::FAILURE;
        }
    };
    let (mut queue, mut links, mut life) = (None, Links::on(skin), Life::on(skin));
    serve(|words| match words {
        ["session", rest @ ..] => links.obey(rest),
        ["signals", rest @ ..] => life.obey(rest),
        words => obey(skin, words, &mut queue),
    })
}

fn obey(skin: &'static Skin, words: &[&str], queue: &mut Option<OpenQueue>) -> Answer {
    let mut data = String::new();
    match words {
        ["tid"] => data = format!("{}\n", sched::gettid()),
        ["register", socket, name] => rtd::ctl::register::this_process(socket.as_ref(), name)?,
        ["open", access, name] => {
            let send = *access == "send";
            let access = if send { Access::Send } else { Access::Receive };
            *queue = Some(OpenQueue::open(skin, &CString::new(*name)?, access, send)?);
        }
        ["held"] => {
            data = format!(
                "{}\n",
                queue
                    .as_ref()
                    .context("no queue is open")?
                    .attributes()?
                    .curmsgs
            )
        }
        ["send", priority, hex] => {
            send(
                skin,
                queue.as_ref().context("no queue is open")?,
                &unhex(hex)?,
                priority.parse()?,
            )?;
        }
        ["stream", from, count] => {
            let queue = queue.as_ref().context("no queue is open")?;
            let from: u64 = from.parse()?;
            for n in 0..count.parse::<u64>()? {
                send(skin, queue, &from.wrapping_add(n).to_ne_bytes(), 0)?;
            }
        }
        ["recv", count, timeout_ms] => {
            let queue = queue.as_ref().context("no queue is open")?;
            let timeout_ns = timeout_ms.parse::<u64>()? * 1_000_000;
            let mut buffer = vec![0; queue.attributes()?.msgsize];
            for _ in 0..count.parse::<usize>()? {
                match (skin.mq_receive_within)(queue.mqd(), &mut buffer, timeout_ns) {
                    Ok((len, priority)) => {
                        data += &format!("{priority} {}\n", rtd::ctl::payload::hex(&buffer[..len]));
                    }
                    Err(Errno::TIMEDOUT) => break,
                    Err(e) => bail!("{e:?}"),
                }
            }
        }
        ["sigqueue", tid, signo, value] => {
            let tid = tid.parse()?;
            let to = SignalAddress {
                pidfd: -1,
                pid: 0,
                tid,
                pidfd_is_thread: false,
            };
            let sent = (skin.signal_send)(to, signo.parse()?, value.parse()?, 0, 0);
            sent.map_err(|e| anyhow::anyhow!("{e:?}"))?;
        }
        ["sigwait", signo, count, timeout_ms] => {
            let (set, timeout_ns) = (
                SignalSet::of([signo.parse()?]),
                timeout_ms.parse::<u64>()? * 1_000_000,
            );
            for _ in 0..count.parse::<usize>()? {
                match (skin.signal_wait_within)(&set, timeout_ns) {
                    Ok(got) => data += &format!("{} {} {}\n", got.value, got.pid, got.uid),
                    Err(Errno::AGAIN) => break,
                    Err(e) => bail!("{e:?}"),
                }
            }
        }
        other => bail!("what is {other:?}?"),
    }
    Ok(data)
}

/// Waits for room, so that a full queue is no failure.
fn send(skin: &Skin, queue: &OpenQueue, bytes: &[u8], priority: u32) -> anyhow::Result<()> {
    let give_up = (skin.now_ns)() + patience_ns();
    loop {
        match (skin.mq_send)(queue.mqd(), bytes, priority) {
            Ok(()) => return Ok(()),
            Err(Errno::AGAIN) if (skin.now_ns)() < give_up => {
                (skin.sleep_until)((skin.now_ns)() + LOOK_NS)
            }
            Err(e) => bail!("{e:?}"),
        }
    }
}
