//! Another user, for tests that run as root: a uid nobody else has, and programs where it can reach
//! them.

use super::{Instance, Peer};
use std::os::unix::fs::chown;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

/// The user. What is counted per user (pending signals) is then counted for one test alone.
#[derive(Debug)]
pub struct Stranger {
    /// Its uid and gid.
    pub uid: u32,
    peer: PathBuf,
    rtd: PathBuf,
}

/// 60001..61184 are given to no user and no service by convention, and inside what a container
/// maps.
const FIRST_UID: u32 = 60_001;
const UIDS: u32 = 1_183;

impl Stranger {
    /// One more; the tests' instance then belongs to it. Root only.
    pub fn new(instance: &Instance) -> anyhow::Result<Stranger> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = (std::process::id() * 32).wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed));
        let uid = FIRST_UID + number % UIDS;
        let directory = instance.file("");
        chown(&directory, Some(uid), Some(uid))?;
        let reachable = |binary: &Path, name: &str| -> anyhow::Result<PathBuf> {
            let place = directory.join(name);
            // The build may be where only its user can go.
            if !place.exists() && std::fs::hard_link(binary, &place).is_err() {
                super::tool::copy_program(binary, &place)?;
            }
            Ok(place)
        };
        let peer = reachable(&std::env::current_exe()?, "peer")?;
        let rtd = reachable(Path::new(env!("CARGO_BIN_EXE_rtd")), "rtd")?;
        Ok(Stranger { uid, peer, rtd })
    }

    /// A participant of this user.
    pub fn peer(&self) -> anyhow::Result<Peer> {
        let mut command = Command::new(&self.peer);
        command.arg("--peer").uid(self.uid).gid(self.uid);
        Peer::spawn(command, |_| {})
    }

    /// `rtd` where this user can run it.
    pub fn rtd(&self) -> &Path {
        &self.rtd
    }
}

impl Drop for Stranger {
    fn drop(&mut self) {
        // The place of its daemon's page; in use while one of the same user runs.
        let _ = std::fs::remove_dir(format!("/dev/shm/rtd-{}", self.uid));
    }
}
