//! What `rtlat` writes: JSON, the formats of other tools, pictures, the page.

use crate::util::Instance;
use crate::util::lat::{Counts, lat, measure};
use crate::util::tool::run;
use anyhow::{Context as _, ensure};
use hdrhistogram::Histogram;
use hdrhistogram::serialization::Deserializer;
use hdrhistogram::serialization::interval_log::{IntervalLogIterator, LogEntry};
use std::collections::BTreeMap;

tests![
    json_has_figures_that_fit_together,
    hgrm_is_a_percentile_table,
    hlog_is_an_interval_log,
    csv_has_equal_rows,
    xenomai_has_its_columns,
    pictures_are_well_formed,
    the_page_has_all_in_it,
    a_file_that_cannot_be_written_is_an_error_that_names_it,
];

const LOOPS: u64 = 60;

/// What is printed in this format of a short run.
fn printed(instance: &Instance, format: &str, args: &[&str]) -> anyhow::Result<String> {
    let said = run(lat(
        instance,
        &[args, &["-l", "60", "--format", format]].concat(),
    )?)?;
    ensure!(
        said.err.is_empty() && !said.out.contains('\x1b'),
        "{said:?}"
    );
    said.well()
}

fn json_has_figures_that_fit_together() -> anyhow::Result<()> {
    let instance = Instance::new()?;
    for args in [
        &["timer", "--histogram", "100000"][..],
        &["futex", "-H", "100000"],
        &["mq", "-N"],
    ] {
        let measured = measure(&instance, &[args, &["-q", "-l", "60", "-t", "2"]].concat())?;
        ensure!(
            measured.json["return_code"] == 0 && measured.json["num_threads"] == 2,
            "{}",
            measured.json
        );
        let line = measured.json["cmdline"]
            .as_str()
            .context("no command line")?;
        ensure!(line.contains(args[0]) && line.contains("-l 60"), "{line}");
        for pair in measured.pairs() {
            let counts = Counts::of(pair)?;
            for figure in ["raw", "corrected"] {
                let at = |name: &str| pair["percentiles_ns"][figure][name].as_u64().unwrap_or(0);
                let all = ["p50", "p90", "p99", "p99.9", "p99.99", "max"].map(at);
                // Where others have its CPU for the whole run, a pair has no figures.
                ensure!(
                    (all[0] > 0 || counts.received == 0) && all.is_sorted(),
                    "{figure}: {pair}"
                );
            }
            let (timed, unit) = match args[0] {
                "timer" => (pair, 1000),
                "mq" => (&pair["receiver"], 1),
                _ => (&pair["receiver"], 1000),
            };
            let max = timed["max"].as_u64().context("no max")?;
            ensure!(
                pair["percentiles_ns"]["raw"]["max"]
                    .as_u64()
                    .map(|ns| ns / unit)
                    == Some(max),
                "{pair}"
            );
            if args.contains(&"-N") {
                ensure!(measured.json["resolution_in_ns"] == 1, "{}", measured.json);
                continue;
            }
            let bins = timed["histogram"].as_object().context("no histogram")?;
            let sum: u64 = bins.values().filter_map(serde_json::Value::as_u64).sum();
            let over = pair["histogram_overflows"]
                .as_u64()
                .context("no overflows")?;
            ensure!(
                sum + over == counts.received,
                "{sum} in bins, {over} past them: {pair}"
            );
        }
        let counts = measured
            .pairs()
            .into_iter()
            .map(Counts::of)
            .collect::<anyhow::Result<Vec<_>>>()?;
        ensure!(
            counts.iter().any(|counts| counts.received > 0),
            "{}",
            measured.json
        );
    }
    Ok(())
}

fn hgrm_is_a_percentile_table() -> anyhow::Result<()> {
    let instance = Instance::new()?;
    let out = printed(&instance, "hgrm", &["futex"])?;
    let head: Vec<&str> = out
        .lines()
        .next()
        .unwrap_or_default()
        .split_whitespace()
        .collect();
    ensure!(
        head == ["Value", "Percentile", "TotalCount", "1/(1-Percentile)"],
        "{out}"
    );
    let (mut last, mut count) = (0.0, 0);
    for row in out
        .lines()
        .skip(1)
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
    {
        let cells: Vec<f64> = row
            .split_whitespace()
            .map(str::parse)
            .collect::<Result<_, _>>()
            .context(out.clone())?;
        ensure!(
            cells.len() >= 3 && cells[0] >= last && (0.0..=1.0).contains(&cells[1]),
            "{row}"
        );
        last = cells[0];
        count = row.split_whitespace().nth(2).context("no count")?.parse()?;
    }
    ensure!(count > 0 && count <= LOOPS, "{out}");
    ensure!(out.lines().any(|line| line.starts_with("#[Mean ")), "{out}");
    Ok(())
}

/// Messages by tag, as the crate reads them.
fn read_log(text: &str) -> anyhow::Result<BTreeMap<String, u64>> {
    let mut deserializer = Deserializer::new();
    let mut counts = BTreeMap::new();
    for entry in IntervalLogIterator::new(text.as_bytes()) {
        let entry = entry.map_err(|e| anyhow::anyhow!("{e:?}"))?;
        let LogEntry::Interval(interval) = entry else {
            continue;
        };
        let bytes = base64(interval.encoded_histogram())?;
        let histogram: Histogram<u64> = deserializer
            .deserialize(&mut bytes.as_slice())
            .map_err(|e| anyhow::anyhow!("{e:?}"))?;
        let tag = interval.tag().map(|tag| tag.as_str()).unwrap_or_default();
        *counts.entry(tag.to_owned()).or_default() += histogram.len();
    }
    Ok(counts)
}

/// RFC 4648, section 4.
fn base64(text: &str) -> anyhow::Result<Vec<u8>> {
    const DIGITS: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let (mut bytes, mut bits, mut held) = (Vec::new(), 0_u32, 0);
    for digit in text.bytes().take_while(|digit| *digit != b'=') {
        let value = DIGITS
            .iter()
            .position(|d| *d == digit)
            .context("no base64")?;
        bits = bits << 6 | u32::try_from(value)?;
        held += 6;
        if held >= 8 {
            held -= 8;
            bytes.push(u8::try_from(bits >> held & 0xff)?);
        }
    }
    Ok(bytes)
}

fn hlog_is_an_interval_log() -> anyhow::Result<()> {
    let instance = Instance::new()?;
    let args = ["pipe", "-q", "-i", "25000", "-t", "2", "-d", "0"];
    let out = measure(
        &instance,
        &[&args[..], &["-l", "60", "--format", "hlog"]].concat(),
    )?;
    let log = read_log(&out.said.out).with_context(|| out.said.out.clone())?;
    for (number, pair) in out.pairs().into_iter().enumerate() {
        let counts = Counts::of(pair)?;
        let tag = format!("pipe-{number}-raw");
        ensure!(
            log.get(&tag) == Some(&counts.received),
            "{tag}: {log:?} and {counts:?}"
        );
    }
    // A second and a half: more than one interval.
    let rows = out
        .said
        .out
        .lines()
        .filter(|line| line.starts_with("Tag=pipe-0-raw,"))
        .count();
    ensure!(rows > 1, "{}", out.said.out);
    Ok(())
}

fn csv_has_equal_rows() -> anyhow::Result<()> {
    let instance = Instance::new()?;
    let out = printed(&instance, "csv", &["unix", "-t", "2", "-f"])?;
    let rows: Vec<Vec<&str>> = out.lines().map(|line| line.split(',').collect()).collect();
    ensure!(
        rows.len() == 3 && rows.iter().all(|row| row.len() == rows[0].len()),
        "{out}"
    );
    let column = |name: &str| {
        rows[0]
            .iter()
            .position(|n| *n == name)
            .with_context(|| format!("no {name}"))
    };
    let mut received = 0;
    for row in &rows[1..] {
        let at = |name: &str| -> anyhow::Result<u64> { Ok(row[column(name)?].parse()?) };
        ensure!(at("scheduled")? == at("sent")? + at("missed")?, "{out}");
        ensure!(at("sent")? == at("received")? + at("lost")?, "{out}");
        // The first pair that is through ends the run: the other may have had no message yet.
        ensure!((at("raw_p50_ns")? > 0) == (at("received")? > 0), "{out}");
        ensure!(row[column("name")?] == "unix", "{out}");
        received += at("received")?;
    }
    ensure!(received > 0, "{out}");
    Ok(())
}

fn xenomai_has_its_columns() -> anyhow::Result<()> {
    let instance = Instance::new()?;
    let out = printed(&instance, "xenomai", &["timer"])?;
    let columns = |line: &str| line.split('|').count();
    let head = out
        .lines()
        .find(|line| line.starts_with("RTH|"))
        .context("no head")?;
    let rows: Vec<&str> = out
        .lines()
        .filter(|line| line.starts_with("RTD|"))
        .collect();
    ensure!(
        !rows.is_empty() && rows.iter().all(|row| columns(row) == columns(head)),
        "{out}"
    );
    for row in rows {
        let figures = row
            .split('|')
            .skip(1)
            .map(|cell| cell.trim().parse::<f64>());
        ensure!(figures.collect::<Result<Vec<_>, _>>().is_ok(), "{row}");
    }
    ensure!(out.lines().any(|line| line.starts_with("RTS|")), "{out}");
    Ok(())
}

/// Fails unless every tag is closed by its own, and attributes are quoted.
pub fn ensure_well_formed(xml: &str) -> anyhow::Result<()> {
    let mut open: Vec<&str> = Vec::new();
    let mut seen = 0;
    for piece in xml.split('<').skip(1) {
        let (tag, text) = piece
            .split_once('>')
            .with_context(|| format!("no end: <{piece}"))?;
        let is_entity = |after: &str| {
            after
                .split_once(';')
                .is_some_and(|(name, _)| !name.contains(' '))
        };
        ensure!(
            text.split('&').skip(1).all(is_entity),
            "a bare & in {text:?}"
        );
        ensure!(tag.matches('"').count().is_multiple_of(2), "<{tag}>");
        if tag.starts_with(['?', '!']) || tag.ends_with('/') {
            continue;
        }
        match tag.strip_prefix('/') {
            Some(name) => ensure!(open.pop() == Some(name.trim()), "</{name}> closes another"),
            None => open.push(tag.split_whitespace().next().unwrap_or_default()),
        }
        seen += 1;
    }
    ensure!(open.is_empty() && seen > 0, "left open: {open:?}");
    Ok(())
}

fn pictures_are_well_formed() -> anyhow::Result<()> {
    let instance = Instance::new()?;
    let directory = instance.file("pictures");
    let mut command = lat(&instance, &["mq", "-q", "-l", "60", "-t", "2", "--svg"])?;
    command.arg(&directory);
    run(command)?.well()?;
    for name in ["histogram.svg", "percentiles.svg"] {
        let svg = std::fs::read_to_string(directory.join(name))?;
        ensure!(
            svg.trim_start().starts_with("<svg") && svg.contains("mq"),
            "{name}: {svg}"
        );
        ensure_well_formed(&svg).context(name)?;
    }
    Ok(())
}

/// Nothing that a browser would fetch.
pub fn ensure_self_contained(page: &str) -> anyhow::Result<()> {
    let lower = page.to_lowercase();
    for fetches in [
        "src=\"http",
        "href=\"http",
        "src=\"//",
        "url(http",
        "@import",
        "<script src",
        "<link",
        "<iframe",
    ] {
        ensure!(!lower.contains(fetches), "the page has {fetches}");
    }
    ensure!(
        lower.contains("<svg") && lower.contains("</html>"),
        "no picture or no end"
    );
    Ok(())
}

fn the_page_has_all_in_it() -> anyhow::Result<()> {
    let instance = Instance::new()?;
    let file = instance.file("page.html");
    let mut command = lat(&instance, &["futex", "-q", "-l", "60", "--html"])?;
    command.arg(&file);
    run(command)?.well()?;
    let page = std::fs::read_to_string(file)?;
    ensure_self_contained(&page)?;
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease")?;
    for part in [
        release.trim(),
        "futex --allow-loss -q -l 60",
        "p99.9",
        "dma_latency",
        "corrected",
    ] {
        ensure!(page.contains(part), "no {part}");
    }
    Ok(())
}

fn a_file_that_cannot_be_written_is_an_error_that_names_it() -> anyhow::Result<()> {
    let instance = Instance::new()?;
    for option in ["--json", "--histfile", "--html"] {
        let args = [
            "futex",
            "-q",
            "-l",
            "9",
            "--histogram",
            "9",
            option,
            "/nowhere/file",
        ];
        run(lat(&instance, &args)?)?.refused(&["/nowhere/file"])?;
    }
    Ok(())
}
