//! The user of this process, and the final change to another user (credentials(7), setresuid(2)).

use super::caps::Set;
use super::procfs::{self, field, mask, named, numbers};
use nix::unistd::{Gid, Uid, setgroups, setresgid, setresuid};
use std::io;

/// A user and a group, as the kernel knows them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Account {
    pub uid: u32,
    pub gid: u32,
}

/// The data of /proc about one thread of this process (proc_pid_status(5)).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Thread {
    pub tid: i32,
    pub comm: String,
    /// Real, effective, saved and file-system user.
    pub uids: [u32; 4],
    /// The same of the group.
    pub gids: [u32; 4],
    pub groups: Vec<u32>,
    /// The permitted capabilities.
    pub permitted: Set,
    /// The capabilities that an exec(2) could add: inheritable and ambient.
    pub passed_on: Set,
    /// No exec(2) gives it more than it has.
    pub no_new_privs: bool,
}

impl Thread {
    /// Whether it is this account's in every respect, but for supplementary groups.
    pub fn is(&self, account: Account) -> bool {
        self.uids == [account.uid; 4] && self.gids == [account.gid; 4]
    }
}

/// The threads of this process. One that ends meanwhile may be missing.
pub fn threads() -> io::Result<Vec<Thread>> {
    const TASKS: &str = "/proc/self/task";
    let mut all = Vec::new();
    for entry in std::fs::read_dir(TASKS).map_err(|e| named(TASKS, e))? {
        let entry = entry.map_err(|e| named(TASKS, e))?;
        let Some(tid) = entry
            .file_name()
            .to_str()
            .and_then(|name| name.parse().ok())
        else {
            continue;
        };
        let path = entry.path().join("status");
        let text = match procfs::text(&path) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => continue,
            text => text.map_err(|e| named(path.display(), e))?,
        };
        let lines = || io::Error::new(io::ErrorKind::InvalidData, "lines are missing");
        all.push(parse(tid, &text).ok_or_else(|| named(path.display(), lines()))?);
    }
    Ok(all)
}

fn parse(tid: i32, text: &str) -> Option<Thread> {
    Some(Thread {
        tid,
        comm: field(text, "Name")?.to_owned(),
        uids: numbers(text, "Uid")?.try_into().ok()?,
        gids: numbers(text, "Gid")?.try_into().ok()?,
        groups: numbers(text, "Groups")?,
        permitted: Set::from_bits(mask(text, "CapPrm")?),
        passed_on: Set::from_bits(mask(text, "CapInh")? | mask(text, "CapAmb")?),
        no_new_privs: field(text, "NoNewPrivs")? == "1",
    })
}

/// Makes the process this account's: real, effective, saved and file-system ids, no supplementary
/// group. Only a capability would allow the way back. Capabilities stay permitted, but are not
/// effective any more: [`super::caps::hold`] selects some of them.
///
/// Call it while there is one thread.
///
/// Errors: EPERM without CAP_SETGID or CAP_SETUID; the text names the call.
pub fn become_account(account: Account) -> io::Result<()> {
    let Account { uid, gid } = account;
    // A process that is to end with its parent still has to (a change of ids clears
    // PR_SET_PDEATHSIG).
    let ends_with_parent = rustix::process::parent_process_death_signal()?;
    rustix::thread::set_keep_capabilities(true).map_err(|e| named("PR_SET_KEEPCAPS", e))?;
    setgroups(&[]).map_err(|e| named("setgroups to none", e))?;
    let group = Gid::from_raw(gid);
    setresgid(group, group, group).map_err(|e| named(format!("setresgid to {gid}"), e))?;
    let user = Uid::from_raw(uid);
    setresuid(user, user, user).map_err(|e| named(format!("setresuid to {uid}"), e))?;
    rustix::thread::set_keep_capabilities(false).map_err(|e| named("PR_SET_KEEPCAPS", e))?;
    rustix::process::set_parent_process_death_signal(ends_with_parent)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_thread_is_shown_with_its_own_capabilities() {
        let (ready, wait) = std::sync::mpsc::channel();
        let (end, ended) = std::sync::mpsc::channel::<()>();
        let thread = std::thread::Builder::new()
            .name("bare".to_owned())
            .spawn(move || {
                super::super::caps::hold(Set::EMPTY).unwrap();
                ready.send(super::super::sched::gettid()).unwrap();
                let _ = ended.recv();
            });
        let tid = wait.recv().unwrap();
        let all = threads().unwrap();
        let bare = all.iter().find(|thread| thread.tid == tid).unwrap();
        assert_eq!(
            (bare.comm.as_str(), bare.permitted, bare.passed_on),
            ("bare", Set::EMPTY, Set::EMPTY)
        );
        let own = super::super::sched::gettid();
        let own = all.iter().find(|thread| thread.tid == own).unwrap();
        assert_eq!(own.permitted, super::super::caps::permitted().unwrap());
        assert_eq!(own.uids[1], super::super::procfs::effective_uid());
        drop(end);
        thread.unwrap().join().unwrap();
    }

    #[test]
    fn a_status_with_missing_lines_is_none() {
        let full = "Name:\ta b\nUid:\t1\t2\t3\t4\nGid:\t5\t6\t7\t8\nGroups:\t9 10 \nCapInh:\t0000000000000001\n\
                    CapPrm:\t0000000000000020\nCapAmb:\t0000000000000002\nNoNewPrivs:\t1\n";
        let thread = parse(7, full).unwrap();
        assert_eq!((thread.uids, thread.gids), ([1, 2, 3, 4], [5, 6, 7, 8]));
        assert_eq!(
            (thread.permitted, thread.passed_on),
            (Set::from_bits(32), Set::from_bits(3))
        );
        assert!(thread.no_new_privs && !thread.is(Account { uid: 1, gid: 5 }));
        for line in full.lines() {
            assert_eq!(parse(7, &full.replace(line, "")), None, "{line}");
        }
    }
}
