//! `rtctl ls`: what an instance consists of and who is there.

#![forbid(unsafe_code)]

use super::document::{Document, path_name, state_name};
use super::page;
use super::stats::{lane_state, route_state};
use super::table::{Table, left, or_dash, right};
use anyhow::Context;
use rtcore::stats::reader::{EndpointKind, Snapshot};
use rtcore::sys::signame;

/// Arguments of `rtctl ls`.
#[derive(Clone, Debug, clap::Args)]
pub struct LsArgs {
    /// Print the document that `rtctl stats --json` prints
    #[arg(long)]
    pub json: bool,
}

/// Lists lanes, processes, endpoints and routes. Needs no daemon, only its page.
pub fn ls(instance: &str, json: bool) -> anyhow::Result<()> {
    let read = page::open(instance)?.snapshot()?;
    let text = if json {
        serde_json::to_string_pretty(&Document::new(&read)).context("cannot write JSON")? + "\n"
    } else {
        listing(&read)
    };
    page::print(&text)?;
    Ok(())
}

fn listing(read: &Snapshot) -> String {
    let mut out = page::summary(read);
    out.push_str(&format!(
        "socket {}, rtd {}\n",
        or_dash(read.socket.as_str()),
        or_dash(read.rtd_version.as_str())
    ));
    for table in [lanes(read), processes(read), endpoints(read), routes(read)] {
        let mut text = String::new();
        table.render(&mut text);
        if !text.is_empty() {
            out.push('\n');
            out.push_str(&text);
        }
    }
    out
}

fn lanes(read: &Snapshot) -> Table {
    let mut table = Table::new(vec![
        left("LANE"),
        right("PRIO"),
        right("CPU"),
        left("WAIT"),
        right("ROUTES"),
        left("THREADS"),
        left("STATE"),
        left("DEGRADED"),
    ]);
    for (i, lane) in read.lanes.iter().enumerate() {
        let routes = read.routes.iter().filter(|route| route.lane == Some(i)).count();
        let threads = read.workers.iter().filter(|worker| worker.lane == Some(i));
        let threads: Vec<String> = threads.map(|worker| format!("{}({})", worker.name, worker.tid)).collect();
        table.row(vec![
            lane.name.clone(),
            lane.priority.to_string(),
            lane.cpu.to_string(),
            lane.wait.clone(),
            routes.to_string(),
            or_dash(threads.join(" ")),
            lane_state(lane, read.taken_ns),
            or_dash(lane.degraded().join(",")),
        ]);
    }
    table
}

fn processes(read: &Snapshot) -> Table {
    let mut table = Table::new(vec![left("PROCESS"), left("STATE"), right("PID"), right("UID")]);
    for process in &read.processes {
        let pid = if process.pid == 0 { String::new() } else { process.pid.to_string() };
        let uid = process.uid.map(|uid| uid.to_string()).unwrap_or_default();
        let state = state_name(process.state).to_owned();
        table.row(vec![process.name.clone(), state, or_dash(pid), or_dash(uid)]);
    }
    table
}

fn endpoints(read: &Snapshot) -> Table {
    let mut table =
        Table::new(vec![left("ENDPOINT"), left("KIND"), left("OWNER"), left("USE"), left("WHAT")]);
    for endpoint in &read.endpoints {
        let owner = endpoint.owner.and_then(|i| read.processes.get(i)).map(|owner| owner.name.clone());
        let uses = match (endpoint.is_source, endpoint.is_sink) {
            (true, true) => "source,sink",
            (true, false) => "source",
            (false, true) => "sink",
            (false, false) => "-",
        };
        let (kind, what) = match &endpoint.kind {
            EndpointKind::Mqueue { queue, maxmsg, msgsize } => {
                ("mqueue", format!("{queue}  {maxmsg} x {msgsize} B"))
            }
            EndpointKind::Signal { signo, to_thread } => {
                let target = if *to_thread { "thread" } else { "process" };
                let waiting = endpoint.reception.waiting().map(|why| format!("  waiting: {why}"));
                let waiting = waiting.unwrap_or_default();
                ("signal", format!("{} ({signo})  to {target}{waiting}", signame::name(*signo)))
            }
            EndpointKind::Lane { maxmsg, msgsize } => ("lane", format!("{maxmsg} x {msgsize} B")),
            EndpointKind::Xddp { device, maxmsg, msgsize } => {
                ("xddp", format!("{device}  {maxmsg} x {msgsize} B"))
            }
            EndpointKind::Unknown(kind) => ("?", format!("kind {kind}: not known to this version")),
        };
        table.row(vec![
            endpoint.name.clone(),
            kind.to_owned(),
            or_dash(owner.unwrap_or_default()),
            uses.to_owned(),
            what,
        ]);
    }
    table
}

fn routes(read: &Snapshot) -> Table {
    let columns = vec![left("ROUTE"), left("LANE"), left("PATH"), left("FROM"), left("TO"), left("STATE")];
    let mut table = Table::new(columns);
    for route in &read.routes {
        let lane = route.lane.and_then(|i| read.lanes.get(i)).map(|lane| lane.name.clone());
        let from = route.from.and_then(|i| read.endpoints.get(i)).map(|from| from.name.clone());
        table.row(vec![
            route.name.clone(),
            or_dash(lane.unwrap_or_default()),
            path_name(route).to_owned(),
            or_dash(from.unwrap_or_default()),
            route.to.clone(),
            route_state(&route.losses, read.taken_ns),
        ]);
    }
    table
}
