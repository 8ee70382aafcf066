//! Signals, handled on the dispatcher's own thread instead of between two bytecodes of the main one.

use crate::errors::{self, Kind};
use crate::message::Origin;
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyTuple};
use rtcore::client::Session;
use rtcore::client::signals::{self, Flags, HandlerId};
use std::sync::{Arc, Mutex, PoisonError, Weak};

/// A signal that arrived, or a message to a signal endpoint.
#[pyclass(frozen, module = "rtcore")]
pub struct Notice {
    #[pyo3(get)]
    signo: i32,
    #[pyo3(get)]
    value: u64,
    #[pyo3(get)]
    origin: Origin,
    #[pyo3(get)]
    payload: Py<PyBytes>,
    /// None for a plain signal, likewise below.
    #[pyo3(get)]
    endpoint: Option<String>,
    #[pyo3(get)]
    route: Option<String>,
    #[pyo3(get)]
    sequence: Option<u64>,
    #[pyo3(get)]
    sent_ns: Option<u64>,
    #[pyo3(get)]
    received_ns: u64,
}

impl Notice {
    fn of(py: Python<'_>, notice: &signals::Notice<'_>) -> Notice {
        Notice {
            signo: notice.signo,
            value: notice.value,
            origin: notice.origin.into(),
            payload: PyBytes::new(py, notice.payload).unbind(),
            endpoint: notice.head.map(|head| head.endpoint().to_owned()),
            route: notice.head.map(|head| head.route().to_owned()),
            sequence: notice.head.map(|head| head.sequence()),
            sent_ns: notice.head.map(|head| head.sent_ns()),
            received_ns: notice.received_ns,
        }
    }
}

/// The dispatcher of a session, or one of its own.
#[pyclass(frozen, weakref, module = "rtcore")]
pub struct Signals {
    signals: Mutex<Option<Arc<signals::Signals>>>,
    /// For the names of `only_from`.
    session: Weak<Session>,
}

impl Signals {
    pub fn of_session(signals: Arc<signals::Signals>, session: &Arc<Session>) -> Signals {
        Signals {
            signals: Mutex::new(Some(signals)),
            session: Arc::downgrade(session),
        }
    }

    fn signals(&self) -> PyResult<Arc<signals::Signals>> {
        let signals = self.signals.lock().unwrap_or_else(PoisonError::into_inner);
        signals.clone().ok_or_else(|| {
            let text = "the dispatcher was closed: start another one".to_owned();
            errors::new(Kind::Closed, None, text)
        })
    }

    fn take(&self) -> Option<Arc<signals::Signals>> {
        let mut signals = self.signals.lock().unwrap_or_else(PoisonError::into_inner);
        signals.take()
    }
}

/// Calls Python; an exception of the handler goes to sys.unraisablehook, and the next signal to the
/// handler again.
fn calling(handler: Py<PyAny>) -> impl FnMut(&signals::Notice<'_>) + Send + 'static {
    move |notice| {
        // None while the interpreter ends: nobody is left to handle it.
        let _ = Python::try_attach(|py| {
            let done = Py::new(py, Notice::of(py, notice)).and_then(|it| handler.call1(py, (it,)));
            if let Err(raised) = done {
                raised.write_unraisable(py, Some(handler.bind(py)));
            }
        });
    }
}

#[pymethods]
impl Signals {
    /// A dispatcher without a session: for plain signals.
    #[staticmethod]
    fn start(py: Python<'_>) -> PyResult<Py<Signals>> {
        let started = py.detach(signals::Signals::start);
        let signals = Signals {
            signals: Mutex::new(Some(Arc::new(started.map_err(errors::signals)?))),
            session: Weak::new(),
        };
        let signals = Py::new(py, signals)?;
        close_at_exit(signals.bind(py).as_any())?;
        Ok(signals)
    }

    /// Calls `handler(notice)` for each signal from now on.
    #[pyo3(signature = (signo, handler, *, once=false, first=false, only_from=None))]
    fn on(
        &self,
        py: Python<'_>,
        signo: i32,
        handler: Py<PyAny>,
        once: bool,
        first: bool,
        only_from: Option<&str>,
    ) -> PyResult<Registration> {
        let mut flags = Flags::new();
        if once {
            flags = flags.once();
        }
        if first {
            flags = flags.first();
        }
        if let Some(process) = only_from {
            let session = self.session.upgrade().ok_or_else(|| {
                let text = "only_from names a process of a session: use session.signals";
                PyValueError::new_err(text)
            })?;
            flags = flags.only_from(session.is(process));
        }
        let signals = self.signals()?;
        let of_thread = Arc::clone(&signals);
        let id = py.detach(move || of_thread.register(signo, flags, calling(handler)));
        Ok(Registration {
            signals: Arc::downgrade(&signals),
            id: id.map_err(errors::signals)?,
        })
    }

    fn close(&self, py: Python<'_>) {
        let signals = self.take();
        py.detach(|| drop(signals));
    }

    fn __enter__(slf: Bound<'_, Self>) -> Bound<'_, Self> {
        slf
    }

    #[pyo3(signature = (*_args))]
    fn __exit__(&self, py: Python<'_>, _args: &Bound<'_, PyTuple>) {
        self.close(py);
    }
}

impl Drop for Signals {
    /// The last one joins the dispatcher thread, which may wait for the GIL in a handler.
    fn drop(&mut self) {
        let mut signals = self.take();
        if signals.is_none() {
            return;
        }
        if Python::try_attach(|py| py.detach(|| drop(signals.take()))).is_none() {
            std::mem::forget(signals);
        }
    }
}

/// A handler that was registered.
#[pyclass(frozen, module = "rtcore")]
pub struct Registration {
    signals: Weak<signals::Signals>,
    id: HandlerId,
}

impl Registration {
    fn signals(&self) -> PyResult<Arc<signals::Signals>> {
        self.signals.upgrade().ok_or_else(|| {
            let text = "the dispatcher of this handler was closed".to_owned();
            errors::new(Kind::Closed, None, text)
        })
    }
}

#[pymethods]
impl Registration {
    /// Another handler in its place.
    fn replace(&self, py: Python<'_>, handler: Py<PyAny>) -> PyResult<()> {
        let signals = self.signals()?;
        let id = self.id;
        let done = py.detach(move || signals.replace(id, calling(handler)));
        done.map_err(errors::signals)
    }

    /// A call that runs is not waited for; it is the last.
    fn remove(&self, py: Python<'_>) -> PyResult<()> {
        let signals = self.signals()?;
        let id = self.id;
        let done = py.detach(move || signals.remove(id));
        done.map_err(errors::signals)
    }
}

/// Blocks these signals in the calling thread, and in each that it starts from then on.
#[pyfunction]
pub fn block_signals(signals: Vec<i32>) -> PyResult<()> {
    signals::Signals::block(signals).map_err(errors::signals)
}

/// Has `rtcore` close it before the interpreter ends.
pub fn close_at_exit(object: &Bound<'_, PyAny>) -> PyResult<()> {
    let module = object.py().import("rtcore._exit")?;
    module.getattr("close_at_exit")?.call1((object,)).map(drop)
}
