//! The live view of a run: lines that are redrawn on a terminal, as rt-tests do.
//!
//! The caller checks [`is_wanted`] once: if the output is not a terminal, or with -q, nothing is
//! written until the end.

use std::io::{self, Write};
use std::time::Duration;

use super::date::clock;
use super::{Unit, text};
use crate::series::{RoleInfo, Series};

/// The state of a pair while it runs. Plain words, so that it can be published without a lock.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// Number of the pair, from 0.
    pub pair: usize,
    /// Index into the names of the run.
    pub name: usize,
    pub sender: RoleInfo,
    pub receiver: RoleInfo,
    /// Schedule; 0: back to back.
    pub interval_ns: u64,
    /// There and back.
    pub is_round_trip: bool,
    /// Points of the schedule until now.
    pub scheduled: u64,
    /// Messages that came.
    pub count: u64,
    /// Messages that will not come; while the run goes on those that are known to be lost.
    pub lost: u64,
    /// Smallest raw latency; 0 with no sample.
    pub min_ns: u64,
    pub act_ns: u64,
    pub avg_ns: u64,
    /// Largest value, in ns.
    pub max_ns: u64,
}

impl Progress {
    /// The final state of a finished series, as number `name` of the names.
    pub fn of(series: &Series, name: usize) -> Progress {
        let mean_ns = series.sum_ns / u128::from(series.counts.received.max(1));
        Progress {
            pair: series.pair,
            name,
            sender: series.sender,
            receiver: series.receiver,
            interval_ns: series.interval_ns,
            is_round_trip: series.is_round_trip,
            scheduled: series.counts.scheduled,
            count: series.counts.received,
            lost: series.counts.lost,
            min_ns: series.min_ns,
            act_ns: series.last_ns,
            avg_ns: u64::try_from(mean_ns).unwrap_or(u64::MAX),
            max_ns: series.max_ns,
        }
    }
}

/// When a run ends by itself: at whichever comes first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Goal {
    /// -l; 0: endless.
    pub loops: u64,
    pub duration: Option<Duration>,
}

impl Goal {
    /// The part that is done, 0 to 1. None: it ends when the user says so.
    fn done(&self, all: &[Progress], elapsed: Duration) -> Option<f64> {
        let loops = (self.loops > 0).then(|| {
            // The last pair decides, and a missed point of the schedule is a loop too.
            let loops = all
                .iter()
                .map(|p| p.scheduled.max(p.count))
                .min()
                .unwrap_or(0);
            loops as f64 / self.loops as f64
        });
        let duration = self
            .duration
            .filter(|d| !d.is_zero())
            .map(|d| elapsed.as_secs_f64() / d.as_secs_f64());
        let done = loops.into_iter().chain(duration).reduce(f64::max)?;
        Some(done.min(1.0))
    }
}

/// Whether to draw at all.
pub fn is_wanted(is_quiet: bool, is_terminal: bool) -> bool {
    is_terminal && !is_quiet
}

/// The redrawn lines.
#[derive(Debug)]
pub struct Live<W> {
    out: W,
    names: Vec<String>,
    goal: Goal,
    unit: Unit,
    lines_drawn: usize,
}

impl<W: Write> Live<W> {
    /// Draws nothing yet. `names`: what [`Progress::name`] counts in.
    pub fn new(out: W, names: Vec<String>, goal: Goal, unit: Unit) -> Live<W> {
        Live {
            out,
            names,
            goal,
            unit,
            lines_drawn: 0,
        }
    }

    /// Draws the lines over the ones before, in one write(2) so that no half picture is seen.
    pub fn draw(&mut self, all: &[Progress], elapsed: Duration) -> io::Result<()> {
        let mut lines = Vec::new();
        text::lines(&mut lines, all, &self.names, self.unit)?;
        writeln!(lines, "{}", self.progress_line(all, elapsed))?;
        let lines = String::from_utf8_lossy(&lines);
        // A line that is wider than the terminal is cut off: wrapped, it would count for two when
        // going up again.
        let picture = lines.replace('\n', "\x1b[K\n");
        write!(
            self.out,
            "{}\x1b[?7l{picture}\x1b[?7h\x1b[J",
            up(self.lines_drawn)
        )?;
        self.lines_drawn = lines.lines().count();
        self.out.flush()
    }

    /// Takes the lines away, so that the final ones stand in their place.
    pub fn finish(mut self) -> io::Result<()> {
        write!(self.out, "{}\x1b[J", up(self.lines_drawn))?;
        self.out.flush()
    }

    fn progress_line(&self, all: &[Progress], elapsed: Duration) -> String {
        let time = clock(elapsed.as_secs());
        let goal = match self.goal.done(all, elapsed) {
            // Too early to tell a time, or an absurd one.
            Some(done) => {
                match Duration::try_from_secs_f64(elapsed.as_secs_f64() * (1.0 - done) / done) {
                    Ok(left) => format!("{:.0} %, {} to go", done * 100.0, clock(left.as_secs())),
                    Err(_) => "0 %".to_owned(),
                }
            }
            None => "ends with Ctrl-C".to_owned(),
        };
        let behind: u64 = all
            .iter()
            .map(|p| p.scheduled.saturating_sub(p.count + p.lost))
            .sum();
        format!("# {time}, {goal}, {behind} behind the schedule")
    }
}

fn up(lines: usize) -> String {
    // Cursor up by 0 goes up by one.
    if lines == 0 {
        String::new()
    } else {
        format!("\x1b[{lines}A\r")
    }
}
