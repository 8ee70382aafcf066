//! What becomes of a signal that cannot be delivered.

use super::util::*;
use crate::skin::{Ending, Errno, Skin, Stop, Target, me};
use std::time::Duration;

rules! {
    thread_gone: "signal: to a thread that has ended it is ESRCH",
    thread_plain: "signal: whether a thread that is not promoted can be reached",
    no_number: "signal: a number that is none is EINVAL",
    coalesces: "signal: a standard one is queued once",
    overflow: "signal: what happens when there is no more room",
    recovers: "signal: once room is made, they are delivered again",
}

fn thread_gone(skin: &dyn Skin) -> Ending {
    let gone = std::thread::scope(|scope| joined(beside(scope, skin, || Ok(me()))))?;
    // Its number stays unused for a while; the thread has to be gone from the kernel's books, which
    // nothing announces.
    let end = std::time::Instant::now() + Duration::from_secs(2);
    while linux_has_thread(gone) && std::time::Instant::now() < end {
        std::thread::yield_now();
    }
    refused("a signal to it", skin.signal(gone, FIRST, 0), libc::ESRCH)
}

fn linux_has_thread(target: Target) -> bool {
    // SAFETY: plain integers; signal 0 only asks.
    unsafe { libc::syscall(libc::SYS_tgkill, libc::getpid(), target.tid, 0) == 0 }
}

fn thread_plain(skin: &dyn Skin) -> Ending {
    let (tell, told) = std::sync::mpsc::channel();
    let (end, ended) = std::sync::mpsc::channel::<()>();
    std::thread::scope(|scope| {
        scope.spawn(move || {
            let _ = tell.send(me());
            let _ = ended.recv();
        });
        let sent = told
            .recv()
            .map(|plain| skin.signal(plain, FIRST, 0))
            .map_err(broken);
        drop(end);
        if skin.facts().promotion_needed {
            return refused("a signal to it", sent?, libc::ESRCH);
        }
        sent??;
        Ok("it can".to_owned())
    })
}

fn no_number(skin: &dyn Skin) -> Ending {
    refused("number 1000", skin.signal(me(), 1000, 0), libc::EINVAL)
}

fn coalesces(skin: &dyn Skin) -> Ending {
    skin.signal(me(), libc::SIGUSR1, 1)?;
    skin.signal(me(), libc::SIGUSR1, 2)?;
    skin.wait(&[libc::SIGUSR1])?;
    refused(
        "the second one",
        skin.wait_within(&[libc::SIGUSR1], Duration::ZERO),
        libc::EAGAIN,
    )?;
    Ok(String::new())
}

/// Sends so many to the calling thread and takes what arrived: accepted, delivered, and the error
/// that ended it.
fn flood(skin: &dyn Skin, count: usize) -> Result<(usize, usize, Option<Errno>), Stop> {
    let (mut accepted, mut error) = (0, None);
    for value in 0..count {
        match skin.signal(me(), FIRST, value) {
            Ok(()) => accepted += 1,
            Err(errno) => {
                error = Some(errno);
                break;
            }
        }
    }
    let mut delivered = 0;
    while let Ok(got) = skin.wait_within(&[FIRST], Duration::ZERO) {
        same("value", got.value, delivered)?;
        delivered += 1;
    }
    Ok((accepted, delivered, error))
}

fn overflow(skin: &dyn Skin) -> Ending {
    if skin.facts().reports_signal_overflow {
        let _limit = PendingLimit::set(16)?;
        let (accepted, delivered, error) = flood(skin, 64)?;
        same("delivered of the accepted", delivered, accepted)?;
        let errno = refused(
            "the one past the limit",
            error.map_or(Ok(()), Err),
            libc::EAGAIN,
        )?;
        return Ok(format!("{errno} after {accepted}"));
    }
    let sent = xenomai::SIGNAL_POOL + 72;
    let (accepted, delivered, error) = flood(skin, sent)?;
    if let Some(errno) = error {
        return Err(broken(format!(
            "{errno} after {accepted}: this library reports overflow, rtd expects it not to"
        )));
    }
    if delivered > xenomai::SIGNAL_POOL || delivered == 0 {
        return Err(broken(format!(
            "{delivered} of {sent} arrived, rtd expects a pool of {}",
            xenomai::SIGNAL_POOL
        )));
    }
    Ok(format!("{sent} accepted, {delivered} delivered"))
}

fn recovers(skin: &dyn Skin) -> Ending {
    let (accepted, delivered, _) = flood(skin, 8)?;
    same("accepted and delivered", (accepted, delivered), (8, 8))?;
    Ok(String::new())
}
