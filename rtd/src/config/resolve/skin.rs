//! The choice of the skin, and the settings that it does not support.
//!
//! Constraint: only the choice itself depends on the name of the skin; refusals depend on its
//! capabilities.

use super::{Context, account, library, whole_file};
use crate::config::diagnostic::Place;
use crate::config::sections::Endpoint;
use crate::config::values::SkinText;
use crate::endpoint::mqueue::{self, MqueuePlan};
use crate::endpoint::signal::SignalPlan;
use crate::endpoint::{EndpointKind, Keys, Kind, KindKeys as _};
use crate::plan::{Plan, SEMAPHORES_MAX, SkinChoice, SkinKind, SkinPlan};
use rtcore::lane::policy::Wait;
use rtcore::skin::Doorbell;
use rtcore::skin::cobalt::{PROC_VERSION, mq};
use rtcore::sys::ids::Account;
use std::path::{Path, PathBuf};

/// Longest name of a queue in a namespace of a skin's own, with its `/`.
const PRIVATE_NAME_BYTES_MAX: usize = 63;

/// Chooses; a skin that was requested by name and is not available is an error. The core must be
/// there for the account that rtd will have when it binds.
pub fn choose(cx: &mut Context<'_, '_, '_>, account: Option<Account>) -> SkinPlan {
    let daemon = &cx.config.daemon;
    let named = library_path(cx);
    let written = daemon
        .skin
        .get()
        .map_or(SkinChoice::Auto, |SkinText(choice)| *choice);
    let wanted = cx.options.skin.unwrap_or(written);
    if wanted == SkinChoice::Posix {
        return SkinPlan::posix("asked for");
    }
    let place = daemon
        .skin
        .place_or(&daemon.cobalt_library.place_or(&whole_file()));
    let library = named.as_deref().map(library::resolved);
    if let Some(why) = library
        .as_deref()
        .and_then(|library| untrusted(cx, library))
    {
        return SkinPlan::posix(why);
    }
    let account = account::changed(cx, account);
    match cx.machine.cobalt(library.as_deref(), account) {
        Ok(found) => match linux_mode(cx).filter(|_| wanted == SkinChoice::Auto) {
            Some(name) => SkinPlan::posix(format!(
                "endpoint `{name}` has a `mode`, which only Linux's queues have (skin = \
                 \"cobalt\" selects {} even so)",
                found.what
            )),
            None => {
                if wanted == SkinChoice::Auto {
                    unseen_queues(cx, &place);
                }
                SkinPlan {
                    kind: SkinKind::Cobalt,
                    library,
                    why: found.what,
                    xddp: found.xddp,
                }
            }
        },
        Err(why) if wanted == SkinChoice::Cobalt => {
            let message = format!("Cobalt is not available: {why}");
            let auto = if cx.options.skin.is_some() {
                "--skin auto"
            } else {
                "skin = \"auto\" in [daemon]"
            };
            let fix = format!("{}\n{auto} (Cobalt if it is available)", posix(cx));
            cx.report
                .error(&place, message, format!("{fix}{}", group_fix(account)));
            SkinPlan::posix(why)
        }
        Err(why) => {
            // If a library is configured or a core exists, Cobalt is intended; a machine without
            // either is the usual case.
            if library.is_some() || Path::new(PROC_VERSION).exists() {
                let message = format!(
                    "Cobalt is not available, so the lanes would run on posix: \
                {why}"
                );
                let fix = if library.is_some() {
                    "\nremove `cobalt_library`"
                } else {
                    ""
                };
                cx.report.warning(
                    &place,
                    message,
                    format!("{}{fix}{}", posix(cx), group_fix(account)),
                );
            }
            SkinPlan::posix(why)
        }
    }
}

/// A permission that the account of rtd may lack, because it keeps one group.
fn group_fix(account: Option<Account>) -> &'static str {
    match account {
        Some(_) => {
            "\ngroup = (the group of xenomai.allowed_group and of /dev/rtdm/memdev-*; rtd keeps no other)"
        }
        None => "",
    }
}

/// The line that selects the other skin: the option overrides the file, so a key would change
/// nothing.
pub fn posix(cx: &Context<'_, '_, '_>) -> &'static str {
    if cx.options.skin.is_some() {
        "--skin posix"
    } else {
        "skin = \"posix\" in [daemon]"
    }
}

fn linux_mode<'c>(cx: &Context<'c, '_, '_>) -> Option<&'c str> {
    let has_mode =
        |e: &&Endpoint| matches!(&e.keys, Keys::Mqueue(keys) if keys.mode.at().is_some());
    let endpoint = cx.config.endpoint.iter().find(has_mode)?;
    Some(endpoint.name.get().map_or("?", |name| name.0.as_str()))
}

/// Nobody selected Cobalt by name, and its queues are not those that a plain Linux program opens.
fn unseen_queues(cx: &mut Context<'_, '_, '_>, place: &Place) {
    let is_queue = |e: &&Endpoint| e.kind.get().is_some_and(|kind| kind.0 == Kind::Mqueue);
    let Some(endpoint) = cx.config.endpoint.iter().find(is_queue) else {
        return;
    };
    let message = format!(
        "`auto` selects Cobalt here, whose queues plain Linux programs do not see: `{}` is one \
         of them",
        endpoint.name.get().map_or("?", |name| name.0.as_str())
    );
    let fix = format!(
        "skin = \"cobalt\" in [daemon] (its programs are Cobalt's)\n{} (they are Linux's)",
        posix(cx)
    );
    cx.report.warning(place, message, fix);
}

/// Reports a library that others may have changed. It must not be loaded, not even for the check.
fn untrusted(cx: &mut Context<'_, '_, '_>, library: &std::path::Path) -> Option<String> {
    let fault = library::fault(library, library::trusted(cx.machine.uid))?;
    let place = cx.config.daemon.cobalt_library.place_or(&whole_file());
    let message = format!(
        "{}, and the code of `{}` runs with rtd's rights",
        fault.text,
        library.display()
    );
    if !fault.is_open {
        cx.report.warning(&place, message, fault.fix);
        return None;
    }
    cx.report.error(&place, message, fault.fix);
    Some(fault.text)
}

fn library_path(cx: &mut Context<'_, '_, '_>) -> Option<PathBuf> {
    let at = cx.config.daemon.cobalt_library.at()?;
    let path = PathBuf::from(&at.value);
    if path.is_absolute() && !at.value.contains('\0') {
        return Some(path);
    }
    let message = format!(
        "`{}` is not the absolute path of a library",
        at.value.escape_debug()
    );
    cx.report.error(
        &at.place,
        message,
        "cobalt_library = \"/usr/xenomai/lib/libcobalt.so.2\"",
    );
    None
}

/// Reports settings that the chosen skin does not support.
pub fn check(cx: &mut Context<'_, '_, '_>, plan: &Plan) {
    let config = cx.config;
    let (caps, name) = (plan.daemon.skin.kind.caps(), plan.daemon.skin.kind.name());
    if !caps.linux_threads {
        polling_lanes(cx, plan, name);
    }
    let needed = plan.doorbells();
    if caps.doorbell == Doorbell::Semaphore && needed > SEMAPHORES_MAX as usize {
        let message = format!(
            "on `{name}` each lane thread and each session's end of a routed ring has a semaphore: {needed}, at most \
             {SEMAPHORES_MAX}"
        );
        cx.report.error(
            &whole_file(),
            message,
            format!(
                "path = \"direct\" (between two lane endpoints)\n{}",
                posix(cx)
            ),
        );
    }
    for (endpoint, written) in plan.endpoints.iter().zip(&config.endpoint) {
        if let (EndpointKind::Mqueue(queue), Keys::Mqueue(keys)) = (&endpoint.kind, &written.keys)
            && !caps.shared_namespace
        {
            private_queue(cx, &endpoint.name, queue, (keys, &written.place), name);
            private_queue_size(cx, queue, (keys, &written.place), name);
        }
    }
    let sunk = plan.sinks();
    for (id, (endpoint, written)) in plan.endpoints.iter().zip(&config.endpoint).enumerate() {
        // With a ring beside it, no signal is sent.
        let (
            EndpointKind::Signal(SignalPlan {
                target,
                inbox: None,
                ..
            }),
            Keys::Signal(keys),
        ) = (&endpoint.kind, &written.keys)
        else {
            continue;
        };
        if !sunk.get(id).copied().unwrap_or(false) {
            continue;
        }
        if !caps.process_signals && *target == rtcore::lane::policy::SignalTarget::Process {
            let message = format!(
                "on `{name}` signals go to threads: those for endpoint `{}` would go to its owner's main thread",
                endpoint.name
            );
            cx.report.warning(
                &keys.target.place_or(&written.place),
                message,
                "target = \"thread\"",
            );
        }
    }
}

/// A lane that never sleeps preempts Linux itself on such a core, even while Linux holds a lock of
/// its kernel that every other CPU waits for. Neither an isolated CPU nor `unisolated` helps.
fn polling_lanes(cx: &mut Context<'_, '_, '_>, plan: &Plan, skin: &str) {
    for (lane, written) in plan.lanes.iter().zip(&cx.config.lane) {
        if lane.wait != Wait::Poll {
            continue;
        }
        let message = format!(
            "on `{skin}` lane `{}` must not poll: it preempts Linux on CPU {} while Linux holds kernel locks, which \
             freezes the whole machine, also if the CPU is isolated",
            lane.name, lane.cpu
        );
        let fix = format!("wait = \"spin:50\"\nwait = \"block\"\n{}", posix(cx));
        cx.report
            .error(&written.wait.place_or(&written.place), message, fix);
    }
}

/// Settings without effect for a queue in a namespace of its own, and names that do not fit there.
fn private_queue(
    cx: &mut Context<'_, '_, '_>,
    endpoint: &str,
    queue: &MqueuePlan,
    (keys, place): (&mqueue::Keys, &Place),
    skin: &str,
) {
    let name_bytes = queue.queue.as_bytes().len();
    if name_bytes > PRIVATE_NAME_BYTES_MAX {
        let message = format!(
            "the queue of endpoint `{endpoint}` has a name of {name_bytes} bytes, on `{skin}` at most \
             {PRIVATE_NAME_BYTES_MAX}"
        );
        cx.report.error(
            &keys.queue.place_or(place),
            message,
            "queue = \"/(a shorter name)\"",
        );
    }
    if let Some(at) = keys.mode.at() {
        let message = format!(
            "`mode` has no effect on `{skin}`: every program that may use the core may open the \
             queue of `{endpoint}`"
        );
        cx.report.warning(&at.place, message, "remove `mode`");
    }
    if let Some(at) = keys.flush_at_start.at().filter(|at| at.value) {
        let message = format!(
            "`flush_at_start` has an effect only on Linux's queues; that of `{endpoint}` is a \
             queue of `{skin}`"
        );
        cx.report.error(
            &at.place,
            message,
            format!("remove `flush_at_start`\n{}", posix(cx)),
        );
    }
}

/// The core allocates all messages of a queue in one piece, which is limited.
fn private_queue_size(
    cx: &mut Context<'_, '_, '_>,
    queue: &MqueuePlan,
    (keys, place): (&mqueue::Keys, &Place),
    skin: &str,
) {
    let MqueuePlan {
        maxmsg, msgsize, ..
    } = *queue;
    let bytes = mq::queue_bytes(maxmsg, msgsize);
    if bytes <= mq::QUEUE_BYTES_MAX {
        return;
    }
    let message = format!(
        "{maxmsg} messages of {msgsize} bytes take {bytes} bytes with their headers, on `{skin}` a queue has at most {}",
        mq::QUEUE_BYTES_MAX
    );
    // If one message is too large, no number of messages fits.
    let fewer = Some(mq::maxmsg_max(msgsize))
        .filter(|fits| *fits > 0)
        .map(|fits| format!("maxmsg = {fits}"));
    let shorter = format!("msgsize = {}", mq::msgsize_max(maxmsg));
    let fix = fewer
        .into_iter()
        .chain([shorter])
        .collect::<Vec<_>>()
        .join("\n");
    let place = keys.size_place().unwrap_or(place);
    cx.report
        .error(place, message, format!("{fix}\n{}", posix(cx)));
}
