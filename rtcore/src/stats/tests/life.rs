//! Who may have a name, and what is left when its owner is stopped or killed.

use super::*;
use crate::stats::layout::TO_BYTES;
use crate::stats::reader::{DaemonState, instances};
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};

const CHILD_NAME: &str = "RTD_STATS_TEST_PAGE";

/// The other process of the tests below: publishes under the given name until it is killed. Without
/// a name it is nobody's child and has nothing to do.
#[test]
fn child_that_publishes() {
    let Ok(name) = std::env::var(CHILD_NAME) else {
        return;
    };
    let mut page = Page::create(&spec(&name)).unwrap();
    let mut cell = page.route(0);
    page.set_ready(monotonic_ns());
    for n in 1.. {
        cell.publish(&ledger(n));
        cell.record_latency(n);
        page.heartbeat(monotonic_ns(), monotonic_ns());
        if n == 1000 {
            println!("published");
        }
    }
}

/// A child whose page is up.
struct Writer(Child, String);

impl Writer {
    fn start(name: &str) -> Writer {
        let exe = std::env::current_exe().unwrap();
        let mut child = Command::new(exe)
            .args([
                "--exact",
                "stats::tests::life::child_that_publishes",
                "--nocapture",
            ])
            .env(CHILD_NAME, name)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        assert!(
            lines
                .map_while(Result::ok)
                .any(|line| line.contains("published")),
            "the child failed"
        );
        Writer(child, name.to_owned())
    }

    fn signal(&self, name: &str) {
        let sent = Command::new("kill")
            .args(["-s", name, &self.0.id().to_string()])
            .status()
            .unwrap();
        assert!(sent.success());
    }

    fn kill(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
        let _ = std::fs::remove_file(page_path(&self.1));
    }
}

#[test]
fn a_killed_daemon_leaves_its_page_and_the_next_one_takes_the_name() {
    let name = unique("killed");
    let mut writer = Writer::start(&name);
    let reader = Reader::open(&name).unwrap();
    assert_eq!(reader.daemon_state().unwrap(), DaemonState::Running);
    writer.kill();

    let left = reader.snapshot().unwrap();
    assert_eq!(
        (left.state, left.pid),
        (DaemonState::Stopped, writer.0.id())
    );
    assert!(left.routes[0].latency.count() >= 999);
    assert!(!left.routes[0].consistent || left.routes[0].ledger.balances());
    assert!(Reader::open(&name).is_ok() && instances().contains(&name) && reader.is_current());

    let next = Page::create(&spec(&name)).unwrap();
    assert!(!reader.is_current());
    assert_eq!(
        reader.snapshot().unwrap().pid,
        writer.0.id(),
        "an open reader keeps what it opened"
    );
    let now = Reader::open(&name).unwrap().snapshot().unwrap();
    assert_eq!(
        (now.pid, now.state),
        (std::process::id(), DaemonState::Running)
    );
    assert_eq!(now.routes[0].ledger, Ledger::default());
    drop(next);
    assert!(!page_path(&name).exists());
}

#[test]
fn a_stopped_process_is_hung_and_readable() {
    let name = unique("stopped");
    let writer = Writer::start(&name);
    let reader = Reader::open(&name).unwrap();
    writer.signal("STOP");
    // The only thing that makes this daemon hung is time.
    let limit = Instant::now() + Duration::from_secs(10);
    while reader.daemon_state().unwrap() == DaemonState::Running {
        assert!(Instant::now() < limit, "never seen as hung");
        std::thread::yield_now();
    }
    let read = reader.snapshot().unwrap();
    assert_eq!(read.state, DaemonState::Hung);
    assert!(!read.routes[0].consistent || read.routes[0].ledger.balances());
    let refused = Page::create(&spec(&name)).unwrap_err();
    assert_eq!(
        refused.kind(),
        std::io::ErrorKind::AddrInUse,
        "a stopped daemon keeps its name"
    );
    writer.signal("CONT");
    while reader.daemon_state().unwrap() != DaemonState::Running {
        assert!(
            Instant::now() < limit + Duration::from_secs(10),
            "never seen running again"
        );
        std::thread::yield_now();
    }
}

#[test]
fn a_running_name_is_refused_with_its_pid() {
    let name = unique("live");
    let page = Page::create(&spec(&name)).unwrap();
    let refused = Page::create(&spec(&name)).unwrap_err();
    assert_eq!(refused.kind(), std::io::ErrorKind::AddrInUse);
    let text = refused.to_string();
    assert!(
        text.contains(&format!("pid {}", std::process::id())) && text.contains(&name),
        "{text}"
    );
    assert!(
        Reader::open(&name).unwrap().is_current(),
        "the refused one left the page alone"
    );
    drop(page);
    assert!(Page::create(&spec(&name)).is_ok());
}

#[test]
fn only_one_of_many_takes_a_stale_name() {
    let name = unique("race");
    for _ in 0..20 {
        std::fs::write(page_path(&name), b"left by a crash").unwrap();
        let pages: Vec<_> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..4)
                .map(|_| scope.spawn(|| Page::create(&spec(&name))))
                .collect();
            threads
                .into_iter()
                .map(|thread| thread.join().unwrap())
                .collect()
        });
        assert_eq!(
            pages.iter().filter(|page| page.is_ok()).count(),
            1,
            "{pages:?}"
        );
        assert!(Reader::open(&name).unwrap().daemon_state().unwrap() == DaemonState::Running);
    }
}

#[test]
#[ignore = "needs root"]
fn a_page_of_another_user_is_refused_with_the_uid() {
    let name = unique("foreign");
    let path = page_path(&name);
    std::fs::write(&path, b"").unwrap();
    std::os::unix::fs::chown(&path, Some(12345), None).unwrap();
    let refused = Page::create(&spec(&name)).unwrap_err();
    std::fs::remove_file(&path).unwrap();
    assert_eq!(refused.kind(), std::io::ErrorKind::PermissionDenied);
    assert!(refused.to_string().contains("uid 12345"), "{refused}");
}

#[test]
fn dropping_a_page_leaves_a_name_that_is_no_longer_its_own() {
    let name = unique("renamed");
    let page = Page::create(&spec(&name)).unwrap();
    std::fs::remove_file(page_path(&name)).unwrap();
    let second = Page::create(&spec(&name)).unwrap();
    drop(page);
    assert!(page_path(&name).exists());
    drop(second);
    assert!(!page_path(&name).exists());
}

#[test]
fn a_route_caught_in_the_middle_is_shown_and_marked() {
    let name = unique("odd");
    let page = Page::create(&spec(&name)).unwrap();
    let mut cell = page.route(0);
    cell.publish(&ledger(10));
    page.route(1).publish(&ledger(20));
    cell.publish_half(&ledger(11));
    let read = Reader::open(&name).unwrap().snapshot().unwrap();
    assert!(!read.routes[0].consistent && !read.lanes[0].consistent);
    assert_eq!(read.routes[0].ledger.delivered, 10);
    assert!(read.routes[1].consistent && read.lanes[1].consistent);
}

#[test]
fn names_that_do_not_fit_are_refused_and_targets_are_cut() {
    let refuse = |edit: &dyn Fn(&mut PageSpec), needle: &str| {
        let mut bad = spec(&unique("fit"));
        edit(&mut bad);
        let e = Page::create(&bad).unwrap_err();
        assert!(
            e.kind() == std::io::ErrorKind::InvalidInput && e.to_string().contains(needle),
            "{e}"
        );
    };
    refuse(&|s| s.lanes[0].name = "x".repeat(33), "lane name");
    refuse(&|s| s.socket = "x".repeat(129), "control socket");
    refuse(&|s| s.name = "../x".into(), "instance name");
    refuse(
        &|s| s.lanes = vec![s.lanes[0].clone(); 99],
        "too many lanes",
    );

    let name = unique("cut");
    let mut long = spec(&name);
    long.routes[0].name = format!("{0}->{0}", "n".repeat(31));
    long.routes[0].to = "ü".repeat(100);
    let _page = Page::create(&long).unwrap();
    let read = Reader::open(&name).unwrap().snapshot().unwrap();
    assert_eq!(read.routes[0].name, long.routes[0].name);
    assert_eq!(read.routes[0].to, "ü".repeat(TO_BYTES / 2));
}

/// While a lane publishes as fast as it can.
#[test]
fn a_removed_page_is_made_again_and_its_copy_keeps_the_promises_of_a_page() {
    let name = unique("removed");
    let mut page = Page::create(&spec(&name)).unwrap();
    let mut cell = page.route(0);
    assert_eq!(page.restore().unwrap(), None, "it is there");
    std::fs::remove_file(page_path(&name)).unwrap();
    assert!(Reader::open(&name).is_err());
    let again = page.restore().unwrap().map(std::path::Path::to_owned);
    assert_eq!(again, Some(page_path(&name)));
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut n = 0;
            while !done.load(Ordering::Relaxed) {
                n += 1;
                (0..1 + n % 2).for_each(|_| cell.record_delivery(0, n));
                cell.record_latency(n);
                cell.publish(&ledger(n));
            }
        });
        let reader = Reader::open(&name).unwrap();
        let mut last = 0;
        for round in 0..400 {
            page.heartbeat(monotonic_ns(), monotonic_ns());
            let read = reader.snapshot().unwrap();
            let route = &read.routes[0];
            assert!(
                route.consistent && route.ledger.balances(),
                "{round}: {route:?}"
            );
            assert!(
                route.ledger.delivered >= last
                    && route.targets[0].delivered >= route.ledger.delivered
            );
            last = route.ledger.delivered;
        }
        done.store(true, Ordering::Relaxed);
        assert!(last > 0, "nothing was copied");
    });
    page.set_process(1, PeerState::Dead, 4711, 1000);
    let reader = Reader::open(&name).unwrap();
    drop(page);
    let left = reader.snapshot().unwrap();
    assert_eq!(
        (left.processes[1].pid, left.state),
        (4711, DaemonState::Stopped)
    );
    assert!(!page_path(&name).exists());
}
