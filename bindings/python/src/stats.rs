//! The statistics page, as dictionaries with the keys of `rtctl stats --json`.

use crate::errors;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList};
use rtcore::client::locate::default_instance;
use rtcore::endpoint::Shown;
use rtcore::lane::peer::PeerState;
use rtcore::message::Reject;
use rtcore::refusals::Refused;
use rtcore::stats::latency::Latency;
use rtcore::stats::loss::Loss;
use rtcore::stats::reader::{LossTimes, Reader, Snapshot, instances as all};
use rtcore::stats::table::Counter;

fn snapshot(py: Python<'_>, instance: Option<&str>) -> PyResult<Snapshot> {
    let name = match instance {
        Some(name) => name.to_owned(),
        None => default_instance().map_err(errors::connect)?,
    };
    // A read may wait for a writer that was preempted.
    py.detach(|| Reader::open(&name).and_then(|reader| reader.snapshot()))
        .map_err(errors::stats)
}

/// Names of the instances with a page here.
#[pyfunction]
pub fn instances() -> Vec<String> {
    all()
}

/// Everything on the page of an instance.
#[pyfunction]
#[pyo3(signature = (instance=None))]
pub fn stats<'py>(py: Python<'py>, instance: Option<&str>) -> PyResult<Bound<'py, PyDict>> {
    let page = snapshot(py, instance)?;
    let dict = PyDict::new(py);
    dict.set_item("instance", &page.instance)?;
    dict.set_item("pid", page.pid)?;
    dict.set_item("state", page.state.name())?;
    dict.set_item("ready", page.ready_ns.is_some())?;
    dict.set_item("skin", &page.skin)?;
    dict.set_item("uptime_s", seconds(page.uptime_ns()))?;
    dict.set_item("taken_ns", page.taken_ns)?;
    dict.set_item("lanes", lanes(py, &page)?)?;
    dict.set_item("routes", routes(py, &page)?)?;
    dict.set_item("processes", processes(py, &page)?)?;
    dict.set_item("endpoints", endpoints(py, &page)?)?;
    Ok(dict)
}

fn seconds(ns: u64) -> f64 {
    ns as f64 * 1e-9
}

fn lanes<'py>(py: Python<'py>, page: &Snapshot) -> PyResult<Bound<'py, PyList>> {
    let list = PyList::empty(py);
    for lane in &page.lanes {
        let dict = PyDict::new(py);
        dict.set_item("name", &lane.name)?;
        dict.set_item("priority", lane.priority)?;
        dict.set_item("cpu", lane.cpu)?;
        dict.set_item("wait", &lane.wait)?;
        dict.set_item("degraded", lane.degraded())?;
        counts(&dict, lane.ledger.values())?;
        dict.set_item(
            "rejected_by",
            reasons(py, &Reject::NAMES, &lane.ledger.rejected)?,
        )?;
        dict.set_item("latency_ns", latency(py, &lane.latency)?)?;
        dict.set_item("losing", losing(&lane.losses, page.taken_ns))?;
        list.append(dict)?;
    }
    Ok(list)
}

fn routes<'py>(py: Python<'py>, page: &Snapshot) -> PyResult<Bound<'py, PyList>> {
    let list = PyList::empty(py);
    let endpoint = |index: Option<usize>| Some(page.endpoints.get(index?)?.name.as_str());
    for route in &page.routes {
        let dict = PyDict::new(py);
        dict.set_item("name", &route.name)?;
        let lane = route.lane.and_then(|lane| page.lanes.get(lane));
        dict.set_item("lane", lane.map(|lane| lane.name.as_str()))?;
        dict.set_item("from", endpoint(route.from))?;
        let to = route.targets.iter().map(|target| endpoint(target.endpoint));
        dict.set_item("to", to.collect::<Vec<_>>())?;
        dict.set_item("path", if route.direct { "direct" } else { "routed" })?;
        counts(&dict, route.ledger.values())?;
        dict.set_item(
            "rejected_by",
            reasons(py, &Reject::NAMES, &route.ledger.rejected)?,
        )?;
        dict.set_item("latency_ns", latency(py, &route.latency)?)?;
        let by = if route.direct { "receiver" } else { "rtd" };
        dict.set_item("latency_by", by)?;
        dict.set_item("losing", losing(&route.losses, page.taken_ns))?;
        dict.set_item("lost_in_last_life", route.lost_in_last_life)?;
        dict.set_item("consistent", route.consistent)?;
        list.append(dict)?;
    }
    Ok(list)
}

fn processes<'py>(py: Python<'py>, page: &Snapshot) -> PyResult<Bound<'py, PyList>> {
    let list = PyList::empty(py);
    for process in &page.processes {
        let dict = PyDict::new(py);
        dict.set_item("name", &process.name)?;
        let state = match process.state {
            PeerState::Unregistered => "unregistered",
            PeerState::Alive => "alive",
            PeerState::Dead => "dead",
        };
        dict.set_item("state", state)?;
        dict.set_item("pid", process.pid)?;
        dict.set_item("uid", process.uid)?;
        list.append(dict)?;
    }
    Ok(list)
}

fn endpoints<'py>(py: Python<'py>, page: &Snapshot) -> PyResult<Bound<'py, PyList>> {
    let list = PyList::empty(py);
    for endpoint in &page.endpoints {
        let dict = PyDict::new(py);
        dict.set_item("name", &endpoint.name)?;
        let owner = endpoint.owner.and_then(|owner| page.processes.get(owner));
        dict.set_item("owner", owner.map(|owner| owner.name.as_str()))?;
        dict.set_item("kind", kind(&endpoint.kind))?;
        dict.set_item("source", endpoint.is_source)?;
        dict.set_item("sink", endpoint.is_sink)?;
        dict.set_item("refused", reasons(py, &Refused::NAMES, &endpoint.refused)?)?;
        list.append(dict)?;
    }
    Ok(list)
}

/// As in the configuration.
fn kind(shown: &Shown) -> &'static str {
    match shown {
        Shown::Mqueue(_) => "mqueue",
        Shown::Signal(_) => "signal",
        Shown::Ring(_) => "lane",
        Shown::Xddp(_) => "xddp",
        Shown::Unknown(_) => "unknown",
    }
}

fn counts(
    dict: &Bound<'_, PyDict>,
    values: impl Iterator<Item = (&'static Counter, u64)>,
) -> PyResult<()> {
    for (counter, value) in values.filter(|(counter, _)| counter.is_shown) {
        dict.set_item(counter.key, value)?;
    }
    Ok(())
}

/// Only those that happened.
fn reasons<'py>(py: Python<'py>, names: &[&str], counts: &[u64]) -> PyResult<Bound<'py, PyDict>> {
    let dict = PyDict::new(py);
    for (name, count) in names.iter().zip(counts).filter(|(_, count)| **count > 0) {
        dict.set_item(name, count)?;
    }
    Ok(dict)
}

fn losing(losses: &LossTimes, taken_ns: u64) -> Vec<&'static str> {
    losses
        .losing(taken_ns)
        .into_iter()
        .map(Loss::name)
        .collect()
}

fn latency<'py>(py: Python<'py>, latency: &Latency) -> PyResult<Bound<'py, PyDict>> {
    let summary = latency.summary();
    let dict = PyDict::new(py);
    dict.set_item("count", summary.count)?;
    dict.set_item("min", summary.min_ns)?;
    dict.set_item("p50", summary.p50_ns)?;
    dict.set_item("p90", summary.p90_ns)?;
    dict.set_item("p99", summary.p99_ns)?;
    dict.set_item("p999", summary.p999_ns)?;
    dict.set_item("max", summary.max_ns)?;
    Ok(dict)
}

/// The buckets of a route's latencies that hold something: lowest value, highest value, count.
#[pyfunction]
#[pyo3(signature = (instance, route))]
pub fn _buckets(
    py: Python<'_>,
    instance: Option<&str>,
    route: &str,
) -> PyResult<Vec<(u64, u64, u64)>> {
    let page = snapshot(py, instance)?;
    let Some(found) = page.routes.iter().find(|known| known.name == route) else {
        let known: Vec<&str> = page
            .routes
            .iter()
            .map(|known| known.name.as_str())
            .collect();
        let text = format!("no route \"{route}\"; there are: {}", known.join(", "));
        return Err(errors::new(errors::Kind::Unknown, None, text));
    };
    let histogram = found.latency.histogram();
    let bucket = |value: u64, count: u64| {
        let low = histogram.lowest_equivalent(value);
        (low, histogram.highest_equivalent(value), count)
    };
    let recorded = histogram.iter_recorded();
    Ok(recorded
        .map(|step| bucket(step.value_iterated_to(), step.count_at_value()))
        .collect())
}
