//! Promotion and modes.

use super::util::{Queue, broken, refused, same, skipped};
use crate::skin::{Ending, Skin};
use std::time::Duration;

rules! {
    promoted: "thread: a thread of Rust's, promoted, may block and is not relaxed",
    not_promoted: "thread: one that is not promoted may not block",
    promoted_twice: "thread: a second promotion only changes the priority",
    no_priority: "thread: SCHED_FIFO without a priority is refused",
    relaxes: "thread: opening a queue relaxes it, the next blocking call takes it back",
    created: "thread: one that the skin makes is real-time from its start, and hands back its value",
    named: "thread: it takes a name",
}

fn promoted(skin: &dyn Skin) -> Ending {
    skin.sleep(Duration::from_micros(100), false)?;
    match skin.relaxed() {
        None => Ok("one mode only".to_owned()),
        Some(false) => Ok(String::new()),
        Some(true) => Err(broken("relaxed (mode 0x80) after a blocking call")),
    }
}

fn not_promoted(skin: &dyn Skin) -> Ending {
    let queue = Queue::create(skin, 1, 8, true)?;
    let tried = std::thread::scope(|scope| {
        let plain = scope.spawn(|| {
            (
                queue.send(b"x", 0),
                skin.sleep(Duration::ZERO, false),
                skin.wait_within(&[40], Duration::ZERO),
                skin.relaxed(),
            )
        });
        plain
            .join()
            .map_err(|_| broken("a helping thread panicked"))
    });
    let (sent, slept, waited, relaxed) = tried?;
    if !skin.facts().promotion_needed {
        sent?;
        slept?;
        return Ok("this skin needs no promotion".to_owned());
    }
    refused("mq_send", sent, libc::EPERM)?;
    refused("sigtimedwait", waited, libc::EPERM)?;
    same("relaxed", relaxed, Some(true))?;
    refused("clock_nanosleep", slept, libc::EPERM)
}

fn promoted_twice(skin: &dyn Skin) -> Ending {
    skin.promote(crate::run::PRIORITY + 1)?;
    skin.sleep(Duration::ZERO, false)?;
    let mut policy = 0;
    // SAFETY: both are ours to write; the thread is the calling one.
    let priority = unsafe {
        let mut param: libc::sched_param = std::mem::zeroed();
        libc::pthread_getschedparam(libc::pthread_self(), &raw mut policy, &raw mut param);
        param.sched_priority
    };
    same(
        "what Linux has of it",
        (policy, priority),
        (libc::SCHED_FIFO, crate::run::PRIORITY + 1),
    )?;
    Ok(String::new())
}

fn no_priority(skin: &dyn Skin) -> Ending {
    refused("pthread_setschedparam", skin.promote(0), libc::EINVAL)
}

fn relaxes(skin: &dyn Skin) -> Ending {
    if skin.relaxed().is_none() {
        return Err(skipped("one mode only"));
    }
    let queue = Queue::create(skin, 1, 8, true)?;
    same("relaxed after mq_open", skin.relaxed(), Some(true))?;
    queue.send(b"x", 0)?;
    same("relaxed after mq_send", skin.relaxed(), Some(false))?;
    Ok(String::new())
}

extern "C" fn add_one(argument: *mut libc::c_void) -> *mut libc::c_void {
    std::ptr::without_provenance_mut(argument.addr() + 1)
}

fn created(skin: &dyn Skin) -> Ending {
    let value = skin.on_own_thread(add_one)?;
    same("its value", value, 21).map(|()| String::new())
}

fn named(skin: &dyn Skin) -> Ending {
    skin.set_name(c"conformance")?;
    Ok(String::new())
}
