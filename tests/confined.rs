//! Lane threads make the system calls of their list: a filter enforces it, rtd reports a thread
//! that breaks it, and a machine without filters is refused, or reported as unconfined.

use crate::util::book::End::Delivered;
use crate::util::needs::ROOT;
use crate::util::order;
use crate::util::{Daemon, Instance, Peer, eventually, kernel, route};
use anyhow::{Context as _, ensure};
use nix::sys::signal::Signal;
use rtcore::endpoint::sink::Sink;
use rtcore::endpoint::source::Source;
use rtcore::endpoint::{SinkKind, SourceKind, mqueue};
use rtcore::lane::event::{EventKind, channel};
use rtcore::lane::policy::{GroupMode, Overflow, Wait};
use rtcore::lane::progress::ProgressCell;
use rtcore::lane::route::{OriginRule, Route, Rules};
use rtcore::lane::syscalls::{LAST_WORDS, WAY_OUT};
use rtcore::lane::target::Target;
use rtcore::lane::worker::{Input, Worker};
use rtcore::seal;
use rtcore::skin::{self, OpenQueue};
use rtcore::stats::reader::{Reader, Snapshot};
use rtcore::stats::writer::Page;
use rtcore::stats::{LaneSpec, PageSpec, RouteSpec, WorkerSpec};
use rtcore::sys::mqueue::Access;
use rtcore::sys::rtsignal;
use rtcore::sys::seccomp::{Allowed, Call, Program, allow};
use seccompiler::{BpfProgram, SeccompAction, SeccompFilter};
use std::collections::BTreeMap;
use std::ffi::CString;
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

tests![
    each_lane_thread_has_a_filter_and_a_strangers_sigsys_is_no_breach,
    a_call_off_the_list_is_refused_counted_and_named,
    a_fault_of_a_lane_ends_the_process,
    in_tests_a_call_off_the_list_aborts_and_the_line_names_it,
    a_start_without_a_filter_is_refused needs(ROOT),
    a_degraded_start_without_a_filter_says_so_everywhere,
];

const COUNT: u64 = 100;

fn straight(instance: &Instance) -> String {
    instance.head()
        + &instance.mqueue("in", "")
        + &instance.mqueue("out", "")
        + &route("in", &["out"], "overflow = \"block:10s\"")
}

/// `Seccomp` of a thread's status: 0 none, 2 a filter.
fn filter_of(pid: u32, tid: u32) -> anyhow::Result<String> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/task/{tid}/status"))?;
    let line = text.lines().find_map(|line| line.strip_prefix("Seccomp:"));
    Ok(line.context("no Seccomp")?.trim().to_owned())
}

fn each_lane_thread_has_a_filter_and_a_strangers_sigsys_is_no_breach() -> anyhow::Result<()> {
    let instance = Instance::new()?;
    let daemon = Daemon::start(&straight(&instance))?;
    let mut out = Peer::receiver(&instance.queue("out"))?;
    out.ask(order::Queue::Receive {
        count: COUNT,
        quiet_ms: 10_000,
    })?;
    let lane = instance.snapshot()?.workers[0].tid;
    eventually(|| (filter_of(daemon.pid(), lane).ok()? == "2").then_some(()))?;
    for thread in kernel::threads(daemon.pid())?
        .into_iter()
        .filter(|tid| *tid != lane)
    {
        ensure!(
            filter_of(daemon.pid(), thread)? == filter_of(std::process::id(), std::process::id())?
        );
    }
    let (pid, lane) = (i32::try_from(daemon.pid())?, i32::try_from(lane)?);
    for tid in [pid, lane] {
        rtsignal::queue_to_thread(pid, tid, Signal::SIGSYS as i32, 0, 0, 0)
            .map_err(std::io::Error::from)?;
    }
    Peer::sender(&instance.queue("in"))?.stream(0, COUNT)?;
    ensure!(out.answer()?.mail()?.len() as u64 == COUNT);
    instance.ledger_is("in->out", COUNT, &[(Delivered, COUNT)])?;
    let read = instance.snapshot()?;
    ensure!(
        read.lanes[0].refused_calls() == Some(0) && read.lanes[0].counters.refused_call().is_none(),
        "{:?}",
        read.lanes
    );
    ensure!(
        !read.lanes[0].degraded().contains(&"unconfined") && read.workers[0].sealed_at.is_some()
    );
    let log = daemon.stop()?;
    ensure!(log.contains(" 0 refused system calls"), "{log}");
    Ok(())
}

/// A worker whose list lacks what its route needs.
fn worker(
    instance: &Instance,
    page: &Page,
) -> anyhow::Result<(Worker, rtrb::Consumer<rtcore::lane::event::Event>)> {
    let skin = skin::posix();
    let [source, sink] = ["in", "out"].map(|end| CString::new(instance.queue(end)));
    let (source, sink) = (source?, sink?);
    for queue in [&source, &sink] {
        OpenQueue::create(skin, queue, 10, 64)?;
    }
    let blocking = OpenQueue::open(skin, &source, Access::Receive, false)?;
    let nonblocking = OpenQueue::open(skin, &source, Access::Receive, true)?;
    let queue = OpenQueue::open(skin, &sink, Access::Send, true)?;
    let rules = Rules {
        index: 0,
        ttl_ns: u64::MAX,
        deadline_ns: u64::MAX,
        payload_bytes_max: 64,
        capacity: 1,
        overflow: Overflow::Reject,
        mq_priority: None,
        origin: OriginRule::Channel,
    };
    let target = Target {
        mode: GroupMode::All,
        first: 0,
        len: 1,
        cursor: 0,
        filter: None,
    };
    let sink = mqueue::Sink {
        queue,
        bytes_max: 64,
        announces_room: true,
    };
    let sink = Sink::new(SinkKind::Mqueue(sink), None);
    let inputs = vec![Input {
        source: Source::new(
            SourceKind::Mqueue(mqueue::Source::new(blocking, nonblocking)),
            64,
            false,
        ),
        routes: vec![Route::new(
            rules,
            None,
            vec![target],
            vec![sink],
            page.route(0),
            None,
        )],
    }];
    let own: &[Allowed] = &[
        allow(Call::MQ_RECEIVE, "takes a message"),
        allow(Call::GETRUSAGE, "its usage"),
        allow(Call::SIGRETURN, "the end of a handler"),
    ];
    let (events, told) = channel();
    let worker = Worker {
        name: "in".into(),
        skin,
        priority: 1,
        cpu: 0,
        wait: Wait::Block,
        cell: page.worker(0),
        events,
        stop_at_ns: Arc::new(AtomicU64::new(0)),
        progress: ProgressCell::default(),
        waits: Worker::waits_for(&inputs, None),
        calls: Some(Program::compile(
            [own, WAY_OUT, LAST_WORDS].into_iter().flatten(),
        )?),
        inputs,
    };
    Ok((worker, told))
}

fn page(instance: &Instance) -> anyhow::Result<Page> {
    let lane = LaneSpec {
        name: "lane".into(),
        priority: 1,
        cpu: 0,
        wait: "block".into(),
        confined: true,
    };
    let route = RouteSpec {
        name: "r".into(),
        lane: 0,
        from: 0,
        to: "out".into(),
        ends: vec![0],
        direct: false,
    };
    Ok(Page::create(&PageSpec {
        name: instance.name.clone(),
        lanes: vec![lane],
        routes: vec![route],
        workers: vec![WorkerSpec {
            lane: 0,
            name: "in".into(),
        }],
        ..PageSpec::default()
    })?)
}

fn a_call_off_the_list_is_refused_counted_and_named() -> anyhow::Result<()> {
    let instance = Instance::new()?;
    let page = page(&instance)?;
    let (worker, mut told) = worker(&instance, &page)?;
    let stop_at_ns = Arc::clone(&worker.stop_at_ns);
    seal::watch_calls()?;
    let lane = std::thread::spawn(move || worker.run());
    Peer::sender(&instance.queue("in"))?.stream(0, 3)?;
    let reader = Reader::open(&instance.name)?;
    let all =
        |s: &Snapshot| s.lanes[0].refused_calls() == Some(3) && s.routes[0].ledger.accepted == 3;
    let read = eventually(|| reader.snapshot().ok().filter(all))?;
    ensure!(
        read.lanes[0].counters.refused_call() == Some("mq_timedsend"),
        "{:?}",
        read.lanes
    );
    ensure!(
        read.routes[0].ledger.rejected_total() == 3 && read.routes[0].ledger.balances(),
        "{:?}",
        read.routes
    );
    let shown = instance.rtctl(&["stats"])?;
    let shown = String::from_utf8_lossy(&shown.stdout).into_owned();
    ensure!(
        shown.contains("REFUSED-CALLS") && shown.contains("3 (mq_timedsend)"),
        "{shown}"
    );
    // It looks up at the next message.
    stop_at_ns.store(1, Ordering::Relaxed);
    Peer::sender(&instance.queue("in"))?.stream(3, 1)?;
    let report = lane
        .join()
        .map_err(|_| anyhow::anyhow!("the lane panicked"))?;
    ensure!(report.counters.refused_calls >= 3, "{report:?}");
    let refused = std::iter::from_fn(|| told.pop().ok());
    let refused: Vec<_> = refused
        .filter(|event| matches!(event.kind, EventKind::Refused { .. }))
        .collect();
    let call = report
        .counters
        .last_refused_call
        .checked_sub(1)
        .context("no call was refused")?;
    let first = EventKind::Refused {
        call: call.try_into()?,
        times: 1,
    };
    ensure!(
        refused.first().is_some_and(|event| event.kind == first),
        "{refused:?}"
    );
    Ok(())
}

/// What `--breach` of the test binary does: a thread without any right opens a file.
pub fn breach() -> std::process::ExitCode {
    seal::abort_on_breach();
    let program = Program::compile([WAY_OUT, LAST_WORDS].into_iter().flatten());
    if let (Ok(program), Ok(())) = (program, seal::watch_calls()) {
        let run = move || {
            let _ = seal::confine(&program);
            drop(std::fs::File::open("/dev/null"));
        };
        let _ = std::thread::spawn(run).join();
    }
    std::process::ExitCode::SUCCESS
}

/// What `--fault` of the test binary does: a thread with a lane's last words reads where nothing
/// is.
pub fn fault() -> std::process::ExitCode {
    let own: &[Allowed] = &[allow(Call::SIGRETURN, "the end of the handler")];
    let program = Program::compile([own, WAY_OUT, LAST_WORDS].into_iter().flatten());
    if let (Ok(program), Ok(())) = (program, seal::watch_calls()) {
        let run = move || {
            let _ = seal::confine(&program);
            // SAFETY: none: nothing is mapped there, and the fault is what this is about.
            unsafe { std::ptr::read_volatile(std::ptr::without_provenance::<u8>(8)) }
        };
        let _ = std::thread::spawn(run).join();
    }
    std::process::ExitCode::SUCCESS
}

/// Not a thread that faults again and again at its priority, with a daemon around it that seems to
/// live.
fn a_fault_of_a_lane_ends_the_process() -> anyhow::Result<()> {
    let mut child = Command::new(std::env::current_exe()?)
        .arg("--fault")
        .spawn()?;
    let ended = eventually(|| child.try_wait().ok().flatten());
    if ended.is_err() {
        child.kill()?;
        child.wait()?;
    }
    let status = ended?;
    ensure!(status.signal() == Some(Signal::SIGSEGV as i32), "{status}");
    Ok(())
}

fn in_tests_a_call_off_the_list_aborts_and_the_line_names_it() -> anyhow::Result<()> {
    let output = Command::new(std::env::current_exe()?)
        .arg("--breach")
        .output()?;
    ensure!(
        output.status.signal() == Some(Signal::SIGABRT as i32),
        "{output:?}"
    );
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(
        said.contains("system call openat(2) by a sealed thread"),
        "{said}"
    );
    Ok(())
}

/// Has the command run where seccomp(2) is forbidden, as some containers do it.
fn without_seccomp(command: &mut Command) -> anyhow::Result<()> {
    let rules = BTreeMap::from([(syscalls::Sysno::seccomp as i64, Vec::new())]);
    // EPERM
    let (allow, refuse) = (SeccompAction::Allow, SeccompAction::Errno(1));
    let filter = SeccompFilter::new(rules, allow, refuse, std::env::consts::ARCH.try_into()?)?;
    let program: BpfProgram = filter.try_into()?;
    let apply = move || seccompiler::apply_filter(&program).map_err(std::io::Error::other);
    // SAFETY: two system calls on a program made before the fork; an error of theirs is the only
    // heap call.
    unsafe { command.pre_exec(apply) };
    Ok(())
}

/// The daemon where no thread can have a filter.
fn start_without_seccomp(instance: &Instance, more: &[&str]) -> anyhow::Result<Daemon> {
    let mut command = Command::new(env!("CARGO_BIN_EXE_rtd"));
    command.args(["run", "-"]).args(more);
    without_seccomp(&mut command)?;
    Daemon::spawn(command, &straight(instance))
}

fn a_start_without_a_filter_is_refused() -> anyhow::Result<()> {
    let instance = Instance::new()?;
    let refused = format!(
        "{:#}",
        start_without_seccomp(&instance, &[])
            .err()
            .context("it started")?
    );
    ensure!(
        refused.contains("a filter of system calls for lane lane (thread in)"),
        "{refused}"
    );
    ensure!(
        refused.contains("CONFIG_SECCOMP_FILTER") && refused.contains("--allow-degraded"),
        "{refused}"
    );
    Ok(())
}

fn a_degraded_start_without_a_filter_says_so_everywhere() -> anyhow::Result<()> {
    let instance = Instance::new()?;
    let daemon = start_without_seccomp(&instance, &["--allow-degraded"])?;
    let mut out = Peer::receiver(&instance.queue("out"))?;
    out.ask(order::Queue::Receive {
        count: COUNT,
        quiet_ms: 10_000,
    })?;
    Peer::sender(&instance.queue("in"))?.stream(0, COUNT)?;
    ensure!(out.answer()?.mail()?.len() as u64 == COUNT);
    ensure!(
        instance.snapshot()?.lanes[0]
            .degraded()
            .contains(&"unconfined")
    );
    let log = daemon.stop()?;
    ensure!(
        log.contains("DEGRADED") && log.contains("a filter of system calls"),
        "{log}"
    );
    Ok(())
}
