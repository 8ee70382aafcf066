//! Queues that others have a hand in: made before rtd, removed under it, shared with another
//! instance.

use crate::util::book::End::{Delivered, Queued};
use crate::util::needs::SECOND_USER;
use crate::util::order;
use crate::util::tool::{NOBODY, as_nobody};
use crate::util::{Daemon, Instance, Peer, exists, held, route, status};
use anyhow::{Context as _, ensure};

tests![
    a_strangers_queue_is_not_adopted needs(SECOND_USER),
    an_adopted_queue_gets_the_configured_mode,
    messages_lost_with_a_queue_are_logged,
    a_queue_removed_under_rtd_is_logged,
    a_queue_has_one_reader,
    a_shared_queue_goes_with_its_last_user,
];

/// `in` to `out`; `daemon` and `source` add keys.
fn config(instance: &Instance, daemon: &str, source: &str) -> String {
    instance
        .head()
        .replace("[daemon]", &format!("[daemon]\n{daemon}"))
        + &instance.mqueue("in", source)
        + &instance.mqueue("out", "")
        + &route("in", &["out"], "")
}

/// Why a daemon did not start.
fn refusal(config: &str) -> anyhow::Result<String> {
    Ok(format!(
        "{:#}",
        Daemon::start(config).err().context("it started")?
    ))
}

/// Who made a queue can change its mode and read and write it whatever the configuration says.
fn a_strangers_queue_is_not_adopted() -> anyhow::Result<()> {
    let i = Instance::new()?;
    let mut stranger = Peer::start_with(|c| _ = as_nobody(c))?;
    stranger.tell(order::Queue::Create {
        name: &i.queue("in"),
        mode: 0o666,
    })?;
    stranger.send(0, b"forged")?;
    let said = refusal(&config(&i, "", "mode = \"0600\""))?;
    ensure!(
        said.contains(&format!("belongs to uid {NOBODY}")) && said.contains("rtctl queue rm"),
        "{said}"
    );
    ensure!(
        held(&i.queue("in"))? == 1 && status(&i.queue("in"))?.mode == 0o666,
        "it was touched"
    );
    Ok(())
}

/// A mode that was changed in the file is the queue's after the next start.
fn an_adopted_queue_gets_the_configured_mode() -> anyhow::Result<()> {
    let i = Instance::new()?;
    Daemon::start(&config(&i, "", "mode = \"0666\""))?.stop()?;
    ensure!(status(&i.queue("in"))?.mode == 0o666);
    let log = Daemon::start(&config(&i, "", "mode = \"0600\""))?.stop()?;
    ensure!(status(&i.queue("in"))?.mode == 0o600);
    ensure!(
        log.contains("mode 0666 changed to 0600") && log.contains("keeps it open"),
        "{log}"
    );
    let log = Daemon::start(&config(&i, "", "mode = \"0600\""))?.stop()?;
    ensure!(!log.contains("changed to"), "{log}");
    Ok(())
}

/// A source that goes with the daemon while messages are in it: how many is said, as a warning.
fn messages_lost_with_a_queue_are_logged() -> anyhow::Result<()> {
    let i = Instance::new()?;
    let keys = "drain = \"0ms\"\nkeep_queues = false";
    let config = config(&i, keys, "").replace(
        "lane = \"lane\"\n",
        "lane = \"lane\"\ncapacity = 1\noverflow = \"block:10s\"\n",
    );
    let daemon = Daemon::start(&config)?;
    Peer::sender(&i.queue("in"))?.stream(0, 18)?;
    // Ten delivered, one queued, one in hand: six stay in the source.
    i.ledger_is("in->out", 12, &[(Delivered, 10), (Queued, 2)])?;
    ensure!(held(&i.queue("in"))? == 6);
    let log = daemon.stop()?;
    let taken = log
        .split_once("accepted ")
        .and_then(|(_, rest)| rest.split_once(' '))
        .context("no ledger")?;
    let left = 18 - taken.0.parse::<usize>()?;
    ensure!(left > 0, "nothing was left: {log}");
    let told = |queue: &str, n: usize| {
        format!(
            "removed message queue {} with {} in it",
            i.queue(queue),
            rtd::words::counted(n, "message")
        )
    };
    ensure!(
        log.contains(&told("in", left)) && log.contains("that no lane took: lost"),
        "{log}"
    );
    ensure!(log.contains(&told("out", 10)), "{log}");
    ensure!(!exists(&i.queue("in"))? && !exists(&i.queue("out"))?);
    Ok(())
}

/// A program that removes a queue and makes it anew, as many do when they start, cuts itself off:
/// said once for each change, and the new queue outlives rtd's stop.
fn a_queue_removed_under_rtd_is_logged() -> anyhow::Result<()> {
    let i = Instance::new()?;
    let daemon = Daemon::start(&config(&i, "keep_queues = false", ""))?;
    let mut legacy = Peer::start()?;
    legacy.tell(order::Queue::Unlink(&i.queue("in")))?;
    daemon.logged("no program can open it any more")?;
    legacy.tell(order::Queue::Create {
        name: &i.queue("in"),
        mode: 0o600,
    })?;
    daemon.logged("another queue has the name now")?;
    let log = daemon.stop()?;
    ensure!(log.matches("was removed (mq_unlink)").count() == 2, "{log}");
    ensure!(log.contains("restart rtd"), "{log}");
    ensure!(
        exists(&i.queue("in"))? && !exists(&i.queue("out"))?,
        "it removed what is not its own"
    );
    Ok(())
}

/// Two instances that read one queue would split its messages: the second is refused and changes
/// nothing.
fn a_queue_has_one_reader() -> anyhow::Result<()> {
    let (first, second) = (Instance::new()?, Instance::new()?);
    let text = config(&first, "keep_queues = false", "mode = \"0660\"");
    let daemon = Daemon::start(&text)?;
    let other = text
        .replace(&first.socket(), &second.socket())
        .replace(
            &format!("name = \"{}\"", first.name),
            &format!("name = \"{}\"", second.name),
        )
        .replace("0660", "0600");
    let said = refusal(&other)?;
    let holder = format!(
        "is read by rtd instance `{}` (pid {})",
        first.name,
        daemon.pid()
    );
    ensure!(
        said.contains(&holder) && said.contains("a queue of its own"),
        "{said}"
    );
    ensure!(
        status(&first.queue("in"))?.mode == 0o660,
        "the refused one changed the mode"
    );
    Peer::sender(&first.queue("in"))?.stream(0, 5)?;
    ensure!(Peer::receiver(&first.queue("out"))?.numbers(5)? == [0, 1, 2, 3, 4]);
    // With a killed reader its lock is gone.
    daemon.kill()?;
    Daemon::start(&other)?.stop()?;
    Ok(())
}

/// A queue that one instance writes and another reads: who stops first leaves it to the other.
fn a_shared_queue_goes_with_its_last_user() -> anyhow::Result<()> {
    let (first, second) = (Instance::new()?, Instance::new()?);
    let keys = "[daemon]\nkeep_queues = false";
    let between = first.mqueue("between", "");
    let upper = first.head().replace("[daemon]", keys)
        + &first.mqueue("in", "")
        + &between
        + &route("in", &["between"], "");
    let lower = second.head().replace("[daemon]", keys)
        + &between
        + &second.mqueue("out", "")
        + &route("between", &["out"], "");
    let writer = Daemon::start(&upper)?;
    let reader = Daemon::start(&lower)?;
    Peer::sender(&first.queue("in"))?.stream(0, 5)?;
    ensure!(Peer::receiver(&second.queue("out"))?.numbers(5)? == [0, 1, 2, 3, 4]);
    let log = writer.stop()?;
    ensure!(
        log.contains("stays: another rtd uses it") && exists(&first.queue("between"))?,
        "{log}"
    );
    reader.stop()?;
    ensure!(!exists(&first.queue("between"))?);
    Ok(())
}
