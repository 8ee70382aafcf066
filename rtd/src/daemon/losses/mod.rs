//! Losses in the log: the first of each kind on a route at once, then a summary a second.
//!
//! Lane threads only count. The control thread compares the ledgers on the page at each tick, so a
//! loss is logged, and its time is on the page, within a tenth of a second, and a flood of losses
//! costs a lane nothing. The same page has the ledgers of direct routes, which the control thread
//! computes itself, and the numbers of messages that receivers' libraries discard as expired.
//!
//! A kind of loss counts as *first* again after it did not occur for [`LOSING_NS`].
//!
//! Invariant: a loss is in exactly one line, or in a count that waits for its line; at most
//! [`LINES_PER_SECOND`] lines are written in a second, and losses without a line wait for the next
//! second.

mod explain;
#[cfg(test)]
mod tests;

use super::names::Names;
use crate::log;
use crate::plan::{Path, Plan};
use explain::Case;
pub use explain::hint;
use rtcore::lane::peer::Reception;
use rtcore::lane::policy::Overflow;
use rtcore::stats::loss::{LOSING_NS, Loss};
use rtcore::stats::writer::Page;
use rtcore::sys::Errno;

/// Limit of the lines about losses in a second, for all routes together.
const LINES_PER_SECOND: u32 = 50;
const SECOND_NS: u64 = 1_000_000_000;

type Counts = [u64; Loss::COUNT];

/// The state of the log for each route's losses.
#[derive(Debug)]
pub struct LossLog {
    routes: Vec<RouteLosses>,
    /// Start of the current second.
    second_ns: u64,
    lines_left: u32,
    /// The route that is served first at the next tick, so that no route is always last in the
    /// budget.
    turn: usize,
}

#[derive(Clone, Debug)]
struct RouteLosses {
    /// The ledger at the last tick.
    seen: Counts,
    /// For each end: the losses there when the ledger last showed a loss of that kind.
    ends: Vec<Counts>,
    /// Losses that are not in the log yet.
    pending: Counts,
    /// Kinds whose next line is the long one.
    first: [bool; Loss::COUNT],
    /// For each kind in `first`: the ends that lost the messages.
    at_fault: Vec<[bool; Loss::COUNT]>,
    /// Last loss; none before the first.
    last_ns: [Option<u64>; Loss::COUNT],
    /// Losses since `is_losing` holds.
    episode: Counts,
    is_losing: bool,
    /// Time of the last summary, or of the last tick without pending losses.
    logged_ns: u64,
}

/// Parameters of a tick.
#[derive(Clone, Copy)]
struct Tick<'a> {
    plan: &'a Plan,
    page: &'a Page,
    now_ns: u64,
    /// The daemon ends: there is no later tick to log the losses.
    is_last: bool,
}

/// Level of a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Level {
    Info,
    Warning,
}

impl LossLog {
    /// The state before any loss on the routes of the page.
    pub fn new(plan: &Plan, page: &Page) -> LossLog {
        let routes = (0..plan.routes.len())
            .map(|route| RouteLosses::new(page.ends(route)))
            .collect();
        LossLog {
            routes,
            second_ns: 0,
            lines_left: LINES_PER_SECOND,
            turn: 0,
        }
    }

    /// Compares the page's ledgers with those of the last tick; shows the times on the page and
    /// writes the log.
    pub fn tick(&mut self, plan: &Plan, page: &Page, now_ns: u64) {
        self.observe(Tick {
            plan,
            page,
            now_ns,
            is_last: false,
        });
    }

    /// Logs the remaining losses before the daemon ends, without waiting for the next second.
    pub fn finish(&mut self, plan: &Plan, page: &Page, now_ns: u64) {
        self.lines_left = LINES_PER_SECOND;
        self.observe(Tick {
            plan,
            page,
            now_ns,
            is_last: true,
        });
    }

    fn observe(&mut self, tick: Tick<'_>) {
        let Tick { page, now_ns, .. } = tick;
        for (route, losses) in self.routes.iter_mut().enumerate() {
            for loss in losses.observe(route, page, now_ns) {
                page.set_lost(route, loss, now_ns);
            }
        }
        self.report(tick);
    }

    fn report(&mut self, tick: Tick<'_>) {
        let now_ns = tick.now_ns;
        if now_ns.saturating_sub(self.second_ns) >= SECOND_NS {
            (self.second_ns, self.lines_left) = (now_ns, LINES_PER_SECOND);
        }
        let routes = self.routes.len();
        for route in (0..routes).map(|at| (self.turn + at) % routes) {
            if self.lines_left == 0 {
                self.turn = route;
                return;
            }
            let losses = &mut self.routes[route];
            let lines = losses.lines(tick, route, self.lines_left as usize);
            self.lines_left -= u32::try_from(lines.len())
                .unwrap_or(u32::MAX)
                .min(self.lines_left);
            for (level, line) in lines {
                match level {
                    Level::Info => log::info(format_args!("{line}")),
                    Level::Warning => log::warning(format_args!("{line}")),
                }
            }
        }
    }
}

impl RouteLosses {
    fn new(ends: usize) -> RouteLosses {
        RouteLosses {
            seen: [0; Loss::COUNT],
            ends: vec![[0; Loss::COUNT]; ends],
            pending: [0; Loss::COUNT],
            first: [false; Loss::COUNT],
            at_fault: vec![[false; Loss::COUNT]; ends],
            last_ns: [None; Loss::COUNT],
            episode: [0; Loss::COUNT],
            is_losing: false,
            logged_ns: 0,
        }
    }

    /// Records the losses since the last tick, and returns their kinds.
    fn observe(&mut self, route: usize, page: &Page, now_ns: u64) -> Vec<Loss> {
        let counts = page.losses(route);
        let mut lost = Vec::new();
        for loss in Loss::ALL {
            let at = loss.index();
            // A direct ring's messages may move from one kind to another while its end is accounted
            // for.
            let new = counts[at].saturating_sub(self.seen[at]);
            self.seen[at] = counts[at];
            if new == 0 {
                continue;
            }
            lost.push(loss);
            self.first[at] |=
                self.last_ns[at].is_none_or(|last| now_ns.saturating_sub(last) > LOSING_NS);
            self.last_ns[at] = Some(now_ns);
            if self.first[at] || !loss.is_requested() {
                self.pending[at] = self.pending[at].saturating_add(new);
            }
            if !loss.is_requested() {
                self.is_losing = true;
                self.episode[at] = self.episode[at].saturating_add(new);
            }
        }
        if !lost.is_empty() {
            self.find_ends(route, page, &lost);
        }
        lost
    }

    /// Finds the ends of these losses. The ends are written before the ledger, so their losses are
    /// among the new ones.
    fn find_ends(&mut self, route: usize, page: &Page, lost: &[Loss]) {
        for (end, before) in self.ends.iter_mut().enumerate() {
            let (now, _) = page.losses_at(route, end);
            for at in lost.iter().map(|loss| loss.index()) {
                self.at_fault[end][at] |= now[at] > before[at];
                before[at] = now[at];
            }
        }
    }

    /// Writes at most `lines_max` lines about waiting losses.
    fn lines(&mut self, tick: Tick<'_>, route: usize, lines_max: usize) -> Vec<(Level, String)> {
        let mut lines = Vec::new();
        for loss in Loss::ALL {
            if self.first[loss.index()] && lines.len() < lines_max {
                lines.extend(self.first_line(tick, route, loss));
                if self.pending == [0; Loss::COUNT] {
                    self.logged_ns = tick.now_ns;
                }
            }
        }
        if self.is_losing && lines.len() < lines_max {
            let name = &tick.plan.routes[route].name;
            lines.extend(
                self.summary(tick, name)
                    .or_else(|| self.ending(tick.now_ns, name)),
            );
        }
        lines
    }

    /// The losses since the route's last line, once a second.
    fn summary(&mut self, tick: Tick<'_>, name: &str) -> Option<(Level, String)> {
        let since_ns = tick.now_ns.saturating_sub(self.logged_ns);
        if since_ns < SECOND_NS && !tick.is_last {
            return None;
        }
        let more: Counts = std::array::from_fn(|at| {
            if self.is_summed(Loss::ALL[at]) {
                self.pending[at]
            } else {
                0
            }
        });
        let total = more.iter().fold(0_u64, |sum, &n| sum.saturating_add(n));
        if total == 0 {
            return None;
        }
        for (pending, more) in self.pending.iter_mut().zip(more) {
            *pending -= more;
        }
        self.logged_ns = tick.now_ns;
        let (seconds, by) = (since_ns as f64 / 1e9, by_reason(&more));
        Some((
            Level::Warning,
            format!("route {name}: {total} more lost in the last {seconds:.1} s: {by}"),
        ))
    }

    /// A line, written once, when there was no loss for some time.
    fn ending(&mut self, now_ns: u64, name: &str) -> Option<(Level, String)> {
        let recent = |loss: &Loss| {
            self.last_ns[loss.index()].is_some_and(|last| now_ns.saturating_sub(last) <= LOSING_NS)
        };
        if Loss::ALL
            .iter()
            .filter(|loss| !loss.is_requested())
            .any(recent)
        {
            return None;
        }
        self.is_losing = false;
        let (seconds, by) = (
            LOSING_NS / SECOND_NS,
            by_reason(&std::mem::take(&mut self.episode)),
        );
        Some((
            Level::Info,
            format!("route {name}: nothing lost for {seconds} s, after {by}"),
        ))
    }

    /// The line for a kind of loss that did not occur for some time.
    fn first_line(&mut self, tick: Tick<'_>, route: usize, loss: Loss) -> Option<(Level, String)> {
        let Tick { plan, page, .. } = tick;
        let at = loss.index();
        self.first[at] = false;
        let lost = std::mem::take(&mut self.pending[at]);
        let direct = plan.routes[route].path == Path::Direct;
        let ends: Vec<usize> = (0..self.ends.len())
            .filter(|&end| std::mem::take(&mut self.at_fault[end][at]) || direct)
            .collect();
        let errno = ends
            .iter()
            .map(|&end| page.losses_at(route, end).1)
            .find(|&errno| errno != 0)
            .map(Errno);
        // A conflated value is not reported: its receiver wants the newest one.
        if loss.is_requested() && plan.routes[route].overflow == Overflow::Conflate {
            return None;
        }
        let name = &plan.routes[route].name;
        let not_ready = |endpoint| page.reception(endpoint) == Reception::NotReady;
        let case = Case {
            plan,
            route,
            loss,
            ends: &ends,
            errno,
            not_ready: &not_ready,
        };
        let level = if loss.is_requested() {
            Level::Info
        } else {
            Level::Warning
        };
        Some((
            level,
            format!(
                "route {name}: {lost} lost ({}): {}",
                shown(loss),
                case.why()
            ),
        ))
    }

    /// Whether the kind is in summaries: losses that the configuration requests are counted in
    /// `rtctl stats` only.
    fn is_summed(&self, loss: Loss) -> bool {
        !loss.is_requested() && !self.first[loss.index()]
    }
}

/// `12 full, 3 peer-dead`.
fn by_reason(counts: &Counts) -> String {
    let some = Loss::ALL.into_iter().zip(counts).filter(|&(_, &n)| n > 0);
    some.map(|(loss, n)| format!("{n} {}", shown(loss)))
        .collect::<Vec<_>>()
        .join(", ")
}

/// A kind of loss as tables and the log write it.
fn shown(loss: Loss) -> String {
    loss.name().replace('_', "-")
}
