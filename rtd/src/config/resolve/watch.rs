//! The settings of the watchdog: its period, the limits of each lane, and its reaction to a lane
//! that exceeds them.

use super::{Context, skin, whole_file};
use crate::config::sections::{Lane, WATCHDOG_NS_MIN};
use crate::config::values::{DutyText, OnRunawayText, OnTamperingText, RttimeText};
use crate::plan::Plan;
use crate::plan::watch::{DUTY_PERMILLE, PERIOD_NS, RTTIME_NS, STALL_NS, WINDOW_NS};
use crate::plan::watch::{LaneWatch, OnRunaway, OnTampering, WatchPlan};
use crate::words::show_time;
use rtcore::lane::policy::Wait;

/// Number of samples that each limit must have room for.
const LOOKS_MIN: u64 = 2;

fn period_ns(cx: &Context<'_, '_, '_>) -> u64 {
    cx.config
        .daemon
        .watchdog
        .get()
        .map_or(PERIOD_NS, |time| time.0)
}

/// Resolves the keys of `[daemon]`.
pub fn daemon(cx: &mut Context<'_, '_, '_>) -> WatchPlan {
    let daemon = &cx.config.daemon;
    let period_ns = period_ns(cx);
    let least_ns = LOOKS_MIN * period_ns;
    let window_ns = daemon
        .duty_window
        .get()
        .map_or(WINDOW_NS.max(least_ns), |time| time.0);
    if let Some(at) = daemon.duty_window.at()
        && at.value.0 < least_ns
    {
        too_short(cx, &at.place, "duty_window", at.value.0, least_ns);
    }
    let on_runaway = daemon
        .on_runaway
        .get()
        .map_or(OnRunaway::Report, |OnRunawayText(what)| *what);
    let on_tampering = daemon
        .on_tampering
        .get()
        .map_or(OnTampering::Report, |OnTamperingText(what)| *what);
    let rttime = match daemon.rttime.get() {
        None => Ok(RTTIME_NS),
        Some(RttimeText(Some(ns))) => Ok(*ns),
        Some(RttimeText(None)) => Err("switched off".to_owned()),
    };
    WatchPlan {
        period_ns,
        window_ns,
        on_runaway,
        on_tampering,
        rttime,
    }
}

/// Resolves the keys of a `[[lane]]`.
pub fn lane(cx: &mut Context<'_, '_, '_>, lane: &Lane, wait: Wait) -> LaneWatch {
    let least_ns = LOOKS_MIN * period_ns(cx);
    if let Some(at) = lane.stall.at()
        && at.value.0 < least_ns
    {
        too_short(cx, &at.place, "stall", at.value.0, least_ns);
    }
    let duty_permille = match lane.duty.get() {
        Some(DutyText(percent)) => (*percent < 100).then_some(percent * 10),
        None => (wait == Wait::Block).then_some(DUTY_PERMILLE),
    };
    LaneWatch {
        stall_ns: lane
            .stall
            .get()
            .map_or(STALL_NS.max(least_ns), |time| time.0),
        duty_permille,
    }
}

fn too_short(
    cx: &mut Context<'_, '_, '_>,
    place: &crate::config::diagnostic::Place,
    key: &str,
    ns: u64,
    least_ns: u64,
) {
    let message = format!(
        "the watchdog samples every {}: it cannot measure {}; the shortest time that it can \
         measure is {}",
        show_time(least_ns / LOOKS_MIN),
        show_time(ns),
        show_time(least_ns)
    );
    let mut fix = format!("{key} = \"{}\"", show_time(least_ns));
    if ns / LOOKS_MIN >= WATCHDOG_NS_MIN {
        fix.push_str(&format!(
            "\nwatchdog = \"{}\" in [daemon]",
            show_time(ns / LOOKS_MIN)
        ));
    }
    cx.report.error(place, message, fix);
}

/// Refuses settings that this skin and these lanes do not support.
pub fn check(cx: &mut Context<'_, '_, '_>, plan: &mut Plan) {
    let daemon = &cx.config.daemon;
    let (caps, skin) = (plan.daemon.skin.kind.caps(), plan.daemon.skin.kind.name());
    if !caps.linux_threads && plan.daemon.watch.on_runaway == OnRunaway::Demote {
        let message =
            format!("a thread on `{skin}` is not scheduled by Linux: it cannot be demoted");
        cx.report.error(
            &daemon.on_runaway.place_or(&whole_file()),
            message,
            format!(
                "on_runaway = \"stop\"\non_runaway = \"report\"\n{}",
                skin::posix(cx)
            ),
        );
    }
    if let (false, Some(at)) = (caps.linux_threads, daemon.on_tampering.at()) {
        let message = format!(
            "`on_tampering` has no effect on `{skin}`: the core schedules its threads, and a change that Linux shows does not \
             reach them"
        );
        cx.report.warning(
            &at.place,
            message,
            format!("remove `on_tampering`\n{}", skin::posix(cx)),
        );
    }
    if plan.daemon.watch.rttime.is_err() {
        return;
    }
    let restless = plan.lanes.iter().find(|lane| lane.wait != Wait::Block);
    let why = if !caps.linux_threads {
        format!("the skin `{skin}` has a watchdog of its own, which uses the same signal")
    } else if let Some(lane) = restless {
        format!(
            "lane `{}` {}",
            lane.name,
            if lane.wait == Wait::Poll {
                "never sleeps"
            } else {
                "may spin without end"
            }
        )
    } else {
        return;
    };
    if let Some(at) = daemon.rttime.at() {
        let message = format!(
            "RLIMIT_RTTIME is a limit of the whole process and is not set: \
        {why}"
        );
        cx.report.warning(
            &at.place,
            message,
            "rttime = \"off\"\nwait = \"block\" in all lanes",
        );
    }
    plan.daemon.watch.rttime = Err(why);
}
