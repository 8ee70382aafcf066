//! What the two parties of a pair do with its mechanism, each on its thread or in its process.

use super::Work;
use crate::board::{Board, Role};
use crate::party::{
    Log, Measured, Seat, ask_blocks, echo_blocks, record_blocks, send_blocks, timer_blocks,
};
use rtcore::sys::{memory, sched};
use std::sync::Arc;

/// The thread that records.
pub(super) fn recorder(mut log: Log, work: &Work, [sender, receiver]: [Seat; 2]) {
    let board = Arc::clone(&log.board);
    let done = (|| -> anyhow::Result<()> {
        match work {
            Work::Timer => {
                sender.take("rtlat-timer")?;
                board.stand(Role::Sender);
                timer_blocks(&mut log);
            }
            Work::OneWay(mechanism) => {
                let mut rx = mechanism.receiver()?;
                receiver.take("rtlat-rx")?;
                board.stand(Role::Receiver);
                record_blocks(&mut log, &mut *rx);
            }
            Work::OneThread(mechanism) => {
                // A sender waits for who receives.
                let mut rx = mechanism.receiver()?;
                let mut tx = mechanism.sender()?;
                sender.take("rtlat-rx")?;
                board.stand(Role::Sender);
                ask_blocks(&mut log, Role::Sender, &mut *tx, &mut *rx);
            }
            Work::RoundTrip(there, back) => {
                let (mut tx, mut rx) = (there.sender()?, back.receiver()?);
                sender.take("rtlat-tx")?;
                board.stand(Role::Sender);
                ask_blocks(&mut log, Role::Sender, &mut *tx, &mut *rx);
            }
            Work::Synced(there, back) => {
                let (mut ask, mut rx) = (back.sender()?, there.receiver()?);
                receiver.take("rtlat-rx")?;
                board.stand(Role::Receiver);
                ask_blocks(&mut log, Role::Receiver, &mut *ask, &mut *rx);
            }
        }
        Ok(())
    })();
    if let Err(e) = done {
        board.fail(&format!("{e:#}"));
    }
}

/// The other party, on its thread or in its process.
pub(super) fn partner(board: &Board, work: &Work, [sender, receiver]: [Seat; 2]) {
    board.fault_in();
    memory::prefault_stack();
    let done = (|| -> anyhow::Result<()> {
        match work {
            Work::Timer | Work::OneThread(_) => {}
            Work::OneWay(mechanism) => {
                let mut tx = mechanism.sender()?;
                sender.take("rtlat-tx")?;
                board.stand(Role::Sender);
                send_blocks(board, &mut *tx);
            }
            Work::RoundTrip(there, back) => {
                let (mut rx, mut tx) = (there.receiver()?, back.sender()?);
                receiver.take("rtlat-rx")?;
                board.stand(Role::Receiver);
                echo_blocks(
                    board,
                    Role::Receiver,
                    Measured::ThereAndBack,
                    &mut *rx,
                    &mut *tx,
                );
            }
            Work::Synced(there, back) => {
                let (mut asked, mut tx) = (back.receiver()?, there.sender()?);
                sender.take("rtlat-tx")?;
                board.stand(Role::Sender);
                echo_blocks(
                    board,
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
        board.fail(&format!("{e:#}"));
    }
    // Back to an ordinary thread before it cleans up.
    let _ = sched::set_ordinary();
}
