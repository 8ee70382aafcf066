//! What the watchdog is told: values, what they need of each other, and what a skin or a lane rules
//! out.

use super::util::check_with;
use super::util::{error, expect, line_of, machine, only, queues, run, shown, with};
use crate::config::machine::{Cobalt, Found};
use crate::config::{CheckOptions, Machine};
use crate::plan::SkinChoice;
use crate::plan::watch::OnRunaway;

/// A configuration of one source with these keys of the daemon and of the lane.
fn text(daemon: &str, lane: &str) -> String {
    format!(
        "[daemon]\n{daemon}\n{}",
        with(&queues(), "[[lane]]\n", &format!("[[lane]]\n{lane}\n"))
    )
}

#[test]
fn what_is_not_said_has_a_default_that_fits_what_is() {
    let plan = run(&text("", "")).plan.unwrap();
    let (watch, lane) = (&plan.daemon.watch, &plan.lanes[0].watch);
    assert_eq!(
        (watch.period_ns, watch.window_ns),
        (50_000_000, 1_000_000_000)
    );
    assert_eq!(
        (watch.on_runaway, watch.rttime.clone()),
        (OnRunaway::Report, Ok(2_000_000_000))
    );
    assert_eq!(
        (lane.stall_ns, lane.duty_permille),
        (200_000_000, Some(900))
    );
    let plan = run(&text("watchdog = \"2s\"", "")).plan.unwrap();
    assert_eq!(
        (plan.daemon.watch.window_ns, plan.lanes[0].watch.stall_ns),
        (4_000_000_000, 4_000_000_000)
    );
    let plan = run(&text(
        "rttime = \"off\"\non_runaway = \"stop\"",
        "duty = \"100%\"",
    ))
    .plan
    .unwrap();
    assert_eq!(plan.daemon.watch.rttime, Err("switched off".to_owned()));
    assert_eq!(
        (
            plan.daemon.watch.on_runaway,
            plan.lanes[0].watch.duty_permille
        ),
        (OnRunaway::Stop, None)
    );
    let plan = run(&text("", "duty = \"25%\"")).plan.unwrap();
    assert_eq!(plan.lanes[0].watch.duty_permille, Some(250));
}

#[test]
fn wrong_values_say_what_would_be_right() {
    for (lane, key, message, fix) in [
        (
            "duty = 80",
            "duty",
            "80 has no percent sign",
            "duty = \"80%\"",
        ),
        (
            "duty = \"0%\"",
            "duty",
            "0% is not within 1% to 100%",
            "duty = \"1%\"",
        ),
        (
            "duty = \"101%\"",
            "duty",
            "101% is not within",
            "duty = \"100%\"",
        ),
        (
            "duty = \"much\"",
            "duty",
            "is not a share",
            "duty = \"80%\"",
        ),
        (
            "stall = \"2h\"",
            "stall",
            "is not a time (a number and",
            "stall = \"60s\"",
        ),
        (
            "stall = \"1us\"",
            "stall",
            "1us is not within 1ms to 60s",
            "stall = \"1ms\"",
        ),
    ] {
        let text = text("", lane);
        error(
            &text,
            line_of(&text, key, 0),
            &format!("lane[0].{key}"),
            message,
            fix,
        );
    }
    for (daemon, key, message, fix) in [
        (
            "rttime = \"1ms\"",
            "rttime",
            "1ms is not within 10ms to 60s",
            "rttime = \"10ms\"",
        ),
        (
            "rttime = \"never\"",
            "rttime",
            "is not a time (a number and",
            "rttime = \"200ms\"",
        ),
        (
            "on_runaway = \"kill\"",
            "on_runaway",
            "not one of",
            "on_runaway = \"report\"",
        ),
        (
            "watchdog = \"0ms\"",
            "watchdog",
            "0ms is not within 1ms to 10s",
            "watchdog = \"1ms\"",
        ),
    ] {
        let text = text(daemon, "");
        error(&text, 2, &format!("daemon.{key}"), message, fix);
    }
}

#[test]
fn a_bound_that_the_watchdog_cannot_see_is_refused() {
    let unseen = text("watchdog = \"100ms\"", "stall = \"150ms\"");
    let line = line_of(&unseen, "stall", 0);
    error(
        &unseen,
        line,
        "lane[0].stall",
        "samples every 100ms: it cannot measure 150ms",
        "stall = \"200ms\"",
    );
    error(
        &unseen,
        line,
        "lane[0].stall",
        "can measure is 200ms",
        "watchdog = \"75ms\" in [daemon]",
    );
    // What is offered can be had: the watchdog looks at most every millisecond.
    let unseen = text("", "stall = \"1ms\"");
    let checked = run(&unseen);
    assert_eq!(
        only(&checked).fix,
        "stall = \"100ms\"",
        "{}",
        shown(&checked.diagnostics)
    );
    let unseen = text("duty_window = \"50ms\"", "");
    error(
        &unseen,
        2,
        "daemon.duty_window",
        "cannot measure 50ms",
        "duty_window = \"100ms\"",
    );
    assert!(
        run(&text(
            "watchdog = \"25ms\"\nduty_window = \"50ms\"",
            "stall = \"50ms\""
        ))
        .plan
        .is_some()
    );
}

#[test]
fn a_lane_that_never_waits_rules_out_the_kernels_limit() {
    let polls = "wait = \"poll\"\nunisolated = true";
    for (lane, why) in [
        (polls, "lane `control` never sleeps"),
        ("wait = \"spin:50\"", "may spin without end"),
    ] {
        let checked = run(&text("", lane));
        assert!(
            checked.diagnostics.is_empty(),
            "nobody asked for it: {}",
            shown(&checked.diagnostics)
        );
        let plan = checked.plan.unwrap();
        assert!(plan.daemon.watch.rttime.unwrap_err().contains(why));
        assert_eq!(
            plan.lanes[0].watch.duty_permille, None,
            "it has its CPU to itself"
        );
        let checked = run(&text("rttime = \"1s\"", lane));
        assert!(checked.plan.is_some());
        expect(only(&checked), 2, "daemon.rttime", why, "rttime = \"off\"");
    }
}

#[test]
fn threads_that_linux_does_not_schedule_cannot_be_demoted() {
    let found = Found {
        what: "a core".into(),
        xddp: Err("no ports".into()),
    };
    let machine = Machine {
        cobalt: Cobalt::Fixed(Ok(found)),
        ..machine()
    };
    let options = CheckOptions {
        skin: Some(SkinChoice::Cobalt),
        ..CheckOptions::default()
    };
    let checked = check_with("t", &text("on_runaway = \"demote\"", ""), &machine, options);
    let refused = checked.diagnostics.iter().find(|d| d.is_error()).unwrap();
    expect(
        refused,
        2,
        "daemon.on_runaway",
        "not scheduled by Linux",
        "on_runaway = \"stop\"",
    );
    let checked = check_with("t", &text("", ""), &machine, options);
    assert!(
        checked
            .plan
            .unwrap()
            .daemon
            .watch
            .rttime
            .unwrap_err()
            .contains("a watchdog of its own")
    );
}

#[test]
fn a_change_of_threads_that_linux_does_not_schedule_has_no_effect() {
    let found = Found {
        what: "a core".into(),
        xddp: Err("no ports".into()),
    };
    let machine = Machine {
        cobalt: Cobalt::Fixed(Ok(found)),
        ..machine()
    };
    for (skin, warned) in [(SkinChoice::Cobalt, true), (SkinChoice::Posix, false)] {
        for what in ["report", "restore"] {
            let options = CheckOptions {
                skin: Some(skin),
                ..CheckOptions::default()
            };
            let checked = check_with(
                "t",
                &text(&format!("on_tampering = {what:?}"), ""),
                &machine,
                options,
            );
            assert!(checked.plan.is_some());
            let about = checked
                .diagnostics
                .iter()
                .find(|d| d.key == "daemon.on_tampering");
            assert_eq!(
                about.is_some_and(|d| d.message.contains("has no effect on `cobalt`")),
                warned
            );
        }
    }
}
