//! A queue in a namespace of its skin's own: created or adopted, kept or removed. Such queues have
//! no owner, no mode and no locks, so only the statistics pages show which other rtd uses one. An
//! instance publishes its own page before it reads those of others, so of two that start at once at
//! least one sees the other.

use super::queues;
use crate::log;
use rtcore::client::locate::may_order;
use rtcore::endpoint::{Shown, mqueue};
use rtcore::skin::{OpenQueue, Skin};
use rtcore::stats::reader::{DaemonState, Endpoint, Reader, instances};
use rtcore::sys::mqueue::Attributes;
use std::ffi::{CStr, CString};
use std::io;

/// A queue that the daemon uses, and unlinks at the end if configured.
#[derive(Debug)]
pub(super) struct Private {
    name: CString,
    /// The instance that it belongs to.
    instance: String,
    queue: OpenQueue,
    skin: &'static Skin,
    /// It did not exist before.
    pub(super) created: bool,
    /// It is unlinked when this is dropped.
    pub(super) unlink: bool,
}

impl Private {
    /// Creates or adopts a queue for an instance whose page exists. Until the daemon runs, a
    /// created queue is removed with this value.
    pub(super) fn open(
        skin: &'static Skin,
        instance: &str,
        name: &CStr,
        (maxmsg, msgsize): (usize, usize),
        is_source: bool,
    ) -> io::Result<Private> {
        let reads = |endpoint: &Endpoint| endpoint.is_source;
        if is_source && let Some(other) = other_user(instance, name, reads) {
            let queue = format!("{} of {}", name.to_string_lossy(), skin.name);
            return Err(queues::read_by_another(&queue, &other));
        }
        let (queue, adopted) = OpenQueue::create(skin, name, maxmsg, msgsize)?;
        let instance = instance.to_owned();
        Ok(Private {
            name: name.to_owned(),
            instance,
            queue,
            skin,
            created: !adopted,
            unlink: !adopted,
        })
    }

    /// Name of the queue, with its leading `/`.
    pub(super) fn name(&self) -> &CString {
        &self.name
    }

    /// Size and fill.
    pub(super) fn attributes(&self) -> io::Result<Attributes> {
        self.queue.attributes()
    }
}

impl Drop for Private {
    fn drop(&mut self) {
        if !self.unlink {
            return;
        }
        if let Some(other) = other_user(&self.instance, &self.name, |_| true) {
            log::info(format_args!(
                "message queue {} stays: {other} uses it",
                self.name.to_string_lossy()
            ));
            return;
        }
        let left = self.attributes().map_or(0, |attributes| attributes.curmsgs);
        if let Err(e) = (self.skin.setup.mq_unlink)(&self.name) {
            log::error(format_args!("{e}"));
        } else if left > 0 {
            queues::warn_of_removed(&self.name.to_string_lossy(), left);
        }
    }
}

/// Another running instance that has the queue in its plan, in such an endpoint; only pages of
/// users that may give orders count.
fn other_user(instance: &str, queue: &CStr, uses: fn(&Endpoint) -> bool) -> Option<String> {
    let found = |name: &String| {
        let page = Reader::open(name).ok()?;
        let snapshot = page.snapshot().ok()?;
        let runs = page.daemon_state().ok()? != DaemonState::Stopped;
        let has = |endpoint: &Endpoint| {
            matches!(&endpoint.kind, Shown::Mqueue(mqueue::Shown { queue: q, .. }) if q.as_bytes() == queue.to_bytes())
                && uses(endpoint)
        };
        let counts = runs && snapshot.private_namespace && may_order(snapshot.uid);
        (counts && snapshot.endpoints.iter().any(has)).then(|| queues::instance(name, page.pid()))
    };
    instances()
        .iter()
        .filter(|name| *name != instance)
        .find_map(found)
}
