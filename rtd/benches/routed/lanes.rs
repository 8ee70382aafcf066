//! Shared memory: lanes through the daemon and from process to process.
//!
//! One process ("bench") sends; receivers are this binary started again, each with a session of its own. Where the
//! daemon's lane or the receiver polls, it has the other CPU to itself.

use crate::Effort;
use crate::daemon::{Daemon, route};
use crate::echo::{self, Ages, Tally};
use crate::path::{BLOCK, Entry, LANE_PRIORITY, OwnQueue, Path, QUIT, Receiver, WARM_UP, compare, print};
use crate::scenarios::{instance, name, raw_mq};
use anyhow::{Context as _, bail};
use rtcore::client::{Inbox, Incoming, SendError, Sender, Session};
use rtcore::lane::policy::Wait;
use rtcore::sys::mqueue::Access;
use rtcore::sys::{clock, sched};

/// A daemon with the lanes that a scenario needs.
struct Rig {
    socket: String,
    _daemon: Daemon,
    session: Session,
}

/// `lane` is its `wait` and more.
fn start(part: &str, cpu: usize, lane: &str, rest: &str) -> anyhow::Result<Rig> {
    let instance = instance(part);
    let socket = format!("/tmp/rtd-bench/{instance}.sock");
    let config = format!(
        "[daemon]\nname = \"{instance}\"\nsocket = \"{socket}\"\nkeep_queues = false\n\
         [[lane]]\nname = \"lane\"\npriority = {LANE_PRIORITY}\ncpu = {cpu}\n{lane}\n\
         [[process]]\nname = \"bench\"\nabove_ceiling = \"warn\"\n{rest}"
    );
    let _daemon = Daemon::start(&config)?;
    let session = Session::builder("bench").socket(&socket).connect()?;
    Ok(Rig { socket, _daemon, session })
}

/// A lane endpoint.
pub fn endpoint(name: &str, owner: &str, maxmsg: usize, msgsize: usize) -> String {
    format!(
        "[[endpoint]]\nname = \"{name}\"\nkind = \"lane\"\nowner = \"{owner}\"\nmaxmsg = {maxmsg}\nmsgsize = {msgsize}\n"
    )
}

fn process(name: &str) -> String {
    format!("[[process]]\nname = \"{name}\"\nabove_ceiling = \"warn\"\n")
}

/// Out of the sender's endpoint `from`, into the inbox of a receiver process.
fn lane_path(title: &'static str, rig: &Rig, from: &str, to: &str, effort: &Effort) -> anyhow::Result<Path> {
    let ack = OwnQueue::new(name(&format!("ack-{to}")))?;
    let (cpu, priority) = (effort.cpu.to_string(), effort.receiver.to_string());
    let receiver = Receiver::start(&["lane", to, &ack.name, &cpu, &priority, &rig.socket])?;
    Ok(Path {
        name: title,
        entry: Entry::lane(ready(rig.session.sender(from)?)?),
        ack: echo::open(&ack.name, Access::Receive)?,
        receivers: vec![receiver],
        queues: vec![ack],
    })
}

/// Everybody sleeps until woken, on one CPU, at one priority.
pub fn blocking(effort: &Effort) -> anyhow::Result<()> {
    let equal = Effort { sender: LANE_PRIORITY, receiver: LANE_PRIORITY, ..*effort };
    sched::set_fifo(equal.sender)?;
    let rest = process("routed")
        + &process("direct")
        + &process("eight")
        + &endpoint("in", "bench", 64, 64)
        + &endpoint("out", "routed", 64, 64)
        + &route("in", "out", "")
        + &endpoint("din", "bench", 64, 64)
        + &endpoint("dout", "direct", 64, 64)
        + &route("din", "dout", "path = \"direct\"")
        // The floor: a process that takes from one direct lane and sends into another, nothing else.
        + &process("relay")
        + &process("relayed")
        + &endpoint("rin", "bench", 64, 64)
        + &endpoint("rtaken", "relay", 64, 64)
        + &route("rin", "rtaken", "path = \"direct\"")
        + &endpoint("rsent", "relay", 64, 64)
        + &endpoint("rout", "relayed", 64, 64)
        + &route("rsent", "rout", "path = \"direct\"")
        // An inbox with eight rings of the daemon sleeps at one bell.
        + &(0..8).map(|n| endpoint(&format!("in{n}"), "bench", 64, 64)).collect::<String>()
        + &endpoint("out8", "eight", 64, 64)
        + &(0..8).map(|n| route(&format!("in{n}"), "out8", "")).collect::<String>();
    let rig = start("lanes", effort.cpu, "", &rest)?;
    let (cpu, priority) = (equal.cpu.to_string(), equal.receiver.to_string());
    let relay = Receiver::start(&["relay", "rsent", "-", &cpu, &priority, &rig.socket])?;
    let paths = vec![
        raw_mq(&equal)?,
        lane_path("bare relay, direct -> direct (the floor)", &rig, "rin", "relayed", &equal)?,
        lane_path("lane routed", &rig, "in", "routed", &equal)?,
        lane_path("lane routed, 8 rings in the inbox", &rig, "in3", "eight", &equal)?,
        lane_path("lane direct", &rig, "din", "direct", &equal)?,
    ];
    let done = compare("lanes, all block, one CPU (aims: routed <= 1.6 x, direct <= 1.0 x)", paths, &equal);
    sched::set_fifo(effort.sender)?;
    done.map(drop)?;
    relay.kill()
}

/// Whoever polls has a CPU: the lane in the first row, the receiver in the second.
pub fn polling(effort: &Effort) -> anyhow::Result<()> {
    let Some(other) = other_cpu(effort) else { return Ok(()) };
    let rest = endpoint("in", "bench", 64, 64)
        + &endpoint("out", "bench", 64, 64)
        + &route("in", "out", "")
        + &process("far")
        + &endpoint("ask", "bench", 64, 64)
        + &endpoint("asked", "far", 64, 64)
        + &route("ask", "asked", "path = \"direct\"")
        + &endpoint("answer", "far", 64, 64)
        + &endpoint("answered", "bench", 64, 64)
        + &route("answer", "answered", "path = \"direct\"");
    let rows = [routed_polling(&rest, other, effort)?, direct_polling(&rest, other, effort)?];
    print("polling, lane or receiver on the other CPU (aims: routed <= 1 us, direct <= 0.15 us)", &rows);
    Ok(())
}

fn routed_polling(rest: &str, other: usize, effort: &Effort) -> anyhow::Result<(&'static str, Ages)> {
    let rig = start("poll", other, "wait = \"poll\"\nunisolated = true", rest)?;
    let (mut sender, mut inbox) = (rig.session.sender("in")?, rig.session.inbox_of(&["out"])?);
    inbox.set_wait(Wait::Poll);
    let mut tally = Tally::new()?;
    for _ in 0..effort.rounds {
        for n in 0..effort.block + 10 {
            let sent = clock::monotonic_ns();
            sender.try_send(&[0; 64]).map_err(|e| anyhow::anyhow!("{e:?}"))?;
            let arrived = next(&mut inbox)?;
            if n >= 10 {
                tally.note(arrived.saturating_sub(sent));
            }
        }
        tally.close()?;
    }
    Ok(("lane routed, sender and receiver one thread", tally.finish()?))
}

fn direct_polling(rest: &str, other: usize, effort: &Effort) -> anyhow::Result<(&'static str, Ages)> {
    let rig = start("pold", effort.cpu, "", rest)?;
    let (cpu, priority) = (other.to_string(), effort.receiver.to_string());
    let receiver = Receiver::start(&["far", "far", "-", &cpu, &priority, &rig.socket])?;
    let (mut ask, mut inbox) = (ready(rig.session.sender("ask")?)?, rig.session.inbox_of(&["answered"])?);
    inbox.set_wait(Wait::Poll);
    let mut once = |stamp: u64| -> anyhow::Result<()> {
        push(&mut ask, &stamp.to_ne_bytes())?;
        next(&mut inbox).map(drop)
    };
    for _ in 0..effort.rounds {
        for _ in 0..10 {
            once(WARM_UP)?;
        }
        for _ in 0..effort.block {
            once(clock::monotonic_ns())?;
        }
        once(BLOCK)?;
    }
    push(&mut ask, &QUIT.to_ne_bytes())?;
    Ok(("lane direct, both poll", receiver.finish()?))
}

/// A spinning lane on the other CPU that serves 64 rings and sleeps, as it does after 20 us without a message: the time
/// until the inbox has one message out of one of the rings, and until it has one out of each.
pub fn spinning(effort: &Effort) -> anyhow::Result<()> {
    const RINGS: usize = 64;
    let Some(other) = other_cpu(effort) else { return Ok(()) };
    let rest = (0..RINGS).map(|n| endpoint(&format!("in{n}"), "bench", 64, 64)).collect::<String>()
        + &endpoint("out", "bench", RINGS, 64)
        + &(0..RINGS).map(|n| route(&format!("in{n}"), "out", "")).collect::<String>();
    let rig = start("spin", other, "wait = \"spin:20\"\nunisolated = true", &rest)?;
    let senders = (0..RINGS).map(|n| Ok(rig.session.sender(&format!("in{n}"))?));
    let mut senders = senders.collect::<anyhow::Result<Vec<Sender>>>()?;
    let mut inbox = rig.session.inbox_of(&["out"])?;
    inbox.set_wait(Wait::Poll);
    let mut row = |title, rings: usize| -> anyhow::Result<_> {
        let mut tally = Tally::new()?;
        for _ in 0..effort.rounds {
            for n in 0..effort.block + 10 {
                let asleep = clock::monotonic_ns() + 100_000;
                while clock::monotonic_ns() < asleep {}
                let sent = clock::monotonic_ns();
                senders[..rings].iter_mut().try_for_each(|sender| push(sender, &[0; 64]))?;
                let arrived = (0..rings).try_fold(0, |_, _| next(&mut inbox))?;
                if n >= 10 {
                    tally.note(arrived.saturating_sub(sent));
                }
            }
            tally.close()?;
        }
        Ok((title, tally.finish()?))
    };
    let rows = [row("one ring of 64", 1)?, row("one message of each of 64 rings", RINGS)?];
    print("a spinning lane on the other CPU, 64 rings", &rows);
    Ok(())
}

/// Messages a second, sender and receiver on different CPUs; the routed row's lane polls on the other CPU, and its
/// sender and receiver are one thread.
pub fn throughput(effort: &Effort) -> anyhow::Result<()> {
    let Some(other) = other_cpu(effort) else { return Ok(()) };
    println!("\nthroughput, other CPU (aims at 64 B: direct >= 15 M/s, routed >= 4 M/s)");
    println!("{:<44} {:>10} {:>10} {:>10}", "path", "M/s median", "lowest", "highest");
    for (title, bytes, batch) in [
        ("lane direct, 64 B, one by one", 64, 1),
        ("lane direct, 64 B, in batches of 16", 64, 16),
        ("lane direct, 4 KiB, one by one", 4096, 1),
    ] {
        let rest = process("far")
            + &endpoint("ask", "bench", 1024, bytes)
            + &endpoint("asked", "far", 1024, bytes)
            + &route("ask", "asked", "path = \"direct\"");
        let rates = (0..runs(effort)).map(|_| direct_rate(&rest, other, effort, bytes, batch));
        show(title, rates.collect::<anyhow::Result<Vec<f64>>>()?);
    }
    let rest =
        endpoint("in", "bench", 1024, 64) + &endpoint("out", "bench", 1024, 64) + &route("in", "out", "");
    let rates = (0..runs(effort)).map(|_| routed_rate(&rest, other, effort));
    show("lane routed, polling lane, 64 B", rates.collect::<anyhow::Result<Vec<f64>>>()?);
    Ok(())
}

fn runs(effort: &Effort) -> usize {
    if effort.rounds > 20 { 7 } else { 3 }
}

fn messages(effort: &Effort, bytes: usize) -> u64 {
    let all = if effort.rounds > 20 { 10_000_000 } else { 1_000_000 };
    if bytes > 64 { all / 10 } else { all }
}

fn direct_rate(rest: &str, other: usize, effort: &Effort, bytes: usize, batch: usize) -> anyhow::Result<f64> {
    let rig = start("rate", effort.cpu, "", rest)?;
    let count = messages(effort, bytes);
    let (cpu, priority) = (other.to_string(), effort.receiver.to_string());
    let receiver = Receiver::start(&["sink", "far", "-", &cpu, &priority, &rig.socket, &count.to_string()])?;
    let mut sender = ready(rig.session.sender("ask")?)?;
    let payload = vec![1; bytes];
    let many: Vec<&[u8]> = vec![&payload; batch];
    let mut sent = 0;
    while sent < count {
        if batch == 1 {
            push(&mut sender, &payload)?;
            sent += 1;
        } else {
            let left = usize::try_from(count - sent)?.min(batch);
            sent += sender.send_batch(many[..left].iter().copied()).sent as u64;
        }
    }
    let ns = receiver.finish()?.all.max();
    Ok(count as f64 * 1e3 / ns as f64)
}

fn routed_rate(rest: &str, other: usize, effort: &Effort) -> anyhow::Result<f64> {
    let rig = start("rrate", other, "wait = \"poll\"\nunisolated = true\ncapacity = 64", rest)?;
    let (mut sender, mut inbox) = (rig.session.sender("in")?, rig.session.inbox_of(&["out"])?);
    let (count, payload) = (messages(effort, 64), [1; 64]);
    let (mut sent, mut taken) = (0, 0);
    let begin = clock::monotonic_ns();
    // Never more under way than the rings hold: a full receiver is another measurement.
    while taken < count {
        for _ in 0..64 {
            if sent < count && sent - taken < 960 && sender.try_send(&payload).is_ok() {
                sent += 1;
            }
        }
        while let Some(incoming) = inbox.try_recv().map_err(|e| anyhow::anyhow!("{e}"))? {
            taken += u64::from(matches!(incoming, Incoming::Message(_)));
        }
    }
    Ok(count as f64 * 1e3 / (clock::monotonic_ns() - begin) as f64)
}

fn show(title: &str, mut rates: Vec<f64>) {
    rates.sort_by(f64::total_cmp);
    let at = |n: usize| rates.get(n).copied().unwrap_or(f64::NAN);
    println!("{title:<44} {:>10.1} {:>10.1} {:>10.1}", at(rates.len() / 2), at(0), at(rates.len() - 1));
}

/// The same hop in a daemon with two sessions and in one with 64.
pub fn clients(effort: &Effort) -> anyhow::Result<()> {
    const MANY: usize = 64;
    let equal = Effort { sender: LANE_PRIORITY, receiver: LANE_PRIORITY, ..*effort };
    sched::set_fifo(equal.sender)?;
    let hop = process("receiver")
        + &endpoint("in", "bench", 64, 64)
        + &endpoint("out", "receiver", 64, 64)
        + &route("in", "out", "");
    let idle = |n: usize| {
        process(&format!("idle{n}"))
            + &endpoint(&format!("i{n}"), &format!("idle{n}"), 64, 64)
            + &endpoint(&format!("o{n}"), &format!("idle{n}"), 64, 64)
            + &route(&format!("i{n}"), &format!("o{n}"), "")
    };
    let two = start("two", effort.cpu, "", &hop)?;
    let many = start("many64", effort.cpu, "", &(hop + &(2..MANY).map(idle).collect::<String>()))?;
    let sessions = (2..MANY)
        .map(|n| Session::builder(&format!("idle{n}")).socket(&many.socket).connect())
        .collect::<Result<Vec<_>, _>>()?;
    let paths = vec![
        lane_path("2 registered clients", &two, "in", "receiver", &equal)?,
        lane_path("64 registered clients", &many, "in", "receiver", &equal)?,
    ];
    let done = compare("cost per message by number of clients (aim: <= 1.1 x)", paths, &equal);
    drop(sessions);
    sched::set_fifo(effort.sender)?;
    done.map(drop)
}

/// A sender that reaches somebody.
fn ready(mut sender: Sender) -> anyhow::Result<Sender> {
    let receiver = sender.wait_for_receiver(clock::monotonic_ns() + 5_000_000_000);
    receiver.map_err(|e| anyhow::anyhow!("nobody receives: {e}"))?;
    Ok(sender)
}

/// The CPU that this bench does not use.
fn other_cpu(effort: &Effort) -> Option<usize> {
    let allowed = rtcore::sys::cpus::allowed().ok()?;
    let other = allowed.into_iter().find(|cpu| *cpu != effort.cpu);
    if other.is_none() {
        println!("\nskipped: polling and throughput need a second CPU");
    }
    other
}

/// Sends, however long it takes.
fn push(sender: &mut Sender, bytes: &[u8]) -> anyhow::Result<()> {
    loop {
        match sender.try_send(bytes) {
            Ok(_) => return Ok(()),
            Err(SendError::Full { .. }) => std::hint::spin_loop(),
            Err(e) => bail!("cannot send: {e:?}"),
        }
    }
}

/// When the next message was received.
fn next(inbox: &mut Inbox) -> anyhow::Result<u64> {
    loop {
        match inbox.recv().context("no message")? {
            Incoming::Message(message) => return Ok(message.received_ns()),
            Incoming::Event(_) => {}
        }
    }
}
