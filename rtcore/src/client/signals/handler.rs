//! Asynchronous signal handlers, for programs that need them.
//!
//! Most programs want [`Signals`](super::Signals). A handler of this kind interrupts the thread at
//! any instruction. It runs on an alternate stack of [`HANDLER_STACK_BYTES`] plus the size of the
//! registers, with every other signal blocked. It is a plain `fn`, so it captures nothing, and gets
//! an [`AsyncScope`] with the operations that it may use.
//!
//! **Permitted calls** are only those that signal-safety(7) lists: no allocation or free, no lock
//! (so no `println!`, no `Mutex`, no channel), no formatting that allocates, no lazily initialised
//! static or thread-local, and no panic, which ends the process. From Rust that is: the methods of
//! [`AsyncScope`], atomics, and arithmetic that cannot overflow. `OnceLock::get` of a cell that is
//! filled is an atomic load and may be called, too.
//!
//! A blocking read(2), write(2), accept(2), futex wait and the like of the interrupted thread is
//! restarted (SA_RESTART). The kernel restarts neither poll(2), select(2), epoll_wait(2),
//! sigwaitinfo(2), nanosleep(2) nor anything with a timeout set on a socket (signal(7)); rtcore's
//! own versions of these calls resume by themselves.
//!
//! ```
//! use rtcore::client::signals::handler;
//! use rtcore::sys::{rtsignal, sched, signame};
//! use std::sync::atomic::{AtomicU64, Ordering};
//!
//! static TICKS: AtomicU64 = AtomicU64::new(0);
//!
//! let signo = signame::rt_min() + 6;
//! let installed = handler::install(signo, |notice, scope| scope.add(&TICKS, notice.value))?;
//! rtsignal::queue_to_thread(sched::getpid(), sched::gettid(), signo, 3, 0, 0).map_err(std::io::Error::from)?;
//! assert_eq!(TICKS.load(Ordering::Relaxed), 3);
//! drop(installed); // the action, mask and stack that were there before
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

use super::claim::{Claim, mask_of};
use super::{SignalsError, origin_of};
use crate::message::Origin;
use crate::sys::altstack::AltStack;
pub use crate::sys::altstack::HANDLER_STACK_BYTES;
use crate::sys::eventfd::EventFd;
use crate::sys::rtsignal::SignalSet;
use crate::sys::sigaction::{self, Action, RawInfo};
use crate::sys::{clock, epoll};
use std::cell::RefCell;
use std::marker::PhantomData;
use std::rc::{Rc, Weak};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicPtr, AtomicU64, Ordering};

/// A signal, as an asynchronous handler sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AsyncNotice {
    /// Kernel number.
    pub signo: i32,
    /// The value that the sender passed to sigqueue(3); 0 for kill(2).
    pub value: u64,
    /// The sender; see [`Flags::only_from`](super::Flags::only_from) for the reliability of this
    /// value.
    pub origin: Origin,
}

/// The operations of an asynchronous handler. Each method is async-signal-safe; the caller of the
/// handler saves and restores errno.
#[derive(Debug)]
pub struct AsyncScope {
    /// Not `Send`: it stays in the handler that got it.
    not_send: PhantomData<*const ()>,
}

impl AsyncScope {
    /// CLOCK_MONOTONIC now, in nanoseconds.
    pub fn now_ns(&self) -> u64 {
        clock::monotonic_ns()
    }

    /// Rings the doorbell in the slot, so that a thread that waits for it wakes up; false if the
    /// slot is empty or the kernel refused. Fill the slot before you install the handler.
    pub fn ring(&self, slot: &'static OnceLock<EventFd>) -> bool {
        slot.get().is_some_and(|bell| bell.ring().is_ok())
    }

    /// Stores the value. Release: a thread that loads it with Acquire sees the earlier effects of
    /// the handler.
    pub fn store(&self, cell: &'static AtomicU64, value: u64) {
        cell.store(value, Ordering::Release);
    }

    /// Adds to the cell, wrapping around. Release, as [`AsyncScope::store`].
    pub fn add(&self, cell: &'static AtomicU64, value: u64) {
        cell.fetch_add(value, Ordering::Release);
    }

    /// Writes the bytes to standard error, without formatting or buffer. Waits if standard error is
    /// blocked.
    pub fn write_stderr(&self, bytes: &[u8]) {
        sigaction::write_stderr(bytes);
    }
}

/// The type of a handler.
pub type AsyncHandler = fn(&AsyncNotice, &AsyncScope);

/// The handler for each signal number, because sigaction(2) has no argument for it. Null = none.
static HANDLERS: [AtomicPtr<()>; 65] = [const { AtomicPtr::new(std::ptr::null_mut()) }; 65];

fn slot(signo: i32) -> Option<&'static AtomicPtr<()>> {
    HANDLERS.get(usize::try_from(signo).ok()?)
}

/// The function that the kernel calls.
extern "C" fn enter(signo: i32, info: &RawInfo, _: *const ()) {
    sigaction::keeping_errno(|| {
        // Acquire: pairs with the Release in `install`.
        let Some(found) = slot(signo).map(|slot| slot.load(Ordering::Acquire)) else {
            return;
        };
        if found.is_null() {
            return;
        }
        // SAFETY: the table holds null or an `AsyncHandler` (`install` alone writes it), and code
        // is never unloaded.
        let handler = unsafe { std::mem::transmute::<*mut (), AsyncHandler>(found) };
        let got = info.received();
        if got.announces {
            // The last announcement for a dispatcher that is gone.
            return;
        }
        let notice = AsyncNotice {
            signo,
            value: got.value,
            origin: origin_of(&got),
        };
        handler(
            &notice,
            &AsyncScope {
                not_send: PhantomData,
            },
        );
    });
}

thread_local! {
    /// The calling thread's alternate stack while it has a handler installed. Its handlers share
    /// the stack, because they never nest.
    static STACK: RefCell<Weak<AltStack>> = const { RefCell::new(Weak::new()) };
}

/// A handler that is installed; dropping it restores action, mask and stack. Not `Send`, because
/// the stack belongs to its thread.
#[derive(Debug)]
pub struct Installed {
    signo: i32,
    was_blocked: bool,
    /// Taken by drop before the other fields.
    action: Option<Action>,
    _stack: Rc<AltStack>,
    _claim: Claim,
}

/// Installs a handler for `signo` in this process, with a stack for it in the calling thread, where
/// the signal is unblocked.
///
/// The kernel delivers a signal of the process to *any* thread that does not block it. To make this
/// thread the only one, block the signal in all others: call
/// [`Signals::block`](super::Signals::block) in main. In another thread the handler runs on that
/// thread's alternate stack, or on its ordinary stack if it has none.
///
/// Errors: a number that cannot be taken, another taker in this process, no memory for the stack.
pub fn install(signo: i32, handler: AsyncHandler) -> Result<Installed, SignalsError> {
    let bits = mask_of([signo])?;
    let claim = Claim::of(bits)?;
    let stack = own_stack().map_err(SignalsError::system("making the handler's stack"))?;
    let was_blocked = epoll::blocked_signals() & bits != 0;
    // From here on its Drop reverts the earlier steps if a later one fails.
    let mut installed = Installed {
        signo,
        was_blocked,
        action: None,
        _stack: stack,
        _claim: claim,
    };
    if let Some(slot) = slot(signo) {
        // Release: pairs with the Acquire in `enter`.
        slot.store(handler as *mut (), Ordering::Release);
    }
    let action =
        Action::install(signo, enter).map_err(SignalsError::system("installing the handler"))?;
    installed.action = Some(action);
    SignalSet::of([signo])
        .unblock()
        .map_err(SignalsError::system("unblocking the signal"))?;
    Ok(installed)
}

fn own_stack() -> std::io::Result<Rc<AltStack>> {
    STACK.with_borrow_mut(|own| {
        if let Some(stack) = own.upgrade() {
            return Ok(stack);
        }
        let stack = Rc::new(AltStack::enter()?);
        *own = Rc::downgrade(&stack);
        Ok(stack)
    })
}

impl Drop for Installed {
    fn drop(&mut self) {
        if self.was_blocked {
            // Blocks the signal before the action is restored, because the default action ends the
            // process. A valid mask is not refused.
            let _ = SignalSet::of([self.signo]).block();
        }
        drop(self.action.take());
        if let Some(slot) = slot(self.signo) {
            slot.store(std::ptr::null_mut(), Ordering::Release);
        }
    }
}
