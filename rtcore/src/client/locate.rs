//! Finds the daemon's socket.
//!
//! The statistics page of an instance names its socket. The owner of a page can write anything into
//! it, so a page is used only if its owner is root or this user ([`may_order`]). Without such a
//! page, the default places are tried.

use super::error::ConnectError;
use crate::stats::reader::{Address, DaemonState, Reader, instances};
use crate::sys::procfs::effective_uid;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

pub use crate::stats::place::{RUN_DIR, may_order, run_dir_owner};

/// Environment variable that selects the instance for programs that do not name one.
pub const INSTANCE_VARIABLE: &str = "RTD_INSTANCE";

/// The path at which the daemon `name` listens by default: the system's path, then the user's own.
pub fn find_socket(name: &str) -> PathBuf {
    let uid = effective_uid();
    let system = PathBuf::from(format!("{RUN_DIR}/{name}.sock"));
    let mut places = vec![system.clone()];
    if let Some(dir) = std::env::var_os("XDG_RUNTIME_DIR") {
        places.push(Path::new(&dir).join(format!("rtd/{name}.sock")));
    }
    places.push(PathBuf::from(format!("/tmp/rtd-{uid}/{name}.sock")));
    // Any user can create a directory in /tmp. A directory that belongs to neither this user nor
    // root is not used.
    let trusted = |path: &PathBuf| {
        let dir = path.parent().and_then(|dir| dir.symlink_metadata().ok());
        let safe = path.starts_with("/run")
            || dir.is_some_and(|m| m.is_dir() && [0, uid].contains(&m.uid()));
        safe && path.exists()
    };
    places.into_iter().find(trusted).unwrap_or(system)
}

/// The socket of `instance`: the one in its page if the page belongs to root or this user,
/// otherwise the default path of such a daemon.
pub fn socket_of(instance: &str) -> PathBuf {
    match page(instance) {
        Some(page) if may_order(page.uid) && !page.socket.is_empty() => page.socket.into(),
        _ => find_socket(instance),
    }
}

/// Finds the running daemon whose page names this control socket: its instance name and pid. The
/// socket itself may be missing, if somebody removed it.
pub fn serving(socket: &Path) -> Option<(String, u32)> {
    instances()
        .into_iter()
        .find_map(|name| Some((name.clone(), server(&name, socket)?)))
}

/// The pid of the instance, if it runs and its page names this socket.
fn server(instance: &str, socket: &Path) -> Option<u32> {
    let page = Reader::open(instance).ok()?;
    let address = page.address().ok()?;
    (address.state != DaemonState::Stopped && Path::new(&address.socket) == socket)
        .then(|| page.pid())
}

fn page(instance: &str) -> Option<Address> {
    Reader::open(instance)
        .ok()
        .and_then(|page| page.address().ok())
}

/// The default instance: `RTD_INSTANCE`, otherwise the only one that runs.
pub fn default_instance() -> Result<String, ConnectError> {
    if let Some(name) = std::env::var_os(INSTANCE_VARIABLE).filter(|name| !name.is_empty()) {
        return Ok(name.to_string_lossy().into_owned());
    }
    let runs = |name: &String| {
        page(name).is_some_and(|page| may_order(page.uid) && page.state != DaemonState::Stopped)
    };
    only(instances().into_iter().filter(runs).collect())
}

fn only(mut running: Vec<String>) -> Result<String, ConnectError> {
    match (running.pop(), running.is_empty()) {
        (None, _) => Err(ConnectError::NoInstance),
        (Some(only), true) => Ok(only),
        (Some(last), false) => {
            running.push(last);
            Err(ConnectError::SeveralInstances {
                instances: running.join(", "),
            })
        }
    }
}

/// The place that a session connects to, as its builder got it.
#[derive(Clone, Debug)]
pub(super) enum Place {
    /// This socket.
    Socket(PathBuf),
    /// The current socket of this instance.
    Instance(String),
}

impl Place {
    /// The current path of the socket, and whether the listener must belong to root or this user
    /// ([`may_order`]).
    pub fn resolve(&self) -> (PathBuf, bool) {
        match self {
            Place::Socket(path) => (path.clone(), false),
            Place::Instance(name) => (socket_of(name), true),
        }
    }

    /// As [`serving`]; of a named instance only its own page is opened.
    pub fn serving(&self, socket: &Path) -> Option<(String, u32)> {
        match self {
            Place::Socket(_) => serving(socket),
            Place::Instance(name) => server(name, socket).map(|pid| (name.clone(), pid)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_only_instance_is_selected_and_several_are_listed() {
        assert_eq!(only(vec!["cell".into()]).unwrap(), "cell");
        let none = only(Vec::new()).unwrap_err().to_string();
        assert!(
            none.contains("rtd run") && none.contains(INSTANCE_VARIABLE),
            "{none}"
        );
        let several = only(vec!["a".into(), "b".into()]).unwrap_err().to_string();
        assert!(several.contains("a, b"), "{several}");
    }

    #[test]
    fn root_and_ourselves_may_order_us_about() {
        assert!(may_order(0) && may_order(effective_uid()));
        assert!(!may_order(4_000_000_000));
    }
}
