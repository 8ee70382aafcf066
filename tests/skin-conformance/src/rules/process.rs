//! Another process: queues and semaphores by name, threads by id.

use super::util::*;
use crate::skin::{Ending, Errno, Skin, Stop, Target, me};
use std::ffi::{CStr, CString};
use std::process::{Command, Stdio};
use std::time::Duration;

rules! {
    reached: "process: another one reaches a queue by its name and a thread by its id",
    woken: "process: another one wakes by a semaphore of a name, and the name outlives its maker",
}

/// Marks the environment of the other process: what it is to do.
const TASK: &str = "SKIN_CONFORMANCE_PEER";

fn reached(skin: &dyn Skin) -> Ending {
    let across = !skin.facts().shared_namespace;
    let queue = Queue::create(skin, 2, 64, true)?;
    other("queue", &queue.name)?;
    same(
        "message and priority",
        queue.receive()?,
        (b"from outside".to_vec(), 4),
    )?;
    // Linux queues a signal to a thread of another process by another call, which is not the
    // skin's.
    if across {
        same(
            "value",
            skin.wait_within(&[THIRD], Duration::ZERO)?.value,
            77,
        )?;
    }
    Ok(String::new())
}

fn woken(skin: &dyn Skin) -> Ending {
    let name = fresh_name();
    let by_maker = CString::new([name.as_bytes(), b".m"].concat()).map_err(broken)?;
    let semaphore = skin.open_semaphore_as(&name, true)?;
    let ended = other("semaphore", &name);
    let left = skin.open_semaphore_as(&by_maker, false);
    let gone = skin.unlink_semaphore(&by_maker);
    skin.unlink_semaphore(&name)?;
    ended?;
    skin.try_take(semaphore)?;
    skin.close_semaphore(semaphore)?;
    gone?;
    let left = left?;
    skin.try_take(left)?;
    skin.close_semaphore(left)?;
    Ok(String::new())
}

/// Runs the other process's part of a rule.
fn other(part: &str, name: &CStr) -> Result<(), Stop> {
    let own = std::env::current_exe().map_err(broken)?;
    let mut command = Command::new(own);
    let task = format!("{part} {} {}", me().tid, name.to_string_lossy());
    command.args(std::env::args_os().skip(1)).env(TASK, task);
    command.stdin(Stdio::null()).stdout(Stdio::null());
    let status = command.status().map_err(broken)?;
    if status.success() {
        Ok(())
    } else {
        Err(broken(format!("the other process ended with {status}")))
    }
}

/// The other process's part; none where this process is not one. Called on its bound main thread.
pub fn peer(skin: &dyn Skin) -> Option<Result<(), Errno>> {
    let task = std::env::var(TASK).ok()?;
    Some(do_peer(skin, &task))
}

fn do_peer(skin: &dyn Skin, task: &str) -> Result<(), Errno> {
    let invalid = Errno(libc::EINVAL);
    let [part, tid, name] = task
        .splitn(3, ' ')
        .collect::<Vec<_>>()
        .try_into()
        .map_err(|_| invalid)?;
    let name = CString::new(name).map_err(|_| invalid)?;
    skin.promote(crate::run::PRIORITY)?;
    if part == "semaphore" {
        skin.post(skin.open_semaphore_as(&name, false)?)?;
        let own = CString::new([name.as_bytes(), b".m"].concat()).map_err(|_| invalid)?;
        return skin.post(skin.open_semaphore_as(&own, true)?);
    }
    let queue = skin.open_queue(&name, true)?;
    skin.send(queue, b"from outside", 4)?;
    skin.close_queue(queue)?;
    if skin.facts().shared_namespace {
        return Ok(());
    }
    let tid = tid.parse().map_err(|_| invalid)?;
    skin.signal(Target { tid, ..me() }, THIRD, 77)
}
