//! Another process: queues by name, threads by id.

use super::util::*;
use crate::skin::{Ending, Errno, Skin, Target, me};
use std::ffi::CString;
use std::process::{Command, Stdio};
use std::time::Duration;

rules! {
    reached: "process: another one reaches a queue by its name and a thread by its id",
}

/// Marks the environment of the other process: what it is to do.
const TASK: &str = "SKIN_CONFORMANCE_PEER";

fn reached(skin: &dyn Skin) -> Ending {
    let across = !skin.facts().shared_namespace;
    let queue = Queue::create(skin, 2, 64, true)?;
    let own = std::env::current_exe().map_err(broken)?;
    let name = queue.name.to_string_lossy();
    let mut command = Command::new(own);
    command.args(std::env::args_os().skip(1)).env(TASK, format!("{} {name}", me().tid));
    command.stdin(Stdio::null()).stdout(Stdio::null());
    let status = command.status().map_err(broken)?;
    if !status.success() {
        return Err(broken(format!("the other process ended with {status}")));
    }
    same("message and priority", queue.receive()?, (b"from outside".to_vec(), 4))?;
    // Linux queues a signal to a thread of another process by another call, which is not the skin's.
    if across {
        same("value", skin.wait_within(&[THIRD], Duration::ZERO)?.value, 77)?;
    }
    Ok(String::new())
}

/// The other process's part; none where this process is not one. Called on its bound main thread.
pub fn peer(skin: &dyn Skin) -> Option<Result<(), Errno>> {
    let task = std::env::var(TASK).ok()?;
    Some(do_peer(skin, &task))
}

fn do_peer(skin: &dyn Skin, task: &str) -> Result<(), Errno> {
    let invalid = Errno(libc::EINVAL);
    let (tid, name) = task.split_once(' ').ok_or(invalid)?;
    let name = CString::new(name).map_err(|_| invalid)?;
    skin.promote(crate::run::PRIORITY)?;
    let queue = skin.open_queue(&name, true)?;
    skin.send(queue, b"from outside", 4)?;
    skin.close_queue(queue)?;
    if skin.facts().shared_namespace {
        return Ok(());
    }
    let tid = tid.parse().map_err(|_| invalid)?;
    skin.signal(Target { tid, ..me() }, THIRD, 77)
}
