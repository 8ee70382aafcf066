//! `rtctl queue rm`: removes message queues by name, even if mqueue is not mounted.

use crate::daemon::reader_of;
use crate::words::counted;
use anyhow::{Context as _, bail};
use rtcore::sys::mqueue::{Access, Lock, Queue, is_access};
use std::ffi::CString;

/// Arguments of `rtctl queue`.
#[derive(clap::Args, Clone, Debug)]
pub struct QueueArgs {
    #[command(subcommand)]
    command: QueueCommand,
}

#[derive(clap::Subcommand, Clone, Debug)]
enum QueueCommand {
    /// Remove message queues (mq_unlink); their messages are lost
    #[command(
        after_help = "/dev/mqueue need not be mounted. A queue that an rtd uses is not removed: stop that instance first. \
            Programs that have the queue open keep it; nobody can open it by this name any more."
    )]
    Rm {
        /// Name of the queue, as in the `queue` key of its [[endpoint]]: /NAME
        #[arg(required = true)]
        names: Vec<String>,
    },
}

/// Removes the named queues. Every name is tried, and every failure reported.
pub fn queue(args: &QueueArgs) -> anyhow::Result<()> {
    let QueueCommand::Rm { names } = &args.command;
    let mut failures = Vec::new();
    for name in names {
        match remove(name, None) {
            Ok(Some(messages)) => drop(super::page::print(&removed(name, messages))?),
            Ok(None) => failures.push(format!("there is no message queue {name}")),
            Err(e) => failures.push(format!("{e:#}")),
        }
    }
    if failures.is_empty() {
        return Ok(());
    }
    bail!(failures.join("\nrtctl: "))
}

/// The line about a removed queue.
pub(super) fn removed(name: &str, messages: Option<usize>) -> String {
    match messages {
        Some(messages) => format!(
            "removed message queue {name} with {}\n",
            counted(messages, "message")
        ),
        None => format!("removed message queue {name}\n"),
    }
}

/// Removes a queue that no rtd uses and, if a user is given, that belongs to this user. Returns the
/// number of messages in it, if that can be read; none if there is no such queue.
///
/// Errors: an rtd uses it; it belongs to another user.
pub(super) fn remove(name: &str, uid: Option<u32>) -> anyhow::Result<Option<Option<usize>>> {
    let path = CString::new(name).context("name of a queue")?;
    if !name.starts_with('/') {
        bail!("`{name}` is not the name of a queue: names begin with a slash, as in /{name}");
    }
    let messages = match Queue::open(&path, Access::Both, true) {
        Ok(queue) => {
            let owner = queue.status()?.uid;
            if let Some(uid) = uid.filter(|uid| *uid != owner) {
                bail!(
                    "message queue {name} belongs to uid {owner}, not to uid {uid}: it stays; remove it with rtctl queue rm {name}"
                );
            }
            if !queue.lock(Lock::LastUser)? {
                bail!(
                    "message queue {name} is used by {}: stop it first",
                    reader_of(name)
                );
            }
            Some(queue.attributes()?.curmsgs)
        }
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        // Its mode can keep its owner from reading it, but not from removing it.
        Err(e) if is_access(&e) && uid.is_none() => None,
        Err(e) => return Err(e.into()),
    };
    Queue::unlink(&path)?;
    Ok(Some(messages))
}
