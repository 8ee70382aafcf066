//! A route of a daemon that runs already, by the names of its ends.

use super::{DaemonPid, In, KEY_BYTES, Out, Route};
use crate::args::PAYLOAD_BYTES;
use crate::mech::STAMP_BYTES;
use anyhow::{Context as _, bail};
use rtcore::endpoint::{Shown, mqueue, ring, signal};
use rtcore::lane::peer::PeerState;
use rtcore::stats::reader::{Endpoint, Snapshot};
use rtd::ctl::page;
use rtd::endpoint::of_page;

/// The path from one endpoint of the running instance to another. rtlat takes over its ends: the
/// process that measures is their owner, and nobody else may be registered as that.
/// `payload_bytes`: none: as much as usual, or as both ends take.
pub fn find(
    instance: &str,
    from: &str,
    to: &str,
    payload_bytes: Option<usize>,
) -> anyhow::Result<Route> {
    let snapshot = page::trusted(instance)?;
    let index = |name: &str| {
        let names: Vec<&str> = snapshot.endpoints.iter().map(|e| e.name.as_str()).collect();
        let place = names.iter().position(|n| *n == name);
        place.with_context(|| {
            format!(
                "instance {instance} has no endpoint {name}; it has: {}",
                names.join(", ")
            )
        })
    };
    let (source, sink) = (index(from)?, index(to)?);
    let leads = |r: &rtcore::stats::reader::Route| {
        r.from == Some(source) && r.targets.iter().any(|t| t.endpoint == Some(sink))
    };
    if !snapshot.routes.iter().any(leads) {
        let routes: Vec<&str> = snapshot.routes.iter().map(|r| r.name.as_str()).collect();
        bail!(
            "no route of instance {instance} leads from {from} to {to}; its routes: {}",
            routes.join(", ")
        );
    }
    let (source, sink) = (&snapshot.endpoints[source], &snapshot.endpoints[sink]);
    let input = match &source.kind {
        Shown::Mqueue(mqueue::Shown { queue, .. }) => In::Queue(queue.clone()),
        Shown::Signal(signal::Shown { signo, .. }) => {
            rtd::ctl::page::same_pid_namespace(&snapshot)?;
            let pid = i32::try_from(snapshot.pid)?;
            let daemon = DaemonPid::of_instance(pid, instance)?;
            In::Signal {
                process: owner(&snapshot, source)?,
                daemon,
                signo: page::signal_of(source, *signo)?,
            }
        }
        Shown::Ring(_) => In::Lane {
            process: owner(&snapshot, source)?,
            endpoint: from.to_owned(),
        },
        other => bail!("{from} is {}", unmeasured(other)),
    };
    let output = match &sink.kind {
        Shown::Mqueue(mqueue::Shown { queue, .. }) => {
            // The page keeps the pid of one that has left.
            let reader = sink.owner.and_then(|owner| snapshot.processes.get(owner));
            if reader.is_some_and(|reader| reader.state == PeerState::Alive) {
                bail!(
                    "{to} is read by a registered process: end that first, or its messages would be taken from it"
                );
            }
            Out::Queue(queue.clone())
        }
        Shown::Signal(signal::Shown { signo, .. }) => Out::Signal {
            process: owner(&snapshot, sink)?,
            signo: page::signal_of(sink, *signo)?,
        },
        Shown::Ring(_) => Out::Lane {
            process: owner(&snapshot, sink)?,
            endpoint: to.to_owned(),
        },
        other => bail!("{to} is {}", unmeasured(other)),
    };
    let payload_bytes = payload([source, sink], payload_bytes)?;
    let socket = rtcore::client::locate::socket_of(instance);
    Route::new(
        format!("route {from} -> {to}"),
        payload_bytes,
        input,
        output,
        socket,
    )
}

/// The description of an endpoint that rtlat does not measure.
fn unmeasured(kind: &Shown) -> String {
    of_page(kind).map_or(
        "of a kind that this rtlat does not know".to_owned(),
        |(_, page)| format!("{}: rtlat does not measure those", page.noun()),
    )
}

/// Bytes of a message that both ends take.
fn payload(ends: [&Endpoint; 2], wanted: Option<usize>) -> anyhow::Result<usize> {
    let msgsize = |end: &Endpoint| match end.kind {
        Shown::Mqueue(mqueue::Shown { msgsize, .. }) | Shown::Ring(ring::Shown { msgsize, .. }) => {
            usize::try_from(msgsize).unwrap_or(usize::MAX)
        }
        _ => usize::MAX,
    };
    let [a, b] = ends;
    let narrow = if msgsize(b) < msgsize(a) { b } else { a };
    let (name, takes) = (&narrow.name, msgsize(narrow));
    if takes < KEY_BYTES {
        bail!(
            "{name} takes {takes} bytes, which have no room for the {KEY_BYTES} of a message's number: raise msgsize of the \
             [[endpoint]]"
        );
    }
    match wanted {
        Some(bytes) if bytes > takes => {
            let less = if takes < STAMP_BYTES {
                "leave --size out".to_owned()
            } else {
                format!("take --size {takes}")
            };
            bail!(
                "a message has {bytes} bytes and `{name}` takes {takes}: raise msgsize of the [[endpoint]] or {less}"
            )
        }
        Some(bytes) => Ok(bytes),
        None if takes < STAMP_BYTES => Ok(KEY_BYTES),
        None => Ok(takes.min(PAYLOAD_BYTES)),
    }
}

fn owner(snapshot: &Snapshot, endpoint: &Endpoint) -> anyhow::Result<String> {
    let owner = endpoint.owner.and_then(|o| snapshot.processes.get(o));
    Ok(owner
        .with_context(|| format!("{} has no owner to register as", endpoint.name))?
        .name
        .clone())
}
