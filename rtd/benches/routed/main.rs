//! `cargo bench -p rtd --bench routed`: what a hop through rtd costs, as a ratio to a raw message queue in
//! the same run.
//!
//! Real processes: this binary plays the sender and, started again, each receiver; the daemon is the real
//! `rtd run`. Sender, receivers and lanes share one CPU. Paths take turns in blocks, so that a machine
//! whose speed drifts slows all of them alike. Latency is receive time minus the send stamp that travels
//! in the message.

mod daemon;
mod echo;
mod lanes;
mod path;
mod scenarios;

use rtcore::sys::sched;

/// What is measured how often; `--quick` for a look.
#[derive(Clone, Copy, Debug)]
pub struct Effort {
    /// Blocks per path.
    pub rounds: usize,
    /// Messages per block.
    pub block: usize,
    /// CPU everything shares.
    pub cpu: usize,
    /// FIFO priority of the sender.
    pub sender: u8,
    /// FIFO priority of the receivers.
    pub receiver: u8,
}

/// Measures and prints one table.
type Scenario = fn(&Effort) -> anyhow::Result<()>;

fn main() -> anyhow::Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    if let Some(at) = args.iter().position(|a| a == "--echo") {
        return echo::run(&args[at + 1..]);
    }
    let quick = args.iter().any(|a| a == "--quick");
    let only: Vec<&String> = args.iter().filter(|a| !a.starts_with("--")).collect();
    let wanted = |name: &str| only.is_empty() || only.iter().any(|o| name.contains(o.as_str()));
    let cpu = rtcore::sys::cpus::allowed()?.into_iter().max().unwrap_or(0);
    // Short blocks: the paths are compared turn by turn while the machine runs at one speed.
    let (rounds, block) = if quick { (20, 100) } else { (400, 100) };
    // Clients below the lane's ceiling, sender and receiver alike: a normal deployment.
    let effort = Effort { rounds, block, cpu, sender: 70, receiver: 70 };
    sched::pin(cpu)?;
    if sched::set_fifo(effort.sender).is_err() {
        println!(
            "skipped: needs CAP_SYS_NICE (or RLIMIT_RTPRIO): without SCHED_FIFO these figures mean nothing"
        );
        return Ok(());
    }
    let awake = rtcore::sys::idle::hold();
    println!("# {}", awake.said);
    println!(
        "# all on CPU {cpu}; {} blocks of {} messages per path, in turn; 64 B",
        effort.rounds, effort.block
    );
    let all: [(&str, Scenario); 10] = [
        ("equal", scenarios::hops_at_equal_priority),
        ("hops", scenarios::hops),
        ("routes", scenarios::many_routes),
        ("fanout", scenarios::fan_out),
        ("start", scenarios::start),
        ("lanes", lanes::blocking),
        ("polling", lanes::polling),
        ("spinning", lanes::spinning),
        ("throughput", lanes::throughput),
        ("clients", lanes::clients),
    ];
    for (name, scenario) in all {
        if wanted(name) {
            scenario(&effort)?;
        }
    }
    Ok(())
}
