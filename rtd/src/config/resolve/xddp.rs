//! Endpoints of kind `xddp`: the port and its pool, and whether this machine has them.
//!
//! A deployment names its ports, since the Linux program opens the device of that number: the core's own choice (-1) is
//! refused.

use super::{Context, endpoints};
use crate::config::diagnostic::Place;
use crate::config::reader::Field;
use crate::config::sections::Endpoint;
use crate::plan::{EndpointKind, POOL_BYTES_MAX, Plan, XddpPlan};
use rtcore::skin::xddp::{LABEL_MAX, LABELS};
use std::ffi::CString;
use std::path::Path;

/// Messages of a pool unless the file says otherwise: as a ring's.
const MAXMSG: usize = 64;
/// Bytes of a message unless the file says otherwise: as a queue's.
const MSGSIZE: usize = 256;

/// The port of an endpoint.
pub fn endpoint(cx: &mut Context<'_, '_, '_>, endpoint: &Endpoint) -> EndpointKind {
    endpoints::foreign(cx, endpoint, "xddp", &["queue", "mode", "signal", "target"]);
    if endpoint.port.is_absent() && !cx.report.has_broken_lines() {
        let place = Place { key: format!("{}.port", endpoint.place.key), ..endpoint.place.clone() };
        let message = "`port` is missing for kind = \"xddp\": its number is that of the device /dev/rtpN";
        cx.report.error(&place, message, format!("port = {}", free_port(cx)));
    }
    let mut plan = XddpPlan {
        port: endpoint.port.get().and_then(|port| i16::try_from(port.count()).ok()).unwrap_or(0),
        label: label(cx, endpoint),
        maxmsg: endpoint.maxmsg.get().map_or(MAXMSG, |n| n.count()),
        msgsize: endpoint.msgsize.get().map_or(MSGSIZE, |n| n.count()),
    };
    if plan.pool_bytes() > POOL_BYTES_MAX {
        let message = format!(
            "{} messages of {} bytes take {} bytes of the core's memory, a port's pool has at most {POOL_BYTES_MAX}",
            plan.maxmsg,
            plan.msgsize,
            plan.pool_bytes()
        );
        let place = endpoint.maxmsg.place_or(&endpoint.msgsize.place_or(&endpoint.place));
        let fits = (POOL_BYTES_MAX / XddpPlan { maxmsg: 1, ..plan.clone() }.pool_bytes()).max(1);
        let fix = format!("maxmsg = {fits}\nmsgsize = {MSGSIZE} (or another smaller one)");
        cx.report.error(&place, message, fix);
        // What a refused pool would take of the machine is no fault of its own.
        (plan.maxmsg, plan.msgsize) = (1, plan.msgsize.min(POOL_BYTES_MAX / 2));
    }
    EndpointKind::Xddp(plan)
}

/// A port that no endpoint has.
fn free_port(cx: &Context<'_, '_, '_>) -> u64 {
    let taken = |n: &u64| cx.config.endpoint.iter().any(|e| e.port.get().is_some_and(|port| port.0 == *n));
    (0..=u64::from(u16::MAX / 2)).find(|n| !taken(n)).unwrap_or(0)
}

fn label(cx: &mut Context<'_, '_, '_>, endpoint: &Endpoint) -> Option<CString> {
    let at = endpoint.label.at()?;
    let fits = |c: char| !c.is_control() && c != '/';
    if (1..=LABEL_MAX).contains(&at.value.len()) && at.value.chars().all(fits) && !at.value.starts_with('.') {
        return CString::new(at.value.as_str()).ok();
    }
    let message = format!(
        "`{}` is no label: 1 to {LABEL_MAX} bytes, no `/`, no control character, no `.` in front, since it becomes the \
         name of a file in {LABELS}",
        at.value.escape_debug()
    );
    cx.report.error(&at.place, message, "label = \"scope\"\nremove `label`");
    None
}

/// Reports ports and labels that are given twice, and what the machine lacks.
pub fn check(cx: &mut Context<'_, '_, '_>, plan: &Plan) {
    let config = cx.config;
    let mut seen: Vec<(&XddpPlan, &Endpoint)> = Vec::new();
    for (endpoint, written) in plan.endpoints.iter().zip(&config.endpoint) {
        let EndpointKind::Xddp(port) = &endpoint.kind else { continue };
        if let Field::Given(at) = &written.port {
            if let Some((_, first)) = seen.iter().find(|(other, _)| other.port == port.port) {
                let message = format!(
                    "port {} is the endpoint's on line {} already: one socket is bound to it",
                    port.port,
                    cx.report.line(&first.place)
                );
                let free = (0..=i16::MAX).find(|n| !takes(plan, *n)).unwrap_or(0);
                let fix = format!(
                    "port = {free}\nuse one endpoint for this port in all the routes, in both directions if needed"
                );
                cx.report.error(&at.place, message, fix);
            }
            available(cx, plan, port, &at.place, written);
        }
        let same = |(other, _): &&(&XddpPlan, &Endpoint)| port.label.is_some() && other.label == port.label;
        if let (Some((_, first)), Some(at)) = (seen.iter().find(same), written.label.at()) {
            let line = cx.report.line(&first.place);
            let message = format!("label `{}` is the endpoint's on line {line} already", at.value);
            cx.report.error(&at.place, message, "give it a label of its own");
        }
        seen.push((port, written));
    }
}

fn takes(plan: &Plan, number: i16) -> bool {
    plan.endpoints.iter().any(|e| matches!(&e.kind, EndpointKind::Xddp(port) if port.port == number))
}

/// Whether this machine has the port.
fn available(cx: &mut Context<'_, '_, '_>, plan: &Plan, port: &XddpPlan, place: &Place, written: &Endpoint) {
    let device = plan.daemon.skin.device(port.port);
    match &plan.daemon.skin.xddp {
        Err(why) => {
            let message = format!("kind = \"xddp\" is not available: {why}");
            let fix = "skin = \"cobalt\" in [daemon] (on a Xenomai 3 kernel with CONFIG_XENO_DRIVERS_RTIPC_XDDP)\n\
                        kind = \"mqueue\" (between plain Linux programs)";
            cx.report.error(&written.kind.place_or(&written.place), message, fix);
        }
        Ok(_) if !Path::new(&device).exists() => {
            let message = format!(
                "port {} has no device: {device} is absent, the kernel has fewer ports (CONFIG_XENO_OPT_PIPE_NRDEV) or \
                 none (CONFIG_XENO_OPT_PIPE)",
                port.port
            );
            let devices = Path::new(&device).parent().unwrap_or(Path::new("/dev"));
            let fix = format!("port = (one of ls {}/rtp*)", devices.display());
            cx.report.error(place, message, fix);
        }
        Ok(_) => {}
    }
}
