//! The receiving thread's records of its messages: histograms, bins, extremes, and the neighbours
//! of a culprit.
//!
//! Everything is allocated by [`Recorder::new`]; recording allocates nothing.

use super::series::{Culprit, Sample, histogram};
use hdrhistogram::Histogram;
use rtcore::sys::memory;
use zerocopy::IntoBytes as _;

/// Samples kept before a culprit, and after it.
const NEIGHBOURS: usize = 8;
/// Most numbers of samples past the last bin that are kept. As many as there are bins, as
/// cyclictest does, up to this.
const OVERFLOWS_MAX: usize = 10_000;
/// A schedule that is late by more points than this is corrected by this number of values only: the
/// correction of an hour of stall at 1 us would take an hour.
const CORRECTIONS_MAX: u64 = 100_000;

/// The exact figures of the raw latencies.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    pub received: u64,
    /// Smallest; 0 with none.
    pub min_ns: u64,
    pub last_ns: u64,
    /// Largest value, in ns.
    pub max_ns: u64,
    pub sum_ns: u128,
}

impl Tally {
    /// Adds a sample.
    pub fn add(&mut self, ns: u64) {
        self.min_ns = if self.received == 0 {
            ns
        } else {
            self.min_ns.min(ns)
        };
        self.received += 1;
        self.last_ns = ns;
        self.max_ns = self.max_ns.max(ns);
        self.sum_ns += u128::from(ns);
    }

    fn append(&mut self, later: &Tally) {
        if later.received == 0 {
            return;
        }
        self.min_ns = if self.received == 0 {
            later.min_ns
        } else {
            self.min_ns.min(later.min_ns)
        };
        self.received += later.received;
        self.last_ns = later.last_ns;
        self.max_ns = self.max_ns.max(later.max_ns);
        self.sum_ns += later.sum_ns;
    }
}

/// How to record.
#[derive(Clone, Copy, Debug, Default)]
pub struct Recording {
    /// Bins of 1 us; 0: none.
    pub bins: usize,
    /// Raw latency above which a sample is a culprit.
    pub bound_ns: Option<u64>,
}

/// See the module.
#[derive(Debug)]
pub struct Recorder {
    recording: Recording,
    /// From the actual send.
    pub raw: Histogram<u64>,
    /// From the intended send, missed points included.
    pub corrected: Histogram<u64>,
    /// Raw latencies by whole microseconds.
    pub bins: Vec<u64>,
    /// Raw latencies past the bins.
    pub overflows: u64,
    /// Numbers of the first of these.
    pub overflow_cycles: Vec<u64>,
    pub tally: Tally,
    /// Receive time of the first sample and of the last, CLOCK_MONOTONIC.
    pub first_ns: u64,
    /// Last arrival, on the same clock as `first_ns`.
    pub last_ns: u64,
    /// The latest samples, the newest at `recent_at - 1`, until there is a culprit.
    recent: [Sample; NEIGHBOURS],
    recent_at: usize,
    culprit: Vec<Sample>,
    culprit_at: Option<usize>,
}

impl Recorder {
    /// Empty, and with every page present: the thread that records does not fault.
    pub fn new(recording: Recording) -> Recorder {
        let mut recorder = Recorder {
            recording,
            raw: histogram(),
            corrected: histogram(),
            bins: vec![0; recording.bins],
            overflows: 0,
            overflow_cycles: vec![0; recording.bins.min(OVERFLOWS_MAX)],
            tally: Tally::default(),
            first_ns: 0,
            last_ns: 0,
            recent: [Sample::default(); NEIGHBOURS],
            recent_at: 0,
            culprit: Vec::with_capacity(2 * NEIGHBOURS + 1),
            culprit_at: None,
        };
        // Zeroed memory of the heap may be the one page of zeros until it is written: a reset
        // writes.
        recorder.raw.reset();
        recorder.corrected.reset();
        memory::touch(recorder.bins.as_mut_bytes());
        memory::touch(recorder.overflow_cycles.as_mut_bytes());
        recorder.overflow_cycles.clear();
        recorder
    }

    /// Records a message of a schedule with this interval (0: none), which was followed so late.
    /// True: it is the first above the bound.
    pub fn record(&mut self, sample: Sample, interval_ns: u64, late_ns: u64) -> bool {
        let raw_ns = sample.raw_ns();
        if self.tally.received == 0 {
            self.first_ns = sample.received_ns;
        }
        self.last_ns = sample.received_ns;
        self.tally.add(raw_ns);
        self.raw.saturating_record(raw_ns.max(1));
        self.correct(&sample, interval_ns, late_ns);
        self.bin(&sample, raw_ns);
        self.watch(sample, raw_ns)
    }

    /// The latency from the intended send, and that of each point of the schedule that passed
    /// before this message was sent: a message at such a point had to wait for it.
    fn correct(&mut self, sample: &Sample, interval_ns: u64, late_ns: u64) {
        let latency_ns = sample.corrected_ns();
        self.corrected.saturating_record(latency_ns.max(1));
        let missed = late_ns.checked_div(interval_ns).unwrap_or(0);
        self.wait(latency_ns.saturating_sub(interval_ns), missed, interval_ns);
    }

    /// Points of the schedule whose message was refused, lost or never sent. Each has waited until
    /// `now_ns`: for the next message that arrived, or for the end of the run.
    pub fn waited(&mut self, first_ns: u64, points: u64, interval_ns: u64, now_ns: u64) {
        self.wait(now_ns.saturating_sub(first_ns), points, interval_ns);
    }

    /// `points` latencies, the first of this length and each further one an interval shorter. Of
    /// very many, neighbours are recorded as one value.
    fn wait(&mut self, longest_ns: u64, points: u64, interval_ns: u64) {
        let stride = points.div_ceil(CORRECTIONS_MAX).max(1);
        for first in (0..points).step_by(usize::try_from(stride).unwrap_or(usize::MAX)) {
            let waited_ns = longest_ns
                .saturating_sub(first.saturating_mul(interval_ns))
                .max(1);
            self.corrected
                .saturating_record_n(waited_ns, stride.min(points - first));
        }
    }

    fn bin(&mut self, sample: &Sample, raw_ns: u64) {
        if self.bins.is_empty() {
            return;
        }
        let bin = usize::try_from(raw_ns / 1000).unwrap_or(usize::MAX);
        if let Some(count) = self.bins.get_mut(bin) {
            *count += 1;
            return;
        }
        self.overflows += 1;
        if self.overflow_cycles.len() < self.bins.len().min(OVERFLOWS_MAX) {
            self.overflow_cycles.push(sample.sequence);
        }
    }

    fn watch(&mut self, sample: Sample, raw_ns: u64) -> bool {
        let Some(bound_ns) = self.recording.bound_ns else {
            return false;
        };
        if self.culprit_at.is_some() {
            if self.culprit.len() < self.culprit.capacity() {
                self.culprit.push(sample);
            }
            return false;
        }
        if raw_ns <= bound_ns {
            self.recent[self.recent_at % NEIGHBOURS] = sample;
            self.recent_at += 1;
            return false;
        }
        let kept = self.recent_at.min(NEIGHBOURS);
        self.culprit
            .extend((self.recent_at - kept..self.recent_at).map(|n| self.recent[n % NEIGHBOURS]));
        self.culprit_at = Some(kept);
        self.culprit.push(sample);
        true
    }

    /// The sample above the bound, with its neighbours.
    pub fn culprit(&self, trace: &str) -> Option<Culprit> {
        let (index, bound_ns) = (self.culprit_at?, self.recording.bound_ns?);
        Some(Culprit {
            bound_ns,
            samples: self.culprit.clone(),
            index,
            trace: trace.to_owned(),
        })
    }

    /// Adds the values recorded after this.
    pub fn append(&mut self, later: &Recorder) {
        // The same shape (`histogram`), so neither can fail.
        let added = self
            .raw
            .add(&later.raw)
            .and(self.corrected.add(&later.corrected));
        debug_assert!(added.is_ok(), "histograms of one shape");
        for (bin, more) in self.bins.iter_mut().zip(&later.bins) {
            *bin += more;
        }
        self.overflows += later.overflows;
        let free = self
            .bins
            .len()
            .min(OVERFLOWS_MAX)
            .saturating_sub(self.overflow_cycles.len());
        self.overflow_cycles
            .extend(later.overflow_cycles.iter().take(free));
        if self.tally.received == 0 {
            self.first_ns = later.first_ns;
        }
        if later.tally.received > 0 {
            self.last_ns = later.last_ns;
        }
        self.tally.append(&later.tally);
        if self.culprit_at.is_none() {
            (self.culprit_at, self.culprit) = (later.culprit_at, later.culprit.clone());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(sequence: u64, intended_ns: u64, sent_ns: u64, received_ns: u64) -> Sample {
        Sample {
            sequence,
            intended_ns,
            sent_ns,
            received_ns,
        }
    }

    #[test]
    fn missed_points_of_the_schedule_are_in_the_corrected_figures() {
        let mut recorder = Recorder::new(Recording::default());
        recorder.record(sample(0, 1_000, 1_000, 1_100), 1_000, 0);
        // 3.5 intervals late: the points at 3000, 4000 and 5000 are missed.
        recorder.record(sample(1, 2_000, 5_500, 5_600), 1_000, 3_500);
        assert_eq!((recorder.raw.len(), recorder.raw.max()), (2, 100));
        let corrected: Vec<u64> = recorder
            .corrected
            .iter_recorded()
            .map(|v| v.value_iterated_to())
            .collect();
        assert_eq!((recorder.corrected.len(), corrected.len()), (5, 5));
        for (got, wanted) in corrected.iter().zip([100, 600, 1_600, 2_600, 3_600]) {
            assert!(got.abs_diff(wanted) <= wanted / 1000 + 1, "{corrected:?}");
        }
    }

    #[test]
    fn lost_points_of_the_schedule_wait_until_the_next_success() {
        let mut recorder = Recorder::new(Recording::default());
        recorder.waited(10_000, 3, 1_000, 15_000);
        let waited: Vec<u64> = recorder
            .corrected
            .iter_recorded()
            .map(|v| v.value_iterated_to())
            .collect();
        assert!(
            waited
                .iter()
                .zip([3_000u64, 4_000, 5_000])
                .all(|(got, want)| got.abs_diff(want) < 10)
        );
        assert_eq!((recorder.corrected.len(), recorder.raw.len()), (3, 0));
        // Ten times as many as are written down one by one: all of them count.
        recorder.waited(0, 10 * CORRECTIONS_MAX + 7, 1_000, 60_000_000_000);
        assert_eq!(recorder.corrected.len(), 10 * CORRECTIONS_MAX + 10);
    }

    #[test]
    fn without_a_schedule_nothing_is_missed() {
        let mut recorder = Recorder::new(Recording::default());
        recorder.record(sample(0, 0, 50_000, 50_100), 0, 50_000);
        assert_eq!(recorder.corrected.len(), 1);
    }

    #[test]
    fn bins_are_whole_microseconds_and_the_rest_is_counted() {
        let mut recorder = Recorder::new(Recording {
            bins: 3,
            bound_ns: None,
        });
        for (n, ns) in [0, 999, 1_000, 2_999, 3_000, 9_000_000]
            .into_iter()
            .enumerate()
        {
            recorder.record(sample(n as u64, 0, 0, ns), 0, 0);
        }
        assert_eq!(
            (recorder.bins.as_slice(), recorder.overflows),
            ([2, 1, 1].as_slice(), 2)
        );
        assert_eq!(recorder.overflow_cycles, [4, 5]);
        assert_eq!(
            (recorder.tally.min_ns, recorder.tally.last_ns),
            (0, 9_000_000)
        );
    }

    #[test]
    fn a_culprit_is_kept_with_its_neighbours() {
        let mut recorder = Recorder::new(Recording {
            bins: 0,
            bound_ns: Some(10),
        });
        let hits: Vec<u64> = (0..60)
            .filter(|n| recorder.record(sample(*n, 0, 0, if *n == 20 { 11 } else { 10 }), 0, 0))
            .collect();
        assert_eq!(hits, [20]);
        let culprit = recorder.culprit("frozen").unwrap();
        assert_eq!(
            (culprit.samples[culprit.index].sequence, culprit.index),
            (20, 8)
        );
        assert_eq!(culprit.samples.first().unwrap().sequence, 12);
        assert_eq!(culprit.samples.last().unwrap().sequence, 28);
    }

    #[test]
    fn recording_does_not_fault() {
        let mut recorder = Recorder::new(Recording {
            bins: 1_000_000,
            bound_ns: Some(u64::MAX),
        });
        let before = memory::thread_usage().unwrap();
        for n in 0..100_000_u64 {
            recorder.record(sample(n, 0, 0, n * n * 100), 0, 0);
        }
        let faults = memory::thread_usage().unwrap().since(&before).minor_faults;
        assert!(faults < 10, "{faults} faults");
    }

    #[test]
    fn slices_add_up_to_the_whole() {
        let recording = Recording {
            bins: 5,
            bound_ns: None,
        };
        let (mut whole, mut sum) = (Recorder::new(recording), Recorder::new(recording));
        for part in 0..4 {
            let mut slice = Recorder::new(recording);
            for n in 0..part * 3 {
                let sample = sample(n, 0, 0, 500 * (n + part));
                whole.record(sample, 0, 0);
                slice.record(sample, 0, 0);
            }
            sum.append(&slice);
        }
        assert_eq!(
            (sum.tally, &sum.bins, sum.overflows),
            (whole.tally, &whole.bins, whole.overflows)
        );
        assert_eq!((sum.raw, sum.corrected), (whole.raw, whole.corrected));
        assert_eq!((sum.first_ns, sum.last_ns), (whole.first_ns, whole.last_ns));
    }
}
