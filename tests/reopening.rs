//! A client that opens its session again and again takes no time of lanes that it has no part in,
//! and not without end of those it has.

use crate::util::session::lane_end;
use crate::util::{Daemon, Instance, Peer, patience, process, route};
use anyhow::{Context as _, ensure};
use rtcore::client::{ConnectError, Session};
use rtcore::stats::reader::Snapshot;
use rtcore::sys::seqpacket::Conn;
use rtcore::wire::{FRAME_BYTES, Name, Request};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

tests![
    a_session_opened_in_a_loop_wakes_its_own_lane_only_and_not_for_ever,
    opens_without_end_hold_up_no_other_client_and_do_not_fill_the_log,
];

/// One route from a queue, which nobody uses, and one that the client `axis` receives from.
fn config(i: &Instance) -> String {
    i.head()
        + &process("panel")
        + &process("axis")
        + &i.mqueue("in", "")
        + &i.mqueue("out", "")
        + &lane_end("panel.out", "panel", "")
        + &lane_end("axis.in", "axis", "")
        + &route("in", &["out"], "name = \"unrelated\"")
        + &route("panel.out", &["axis.in"], "name = \"related\"")
}

/// What the thread of a source has cost: times that it slept and was woken, and CPU time in ns.
fn cost(daemon: &Daemon, page: &Snapshot, source: &str) -> anyhow::Result<(u64, u64)> {
    let worker = page
        .workers
        .iter()
        .find(|worker| worker.name == source)
        .context("no such thread")?;
    let file = |name: &str| {
        std::fs::read_to_string(format!("/proc/{}/task/{}/{name}", daemon.pid(), worker.tid))
    };
    let (status, ran) = (file("status")?, file("schedstat")?);
    let slept = status
        .lines()
        .find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"));
    let slept = slept.context("no count of switches")?.trim().parse()?;
    Ok((slept, ran.split(' ').next().context("empty")?.parse()?))
}

fn open(i: &Instance, limit: Duration) -> Result<Session, ConnectError> {
    Session::builder("axis")
        .socket(i.socket())
        .timeout(limit)
        .connect()
}

fn a_session_opened_in_a_loop_wakes_its_own_lane_only_and_not_for_ever() -> anyhow::Result<()> {
    const LASTS: Duration = Duration::from_secs(2);
    let i = Instance::new()?;
    let daemon = Daemon::start(&config(&i))?;
    // Each thread has looked for the first time.
    Peer::sender(&i.queue("in"))?.stream(0, 1)?;
    let page = i.until("delivered", |s| s.routes[0].ledger.delivered == 1)?;
    let before = [
        cost(&daemon, &page, "in")?,
        cost(&daemon, &page, "panel.out")?,
    ];
    let (start, mut opened, mut refused) = (Instant::now(), 0_u64, None);
    // Until it is refused, which takes longer where opening one takes longer.
    while start.elapsed() < LASTS || (refused.is_none() && start.elapsed() < patience()) {
        match open(&i, Duration::from_millis(20)) {
            Ok(session) => {
                drop(session);
                opened += 1;
            }
            Err(ConnectError::Refused { text, .. }) if text.contains("times a second") => {
                refused = Some(text)
            }
            // Not everything is done in that time on a busy machine.
            Err(_) => {}
        }
    }
    let lasted = start.elapsed();
    let page = i.snapshot()?;
    let after = [
        cost(&daemon, &page, "in")?,
        cost(&daemon, &page, "panel.out")?,
    ];
    let [unrelated, related] =
        [0, 1].map(|at| (after[at].0 - before[at].0, after[at].1 - before[at].1));
    println!(
        "{opened} sessions in {lasted:?}: unrelated lane {unrelated:?}, related lane {related:?}"
    );
    ensure!(
        unrelated.0 == 0,
        "{} wake-ups of a lane that has no part in it",
        unrelated.0
    );
    ensure!(related.0 > 0, "its own lane never looked");
    ensure!(
        unrelated.1 < 20_000_000,
        "{} ns of a lane that has no part in it",
        unrelated.1
    );
    let most = 100 + 20 * (lasted.as_secs() + 1);
    ensure!(
        opened <= most,
        "{opened} sessions in {lasted:?}, at most {most}"
    );
    let refused =
        refused.with_context(|| format!("{opened} sessions in {lasted:?}, and none refused"))?;
    ensure!(
        refused.contains("axis: registered more than 100 times at once or 20 times a second"),
        "{refused}"
    );
    // A program that was restarted too often comes back as soon as there is a place, without asking
    // for it.
    let start = Instant::now();
    drop(open(&i, patience())?);
    ensure!(start.elapsed() < patience() / 10, "{:?}", start.elapsed());
    daemon.stop()?;
    Ok(())
}

/// While one program opens its session as fast as it can, without ever answering, another connects
/// as fast as ever, and the log has room for it.
fn opens_without_end_hold_up_no_other_client_and_do_not_fill_the_log() -> anyhow::Result<()> {
    const CONNECTS: u32 = 40;
    let i = Instance::new()?;
    let daemon = Daemon::start(&config(&i))?;
    let connects = || -> anyhow::Result<Vec<Duration>> {
        let mut took = Vec::new();
        for _ in 0..CONNECTS {
            let start = Instant::now();
            drop(
                Session::builder("panel")
                    .socket(i.socket())
                    .timeout(patience())
                    .connect()?,
            );
            took.push(start.elapsed());
            // A program may connect 20 times a second.
            std::thread::sleep(Duration::from_millis(55));
        }
        took.sort();
        Ok(took)
    };
    let alone = connects()?;
    let (socket, stop) = (i.socket(), AtomicBool::new(false));
    let page = i.snapshot()?;
    let before = (
        cost(&daemon, &page, "in")?,
        daemon.log().lines().count(),
        Instant::now(),
    );
    let (opens, beside) = std::thread::scope(|scope| {
        let flood = scope.spawn(|| flood(&socket, &stop));
        let beside = connects();
        stop.store(true, Ordering::Relaxed);
        (flood.join(), beside)
    });
    let (beside, lasted) = (beside?, before.2.elapsed());
    let opens = opens.map_err(|_| anyhow::anyhow!("the flood panicked"))??;
    let lines = (daemon.log().lines().count() - before.1) as u64;
    let (half, last) = (alone.len() / 2, alone.len() - 1);
    let shown = |took: &[Duration]| format!("p50 {:?}, longest {:?}", took[half], took[last]);
    println!(
        "{opens} opens in {lasted:?}, {lines} lines; connect alone: {}, beside it: {}",
        shown(&alone),
        shown(&beside)
    );
    ensure!(
        u128::from(opens) > 500 * lasted.as_millis() / 1000,
        "only {opens} in {lasted:?}"
    );
    ensure!(
        cost(&daemon, &page, "in")?.0 == before.0.0,
        "a lane that has no part in it was woken"
    );
    let most = (8 + 8 + 1) * (lasted.as_secs() + 2);
    ensure!(lines <= most, "{lines} lines in {lasted:?}");
    let log = daemon.log();
    let of_panel = log
        .lines()
        .skip(before.1)
        .filter(|line| line.contains("panel"))
        .count();
    ensure!(
        of_panel as u64 >= 4 * lasted.as_secs(),
        "{of_panel} lines about the other client:\n{log}"
    );
    ensure!(
        beside[half] < alone[half] * 4 + Duration::from_millis(20),
        "{}",
        shown(&beside)
    );
    daemon.stop()?;
    Ok(())
}

/// Sends Open, reads what comes first, and closes, without end; how often.
fn flood(socket: &str, stop: &AtomicBool) -> anyhow::Result<u64> {
    let name = Name::new("axis")?;
    let open = Request::Open {
        name,
        tid: 0,
        semaphores: false,
        resumes: 0,
        program: 0,
        lane: None,
    }
    .encode();
    let mut opens = 0;
    while !stop.load(Ordering::Relaxed) {
        let conn = Conn::connect(socket.as_ref(), patience())?;
        conn.send(&open)?;
        conn.receive_within(&mut [0; FRAME_BYTES], patience())?;
        opens += 1;
    }
    Ok(opens)
}
