//! Faults that only this machine has: its limits, and the lines that raise them.

use super::util::check_with;
use super::util::{LANE, expect, line_of, machine, only, queues, run, shown, whole, with};
use crate::config::CheckOptions;
use crate::config::machine::{Machine, Queue, Queues};
use rtcore::sys::limits::{Limit, mq_bytes};

fn fixed(value: u64) -> Option<Limit> {
    Some(Limit {
        soft: Some(value),
        hard: Some(value),
    })
}

#[track_caller]
fn refused(text: &str, machine: &Machine, line: usize, key: &str, message: &str, fix: &str) {
    let checked = check_with("t", text, machine, CheckOptions::default());
    assert!(checked.plan.is_none());
    expect(only(&checked), line, key, message, fix);
}

#[test]
fn queue_sizes_are_held_against_the_sysctls_unless_lifted() {
    let text = with(&queues(), "msgsize = 64", "msgsize = 64\nmaxmsg = 11");
    let sysctl = "sysctl -w fs.mqueue.msg_max=11";
    refused(
        &text,
        &machine(),
        9,
        "endpoint[0].maxmsg",
        "maxmsg 11 is above fs.mqueue.msg_max = 10",
        sysctl,
    );
    let lifted = Machine {
        cap_sys_resource: Some(true),
        ..machine()
    };
    assert!(
        check_with("t", &text, &lifted, CheckOptions::default())
            .plan
            .is_some()
    );
    let text = queues().replace("msgsize = 64", "msgsize = 9000");
    let checked = run(&text);
    let line = line_of(&text, "msgsize", 1);
    expect(
        &checked.diagnostics[1],
        line,
        "endpoint[1].msgsize",
        "9000",
        "sysctl -w fs.mqueue.msgsize_max=9000",
    );
    let unknown = Machine {
        msgsize_max: None,
        ..machine()
    };
    assert!(
        check_with("t", &text, &unknown, CheckOptions::default())
            .plan
            .is_some()
    );
}

#[test]
fn the_number_of_queues_is_held_against_queues_max() {
    let queue = |name: &str| Queue {
        name: name.to_owned(),
        uid: Some(0),
        size: None,
    };
    let crowded = Machine {
        queues_max: Some(3),
        queues: Queues::Listed(vec![queue("/a"), queue("/b")]),
        ..machine()
    };
    let text = queues();
    let line = line_of(&text, "[[endpoint]]", 1);
    let fix = "sysctl -w fs.mqueue.queues_max=4";
    refused(
        &text,
        &crowded,
        line,
        "endpoint[1]",
        "2 queues to create and 2 exist",
        fix,
    );
    let adopted = Machine {
        queues_max: Some(3),
        queues: Queues::Listed(vec![queue("/in"), queue("/b")]),
        ..machine()
    };
    assert!(
        check_with("t", &text, &adopted, CheckOptions::default())
            .plan
            .is_some()
    );
}

#[test]
fn queue_bytes_are_held_against_the_users_limit_with_what_exists() {
    let need = 2 * mq_bytes(10, 64);
    let text = queues();
    let enough = Machine {
        rlimit_msgqueue: fixed(need),
        ..machine()
    };
    assert!(
        check_with("t", &text, &enough, CheckOptions::default())
            .plan
            .is_some()
    );
    let short = Machine {
        rlimit_msgqueue: fixed(need - 1),
        cap_sys_resource: Some(true),
        ..machine()
    };
    let line = line_of(&text, "[[endpoint]]", 1);
    let fix =
        format!("LimitMSGQUEUE={need} in the unit's [Service] section\n@rtd - msgqueue {need} in");
    refused(
        &text,
        &short,
        line,
        "endpoint[1]",
        "RLIMIT_MSGQUEUE = 3199",
        &fix,
    );
    let other = Queue {
        name: "/else".to_owned(),
        uid: Some(1000),
        size: Some((1, 1)),
    };
    let shared = Machine {
        queues: Queues::Listed(vec![other.clone()]),
        ..enough.clone()
    };
    refused(
        &text,
        &shared,
        line,
        "endpoint[1]",
        "(97 of them exist)",
        "LimitMSGQUEUE=3297",
    );
    let strangers = Machine {
        queues: Queues::Listed(vec![Queue {
            uid: Some(7),
            ..other
        }]),
        ..enough
    };
    assert!(
        check_with("t", &text, &strangers, CheckOptions::default())
            .plan
            .is_some()
    );
    let soft = Machine {
        rlimit_msgqueue: Some(Limit {
            soft: Some(1),
            hard: None,
        }),
        ..machine()
    };
    let line = line_of(&text, "[[endpoint]]", 0);
    refused(
        &text,
        &soft,
        line,
        "endpoint[0]",
        "RLIMIT_MSGQUEUE = 1",
        "LimitMSGQUEUE=3200",
    );
}

#[test]
fn a_queue_that_exists_keeps_its_size() {
    let has = |m, s| Machine {
        queues: Queues::Listed(vec![Queue {
            name: "/in".to_owned(),
            uid: Some(1000),
            size: Some((m, s)),
        }]),
        ..machine()
    };
    let text = queues();
    let line = line_of(&text, "msgsize", 0);
    refused(
        &text,
        &has(10, 65),
        line,
        "endpoint[0].msgsize",
        "which cannot change",
        "rtctl queue rm /in",
    );
    let checked = check_with("t", &text, &has(9, 64), CheckOptions::default());
    assert!(checked.plan.is_some());
    expect(
        only(&checked),
        line_of(&text, "[[endpoint]]", 0),
        "endpoint[0]",
        "maxmsg 9",
        "maxmsg = 9",
    );
    assert!(
        check_with("t", &text, &has(10, 64), CheckOptions::default())
            .diagnostics
            .is_empty()
    );
}

#[test]
fn locked_memory_and_priority_can_be_put_up_with() {
    let poor = Machine {
        rlimit_memlock: fixed(8 * 1024 * 1024),
        rlimit_rtprio: fixed(0),
        ..machine()
    };
    let checked = check_with("t", &whole(), &poor, CheckOptions::default());
    assert!(checked.plan.is_none());
    let plan = run(&whole()).plan.unwrap();
    let bytes = plan.locked_bytes(poor.program_bytes);
    let kib = bytes.div_ceil(1024);
    let fix =
        format!("LimitMEMLOCK={bytes} in the unit's [Service] section\n@rtd - memlock {kib} in");
    expect(
        &checked.diagnostics[0],
        1,
        "lane[0]",
        "RLIMIT_MEMLOCK = 8388608",
        &fix,
    );
    expect(
        &checked.diagnostics[1],
        3,
        "lane[0].priority",
        "RLIMIT_RTPRIO = 0",
        "@rtd - rtprio 51",
    );
    for diagnostic in &checked.diagnostics {
        assert!(
            diagnostic
                .fix
                .contains("+ep /opt/rtd\nrtd run --allow-degraded"),
            "{}",
            diagnostic.fix
        );
    }
    let degraded = check_with(
        "t",
        &whole(),
        &poor,
        CheckOptions {
            allow_degraded: true,
            ..CheckOptions::default()
        },
    );
    assert!(degraded.plan.is_some(), "{}", shown(&degraded.diagnostics));
    assert_eq!(degraded.diagnostics.len(), 2);
    let able = Machine {
        cap_ipc_lock: Some(true),
        cap_sys_nice: Some(true),
        ..poor
    };
    assert!(
        check_with("t", &whole(), &able, CheckOptions::default())
            .diagnostics
            .is_empty()
    );
}

#[test]
fn queues_in_front_of_targets_fit_into_memory_whatever_the_privilege() {
    let able = Machine {
        cap_ipc_lock: Some(true),
        cap_sys_resource: Some(true),
        rlimit_msgqueue: None,
        memory_available: Some(1 << 30),
        ..machine()
    };
    let large = |capacity: u64| {
        queues().replace("msgsize = 64", "msgsize = 16777216\nmaxmsg = 1")
            + &format!("capacity = {capacity}\n")
    };
    let text = large(65_536);
    let line = text.lines().count();
    let message = "would take 1099515822080 bytes, 1073741824 are available";
    refused(
        &text,
        &able,
        line,
        "route[0].capacity",
        message,
        "capacity = 63",
    );
    let checked = check_with(
        "t",
        &text,
        &able,
        CheckOptions {
            allow_degraded: true,
            ..CheckOptions::default()
        },
    );
    assert!(checked.plan.is_none());
    assert!(
        check_with("t", &large(63), &able, CheckOptions::default())
            .plan
            .is_some()
    );
}

#[test]
fn a_payload_bound_above_the_sources_costs_nothing() {
    let plain = run(&queues()).plan.unwrap();
    let checked = run(&format!("{}payload = 8388608\n", queues()));
    let plan = checked.plan.unwrap();
    assert_eq!(
        (plan.routes[0].payload_bytes_max, plan.backlog_bytes()),
        (64, plain.backlog_bytes())
    );
    assert_eq!(checked.diagnostics.len(), 1);
}

#[test]
fn degraded_does_not_extend_to_queues() {
    let short = Machine {
        rlimit_msgqueue: fixed(10),
        ..machine()
    };
    let checked = check_with(
        "t",
        &queues(),
        &short,
        CheckOptions {
            allow_degraded: true,
            ..CheckOptions::default()
        },
    );
    assert!(checked.plan.is_none());
}

#[test]
fn files_and_pending_signals_are_counted() {
    let few = Machine {
        rlimit_nofile: fixed(64),
        ..machine()
    };
    refused(
        &queues(),
        &few,
        1,
        "",
        "above RLIMIT_NOFILE = 64",
        "LimitNOFILE=70",
    );
    let few = Machine {
        rlimit_sigpending: fixed(10),
        ..machine()
    };
    let checked = check_with("t", &whole(), &few, CheckOptions::default());
    assert!(checked.plan.is_some());
    expect(
        only(&checked),
        1,
        "",
        "RLIMIT_SIGPENDING = 10",
        "@rtd - sigpending 64",
    );
}

#[test]
fn threads_have_a_bound() {
    let mut text = LANE.to_owned();
    for n in 0..1025 {
        text += &format!("[[endpoint]]\nname = \"e{n}\"\nkind = \"mqueue\"\n");
        text += &format!("[[route]]\nfrom = \"e{n}\"\nto = [\"sink\"]\nlane = \"control\"\n");
    }
    text += "[[endpoint]]\nname = \"sink\"\nkind = \"mqueue\"\n";
    let checked = check_with("t", &text, &Machine::unknown(), CheckOptions::default());
    expect(only(&checked), 1, "", "1025 lane threads", "poll");
}

#[test]
fn the_socket_is_where_other_users_find_it_when_root_made_room() {
    let mut machine = super::util::machine();
    machine.uid = 999;
    assert!(!machine.default_socket("rtd").starts_with("/run/rtd"));
    machine.run_dir_owner = Some(999);
    assert_eq!(
        machine.default_socket("rtd"),
        std::path::Path::new("/run/rtd/rtd.sock")
    );
    machine.run_dir_owner = Some(1000);
    assert!(!machine.default_socket("rtd").starts_with("/run/rtd"));
}

/// The lines of the summary that say what the machine adds to latencies.
#[test]
fn the_summary_says_what_the_machine_adds_to_latencies() {
    use rtcore::sys::throttle::Throttle;
    let shown = |text: &str, machine: &Machine| {
        let plan = check_with("t", text, machine, CheckOptions::default())
            .plan
            .unwrap();
        crate::config::summary(&plan, machine)
    };
    let on_isolated = with(&whole(), "cpu = 0", "cpu = 3");
    let held = format!("[daemon]\ncpu_dma_latency = 20\n{on_isolated}");
    assert!(
        !shown(&held, &machine()).contains("note\n"),
        "{}",
        shown(&held, &machine())
    );
    assert!(shown(&on_isolated, &machine()).contains("/dev/cpu_dma_latency is not held by rtd"));
    let text = shown(&whole(), &machine());
    assert!(
        text.contains("lane `control` on CPU 0, not isolated (isolated: 3): boot with isolcpus=0"),
        "{text}"
    );
    type Probe = fn(&[usize]) -> Option<Throttle>;
    let throttle: [(Probe, &str); 3] = [
        (
            |_| {
                Some(Throttle::RealTime {
                    taken_us: 50_000,
                    period_us: 1_000_000,
                })
            },
            "real-time throttling can take 50 ms of every 1000 ms from lanes on a busy CPU (3)",
        ),
        (
            |_| Some(Throttle::FairServer { taken_us: 50_000 }),
            "the fair server can take 50 ms a second",
        ),
        (
            |_| Some(Throttle::FairServerUnread),
            "unless 0 was written to /sys/kernel/debug/sched/fair_server",
        ),
    ];
    for (throttle, says) in throttle {
        let text = shown(
            &held,
            &Machine {
                throttle,
                ..machine()
            },
        );
        assert!(text.contains(says), "no {says:?} in\n{text}");
    }
}

#[test]
fn a_device_that_cannot_be_held_is_a_warning_and_not_a_note_besides() {
    let refused = Machine {
        cpu_dma_latency: Err("Permission denied; mode 0600".into()),
        ..machine()
    };
    let text = format!("[daemon]\ncpu_dma_latency = 20\n{}", whole());
    let checked = check_with("t", &text, &refused, CheckOptions::default());
    expect(
        only(&checked),
        2,
        "daemon.cpu_dma_latency",
        "Permission denied; mode 0600",
        "MODE=\"0660\"",
    );
    let plan = checked.plan.unwrap();
    assert!(!crate::config::summary(&plan, &refused).contains("cpu_dma_latency"));
}
