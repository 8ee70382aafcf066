//! `rtctl cleanup`: removes the objects that a killed instance left: queues, control socket, stored
//! registrations, page.
//!
//! The page names the queues and the socket. The owner of a page can write anything into it, so the
//! command removes only objects that belong to that owner.

use super::queue::{remove, removed};
use crate::control::kept_beside;
use anyhow::{Context as _, anyhow, bail};
use rtcore::client::locate::may_order;
use rtcore::endpoint::{Shown, mqueue};
use rtcore::stats::reader::{DaemonState, Reader, Snapshot, instances};
use rtcore::sys::{keepfile, shm};
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::os::unix::net::UnixDatagram;
use std::path::Path;

/// Arguments of `rtctl cleanup`.
#[derive(clap::Args, Clone, Debug)]
#[command(
    after_help = "Without --instance, all instances of this user that do not run are cleaned up. A running instance is \
        refused. An instance that was stopped (SIGTERM) has removed everything itself, except for queues with \
        keep_queues = true. No page lists these queues any more; remove them with rtctl queue rm NAME."
)]
pub struct CleanupArgs {
    /// Keep the message queues and the messages in them
    #[arg(long)]
    keep_queues: bool,
}

/// Cleans up after `instance`, or after each instance that does not run.
pub fn cleanup(instance: Option<&str>, args: &CleanupArgs) -> anyhow::Result<()> {
    if let Some(name) = instance {
        let page = Reader::open(name)
            .map_err(|e| anyhow!("nothing to clean up: {e}\n  {}", super::page::others()))?;
        return one(&page, args);
    }
    let mut cleaned = 0;
    for name in instances() {
        let Ok(page) = Reader::open(&name) else {
            continue;
        };
        let address = page.address()?;
        if address.state == DaemonState::Stopped && may_order(address.uid) {
            one(&page, args)?;
            cleaned += 1;
        }
    }
    if cleaned == 0 {
        print("nothing to clean up: no instance was killed")?;
    }
    Ok(())
}

fn one(page: &Reader, args: &CleanupArgs) -> anyhow::Result<()> {
    let seen = page.snapshot()?;
    if seen.state != DaemonState::Stopped {
        let pid = seen.pid;
        bail!(
            "instance \"{}\" runs (pid {pid}): stop it first (kill -TERM {pid})",
            seen.instance
        );
    }
    if !may_order(seen.uid) {
        bail!(
            "the page {} belongs to uid {}: run this as that user",
            page.path().display(),
            seen.uid
        );
    }
    if !args.keep_queues {
        queues(&seen)?;
    }
    socket(&seen)?;
    // The page comes last: it is the list, so an incomplete run can be repeated.
    match shm::remove_stale(page.path(), seen.uid) {
        Ok(()) => print(&format!("removed {}", page.path().display())),
        Err(e) => Err(anyhow::anyhow!("{}: {e}", page.path().display())),
    }
}

fn queues(seen: &Snapshot) -> anyhow::Result<()> {
    for endpoint in &seen.endpoints {
        let Shown::Mqueue(mqueue::Shown { queue, .. }) = &endpoint.kind else {
            continue;
        };
        // The queue is not Linux's, or not the one with this name.
        super::page::reachable(seen, endpoint)?;
        if let Some(messages) = remove(queue, Some(seen.uid))? {
            super::page::print(&removed(queue, messages))?;
        }
    }
    Ok(())
}

/// Removes the socket if nobody listens there, and the registrations beside it.
fn socket(seen: &Snapshot) -> anyhow::Result<()> {
    let path = Path::new(&seen.socket);
    let kept = kept_beside(path);
    let is_ours = |path: &Path, socket: bool| {
        let found = path.symlink_metadata();
        found.is_ok_and(|found| found.uid() == seen.uid && found.file_type().is_socket() == socket)
    };
    if is_ours(path, true) {
        if answers(path) {
            bail!("{} is served by another rtd: it stays", path.display());
        }
        std::fs::remove_file(path).with_context(|| path.display().to_string())?;
        print(&format!("removed {}", path.display()))?;
    }
    if is_ours(&kept, false) {
        keepfile::remove(&kept)?;
        print(&format!("removed {}", kept.display()))?;
    }
    Ok(())
}

/// Whether a process listens: the control socket is not a datagram socket, so the kernel then
/// answers EPROTOTYPE.
fn answers(path: &Path) -> bool {
    let connected = UnixDatagram::unbound().and_then(|socket| socket.connect(path));
    connected.map_err(|e| e.kind()) != Err(std::io::ErrorKind::ConnectionRefused)
}

fn print(line: &str) -> anyhow::Result<()> {
    super::page::print(&format!("{line}\n"))?;
    Ok(())
}
