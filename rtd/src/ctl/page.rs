//! An instance's statistics page for the commands that read it: opening it with a helpful error,
//! its one-line summary, and output that ends cleanly when its reader is gone.

#![forbid(unsafe_code)]

use super::register;
use crate::endpoint::{of_page, signal};
use crate::words::SHARE_IPC;
use anyhow::{anyhow, bail};
use rtcore::client::ConnectError;
use rtcore::client::locate::{self, RUN_DIR, may_order};
use rtcore::endpoint::Shown;
use rtcore::stats::reader::{DaemonState, Endpoint, ReadError, Reader, Snapshot, instances};
use rtcore::sys::procfs::{effective_uid, own_namespace};
use rtcore::sys::signame;
use rtcore::wire::{self, Request};
use std::io::{self, Write};
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// Time in which a running daemon recreates a removed page or socket, with a reserve.
pub const RESTORED_WITHIN: Duration = Duration::from_secs(2);
/// Pause between two checks for it; nothing announces it.
const LOOK_PAUSE: Duration = Duration::from_millis(50);
const PING_PATIENCE: Duration = Duration::from_millis(500);

/// Opens the page of `instance`. Waits for one that was removed under a running daemon.
pub fn open(instance: &str) -> anyhow::Result<Reader> {
    let give_up = Instant::now() + RESTORED_WITHIN;
    let mut pageless = pageless();
    loop {
        let places = match Reader::open(instance) {
            Err(ReadError::NoInstance { places, .. }) => places,
            found => return Ok(found?),
        };
        let socket = answering(instance);
        if socket.is_none() && pageless.is_empty() {
            bail!(
                "instance \"{instance}\" does not run: there is no {instance}.page in {places}\n\
                 \x20 start it: rtd run FILE (or try: rtd demo)\n\
                 \x20 {}",
                others()
            );
        }
        if Instant::now() > give_up {
            let seen = match socket {
                Some(socket) => {
                    format!(
                        "instance \"{instance}\" runs, its control socket {} answers",
                        socket.display()
                    )
                }
                None => format!(
                    "rtd runs as pid {}, perhaps as instance \"{instance}\"",
                    pageless[0]
                ),
            };
            bail!(
                "{seen}, but it has no statistics page: there is no {instance}.page in {places}; the log of rtd says why it \
                 cannot make it again"
            );
        }
        std::thread::sleep(LOOK_PAUSE);
        let still = self::pageless();
        pageless.retain(|pid| still.contains(pid));
    }
}

/// Running daemons, in the same mount namespace, whose page is not found: it was removed, or they
/// are just starting.
fn pageless() -> Vec<u32> {
    let own_namespace = std::fs::read_link("/proc/self/ns/mnt").ok();
    let runs = |pid: &u32| {
        let read = |file: &str| std::fs::read(format!("/proc/{pid}/{file}")).unwrap_or_default();
        let is_daemon = read("comm") == b"rtd\n"
            && read("cmdline").split(|byte| *byte == 0).nth(1) == Some(b"run");
        // A link that may not be read must not hide a daemon.
        let namespace = std::fs::read_link(format!("/proc/{pid}/ns/mnt")).ok();
        is_daemon && (namespace.is_none() || namespace == own_namespace)
    };
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    let running: Vec<u32> = pids.filter(runs).collect();
    if running.is_empty() {
        return running;
    }
    let pages: Vec<_> = instances()
        .iter()
        .map(|name| Reader::open(name).map(|page| page.pid()))
        .collect();
    let shown: Vec<u32> = pages.iter().flatten().copied().collect();
    // Pages of another version: their daemons cannot be read, and each may be one of the remaining
    // ones.
    let unreadable = pages.iter().filter(|page| page.is_err()).count();
    running
        .into_iter()
        .filter(|pid| !shown.contains(pid))
        .skip(unreadable)
        .collect()
}

/// The control socket at which the instance answers, if it does.
fn answering(instance: &str) -> Option<PathBuf> {
    let named = std::env::var_os(SOCKET_VARIABLE).map(PathBuf::from);
    let sockets = named.into_iter().chain([locate::find_socket(instance)]);
    let answers = |socket: &PathBuf| {
        register::ask(socket, &Request::Ping, PING_PATIENCE)
            .is_ok_and(|(_, reply)| reply.text == wire::pong(instance))
    };
    sockets.into_iter().find(answers)
}

/// Environment variable that names the control socket for all commands.
pub const SOCKET_VARIABLE: &str = "RTD_SOCKET";

/// The default instance: the only one that runs, as for programs that link the library; if none
/// runs, the default name of a configuration.
pub fn default_instance() -> anyhow::Result<String> {
    match locate::default_instance() {
        Ok(name) => Ok(name),
        Err(ConnectError::NoInstance) => Ok(crate::config::DEFAULT_INSTANCE.to_owned()),
        Err(ConnectError::SeveralInstances { instances }) => {
            bail!(
                "several instances of rtd run here ({instances}): choose one with --instance NAME or RTD_INSTANCE"
            )
        }
        Err(e) => Err(e.into()),
    }
}

/// The existing instances, for an error about one that does not exist.
pub fn others() -> String {
    choice(&instances())
}

fn choice(instances: &[String]) -> String {
    match instances {
        [] => "instances on this machine: none; rtd run FILE starts one".to_owned(),
        [only] => format!("the instance on this machine is {only}: --instance {only}"),
        all => format!(
            "instances on this machine: {}; choose one with --instance NAME or RTD_INSTANCE",
            all.join(", ")
        ),
    }
}

/// The page of `instance`, for a command that acts on its content.
///
/// The owner of a page can write anything into it: the process that gets a signal, the queue that
/// is opened. A command therefore acts only on a page of a trusted owner.
pub fn trusted(instance: &str) -> anyhow::Result<Snapshot> {
    let reader = open(instance)?;
    let page = reader.snapshot()?;
    if !may_order(page.uid) {
        let ours = effective_uid();
        bail!(
            "the page {} belongs to uid {}, not to root, to uid {ours} or to the owner of {RUN_DIR}: its content is not \
             trusted, and no message is sent or read because of it; run this as that user",
            reader.path().display(),
            page.uid
        );
    }
    Ok(page)
}

/// Refuses objects that this program, which makes Linux's calls, cannot reach: queues and signals
/// of a skin's own, and queues of another IPC namespace, where the names mean other queues.
pub fn reachable(page: &Snapshot, endpoint: &Endpoint) -> anyhow::Result<()> {
    let own = matches!(endpoint.kind, Shown::Mqueue(_) | Shown::Signal(_));
    if own && page.private_namespace {
        bail!(
            "{} is a {} of the skin `{}`, on which \"{}\" runs: programs on that skin reach it, this one makes Linux's \
             calls",
            endpoint.name,
            if matches!(endpoint.kind, Shown::Mqueue(_)) {
                "queue"
            } else {
                "signal"
            },
            page.skin,
            page.instance
        );
    }
    if matches!(endpoint.kind, Shown::Mqueue(_)) {
        same_ipc_namespace(page, &endpoint.name)?;
    }
    Ok(())
}

/// Why a tool cannot use an endpoint of this kind, and how a program can.
pub fn closed(kind: &Shown, call: &str) -> String {
    let known = of_page(kind).and_then(|(_, page)| page.closed_to_tools(call));
    known.unwrap_or_else(|| "has a kind that this version of rtctl does not know".to_owned())
}

/// Checks that a queue of this name is the daemon's in this process's IPC namespace; otherwise an
/// error with the fix.
fn same_ipc_namespace(page: &Snapshot, name: &str) -> anyhow::Result<()> {
    let ours = own_namespace("ipc");
    if page.ipc_namespace == 0 || ours == 0 || page.ipc_namespace == ours {
        return Ok(());
    }
    bail!(
        "{name} is a queue in rtd's IPC namespace (ipc:[{}]), and this program is in another one (ipc:[{ours}]), where the name \
         means another queue: run it in rtd's (nsenter --ipc --target PID_OF_RTD, \
         {SHARE_IPC})",
        page.ipc_namespace
    );
}

/// Queues of a process that this one could not open if it became that process, because it is in
/// another IPC namespace.
pub fn unreachable_queues(instance: &str, process: &str) -> Option<String> {
    let page = Reader::open(instance).ok()?.snapshot().ok()?;
    let owner = page.processes.iter().position(|p| p.name == process)?;
    let queues = page
        .endpoints
        .iter()
        .filter(|e| e.owner == Some(owner) && matches!(e.kind, Shown::Mqueue(_)));
    let names: Vec<&str> = queues.map(|e| e.name.as_str()).collect();
    let first = names.first()?;
    let different = !page.private_namespace && same_ipc_namespace(&page, first).is_err();
    different.then(|| names.join(", "))
}

/// Checks that a pid on the page means the same process here; otherwise an error with the fix.
pub fn same_pid_namespace(page: &Snapshot) -> anyhow::Result<()> {
    let ours = own_namespace("pid");
    if page.pid_namespace == 0 || ours == 0 || page.pid_namespace == ours {
        return Ok(());
    }
    bail!(
        "rtd \"{}\" runs in another pid namespace (pid:[{}]) than this program (pid:[{ours}]), where its pid means another \
         process: nothing is sent; run this in rtd's (nsenter --pid --target PID_OF_RTD, --pid=host for a container)",
        page.instance,
        page.pid_namespace
    );
}

/// The signal of an endpoint, if any configuration may have it.
pub fn signal_of(endpoint: &Endpoint, signo: i32) -> anyhow::Result<i32> {
    let allowed = if endpoint.is_source {
        signal::may_be_source(signo)
    } else {
        signal::may_be_sink(signo)
    };
    if !allowed {
        bail!(
            "the page says that {} is signal {signo} ({}), which no configuration can name",
            endpoint.name,
            signame::name(signo)
        );
    }
    Ok(signo)
}

/// `rtd: pid 812, running, up 4:05:06`, with a warning if something is wrong.
pub fn summary(read: &Snapshot) -> String {
    let silent_s = read.taken_ns.saturating_sub(read.heartbeat_ns) as f64 / 1e9;
    let state = match read.state {
        DaemonState::Running if read.ready_ns.is_none() => "running, not ready yet".to_owned(),
        DaemonState::Running => "running".to_owned(),
        DaemonState::Hung => format!("HUNG (no heartbeat for {silent_s:.1} s)"),
        DaemonState::Stopped => format!(
            "STOPPED {} ago (these are its last figures)",
            duration(silent_s)
        ),
    };
    let up = match read.state {
        DaemonState::Stopped => "was up",
        _ => "up",
    };
    let uptime = duration(read.uptime_ns() as f64 / 1e9);
    let degraded = if read.is_degraded() { ", DEGRADED" } else { "" };
    format!(
        "{}: pid {}, {state}, {up} {uptime}, skin {}{degraded}",
        read.instance, read.pid, read.skin
    )
}

/// Seconds below a minute as `1.5 s`, otherwise `h:mm:ss`, with days before it.
pub fn duration(seconds: f64) -> String {
    if seconds < 60.0 {
        return format!("{seconds:.1} s");
    }
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "positive, saturates"
    )]
    let whole = seconds as u64;
    let (days, hours, minutes, seconds) = (
        whole / 86_400,
        whole / 3600 % 24,
        whole / 60 % 60,
        whole % 60,
    );
    let clock = format!("{hours}:{minutes:02}:{seconds:02}");
    if days == 0 {
        clock
    } else {
        format!("{days} d {clock}")
    }
}

/// Whether standard output still has a reader.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Printed {
    /// Everything was written.
    Yes,
    /// The pipe is closed, as by `| head`: the command stops without an error.
    NobodyReads,
}

/// Writes `text` to standard output in one piece.
pub fn print(text: &str) -> anyhow::Result<Printed> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Ok(()) => Ok(Printed::Yes),
        Err(e) if e.kind() == io::ErrorKind::BrokenPipe => Ok(Printed::NobodyReads),
        Err(e) => Err(anyhow!("cannot write to standard output: {e}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rtcore::lane::peer::Reception;

    #[test]
    fn durations_read_like_a_clock() {
        let shown = [0.25, 59.9, 61.0, 3_661.9, 90_000.0].map(duration);
        assert_eq!(
            shown,
            ["0.2 s", "59.9 s", "0:01:01", "1:01:01", "1 d 1:00:00"]
        );
    }

    #[test]
    fn instances_are_offered_only_where_there_are_some() {
        let of = |names: &[&str]| {
            choice(
                &names
                    .iter()
                    .map(|name| (*name).to_owned())
                    .collect::<Vec<_>>(),
            )
        };
        assert!(of(&[]).contains("none; rtd run FILE starts one") && !of(&[]).contains("choose"));
        assert_eq!(
            of(&["arm"]),
            "the instance on this machine is arm: --instance arm"
        );
        assert!(of(&["arm", "leg"]).contains("arm, leg; choose one"));
    }

    #[test]
    fn an_absent_instance_is_reported_with_the_command_to_start_it() {
        let text = open("no-such-instance").unwrap_err().to_string();
        assert!(
            text.contains("no-such-instance.page in /run/rtd, ") && text.contains("rtd run"),
            "{text}"
        );
    }

    #[test]
    fn only_a_signal_that_a_configuration_may_have_is_believed() {
        let endpoint = |is_source| Endpoint {
            name: "go".into(),
            owner: None,
            is_source,
            is_sink: !is_source,
            reception: Reception::Takes,
            refused: [0; _],
            kind: Shown::Unknown(0),
        };
        let (rt, term, kill) = (rtcore::sys::signame::rt_min(), 15, 9);
        assert_eq!(signal_of(&endpoint(true), rt).unwrap(), rt);
        assert_eq!(signal_of(&endpoint(false), term).unwrap(), term);
        for (is_source, signo) in [
            (true, term),
            (true, kill),
            (false, kill),
            (false, 0),
            (false, 33),
            (false, -9),
        ] {
            let text = signal_of(&endpoint(is_source), signo)
                .unwrap_err()
                .to_string();
            assert!(text.contains(&format!("go is signal {signo}")), "{text}");
        }
    }
}
