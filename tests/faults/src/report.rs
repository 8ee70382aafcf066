//! The figures of a run.

use crate::account::{Verdict, Wrong};
use crate::allowed::Sentence;
use crate::fault::Kind;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt::Write as _;

/// From so many faults on, a share of them means something.
const MANY: usize = 20;

/// What came of one fault.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outcome {
    /// Its parameters, in words.
    pub what: String,
    /// Nothing has happened: the named point was not reached.
    #[serde(default)]
    pub not_reached: bool,
    /// Messages accepted.
    pub accepted: u64,
    /// Copies received.
    pub received: u64,
    /// Copies that a ledger counts as lost.
    pub counted: u64,
    /// Messages that no sentence excuses, by finding.
    pub wrong: BTreeMap<Wrong, u64>,
    /// What a sentence excuses.
    pub excused: BTreeMap<Sentence, u64>,
    /// How long the streams took.
    pub recovery: Recovery,
}

/// Times from the fault until messages flowed again, in nanoseconds. Where rtd ended, the time in
/// which nobody started it again is left out.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Recovery {
    /// If rtd ended: from its next start until it was ready.
    pub ready_ns: Option<u64>,
    /// If rtd ended: until somebody received a message by a lane that was sent after the end.
    pub first_ns: Option<u64>,
    /// Until each receiver of a stream had received one; if rtd ended, of those that go through a
    /// lane.
    pub each_ns: Vec<u64>,
    /// Until every stream had.
    pub all_ns: u64,
}

impl Outcome {
    /// Adds what became of one stream.
    pub fn add(&mut self, verdict: &Verdict) {
        self.accepted += verdict.accepted;
        self.received += verdict.received;
        self.counted += verdict.counted;
        for finding in &verdict.findings {
            *self.wrong.entry(finding.wrong).or_default() += finding.count;
        }
        for (sentence, count) in &verdict.excused {
            *self.excused.entry(*sentence).or_default() += count;
        }
    }
}

/// What a run has come to.
#[derive(Debug, Default)]
pub struct Report {
    faults: BTreeMap<Kind, Vec<Outcome>>,
}

/// Some times, as `p50 / p99 / max ms`.
fn quantiles(mut all: Vec<u64>) -> String {
    all.sort_unstable();
    let quantile = |percent: usize| {
        let ns = all
            .get(all.len() * percent / 100)
            .or(all.last())
            .copied()
            .unwrap_or(0);
        format!("{:.1}", ns as f64 / 1e6)
    };
    if all.is_empty() {
        return "-".to_owned();
    }
    format!("{} / {} / {} ms", quantile(50), quantile(99), quantile(100))
}

impl Report {
    /// Adds a fault.
    pub fn fault(&mut self, kind: Kind, outcome: Outcome) {
        self.faults.entry(kind).or_default().push(outcome);
    }

    /// All faults.
    pub fn count(&self) -> usize {
        self.faults.values().map(Vec::len).sum()
    }

    /// Faults that were not as the documents say.
    pub fn failed(&self) -> usize {
        self.faults
            .values()
            .flatten()
            .filter(|outcome| !outcome.wrong.is_empty())
            .count()
    }

    /// Faults at named points, and how many of them did not happen.
    pub fn at_points(&self) -> (usize, usize) {
        let outcomes = || {
            let at_point = |(kind, _): &(&Kind, _)| kind.is_at_point();
            self.faults.iter().filter(at_point).flat_map(|(_, all)| all)
        };
        let missed = outcomes().filter(|outcome| outcome.not_reached).count();
        (outcomes().count(), missed)
    }

    /// Whether more than a fifth of the faults at named points did not happen: then the run has not
    /// tried what it says.
    pub fn misses_points(&self) -> bool {
        let (all, missed) = self.at_points();
        all >= MANY && missed * 5 > all
    }

    /// As Markdown tables.
    pub fn markdown(&self) -> String {
        let sentences = self.sentences();
        let mut text = String::from(
            "| fault | count | accepted | in a ledger | lost | duplicated | reordered | other | excused | until all streams flow p50 / p99 / max |\n\
             |---|---|---|---|---|---|---|---|---|---|\n",
        );
        for (kind, outcomes) in &self.faults {
            text += &row(kind, outcomes, &sentences);
        }
        text.push('\n');
        for (number, (sentence, count)) in (1..).zip(&sentences) {
            let (file, words) = sentence.source();
            let _ = writeln!(text, "- [{number}] {count} excused by {file}: \"{words}\"");
        }
        let (all, missed) = self.at_points();
        if missed > 0 {
            let _ = writeln!(
                text,
                "\n{missed} of {all} faults at named points did not happen: no process reached the point."
            );
        }
        text + &self.restarts()
    }

    /// All sentences that excused anything, numbered by their order here.
    fn sentences(&self) -> Vec<(Sentence, u64)> {
        let mut sentences: BTreeMap<Sentence, u64> = BTreeMap::new();
        for (sentence, count) in self
            .faults
            .values()
            .flatten()
            .flat_map(|outcome| &outcome.excused)
        {
            *sentences.entry(*sentence).or_default() += count;
        }
        sentences.into_iter().collect()
    }

    /// How long it takes from the end of rtd until messages flow again.
    fn restarts(&self) -> String {
        let mut text = String::new();
        for (kind, outcomes) in &self.faults {
            let ended: Vec<&Recovery> = outcomes
                .iter()
                .map(|o| &o.recovery)
                .filter(|r| r.ready_ns.is_some())
                .collect();
            if ended.is_empty() {
                continue;
            }
            let of = |ns: fn(&Recovery) -> Vec<u64>| {
                quantiles(ended.iter().flat_map(|r| ns(r)).collect())
            };
            let (ready, first) = (
                of(|r| r.ready_ns.into_iter().collect()),
                of(|r| r.first_ns.into_iter().collect()),
            );
            let (each, all) = (of(|r| r.each_ns.clone()), of(|r| vec![r.all_ns]));
            let count = ended.len();
            let _ = writeln!(
                text,
                "| {kind:?} | {count} | {ready} | {first} | {each} | {all} |"
            );
        }
        if text.is_empty() {
            return text;
        }
        let head = "\n| end of rtd | count | start until ready | first routed message | each routed stream | all streams |\n\
                    |---|---|---|---|---|---|\n";
        format!("{head}{text}")
    }
}

fn row(kind: &Kind, outcomes: &[Outcome], sentences: &[(Sentence, u64)]) -> String {
    let sum = |of: fn(&Outcome) -> u64| outcomes.iter().map(of).sum::<u64>();
    let wrong = |wrong| {
        outcomes
            .iter()
            .filter_map(|o| o.wrong.get(&wrong))
            .sum::<u64>()
    };
    let [lost, duplicated, reordered] =
        [Wrong::Lost, Wrong::Duplicated, Wrong::Reordered].map(wrong);
    let other = sum(|o| o.wrong.values().sum()) - lost - duplicated - reordered;
    let excused = (1..).zip(sentences).filter_map(|(number, (sentence, _))| {
        let count: u64 = outcomes
            .iter()
            .filter_map(|o| o.excused.get(sentence))
            .sum();
        (count > 0).then(|| format!("{count} [{number}]"))
    });
    let excused: Vec<String> = excused.collect();
    let excused = if excused.is_empty() {
        "0".to_owned()
    } else {
        excused.join(", ")
    };
    let (count, accepted, counted) = (outcomes.len(), sum(|o| o.accepted), sum(|o| o.counted));
    let recovery = quantiles(outcomes.iter().map(|o| o.recovery.all_ns).collect());
    format!(
        "| {kind:?} | {count} | {accepted} | {counted} | {lost} | {duplicated} | {reordered} | {other} | {excused} | {recovery} |\n"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_has_all_figures_and_the_sentences_that_excuse() {
        let mut report = Report::default();
        for ms in [1, 2, 300] {
            let recovery = Recovery {
                ready_ns: Some(ms * 1_000_000),
                first_ns: Some(2 * ms * 1_000_000),
                each_ns: vec![3 * ms * 1_000_000],
                all_ns: 4 * ms * 1_000_000,
            };
            let wrong = if ms == 300 {
                BTreeMap::from([(Wrong::Lost, 2)])
            } else {
                BTreeMap::new()
            };
            let excused = BTreeMap::from([(Sentence::Twice, 1)]);
            report.fault(
                Kind::KillRtd,
                Outcome {
                    accepted: 10,
                    wrong,
                    excused,
                    recovery,
                    ..Outcome::default()
                },
            );
        }
        assert_eq!((report.count(), report.failed()), (3, 1));
        let text = report.markdown();
        let expected =
            "| KillRtd | 3 | 30 | 0 | 2 | 0 | 0 | 0 | 3 [1] | 8.0 / 1200.0 / 1200.0 ms |\n";
        assert!(text.contains(expected), "{text}");
        let expected = "| KillRtd | 3 | 2.0 / 300.0 / 300.0 ms | 4.0 / 600.0 / 600.0 ms | 6.0 / 900.0 / 900.0 ms | 8.0 / 1200.0 / 1200.0 ms |\n";
        assert!(text.contains(expected), "{text}");
        let (file, _) = Sentence::Twice.source();
        assert!(
            text.contains(&format!("- [1] 3 excused by {file}")),
            "{text}"
        );
    }
}
