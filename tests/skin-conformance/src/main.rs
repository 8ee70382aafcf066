//! `skin-conformance`: checks a skin rule by rule, on the machine that it shall run on.
//!
//! Exit status: 0 all rules kept (or skipped), 1 some broken, 2 bad usage, 3 there is nothing to
//! check.

use skin_conformance::calls::Calls;
use skin_conformance::rules::{before_binding, peer, rules, table_rules};
use skin_conformance::run::{Verdict, run, run_here};
use skin_conformance::{Line, Skin};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

const USAGE: &str = "\
Usage: skin-conformance --skin posix|cobalt [--library PATH] [--rule TEXT]

Checks what rtd relies on in a skin's calls, one line per rule: pass, FAIL or skip, its name, and what was seen.

  --skin posix|cobalt  which calls
  --library PATH       libcobalt to load; without it libcobalt.so.2 from where the dynamic linker looks
  --rule TEXT          only rules with this text in their name

Needs the right to SCHED_FIFO (CAP_SYS_NICE or an rtprio limit); for cobalt also membership of the group in
/sys/module/xenomai/parameters/allowed_group, or root.
Exit status: 0 all rules kept, 1 some broken, 2 bad usage, 3 nothing to check.";

#[derive(Default)]
struct Options {
    cobalt: bool,
    path: Option<PathBuf>,
    rule: String,
}

fn main() -> ExitCode {
    match options(std::env::args().skip(1)) {
        Ok(Some(options)) => check(&options),
        Ok(None) => {
            println!("{USAGE}");
            ExitCode::SUCCESS
        }
        Err(why) => {
            eprintln!("skin-conformance: {why}\n\n{USAGE}");
            ExitCode::from(2)
        }
    }
}

/// None where help was asked for.
fn options(mut arguments: impl Iterator<Item = String>) -> Result<Option<Options>, String> {
    let (mut options, mut skin) = (Options::default(), None);
    while let Some(argument) = arguments.next() {
        if matches!(argument.as_str(), "-h" | "--help") {
            return Ok(None);
        }
        let value = arguments
            .next()
            .ok_or_else(|| format!("{argument} needs a value"))?;
        match argument.as_str() {
            "--skin" => skin = Some(value),
            "--library" => options.path = Some(value.into()),
            "--rule" => options.rule = value,
            _ => return Err(format!("there is no option {argument}")),
        }
    }
    options.cobalt = match skin.as_deref() {
        Some("posix") => false,
        Some("cobalt") => true,
        Some(other) => return Err(format!("there is no skin {other}: posix or cobalt")),
        None => return Err("--skin is missing: posix or cobalt".to_owned()),
    };
    if !options.cobalt && options.path.is_some() {
        return Err("--library belongs to --skin cobalt".to_owned());
    }
    Ok(Some(options))
}

fn check(options: &Options) -> ExitCode {
    let calls = match calls(options) {
        Ok(calls) => &*Box::leak(Box::new(calls)),
        Err(why) => {
            eprintln!("skin-conformance: {why}");
            return ExitCode::from(3);
        }
    };
    let wanted = |name: &str| name.contains(&options.rule);
    let mut lines = Vec::new();
    println!("# {}", calls.name());
    for rule in before_binding().iter().filter(|rule| wanted(rule.name)) {
        show(&mut lines, run_here(rule, calls));
    }
    // Where the core refuses, the library ends the process with a line of its own.
    let table = match bind(options) {
        Ok(table) => table,
        Err(why) => {
            eprintln!("skin-conformance: {why}");
            return ExitCode::FAILURE;
        }
    };
    if let Some(result) = peer(calls) {
        return match result {
            Ok(()) => ExitCode::SUCCESS,
            Err(errno) => {
                eprintln!("skin-conformance: the other process: {errno}");
                ExitCode::FAILURE
            }
        };
    }
    for rule in rules().iter().filter(|rule| wanted(rule.name)) {
        show(&mut lines, run::<dyn Skin>(rule, calls));
    }
    for rule in table_rules().iter().filter(|rule| wanted(rule.name)) {
        show(&mut lines, run(rule, table));
    }
    summary(&lines)
}

/// Binds the process as rtd does, on the main thread, before any other exists.
fn bind(options: &Options) -> Result<&'static rtcore::skin::Skin, String> {
    if !options.cobalt {
        return Ok(rtcore::skin::posix());
    }
    rtcore::skin::cobalt::load(options.path.as_deref())
        .and_then(|loaded| loaded.bind())
        .map_err(|e| e.to_string())
}

fn calls(options: &Options) -> Result<Calls, String> {
    if !options.cobalt {
        return Ok(Calls::posix());
    }
    let library = xenomai::Library::open(options.path.as_deref()).map_err(|e| e.to_string())?;
    if library.stand_in().is_none() && !Path::new(xenomai::PROC_VERSION).exists() {
        return Err(format!(
            "{} is there, but no Cobalt: {} is absent; boot a kernel with Xenomai 3",
            library.name(),
            xenomai::PROC_VERSION
        ));
    }
    Ok(Calls::cobalt(&library))
}

fn show(lines: &mut Vec<Line>, line: Line) {
    println!("{line}");
    // A library that ends the process flushes nothing of ours.
    let _ = std::io::stdout().flush();
    lines.push(line);
}

fn summary(lines: &[Line]) -> ExitCode {
    let count = |verdict| lines.iter().filter(|line| line.verdict == verdict).count();
    let (passed, failed, skipped) = (
        count(Verdict::Pass),
        count(Verdict::Fail),
        count(Verdict::Skip),
    );
    println!("# {passed} passed, {failed} failed, {skipped} skipped");
    match (failed, passed + skipped) {
        (0, 0) => {
            eprintln!("skin-conformance: no rule has that text in its name");
            ExitCode::from(2)
        }
        (0, _) => ExitCode::SUCCESS,
        _ => ExitCode::FAILURE,
    }
}
