//! The engine of comparisons: pairs that take turns, alone and beside what happens in a machine.
//!
//! All pairs are made before the first thread starts, and wait. In a turn each pair runs each block
//! once under each condition. So a machine whose speed drifts slows all of them alike, and figures
//! are compared within a turn.
//!
//! Invariant: only whole turns are counted. A turn that is interrupted leaves nothing in the
//! results.

#![forbid(unsafe_code)]

use super::beside::{Beside, Condition, Extent};
use super::control_block::Block;
use super::pair::Pair;
use super::report::raw_at;
use super::run::{Conditions, lock_memory};
use super::series::Series;
use anyhow::bail;
use indicatif::{ProgressBar, ProgressStyle};
use rtcore::sys::clock::monotonic_ns;
use std::time::Duration;

/// A block that takes longer is stopped.
const BLOCK_MAX: Duration = Duration::from_secs(120);
/// From the order to the first point of the schedule.
const LEAD_NS: u64 = 2_000_000;

/// The work of every pair, and the number of its repetitions.
#[derive(Clone, Copy, Debug)]
pub struct Experiment<'a> {
    /// The conditions beside the pairs, one after the other in each turn.
    pub beside: &'a [Condition],
    /// The blocks that a pair runs under each condition. Their start is set here.
    pub blocks: &'a [Block],
    pub turns: u64,
    /// Show no progress.
    pub quiet: bool,
}

/// A pair, and its name for the progress bar.
pub struct Subject {
    /// Path and placement.
    pub title: String,
    /// Prepared, not launched.
    pub pair: Pair,
}

/// A pair under a condition, over all turns.
#[derive(Debug)]
pub struct Outcome {
    /// Its place among the subjects.
    pub subject: usize,
    /// Load that ran beside it.
    pub condition: Condition,
    /// A block each.
    pub blocks: Vec<Measured>,
    /// How much of the condition there was.
    pub extent: Extent,
}

/// A block over all turns.
#[derive(Debug)]
pub struct Measured {
    pub series: Series,
    /// Median and 99th percentile of each turn, ns.
    pub turns: Vec<[u64; 2]>,
}

/// The results of an experiment.
#[derive(Debug)]
pub struct Results {
    /// Subject by subject, in the order of the conditions.
    pub outcomes: Vec<Outcome>,
    /// Whole turns, at least one.
    pub turns: u64,
    /// The reason why memory is not locked, in one line.
    pub unlocked: Option<String>,
}

impl Experiment<'_> {
    /// Launches the pairs, measures, and ends the pairs and the daemons they talked to.
    ///
    /// Errors: it was interrupted before the first turn was through; a role, a condition or a
    /// daemon failed.
    pub fn run(
        &self,
        mut subjects: Vec<Subject>,
        conditions: &mut Conditions,
    ) -> anyhow::Result<Results> {
        subjects
            .iter_mut()
            .try_for_each(|subject| subject.pair.launch())?;
        // Its first line; the others say what grants it.
        let unlocked = lock_memory()
            .err()
            .map(|e| e.to_string().lines().next().unwrap_or_default().to_owned());
        let bar = match self.quiet {
            true => ProgressBar::hidden(),
            false => ProgressBar::new(self.turns * (self.beside.len() * subjects.len()) as u64),
        };
        bar.set_style(ProgressStyle::with_template(
            "{msg:<46} [{bar:30}] {percent:>3} %, {eta} to go",
        )?);
        let (mut outcomes, mut turns) = (Vec::new(), 0);
        while turns < self.turns
            && let Some(turn) = self.turn(turns, &mut subjects, conditions, &bar)?
        {
            turn.into_iter()
                .for_each(|outcome| add(&mut outcomes, outcome));
            turns += 1;
        }
        bar.finish_and_clear();
        if turns == 0 {
            bail!("interrupted before the first turn was through");
        }
        // Threads and processes end while the daemons that some talk to still run.
        drop(subjects);
        conditions.end_daemons()?;
        let place = |condition| self.beside.iter().position(|known| *known == condition);
        outcomes.sort_by_key(|outcome| (outcome.subject, place(outcome.condition)));
        Ok(Results {
            outcomes,
            turns,
            unlocked,
        })
    }

    /// One turn; none when it was interrupted.
    fn turn(
        &self,
        turn: u64,
        subjects: &mut [Subject],
        conditions: &mut Conditions,
        bar: &ProgressBar,
    ) -> anyhow::Result<Option<Vec<Outcome>>> {
        let count = subjects.len();
        let mut outcomes = Vec::new();
        for &condition in self.beside {
            let beside = Beside::start(condition, conditions.daemons.first())?;
            let before = outcomes.len();
            // The order changes, so that nobody is always behind the same.
            for step in 0..count {
                let at = (step * stride(count) + usize::try_from(turn)?) % count;
                let Subject { title, pair } = &mut subjects[at];
                bar.set_message(match condition {
                    Condition::Alone => title.clone(),
                    _ => format!("{title}, {}", condition.title()),
                });
                bar.inc(1);
                if conditions.is_stopped() {
                    return Ok(None);
                }
                conditions.check()?;
                let blocks = self
                    .blocks
                    .iter()
                    .map(|block| measured(pair, block))
                    .collect::<anyhow::Result<_>>()?;
                outcomes.push(Outcome {
                    subject: at,
                    condition,
                    blocks,
                    extent: Extent::default(),
                });
            }
            let extent = beside.end()?;
            outcomes[before..]
                .iter_mut()
                .for_each(|outcome| outcome.extent = extent);
        }
        Ok(Some(outcomes))
    }
}

fn measured(pair: &mut Pair, block: &Block) -> anyhow::Result<Measured> {
    let series = pair.run(
        &Block {
            start_ns: monotonic_ns() + LEAD_NS,
            ..*block
        },
        BLOCK_MAX,
    )?;
    let turns = vec![[0.5, 0.99].map(|quantile| raw_at(&series, quantile))];
    Ok(Measured { series, turns })
}

fn add(outcomes: &mut Vec<Outcome>, later: Outcome) {
    let key = |outcome: &Outcome| (outcome.subject, outcome.condition);
    let Some(known) = outcomes.iter_mut().find(|known| key(known) == key(&later)) else {
        outcomes.push(later);
        return;
    };
    known.extent.add(later.extent);
    for (block, more) in known.blocks.iter_mut().zip(later.blocks) {
        block.series.append(&more.series);
        block.turns.extend(more.turns);
    }
}

/// A step that reaches each of `count` items.
fn stride(count: usize) -> usize {
    let is_whole =
        |step: &usize| (2..=*step).all(|d| !step.is_multiple_of(d) || !count.is_multiple_of(d));
    (1..count.max(2))
        .rev()
        .find(|step| *step <= count.div_ceil(2) && is_whole(step))
        .unwrap_or(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_has_its_turn() {
        for count in 1..40 {
            let mut seen: Vec<usize> = (0..count)
                .map(|step| step * stride(count) % count)
                .collect();
            seen.sort_unstable();
            assert_eq!(seen, (0..count).collect::<Vec<_>>(), "{count}");
        }
    }
}
