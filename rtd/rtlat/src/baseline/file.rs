//! The file of a baseline: JSON, of a format that has a number.
//!
//! Constraint: the file can contain anything. Its size, and the number and length of its items are
//! bounded, and each error names the file. Invariant: a [`Baseline`] that was read has no two rows
//! of one path and placement.

use crate::out::date::utc;
use crate::report::{self, machine::Machine};
use crate::series::{Comparison, Placement, Turn};
use crate::time::wall_ns;
use anyhow::{Context as _, bail, ensure};
use serde::{Deserialize, Serialize};
use std::collections::HashSet;
use std::fs::File;
use std::io::Read as _;
use std::path::Path;

/// The format number of a written file, required of a read one.
const FORMAT: u64 = 1;
/// Bytes of a file at most; 100 rows of 100 turns have some 800 kB.
const FILE_BYTES_MAX: u64 = 16 << 20;
/// Rows at most.
const ROWS_MAX: usize = 1000;
/// Turns of a row at most.
const TURNS_MAX: usize = 10_000;
/// Bytes of a path's name at most.
const PATH_BYTES_MAX: usize = 200;

/// The saved figures of a comparison.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Baseline {
    pub(super) format: u64,
    pub(super) program: String,
    pub(super) saved: String,
    #[serde(flatten)]
    pub(super) conditions: Conditions,
    pub(super) machine: Machine,
    pub(super) rows: Vec<Row>,
}

/// The conditions that must agree for ratios to be comparable.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Conditions {
    interval_ns: u64,
    payload_bytes: usize,
    priority: u8,
    lane_priority: u8,
    load: String,
}

/// A path in a placement.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Row {
    pub(super) path: String,
    pub(super) placement: Placement,
    pub(super) turns: Vec<Turn>,
}

impl Conditions {
    pub(super) fn of(comparison: &Comparison) -> Conditions {
        Conditions {
            interval_ns: comparison.interval_ns,
            payload_bytes: comparison.payload_bytes,
            priority: comparison.priority,
            lane_priority: comparison.lane_priority,
            load: comparison.load.clone(),
        }
    }

    /// The differences between the two, in words.
    pub(super) fn differences(&self, now: &Conditions) -> Vec<String> {
        let mut found = Vec::new();
        let mut differ = |what: &str, then: String, now: String| {
            if then != now {
                found.push(format!("{what} was {then} and is {now}"));
            }
        };
        let us = |ns| format!("{} us", report::us(ns));
        differ("the interval", us(self.interval_ns), us(now.interval_ns));
        differ(
            "the payload",
            format!("{} B", self.payload_bytes),
            format!("{} B", now.payload_bytes),
        );
        differ(
            "the priority",
            self.priority.to_string(),
            now.priority.to_string(),
        );
        differ(
            "the lanes' priority",
            self.lane_priority.to_string(),
            now.lane_priority.to_string(),
        );
        differ(
            "the load",
            format!("{:?}", self.load),
            format!("{:?}", now.load),
        );
        found
    }
}

/// Writes the data that a later run is compared with: the turns of each row, the conditions and the
/// machine.
///
/// Errors name the file.
pub fn save(comparison: &Comparison, machine: &Machine, path: &Path) -> anyhow::Result<()> {
    let baseline = Baseline {
        format: FORMAT,
        program: format!("rtlat {}", env!("CARGO_PKG_VERSION")),
        saved: utc(wall_ns()),
        conditions: Conditions::of(comparison),
        machine: machine.clone(),
        rows: comparison.rows.iter().map(Row::of).collect(),
    };
    check(&baseline).with_context(|| format!("{}: not written", path.display()))?;
    let mut text = serde_json::to_string_pretty(&baseline)?;
    text.push('\n');
    std::fs::write(path, text).with_context(|| format!("{}: cannot be written", path.display()))
}

impl Row {
    fn of(row: &crate::series::Row) -> Row {
        Row {
            path: row.path.clone(),
            placement: row.placement,
            turns: row.turns.clone(),
        }
    }
}

/// Reads a baseline. Errors name the file and the fault in it.
pub fn load(path: &Path) -> anyhow::Result<Baseline> {
    read(path).with_context(|| format!("{}: not a baseline that can be used", path.display()))
}

fn read(path: &Path) -> anyhow::Result<Baseline> {
    #[derive(Deserialize)]
    struct Probe {
        format: u64,
    }
    let mut bytes = Vec::new();
    File::open(path)?
        .take(FILE_BYTES_MAX + 1)
        .read_to_end(&mut bytes)?;
    ensure!(
        u64::try_from(bytes.len())? <= FILE_BYTES_MAX,
        "it has more than {FILE_BYTES_MAX} bytes; a baseline has some hundred kB"
    );
    let probe: Probe = serde_json::from_slice(&bytes)?;
    ensure!(
        probe.format == FORMAT,
        "its format is {}, this rtlat reads {FORMAT}: save it again with `rtlat compare --save`",
        probe.format
    );
    let baseline: Baseline = serde_json::from_slice(&bytes)?;
    check(&baseline)?;
    Ok(baseline)
}

fn check(baseline: &Baseline) -> anyhow::Result<()> {
    let rows = &baseline.rows;
    ensure!(
        rows.len() <= ROWS_MAX,
        "it has {} rows, at most {ROWS_MAX} are allowed",
        rows.len()
    );
    let mut seen = HashSet::new();
    for row in rows {
        ensure!(
            row.path.len() <= PATH_BYTES_MAX,
            "a path has {} bytes, at most {PATH_BYTES_MAX} are allowed",
            row.path.len()
        );
        let (name, turns) = (&row.path, row.turns.len());
        ensure!(
            turns <= TURNS_MAX,
            "path {name:?} has {turns} turns, at most {TURNS_MAX} are allowed"
        );
        if !seen.insert((name, row.placement)) {
            bail!("path {name:?}, {} is there twice", row.placement.text());
        }
    }
    Ok(())
}
