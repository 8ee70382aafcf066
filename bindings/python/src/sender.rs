//! Sending.

use crate::buffer::{Bytes, Ended, View, still_in_use};
use crate::errors;
use crate::handle::{Handle, Lease};
use crate::message::Reply;
use crate::wait::{Deadline, turn};
use pyo3::exceptions::PyRuntimeError;
use pyo3::prelude::*;
use pyo3::types::PyTuple;
use pyo3::{PyTraverseError, PyVisit, ffi};
use rtcore::client::{self, Attempt, ReplyTo};
use rtcore::sys::forked::Creator;
use std::ffi::c_int;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

#[pyclass(frozen, module = "rtcore")]
pub struct Sender {
    handle: Arc<Handle<client::Sender>>,
    creator: Creator,
    #[pyo3(get)]
    endpoint: String,
    /// Bytes of the largest message.
    #[pyo3(get)]
    msgsize: u32,
    /// From process to process, past rtd.
    #[pyo3(get)]
    direct: bool,
}

impl Sender {
    pub fn new(sender: client::Sender, creator: Creator) -> Sender {
        let channel = sender.channel();
        let (msgsize, direct) = (channel.payload_bytes, channel.direct);
        Sender {
            endpoint: sender.endpoint().to_owned(),
            msgsize,
            direct,
            handle: Handle::new("sender", sender),
            creator,
        }
    }

    /// Sends with the GIL held, and waits for room without it.
    fn put(&self, py: Python<'_>, data: &Bound<'_, PyAny>, mut attempt: Attempt) -> PyResult<u64> {
        let bytes = Bytes::of(data)?;
        let mut lease = self.handle.lease()?;
        loop {
            let sent = lease.get().attempt(&mut attempt, bytes.as_slice(py));
            if let Some(sequence) = sent.map_err(errors::send)? {
                return Ok(sequence);
            }
            let sender = lease.get();
            turn(py, || sender.sleep_for_room(&attempt))?.map_err(errors::send)?;
        }
    }
}

#[pymethods]
impl Sender {
    #[pyo3(signature = (data, *, intended_ns=None))]
    fn send(
        &self,
        py: Python<'_>,
        data: &Bound<'_, PyAny>,
        intended_ns: Option<u64>,
    ) -> PyResult<u64> {
        self.put(py, data, intended_ns.map_or_else(Attempt::new, Attempt::at))
    }

    fn try_send(&self, py: Python<'_>, data: &Bound<'_, PyAny>) -> PyResult<u64> {
        let bytes = Bytes::of(data)?;
        let mut lease = self.handle.lease()?;
        lease
            .get()
            .try_send(bytes.as_slice(py))
            .map_err(errors::send)
    }

    fn reply(
        &self,
        py: Python<'_>,
        to: PyRef<'_, Reply>,
        data: &Bound<'_, PyAny>,
    ) -> PyResult<u64> {
        self.put(py, data, Attempt::reply(to.0))
    }

    #[pyo3(signature = (size, *, intended_ns=None, reply_to=None))]
    fn loan(
        &self,
        size: usize,
        intended_ns: Option<u64>,
        reply_to: Option<PyRef<'_, Reply>>,
    ) -> PyResult<Loan> {
        let lease = self.handle.lease()?;
        let stamp = match (reply_to, intended_ns) {
            (Some(to), _) => Stamp::Reply(to.0),
            (None, Some(at)) => Stamp::At(at),
            (None, None) => Stamp::Now,
        };
        Loan::new(lease, size, stamp, self.creator)
    }

    #[pyo3(signature = (timeout=None))]
    fn wait_for_receiver(&self, py: Python<'_>, timeout: Option<f64>) -> PyResult<()> {
        let deadline = Deadline::after(timeout)?;
        let mut lease = self.handle.lease()?;
        loop {
            let sender = lease.get();
            if turn(py, || sender.look_for_receiver(deadline.at_ns))?.map_err(errors::send)? {
                return Ok(());
            }
        }
    }

    #[pyo3(signature = (timeout=None))]
    fn flush(&self, py: Python<'_>, timeout: Option<f64>) -> PyResult<()> {
        let deadline = Deadline::after(timeout)?;
        let mut lease = self.handle.lease()?;
        loop {
            let sender = lease.get();
            if turn(py, || sender.look_for_flushed(deadline.at_ns))?.map_err(errors::flush)? {
                return Ok(());
            }
        }
    }

    /// Messages that were sent and are not taken.
    #[getter]
    fn pending(&self) -> PyResult<u64> {
        Ok(self.handle.lease()?.get().pending())
    }

    fn close(&self, py: Python<'_>) -> PyResult<()> {
        let sender = self.handle.close()?;
        py.detach(|| drop(sender));
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

#[derive(Clone, Copy)]
enum Stamp {
    Now,
    At(u64),
    Reply(ReplyTo),
}

/// A slot that is being written, and the sender that it belongs to.
///
/// Invariant: `loan` borrows from the value of `lease`, which is not used while it is there. The
/// fields are dropped in this order.
struct Lent {
    loan: client::Loan<'static>,
    _lease: Lease<client::Sender>,
}

// SAFETY: the loan borrows from the sender in `_lease`, which may move between threads; both move
// together.
unsafe impl Send for Lent {}

impl Lent {
    fn commit(self, stamp: Stamp) -> PyResult<u64> {
        let Lent { loan, _lease } = self;
        let sent = match stamp {
            Stamp::Now => loan.commit(),
            Stamp::At(at_ns) => loan.commit_at(at_ns),
            Stamp::Reply(to) => loan.commit_reply(to),
        };
        sent.map_err(errors::send)
    }
}

/// A message that is written where it will be read; sent when its `with` ends.
#[pyclass(frozen, module = "rtcore")]
pub struct Loan {
    view: View<Lent>,
    stamp: Stamp,
    /// 0 before it was sent.
    sequence: AtomicU64,
}

impl Loan {
    fn new(
        mut lease: Lease<client::Sender>,
        size: usize,
        stamp: Stamp,
        creator: Creator,
    ) -> PyResult<Loan> {
        let sender = lease.get() as *mut client::Sender;
        // SAFETY: the lease keeps the sender where it is, and nothing else uses it until the loan is
        // dropped (`Lent`).
        let sender: &'static mut client::Sender = unsafe { &mut *sender };
        let mut loan = sender.loan(size).map_err(errors::send)?;
        let slot: &mut [u8] = &mut loan;
        // What an earlier message left there is nobody's business now.
        slot.fill(0);
        let (start, len) = (slot.as_mut_ptr().expose_provenance(), slot.len());
        lease.lend_to_view();
        let lent = Lent {
            loan,
            _lease: lease,
        };
        Ok(Loan {
            view: View::new(lent, start, len, false, creator),
            stamp,
            sequence: AtomicU64::new(0),
        })
    }
}

#[pymethods]
impl Loan {
    /// The message's number; none before the `with` has ended.
    #[getter]
    fn sequence(&self) -> Option<u64> {
        match self.sequence.load(Ordering::Relaxed) {
            0 => None,
            sequence => Some(sequence),
        }
    }

    fn __len__(&self) -> usize {
        self.view.len()
    }

    /// The slot as a memoryview that can be written.
    fn __enter__<'py>(slf: Bound<'py, Self>) -> PyResult<Bound<'py, PyAny>> {
        slf.get().view.memoryview(slf.as_any())
    }

    /// Sends; discards if the block raised.
    #[pyo3(signature = (kind, value, traceback))]
    fn __exit__(
        &self,
        py: Python<'_>,
        kind: Option<Py<PyAny>>,
        value: Option<Py<PyAny>>,
        traceback: Option<Py<PyAny>>,
    ) -> PyResult<()> {
        let _ = (value, traceback);
        match self.view.end(py) {
            // A slot that is dropped is not sent. The views of a block that raised live in its
            // traceback, and the slot with them.
            _ if kind.is_some() => Ok(()),
            Ended::Whole(lent) => {
                let sequence = lent.commit(self.stamp)?;
                self.sequence.store(sequence, Ordering::Relaxed);
                Ok(())
            }
            Ended::InUse(exports) => Err(still_in_use(exports, "nothing was sent")),
            Ended::Before => Err(PyRuntimeError::new_err(
                "this loan was used before: take another one by sender.loan()",
            )),
        }
    }

    unsafe fn __getbuffer__(
        slf: Bound<'_, Self>,
        view: *mut ffi::Py_buffer,
        flags: c_int,
    ) -> PyResult<()> {
        // SAFETY: Python's call of the slot; `__releasebuffer__` is below.
        unsafe { slf.get().view.export(slf.as_any(), view, flags) }
    }

    unsafe fn __releasebuffer__(&self, _view: *mut ffi::Py_buffer) {
        self.view.released();
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        self.view.traverse(&visit)
    }

    fn __clear__(&self) {
        self.view.clear();
    }
}
