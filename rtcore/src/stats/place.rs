//! The place of a statistics page: `NAME.page` in a directory in memory that only the daemon's user
//! can write, so that no other user can occupy an instance's name or put another page there.
//!
//! A daemon takes the first of these that it owns or can make:
//!
//! 1. `/run/rtd`
//! 2. `$XDG_RUNTIME_DIR/rtd`
//! 3. `/dev/shm/rtd-UID`, for a machine without a run directory for this user, or with one on a
//!    disk (containers); if somebody else has made an entry of that name, `/dev/shm/rtd-UID.` and a
//!    random number
//!
//! Readers go by the owner of a directory, not by its name. They look in those of users that may
//! give them orders ([`may_order`]), then in those of others.

use super::layout::instance_name_ok;
use super::reader::{DaemonState, ReadError, Reader};
use crate::sys::memdir;
use crate::sys::procfs::effective_uid;
use crate::sys::shm::{self, PublishError, Shared};
use std::collections::hash_map::RandomState;
use std::fs::Metadata;
use std::hash::{BuildHasher as _, Hasher as _};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// Directory of the socket and the page of a daemon that serves the whole machine.
pub const RUN_DIR: &str = "/run/rtd";
/// Run directories of the users that are logged in.
const USER_DIRS: &str = "/run/user";
const SUFFIX: &str = ".page";
const SHM_PREFIX: &str = "rtd-";
const SHM_ATTEMPTS_MAX: usize = 4;

/// The owner of /run/rtd. /run belongs to root: root appointed this user to run rtd on this
/// machine.
pub fn run_dir_owner() -> Option<u32> {
    let found = std::fs::symlink_metadata(RUN_DIR).ok()?;
    found.is_dir().then(|| found.uid())
}

/// Whether the user is root, this process's user, or the user that root appointed to run rtd here.
pub fn may_order(uid: u32) -> bool {
    uid == 0 || uid == effective_uid() || Some(uid) == run_dir_owner()
}

/// The directory for a page of this user; created if it is missing.
pub(super) fn choose() -> io::Result<PathBuf> {
    let uid = effective_uid();
    let mut reasons = Vec::new();
    let own = shm_dirs()
        .into_iter()
        .filter(|(_, owner)| *owner == uid)
        .map(|(dir, _)| dir);
    let first = shm_name(uid);
    let further = (0..SHM_ATTEMPTS_MAX).map(|_| unused_name(&first));
    for dir in run_dirs(uid)
        .into_iter()
        .chain(own)
        .chain([first.clone()])
        .chain(further)
    {
        match memdir::ensure(&dir) {
            Ok(()) => return Ok(dir),
            Err(e) => reasons.push(e.to_string()),
        }
    }
    let text = format!(
        "no directory for the statistics page, which needs a directory on a tmpfs that only uid \
         {uid} can write: {}; as root, \
         mount a tmpfs on {RUN_DIR} and give it to uid {uid}",
        reasons.join("; "),
    );
    Err(io::Error::new(io::ErrorKind::PermissionDenied, text))
}

/// Whether `path` is the page of a daemon that is gone.
pub fn is_left_behind(path: &Path) -> bool {
    path.extension()
        .is_some_and(|extension| *extension == SUFFIX[1..])
        && Shared::open(path)
            .and_then(|page| page.owner_alive())
            .is_ok_and(|alive| !alive)
}

/// The file name of an instance's page.
pub fn file_name(instance: &str) -> String {
    format!("{instance}{SUFFIX}")
}

/// The trusted paths of this instance's page, in the order in which they are searched.
pub fn trusted_paths(instance: &str) -> Vec<PathBuf> {
    trusted_dirs()
        .into_iter()
        .map(|dir| dir.join(file_name(instance)))
        .collect()
}

/// Removes the pages that killed daemons of this user left in the other places for a page of
/// `instance`, whose page is `own`.
///
/// Errors, with the page: a daemon of that name runs there, of a user that may give orders.
pub(super) fn clear_others(instance: &str, own: &Path) -> Result<(), (PublishError, PathBuf)> {
    let uid = effective_uid();
    // The place of pages before they had a directory of their own.
    let former = Path::new(shm::DIR).join(format!("rtd.{instance}"));
    for path in trusted_paths(instance)
        .into_iter()
        .chain([former])
        .filter(|path| path != own)
    {
        match shm::remove_stale(&path, uid) {
            Err(PublishError::Locked) => return Err((PublishError::Locked, path)),
            Err(PublishError::Foreign(other)) if may_order(other) => {
                let runs = Shared::open(&path)
                    .and_then(|page| page.owner_alive())
                    .unwrap_or(false);
                if runs {
                    return Err((PublishError::Locked, path));
                }
            }
            // A page of another user does not get in the way of this one.
            _ => {}
        }
    }
    Ok(())
}

/// Finds the page of an instance: first one of a user that may give orders, then one of another
/// user; among those first one of a running daemon, then one that a killed daemon left.
pub(super) fn find(instance: &str) -> Result<Reader, ReadError> {
    if !instance_name_ok(instance) {
        return Err(ReadError::Name(instance.to_owned()));
    }
    let mut error = None;
    for dirs in [trusted_dirs(), other_dirs()] {
        let mut left = None;
        for dir in dirs {
            match Reader::open_path(&dir.join(file_name(instance))) {
                Ok(page)
                    if page
                        .daemon_state()
                        .is_ok_and(|state| state != DaemonState::Stopped) =>
                {
                    return Ok(page);
                }
                Ok(page) => drop(left.get_or_insert(page)),
                Err(ReadError::Absent(_)) => {}
                Err(e) => drop(error.get_or_insert(e)),
            }
        }
        if let Some(page) = left {
            return Ok(page);
        }
    }
    Err(error.unwrap_or_else(|| ReadError::NoInstance {
        instance: instance.to_owned(),
        places: places(),
    }))
}

/// The file of the instance's page, owned by any user.
pub fn file_of(instance: &str) -> Option<PathBuf> {
    find(instance).ok().map(|page| page.path().to_owned())
}

/// Instances that have a page, running or not, in name order.
pub fn instances() -> Vec<String> {
    let names_in = |dir: PathBuf| {
        let entries = std::fs::read_dir(dir).into_iter().flatten();
        entries.filter_map(|entry| {
            entry
                .ok()?
                .file_name()
                .to_str()?
                .strip_suffix(SUFFIX)
                .map(str::to_owned)
        })
    };
    let dirs = trusted_dirs().into_iter().chain(other_dirs());
    let mut names: Vec<String> = dirs
        .flat_map(names_in)
        .filter(|name| instance_name_ok(name))
        .collect();
    names.sort_unstable();
    names.dedup();
    names
}

/// The directories that are searched for a trusted page, for an error text.
pub fn places() -> String {
    let dirs: Vec<String> = trusted_dirs()
        .iter()
        .map(|dir| dir.display().to_string())
        .collect();
    dirs.join(", ")
}

fn run_dirs(uid: u32) -> Vec<PathBuf> {
    let given = std::env::var_os("XDG_RUNTIME_DIR")
        .map(PathBuf::from)
        .filter(|dir| dir.is_absolute());
    let default = Path::new(USER_DIRS).join(uid.to_string());
    let given = given.filter(|dir| *dir != default);
    // Only in a directory that this user owns: the owner of the parent can rename its entries.
    let own = |dir: &PathBuf| {
        dir.symlink_metadata()
            .is_ok_and(|found| found.is_dir() && found.uid() == uid)
    };
    let users = given
        .into_iter()
        .chain([default])
        .filter(own)
        .map(|dir| dir.join("rtd"));
    [PathBuf::from(RUN_DIR)].into_iter().chain(users).collect()
}

fn shm_name(uid: u32) -> PathBuf {
    Path::new(shm::DIR).join(format!("{SHM_PREFIX}{uid}"))
}

/// A random name, so that no other user can have created it. (`RandomState` takes its seed from
/// getrandom(2).)
fn unused_name(first: &Path) -> PathBuf {
    first.with_extension(format!("{:x}", RandomState::new().build_hasher().finish()))
}

/// Directories of rtd in /dev/shm and their owners, in name order.
fn shm_dirs() -> Vec<(PathBuf, u32)> {
    let owned = |entry: std::fs::DirEntry| {
        entry.file_name().to_str()?.strip_prefix(SHM_PREFIX)?;
        let found = entry
            .path()
            .symlink_metadata()
            .ok()
            .filter(Metadata::is_dir)?;
        Some((entry.path(), found.uid()))
    };
    let mut dirs: Vec<_> = entries(shm::DIR).filter_map(owned).collect();
    dirs.sort_unstable();
    dirs
}

fn entries(dir: &str) -> impl Iterator<Item = std::fs::DirEntry> {
    std::fs::read_dir(dir).into_iter().flatten().flatten()
}

fn trusted_dirs() -> Vec<PathBuf> {
    let shared = shm_dirs()
        .into_iter()
        .filter(|(_, owner)| may_order(*owner))
        .map(|(dir, _)| dir);
    run_dirs(effective_uid())
        .into_iter()
        .chain(shared)
        .collect()
}

/// The directories of all other users. Only root can read most of /run/user.
fn other_dirs() -> Vec<PathBuf> {
    let own = run_dirs(effective_uid());
    let users = entries(USER_DIRS)
        .map(|entry| entry.path().join("rtd"))
        .filter(|dir| !own.contains(dir));
    let shared = shm_dirs()
        .into_iter()
        .filter(|(_, owner)| !may_order(*owner))
        .map(|(dir, _)| dir);
    users.chain(shared).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_beside_a_stranger_s_are_new_each_time() {
        let first = shm_name(7);
        assert_eq!(first, Path::new("/dev/shm/rtd-7"));
        let (one, two) = (unused_name(&first), unused_name(&first));
        assert!(
            one != two && one.to_str().unwrap().starts_with("/dev/shm/rtd-7."),
            "{one:?} {two:?}"
        );
    }
}
