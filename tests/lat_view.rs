//! When `rtlat` ends and what it shows until then: on a terminal, and into a pipe.

use crate::util::Instance;
use crate::util::lat::{Counts, Traces, lat, start};
use crate::util::terminal::Terminal;
use crate::util::tool::run;
use anyhow::{Context as _, ensure};
use nix::sys::signal::Signal;
use serde_json::Value;
use std::time::{Duration, Instant};

tests![
    a_duration_ends_it,
    whichever_comes_first_ends_it,
    a_pipe_gets_no_escape_codes,
    verbose_shows_every_sample,
    a_terminal_is_redrawn_and_ends_with_the_result,
    quiet_on_a_terminal_shows_the_result_alone,
    what_a_stopped_sender_misses_is_in_the_corrected_figures,
];

fn a_duration_ends_it() -> anyhow::Result<()> {
    let instance = Instance::new()?;
    for args in [
        &["timer", "-t", "2"][..],
        &["mq", "-f"],
        &["sem", "--round-trip"],
        &["route", "lane"],
    ] {
        let begun = Instant::now();
        let out = run(lat(&instance, &[args, &["-q", "-D", "1"]].concat())?)?.well()?;
        ensure!(
            begun.elapsed() >= Duration::from_secs(1),
            "{args:?} ended after {:?}",
            begun.elapsed()
        );
        let counts = Counts::read(&out)?;
        ensure!(
            counts.iter().all(|c| c.balances() && c.received > 0),
            "{args:?}: {out}"
        );
        // A millisecond each, and it does not go on for long.
        ensure!(
            counts.iter().all(|c| c.scheduled < 5000),
            "{args:?}: {counts:?}"
        );
    }
    // One message an hour: nothing comes, and still it ends.
    let out = run(lat(
        &instance,
        &["mq", "-q", "-i", "3600000000", "-D", "1"],
    )?)?
    .well()?;
    ensure!(Counts::read(&out)?.iter().all(Counts::balances), "{out}");
    Ok(())
}

fn whichever_comes_first_ends_it() -> anyhow::Result<()> {
    let instance = Instance::new()?;
    let out = run(lat(&instance, &["pipe", "-q", "-l", "30", "-D", "1d"])?)?.well()?;
    ensure!(Counts::read(&out)?[0].scheduled == 30, "{out}");
    Ok(())
}

/// In a pipe nothing is redrawn: the lines stand there once, whether quiet or not.
fn a_pipe_gets_no_escape_codes() -> anyhow::Result<()> {
    let instance = Instance::new()?;
    for args in [
        &["timer", "-l", "80"][..],
        &["timer", "-l", "80", "-q"],
        &["timer", "-D", "1"],
        &["timer", "-l", "80", "-v"],
        &[
            "compare", "--turns", "1", "-l", "9", "--busy", "9", "--only", "mq",
        ],
    ] {
        let said = run(lat(&instance, args)?)?;
        ensure!(
            !said.out.contains('\x1b') && said.err.is_empty(),
            "{args:?}: {said:?}"
        );
        let out = said.well()?;
        let lines = out
            .lines()
            .filter(|line| line.starts_with("T: 0 ("))
            .count();
        // Behind the samples of -v it would be one, to a parser that splits at colons.
        let has_line = args[0] == "timer" && !args.contains(&"-v");
        ensure!(lines == usize::from(has_line), "{args:?}: {out}");
        ensure!(
            !out.lines().any(|line| line.contains("to go")),
            "{args:?}: {out}"
        );
    }
    Ok(())
}

fn verbose_shows_every_sample() -> anyhow::Result<()> {
    let instance = Instance::new()?;
    let out = run(lat(
        &instance,
        &["mq", "-v", "-l", "50", "-t", "2", "-d", "0"],
    )?)?
    .well()?;
    for (pair, counts) in Counts::read(&out)?.into_iter().enumerate() {
        let head = format!("{pair:8}:");
        let samples = out.lines().filter_map(|line| line.strip_prefix(&head));
        let numbers = samples.map(|rest| {
            rest.split(':')
                .next()
                .unwrap_or_default()
                .trim()
                .parse::<u64>()
        });
        let numbers = numbers.collect::<Result<Vec<_>, _>>()?;
        ensure!(
            numbers.len() as u64 == counts.received && numbers.is_sorted(),
            "pair {pair}: {out}"
        );
    }
    Ok(())
}

fn a_terminal_is_redrawn_and_ends_with_the_result() -> anyhow::Result<()> {
    let instance = Instance::new()?;
    let mut terminal = Terminal::start(lat(&instance, &["timer", "-t", "2", "-D", "1h"])?)?;
    // Two timers and the line below them, again and again.
    terminal.until("a redraw", |shown| {
        shown.matches("\x1b[3A").count() >= 3 && shown.contains("to go")
    })?;
    terminal.signal(Signal::SIGINT)?;
    let (status, shown) = terminal.end()?;
    ensure!(status.success(), "{status}: {shown}");
    let (_, result) = shown.rsplit_once('\x1b').context("nothing was drawn")?;
    ensure!(
        result.matches("T: ").count() == 2 && result.contains("scheduled"),
        "{result:?}"
    );
    ensure!(!result.contains("to go"), "{result:?}");
    Ok(())
}

fn quiet_on_a_terminal_shows_the_result_alone() -> anyhow::Result<()> {
    let instance = Instance::new()?;
    let terminal = Terminal::start(lat(&instance, &["mq", "-q", "-D", "1"])?)?;
    let (status, shown) = terminal.end()?;
    ensure!(
        status.success() && !shown.contains('\x1b'),
        "{status}: {shown:?}"
    );
    ensure!(shown.matches("#1 -> #0,").count() == 1, "{shown:?}");
    Ok(())
}

/// Coordinated omission: while the sender stands still nothing is measured, and all the same
/// somebody would have waited.
fn what_a_stopped_sender_misses_is_in_the_corrected_figures() -> anyhow::Result<()> {
    const STANDS: Duration = Duration::from_millis(300);
    let instance = Instance::new()?;
    for name in ["mq", "signal", "futex", "unix"] {
        let file = instance.file("results.json");
        let path = file.display().to_string();
        let args = [name, "-v", "-f", "-i", "1000", "-D", "3", "--json", &path];
        let (tool, traces) = start(&instance, &args)?;
        traces.signal(0, Signal::SIGSTOP)?;
        // The stall that is measured.
        std::thread::sleep(STANDS);
        traces.signal(0, Signal::SIGCONT)?;
        let pid = tool.pid();
        tool.end()?.well()?;
        std::fs::read(&file).map(drop)?;
        let json: Value = serde_json::from_slice(&std::fs::read(&file)?)?;
        std::fs::remove_file(&file)?;
        Traces::of(pid, &instance).ensure_gone()?;
        let pair = &json["thread"]["0"];
        let counts = Counts::of(pair)?;
        ensure!(counts.balances(), "{name}: {counts:?}");
        ensure!(
            counts.missed >= 250,
            "300 points were missed at least: {name}: {counts:?}"
        );
        // A tenth of the points; what others on the machine delay is less.
        let at = |figure: &str| pair["percentiles_ns"][figure]["p99"].as_u64().unwrap_or(0);
        let (raw, corrected) = (at("raw"), at("corrected"));
        ensure!(
            corrected > 150_000_000,
            "{name}: {corrected} ns does not show the stall: {pair}"
        );
        ensure!(
            raw < corrected / 2,
            "{name}: raw {raw} ns, corrected {corrected} ns: {pair}"
        );
    }
    Ok(())
}
