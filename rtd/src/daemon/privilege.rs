//! The change from the user that started rtd to the user that rtd becomes, with exactly the
//! capabilities that its plan needs.
//!
//! There are two steps. [`Privilege::take`] runs while there is one thread. It does the work that
//! only the starting user can do (a directory for the socket, queues and a page that it left
//! behind). Then the process becomes the user for good, so that everything that it creates later
//! belongs to that user. It keeps the capabilities that a start needs. When every lane thread has
//! its priority, each thread drops its other capabilities by itself, because each thread has its
//! own, and [`Privilege::settle`] reads all of them back. Only [`crate::plan::needs`] decides which
//! capabilities are needed.
//!
//! Invariant: no client is served before `settle` has seen every thread with no more than it needs.

use super::build::hand_over;
use super::permissions;
use crate::control::kept_beside;
use crate::log;
use crate::plan::needs::{self, Need, Who};
use crate::plan::{Plan, SkinKind};
use anyhow::{Context as _, bail};
use rtcore::client::locate::RUN_DIR;
use rtcore::stats::place;
use rtcore::sys::caps::{self, Set};
use rtcore::sys::ids::Account;
use rtcore::sys::limits::{self, Kind};
use rtcore::sys::{ids, keepfile, procfs, sched, seqpacket, shm};
use std::os::unix::fs::{MetadataExt, lchown};
use std::path::Path;

/// The capabilities that each kind of thread may keep. The default drops none: for root that stays
/// root, and for a user without capabilities.
#[derive(Clone, Copy, Debug, Default)]
pub struct Privilege(Option<Held>);

#[derive(Clone, Copy, Debug)]
struct Held {
    account: Account,
    control: Set,
    lane: Set,
    /// Not on Cobalt, where all threads keep the capabilities of a start: its library has threads
    /// of its own, which cannot be told to drop any, and permissions that the core granted to
    /// members of its group would be lost with them.
    narrows: bool,
}

impl Privilege {
    /// Becomes the user of the plan and keeps the capabilities that a start needs. Call it before
    /// there is a second thread.
    pub fn take(plan: &Plan) -> anyhow::Result<Privilege> {
        let threads = procfs::lasting_threads().and_then(|_| ids::threads());
        let threads = threads.context(
            "rtd reads its threads and their users from /proc (mount -t proc proc /proc)",
        )?;
        let [main] = threads.as_slice() else {
            bail!(
                "{} threads exist where one is allowed: their user cannot be changed together",
                threads.len()
            );
        };
        let switch = plan.daemon.account.filter(|account| !main.is(*account));
        let permitted = caps::permitted().context("cannot read the capabilities")?;
        let account = plan.daemon.account.unwrap_or(Account {
            uid: main.uids[1],
            gid: main.gids[1],
        });
        if let Some(account) = switch {
            prepare(plan, account)?;
            caps::close_exec()?;
            ids::become_account(account).map_err(|e| permissions::cannot_become(account, &e))?;
        }
        if account.uid == 0 {
            if plan.daemon.account.is_none() {
                let held = if permitted.is_full() {
                    "every capability".to_owned()
                } else {
                    permitted.to_string()
                };
                if caps::in_first_user_namespace() {
                    log::info(format_args!(
                        "runs as root with {held}: an error in rtd can harm the whole machine; user = in [daemon] names \
                         another user that rtd becomes"
                    ));
                } else {
                    log::info(format_args!(
                        "runs as root of a user namespace, with {held} in it"
                    ));
                }
            }
            return Ok(Privilege::default());
        }
        // The daemon of an ordinary user has no capabilities to drop.
        if permitted.is_empty() && switch.is_none() {
            return Ok(Privilege::default());
        }
        if switch.is_none() {
            caps::close_exec()?;
        }
        caps::deny_tracing()?;
        let needed = needs(plan, account);
        let set = |who: fn(&Need) -> bool| {
            permitted.and(Set::of(
                needed
                    .iter()
                    .filter(|need| who(need))
                    .map(|need| need.capability),
            ))
        };
        let (control, lane) = (set(|_| true), set(|need| need.who == Who::All));
        let start = permitted.and(Set::of(
            needs::TO_START
                .into_iter()
                .chain(needed.iter().map(|n| n.capability)),
        ));
        caps::hold(start)?;
        log_identity(account, control, &needed);
        let narrows = plan.daemon.skin.kind == SkinKind::Posix;
        let (control, lane) = if narrows {
            (control, lane)
        } else {
            (start, start)
        };
        Ok(Privilege(Some(Held {
            account,
            control,
            lane,
            narrows,
        })))
    }

    /// For a lane thread that has its priority: drops the capabilities that it does not need.
    /// [`Privilege::settle`] checks the result.
    pub fn of_lane(self) {
        let _ = self
            .0
            .filter(|held| held.narrows)
            .map(|held| caps::hold(held.lane));
    }

    /// For a thread that needs no capability, as above.
    pub fn of_helper(self) {
        let _ = self.0.map(|_| caps::hold(Set::EMPTY));
    }

    /// For the control thread, after all other threads have dropped theirs: does the same, and
    /// reads all of them back.
    pub fn settle(self) -> anyhow::Result<()> {
        let Some(held) = self.0 else { return Ok(()) };
        if held.narrows {
            caps::hold(held.control)?;
        }
        let own = sched::gettid();
        for thread in ids::threads().context("cannot read the capabilities of the threads")? {
            let allowed = if thread.tid == own {
                held.control
            } else {
                held.lane
            };
            let beyond = thread.permitted.without(allowed);
            let ours = thread.is(held.account);
            if !beyond.is_empty() || !thread.passed_on.is_empty() || !thread.no_new_privs || !ours {
                bail!(
                    "thread {} (tid {}) should be uid {} gid {} with no more than {allowed}, but \
                     it is uid {:?} gid {:?}, also has {beyond}, and can pass on {} (no_new_privs {}): a defect",
                    thread.comm,
                    thread.tid,
                    held.account.uid,
                    held.account.gid,
                    thread.uids,
                    thread.gids,
                    thread.passed_on,
                    thread.no_new_privs
                );
            }
        }
        Ok(())
    }
}

fn needs(plan: &Plan, account: Account) -> Vec<Need> {
    let memlock_infinite = limits::get(Kind::MemLock).is_ok_and(|limit| limit.soft.is_none());
    let rtprio = limits::get(Kind::RtPrio).map_or(Some(0), |limit| limit.soft);
    needs::to_run(
        plan,
        account.uid,
        needs::Limits {
            memlock_infinite,
            rtprio,
        },
    )
}

/// Logs the user, the capabilities that rtd keeps, and the reasons.
fn log_identity(account: Account, control: Set, needed: &[Need]) {
    let kept = needed.iter().filter(|need| control.has(need.capability));
    let kept: Vec<String> = kept
        .map(|need| format!("{} ({})", need.capability, need.what_for))
        .collect();
    let kept = if kept.is_empty() {
        "no capability".to_owned()
    } else {
        kept.join(", ")
    };
    log::info(format_args!(
        "runs as uid {} gid {}, keeps {kept}",
        account.uid, account.gid
    ));
}

/// Does the work that only the starting user can do: a directory for the socket, and objects that
/// an earlier run of the starting user left.
fn prepare(plan: &Plan, account: Account) -> anyhow::Result<()> {
    directory(&plan.daemon.socket, account)?;
    give_kept(&kept_beside(&plan.daemon.socket), account);
    // A living daemon keeps its page, and the start is refused later because of its name, with a
    // better message.
    for page in place::trusted_paths(&plan.daemon.name) {
        let _ = shm::remove_stale(&page, procfs::effective_uid());
    }
    hand_over(plan, account)?;
    Ok(())
}

/// Gives the registrations of an earlier run to the user. If this fails, the daemon starts
/// nevertheless, and logs it when it reads them.
fn give_kept(kept: &Path, account: Account) {
    let meta = kept.symlink_metadata();
    if meta.is_ok_and(|meta| meta.is_file() && meta.uid() == procfs::effective_uid()) {
        let _ = lchown(kept, Some(account.uid), Some(account.gid));
    }
}

/// Makes the socket's directory for the user. An existing directory keeps its owner, except
/// /run/rtd if root has only this socket in it: the owner of /run/rtd shows other programs which
/// user root appointed to run rtd.
fn directory(socket: &Path, account: Account) -> anyhow::Result<()> {
    let Some(dir) = socket.parent() else {
        return Ok(());
    };
    let made = seqpacket::make_parent(socket)?;
    let Account { uid, gid } = account;
    let shown = dir.display();
    if !made {
        let meta = dir.symlink_metadata().with_context(|| shown.to_string())?;
        let owner = meta.uid();
        // If it is not a directory, the creation of the socket refuses it.
        if dir != Path::new(RUN_DIR) || !meta.is_dir() || owner != procfs::effective_uid() {
            return Ok(());
        }
        for entry in std::fs::read_dir(dir).with_context(|| shown.to_string())? {
            let path = entry.with_context(|| shown.to_string())?.path();
            let kept = kept_beside(socket);
            let left =
                [&kept, &keepfile::draft(&kept)].contains(&&path) || place::is_left_behind(&path);
            if path != socket && !left {
                bail!(
                    "{shown} belongs to uid {owner} and contains more than this socket ({}): \
                     stop the rtd that it \
                     belongs to and remove it, or give this one another place ([daemon] socket)",
                    path.display()
                );
            }
        }
    }
    lchown(dir, Some(uid), Some(gid)).with_context(|| {
        format!(
            "cannot give {shown} to uid {uid} gid {gid} (or set [daemon] socket to a place in a directory of that user)"
        )
    })
}
