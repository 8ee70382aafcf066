//! Signals as a thing that a [`Waiter`](super::Waiter) waits for.

use crate::client::signals::SignalsError;
use crate::client::signals::claim::{Claim, block_everywhere, mask_of};
use crate::sys::Errno;
pub use crate::sys::rtsignal::Received;
use crate::sys::rtsignal::{SignalSet, try_wait};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// A set of signals behind a descriptor (signalfd(2)): readable while one is pending.
///
/// Sees what is sent to the process, and what is sent to the very thread that asks. The signals
/// stay blocked when it is dropped, and what is pending stays pending.
#[derive(Debug)]
pub struct SignalSource {
    set: SignalSet,
    pending: OwnedFd,
    _claim: Claim,
}

impl SignalSource {
    /// Takes these signals from now on. Blocks them in the calling thread; all the others have to,
    /// see [`Signals::block`](crate::client::signals::Signals::block).
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

    /// The next one that is pending, lowest number first; never waits. Its pid and uid are what the
    /// kernel or, for a queued signal, the sender wrote.
    #[inline]
    pub fn take(&self) -> Option<Received> {
        loop {
            match try_wait(&self.set) {
                // The last one for a dispatcher that had the signal before and is gone.
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
