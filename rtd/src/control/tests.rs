//! The control thread with real sockets and real processes. Other users' processes and the programs
//! behind `rtctl run` are this test binary again, see [`child`].

mod abuse;
mod client;
mod hostile;
mod naming;
mod programs;
mod sessions;

use super::*;
use crate::ctl::{register, run};
use crate::endpoint::EndpointKind;
use crate::endpoint::signal::SignalPlan;
use crate::plan::watch::{LaneWatch, WatchPlan};
use crate::plan::*;
use rtcore::channel::hand_off::HandOffSlot;
use rtcore::lane::policy::{GroupMode, Overflow, SignalTarget, Wait};
use rtcore::ring::{Consumer, Producer};
use rtcore::sys::procfs::effective_uid;
use rtcore::sys::seqpacket::{Conn, Received};
use rtcore::wire::FRAME_BYTES;
use std::collections::BTreeMap;
use std::io::Read;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;

/// Limit of every wait of a test.
const LIMIT: Duration = Duration::from_secs(30);
/// A user that owns no process.
const STRANGER: u32 = 12_345;

type Change = (ProcessId, PeerState, i32, u32);

struct Recorder {
    changes: Sender<Change>,
    violations: Receiver<Violation>,
    stop: Arc<AtomicBool>,
}

impl Lanes for Recorder {
    fn show(&mut self, process: ProcessId, state: PeerState, pid: i32, uid: u32) {
        let _ = self.changes.send((process, state, pid, uid));
    }
    fn tick(&mut self, violations: &mut Vec<Violation>) -> Flow {
        violations.extend(self.violations.try_iter());
        if self.stop.load(Ordering::Relaxed) {
            Flow::Stop
        } else {
            Flow::Continue
        }
    }
}

/// The ends of all rings that lane threads would have.
struct Feeds {
    sources: BTreeMap<EndpointId, HandOffSlot<Consumer>>,
    sinks: BTreeMap<(RouteId, usize), HandOffSlot<Producer>>,
}

impl Feeds {
    fn take(plan: &Plan, rings: &mut Rings) -> Feeds {
        let sources = (0..plan.endpoints.len())
            .map(|id| (id, rings.take_source(id)))
            .collect();
        let ends = |route: &RoutePlan| {
            route
                .to
                .iter()
                .map(|to| to.endpoints().len())
                .sum::<usize>()
        };
        let all = plan
            .routes
            .iter()
            .enumerate()
            .flat_map(|(id, r)| (0..ends(r)).map(move |end| (id, end)));
        Feeds {
            sources,
            sinks: all.map(|at| (at, rings.take_sink(at.0, at.1))).collect(),
        }
    }
}

/// A control thread in a directory of its own.
struct Rig {
    dir: PathBuf,
    socket: PathBuf,
    peers: Vec<Arc<Peer>>,
    changes: Receiver<Change>,
    violate: Sender<Violation>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<ControlCounters>>,
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

/// A plan in which process 0 is sent signals 35 and 40, one of them through a group.
fn plan(socket: PathBuf, processes: Vec<ProcessPlan>) -> Plan {
    let signal = |name: &str, signo, owner| EndpointPlan {
        name: name.into(),
        owner,
        kind: EndpointKind::Signal(SignalPlan {
            signo,
            target: SignalTarget::Process,
            inbox: None,
        }),
    };
    let members = vec![2];
    let group = TargetPlan::Group {
        name: "g".into(),
        mode: GroupMode::All,
        members,
        filter: None,
    };
    let route = RoutePlan {
        path: crate::plan::Path::Routed,
        name: "r".into(),
        from: 0,
        to: vec![TargetPlan::Endpoint(1), group],
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
    };
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
        processes,
        endpoints: vec![
            signal("in", 50, None),
            signal("a", 35, Some(0)),
            signal("b", 40, Some(0)),
            signal("unrouted", 41, Some(0)),
        ],
        routes: vec![route],
        sources: vec![],
    }
}

impl Rig {
    fn new(name: &str, processes: Vec<ProcessPlan>) -> Rig {
        Rig::with(name, |socket| plan(socket, processes)).0
    }

    /// With a plan of the test's own; returns the halves of its rings that lane threads would have.
    fn with(name: &str, plan: impl FnOnce(PathBuf) -> Plan) -> (Rig, Feeds) {
        let dir = std::env::temp_dir().join(format!("rtd-control-{}-{name}", std::process::id()));
        let _ = std::fs::remove_dir_all(&dir);
        std::fs::create_dir(&dir).unwrap();
        let socket = dir.join("s");
        let plan = plan(socket.clone());
        let mut rings = Rings::new(&plan, rtcore::skin::posix(), true).unwrap();
        let ring_slots = Feeds::take(&plan, &mut rings);
        let peers: Vec<_> = plan
            .processes
            .iter()
            .map(|_| Arc::new(Peer::new(1, rtcore::skin::posix()).unwrap()))
            .collect();
        let of_control = peers.clone();
        let (sender, changes) = channel();
        let (violate, violations) = channel();
        let (ready, is_ready) = channel();
        let stop = Arc::new(AtomicBool::new(false));
        let recorder = Recorder {
            changes: sender,
            violations,
            stop: Arc::clone(&stop),
        };
        let thread = std::thread::spawn(move || {
            let signals = StopSignals::block().unwrap();
            let mut control = Control::new(&plan, of_control, rings, signals, recorder).unwrap();
            ready.send(()).unwrap();
            assert_eq!(control.run(None).unwrap(), Stop::Lanes);
            control.counters()
        });
        is_ready
            .recv_timeout(LIMIT)
            .expect("the control thread starts");
        (
            Rig {
                dir,
                socket,
                peers,
                changes,
                violate,
                stop,
                thread: Some(thread),
            },
            ring_slots,
        )
    }

    fn change(&self) -> Change {
        self.changes.recv_timeout(LIMIT).expect("a change of state")
    }

    fn no_change(&self, within: Duration) {
        assert_eq!(
            self.changes.recv_timeout(within),
            Err(RecvTimeoutError::Timeout)
        );
    }

    fn register(&self, name: &str, pid: i32) -> Result<Reply, String> {
        register::claim(&self.socket, name, pid, 0, false).map(|(_, reply)| reply)
    }

    fn stop(mut self) -> ControlCounters {
        self.stop.store(true, Ordering::Relaxed);
        let counters = self.thread.take().unwrap().join().unwrap();
        assert!(
            !self.socket.exists(),
            "the socket goes with the control thread"
        );
        counters
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}

/// A process that dies with the test.
struct Program {
    child: Child,
    stdin: Option<ChildStdin>,
    pid: i32,
}

impl Program {
    fn spawn(command: &mut Command) -> Program {
        let mut child = command.stdin(Stdio::piped()).spawn().unwrap();
        let (stdin, pid) = (child.stdin.take(), i32::try_from(child.id()).unwrap());
        Program { child, stdin, pid }
    }

    fn cat() -> Program {
        Program::spawn(Command::new("/bin/cat").stdout(Stdio::null()))
    }

    fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// All of its output until it ends.
    fn output(mut self) -> (String, Option<i32>) {
        drop(self.stdin.take());
        let mut text = String::new();
        for stream in [
            self.child
                .stdout
                .take()
                .map(|s| Box::new(s) as Box<dyn Read>),
            self.child
                .stderr
                .take()
                .map(|s| Box::new(s) as Box<dyn Read>),
        ] {
            stream.map(|mut s| s.read_to_string(&mut text).unwrap());
        }
        (text, self.child.wait().unwrap().code())
    }

    /// The next line that it prints with this prefix, without it.
    fn line(&mut self, prefix: &str) -> String {
        let mut line = String::new();
        let stdout = self.child.stdout.as_mut().expect("stdout is piped");
        // Byte by byte: a dropped buffer would lose the following lines.
        loop {
            let mut byte = [0];
            assert_eq!(
                stdout.read(&mut byte).unwrap(),
                1,
                "ended before {prefix:?}"
            );
            match byte[0] {
                b'\n' if line.starts_with(prefix) => return line.split_off(prefix.len()),
                b'\n' => line.clear(),
                byte => line.push(char::from(byte)),
            }
        }
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// This binary as a child that follows the orders that [`child`] finds in its environment.
fn other_side(words: &[&str]) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args([
        "control::tests::child",
        "--exact",
        "--nocapture",
        "--test-threads=1",
    ]);
    command
        .env("RTD_TEST_CHILD", words.join("\n"))
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

/// `rtctl run --as NAME -- CMD...`.
fn rtctl_run(socket: &Path, name: &str, command: &[&str]) -> Command {
    other_side(&[&["run", socket.to_str().unwrap(), name], command].concat())
}

/// Does nothing when it runs with the other tests, because the variable is not set.
#[test]
fn child() {
    let Ok(words) = std::env::var("RTD_TEST_CHILD") else {
        return;
    };
    let words: Vec<&str> = words.split('\n').collect();
    match words[..] {
        ["run", socket, name, ref command @ ..] => {
            let args = run::RunArgs {
                name: name.into(),
                no_block: false,
                command: command.iter().map(Into::into).collect(),
            };
            let code = run::run("none", &args, Path::new(socket));
            let debug = format!("{code:?}");
            let number = debug
                .trim_matches(|c: char| !c.is_ascii_digit())
                .parse()
                .unwrap_or(1);
            std::process::exit(number);
        }
        ["claim", socket, name, pid] => {
            let result = register::claim(Path::new(socket), name, pid.parse().unwrap(), 0, false);
            match result {
                Ok((_, reply)) => println!("\nresult: granted {}", reply.pid),
                Err(text) => println!("\nresult: {text}"),
            }
            let _ = std::io::stdin().read(&mut [0]);
        }
        ["serve", socket] => serve(Path::new(socket), || ()),
        ["serve-without-memory", socket] => serve(Path::new(socket), use_up_memory),
        ["unlocked"] => sessions::unlocked(),
        ["session", socket] => client::obey(Path::new(socket)),
        _ => unreachable!("{words:?}"),
    }
}

/// Uses up the memory of this process except for some 100 KiB.
fn use_up_memory() {
    let pages = std::fs::read_to_string("/proc/self/statm").unwrap();
    let pages: u64 = pages.split(' ').next().unwrap().parse().unwrap();
    nix::sys::resource::setrlimit(
        nix::sys::resource::Resource::RLIMIT_AS,
        pages * 4096,
        nix::sys::resource::rlim_t::MAX,
    )
    .unwrap();
    let mut kept = Vec::with_capacity(1 << 20);
    let mut block: Vec<u8> = Vec::new();
    while kept.len() < kept.capacity() && block.try_reserve_exact(4000).is_ok() {
        kept.push(std::mem::take(&mut block));
    }
    kept.truncate(kept.len().saturating_sub(25));
    std::mem::forget(kept);
}

/// A daemon in a process of its own, so that signals and limits are its own. `prepare` runs before
/// it serves.
fn serve(socket: &Path, prepare: impl FnOnce()) {
    let signals = StopSignals::block().unwrap();
    let plan = plan(socket.into(), vec![process("arm")]);
    let (peers, rings) = (
        vec![Arc::new(Peer::new(1, rtcore::skin::posix()).unwrap())],
        Rings::new(&plan, rtcore::skin::posix(), true).unwrap(),
    );
    let (changes, _changes) = channel();
    let (_violate, violations) = channel();
    let recorder = Recorder {
        changes,
        violations,
        stop: Arc::default(),
    };
    let mut control = Control::new(&plan, peers, rings, signals, recorder).unwrap();
    prepare();
    println!("\nready: ");
    for _ in 0..2 {
        let stop = control.run(None).unwrap();
        println!("\nstop: {stop:?}");
        println!("turns: {}", control.counters().turns);
        println!("shortages: {}", control.counters().shortages);
    }
}
