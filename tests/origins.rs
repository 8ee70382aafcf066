//! Whose message it is, when its sender has ended before the receiver reads it.

use crate::util::order;
use crate::util::session::{lane_end, planner_and_arm};
use crate::util::{Daemon, Instance, Peer, eventually, process, route};
use anyhow::{Context as _, ensure};
use rtcore::lane::peer::PeerState;

tests![
    a_message_is_its_senders_after_the_sender_has_ended,
    a_message_of_another_process_is_not_the_planners,
];

/// The session of `arm` has read that the planner is not there any more.
fn knows_of_the_end(arm: &mut Peer) -> anyhow::Result<()> {
    eventually(|| (!arm.tell(order::Session::Lives("planner")).ok()?.is().ok()?).then_some(()))
        .context("the death was never reported")
}

/// The numbers of the messages and whether they are the planner's.
fn read(arm: &mut Peer, count: u64) -> anyhow::Result<Vec<(u64, bool)>> {
    arm.tell(order::Receive::From {
        process: "planner",
        count,
    })?
    .from()
}

/// Sends a message by each path and is killed before the arm reads them.
fn send_and_die(i: &Instance, number: u64) -> anyhow::Result<()> {
    let mut planner = Peer::session(i, "planner")?;
    for endpoint in ["cmd", "fast"] {
        planner.claim(endpoint)?;
        planner.reach(endpoint)?;
        planner.number(endpoint, number)?;
    }
    i.until("the lane delivers", |page| {
        page.routes[0].ledger.delivered == number
    })?;
    planner.kill()?;
    i.until("the planner is dead", |page| {
        page.processes[0].state == PeerState::Dead
    })?;
    Ok(())
}

/// Routed and direct, also when the next process of the name has come by then.
fn a_message_is_its_senders_after_the_sender_has_ended() -> anyhow::Result<()> {
    let i = Instance::new()?;
    let _daemon = Daemon::start(&planner_and_arm(&i, "", "", ""))?;
    let mut arm = Peer::with_inbox(&i, "arm")?;
    send_and_die(&i, 1)?;
    knows_of_the_end(&mut arm)?;
    let mut got = read(&mut arm, 2)?;
    got.sort_unstable();
    ensure!(got == [(1, true), (1, true)], "{got:?}");
    // Two lives, and then a third process has the name.
    for number in [2, 3] {
        send_and_die(&i, number)?;
        knows_of_the_end(&mut arm)?;
    }
    let _third = Peer::session(&i, "planner")?;
    let mut got = read(&mut arm, 4)?;
    got.sort_unstable();
    ensure!(
        got == [(2, true), (2, true), (3, true), (3, true)],
        "{got:?}"
    );
    Ok(())
}

/// A name says nothing about other senders.
fn a_message_of_another_process_is_not_the_planners() -> anyhow::Result<()> {
    let i = Instance::new()?;
    let config = i.head()
        + &process("planner")
        + &process("button")
        + &process("arm")
        + &lane_end("cmd", "planner", "")
        + &lane_end("press", "button", "")
        + &lane_end("arm.cmd", "arm", "")
        + &lane_end("arm.stop", "arm", "")
        + &route("cmd", &["arm.cmd"], "")
        + &route("press", &["arm.stop"], "");
    let _daemon = Daemon::start(&config)?;
    let mut arm = Peer::with_inbox(&i, "arm")?;
    let planner = Peer::session(&i, "planner")?;
    planner.kill()?;
    let mut button = Peer::from_endpoint(&i, "button", "press")?;
    button.reach("press")?;
    button.number("press", 7)?;
    let got = read(&mut arm, 1)?;
    ensure!(got == [(7, false)], "{got:?}");
    Ok(())
}
