//! `rtlat compare --preset`: the cost of a hop through rtd, as figures with their aims.
//!
//! A preset is one or more experiments on daemons of its own. Sender and receiver of a path are two
//! processes (unless a row says that they are one thread), they and the lane share one CPU unless
//! one of them polls, and each message follows the arrival of the one before. Ratios are to the
//! first row of the table.

#![forbid(unsafe_code)]

mod helper;
mod hops;
mod lanes;
mod setup;
mod start;
mod table;
mod throughput;

use super::compare::CompareArgs;
use super::out::{Run, Unit};
use super::run::{Conditions, command_line, to_file};
use super::time::wall_ns;
use rtcore::sys::permission_hints::PermissionHint;
use rtcore::sys::sched;
use rtd::ctl::sheet::Sheet;
use setup::Effort;
use table::Findings;

/// Turns of a preset, unless --turns says more.
const TURNS: u64 = 400;
/// Messages of a turn. Few: paths are compared while the machine runs at one speed.
const MESSAGES: u64 = 100;

/// `--preset`.
#[derive(clap::ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub enum Preset {
    /// Every preset below, one after the other
    All,
    /// Queue to queue and queue to signal, everything at FIFO 80
    Equal,
    /// The same with the lane at FIFO 80 above clients at 70
    Hops,
    /// Shared memory, direct and through a lane; every thread sleeps until it is woken
    Lanes,
    /// Shared memory; the lane or the receiver polls on the other CPU
    Polling,
    /// A spinning lane that serves 64 rings
    Spinning,
    /// Messages a second through shared memory
    Throughput,
    /// One route against 500 in a daemon
    Routes,
    /// One message to eight receivers
    FanOut,
    /// Two registered clients against 64
    Clients,
    /// Start to READY, and resident memory
    Start,
}

/// Measures one preset.
type Measure = fn(&Effort, &mut Conditions) -> anyhow::Result<Findings>;

impl Preset {
    const ALL: [(Preset, Measure); 10] = [
        (Preset::Equal, hops::equal),
        (Preset::Hops, hops::below_the_lane),
        (Preset::Routes, hops::many_routes),
        (Preset::FanOut, hops::fan_out),
        (Preset::Start, start::start),
        (Preset::Lanes, lanes::blocking),
        (Preset::Polling, lanes::polling),
        (Preset::Spinning, lanes::spinning),
        (Preset::Throughput, throughput::throughput),
        (Preset::Clients, lanes::clients),
    ];

    fn key(self) -> String {
        clap::ValueEnum::to_possible_value(&self)
            .map_or_else(String::new, |v| v.get_name().to_owned())
    }
}

/// Without SCHED_FIFO the figures mean nothing.
fn ensure_fifo() -> anyhow::Result<()> {
    let granted = sched::set_fifo(setup::LANE_PRIORITY);
    granted.map_err(|e| {
        let program = std::env::current_exe().unwrap_or_default();
        let fix = PermissionHint::Fifo.fix(&program.to_string_lossy());
        anyhow::anyhow!("a preset needs SCHED_FIFO, which was not granted: {e}\n{fix}")
    })?;
    Ok(sched::set_ordinary()?)
}

/// Measures the chosen presets, prints a table each, writes the files asked for, and returns the
/// exit code.
pub fn run(args: &CompareArgs, cpus: (usize, Option<usize>)) -> anyhow::Result<u8> {
    let mut conditions = Conditions::set(&args.report)?;
    ensure_fifo()?;
    let effort = Effort {
        cpu: cpus.0,
        other: cpus.1,
        turns: args.turns.unwrap_or(TURNS),
        messages: args.busy.unwrap_or(MESSAGES),
        quiet: args.quiet,
    };
    let started = wall_ns();
    let columns = args.width.columns();
    let mut head = Sheet::new(columns);
    head.line(conditions.lines(None).trim_end());
    let (turns, messages, cpu) = (effort.turns, effort.messages, effort.cpu);
    head.line(&format!(
        "# CPU {cpu}; {turns} turns of {messages} messages of {} bytes; us",
        setup::BYTES
    ));
    rtd::ctl::page::print(&head.finish())?;
    let wanted =
        |preset: Preset| args.preset.contains(&Preset::All) || args.preset.contains(&preset);
    let mut all = Vec::new();
    for (preset, measure) in Preset::ALL
        .into_iter()
        .filter(|(preset, _)| wanted(*preset))
    {
        let findings = Findings {
            preset: preset.key(),
            ..measure(&effort, &mut conditions)?
        };
        let mut sheet = Sheet::new(columns);
        findings.show(&mut sheet);
        rtd::ctl::page::print(&sheet.finish())?;
        all.push(findings);
        if conditions.is_interrupted {
            break;
        }
    }
    if let Some(path) = &args.report.json {
        let (start_time_ns, end_time_ns) = (started, wall_ns());
        let run = Run {
            command: command_line(),
            start_time_ns,
            end_time_ns,
            return_code: 0,
            unit: Unit::Us,
        };
        to_file(path, |out| table::json(out, &run, &all))?;
    }
    Ok(0)
}
