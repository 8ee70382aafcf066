//! After a restart routes wait for the receivers that were there before, for a stated time and for
//! every kind of source.

use crate::restart::nothing_lost;
use crate::util::needs::ROOT;
use crate::util::order;
use crate::util::session::send_number;
use crate::util::session::{events, lane_end, unbroken};
use crate::util::tool::{RTD, run};
use crate::util::trace::Traced;
use crate::util::{
    Daemon, Instance, Peer, held, lane, patience, patience_ns, privileged, process, route, signal,
};
use anyhow::ensure;
use rtcore::lane::peer::PeerState;
use rtcore::stats::reader::Reader;
use rtcore::stats::snapshot::Snapshot;
use rtcore::sys::clock::monotonic_ns;
use std::process::{Command, Stdio};
use std::time::Instant;

tests![
    each_receiver_of_a_fan_out_gets_every_message_over_five_kills,
    what_waits_in_a_queue_is_delivered_when_the_receiver_is_back,
    signals_to_rtd_wait_for_the_receiver_as_well,
    a_receiver_that_stays_away_is_named_and_its_messages_are_accounted,
    a_receiver_that_dies_before_it_is_back_is_not_waited_for,
    a_stop_does_not_wait_for_a_receiver_to_come_back,
    a_thread_is_judged_by_the_lane_that_it_entered_for needs(ROOT),
    what_a_killed_rtd_had_queued_is_accounted_by_the_next_one,
    a_start_that_was_killed_passes_on_what_the_life_before_it_lost,
    a_thread_that_declares_no_lane_is_below_the_highest_of_its_process needs(ROOT),
];

/// A queue of ten messages, and `leg`, whose ring they go to; rtd itself queues four.
fn queue_to_lane(i: &Instance, rejoin: &str) -> String {
    i.head().replacen(
        "[daemon]\n",
        &format!("[daemon]\nrejoin = \"{rejoin}\"\n"),
        1,
    ) + &process("leg")
        + &i.mqueue("in", "")
        + &lane_end("leg.cmd", "leg", "")
        + &route("in", &["leg.cmd"], "capacity = 4")
}

/// Ten messages in the queue, `leg` frozen since the last rtd, and a new rtd that waits for it.
fn waiting(i: &Instance, text: &str) -> anyhow::Result<(Daemon, Peer)> {
    let daemon = Daemon::start(text)?;
    let leg = Peer::with_inbox(i, "leg")?;
    leg.freeze()?;
    daemon.kill()?;
    let mut sender = Peer::start()?;
    sender.open_to_send(&i.queue("in"))?;
    sender.stream(1, 10)?;
    let daemon = Daemon::start(text)?;
    daemon.logged(&format!(
        "leg: pid {} had a session: routes wait up to",
        leg.pid()
    ))?;
    Ok((daemon, leg))
}

/// What the route's queue holds is all that the lane took; the rest is in the message queue, and
/// nothing was lost.
fn holds(i: &Instance) -> anyhow::Result<()> {
    let page = i.until("four messages wait for leg", |page| {
        page.routes[0].ledger.queued == 4
    })?;
    let ledger = page.routes[0].ledger;
    ensure!(
        (ledger.accepted, ledger.rejected_total(), ledger.peer_dead) == (4, 0, 0),
        "{ledger:?}"
    );
    ensure!(held(&i.queue("in"))? == 6);
    Ok(())
}

/// Each time the second receiver comes back later than the first; both get every message that was
/// answered Ok, and the first one gets them at once.
fn each_receiver_of_a_fan_out_gets_every_message_over_five_kills() -> anyhow::Result<()> {
    const ROUNDS: u64 = 5;
    let i = Instance::new()?;
    let large = "maxmsg = 8192\nmsgsize = 64";
    let text = i.head()
        + &process("planner")
        + &process("arm")
        + &process("leg")
        + &lane_end("cmd", "planner", large)
        + &lane_end("arm.cmd", "arm", large)
        + &lane_end("leg.cmd", "leg", large)
        + &route("cmd", &["arm.cmd", "leg.cmd"], "rejoin = \"60s\"");
    let mut daemon = Daemon::start(&text)?;
    let mut arm = Peer::with_inbox(&i, "arm")?;
    let mut leg = Peer::with_inbox(&i, "leg")?;
    let mut planner = Peer::from_endpoint(&i, "planner", "cmd")?;
    arm.ask_until(&format!("number {}", u64::MAX))?;
    leg.ask_until(&format!("number {}", u64::MAX))?;
    planner.flood("cmd", 200)?;
    for _ in 0..ROUNDS {
        i.until("traffic", |page| {
            page.routes[0].ledger.delivered > 200 && page.routes[0].ledger.queued == 0
        })?;
        leg.freeze()?;
        daemon.kill()?;
        daemon = Daemon::start(&text)?;
        // The first receiver does not wait for the second.
        i.until("one receives and the other's copies wait", |page| {
            let ledger = page.routes[0].ledger;
            ledger.delivered >= 50 && ledger.queued >= 50
        })?;
        leg.thaw()?;
    }
    i.until("traffic", |page| {
        page.routes[0].ledger.delivered > 200 && page.routes[0].ledger.queued == 0
    })?;
    let tried = planner.flooded()?;
    planner.number("cmd", u64::MAX)?;
    for receiver in [&mut arm, &mut leg] {
        let got = receiver.answered_until(&format!("number {}", u64::MAX))?;
        nothing_lost(&tried, &got, ROUNDS)?;
    }
    let ledger = i.snapshot()?.routes[0].ledger;
    ensure!(
        (ledger.rejected_total(), ledger.displaced, ledger.peer_dead) == (0, 0, 0),
        "{ledger:?}"
    );
    Ok(())
}

/// What waited in a message queue is not read past the route's capacity until its receiver is back,
/// and then arrives.
fn what_waits_in_a_queue_is_delivered_when_the_receiver_is_back() -> anyhow::Result<()> {
    let i = Instance::new()?;
    let (_daemon, mut leg) = waiting(&i, &queue_to_lane(&i, "60s"))?;
    holds(&i)?;
    leg.thaw()?;
    unbroken(&leg.got_until("number 10")?, 1, 10)?;
    let ledger = i
        .until("all is delivered", |page| {
            page.routes[0].ledger.delivered == 10
        })?
        .routes[0]
        .ledger;
    ensure!(ledger.accepted == 10, "{ledger:?}");
    Ok(())
}

/// The same for signals to rtd, which stay pending.
fn signals_to_rtd_wait_for_the_receiver_as_well() -> anyhow::Result<()> {
    let i = Instance::new()?;
    let text = i.head()
        + &process("leg")
        + &signal("in", "", "SIGRTMIN+1", "")
        + &lane_end("leg.cmd", "leg", "")
        + &route(
            "in",
            &["leg.cmd"],
            "capacity = 4\nrejoin = \"60s\"\naccept_claimed = true",
        );
    let daemon = Daemon::start(&text)?;
    let mut leg = Peer::with_inbox(&i, "leg")?;
    leg.freeze()?;
    daemon.kill()?;
    let daemon = Daemon::start(&text)?;
    let mut sender = Peer::start()?;
    for value in 1..=10 {
        sender.ring(daemon.pid(), crate::util::rt(1), value)?;
    }
    let page = i.until("four signals wait for leg", |page| {
        page.routes[0].ledger.queued == 4
    })?;
    let ledger = page.routes[0].ledger;
    ensure!(
        (ledger.accepted, ledger.rejected_total(), ledger.peer_dead) == (4, 0, 0),
        "{ledger:?}"
    );
    leg.thaw()?;
    unbroken(&leg.got_until("number 10")?, 1, 10)
}

/// One that does not come back in time is named, and from then on its messages are accounted as
/// peer-dead.
fn a_receiver_that_stays_away_is_named_and_its_messages_are_accounted() -> anyhow::Result<()> {
    let i = Instance::new()?;
    let (daemon, mut leg) = waiting(&i, &queue_to_lane(&i, "300ms"))?;
    i.until("all of them are peer-dead", |page| {
        page.routes[0].ledger.peer_dead == 10
    })?;
    daemon.logged(&format!(
        "leg: pid {} had a session before rtd was restarted and opened none within",
        leg.pid()
    ))?;
    daemon.logged("raise rejoin =")?;
    ensure!(held(&i.queue("in"))? == 0);
    // It may come later all the same.
    leg.thaw()?;
    i.until("leg is back", |page| {
        page.processes[0].state == PeerState::Alive
    })?;
    let mut sender = Peer::start()?;
    sender.open_to_send(&i.queue("in"))?;
    sender.stream(11, 1)?;
    leg.got_until("number 11")?;
    // Without a wait they are accounted at once, as those of a receiver that was never there.
    let i = Instance::new()?;
    let (_daemon, _leg) = (|| {
        let text = queue_to_lane(&i, "0s");
        let daemon = Daemon::start(&text)?;
        let leg = Peer::with_inbox(&i, "leg")?;
        leg.freeze()?;
        daemon.kill()?;
        let mut sender = Peer::start()?;
        sender.open_to_send(&i.queue("in"))?;
        sender.stream(1, 10)?;
        anyhow::Ok((Daemon::start(&text)?, leg))
    })()?;
    i.until("all of them are peer-dead", |page| {
        page.routes[0].ledger.peer_dead == 10
    })?;
    Ok(())
}

/// One that dies in the meantime is dead at once.
fn a_receiver_that_dies_before_it_is_back_is_not_waited_for() -> anyhow::Result<()> {
    let i = Instance::new()?;
    let (daemon, leg) = waiting(&i, &queue_to_lane(&i, "60s"))?;
    holds(&i)?;
    let pid = leg.pid();
    leg.kill()?;
    i.until("all of them are peer-dead", |page| {
        page.routes[0].ledger.peer_dead == 10
    })?;
    daemon.logged(&format!("leg: pid {pid} died"))?;
    Ok(())
}

/// A stop does not wait for it: what the lane holds is accounted, what it did not read stays in the
/// queue.
fn a_stop_does_not_wait_for_a_receiver_to_come_back() -> anyhow::Result<()> {
    let i = Instance::new()?;
    let (daemon, _leg) = waiting(&i, &queue_to_lane(&i, "60s"))?;
    holds(&i)?;
    let began = Instant::now();
    let log = daemon.stop()?;
    ensure!(began.elapsed() < patience(), "took {:?}", began.elapsed());
    ensure!(
        log.contains("accepted 4 = delivered 0") && log.contains("rejected 4 "),
        "{log}"
    );
    ensure!(held(&i.queue("in"))? == 6);
    Ok(())
}

/// Two lanes that `drive` takes part in, and the partner at the other end of both.
fn two_lanes(i: &Instance, control: u8) -> String {
    i.head()
        + &lane("control", control, "")
        + &lane("talk", 20, "")
        + &process("drive")
        + &process("panel")
        + &lane_end("panel.cmd", "panel", "")
        + &lane_end("drive.cmd", "drive", "")
        + &lane_end("drive.say", "drive", "")
        + &lane_end("panel.ear", "panel", "")
        + &route("panel.cmd", &["drive.cmd"], "lane = \"control\"")
        + &route("drive.say", &["panel.ear"], "lane = \"talk\"")
}

/// A thread that entered for a lane may register again while it is real-time; when it may not, the
/// program learns why.
fn a_thread_is_judged_by_the_lane_that_it_entered_for() -> anyhow::Result<()> {
    let i = Instance::new()?;
    let mut daemon = Daemon::start(&two_lanes(&i, 70))?;
    let mut panel = Peer::from_endpoint(&i, "panel", "panel.cmd")?;
    let mut drive = Peer::with_inbox(&i, "drive")?;
    drive.claim("drive.say")?;
    ensure!(drive.promote("control")? == 69);
    for number in 1..=3 {
        daemon.kill()?;
        daemon = Daemon::start(&two_lanes(&i, 70))?;
        drive.got_until("event up")?;
        panel.reach("panel.cmd")?;
        panel.number("panel.cmd", number)?;
        drive.got_until(&format!("number {number}"))?;
    }
    ensure!(!daemon.log().contains("must not send"), "{}", daemon.log());
    // The lane is lower now: refused, and told.
    daemon.kill()?;
    let _daemon = Daemon::start(&two_lanes(&i, 60))?;
    let says = [
        "has real-time priority 69, not below lane \"control\" with 60",
        "chrt -f -p 59",
    ];
    let got = drive.got_until("event refused")?;
    let told = events(&got).last().copied().unwrap_or_default().to_owned();
    ensure!(says.iter().all(|says| told.contains(says)), "{told}");
    let refused = drive.refused(
        send_number("drive.say", 1),
        &["Disconnected", "rtd refuses the session: thread"],
    )?;
    ensure!(
        says.iter().all(|says| refused.contains(says)) && !refused.contains("rtd is away"),
        "{refused}"
    );
    let unknown = drive.refused(
        order::Send::Claim("other"),
        &["no connection to rtd", "rtd refuses"],
    )?;
    ensure!(!unknown.contains("rtd is away"), "{unknown}");
    Ok(())
}

/// Of a thread that got its priority elsewhere, rtd knows only the lanes of its process.
fn a_thread_that_declares_no_lane_is_below_the_highest_of_its_process() -> anyhow::Result<()> {
    let i = Instance::new()?;
    let daemon = Daemon::start(&two_lanes(&i, 70))?;
    let mut drive = Peer::start()?;
    drive.tell(order::Process::Fifo(70))?;
    let says = [
        "priority 70, not below lane \"control\" with 70",
        "chrt -f -p 69",
    ];
    drive.refused(
        order::Session::Connect {
            socket: &i.socket(),
            name: "drive",
        },
        &says,
    )?;
    drive.tell(order::Process::Fifo(69))?;
    drive.connect(&i, "drive")?;
    daemon.logged("has real-time priority 69: it must not send or receive in lane \"talk\" with 20")
}

/// What a killed rtd had in a route's capacity is lost, and the next one says so; a stopped one has
/// said it itself.
fn what_a_killed_rtd_had_queued_is_accounted_by_the_next_one() -> anyhow::Result<()> {
    let i = Instance::new()?;
    let text = i.head() + &i.mqueue("in", "") + &i.mqueue("out", "") + &route("in", &["out"], "");
    let daemon = Daemon::start(&text)?;
    let mut sender = Peer::start()?;
    sender.open_to_send(&i.queue("in"))?;
    sender.stream(1, 15)?;
    i.until("five wait for room", |page| {
        page.routes[0].ledger.queued == 5
    })?;
    daemon.kill()?;
    let daemon = Daemon::start(&text)?;
    daemon.logged("route in->out: 5 lost in the last life")?;
    let page = i.snapshot()?;
    ensure!(
        page.routes[0].lost_in_last_life == 5 && page.routes[0].ledger.accepted == 0,
        "{page:?}"
    );
    let shown = run(i.rtctl_command(&["stats"]))?.well()?;
    ensure!(
        shown.contains("in->out: lost in the last life: 5"),
        "{shown}"
    );
    let json = run(i.rtctl_command(&["stats", "--json"]))?.well()?;
    ensure!(json.contains("\"lost_in_last_life\": 5"), "{json}");
    daemon.stop()?;
    let daemon = Daemon::start(&text)?;
    ensure!(i.snapshot()?.routes[0].lost_in_last_life == 0 && !daemon.log().contains("last life"));
    Ok(())
}

/// Starts rtd under ptrace(2), looks before each of its system calls until `is_enough` says so, and
/// kills it.
pub fn traced_start(
    i: &Instance,
    text: &str,
    mut is_enough: impl FnMut(Option<Snapshot>) -> anyhow::Result<bool>,
) -> anyhow::Result<()> {
    let file = i.file("rtd.toml");
    std::fs::write(&file, text)?;
    let mut command = Command::new(RTD);
    command
        .arg("run")
        .arg(&file)
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    if !privileged() {
        command.arg("--allow-degraded");
    }
    let mut starting = command.spawn()?;
    let looked = (|| {
        let mut traced = Traced::attach(starting.id())?;
        let until_ns = monotonic_ns() + patience_ns();
        loop {
            ensure!(monotonic_ns() < until_ns, "the start shows nothing");
            traced.next_call()?;
            let page = Reader::open(&i.name)
                .ok()
                .filter(|page| page.pid() == starting.id());
            if is_enough(page.and_then(|page| page.snapshot().ok()))? {
                return Ok(());
            }
        }
    })();
    starting.kill()?;
    starting.wait()?;
    looked
}

/// Starts rtd and kills it before it is ready, as soon as its page shows `lost` messages of the
/// life before it.
fn killed_while_it_starts(i: &Instance, text: &str, lost: u64) -> anyhow::Result<()> {
    traced_start(i, text, |page| {
        let Some(page) = page else { return Ok(false) };
        ensure!(page.ready_ns.is_none(), "ready, and shows no losses");
        Ok(page.routes[0].lost_in_last_life == lost)
    })
}

/// Also if starts in between are killed before anybody could see what they had found.
fn a_start_that_was_killed_passes_on_what_the_life_before_it_lost() -> anyhow::Result<()> {
    let i = Instance::new()?;
    let text = i.head() + &i.mqueue("in", "") + &i.mqueue("out", "") + &route("in", &["out"], "");
    let daemon = Daemon::start(&text)?;
    let mut sender = Peer::start()?;
    sender.open_to_send(&i.queue("in"))?;
    sender.stream(1, 15)?;
    i.until("five wait for room", |page| {
        page.routes[0].ledger.queued == 5
    })?;
    daemon.kill()?;
    killed_while_it_starts(&i, &text, 5)?;
    killed_while_it_starts(&i, &text, 5)?;
    let daemon = Daemon::start(&text)?;
    daemon.logged("route in->out: 5 lost in the last life")?;
    ensure!(i.snapshot()?.routes[0].lost_in_last_life == 5);
    // This one was ready, so readers of the page can have seen it.
    daemon.kill()?;
    let _daemon = Daemon::start(&text)?;
    ensure!(i.snapshot()?.routes[0].lost_in_last_life == 0);
    Ok(())
}
