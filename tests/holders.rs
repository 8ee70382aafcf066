//! A channel has one holder in its session. Who claims it meanwhile is refused and told who has it,
//! or gets it when it is free.

use crate::util::order;
use crate::util::session::inbox_of;
use crate::util::session::{lane_end, planner_and_arm, unbroken};
use crate::util::{Daemon, Instance, Peer, process, route, rt, signal};
use anyhow::ensure;

tests![
    an_inbox_gets_what_another_lets_go_of,
    an_inbox_that_waits_without_a_channel_is_woken_by_one,
    a_claim_by_name_of_what_is_held_names_the_holder,
    of_two_threads_that_claim_an_endpoint_one_has_it,
    a_dispatcher_that_its_own_handler_replaces_goes_on,
];

/// `planner` sends to `arm`, which sends from `pos`.
fn pair(instance: &Instance) -> anyhow::Result<(Daemon, Peer, Peer)> {
    let config = planner_and_arm(instance, "", "", "")
        + &lane_end("pos", "arm", "")
        + &lane_end("planner.pos", "planner", "")
        + &route("pos", &["planner.pos"], "");
    let daemon = Daemon::start(&config)?;
    let arm = Peer::session(instance, "arm")?;
    let mut planner = Peer::from_endpoint(instance, "planner", "cmd")?;
    planner.claim("fast")?;
    Ok((daemon, planner, arm))
}

/// The second inbox is opened while the first still has everything, and is there when that is
/// dropped: it goes on where the first was, with what the first had not received.
fn an_inbox_gets_what_another_lets_go_of() -> anyhow::Result<()> {
    let instance = Instance::new()?;
    let (_daemon, mut planner, mut arm) = pair(&instance)?;
    for endpoint in ["cmd", "fast"] {
        arm.open_inbox()?;
        planner.reach(endpoint)?;
        for number in 1..=3 {
            planner.number(endpoint, number)?;
        }
        unbroken(&arm.got_until("number 1")?, 1, 1)?;
        // Opened before the one that it replaces is dropped.
        arm.open_inbox()?;
        unbroken(&arm.got_until("number 3")?, 2, 2)?;
        // By name, after a while without a holder.
        arm.drop_inbox()?;
        planner.number(endpoint, 4)?;
        arm.open_inbox_of(&[&format!("arm.{endpoint}")])?;
        planner.number(endpoint, 5)?;
        unbroken(&arm.got_until("number 5")?, 4, 2)?;
        let counters = arm.counters()?;
        ensure!(
            (counters.received, counters.duplicates) == (2, 0),
            "{counters:?}"
        );
        arm.drop_inbox()?;
    }
    Ok(())
}

/// One that sleeps for ever without a channel is woken by the one that it gets.
fn an_inbox_that_waits_without_a_channel_is_woken_by_one() -> anyhow::Result<()> {
    let instance = Instance::new()?;
    let (_daemon, mut planner, mut arm) = pair(&instance)?;
    planner.reach("cmd")?;
    planner.number("cmd", 7)?;
    let came = arm.tell(order::Receive::WaitsForAnother)?;
    ensure!(came.number()? == 7);
    Ok(())
}

fn a_claim_by_name_of_what_is_held_names_the_holder() -> anyhow::Result<()> {
    let instance = Instance::new()?;
    let (_daemon, _planner, mut arm) = pair(&instance)?;
    let tid = arm.tid()?;
    arm.open_inbox()?;
    let of = format!("of thread {tid} in this session");
    let rest = "`arm.cmd` is held by an inbox for all endpoints that no other inbox names";
    arm.refused(
        inbox_of(&["arm.cmd"]),
        &[rest, &of, "drop that first, or share it"],
    )?;
    arm.drop_inbox()?;
    arm.open_inbox_of(&["arm.cmd"])?;
    arm.refused(
        inbox_of(&["arm.fast", "arm.cmd"]),
        &["`arm.cmd` is held by an inbox", &of],
    )?;
    // The refused claim has kept nothing of what it could have had.
    arm.open_inbox_of(&["arm.fast"])?;
    arm.claim("pos")?;
    arm.refused(
        order::Send::Claim("pos"),
        &["`pos` is held by a sender", &of],
    )?;
    Ok(())
}

fn of_two_threads_that_claim_an_endpoint_one_has_it() -> anyhow::Result<()> {
    let instance = Instance::new()?;
    let (_daemon, _planner, mut arm) = pair(&instance)?;
    let wrong = arm.tell(order::Session::Race {
        endpoint: "arm.cmd",
        rounds: 3000,
    })?;
    let wrong = wrong.number()?;
    ensure!(wrong == 0, "{wrong} of 3000 rounds");
    Ok(())
}

/// The rings of the old dispatcher are its own until the handler has returned.
fn a_dispatcher_that_its_own_handler_replaces_goes_on() -> anyhow::Result<()> {
    let instance = Instance::new()?;
    let config = instance.head()
        + &process("controller")
        + &lane_end("out", "controller", "msgsize = 64")
        + &process("drive")
        + &signal(
            "drive.go",
            "drive",
            "SIGRTMIN+3",
            "msgsize = 64\nmaxmsg = 64",
        )
        + &route("out", &["drive.go"], "");
    let _daemon = Daemon::start(&config)?;
    let mut drive = Peer::start()?;
    drive.block_for_handlers(rt(3))?;
    drive.connect(&instance, "drive")?;
    drive.tell(order::Handlers::ReplaceInHandler(rt(3)))?;
    let mut controller = Peer::start()?;
    controller.connect(&instance, "controller")?;
    controller.claim("out")?;
    controller.press("out", 1, 10, 8)?;
    drive.counts_up(1, 10)?;
    controller.press("out", 11, 10, 8)?;
    drive.counts_up(1, 20)?;
    Ok(())
}
