//! `rtd run`: from the text of a configuration to running lanes, and to the end of the daemon.

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

/// The default configuration file.
pub const CONFIG_FILE: &str = "/etc/rtd.toml";

/// Arguments of `rtd run`.
#[derive(clap::Args, Clone, Debug)]
pub struct RunArgs {
    /// Configuration file; - reads standard input
    #[arg(default_value = CONFIG_FILE, value_name = "FILE")]
    config: PathBuf,
    /// Run even if the kernel does not grant SCHED_FIFO, pinning, locked memory or the filter of
    /// system calls; every tool then shows `degraded`
    #[arg(long)]
    allow_degraded: bool,
    /// Use these real-time calls for the lanes instead of the configured ones: auto, posix or
    /// cobalt
    #[arg(long, value_enum, hide_possible_values = true)]
    skin: Option<SkinChoice>,
}

/// Period at which a stopping daemon checks whether its lanes have ended.
const STOP_POLL: Duration = Duration::from_millis(2);

/// Runs the daemon until SIGTERM or SIGINT.
pub fn run(args: &RunArgs) -> anyhow::Result<()> {
    run_for(args, Next::Start)
}

/// The same for a tool's own daemon, which has no next start.
pub(super) fn run_once(args: &RunArgs) -> anyhow::Result<()> {
    run_for(args, Next::Nothing)
}

/// Consequence of the end of the daemon.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Next {
    /// The next start restores registrations.
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
    // The device belongs to root, so this comes before rtd becomes another user.
    let _awake = stay_awake(plan.daemon.cpu_dma_latency);
    // Before there is another thread: a skin's library may start one.
    limits::reserve_descriptors(plan.descriptors());
    let privilege = Privilege::take(&plan)?;
    // Before signals are blocked.
    let skin = bind(&plan)?;
    let signals = StopSignals::block().context("cannot take SIGTERM, SIGINT and SIGHUP")?;
    prepare_signals(&plan, skin)?;
    // Dropped last of all: the last lines are then written, if anybody reads them.
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
    // The lanes must not read a source before they know the receivers that still live.
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
    // Before the page: when the page goes, the instance's name is free, and objects that are
    // removed afterwards may be the next instance's.
    let Serving { daemon, failed, .. } = control.into_lanes();
    let late_signals = LateSignals::of(daemon.plan());
    let finished = daemon.finish(&direct);
    log::info(format_args!("control socket: {counters}"));
    late_signals.report();
    // The first error is the cause.
    failed.map_or(finished, Err)
}

/// Limits the exit latency of idle states while the file is open. If the check found that this is
/// impossible, it has warned.
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

/// Reads and checks the configuration, and the settings of the machine that add latency. All
/// problems go to standard error.
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

/// Loads the skin of the plan into this process. The check tried it in a child process.
fn bind(plan: &Plan) -> anyhow::Result<&'static Skin> {
    let SkinPlan { kind, library, .. } = &plan.daemon.skin;
    match kind {
        SkinKind::Posix => Ok(skin::posix()),
        SkinKind::Cobalt => skin::cobalt::load(library.as_deref())
            .and_then(skin::cobalt::Loaded::bind)
            .context("Cobalt was available a moment ago and is not available any more"),
    }
}

/// Writes READY to standard output, for the program that started rtd, and the details to the log.
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

/// Writes without waiting: a program that waits for the line reads it, and a blocked standard
/// output must delay neither the control thread nor the notification of the service manager.
fn write_ready() {
    let mut out = std::io::stdout();
    if matches!(
        poll::wait(&mut [Interest::writable(out.as_raw_fd())], 0),
        Ok(1..)
    ) {
        // If nobody reads standard output, nobody waits for the line.
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
        if let Stop::Signal(_) = control.run(Some(Instant::now() + STOP_POLL))? {
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

/// The daemon as the control loop uses it.
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

    fn tick(&mut self, violations: &mut Vec<Violation>) -> Flow {
        match self.daemon.tick(violations) {
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
