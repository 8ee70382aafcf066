//! Who talks to a process that goes is told at once, with the cause; when it is back, traffic goes
//! on by itself.

use crate::util::book::End::{Delivered, PeerDead};
use crate::util::order;
use crate::util::session::send_number;
use crate::util::session::{Got, events, lane_end, unbroken};
use crate::util::{Daemon, Instance, Peer, process, route};
use anyhow::{Context as _, ensure};
use nix::sys::signal::Signal;

tests![
    a_routed_receiver_is_reported_lost_with_its_cause_and_back,
    a_direct_receiver_is_reported_lost_with_its_cause_and_back,
    a_sender_is_reported_lost_and_its_successor_received,
    a_process_that_becomes_another_program_lets_go_of_its_direct_rings,
    without_a_daemon_the_death_of_a_direct_partner_is_reported,
    unread_messages_of_a_dead_direct_receiver_are_reported_to_its_sender,
];

/// A planner that sends to an arm by one route.
fn config(i: &Instance, path: &str) -> String {
    i.head()
        + &process("planner")
        + &process("arm")
        + &lane_end("cmd", "planner", "")
        + &lane_end("arm.cmd", "arm", "")
        + &route("cmd", &["arm.cmd"], &format!("path = \"{path}\""))
}

fn planner(i: &Instance) -> anyhow::Result<Peer> {
    let mut planner = Peer::from_endpoint(i, "planner", "cmd")?;
    planner.open_inbox()?;
    Ok(planner)
}

/// The one event there is.
fn only(got: &[Got], event: &str) -> anyhow::Result<()> {
    ensure!(
        got.len() == 1 && events(got) == [event],
        "not {event}: {got:?}"
    );
    Ok(())
}

fn goes_and_comes_back(path: &str) -> anyhow::Result<()> {
    let i = Instance::new()?;
    let _daemon = Daemon::start(&config(&i, path))?;
    let mut planner = planner(&i)?;
    let mut number = 0;
    let mut arm = Peer::with_inbox(&i, "arm")?;
    for (end, cause) in [
        (None, "Signal(9)"),
        (Some(order::Process::Exit(3).into()), "Exit(3)"),
        (Some(order::Order::from(order::Session::Close)), "unknown"),
    ] {
        only(&planner.got(1)?, &format!("back arm {}", arm.pid()))?;
        // The sender does nothing but send.
        planner.reach("cmd")?;
        number += 1;
        planner.number("cmd", number)?;
        unbroken(&arm.got_until(&format!("number {number}"))?, number, 1)?;
        match end {
            None => arm.signal(Signal::SIGKILL)?,
            Some(order) => arm.ask(order)?,
        }
        only(&planner.got(1)?, &format!("lost arm {} {cause}", arm.pid()))?;
        arm = Peer::with_inbox(&i, "arm")?;
    }
    Ok(())
}

fn a_routed_receiver_is_reported_lost_with_its_cause_and_back() -> anyhow::Result<()> {
    goes_and_comes_back("routed")
}

fn a_direct_receiver_is_reported_lost_with_its_cause_and_back() -> anyhow::Result<()> {
    goes_and_comes_back("direct")
}

/// The receiver's side: its senders come and go, and it takes what each of them sends.
fn a_sender_is_reported_lost_and_its_successor_received() -> anyhow::Result<()> {
    for path in ["routed", "direct"] {
        let i = Instance::new()?;
        let _daemon = Daemon::start(&config(&i, path))?;
        let mut arm = Peer::with_inbox(&i, "arm")?;
        for number in 1..=3 {
            let mut planner = planner(&i)?;
            only(&arm.got(1)?, &format!("back planner {}", planner.pid()))?;
            planner.reach("cmd")?;
            planner.number("cmd", number)?;
            let got = arm.got(1)?;
            unbroken(&got, number, 1).context(path)?;
            ensure!(
                matches!(&got[0], Got::Run(run) if run.verified && run.pid == planner.pid()),
                "{got:?}"
            );
            planner.signal(Signal::SIGKILL)?;
            only(
                &arm.got(1)?,
                &format!("lost planner {} Signal(9)", planner.pid()),
            )?;
        }
    }
    Ok(())
}

/// exec(2) ends a session and its rings without a word to anybody, and the process lives on under
/// the same pid.
fn a_process_that_becomes_another_program_lets_go_of_its_direct_rings() -> anyhow::Result<()> {
    let i = Instance::new()?;
    let _daemon = Daemon::start(&config(&i, "direct"))?;
    let mut arm = Peer::with_inbox(&i, "arm")?;
    let mut planner = planner(&i)?;
    planner.reach("cmd")?;
    planner.number("cmd", 1)?;
    arm.got_until("number 1")?;
    planner.tell(order::Process::Exec)?;
    planner.connect(&i, "planner")?;
    planner.claim("cmd")?;
    planner.open_inbox()?;
    planner.reach("cmd")?;
    planner.number("cmd", 2)?;
    arm.got_until("number 2")?;
    // Nobody reads the third any more.
    planner.number("cmd", 3)?;
    arm.tell(order::Process::Exec)?;
    arm.connect(&i, "arm")?;
    arm.open_inbox()?;
    planner.got_until("event messages cmd 1")?;
    planner.number("cmd", 4)?;
    unbroken(&arm.got_until("number 4")?, 4, 1)?;
    i.ledger_is("cmd->arm.cmd", 4, &[(Delivered, 3), (PeerDead, 1)])?;
    Ok(())
}

/// The kernel tells a direct partner's death when no daemon can; and what happened meanwhile is put
/// right by the next daemon.
fn without_a_daemon_the_death_of_a_direct_partner_is_reported() -> anyhow::Result<()> {
    let i = Instance::new()?;
    let text = config(&i, "direct");
    let daemon = Daemon::start(&text)?;
    let mut planner = planner(&i)?;
    let mut arm = Peer::with_inbox(&i, "arm")?;
    only(&planner.got(1)?, &format!("back arm {}", arm.pid()))?;
    planner.reach("cmd")?;
    daemon.kill()?;
    only(&planner.got(1)?, "down")?;
    planner.number("cmd", 1)?;
    unbroken(&arm.got_until("number 1")?, 1, 1)?;
    arm.signal(Signal::SIGKILL)?;
    only(
        &planner.got(1)?,
        &format!("lost arm {} Signal(9)", arm.pid()),
    )?;
    let says = [
        "PeerDead",
        "Signal(9)",
        "process `arm` ended (killed by SIGKILL); start it again",
    ];
    planner.refused(send_number("cmd", 2), &says)?;
    let _daemon = Daemon::start(&text)?;
    only(&planner.got(1)?, "up")?;
    let mut arm = Peer::with_inbox(&i, "arm")?;
    only(&planner.got(1)?, &format!("back arm {}", arm.pid()))?;
    planner.reach("cmd")?;
    planner.number("cmd", 3)?;
    unbroken(&arm.got_until("number 3")?, 3, 1)?;
    Ok(())
}

/// Messages in the ring of a direct receiver that dies are told as lost, to the number.
fn unread_messages_of_a_dead_direct_receiver_are_reported_to_its_sender() -> anyhow::Result<()> {
    let i = Instance::new()?;
    let _daemon = Daemon::start(&config(&i, "direct"))?;
    let mut planner = planner(&i)?;
    let mut arm = Peer::with_inbox(&i, "arm")?;
    only(&planner.got(1)?, &format!("back arm {}", arm.pid()))?;
    planner.reach("cmd")?;
    for number in 1..=5 {
        planner.number("cmd", number)?;
    }
    arm.got_until("number 2")?;
    arm.signal(Signal::SIGKILL)?;
    let mut got = planner.got(2)?;
    got.sort_by_key(|got| matches!(got, Got::Other(text) if text.starts_with("event messages")));
    let lost = format!("lost arm {} Signal(9)", arm.pid());
    ensure!(events(&got) == [lost.as_str(), "messages cmd 3"], "{got:?}");
    use crate::util::book::End::{Delivered, PeerDead};
    i.ledger_is("cmd->arm.cmd", 5, &[(Delivered, 2), (PeerDead, 3)])?;
    Ok(())
}
