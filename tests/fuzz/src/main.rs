//! Mutated input for everything in rtd and rtcore that reads what others wrote.
//!
//! `scripts/fuzz` builds it with counters of what is reached, and starts it. `cargo test -p fuzz`
//! plays what is saved in `tests/fuzz/corpus`. No nightly compiler and no further library: the
//! counters come with rustc's LLVM.

mod campaign;
mod coverage;
mod engine;
mod memory;
mod mutate;
mod targets;

use anyhow::Context as _;
use clap::Parser;
use engine::Order;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;
use targets::{TARGETS, Target};

#[global_allocator]
static ALLOCATOR: memory::Counting = memory::Counting;

/// Plays mutations of saved inputs against what reads them
#[derive(Parser, Debug)]
#[command(name = "fuzz")]
struct Args {
    /// Time for each target
    #[arg(long, default_value_t = 60)]
    seconds: u64,
    /// What the mutations are made from
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Add to tests/fuzz/corpus what reaches something new
    #[arg(long)]
    save: bool,
    /// Play this file and nothing else
    #[arg(long, value_name = "FILE")]
    input: Option<PathBuf>,
    /// Replace the corpus of each target by the part of it that reaches all that the whole does
    #[arg(long)]
    shrink: bool,
    /// Where the process of one target writes its current input
    #[arg(long, hide = true, value_name = "FILE")]
    worker: Option<PathBuf>,
    /// The targets; all, if none is named
    #[arg(value_parser = target)]
    targets: Vec<&'static Target>,
}

fn target(name: &str) -> Result<&'static Target, String> {
    let names = || {
        TARGETS
            .iter()
            .map(|target| target.name)
            .collect::<Vec<_>>()
            .join(", ")
    };
    TARGETS
        .iter()
        .find(|target| target.name == name)
        .ok_or_else(|| format!("the targets are {}", names()))
}

/// Where the saved inputs of a target are.
fn corpus(target: &Target) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("corpus")
        .join(target.name)
}

fn main() -> ExitCode {
    match run(Args::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("fuzz: {error:#}");
            ExitCode::from(2)
        }
    }
}

/// Whether every input was survived.
fn run(args: Args) -> anyhow::Result<bool> {
    let targets = if args.targets.is_empty() {
        TARGETS.iter().collect()
    } else {
        args.targets
    };
    let order = |target: &Target| Order {
        time: Duration::from_secs(args.seconds),
        seed: args.seed,
        corpus: corpus(target),
        journal: args.worker.clone(),
        save: args.save,
    };
    let first = targets[0];
    if let Some(file) = &args.input {
        let input = std::fs::read(file).with_context(|| file.display().to_string())?;
        engine::play(first, &input, None)?;
    } else if args.shrink {
        for target in targets {
            println!("{}", engine::shrink(target, &corpus(target))?);
        }
    } else if args.worker.is_some() {
        println!("{}", engine::run(first, &order(first))?);
    } else {
        let failures = Path::new(env!("CARGO_MANIFEST_DIR")).join("failures");
        let jobs = std::thread::available_parallelism().map_or(1, usize::from);
        return campaign::run(&targets, &order(first), &failures, jobs);
    }
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each of them was found once, many of them by a crash.
    #[test]
    fn every_saved_input_is_survived() {
        for target in &TARGETS {
            let saved = engine::saved(&corpus(target)).unwrap();
            assert!(!saved.is_empty(), "{} has no corpus", target.name);
            for input in (target.seeds)() {
                engine::play(target, &input, None).unwrap();
            }
            for (path, input) in saved {
                println!("{}", path.display());
                engine::play(target, &input, None).unwrap();
            }
        }
    }

    #[test]
    fn every_corpus_has_a_target() {
        let all = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus");
        for entry in std::fs::read_dir(all).unwrap() {
            let name = entry.unwrap().file_name().into_string().unwrap();
            assert!(target(&name).is_ok(), "{name}");
        }
    }
}
