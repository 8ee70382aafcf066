//! The daemon.

use clap::{Parser, Subcommand};
use rtd::config::command::Output;
use rtd::config::{self, CheckOptions};
use rtd::plan::SkinChoice;
use rtd::{daemon, demo, log, words};
use std::path::PathBuf;
use std::process::ExitCode;

// Counts heap calls of sealed threads; with RTD_GUARD=abort it ends the process at the first.
#[global_allocator]
static ALLOCATOR: rtcore::seal::GuardAlloc = rtcore::seal::GuardAlloc;

// A message that arrives while rtd starts waits for its lane.
rtcore::hold_signals!();

/// Routes real-time signals, message-queue messages and messages in shared memory between
/// processes, in priority lanes
#[derive(Parser)]
#[command(name = "rtd", version, propagate_version = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run the daemon in the foreground
    Run(daemon::RunArgs),
    /// Check a configuration and print all its problems, or a summary
    Check(CheckCommand),
    /// Run a demo of five processes, with and without a telemetry flood; needs no configuration and
    /// no root
    Demo(demo::DemoArgs),
    #[command(hide = true)]
    OwnDaemon(daemon::own::OwnArgs),
    #[command(hide = true, name = config::cobalt::SUBCOMMAND)]
    CobaltProbe(config::cobalt::ProbeArgs),
    #[command(hide = true)]
    DemoPart(demo::Part),
}

#[derive(clap::Args)]
struct CheckCommand {
    /// Configuration file; - reads standard input
    #[arg(default_value = daemon::CONFIG_FILE, value_name = "FILE")]
    file: PathBuf,
    /// Print the diagnostics as JSON on standard output
    #[arg(long, conflicts_with = "svg")]
    json: bool,
    /// Print a picture of lanes and routes as SVG instead of the summary
    #[arg(long)]
    svg: bool,
    /// Check for `rtd run --allow-degraded`
    #[arg(long)]
    allow_degraded: bool,
    /// Check for `rtd run --skin`: auto, posix or cobalt
    #[arg(long, value_enum, hide_possible_values = true)]
    skin: Option<SkinChoice>,
    /// Print the JSON schema of the configuration
    #[arg(long)]
    schema: bool,
    /// Print the reference of all keys as Markdown
    #[arg(long)]
    reference: bool,
}

fn main() -> ExitCode {
    #[cfg(feature = "fault-points")]
    if let Err(e) = rtcore::fault::attach() {
        log::last(format_args!("fault points: {e}"));
        return ExitCode::FAILURE;
    }
    let done = match &Cli::parse().command {
        Command::Run(args) => daemon::run(args),
        Command::Check(args) => return ExitCode::from(check(args)),
        Command::Demo(args) => demo::run(args),
        Command::OwnDaemon(args) => daemon::own::run_own(args),
        Command::CobaltProbe(args) => config::cobalt::run_probe(args),
        Command::DemoPart(part) => demo::run_part(part),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            log::last(format_args!("{e:#}"));
            // A status of its own, so that a service manager can distinguish it from a failed
            // start.
            if e.is::<daemon::LaneRanAway>() {
                ExitCode::from(daemon::EXIT_RUNAWAY)
            } else {
                ExitCode::FAILURE
            }
        }
    }
}

fn check(args: &CheckCommand) -> u8 {
    if args.schema {
        return config::command::print_schema();
    }
    if args.reference {
        return config::command::print_reference();
    }
    let options = CheckOptions {
        allow_degraded: args.allow_degraded,
        skin: args.skin,
    };
    let output = match (args.json, args.svg) {
        (true, _) => Output::Json,
        (_, true) => Output::Svg,
        _ => Output::Summary,
    };
    let columns = words::output_columns();
    config::command::check(
        &args.file,
        config::command::CheckArgs {
            output,
            options,
            columns,
        },
    )
}
