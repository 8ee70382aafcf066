//! A run from its first fault to its report: what is chosen, recorded, printed.

use crate::Args;
use crate::campaign::{Campaign, Findings};
use crate::fault::Kind;
use crate::record::{self, Chosen, Record, Run};
use crate::report::Report;
use crate::world;
use anyhow::Context as _;
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// Lines of the daemon's log that a failure shows.
const LOG_LINES: usize = 50;

/// What is to be done, and what was done before.
struct Order {
    run: Run,
    faults: Vec<Chosen>,
    report: Report,
    record: Record,
    /// Place of the record.
    path: PathBuf,
}

impl Order {
    fn of(args: &Args) -> anyhow::Result<Order> {
        let mut report = Report::default();
        if let Some(path) = &args.resume {
            let past = record::read(path)?;
            past.checked
                .into_iter()
                .for_each(|(kind, outcome)| report.fault(kind, outcome));
            let faults = (past.next..args.count)
                .map(|n| past.run.choose(n))
                .collect();
            return Ok(Order {
                run: past.run,
                faults,
                report,
                record: Record::append(path)?,
                path: path.clone(),
            });
        }
        let (run, faults) = match &args.replay {
            Some(path) => {
                let past = record::read(path)?;
                (past.run, past.begun)
            }
            None => {
                let all = <Kind as clap::ValueEnum>::value_variants();
                let mut kinds = if args.only.is_empty() {
                    all.to_vec()
                } else {
                    args.only.clone()
                };
                kinds.retain(|kind| {
                    let lacks = kind.lacks(args.clock_steps);
                    lacks
                        .inspect(|need| println!("skipped {kind:?}: needs {need}"))
                        .is_none()
                });
                anyhow::ensure!(!kinds.is_empty(), "no kind of fault is left");
                let run = Run::new(args.seed, kinds);
                let faults = (args.from..args.from + args.count)
                    .map(|n| run.choose(n))
                    .collect();
                (run, faults)
            }
        };
        let beside = || Ok(std::env::current_exe()?.with_file_name("last-run.jsonl"));
        let path = args
            .record
            .clone()
            .map_or_else(beside, Ok::<_, std::io::Error>)?;
        let record = Record::create(&path, &run)?;
        Ok(Order {
            run,
            faults,
            report,
            record,
            path,
        })
    }
}

/// Whether every fault was as the documents say, and nothing leaked.
pub fn run(args: &Args) -> anyhow::Result<bool> {
    let mut order = Order::of(args)?;
    let start = Instant::now();
    let before = order.report.count();
    // The namespaces hide files under /run and /dev/shm: those of the user are open by then, or
    // written last.
    let programs = world::Programs::beside_this()?;
    world::enter()?;
    let mut campaign = Campaign::new(crate::plan::streams(args.few_streams), &programs)?;
    let well = rounds(args, start, &mut order, &mut campaign);
    if let Some(log) = &args.log {
        campaign.world().copy_log(log)?;
    }
    let well = well?;
    let tables = format!(
        "{}\n{}",
        order.report.markdown(),
        campaign.latencies.markdown()
    );
    print!("{tables}");
    if let Some(file) = &args.markdown {
        std::fs::write(file, &tables).with_context(|| file.display().to_string())?;
    }
    let (count, seconds) = (order.report.count() - before, start.elapsed().as_secs_f64());
    println!(
        "{count} faults in {seconds:.0} s, {:.1} a second; {} in all",
        count as f64 / seconds,
        order.report.count()
    );
    if order.report.misses_points() {
        println!("too few named points were reached");
    }
    println!("{} unexplained", order.report.failed());
    Ok(well && order.report.failed() == 0 && !order.report.misses_points())
}

/// One fault after the other, until one is not explained; whether nothing leaked.
fn rounds(
    args: &Args,
    start: Instant,
    order: &mut Order,
    campaign: &mut Campaign,
) -> anyhow::Result<bool> {
    let limit = args.seconds.map(Duration::from_secs);
    let mut well = true;
    for (at, fault) in (1..).zip(order.faults.clone()) {
        if limit.is_some_and(|limit| start.elapsed() > limit) {
            break;
        }
        order.record.begin(fault)?;
        let (outcome, findings) = campaign.round(fault).map_err(|error| {
            let world = campaign.world();
            eprintln!(
                "{}\n{}",
                world.last_lines("log", LOG_LINES),
                world.last_lines("ends.log", 10)
            );
            error.context(format!(
                "fault {} of seed {}; {}",
                fault.n,
                order.run.seed,
                again(order, fault)
            ))
        })?;
        if !findings.is_empty() {
            print_failure(order, fault, &outcome.what, findings);
        }
        let failed = !outcome.wrong.is_empty();
        order.record.checked(fault.n, &outcome)?;
        order.report.fault(fault.kind, outcome);
        let last = at == order.faults.len() as u64;
        let grown = if last || at % args.leaks_every == 0 {
            campaign.leaks()?
        } else {
            Vec::new()
        };
        for growth in &grown {
            println!(
                "leak after fault {} of seed {}: {growth}; {}",
                fault.n,
                order.run.seed,
                again(order, fault)
            );
        }
        well &= grown.is_empty();
        if (failed || !grown.is_empty()) && !args.keep_going {
            println!(
                "the last lines of the log:\n{}",
                campaign.world().last_lines("log", LOG_LINES)
            );
            break;
        }
    }
    Ok(well)
}

/// The commands that repeat it.
fn again(order: &Order, fault: Chosen) -> String {
    let kind = clap::ValueEnum::to_possible_value(&fault.kind)
        .map_or_else(String::new, |v| v.get_name().to_owned());
    format!(
        "again: scripts/faults --replay {}; this kind alone: scripts/faults --seed {} --only {kind}",
        order.path.display(),
        order.run.seed
    )
}

fn print_failure(order: &Order, fault: Chosen, what: &str, findings: Findings) {
    println!(
        "fault {} ({:?}) of seed {}: {what}",
        fault.n, fault.kind, order.run.seed
    );
    for (stream, finding) in findings {
        println!(
            "  {stream}: {} {:?}, the first is number {}",
            finding.count, finding.wrong, finding.first
        );
    }
    println!("  {}", again(order, fault));
}
