//! Signals in and out: values, origins, who may send, and which thread gets them.

use crate::util::book::End::{Delivered, PeerDead, Rejected};
use crate::util::order;
use crate::util::talk::shell_kill;
use crate::util::{
    Daemon, Instance, Peer, eventually, first_cpu, kernel, process, route, rt, signal,
};
use nix::sys::signal::Signal;
use rtcore::message::{Reject, SIGNAL_RECORD_BYTES, SignalRecord};
use rtcore::sys::accounts::own_uid;
use zerocopy::FromBytes as _;

tests![
    anybody_presses_the_stop_of_the_demo_arm,
    value_and_origin_pass_from_signal_to_signal,
    a_signal_in_a_queue_is_a_record,
    a_forged_pid_is_a_claim,
    only_the_owner_may_send,
    a_payload_becomes_a_value,
    a_signal_goes_to_the_thread_or_the_process,
    a_doorbell_rings_once_for_many,
    doorbells_into_the_daemon_coalesce,
];

/// The one record in a message.
fn record(mail: &[(u32, Vec<u8>)]) -> anyhow::Result<SignalRecord> {
    assert_eq!(mail.len(), 1);
    assert_eq!(mail[0].1.len(), SIGNAL_RECORD_BYTES);
    SignalRecord::read_from_bytes(&mail[0].1).map_err(|e| anyhow::anyhow!("{e:?}"))
}

/// Value and origin pass through; nothing of the daemon's own stands in what the receiver gets.
fn value_and_origin_pass_from_signal_to_signal() -> anyhow::Result<()> {
    let instance = Instance::new()?;
    let config = instance.head()
        + &process("drive")
        + &signal("pressed", "", "SIGRTMIN+1", "")
        + &signal("stop", "drive", "SIGRTMIN+2", "")
        + &route("pressed", &["stop"], "accept_claimed = true");
    let daemon = Daemon::start(&config)?;
    let mut drive = Peer::start()?;
    drive.expect(&instance, "drive", &[rt(2)])?;
    let mut button = Peer::start()?;
    let values = [0, 1, 0x1234_5678_9abc_def0, u64::MAX];
    for value in values {
        button.ring(daemon.pid(), rt(1), value)?;
    }
    let got = drive.signals(rt(2), values.len())?;
    assert_eq!(got.iter().map(|s| s.value).collect::<Vec<_>>(), values);
    assert!(
        got.iter()
            .all(|s| s.pid == button.pid() && s.uid == own_uid()),
        "{got:?}"
    );
    instance.ledger_is("pressed->stop", 4, &[(Delivered, 4)])?;
    Ok(())
}

/// In a queue a signal is a record of 32 bytes that says whether its origin is the kernel's word.
fn a_signal_in_a_queue_is_a_record() -> anyhow::Result<()> {
    let instance = Instance::new()?;
    let config = instance.head()
        + &signal("pressed", "", "SIGRTMIN+1", "")
        + &instance.mqueue("log", "")
        + &route(
            "pressed",
            &["log"],
            "accept_claimed = true\nmq_priority = 9",
        );
    let daemon = Daemon::start(&config)?;
    let mut log = Peer::receiver(&instance.queue("log"))?;
    let mut button = Peer::start()?;
    button.ring(daemon.pid(), rt(1), 0xdead_beef_0000_0001)?;
    let mail = log.receive(1)?;
    let claimed = record(&mail)?;
    let expected = SignalRecord {
        value: 0xdead_beef_0000_0001,
        dequeued_ns: claimed.dequeued_ns,
        signo: rt(1),
        pid: button.pid(),
        uid: own_uid(),
        verified: 0,
    };
    assert_eq!((mail[0].0, claimed), (9, expected));
    // The layout is a promise to C programs: value, time, number, pid, uid, verified.
    assert_eq!(mail[0].1[0..8], 0xdead_beef_0000_0001_u64.to_ne_bytes());
    assert_eq!(mail[0].1[16..20], rt(1).to_ne_bytes());
    assert_eq!(mail[0].1[20..24], button.pid().to_ne_bytes());

    // kill(2): no value, and the kernel wrote the origin.
    let shell = shell_kill(daemon.pid(), rt(1))?;
    let verified = record(&log.receive(1)?)?;
    assert!(verified.dequeued_ns > claimed.dequeued_ns);
    assert_eq!(
        (verified.value, verified.pid, verified.uid),
        (0, shell, own_uid())
    );
    assert_eq!(verified.verified, 1);
    Ok(())
}

/// si_pid is what the sender wrote. A route that takes claims takes that one too, and says that it
/// is a claim; one that does not takes the kernel's word alone.
fn a_forged_pid_is_a_claim() -> anyhow::Result<()> {
    let instance = Instance::new()?;
    let config = instance.head()
        + &process("button")
        + &signal("claims", "button", "SIGRTMIN+1", "")
        + &signal("kernels", "button", "SIGUSR1", "")
        + &instance.mqueue("a", "")
        + &instance.mqueue("b", "")
        + &route("claims", &["a"], "accept_claimed = true")
        + &route("kernels", &["b"], "");
    let daemon = Daemon::start(&config)?;
    let mut button = Peer::start()?;
    button.expect(&instance, "button", &[])?;
    let mut liar = Peer::start()?;
    let mut forge = |signo: i32, pid: u32| {
        liar.tell(order::Signal::Forge {
            pid: daemon.pid(),
            signo,
            value: 5,
            as_pid: pid,
            as_uid: 4242,
        })
    };
    forge(rt(1), button.pid())?;
    let taken = record(&Peer::receiver(&instance.queue("a"))?.receive(1)?)?;
    assert_eq!(
        (taken.pid, taken.uid, taken.verified),
        (button.pid(), 4242, 0)
    );
    forge(rt(1), 1)?;
    instance.ledger_is(
        "claims->a",
        2,
        &[(Delivered, 1), (Rejected(Reject::Origin), 1)],
    )?;

    forge(Signal::SIGUSR1 as i32, button.pid())?;
    instance.ledger_is("kernels->b", 1, &[(Rejected(Reject::Origin), 1)])?;
    // The owner's own kill(2).
    button.tell(order::Signal::Kill {
        pid: daemon.pid(),
        signo: Signal::SIGUSR1 as i32,
    })?;
    let taken = record(&Peer::receiver(&instance.queue("b"))?.receive(1)?)?;
    assert_eq!(
        (taken.pid, taken.uid, taken.verified),
        (button.pid(), own_uid(), 1)
    );
    instance.ledger_is(
        "kernels->b",
        2,
        &[(Delivered, 1), (Rejected(Reject::Origin), 1)],
    )?;
    Ok(())
}

/// A source with an owner takes signals from the process that registered as that owner, and from no
/// process before.
fn only_the_owner_may_send() -> anyhow::Result<()> {
    let instance = Instance::new()?;
    let config = instance.head()
        + &process("button")
        + &signal("pressed", "button", "SIGRTMIN+1", "")
        + &instance.mqueue("log", "")
        + &route("pressed", &["log"], "accept_claimed = true");
    let daemon = Daemon::start(&config)?;
    let route = "pressed->log";
    let mut button = Peer::start()?;
    button.ring(daemon.pid(), rt(1), 1)?;
    instance.ledger_is(route, 1, &[(Rejected(Reject::Origin), 1)])?;
    button.expect(&instance, "button", &[])?;
    button.ring(daemon.pid(), rt(1), 2)?;
    instance.ledger_is(route, 2, &[(Delivered, 1), (Rejected(Reject::Origin), 1)])?;
    shell_kill(daemon.pid(), rt(1))?;
    instance.ledger_is(route, 3, &[(Delivered, 1), (Rejected(Reject::Origin), 2)])?;
    let mut log = Peer::receiver(&instance.queue("log"))?;
    assert_eq!(record(&log.rest()?)?.value, 2);
    Ok(())
}

/// A queue's payload becomes a value: up to eight bytes in native order, the rest zero. Longer ones
/// are too large, unless the route may cut them.
fn a_payload_becomes_a_value() -> anyhow::Result<()> {
    let instance = Instance::new()?;
    let config = instance.head()
        + &process("drive")
        + &instance.mqueue("in", "")
        + &signal("whole", "drive", "SIGRTMIN+1", "")
        + &signal("cut", "drive", "SIGRTMIN+2", "")
        + &route("in", &["whole"], "")
        + &route("in", &["cut"], "truncate = true");
    let _daemon = Daemon::start(&config)?;
    let mut drive = Peer::start()?;
    drive.expect(&instance, "drive", &[rt(1), rt(2)])?;
    let mut sender = Peer::sender(&instance.queue("in"))?;
    let bytes = [1, 2, 3, 4, 5, 6, 7, 8, 9];
    for n in [0, 3, 8, 9] {
        sender.send(0, &bytes[..n])?;
    }
    let whole = u64::from_ne_bytes([1, 2, 3, 4, 5, 6, 7, 8]);
    let three = u64::from_ne_bytes([1, 2, 3, 0, 0, 0, 0, 0]);
    let values =
        |got: Vec<crate::util::talk::Rang>| got.iter().map(|s| s.value).collect::<Vec<_>>();
    instance.ledger_is(
        "in->whole",
        4,
        &[(Delivered, 3), (Rejected(Reject::TooLarge), 1)],
    )?;
    instance.ledger_is("in->cut", 4, &[(Delivered, 4)])?;
    assert_eq!(values(drive.pending(rt(1))?), [0, three, whole]);
    assert_eq!(values(drive.pending(rt(2))?), [0, three, whole, whole]);
    Ok(())
}

/// `thread` reaches the registered thread and no other; `process` reaches any thread that waits.
fn a_signal_goes_to_the_thread_or_the_process() -> anyhow::Result<()> {
    let instance = Instance::new()?;
    let config = instance.head()
        + &process("drive")
        + &instance.mqueue("in", "msgsize = 8")
        + &signal("to.thread", "drive", "SIGRTMIN+1", "target = \"thread\"")
        + &signal("to.process", "drive", "SIGRTMIN+2", "")
        + &route("in", &["to.thread", "to.process"], "");
    let _daemon = Daemon::start(&config)?;
    let mut drive = Peer::start()?;
    drive.block(rt(1))?;
    drive.block(rt(2))?;
    // Inherits the mask.
    let second = drive.second_tid()?.to_string();
    let (pid, tid) = (drive.pid().to_string(), second.clone());
    let registered =
        instance.rtctl(&["register", "--as", "drive", "--pid", &pid, "--tid", &tid])?;
    assert!(registered.status.success(), "{registered:?}");
    Peer::sender(&instance.queue("in"))?.stream(77, 1)?;
    instance.ledger_is("in->to.thread", 2, &[(Delivered, 2)])?;
    // The first thread sees what is for the process, not what is for the second thread.
    assert_eq!(drive.pending(rt(1))?, []);
    let for_process = drive.pending(rt(2))?;
    assert_eq!(
        for_process.iter().map(|s| s.value).collect::<Vec<_>>(),
        [77]
    );
    let for_thread = drive.second_signals(rt(1), 1)?;
    assert_eq!(
        (for_thread[0].value, for_thread[0].tid.to_string()),
        (77, second)
    );
    Ok(())
}

/// Out: a standard signal says that something came, not how much. In the ledger each was delivered.
fn a_doorbell_rings_once_for_many() -> anyhow::Result<()> {
    let instance = Instance::new()?;
    let config = instance.head()
        + &process("drive")
        + &instance.mqueue("in", "")
        + &signal("bell", "drive", "SIGUSR1", "")
        + &route("in", &["bell"], "truncate = true");
    let _daemon = Daemon::start(&config)?;
    let usr1 = Signal::SIGUSR1 as i32;
    let mut drive = Peer::start()?;
    drive.expect(&instance, "drive", &[usr1])?;
    Peer::sender(&instance.queue("in"))?.stream(0, 5)?;
    instance.ledger_is("in->bell", 5, &[(Delivered, 5)])?;
    assert_eq!(drive.pending(usr1)?.len(), 1);
    Ok(())
}

/// In: what rang while the daemon could not look is one message.
fn doorbells_into_the_daemon_coalesce() -> anyhow::Result<()> {
    let instance = Instance::new()?;
    let config = instance.head()
        + &signal("bell", "", "SIGUSR2", "")
        + &instance.mqueue("log", "")
        + &route("bell", &["log"], "");
    let daemon = Daemon::start(&config)?;
    daemon.signal(Signal::SIGSTOP)?;
    eventually(|| {
        kernel::stopped(daemon.pid())
            .ok()
            .filter(|stopped| *stopped)
    })?;
    let mut shells = Vec::new();
    for _ in 0..5 {
        shells.push(shell_kill(daemon.pid(), Signal::SIGUSR2 as i32)?);
    }
    daemon.signal(Signal::SIGCONT)?;
    instance.ledger_is("bell->log", 1, &[(Delivered, 1)])?;
    let mut log = Peer::receiver(&instance.queue("log"))?;
    let rang = record(&log.rest()?)?;
    assert_eq!((rang.value, rang.pid, rang.verified), (0, shells[0], 1));
    shell_kill(daemon.pid(), Signal::SIGUSR2 as i32)?;
    instance.ledger_is("bell->log", 2, &[(Delivered, 2)])?;
    Ok(())
}

/// configs/demo-arm.toml says so of its e-stop.
fn anybody_presses_the_stop_of_the_demo_arm() -> anyhow::Result<()> {
    let i = Instance::new()?;
    let file = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../configs/demo-arm.toml");
    let own = format!("name = \"{}\"\nsocket = \"{}\"", i.name, i.socket());
    let mut text = std::fs::read_to_string(&file)?
        .replacen("name = \"demo-arm\"", &own, 1)
        .replace("cpu = 0", &format!("cpu = {}", first_cpu()));
    for queue in [
        "estop-log",
        "setpoints",
        "drive1",
        "drive2",
        "telemetry",
        "telemetry-log",
    ] {
        text = text.replace(
            &format!("\"/demo-arm.{queue}\""),
            &format!("{:?}", i.queue(queue)),
        );
    }
    let daemon = Daemon::start(&text)?;
    let mut drive = Peer::start()?;
    drive.expect(&i, "drive1", &[rt(2)])?;
    let mut anybody = Peer::start()?;
    anybody.ring(daemon.pid(), rt(1), 42)?;
    let got = drive.signals(rt(2), 1)?;
    assert_eq!((got[0].value, got[0].pid), (42, anybody.pid()));
    let log = record(&Peer::receiver(&i.queue("estop-log"))?.receive(1)?)?;
    assert_eq!(
        (log.value, log.pid, log.verified),
        (42, anybody.pid(), 0),
        "who did is a claim"
    );
    // The other two are not there.
    i.ledger_is("estop", 4, &[(Delivered, 2), (PeerDead, 2)])?;
    Ok(())
}
