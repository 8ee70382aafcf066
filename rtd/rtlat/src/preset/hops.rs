//! Queues and signals: one hop, the same among 500 routes, and a message to eight receivers.

use super::helper::{Relay, drain};
use super::setup::{BYTES, Effort, LANE_PRIORITY, Path, Setup, daemon, measure};
use super::table::{Aim, Findings, Line, Row};
use crate::mech::mq::{Mq, QueueRx};
use crate::mech::{Kind, Rx};
use crate::report::raw_at;
use crate::route::{In, Out, OwnRoute, Route, RoutePath, depth};
use crate::run::Conditions;
use anyhow::Context as _;
use rtd::daemon::own;
use std::ffi::CString;
use std::fmt::Write as _;
use std::sync::Arc;

/// Priority of clients in a normal deployment.
const CLIENT_PRIORITY: u8 = 70;
const ROUTES: usize = 500;
const WIDTH: usize = 8;

/// Everything at FIFO 80: nobody preempts, each runs when the one before it blocks.
pub fn equal(effort: &Effort, conditions: &mut Conditions) -> anyhow::Result<Findings> {
    let aims = [Some(Aim::Times(2.0)), Some(Aim::Times(2.3))];
    one_hop(
        "one hop, everything at FIFO 80",
        LANE_PRIORITY,
        aims,
        effort,
        conditions,
    )
}

/// Clients below the lane, which then preempts the sender inside its send.
pub fn below_the_lane(effort: &Effort, conditions: &mut Conditions) -> anyhow::Result<Findings> {
    one_hop(
        "one hop, lane FIFO 80 above clients at 70",
        CLIENT_PRIORITY,
        [None; 2],
        effort,
        conditions,
    )
}

fn one_hop(
    caption: &str,
    priority: u8,
    [to_mq, to_signal]: [Option<Aim>; 2],
    effort: &Effort,
    conditions: &mut Conditions,
) -> anyhow::Result<Findings> {
    let routes = [
        OwnRoute::new(RoutePath::MqMq, 0, BYTES)?,
        OwnRoute::new(RoutePath::MqSignal, 1, BYTES)?,
    ];
    let daemon = daemon(effort, &routes)?;
    let [queue, signal] = [routes[0].mechanism(&daemon)?, routes[1].mechanism(&daemon)?];
    conditions.daemons.push(daemon);
    let placement = effort.placement(priority);
    let router = Relay::start(
        "bare router",
        Arc::new(Mq::new(BYTES, 1)?),
        Arc::new(Mq::new(BYTES, 2)?),
        effort.placement(LANE_PRIORITY),
    )?;
    let paths = vec![
        Path::raw("mq", Kind::Mq, 0, placement)?,
        Path::hop("bare router, mq -> mq", None, router, placement),
        Path::raw("signal", Kind::Signal, 0, placement)?,
        Path::hop("mq -> mq", to_mq, queue, placement),
        Path::hop("mq -> signal", to_signal, signal, placement),
    ];
    let rows = measure(effort, conditions, effort.back_to_back(), paths)?;
    Ok(Findings {
        caption: caption.to_owned(),
        has_ratios: true,
        rows,
        ..Findings::default()
    })
}

/// A queue as an endpoint.
fn mqueue(name: &str, queue: &str, maxmsg: u64) -> String {
    format!(
        "[[endpoint]]\nname = \"{name}\"\nkind = \"mqueue\"\nqueue = \"{queue}\"\nmaxmsg = {maxmsg}\nmsgsize = {BYTES}\n"
    )
}

fn route(from: &str, to: &str, more: &str) -> String {
    format!("[[route]]\nfrom = \"{from}\"\nto = [\"{to}\"]\nlane = \"lane\"\n{more}\n")
}

/// The same route alone in its daemon and among 500.
pub fn many_routes(effort: &Effort, conditions: &mut Conditions) -> anyhow::Result<Findings> {
    let caption = format!("cost per message with {ROUTES} routes");
    let raised = QueuesMax::raise(ROUTES + 100);
    if let Err(e) = &raised {
        let caption =
            format!("{caption}: not measured, as it needs fs.mqueue.queues_max > {ROUTES}: {e:#}");
        return Ok(Findings {
            caption,
            ..Findings::default()
        });
    }
    let (cpu, wait) = (effort.cpu, "block");
    let routes = [
        OwnRoute::new(RoutePath::MqMq, 0, BYTES)?,
        OwnRoute::new(RoutePath::MqMq, 1, BYTES)?,
    ];
    let (instance, _) = own::names("rtlat-many");
    let (mut more, mut queues) = (String::new(), Vec::new());
    for n in 1..ROUTES {
        let (name, queue) = (format!("in{n}"), format!("/{instance}-in{n}"));
        more += &(mqueue(&name, &queue, 1) + &route(&name, "rx1.msg", "capacity = 1"));
        queues.push(queue);
    }
    let one = Setup {
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
        queues,
    };
    let (one, many) = (one.start()?, many.start()?);
    let (kib, threads) = super::start::resident(many.pid())?;
    let placement = effort.placement(CLIENT_PRIORITY);
    let paths = vec![
        Path::hop("1 route", None, routes[0].mechanism(&one)?, placement),
        Path::hop(
            "500 routes",
            Some(Aim::Times(1.1)),
            routes[1].mechanism(&many)?,
            placement,
        ),
    ];
    conditions.daemons.extend([one, many]);
    let rows = measure(effort, conditions, effort.back_to_back(), paths)?;
    let text = format!("{ROUTES} routes: {kib} KiB resident, {threads} threads");
    let lines = vec![Line {
        text,
        value: f64::from(kib),
        aim: None,
    }];
    Ok(Findings {
        caption,
        has_ratios: true,
        rows,
        lines,
        ..Findings::default()
    })
}

/// One message to eight receivers: the time until the last one has it. The last hop, from the
/// daemon to the receiver, is the part that a route adds to its first hop, a raw queue.
pub fn fan_out(effort: &Effort, conditions: &mut Conditions) -> anyhow::Result<Findings> {
    let routes = [OwnRoute::new(RoutePath::MqMq, 0, BYTES)?];
    let (instance, socket) = own::names("rtlat");
    let queue = |end: &str| format!("/{instance}-fan-{end}");
    let (mut more, mut members) = (mqueue("fan", &queue("in"), depth()), String::new());
    let mut queues = vec![queue("in")];
    for n in 0..WIDTH {
        more += &mqueue(&format!("m{n}"), &queue(&n.to_string()), depth());
        let _ = write!(members, "\"m{n}\", ");
        queues.push(queue(&n.to_string()));
    }
    more += &format!("[[group]]\nname = \"all\"\nmode = \"all\"\nmembers = [{members}]\n");
    more += &route("fan", "all", "");
    let daemon = Setup {
        name: "rtlat",
        cpu: effort.cpu,
        wait: "block",
        routes: &routes,
        more: &more,
        queues,
    }
    .start()?;
    let placement = effort.placement(CLIENT_PRIORITY);
    let others = (0..WIDTH - 1).map(|n| {
        let name = CString::new(queue(&n.to_string()))?;
        drain(placement, move || {
            Ok(Box::new(QueueRx::open(&name)?) as Box<dyn Rx>)
        })
    });
    let _others = others.collect::<anyhow::Result<Vec<_>>>()?;
    let last = Out::Queue(queue(&(WIDTH - 1).to_string()));
    let fan = Route::new(
        "fan-out".to_owned(),
        BYTES,
        In::Queue(queue("in")),
        last,
        socket,
    )?;
    let paths = vec![
        Path::raw("mq", Kind::Mq, 0, placement)?,
        Path::hop("mq -> mq", None, routes[0].mechanism(&daemon)?, placement),
        Path::hop("mq -> 8 mq, the last of them", None, fan, placement),
    ];
    conditions.daemons.push(daemon);
    let rows = measure(effort, conditions, effort.back_to_back(), paths)?;
    let lines = Vec::from_iter(last_hops(&rows));
    let caption = format!("one message to {WIDTH} receivers, lane FIFO 80 above clients at 70");
    Ok(Findings {
        caption,
        has_ratios: true,
        rows,
        lines,
        ..Findings::default()
    })
}

#[expect(clippy::cast_precision_loss, reason = "ns below 2^53")]
fn last_hops(rows: &[Row]) -> Option<Line> {
    let p50 = |row: usize| Some(raw_at(&rows.get(row)?.series, 0.5) as f64);
    let value = (p50(2)? - p50(0)?) / (p50(1)? - p50(0)?);
    let text = format!("from the daemon to the last of {WIDTH}: {value:.2} x the last hop of one");
    Some(Line {
        text,
        value,
        aim: Some(Aim::Value(8.0)),
    })
}

/// fs.mqueue.queues_max raised for the run, put back afterwards.
struct QueuesMax {
    before: Option<String>,
}

const QUEUES_MAX: &str = "/proc/sys/fs/mqueue/queues_max";

impl QueuesMax {
    fn raise(to: usize) -> anyhow::Result<QueuesMax> {
        let before = std::fs::read_to_string(QUEUES_MAX).context(QUEUES_MAX)?;
        if before.trim().parse::<usize>()? >= to {
            return Ok(QueuesMax { before: None });
        }
        std::fs::write(QUEUES_MAX, to.to_string()).context(QUEUES_MAX)?;
        Ok(QueuesMax {
            before: Some(before),
        })
    }
}

impl Drop for QueuesMax {
    fn drop(&mut self) {
        if let Some(before) = &self.before {
            let _ = std::fs::write(QUEUES_MAX, before.trim());
        }
    }
}
