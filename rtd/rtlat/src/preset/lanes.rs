//! Shared memory: through a lane of the daemon, and from process to process.

use super::helper::{Relay, idle};
use super::setup::{BYTES, Effort, LANE_PRIORITY, Path, Setup, daemon, measure};
use super::table::{Aim, Findings, Row};
use crate::control_block::Block;
use crate::mech::{Kind, Mechanism};
use crate::pair::Work;
use crate::role_loops::ThreadPlacement;
use crate::route::{OwnRoute, Rings, RoutePath};
use crate::run::Conditions;
use std::fmt::Write as _;
use std::sync::Arc;

/// Priority of clients beside a lane that has a CPU of its own.
const CLIENT_PRIORITY: u8 = 70;
/// Rings that a spinning lane serves.
const RINGS: usize = 64;
/// Registered clients of the larger daemon.
const CLIENTS: usize = 64;
/// Between messages to a spinning lane, which then sleeps: it spins for 20 us.
const IDLE_NS: u64 = 200_000;

/// Every thread sleeps until it is woken, on one CPU, at one priority.
pub fn blocking(effort: &Effort, conditions: &mut Conditions) -> anyhow::Result<Findings> {
    let routes = [
        OwnRoute::new(RoutePath::Lane, 0, BYTES)?,
        OwnRoute::new(RoutePath::Direct, 1, BYTES)?,
        // Into the relay, and out of it.
        OwnRoute::new(RoutePath::Direct, 2, BYTES)?,
        OwnRoute::new(RoutePath::Direct, 3, BYTES)?,
        // An inbox with eight rings of the daemon sleeps at one bell.
        OwnRoute::new(RoutePath::Lane, 4, BYTES)?.with_rings(8),
    ];
    let daemon = daemon(effort, &routes)?;
    let of = |n: usize| routes[n].mechanism(&daemon);
    let placement = effort.placement(LANE_PRIORITY);
    let relay = Relay::start("bare relay", Arc::new(of(2)?), Arc::new(of(3)?), placement)?;
    let paths = vec![
        Path::raw("mq", Kind::Mq, 0, placement)?,
        Path::hop("bare relay, direct -> direct", None, relay, placement),
        Path::hop("lane routed", Some(Aim::Times(1.6)), of(0)?, placement),
        Path::hop("lane routed, inbox of 8 rings", None, of(4)?, placement),
        Path::hop("lane direct", Some(Aim::Times(1.0)), of(1)?, placement),
    ];
    conditions.daemons.push(daemon);
    let rows = measure(effort, conditions, effort.back_to_back(), paths)?;
    let caption = "shared memory, every thread sleeps until woken, all at FIFO 80".to_owned();
    Ok(Findings {
        caption,
        has_ratios: true,
        rows,
        ..Findings::default()
    })
}

/// The polling thread has a CPU of its own: the lane in the first row, the receiver in the second.
pub fn polling(effort: &Effort, conditions: &mut Conditions) -> anyhow::Result<Findings> {
    let caption = "the lane or the receiver polls on the other CPU".to_owned();
    let Some(other) = effort.other else {
        return Ok(no_second_cpu(caption));
    };
    let polls = Block {
        polls: true,
        ..effort.back_to_back()
    };
    let routes = [OwnRoute::new(RoutePath::Lane, 0, BYTES)?];
    let daemon = Setup {
        cpu: other,
        ..polled("poll", &routes)
    }
    .start()?;
    let routed = one_thread(
        "lane routed, one thread",
        Some(Aim::P50Ns(1000)),
        routes[0].mechanism(&daemon)?.polling(),
        effort,
    );
    conditions.daemons.push(daemon);
    let mut rows = measure(effort, conditions, effort.back_to_back(), vec![routed])?;
    let routes = [OwnRoute::new(RoutePath::Direct, 0, BYTES)?];
    let daemon = super::setup::daemon(effort, &routes)?;
    let receiver = ThreadPlacement {
        cpu: Some(other),
        priority: CLIENT_PRIORITY,
    };
    let mechanism = routes[0].mechanism(&daemon)?.polling();
    let direct = Path::hop(
        "lane direct, both poll",
        Some(Aim::P50Ns(150)),
        mechanism,
        effort.placement(CLIENT_PRIORITY),
    );
    conditions.daemons.push(daemon);
    rows.extend(measure(
        effort,
        conditions,
        polls,
        vec![Path { receiver, ..direct }],
    )?);
    Ok(Findings {
        caption,
        rows,
        ..Findings::default()
    })
}

/// A lane on the other CPU that serves 64 rings and has gone to sleep, as it does after 20 us
/// without a message: the time until the inbox has one message out of one of the rings, and until
/// it has one out of each.
pub fn spinning(effort: &Effort, conditions: &mut Conditions) -> anyhow::Result<Findings> {
    let caption = format!("a spinning lane on the other CPU, {RINGS} rings");
    let Some(other) = effort.other else {
        return Ok(no_second_cpu(caption));
    };
    let mut rows: Vec<Row> = Vec::new();
    for (title, count) in [
        ("one message, one ring of 64", 1),
        ("one message of each of 64 rings", RINGS),
    ] {
        let routes = [OwnRoute::new(RoutePath::Lane, 0, BYTES)?.with_rings(RINGS)];
        let daemon = Setup {
            cpu: other,
            ..polled("spin:20", &routes)
        }
        .start()?;
        let path = one_thread(title, None, Rings::of(&routes[0], &daemon, count), effort);
        conditions.daemons.push(daemon);
        let block = Block {
            interval_ns: IDLE_NS,
            polls: true,
            ..effort.back_to_back()
        };
        rows.extend(measure(effort, conditions, block, vec![path])?);
    }
    Ok(Findings {
        caption,
        rows,
        ..Findings::default()
    })
}

/// The same hop in a daemon with two sessions and in one with 64.
pub fn clients(effort: &Effort, conditions: &mut Conditions) -> anyhow::Result<Findings> {
    let routes = [
        OwnRoute::new(RoutePath::Lane, 0, BYTES)?,
        OwnRoute::new(RoutePath::Lane, 1, BYTES)?,
    ];
    let names: Vec<String> = (2..CLIENTS).map(|n| format!("idle{n}")).collect();
    let mut more = String::new();
    for name in &names {
        let _ = writeln!(
            more,
            "[[process]]\nname = \"{name}\"\nabove_ceiling = \"warn\""
        );
        for end in ["in", "out"] {
            let _ = writeln!(
                more,
                "[[endpoint]]\nname = \"{name}.{end}\"\nkind = \"lane\"\nowner = \"{name}\"\nmsgsize = {BYTES}"
            );
        }
        let _ = writeln!(
            more,
            "[[route]]\nfrom = \"{name}.in\"\nto = [\"{name}.out\"]\nlane = \"lane\""
        );
    }
    let (cpu, wait) = (effort.cpu, "block");
    let two = Setup {
        name: "rtlat",
        cpu,
        wait,
        routes: &routes[..1],
        more: "",
        queues: Vec::new(),
    };
    let many = Setup {
        name: "rtlat-many",
        cpu,
        wait,
        routes: &routes[1..],
        more: &more,
        queues: Vec::new(),
    };
    let (two, many) = (two.start()?, many.start()?);
    let _idle = idle(many.socket(), &names)?;
    let placement = effort.placement(LANE_PRIORITY);
    let paths = vec![
        Path::hop(
            "2 registered clients",
            None,
            routes[0].mechanism(&two)?,
            placement,
        ),
        Path::hop(
            "64 registered clients",
            Some(Aim::Times(1.1)),
            routes[1].mechanism(&many)?,
            placement,
        ),
    ];
    conditions.daemons.extend([two, many]);
    let rows = measure(effort, conditions, effort.back_to_back(), paths)?;
    let caption = "cost per message by the number of registered clients".to_owned();
    Ok(Findings {
        caption,
        has_ratios: true,
        rows,
        ..Findings::default()
    })
}

/// A lane that has a CPU to itself.
fn polled<'a>(wait: &'a str, routes: &'a [OwnRoute]) -> Setup<'a> {
    Setup {
        name: "rtlat",
        cpu: 0,
        wait,
        routes,
        more: "",
        queues: Vec::new(),
    }
}

/// Sender and receiver are one thread, beside the polling one.
fn one_thread(
    title: &'static str,
    aim: Option<Aim>,
    mechanism: impl Mechanism + 'static,
    effort: &Effort,
) -> Path {
    let placement = effort.placement(CLIENT_PRIORITY);
    Path {
        title,
        aim,
        work: Work::OneThread(Box::new(mechanism)),
        sender: placement,
        receiver: placement,
    }
}

/// The result of a measurement that needs a second CPU on a machine without one.
pub fn no_second_cpu(caption: String) -> Findings {
    Findings {
        caption: format!("{caption}: not measured, as it needs a second CPU"),
        ..Findings::default()
    }
}
