//! The accountant: what was sent, what came, what the daemon's ledger says, and whether the three
//! agree.
//!
//! It knows no process and no clock, so that its own tests can plant every kind of fault.

use crate::allowed::Sentence;
use crate::journal::{CORRUPT, Fate};
use crate::plan::Share;
use std::collections::BTreeMap;

/// What went wrong with a message.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Serialize, serde::Deserialize,
)]
pub enum Wrong {
    /// Accepted, received by nobody, and in no ledger.
    Lost,
    /// Received twice.
    Duplicated,
    /// Received after a later one.
    Reordered,
    /// Not what was sent.
    Corrupted,
    /// Never begun, or refused.
    Invented,
    /// Received after it was checked as lost.
    Late,
    /// Still queued at the end.
    Stuck,
    /// More were counted as lost than were not received.
    Miscounted,
    /// Received by a process that the filter of its group excludes.
    Misrouted,
}

/// Something that no sentence allows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// The kind.
    pub wrong: Wrong,
    /// The first number that it concerns.
    pub first: u64,
    /// How many.
    pub count: u64,
}

/// So many messages may go wrong in this way, because a sentence says so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Allowance {
    /// The way.
    pub wrong: Wrong,
    /// How many.
    pub count: u64,
    /// Numbers of the messages that it covers.
    pub numbers: Numbers,
    /// The sentence.
    pub sentence: Sentence,
}

/// Consecutive numbers of messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Numbers {
    /// The first.
    pub first: u64,
    /// The last.
    pub last: u64,
}

impl Numbers {
    /// Whatever the number.
    pub const ALL: Numbers = Numbers {
        first: 0,
        last: u64::MAX,
    };

    fn has(self, number: u64) -> bool {
        (self.first..=self.last).contains(&number)
    }
}

/// A message that a receiver wrote down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Got {
    /// The receiver that wrote it down.
    pub member: usize,
    /// Number of the message.
    pub number: u64,
}

/// What happened between two judgements.
#[derive(Clone, Debug, Default)]
pub struct Interval<'a> {
    /// Messages begun, in order.
    pub sent: &'a [(u64, Fate)],
    /// Messages received, in order for each member.
    pub got: &'a [Got],
    /// Copies that the ledger counts as lost, or the receivers' library as discarded.
    pub counted: u64,
    /// Messages of strangers at the source: the ledger may count them as lost.
    pub strangers: u64,
    /// Messages that were refused may be in the ledger as rejected: those of a direct route.
    pub counts_refused: bool,
    /// What the documents allow after the fault of this interval.
    pub allowed: &'a [Allowance],
}

/// How an interval ended.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verdict {
    /// Messages accepted.
    pub accepted: u64,
    /// Copies received.
    pub received: u64,
    /// Copies that the ledger counts as lost.
    pub counted: u64,
    /// What a sentence excuses.
    pub excused: BTreeMap<Sentence, u64>,
    /// Findings that no sentence excuses.
    pub findings: Vec<Finding>,
}

/// Copies that were checked as lost and could still come, for each member.
const WRITTEN_OFF_MAX: usize = 4096;

/// The accountant of one stream.
#[derive(Clone, Debug)]
pub struct Accountant {
    share: Share,
    /// The member that gets nothing.
    outside: Option<usize>,
    /// Messages that somebody can still receive, with what the sender knows of them; for each
    /// member, or one for all where one of them gets a message.
    open: Vec<BTreeMap<u64, Fate>>,
    /// Messages that were checked without having been received. One that comes later is received
    /// late.
    written_off: Vec<BTreeMap<u64, Fate>>,
    /// The highest number that each member has received.
    highest: Vec<u64>,
    /// The last message that was begun.
    begun: u64,
    /// Copies that the ledger may still count as lost, now or later: those whose loss a sentence
    /// has excused, those whose sender does not know their fate, and on a direct route those that
    /// were refused.
    uncounted: u64,
}

/// Wrong messages of each kind: their numbers, and how many copies of each.
#[derive(Default)]
struct Tally(BTreeMap<Wrong, Vec<(u64, u64)>>);

impl Tally {
    fn add(&mut self, wrong: Wrong, number: u64, count: u64) {
        self.0.entry(wrong).or_default().push((number, count));
    }
}

impl Accountant {
    /// For a stream to so many receivers.
    pub fn new(members: usize, share: Share) -> Accountant {
        let books = if share == Share::Each { members } else { 1 };
        Accountant {
            share,
            outside: None,
            open: vec![BTreeMap::new(); books],
            written_off: vec![BTreeMap::new(); books],
            highest: vec![0; members],
            begun: 0,
            uncounted: 0,
        }
    }

    /// One of the members gets nothing: the filter of its group excludes it.
    pub fn excluding(self, outside: Option<usize>) -> Accountant {
        Accountant { outside, ..self }
    }

    /// Checks an interval at whose end nothing is on its way.
    pub fn check(&mut self, interval: &Interval<'_>) -> Verdict {
        for book in &mut self.open {
            book.extend(interval.sent.iter().copied());
        }
        self.begun = interval.sent.last().map_or(self.begun, |(n, _)| *n);
        let mut tally = Tally::default();
        for got in interval.got {
            self.receive(*got, &mut tally);
        }
        self.write_off(interval, &mut tally);
        let mut verdict = Verdict {
            accepted: interval
                .sent
                .iter()
                .filter(|(_, fate)| *fate == Fate::Accepted)
                .count() as u64,
            received: interval.got.len() as u64,
            counted: interval.counted,
            ..Verdict::default()
        };
        for (wrong, mut numbers) in tally.0 {
            let excused = excuse(wrong, &mut numbers, interval.allowed, &mut verdict.excused);
            if wrong == Wrong::Lost {
                self.uncounted += excused;
            }
            let left = numbers.iter().map(|(_, count)| count).sum();
            if let Some((first, _)) = numbers.iter().find(|(_, count)| *count > 0) {
                verdict.findings.push(Finding {
                    wrong,
                    first: *first,
                    count: left,
                });
            }
        }
        verdict
    }

    fn receive(&mut self, got: Got, tally: &mut Tally) {
        let Got { member, number } = got;
        if self.outside == Some(member) {
            tally.add(Wrong::Misrouted, number, 1);
        }
        if number == CORRUPT {
            return tally.add(Wrong::Corrupted, number, 1);
        }
        let book = if self.share == Share::Each { member } else { 0 };
        let (open, late) = (
            self.open[book].remove(&number),
            self.written_off[book].remove(&number),
        );
        match open.or(late) {
            Some(Fate::Refused | Fate::Disconnected) => tally.add(Wrong::Invented, number, 1),
            // A loss that a sentence excused was none.
            Some(Fate::Accepted) if late.is_some() && self.uncounted > 0 => self.uncounted -= 1,
            Some(Fate::Accepted) if late.is_some() => tally.add(Wrong::Late, number, 1),
            Some(Fate::Accepted | Fate::Begun) => {}
            None if number > self.begun => tally.add(Wrong::Invented, number, 1),
            None => return tally.add(Wrong::Duplicated, number, 1),
        }
        if number < self.highest[member] {
            tally.add(Wrong::Reordered, number, 1);
        }
        self.highest[member] = self.highest[member].max(number);
    }

    /// Compares what nobody has received with what the ledger counts as lost.
    fn write_off(&mut self, interval: &Interval<'_>, tally: &mut Tally) {
        let counted = interval.counted;
        let mut missing = Vec::new();
        let written_off_books = self.open.len() as u64;
        for (book, written_off) in self.open.iter_mut().zip(&mut self.written_off) {
            for (n, fate) in std::mem::take(book) {
                match fate {
                    Fate::Accepted => missing.push(n),
                    Fate::Begun => self.uncounted += 1,
                    Fate::Refused | Fate::Disconnected => {
                        self.uncounted += u64::from(interval.counts_refused)
                    }
                }
                written_off.insert(n, fate);
            }
            while written_off.len() > WRITTEN_OFF_MAX {
                written_off.pop_first();
            }
        }
        self.uncounted += interval.strangers * written_off_books;
        // The ledger does not say which it counts: first those that nothing else explains.
        let explained = usize::try_from(counted)
            .unwrap_or(usize::MAX)
            .min(missing.len());
        let may_be_lost = |n: &u64| {
            interval
                .allowed
                .iter()
                .any(|allowed| allowed.wrong == Wrong::Lost && allowed.numbers.has(*n))
        };
        missing.sort_by_key(|n| (may_be_lost(n), *n));
        missing[explained..]
            .iter()
            .for_each(|n| tally.add(Wrong::Lost, *n, 1));
        let surplus = counted.saturating_sub(missing.len() as u64);
        let late = surplus.min(self.uncounted);
        self.uncounted -= late;
        let surplus = surplus - late;
        if surplus > 0 {
            tally.add(Wrong::Miscounted, self.begun, surplus);
        }
    }
}

/// Takes away what sentences allow, and returns how many copies that were.
fn excuse(
    wrong: Wrong,
    numbers: &mut [(u64, u64)],
    allowed: &[Allowance],
    excused: &mut BTreeMap<Sentence, u64>,
) -> u64 {
    let mut all = 0;
    for allowance in allowed.iter().filter(|allowance| allowance.wrong == wrong) {
        let mut left = allowance.count;
        for (_, count) in numbers
            .iter_mut()
            .filter(|(number, _)| allowance.numbers.has(*number))
        {
            let taken = left.min(*count);
            (left, *count) = (left - taken, *count - taken);
        }
        let taken = allowance.count - left;
        if taken > 0 {
            *excused.entry(allowance.sentence).or_default() += taken;
        }
        all += taken;
    }
    all
}

#[cfg(test)]
mod tests;
