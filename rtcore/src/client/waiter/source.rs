//! Signals as a source of a [`Waiter`](super::Waiter).

use crate::client::signals::SignalsError;
use crate::client::signals::claim::{Claim, block_everywhere, mask_of};
use crate::sys::Errno;
pub use crate::sys::rtsignal::Received;
use crate::sys::rtsignal::{SignalSet, try_wait};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// A set of signals behind a descriptor (signalfd(2)): readable while one is pending.
///
/// It takes signals that are sent to the process, and those that are sent to the calling thread.
/// When it is dropped, the signals stay blocked, and pending ones stay pending.
#[derive(Debug)]
pub struct SignalSource {
    set: SignalSet,
    pending: OwnedFd,
    _claim: Claim,
}

impl SignalSource {
    /// Takes these signals from now on. Blocks them in the calling thread; all other threads must
    /// block them too, see [`Signals::block`](crate::client::signals::Signals::block).
    ///
    /// Errors: a number that cannot be taken, a thread that does not block it, another taker in
    /// this process.
    pub fn new(signals: impl IntoIterator<Item = i32>) -> Result<SignalSource, SignalsError> {
        let bits = mask_of(signals)?;
        let claim = Claim::of(bits)?;
        block_everywhere(bits, None)?;
        let set = SignalSet::of_bits(bits);
        let pending = set
            .descriptor()
            .map_err(SignalsError::system("opening a signalfd"))?;
        Ok(SignalSource {
            set,
            pending,
            _claim: claim,
        })
    }

    /// The next pending signal, lowest number first; never waits. The kernel wrote its pid and uid
    /// or, for a queued signal, the sender did.
    #[inline]
    pub fn take(&self) -> Option<Received> {
        loop {
            match try_wait(&self.set) {
                // The last announcement for a dispatcher that had the signal before and is gone.
                Ok(received) if received.announces => {}
                Ok(received) => return Some(received),
                Err(Errno::INTR) => {}
                Err(_) => return None,
            }
        }
    }
}

impl AsFd for SignalSource {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.pending.as_fd()
    }
}
