//! Registrations outlive a restart of rtd in a file beside the control socket,
//! `<socket>.registered`.
//!
//! The file says which process had which name. The next start checks each entry again
//! (`registry/adopt.rs`): process and start time, then the configuration. The file also lists the
//! messages that a stop left in the rings of senders ([`super::leftovers`]). Only the control
//! thread reads and writes it.
//!
//! Invariant: a file that is foreign, corrupt, or of another boot or pid namespace is reported and
//! ignored; it never fails a start.

use super::leftovers::Leftover;
use crate::log;
use crate::words::in_unit;
use rtcore::sys::keepfile;
use rtcore::sys::limits::shortage_hint;
use rtcore::sys::procfs::pid_scope;
use std::fmt::Write as _;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// First line; the number is the version of the following lines.
const HEADER: &str = "rtd registrations 1";
/// Largest file that is read: a thousand entries of the longest kind.
const BYTES_MAX: u64 = 1 << 20;
/// Limit of the supplementary groups that are stored; a process with more is checked against these.
const GROUPS_MAX: usize = 64;
/// Pause between two attempts to write the file.
const RETRY: Duration = Duration::from_secs(1);
/// Limit of the stored path of a program, which is for the log only.
const EXE_BYTES_MAX: usize = 256;

/// A process at the time at which it took its name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Identity {
    pub pid: i32,
    /// Thread that thread-directed signals go to.
    pub tid: i32,
    /// Together with the pid, identifies one process ([`rtcore::sys::procfs::start_ticks`]).
    pub start_ticks: u64,
    /// Effective user, which may free the name.
    pub euid: u32,
    pub egid: u32,
    pub groups: Vec<u32>,
    /// User of the process that asked.
    pub requester: u32,
    /// Whether it holds the name by a session instead of a registration.
    pub session: bool,
    /// Path of its program, for the log.
    pub exe: String,
}

/// A name and its holder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Record {
    pub name: String,
    pub who: Identity,
}

#[derive(Debug)]
pub(super) struct Kept {
    path: PathBuf,
    /// Time of the last failed write, which was logged.
    failed_at: Option<Instant>,
    /// The file exists, unless somebody removed it.
    written: bool,
}

/// The file of registrations of the instance with this socket.
pub fn path_beside(socket: &Path) -> PathBuf {
    let mut name = socket.as_os_str().to_owned();
    name.push(".registered");
    name.into()
}

impl Kept {
    pub fn beside(socket: &Path) -> Kept {
        Kept {
            path: path_beside(socket),
            failed_at: None,
            written: false,
        }
    }

    /// The entries of the last life of the instance. If the file cannot be used, a warning names
    /// it.
    pub fn load(&self) -> (Vec<Record>, Vec<Leftover>) {
        let read = keepfile::read(&self.path, BYTES_MAX).map_err(|e| e.to_string());
        let parsed = read.and_then(|text| {
            let Some(text) = text else {
                return Ok(Default::default());
            };
            let scope = pid_scope().map_err(|e| e.to_string())?;
            parse(&text, &scope).map_err(|e| format!("{}: {e}", self.path.display()))
        });
        parsed.unwrap_or_else(|why| {
            log::warning(format_args!(
                "registrations of the last run are not restored: {why}; register running programs again (rtctl register)"
            ));
            Default::default()
        })
    }

    /// Replaces the file. If this fails, rtd logs it once, continues, and tries again
    /// ([`Kept::is_due`]).
    pub fn store(&mut self, records: &[Record], leftovers: &[Leftover]) {
        // Checked first, because this write would hide a removal.
        self.was_removed();
        let is_empty = records.is_empty() && leftovers.is_empty();
        let stored = if is_empty {
            keepfile::remove(&self.path)
        } else {
            pid_scope()
                .and_then(|scope| keepfile::write(&self.path, &render(records, leftovers, &scope)))
        };
        if let Err(e) = &stored
            && self.failed_at.is_none()
        {
            let fix = match (e.kind(), shortage_hint(e)) {
                (io::ErrorKind::StorageFull, _) => "; make room on its file system".to_owned(),
                (io::ErrorKind::FileTooLarge, _) => {
                    format!("; {}", in_unit("LimitFSIZE=infinity"))
                }
                (_, "") => "; set [daemon] socket to a directory that rtd may write".to_owned(),
                (_, shortage) => shortage.to_owned(),
            };
            log::warning(format_args!(
                "registrations will not outlive a restart of rtd: {e}{fix}"
            ));
        }
        if stored.is_ok() && self.failed_at.is_some() {
            log::info(format_args!(
                "registrations outlive a restart of rtd again: {} is written",
                self.path.display()
            ));
        }
        // The next tick recreates a directory that somebody removed.
        self.failed_at = stored.as_ref().err().map(|e| match e.kind() {
            io::ErrorKind::NotFound => Instant::now()
                .checked_sub(RETRY)
                .unwrap_or_else(Instant::now),
            _ => Instant::now(),
        });
        self.written = stored.is_ok() && !is_empty;
    }

    /// Whether it is time to repeat a failed write: a full file system may have room by now.
    pub fn is_due(&self, now: Instant) -> bool {
        self.failed_at
            .is_some_and(|at| now.saturating_duration_since(at) >= RETRY)
    }

    /// Whether the file is missing although it should exist.
    pub fn is_missing(&mut self) -> bool {
        self.failed_at.is_some() || self.was_removed()
    }

    /// Whether somebody removed the file, or its directory, since it was written; true once.
    pub fn was_removed(&mut self) -> bool {
        let removed = self.written && self.path.symlink_metadata().is_err();
        if removed {
            log::warning(format_args!(
                "{} was removed while rtd uses it; rtd writes it again",
                self.path.display()
            ));
            self.written = false;
        }
        removed
    }
}

/// Reads the text of such a file and writes it again: the new text has the same entries.
///
/// Errors: why it is not used.
pub fn rewritten(text: &str, scope: &str) -> Result<String, String> {
    parse(text, scope).map(|(records, leftovers)| render(&records, &leftovers, scope))
}

fn render(records: &[Record], leftovers: &[Leftover], scope: &str) -> String {
    let mut text = format!("{HEADER}\n{scope}\n");
    for Record { name, who } in records {
        let kind = if who.session {
            "session"
        } else {
            "registration"
        };
        let groups: Vec<String> = who
            .groups
            .iter()
            .take(GROUPS_MAX)
            .map(u32::to_string)
            .collect();
        let exe: String = who
            .exe
            .escape_debug()
            .to_string()
            .chars()
            .take(EXE_BYTES_MAX / 4)
            .collect();
        let Identity {
            pid,
            tid,
            start_ticks,
            euid,
            egid,
            requester,
            ..
        } = who;
        // Writing to a String does not fail.
        let _ = writeln!(
            text,
            "{kind} {name} {pid} {tid} {start_ticks} {euid} {egid} {requester} {}. {exe}",
            groups.join(",")
        );
    }
    for Leftover {
        endpoint,
        pid,
        start_ticks,
        messages,
    } in leftovers
    {
        let _ = writeln!(text, "left {endpoint} {pid} {start_ticks} {messages}");
    }
    text
}

fn parse(text: &str, scope: &str) -> Result<(Vec<Record>, Vec<Leftover>), String> {
    let mut lines = text.lines();
    if lines.next() != Some(HEADER) {
        return Err(format!("its first line is not `{HEADER}`"));
    }
    if lines.next() != Some(scope) {
        return Err(
            "it was written in another boot of the machine or another pid namespace".to_owned(),
        );
    }
    // A truncated file would hide a registration.
    if !text.ends_with('\n') {
        return Err("its last line is incomplete".to_owned());
    }
    let (mut records, mut leftovers) = (Vec::new(), Vec::new());
    for (number, line) in lines.enumerate() {
        if let Some(record) = parse_record(line) {
            records.push(record);
        } else if let Some(leftover) = parse_leftover(line) {
            leftovers.push(leftover);
        } else {
            return Err(format!("line {} is not an entry: {line:?}", number + 3));
        }
    }
    Ok((records, leftovers))
}

fn parse_leftover(line: &str) -> Option<Leftover> {
    let mut words = line.strip_prefix("left ")?.split(' ');
    let leftover = Leftover {
        endpoint: words.next()?.to_owned(),
        pid: words.next()?.parse().ok().filter(|pid| *pid > 0)?,
        start_ticks: words.next()?.parse().ok()?,
        messages: words.next()?.parse().ok()?,
    };
    words.next().is_none().then_some(leftover)
}

fn parse_record(line: &str) -> Option<Record> {
    let mut words = line.splitn(10, ' ');
    let session = match words.next()? {
        "session" => true,
        "registration" => false,
        _ => return None,
    };
    let name = words.next()?.to_owned();
    let mut number = || words.next()?.parse::<u64>().ok();
    let (pid, tid, start_ticks) = (number()?, number()?, number()?);
    let (euid, egid, requester) = (number()?, number()?, number()?);
    let groups = words.next()?.strip_suffix('.')?;
    let groups = groups
        .split(',')
        .filter(|group| !group.is_empty())
        .map(|group| group.parse().ok());
    let (small, id) = (
        |n: u64| i32::try_from(n).ok(),
        |n: u64| u32::try_from(n).ok(),
    );
    let who = Identity {
        pid: small(pid)?,
        tid: small(tid)?,
        start_ticks,
        euid: id(euid)?,
        egid: id(egid)?,
        groups: groups.collect::<Option<_>>()?,
        requester: id(requester)?,
        session,
        exe: words.next()?.to_owned(),
    };
    Some(Record { name, who })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(name: &str, groups: &[u32]) -> Record {
        let who = Identity {
            pid: 12,
            tid: 13,
            start_ticks: 1 << 40,
            euid: 1,
            egid: 2,
            groups: groups.to_vec(),
            requester: u32::MAX,
            session: groups.is_empty(),
            exe: "/opt/a program (deleted)".to_owned(),
        };
        Record {
            name: name.to_owned(),
            who,
        }
    }

    #[test]
    fn what_is_kept_is_what_was_there() {
        let records = [record("arm", &[]), record("leg", &[7, 8])];
        let left = |pid| Leftover {
            endpoint: "arm.out".to_owned(),
            pid,
            start_ticks: 1 << 40,
            messages: 36,
        };
        let leftovers = [left(7), left(8)];
        let text = render(&records, &leftovers, "boot x pid:[1]");
        assert_eq!(
            parse(&text, "boot x pid:[1]").unwrap(),
            (records.to_vec(), leftovers.to_vec())
        );
        let other = parse(&text, "boot y pid:[1]").unwrap_err();
        assert!(other.contains("another boot"), "{other}");
        let mut strange = record("arm", &[]);
        strange.who.exe = "/a\nregistration leg 1 1 1 0 0 0 . /b".to_owned();
        let (records, _) = parse(&render(&[strange], &[], "s"), "s").unwrap();
        assert_eq!(records.len(), 1, "a path has no line of its own");
    }

    #[test]
    fn rubbish_is_refused_as_a_whole() {
        let good = render(&[record("arm", &[3])], &[], "s");
        assert!(parse(&good, "s").is_ok());
        for (bad, says) in [
            (String::new(), "first line"),
            (good.replacen(" 1\n", " 2\n", 1), "first line"),
            (good.clone() + "x\n", "line 4"),
            (good.clone() + "left arm.out 0 1 1\n", "line 4"),
            (good.clone() + "left arm.out 1 1 1 1\n", "line 4"),
            (good.replace("registration arm", "lodger arm"), "line 3"),
            (good.replace("arm 12", "arm -12"), "line 3"),
            (good.replace("arm 12", "arm 9999999999"), "line 3"),
            (good.replace("3.", "3,x."), "line 3"),
            (good.trim_end().to_owned(), "incomplete"),
        ] {
            let text = parse(&bad, "s").unwrap_err();
            assert!(text.contains(says), "{bad}: {text}");
        }
    }
}
