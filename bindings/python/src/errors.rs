//! The library's errors as exceptions: a class for each kind (python/rtcore/_errors.py), under the
//! builtin that a program may catch already, with the hint as text.

use pyo3::exceptions::PyOSError;
use pyo3::prelude::*;
use rtcore::client::signals::SignalsError;
use rtcore::client::{CallError, ClaimError, ConnectError, FlushError, Gone, RecvError, SendError};
use rtcore::stats::reader::ReadError;
use rtcore::sys::pidfd::Ending;
use std::io;

/// The classes, each with the errno of its builtin.
#[derive(Clone, Copy, Debug)]
pub enum Kind {
    Full,
    TooLarge,
    PeerDead,
    Disconnected,
    Closed,
    Corrupt,
    Timeout,
    Denied,
    Unknown,
    Taken,
    NoDaemon,
    SeveralInstances,
    Stranger,
    Protocol,
    Forked,
    InUse,
    SignalRefused,
}

impl Kind {
    /// Numbers as in errno(3); the Python classes that are no OSError ignore them.
    fn errno(self) -> i32 {
        match self {
            Kind::Full => 11,
            Kind::TooLarge => 90,
            Kind::PeerDead => 32,
            Kind::Disconnected => 100,
            Kind::Closed => 108,
            Kind::Corrupt => 74,
            Kind::Timeout => 110,
            Kind::Denied => 13,
            Kind::Unknown => 2,
            Kind::Taken | Kind::InUse => 16,
            Kind::NoDaemon => 111,
            Kind::SeveralInstances => 76,
            Kind::Stranger => 1,
            Kind::Protocol => 71,
            Kind::Forked => 10,
            Kind::SignalRefused => 22,
        }
    }
}

/// An exception of this class.
pub fn new(kind: Kind, endpoint: Option<&str>, text: String) -> PyErr {
    Python::attach(|py| build(py, kind, endpoint, text).unwrap_or_else(|error| error))
}

fn build(py: Python<'_>, kind: Kind, endpoint: Option<&str>, text: String) -> PyResult<PyErr> {
    let class = py
        .import("rtcore._errors")?
        .getattr(format!("{kind:?}").as_str())?;
    let error = class.call1((kind.errno(), text))?;
    if let Some(endpoint) = endpoint {
        error.setattr("endpoint", endpoint)?;
    }
    Ok(PyErr::from_value(error))
}

/// How a process ended, onto the exception.
fn with_ending(error: PyErr, process: Option<&str>, ending: Option<Ending>) -> PyErr {
    Python::attach(|py| {
        let value = error.value(py);
        let (status, signal) = ending_pair(ending);
        let set = value
            .setattr("process", process)
            .and_then(|()| value.setattr("exit_status", status))
            .and_then(|()| value.setattr("signal", signal));
        set.err().unwrap_or(error)
    })
}

/// Exit status or signal.
pub fn ending_pair(ending: Option<Ending>) -> (Option<i32>, Option<i32>) {
    match ending {
        Some(Ending::Exit(status)) => (Some(status), None),
        Some(Ending::Signal(signo)) => (None, Some(signo)),
        None => (None, None),
    }
}

fn gone(endpoint: &str, why: Gone, text: String) -> PyErr {
    let kind = match why {
        Gone::Down | Gone::Refused(_) | Gone::Removed => Kind::Disconnected,
        Gone::Closed => Kind::Closed,
        Gone::Forked(_) => Kind::Forked,
    };
    new(kind, Some(endpoint), text)
}

pub fn send(error: SendError) -> PyErr {
    let text = error.to_string();
    match error {
        SendError::Full { endpoint, .. } => new(Kind::Full, Some(endpoint.as_str()), text),
        SendError::TooLarge { endpoint, .. } => new(Kind::TooLarge, Some(endpoint.as_str()), text),
        SendError::PeerDead {
            endpoint,
            process,
            ending,
        } => {
            let error = new(Kind::PeerDead, Some(endpoint.as_str()), text);
            with_ending(error, process.as_ref().map(|name| name.as_str()), ending)
        }
        SendError::Disconnected { endpoint, why } => gone(endpoint.as_str(), why, text),
        SendError::Corrupt { endpoint, .. } => new(Kind::Corrupt, Some(endpoint.as_str()), text),
    }
}

pub fn recv(error: RecvError) -> PyErr {
    let kind = match error {
        // The package hands no waker out.
        RecvError::Disconnected | RecvError::Woken => Kind::Closed,
        RecvError::Forked { .. } => Kind::Forked,
    };
    new(kind, None, error.to_string())
}

pub fn call(error: CallError) -> PyErr {
    let text = error.to_string();
    match error {
        CallError::Send(error) => send(error),
        CallError::Timeout { endpoint, .. } => new(Kind::Timeout, Some(endpoint.as_str()), text),
        CallError::PeerDead {
            endpoint,
            process,
            ending,
        } => {
            let error = new(Kind::PeerDead, Some(endpoint.as_str()), text);
            with_ending(error, Some(process.as_str()), ending)
        }
        CallError::Disconnected { endpoint, why } => gone(endpoint.as_str(), why, text),
    }
}

pub fn flush(error: FlushError) -> PyErr {
    let text = error.to_string();
    match error.why {
        None => new(Kind::Timeout, None, text),
        Some(why) => {
            let error = send(why);
            Python::attach(|py| {
                let args = (error.value(py).getattr("errno").ok(), text);
                match error.value(py).setattr("args", args) {
                    Ok(()) => error,
                    Err(other) => other,
                }
            })
        }
    }
}

pub fn claim(error: ClaimError) -> PyErr {
    let text = error.to_string();
    let (kind, endpoint) = match &error {
        ClaimError::Denied { endpoint, .. } => (Kind::Denied, endpoint),
        ClaimError::Unknown { endpoint, .. } => (Kind::Unknown, endpoint),
        ClaimError::Taken { endpoint, .. } => (Kind::Taken, endpoint),
        ClaimError::Away { endpoint, .. } => (Kind::Disconnected, endpoint),
        ClaimError::System(_) => return PyOSError::new_err(text),
        ClaimError::Forked { .. } => return new(Kind::Forked, None, text),
    };
    new(kind, Some(endpoint), text)
}

pub fn connect(error: ConnectError) -> PyErr {
    // The Rust text names the methods of a builder.
    let text = error
        .to_string()
        .replace(
            "Session::builder(..).instance(..)",
            "Session(..., instance=...)",
        )
        .replace(
            "Session::builder(..).socket(..)",
            "Session(..., socket=...)",
        )
        .replace(
            "Session::builder(..).timeout(..)",
            "Session(..., timeout=...)",
        );
    let kind = match &error {
        ConnectError::Name(_) => Kind::Unknown,
        ConnectError::NoInstance
        | ConnectError::NoDaemon { .. }
        | ConnectError::NoSocket { .. } => Kind::NoDaemon,
        ConnectError::SeveralInstances { .. } => Kind::SeveralInstances,
        ConnectError::Stranger { .. } => Kind::Stranger,
        ConnectError::Refused { .. } => Kind::Denied,
        ConnectError::Timeout { .. } => Kind::Timeout,
        ConnectError::Protocol { .. } => Kind::Protocol,
        ConnectError::System { source, .. } => return os(source, text),
    };
    new(kind, None, text)
}

pub fn signals(error: SignalsError) -> PyErr {
    let text = error
        .to_string()
        .replace("Signals::block(", "rtcore.block_signals(");
    match error {
        SignalsError::Forked { .. } => new(Kind::Forked, None, text),
        SignalsError::Taken { .. } => new(Kind::Taken, None, text),
        SignalsError::System { source, .. } => os(&source, text),
        SignalsError::Refused { .. }
        | SignalsError::Unblocked { .. }
        | SignalsError::TooMany { .. }
        | SignalsError::NoSuchHandler { .. } => new(Kind::SignalRefused, None, text),
    }
}

pub fn stats(error: ReadError) -> PyErr {
    let text = error.to_string();
    match error {
        ReadError::Name(_) => new(Kind::Unknown, None, text),
        ReadError::NoInstance { .. } | ReadError::Absent(_) => new(Kind::NoDaemon, None, text),
        ReadError::Io { source, .. } => os(&source, text),
        ReadError::Version { .. } | ReadError::Invalid { .. } => new(Kind::Protocol, None, text),
    }
}

/// The OSError of this errno, with our text.
pub fn os(source: &io::Error, text: String) -> PyErr {
    match source.raw_os_error() {
        Some(errno) => PyOSError::new_err((errno, text)),
        None => PyOSError::new_err(text),
    }
}
