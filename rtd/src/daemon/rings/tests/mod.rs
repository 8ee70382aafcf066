//! Rings without sockets: this process plays lane threads and both clients, with the descriptors that they would get.

mod direct;
mod routed;

use super::*;
use crate::plan::*;
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
        Someone(Command::new("/bin/cat").stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap())
    }

    fn identity(&self, generation: u64) -> SessionIdentity {
        let pid = i32::try_from(self.0.id()).unwrap();
        SessionIdentity { generation, pid, uid: 7, program: 1, pidfd: Arc::new(PidFd::open(pid).unwrap()) }
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
    ProcessPlan { name: name.into(), uid: None, gid: None, exe: None, above_ceiling: false }
}

fn lane(name: &str, owner: ProcessId, payload_bytes: usize) -> EndpointPlan {
    let ring = RingPlan { slots: SLOTS as usize, payload_bytes };
    EndpointPlan { name: name.into(), owner: Some(owner), kind: EndpointKind::Lane(ring) }
}

fn queue(name: &str, owner: Option<ProcessId>) -> EndpointPlan {
    let queue = std::ffi::CString::new(format!("/{name}")).unwrap();
    let kind = EndpointKind::Mqueue { queue, maxmsg: 1, msgsize: 64, mode: 0o600, flush_at_start: false };
    EndpointPlan { name: name.into(), owner, kind }
}

fn signal(name: &str, owner: ProcessId, inbox: bool) -> EndpointPlan {
    let inbox = inbox.then_some(RingPlan { slots: 2, payload_bytes: 8 });
    let kind = EndpointKind::Signal { signo: 40, target: SignalTarget::Process, inbox };
    EndpointPlan { name: name.into(), owner: Some(owner), kind }
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
    plan(endpoints, vec![route("d", 0, vec![TargetPlan::Endpoint(1)], Path::Direct)])
}

/// Of a process that continues nothing.
fn wanted(semaphores: bool) -> Wanted {
    Wanted { pid: 1, semaphores, resumes: 0 }
}

fn open(rings: &mut Rings, process: ProcessId, identity: SessionIdentity) -> Attached {
    let attached = hand_out(rings, process);
    mapped(rings, process, identity);
    attached
}

/// What the client gets, before it has mapped any of it.
fn hand_out(rings: &mut Rings, process: ProcessId) -> Attached {
    let prepared = rings.prepare(process, wanted(false)).unwrap();
    let attached = rings.hand_out(process, prepared);
    assert!(rings.awaits(process, attached.serial));
    attached
}

fn mapped(rings: &mut Rings, process: ProcessId, identity: SessionIdentity) {
    rings.attach(process, identity).unwrap();
    rings.read_from(process);
    rings.connect();
}

fn envelope(sequence: u64) -> Envelope {
    let meta = Meta { sequence, ..Meta::default() };
    Envelope { meta, origin: Origin::UNKNOWN, kind: Kind::Bytes { priority: 0 }, len: 0 }
}

fn geometry(payload_bytes: u32) -> Geometry {
    Geometry::new(SLOTS, payload_bytes).unwrap()
}

fn bells_of(page: &impl AsFd) -> Bells {
    Bells::shared(Map::of(page.as_fd(), Bells::BYTES, true).unwrap()).unwrap()
}

/// Descriptors and mappings of rings in this process; tests run side by side, so by name.
fn maps(name: &str) -> usize {
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
    let links = std::fs::read_dir("/proc/self/fd").unwrap().filter_map(|fd| fd.ok()?.path().read_link().ok());
    maps.lines().filter(|line| line.contains(name)).count()
        + links.filter(|link| link.to_string_lossy().contains(name)).count()
}
