//! Notifications for the service manager (sd_notify(3), systemd.service(5)): ready, status,
//! watchdog, stopping.
//!
//! Each is a datagram to the socket in NOTIFY_SOCKET, a path or (`@`) a name without a file. The
//! module never waits: a notification that finds no room is sent again at the next tick, READY= and
//! STOPPING= unchanged, the others with their current values.
//!
//! Constraint: allocates. Control thread only. Invariant: WATCHDOG=1 is sent by the control thread,
//! which shows that it runs; and only if the watchdog found that every lane made progress a moment
//! ago.

use crate::log;
use crate::words::show_time;
use rtcore::sys::printable::printable;
use std::fmt::Write as _;
use std::io;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};

/// Period of the check of STATUS=; it is sent when it has changed.
const STATUS_NS: u64 = 1_000_000_000;
/// The manager's time limit must contain at least this many pings, so that one may be late.
const PINGS_MIN: u64 = 3;

/// The service manager, if there is one.
#[derive(Debug)]
pub struct Notifier {
    manager: Option<(UnixDatagram, SocketAddr)>,
    /// Time from one WATCHDOG=1 to the next; none if nobody waits for it.
    ping_ns: Option<u64>,
    /// Time of the last one.
    pinged_ns: Option<u64>,
    status: String,
    status_ns: u64,
    /// Notifications that must arrive and are not sent yet.
    owed: String,
    last_reported: Option<io::ErrorKind>,
}

impl Notifier {
    /// The notifier for the environment. Settings that cannot be used are logged, and the daemon
    /// runs without them.
    pub fn from_env(look_ns: u64) -> Notifier {
        let variable = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
        let manager = variable("NOTIFY_SOCKET").and_then(|name| {
            let opened = address(name.as_bytes()).and_then(|to| Ok((socket()?, to)));
            opened
                .map_err(|e| log::warning(format_args!("NOTIFY_SOCKET {}: {e}", name.display())))
                .ok()
        });
        let text = |name: &str| variable(name).map(|value| value.to_string_lossy().into_owned());
        let bound = watchdog_ns(
            text("WATCHDOG_USEC"),
            text("WATCHDOG_PID"),
            std::process::id(),
        );
        let bound_ns = bound.unwrap_or_else(|e| {
            log::warning(format_args!("{e}: no WATCHDOG=1 is sent"));
            None
        });
        if let Some(bound_ns) = bound_ns.filter(|bound_ns| *bound_ns < PINGS_MIN * look_ns) {
            log::warning(format_args!(
                "WatchdogSec= is {}, but rtd checks its threads every {}: set at least {}",
                show_time(bound_ns),
                show_time(look_ns),
                show_time(PINGS_MIN * look_ns)
            ));
        }
        Notifier::new(manager, bound_ns)
    }

    fn new(manager: Option<(UnixDatagram, SocketAddr)>, bound_ns: Option<u64>) -> Notifier {
        Notifier {
            manager,
            ping_ns: bound_ns.map(|ns| ns / PINGS_MIN),
            pinged_ns: None,
            status: String::new(),
            status_ns: 0,
            owed: String::new(),
            last_reported: None,
        }
    }

    /// The daemon serves.
    pub fn ready(&mut self, now_ns: u64, status: String) {
        self.owe("READY=1");
        (self.status, self.status_ns) = (status, now_ns);
        self.send(&format!("STATUS={}\n", self.status));
    }

    /// Called at each tick: sends WATCHDOG=1 if all is `well`, and the status if it has changed.
    pub fn tick(&mut self, now_ns: u64, well: bool, status: impl FnOnce() -> String) {
        if self.manager.is_none() {
            return;
        }
        let mut text = String::new();
        let due = |ping_ns| {
            self.pinged_ns
                .is_none_or(|pinged_ns| now_ns.saturating_sub(pinged_ns) >= ping_ns)
        };
        if well && self.ping_ns.is_some_and(due) {
            self.pinged_ns = Some(now_ns);
            text.push_str("WATCHDOG=1\n");
        }
        if now_ns.saturating_sub(self.status_ns) >= STATUS_NS {
            self.status_ns = now_ns;
            let status = status();
            if status != self.status {
                // Writing to a String cannot fail.
                let _ = writeln!(text, "STATUS={status}");
                self.status = status;
            }
        }
        self.send(&text);
    }

    /// The daemon ends, for this reason.
    pub fn stopping(&mut self, why: &str) {
        self.owe("STOPPING=1");
        // A line break would begin another field.
        self.send(&format!("STATUS={}\n", printable(&why.replace('\n', " "))));
    }

    fn owe(&mut self, line: &str) {
        self.owed.push_str(line);
        self.owed.push('\n');
    }

    fn send(&mut self, text: &str) {
        let Some((socket, manager)) = &self.manager else {
            return;
        };
        let text = format!("{}{text}", self.owed);
        if text.is_empty() {
            return;
        }
        match socket.send_to_addr(text.as_bytes(), manager) {
            Ok(_) => {
                self.owed.clear();
                self.last_reported = None;
            }
            Err(e) => {
                // As if never sent: the next tick sends newer ones.
                self.pinged_ns = None;
                self.status.clear();
                // Once for each reason: the manager may be restarting.
                if self.last_reported.replace(e.kind()) != Some(e.kind()) {
                    log::warning(format_args!("cannot notify the service manager: {e}"));
                }
            }
        }
    }
}

fn socket() -> io::Result<UnixDatagram> {
    let socket = UnixDatagram::unbound()?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}

fn address(name: &[u8]) -> io::Result<SocketAddr> {
    match name {
        [b'@', name @ ..] => SocketAddr::from_abstract_name(name),
        [b'/', ..] => SocketAddr::from_pathname(std::ffi::OsStr::from_bytes(name)),
        _ => Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "neither an absolute path nor an @name",
        )),
    }
}

/// The manager's time limit for WATCHDOG=1; none if it does not wait, or waits for another process.
fn watchdog_ns(usec: Option<String>, pid: Option<String>, own: u32) -> Result<Option<u64>, String> {
    let Some(usec) = usec else { return Ok(None) };
    if pid.is_some_and(|pid| pid.parse() != Ok(own)) {
        return Ok(None);
    }
    match usec.parse::<u64>() {
        Ok(usec @ 1..) => Ok(usec.checked_mul(1000)),
        _ => Err(format!(
            "WATCHDOG_USEC {usec:?} is not a number of microseconds"
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;

    fn pair(bound_ns: Option<u64>) -> (Notifier, UnixDatagram) {
        let name = format!(
            "rtd-notify-{}-{:?}",
            std::process::id(),
            std::thread::current().id()
        );
        let to = address(format!("@{name}").as_bytes()).unwrap();
        let manager = UnixDatagram::bind_addr(&to).unwrap();
        manager.set_nonblocking(true).unwrap();
        (
            Notifier::new(Some((socket().unwrap(), to)), bound_ns),
            manager,
        )
    }

    fn next(manager: &UnixDatagram) -> Option<String> {
        let mut text = [0; 512];
        let n = manager.recv(&mut text).ok()?;
        Some(String::from_utf8(text[..n].to_vec()).unwrap())
    }

    #[test]
    fn it_says_ready_then_alive_only_while_all_is_well_then_that_it_goes() {
        let (mut notifier, manager) = pair(Some(300 * MS));
        let status = || "fine".to_owned();
        notifier.ready(1000 * MS, status());
        assert_eq!(next(&manager).as_deref(), Some("READY=1\nSTATUS=fine\n"));
        notifier.tick(1100 * MS, true, status);
        assert_eq!(next(&manager).as_deref(), Some("WATCHDOG=1\n"));
        notifier.tick(1150 * MS, true, status);
        assert_eq!(next(&manager), None, "not yet");
        notifier.tick(1250 * MS, false, status);
        assert_eq!(next(&manager), None, "some lane is not well");
        notifier.tick(1260 * MS, true, status);
        assert_eq!(next(&manager).as_deref(), Some("WATCHDOG=1\n"));
        notifier.tick(2300 * MS, false, || "worse".to_owned());
        assert_eq!(next(&manager).as_deref(), Some("STATUS=worse\n"));
        notifier.stopping("SIGTERM\nREADY=1");
        assert_eq!(
            next(&manager).as_deref(),
            Some("STOPPING=1\nSTATUS=SIGTERM READY=1\n")
        );
    }

    #[test]
    fn nobody_asked_for_pings_and_none_are_sent() {
        let (mut notifier, manager) = pair(None);
        (0..50).for_each(|n| notifier.tick(n * 100 * MS, true, String::new));
        assert_eq!(next(&manager), None);
    }

    #[test]
    fn what_has_to_arrive_is_sent_again_and_nothing_waits() {
        let (mut notifier, manager) = pair(Some(MS));
        let mut now_ns = 1000 * MS;
        while notifier.last_reported.is_none() {
            now_ns += MS;
            notifier.tick(now_ns, true, String::new);
        }
        notifier.ready(now_ns, "fine".into());
        assert_eq!(notifier.owed, "READY=1\n");
        while next(&manager).is_some() {}
        notifier.tick(now_ns + MS, true, String::new);
        assert_eq!(next(&manager).as_deref(), Some("READY=1\nWATCHDOG=1\n"));
        assert_eq!(notifier.owed, "");
        assert_eq!(next(&manager), None);
        // The watchdog ping does not wait for its next turn, nor the status for its next change.
        let mut late = Notifier::new(notifier.manager.take(), Some(30_000 * MS));
        late.ready(now_ns, "fine".into());
        while late.last_reported.is_none() {
            late.owe("X=1");
            late.send("");
        }
        while next(&manager).is_some() {}
        late.owed.clear();
        late.tick(now_ns + 1000 * MS, true, || "fine".into());
        assert_eq!(next(&manager).as_deref(), Some("WATCHDOG=1\nSTATUS=fine\n"));
    }

    #[test]
    fn the_managers_words_are_read_as_systemd_writes_them() {
        let some = |text: &str| Some(text.to_owned());
        assert_eq!(watchdog_ns(None, None, 7), Ok(None));
        assert_eq!(
            watchdog_ns(some("30000000"), None, 7),
            Ok(Some(30_000_000_000))
        );
        assert_eq!(watchdog_ns(some("5"), some("7"), 7), Ok(Some(5000)));
        assert_eq!(
            watchdog_ns(some("5"), some("8"), 7),
            Ok(None),
            "another process' watchdog"
        );
        for wrong in ["0", "-1", "soon"] {
            assert!(
                watchdog_ns(some(wrong), None, 7)
                    .unwrap_err()
                    .contains(wrong)
            );
        }
        assert_eq!(
            address(b"/run/x").unwrap().as_pathname().unwrap().to_str(),
            Some("/run/x")
        );
        assert_eq!(
            address(b"@x/y").unwrap().as_abstract_name(),
            Some(&b"x/y"[..])
        );
        assert!(address(b"vsock:2:1234").is_err());
    }
}
