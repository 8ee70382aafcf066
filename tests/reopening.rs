//! A client that opens its session again and again takes no time of lanes that it has no part in, and not without end
//! of those it has.

use crate::util::session::lane_end;
use crate::util::{Daemon, Instance, Peer, patience, process, route};
use anyhow::{Context as _, ensure};
use rtcore::client::{ConnectError, Session};
use rtcore::stats::reader::Snapshot;
use std::time::{Duration, Instant};

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
    let worker = page.workers.iter().find(|worker| worker.name == source).context("no such thread")?;
    let file =
        |name: &str| std::fs::read_to_string(format!("/proc/{}/task/{}/{name}", daemon.pid(), worker.tid));
    let (status, ran) = (file("status")?, file("schedstat")?);
    let slept = status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"));
    let slept = slept.context("no count of switches")?.trim().parse()?;
    Ok((slept, ran.split(' ').next().context("empty")?.parse()?))
}

fn open(i: &Instance, limit: Duration) -> Result<Session, ConnectError> {
    Session::builder("axis").socket(i.socket()).timeout(limit).connect()
}

pub fn a_session_opened_in_a_loop_wakes_its_own_lane_only_and_not_for_ever() -> anyhow::Result<()> {
    const LASTS: Duration = Duration::from_secs(2);
    let i = Instance::new()?;
    let daemon = Daemon::start(&config(&i))?;
    // Each thread has looked for the first time.
    Peer::sender(&i.queue("in"))?.stream(0, 1)?;
    let page = i.until("delivered", |s| s.routes[0].ledger.delivered == 1)?;
    let before = [cost(&daemon, &page, "in")?, cost(&daemon, &page, "panel.out")?];
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
    let after = [cost(&daemon, &page, "in")?, cost(&daemon, &page, "panel.out")?];
    let [unrelated, related] = [0, 1].map(|at| (after[at].0 - before[at].0, after[at].1 - before[at].1));
    println!("{opened} sessions in {lasted:?}: unrelated lane {unrelated:?}, related lane {related:?}");
    ensure!(unrelated.0 == 0, "{} wake-ups of a lane that has no part in it", unrelated.0);
    ensure!(related.0 > 0, "its own lane never looked");
    ensure!(unrelated.1 < 20_000_000, "{} ns of a lane that has no part in it", unrelated.1);
    let most = 100 + 20 * (lasted.as_secs() + 1);
    ensure!(opened <= most, "{opened} sessions in {lasted:?}, at most {most}");
    let refused = refused.with_context(|| format!("{opened} sessions in {lasted:?}, and none refused"))?;
    ensure!(
        refused.contains("axis: registered more than 100 times at once or 20 times a second"),
        "{refused}"
    );
    // A program that was restarted too often comes back as soon as there is a place, without asking for it.
    let start = Instant::now();
    drop(open(&i, patience())?);
    ensure!(start.elapsed() < patience() / 10, "{:?}", start.elapsed());
    daemon.stop()?;
    Ok(())
}
