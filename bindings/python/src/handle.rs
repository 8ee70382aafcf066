//! One owner at a time for what Python code shares freely.
//!
//! A sender, an inbox or a caller is for one thread at a time, and while a view of a slot is out, for
//! nobody. Python cannot say so in a type, so a handle lends its value out: a call holds the
//! [`Lease`] while it works or waits, a view until its last export is gone. A call that finds the
//! value lent raises at once, instead of waiting for a lock.

use crate::errors::{self, Kind};
use pyo3::exceptions::PyBufferError;
use pyo3::prelude::*;
use rtcore::sys::sched;
use std::ptr::NonNull;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// What has it.
#[derive(Clone, Copy)]
enum Holder {
    /// A call of this thread.
    Call(i32),
    View,
}

enum State<T> {
    Here(Box<T>),
    Lent(Holder),
    Closed,
}

/// Where a value is kept between two calls.
pub struct Handle<T> {
    /// For errors: "inbox".
    what: &'static str,
    state: Mutex<State<T>>,
}

impl<T: Send> Handle<T> {
    pub fn new(what: &'static str, value: T) -> Arc<Handle<T>> {
        let state = Mutex::new(State::Here(Box::new(value)));
        Arc::new(Handle { what, state })
    }

    fn state(&self) -> MutexGuard<'_, State<T>> {
        // Each change is one assignment.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The value, until the lease is dropped.
    ///
    /// Errors: Closed; InUse while another thread is in a call; BufferError while a view is out.
    pub fn lease(self: &Arc<Self>) -> PyResult<Lease<T>> {
        let mut state = self.state();
        match std::mem::replace(&mut *state, State::Lent(Holder::Call(sched::gettid()))) {
            State::Here(value) => Ok(Lease {
                home: Arc::clone(self),
                value: NonNull::from(Box::leak(value)),
            }),
            other => {
                let error = self.refusal(&other);
                *state = other;
                Err(error)
            }
        }
    }

    fn refusal(&self, state: &State<T>) -> PyErr {
        let what = self.what;
        match state {
            State::Lent(Holder::View) => PyBufferError::new_err(format!(
                "a view of a slot of this {what} is in use: delete it (slices and arrays over it too), or copy the bytes"
            )),
            State::Lent(Holder::Call(tid)) => {
                let text = format!(
                    "the {what} is in use by a call of thread {tid}: one thread at a time; open one for each thread"
                );
                errors::new(Kind::InUse, None, text)
            }
            State::Closed | State::Here(_) => {
                let text = format!("the {what} was closed: open it again from its session");
                errors::new(Kind::Closed, None, text)
            }
        }
    }

    /// Gives the value up. Not while it is lent.
    pub fn close(&self) -> PyResult<Option<Box<T>>> {
        let mut state = self.state();
        match std::mem::replace(&mut *state, State::Closed) {
            State::Here(value) => Ok(Some(value)),
            State::Closed => Ok(None),
            lent @ State::Lent(_) => {
                let error = self.refusal(&lent);
                *state = lent;
                Err(error)
            }
        }
    }
}

/// The value of a handle, and the right to use it. Gives it back when dropped.
///
/// Invariant: `value` was leaked by [`Handle::lease`], and this is the only owner.
pub struct Lease<T: Send> {
    home: Arc<Handle<T>>,
    value: NonNull<T>,
}

// SAFETY: it owns a `T`, which may move between threads, and an `Arc` of a mutex over it.
unsafe impl<T: Send> Send for Lease<T> {}

impl<T: Send> Lease<T> {
    pub fn get(&mut self) -> &mut T {
        // SAFETY: the invariant; the borrow ends with that of the lease.
        unsafe { self.value.as_mut() }
    }

    /// Where the value is, for a view that borrows from it and is dropped before the lease. Calls
    /// of the handle raise BufferError from now on.
    pub fn lend_to_view(&mut self) -> NonNull<T> {
        *self.home.state() = State::Lent(Holder::View);
        self.value
    }
}

impl<T: Send> Drop for Lease<T> {
    fn drop(&mut self) {
        // SAFETY: the invariant: it came from a box, and nothing uses it after this.
        let value = unsafe { Box::from_raw(self.value.as_ptr()) };
        *self.home.state() = State::Here(value);
    }
}
