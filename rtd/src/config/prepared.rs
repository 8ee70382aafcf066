//! Settings of the machine that add latency to the lanes, one line each.
//!
//! `rtd check` shows the lines below the plan, `rtd run` logs them before READY.

use super::machine::Machine;
use crate::plan::{DmaLatency, LanePlan, Plan};
use rtcore::lane::policy::Wait;
use rtcore::sys::cpus;
use rtcore::sys::idle::DEVICE;
use rtcore::sys::throttle::Throttle;

/// One sentence for each setting.
pub fn notes(plan: &Plan, machine: &Machine) -> Vec<String> {
    let mut notes = Vec::new();
    // Cobalt schedules its threads itself.
    if plan.daemon.skin.kind.caps().linux_threads {
        let mut on: Vec<usize> = plan.lanes.iter().map(|lane| lane.cpu).collect();
        on.sort_unstable();
        on.dedup();
        notes.extend((machine.throttle)(&on).map(|throttle| throttled(throttle, &on)));
        notes.extend(
            machine
                .cpus_isolated
                .as_deref()
                .and_then(|isolated| shared(plan, isolated)),
        );
    }
    if plan.daemon.cpu_dma_latency == DmaLatency::Unset {
        notes.push(format!(
            "{DEVICE} is not held by rtd, so waking an idle CPU can add to every latency: cpu_dma_latency = 0 in [daemon]"
        ));
    }
    notes
}

fn throttled(throttle: Throttle, on: &[usize]) -> String {
    let show_ms = |us: u64| format!("{} ms", us as f64 / 1000.0);
    let cpus = cpus::show_list(on);
    let files = "/sys/kernel/debug/sched/fair_server/cpu*/runtime";
    match throttle {
        Throttle::RealTime {
            taken_us,
            period_us,
        } => format!(
            "real-time throttling can take {} of every {} from lanes on a busy CPU ({cpus}): \
             sysctl -w \
             kernel.sched_rt_runtime_us=-1",
            show_ms(taken_us),
            show_ms(period_us)
        ),
        Throttle::FairServer { taken_us } => format!(
            "the fair server can take {} a second from lanes on a busy CPU ({cpus}): write 0 to \
             {files}",
            show_ms(taken_us)
        ),
        Throttle::FairServerUnread => format!(
            "the fair server (Linux 6.12 and later) can take 50 ms a second from lanes on a busy \
             CPU ({cpus}), unless 0 \
             was written to {files}, which rtd cannot read here"
        ),
    }
}

/// Lanes on CPUs that ordinary threads and interrupts use too. Lanes that poll there are excluded,
/// because `unisolated` allows it.
fn shared(plan: &Plan, isolated: &[usize]) -> Option<String> {
    let is_shared = |lane: &&LanePlan| lane.wait != Wait::Poll && !isolated.contains(&lane.cpu);
    let shared: Vec<&LanePlan> = plan.lanes.iter().filter(is_shared).collect();
    let mut on: Vec<usize> = shared.iter().map(|lane| lane.cpu).collect();
    on.sort_unstable();
    on.dedup();
    let names: Vec<String> = shared
        .iter()
        .take(NAMES_MAX)
        .map(|lane| format!("`{}`", lane.name))
        .collect();
    let more = if shared.len() > NAMES_MAX {
        ", ..."
    } else {
        ""
    };
    let cpus = cpus::show_list(&on);
    let lanes = if shared.len() == 1 { "lane" } else { "lanes" };
    (!shared.is_empty()).then(|| {
        format!(
            "{lanes} {}{more} on CPU {cpus}, not isolated (isolated: {}): boot with isolcpus={cpus}",
            names.join(", "),
            cpus::show_list(isolated)
        )
    })
}

/// Limit of the names in a line.
const NAMES_MAX: usize = 4;
