//! The log's lines about losses, on a real page with ledgers that the test writes.

use super::super::build;
use super::*;
use crate::config::{CheckOptions, Machine, check_with};
use rtcore::message::Reject;
use rtcore::ring::Claims;
use rtcore::stats::Ledger;
use rtcore::stats::cells::RouteCell;
use rtcore::stats::reader::Reader;
use std::sync::atomic::{AtomicU32, Ordering};

const FULL: usize = Reject::Full as usize;
/// The time of the first tick.
const START_NS: u64 = 100 * SECOND_NS;

/// A route from one queue to two, and what is lost on it.
struct Bench {
    plan: Plan,
    page: Page,
    cell: RouteCell,
    ledger: Ledger,
    losses: RouteLosses,
}

impl Bench {
    fn new(rules: &str) -> Bench {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!(
            "loss{}-{}",
            std::process::id(),
            NEXT.fetch_add(1, Ordering::Relaxed)
        );
        let endpoint = |endpoint: &str| {
            let queue = format!("queue = \"/{name}.{endpoint}\"\nmaxmsg = 4\nmsgsize = 64\n");
            format!("[[endpoint]]\nname = \"{endpoint}\"\nkind = \"mqueue\"\n{queue}")
        };
        let text = format!(
            "[daemon]\nname = \"{name}\"\n[[lane]]\nname = \"l\"\npriority = 1\ncpu = 0\n{}{}{}\
             [[route]]\nname = \"r\"\nfrom = \"in\"\nto = [\"a\", \"b\"]\nlane = \"l\"\ncapacity = 7\n{rules}",
            endpoint("in"),
            endpoint("a"),
            endpoint("b")
        );
        let options = CheckOptions {
            allow_degraded: true,
            ..CheckOptions::default()
        };
        let checked = check_with("test", &text, &Machine::probe(), options);
        let plan = checked
            .plan
            .unwrap_or_else(|| panic!("{:?}", checked.diagnostics));
        let page = Page::create(&build::page_spec(
            &plan,
            &build::workers(&plan),
            rtcore::skin::posix(),
        ));
        let page = page.unwrap();
        let (cell, losses) = (page.route(0), RouteLosses::new(page.ends(0)));
        Bench {
            plan,
            page,
            cell,
            ledger: Ledger::default(),
            losses,
        }
    }

    /// The lane loses this many at its n-th end, or at none.
    fn lose(&mut self, loss: Loss, count: u64, end: Option<usize>) {
        match loss {
            Loss::Displaced => self.ledger.displaced += count,
            Loss::Rejected(reason) => self.ledger.rejected[reason as usize] += count,
            _ => panic!("not in these tests"),
        }
        self.ledger.accepted += count;
        if let Some(end) = end {
            (0..count).for_each(|_| self.cell.record_loss(end, loss));
        }
        self.cell.publish(&self.ledger);
    }

    /// The lines of a tick this long after the first.
    fn tick(&mut self, after_ms: u64) -> Vec<(Level, String)> {
        let now_ns = START_NS + after_ms * 1_000_000;
        self.losses.observe(0, &self.page, now_ns);
        let tick = Tick {
            plan: &self.plan,
            page: &self.page,
            now_ns,
            is_last: false,
        };
        self.losses.lines(tick, 0, 100)
    }

    /// The one line of a tick.
    fn line(&mut self, after_ms: u64, level: Level) -> String {
        let lines = self.tick(after_ms);
        match lines.as_slice() {
            [(shown, line)] if *shown == level => line.clone(),
            _ => panic!("{lines:?} at {after_ms} ms, not one {level:?}"),
        }
    }
}

const LOST_FULL: Loss = Loss::Rejected(Reject::Full);
const LOST_RATE: Loss = Loss::Rejected(Reject::Rate);

#[test]
fn where_no_receiver_is_at_fault_alone_the_capacity_is_named() {
    let mut bench = Bench::new("");
    assert_eq!(bench.tick(0), []);
    bench.lose(LOST_FULL, 1, None);
    let line = bench.line(100, Level::Warning);
    assert!(
        line.contains("is full: capacity = 7 in [[route]] \"r\" is used up"),
        "{line}"
    );
}

#[test]
fn the_first_loss_of_each_kind_names_receiver_limit_and_key_at_once() {
    let mut bench = Bench::new("rate_hz = 10\nburst = 3\n");
    assert_eq!(bench.tick(0), []);
    bench.lose(LOST_FULL, 1, Some(1));
    let line = bench.line(100, Level::Warning);
    for part in [
        "route r: 1 lost (full): b is full",
        "maxmsg = 4",
        "capacity = 7",
        "\"reject\"",
        "[[route]] \"r\"",
    ] {
        assert!(line.contains(part), "{part:?} is not in {line}");
    }
    // Another kind within the second has its own line; a second loss of the first kind must wait.
    bench.lose(LOST_RATE, 2, None);
    bench.lose(LOST_FULL, 1, Some(0));
    let line = bench.line(200, Level::Warning);
    assert!(
        line.contains("2 lost (rate)") && line.contains("rate_hz = 10 with burst = 3"),
        "{line}"
    );
}

#[test]
fn what_follows_is_summed_up_once_a_second_and_ends_with_a_line() {
    let mut bench = Bench::new("");
    bench.lose(LOST_FULL, 1, Some(0));
    assert_eq!(bench.tick(0).len(), 1);
    let mut lines = Vec::new();
    for tick in 1..=40 {
        bench.lose(LOST_FULL, 5, Some(0));
        bench.lose(LOST_RATE, u64::from(tick > 5), None);
        lines.extend(bench.tick(tick * 100));
    }
    // The first loss by rate has a line at once, and is in no summary.
    assert_eq!(lines.len(), 5, "{lines:?}");
    assert!(
        lines[1]
            .1
            .contains("54 more lost in the last 1.0 s: 50 full, 4 rate"),
        "{lines:?}"
    );
    assert!(
        lines[4]
            .1
            .contains("60 more lost in the last 1.0 s: 50 full, 10 rate"),
        "{lines:?}"
    );
    assert_eq!(bench.losses.pending.iter().sum::<u64>(), 0);
    assert_eq!(bench.tick(14_000), []);
    let line = bench.line(14_100, Level::Info);
    assert!(
        line.contains("nothing lost for 10 s, after 201 full, 35 rate"),
        "{line}"
    );
    assert_eq!(bench.tick(60_000), []);
    // It counts as a first one again.
    bench.lose(LOST_FULL, 1, Some(0));
    assert!(
        bench.tick(60_100)[0]
            .1
            .contains("route r: 1 lost (full): a is full")
    );
}

#[test]
fn displacement_is_what_the_configuration_asks_for() {
    let mut oldest = Bench::new("overflow = \"displace-oldest\"\n");
    oldest.lose(Loss::Displaced, 3, Some(0));
    let line = oldest.line(0, Level::Info);
    assert!(
        line.contains("3 lost (displaced): a is full and overflow = \"displace-oldest\""),
        "{line}"
    );
    oldest.lose(Loss::Displaced, 3, Some(0));
    assert_eq!(oldest.tick(5_000), []);
    let mut latest = Bench::new("overflow = \"conflate\"\n");
    latest.lose(Loss::Displaced, 3, Some(0));
    assert_eq!(latest.tick(0), []);
}

/// A message that its receiver's library discards is delivered in the ledger, and still lost.
#[test]
fn what_a_receiver_discards_as_expired_is_a_loss_of_its_route() {
    let mut bench = Bench::new("ttl = \"5ms\"\n");
    let mut claims = bench.page.claims(0, 1);
    assert_eq!(bench.tick(0), []);
    claims.show(&Claims {
        expired: 3,
        superseded: 9,
        late: 9,
    });
    let line = bench.line(100, Level::Warning);
    assert!(
        line.contains("route r: 3 lost (expired): b did not take them within ttl = \"5ms\""),
        "{line}"
    );
    // For any numbers that the process writes.
    claims.show(&Claims {
        expired: u64::MAX,
        ..Claims::default()
    });
    assert!(
        bench
            .line(2_000, Level::Warning)
            .contains("more lost in the last")
    );
    claims.show(&Claims::default());
    assert_eq!(bench.tick(3_000), []);
}

/// No route floods the log, none is left out, and the page has every time.
#[test]
fn the_budget_holds_lines_back_and_loses_none() {
    let mut bench = Bench::new("");
    let mut log = LossLog::new(&bench.plan, &bench.page);
    bench.lose(LOST_FULL, 2, Some(0));
    (log.second_ns, log.lines_left) = (START_NS, 0);
    log.tick(&bench.plan, &bench.page, START_NS + 1);
    assert_eq!(
        (
            log.routes[0].pending[LOST_FULL.index()],
            bench.ledger.rejected[FULL]
        ),
        (2, 2)
    );
    let read = Reader::open(&bench.plan.daemon.name)
        .unwrap()
        .snapshot()
        .unwrap();
    assert_eq!(read.routes[0].losses.losing(START_NS + 2), [LOST_FULL]);
    log.tick(&bench.plan, &bench.page, START_NS + SECOND_NS);
    assert_eq!(
        (log.routes[0].pending[LOST_FULL.index()], log.lines_left),
        (0, LINES_PER_SECOND - 1)
    );
}
