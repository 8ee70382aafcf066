//! `rtd run`: the way of a configuration from text to running lanes, and the way down.

use super::late_signals::LateSignals;
use super::notify::Notifier;
use super::{Daemon, Options, Privilege, last_life, prepare_signals};
use crate::config::{self, CheckOptions, Machine};
use crate::control::{Control, Flow, Lanes, Stop, TICK, Violation};
use crate::log;
use crate::plan::{
    DmaLatency, EndpointId, Plan, ProcessId, RouteId, SkinChoice, SkinKind, SkinPlan,
};
use crate::words::counted;
use anyhow::Context as _;
use rtcore::lane::peer::PeerState;
use rtcore::seal;
use rtcore::skin::{self, Skin};
use rtcore::sys::epoll::{StopSignal, StopSignals};
use rtcore::sys::poll::{self, Interest};
use rtcore::sys::{clock, idle, limits, memory};
use std::fs::File;
use std::io::Write as _;
use std::os::fd::AsRawFd as _;
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// The configuration where none is named.
pub const CONFIG_FILE: &str = "/etc/rtd.toml";

/// Arguments of `rtd run`.
#[derive(clap::Args, Clone, Debug)]
pub struct RunArgs {
    /// Configuration; - reads standard input
    #[arg(default_value = CONFIG_FILE, value_name = "FILE")]
    config: PathBuf,
    /// Run without SCHED_FIFO, pinning, locked memory or a filter of system calls where they are
    /// not granted; every tool says so
    #[arg(long)]
    allow_degraded: bool,
    /// The lanes' real-time calls, whatever the configuration says: auto, posix or cobalt
    #[arg(long, value_enum, hide_possible_values = true)]
    skin: Option<SkinChoice>,
}

/// How often a stopping daemon checks whether its lanes have ended.
const STOP_LOOK: Duration = Duration::from_millis(2);

/// Runs the daemon until SIGTERM or SIGINT.
pub fn run(args: &RunArgs) -> anyhow::Result<()> {
    run_for(args, Next::Start)
}

/// The same for a tool's own daemon, which is never started again.
pub(super) fn run_once(args: &RunArgs) -> anyhow::Result<()> {
    run_for(args, Next::Nothing)
}

/// What follows the end of the daemon.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Next {
    /// Another start, which restores registrations.
    Start,
    Nothing,
}

fn run_for(args: &RunArgs, next: Next) -> anyhow::Result<()> {
    if std::env::var_os("RTD_GUARD").is_some_and(|v| v == "abort") {
        seal::abort_on_breach();
    }
    memory::configure_allocator();
    limits::raise_soft();
    let (plan, notes) = load(args)?;
    last_life::await_exit(&plan);
    // The device is root's, so before rtd becomes another user.
    let _awake = stay_awake(plan.daemon.cpu_dma_latency);
    // Before there is another thread: a skin's library may start one.
    limits::reserve_descriptors(plan.descriptors());
    let privilege = Privilege::take(&plan)?;
    // Also before signals are blocked.
    let skin = bind(&plan)?;
    let signals = StopSignals::block().context("cannot take SIGTERM, SIGINT and SIGHUP")?;
    prepare_signals(&plan, skin)?;
    // Last of all dropped: then the last lines go out, if anybody reads them.
    let _log = log::start(move || privilege.of_helper()).context("cannot start the log thread")?;
    let options = Options {
        allow_degraded: args.allow_degraded,
        privilege,
    };
    let (daemon, rings) = Daemon::start(plan, skin, options)?;
    let (plan, peers) = (daemon.plan().clone(), daemon.peers().to_vec());
    let look_ns = plan.daemon.watch.period_ns.max(clock::nanos(TICK));
    let serving = Serving {
        daemon,
        notifier: Notifier::from_env(look_ns),
        failed: None,
    };
    let mut control = Control::new(&plan, peers, rings, signals, serving)?;
    if next == Next::Nothing {
        control.keep_none();
    }
    // The lanes must not read a source before they know the receivers that are still there.
    control.adopt();
    rtcore::fault_point!("after_adoption_before_lanes");
    control.lanes().daemon.go();
    announce(&plan, skin, &notes)?;
    let Serving {
        daemon, notifier, ..
    } = control.lanes();
    notifier.ready(clock::monotonic_ns(), daemon.status());
    let stop = control.run(None)?;
    let Serving {
        notifier, failed, ..
    } = control.lanes();
    match stop {
        Stop::Signal(signal) => {
            log::info(format_args!("{}: stopping", signal_name(signal)));
            notifier.stopping(signal_name(signal));
        }
        Stop::Lanes | Stop::Deadline => {
            let why = failed.as_ref().map(|e| format!("{e:#}"));
            notifier.stopping(&why.unwrap_or_default());
        }
    }
    go_down(&mut control)?;
    let (direct, counters) = (control.last_direct_ledgers(), control.counters());
    let left = control.lanes().daemon.end_lanes();
    control.keep_leftovers(&left);
    // Before the page: with that the instance's name is free, and what is removed afterwards may be
    // the next one's.
    let Serving { daemon, failed, .. } = control.into_lanes();
    let late_signals = LateSignals::of(daemon.plan());
    let finished = daemon.finish(&direct);
    log::info(format_args!("control socket: {counters}"));
    late_signals.report();
    // What came first is why.
    failed.map_or(finished, Err)
}

/// Limits the exit latency of idle states while the file is open. Where the check saw that it
/// cannot, it has warned.
fn stay_awake(wanted: DmaLatency) -> Option<File> {
    let DmaLatency::HeldAtUs(latency_us) = wanted else {
        return None;
    };
    match idle::request(latency_us) {
        Ok(device) => {
            log::info(format_args!("{} is held at {latency_us} us", idle::DEVICE));
            Some(device)
        }
        Err(e) => {
            log::warning(format_args!(
                "{} is not held at {latency_us} us ({e}): waking an idle CPU adds to every latency",
                idle::DEVICE
            ));
            None
        }
    }
}

/// Reads and checks the configuration; problems go to standard error, all of them. Also what the
/// machine adds to latencies.
fn load(args: &RunArgs) -> anyhow::Result<(Plan, Vec<String>)> {
    let name = args.config.display().to_string();
    let text = config::command::read(&args.config).map_err(|e| {
        anyhow::anyhow!(
            "cannot read {name}: {e}; to read another file: rtd run \
        FILE"
        )
    })?;
    let options = CheckOptions {
        allow_degraded: args.allow_degraded,
        skin: args.skin,
    };
    let machine = Machine::probe();
    let checked = config::check_with(&name, &text, &machine, options);
    for diagnostic in &checked.diagnostics {
        crate::log::print(format_args!("{diagnostic}"));
    }
    let plan = checked.plan.with_context(|| {
        format!("{name} cannot run, see above (rtd check {name} shows the same)")
    })?;
    let notes = config::machine_notes(&plan, &machine);
    Ok((plan, notes))
}

/// The skin of the plan. What the check saw in a child of its own comes now into this process.
fn bind(plan: &Plan) -> anyhow::Result<&'static Skin> {
    let SkinPlan { kind, library, .. } = &plan.daemon.skin;
    match kind {
        SkinKind::Posix => Ok(skin::posix()),
        SkinKind::Cobalt => skin::cobalt::load(library.as_deref())
            .and_then(skin::cobalt::Loaded::bind)
            .context("Cobalt was available a moment ago and is not available any more"),
    }
}

/// READY on standard output, for the program that started rtd; the details in the log.
fn announce(plan: &Plan, skin: &Skin, notes: &[String]) -> anyhow::Result<()> {
    let Plan {
        daemon,
        lanes,
        endpoints,
        routes,
        ..
    } = plan;
    log::info(format_args!("skin {}: {}", skin.name, daemon.skin.why));
    if !skin.caps.linux_calls {
        log::info(format_args!(
            "skin {}: its calls are not Linux's, so no filter of system calls holds the lanes to their lists",
            skin.name
        ));
    }
    plan.notes()
        .iter()
        .chain(notes)
        .for_each(|note| log::info(format_args!("{note}")));
    log::info(format_args!(
        "{}: {}, {}, {}, control socket {}",
        daemon.name,
        counted(lanes.len(), "lane"),
        counted(routes.len(), "route"),
        counted(endpoints.len(), "endpoint"),
        daemon.socket.display()
    ));
    write_ready();
    Ok(())
}

/// A program that waits for the line reads it. A standard output that takes nothing now must not
/// delay the control thread, nor the notification of the service manager.
fn write_ready() {
    let mut out = std::io::stdout();
    if matches!(
        poll::wait(&mut [Interest::writable(out.as_raw_fd())], 0),
        Ok(1..)
    ) {
        // Nobody listens on standard output: then nobody waits for it either.
        let _ = writeln!(out, "READY").and_then(|()| out.flush());
    } else {
        log::warning(format_args!(
            "cannot write READY: standard output is blocked"
        ));
    }
}

fn go_down(control: &mut Control<Serving>) -> anyhow::Result<()> {
    control.lanes().daemon.request_stop();
    // Registrations and deaths are served while the lanes drain; a second signal cuts the drain
    // short.
    while !control.lanes().daemon.stopped() && !control.lanes().daemon.overdue() {
        if let Stop::Signal(_) = control.run(Some(Instant::now() + STOP_LOOK))? {
            log::warning(format_args!(
                "second request to stop: queued messages are given up"
            ));
            control.lanes().daemon.request_stop();
        }
    }
    Ok(())
}

fn signal_name(signal: StopSignal) -> &'static str {
    match signal {
        StopSignal::Terminate => "SIGTERM",
        StopSignal::Interrupt => "SIGINT",
        StopSignal::HangUp => "SIGHUP",
    }
}

/// The daemon as the control loop sees it.
struct Serving {
    daemon: Daemon,
    notifier: Notifier,
    failed: Option<anyhow::Error>,
}

impl Lanes for Serving {
    fn show(&mut self, process: ProcessId, state: PeerState, _pid: i32, _uid: u32) {
        self.daemon.peer_changed(process, state);
    }

    fn receptions_changed(&mut self, process: ProcessId) {
        self.daemon.receptions_changed(process);
    }

    fn rings_wait(&mut self, routes: &[RouteId]) {
        self.daemon.wake_for_routes(routes);
    }

    fn session_waits(&mut self, process: ProcessId) {
        self.daemon.wake_for_process(process);
    }

    fn lost_with_sender(&mut self, endpoint: EndpointId, pid: i32, messages: u64) {
        self.daemon.lost_with_sender(endpoint, pid, messages);
    }

    fn tick(&mut self, expelled: &mut Vec<Violation>) -> Flow {
        match self.daemon.tick(expelled) {
            Ok(()) => {
                let Serving {
                    daemon, notifier, ..
                } = self;
                notifier.tick(clock::monotonic_ns(), daemon.is_well(), || daemon.status());
                Flow::Continue
            }
            Err(e) => {
                log::error(format_args!("{e:#}"));
                self.failed.get_or_insert(e);
                Flow::Stop
            }
        }
    }
}
