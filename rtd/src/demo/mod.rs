//! `rtd demo`: the embedded default. One machine of five processes around a real daemon, measured with and
//! without a telemetry flood.
//!
//! The parent starts `rtd run` and the five parts as children of its own binary. They end when it ends,
//! whatever happens: each asks the kernel for SIGTERM at its parent's death, and the daemon removes its
//! queues on SIGTERM.

mod child;
mod config;
mod report;
mod roles;

pub use child::{Part, run_part};

use anyhow::Context as _;
use child::{Children, DaemonChild};
use config::Setup;
use report::Report;
use roles::Schedule;
use rtcore::stats::reader::Reader;
use rtcore::sys::clock;
use std::time::Duration;

/// Arguments of `rtd demo`.
#[derive(clap::Args, Clone, Debug)]
pub struct DemoArgs {
    /// Seconds to run: the first half without, the second half with a telemetry flood
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u64).range(2..=3600))]
    seconds: u64,
    /// CPU of all lanes (default: the last one allowed)
    #[arg(long)]
    cpu: Option<usize>,
}

/// Time for the parts to start and register before the first phase.
const LEAD_NS: u64 = 200_000_000;
const BAR_STEP_NS: u64 = 100_000_000;

/// Runs the demo and prints what it measured.
pub fn run(args: &DemoArgs) -> anyhow::Result<()> {
    let stop = child::stop_on_signals()?;
    let setup = setup(args)?;
    println!("rtd demo: lanes estop / control / telemetry on CPU {}, {} s", setup.cpu, args.seconds);
    let daemon = DaemonChild::start(&setup)?;
    for line in daemon.complaints() {
        println!("{line}");
    }
    let start_ns = clock::monotonic_ns() + LEAD_NS;
    let half_ns = args.seconds * 500_000_000;
    let schedule = Schedule { start_ns, flood_ns: start_ns + half_ns, end_ns: start_ns + 2 * half_ns };
    let children = Children::start(&setup, schedule, daemon.pid())?;
    progress(schedule, &children, &stop)?;
    let reports = children.reports()?;
    let snapshot = Reader::open(&setup.instance)?.snapshot()?;
    print(&reports, &snapshot);
    daemon.stop()
}

fn setup(args: &DemoArgs) -> anyhow::Result<Setup> {
    let allowed = rtcore::sys::cpus::allowed()?;
    let last = allowed.iter().max().copied().context("no CPU is allowed")?;
    let instance = format!("demo-{}", std::process::id());
    let directory = std::env::temp_dir().join(format!("rtd-{}", rtcore::sys::accounts::own_uid()));
    let socket = directory.join(format!("{instance}.sock")).display().to_string();
    Ok(Setup { instance, socket, cpu: args.cpu.unwrap_or(last) })
}

fn progress(schedule: Schedule, children: &Children, stop: &child::Stop) -> anyhow::Result<()> {
    let total_ms = (schedule.end_ns - schedule.start_ns) / 1_000_000;
    let bar = indicatif::ProgressBar::new(total_ms);
    let style = indicatif::ProgressStyle::with_template("{msg:<18} [{bar:40}] {percent:>3}%  {eta} left")?;
    bar.set_style(style.progress_chars("=> "));
    let mut next_ns = schedule.start_ns;
    while next_ns < schedule.end_ns {
        // The tick of a progress bar, ended early by a signal or by a part that died.
        stop.wait_until(next_ns)?;
        children.check()?;
        bar.set_message(if next_ns < schedule.flood_ns { "telemetry 200 Hz" } else { "telemetry flood" });
        bar.set_position((next_ns - schedule.start_ns) / 1_000_000);
        next_ns += BAR_STEP_NS;
    }
    bar.finish_and_clear();
    stop.wait_until(schedule.end_ns)?;
    Ok(())
}

fn print(reports: &[Report], snapshot: &rtcore::stats::reader::Snapshot) {
    println!("\n{}", report::table(reports));
    println!("{}", report::ledger(snapshot));
}

/// How long a child may take to end or to report before it is killed.
const PATIENCE: Duration = Duration::from_secs(5);
