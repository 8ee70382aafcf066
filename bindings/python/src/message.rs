//! What an inbox hands out, as Python objects.

use crate::buffer::{Ended, View, still_in_use};
use crate::errors::ending_pair;
use crate::handle::Lease;
use pyo3::prelude::*;
use pyo3::types::PyBytes;
use pyo3::{PyTraverseError, PyVisit, ffi};
use rtcore::client::{self, Incoming, ReplyTo};
use rtcore::sys::forked::Creator;
use std::ffi::c_int;

/// Who sent a message.
#[pyclass(frozen, eq, module = "rtcore")]
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Origin {
    #[pyo3(get)]
    pid: u32,
    /// None where it is not known.
    #[pyo3(get)]
    uid: Option<u32>,
    #[pyo3(get)]
    verified: bool,
}

impl From<rtcore::message::Origin> for Origin {
    fn from(origin: rtcore::message::Origin) -> Origin {
        Origin {
            pid: origin.pid,
            uid: (origin.uid != u32::MAX).then_some(origin.uid),
            verified: origin.verified,
        }
    }
}

#[pymethods]
impl Origin {
    fn __repr__(&self) -> String {
        let Origin { pid, uid, verified } = self;
        let uid = uid.map_or_else(|| "None".to_owned(), |uid| uid.to_string());
        let verified = if *verified { "True" } else { "False" };
        format!("Origin(pid={pid}, uid={uid}, verified={verified})")
    }
}

/// Ties an answer to its request; outlives the message.
#[pyclass(frozen, name = "ReplyTo", module = "rtcore")]
#[derive(Clone, Copy)]
pub struct Reply(pub ReplyTo);

/// What a message says beside its bytes.
#[pyclass(frozen, subclass, module = "rtcore")]
pub struct Head {
    endpoint: Box<str>,
    source: Box<str>,
    lane: Box<str>,
    route: Box<str>,
    #[pyo3(get)]
    sequence: u64,
    #[pyo3(get)]
    missed: u64,
    #[pyo3(get)]
    intended_ns: u64,
    #[pyo3(get)]
    sent_ns: u64,
    #[pyo3(get)]
    received_ns: u64,
    #[pyo3(get)]
    mq_priority: u32,
    #[pyo3(get)]
    origin: Origin,
    reply_to: Option<ReplyTo>,
}

impl Head {
    pub fn of(head: &client::Head<'_>) -> Head {
        Head {
            endpoint: head.endpoint().into(),
            source: head.from().into(),
            lane: head.lane().into(),
            route: head.route().into(),
            sequence: head.sequence(),
            missed: head.missed(),
            intended_ns: head.intended_ns(),
            sent_ns: head.sent_ns(),
            received_ns: head.received_ns(),
            mq_priority: head.mq_priority(),
            origin: head.origin().into(),
            reply_to: head.reply_to(),
        }
    }
}

#[pymethods]
impl Head {
    #[getter]
    fn endpoint(&self) -> &str {
        &self.endpoint
    }

    #[getter]
    fn source(&self) -> &str {
        &self.source
    }

    #[getter]
    fn lane(&self) -> &str {
        &self.lane
    }

    #[getter]
    fn route(&self) -> &str {
        &self.route
    }

    /// From the time at which it should have been sent.
    #[getter]
    fn latency_ns(&self) -> u64 {
        self.received_ns.saturating_sub(self.intended_ns)
    }

    #[getter]
    fn reply_to(&self) -> Option<Reply> {
        self.reply_to.map(Reply)
    }
}

/// A message whose bytes were copied.
#[pyclass(frozen, extends = Head, module = "rtcore")]
pub struct Message {
    #[pyo3(get)]
    data: Py<PyBytes>,
    /// Number and value, where it was a signal.
    #[pyo3(get)]
    signal: Option<(i32, u64)>,
}

impl Message {
    pub fn new(py: Python<'_>, message: &client::Message<'_>) -> PyResult<Py<Message>> {
        let this = Message {
            data: PyBytes::new(py, message.bytes()).unbind(),
            signal: message.signal(),
        };
        let head = PyClassInitializer::from(Head::of(message));
        Py::new(py, head.add_subclass(this))
    }
}

#[pymethods]
impl Message {
    fn __repr__(slf: PyRef<'_, Self>) -> String {
        let (len, head) = (slf.data.as_bytes(slf.py()).len(), slf.as_super());
        format!(
            "Message(endpoint='{}', sequence={}, {len} bytes)",
            head.endpoint, head.sequence
        )
    }

    fn __len__(&self, py: Python<'_>) -> usize {
        self.data.as_bytes(py).len()
    }
}

/// A message in its sender's slot, and the inbox that it was found in.
///
/// Invariant: `message` borrows from the value of `lease`, which is not used while it is there. The
/// fields are dropped in this order.
pub struct Peeked {
    _message: client::InPlace<'static>,
    _lease: Lease<client::Inbox>,
}

// SAFETY: the message borrows from the inbox in `_lease`, which may move between threads; both move
// together, and only one thread drops them.
unsafe impl Send for Peeked {}

/// A message that is read where its sender wrote it.
#[pyclass(frozen, extends = Head, module = "rtcore")]
pub struct InPlace {
    view: View<Peeked>,
}

impl InPlace {
    /// The next message or event of the inbox; none if nothing is there, with the lease back.
    pub fn take(
        py: Python<'_>,
        mut lease: Lease<client::Inbox>,
        creator: Creator,
    ) -> Result<Result<Py<PyAny>, Lease<client::Inbox>>, PyErr> {
        let inbox = lease.get() as *mut client::Inbox;
        // SAFETY: the lease keeps the inbox where it is, and nothing else uses it until the message
        // is dropped (`Peeked`).
        let inbox: &'static mut client::Inbox = unsafe { &mut *inbox };
        match inbox.try_recv_in_place() {
            Ok(None) => Ok(Err(lease)),
            Ok(Some(Incoming::Event(event))) => Ok(Ok(Event::new(py, event)?.into_any())),
            Ok(Some(Incoming::Message(message))) => {
                let head = Head::of(&message);
                // SAFETY: the bytes are only shown, by an export that Python reads. An honest sender
                // leaves them alone; a dishonest partner of a direct route can change what is read,
                // which the documentation says.
                let bytes = unsafe { message.bytes() };
                let (start, len) = (bytes.as_ptr().expose_provenance(), bytes.len());
                lease.lend_to_view();
                let peeked = Peeked {
                    _message: message,
                    _lease: lease,
                };
                let view = View::new(peeked, start, len, true, creator);
                let head = PyClassInitializer::from(head);
                Ok(Ok(
                    Py::new(py, head.add_subclass(InPlace { view }))?.into_any()
                ))
            }
            Err(error) => Err(crate::errors::recv(error)),
        }
    }
}

#[pymethods]
impl InPlace {
    /// A read-only memoryview of the slot.
    #[getter]
    fn data<'py>(slf: Bound<'py, Self>) -> PyResult<Bound<'py, PyAny>> {
        slf.get().view.memoryview(slf.as_any())
    }

    fn __len__(&self) -> usize {
        self.view.len()
    }

    fn __enter__(slf: Bound<'_, Self>) -> Bound<'_, Self> {
        slf
    }

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
            // The views of a block that raised live in its traceback.
            Ended::InUse(exports) if kind.is_none() => {
                Err(still_in_use(exports, "the inbox waits for it"))
            }
            _ => Ok(()),
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

/// Something that happened to the session, or to a process that it talks to.
#[pyclass(frozen, module = "rtcore")]
#[derive(Default)]
pub struct Event {
    #[pyo3(get)]
    kind: &'static str,
    #[pyo3(get)]
    text: String,
    #[pyo3(get)]
    process: Option<String>,
    #[pyo3(get)]
    pid: Option<u32>,
    #[pyo3(get)]
    exit_status: Option<i32>,
    #[pyo3(get)]
    signal: Option<i32>,
    #[pyo3(get)]
    endpoint: Option<String>,
    #[pyo3(get)]
    count: Option<u64>,
}

impl Event {
    pub fn new(py: Python<'_>, event: client::Event) -> PyResult<Py<Event>> {
        Py::new(py, Event::from(event))
    }
}

impl From<client::Event> for Event {
    fn from(event: client::Event) -> Event {
        let of = |kind, text| Event {
            kind,
            text,
            ..Event::default()
        };
        match event {
            client::Event::PeerLost {
                process,
                pid,
                ending,
            } => {
                let how = ending.map_or_else(|| "left".to_owned(), |how| format!("ended: {how}"));
                let (exit_status, signal) = ending_pair(ending);
                Event {
                    process: Some(process.to_string()),
                    pid: Some(pid),
                    exit_status,
                    signal,
                    ..of(
                        "peer-lost",
                        format!("process `{process}` (pid {pid}) {how}"),
                    )
                }
            }
            client::Event::PeerBack { process, pid } => Event {
                process: Some(process.to_string()),
                pid: Some(pid),
                ..of(
                    "peer-back",
                    format!("process `{process}` is there (pid {pid})"),
                )
            },
            client::Event::Down => of("down", "rtd is away".to_owned()),
            client::Event::Refused { reason } => of("refused", reason.to_owned()),
            client::Event::Up => of("up", "rtd is back".to_owned()),
            client::Event::Lost { endpoint, count } => Event {
                endpoint: Some(endpoint.to_string()),
                count: Some(count),
                ..of(
                    "lost",
                    format!("{count} messages into `{endpoint}` reached nobody"),
                )
            },
            client::Event::Corrupt {
                endpoint,
                other,
                corrupt,
            } => Event {
                endpoint: Some(endpoint.to_string()),
                ..of(
                    "corrupt",
                    format!("`{other}` broke its ring into `{endpoint}`: {corrupt}"),
                )
            },
        }
    }
}

#[pymethods]
impl Event {
    fn __repr__(&self) -> String {
        format!("Event(kind='{}', text={:?})", self.kind, self.text)
    }

    /// An event is no view; so that `with inbox.peek() as m` works for both.
    fn __enter__(slf: Bound<'_, Self>) -> Bound<'_, Self> {
        slf
    }

    #[pyo3(signature = (*_args))]
    fn __exit__(&self, _args: &Bound<'_, pyo3::types::PyTuple>) {}
}

/// A message or an event.
pub fn incoming(py: Python<'_>, incoming: Incoming<client::Message<'_>>) -> PyResult<Py<PyAny>> {
    Ok(match incoming {
        Incoming::Message(message) => Message::new(py, &message)?.into_any(),
        Incoming::Event(event) => Event::new(py, event)?.into_any(),
    })
}
