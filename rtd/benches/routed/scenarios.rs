//! What is measured: one function a table.

use crate::Effort;
use crate::daemon::{Daemon, head, mqueue, route};
use crate::echo::open;
use crate::path::{Entry, LANE_PRIORITY, OwnQueue, Path, Receiver, compare};
use anyhow::Context as _;
use rtcore::sys::mqueue::Access;
use rtcore::sys::sched;

/// A queue of this run.
pub fn name(part: &str) -> String {
    format!("/rtd-bench-{}.{part}", std::process::id())
}

/// A daemon of this run.
pub fn instance(part: &str) -> String {
    format!("bench-{}-{part}", std::process::id())
}

/// Queue -> receiver, with its acknowledgement queue. `from` is made here when it is the bench's own.
fn mq_path(title: &'static str, entry: &str, from: &str, own: bool, effort: &Effort) -> anyhow::Result<Path> {
    let mut queues = vec![OwnQueue::new(format!("{from}-ack"))?];
    if own {
        queues.push(OwnQueue::new(from.to_owned())?);
    }
    let receiver = Receiver::start(&[
        "mq",
        from,
        &queues[0].name,
        &effort.cpu.to_string(),
        &effort.receiver.to_string(),
    ])?;
    let ack = open(&queues[0].name, Access::Receive)?;
    Ok(Path { name: title, entry: Entry::queue(entry)?, ack, receivers: vec![receiver], queues })
}

/// What everything is compared with.
pub fn raw_mq(effort: &Effort) -> anyhow::Result<Path> {
    let queue = name("raw");
    mq_path("raw mq", &queue, &queue, true, effort)
}

/// Everything at FIFO 80, as the floor in the design was measured: nobody preempts, each runs when the one
/// before it blocks.
pub fn hops_at_equal_priority(effort: &Effort) -> anyhow::Result<()> {
    let equal = Effort { sender: LANE_PRIORITY, receiver: LANE_PRIORITY, ..*effort };
    sched::set_fifo(equal.sender)?;
    let done = one_hop("one hop, all at FIFO 80 (aims: mq -> mq <= 2.0 x, mq -> signal <= 2.3 x)", &equal);
    sched::set_fifo(effort.sender)?;
    done
}

/// Clients below the lane, which then preempts the sender inside its send.
pub fn hops(effort: &Effort) -> anyhow::Result<()> {
    one_hop("one hop, lane FIFO 80 above clients at 70", effort)
}

/// Raw mq and signal, and the same through the daemon.
fn one_hop(title: &str, effort: &Effort) -> anyhow::Result<()> {
    let instance = instance("hops");
    let config = head(&instance, effort.cpu, LANE_PRIORITY)
        + "[[process]]\nname = \"receiver\"\n"
        + &mqueue("in", &name("in"), 8)
        + &mqueue("out", &name("out"), 8)
        + &mqueue("in2", &name("in2"), 8)
        + "[[endpoint]]\nname = \"sig\"\nkind = \"signal\"\nowner = \"receiver\"\nsignal = \"SIGRTMIN+5\"\n"
        + &route("in", "out", "")
        + &route("in2", "sig", "truncate = true");
    let _daemon = Daemon::start(&config)?;
    let (cpu, priority) = (effort.cpu.to_string(), effort.receiver.to_string());
    let raw_signal_ack = OwnQueue::new(name("ack-s"))?;
    let raw_signal = Receiver::start(&["signal", "-", &raw_signal_ack.name, &cpu, &priority])?;
    let routed_signal_ack = OwnQueue::new(name("ack-rs"))?;
    let socket = format!("/tmp/rtd-bench/{instance}.sock");
    let routed_signal =
        Receiver::start(&["signal", "receiver", &routed_signal_ack.name, &cpu, &priority, &socket])?;
    let (floor_in, floor_out) = (OwnQueue::new(name("floor-in"))?, OwnQueue::new(name("floor-out"))?);
    let floor_router = Receiver::start(&["router", &floor_in.name, &floor_out.name, &cpu, &priority])?;
    let paths = vec![
        raw_mq(effort)?,
        mq_path("bare router mq -> mq (the floor)", &floor_in.name, &floor_out.name, false, effort)?,
        Path {
            name: "raw sigqueue",
            entry: Entry::Signal(raw_signal.pid()),
            ack: open(&raw_signal_ack.name, Access::Receive)?,
            receivers: vec![raw_signal],
            queues: vec![raw_signal_ack],
        },
        mq_path("routed mq -> mq", &name("in"), &name("out"), false, effort)?,
        Path {
            name: "routed mq -> signal",
            entry: Entry::queue(&name("in2"))?,
            ack: open(&routed_signal_ack.name, Access::Receive)?,
            receivers: vec![routed_signal],
            queues: vec![routed_signal_ack],
        },
    ];
    compare(title, paths, effort)?;
    floor_router.kill()
}

/// The same route alone in its daemon and among 500.
pub fn many_routes(effort: &Effort) -> anyhow::Result<()> {
    const ROUTES: usize = 500;
    let raised = QueuesMax::raise(ROUTES + 100);
    if let Err(e) = &raised {
        println!("\nskipped: {ROUTES} routes need fs.mqueue.queues_max > {ROUTES}: {e:#}");
        return Ok(());
    }
    let one = head(&instance("one"), effort.cpu, LANE_PRIORITY)
        + &mqueue("in", &name("1in"), 8)
        + &mqueue("out", &name("1out"), 8)
        + &route("in", "out", "");
    let mut many = head(&instance("many"), effort.cpu, LANE_PRIORITY)
        + &mqueue("in", &name("500in"), 8)
        + &mqueue("out", &name("500out"), 8);
    for n in 1..ROUTES {
        many += &mqueue(&format!("in{n}"), &name(&format!("500in{n}")), 1);
        many += &route(&format!("in{n}"), "out", "capacity = 1");
    }
    many += &route("in", "out", "");
    let _one = Daemon::start(&one)?;
    let _many = Daemon::start(&many)?;
    let (kib, threads) = _many.resident()?;
    let paths = vec![
        mq_path("1 route", &name("1in"), &name("1out"), false, effort)?,
        mq_path("500 routes", &name("500in"), &name("500out"), false, effort)?,
    ];
    compare("cost per message by number of routes (aim: <= 1.1 x)", paths, effort)?;
    println!("500 routes: {kib} KiB resident, {threads} threads, READY after {:?}", _many.ready_after);
    Ok(())
}

/// One message to eight receivers: when the last one has it. The last hop is what a route adds to its first
/// hop, a raw mq: from the daemon to the receiver.
pub fn fan_out(effort: &Effort) -> anyhow::Result<()> {
    const WIDTH: usize = 8;
    let mut config = head(&instance("fan"), effort.cpu, LANE_PRIORITY)
        + &mqueue("in", &name("fin"), 8)
        + &mqueue("in1", &name("fin1"), 8)
        + &mqueue("out", &name("fout"), 8);
    let mut members = Vec::new();
    for n in 0..WIDTH {
        config += &mqueue(&format!("m{n}"), &name(&format!("fm{n}")), 8);
        members.push(format!("\"m{n}\""));
    }
    config += &format!("[[group]]\nname = \"all\"\nmode = \"all\"\nmembers = [{}]\n", members.join(", "));
    config += &route("in", "all", "");
    config += &route("in1", "out", "");
    let _daemon = Daemon::start(&config)?;
    let ack = OwnQueue::new(name("ack-fan"))?;
    let (cpu, priority) = (effort.cpu.to_string(), effort.receiver.to_string());
    let mut receivers = Vec::new();
    for n in 0..WIDTH {
        let tell = if n + 1 == WIDTH { ack.name.as_str() } else { "-" };
        receivers.push(Receiver::start(&["mq", &name(&format!("fm{n}")), tell, &cpu, &priority])?);
    }
    let fan = Path {
        name: "fan-out of 8, the last of them",
        entry: Entry::queue(&name("fin"))?,
        ack: open(&ack.name, Access::Receive)?,
        receivers,
        queues: vec![ack],
    };
    let paths =
        vec![raw_mq(effort)?, mq_path("routed mq -> mq", &name("fin1"), &name("fout"), false, effort)?, fan];
    let rows = compare("fan-out, lane FIFO 80 above clients at 70", paths, effort)?;
    let p50 = |row: usize| rows.get(row).map_or(0.0, |(_, ages)| ages.all.value_at_quantile(0.5) as f64);
    let last_hops = (p50(2) - p50(0)) / (p50(1) - p50(0));
    println!("from the daemon to the last of 8: {last_hops:.2} x the last hop of one (aim: <= 8)");
    Ok(())
}

/// Start to READY and resident memory with a small deployment's configuration.
pub fn start(effort: &Effort) -> anyhow::Result<()> {
    let demo = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../configs/demo-arm.toml"))?;
    let config = demo
        .replace("[daemon]\n", "[daemon]\nkeep_queues = false\n")
        .replace("cpu = 0", &format!("cpu = {}", effort.cpu));
    let mut times = Vec::new();
    let mut resident = (0, 0);
    for _ in 0..effort.rounds.min(20) {
        let daemon = Daemon::start(&config)?;
        times.push(daemon.ready_after);
        resident = daemon.resident()?;
    }
    times.sort();
    let (median, worst) = (times[times.len() / 2], times[times.len() - 1]);
    println!(
        "\nstart to READY with configs/demo-arm.toml (aim: < 50 ms): median {median:?}, worst {worst:?}"
    );
    println!("resident: {} KiB in {} threads, all of it locked", resident.0, resident.1);
    Ok(())
}

/// fs.mqueue.queues_max raised for the run, put back afterwards.
struct QueuesMax {
    before: Option<String>,
}

const QUEUES_MAX: &str = "/proc/sys/fs/mqueue/queues_max";

impl QueuesMax {
    fn raise(to: usize) -> anyhow::Result<QueuesMax> {
        let before = std::fs::read_to_string(QUEUES_MAX)?;
        if before.trim().parse::<usize>()? >= to {
            return Ok(QueuesMax { before: None });
        }
        std::fs::write(QUEUES_MAX, to.to_string()).context("cannot raise it")?;
        Ok(QueuesMax { before: Some(before) })
    }
}

impl Drop for QueuesMax {
    fn drop(&mut self) {
        if let Some(before) = &self.before {
            let _ = std::fs::write(QUEUES_MAX, before.trim());
        }
    }
}
