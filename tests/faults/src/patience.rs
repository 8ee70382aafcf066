//! How long the campaign waits for progress that should come at once.

use std::time::{Duration, Instant};

/// What is given up after so long hangs.
const LIMIT: Duration = Duration::from_secs(60);
/// Most that counts of the time between two looks.
const BETWEEN_LOOKS: Duration = Duration::from_millis(20);

/// The time that one wait has taken. It counts only while the campaign, an ordinary process as most
/// of those that it waits for, gets a CPU: on a machine whose real-time threads, or whose host, leave
/// ordinary threads no time, nothing hangs because it is slow.
#[derive(Debug)]
pub struct Patience {
    limit: Duration,
    waited: Duration,
    last_look: Instant,
}

impl Patience {
    /// The wait begins, for what would be there within milliseconds on an idle machine.
    pub fn new() -> Patience {
        Patience::of(LIMIT)
    }

    /// Likewise, with another limit.
    pub fn of(limit: Duration) -> Patience {
        Patience {
            limit,
            waited: Duration::ZERO,
            last_look: Instant::now(),
        }
    }

    /// Whether the wait has taken too long. To be called at each look, between which the caller
    /// sleeps for less than 20 ms.
    pub fn is_over(&mut self) -> bool {
        let now = Instant::now();
        self.waited += (now - self.last_look).min(BETWEEN_LOOKS);
        self.last_look = now;
        self.waited > self.limit
    }
}
