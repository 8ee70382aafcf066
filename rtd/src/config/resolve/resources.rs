//! Checks that the machine grants the resources of the plan; if not, reports the exact lines that
//! grant them.

use super::{Context, whole_file};
use crate::config::diagnostic::Place;
use crate::config::machine::{Queue, Queues};
use crate::endpoint::mqueue::{self, MqueuePlan};
use crate::endpoint::{EndpointKind, Keys};
use crate::plan::{Plan, SkinKind};
use crate::words::{counted, in_unit};
use rtcore::sys::limits::mq_bytes;
use rtcore::sys::permission_hints::setcap;

/// Limit of the lane threads.
const THREADS_MAX: usize = 1024;
/// A value of `payload` or `msgsize` in a hint: smaller than the configured one.
const REAL_SIZE: &str = "(the size of the largest message that is really sent)";
/// Descriptors other than those of queues and processes: socket, page, log, control connections.
const FILES_BASE: u64 = 64;
/// Queued signals of each signal endpoint for which the user's common pool should have room.
const SIGNALS_PER_ENDPOINT: u64 = 32;

/// The lines that lift a limit of real-time threads by a capability. In a user namespace no
/// capability does this: there the limit of the program that made the namespace counts, which
/// containers set by an option of this `limit`.
fn by_capability(cx: &Context<'_, '_, '_>, capability: &str, limit: &str) -> String {
    if cx.machine.user_namespace {
        return format!(
            "no capability lifts this limit in a user namespace: raise it for the program that creates the namespace (a \
             container: --ulimit {limit})"
        );
    }
    format!(
        "{}\n{}",
        in_unit(format_args!("AmbientCapabilities={capability}")),
        setcap("", &cx.machine.program)
    )
}

/// The line that lifts the fs.mqueue limits by a capability, if one does.
fn by_sys_resource(cx: &Context<'_, '_, '_>) -> String {
    if cx.machine.user_namespace {
        return String::new();
    }
    format!("\n{}", in_unit("AmbientCapabilities=CAP_SYS_RESOURCE"))
}

/// Checks every limit of the machine.
pub fn check(cx: &mut Context<'_, '_, '_>, plan: &Plan) {
    let caps = plan.daemon.skin.kind.caps();
    // Queues in a namespace of their own are not Linux's, and have none of its limits.
    if caps.shared_namespace {
        queue_sizes(cx, plan);
        queue_count(cx, plan);
        queue_bytes(cx, plan);
    }
    if memory(cx, plan) {
        locked_memory(cx, plan);
    }
    priorities(cx, plan);
    threads_and_files(cx, plan);
    if caps.reports_signal_overflow {
        pending_signals(cx, plan);
    }
}

/// The lines that raise a limit, for login sessions and for the unit. `rtd check` and `rtd run`
/// have raised the soft limit to the hard one already.
fn raise(limits_d: &str, unit: &str, needed: u64, unit_of_limits_d: u64) -> String {
    let in_limits_d = needed.div_ceil(unit_of_limits_d);
    format!(
        "{}\n@rtd - {limits_d} {in_limits_d} in /etc/security/limits.d/rtd.conf",
        in_unit(format_args!("{unit}={needed}"))
    )
}

/// The lines that solve a conflict with an existing queue: remove it, or use its value.
fn remove_or_set(queue: &str, key: &str, has: u64) -> String {
    format!("rtctl queue rm {queue} (its messages are lost)\n{key} = {has}")
}

/// msg_max, msgsize_max, and existing queues with another size.
fn queue_sizes(cx: &mut Context<'_, '_, '_>, plan: &Plan) {
    let config = cx.config;
    for (endpoint, written) in plan.endpoints.iter().zip(&config.endpoint) {
        let (EndpointKind::Mqueue(queue), Keys::Mqueue(keys)) = (&endpoint.kind, &written.keys)
        else {
            continue;
        };
        let MqueuePlan {
            queue,
            maxmsg,
            msgsize,
            ..
        } = queue;
        let (maxmsg, msgsize) = (*maxmsg as u64, *msgsize as u64);
        let size = cx.machine.queue(queue).and_then(|queue| queue.size);
        let queue = queue.to_string_lossy();
        if let Some((has_maxmsg, has_msgsize)) = size {
            exists(
                cx,
                (keys, &written.place),
                &queue,
                (maxmsg, msgsize),
                (has_maxmsg, has_msgsize),
            );
            continue;
        }
        // An unknown privilege counts as missing only if the limit is known, because only then it
        // can be exceeded.
        if cx.machine.cap_sys_resource != Some(false) {
            continue;
        }
        let limits = [
            (
                "maxmsg",
                maxmsg,
                cx.machine.msg_max,
                "fs.mqueue.msg_max",
                keys.maxmsg.place_or(&written.place),
            ),
            (
                "msgsize",
                msgsize,
                cx.machine.msgsize_max,
                "fs.mqueue.msgsize_max",
                keys.msgsize.place_or(&written.place),
            ),
        ];
        for (key, wanted, limit, sysctl, place) in limits {
            if let Some(limit) = limit.filter(|limit| wanted > *limit) {
                let message =
                    format!("queue `{queue}`: {key} {wanted} is above {sysctl} = {limit}");
                let fix = format!(
                    "sysctl -w {sysctl}={wanted}\n{key} = {limit}{}",
                    by_sys_resource(cx)
                );
                cx.report.error(&place, message, fix);
            }
        }
    }
}

/// An existing queue is adopted with its messages; its size cannot change.
fn exists(
    cx: &mut Context<'_, '_, '_>,
    (keys, place): (&mqueue::Keys, &Place),
    queue: &str,
    plan: (u64, u64),
    has: (u64, u64),
) {
    if plan.1 != has.1 {
        let message = format!(
            "queue `{queue}` exists with msgsize {}, which cannot change; here it is {}",
            has.1, plan.1
        );
        let fix = remove_or_set(queue, "msgsize", has.1);
        cx.report.error(&keys.msgsize.place_or(place), message, fix);
    }
    if plan.0 != has.0 {
        let message = format!(
            "queue `{queue}` exists with maxmsg {} and keeps it; here it is {}",
            has.0, plan.0
        );
        let fix = remove_or_set(queue, "maxmsg", has.0);
        cx.report
            .warning(&keys.maxmsg.place_or(place), message, fix);
    }
}

/// The queues that the daemon would create: (index of the endpoint, bytes charged).
fn new_queues(cx: &Context<'_, '_, '_>, plan: &Plan) -> Vec<(usize, u64)> {
    let mut new = Vec::new();
    for (id, endpoint) in plan.endpoints.iter().enumerate() {
        let EndpointKind::Mqueue(MqueuePlan {
            queue,
            maxmsg,
            msgsize,
            ..
        }) = &endpoint.kind
        else {
            continue;
        };
        if cx.machine.queue(queue).is_none() {
            new.push((id, mq_bytes(*maxmsg as u64, *msgsize as u64)));
        }
    }
    new
}

/// The existing queues; if they cannot be listed, those of the plan.
fn existing_queues(cx: &Context<'_, '_, '_>, plan: &Plan) -> Vec<Queue> {
    match &cx.machine.queues {
        Queues::Unknown => Vec::new(),
        Queues::Listed(all) => all.clone(),
        Queues::ByName => plan
            .endpoints
            .iter()
            .filter_map(|endpoint| match &endpoint.kind {
                EndpointKind::Mqueue(plan) => cx.machine.queue(&plan.queue),
                _ => None,
            })
            .collect(),
    }
}

fn place_of(cx: &Context<'_, '_, '_>, endpoint: usize) -> Place {
    cx.config
        .endpoint
        .get(endpoint)
        .map_or_else(whole_file, |written| written.place.clone())
}

fn queue_count(cx: &mut Context<'_, '_, '_>, plan: &Plan) {
    let Some(limit) = cx.machine.queues_max else {
        return;
    };
    if cx.machine.cap_sys_resource != Some(false) {
        return;
    }
    let existing = existing_queues(cx, plan).len() as u64;
    let new = new_queues(cx, plan);
    let needed = existing + new.len() as u64;
    if needed <= limit {
        return;
    }
    let fit = usize::try_from(limit.saturating_sub(existing)).unwrap_or(usize::MAX);
    let place = new
        .get(fit)
        .map_or_else(whole_file, |(id, _)| place_of(cx, *id));
    let message = format!(
        "the plan has {} queues to create and {existing} exist: {needed}, above fs.mqueue.queues_max = {limit}; \
         this is the first that would not open",
        new.len()
    );
    let fix = format!(
        "sysctl -w fs.mqueue.queues_max={needed}{}",
        by_sys_resource(cx)
    );
    cx.report.error(&place, message, fix);
}

/// RLIMIT_MSGQUEUE counts the bytes of all queues that a user created; no capability lifts it.
fn queue_bytes(cx: &mut Context<'_, '_, '_>, plan: &Plan) {
    let Some(limit) = cx.machine.rlimit_msgqueue else {
        return;
    };
    let uid = plan
        .daemon
        .account
        .map_or(cx.machine.uid, |account| account.uid);
    let existing = existing_queues(cx, plan)
        .into_iter()
        .filter(|queue| queue.uid == Some(uid));
    let existing = existing
        .filter_map(|queue| queue.size)
        .map(|(m, s)| mq_bytes(m, s))
        .fold(0, u64::saturating_add);
    let new = new_queues(cx, plan);
    let needed = new
        .iter()
        .fold(existing, |sum, (_, bytes)| sum.saturating_add(*bytes));
    let Some(soft) = limit.soft.filter(|soft| needed > *soft) else {
        return;
    };
    let mut sum = existing;
    let first = new.iter().find(|(_, bytes)| {
        sum = sum.saturating_add(*bytes);
        sum > soft
    });
    let Some((id, _)) = first else { return };
    let place = place_of(cx, *id);
    let message = format!(
        "the plan's queues take {needed} bytes ({existing} of them exist), above RLIMIT_MSGQUEUE = {soft}; this is \
         the first that would not open"
    );
    let fix = raise("msgqueue", "LimitMSGQUEUE", needed, 1);
    cx.report.error(
        &place,
        message,
        format!("{fix}\nsmaller maxmsg or msgsize (maxmsg x msgsize + 96 x maxmsg)"),
    );
}

/// Whether the backlogs and the rings fit into memory: all of them are allocated at the start, and
/// no privilege adds memory.
fn memory(cx: &mut Context<'_, '_, '_>, plan: &Plan) -> bool {
    let (needed, rings) = (plan.backlog_bytes(), plan.ring_bytes());
    let Some(available) = cx.machine.memory_available else {
        return true;
    };
    if needed.saturating_add(rings) <= available {
        return true;
    }
    if rings > needed {
        ring_memory(cx, plan, available);
        return false;
    }
    let limit = cx.machine.memory_limit.clone();
    let available = available.saturating_sub(rings);
    let less = if rings == 0 {
        String::new()
    } else {
        format!(", less {rings} for rings")
    };
    let Some((id, largest)) = plan
        .routes
        .iter()
        .enumerate()
        .max_by_key(|(_, route)| route.backlog_bytes())
    else {
        return true;
    };
    let message = format!(
        "the backlogs of routes would take {needed} bytes, {available} are available \
         ({limit}{less}); \
         route `{}` alone takes {}: capacity {} x {} bytes",
        largest.name,
        largest.backlog_bytes(),
        largest.capacity,
        largest.backlog_slot_bytes()
    );
    // With the others unchanged; if even that is too much, with an equal share.
    let others = needed.saturating_sub(largest.backlog_bytes());
    let share = available
        .checked_sub(others)
        .unwrap_or(available / plan.routes.len() as u64);
    let fits = share / largest.backlog_slot_bytes().max(1);
    let fix = if fits > 0 {
        format!("capacity = {fits}\n")
    } else {
        String::new()
    };
    let written = cx.config.route.get(id);
    let place = written.map_or_else(whole_file, |route| route.capacity.place_or(&route.place));
    cx.report.error(
        &place,
        message,
        format!("{fix}payload = {REAL_SIZE}\nmore memory"),
    );
    false
}

/// Rings that do not fit, reported at the endpoint with the most of them.
fn ring_memory(cx: &mut Context<'_, '_, '_>, plan: &Plan, available: u64) {
    let limit = cx.machine.memory_limit.clone();
    let mut at: Vec<(u64, u64)> = vec![(0, 0); plan.endpoints.len()];
    let direct = plan
        .routes
        .iter()
        .filter_map(|route| Some((route.from, plan.direct_ring(route)?)));
    for (id, ring) in plan.routed_rings().chain(direct) {
        if let Some((count, bytes)) = at.get_mut(id) {
            *count += 1;
            *bytes = bytes.saturating_add(ring.bytes());
        }
    }
    let Some((id, (count, bytes))) = at.iter().enumerate().max_by_key(|(_, (_, bytes))| *bytes)
    else {
        return;
    };
    let message = format!(
        "rings in shared memory would take {} bytes and backlogs {}, {available} are available \
         ({limit}); the {count} of endpoint `{}` alone take {bytes}",
        plan.ring_bytes(),
        plan.backlog_bytes(),
        plan.endpoints
            .get(id)
            .map_or("?", |endpoint| endpoint.name.as_str())
    );
    let written = cx.config.endpoint.get(id);
    let place = written.map_or_else(whole_file, |e| {
        e.keys.size_place().unwrap_or(&e.place).clone()
    });
    let fix = format!("smaller maxmsg\nmsgsize = {REAL_SIZE}\nmore memory");
    cx.report.error(&place, message, fix);
}

fn locked_memory(cx: &mut Context<'_, '_, '_>, plan: &Plan) {
    let Some(limit) = cx.machine.rlimit_memlock else {
        return;
    };
    if cx.machine.cap_ipc_lock != Some(false) {
        return;
    }
    let needed = plan.locked_bytes(cx.machine.program_bytes);
    let Some(soft) = limit.soft.filter(|soft| needed > *soft) else {
        return;
    };
    let place = cx.config.daemon.place.clone().or(cx
        .config
        .lane
        .first()
        .map(|lane| lane.place.clone()));
    let message = format!(
        "about {needed} bytes will be locked ({}, {} bytes of backlogs, {} of rings), above \
         RLIMIT_MEMLOCK = {soft}",
        counted(plan.threads(), "thread"),
        plan.backlog_bytes(),
        plan.ring_bytes()
    );
    let fix = raise("memlock", "LimitMEMLOCK", needed, 1024);
    let fix = format!(
        "{fix}\n{}{}",
        by_capability(cx, "CAP_IPC_LOCK", "memlock=-1"),
        without(cx, plan)
    );
    let allowed = cx.options.allow_degraded;
    cx.report
        .error_unless(allowed, &place.unwrap_or_else(whole_file), message, fix);
}

/// The line to try rtd without the permission, for a plan whose skin supports that.
fn without(cx: &Context<'_, '_, '_>, plan: &Plan) -> &'static str {
    if cx.options.allow_degraded || plan.daemon.skin.kind != SkinKind::Posix {
        return "";
    }
    "\nrtd run --allow-degraded, to run without it: latency is then not bounded"
}

/// One diagnostic, at the highest lane: the limit that admits it admits the others.
fn priorities(cx: &mut Context<'_, '_, '_>, plan: &Plan) {
    let Some(limit) = cx.machine.rlimit_rtprio else {
        return;
    };
    if cx.machine.cap_sys_nice != Some(false) {
        return;
    }
    // The watchdog is one above the highest lane.
    let needed = plan.watchdog_priority();
    let Some(soft) = limit.soft.filter(|soft| u64::from(needed) > *soft) else {
        return;
    };
    let above: Vec<String> = plan
        .lanes
        .iter()
        .filter(|lane| u64::from(lane.priority) > soft)
        .map(|lane| format!("`{}` ({})", lane.name, lane.priority))
        .collect();
    let message = if above.is_empty() {
        format!(
            "the watchdog above all lanes needs priority {needed}, above RLIMIT_RTPRIO = {soft}"
        )
    } else {
        let lanes = if above.len() == 1 { "lane" } else { "lanes" };
        format!(
            "{lanes} {} and the watchdog ({needed}): their priorities are above RLIMIT_RTPRIO = {soft}",
            above.join(", ")
        )
    };
    let mut hint = raise("rtprio", "LimitRTPRIO", u64::from(needed), 1);
    if cx.machine.fifo_refused {
        hint = "this process has CAP_SYS_NICE, but the kernel refuses SCHED_FIFO: start rtd \
        outside the user \
                namespace, or raise RLIMIT_RTPRIO of the program that creates it (a container: --ulimit rtprio=99)\n\
                a real-time budget for the control group (cpu.rt_runtime_us), if it has one"
            .to_owned();
    } else {
        hint = format!("{hint}\n{}", by_capability(cx, "CAP_SYS_NICE", "rtprio=99"));
    }
    hint.push_str(without(cx, plan));
    let highest = plan
        .lanes
        .iter()
        .enumerate()
        .max_by_key(|(_, lane)| lane.priority);
    let written = highest.and_then(|(id, _)| cx.config.lane.get(id));
    let place = written.map_or_else(whole_file, |lane| lane.priority.place_or(&lane.place));
    cx.report
        .error_unless(cx.options.allow_degraded, &place, message, hint);
}

fn threads_and_files(cx: &mut Context<'_, '_, '_>, plan: &Plan) {
    let threads = plan.threads();
    if threads > THREADS_MAX {
        let message = format!(
            "{threads} lane threads (one for each source), at most {THREADS_MAX} are possible"
        );
        cx.report.error(
            &whole_file(),
            message,
            "wait = \"poll\" lanes read many sources in one thread",
        );
    }
    let Some(limit) = cx.machine.rlimit_nofile else {
        return;
    };
    let needed = FILES_BASE + plan.descriptors() as u64;
    if let Some(soft) = limit.soft.filter(|soft| needed > *soft) {
        let message = format!("about {needed} files will be open, above RLIMIT_NOFILE = {soft}");
        let fix = raise("nofile", "LimitNOFILE", needed, 1);
        cx.report.error(&whole_file(), message, fix);
    }
}

/// The pool of queued signals belongs to the user. If it is too small, messages wait in rtd, so
/// this is only a warning.
fn pending_signals(cx: &mut Context<'_, '_, '_>, plan: &Plan) {
    let Some(limit) = cx.machine.rlimit_sigpending else {
        return;
    };
    let signals = plan
        .endpoints
        .iter()
        .filter(|e| matches!(e.kind, EndpointKind::Signal(_)))
        .count();
    let needed = signals as u64 * SIGNALS_PER_ENDPOINT;
    if let Some(soft) = limit.soft.filter(|soft| needed > *soft) {
        let message = format!(
            "RLIMIT_SIGPENDING = {soft} queued signals per user are too few for {}: {needed} are needed",
            counted(signals, "signal endpoint")
        );
        let fix = raise("sigpending", "LimitSIGPENDING", needed, 1);
        cx.report.warning(&whole_file(), message, fix);
    }
}
