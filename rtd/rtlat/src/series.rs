//! The results of one pair. All times in nanoseconds of CLOCK_MONOTONIC.

use hdrhistogram::Histogram;

/// Widest latency a histogram holds; above, it is counted there.
pub const LATENCY_MAX_NS: u64 = 60_000_000_000;
/// Decimal digits a histogram keeps.
pub const DIGITS: u8 = 3;

/// An empty histogram of the only shape that is used here, so that any two can be added.
pub fn histogram() -> Histogram<u64> {
    // The bounds are constants that the crate accepts; `tests` would fail.
    Histogram::new_with_bounds(1, LATENCY_MAX_NS, DIGITS).unwrap_or_else(|_| unreachable!())
}

/// A stored histogram: only the used bins, instead of the 200 KB that an open one always takes.
#[derive(Clone, Debug)]
pub struct Packed(Box<[(u64, u64)]>);

impl Packed {
    /// Puts one away of the shape of [`histogram`].
    pub fn of(histogram: &Histogram<u64>) -> Packed {
        Packed(
            histogram
                .iter_recorded()
                .map(|v| (v.value_iterated_to(), v.count_at_value()))
                .collect(),
        )
    }

    /// The same histogram again.
    pub fn unpack(&self) -> Histogram<u64> {
        let mut histogram = histogram();
        self.0
            .iter()
            .for_each(|(value, count)| histogram.saturating_record_n(*value, *count));
        histogram
    }
}

/// One message (or one wake-up of a timer: `sent_ns` is `intended_ns` then).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sample {
    /// Number on the schedule, from 0.
    pub sequence: u64,
    /// When the schedule wanted it sent.
    pub intended_ns: u64,
    /// When it was sent.
    pub sent_ns: u64,
    /// When the receiver had it.
    pub received_ns: u64,
}

impl Sample {
    /// From the actual send: what rt-tests show.
    pub fn raw_ns(&self) -> u64 {
        self.received_ns.saturating_sub(self.sent_ns)
    }

    /// From the intended send: the latency as a control loop sees it.
    pub fn corrected_ns(&self) -> u64 {
        self.received_ns.saturating_sub(self.intended_ns)
    }
}

/// A thread or process of a pair.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RoleInfo {
    /// Thread number in the kernel.
    pub tid: i32,
    /// CPU it is pinned to; none: it may run anywhere.
    pub cpu: Option<usize>,
    /// CPU it ran on last.
    pub last_cpu: usize,
    /// SCHED_FIFO priority, 1..=99; 0: SCHED_OTHER.
    pub priority: u8,
}

/// The counts of the schedule: scheduled = sent + missed, and sent = received + lost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Points of the schedule up to the end.
    pub scheduled: u64,
    pub sent: u64,
    /// Messages that came.
    pub received: u64,
    /// Points of the schedule that were over, by a whole interval or more, before the sender came
    /// to them. Their latency is in `corrected`.
    pub missed: u64,
    /// Sent, and never came (a route's policy, a full receiver).
    pub lost: u64,
}

/// A latency above the `-b` bound.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Culprit {
    pub bound_ns: u64,
    /// It and its neighbours, in order of arrival.
    pub samples: Vec<Sample>,
    /// Index of the culprit in `samples`.
    pub index: usize,
    /// The action on the kernel's trace: a sentence.
    pub trace: String,
}

/// The results of one pair.
#[derive(Clone, Debug)]
pub struct Series {
    /// `timer`, `mq`, `route lane` ...
    pub name: String,
    /// Number of the pair, from 0.
    pub pair: usize,
    /// The sender; for a timer, the waiting thread.
    pub sender: RoleInfo,
    /// The receiver; for a timer the same as `sender`.
    pub receiver: RoleInfo,
    /// Schedule; 0: each message follows the arrival of the one before.
    pub interval_ns: u64,
    /// Payload; 0 where the mechanism has none.
    pub payload_bytes: usize,
    /// There and back, measured by the sender.
    pub is_round_trip: bool,
    /// From the actual send (timer: from the intended wake-up).
    pub raw: Histogram<u64>,
    /// From the intended send, missed points of the schedule included.
    pub corrected: Histogram<u64>,
    /// `raw` in bins of 1 us (0: below 1 us), as many as asked for with `--histogram`; empty: not
    /// asked for.
    pub bins: Vec<u64>,
    /// Raw latencies past the last bin, with the numbers of the first of them.
    pub overflows: u64,
    /// Numbers of the first samples past the last bin, at most as many as there are bins.
    pub overflow_cycles: Vec<u64>,
    /// Exact extremes and sum of the raw latencies; `min_ns` is 0 with no sample.
    pub min_ns: u64,
    /// Latest raw latency.
    pub last_ns: u64,
    /// Largest raw latency.
    pub max_ns: u64,
    /// Sum of the raw latencies.
    pub sum_ns: u128,
    /// The counts of the schedule.
    pub counts: Counts,
    /// Wall clock of the first and last sample, ns since 1970.
    pub start_time_ns: u64,
    /// End of the run, on the same clock as `start_time_ns`.
    pub end_time_ns: u64,
    /// The `-b` bound was exceeded.
    pub culprit: Option<Culprit>,
}

impl Series {
    /// Adds later results of the same pair. The number of bins must agree.
    pub fn append(&mut self, later: &Series) {
        // The same shape (`histogram`), so neither can fail.
        let added = self
            .raw
            .add(&later.raw)
            .and(self.corrected.add(&later.corrected));
        debug_assert!(added.is_ok(), "histograms of one shape");
        self.bins
            .iter_mut()
            .zip(&later.bins)
            .for_each(|(bin, more)| *bin += more);
        self.overflows += later.overflows;
        if later.counts.received > 0 {
            let is_first = self.counts.received == 0;
            self.min_ns = if is_first {
                later.min_ns
            } else {
                self.min_ns.min(later.min_ns)
            };
            self.start_time_ns = if is_first {
                later.start_time_ns
            } else {
                self.start_time_ns
            };
            (self.last_ns, self.end_time_ns) = (later.last_ns, later.end_time_ns);
        }
        self.max_ns = self.max_ns.max(later.max_ns);
        self.sum_ns += later.sum_ns;
        let (all, more) = (&mut self.counts, later.counts);
        all.scheduled += more.scheduled;
        all.sent += more.sent;
        all.received += more.received;
        all.missed += more.missed;
        all.lost += more.lost;
    }

    /// Whether it is a timer's: one role, no message.
    pub fn is_timer(&self) -> bool {
        self.name == "timer"
    }

    /// Whether it is what signaltest measures: a signal there and back.
    pub fn is_signaltest(&self) -> bool {
        self.name == "signal" && self.is_round_trip
    }

    /// Mean of the raw latencies; 0 with no sample.
    #[expect(clippy::cast_precision_loss, reason = "a mean of less than 2^53 ns")]
    pub fn mean_ns(&self) -> f64 {
        if self.counts.received == 0 {
            0.0
        } else {
            self.sum_ns as f64 / self.counts.received as f64
        }
    }
}

/// The placement of sender and receiver.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Placement {
    /// On one CPU.
    Same,
    /// Sender and receiver run on two CPUs.
    Other,
}

impl Placement {
    /// As it stands in tables.
    pub fn text(self) -> &'static str {
        match self {
            Placement::Same => "same CPU",
            Placement::Other => "other CPU",
        }
    }
}

/// Medians of one turn of a comparison; the ratios that baselines are judged by come from these.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Turn {
    /// Median raw latency on the schedule.
    pub paced_p50_ns: u64,
    /// Its 99th percentile.
    pub paced_p99_ns: u64,
    /// Median raw latency back to back.
    pub busy_p50_ns: u64,
}

/// One line of a comparison: a path in a placement, over all turns.
#[derive(Clone, Debug)]
pub struct Row {
    /// `mq`, `signal`, `futex`, `mq -> mq`, `lane direct` ...
    pub path: String,
    pub placement: Placement,
    /// On the schedule.
    pub paced: Series,
    /// Back to back: each message follows the arrival of the one before.
    pub busy: Series,
    /// Turn by turn. As many as each other row of the placement has; turn n of all rows ran one
    /// after the other.
    pub turns: Vec<Turn>,
}

impl Row {
    /// Median over the turns of this path's figure / the reference's in the same turn. None without
    /// turns.
    pub fn ratio(&self, reference: &Row, figure: impl Fn(&Turn) -> u64) -> Option<f64> {
        let mut all = self.ratios(reference, figure);
        all.sort_by(f64::total_cmp);
        all.get(all.len() / 2).copied()
    }

    /// The ratios themselves, turn by turn.
    #[expect(clippy::cast_precision_loss, reason = "ns below 2^53")]
    pub fn ratios(&self, reference: &Row, figure: impl Fn(&Turn) -> u64) -> Vec<f64> {
        let pairs = self.turns.iter().zip(&reference.turns);
        pairs
            .map(|(a, b)| figure(a) as f64 / figure(b).max(1) as f64)
            .collect()
    }
}

/// A whole comparison. The reference of each placement is its row `mq`.
#[derive(Clone, Debug)]
pub struct Comparison {
    /// All rows, raw mechanisms first.
    pub rows: Vec<Row>,
    /// The requested interval, for the captions.
    pub interval_ns: u64,
    pub payload_bytes: usize,
    /// FIFO priority of receivers; senders are one below.
    pub priority: u8,
    /// FIFO priority of the lanes.
    pub lane_priority: u8,
    /// The load that ran beside it, as it was asked for; none: `none`.
    pub load: String,
}

impl Comparison {
    /// The row that the others of this placement are compared to.
    pub fn reference(&self, placement: Placement) -> Option<&Row> {
        self.rows
            .iter()
            .find(|row| row.placement == placement && row.path == "mq")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_put_away_comes_back_as_it_was() {
        let mut whole = histogram();
        for ns in [
            1,
            5,
            2_047,
            2_049,
            1_234_567,
            1_234_567,
            LATENCY_MAX_NS,
            u64::MAX,
        ] {
            whole.saturating_record(ns);
        }
        let packed = Packed::of(&whole);
        assert_eq!(packed.0.len(), 6);
        let again = packed.unpack();
        assert_eq!(
            (&again, again.min(), again.max()),
            (&whole, whole.min(), whole.max())
        );
        assert!(Packed::of(&histogram()).unpack().is_empty());
    }
}
