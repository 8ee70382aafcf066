//! Better, same or worse than an earlier comparison, path by path, with the noise taken into
//! account.
//!
//! Judged are ratios, never times: a path's median in a turn / the median of `mq` in the same turn
//! and placement. What the whole machine does (clock rate, neighbours, another kernel) is in both
//! and drops out, as far as it is in both. A path is *worse* or *better* when two things hold: the
//! ranks of the ratios differ (Mann-Whitney, two-sided) at [`ALPHA`] for all questions of a run
//! together (Holm), and the medians differ by [`EFFECT_MIN`] or more.
//!
//! Constraint: turns of one run are taken as independent of each other. What is constant within a
//! run and differs between two (where memory is placed, say) is distinguished from a change of the path by
//! [`EFFECT_MIN`] alone. Invariant: a turn without a sample counts as infinitely slow; a path that
//! delivers nothing is never the better one.

mod file;
mod rank;
#[cfg(test)]
mod tests;

pub use file::{Baseline, load, save};

use super::report::machine::Machine;
use super::report::{PLACEMENTS, clean};
use super::series::{Comparison, Placement, Turn};
use anyhow::Context as _;
use rtd::ctl::sheet::Sheet;
use rtd::ctl::table::{Table, left, right};
use std::path::Path;

/// Probability that anything at all is called better or worse though nothing changed.
pub const ALPHA: f64 = 0.01;
/// Smallest change of the median ratio that matters. Below, a difference may be real, and nobody
/// would act on it.
pub const EFFECT_MIN: f64 = 0.03;
/// The row that all others are divided by.
const REFERENCE: &str = "mq";
/// Facts whose change is worth a line.
const FACTS_NOTED: [&str; 6] = [
    "kernel",
    "preemption",
    "CPU model",
    "CPUs isolated",
    "governor",
    "skin",
];

/// The verdict on one figure of one row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Judgement {
    /// Faster, in relation to `mq`.
    Better,
    /// No difference that is both certain enough and large enough.
    Same,
    /// The path is slower than in the baseline.
    Worse,
    /// With so few turns no difference could be certain enough; how many both runs must have.
    TooFew(usize),
}

impl std::fmt::Display for Judgement {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Judgement::Better => f.write_str("better"),
            Judgement::Same => f.write_str("same"),
            Judgement::Worse => f.write_str("worse"),
            Judgement::TooFew(needed) => write!(f, "too few turns (needs {needed})"),
        }
    }
}

/// One figure of one row, then and now. Ratios are medians over the turns; none without turns.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Figure {
    /// In the baseline.
    pub then: Option<f64>,
    /// In this run.
    pub now: Option<f64>,
    /// Two-sided, not corrected.
    pub p: f64,
    pub judgement: Judgement,
}

/// One row that is in both.
#[derive(Clone, Debug, PartialEq)]
pub struct RowVerdict {
    pub path: String,
    pub placement: Placement,
    /// Median on the schedule.
    pub paced: Figure,
    /// Median back to back.
    pub busy: Figure,
}

/// The whole judgement.
#[derive(Clone, Debug, PartialEq)]
pub struct Verdict {
    /// Rows that are in both, without the reference.
    pub rows: Vec<RowVerdict>,
    /// Sentences: rows that are only in one, a machine that changed.
    pub notes: Vec<String>,
    /// The date of the baseline, and the version that saved it.
    pub baseline: String,
}

impl Verdict {
    /// Whether any figure of any row is worse.
    pub fn is_worse(&self) -> bool {
        self.figures()
            .any(|figure| figure.judgement == Judgement::Worse)
    }

    /// Whether nothing could be judged: no rows in common, or too few turns everywhere.
    pub fn is_empty(&self) -> bool {
        self.figures()
            .all(|figure| matches!(figure.judgement, Judgement::TooFew(_)))
    }

    fn figures(&self) -> impl Iterator<Item = &Figure> {
        self.rows.iter().flat_map(|row| [&row.paced, &row.busy])
    }

    /// The table and the notes, as lines.
    pub fn text(&self, columns: Option<usize>) -> String {
        let mut sheet = Sheet::new(columns);
        sheet.line(&format!(
            "Against the baseline of {}: ratios to {REFERENCE} (the reference, always 1)",
            clean(&self.baseline, 100)
        ));
        sheet.line(&format!(
            "worse, better: by {} % and more; false alarms in at most {} % of all runs",
            EFFECT_MIN * 100.0,
            ALPHA * 100.0
        ));
        let mut table = Table::new(vec![
            left("PATH"),
            left("PLACEMENT"),
            right("PACED THEN").rank(3),
            right("NOW").rank(2),
            right("CHANGE"),
            left("VERDICT"),
            right("BUSY THEN").rank(4),
            right("NOW").rank(1),
            right("CHANGE"),
            left("VERDICT"),
        ]);
        for row in &self.rows {
            let mut cells = vec![clean(&row.path, 40), row.placement.text().to_owned()];
            cells.extend(row.paced.cells());
            cells.extend(row.busy.cells());
            table.row(cells);
        }
        sheet.table(&table);
        self.notes
            .iter()
            .for_each(|note| sheet.line(&clean(note, 400)));
        sheet.finish()
    }
}

impl Figure {
    /// Share by which the median changed; infinite where nothing comes any more, or nothing came.
    pub fn change(&self) -> Option<f64> {
        let (then, now) = (self.then?, self.now?);
        Some(if then.total_cmp(&now).is_eq() {
            0.0
        } else {
            now / then - 1.0
        })
    }

    fn cells(&self) -> [String; 4] {
        let times = |ratio: Option<f64>| match ratio {
            None => "-".to_owned(),
            Some(ratio) if ratio.is_infinite() => "nothing".to_owned(),
            Some(ratio) => format!("{ratio:.2}"),
        };
        let change = self.change().filter(|change| change.is_finite());
        let change = change.map_or_else(
            || "-".to_owned(),
            |change| format!("{:+.1}%", change * 100.0),
        );
        [
            times(self.then),
            times(self.now),
            change,
            self.judgement.to_string(),
        ]
    }
}

/// Compares a comparison by the baseline in the file. `machine` is the one of this run; where it
/// differs from that of the baseline in what matters, a note says so.
///
/// An error, which names the file: it cannot be read, is no baseline, has another format, or was
/// measured with another schedule, payload, priority or load, or one of the two has no row `mq`.
pub fn against(comparison: &Comparison, machine: &Machine, path: &Path) -> anyhow::Result<Verdict> {
    let baseline = file::load(path)?;
    assess(comparison, machine, &baseline)
        .with_context(|| format!("{}: not comparable", path.display()))
}

fn assess(
    comparison: &Comparison,
    machine: &Machine,
    baseline: &Baseline,
) -> anyhow::Result<Verdict> {
    let differences = baseline
        .conditions
        .differences(&file::Conditions::of(comparison));
    anyhow::ensure!(differences.is_empty(), "{}", differences.join("; "));
    let mut rows = Vec::new();
    let mut notes = Vec::new();
    let mut tests = Vec::new();
    for placement in PLACEMENTS {
        let then = Lot::of(
            baseline
                .rows
                .iter()
                .map(|r| (&r.path, r.placement, &r.turns)),
            placement,
        );
        let now = Lot::of(
            comparison
                .rows
                .iter()
                .map(|r| (&r.path, r.placement, &r.turns)),
            placement,
        );
        for path in then.missing_in(&now) {
            notes.push(format!(
                "Only in the baseline: {path}, {}.",
                placement.text()
            ));
        }
        for path in now.missing_in(&then) {
            notes.push(format!(
                "Not in the baseline: {path}, {}.",
                placement.text()
            ));
        }
        if then.rows.is_empty() || now.rows.is_empty() {
            continue;
        }
        let (then_reference, now_reference) =
            (then.reference("the baseline")?, now.reference("this run")?);
        for (path, turns_now) in now.rows.iter().filter(|(path, _)| *path != REFERENCE) {
            let Some(turns_then) = then.turns(path) else {
                continue;
            };
            for figure in [
                (|turn: &Turn| turn.paced_p50_ns) as fn(&Turn) -> u64,
                |turn| turn.busy_p50_ns,
            ] {
                tests.push([
                    ratios(turns_then, then_reference, figure),
                    ratios(turns_now, now_reference, figure),
                ]);
            }
            rows.push((path.to_string(), placement));
        }
    }
    notes.extend(machine_notes(&baseline.machine, machine));
    let figures = figures(&tests);
    let rows = rows.into_iter().zip(figures.chunks_exact(2));
    let rows = rows.map(|((path, placement), figures)| RowVerdict {
        path,
        placement,
        paced: figures[0],
        busy: figures[1],
    });
    let baseline = format!("{} ({})", baseline.saved, baseline.program);
    Ok(Verdict {
        rows: rows.collect(),
        notes,
        baseline,
    })
}

/// The rows of one run in one placement.
struct Lot<'a> {
    placement: Placement,
    rows: Vec<(&'a str, &'a [Turn])>,
}

impl<'a> Lot<'a> {
    fn of(
        rows: impl Iterator<Item = (&'a String, Placement, &'a Vec<Turn>)>,
        placement: Placement,
    ) -> Lot<'a> {
        let rows = rows.filter(|(_, at, _)| *at == placement);
        Lot {
            placement,
            rows: rows
                .map(|(path, _, turns)| (path.as_str(), turns.as_slice()))
                .collect(),
        }
    }

    fn turns(&self, path: &str) -> Option<&'a [Turn]> {
        self.rows
            .iter()
            .find(|(name, _)| *name == path)
            .map(|(_, turns)| *turns)
    }

    fn missing_in(&self, other: &Lot<'_>) -> impl Iterator<Item = &'a str> {
        self.rows
            .iter()
            .map(|(path, _)| *path)
            .filter(|path| other.turns(path).is_none())
    }

    fn reference(&self, whose: &str) -> anyhow::Result<&'a [Turn]> {
        self.turns(REFERENCE).with_context(|| {
            let placement = self.placement.text();
            format!("{whose} has no path {REFERENCE}, {placement}, by which all others are divided: measure it too")
        })
    }
}

/// Turn by turn. Without a sample of the reference there is nothing to divide by and the turn is
/// left out; without one of the path it is infinitely slow.
#[expect(clippy::cast_precision_loss, reason = "ns below 2^53")]
fn ratios(turns: &[Turn], reference: &[Turn], figure: impl Fn(&Turn) -> u64) -> Vec<f64> {
    let pairs = turns
        .iter()
        .zip(reference)
        .map(|(turn, reference)| (figure(turn), figure(reference)));
    let there = pairs.filter(|(_, reference)| *reference > 0);
    there
        .map(|(ns, reference)| {
            if ns == 0 {
                f64::INFINITY
            } else {
                ns as f64 / reference as f64
            }
        })
        .collect()
}

/// Tests all of them together.
fn figures(tests: &[[Vec<f64>; 2]]) -> Vec<Figure> {
    let p: Vec<f64> = tests
        .iter()
        .map(|[then, now]| rank::mann_whitney(then, now).p)
        .collect();
    let certain = rank::holm(&p, ALPHA);
    let needed = turns_needed(tests.len());
    let each = tests.iter().zip(p).zip(certain);
    each.map(|(([then, now], p), certain)| {
        let mut figure = Figure {
            then: median(then),
            now: median(now),
            p,
            judgement: Judgement::TooFew(needed),
        };
        if then.len().min(now.len()) >= needed {
            figure.judgement = match figure.change() {
                Some(change) if certain && change >= EFFECT_MIN => Judgement::Worse,
                Some(change) if certain && change <= -EFFECT_MIN => Judgement::Better,
                _ => Judgement::Same,
            };
        }
        figure
    })
    .collect()
}

/// Turns that both runs must have for the clearest of differences to be certain among so many
/// questions.
fn turns_needed(questions: usize) -> usize {
    let questions = f64::from(u32::try_from(questions.max(1)).unwrap_or(u32::MAX));
    // 2 / (2n over n) falls by four with each turn: ten thousand questions need a dozen.
    (1..=100)
        .find(|turns| rank::p_min(*turns, *turns) <= ALPHA / questions)
        .unwrap_or(100)
}

fn median(figures: &[f64]) -> Option<f64> {
    let mut sorted = figures.to_vec();
    sorted.sort_by(f64::total_cmp);
    let upper = *sorted.get(sorted.len() / 2)?;
    let lower = sorted[(sorted.len() - 1) / 2];
    Some(lower + (upper - lower) / 2.0)
        .filter(|middle| !middle.is_nan())
        .or(Some(upper))
}

fn machine_notes(then: &Machine, now: &Machine) -> Vec<String> {
    let differ = FACTS_NOTED
        .iter()
        .filter(|name| then.fact(name) != now.fact(name));
    let mut notes: Vec<String> = differ
        .map(|name| {
            let (then, now) = (clean(then.fact(name), 100), clean(now.fact(name), 100));
            format!("The machine differs: its {name} was {then}, and is {now}.")
        })
        .collect();
    if then.degraded.is_empty() != now.degraded.is_empty() {
        let (degraded, other) = if now.degraded.is_empty() {
            ("baseline", "this run")
        } else {
            ("run", "the baseline")
        };
        notes.push(format!("This {degraded} was degraded, {other} was not."));
    }
    notes
}
