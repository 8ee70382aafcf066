//! The work of the two roles of a pair with its mechanism, each on its thread or in its process.

use super::Work;
use crate::control_block::{ControlBlock, Role};
use crate::role_loops::{
    Log, Measured, ThreadPlacement, ask_blocks, echo_blocks, record_blocks, send_blocks,
    timer_blocks,
};
use rtcore::sys::{memory, sched};
use std::sync::Arc;

/// The thread that records.
pub(super) fn recorder(mut log: Log, work: &Work, [sender, receiver]: [ThreadPlacement; 2]) {
    let control = Arc::clone(&log.control);
    let done = (|| -> anyhow::Result<()> {
        match work {
            Work::Timer => {
                sender.take("rtlat-timer")?;
                control.mark_ready(Role::Sender);
                timer_blocks(&mut log);
            }
            Work::OneWay(mechanism) => {
                let mut rx = mechanism.receiver()?;
                receiver.take("rtlat-rx")?;
                control.mark_ready(Role::Receiver);
                record_blocks(&mut log, &mut *rx);
            }
            Work::OneThread(mechanism) => {
                // A sender waits for who receives.
                let mut rx = mechanism.receiver()?;
                let mut tx = mechanism.sender()?;
                sender.take("rtlat-rx")?;
                control.mark_ready(Role::Sender);
                ask_blocks(&mut log, Role::Sender, &mut *tx, &mut *rx);
            }
            Work::RoundTrip(there, back) => {
                let (mut tx, mut rx) = (there.sender()?, back.receiver()?);
                sender.take("rtlat-tx")?;
                control.mark_ready(Role::Sender);
                ask_blocks(&mut log, Role::Sender, &mut *tx, &mut *rx);
            }
            Work::Synced(there, back) => {
                let (mut ask, mut rx) = (back.sender()?, there.receiver()?);
                receiver.take("rtlat-rx")?;
                control.mark_ready(Role::Receiver);
                ask_blocks(&mut log, Role::Receiver, &mut *ask, &mut *rx);
            }
        }
        Ok(())
    })();
    if let Err(e) = done {
        control.fail(&format!("{e:#}"));
    }
}

/// The other role, on its thread or in its process.
pub(super) fn partner(
    control: &ControlBlock,
    work: &Work,
    [sender, receiver]: [ThreadPlacement; 2],
) {
    control.fault_in();
    memory::prefault_stack();
    let done = (|| -> anyhow::Result<()> {
        match work {
            Work::Timer | Work::OneThread(_) => {}
            Work::OneWay(mechanism) => {
                let mut tx = mechanism.sender()?;
                sender.take("rtlat-tx")?;
                control.mark_ready(Role::Sender);
                send_blocks(control, &mut *tx);
            }
            Work::RoundTrip(there, back) => {
                let (mut rx, mut tx) = (there.receiver()?, back.sender()?);
                receiver.take("rtlat-rx")?;
                control.mark_ready(Role::Receiver);
                echo_blocks(
                    control,
                    Role::Receiver,
                    Measured::ThereAndBack,
                    &mut *rx,
                    &mut *tx,
                );
            }
            Work::Synced(there, back) => {
                let (mut asked, mut tx) = (back.receiver()?, there.sender()?);
                sender.take("rtlat-tx")?;
                control.mark_ready(Role::Sender);
                echo_blocks(
                    control,
                    Role::Sender,
                    Measured::TheAnswer,
                    &mut *asked,
                    &mut *tx,
                );
            }
        }
        Ok(())
    })();
    if let Err(e) = done {
        control.fail(&format!("{e:#}"));
    }
    // Back to an ordinary thread before it cleans up.
    let _ = sched::set_ordinary();
}
