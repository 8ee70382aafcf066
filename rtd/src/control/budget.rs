//! Limits for the log lines that clients cause, and for the changes of a name's holder.
//!
//! Invariant: at most [`LINES_PER_SECOND`] lines and one summary in a second, and at most
//! [`LINES_PER_NAME`] of them about one process. A process that connects in a loop therefore
//! neither fills the log nor keeps the others out of it. The summary counts the lines that were
//! held back.

use super::ControlCounters;
use super::policy::Refusal;
use crate::log;
use crate::plan::ProcessId;
use rtcore::lane::policy::Rate;
use rtcore::lane::rate::Bucket;
use rtcore::sys::clock;
use rtcore::wire::{Name, Status};
use std::fmt::Arguments;
use std::time::{Duration, Instant};

const LINES_PER_SECOND: u32 = 20;
const LINES_PER_NAME: u32 = 8;
/// Limit of the sessions and registrations of one name. Each of them makes and removes rings, and
/// wakes the lane threads that have a route to the process: a program that opens its session in a
/// loop must not take their time. A program that crashes and is restarted stays far below the
/// limit. A program above it gets in again within a twentieth of a second, because the library and
/// `rtctl` try again when rtd answers that it is busy.
const NAME_RATE: Rate = Rate {
    per_second: 20,
    burst: 100,
};

#[derive(Debug)]
pub(super) struct LogBudget {
    left: u32,
    /// The names in this second's lines, and the number of lines for each. At most
    /// [`LINES_PER_SECOND`].
    names: Vec<(String, u32)>,
    held_back: u64,
    since: Instant,
    reported: ControlCounters,
}

impl LogBudget {
    pub fn new(now: Instant) -> LogBudget {
        LogBudget {
            left: LINES_PER_SECOND,
            names: Vec::new(),
            held_back: 0,
            since: now,
            reported: ControlCounters::default(),
        }
    }

    pub fn info(&mut self, text: Arguments<'_>) {
        if self.spend(&text.to_string()) {
            log::info(text);
        }
    }

    pub fn warning(&mut self, text: Arguments<'_>) {
        if self.spend(&text.to_string()) {
            log::warning(text);
        }
    }

    fn spend(&mut self, text: &str) -> bool {
        let granted = self.left > 0 && self.spend_of_name(subject(text));
        self.left -= u32::from(granted);
        self.held_back += u64::from(!granted);
        granted
    }

    fn spend_of_name(&mut self, name: &str) -> bool {
        match self.names.iter_mut().find(|(known, _)| known == name) {
            Some((_, spent)) if *spent == LINES_PER_NAME => false,
            Some((_, spent)) => {
                *spent += 1;
                true
            }
            None => {
                self.names.push((name.to_owned(), 1));
                true
            }
        }
    }

    /// Called once a second: adds up misbehaviour that got no line of its own.
    pub fn refill(&mut self, now: Instant, counters: &ControlCounters) {
        if now.saturating_duration_since(self.since) < Duration::from_secs(1) {
            return;
        }
        let abuse = |c: &ControlCounters| (c.evicted, c.unread, c.bad_frames, c.shortages);
        if self.held_back > 0 || abuse(counters) != abuse(&self.reported) {
            log::warning(format_args!(
                "control socket: {} lines held back; {counters}",
                self.held_back
            ));
        }
        *self = LogBudget {
            reported: *counters,
            ..LogBudget::new(now)
        };
    }
}

/// The process that a line is about: the first word after `refused: ` or `pid 7 is `. It is used
/// for counting only: a line about anything else is counted under its own first word.
fn subject(text: &str) -> &str {
    let text = text.strip_prefix("refused: ").unwrap_or(text);
    let mut words = text.split([' ', ':', ',']);
    let first = words.next().unwrap_or_default();
    if first == "pid" {
        words.nth(2).unwrap_or(first)
    } else {
        first
    }
}

/// The remaining grants of each name.
#[derive(Debug)]
pub(super) struct NameBudget(Vec<Bucket>);

impl NameBudget {
    /// Makes a budget for this many processes.
    pub fn new(processes: usize) -> NameBudget {
        NameBudget((0..processes).map(|_| Bucket::new(NAME_RATE)).collect())
    }

    /// Takes one from the name's budget. Call it only for a client that may have the name: a
    /// stranger must not be able to use up the budget.
    pub fn spend(&mut self, process: ProcessId, name: Name) -> Result<(), Refusal> {
        if self
            .0
            .get_mut(process)
            .is_none_or(|bucket| bucket.admit(clock::monotonic_ns()))
        {
            return Ok(());
        }
        let Rate { per_second, burst } = NAME_RATE;
        let text = format!(
            "{name}: registered more than {burst} times at once or {per_second} times a second, which is the limit for one \
             name: keep the session open, or restart the program more slowly (systemd: RestartSec=)"
        );
        Err(Refusal::new(Status::Busy, text))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_has_a_budget_of_its_own_and_the_refusal_names_the_limit() {
        let name = Name::new("arm").unwrap();
        let mut names = NameBudget::new(2);
        let start = Instant::now();
        let granted = (0..1_000).filter(|_| names.spend(0, name).is_ok()).count();
        let most = NAME_RATE.burst as usize + 1 + (start.elapsed().as_millis() / 50) as usize;
        assert!(
            (100..=most).contains(&granted),
            "{granted}, not 100 to {most}"
        );
        let refusal = std::iter::repeat_with(|| names.spend(0, name))
            .find_map(Result::err)
            .unwrap();
        assert_eq!(refusal.status, Status::Busy);
        assert!(
            refusal
                .text
                .contains("arm: registered more than 100 times at once or 20 times a second")
        );
        names.spend(1, name).unwrap();
        std::thread::sleep(Duration::from_millis(60));
        names.spend(0, name).unwrap();
    }

    #[test]
    fn a_second_has_so_many_lines_and_no_more() {
        let start = Instant::now();
        let mut budget = LogBudget::new(start);
        let granted = (0..100)
            .filter(|n| budget.spend(&format!("p{}: came", n % 50)))
            .count();
        assert_eq!((granted, budget.held_back), (20, 80));
        budget.refill(
            start + Duration::from_millis(999),
            &ControlCounters::default(),
        );
        assert!(!budget.spend("p: came"));
        budget.refill(start + Duration::from_secs(1), &ControlCounters::default());
        assert!(budget.spend("p: came"));
    }

    #[test]
    fn one_process_keeps_no_other_out_of_the_log() {
        let mut budget = LogBudget::new(Instant::now());
        let loops = [
            "refused: axis: registered more than 100 times",
            "pid 7 is axis (generation 3)",
            "axis: pid 7 left",
        ];
        let granted = (0..99).filter(|n| budget.spend(loops[n % 3])).count();
        assert_eq!((granted, budget.held_back), (8, 91));
        assert!(budget.spend("drive: pid 8 died (signal 9)"));
    }
}
