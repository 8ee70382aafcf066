//! `rtlat interference`: a lane beside what goes on in a machine, and nothing left of it.

use crate::util::lat::{Traces, lat};
use crate::util::tool::{Tool, run};
use crate::util::{Instance, eventually};
use anyhow::{Context as _, ensure};
use nix::sys::signal::Signal;
use serde_json::Value;

const SMALL: [&str; 6] = ["interference", "--turns", "2", "-l", "40", "-q"];
/// As they stand in the table, and what is counted of them.
const CONDITIONS: [(&str, Option<&str>); 6] = [
    ("alone", None),
    ("telemetry lane saturated", Some("/s messages")),
    ("memory and system calls", None),
    ("a client stopped", Some("/s messages to it")),
    ("a client dying, again and again", Some("/s deaths")),
    ("watched", Some("/s reads")),
];

pub fn every_condition_holds_and_has_its_ratio_to_alone() -> anyhow::Result<()> {
    let instance = Instance::new()?;
    let json = instance.file("i.json").display().to_string();
    let tool = Tool::start(lat(&instance, &[&SMALL[..], &["--json", &json]].concat())?)?;
    let pid = tool.pid();
    let out = tool.end_of_work()?.well()?;
    std::fs::copy(&json, instance.file("kept"))?;
    std::fs::remove_file(&json)?;
    for path in ["mq -> mq", "lane routed"] {
        for (condition, unit) in CONDITIONS {
            let start = |line: &&str| line.starts_with(path) && line.contains(condition);
            let line = out.lines().find(start).with_context(|| format!("{path}, {condition}: {out}"))?;
            let figures = line.split(condition).nth(1).unwrap_or_default();
            let words: Vec<f64> = figures.split_whitespace().map_while(|word| word.parse().ok()).collect();
            let [p50, of_p50, p99, of_p99, p999, of_p999, max, of_max, _lost, _missed] = words[..] else {
                anyhow::bail!("{line}")
            };
            ensure!(0.0 < p50 && p50 <= p99 && p99 <= p999 && p999 <= max, "{line}");
            let ratios = [of_p50, of_p99, of_p999, of_max];
            ensure!(ratios.iter().all(|ratio| *ratio > 0.0), "{line}");
            ensure!(condition != "alone" || ratios == [1.0; 4], "{line}");
            match unit {
                Some(unit) => ensure!(line.ends_with(unit) && !line.contains(" 0/s"), "{line}"),
                None => ensure!(!line.contains("/s "), "{line}"),
            }
        }
    }
    let json: Value = serde_json::from_slice(&std::fs::read(instance.file("kept"))?)?;
    std::fs::remove_file(instance.file("kept"))?;
    let rows = json["rows"].as_array().context("no rows")?;
    ensure!(rows.len() == 2 * CONDITIONS.len(), "{json}");
    for row in rows {
        let count = |key: &str| row[key].as_u64().with_context(|| format!("no {key} in {row}"));
        ensure!(count("sent")? == count("received")? + count("lost")? && count("p50_ns")? > 0, "{row}");
        ensure!(count("sent")? + count("missed")? == 80, "{row}");
        ensure!(row["times_alone"]["p99"].as_f64().is_some_and(|ratio| ratio > 0.0), "{row}");
    }
    Traces::of(pid, &instance).ensure_gone()
}

pub fn ended_half_way_it_stops_everything_it_started() -> anyhow::Result<()> {
    let instance = Instance::new()?;
    let args = ["interference", "--turns", "1000", "-l", "400", "-q", "--only", "stopped,dying"];
    let tool = Tool::start(lat(&instance, &args)?)?;
    let pid = tool.pid();
    // One of them is stopped, another starts children: those are the ones that could stay.
    let children = || -> Option<Vec<i32>> {
        let text = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).ok()?;
        text.split_whitespace().map(|word| word.parse().ok()).collect()
    };
    let is_stopped = |child: &i32| {
        std::fs::read_to_string(format!("/proc/{child}/status")).is_ok_and(|s| s.contains("State:\tT"))
    };
    let seen =
        eventually(|| children().filter(|all| all.iter().any(is_stopped))).context("nobody was stopped")?;
    tool.signal(Signal::SIGINT)?;
    let said = tool.end_of_work()?;
    ensure!(said.code().is_some(), "{said:?}");
    eventually(|| {
        seen.iter().all(|child| !std::path::Path::new(&format!("/proc/{child}")).exists()).then_some(())
    })
    .context("a child is left")?;
    Traces::of(pid, &instance).ensure_gone()
}

pub fn what_cannot_be_is_refused() -> anyhow::Result<()> {
    let instance = Instance::new()?;
    for args in [&["--only", "quake"][..], &["--path", "pigeon"], &["--turns", "0"]] {
        let said = run(lat(&instance, &[&["interference"], args].concat())?)?;
        ensure!(said.code() == Some(2), "{said:?}");
    }
    run(lat(&instance, &["interference", "-a", "1023"])?)?.refused(&["CPU 1023"])?;
    Ok(())
}
