//! The process that signals of a route go to: the daemon, which may be another process after a
//! restart.
//!
//! The sending end, perhaps a forked child, notices that the daemon has ended. It sends nothing
//! from then on, because the number may become another process', which the signal would end. The
//! main thread finds the next daemon by its page.

use crate::sys::inherited::Inherited;
use rtcore::stats::place::may_order;
use rtcore::stats::reader::{DaemonState, Reader};
use std::sync::Arc;
use std::sync::atomic::{AtomicI32, Ordering};

/// See the module. A clone is the same one.
#[derive(Clone, Debug)]
pub struct DaemonPid {
    /// One word: the pid; 0 while there is no daemon.
    pid: Arc<Inherited<AtomicI32>>,
    instance: Option<String>,
}

impl DaemonPid {
    /// Of a daemon that the run ends with.
    pub fn fixed(pid: i32) -> anyhow::Result<DaemonPid> {
        let word = Arc::new(Inherited::<AtomicI32>::new(1)?);
        word[0].store(pid, Ordering::Relaxed);
        Ok(DaemonPid {
            pid: word,
            instance: None,
        })
    }

    /// Of the daemon that runs as this instance.
    pub fn of_instance(pid: i32, instance: &str) -> anyhow::Result<DaemonPid> {
        Ok(DaemonPid {
            instance: Some(instance.to_owned()),
            ..DaemonPid::fixed(pid)?
        })
    }

    /// Has the calling process, a child, touch the memory, so that it does not fault later.
    pub fn fault_in(&self) {
        self.pid.fault_in();
    }

    /// None: it has ended, and no other was found yet.
    #[inline]
    pub fn get(&self) -> Option<i32> {
        let pid = self.pid[0].load(Ordering::Relaxed);
        (pid != 0).then_some(pid)
    }

    /// The sending end: the daemon has ended.
    pub fn ended(&self) {
        self.pid[0].store(0, Ordering::Relaxed);
    }

    /// The main thread: searches for the next daemon if there is none.
    pub fn find_again(&self) {
        let instance = self.instance.as_ref().filter(|_| self.get().is_none());
        if let Some(pid) = instance.and_then(|instance| running(instance)) {
            self.pid[0].store(pid, Ordering::Relaxed);
        }
    }
}

/// The pid of a running instance.
fn running(instance: &str) -> Option<i32> {
    let page = Reader::open(instance).ok()?;
    let address = page.address().ok()?;
    let is_trusted = may_order(address.uid) && address.state != DaemonState::Stopped;
    i32::try_from(page.pid()).ok().filter(|_| is_trusted)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_daemon_that_ended_is_signalled_no_more() {
        let pid = DaemonPid::fixed(77).unwrap();
        let sender = pid.clone();
        assert_eq!(sender.get(), Some(77));
        sender.ended();
        pid.find_again();
        assert_eq!((pid.get(), sender.get()), (None, None));
    }
}
