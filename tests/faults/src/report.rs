//! The figures of a run.

use crate::account::{Verdict, Wrong};
use crate::allowed::Sentence;
use crate::fault::Kind;
use std::collections::BTreeMap;
use std::fmt::Write as _;

/// What a run has come to.
#[derive(Debug, Default)]
pub struct Report {
    faults: BTreeMap<Kind, Row>,
    /// Of the fault that is being judged.
    current: Row,
}

#[derive(Debug, Default)]
struct Row {
    count: u64,
    failed: u64,
    accepted: u64,
    received: u64,
    counted: u64,
    wrong: BTreeMap<Wrong, u64>,
    excused: BTreeMap<Sentence, u64>,
    recovery_ns: Vec<u64>,
}

impl Report {
    /// Adds what became of one stream.
    pub fn verdict(&mut self, verdict: &Verdict) {
        let row = &mut self.current;
        row.accepted += verdict.accepted;
        row.received += verdict.received;
        row.counted += verdict.counted;
        for finding in &verdict.findings {
            *row.wrong.entry(finding.wrong).or_default() += finding.count;
        }
        for (sentence, count) in &verdict.excused {
            *row.excused.entry(*sentence).or_default() += count;
        }
    }

    /// Ends a fault: what the verdicts since the last one say belongs to it.
    pub fn fault(&mut self, kind: Kind, recovery_ns: u64, findings: usize) {
        let done = std::mem::take(&mut self.current);
        let row = self.faults.entry(kind).or_default();
        row.count += 1;
        row.failed += u64::from(findings > 0);
        row.accepted += done.accepted;
        row.received += done.received;
        row.counted += done.counted;
        for (wrong, count) in done.wrong {
            *row.wrong.entry(wrong).or_default() += count;
        }
        for (sentence, count) in done.excused {
            *row.excused.entry(sentence).or_default() += count;
        }
        row.recovery_ns.push(recovery_ns);
    }

    /// All faults.
    pub fn count(&self) -> u64 {
        self.faults.values().map(|row| row.count).sum()
    }

    /// Faults that were not as the documents say.
    pub fn failed(&self) -> u64 {
        self.faults.values().map(|row| row.failed).sum()
    }

    /// As a Markdown table.
    pub fn markdown(&mut self) -> String {
        let mut text = String::from(
            "| fault | count | accepted | in a ledger | lost | duplicated | reordered | other | excused | recovery p50 / p99 / max |\n\
             |---|---|---|---|---|---|---|---|---|---|\n",
        );
        for (kind, row) in &mut self.faults {
            row.recovery_ns.sort_unstable();
            let wrong = |wrong| row.wrong.get(&wrong).copied().unwrap_or(0);
            let named = [Wrong::Lost, Wrong::Duplicated, Wrong::Reordered].map(wrong);
            let other = row.wrong.values().sum::<u64>() - named.iter().sum::<u64>();
            let excused: u64 = row.excused.values().sum();
            let quantile = |percent: usize| {
                let all = &row.recovery_ns;
                let ns = all.get(all.len() * percent / 100).or(all.last()).copied().unwrap_or(0);
                format!("{:.1}", ns as f64 / 1e6)
            };
            let (p50, p99, max) = (quantile(50), quantile(99), quantile(100));
            let [lost, duplicated, reordered] = named;
            let Row { count, accepted, counted, .. } = row;
            let _ = writeln!(
                text,
                "| {kind:?} | {count} | {accepted} | {counted} | {lost} | {duplicated} | {reordered} | {other} | {excused} | {p50} / {p99} / {max} ms |"
            );
        }
        let mut sentences: BTreeMap<Sentence, u64> = BTreeMap::new();
        for (sentence, count) in self.faults.values().flat_map(|row| &row.excused) {
            *sentences.entry(*sentence).or_default() += count;
        }
        text.push('\n');
        for (sentence, count) in sentences {
            let (file, words) = sentence.source();
            let _ = writeln!(text, "- {count} excused by {file}: \"{words}\"");
        }
        text
    }
}
