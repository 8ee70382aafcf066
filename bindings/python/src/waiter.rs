//! One wait for many things, in the order of their priorities.

use crate::errors;
use crate::handle::Handle;
use crate::wait::{Deadline, turn};
use pyo3::exceptions::{PyKeyError, PyTypeError};
use pyo3::prelude::*;
use pyo3::types::PyTuple;
use pyo3::{PyTraverseError, PyVisit};
use rtcore::client::waiter::{self, Interest};
use rtcore::sys::poll;
use std::collections::HashMap;
use std::io;
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, RawFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// One thing that is ready.
#[pyclass(frozen, get_all, module = "rtcore")]
pub struct Ready {
    key: Py<PyAny>,
    priority: u8,
    readable: bool,
    writable: bool,
    hangup: bool,
}

#[pyclass(frozen, module = "rtcore")]
pub struct Waiter {
    handle: Arc<Handle<waiter::Waiter>>,
    things: Mutex<Things>,
}

#[derive(Default)]
struct Things {
    last: u64,
    by_number: HashMap<u64, Thing>,
}

struct Thing {
    key: Py<PyAny>,
    /// Keeps the descriptor open.
    object: Py<PyAny>,
}

impl Waiter {
    fn things(&self) -> MutexGuard<'_, Things> {
        self.things.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn number(&self, key: &Bound<'_, PyAny>) -> PyResult<u64> {
        let known: Vec<(u64, Py<PyAny>)> = {
            let things = self.things();
            let pair = |(number, thing): (&u64, &Thing)| (*number, thing.key.clone_ref(key.py()));
            things.by_number.iter().map(pair).collect()
        };
        for (number, other) in known {
            if other.bind(key.py()).eq(key)? {
                return Ok(number);
            }
        }
        Err(PyKeyError::new_err(key.clone().unbind()))
    }
}

fn number_of(thing: &Bound<'_, PyAny>) -> PyResult<RawFd> {
    let number = match thing.extract::<RawFd>() {
        Ok(number) => number,
        Err(_) => thing.call_method0("fileno")?.extract()?,
    };
    if number < 0 {
        return Err(PyTypeError::new_err(format!(
            "{number} is not a descriptor"
        )));
    }
    Ok(number)
}

#[pymethods]
impl Waiter {
    #[new]
    #[pyo3(signature = (capacity=64))]
    fn new(capacity: usize) -> PyResult<Waiter> {
        let waiter = waiter::Waiter::with_capacity(capacity);
        Ok(Waiter {
            handle: Handle::new("waiter", waiter.map_err(os)?),
            things: Mutex::default(),
        })
    }

    /// Waits for a descriptor, or for an object with a `fileno()`, too.
    #[pyo3(signature = (thing, key, priority=0, *, readable=true, writable=false))]
    fn add(
        &self,
        thing: &Bound<'_, PyAny>,
        key: &Bound<'_, PyAny>,
        priority: u8,
        readable: bool,
        writable: bool,
    ) -> PyResult<()> {
        let interest = match (readable, writable) {
            (true, false) => Interest::Readable,
            (false, true) => Interest::Writable,
            (true, true) => Interest::Both,
            (false, false) => {
                let text = "nothing to wait for: readable, writable or both";
                return Err(pyo3::exceptions::PyValueError::new_err(text));
            }
        };
        if self.number(key).is_ok() {
            let text = format!("the key {} is in the set: remove it first", key.repr()?);
            return Err(pyo3::exceptions::PyValueError::new_err(text));
        }
        let fd = number_of(thing)?;
        let mut lease = self.handle.lease()?;
        // SAFETY: a waiter only passes the number to the kernel, which refuses one that is not open.
        let fd = unsafe { BorrowedFd::borrow_raw(fd) };
        let number = self.things().last + 1;
        lease
            .get()
            .add(&fd, number, priority, interest)
            .map_err(os)?;
        let mut things = self.things();
        things.last = number;
        let thing = Thing {
            key: key.clone().unbind(),
            object: thing.clone().unbind(),
        };
        things.by_number.insert(number, thing);
        Ok(())
    }

    fn remove(&self, key: &Bound<'_, PyAny>) -> PyResult<()> {
        let number = self.number(key)?;
        self.handle.lease()?.get().remove(number).map_err(os)?;
        let removed = self.things().by_number.remove(&number);
        drop(removed);
        Ok(())
    }

    /// What is ready, highest priority first; an empty list when the time is over.
    #[pyo3(signature = (timeout=None))]
    fn wait(&self, py: Python<'_>, timeout: Option<f64>) -> PyResult<Vec<Ready>> {
        let deadline = Deadline::after(timeout)?;
        let mut lease = self.handle.lease()?;
        if timeout.is_none() && self.things().by_number.is_empty() {
            // Its error: it would wait for ever.
            lease.get().wait(None).map_err(os)?;
        }
        loop {
            let ready = lease.get().wait(Some(0)).map_err(os)?;
            if !ready.is_empty() || deadline.is_over() {
                let things = self.things();
                let found = ready.iter().filter_map(|ready| {
                    Some(Ready {
                        key: things.by_number.get(&ready.key)?.key.clone_ref(py),
                        priority: ready.priority,
                        readable: ready.readable,
                        writable: ready.writable,
                        hangup: ready.hangup,
                    })
                });
                return Ok(found.collect());
            }
            let set = lease.get().as_fd().as_raw_fd();
            let left_ns = match deadline.at_ns {
                u64::MAX => u64::MAX,
                at_ns => at_ns.saturating_sub(rtcore::sys::clock::monotonic_ns()),
            };
            // Whatever ended it, the next turn looks.
            turn(py, move || {
                let _ = poll::wait(&mut [poll::Interest::readable(set)], left_ns);
            })?;
        }
    }

    fn close(&self) -> PyResult<()> {
        drop(self.handle.close()?);
        let things = std::mem::take(&mut *self.things());
        drop(things);
        Ok(())
    }

    fn __enter__(slf: Bound<'_, Self>) -> Bound<'_, Self> {
        slf
    }

    #[pyo3(signature = (*_args))]
    fn __exit__(&self, _args: &Bound<'_, PyTuple>) -> PyResult<()> {
        self.close()
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        if let Ok(things) = self.things.try_lock() {
            for thing in things.by_number.values() {
                visit.call(&thing.key)?;
                visit.call(&thing.object)?;
            }
        }
        Ok(())
    }

    fn __clear__(&self) {
        let things = std::mem::take(&mut *self.things());
        drop(things);
    }
}

#[expect(clippy::needless_pass_by_value, reason = "for map_err")]
fn os(error: io::Error) -> PyErr {
    errors::os(&error, error.to_string())
}
