//! Which skin a plan runs on, and what that one cannot do.

use super::util::check_with;
use super::util::{LANE, PROCESS, QUEUES, ROUTE, SIGNAL_ROUTE, SIGNALS, lanes, machine, queues};
use crate::config::machine::{Cobalt, Found};
use crate::config::{CheckOptions, Checked};
use crate::endpoint::EndpointKind;
use crate::plan::{SkinChoice, SkinKind};
use std::path::Path;

fn on(answer: Result<&str, &str>, text: &str, skin: Option<SkinChoice>) -> Checked {
    with_devices(Path::new("/dev"), answer, text, skin)
}

fn with_devices(
    devices: &Path,
    answer: Result<&str, &str>,
    text: &str,
    skin: Option<SkinChoice>,
) -> Checked {
    let found = answer.map(|what| Found {
        what: what.to_owned(),
        xddp: Ok(devices.to_owned()),
    });
    let cobalt = Cobalt::Fixed(found.map_err(str::to_owned));
    let machine = crate::config::Machine {
        cobalt,
        ..machine()
    };
    check_with(
        "t",
        text,
        &machine,
        CheckOptions {
            skin,
            ..CheckOptions::default()
        },
    )
}

fn kind(checked: &Checked) -> Option<(SkinKind, &str)> {
    checked
        .plan
        .as_ref()
        .map(|plan| (plan.daemon.skin.kind, plan.daemon.skin.why.as_str()))
}

#[test]
fn auto_takes_cobalt_where_it_can_be_had_and_says_nothing_where_not() {
    let text = [LANE, QUEUES, ROUTE].concat();
    assert_eq!(
        kind(&on(Ok("core 3.2"), &text, None)),
        Some((SkinKind::Cobalt, "core 3.2"))
    );
    let none = on(Err("no core"), &text, None);
    assert_eq!(
        (kind(&none), none.diagnostics.len()),
        (Some((SkinKind::Posix, "no core")), 0)
    );
}

#[test]
fn an_order_counts_more_than_the_file() {
    let text = format!(
        "[daemon]\nskin = \"posix\"\n{}",
        [LANE, QUEUES, ROUTE].concat()
    );
    assert_eq!(
        kind(&on(Ok("core"), &text, None)),
        Some((SkinKind::Posix, "asked for"))
    );
    assert_eq!(
        kind(&on(Ok("core"), &text, Some(SkinChoice::Cobalt))),
        Some((SkinKind::Cobalt, "core"))
    );
    let refused = on(Err("no core"), &text, Some(SkinChoice::Cobalt));
    assert!(refused.plan.is_none());
    let shown = refused.diagnostics[0].to_string();
    assert!(
        shown.contains("daemon.skin") && shown.contains("Cobalt is not available: no core"),
        "{shown}"
    );
}

#[test]
fn a_library_that_is_named_is_absolute_and_missed_aloud() {
    let with = |path: &str| {
        format!(
            "[daemon]\ncobalt_library = {path:?}\n{}",
            [LANE, QUEUES, ROUTE].concat()
        )
    };
    let relative = on(Ok("core"), &with("libcobalt.so.2"), None);
    assert!(
        relative.plan.is_none()
            && relative.diagnostics[0]
                .to_string()
                .contains("not the absolute path")
    );
    let missed = on(Err("it is gone"), &with("/x/libcobalt.so.2"), None);
    assert!(
        missed.plan.is_some()
            && missed.diagnostics[0]
                .to_string()
                .contains("on posix: it is gone")
    );
}

/// A ring displaces whatever the clock of its lane; a ttl ends where the receiver's library cannot
/// read that clock.
#[test]
fn a_ring_of_a_cobalt_lane_displaces_and_its_ttl_ends_at_the_hand_over() {
    for displacing in ["overflow = \"conflate\"", "overflow = \"displace-oldest\""] {
        assert_eq!(
            on(Ok("core"), &format!("{}{displacing}\n", lanes()), None)
                .diagnostics
                .len(),
            0,
            "{displacing}"
        );
    }
    for (overflow, count) in [("reject", "up to 64 messages"), ("conflate", "a message")] {
        let text = format!("{}ttl = \"5ms\"\noverflow = \"{overflow}\"\n", lanes());
        let checked = on(Ok("core"), &text, None);
        let shown = checked
            .diagnostics
            .iter()
            .map(ToString::to_string)
            .collect::<Vec<_>>()
            .join("\n");
        assert_eq!(checked.diagnostics.len(), 1, "{shown}");
        assert!(
            shown.contains(&format!("the ring of `axis` keeps {count}")),
            "{shown}"
        );
    }
}

#[test]
fn rings_are_routed_on_every_skin_as_far_as_there_are_doorbells() {
    assert_eq!(on(Ok("core"), &lanes(), None).diagnostics.len(), 0);
    let mut many = lanes();
    for n in 0..1024 {
        many += &format!(
            "[[endpoint]]\nname = \"axis{n}\"\nkind = \"lane\"\nowner = \"drive\"\nmsgsize = 64\nmaxmsg = 1\n\
             [[route]]\nfrom = \"plan\"\nto = [\"axis{n}\"]\nlane = \"control\"\n"
        );
    }
    let refused = on(Ok("core"), &many, None);
    assert!(refused.plan.is_none());
    let shown = refused
        .diagnostics
        .iter()
        .map(ToString::to_string)
        .collect::<String>();
    assert!(
        shown.contains("has a semaphore: 1027, at most 1024"),
        "{shown}"
    );
    let posix = on(Ok("core"), &many, Some(SkinChoice::Posix));
    assert!(
        posix
            .diagnostics
            .iter()
            .all(|d| !d.to_string().contains("semaphore"))
    );
}

#[test]
fn what_a_capability_forbids_is_refused_on_the_route_or_warned_of() {
    let process = on(
        Ok("core"),
        &[LANE, PROCESS, SIGNALS, SIGNAL_ROUTE].concat(),
        None,
    );
    assert!(process.plan.is_some());
    assert!(process.diagnostics.iter().any(|d| {
        d.to_string()
            .contains("would go to its owner's main thread")
    }));
}

/// On a real core such a lane froze the machine, on an isolated CPU too; one that spins for a while
/// does not.
#[test]
fn a_lane_that_polls_is_refused_on_cobalt_also_on_an_isolated_cpu() {
    let lane = |wait: &str| format!("{LANE}wait = {wait:?}\nunisolated = true\n");
    let text = |wait: &str| [&lane(wait), QUEUES, ROUTE].concat();
    let refused = on(Ok("core"), &text("poll"), None);
    let shown = super::util::shown(&refused.diagnostics);
    assert!(refused.plan.is_none(), "{shown}");
    assert!(
        shown.contains("must not poll") && shown.contains("freezes the whole machine"),
        "{shown}"
    );
    assert!(shown.contains("wait = \"spin:50\""), "{shown}");
    assert!(
        on(Ok("core"), &text("poll"), Some(SkinChoice::Posix))
            .plan
            .is_some()
    );
    assert!(on(Ok("core"), &text("spin:50"), None).plan.is_some());
}

/// One piece of memory of the kernel holds a queue; the largest that it gives was met on a real
/// core.
#[test]
fn a_queue_that_is_larger_than_the_core_can_make_is_refused_on_cobalt() {
    let text = |maxmsg: usize| {
        queues().replace(
            "msgsize = 64\n",
            &format!("msgsize = 8160\nmaxmsg = {maxmsg}\n"),
        )
    };
    // The other limits are Linux's queues', whose numbers these exceed.
    let refusal = |maxmsg| {
        let checked = on(Ok("core"), &text(maxmsg), None);
        let found = checked
            .diagnostics
            .into_iter()
            .find(|d| d.message.contains("a queue has at most"));
        found.map(|d| (d.is_error(), d.key, d.message, d.fix))
    };
    assert_eq!(refusal(512), None);
    let (is_error, key, message, fix) = refusal(513).unwrap();
    assert!(is_error && key == "endpoint[0].maxmsg", "{key}");
    assert!(
        message.contains("513 messages of 8160 bytes take 4202496 bytes"),
        "{message}"
    );
    assert!(
        message.contains("on `cobalt` a queue has at most 4194304"),
        "{message}"
    );
    assert!(fix.starts_with("maxmsg = 512\nmsgsize = 8144\n"), "{fix}");
}

#[test]
fn both_directions_of_a_port_are_no_circle_and_its_sizes_count() {
    let devices = std::env::temp_dir().join(format!("rtd-devices-{}", std::process::id()));
    std::fs::create_dir_all(&devices).unwrap();
    std::fs::write(devices.join("rtp3"), "").unwrap();
    let port =
        "[[endpoint]]\nname = \"hmi\"\nkind = \"xddp\"\nport = 3\nmsgsize = 64\nmaxmsg = 32\n";
    let there = "[[route]]\nfrom = \"in\"\nto = [\"hmi\"]\nlane = \"control\"\n";
    let back = "[[route]]\nfrom = \"hmi\"\nto = [\"in\"]\nlane = \"control\"\n";
    let queue = "[[endpoint]]\nname = \"in\"\nkind = \"mqueue\"\nmsgsize = 64\n";
    let text = [LANE, queue, port, there, back].concat();
    let cobalt = Some(SkinChoice::Cobalt);
    let checked = with_devices(&devices, Ok("core"), &text, cobalt);
    assert!(
        checked.diagnostics.is_empty(),
        "{}",
        super::util::shown(&checked.diagnostics)
    );
    let plan = checked.plan.unwrap();
    assert_eq!(plan.broken_invariant(), None);
    let EndpointKind::Xddp(port) = &plan.endpoints[1].kind else {
        panic!()
    };
    // 64 bytes and a header are a piece of 128; the lane's buffer has room for the whole pool.
    assert_eq!(
        (port.port, port.pool_bytes(), plan.buffer_bytes()),
        (3, 4096, 4096)
    );
    assert_eq!(plan.queue_bytes(), rtcore::sys::limits::mq_bytes(10, 64));
    assert_eq!(plan.notes().len(), 3, "{:?}", plan.notes());
    let long = text.replacen("msgsize = 64\nmaxmsg", "msgsize = 128\nmaxmsg", 1);
    let refused = with_devices(&devices, Ok("core"), &long, cobalt);
    assert!(
        refused.diagnostics[0]
            .to_string()
            .contains("up to 128 bytes go to `in`, which takes 64")
    );
    std::fs::remove_dir_all(&devices).unwrap();
    let gone = with_devices(&devices, Ok("core"), &text, cobalt);
    assert!(gone.plan.is_none() && gone.diagnostics[0].to_string().contains("has no device"));
}
