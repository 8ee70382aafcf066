//! Stale messages: thrown away at a start where the configuration says so, and by hand, and always
//! counted.

use crate::util::book::End::Delivered;
use crate::util::needs::SECOND_USER;
use crate::util::session::lane_end;
use crate::util::tool::{as_nobody, run};
use crate::util::{Daemon, Instance, Peer, held, process, route};
use anyhow::ensure;

tests![
    stale_messages_go_at_a_start_where_the_file_says_so,
    a_refused_start_flushes_nothing,
    by_hand_it_counts,
    the_kernel_decides_who_may_flush needs(SECOND_USER),
];

fn config(i: &Instance, flush: &str) -> String {
    i.head()
        + &process("panel")
        + &i.mqueue("in", flush)
        + &i.mqueue("out", flush)
        + &i.mqueue("kept.in", "")
        + &i.mqueue("kept.out", "")
        + &lane_end("talk", "panel", "msgsize = 64")
        + &route("in", &["out"], "")
        + &route("kept.in", &["kept.out"], "")
        + &route("talk", &["kept.out"], "name = \"talk\"")
}

/// What waits for rtd and what waits for a receiver goes, the rest stays; the ledger begins with
/// what comes afterwards.
fn stale_messages_go_at_a_start_where_the_file_says_so() -> anyhow::Result<()> {
    let i = Instance::new()?;
    let first = Daemon::start(&config(&i, ""))?;
    for (from, to) in [("in", "in->out"), ("kept.in", "kept.in->kept.out")] {
        Peer::sender(&i.queue(from))?.stream(0, 2)?;
        i.ledger_is(to, 2, &[(Delivered, 2)])?;
    }
    first.kill()?;
    for from in ["in", "kept.in"] {
        Peer::sender(&i.queue(from))?.stream(2, 3)?;
    }
    let daemon = Daemon::start(&config(&i, "flush_at_start = true"))?;
    for (queue, waited) in [("in", 3), ("out", 2)] {
        let name = i.queue(queue);
        daemon.logged(&format!(
            "adopted message queue {name} (maxmsg 10) with {waited} messages"
        ))?;
        daemon.logged(&format!("message queue {name}: flushed {waited} message"))?;
    }
    i.ledger_is("kept.in->kept.out", 3, &[(Delivered, 3)])?;
    ensure!(
        held(&i.queue("kept.out"))? == 5,
        "what is not to be flushed was"
    );
    Peer::sender(&i.queue("in"))?.stream(7, 1)?;
    i.ledger_is("in->out", 1, &[(Delivered, 1)])?;
    ensure!(Peer::receiver(&i.queue("out"))?.numbers(1)? == [7]);
    let log = daemon.stop()?;
    ensure!(log.matches("flushed").count() == 2, "{log}");
    Ok(())
}

/// A start that is refused has thrown nothing away: its queues are read by another instance.
fn a_refused_start_flushes_nothing() -> anyhow::Result<()> {
    let (i, other) = (Instance::new()?, Instance::new()?);
    let config = |of: &Instance| {
        let queues = |text: String| {
            text.replace(&format!("/rtd-{}.", of.name), &format!("/rtd-{}.", i.name))
        };
        queues(config(of, "flush_at_start = true"))
    };
    let daemon = Daemon::start(&config(&i))?;
    let mut sender = Peer::sender(&i.queue("in"))?;
    sender.stream(0, 2)?;
    i.ledger_is("in->out", 2, &[(Delivered, 2)])?;
    let refused = Daemon::start(&config(&other))
        .map(drop)
        .unwrap_err()
        .to_string();
    ensure!(refused.contains("is read by rtd instance"), "{refused}");
    ensure!(
        held(&i.queue("out"))? == 2,
        "the refused start took messages"
    );
    daemon.stop()?;
    Ok(())
}

/// A user that may not read the queue may not flush it.
fn the_kernel_decides_who_may_flush() -> anyhow::Result<()> {
    let i = Instance::new()?;
    let daemon = Daemon::start(&config(&i, ""))?;
    Peer::sender(&i.queue("in"))?.stream(0, 4)?;
    i.ledger_is("in->out", 4, &[(Delivered, 4)])?;
    let mut stranger = i.rtctl_command(&["flush", "out"]);
    as_nobody(&mut stranger);
    let said = run(stranger)?;
    ensure!(
        said.code() != Some(0) && held(&i.queue("out"))? == 4,
        "{said:?}"
    );
    daemon.stop()?;
    Ok(())
}

fn by_hand_it_counts() -> anyhow::Result<()> {
    let i = Instance::new()?;
    let daemon = Daemon::start(&config(&i, ""))?;
    Peer::sender(&i.queue("in"))?.stream(0, 4)?;
    i.ledger_is("in->out", 4, &[(Delivered, 4)])?;
    let flushed = run(i.rtctl_command(&["flush", "out"]))?.well()?;
    ensure!(
        flushed == format!("flushed 4 messages from out ({})\n", i.queue("out")),
        "{flushed}"
    );
    let by = format!(
        "(uid {}) flushed 4 messages that waited in it (rtctl flush out)",
        rtcore::sys::accounts::own_uid()
    );
    daemon.logged(&format!("message queue {}: pid ", i.queue("out")))?;
    daemon.logged(&by)?;
    let again = run(i.rtctl_command(&["flush", "out"]))?.well()?;
    ensure!(again.starts_with("flushed 0 messages from out"), "{again}");
    i.ledger_is("in->out", 4, &[(Delivered, 4)])?;
    // What rtd has not taken never was in a ledger.
    daemon.freeze()?;
    Peer::sender(&i.queue("in"))?.stream(4, 3)?;
    let flushed = run(i.rtctl_command(&["flush", "in"]))?.well()?;
    ensure!(
        flushed.starts_with("flushed 3 messages from in"),
        "{flushed}"
    );
    ensure!(
        !daemon.log().contains("(rtctl flush in)"),
        "a frozen rtd wrote its log"
    );
    daemon.signal(nix::sys::signal::Signal::SIGCONT)?;
    // The report waited for it.
    daemon.logged("flushed 3 messages that waited in it (rtctl flush in)")?;
    Peer::sender(&i.queue("in"))?.stream(7, 1)?;
    i.ledger_is("in->out", 5, &[(Delivered, 5)])?;
    run(i.rtctl_command(&["flush", "talk"]))?.refused(&["talk has no message queue"])?;
    run(i.rtctl_command(&["flush", "nowhere"]))?.refused(&["has no endpoint nowhere"])?;
    let log = daemon.stop()?;
    ensure!(
        log.matches("that waited in it (rtctl flush").count() == 2,
        "{log}"
    );
    Ok(())
}
