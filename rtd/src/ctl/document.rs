//! The document that `rtctl ls --json` and `rtctl stats --json` print. Its keys are an interface.
//!
//! Invariant: keys are added, never renamed or removed, within a major version.

#![forbid(unsafe_code)]

use super::figures::{Figures, rate};
use crate::endpoint::of_page;
use rtcore::endpoint::Shown;
use rtcore::lane::peer::PeerState;
use rtcore::message::Reject;
use rtcore::refusals::Refused;
use rtcore::stats::latency::Latency;
use rtcore::stats::loss::Loss;
use rtcore::stats::reader::{
    Diff, Endpoint, Lane, LossTimes, Process, Route, Snapshot, TargetStats, Worker,
};
use serde::ser::SerializeMap;
use serde::{Serialize, Serializer};
use std::collections::BTreeMap;

/// The whole page.
#[derive(Debug, Serialize)]
pub struct Document<'a> {
    instance: &'a str,
    pid: u32,
    state: &'static str,
    ready: bool,
    skin: &'a str,
    uptime_s: f64,
    /// With `--watch`: what the `per_second` keys refer to.
    #[serde(skip_serializing_if = "Option::is_none")]
    interval_s: Option<f64>,
    lanes: Vec<LaneJson<'a>>,
    routes: Vec<RouteJson<'a>>,
    workers: Vec<WorkerJson<'a>>,
    processes: Vec<ProcessJson<'a>>,
    endpoints: Vec<EndpointJson<'a>>,
}

#[derive(Debug, Serialize)]
struct LaneJson<'a> {
    name: &'a str,
    priority: u32,
    cpu: u32,
    wait: &'a str,
    degraded: Vec<&'static str>,
    #[serde(flatten)]
    counts: Figures,
    /// Its threads' counters; `refused_calls` is null if no filter sees their calls.
    #[serde(flatten)]
    threads: Figures,
    /// What the watchdog reports, merged over the threads.
    guard: Figures,
    latency_ns: LatencyJson,
    rejected_by: Reasons,
    #[serde(flatten)]
    losing: LosingJson,
    #[serde(skip_serializing_if = "Option::is_none")]
    per_second: Option<Figures>,
}

#[derive(Debug, Serialize)]
struct RouteJson<'a> {
    name: &'a str,
    lane: Option<&'a str>,
    from: Option<&'a str>,
    to: &'a str,
    path: &'static str,
    #[serde(flatten)]
    counts: Figures,
    latency_ns: LatencyJson,
    /// The part that measured the latency: `rtd`, or for a direct route the `receiver`, whose
    /// report it is.
    latency_by: &'static str,
    rejected_by: Reasons,
    /// Messages lost with the instance's last daemon, which was killed; not part of the counts.
    lost_in_last_life: u64,
    #[serde(flatten)]
    losing: LosingJson,
    targets: Vec<TargetJson<'a>>,
    consistent: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    per_second: Option<Figures>,
}

/// One endpoint that the route reaches.
#[derive(Debug, Serialize)]
struct TargetJson<'a> {
    endpoint: Option<&'a str>,
    /// See [`EndpointJson::waiting`].
    waiting: Option<&'static str>,
    delivered: u64,
    /// None before the first.
    last_delivery_age_s: Option<f64>,
    /// By [`Loss`]; only kinds that occurred.
    lost_by: BTreeMap<&'static str, u64>,
    /// Of those delivered.
    receiver: Figures,
    #[serde(skip_serializing_if = "Option::is_none")]
    delivered_per_second: Option<f64>,
}

#[derive(Debug, Serialize)]
struct LatencyJson {
    count: u64,
    min: u64,
    p50: u64,
    p90: u64,
    p99: u64,
    p999: u64,
    max: u64,
}

/// The current losses of a route, or of the routes of a lane.
#[derive(Debug, Serialize)]
struct LosingJson {
    /// The kinds of the last ten seconds, by [`Loss::name`]; empty if there were none.
    losing: Vec<&'static str>,
    /// Time since the last loss of each kind; only those that happened.
    last_loss_age_s: BTreeMap<&'static str, f64>,
}

/// Counts by [`Reject::NAMES`].
#[derive(Debug)]
struct Reasons([u64; Reject::COUNT]);

#[derive(Debug, Serialize)]
struct WorkerJson<'a> {
    name: &'a str,
    lane: Option<&'a str>,
    tid: u32,
    #[serde(flatten)]
    counters: Figures,
    guard: Figures,
}

#[derive(Debug, Serialize)]
struct ProcessJson<'a> {
    name: &'a str,
    state: &'static str,
    pid: Option<u32>,
    uid: Option<u32>,
}

#[derive(Debug, Serialize)]
struct EndpointJson<'a> {
    name: &'a str,
    owner: Option<&'a str>,
    source: bool,
    sink: bool,
    /// The reason for which signals to its owner wait or are rejected.
    waiting: Option<&'static str>,
    /// Messages that its sender's library refused, by reason; only reasons that occurred.
    refused: BTreeMap<&'static str, u64>,
    #[serde(flatten)]
    kind: KindJson<'a>,
}

/// `kind`, and the members of that kind.
#[derive(Debug)]
struct KindJson<'a>(&'a Shown);

impl Serialize for KindJson<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let (name, members) = of_page(self.0).map_or(("unknown", Vec::new()), |(name, page)| {
            (name, page.members())
        });
        let kind = [("kind", name.into())];
        serializer.collect_map(kind.into_iter().chain(members))
    }
}

impl<'a> Document<'a> {
    /// The document of a snapshot.
    pub fn new(read: &'a Snapshot) -> Document<'a> {
        let owner = |i: Option<usize>| {
            i.and_then(|i| read.processes.get(i))
                .map(|process| process.name.as_str())
        };
        Document {
            instance: &read.instance,
            pid: read.pid,
            state: read.state.name(),
            ready: read.ready_ns.is_some(),
            skin: &read.skin,
            uptime_s: seconds(read.uptime_ns()),
            interval_s: None,
            lanes: read
                .lanes
                .iter()
                .map(|lane| LaneJson::new(read, lane))
                .collect(),
            routes: read
                .routes
                .iter()
                .map(|r| RouteJson::new(read, r))
                .collect(),
            workers: read
                .workers
                .iter()
                .map(|w| WorkerJson::new(w, lane_name(read, w.lane)))
                .collect(),
            processes: read.processes.iter().map(ProcessJson::new).collect(),
            endpoints: read
                .endpoints
                .iter()
                .map(|e| EndpointJson::new(e, owner(e.owner)))
                .collect(),
        }
    }

    /// The same with rates and the latencies of an interval; `diff` is of this snapshot.
    pub fn with_rates(read: &'a Snapshot, diff: &Diff) -> Document<'a> {
        let mut this = Document::new(read);
        this.interval_s = Some(diff.interval_ns as f64 / 1e9);
        for (lane, changed) in this.lanes.iter_mut().zip(&diff.lanes) {
            lane.per_second = Some(Figures::rates(diff, changed.ledger.values()));
            lane.latency_ns = LatencyJson::new(&changed.latency);
        }
        for (route, changed) in this.routes.iter_mut().zip(&diff.routes) {
            route.per_second = Some(Figures::rates(diff, changed.ledger.values()));
            route.latency_ns = LatencyJson::new(&changed.latency);
            for (target, changed) in route.targets.iter_mut().zip(&changed.targets) {
                target.delivered_per_second = Some(rate(diff, changed.delivered));
            }
        }
        this
    }

    /// Keeps only these lanes and routes (by name).
    pub fn retain(&mut self, lanes: &[&str], routes: &[&str]) {
        self.lanes.retain(|lane| lanes.contains(&lane.name));
        self.routes.retain(|route| routes.contains(&route.name));
    }
}

impl<'a> LaneJson<'a> {
    fn new(read: &Snapshot, lane: &'a Lane) -> LaneJson<'a> {
        LaneJson {
            name: &lane.name,
            priority: lane.priority,
            cpu: lane.cpu,
            wait: &lane.wait,
            degraded: lane.degraded(),
            counts: Figures::of(lane.ledger.values()),
            threads: Figures::of_threads(lane),
            guard: Figures::of(lane.guard.values()),
            latency_ns: LatencyJson::new(&lane.latency),
            rejected_by: Reasons(lane.ledger.rejected),
            losing: LosingJson::new(&lane.losses, read.taken_ns),
            per_second: None,
        }
    }
}

impl<'a> RouteJson<'a> {
    fn new(read: &'a Snapshot, route: &'a Route) -> RouteJson<'a> {
        let target = |target: &TargetStats| TargetJson {
            endpoint: endpoint_name(read, target.endpoint),
            waiting: target
                .endpoint
                .and_then(|i| read.endpoints.get(i))
                .and_then(|endpoint| endpoint.reception.waiting()),
            delivered: target.delivered,
            last_delivery_age_s: target.age_ns(read.taken_ns).map(seconds),
            lost_by: Loss::ALL
                .into_iter()
                .map(|loss| (loss.name(), target.lost[loss.index()]))
                .filter(|&(_, lost)| lost > 0)
                .collect(),
            receiver: Figures::of(target.receiver.values()),
            delivered_per_second: None,
        };
        RouteJson {
            name: &route.name,
            lane: lane_name(read, route.lane),
            from: endpoint_name(read, route.from),
            to: &route.to,
            path: path_name(route),
            targets: route.targets.iter().map(target).collect(),
            counts: Figures::of(route.ledger.values()),
            latency_ns: LatencyJson::new(&route.latency),
            latency_by: if route.direct { "receiver" } else { "rtd" },
            rejected_by: Reasons(route.ledger.rejected),
            lost_in_last_life: route.lost_in_last_life,
            losing: LosingJson::new(&route.losses, read.taken_ns),
            consistent: route.consistent,
            per_second: None,
        }
    }
}

impl LosingJson {
    fn new(losses: &LossTimes, taken_ns: u64) -> LosingJson {
        let age = |loss: Loss| Some((loss.name(), seconds(losses.age_ns(loss, taken_ns)?)));
        LosingJson {
            losing: losses
                .losing(taken_ns)
                .into_iter()
                .map(Loss::name)
                .collect(),
            last_loss_age_s: Loss::ALL.into_iter().filter_map(age).collect(),
        }
    }
}

/// To the millisecond.
fn seconds(ns: u64) -> f64 {
    (ns / 1_000_000) as f64 / 1000.0
}

impl LatencyJson {
    fn new(latency: &Latency) -> LatencyJson {
        let all = latency.summary();
        LatencyJson {
            count: all.count,
            min: all.min_ns,
            p50: all.p50_ns,
            p90: all.p90_ns,
            p99: all.p99_ns,
            p999: all.p999_ns,
            max: all.max_ns,
        }
    }
}

impl Serialize for Reasons {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(Reject::COUNT))?;
        for (name, count) in Reject::NAMES.iter().zip(&self.0) {
            map.serialize_entry(name, count)?;
        }
        map.end()
    }
}

impl<'a> WorkerJson<'a> {
    fn new(worker: &'a Worker, lane: Option<&'a str>) -> WorkerJson<'a> {
        WorkerJson {
            name: &worker.name,
            lane,
            tid: worker.tid,
            counters: Figures::of(worker.counters.values()),
            guard: Figures::of(worker.guard.values()),
        }
    }
}

impl<'a> ProcessJson<'a> {
    fn new(process: &'a Process) -> ProcessJson<'a> {
        let pid = (process.pid != 0).then_some(process.pid);
        ProcessJson {
            name: &process.name,
            state: state_name(process.state),
            pid,
            uid: process.uid,
        }
    }
}

fn lane_name(read: &Snapshot, lane: Option<usize>) -> Option<&str> {
    lane.and_then(|i| read.lanes.get(i))
        .map(|lane| lane.name.as_str())
}

/// The name of an endpoint to which a snapshot refers.
pub fn endpoint_name(read: &Snapshot, endpoint: Option<usize>) -> Option<&str> {
    endpoint
        .and_then(|i| read.endpoints.get(i))
        .map(|endpoint| endpoint.name.as_str())
}

/// A route's path as it is named in the configuration and all outputs.
pub fn path_name(route: &Route) -> &'static str {
    if route.direct { "direct" } else { "routed" }
}

/// A process's state as all outputs name it.
pub fn state_name(state: PeerState) -> &'static str {
    match state {
        PeerState::Unregistered => "unregistered",
        PeerState::Alive => "alive",
        PeerState::Dead => "dead",
    }
}

impl<'a> EndpointJson<'a> {
    fn new(endpoint: &'a Endpoint, owner: Option<&'a str>) -> EndpointJson<'a> {
        EndpointJson {
            name: &endpoint.name,
            owner,
            source: endpoint.is_source,
            sink: endpoint.is_sink,
            waiting: endpoint.reception.waiting(),
            refused: Refused::NAMES
                .into_iter()
                .zip(endpoint.refused)
                .filter(|(_, n)| *n > 0)
                .collect(),
            kind: KindJson(&endpoint.kind),
        }
    }
}
