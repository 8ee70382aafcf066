//! `rtd demo`: the embedded default. One machine of five processes around a real daemon, measured
//! with and without a telemetry flood.
//!
//! The parent starts `rtd run` and the five parts as children of its own binary. They end when it
//! ends, whatever happens: each asks the kernel for SIGTERM at its parent's death, and the daemon
//! removes its page and its socket on SIGTERM. They are process groups of their own, so that what a
//! terminal sends to the foreground (Ctrl-C, Ctrl-\) meets the parent alone and everything is taken
//! down in order.
//!
//! Invariant: nothing is printed as measured before every message that was sent is where the ledger
//! says.

mod child;
mod config;
mod report;
mod roles;
mod stop;

pub use child::{Part, run_part};

use crate::ctl::page::{self, Printed};
use crate::daemon::own::{self, OwnDaemon};
use anyhow::Context as _;
use child::Children;
use config::Setup;
use report::Measured;
use roles::Schedule;
use rtcore::stats::reader::{Reader, Snapshot};
use rtcore::sys::clock;
use std::time::Duration;
use stop::Stop;

/// Arguments of `rtd demo`.
#[derive(clap::Args, Clone, Debug)]
pub struct DemoArgs {
    /// Run for this many seconds: the first half without, the second half with a telemetry flood
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u64).range(2..=3600))]
    seconds: u64,
    /// Run all lanes on this CPU (default: the last one allowed)
    #[arg(long)]
    cpu: Option<usize>,
}

/// From "all are ready" to the first message.
const LEAD_NS: u64 = 50_000_000;
const BAR_STEP_NS: u64 = 100_000_000;
/// The page of another process announces nothing: how often it is looked at.
const PAGE_LOOK_NS: u64 = 2_000_000;
/// How long a child may take to start, to report or to end.
const PATIENCE: Duration = Duration::from_secs(10);

/// Runs the demo and prints what it measured.
pub fn run(args: &DemoArgs) -> anyhow::Result<()> {
    let stop = Stop::on_signals()?;
    let setup = setup(args)?;
    let awake = rtcore::sys::idle::hold();
    let mut daemon = OwnDaemon::start(
        &setup.toml(),
        &setup.instance,
        setup.socket.clone().into(),
        Vec::new(),
    )?;
    let page = Reader::open(&setup.instance)?;
    if print(&report::head(
        &setup,
        args.seconds,
        &awake.text,
        &page.snapshot()?,
    ))? == Printed::NobodyReads
    {
        return daemon.stop();
    }
    let mut children = Children::start(&setup, daemon.pid())?;
    children.await_ready(&stop)?;
    let schedule = Schedule::from_now(LEAD_NS, args.seconds);
    children.begin(schedule)?;
    let before_flood = progress(schedule, &mut daemon, &mut children, &stop, &page)?;
    children.await_senders(&stop)?;
    let after = settled(&page, children.sent(), &stop)?;
    let measured = Measured {
        reports: children.finish(&stop)?,
        before_flood,
        after,
    };
    daemon.stop()?;
    print(&measured.tables())?;
    measured.verdict()
}

fn setup(args: &DemoArgs) -> anyhow::Result<Setup> {
    let allowed = rtcore::sys::cpus::allowed()?;
    let last = allowed.iter().max().copied().context("no CPU is allowed")?;
    let (instance, socket) = own::names("demo");
    let socket = socket.display().to_string();
    Ok(Setup {
        instance,
        socket,
        cpu: args.cpu.unwrap_or(last),
    })
}

/// Prints in one piece; a closed pipe (`| head`) is no failure.
fn print(text: &str) -> anyhow::Result<Printed> {
    page::print(text)
}

/// Shows the progress until the end of the schedule; what the page said when the flood began.
fn progress(
    schedule: Schedule,
    daemon: &mut OwnDaemon,
    children: &mut Children,
    stop: &Stop,
    page: &Reader,
) -> anyhow::Result<Snapshot> {
    // Hidden by itself where standard error is no terminal.
    let bar = indicatif::ProgressBar::new((schedule.end_ns - schedule.start_ns) / 1_000_000);
    let style =
        indicatif::ProgressStyle::with_template("{msg:<16} [{bar:40}] {percent:>3}%  {eta} left")?;
    bar.set_style(style.progress_chars("=> "));
    let mut before_flood = None;
    let mut next_ns = schedule.start_ns;
    while next_ns < schedule.end_ns {
        // The tick of a progress bar, ended early by a signal; then a look whether everybody
        // stands.
        stop.wait_until(next_ns)?;
        daemon.check()?;
        children.check()?;
        if next_ns >= schedule.flood_ns && before_flood.is_none() {
            before_flood = Some(page.snapshot()?);
        }
        bar.set_message(if before_flood.is_some() {
            "telemetry flood"
        } else {
            "telemetry 200 Hz"
        });
        bar.set_position((next_ns - schedule.start_ns) / 1_000_000);
        next_ns += BAR_STEP_NS;
    }
    stop.wait_until(schedule.end_ns)?;
    bar.finish_and_clear();
    before_flood.context("the schedule has no flood")
}

/// What the page says once the daemon has brought all that was sent to an end; or after a while
/// anyhow, then the verdict says what is missing.
fn settled(page: &Reader, sent: u64, stop: &Stop) -> anyhow::Result<Snapshot> {
    let give_up_ns = clock::monotonic_ns() + clock::nanos(PATIENCE);
    loop {
        let snapshot = page.snapshot()?;
        let sum = |of: fn(&rtcore::stats::Ledger) -> u64| -> u64 {
            snapshot.lanes.iter().map(|l| of(&l.ledger)).sum()
        };
        let now = clock::monotonic_ns();
        if (sum(|l| l.accepted) >= sent && sum(|l| l.queued) == 0) || now > give_up_ns {
            return Ok(snapshot);
        }
        stop.wait_until(now + PAGE_LOOK_NS)?;
    }
}
