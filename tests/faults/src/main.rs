//! The fault campaign: real processes around the real daemon, faults from outside, and an accountant that trusts nobody.
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
mod plan;
mod report;
mod traced;
mod world;

use campaign::Campaign;
use clap::Parser;
use fault::Kind;
use std::process::ExitCode;
use std::time::{Duration, Instant};

// What comes early waits for the receiver at an end.
rtcore::hold_signals!();

/// Faults against rtd, one after the other, with a judgement after each.
#[derive(Parser, Debug)]
#[command(name = "faults")]
struct Args {
    /// How many faults
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
    log: Option<std::path::PathBuf>,
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
}

fn main() -> ExitCode {
    let mut args = Args::parse();
    let outcome = match args.role.take() {
        Some(Role::Actor(actor)) => actor.play().map(|()| true),
        None if args.config => {
            print!("{}", plan::config(&plan::streams(), 1, 0, 0));
            Ok(true)
        }
        None => run(&args),
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

/// Whether every fault was as the documents say.
fn run(args: &Args) -> anyhow::Result<bool> {
    world::enter()?;
    let all = <Kind as clap::ValueEnum>::value_variants();
    let kinds = if args.only.is_empty() { all.to_vec() } else { args.only.clone() };
    let start = Instant::now();
    let limit = args.seconds.map(Duration::from_secs);
    let mut report = report::Report::default();
    let mut campaign = Campaign::new(args.seed, kinds)?;
    let outcome = rounds(args, limit, start, &mut campaign, &mut report);
    if let Some(log) = &args.log {
        campaign.world().copy_log(log)?;
    }
    outcome?;
    print!("{}", report.markdown());
    println!("\n{}", campaign.latencies.markdown());
    println!("{} faults in {:.0} s", report.count(), start.elapsed().as_secs_f64());
    println!("{} unexplained", report.failed());
    Ok(report.failed() == 0)
}

/// One fault after the other, until one is not explained.
fn rounds(
    args: &Args,
    limit: Option<Duration>,
    start: Instant,
    campaign: &mut Campaign,
    report: &mut report::Report,
) -> anyhow::Result<()> {
    for n in args.from..args.from + args.count {
        if limit.is_some_and(|limit| start.elapsed() > limit) {
            break;
        }
        let failure = match campaign.round(n, report) {
            Ok(None) => continue,
            Ok(Some(failure)) => failure,
            Err(error) => {
                let world = campaign.world();
                eprintln!("{}\n{}", world.last_lines("log", 50), world.last_lines("ends.log", 10));
                return Err(error.context(format!("fault {n}, seed {}", args.seed)));
            }
        };
        println!("fault {n} ({:?}) of seed {}:", failure.kind, args.seed);
        for (stream, finding) in failure.findings {
            println!(
                "  {stream}: {} {:?}, the first is number {}",
                finding.count, finding.wrong, finding.first
            );
        }
        println!("  again: scripts/faults --seed {} --from {n} --count 1", args.seed);
        if !args.keep_going {
            println!("the last lines of the log:\n{}", campaign.world().last_lines("log", 50));
            break;
        }
    }
    Ok(())
}
