//! A route's rate limit: a token bucket kept as the time at which the next message is due (the
//! generic cell rate algorithm, ITU-T I.371 annex A). One multiplication at setup, two comparisons
//! a message.

use super::policy::Rate;

#[derive(Debug)]
pub struct Bucket {
    interval_ns: u64,
    tolerance_ns: u64,
    due_ns: u64,
}

impl Bucket {
    /// Makes a full bucket.
    pub fn new(rate: Rate) -> Bucket {
        let interval_ns = 1_000_000_000 / u64::from(rate.per_second.max(1));
        Bucket {
            interval_ns,
            tolerance_ns: interval_ns * u64::from(rate.burst.max(1) - 1),
            due_ns: 0,
        }
    }

    /// The time from which a message is within the rate.
    pub fn next_ns(&self) -> u64 {
        self.due_ns.saturating_sub(self.tolerance_ns)
    }

    /// Whether a message that arrives now is within the rate.
    pub fn admit(&mut self, now_ns: u64) -> bool {
        let due = self.due_ns.max(now_ns);
        if due - now_ns > self.tolerance_ns {
            return false;
        }
        self.due_ns = due + self.interval_ns;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_admits_its_burst_and_then_its_rate() {
        let mut bucket = Bucket::new(Rate {
            per_second: 1000,
            burst: 3,
        });
        let start = 5_000_000_000;
        let burst = (0..10).filter(|_| bucket.admit(start)).count();
        assert_eq!(burst, 3);
        assert!(!bucket.admit(bucket.next_ns() - 1));
        let second = (1..=1000)
            .filter(|ms| bucket.admit(start + ms * 1_000_000))
            .count();
        assert_eq!(second, 1000);
    }

    #[test]
    fn a_bucket_refills_to_its_burst_only() {
        let mut bucket = Bucket::new(Rate {
            per_second: 10,
            burst: 2,
        });
        assert!(bucket.admit(0));
        assert_eq!(
            (0..10).filter(|_| bucket.admit(3_600_000_000_000)).count(),
            2
        );
    }
}
