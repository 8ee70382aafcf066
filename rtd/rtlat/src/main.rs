//! The latency laboratory.

use clap::{Parser, Subcommand};
use rtd::daemon::own::{OwnArgs, run_own};
use rtlat::args::{BadOption, MeasureArgs};
use rtlat::beside::{InterfererArgs, interfere};
use rtlat::clean::{CleanArgs, clean};
use rtlat::command::{self, CompareArgs, RouteArgs};
use rtlat::interference::{InterferenceArgs, interference};
use rtlat::load::{WorkerArgs, work};
use rtlat::mech::Kind;
use std::process::ExitCode;

// The measuring threads are sealed like the daemon's; with RTD_GUARD=abort a heap call of theirs
// ends the process.
#[global_allocator]
static ALLOCATOR: rtcore::seal::GuardAlloc = rtcore::seal::GuardAlloc;

// A signal of a route that is measured must not end a process that is still starting.
rtcore::hold_signals!();

/// Measure latency as cyclictest and its family do: timers, every mechanism, and routes through rtd
///
/// Exit codes: 0 success; 1 the measurement failed; 2 bad options; 3 a latency exceeded the bound
/// of -b; 4 a path is worse than its baseline; 5 a path is not clean; 6 messages were lost and
/// --allow-loss was not given.
#[derive(Parser)]
#[command(
    name = "rtlat",
    version,
    propagate_version = true,
    infer_long_args = true
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Measure how late a timer wakes a thread (cyclictest)
    Timer(MeasureArgs),
    /// Measure a POSIX message queue (pmqtest)
    Mq(MeasureArgs),
    /// Measure a queued real-time signal (sigwaittest; with --round-trip -i 0 signaltest)
    Signal(MeasureArgs),
    /// Measure a semaphore in shared memory (svsematest, which measures System V semaphores)
    Sem(MeasureArgs),
    /// Measure the hand-over of a priority-inheriting mutex (ptsematest)
    Mutex(MeasureArgs),
    /// Measure a futex
    Futex(MeasureArgs),
    /// Measure an eventfd
    Eventfd(MeasureArgs),
    /// Measure a pipe
    Pipe(MeasureArgs),
    /// Measure a Unix socket
    Unix(MeasureArgs),
    /// Measure a System V message queue
    Sysv(MeasureArgs),
    /// Measure a route of rtd: in a daemon that is started for it, or between two endpoints of a
    /// running one
    Route(RouteArgs),
    /// Compare all mechanisms and routes in one run, on one CPU and on two, by their ratios to a
    /// POSIX message queue
    Compare(CompareArgs),
    /// Check that the sealed threads of each path allocate nothing, fault nothing, make no other
    /// system calls and lose nothing
    Clean(CleanArgs),
    /// Measure the most urgent lane alone and beside a saturated lane, load, and stopped and dying
    /// clients
    Interference(InterferenceArgs),
    #[command(hide = true)]
    OwnDaemon(OwnArgs),
    #[command(hide = true)]
    LoadWorker(WorkerArgs),
    #[command(hide = true)]
    Interferer(InterfererArgs),
}

fn main() -> ExitCode {
    let raw = |kind, args: &MeasureArgs| command::raw(kind, args);
    let done = match &Cli::parse().command {
        Command::Timer(args) => command::timer(args),
        Command::Mq(args) => raw(Kind::Mq, args),
        Command::Signal(args) => raw(Kind::Signal, args),
        Command::Sem(args) => raw(Kind::Sem, args),
        Command::Mutex(args) => raw(Kind::Mutex, args),
        Command::Futex(args) => raw(Kind::Futex, args),
        Command::Eventfd(args) => raw(Kind::Eventfd, args),
        Command::Pipe(args) => raw(Kind::Pipe, args),
        Command::Unix(args) => raw(Kind::Unix, args),
        Command::Sysv(args) => raw(Kind::Sysv, args),
        Command::Route(args) => command::route(args),
        Command::Compare(args) => command::compare(args),
        Command::Clean(args) => clean(args),
        Command::Interference(args) => interference(args),
        Command::OwnDaemon(args) => run_own(args).map(|()| 0),
        Command::LoadWorker(args) => work(args).map(|()| 0),
        Command::Interferer(args) => interfere(args).map(|()| 0),
    };
    match done {
        Ok(code) => ExitCode::from(code),
        Err(e) => {
            rtd::log::print(format_args!("rtlat: error: {e:#}"));
            ExitCode::from(if e.is::<BadOption>() { 2 } else { 1 })
        }
    }
}
