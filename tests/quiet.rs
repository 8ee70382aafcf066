//! What sending and receiving do not do: no system call to somebody who is awake, no heap in the
//! client after connect, no heap and no page fault in the lane thread, over every path of rings.

use crate::util::book::End::Delivered;
use crate::util::lane_talk::endpoint;
use crate::util::needs::Need;
use crate::util::needs::{PTRACE, SPARE_CPU};
use crate::util::order::{self, Strategy};
use crate::util::{Daemon, Instance, Peer, eventually, kernel, lane, process, route, signal};
use rtcore::lane::peer::PeerState;
use rtcore::sys::cpus;
use std::process::{Child, Command, Stdio};

tests![
    a_send_into_a_polling_lane_makes_no_system_call needs(STRACE, PTRACE, SPARE_CPU),
    a_direct_send_to_a_polling_receiver_makes_no_system_call needs(STRACE, PTRACE, SPARE_CPU),
    a_send_to_a_sleeper_makes_the_call_that_wakes_it needs(STRACE, PTRACE, SPARE_CPU),
    a_client_allocates_nothing_after_connect,
    a_lane_thread_over_rings_touches_no_heap_and_faults_nothing,
];

/// strace(1), and the right to follow a process that is not its child.
pub static STRACE: Need = Need::new("strace of own processes", Trace::is_permitted);

/// strace(1) on a process.
struct Trace {
    strace: Child,
    file: std::path::PathBuf,
}

impl Trace {
    /// Follows all threads of this process.
    fn attach(instance: &Instance, pid: u32) -> anyhow::Result<Trace> {
        let file = instance.file("trace");
        let mut command = Command::new("strace");
        command
            .args(["-f", "-qq", "-s", "64", "-p", &pid.to_string(), "-o"])
            .arg(&file);
        rtcore::sys::process::die_with_parent_at_exec(&mut command);
        let mut strace = command.stdin(Stdio::null()).stderr(Stdio::null()).spawn()?;
        let attached = || {
            let threads = kernel::threads(pid).ok()?;
            let traced = |tid: &u32| {
                let status = std::fs::read_to_string(format!("/proc/{pid}/task/{tid}/status")).ok();
                status.is_some_and(|text| !text.contains("TracerPid:\t0\n"))
            };
            Some(threads.iter().all(traced))
        };
        let attached = eventually(|| match strace.try_wait() {
            Ok(None) => attached()?.then_some(true),
            _ => Some(false),
        })?;
        anyhow::ensure!(attached, "strace does not follow process {pid}");
        Ok(Trace { strace, file })
    }

    /// Whether that is permitted: Yama allows a process to be traced by its ancestors only.
    fn is_permitted() -> bool {
        let attach = || -> anyhow::Result<()> {
            let instance = Instance::new()?;
            let mut other = Command::new("cat").stdin(Stdio::piped()).spawn()?;
            let trace = Trace::attach(&instance, other.id());
            other.kill()?;
            other.wait()?;
            trace.map(drop)
        };
        attach().is_ok()
    }

    /// The calls of this thread from one that has `begins` in it to the next write, both left out.
    fn calls(mut self, tid: u32, begins: &str) -> anyhow::Result<Vec<String>> {
        let pid = nix::unistd::Pid::from_raw(i32::try_from(self.strace.id())?);
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGINT)?;
        self.strace.wait()?;
        let text = std::fs::read_to_string(&self.file)?;
        let own = text
            .lines()
            .filter_map(|line| line.split_once(' ').filter(|(t, _)| *t == tid.to_string()));
        let calls = own
            .map(|(_, call)| call.trim_start())
            .skip_while(|call| !call.contains(begins))
            .skip(1);
        // Its command comes in one read or two.
        let calls: Vec<String> = calls
            .filter(|call| !call.starts_with("read(0,"))
            .map(str::to_owned)
            .collect();
        let end = calls.iter().position(|call| call.starts_with("write(1,"));
        let end = end.ok_or_else(|| anyhow::anyhow!("no end of {begins:?} in\n{text}"))?;
        Ok(calls[..end].to_vec())
    }
}

impl Drop for Trace {
    fn drop(&mut self) {
        let _ = self.strace.kill();
        let _ = self.strace.wait();
    }
}

/// A lane that polls on the last CPU, at the lowest priority.
fn polling() -> anyhow::Result<String> {
    let allowed = cpus::allowed()?;
    let cpu = allowed.iter().max().copied().unwrap_or(0);
    Ok(format!(
        "[[lane]]\nname = \"awake\"\npriority = 1\ncpu = {cpu}\nwait = \"poll\"\nunisolated = true\n"
    ))
}

/// A thousand messages into a ring that somebody polls: not one system call. Into one whose reader
/// sleeps: the one that wakes it. A tracer that is attached may still let the first calls go by
/// unseen on a loaded machine: then once more. What it has seen decides at once.
fn no_call(more: &str, strategy: Strategy) -> anyhow::Result<()> {
    let unseen = |e: &anyhow::Error| e.to_string().starts_with("no end of");
    for _ in 0..4 {
        match no_call_once(more, strategy) {
            Err(e) if unseen(&e) => {}
            other => return other,
        }
    }
    no_call_once(more, strategy)
}

fn no_call_once(more: &str, strategy: Strategy) -> anyhow::Result<()> {
    const COUNT: u64 = 1000;
    let awake = polling()?;
    let instance = Instance::new()?;
    let head = instance.head();
    let lane = if more.contains("awake") {
        awake.as_str()
    } else {
        ""
    };
    let config = head
        + lane
        + &process("a")
        + &process("b")
        + &endpoint("a.out", "a", 4096)
        + &endpoint("b.in", "b", 4096)
        + &route("a.out", &["b.in"], more);
    let daemon = Daemon::start(&config)?;
    let mut b = Peer::with_inbox(&instance, "b")?;
    b.tell(order::Receive::Strategy {
        key: "i",
        wait: strategy,
    })?;
    let mut a = Peer::from_endpoint(&instance, "a", "a.out")?;
    a.reach("a.out")?;
    // Once before: whatever the first send does, it does not count.
    b.ask_numbers(10)?;
    assert_eq!(a.burst("a.out", 0, 10)?, (10, 0));
    b.taken_numbers()?;
    let trace = Trace::attach(&instance, a.pid())?;
    // The call that it was attached in is behind it.
    a.tid()?;
    b.ask_numbers(usize::try_from(COUNT)?)?;
    if strategy == Strategy::Block {
        eventually(|| (kernel::thread(b.pid(), b.pid()).ok()?.state == 'S').then_some(()))?;
    }
    assert_eq!(a.burst("a.out", 10, COUNT)?, (COUNT, 0));
    assert_eq!(b.taken_numbers()?, (10..10 + COUNT).collect::<Vec<_>>());
    let calls = trace.calls(a.pid(), "Burst")?;
    if strategy == Strategy::Block {
        assert!(
            !calls.is_empty() && calls.iter().all(|call| call.contains("FUTEX_WAKE")),
            "{calls:?}"
        );
    } else {
        assert!(calls.is_empty(), "{calls:?}");
    }
    instance.ledger_is("a.out->b.in", 10 + COUNT, &[(Delivered, 10 + COUNT)])?;
    daemon.stop()?;
    Ok(())
}

fn a_send_into_a_polling_lane_makes_no_system_call() -> anyhow::Result<()> {
    no_call("lane = \"awake\"", Strategy::Poll)
}

fn a_direct_send_to_a_polling_receiver_makes_no_system_call() -> anyhow::Result<()> {
    no_call("path = \"direct\"", Strategy::Poll)
}

/// The reverse, which shows that the two above would see a call.
fn a_send_to_a_sleeper_makes_the_call_that_wakes_it() -> anyhow::Result<()> {
    no_call("path = \"direct\"", Strategy::Block)
}

/// Every way of sending and receiving, thousands of times, in a thread that has forsworn the heap.
fn a_client_allocates_nothing_after_connect() -> anyhow::Result<()> {
    const COUNT: u64 = 3000;
    let instance = Instance::new()?;
    let config = instance.head()
        + &process("a")
        + &endpoint("a.out", "a", 64)
        + &endpoint("a.in", "a", 64)
        + &route("a.out", &["a.in"], "");
    let daemon = Daemon::start(&config)?;
    let mut a = Peer::from_endpoint(&instance, "a", "a.out")?;
    a.open_inbox()?;
    a.reach("a.out")?;
    let leaked = a.tell(order::Receive::Leak)?.number()?;
    assert!(leaked > 0, "nothing counts");
    for strategy in [
        Strategy::Block,
        Strategy::Spin { spin_ns: 50_000 },
        Strategy::Poll,
    ] {
        a.tell(order::Receive::Strategy {
            key: "i",
            wait: strategy,
        })?;
        assert_eq!(
            a.tell(order::Receive::Sealed {
                key: "i",
                endpoint: "a.out",
                count: COUNT
            })?
            .sealed()?,
            order::Sealed {
                breaches: 0,
                came: COUNT
            },
            "{strategy:?}"
        );
    }
    instance.ledger_is("a.out->a.in", 3 * COUNT, &[(Delivered, 3 * COUNT)])?;
    daemon.stop()?;
    Ok(())
}

/// Lane threads that read rings and write rings, queues and signals; whose receivers are full,
/// come, go and lie; and that stop with messages queued: not one heap call, and where memory is
/// locked not one page fault.
fn a_lane_thread_over_rings_touches_no_heap_and_faults_nothing() -> anyhow::Result<()> {
    const COUNT: u64 = 2000;
    let instance = Instance::new()?;
    let config = instance.head()
        + &lane("spin", 51, "wait = \"spin:50\"")
        + &["a", "b", "old"].map(process).concat()
        + &endpoint("a.out", "a", 64)
        + &endpoint("a.spin", "a", 64)
        + &endpoint("a.full", "a", 64)
        + &instance.mqueue("q", "")
        + &endpoint("b.in", "b", 64)
        + &endpoint("b.tiny", "b", 2)
        + &instance.mqueue("log", "")
        + &signal("old.sig", "old", "SIGRTMIN+2", "")
        + &route("a.out", &["b.in"], "overflow = \"block:10s\"")
        + &route(
            "a.spin",
            &["b.in"],
            "lane = \"spin\"\noverflow = \"block:10s\"",
        )
        + &route(
            "a.full",
            &["b.tiny", "log", "old.sig"],
            "truncate = true\ncapacity = 4\nttl = \"1ms\"\noverflow = \"displace-oldest\"",
        )
        + &route("q", &["b.tiny"], "overflow = \"conflate\"");
    let daemon = Daemon::start(&config)?;
    let mut a = Peer::session(&instance, "a")?;
    for endpoint in ["a.out", "a.spin", "a.full"] {
        a.claim(endpoint)?;
    }
    let mut queue = Peer::sender(&instance.queue("q"))?;
    // Three lives of the receiver: one that reads, one that is killed in the middle, one that reads
    // again.
    for life in 0..3 {
        let mut b = Peer::session(&instance, "b")?;
        b.open_inbox_of(&["b.in"])?;
        for endpoint in ["a.out", "a.spin"] {
            a.reach(endpoint)?;
            let count = if life == 1 { 10 } else { COUNT };
            b.ask_numbers(usize::try_from(count)?)?;
            a.lane_stream(endpoint, 0, count)?;
            assert_eq!(b.taken_numbers()?, (0..count).collect::<Vec<_>>());
        }
        // Nobody reads these.
        a.reach("a.full")?;
        a.burst("a.full", 0, 50)?;
        queue.stream(0, 20)?;
        instance.until("all were judged", |s| {
            s.routes[2].ledger.accepted == 150 * (life + 1)
        })?;
        b.kill()?;
        instance.until("its death is seen", |s| {
            s.processes
                .iter()
                .any(|p| p.name == "b" && p.state == PeerState::Dead)
        })?;
    }
    let snapshot = instance.until("the books balance", |s| {
        s.routes.iter().all(|r| r.ledger.balances())
    })?;
    let faults = snapshot
        .lanes
        .iter()
        .all(|lane| !lane.degraded().contains(&"memory"));
    let log = daemon.stop()?;
    let said: Vec<&str> = log
        .lines()
        .filter(|line| line.contains("since seal"))
        .collect();
    assert_eq!(said.len(), 4, "{log}");
    for line in said {
        assert!(line.contains("since seal 0 allocations,"), "{line}");
        assert!(
            !faults || line.contains(" 0 minor and 0 major faults"),
            "{line}"
        );
    }
    Ok(())
}
