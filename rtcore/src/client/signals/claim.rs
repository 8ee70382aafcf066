//! Claims of signals: each signal number has one taker in the process, and no thread leaves it
//! unblocked.
//!
//! Invariant: a signal that is claimed is blocked in every thread that existed when it was claimed,
//! so it stays pending until its one taker takes it. (For an asynchronous handler only the claim
//! holds.)

use super::SignalsError;
use crate::sys::{epoll, procfs, rtsignal};
use std::sync::atomic::{AtomicU64, Ordering};

/// Signals with a taker, as a mask. Per process, as signals are.
static CLAIMED: AtomicU64 = AtomicU64::new(0);

/// Claimed signals, as a mask; dropping the claim releases them.
#[derive(Debug, Default)]
pub(in crate::client) struct Claim(u64);

impl Claim {
    /// Claims these signals.
    pub(in crate::client) fn of(bits: u64) -> Result<Claim, SignalsError> {
        let mut claim = Claim(0);
        claim.extend(bits)?;
        Ok(claim)
    }

    /// Claims these signals in addition: all of them or none.
    pub(in crate::client) fn extend(&mut self, bits: u64) -> Result<(), SignalsError> {
        let new = bits & !self.0;
        // AcqRel: pairs with the Release in `release`; the next taker sees the effects of the
        // former one.
        let taken = CLAIMED.fetch_update(Ordering::AcqRel, Ordering::Acquire, |claimed| {
            (claimed & new == 0).then_some(claimed | new)
        });
        match taken {
            Ok(_) => self.0 |= new,
            Err(claimed) => {
                return Err(SignalsError::Taken {
                    signo: lowest(claimed & new),
                });
            }
        }
        Ok(())
    }

    /// Whether this claim contains these signals.
    pub(super) fn has(&self, bits: u64) -> bool {
        self.0 & bits == bits
    }

    /// Releases these signals.
    pub(super) fn release(&mut self, bits: u64) {
        let own = self.0 & bits;
        self.0 &= !own;
        // Release: pairs with the AcqRel in `extend`.
        CLAIMED.fetch_and(!own, Ordering::Release);
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        self.release(u64::MAX);
    }
}

/// The mask of these numbers, if a program may take all of them.
pub(in crate::client) fn mask_of(
    signals: impl IntoIterator<Item = i32>,
) -> Result<u64, SignalsError> {
    signals
        .into_iter()
        .try_fold(0, |bits, signo| match rtsignal::refusal(signo) {
            Some(why) => Err(SignalsError::Refused { signo, why }),
            None => Ok(bits | rtsignal::bit(signo)),
        })
}

/// Blocks the signals in the calling thread.
pub(super) fn block(bits: u64) -> Result<(), SignalsError> {
    epoll::block_signals(bits).map_err(SignalsError::system("blocking signals"))
}

/// Blocks the signals in the calling thread and checks that all other threads block them; otherwise
/// it restores the caller's mask. `taker` waits for them and is not checked, because the kernel
/// shows the signals of a sleeping sigwaitinfo(2) as unblocked.
pub(in crate::client) fn block_everywhere(
    bits: u64,
    taker: Option<i32>,
) -> Result<(), SignalsError> {
    let before = epoll::blocked_signals();
    block(bits)?;
    let checked = all_block(bits, taker);
    if checked.is_err() {
        epoll::set_blocked_signals(before)
            .map_err(SignalsError::system("restoring the signal mask"))?;
    }
    checked
}

fn all_block(bits: u64, taker: Option<i32>) -> Result<(), SignalsError> {
    let masks = procfs::thread_masks()
        .map_err(SignalsError::system("looking at the threads' signal masks"))?;
    for thread in masks.into_iter().filter(|thread| Some(thread.tid) != taker) {
        let open = bits & !thread.blocked;
        if open != 0 {
            let (tid, comm) = (thread.tid, thread.comm);
            return Err(SignalsError::Unblocked {
                signo: lowest(open),
                tid,
                comm,
            });
        }
    }
    Ok(())
}

/// The lowest signal of a mask that is not empty.
fn lowest(bits: u64) -> i32 {
    // At most 64.
    i32::try_from(bits.trailing_zeros()).unwrap_or(0) + 1
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::signame;

    #[test]
    fn a_signal_has_one_taker_at_a_time() {
        let signo = signame::rt_max();
        let bits = mask_of([signo, signo - 1]).unwrap();
        let first = Claim::of(bits).unwrap();
        let refused = Claim::of(rtsignal::bit(signo)).unwrap_err();
        assert!(
            matches!(refused, SignalsError::Taken { signo: taken } if taken == signo),
            "{refused}"
        );
        assert!(first.has(bits));
        drop(first);
        let mut second = Claim::of(rtsignal::bit(signo)).unwrap();
        second.extend(bits).unwrap();
        second.release(rtsignal::bit(signo));
        assert!(!second.has(bits) && Claim::of(rtsignal::bit(signo)).is_ok());
    }

    #[test]
    fn a_number_that_cannot_be_taken_is_refused_with_its_name() {
        let text = mask_of([signame::rt_min(), 9]).unwrap_err().to_string();
        assert!(text.contains("SIGKILL (9)"), "{text}");
        assert!(mask_of([32]).unwrap_err().to_string().contains("32"));
    }

    #[test]
    fn a_mask_is_put_back_when_another_thread_is_in_the_way() {
        let bits = mask_of([signame::rt_max() - 2]).unwrap();
        // This thread blocks nothing and waits.
        let other = std::thread::spawn(move || {
            let before = epoll::blocked_signals();
            let refused = block_everywhere(bits, None).unwrap_err();
            assert!(
                matches!(refused, SignalsError::Unblocked { .. }),
                "{refused}"
            );
            assert_eq!(epoll::blocked_signals(), before);
        });
        other.join().unwrap();
    }
}
