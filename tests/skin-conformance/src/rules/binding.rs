//! Before the process is bound.

use super::util::{broken, fresh_name, skipped};
use crate::skin::{Ending, Errno, Skin, Stop, me};
use std::time::Duration;

rules! {
    unbound: "binding: before it every call fails and changes nothing",
}

fn unbound(skin: &dyn Skin) -> Ending {
    if !skin.facts().promotion_needed {
        return Err(skipped("this skin has nothing to bind"));
    }
    let name = fresh_name();
    let tried = [
        ("clock_nanosleep", skin.sleep(Duration::ZERO, false)),
        ("sigqueue", skin.signal(me(), 40, 0)),
        ("mq_open", skin.create_queue(&name, 1, 1, true).map(drop)),
        (
            "sigtimedwait",
            skin.wait_within(&[40], Duration::ZERO).map(drop),
        ),
    ];
    let mut seen = None;
    for (call, result) in tried {
        match result {
            Err(Errno(libc::EPERM)) => seen = Some(Errno(libc::EPERM)),
            Err(Errno(libc::ENOSYS)) => {
                return Err(Stop::Broken(format!(
                    "{call}: {}: there is no Cobalt in this kernel",
                    Errno(libc::ENOSYS)
                )));
            }
            other => {
                return Err(broken(format!(
                    "{call}: {other:?}, not {}",
                    Errno(libc::EPERM)
                )));
            }
        }
    }
    Ok(seen.map(|errno| errno.to_string()).unwrap_or_default())
}
