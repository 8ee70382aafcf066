//! fork(2) in a process that has a session: the child gets errors, the parent's session goes on.

use crate::util::order;
use crate::util::session::{count, lane_end, runs, unbroken};
use crate::util::{Daemon, Instance, Peer, process, route};
use anyhow::{Context as _, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

tests![
    a_child_gets_an_error_from_every_call_and_its_parent_goes_on,
    a_child_of_a_direct_sender_gets_errors_too,
    a_loan_and_a_message_in_place_are_the_parents,
    a_child_opens_a_session_of_its_own,
];

/// A child of a participant that does nothing; killed when this is dropped.
struct Idle(Pid);

impl Idle {
    fn of(parent: &mut Peer) -> anyhow::Result<Idle> {
        let pid = parent.tell(order::Fork::Idle)?.number()?;
        Ok(Idle(Pid::from_raw(pid.try_into()?)))
    }
}

impl Drop for Idle {
    fn drop(&mut self) {
        let _ = kill(self.0, Signal::SIGKILL);
    }
}

/// An arm that sends to itself through the daemon, and another process' name.
fn config(i: &Instance, route_keys: &str) -> String {
    i.head()
        + &process("arm")
        + &process("helper")
        + &lane_end("out", "arm", "maxmsg = 64\nmsgsize = 64")
        + &lane_end("arm.cmd", "arm", "maxmsg = 64\nmsgsize = 64")
        + &lane_end("help", "helper", "maxmsg = 64\nmsgsize = 64")
        + &route("out", &["arm.cmd"], route_keys)
        + &route("help", &["arm.cmd"], "")
}

fn arm(i: &Instance) -> anyhow::Result<Peer> {
    let mut arm = Peer::from_endpoint(i, "arm", "out")?;
    arm.open_inbox()?;
    arm.reach("out")?;
    Ok(arm)
}

/// What the child of `arm` got from each call.
fn all_fail(said: &[String], pid: u32) -> anyhow::Result<()> {
    let calls = [
        "try_send",
        "send",
        "send_batch",
        "loan",
        "wait_for_receiver",
        "try_recv",
        "recv",
        "recv_deadline",
        "recv_in_place",
        "waiter.wait",
        "waiter.remove",
        "sender",
        "inbox",
        "inbox_of",
        "caller",
        "signals",
        "register",
        "enter",
    ];
    let forked = format!("this process was forked from process {pid}");
    for call in calls {
        let found = said
            .iter()
            .find(|line| line.starts_with(&format!("{call}: ")))
            .context(call)?;
        ensure!(found.contains(&forked), "{found}");
        ensure!(
            found.contains("in this process"),
            "it does not say what to do: {found}"
        );
    }
    ensure!(
        said.contains(&format!("state: Forked {{ creator: {pid} }}")),
        "{said:?}"
    );
    ensure!(
        said.contains(&"is: (false, false, 0, 0)".to_owned()),
        "{said:?}"
    );
    ensure!(
        said.last().is_some_and(|last| last == "dropped"),
        "{said:?}"
    );
    Ok(())
}

/// Numbers that the arm sends to itself arrive, and the ledger knows of no others.
fn goes_on(i: &Instance, arm: &mut Peer, from: u64, before: u64) -> anyhow::Result<()> {
    for number in from..from + 5 {
        arm.number("out", number)?;
    }
    unbroken(&arm.got_until(&format!("number {}", from + 4))?, from, 5)?;
    let page = i.until("all is accounted", |page| {
        page.routes[0].ledger.delivered == before + 5
    })?;
    let ledger = page.routes[0].ledger;
    ensure!(
        ledger.balances() && (ledger.accepted, ledger.queued) == (before + 5, 0),
        "{ledger:?}"
    );
    Ok(())
}

fn a_child_gets_an_error_from_every_call_and_its_parent_goes_on() -> anyhow::Result<()> {
    let i = Instance::new()?;
    let daemon = Daemon::start(&config(&i, ""))?;
    let mut arm = arm(&i)?;
    goes_on(&i, &mut arm, 1, 0)?;
    // Many times, since another thread of the parent holds a lock of the session during some of the
    // forks.
    let said = arm
        .tell(order::Fork::Touch {
            endpoint: "out",
            rounds: 50,
        })?
        .lines()?;
    all_fail(&said, arm.pid())?;
    goes_on(&i, &mut arm, 6, 5)?;
    // A child that lives on has copies of the descriptors: the session closes and opens again in
    // spite of them.
    let _child = Idle::of(&mut arm)?;
    arm.close()?;
    daemon.logged(&format!("arm: pid {} closed its session", arm.pid()))?;
    Ok(())
}

fn a_child_of_a_direct_sender_gets_errors_too() -> anyhow::Result<()> {
    let i = Instance::new()?;
    let config = i.head()
        + &process("arm")
        + &process("planner")
        + &lane_end("out", "planner", "maxmsg = 64\nmsgsize = 64")
        + &lane_end("ack", "arm", "maxmsg = 64\nmsgsize = 64")
        + &lane_end("arm.cmd", "arm", "maxmsg = 64\nmsgsize = 64")
        + &lane_end("planner.ack", "planner", "maxmsg = 64\nmsgsize = 64")
        + &route("out", &["arm.cmd"], "path = \"direct\"")
        + &route("ack", &["planner.ack"], "path = \"direct\"");
    let _daemon = Daemon::start(&config)?;
    let mut arm = Peer::with_inbox(&i, "arm")?;
    let mut planner = Peer::from_endpoint(&i, "planner", "out")?;
    planner.open_inbox()?;
    planner.reach("out")?;
    planner.number("out", 1)?;
    let said = planner
        .tell(order::Fork::Touch {
            endpoint: "out",
            rounds: 5,
        })?
        .lines()?;
    all_fail(&said, planner.pid())?;
    planner.number("out", 2)?;
    let got = arm.got_until("number 2")?;
    ensure!(
        count(&got) == 2 && runs(&got).iter().all(|run| run.missed == 0),
        "{got:?}"
    );
    i.until("all is taken", |page| page.routes[0].ledger.delivered == 2)?;
    Ok(())
}

/// What was begun before the fork: the parent finishes it, the child cannot.
fn a_loan_and_a_message_in_place_are_the_parents() -> anyhow::Result<()> {
    let i = Instance::new()?;
    let _daemon = Daemon::start(&config(&i, ""))?;
    let mut arm = arm(&i)?;
    let said = arm.tell(order::Fork::Loan("out"))?.lines()?;
    ensure!(
        said[..2] == ["dropped", "len: ok 0"] && said[2].contains("was forked from process"),
        "{said:?}"
    );
    let said = arm.tell(order::Fork::InPlace)?.lines()?;
    ensure!(said == ["copied: Some(0)", "number: 7"], "{said:?}");
    goes_on(&i, &mut arm, 8, 1)
}

fn a_child_opens_a_session_of_its_own() -> anyhow::Result<()> {
    let i = Instance::new()?;
    let daemon = Daemon::start(&config(&i, ""))?;
    let mut arm = arm(&i)?;
    let said = arm
        .tell(order::Fork::Connect {
            socket: &i.socket(),
            name: "helper",
            endpoint: "help",
            number: 42,
        })?
        .lines()?;
    ensure!(said == ["Ok(1)"], "{said:?}");
    let got = arm.got_until("number 42")?;
    ensure!(
        runs(&got)
            .iter()
            .all(|run| run.verified && run.pid != arm.pid()),
        "{got:?}"
    );
    // The name of its parent is taken.
    let said = arm
        .tell(order::Fork::Connect {
            socket: &i.socket(),
            name: "arm",
            endpoint: "out",
            number: 43,
        })?
        .lines()?;
    ensure!(said[0].contains(&arm.pid().to_string()), "{said:?}");
    goes_on(&i, &mut arm, 1, 0)?;
    // The parent's death is noticed although a child lives on with its connection.
    let _child = Idle::of(&mut arm)?;
    let pid = arm.pid();
    arm.kill()?;
    daemon.logged(&format!("arm: pid {pid}"))?;
    let mut next = Peer::from_endpoint(&i, "arm", "out")?;
    next.state()?;
    Ok(())
}
