//! `rtctl send` by hand: every form of payload, its schedule, and what it refuses.

use crate::util::order;
use crate::util::talk::Mail;
use crate::util::tool::{Said, Tool, run};
use crate::util::{Daemon, Instance, Peer, eventually, held, process, route, rt, signal};
use anyhow::ensure;
use nix::sys::signal::Signal;
use rtcore::lane::peer::Reception;
use std::time::{Duration, Instant};

tests![
    every_form_of_payload_arrives_unchanged,
    a_signal_goes_to_the_daemon_or_to_the_owner,
    count_is_exact_and_rate_is_a_schedule,
    a_full_queue_is_waited_for_or_counted,
    sigint_ends_it_and_it_says_how_many,
    refusals_say_what_and_what_instead,
    a_signal_for_a_daemon_that_is_gone_is_not_sent,
    a_message_for_a_daemon_that_is_gone_waits_only_if_asked_for,
    a_message_that_is_lost_is_an_error_with_the_reason,
    a_daemon_that_is_killed_meanwhile_is_no_success,
    what_is_not_known_is_said,
];

/// Queue to queue, signal to queue, and a signal that `arm` gets.
fn config(i: &Instance) -> String {
    i.head()
        + &process("arm")
        + &i.mqueue("in", "")
        + &i.mqueue("out", "owner = \"arm\"")
        + &i.mqueue("record", "msgsize = 32")
        + &i.mqueue("bell", "msgsize = 8")
        + &signal("press", "", "SIGRTMIN+6", "")
        + &signal("arm.go", "arm", "SIGRTMIN+5", "")
        + &route(
            "in",
            &["out"],
            "name = \"bytes\"\noverflow = \"block:10000000\"",
        )
        + &route(
            "press",
            &["record"],
            "name = \"presses\"\naccept_claimed = true",
        )
        + &route("bell", &["arm.go"], "name = \"go\"")
}

fn send(i: &Instance, arguments: &[&str]) -> anyhow::Result<Said> {
    run(i.rtctl_command(&[&["send"], arguments].concat()))
}

/// A peer that reads a queue of the instance.
fn reader(i: &Instance, queue: &str) -> anyhow::Result<Peer> {
    let mut peer = Peer::start()?;
    peer.open_to_receive(&i.queue(queue))?;
    Ok(peer)
}

fn every_form_of_payload_arrives_unchanged() -> anyhow::Result<()> {
    let i = Instance::new()?;
    let daemon = Daemon::start(&config(&i))?;
    let mut out = reader(&i, "out")?;
    std::fs::write(i.file("payload"), [0, 1, 0xfe, b'\n'])?;
    let file = i.file("payload").display().to_string();
    let forms: [(&[&str], Mail); 6] = [
        (&["--text", "go ü"], (0, "go ü".into())),
        (&["--text", ""], (0, vec![])),
        (&["--hex", "de ad BE ef"], (0, vec![0xde, 0xad, 0xbe, 0xef])),
        (&["--file", &file], (0, vec![0, 1, 0xfe, b'\n'])),
        (
            &["--value", "0x1234"],
            (0, 0x1234u64.to_ne_bytes().to_vec()),
        ),
        (
            &["--text", "first", "--priority", "31"],
            (31, b"first".to_vec()),
        ),
    ];
    for (form, expected) in &forms {
        let said = send(&i, &[&["in"], *form].concat())?.well()?;
        ensure!(said == "sent 1 to in\n", "{said}");
        let got = out.receive_for(1, 10_000)?;
        ensure!(got == [expected.clone()], "{form:?}: {got:?}");
    }
    let end = i.snapshot()?.routes[0].ledger;
    ensure!(
        end.delivered == forms.len() as u64 && end.balances(),
        "{end:?}"
    );
    daemon.stop()?;
    Ok(())
}

fn a_signal_goes_to_the_daemon_or_to_the_owner() -> anyhow::Result<()> {
    let i = Instance::new()?;
    let daemon = Daemon::start(&config(&i))?;
    let mut record = reader(&i, "record")?;
    send(&i, &["press", "--value", "258"])?.well()?;
    let got = record.receive_for(1, 10_000)?;
    ensure!(
        got.len() == 1 && got[0].0 == 0 && got[0].1.starts_with(&258u64.to_ne_bytes()),
        "{got:?}"
    );
    send(&i, &["press", "--text", "now!"])?.well()?;
    let got = record.receive_for(1, 10_000)?;
    ensure!(
        got.len() == 1 && got[0].0 == 0 && got[0].1.starts_with(b"now!\0\0\0\0"),
        "{got:?}"
    );

    let mut arm = Peer::ready_as(&i, "arm", &[rt(5)])?;
    i.reception("arm.go", Reception::Takes)?;
    let tool = Tool::start(i.rtctl_command(&["send", "arm.go", "--value", "77"]))?;
    let pid = tool.pid();
    tool.end()?.well()?;
    let got = arm.signals_for(rt(5), 1, 10_000)?;
    ensure!(
        got.len() == 1 && (got[0].value, got[0].pid) == (77, pid),
        "{got:?}"
    );
    daemon.stop()?;
    Ok(())
}

fn count_is_exact_and_rate_is_a_schedule() -> anyhow::Result<()> {
    let i = Instance::new()?;
    let daemon = Daemon::start(&config(&i))?;
    let mut out = reader(&i, "out")?;
    out.ask(order::Queue::Receive {
        count: 1100,
        quiet_ms: 10_000,
    })?;
    let said = send(&i, &["in", "--text", "x", "--count", "1000"])?.well()?;
    ensure!(said == "sent 1000 to in\n", "{said}");
    let start = Instant::now();
    send(
        &i,
        &["in", "--text", "y", "--count", "100", "--rate", "200"],
    )?
    .well()?;
    // The last is due 99 periods of 5 ms after the first; late is the machine's affair, early is
    // ours.
    ensure!(
        start.elapsed() >= Duration::from_millis(495),
        "{:?}",
        start.elapsed()
    );
    let got = out.answer()?.mail()?;
    let all_are = |got: &[Mail], byte| got.iter().all(|mail| *mail == (0, vec![byte]));
    ensure!(all_are(&got[..1000], b'x') && all_are(&got[1000..], b'y'));
    let end = i.until("all delivered", |s| s.routes[0].ledger.delivered == 1100)?;
    ensure!(
        end.routes[0].ledger.accepted == 1100,
        "{:?}",
        end.routes[0].ledger
    );
    daemon.stop()?;
    Ok(())
}

fn a_full_queue_is_waited_for_or_counted() -> anyhow::Result<()> {
    let i = Instance::new()?;
    let daemon = Daemon::start(&config(&i))?;
    daemon.freeze()?;
    let err = send(&i, &["bell", "--value", "1", "--count", "13", "--nonblock"])?;
    ensure!(err.out == "sent 10 to bell\n", "{err:?}");
    err.refused(&["3 refused: bell is full"])?;

    let mut waiting = Tool::start(i.rtctl_command(&[
        "send", "bell", "--value", "2", "--count", "2", "--wait", "0",
    ]))?;
    ensure!(waiting.runs());
    daemon.signal(Signal::SIGCONT)?;
    ensure!(waiting.line()? == "sent 2 to bell\n");
    waiting.end()?.well()?;
    i.until("all taken", |s| {
        s.routes[2].ledger.accepted == 12 && s.routes[2].ledger.peer_dead == 12
    })?;
    daemon.stop()?;
    Ok(())
}

/// Without an end, and while the queue is full: SIGINT ends it, and it says how far it came.
fn sigint_ends_it_and_it_says_how_many() -> anyhow::Result<()> {
    let i = Instance::new()?;
    let daemon = Daemon::start(&config(&i))?;
    let endless = [
        "send", "bell", "--value", "1", "--count", "0", "--rate", "100", "--wait", "0",
    ];
    let tool = Tool::start(i.rtctl_command(&endless))?;
    i.until("some came", |s| s.routes[2].ledger.accepted >= 5)?;
    tool.signal(Signal::SIGINT)?;
    let out = tool.end()?.well()?;
    let accepted = i.snapshot()?.routes[2].ledger.accepted;
    i.until("all came", |s| {
        out == format!("sent {} to bell\n", s.routes[2].ledger.accepted)
    })?;

    daemon.freeze()?;
    let tool = Tool::start(i.rtctl_command(&["send", "bell", "--value", "1", "--count", "50"]))?;
    let queue = std::ffi::CString::new(i.queue("bell"))?;
    let queue = rtcore::sys::mqueue::Queue::open(&queue, rtcore::sys::mqueue::Access::Send, true)?;
    crate::util::eventually(|| (queue.attributes().ok()?.curmsgs == 10).then_some(()))?;
    tool.signal(Signal::SIGINT)?;
    let said = tool.end()?;
    ensure!(said.out == "sent 10 to bell\n", "{said:?}");
    said.refused(&["interrupted: 10 of 50 sent"])?;
    daemon.signal(Signal::SIGCONT)?;
    i.until("what was sent is taken", |s| {
        s.routes[2].ledger.accepted >= accepted + 10
    })?;
    daemon.stop()?;
    Ok(())
}

fn refusals_say_what_and_what_instead() -> anyhow::Result<()> {
    let i = Instance::new()?;
    let _daemon = Daemon::start(&config(&i))?;
    let refused = |arguments: &[&str], says: &[&str]| send(&i, arguments)?.refused(says);
    let names = "in, out, record, bell, press, arm.go";
    refused(&["inn", "--text", "x"], &["has no endpoint inn", names])?;
    let long = "x".repeat(65);
    refused(
        &["in", "--text", &long],
        &["in takes 64 bytes, the payload has 65"],
    )?;
    refused(
        &["press", "--text", "nine bytes"],
        &["a signal carries 8 bytes, the payload has 10"],
    )?;
    refused(&["in", "--hex", "abc"], &["odd number of digits"])?;
    refused(&["in", "--hex", "zz"], &["not a hexadecimal digit"])?;
    refused(
        &["in", "--file", "/nonexistent"],
        &["cannot read /nonexistent", "No such file"],
    )?;
    refused(
        &["arm.go", "--value", "1"],
        &["belongs to arm, which is not registered"],
    )?;
    // What the command line alone shows to be wrong is exit code 2, with the usage.
    for wrong in [
        &["in"][..],
        &["in", "--text", "x", "--value", "1"],
        &["in", "--value", "many"],
        &["in", "--text", "x", "--rate", "0"],
        &["in", "--text", "x", "--rate", "nan"],
        &["in", "--text", "x", "--priority", "32768"],
        &["--text", "x"],
    ] {
        let said = send(&i, wrong)?;
        ensure!(
            said.code() == Some(2) && said.err.contains("error: "),
            "{wrong:?}: {said:?}"
        );
    }
    ensure!(
        i.snapshot()?.routes.iter().all(|r| r.ledger.accepted == 0),
        "a refusal sent something"
    );
    Ok(())
}

fn a_signal_for_a_daemon_that_is_gone_is_not_sent() -> anyhow::Result<()> {
    let i = Instance::new()?;
    let daemon = Daemon::start(&config(&i))?;
    daemon.kill()?;
    let says = [
        &format!("instance {} is not running", i.name),
        "nothing reads press",
    ];
    for more in [&[][..], &["--queue-anyway"]] {
        let sent = send(&i, &[&["press", "--value", "1"], more].concat())?;
        sent.refused(&says.map(|s| s as &str))?;
    }
    Ok(())
}

/// A queue outlives the daemon; what is put into it then is for the next one, and only if that is
/// asked for.
fn a_message_for_a_daemon_that_is_gone_waits_only_if_asked_for() -> anyhow::Result<()> {
    let i = Instance::new()?;
    Daemon::start(&config(&i))?.kill()?;
    let says = [
        &format!("instance {} is not running", i.name),
        &i.queue("in"),
        "--queue-anyway",
    ];
    send(&i, &["in", "--text", "x"])?.refused(&says.map(|s| s as &str))?;
    ensure!(held(&i.queue("in"))? == 0, "a refused message was sent");
    ensure!(send(&i, &["in", "--text", "late", "--queue-anyway"])?.well()? == "sent 1 to in\n");
    let daemon = Daemon::start(&config(&i))?;
    let got = reader(&i, "out")?.receive_for(1, 10_000)?;
    ensure!(got == [(0, b"late".to_vec())], "{got:?}");
    daemon.stop()?;
    Ok(())
}

/// Every way to lose it: the tool ends with 1 and names route, reason and receiver.
fn a_message_that_is_lost_is_an_error_with_the_reason() -> anyhow::Result<()> {
    let i = Instance::new()?;
    let text = config(&i)
        + &i.mqueue("twice", "")
        + &i.mqueue("fast", "")
        + &i.mqueue("sink", "maxmsg = 2")
        + &signal("owned", "arm", "SIGRTMIN+7", "")
        + &route(
            "twice",
            &["out", "arm.go"],
            "name = \"both\"\ntruncate = true",
        )
        + &route(
            "fast",
            &["sink"],
            "name = \"limited\"\nrate_hz = 1\nburst = 1\npayload = 2\ncapacity = 1",
        )
        + &route(
            "owned",
            &["record"],
            "name = \"mine\"\naccept_claimed = true",
        );
    let daemon = Daemon::start(&text)?;
    let lost = |arguments: &[&str], says: &[&str]| send(&i, arguments)?.refused(says);
    let dead = "1 peer-dead at arm.go (process arm is not registered)";
    lost(
        &["bell", "--value", "1"],
        &["sent to bell and lost: route go: ", dead],
    )?;
    // One of two receivers had it.
    lost(&["twice", "--value", "1"], &["route both: ", dead])?;
    lost(&["owned", "--value", "1"], &["route mine: 1 origin"])?;
    lost(&["fast", "--text", "long"], &["route limited: 1 too-large"])?;
    // How many depends on how long a start of the tool takes.
    lost(
        &["fast", "--text", "x", "--count", "4"],
        &["route limited: ", " rate"],
    )?;
    // It is alive: the same message is delivered.
    let mut arm = Peer::ready_as(&i, "arm", &[rt(5)])?;
    send(&i, &["bell", "--value", "5"])?.well()?;
    ensure!(arm.values_for(rt(5), 1, 10_000)?[0] == 5);
    daemon.stop()?;
    Ok(())
}

/// What a killed rtd had counted is out of sight, and what it had in hand is lost.
fn a_daemon_that_is_killed_meanwhile_is_no_success() -> anyhow::Result<()> {
    let i = Instance::new()?;
    let daemon = Daemon::start(
        &(i.head() + &i.mqueue("in", "") + &i.mqueue("out", "") + &route("in", &["out"], "")),
    )?;
    daemon.freeze()?;
    let tool = Tool::start(i.rtctl_command(&["send", "in", "--text", "x", "--wait", "1"]))?;
    eventually(|| (held(&i.queue("in")).ok()? == 1).then_some(()))?;
    daemon.kill()?;
    tool.end()?
        .refused(&["sent to in, but rtd ended or was restarted before the outcome was known"])?;
    Ok(())
}

/// Of messages that wait nothing is known, and of losses among other senders' messages not whose
/// they are.
fn what_is_not_known_is_said() -> anyhow::Result<()> {
    let i = Instance::new()?;
    let text = i.head()
        + &i.mqueue("in", "")
        + &i.mqueue("out", "maxmsg = 1")
        + &route("in", &["out"], "name = \"r\"\ncapacity = 2");
    let daemon = Daemon::start(&text)?;
    let waits = send(&i, &["in", "--text", "x", "--count", "2", "--wait", "0.2"])?;
    ensure!(
        waits
            .err
            .contains("not known yet: rtd has taken 2 messages; waiting for a receiver: 1"),
        "{waits:?}"
    );
    ensure!(waits.well()? == "sent 2 to in\n");
    // Another sender's messages are in front of it: with one more place, two of the three find no
    // room.
    daemon.freeze()?;
    let mut other = Peer::sender(&i.queue("in"))?;
    other.stream(0, 2)?;
    let tool = Tool::start(i.rtctl_command(&["send", "in", "--text", "x", "--wait", "30"]))?;
    eventually(|| (held(&i.queue("in")).ok()? == 3).then_some(()))?;
    daemon.signal(Signal::SIGCONT)?;
    i.until("all taken", |s| s.routes[0].ledger.accepted == 5)?;
    // What is queued is settled when the receiver reads.
    let mut reader = reader(&i, "out")?;
    reader.receive_for(3, 10_000)?;
    let says = [
        "of 3 messages that rtd took in the meantime, 1 of them from here",
        "2 full at out",
        "not known",
    ];
    tool.end()?.refused(&says)?;
    daemon.stop()?;
    Ok(())
}
