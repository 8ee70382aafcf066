//! `rtlat compare`: the table, its files, and the judgement by an earlier run.

use crate::lat_files::{ensure_self_contained, ensure_well_formed};
use crate::util::lat::{Counts, Traces, lat};
use crate::util::needs::ROOT;
use crate::util::tool::{Said, Tool};
use crate::util::{Instance, eventually, privileged};
use anyhow::{Context as _, ensure};
use nix::sys::signal::Signal;
use rtcore::sys::cpus;
use serde_json::Value;

tests![
    a_table_has_every_path_with_its_ratio_to_mq,
    every_path_can_be_compared_between_processes,
    its_files_say_the_same,
    a_baseline_is_saved_and_judged_by,
    enough_turns_are_judged,
    every_preset_shows_its_figures_with_their_aims needs(ROOT),
    a_preset_takes_no_option_that_would_change_it,
    ended_by_sigint_it_shows_the_turns_it_has,
];

const SMALL: [&str; 8] = ["compare", "--turns", "2", "-l", "20", "--busy", "20", "-q"];
const PATHS: [&str; 3] = ["mq", "futex", "lane direct"];

/// A small comparison; nothing is left of it.
fn compare(instance: &Instance, more: &[&str]) -> anyhow::Result<Said> {
    let tool = Tool::start(lat(
        instance,
        &[&SMALL[..], &["--only", "mq,futex,direct"], more].concat(),
    )?)?;
    let pid = tool.pid();
    let said = tool.end_of_work()?;
    Traces::of(pid, instance).ensure_gone()?;
    Ok(said)
}

/// On one CPU and, where there is another, on two.
fn placements() -> anyhow::Result<usize> {
    Ok(cpus::allowed()?.len().min(2))
}

/// Rows of the table, as words behind the path and the placement.
fn rows<'a>(out: &'a str, path: &str) -> Vec<Vec<&'a str>> {
    let table = out.lines().skip_while(|line| !line.starts_with("PATH"));
    let rows = table.filter_map(|line| {
        line.strip_prefix(path)
            .filter(|rest| rest.starts_with("  "))
    });
    rows.map(|rest| {
        rest.split("CPU")
            .nth(1)
            .unwrap_or_default()
            .trim_start_matches('s')
    })
    .map(|rest| rest.split_whitespace().collect())
    .collect()
}

fn a_table_has_every_path_with_its_ratio_to_mq() -> anyhow::Result<()> {
    let instance = Instance::new()?;
    let said = compare(&instance, &[])?;
    ensure!(said.err.is_empty(), "{said:?}");
    let out = said.well()?;
    for path in PATHS {
        let rows = rows(&out, path);
        ensure!(rows.len() == placements()?, "{path}: {out}");
        for (other_cpu, row) in rows.into_iter().enumerate() {
            ensure!(row.len() == 9, "{path}: {row:?}");
            let figures: Vec<f64> = row
                .iter()
                .map(|cell| cell.parse())
                .collect::<Result<_, _>>()?;
            let [p50, p99, p999, max, paced, busy_p50, busy, lost, _] = figures[..] else {
                unreachable!()
            };
            ensure!(
                0.0 < p50 && p50 <= p99 && p99 <= p999 && p999 <= max && busy_p50 > 0.0,
                "{row:?}"
            );
            ensure!(paced > 0.0 && busy > 0.0, "{row:?}");
            // A receiver whose CPU stands still longer than its queue is may lose some.
            ensure!(lost == 0.0 || other_cpu == 1 || !privileged(), "{row:?}");
            ensure!(path != "mq" || (paced == 1.0 && busy == 1.0), "{row:?}");
        }
    }
    ensure!(!out.contains("\nsignal "), "not asked for: {out}");
    Ok(())
}

fn every_path_can_be_compared_between_processes() -> anyhow::Result<()> {
    let instance = Instance::new()?;
    let args = [
        "compare", "--turns", "1", "-l", "10", "--busy", "10", "-q", "-f",
    ];
    let tool = Tool::start(lat(&instance, &args)?)?;
    let pid = tool.pid();
    let out = tool.end_of_work()?.well()?;
    Traces::of(pid, &instance).ensure_gone()?;
    let table = out
        .lines()
        .skip_while(|line| !line.starts_with("PATH"))
        .skip(1);
    // Notes follow it, such as that of a message that a busy machine lost.
    let table = table.take_while(|line| !line.starts_with('#'));
    ensure!(table.count() == 14 * placements()?, "{out}");
    Ok(())
}

fn its_files_say_the_same() -> anyhow::Result<()> {
    let instance = Instance::new()?;
    let [json, html, svg] =
        ["c.json", "c.html", "pictures"].map(|name| instance.file(name).display().to_string());
    let out = compare(
        &instance,
        &["--json", &json, "--html", &html, "--svg", &svg],
    )?
    .well()?;
    let json: Value = serde_json::from_slice(&std::fs::read(json)?)?;
    let listed = json["rows"].as_array().context("no rows")?;
    ensure!(listed.len() == PATHS.len() * placements()?, "{json}");
    for row in listed {
        for how in ["paced", "busy"] {
            let counts = Counts::of(&row[how])?;
            // Two turns of twenty.
            ensure!(
                counts.balances() && counts.scheduled == 40 && counts.received > 0,
                "{row}"
            );
        }
        ensure!(
            row["turns"]
                .as_array()
                .is_some_and(|turns| turns.len() == 2),
            "{row}"
        );
        let path = row["path"].as_str().context("no path")?;
        let ratio = format!("{:.2}", row["busy_p50_ratio"].as_f64().context("no ratio")?);
        ensure!(
            rows(&out, path).iter().any(|cells| cells[6] == ratio),
            "{path}: {ratio} is not in {out}"
        );
    }
    let picture = std::fs::read_to_string(format!("{svg}/comparison.svg"))?;
    ensure_well_formed(&picture)?;
    ensure!(PATHS.iter().all(|path| picture.contains(path)), "{picture}");
    ensure_self_contained(&std::fs::read_to_string(html)?)
}

fn a_baseline_is_saved_and_judged_by() -> anyhow::Result<()> {
    let instance = Instance::new()?;
    let base = instance.file("base.json").display().to_string();
    compare(&instance, &["--save", &base])?.well()?;
    // Two turns are too few for any judgement, and that is said rather than "same".
    let few = compare(&instance, &["--against", &base])?;
    ensure!(few.out.contains("too few turns (needs "), "{few:?}");
    ensure!(
        few.code() == Some(1) && few.err.contains("--turns"),
        "a CI would take it for good: {few:?}"
    );
    for (more, says) in [
        (["-i", "600"], "the interval was 500"),
        (["--size", "128"], "the payload was 64 B and is 128 B"),
        (["-p", "0"], "the priority was"),
        (
            ["--lane-priority", "79"],
            "the lanes' priority was 80 and is 79",
        ),
        (["--load", "own:cpu:1"], "the load was"),
    ] {
        if more[0] == "-p" && !privileged() {
            continue;
        }
        let said = compare(
            &instance,
            &[&["--against", base.as_str()][..], &more].concat(),
        )?;
        said.refused(&[&base, "not comparable", says])?;
    }
    std::fs::write(&base, "{}")?;
    compare(&instance, &["--against", &base])?.refused(&[&base, "not a baseline"])?;
    Ok(())
}

fn enough_turns_are_judged() -> anyhow::Result<()> {
    let instance = Instance::new()?;
    let base = instance.file("base.json").display().to_string();
    let run = |more: [&str; 2]| -> anyhow::Result<Said> {
        let args = [
            "compare", "--turns", "12", "-l", "5", "--busy", "20", "-q", "--only", "mq,pipe",
        ];
        Tool::start(lat(&instance, &[&args[..], &more].concat())?)?.end_of_work()
    };
    run(["--save", &base])?.well()?;
    let text = std::fs::read_to_string(&base)?;
    let said = run(["--against", &base])?;
    // On a machine with noise it may be called worse, but it is judged.
    ensure!(
        matches!(said.code(), Some(0 | 4)) && !said.out.contains("too few"),
        "{said:?}"
    );
    // A baseline in which everything but mq took a thousandth is one that this run is far worse
    // than.
    let mut json: Value = serde_json::from_str(&text)?;
    let mq_first = json["rows"].as_array_mut().context("no rows")?;
    for row in mq_first.iter_mut().filter(|row| row["path"] != "mq") {
        for turn in row["turns"].as_array_mut().context("no turns")? {
            for (_, ns) in turn.as_object_mut().context("no figures")? {
                *ns = Value::from(1 + ns.as_u64().unwrap_or(0) / 1000);
            }
        }
    }
    std::fs::write(&base, json.to_string())?;
    let said = run(["--against", &base])?;
    ensure!(
        said.code() == Some(4) && said.out.contains("worse"),
        "{said:?}"
    );
    Ok(())
}

/// Every preset, small. The figures of a debug build mean nothing; that each row is there, with its
/// aim and a verdict, does.
fn every_preset_shows_its_figures_with_their_aims() -> anyhow::Result<()> {
    let instance = Instance::new()?;
    let json = instance.file("p.json").display().to_string();
    let args = [
        "compare", "--preset", "all", "--turns", "1", "--busy", "10", "-q", "--json", &json,
    ];
    let tool = Tool::start(lat(&instance, &args)?)?;
    let pid = tool.pid();
    let said = tool.end_of_work()?;
    Traces::of(pid, &instance).ensure_gone()?;
    ensure!(said.err.is_empty(), "{said:?}");
    let out = said.well()?;
    let json: Value = serde_json::from_slice(&std::fs::read(json)?)?;
    let presets = json["presets"].as_array().context("no presets")?;
    let has_two_cpus = placements()? == 2;
    for (name, rows, aims) in [
        ("equal", 5, 2),
        ("hops", 5, 0),
        ("routes", 2, 1),
        ("fan-out", 3, 0),
        ("start", 0, 0),
        ("lanes", 5, 2),
        ("polling", 2, 2),
        ("spinning", 2, 0),
        ("throughput", 0, 0),
        ("clients", 2, 1),
    ] {
        let preset = presets
            .iter()
            .find(|preset| preset["name"] == name)
            .context(name)?;
        let found = preset["rows"].as_array().context("no rows")?;
        if !has_two_cpus && ["polling", "spinning", "throughput"].contains(&name) {
            ensure!(
                found.is_empty() && out.contains("needs a second CPU"),
                "{out}"
            );
            continue;
        }
        ensure!(found.len() == rows, "{name}: {preset}");
        for row in found {
            let count = |key: &str| row[key].as_u64().unwrap_or(u64::MAX);
            // One turn of ten, of which a schedule of the spinning lane may miss some.
            let sent = if name == "spinning" { 1..=10 } else { 10..=10 };
            ensure!(
                sent.contains(&count("sent")) && count("received") == count("sent"),
                "{name}: {row}"
            );
            let path = row["path"].as_str().context("no path")?;
            ensure!(out.contains(path), "{path} is not in {out}");
        }
        let judged = found
            .iter()
            .filter(|row| !row["aim"].is_null() && row["is_met"].is_boolean());
        ensure!(judged.count() == aims, "{name}: {preset}");
        let rates = preset["rates"].as_array().context("no rates")?;
        ensure!(
            rates.len() == if name == "throughput" { 4 } else { 0 },
            "{preset}"
        );
        let has_rates = |rate: &Value| {
            rate["millions_per_second"]
                .as_array()
                .is_some_and(|all| !all.is_empty())
        };
        ensure!(rates.iter().all(has_rates), "{preset}");
    }
    // Ratios are to the first row, in the same turn.
    let ratio = |row: &Value| row["ratios"][1].as_f64();
    let equal = presets[0]["rows"].as_array().context("no rows")?;
    ensure!(
        ratio(&equal[0]) == Some(1.0) && ratio(&equal[3]).is_some_and(|ratio| ratio > 0.0),
        "{equal:?}"
    );
    ensure!(
        out.contains("VERDICT") && out.contains("<= 2.00 x") && out.contains(">= 15"),
        "{out}"
    );
    Ok(())
}

fn a_preset_takes_no_option_that_would_change_it() -> anyhow::Result<()> {
    let instance = Instance::new()?;
    for option in [
        ["--only", "mq"],
        ["-i", "100"],
        ["--size", "128"],
        ["--save", "/nowhere"],
    ] {
        let said = Tool::start(lat(
            &instance,
            &[&["compare", "--preset", "lanes"][..], &option].concat(),
        )?)?
        .end()?;
        ensure!(
            said.code() == Some(2) && said.err.contains("cannot be used with"),
            "{said:?}"
        );
    }
    Ok(())
}

fn ended_by_sigint_it_shows_the_turns_it_has() -> anyhow::Result<()> {
    let instance = Instance::new()?;
    let args = [
        "compare",
        "--turns",
        "10000",
        "-l",
        "5",
        "--busy",
        "5",
        "-q",
        "--only",
        "mq,direct",
    ];
    let tool = Tool::start(lat(&instance, &args)?)?;
    let pid = tool.pid();
    let name = format!("rtlat-{pid}");
    // Its daemon is there, so it can be told; two seconds are many turns.
    eventually(|| rtcore::stats::place::file_of(&name))?;
    std::thread::sleep(std::time::Duration::from_secs(2));
    tool.signal(Signal::SIGINT)?;
    let said = tool.end_of_work()?;
    Traces::of(pid, &instance).ensure_gone()?;
    ensure!(said.out.contains("PATH"), "{said:?}");
    said.well()?;
    Ok(())
}
