//! Rings without sockets: this process acts as lane threads and both clients, with the descriptors
//! that they would get.

mod direct;
mod routed;

use super::*;
use crate::endpoint::EndpointKind;
use crate::endpoint::mqueue::MqueuePlan;
use crate::endpoint::ring::RingPlan;
use crate::endpoint::signal::SignalPlan;
use crate::plan::watch::{LaneWatch, WatchPlan};
use crate::plan::*;
use crate::sessions::event::{Effect, End, Event, ProcessStatus};
use crate::sessions::state::State;
use rtcore::lane::peer::PeerState;
use rtcore::lane::policy::{GroupMode, Overflow, SignalTarget, Wait};
use rtcore::message::Meta;
use rtcore::ring::{Envelope, Geometry, Kind};
use rtcore::sys::memfd::Map;
use std::os::fd::AsFd;
use std::process::{Child, Command, Stdio};

const ARM: ProcessId = 0;
const PLANNER: ProcessId = 1;
const SLOTS: u32 = 8;

/// A process that can die.
struct Someone(Child);

impl Someone {
    fn new() -> Someone {
        Someone(
            Command::new("/bin/cat")
                .stdin(Stdio::piped())
                .stdout(Stdio::null())
                .spawn()
                .unwrap(),
        )
    }

    fn identity(&self, generation: u64) -> SessionIdentity {
        let pid = i32::try_from(self.0.id()).unwrap();
        SessionIdentity {
            generation,
            pid,
            uid: 7,
            program: 1,
            pidfd: Arc::new(PidFd::open(pid).unwrap()),
        }
    }

    fn die(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

impl Drop for Someone {
    fn drop(&mut self) {
        self.die();
    }
}

fn process(name: &str) -> ProcessPlan {
    ProcessPlan {
        name: name.into(),
        uid: None,
        gid: None,
        exe: None,
        above_ceiling: false,
    }
}

fn lane(name: &str, owner: ProcessId, payload_bytes: usize) -> EndpointPlan {
    let ring = RingPlan {
        slots: SLOTS as usize,
        payload_bytes,
    };
    EndpointPlan {
        name: name.into(),
        owner: Some(owner),
        kind: EndpointKind::Ring(ring),
    }
}

fn queue(name: &str, owner: Option<ProcessId>) -> EndpointPlan {
    let queue = std::ffi::CString::new(format!("/{name}")).unwrap();
    let kind = EndpointKind::Mqueue(MqueuePlan {
        queue,
        maxmsg: 1,
        msgsize: 64,
        mode: 0o600,
        flush_at_start: false,
    });
    EndpointPlan {
        name: name.into(),
        owner,
        kind,
    }
}

fn signal(name: &str, owner: ProcessId, inbox: bool) -> EndpointPlan {
    let inbox = inbox.then_some(RingPlan {
        slots: 2,
        payload_bytes: 8,
    });
    let kind = EndpointKind::Signal(SignalPlan {
        signo: 40,
        target: SignalTarget::Process,
        inbox,
    });
    EndpointPlan {
        name: name.into(),
        owner: Some(owner),
        kind,
    }
}

fn route(name: &str, from: EndpointId, to: Vec<TargetPlan>, path: Path) -> RoutePlan {
    RoutePlan {
        path,
        name: name.into(),
        from,
        to,
        lane: 0,
        ttl_ns: None,
        deadline_ns: None,
        rate: None,
        payload_bytes_max: 64,
        truncate: false,
        overflow: Overflow::Reject,
        capacity: 1,
        mq_priority: None,
        accept_claimed: false,
        rejoin_ns: 0,
    }
}

fn plan(endpoints: Vec<EndpointPlan>, routes: Vec<RoutePlan>) -> Plan {
    let socket = "/nonexistent".into();
    Plan {
        daemon: DaemonPlan {
            account: None,
            name: "t".into(),
            socket,
            keep_queues: false,
            drain_ns: 0,
            skin: SkinPlan::posix("test"),
            watch: WatchPlan::default(),
            cpu_dma_latency: crate::plan::DmaLatency::Unset,
        },
        lanes: vec![LanePlan {
            name: "l".into(),
            priority: 50,
            cpu: 0,
            wait: Wait::Block,
            unisolated: false,
            watch: LaneWatch::default(),
        }],
        processes: vec![process("arm"), process("planner")],
        endpoints,
        routes,
        sources: vec![],
    }
}

/// The arm sends to the planner.
fn direct_plan() -> Plan {
    let endpoints = vec![lane("arm.out", ARM, 16), lane("planner.in", PLANNER, 64)];
    plan(
        endpoints,
        vec![route("d", 0, vec![TargetPlan::Endpoint(1)], Path::Direct)],
    )
}

/// The parameters of a process that continues no session.
fn wanted(semaphores: bool) -> Wanted {
    Wanted {
        pid: 1,
        semaphores,
        resumes: 0,
    }
}

fn open(rings: &mut Rings, process: ProcessId, identity: SessionIdentity) -> Attached {
    let attached = hand_out(rings, process);
    mapped(rings, process, identity);
    attached
}

/// The client's part, before it has mapped any of it.
fn hand_out(rings: &mut Rings, process: ProcessId) -> Attached {
    let prepared = rings.prepare(process, wanted(false)).unwrap();
    rings.hand_out(process, prepared, 100)
}

fn mapped(rings: &mut Rings, process: ProcessId, identity: SessionIdentity) {
    rings.attach(process, identity).unwrap();
    rings.read_from(process);
}

/// Rings, and the state machine that decides about them. Collects the frames and log lines.
struct Bench {
    rings: Rings,
    topology: Topology,
    state: State,
    frames: Vec<Outgoing>,
    warnings: Vec<String>,
    ended: Vec<(ProcessId, End)>,
}

impl Bench {
    fn new(plan: &Plan) -> Bench {
        let rings = Rings::new(plan, rtcore::skin::posix(), true).unwrap();
        let topology = rings.topology();
        let state = topology.start();
        Bench {
            rings,
            topology,
            state,
            frames: Vec::new(),
            warnings: Vec::new(),
            ended: Vec::new(),
        }
    }

    fn open(&mut self, process: ProcessId, identity: SessionIdentity) {
        let prepared = self.rings.prepare(process, wanted(false)).unwrap();
        let effects = self
            .topology
            .step(&mut self.state, Event::Admitted { process });
        let [Effect::Introduce { map, .. }, ..] = effects[..] else {
            panic!("{effects:?}")
        };
        self.rings.hand_out(process, prepared, map);
        let effects = self.topology.step(
            &mut self.state,
            Event::Mapped {
                process,
                serial: map,
            },
        );
        assert_eq!(effects[0], Effect::Attach { process });
        let status = ProcessStatus {
            state: PeerState::Alive,
            pid: identity.pid,
            ending: None,
        };
        self.rings.attach(process, identity).unwrap();
        self.perform(Event::Changed { process, status });
    }

    fn close(&mut self, process: ProcessId) {
        let status = ProcessStatus {
            state: PeerState::Unregistered,
            pid: 1,
            ending: None,
        };
        self.perform(Event::Changed { process, status });
    }

    fn mapped(&mut self, process: ProcessId, serial: u32) {
        self.perform(Event::Mapped { process, serial });
    }

    fn tick(&mut self) {
        let Ticked {
            broken, warnings, ..
        } = self.rings.tick();
        self.warnings.extend(warnings);
        broken
            .into_iter()
            .for_each(|route| self.perform(Event::Broken { route }));
        self.perform(Event::Tick);
    }

    fn perform(&mut self, event: Event) {
        for effect in self.topology.step(&mut self.state, event) {
            match effect {
                Effect::ReadFrom { process } => self.rings.read_from(process),
                Effect::Close { process } => self.warnings.extend(self.rings.close(process)),
                Effect::Create { route, serials } => self.rings.create(route, serials).unwrap(),
                Effect::SendRing { route, end } | Effect::SendJoin { route, end } => {
                    self.frames.extend(self.rings.take_frame(route, end));
                }
                Effect::Seal { route, serials } => match self.rings.seal(route, serials) {
                    Ok(()) => self.perform(Event::Sealed { route }),
                    Err(SealError::Sealed(process, text)) => {
                        self.ended.push((process, End::Violation(text)));
                    }
                    Err(e) => panic!("{e:?}"),
                },
                Effect::Send { .. } | Effect::Opened { .. } => {}
                other => panic!("{other:?}"),
            }
        }
    }

    /// Whether the sender was notified that it has a receiver.
    fn is_reached(&self, process: ProcessId, channel: usize) -> bool {
        self.state.is_reached(process, channel)
    }
}

fn envelope(sequence: u64) -> Envelope {
    let meta = Meta {
        sequence,
        ..Meta::default()
    };
    Envelope {
        meta,
        origin: Origin::UNKNOWN,
        kind: Kind::Bytes { priority: 0 },
        len: 0,
    }
}

fn geometry(payload_bytes: u32) -> Geometry {
    Geometry::new(SLOTS, payload_bytes).unwrap()
}

fn bells_of(page: &impl AsFd) -> Bells {
    Bells::shared(Map::of(page.as_fd(), Bells::BYTES, true).unwrap()).unwrap()
}

/// Number of descriptors and mappings of rings in this process; by name, because tests run in
/// parallel.
fn maps(name: &str) -> usize {
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
    let links = std::fs::read_dir("/proc/self/fd")
        .unwrap()
        .filter_map(|fd| fd.ok()?.path().read_link().ok());
    maps.lines().filter(|line| line.contains(name)).count()
        + links
            .filter(|link| link.to_string_lossy().contains(name))
            .count()
}
