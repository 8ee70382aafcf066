//! From plan to workers: opens every kernel object, allocates every queue. Afterwards no code on
//! the real-time path opens or allocates.

mod private;
mod queues;

pub use queues::{Queues, hand_over, reader_of};

use super::names::Names;
use super::rings::Rings;
use crate::endpoint::{EndpointKind, Medium, Shared, SinkParts, SourceParts};
use crate::plan::{
    EndpointId, EndpointPlan, Filter, Path, Plan, ProcessId, RouteId, SourcePlan, TargetPlan,
};
use rtcore::endpoint::sink::Sink;
use rtcore::lane::credit::Credit;
use rtcore::lane::event::{self, Event};
use rtcore::lane::peer::Peer;
use rtcore::lane::policy::GroupMode;
use rtcore::lane::policy::Wait;
use rtcore::lane::progress::ProgressCell;
use rtcore::lane::route::{OriginRule, Route, Rules};
use rtcore::lane::syscalls;
use rtcore::lane::target::{Kin, Membership, Target};
use rtcore::lane::worker::{Input, Worker};
use rtcore::skin::{Semaphore, Skin};
use rtcore::stats::writer::Page;
use rtcore::sys::rtsignal;
use std::collections::BTreeSet;
use std::io;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

/// A worker's place in the plan: its lane, its sources and its name.
#[derive(Debug)]
pub struct WorkerPlan<'a> {
    pub lane: usize,
    /// Endpoint name, or the lane's name if it scans several sources.
    pub name: String,
    /// The sources that the thread reads.
    pub sources: Vec<&'a SourcePlan>,
}

/// The routes and processes of a lane thread: it must see changes of these processes.
#[derive(Debug)]
pub struct Serves {
    pub routes: Vec<RouteId>,
    /// Owners of their sources and receivers, and the processes that their group filters compare.
    pub processes: BTreeSet<ProcessId>,
}

impl WorkerPlan<'_> {
    /// The routes and processes of this worker.
    pub fn serves(&self, plan: &Plan) -> Serves {
        let routes: Vec<RouteId> = self
            .sources
            .iter()
            .flat_map(|source| &source.routes)
            .copied()
            .collect();
        let targets = || routes.iter().flat_map(|&route| &plan.routes[route].to);
        let receivers = targets().flat_map(TargetPlan::endpoints).copied();
        let ends = self
            .sources
            .iter()
            .map(|source| source.endpoint)
            .chain(receivers);
        let owners = ends.filter_map(|endpoint| plan.endpoints[endpoint].owner);
        let leaders = targets().filter_map(|target| match target {
            TargetPlan::Group { filter, .. } => filter.map(Filter::process),
            TargetPlan::Endpoint(_) => None,
        });
        Serves {
            processes: owners.chain(leaders).collect(),
            routes,
        }
    }
}

/// Divides the plan's sources among threads: one per source in a `block` lane, otherwise one per
/// lane.
pub fn workers(plan: &Plan) -> Vec<WorkerPlan<'_>> {
    let mut all = Vec::new();
    for (lane, lane_plan) in plan.lanes.iter().enumerate() {
        let sources = plan.sources.iter().filter(|s| s.lane == lane);
        match lane_plan.wait {
            Wait::Block => all.extend(sources.map(|s| WorkerPlan {
                lane,
                name: plan.endpoints[s.endpoint].name.clone(),
                sources: vec![s],
            })),
            Wait::Spin { .. } | Wait::Poll => {
                let sources: Vec<_> = sources.collect();
                if !sources.is_empty() {
                    all.push(WorkerPlan {
                        lane,
                        name: lane_plan.name.clone(),
                        sources,
                    });
                }
            }
        }
    }
    all
}

/// Makes the workers. `peers` is one per process of the plan.
#[derive(Debug)]
pub struct Builder<'a> {
    /// What to build.
    pub plan: &'a Plan,
    /// The real-time calls.
    pub skin: &'static Skin,
    /// One slot per process.
    pub peers: &'a Peers,
    /// The page for the counters.
    pub page: &'a Page,
    /// 0 while running.
    pub stop_at_ns: &'a Arc<AtomicU64>,
    /// The rings of sessions, which provide the halves for lane threads.
    pub rings: &'a mut Rings,
    /// Objects that are opened once for a source and its sinks.
    pub shared: Shared,
}

impl Builder<'_> {
    /// Makes one worker, with the consumer of its events.
    pub fn worker(
        &mut self,
        index: usize,
        plan: &WorkerPlan<'_>,
    ) -> io::Result<(Worker, rtrb::Consumer<Event>)> {
        let lane = &self.plan.lanes[plan.lane];
        let inputs = plan
            .sources
            .iter()
            .map(|s| self.input(s))
            .collect::<io::Result<Vec<_>>>()?;
        let (events, consumer) = event::channel();
        let worker = Worker {
            name: plan.name.clone(),
            skin: self.skin,
            priority: lane.priority,
            cpu: lane.cpu,
            wait: lane.wait,
            cell: self.page.worker(index),
            progress: ProgressCell::default(),
            events,
            stop_at_ns: Arc::clone(self.stop_at_ns),
            waits: Worker::waits_for(&inputs, self.doorbell(plan)),
            calls: syscalls::program(self.skin, &inputs)?,
            inputs,
        };
        Ok((worker, consumer))
    }

    /// The semaphore that wakes the thread, if its doorbell is not a futex.
    fn doorbell(&self, plan: &WorkerPlan<'_>) -> Option<Arc<Semaphore>> {
        self.rings
            .doorbell_of_source(plan.sources.first()?.endpoint)
    }

    fn owner(&self, endpoint: EndpointId) -> Option<Arc<Peer>> {
        self.plan.endpoints[endpoint]
            .owner
            .map(|p| Arc::clone(&self.peers.slots[p]))
    }

    fn input(&mut self, source: &SourcePlan) -> io::Result<Input> {
        let kind = &self.plan.endpoints[source.endpoint].kind;
        let is_ring = kind.policy().medium() == Medium::Ring;
        let parts = SourceParts {
            skin: self.skin,
            owner: self.owner(source.endpoint),
            keep_queues: self.plan.daemon.keep_queues,
            ring_slot: is_ring.then(|| self.rings.take_source(source.endpoint)),
            doorbell: self.rings.doorbell_of_source(source.endpoint),
            shared: &mut self.shared,
        };
        let opened = kind.policy().source(parts)?;
        let routes = source
            .routes
            .iter()
            .map(|&r| self.route(r))
            .collect::<io::Result<Vec<_>>>()?;
        Ok(Input {
            source: opened,
            routes,
        })
    }

    fn route(&mut self, id: RouteId) -> io::Result<Route> {
        let plan = &self.plan.routes[id];
        let mut targets = Vec::new();
        let mut sinks = Vec::new();
        for to in &plan.to {
            let (mode, filter) = match to {
                TargetPlan::Endpoint(_) => (GroupMode::All, None),
                TargetPlan::Group { mode, filter, .. } => {
                    (*mode, filter.map(|f| self.membership(f)))
                }
            };
            let members = to.endpoints();
            targets.push(Target {
                mode,
                first: sinks.len(),
                len: members.len(),
                cursor: 0,
                filter,
            });
            for &member in members {
                let end = sinks.len();
                sinks.push(self.sink(id, end, member)?);
            }
        }
        let rules = Rules {
            index: u32::try_from(id).map_err(io::Error::other)?,
            ttl_ns: plan.ttl_ns.unwrap_or(u64::MAX),
            deadline_ns: plan.deadline_ns.unwrap_or(u64::MAX),
            payload_bytes_max: plan.payload_bytes_max,
            capacity: plan.capacity,
            overflow: plan.overflow,
            mq_priority: plan.mq_priority,
            origin: match self.plan.endpoints[plan.from].kind.policy().medium() {
                Medium::Queue | Medium::Ring => OriginRule::Channel,
                Medium::Signal => OriginRule::Signal {
                    accept_claimed: plan.accept_claimed,
                    owner: self.owner(plan.from),
                },
            },
        };
        let rejoin_ns = plan.rejoin_ns;
        let route = Route::new(
            rules,
            plan.rate,
            targets,
            sinks,
            self.page.route(id),
            self.rings.doorbell_of_route(id),
        );
        Ok(route.rejoin(rejoin_ns))
    }

    fn membership(&self, filter: Filter) -> Membership {
        let (kin, of) = match filter {
            Filter::ProcessGroupOf(process) => (Kin::ProcessGroup, process),
            Filter::SessionOf(process) => (Kin::Session, process),
        };
        Membership {
            kin,
            of: Arc::clone(&self.peers.slots[of]),
        }
    }

    /// End number `end` of a route.
    fn sink(&mut self, id: RouteId, end: usize, endpoint: EndpointId) -> io::Result<Sink> {
        let kind = &self.plan.endpoints[endpoint].kind;
        let parts = SinkParts {
            skin: self.skin,
            ring_slot: kind.ring().map(|_| self.rings.take_sink(id, end)),
            credit: self.peers.credit(endpoint),
            truncate: self.plan.routes[id].truncate,
            shared: &mut self.shared,
        };
        let sink = kind.policy().sink(parts)?;
        Ok(Sink::new(sink, self.owner(endpoint)))
    }
}

/// Every signal that some route reads.
pub fn source_signals(plan: &Plan) -> Vec<i32> {
    let kinds = plan
        .sources
        .iter()
        .map(|s| &plan.endpoints[s.endpoint].kind);
    let signals = kinds.filter_map(|kind| match kind {
        EndpointKind::Signal(signal) => Some(signal.signo),
        _ => None,
    });
    signals.collect()
}

/// One slot per process, and one credit per signal endpoint whose signals queue.
#[derive(Debug)]
pub struct Peers {
    /// In plan order.
    pub slots: Vec<Arc<Peer>>,
    credits: Vec<Option<Arc<Credit>>>,
}

impl Peers {
    /// Creates the slots without registrations.
    pub fn new(plan: &Plan, skin: &'static Skin) -> io::Result<Peers> {
        let queues = |e: &EndpointPlan| match (&e.kind, e.owner) {
            (EndpointKind::Signal(signal), Some(owner)) if rtsignal::is_realtime(signal.signo) => {
                Some((owner, signal.signo, signal.to_thread()))
            }
            _ => None,
        };
        let receivers: Vec<_> = plan.endpoints.iter().map(queues).collect();
        // One share is left for signals that do not come from rtd.
        let sharers =
            u32::try_from(receivers.iter().flatten().count() + 1).map_err(io::Error::other)?;
        let mut slots = plan
            .processes
            .iter()
            .map(|_| Peer::new(sharers, skin))
            .collect::<io::Result<Vec<_>>>()?;
        let credits = receivers
            .into_iter()
            .map(|r| r.map(|(owner, signo, thread)| slots[owner].add_credit(signo, thread)));
        let credits = credits.collect();
        Ok(Peers {
            slots: slots.into_iter().map(Arc::new).collect(),
            credits,
        })
    }

    fn credit(&self, endpoint: EndpointId) -> Option<Arc<Credit>> {
        self.credits[endpoint].clone()
    }
}

/// The contents of the page.
pub fn page_spec(plan: &Plan, workers: &[WorkerPlan<'_>], skin: &Skin) -> rtcore::stats::PageSpec {
    let names = Names::new(plan);
    let small = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
    rtcore::stats::PageSpec {
        name: plan.daemon.name.clone(),
        socket: plan.daemon.socket.display().to_string(),
        skin: skin.name.to_owned(),
        private_namespace: !skin.caps.shared_namespace,
        lanes: plan
            .lanes
            .iter()
            .map(|l| rtcore::stats::LaneSpec {
                name: l.name.clone(),
                priority: l.priority,
                cpu: small(l.cpu),
                wait: l.wait.to_string(),
                confined: skin.caps.linux_calls,
            })
            .collect(),
        routes: plan
            .routes
            .iter()
            .map(|r| rtcore::stats::RouteSpec {
                name: r.name.clone(),
                lane: small(r.lane),
                from: small(r.from),
                to: names.targets(r),
                ends: r
                    .to
                    .iter()
                    .flat_map(TargetPlan::endpoints)
                    .map(|&end| small(end))
                    .collect(),
                direct: r.path == Path::Direct,
            })
            .collect(),
        endpoints: (0..plan.endpoints.len())
            .map(|id| endpoint_spec(plan, id))
            .collect(),
        processes: plan.processes.iter().map(|p| p.name.clone()).collect(),
        workers: workers
            .iter()
            .map(|w| rtcore::stats::WorkerSpec {
                lane: small(w.lane),
                name: w.name.clone(),
            })
            .collect(),
    }
}

fn endpoint_spec(plan: &Plan, id: EndpointId) -> rtcore::stats::EndpointSpec {
    let small = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
    let endpoint = &plan.endpoints[id];
    let reaches = |to: &TargetPlan| match to {
        TargetPlan::Endpoint(e) => *e == id,
        TargetPlan::Group { members, .. } => members.contains(&id),
    };
    rtcore::stats::EndpointSpec {
        name: endpoint.name.clone(),
        owner: endpoint.owner.map(small),
        is_source: plan.routes.iter().any(|r| r.from == id),
        is_sink: plan.routes.iter().any(|r| r.to.iter().any(reaches)),
        kind: endpoint.kind.policy().shown(&plan.daemon.skin),
    }
}
