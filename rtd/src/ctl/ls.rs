//! `rtctl ls`: lists the parts of an instance and the registered processes.

#![forbid(unsafe_code)]

use super::document::{Document, path_name, state_name};
use super::page;
use super::sheet::{Sheet, WidthArgs};
use super::stats::{lane_state, route_state};
use super::table::{Table, left, or_dash, right};
use crate::endpoint::of_page;
use anyhow::Context;
use rtcore::endpoint::Shown;
use rtcore::stats::reader::Snapshot;

/// Arguments of `rtctl ls`.
#[derive(Clone, Debug, clap::Args)]
pub struct LsArgs {
    /// Print the document that `rtctl stats --json` prints
    #[arg(long)]
    pub json: bool,
    /// How wide.
    #[command(flatten)]
    pub width: WidthArgs,
}

/// Lists lanes, processes, endpoints and routes. Needs no daemon, only its page.
pub fn ls(instance: &str, opts: &LsArgs) -> anyhow::Result<()> {
    let read = page::open(instance)?.snapshot()?;
    let text = if opts.json {
        serde_json::to_string_pretty(&Document::new(&read)).context("cannot write JSON")? + "\n"
    } else {
        listing(&read, opts.width.columns())
    };
    page::print(&text)?;
    Ok(())
}

/// The text of `rtctl ls`.
pub fn listing(read: &Snapshot, columns: Option<usize>) -> String {
    let mut sheet = Sheet::new(columns);
    sheet.line(&page::summary(read));
    let (socket, version) = (
        or_dash(read.socket.as_str()),
        or_dash(read.rtd_version.as_str()),
    );
    sheet.line(&format!("socket {socket}, rtd {version}"));
    for table in [
        lanes(read),
        threads(read),
        processes(read),
        endpoints(read),
        routes(read),
    ] {
        sheet.table(&table);
    }
    sheet.finish()
}

fn lanes(read: &Snapshot) -> Table {
    let mut table = Table::new(vec![
        left("LANE"),
        left("STATE"),
        right("PRIO"),
        right("CPU"),
        left("WAIT").rank(3),
        right("ROUTES").rank(2),
        left("DEGRADED").rank(1),
    ]);
    for (i, lane) in read.lanes.iter().enumerate() {
        let routes = read
            .routes
            .iter()
            .filter(|route| route.lane == Some(i))
            .count();
        table.row(vec![
            lane.name.clone(),
            lane_state(lane, read.taken_ns),
            lane.priority.to_string(),
            lane.cpu.to_string(),
            lane.wait.clone(),
            routes.to_string(),
            or_dash(lane.degraded().join(",")),
        ]);
    }
    table
}

/// A thread is named as in the log: by its lane and its source (with `spin` or `poll`, by the lane
/// again).
fn threads(read: &Snapshot) -> Table {
    let mut table = Table::new(vec![left("LANE"), left("THREAD"), right("TID")]);
    for (i, lane) in read.lanes.iter().enumerate() {
        for worker in read.workers.iter().filter(|worker| worker.lane == Some(i)) {
            table.row(vec![
                lane.name.clone(),
                worker.name.clone(),
                worker.tid.to_string(),
            ]);
        }
    }
    table
}

fn processes(read: &Snapshot) -> Table {
    let mut table = Table::new(vec![
        left("PROCESS"),
        left("STATE"),
        right("PID"),
        right("UID"),
    ]);
    for process in &read.processes {
        let pid = if process.pid == 0 {
            String::new()
        } else {
            process.pid.to_string()
        };
        let uid = process.uid.map(|uid| uid.to_string()).unwrap_or_default();
        let state = state_name(process.state).to_owned();
        table.row(vec![
            process.name.clone(),
            state,
            or_dash(pid),
            or_dash(uid),
        ]);
    }
    table
}

fn endpoints(read: &Snapshot) -> Table {
    let mut table = Table::new(vec![
        left("ENDPOINT"),
        left("STATE"),
        left("KIND"),
        left("OWNER").rank(1),
        left("USE").rank(3),
        left("WHAT").rank(2),
    ]);
    for endpoint in &read.endpoints {
        let owner = endpoint
            .owner
            .and_then(|i| read.processes.get(i))
            .map(|owner| owner.name.clone());
        let uses = match (endpoint.is_source, endpoint.is_sink) {
            (true, true) => "source,sink",
            (true, false) => "source",
            (false, true) => "sink",
            (false, false) => "-",
        };
        let (kind, what) = match (of_page(&endpoint.kind), &endpoint.kind) {
            (Some((name, page)), _) => (name, page.what()),
            (None, Shown::Unknown(kind)) => {
                ("?", format!("kind {kind}: not known to this version"))
            }
            (None, _) => ("?", String::new()),
        };
        table.row(vec![
            endpoint.name.clone(),
            or_dash(
                endpoint
                    .reception
                    .waiting()
                    .map(|why| format!("waiting: {why}"))
                    .unwrap_or_default(),
            ),
            kind.to_owned(),
            or_dash(owner.unwrap_or_default()),
            uses.to_owned(),
            what,
        ]);
    }
    table
}

fn routes(read: &Snapshot) -> Table {
    let mut table = Table::new(vec![
        left("ROUTE"),
        left("STATE"),
        left("LANE").rank(1),
        left("PATH").rank(2),
        left("FROM"),
        left("TO"),
    ]);
    for route in &read.routes {
        let lane = route
            .lane
            .and_then(|i| read.lanes.get(i))
            .map(|lane| lane.name.clone());
        let from = route
            .from
            .and_then(|i| read.endpoints.get(i))
            .map(|from| from.name.clone());
        table.row(vec![
            route.name.clone(),
            route_state(&route.losses, read.taken_ns),
            or_dash(lane.unwrap_or_default()),
            path_name(route).to_owned(),
            or_dash(from.unwrap_or_default()),
            route.to.clone(),
        ]);
    }
    table
}
