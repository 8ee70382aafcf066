//! A session: a process's place in the configuration of rtd.

use crate::caller::Caller;
use crate::errors::{self, Kind};
use crate::inbox::Inbox;
use crate::sender::Sender;
use crate::signals::Signals;
use crate::wait::{nanoseconds, turn};
use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyString, PyTuple};
use rtcore::client::signals as dispatcher;
use rtcore::client::{self, Role, State};
use rtcore::lane::peer::PeerState;
use rtcore::sys::forked::Creator;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

#[pyclass(frozen, weakref, module = "rtcore")]
pub struct Session {
    #[pyo3(get)]
    process: String,
    open: Mutex<Open>,
    creator: Creator,
}

/// Empty once the session was closed.
#[derive(Default)]
struct Open {
    session: Option<Arc<client::Session>>,
    /// Its dispatcher, from the first question for it on: handlers live as long as the session.
    signals: Option<Arc<dispatcher::Signals>>,
}

impl Session {
    fn open(&self) -> MutexGuard<'_, Open> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn session(&self) -> PyResult<Arc<client::Session>> {
        self.open().session.clone().ok_or_else(|| {
            let text = format!(
                "the session of `{}` was closed: open another one",
                self.process
            );
            errors::new(Kind::Closed, None, text)
        })
    }
}

#[pymethods]
impl Session {
    /// Connects; a signal ends the wait.
    #[new]
    #[pyo3(signature = (process, *, instance=None, socket=None, timeout=5.0, tid=0))]
    fn new(
        py: Python<'_>,
        process: &str,
        instance: Option<&str>,
        socket: Option<PathBuf>,
        timeout: f64,
        tid: i32,
    ) -> PyResult<Session> {
        let limit = Duration::from_nanos(nanoseconds(timeout)?);
        let mut builder = client::Session::builder(process).timeout(limit).tid(tid);
        builder = match (instance, socket) {
            (Some(_), Some(_)) => {
                let text = "instance and socket both say where rtd is: give one of them";
                return Err(PyValueError::new_err(text));
            }
            (Some(instance), None) => builder.instance(instance),
            (None, Some(socket)) => builder.socket(socket),
            (None, None) => builder,
        };
        let mut connecting = py.detach(|| builder.start()).map_err(errors::connect)?;
        let session = loop {
            connecting = match connecting.try_finish().map_err(errors::connect)? {
                Ok(session) => break session,
                Err(connecting) => connecting,
            };
            if let Err(raised) = turn(py, || connecting.sleep_once()) {
                // Which waits for the session's thread.
                py.detach(|| drop(connecting));
                return Err(raised);
            }
        };
        let creator = Creator::current().map_err(|e| errors::os(&e, e.to_string()))?;
        let open = Open {
            session: Some(Arc::new(session)),
            signals: None,
        };
        Ok(Session {
            process: process.to_owned(),
            open: Mutex::new(open),
            creator,
        })
    }

    /// "up", "down", "closed" or "forked".
    #[getter]
    fn state(&self) -> &'static str {
        let session = self.open().session.clone();
        match session.map(|session| session.state()) {
            Some(State::Up) => "up",
            Some(State::Down(_)) => "down",
            Some(State::Forked { .. }) => "forked",
            Some(State::Closed) | None => "closed",
        }
    }

    /// Why it is down.
    #[getter]
    fn reason(&self) -> Option<String> {
        let session = self.open().session.clone();
        match session.map(|session| session.state()) {
            Some(State::Down(reason)) => Some(reason),
            _ => None,
        }
    }

    fn sender(&self, py: Python<'_>, endpoint: &str) -> PyResult<Sender> {
        let session = self.session()?;
        let sender = py.detach(|| session.sender(endpoint));
        Ok(Sender::new(sender.map_err(errors::claim)?, self.creator))
    }

    #[pyo3(signature = (endpoints=None))]
    fn inbox(&self, py: Python<'_>, endpoints: Option<&Bound<'_, PyAny>>) -> PyResult<Inbox> {
        let session = self.session()?;
        let inbox = match endpoints {
            None => py.detach(|| session.inbox()),
            Some(text) if text.is_instance_of::<PyString>() => {
                let text = "endpoints is a list of names: session.inbox([\"NAME\"])";
                return Err(PyTypeError::new_err(text));
            }
            Some(endpoints) => {
                let names: Vec<String> = endpoints.extract()?;
                let names: Vec<&str> = names.iter().map(String::as_str).collect();
                py.detach(|| session.inbox_of(&names))
            }
        };
        Ok(Inbox::new(inbox.map_err(errors::claim)?, self.creator))
    }

    fn caller(&self, py: Python<'_>, requests: &str, answers: &str) -> PyResult<Caller> {
        let session = self.session()?;
        let caller = py.detach(|| session.caller(requests, answers));
        Ok(Caller::new(caller.map_err(errors::claim)?))
    }

    /// The dispatcher of its signals.
    #[getter]
    fn signals(slf: Bound<'_, Self>) -> PyResult<Signals> {
        let (py, this) = (slf.py(), slf.get());
        let session = this.session()?;
        let signals = py.detach(|| session.signals()).map_err(errors::signals)?;
        // At exit its thread has to end before the interpreter does.
        crate::signals::close_at_exit(slf.as_any())?;
        let kept = this.open().signals.replace(Arc::clone(&signals));
        py.detach(|| drop(kept));
        Ok(Signals::of_session(signals, &session))
    }

    /// The processes that this one talks to.
    fn peers<'py>(&self, py: Python<'py>) -> PyResult<Vec<Bound<'py, PyDict>>> {
        let peers = self.session()?.peers();
        let dict = |peer: client::PeerStatus| {
            let dict = PyDict::new(py);
            dict.set_item("process", peer.process.as_str())?;
            dict.set_item("pid", peer.pid)?;
            dict.set_item("alive", peer.state == PeerState::Alive)?;
            Ok(dict)
        };
        peers.into_iter().map(dict).collect()
    }

    /// The ends that it has by the configuration in force.
    fn channels<'py>(&self, py: Python<'py>) -> PyResult<Vec<Bound<'py, PyDict>>> {
        let channels = self.session()?.channels();
        let dict = |channel: client::Channel| {
            let dict = PyDict::new(py);
            let role = match channel.role {
                Role::Sender => "sender",
                Role::Inbox => "inbox",
                Role::Signal { .. } => "signal",
            };
            dict.set_item("role", role)?;
            dict.set_item("endpoint", channel.endpoint.as_str())?;
            dict.set_item("other", channel.other.as_str())?;
            dict.set_item(
                "process",
                channel.process.as_ref().map(client::Name::as_str),
            )?;
            dict.set_item("lane", channel.lane.as_str())?;
            dict.set_item("route", channel.route.as_str())?;
            dict.set_item("direct", channel.direct)?;
            dict.set_item("slots", channel.slots)?;
            dict.set_item("msgsize", channel.payload_bytes)?;
            Ok(dict)
        };
        channels.into_iter().map(dict).collect()
    }

    /// Ends the registration and its dispatcher. Waits in other threads end with Closed, after what
    /// had come.
    fn close(&self, py: Python<'_>) {
        let open = std::mem::take(&mut *self.open());
        py.detach(|| {
            drop(open.signals);
            drop(open.session);
        });
    }

    fn __enter__(slf: Bound<'_, Self>) -> Bound<'_, Self> {
        slf
    }

    #[pyo3(signature = (*_args))]
    fn __exit__(&self, py: Python<'_>, _args: &Bound<'_, PyTuple>) {
        self.close(py);
    }

    fn __repr__(&self) -> String {
        format!("Session('{}', state='{}')", self.process, self.state())
    }
}

impl Drop for Session {
    /// Dropping joins two threads, one of which may wait for the GIL in a handler.
    fn drop(&mut self) {
        let open = std::mem::take(self.open.get_mut().unwrap_or_else(PoisonError::into_inner));
        if open.session.is_none() {
            return;
        }
        let mut open = Some(open);
        let dropped = Python::try_attach(|py| py.detach(|| drop(open.take())));
        if dropped.is_none() {
            // The interpreter ends: the process does, and the kernel tells rtd.
            std::mem::forget(open);
        }
    }
}
