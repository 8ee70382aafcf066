//! Time.

use super::util::{A_WHILE, broken, interrupted, not_early};
use crate::skin::{Clock, Ending, Skin};
use std::time::Duration;

rules! {
    forward: "clock: monotonic time does not go back",
    same_clock: "clock: whether monotonic time is Linux's",
    relative: "clock: a relative sleep is not early",
    absolute: "clock: an absolute sleep is not early",
    past: "clock: sleeping until a time that is over returns at once",
    ended: "clock: a Linux signal ends a sleep",
}

fn forward(skin: &dyn Skin) -> Ending {
    let mut last = skin.now(Clock::Monotonic)?;
    for _ in 0..10_000 {
        let now = skin.now(Clock::Monotonic)?;
        if now < last {
            return Err(broken(format!("{now:?} after {last:?}")));
        }
        last = now;
    }
    Ok(String::new())
}

/// Both are legal: it depends on the kernel (README of the bindings). What it is belongs into the
/// report.
fn same_clock(skin: &dyn Skin) -> Ending {
    // SAFETY: ours to write.
    let linux = unsafe {
        let mut now: libc::timespec = std::mem::zeroed();
        libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut now);
        Duration::new(
            now.tv_sec.unsigned_abs(),
            u32::try_from(now.tv_nsec).unwrap_or(0),
        )
    };
    let own = skin.now(Clock::Monotonic)?;
    if own.abs_diff(linux) < Duration::from_millis(10) {
        return Ok("it is".to_owned());
    }
    Ok(format!(
        "it is not: {own:?}, Linux has {linux:?}; compare times of one world only"
    ))
}

fn relative(skin: &dyn Skin) -> Ending {
    let (slept, late) = not_early(skin, A_WHILE, || skin.sleep(A_WHILE, false))?;
    slept?;
    Ok(late)
}

fn absolute(skin: &dyn Skin) -> Ending {
    let at = skin.now(Clock::Monotonic)? + A_WHILE;
    skin.sleep(at, true)?;
    let now = skin.now(Clock::Monotonic)?;
    if now < at {
        Err(broken(format!("{:?} early", at - now)))
    } else {
        Ok(format!("{:?} late", now - at))
    }
}

fn past(skin: &dyn Skin) -> Ending {
    let start = skin.now(Clock::Monotonic)?;
    skin.sleep(start.saturating_sub(A_WHILE), true)?;
    let took = skin.now(Clock::Monotonic)? - start;
    if took > A_WHILE {
        Err(broken(format!("took {took:?}")))
    } else {
        Ok(String::new())
    }
}

fn ended(skin: &dyn Skin) -> Ending {
    interrupted(skin, || skin.sleep(Duration::from_secs(5), false))
}
