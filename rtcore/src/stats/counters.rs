//! All counters of the statistics page that rtd keeps by route, lane thread and receiver: one line
//! each.
//!
//! To add a counter, add a line here and count where it happens. Everything else follows
//! ([`super::table`]): the words of the page and the layout's version, the sum of a lane, the
//! difference of two snapshots, the JSON, and, if the line has a `column`, the table of `rtctl
//! stats`.

use super::guard::GuardState;
use super::table::Merge::{Last, Level, Max, Sum};
use super::table::Unit::{Count, Flag, Ns, Permille, RefusedCalls, Rejects, State, SystemCall};
use super::table::{Counter, Value, counters, difference, fingerprint, merged, values};
use crate::message::Reject;
use crate::refusals::Refused;
use crate::sys::seccomp;

counters! {
    /// The ledger of one route: every accepted message by its outcome. Owned by the one thread that
    /// reads the route's source; it publishes copies to the page.
    ///
    /// Invariant:
    /// `accepted == delivered + expired + displaced + sum(rejected) + peer_dead + queued`. A
    /// message with a fan-out of n is n accepted copies.
    pub struct Ledger {
        /// Accepted copies.
        accepted: u64 = Counter::new(Sum, Count).column("ACCEPTED", 0),
        /// Handed to the receiver.
        delivered: u64 = Counter::new(Sum, Count).column("DELIVERED", 1),
        /// Time to live ran out.
        expired: u64 = Counter::new(Sum, Count).column("EXPIRED", 1),
        /// Dropped by the overflow policy in favour of another message.
        displaced: u64 = Counter::new(Sum, Count).column("DISPLACED", 1),
        /// Refused, by [`Reject`] reason.
        rejected: [u64; Reject::COUNT] = Counter::new(Sum, Rejects).column("REJECTED", 1),
        /// The receiver was gone.
        peer_dead: u64 = Counter::new(Sum, Count).column("PEER-DEAD", 1),
        /// Waiting in front of a full receiver.
        queued: u64 = Counter::new(Level, Count).column("QUEUED", 2),
        /// Of those, copies of a message that a full receiver holds (`block`) and that is still in
        /// its sender's ring: if rtd is killed now, they are not lost.
        held: u64 = Counter::new(Level, Count).hidden(),
        /// Delivered later than the deadline (a subset of delivered).
        deadline_misses: u64 = Counter::new(Sum, Count).column("MISSES", 2),
    }

    /// Counters of one lane thread, beside its routes' ledgers.
    pub struct WorkerCounters {
        /// Messages taken from its sources.
        received: u64 = Counter::new(Sum, Count),
        /// Longest time from a dequeue to the end of its dispatch.
        duty_max_ns: u64 = Counter::new(Max, Ns).column("DUTY-MAX", 7),
        /// Interrupted waits (wake-ups by the control thread).
        wakeups: u64 = Counter::new(Sum, Count),
        /// Receive errors other than an interrupted wait.
        errors: u64 = Counter::new(Sum, Count),
        /// Events that found the event ring full.
        events_lost: u64 = Counter::new(Sum, Count),
        /// Allocations after seal; anything but 0 is a defect.
        allocations: u64 = Counter::new(Sum, Count),
        /// Times that the thread was seen without its real-time mode after a dispatch or a wait
        /// (Cobalt); 0 if the skin has only one mode. Xenomai's own tools call it MSW.
        mode_switches: u64 = Counter::new(Sum, Count).column("MSW", 2),
        /// System calls after seal that were not on the thread's list, and refused; anything but 0
        /// is a defect.
        refused_calls: u64 = Counter::new(Sum, RefusedCalls).column("REFUSED-CALLS", 1),
        /// 1 + the number of the last of them; 0 before the first. Shown in the column of
        /// `refused_calls`.
        last_refused_call: u64 = Counter::new(Last, SystemCall).of_lane(),
    }

    /// The watchdog's findings about one lane thread since the start.
    pub struct Guard {
        /// State at the last sample.
        state: GuardState = Counter::new(Max, State),
        /// Number of times that it made no progress for longer than its lane allows.
        stalls: u64 = Counter::new(Sum, Count),
        /// The longest of these times so far, in steps of the watchdog's period.
        stall_max_ns: u64 = Counter::new(Max, Ns),
        /// Windows in which it used more than its budget.
        over_budget: u64 = Counter::new(Sum, Count),
        /// Its share of a CPU in the last window, in thousandths; of a lane that polls, of time
        /// with a message in hand.
        duty_permille: u64 = Counter::new(Max, Permille).key("duty_percent").column("DUTY", 4),
        /// The highest such share.
        duty_max_permille: u64 = Counter::new(Max, Permille).key("duty_max_percent"),
        /// CPU time since its start; 0 if Linux does not schedule it.
        cpu_ns: u64 = Counter::new(Sum, Ns),
        /// The watchdog has removed its priority.
        demoted: bool = Counter::new(Max, Flag),
    }

    /// Outcomes of messages after rtd, or the sender of a direct route, had put them into the
    /// receiver's ring.
    pub struct ReceiverCounters {
        /// Discarded by the receiver's library, as it reports: older than the route's ttl.
        expired: u64 = Counter::new(Sum, Count).column("EXPIRED", 0),
        /// Discarded by the receiver's library, as it reports: the route keeps newer messages only.
        superseded: u64 = Counter::new(Sum, Count).column("SUPERSEDED", 0),
        /// Received later than the route's deadline after the time at which they should have been
        /// sent, as the library reports.
        late: u64 = Counter::new(Sum, Count).column("LATE", 0),
        /// Not read when the receiver's process ended.
        unread: u64 = Counter::new(Sum, Count).column("UNREAD", 0),
    }
}

/// Number that changes with the counters, and with the reasons of those that are counted by reason.
pub(super) const FINGERPRINT: u32 = fingerprint(TABLES, &[&Reject::NAMES, &Refused::NAMES]);

impl Ledger {
    /// Sum over all reject reasons.
    pub fn rejected_total(&self) -> u64 {
        self.rejected
            .iter()
            .fold(0, |sum, &count| sum.saturating_add(count))
    }

    /// Whether every accepted copy is counted in exactly one outcome.
    pub fn balances(&self) -> bool {
        let Ledger {
            accepted,
            delivered,
            expired,
            displaced,
            rejected,
            peer_dead,
            queued,
            ..
        } = *self;
        let ends = [delivered, expired, displaced, peer_dead, queued];
        // Wider than the counters, because a reader calls this for pages with any content.
        let sum: u128 = ends
            .iter()
            .chain(&rejected)
            .map(|&count| u128::from(count))
            .sum();
        u128::from(accepted) == sum
    }
}

impl WorkerCounters {
    /// Records a refused call.
    pub(crate) fn set_refused_call(&mut self, number: u32) {
        self.last_refused_call = 1 + u64::from(number);
    }

    /// Name of the last refused system call, such as `openat`; none if there was none.
    pub fn refused_call(&self) -> Option<&'static str> {
        system_call(self.last_refused_call)
    }
}

/// The name of the call in a counter of [`SystemCall`]; none for 0.
pub fn system_call(value: u64) -> Option<&'static str> {
    let number = value.checked_sub(1)?;
    Some(u32::try_from(number).map_or("?", seccomp::name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_lead_back_to_what_they_were_made_of() {
        let words = std::array::from_fn(|at| at as u64 + 2);
        let ledger = Ledger::of_words(words);
        assert_eq!(
            (ledger.words(), ledger.accepted, ledger.rejected[0]),
            (words, 2, 6)
        );
        assert_eq!(ledger.deadline_misses, Ledger::WORDS as u64 + 1);
        let guard = Guard {
            state: GuardState::OverBudget,
            cpu_ns: 7,
            demoted: true,
            ..Guard::default()
        };
        assert_eq!(Guard::of_words(guard.words()), guard);
        assert_eq!(
            Guard::of_words([9; Guard::WORDS]).state,
            GuardState::Stalled
        );
    }

    #[test]
    fn a_counter_becomes_one_value_and_an_interval_as_its_table_says() {
        let rejected = [1, 0, 0, 0, 0, 0, u64::MAX];
        let a = Ledger {
            accepted: 9,
            queued: 3,
            rejected,
            ..Ledger::default()
        };
        let mut sum = a;
        sum.merge(&a);
        assert_eq!(
            sum,
            Ledger {
                accepted: 18,
                queued: 6,
                rejected: [2, 0, 0, 0, 0, 0, u64::MAX],
                ..a
            }
        );
        let interval = Ledger {
            accepted: 9,
            rejected: [1, 0, 0, 0, 0, 0, 0],
            ..sum
        };
        assert_eq!(sum.since(&a), interval, "what is queued is no difference");

        let mut thread = WorkerCounters {
            duty_max_ns: 5,
            refused_calls: 1,
            ..WorkerCounters::default()
        };
        thread.set_refused_call(0);
        let other = WorkerCounters {
            duty_max_ns: 4,
            received: 2,
            ..WorkerCounters::default()
        };
        let mut both = thread;
        both.merge(&other);
        assert_eq!(
            both,
            WorkerCounters {
                received: 2,
                ..thread
            }
        );
        assert_eq!(
            (
                both.since(&thread).duty_max_ns,
                both.since(&thread).refused_calls
            ),
            (5, 0)
        );
        assert_eq!(
            (both.refused_call(), other.refused_call()),
            (Some(seccomp::name(0)), None)
        );
        assert_eq!(system_call(u64::MAX), Some("?"));
    }

    #[test]
    fn a_value_is_the_sum_of_its_words() {
        let ledger = Ledger {
            rejected: [3, 0, 0, 1, 0, 0, 0],
            peer_dead: 5,
            ..Ledger::default()
        };
        let value = |name: &str| {
            ledger
                .values()
                .find(|(counter, _)| counter.name == name)
                .map(|(_, n)| n)
        };
        assert_eq!((value("rejected"), value("peer_dead")), (Some(4), Some(5)));
        assert_eq!(ledger.values().count(), Ledger::TABLE.len());
    }

    /// A page with other counters gets another version automatically.
    #[test]
    fn another_name_size_or_order_has_another_fingerprint() {
        const A: Counter = Counter::new(Sum, Count).named("a", 1);
        const B: Counter = Counter::new(Sum, Count).named("b", 1);
        let of = |tables: &[&[Counter]], names: &[&str]| fingerprint(tables, &[names]);
        let all = [
            of(&[&[A, B]], &["x"]),
            of(&[&[B, A]], &["x"]),
            of(&[&[A]], &["x"]),
            of(&[&[A, Counter { words: 2, ..B }]], &["x"]),
            of(&[&[A, B]], &["y"]),
        ];
        assert!(
            all.iter()
                .enumerate()
                .all(|(at, one)| !all[..at].contains(one)),
            "{all:x?}"
        );
        assert_eq!(of(&[&[A, B]], &["x"]), all[0]);
    }

    #[test]
    fn keys_of_a_table_differ() {
        for table in TABLES {
            let shown: Vec<_> = table.iter().filter(|counter| counter.is_shown).collect();
            for (at, counter) in shown.iter().enumerate() {
                assert!(
                    shown[..at].iter().all(|other| other.key != counter.key),
                    "{counter:?}"
                );
            }
        }
    }
}
