//! Signals between threads.

use super::util::*;
use crate::skin::{Ending, Signal, Skin, me};
use std::sync::mpsc;
use std::time::Duration;

rules! {
    in_order: "signal: those of one number arrive in order, each with its value",
    lowest_first: "signal: the lowest number comes first",
    of_the_set: "signal: one that is not waited for stays",
    origin: "signal: the receiver sees who sent it",
    number: "signal: sigwait gives the number",
    none_there: "signal: with no time to wait an empty queue is EAGAIN at once",
    times_out: "signal: a bounded wait is EAGAIN, not early",
    wakes: "signal: it wakes a thread that waits",
    ended: "signal: a Linux signal ends a wait",
    pending: "signal: what is pending can be seen",
    apart: "signal: whether Linux's signals are seen",
    sibling: "signal: whether a waiting thread gets what is sent to another one of its process",
    by_pthread: "signal: pthread_sigqueue_np delivers, and its errors are positive numbers",
}

fn in_order(skin: &dyn Skin) -> Ending {
    let values = [1, 2, 3, usize::MAX];
    for value in values {
        skin.signal(me(), FIRST, value)?;
    }
    for value in values {
        let got = skin.wait(&[FIRST])?;
        same("number and value", (got.signo, got.value), (FIRST, value))?;
        same("si_code", got.code, libc::SI_QUEUE)?;
    }
    Ok(String::new())
}

fn lowest_first(skin: &dyn Skin) -> Ending {
    for signo in [THIRD, FIRST, SECOND] {
        skin.signal(me(), signo, 0)?;
    }
    for signo in [FIRST, SECOND, THIRD] {
        same("number", skin.wait(&[FIRST, SECOND, THIRD])?.signo, signo)?;
    }
    Ok(String::new())
}

fn of_the_set(skin: &dyn Skin) -> Ending {
    skin.signal(me(), FIRST, 9)?;
    refused(
        "a wait for another number",
        skin.wait_within(&[SECOND], Duration::ZERO),
        libc::EAGAIN,
    )?;
    same("value", skin.wait(&[FIRST])?.value, 9)?;
    Ok(String::new())
}

fn origin(skin: &dyn Skin) -> Ending {
    let (tell, told) = mpsc::channel();
    let receiver = me();
    std::thread::scope(|scope| {
        let sender = beside(scope, skin, move || {
            let _ = tell.send(me().tid);
            Ok(skin.signal(receiver, FIRST, 0)?)
        });
        let got = skin.wait(&[FIRST])?;
        joined(sender)?;
        let thread = told.recv().map_err(broken)?;
        let process = std::process::id().cast_signed();
        let wanted = if skin.facts().kernel_writes_origin {
            thread
        } else {
            process
        };
        same("si_pid", got.pid, wanted)?;
        Ok(if wanted == thread {
            "the sending thread"
        } else {
            "as the sender wrote it"
        }
        .to_owned())
    })
}

fn number(skin: &dyn Skin) -> Ending {
    skin.signal(me(), SECOND, 0)?;
    same("number", skin.wait_number(&[FIRST, SECOND])?, SECOND)?;
    Ok(String::new())
}

fn none_there(skin: &dyn Skin) -> Ending {
    refused(
        "sigtimedwait",
        skin.wait_within(&[FIRST], Duration::ZERO),
        libc::EAGAIN,
    )
}

fn times_out(skin: &dyn Skin) -> Ending {
    let (waited, late) = not_early(skin, A_WHILE, || skin.wait_within(&[FIRST], A_WHILE))?;
    let errno = refused("sigtimedwait", waited, libc::EAGAIN)?;
    Ok(format!("{errno}, {late}"))
}

fn wakes(skin: &dyn Skin) -> Ending {
    let receiver = me();
    std::thread::scope(|scope| {
        let sender = beside(scope, skin, move || {
            skin.sleep(A_WHILE, false)?;
            Ok(skin.signal(receiver, FIRST, 5)?)
        });
        let got = skin.wait(&[FIRST])?;
        joined(sender)?;
        same("value", got.value, 5)?;
        Ok(String::new())
    })
}

fn ended(skin: &dyn Skin) -> Ending {
    interrupted(skin, || skin.wait(&[FIRST]))
}

fn pending(skin: &dyn Skin) -> Ending {
    skin.signal(me(), FIRST, 0)?;
    let bits = skin.pending()?;
    skin.wait(&[FIRST])?;
    same("pending", bits & (1 << (FIRST - 1)) != 0, true)?;
    same(
        "pending afterwards",
        skin.pending()? & (1 << (FIRST - 1)),
        0,
    )?;
    Ok(String::new())
}

fn apart(skin: &dyn Skin) -> Ending {
    // SAFETY: the calling thread, where the signal is blocked.
    unsafe { libc::pthread_kill(libc::pthread_self(), FIRST) };
    let seen = skin.wait_within(&[FIRST], Duration::ZERO);
    take_linux_signal();
    if skin.facts().shared_namespace {
        seen?;
        return Ok("they are the same".to_owned());
    }
    refused("a wait after a Linux signal", seen, libc::EAGAIN)?;
    Ok("they are not".to_owned())
}

fn take_linux_signal() {
    // SAFETY: the set is initialised before it is used; a null info is allowed; it does not wait.
    unsafe {
        let mut set = std::mem::zeroed();
        libc::sigemptyset(&raw mut set);
        libc::sigaddset(&raw mut set, FIRST);
        let now = libc::timespec {
            tv_sec: 0,
            tv_nsec: 0,
        };
        libc::sigtimedwait(&raw const set, std::ptr::null_mut(), &raw const now);
    }
}

fn sibling(skin: &dyn Skin) -> Ending {
    let addressed = me();
    std::thread::scope(|scope| {
        let waiting = beside(scope, skin, || {
            Ok(skin.wait_within(&[FIRST], Duration::from_millis(500)))
        });
        // Nothing tells that it waits by now.
        skin.sleep(Duration::from_millis(100), false)?;
        skin.signal(addressed, FIRST, 3)?;
        let other: Result<Signal, _> = joined(waiting)?;
        let own = skin.wait_within(&[FIRST], Duration::ZERO);
        same(
            "arrived",
            usize::from(other.is_ok()) + usize::from(own.is_ok()),
            1,
        )?;
        same(
            "the waiting one got it",
            other.is_ok(),
            skin.facts().siblings_help,
        )?;
        Ok(if other.is_ok() {
            "it does"
        } else {
            "it does not"
        }
        .to_owned())
    })
}

fn by_pthread(skin: &dyn Skin) -> Ending {
    match skin.signal_np(me(), FIRST, 11) {
        None => return Err(skipped("not exported")),
        Some(sent) => sent?,
    }
    same("value", skin.wait(&[FIRST])?.value, 11)?;
    let refusal = skin
        .signal_np(me(), 1000, 0)
        .ok_or_else(|| broken("no longer exported"))?;
    refused("number 1000", refusal, libc::EINVAL)
}
