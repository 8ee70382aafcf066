//! A queue in a namespace of its skin's own: made or adopted, kept or removed. Such queues have no owner, no mode and no
//! locks, so nothing is known of who else uses them.

use crate::log;
use rtcore::skin::{OpenQueue, Skin};
use rtcore::sys::mqueue::Attributes;
use std::ffi::{CStr, CString};
use std::io;

/// A queue that the daemon stands behind; goes with it if it should.
#[derive(Debug)]
pub(super) struct Private {
    name: CString,
    queue: OpenQueue,
    skin: &'static Skin,
    /// It was not there before.
    pub(super) created: bool,
    /// It goes when this is dropped.
    pub(super) unlink: bool,
}

impl Private {
    /// Creates or adopts it. Until the daemon runs, what was created goes with it.
    pub(super) fn open(
        skin: &'static Skin,
        name: &CStr,
        maxmsg: usize,
        msgsize: usize,
    ) -> io::Result<Private> {
        let (queue, adopted) = OpenQueue::create(skin, name, maxmsg, msgsize)?;
        Ok(Private { name: name.to_owned(), queue, skin, created: !adopted, unlink: !adopted })
    }

    /// `/name`.
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
        let left = self.attributes().map_or(0, |attributes| attributes.curmsgs);
        if let Err(e) = (self.skin.setup.mq_unlink)(&self.name) {
            log::error(format_args!("{e}"));
        } else if left > 0 {
            log::warning(format_args!(
                "removed message queue {} with {left} messages in it: they are lost unless a receiver still has it open \
                 (keep_queues = true keeps them)",
                self.name.to_string_lossy()
            ));
        }
    }
}
