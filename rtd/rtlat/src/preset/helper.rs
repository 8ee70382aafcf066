//! Processes that a path needs in addition to its sender and receiver. They are forked before the
//! first thread, and killed when their handle is dropped.

use crate::control_block::{ControlBlock, Role};
use crate::mech::{Mechanism, Rx, Tx};
use crate::role_loops::ThreadPlacement;
use crate::sys::fork::{ForkedChild, fork_child};
use anyhow::{Context as _, bail};
use rtcore::client::Session;
use rtcore::sys::Errno;
use rtcore::sys::clock::{monotonic_ns, sleep_until};
use rtcore::sys::pidfd::Ending;
use std::path::Path;
use std::sync::Arc;

/// A helper that is not ready after this long never will be.
const READY_NS: u64 = 30_000_000_000;
/// How often a helper is checked: one that was killed cannot report it.
const POLL_NS: u64 = 100_000_000;

/// A forked process at work.
#[derive(Debug)]
pub struct Helper(ForkedChild);

impl Helper {
    /// Forks one and waits until its work has called [`ControlBlock::mark_ready`].
    pub fn start(
        what: &str,
        work: impl FnOnce(&ControlBlock) -> anyhow::Result<()>,
    ) -> anyhow::Result<Helper> {
        let control = ControlBlock::new().context("cannot map shared memory")?;
        let child = fork_child(|| {
            control.fault_in();
            u8::from(
                work(&control)
                    .inspect_err(|e| control.fail(&format!("{e:#}")))
                    .is_err(),
            )
        });
        let mut child = child.context("cannot fork")?;
        let until_ns = monotonic_ns() + READY_NS;
        let mut seen = control.changes();
        while control.ready() == 0 {
            if let Some(why) = control.failure() {
                bail!("{what}: {why}");
            }
            if let Some(ending) = child.try_wait()? {
                bail!("{what} ended: {ending}");
            }
            if monotonic_ns() > until_ns {
                bail!("{what} is not ready after {} s", READY_NS / 1_000_000_000);
            }
            seen = control.wait_change(seen, POLL_NS);
        }
        Ok(Helper(child))
    }

    /// Waits until its work is done, well.
    pub fn wait(mut self) -> anyhow::Result<()> {
        match self.0.wait()? {
            Ending::Exit(0) => Ok(()),
            ending => bail!("a helper ended: {ending}"),
        }
    }
}

/// The floor under a route: a process that receives from one path and sends into another, and does
/// nothing else.
pub struct Relay {
    name: &'static str,
    first: Arc<dyn Mechanism>,
    second: Arc<dyn Mechanism>,
    _process: Helper,
}

impl Relay {
    /// Starts it at this place.
    pub fn start(
        name: &'static str,
        first: Arc<dyn Mechanism>,
        second: Arc<dyn Mechanism>,
        placement: ThreadPlacement,
    ) -> anyhow::Result<Relay> {
        let process = Helper::start(name, |control| {
            let mut rx = first.receiver()?;
            // Now, as the sender of the second path waits for a receiver that waits for this.
            control.mark_ready(Role::Receiver);
            let mut tx = second.sender()?;
            placement.take("rtlat-relay")?;
            relay(&mut *rx, &mut *tx)
        })?;
        Ok(Relay {
            name,
            first,
            second,
            _process: process,
        })
    }
}

fn relay(rx: &mut dyn Rx, tx: &mut dyn Tx) -> anyhow::Result<()> {
    loop {
        match rx.receive() {
            Ok(stamp) => while matches!(tx.send(&stamp), Err(Errno::AGAIN | Errno::INTR)) {},
            Err(Errno::INTR | Errno::AGAIN) => {}
            Err(e) => bail!("cannot receive: {}", std::io::Error::from(e)),
        }
    }
}

impl Mechanism for Relay {
    fn name(&self) -> &str {
        self.name
    }

    fn payload_bytes(&self) -> usize {
        self.first.payload_bytes()
    }

    fn sender(&self) -> anyhow::Result<Box<dyn Tx>> {
        self.first.sender()
    }

    fn receiver(&self) -> anyhow::Result<Box<dyn Rx>> {
        self.second.receiver()
    }
}

/// A process that receives messages and discards them.
pub fn drain(
    placement: ThreadPlacement,
    open: impl FnOnce() -> anyhow::Result<Box<dyn Rx>>,
) -> anyhow::Result<Helper> {
    Helper::start("a receiver", |control| {
        let mut rx = open()?;
        placement.take("rtlat-drain")?;
        control.mark_ready(Role::Receiver);
        loop {
            match rx.receive() {
                Ok(_) | Err(Errno::INTR | Errno::AGAIN) => {}
                Err(e) => bail!("cannot receive: {}", std::io::Error::from(e)),
            }
        }
    })
}

/// A process that is registered under all these names and does nothing.
pub fn idle(socket: &Path, names: &[String]) -> anyhow::Result<Helper> {
    Helper::start("idle sessions", |control| {
        let open = |name: &String| Session::builder(name).socket(socket).connect();
        let _sessions = names.iter().map(open).collect::<Result<Vec<_>, _>>()?;
        control.mark_ready(Role::Receiver);
        loop {
            sleep_until(u64::MAX);
        }
    })
}
