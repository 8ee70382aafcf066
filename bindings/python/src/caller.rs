//! Request and reply.

use crate::buffer::Bytes;
use crate::errors;
use crate::handle::Handle;
use crate::message::Message;
use crate::wait::{Deadline, turn};
use pyo3::prelude::*;
use pyo3::types::PyTuple;
use rtcore::client;
use std::sync::Arc;

#[pyclass(frozen, module = "rtcore")]
pub struct Caller {
    handle: Arc<Handle<client::Caller>>,
}

impl Caller {
    pub fn new(caller: client::Caller) -> Caller {
        Caller {
            handle: Handle::new("caller", caller),
        }
    }
}

#[pymethods]
impl Caller {
    /// Sends a request, and returns the answer to it.
    #[pyo3(signature = (data, timeout=None))]
    fn call(
        &self,
        py: Python<'_>,
        data: &Bound<'_, PyAny>,
        timeout: Option<f64>,
    ) -> PyResult<Py<Message>> {
        let deadline = Deadline::after(timeout)?;
        let bytes = Bytes::of(data)?;
        let mut lease = self.handle.lease()?;
        let mut question = lease.get().question(deadline.at_ns);
        loop {
            let asked = lease.get().ask(&mut question, bytes.as_slice(py));
            if asked.map_err(errors::call)? {
                break;
            }
            let caller = lease.get();
            turn(py, || caller.sleep_for_room(&question))?.map_err(errors::call)?;
        }
        drop(bytes);
        loop {
            if let Some(answer) = lease.get().try_answer(&question).map_err(errors::call)? {
                return Message::new(py, &answer);
            }
            let caller = lease.get();
            turn(py, || caller.sleep(&question))?;
        }
    }

    /// Waits until somebody can receive requests.
    #[pyo3(signature = (timeout=None))]
    fn wait_for_receiver(&self, py: Python<'_>, timeout: Option<f64>) -> PyResult<()> {
        let deadline = Deadline::after(timeout)?;
        let mut lease = self.handle.lease()?;
        loop {
            let caller = lease.get();
            if turn(py, || caller.look_for_receiver(deadline.at_ns))?.map_err(errors::call)? {
                return Ok(());
            }
        }
    }

    /// Answers that came after their deadline.
    #[getter]
    fn late(&self) -> PyResult<u64> {
        Ok(self.handle.lease()?.get().late())
    }

    fn close(&self, py: Python<'_>) -> PyResult<()> {
        let caller = self.handle.close()?;
        py.detach(|| drop(caller));
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
