//! What goes wrong around a daemon on Cobalt, on the stand-in for libcobalt: libraries that
//! misbehave, a start too many.

use super::util::cobalt_bench::{Bench, balanced, lacks_stand_in};
use super::util::session::{lane_end, unbroken};
use super::util::{Instance, process, route, skip};
use crate::util::needs::{FOLLOWING, ROOT};
use anyhow::ensure;
use stand_in_cobalt::copies::Kind;

tests![
    a_second_start_leaves_a_running_daemon_its_doorbells needs(ROOT),
    a_mode_that_is_lost_while_queued_messages_move_on_is_counted needs(ROOT),
    two_instances_never_read_one_queue_and_the_first_to_stop_leaves_it needs(ROOT),
    a_lane_that_polls_is_refused_and_one_that_spins_keeps_its_mode needs(ROOT, FOLLOWING),
    a_library_that_writes_what_is_no_text_is_heard_all_the_same,
];

fn a_second_start_leaves_a_running_daemon_its_doorbells() -> anyhow::Result<()> {
    let bench = Bench::new(Kind::Stock)?;
    let config = bench.head()
        + &process("planner")
        + &process("arm")
        + &lane_end("plan", "planner", "")
        + &lane_end("axis", "arm", "")
        + &route("plan", &["axis"], "");
    let daemon = bench.daemon(&config)?;
    let mut planner = bench.sender("planner", "plan")?;
    let there = bench.semaphores();
    ensure!(there.len() == 2, "the lane's and the sender's: {there:?}");
    let second = bench
        .daemon(&config)
        .map(|_| ())
        .map_err(|e| format!("{e:#}"));
    ensure!(
        second
            .as_ref()
            .is_err_and(|e| e.contains(&bench.instance.name)),
        "{second:?}"
    );
    ensure!(
        bench.semaphores() == there,
        "{:?}, not {there:?}",
        bench.semaphores()
    );
    // Who comes now finds the lane's.
    let mut arm = bench.inbox("arm")?;
    planner.reach("plan")?;
    arm.ask_until("number 3")?;
    planner.number("plan", 3)?;
    unbroken(&arm.answered_until("number 3")?, 3, 1)?;
    daemon.stop()?;
    ensure!(bench.semaphores().is_empty(), "{:?}", bench.semaphores());
    Ok(())
}

fn a_mode_that_is_lost_while_queued_messages_move_on_is_counted() -> anyhow::Result<()> {
    if let Some(lack) = lacks_stand_in("RTD_STAND_IN_RELAX_EVERY") {
        return skip(&lack);
    }
    let bench = Bench::new(Kind::Stock)?;
    let at = &bench.instance;
    let config = bench.head()
        + &at.mqueue("in", "")
        + &at.mqueue("out", "")
        + &route("in", &["out"], "capacity = 64");
    // Each call leaves the thread relaxed: also those by which what is queued is tried again.
    let daemon = bench.daemon_with(&config, |command| {
        command.env("RTD_STAND_IN_RELAX_EVERY", "1");
    })?;
    let mut sender = bench.sends_to("in")?;
    sender.stream(0, 40)?;
    let full = at.until("thirty wait", |s| s.routes[0].ledger.queued == 30)?;
    balanced(&full)?;
    // No message is taken any more.
    ensure!(full.workers[0].counters.received == 40);
    let read = at.until("counted", |s| {
        s.lanes[0].counters.mode_switches > full.lanes[0].counters.mode_switches
    })?;
    ensure!(read.workers[0].counters.received == 40);
    daemon.stop()?;
    Ok(())
}

fn a_library_that_writes_what_is_no_text_is_heard_all_the_same() -> anyhow::Result<()> {
    if let Some(lack) = lacks_stand_in("RTD_STAND_IN_INIT_NOISE") {
        return skip(&lack);
    }
    let bench = Bench::new(Kind::Stock)?;
    let at = &bench.instance;
    let config =
        bench.head() + &at.mqueue("in", "") + &at.mqueue("out", "") + &route("in", &["out"], "");
    let noise = ("RTD_STAND_IN_INIT_NOISE", "1");
    let works = bench.check(&config, &[], &[noise])?;
    let (out, said) = (
        String::from_utf8(works.stdout)?,
        String::from_utf8(works.stderr)?,
    );
    ensure!(
        works.status.success() && out.contains("skin cobalt: "),
        "{out}{said}"
    );
    for (init, reason) in [
        ("exit", "binding failed: Operation not permitted"),
        ("eperm", "without"),
    ] {
        let refused = bench.check(&config, &[], &[noise, ("RTD_STAND_IN_INIT", init)])?;
        let said = String::from_utf8(refused.stderr)?;
        ensure!(
            refused.status.code() == Some(1) && said.contains(reason),
            "{init}: {said}"
        );
        let controls = said
            .chars()
            .filter(|c| c.is_control() && *c != '\n')
            .count();
        ensure!(
            controls == 0 && said.len() < 4_000,
            "{init}: {} bytes, {controls} controls",
            said.len()
        );
    }
    Ok(())
}

fn two_instances_never_read_one_queue_and_the_first_to_stop_leaves_it() -> anyhow::Result<()> {
    let bench = Bench::new(Kind::Stock)?;
    let (at, other) = (&bench.instance, Instance::new()?);
    let head = bench
        .head()
        .replacen("[daemon]\n", "[daemon]\nkeep_queues = false\n", 1);
    let config =
        head.clone() + &at.mqueue("in", "") + &at.mqueue("out", "") + &route("in", &["out"], "");
    let first = bench.daemon(&config)?;
    let head = head
        .replace(&at.socket(), &other.socket())
        .replace(&at.name, &other.name);
    let shares = head + &other.mqueue("own", "") + &at.mqueue("in", "");
    let reads = bench.daemon(&(shares.clone() + &route("in", &["own"], "")));
    let said = reads.map(|_| ()).map_err(|e| format!("{e:#}"));
    let names = format!("is read by rtd instance `{}`", at.name);
    ensure!(said.as_ref().is_err_and(|e| e.contains(&names)), "{said:?}");
    let log = bench
        .daemon(&(shares + &route("own", &["in"], "")))?
        .stop()?;
    ensure!(
        log.contains(&format!("{} stays: rtd instance", at.queue("in"))),
        "{log}"
    );
    // Who opens it now reaches the first one's lane.
    let (mut sender, mut receiver) = (bench.sends_to("in")?, bench.receives_from("out")?);
    sender.stream(0, 3)?;
    ensure!(receiver.numbers_for(3, 5000)? == [0, 1, 2]);
    first.stop()?;
    ensure!(
        bench.receives_from("in").is_err(),
        "the last one removes it"
    );
    Ok(())
}

/// A lane that polls froze the whole machine on a real core; one that spins for a while sleeps
/// between messages.
fn a_lane_that_polls_is_refused_and_one_that_spins_keeps_its_mode() -> anyhow::Result<()> {
    let bench = Bench::new(Kind::Stock)?;
    let config = |wait: &str| {
        bench
            .head()
            .replacen("name = \"lane\"", &format!("name = \"lane\"\n{wait}"), 1)
            + &process("planner")
            + &process("arm")
            + &lane_end("plan", "planner", "")
            + &lane_end("axis", "arm", "")
            + &route("plan", &["axis"], "")
    };
    let polls = bench.daemon(&config("wait = \"poll\"\nunisolated = true"));
    let said = polls.map(|_| ()).map_err(|e| format!("{e:#}"));
    ensure!(
        said.as_ref()
            .is_err_and(|e| e.contains("freezes the whole machine")),
        "{said:?}"
    );
    let daemon = bench.followed(&config("wait = \"spin:50\""))?;
    let (mut planner, mut arm) = (bench.sender("planner", "plan")?, bench.inbox("arm")?);
    planner.reach("plan")?;
    arm.ask_until("number 9")?;
    for n in 1..=9 {
        planner.number("plan", n)?;
    }
    unbroken(&arm.answered_until("number 9")?, 1, 9)?;
    let read = bench
        .instance
        .until("all delivered", |s| s.routes[0].ledger.delivered == 9)?;
    ensure!(
        read.lanes[0].counters.mode_switches == 0,
        "{:#?}",
        read.workers
    );
    // Not a stop, whose wake-up is a Linux signal: one that comes between two calls the stand-in
    // cannot follow.
    daemon.kill()?;
    Ok(())
}
