//! The fault campaign: real processes around the real daemon, faults from outside and from inside,
//! and an accountant that trusts nobody.
//!
//! `scripts/faults` builds and starts it.

mod account;
mod actor;
mod allowed;
mod books;
mod campaign;
mod fault;
mod hostile;
mod innocent;
mod journal;
mod leaks;
mod patience;
mod plan;
mod points;
mod record;
mod report;
mod run;
mod squeeze;
mod traced;
mod world;

use clap::Parser;
use fault::Kind;
use std::path::PathBuf;
use std::process::ExitCode;

// What comes early waits for the receiver at an end.
rtcore::hold_signals!();

/// Faults against rtd, one after the other, with a judgement after each
#[derive(Parser, Debug)]
#[command(name = "faults")]
struct Args {
    /// How many faults, those of a resumed run included
    #[arg(long, default_value_t = 300)]
    count: u64,
    /// Stop after this time, whatever the count
    #[arg(long)]
    seconds: Option<u64>,
    /// What the run is made from: the same seed gives the same faults in the same order
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Number of the first fault
    #[arg(long, default_value_t = 0)]
    from: u64,
    /// These kinds alone
    #[arg(long, value_enum, value_delimiter = ',')]
    only: Vec<Kind>,
    /// Go on after a failure
    #[arg(long)]
    keep_going: bool,
    /// Where to copy the daemon's log at the end
    #[arg(long)]
    log: Option<PathBuf>,
    /// Where to write the record of the run, for --replay and --resume [default: last-run.jsonl
    /// beside the program]
    #[arg(long, value_name = "FILE")]
    record: Option<PathBuf>,
    /// Do exactly the faults of this record
    #[arg(long, value_name = "FILE", conflicts_with_all = ["seed", "only", "from", "resume"])]
    replay: Option<PathBuf>,
    /// Go on with the run of this record after its last checked fault, up to --count
    #[arg(long, value_name = "FILE", conflicts_with_all = ["seed", "only", "from", "record"])]
    resume: Option<PathBuf>,
    /// Where to write the tables as Markdown
    #[arg(long, value_name = "FILE")]
    markdown: Option<PathBuf>,
    /// Look for leaks after so many faults, and at the end
    #[arg(long, default_value_t = 25, value_parser = clap::value_parser!(u64).range(1..))]
    leaks_every: u64,
    /// Also set CLOCK_REALTIME, which belongs to the whole machine, forth and back
    #[arg(long)]
    clock_steps: bool,
    /// A third of the streams, each four times slower: for a slow machine
    #[arg(long)]
    few_streams: bool,
    /// Print the configuration of the run and end
    #[arg(long)]
    config: bool,
    #[command(subcommand)]
    role: Option<Role>,
}

#[derive(clap::Subcommand, Debug)]
enum Role {
    /// The program at an end of a stream
    #[command(hide = true)]
    Actor(actor::Actor),
    /// A hostile client
    #[command(hide = true)]
    Hostile(hostile::Client),
}

fn main() -> ExitCode {
    let mut args = Args::parse();
    let outcome = match args.role.take() {
        Some(Role::Actor(actor)) => actor.play().map(|()| true),
        Some(Role::Hostile(client)) => client.play().map(|()| true),
        None if args.config => {
            print!(
                "{}",
                plan::config(&plan::streams(args.few_streams), 1, 0, 0)
            );
            Ok(true)
        }
        None => run::run(&args),
    };
    match outcome {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("faults: {error:#}");
            ExitCode::from(2)
        }
    }
}
