//! The way down: drain and account, cut short, keep or remove; and signals that mean no stop.

use crate::util::book::End::{Delivered, Queued, Rejected};
use crate::util::lane_talk::{clean, endpoint, pair, peers};
use crate::util::order;
use crate::util::{
    Daemon, Instance, Peer, book, eventually, exists, held, kernel, process, route, rt, signal,
};
use nix::sys::signal::Signal;
use rtcore::lane::peer::PeerState;
use rtcore::message::Reject;
use rtcore::stats::reader::Reader;
use rtcore::stats::snapshot::Process;
use std::path::Path;

tests![
    a_stop_delivers_what_is_queued,
    a_stop_accounts_for_the_rest,
    a_second_signal_cuts_a_stop_short,
    a_stop_leaves_a_held_senders_messages_alone,
    a_stop_leaves_a_held_senders_ring_to_the_next_daemon,
    a_stop_gives_no_receiver_of_a_fan_out_a_message_twice,
    queues_that_go_are_emptied_first,
    pending_signals_are_accounted_for_at_a_stop,
    a_stop_accounts_for_the_ring_of_a_sender_that_has_ended,
    signals_that_arrive_after_their_lane_has_stopped_are_reported,
    a_hangup_is_answered_and_survived,
    signals_of_strangers_leave_no_trace,
];

/// A receiver with room for three and a route that queues ten; `drain` as configured.
fn config(instance: &Instance, daemon: &str, more: &str) -> String {
    instance
        .head()
        .replace("[daemon]", &format!("[daemon]\n{daemon}"))
        + &instance.mqueue("in", "")
        + &instance.mqueue("out", "maxmsg = 3")
        + &route("in", &["out"], more)
}

/// Eight messages: three delivered, five queued. The page, still mapped when the daemon is gone.
fn eight(instance: &Instance) -> anyhow::Result<Reader> {
    Peer::sender(&instance.queue("in"))?.stream(0, 8)?;
    instance.ledger_is("in->out", 8, &[(Delivered, 3), (Queued, 5)])?;
    Ok(Reader::open(&instance.name)?)
}

/// SIGTERM or SIGINT: what is queued is delivered to a receiver that reads, and the lanes end by
/// themselves.
fn a_stop_delivers_what_is_queued() -> anyhow::Result<()> {
    for signal in [Signal::SIGTERM, Signal::SIGINT] {
        let instance = Instance::new()?;
        let daemon = Daemon::start(&config(&instance, "drain = \"60s\"", ""))?;
        let page = eight(&instance)?;
        daemon.signal(signal)?;
        daemon.logged(&format!("{signal}: stopping"))?;
        let got = Peer::receiver(&instance.queue("out"))?.numbers(8)?;
        assert_eq!(got, (0..8).collect::<Vec<_>>());
        let (status, log) = daemon.end()?;
        assert!(status.success(), "{status}\n{log}");
        book::check(&page.snapshot()?, "in->out", 8, &[(Delivered, 8)])?;
        assert!(
            log.contains("lane lane: accepted 8 = delivered 8 "),
            "{log}"
        );
        // The queues stay, the page and the socket go.
        assert!(exists(&instance.queue("in"))? && exists(&instance.queue("out"))?);
        assert!(instance.page().is_err());
        assert!(!Path::new(&instance.socket()).exists());
    }
    Ok(())
}

/// Nobody reads: after the bound the rest is rejected as stopped.
fn a_stop_accounts_for_the_rest() -> anyhow::Result<()> {
    let instance = Instance::new()?;
    let daemon = Daemon::start(&config(&instance, "drain = \"50ms\"", ""))?;
    let page = eight(&instance)?;
    let log = daemon.stop()?;
    book::check(
        &page.snapshot()?,
        "in->out",
        8,
        &[(Delivered, 3), (Rejected(Reject::Stopped), 5)],
    )?;
    assert!(
        log.contains("accepted 8 = delivered 3 + expired 0 + displaced 0 + rejected 5 "),
        "{log}"
    );
    assert!(log.contains(".out: 3 messages"), "{log}");
    Ok(())
}

/// A minute of drain, and the second signal ends it at once.
fn a_second_signal_cuts_a_stop_short() -> anyhow::Result<()> {
    let instance = Instance::new()?;
    let daemon = Daemon::start(&config(&instance, "drain = \"60s\"", ""))?;
    let page = eight(&instance)?;
    daemon.signal(Signal::SIGTERM)?;
    daemon.logged("SIGTERM: stopping")?;
    daemon.signal(Signal::SIGTERM)?;
    let (status, log) = daemon.end()?;
    assert!(
        status.success() && log.contains("second request to stop"),
        "{status}\n{log}"
    );
    book::check(
        &page.snapshot()?,
        "in->out",
        8,
        &[(Delivered, 3), (Rejected(Reject::Stopped), 5)],
    )?;
    Ok(())
}

/// A source held by `block`: the message in hand is accounted, those behind it are their sender's
/// still.
fn a_stop_leaves_a_held_senders_messages_alone() -> anyhow::Result<()> {
    let instance = Instance::new()?;
    let policy = "capacity = 1\noverflow = \"block:10s\"";
    let daemon = Daemon::start(&config(&instance, "drain = \"50ms\"", policy))?;
    Peer::sender(&instance.queue("in"))?.stream(0, 10)?;
    instance.ledger_is("in->out", 5, &[(Delivered, 3), (Queued, 2)])?;
    let page = Reader::open(&instance.name)?;
    daemon.stop()?;
    book::check(
        &page.snapshot()?,
        "in->out",
        5,
        &[(Delivered, 3), (Rejected(Reject::Stopped), 2)],
    )?;
    let left = Peer::receiver(&instance.queue("in"))?.rest()?;
    assert_eq!(crate::util::talk::numbers(&left)?, [5, 6, 7, 8, 9]);
    Ok(())
}

/// `a` sends to `b`, whose ring has room for four, through a queue of two; the keys of the lane.
fn held_back(instance: &Instance, lane: &str) -> String {
    pair(instance, [64, 4], "capacity = 2\noverflow = \"block:10s\"")
        .replace("[daemon]", "[daemon]\ndrain = \"50ms\"")
        .replace("[[lane]]", &format!("[[lane]]\n{lane}"))
}

/// `a` has sent forty messages and `b` does not read: four are in its ring, two are queued, and the
/// lane holds the next one.
fn hold_back(instance: &Instance, config: &str) -> anyhow::Result<(Daemon, [Peer; 2])> {
    let daemon = Daemon::start(config)?;
    let mut all = peers(instance)?;
    assert_eq!(all[0].burst("a.out", 0, 40)?, (40, 0));
    instance.ledger_is("a.out->b.in", 7, &[(Delivered, 4), (Queued, 3)])?;
    Ok((daemon, all))
}

/// A ring is read no further than the stop: what was not dispatched by then, also the message in
/// hand that waits for room, is neither accepted nor rejected, and the next daemon gets it. (What
/// was queued is accounted.)
fn a_stop_leaves_a_held_senders_ring_to_the_next_daemon() -> anyhow::Result<()> {
    for wait in ["block", "spin:50"] {
        let instance = Instance::new()?;
        let config = held_back(&instance, &format!("wait = \"{wait}\""));
        let (daemon, [_a, mut b]) = hold_back(&instance, &config)?;
        let page = Reader::open(&instance.name)?;
        daemon.stop()?;
        book::check(
            &page.snapshot()?,
            "a.out->b.in",
            6,
            &[(Delivered, 4), (Rejected(Reject::Stopped), 2)],
        )?;
        let daemon = Daemon::start(&config)?;
        let want: Vec<u64> = (0..4).chain(6..40).collect();
        assert_eq!(b.take_numbers(want.len())?, want, "{wait}");
        instance.ledger_is("a.out->b.in", 34, &[(Delivered, 34)])?;
        assert_eq!(b.counters()?, clean(38, 2));
        daemon.stop()?;
    }
    Ok(())
}

/// The message in hand stays in the ring only where nobody has a copy yet; else it would come
/// twice. `stuck` does not read, `fine` does.
fn a_stop_gives_no_receiver_of_a_fan_out_a_message_twice() -> anyhow::Result<()> {
    for (to, rejected, again) in [
        (["stuck.in", "fine.in"], 1, 5),
        (["fine.in", "stuck.in"], 2, 4),
    ] {
        let instance = Instance::new()?;
        let config = instance
            .head()
            .replace("[daemon]", "[daemon]\ndrain = \"50ms\"")
            + &process("a")
            + &process("stuck")
            + &process("fine")
            + &endpoint("a.out", "a", 64)
            + &endpoint("stuck.in", "stuck", 4)
            + &endpoint("fine.in", "fine", 64)
            + &route(
                "a.out",
                &to,
                "name = \"fan\"\ncapacity = 1\noverflow = \"block:10s\"",
            );
        let daemon = Daemon::start(&config)?;
        let mut stuck = Peer::with_inbox(&instance, "stuck")?;
        let mut fine = Peer::with_inbox(&instance, "fine")?;
        let mut a = Peer::from_endpoint(&instance, "a", "a.out")?;
        a.reach("a.out")?;
        assert_eq!(a.burst("a.out", 0, 10)?, (10, 0));
        // The sixth is in hand.
        instance.until("it is held", |s| s.routes[0].ledger.accepted == 12)?;
        let page = Reader::open(&instance.name)?;
        daemon.stop()?;
        let delivered = 4 + 10 - again;
        let ends = [
            (Delivered, delivered),
            (Rejected(Reject::Stopped), rejected),
        ];
        book::check(&page.snapshot()?, "fan", delivered + rejected, &ends)?;
        // Its messages come when both receivers are back.
        a.freeze()?;
        let daemon = Daemon::start(&config)?;
        let is_back = |p: &&Process| {
            ["stuck", "fine"].contains(&p.name.as_str()) && p.state == PeerState::Alive
        };
        instance.until("both are back", |s| {
            s.processes.iter().filter(is_back).count() == 2
        })?;
        a.thaw()?;
        assert_eq!(fine.take_numbers(10)?, (0..10).collect::<Vec<_>>());
        let want: Vec<u64> = (0..4).chain(10 - again..10).collect();
        assert_eq!(stuck.take_numbers(want.len())?, want);
        instance.ledger_is("fan", 2 * again, &[(Delivered, 2 * again)])?;
        for peer in [&mut stuck, &mut fine] {
            let counters = peer.counters()?;
            assert_eq!(counters.duplicates, 0, "{counters:?}");
        }
        daemon.stop()?;
    }
    Ok(())
}

/// Queues that go with the daemon are emptied first: what is in a source is routed, too.
fn queues_that_go_are_emptied_first() -> anyhow::Result<()> {
    let instance = Instance::new()?;
    let policy = "capacity = 1\noverflow = \"block:10s\"";
    let daemon = Daemon::start(&config(
        &instance,
        "drain = \"60s\"\nkeep_queues = false",
        policy,
    ))?;
    Peer::sender(&instance.queue("in"))?.stream(0, 10)?;
    instance.ledger_is("in->out", 5, &[(Delivered, 3), (Queued, 2)])?;
    assert_eq!(held(&instance.queue("in"))?, 5);
    let page = Reader::open(&instance.name)?;
    let mut receiver = Peer::receiver(&instance.queue("out"))?;
    daemon.signal(Signal::SIGTERM)?;
    daemon.logged("SIGTERM: stopping")?;
    assert_eq!(receiver.numbers(10)?, (0..10).collect::<Vec<_>>());
    let (status, log) = daemon.end()?;
    assert!(status.success(), "{status}\n{log}");
    book::check(&page.snapshot()?, "in->out", 10, &[(Delivered, 10)])?;
    assert!(!exists(&instance.queue("in"))? && !exists(&instance.queue("out"))?);
    Ok(())
}

/// Signals that are pending when the drain ends would go with the process: they are accounted for,
/// not left to the kernel.
fn pending_signals_are_accounted_for_at_a_stop() -> anyhow::Result<()> {
    let instance = Instance::new()?;
    let config = instance
        .head()
        .replace("[daemon]", "[daemon]\ndrain = \"50ms\"")
        + &signal("pressed", "", "SIGRTMIN+1", "")
        + &instance.mqueue("out", "maxmsg = 3")
        + &route(
            "pressed",
            &["out"],
            "accept_claimed = true\ncapacity = 1\noverflow = \"block:10s\"",
        );
    let daemon = Daemon::start(&config)?;
    let mut button = Peer::start()?;
    for value in 0..12 {
        button.ring(daemon.pid(), rt(1), value)?;
    }
    instance.ledger_is("pressed->out", 5, &[(Delivered, 3), (Queued, 2)])?;
    let page = Reader::open(&instance.name)?;
    let log = daemon.stop()?;
    let ends = [(Delivered, 3), (Rejected(Reject::Stopped), 9)];
    book::check(&page.snapshot()?, "pressed->out", 12, &ends)?;
    assert!(
        log.contains("route pressed->out: 9 lost (stopped)"),
        "{log}"
    );
    Ok(())
}

/// A sender has ended with messages in its ring: it cannot bring them to the next daemon, so the
/// stop accounts for them.
fn a_stop_accounts_for_the_ring_of_a_sender_that_has_ended() -> anyhow::Result<()> {
    let instance = Instance::new()?;
    let (daemon, [a, mut b]) = hold_back(&instance, &held_back(&instance, ""))?;
    let pid = a.pid();
    a.kill()?;
    daemon.logged(&format!("a: pid {pid} died"))?;
    let page = Reader::open(&instance.name)?;
    daemon.stop()?;
    let ends = [(Delivered, 4), (Rejected(Reject::Stopped), 36)];
    book::check(&page.snapshot()?, "a.out->b.in", 40, &ends)?;
    assert_eq!(b.take_numbers(4)?, [0, 1, 2, 3]);
    Ok(())
}

/// A lane has stopped while another one still drains: nobody takes the signals that arrive now, and
/// the log has their number.
fn signals_that_arrive_after_their_lane_has_stopped_are_reported() -> anyhow::Result<()> {
    let instance = Instance::new()?;
    let config = config(&instance, "drain = \"60s\"", "")
        + &signal("pressed", "", "SIGRTMIN+1", "")
        + &route("pressed", &["out"], "accept_claimed = true");
    let daemon = Daemon::start(&config)?;
    eight(&instance)?;
    let threads = || kernel::threads(daemon.pid()).ok();
    let is_pressed =
        |&tid: &u32| kernel::thread(daemon.pid(), tid).is_ok_and(|t| t.name == "pressed");
    anyhow::ensure!(threads().is_some_and(|all| all.iter().any(is_pressed)));
    daemon.signal(Signal::SIGTERM)?;
    daemon.logged("SIGTERM: stopping")?;
    eventually(|| (!threads()?.iter().any(is_pressed)).then_some(()))?;
    let mut button = Peer::start()?;
    for value in 0..5 {
        button.ring(daemon.pid(), rt(1), value)?;
    }
    assert_eq!(
        Peer::receiver(&instance.queue("out"))?.numbers(8)?,
        (0..8).collect::<Vec<_>>()
    );
    let (status, log) = daemon.end()?;
    assert!(status.success(), "{status}\n{log}");
    assert!(
        log.contains("endpoint pressed: 5 signals arrived after its lane had stopped: lost"),
        "{log}"
    );
    Ok(())
}

/// SIGHUP is answered in the log and changes nothing.
fn a_hangup_is_answered_and_survived() -> anyhow::Result<()> {
    let instance = Instance::new()?;
    let daemon = Daemon::start(&config(&instance, "", ""))?;
    daemon.signal(Signal::SIGHUP)?;
    daemon.logged("SIGHUP: rtd reads its configuration only when it starts")?;
    Peer::sender(&instance.queue("in"))?.stream(0, 3)?;
    instance.ledger_is("in->out", 3, &[(Delivered, 3)])?;
    daemon.stop()?;
    Ok(())
}

/// Signals that no route reads: they end nothing, interrupt no message, and none stays pending,
/// which would eat the user's limit.
fn signals_of_strangers_leave_no_trace() -> anyhow::Result<()> {
    const EACH: usize = 50;
    let instance = Instance::new()?;
    let daemon = Daemon::start(&config(&instance, "", "overflow = \"block:10s\""))?;
    let mut receiver = Peer::receiver(&instance.queue("out"))?;
    let mut sender = Peer::sender(&instance.queue("in"))?;
    let mut stranger = Peer::start()?;
    receiver.ask(order::Queue::Receive {
        count: 2000,
        quiet_ms: 10_000,
    })?;
    sender.ask(order::Queue::Stream {
        from: 0,
        count: 2000,
    })?;
    let standard = [
        Signal::SIGURG,
        Signal::SIGUSR1,
        Signal::SIGUSR2,
        Signal::SIGALRM,
        Signal::SIGVTALRM,
        Signal::SIGPROF,
        Signal::SIGIO,
        Signal::SIGPIPE,
        Signal::SIGPWR,
        Signal::SIGSTKFLT,
        Signal::SIGXFSZ,
        Signal::SIGCHLD,
        Signal::SIGWINCH,
        Signal::SIGCONT,
    ];
    let (_, last) = rtcore::sys::rtsignal::rt_range();
    for _ in 0..EACH {
        for signal in standard {
            stranger.tell(order::Signal::Kill {
                pid: daemon.pid(),
                signo: signal as i32,
            })?;
        }
        for signo in rt(0)..=last {
            stranger.ring(daemon.pid(), signo, 1)?;
        }
    }
    sender.answer()?;
    assert_eq!(receiver.answer()?.mail()?.len(), 2000);
    instance.ledger_is("in->out", 2000, &[(Delivered, 2000)])?;
    eventually(|| (kernel::pending(daemon.pid()).ok()? == 0).then_some(()))?;
    daemon.stop()?;
    Ok(())
}
