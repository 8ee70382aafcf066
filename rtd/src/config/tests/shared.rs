//! Shared memory: lane endpoints, payloads beside signals, who of a group counts, who may be above
//! a lane.

use super::util::check_with;
use super::util::{LANE, LANE_ROUTE, LANES, PROCESS, QUEUES, SIGNALS, machine};
use super::util::{error, expect, lanes, line_of, only, run, shown, warning, whole, with};
use crate::config::{CheckOptions, Checked, Machine};
use crate::endpoint::ring::RingPlan;
use crate::endpoint::{EndpointKind, KINDS};
use crate::plan::{Filter, Plan, TargetPlan};
use rtcore::sys::limits::Limit;
use std::collections::BTreeSet;

#[track_caller]
fn planned(text: &str) -> Plan {
    let Checked { plan, diagnostics } = run(text);
    assert!(diagnostics.is_empty(), "{}", shown(&diagnostics));
    let plan = plan.unwrap();
    assert_eq!(plan.broken_invariant(), None);
    plan
}

fn ring(plan: &Plan, endpoint: usize) -> Option<RingPlan> {
    plan.endpoints[endpoint].kind.ring()
}

fn last(text: &str) -> usize {
    text.lines().count()
}

#[test]
fn a_lane_endpoint_has_slots_and_a_payload() {
    let plan = planned(&lanes());
    assert_eq!(
        ring(&plan, 0),
        Some(RingPlan {
            slots: 64,
            payload_bytes: 64
        })
    );
    assert_eq!(
        (
            plan.sources.len(),
            plan.routes[0].payload_bytes_max,
            plan.threads()
        ),
        (1, 64, 1)
    );
    let plan = planned(&lanes().replace("msgsize = 64\n", ""));
    assert_eq!(
        ring(&plan, 1),
        Some(RingPlan {
            slots: 64,
            payload_bytes: 256
        })
    );
    let plan = planned(&lanes().replace("msgsize = 64", "maxmsg = 65"));
    assert_eq!(
        ring(&plan, 0),
        Some(RingPlan {
            slots: 128,
            payload_bytes: 256
        }),
        "a power of two"
    );
    let plan = planned(&lanes().replace("msgsize = 64", "maxmsg = 1\nmsgsize = 1048576"));
    assert_eq!(
        ring(&plan, 0),
        Some(RingPlan {
            slots: 1,
            payload_bytes: 1 << 20
        })
    );
}

#[test]
fn a_lane_endpoint_has_no_keys_of_other_kinds() {
    for (key, value) in [
        ("queue", "\"/q\""),
        ("mode", "\"0600\""),
        ("signal", "\"SIGUSR1\""),
        ("target", "\"thread\""),
    ] {
        let text = with(
            &lanes(),
            "msgsize = 64",
            &format!("msgsize = 64\n{key} = {value}"),
        );
        let line = line_of(&text, &format!("{key} ="), 0);
        let message = format!("`{key}` has no effect for kind = \"lane\"");
        error(
            &text,
            line,
            &format!("endpoint[0].{key}"),
            &message,
            &format!("remove `{key}`"),
        );
    }
}

/// Whatever its value is: an endpoint of each kind with each key that belongs to other kinds alone.
#[test]
fn no_kind_takes_a_key_of_another_one() {
    for (_, kind, own) in KINDS {
        let needed = match *kind {
            "signal" => "signal = \"SIGRTMIN+9\"\n",
            "xddp" => "port = 0\n",
            _ => "",
        };
        let others = KINDS
            .iter()
            .flat_map(|(.., keys)| *keys)
            .filter(|key| !own.contains(key));
        for key in others.collect::<BTreeSet<_>>() {
            let entry =
                format!("[[endpoint]]\nname = \"more\"\nkind = \"{kind}\"\n{needed}{key} = -1\n");
            let checked = run(&(lanes() + &entry));
            let message = format!("`{key}` has no effect for kind = \"{kind}\"");
            let found: Vec<_> = checked
                .diagnostics
                .iter()
                .filter(|d| d.key.ends_with(key))
                .collect();
            assert_eq!(found.len(), 1, "{kind} {key}");
            assert!(
                found[0].is_error() && found[0].message == message,
                "{}",
                found[0]
            );
            assert_eq!(found[0].fix, format!("remove `{key}`"));
        }
    }
}

#[test]
fn a_lane_endpoint_has_an_owner_and_one_way() {
    let text = with(&lanes(), "owner = \"drive\"\n", "");
    let line = line_of(&text, "[[endpoint]]", 1);
    error(
        &text,
        line,
        "endpoint[1].owner",
        "has no owner",
        "owner = \"drive\"",
    );
    let text = with(&lanes(), "owner = \"drive\"", "owner = \"drives\"");
    error(
        &text,
        line_of(&text, "owner", 1),
        "endpoint[1].owner",
        "did you mean `drive`?",
        "drive",
    );
    let third = "[[endpoint]]\nname = \"third\"\nkind = \"lane\"\nowner = \"drive\"\n\
                 [[route]]\nfrom = \"axis\"\nto = [\"third\"]\nlane = \"control\"\n";
    let text = format!("{}{third}", lanes());
    let message = "`drive` sends into a source, and receives from a sink";
    error(
        &text,
        line_of(&text, "kind", 1),
        "endpoint[1].kind",
        message,
        "`axis.out` for `from`",
    );
}

#[test]
fn a_ring_has_bounds() {
    let size = |keys: &str| with(&lanes(), "msgsize = 64", keys);
    let both = |keys: &str| lanes().replace("msgsize = 64", keys);
    let text = size("msgsize = 1048577");
    let line = line_of(&text, "msgsize", 0);
    error(
        &text,
        line,
        "endpoint[0].msgsize",
        "1048577 is not within 1 to 1048576",
        "msgsize = 1048576",
    );
    let text = size("msgsize = 64\nmaxmsg = 65537");
    error(
        &text,
        line_of(&text, "maxmsg", 0),
        "endpoint[0].maxmsg",
        "not within 1 to 65536",
        "65536",
    );
    let checked = run(&both("maxmsg = 257\nmsgsize = 1048576"));
    let message = "a ring of 512 slots (rounded up from 257) x 1048576 bytes is 536870912 bytes";
    let first = &checked.diagnostics[0];
    expect(
        first,
        line_of(&both("maxmsg = 257"), "maxmsg", 0),
        "endpoint[0].maxmsg",
        message,
        "maxmsg = 256\nmsgsize = 524288",
    );
    assert_eq!(
        (checked.plan.is_none(), checked.diagnostics.len()),
        (true, 2)
    );
    let roomy = Machine {
        memory_available: None,
        rlimit_memlock: None,
        ..machine()
    };
    let most = both("maxmsg = 200\nmsgsize = 1048576");
    let checked = check_with("t", &most, &roomy, CheckOptions::default());
    assert!(checked.plan.is_some(), "{}", shown(&checked.diagnostics));
}

#[test]
fn kinds_are_suggested() {
    let text = with(&lanes(), "\"lane\"", "\"lan\"");
    error(
        &text,
        line_of(&text, "kind", 0),
        "endpoint[0].kind",
        "not one of",
        "kind = \"lane\"",
    );
}

/// A queue, a lane of `drive`, one of `planner`, two signals; the routes are the test's.
fn mixed(sizes: [&str; 2], routes: &str) -> String {
    let lanes = LANES.replace("msgsize = 64", sizes[0]);
    let signals = with(
        SIGNALS,
        "SIGRTMIN+2\"\n",
        &format!("SIGRTMIN+2\"\n{}\n", sizes[1]),
    );
    [LANE, PROCESS, &lanes, QUEUES, &signals, routes].concat()
}

fn from_to(from: &str, to: &str, more: &str) -> String {
    format!("[[route]]\nfrom = \"{from}\"\nto = [\"{to}\"]\nlane = \"control\"\n{more}")
}

fn bound(text: &str) -> usize {
    run(text)
        .plan
        .unwrap_or_else(|| panic!("{}", shown(&run(text).diagnostics)))
        .routes[0]
        .payload_bytes_max
}

#[test]
fn queues_and_lanes_take_what_comes_from_each_other() {
    assert_eq!(
        bound(&mixed(["msgsize = 64", ""], &from_to("in", "axis", ""))),
        64
    );
    assert_eq!(
        bound(&mixed(["msgsize = 64", ""], &from_to("plan", "out", ""))),
        64
    );
    let text = mixed(["msgsize = 32", ""], &from_to("in", "axis", ""));
    let found = run(&text)
        .diagnostics
        .into_iter()
        .find(|d| d.is_error())
        .unwrap();
    let fix = "payload = 32\nmsgsize = 64 (endpoint `axis`)";
    expect(
        &found,
        line_of(&text, "to =", 0),
        "route[0].to[0]",
        "64 bytes go to `axis`, which takes 32",
        fix,
    );
    assert_eq!(bound(&format!("{text}payload = 32\n")), 32);
    let text = mixed(["msgsize = 65", ""], &from_to("plan", "out", ""));
    assert!(run(&text).plan.is_none());
    let large = with(QUEUES, "msgsize = 64", "msgsize = 8388608");
    let text = [LANE, PROCESS, LANES, &large, &from_to("in", "axis", "")].concat();
    let found = check_with("t", &text, &Machine::unknown(), CheckOptions::default()).diagnostics;
    let found = found.into_iter().find(|d| d.is_error()).unwrap();
    assert_eq!(found.fix, "payload = 64", "no ring has so large a slot");
}

#[test]
fn a_lane_goes_to_a_signal_as_a_queue_does() {
    let text = |more: &str| mixed(["msgsize = 64", ""], &from_to("plan", "stop", more));
    assert_eq!(bound(&text("")), 8);
    assert_eq!(bound(&text("truncate = true\n")), 64);
    assert!(run(&text("payload = 9\n")).plan.is_none());
}

#[test]
fn a_signals_value_goes_into_a_lane() {
    let text = |size: &str| {
        mixed(
            [size, ""],
            &from_to("press", "axis", "accept_claimed = true\n"),
        )
    };
    assert_eq!(
        bound(&text("msgsize = 8")),
        rtcore::message::SIGNAL_RECORD_BYTES
    );
    let text = text("msgsize = 7");
    let found = run(&text)
        .diagnostics
        .into_iter()
        .find(|d| d.is_error())
        .unwrap();
    let line = line_of(&text, "to =", 0);
    expect(
        &found,
        line,
        "route[0].to[0]",
        "takes 7 bytes, but a signal's value has 8",
        "msgsize = 8",
    );
}

#[test]
fn a_payload_rides_beside_a_signal() {
    let text = |size: &str, from: &str, more: &str| {
        mixed(
            ["msgsize = 64", &format!("msgsize = {size}\nmaxmsg = 5")],
            &from_to(from, "stop", more),
        )
    };
    let plan = run(&text("32", "in", "")).plan.unwrap();
    let EndpointKind::Signal(signal) = &plan.endpoints[5].kind else {
        panic!()
    };
    assert_eq!(
        signal.inbox,
        Some(RingPlan {
            slots: 8,
            payload_bytes: 32
        })
    );
    for (size, from, expected) in [("32", "in", 32), ("32", "plan", 32), ("100", "plan", 64)] {
        assert_eq!(bound(&text(size, from, "")), expected, "{size} {from}");
    }
    let too_long = text("32", "in", "payload = 33\n");
    assert!(
        run(&too_long)
            .diagnostics
            .iter()
            .any(|d| d.message.contains("which takes 32"))
    );
    let cut = run(&text("32", "in", "truncate = true\n"));
    let found = cut
        .diagnostics
        .iter()
        .find(|d| d.key == "route[0].truncate")
        .unwrap();
    assert!(
        !found.is_error() && found.message.contains("without `msgsize`"),
        "{found}"
    );
    assert!(
        run(&text("8", "press", "accept_claimed = true\n"))
            .plan
            .is_some()
    );
    assert!(
        run(&text("7", "press", "accept_claimed = true\n"))
            .plan
            .is_none(),
        "a value has 8 bytes"
    );
}

#[test]
fn what_rides_beside_a_signal_needs_its_value_and_its_way() {
    let stop = |keys: &str| {
        with(
            &whole(),
            "SIGRTMIN+2\"\n",
            &format!("SIGRTMIN+2\"\n{keys}\n"),
        )
    };
    planned(&stop("msgsize = 64"));
    let text = stop("maxmsg = 3");
    error(
        &text,
        line_of(&text, "maxmsg", 0),
        "endpoint[3].maxmsg",
        "without `msgsize`",
        "msgsize = 256",
    );
    let text = with(&stop("msgsize = 64"), "SIGRTMIN+2", "SIGUSR1");
    let line = line_of(&text, "msgsize", 2);
    error(
        &text,
        line,
        "endpoint[3].msgsize",
        "SIGUSR1 carries no value",
        "remove `msgsize`",
    );
    let text = with(&whole(), "SIGRTMIN+1\"\n", "SIGRTMIN+1\"\nmsgsize = 64\n");
    let line = line_of(&text, "msgsize", 2);
    error(
        &text,
        line,
        "endpoint[2].msgsize",
        "SIGRTMIN+1 as a source carries its value only",
        "kind = \"lane\"",
    );
    let text = stop("msgsize = 0");
    error(
        &text,
        line_of(&text, "msgsize", 2),
        "endpoint[3].msgsize",
        "not within",
        "msgsize = 1",
    );
    let second = "[[endpoint]]\nname = \"stop2\"\nkind = \"signal\"\nsignal = \"SIGRTMIN+2\"\nowner = \"drive\"\n";
    let both = |keys: &str| {
        let text = with(
            &stop("msgsize = 64"),
            "to = [\"stop\"]",
            "to = [\"stop\", \"stop2\"]",
        );
        format!("{text}{second}{keys}")
    };
    let text = both("");
    let line = line_of(&text, "signal = \"SIGRTMIN+2\"", 1);
    error(
        &text,
        line,
        "endpoint[4].signal",
        "only one of them has `msgsize`",
        "signal = \"SIGRTMIN+3\"",
    );
    warning(
        &both("msgsize = 64\n"),
        line,
        "endpoint[4].signal",
        "cannot distinguish the two",
        "signal =",
    );
}

#[test]
fn an_origin_is_the_channels_on_lanes_and_needs_a_queue_of_its_own() {
    let text = format!("{}accept_claimed = true\n", lanes());
    warning(
        &text,
        last(&text),
        "route[0].accept_claimed",
        "only on routes from a signal",
        "remove `accept_claimed`",
    );
    let queue =
        "[[endpoint]]\nname = \"in\"\nkind = \"mqueue\"\nmsgsize = 64\nowner = \"planner\"\n";
    let text = [
        LANE,
        PROCESS,
        LANES,
        queue,
        &from_to("in", "axis", ""),
        LANE_ROUTE,
    ]
    .concat();
    let line = line_of(&text, "[[endpoint]]", 2);
    warning(
        &text,
        line,
        "endpoint[2]",
        "lets the queue's group write",
        "mode = \"0600\"",
    );
    planned(&with(
        &text,
        "owner = \"planner\"\n[[route]]",
        "owner = \"planner\"\nmode = \"0600\"\n[[route]]",
    ));
}

/// A lane that spins on `count` lane endpoints, each sending to a queue.
fn spinning(count: usize, more: &str) -> String {
    let mut text = format!("{LANE}wait = \"spin:50\"\n{more}{PROCESS}{QUEUES}");
    text = text.replace(
        "[[endpoint]]\nname = \"in\"\nkind = \"mqueue\"\nmsgsize = 64\n",
        "",
    );
    for n in 0..count {
        text += &format!(
            "[[endpoint]]\nname = \"e{n}\"\nkind = \"lane\"\nowner = \"drive\"\nmsgsize = 64\n"
        );
        text += &from_to(&format!("e{n}"), "out", "");
    }
    text
}

#[test]
fn a_lane_spins_on_many_sources_that_are_all_rings() {
    let plan = check_with(
        "t",
        &spinning(120, ""),
        &Machine::unknown(),
        CheckOptions::default(),
    )
    .plan
    .unwrap();
    assert_eq!(
        (plan.threads(), plan.sources.len(), plan.broken_invariant()),
        (1, 120, None)
    );
    let many = spinning(121, "");
    let checked = check_with("t", &many, &Machine::unknown(), CheckOptions::default());
    expect(
        only(&checked),
        5,
        "lane[0].wait",
        "they are 121, at most 120 are possible",
        "wait = \"block\"",
    );
    let mixed = format!("{}{}", spinning(2, ""), {
        "[[endpoint]]\nname = \"in\"\nkind = \"mqueue\"\nmsgsize = 64\n".to_owned()
            + &from_to("in", "out", "")
    });
    let message = "its routes read `e0`, `e1`, `in`, and `in` is of kind \"mqueue\"";
    error(
        &mixed,
        5,
        "lane[0].wait",
        message,
        "kind = \"lane\" for all of them",
    );
    let text = spinning(2, "overflow = \"block:500\"\n");
    let checked = run(&text);
    let found = &checked.diagnostics[0];
    expect(
        found,
        6,
        "lane[0].overflow",
        "the one thread that spins on all of lane `control`",
        "reject",
    );
    assert!(
        run(&spinning(1, "overflow = \"block:500\"\n"))
            .plan
            .is_some(),
        "one holds up itself only"
    );
}

#[test]
fn a_group_may_go_by_a_process_group_or_a_session() {
    let group = |keys: &str| {
        let group = format!("[[group]]\nname = \"g\"\nmembers = [\"axis\"]\n{keys}");
        format!(
            "{}{group}",
            with(&lanes(), "to = [\"axis\"]", "to = [\"g\"]")
        )
    };
    for (key, filter) in [
        ("process_group_of", Filter::ProcessGroupOf(1)),
        ("session_of", Filter::SessionOf(1)),
    ] {
        let plan = planned(&group(&format!("{key} = \"planner\"\n")));
        let TargetPlan::Group { filter: made, .. } = plan.routes[0].to[0] else {
            panic!()
        };
        assert_eq!(made, Some(filter));
        let text = group(&format!("{key} = \"planer\"\n"));
        error(
            &text,
            last(&text),
            &format!("group[0].{key}"),
            "did you mean `planner`?",
            key,
        );
    }
    let text = group("process_group_of = \"planner\"\nsession_of = \"drive\"\n");
    error(
        &text,
        last(&text),
        "group[0].session_of",
        "not by both",
        "remove `session_of`",
    );
    let text = with(
        &group("session_of = \"planner\"\n"),
        "[\"axis\"]",
        "[\"axis\", \"out\"]",
    );
    let text = format!("{text}[[endpoint]]\nname = \"out\"\nkind = \"mqueue\"\n");
    let line = line_of(&text, "members", 0);
    error(
        &text,
        line,
        "group[0].members[1]",
        "no process owns `out`",
        "owner = \"drive\" (endpoint `out`)",
    );
    let leader = format!(
        "{}[[process]]\nname = \"leader\"\n",
        group("session_of = \"leader\"\n")
    );
    planned(&leader);
}

#[test]
fn a_process_above_its_lane_is_refused_or_warned_of() {
    let above = |keys: &str| with(&lanes(), PROCESS, &format!("{PROCESS}{keys}"));
    for (keys, expected) in [
        ("", false),
        ("above_ceiling = \"refuse\"\n", false),
        ("above_ceiling = \"warn\"\n", true),
    ] {
        assert_eq!(
            planned(&above(keys)).processes[0].above_ceiling,
            expected,
            "{keys}"
        );
    }
    error(
        &above("above_ceiling = \"wurn\"\n"),
        7,
        "process[0].above_ceiling",
        "not one of",
        "\"warn\"",
    );
}

#[test]
fn rings_are_counted_in_memory_and_files() {
    let plan = planned(&lanes());
    let one = 64 * (64 + 64) + 3 * 4096;
    assert_eq!(
        plan.ring_bytes(),
        2 * one,
        "one from the sender, one to the receiver"
    );
    assert_eq!(plan.descriptors(), 2 * 3 + 1 + 2 * 7);
    let locked = plan.locked_bytes(0);
    let queue = with(
        LANES,
        "kind = \"lane\"\nowner = \"drive\"",
        "kind = \"mqueue\"\nowner = \"drive\"",
    );
    let half = planned(&[LANE, PROCESS, &queue, LANE_ROUTE].concat());
    assert_eq!(
        (half.ring_bytes(), locked - half.locked_bytes(0)),
        (one, one)
    );
    let inbox = with(&whole(), "SIGRTMIN+2\"\n", "SIGRTMIN+2\"\nmsgsize = 8\n");
    assert_eq!(
        planned(&inbox).ring_bytes(),
        one,
        "rounded up to a cache line"
    );

    let short = Machine {
        memory_available: Some(100 << 20),
        rlimit_memlock: None,
        ..machine()
    };
    let large =
        lanes().replace("msgsize = 64", "maxmsg = 256\nmsgsize = 1048576") + "capacity = 1\n";
    let checked = check_with("t", &large, &short, CheckOptions::default());
    let message = "the 1 of endpoint `axis` alone take 268";
    expect(
        only(&checked),
        line_of(&large, "maxmsg", 1),
        "endpoint[1].maxmsg",
        message,
        "smaller maxmsg",
    );
    let limit = |soft: u64| {
        Some(Limit {
            soft: Some(soft),
            hard: Some(soft),
        })
    };
    let files = Machine {
        rlimit_nofile: limit(79),
        ..machine()
    };
    let checked = check_with("t", &lanes(), &files, CheckOptions::default());
    expect(only(&checked), 1, "", "about 85 files", "LimitNOFILE=85");
    let memory = Machine {
        rlimit_memlock: limit(1 << 20),
        ..machine()
    };
    let checked = check_with("t", &lanes(), &memory, CheckOptions::default());
    expect(
        only(&checked),
        1,
        "lane[0]",
        &format!("{} of rings", 2 * one),
        "LimitMEMLOCK=",
    );
}

#[test]
fn the_summary_shows_rings_and_filters() {
    let group = "[[group]]\nname = \"g\"\nmembers = [\"axis\"]\nsession_of = \"planner\"\n";
    let text = format!(
        "{}{group}",
        with(&lanes(), "to = [\"axis\"]", "to = [\"g\"]")
    );
    let shown = crate::config::summary(&planned(&text), &machine());
    for line in [
        "plan -> g (all of 1 in the session of planner)  <=64B  reject x64",
        "axis  lane  64 x 64B",
    ] {
        assert!(shown.contains(line), "{line:?} is not in\n{shown}");
    }
    let text = with(&whole(), "SIGRTMIN+2\"\n", "SIGRTMIN+2\"\nmsgsize = 48\n");
    let shown = crate::config::summary(&planned(&text), &machine());
    assert!(shown.contains("signal SIGRTMIN+2  64 x 48B"), "{shown}");
}
