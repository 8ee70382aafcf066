//! Receiving.

use crate::errors::{self, Kind};
use crate::handle::Handle;
use crate::message::{InPlace, incoming};
use crate::wait::{Deadline, turn};
use pyo3::exceptions::PyStopIteration;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyTuple};
use rtcore::client::{self, RecvError};
use rtcore::sys::forked::Creator;
use std::os::fd::{AsFd as _, AsRawFd as _};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

#[pyclass(frozen, module = "rtcore")]
pub struct Inbox {
    handle: Arc<Handle<client::Inbox>>,
    creator: Creator,
    /// An `async for` runs over it.
    listening: AtomicBool,
}

impl Inbox {
    pub fn new(inbox: client::Inbox, creator: Creator) -> Inbox {
        Inbox {
            handle: Handle::new("inbox", inbox),
            creator,
            listening: AtomicBool::new(false),
        }
    }

    fn next(&self, py: Python<'_>, deadline: Deadline) -> PyResult<Result<Py<PyAny>, RecvError>> {
        let mut lease = self.handle.lease()?;
        loop {
            match lease.get().try_recv() {
                Ok(Some(found)) => return incoming(py, found).map(Ok),
                Ok(None) if deadline.is_over() => return Err(deadline.error("nothing came")),
                Ok(None) => {}
                Err(error) => return Ok(Err(error)),
            }
            let inbox = lease.get();
            turn(py, || inbox.sleep_once(deadline.at_ns))?.map_err(errors::recv)?;
        }
    }
}

#[pymethods]
impl Inbox {
    #[pyo3(signature = (timeout=None))]
    fn recv(&self, py: Python<'_>, timeout: Option<f64>) -> PyResult<Py<PyAny>> {
        self.next(py, Deadline::after(timeout)?)?
            .map_err(errors::recv)
    }

    fn try_recv(&self, py: Python<'_>) -> PyResult<Option<Py<PyAny>>> {
        let mut lease = self.handle.lease()?;
        let found = lease.get().try_recv().map_err(errors::recv)?;
        found.map(|found| incoming(py, found)).transpose()
    }

    #[pyo3(signature = (timeout=None))]
    fn peek(&self, py: Python<'_>, timeout: Option<f64>) -> PyResult<Py<PyAny>> {
        let deadline = Deadline::after(timeout)?;
        let mut lease = self.handle.lease()?;
        loop {
            lease = match InPlace::take(py, lease, self.creator)? {
                Ok(found) => return Ok(found),
                Err(_) if deadline.is_over() => return Err(deadline.error("nothing came")),
                Err(lease) => lease,
            };
            let inbox = lease.get();
            turn(py, || inbox.sleep_once(deadline.at_ns))?.map_err(errors::recv)?;
        }
    }

    fn __iter__(slf: Bound<'_, Self>) -> Bound<'_, Self> {
        slf
    }

    /// Ends when the session was closed and all that had come is taken.
    fn __next__(&self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        match self.next(py, Deadline::after(None)?)? {
            Err(RecvError::Disconnected) => Err(PyStopIteration::new_err(())),
            other => other.map_err(errors::recv),
        }
    }

    fn __aiter__(slf: Bound<'_, Self>) -> PyResult<Bound<'_, PyAny>> {
        let module = slf.py().import("rtcore._aio")?;
        module.getattr("messages")?.call1((slf,))
    }

    /// For an event loop: readable while something is there.
    fn fileno(&self) -> PyResult<i32> {
        Ok(self.handle.lease()?.get().as_fd().as_raw_fd())
    }

    fn counters<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let counters = self.handle.lease()?.get().counters();
        let dict = PyDict::new(py);
        for (name, value) in [
            ("received", counters.received),
            ("duplicates", counters.duplicates),
            ("missed", counters.missed),
            ("expired", counters.expired),
            ("superseded", counters.superseded),
            ("late", counters.late),
            ("torn", counters.torn),
            ("corrupt", counters.corrupt),
            ("events_lost", counters.events_lost),
        ] {
            dict.set_item(name, value)?;
        }
        Ok(dict)
    }

    /// Two loops over one descriptor would wait for each other's messages.
    fn _begin_listening(&self) -> PyResult<()> {
        if self.listening.swap(true, Ordering::Relaxed) {
            let text = "another `async for` runs over this inbox: one at a time".to_owned();
            return Err(errors::new(Kind::InUse, None, text));
        }
        Ok(())
    }

    fn _end_listening(&self) {
        self.listening.store(false, Ordering::Relaxed);
    }

    fn close(&self, py: Python<'_>) -> PyResult<()> {
        let inbox = self.handle.close()?;
        py.detach(|| drop(inbox));
        Ok(())
    }

    fn __enter__(slf: Bound<'_, Self>) -> Bound<'_, Self> {
        slf
    }

    #[pyo3(signature = (*_args))]
    fn __exit__(&self, py: Python<'_>, _args: &Bound<'_, PyTuple>) -> PyResult<()> {
        self.close(py)
    }
}
