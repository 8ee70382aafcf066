//! The extension module behind the Python package `rtcore` (python/rtcore): its classes over
//! [`rtcore::client`] and [`rtcore::stats`].
//!
//! Constraints: no policy and no thread of its own; the GIL is released around every wait; nothing
//! that Python can do makes a pointer dangle.

mod buffer;
mod caller;
mod errors;
mod handle;
mod inbox;
mod message;
mod sender;
mod session;
mod signals;
mod stats;
mod wait;
mod waiter;

use pyo3::prelude::*;

#[pymodule(gil_used = false)]
mod _rtcore {
    #[pymodule_export]
    use super::buffer::_after_fork_in_child;
    #[pymodule_export]
    use super::caller::Caller;
    #[pymodule_export]
    use super::inbox::Inbox;
    #[pymodule_export]
    use super::message::{Event, Head, InPlace, Message, Origin, Reply};
    #[pymodule_export]
    use super::sender::{Loan, Sender};
    #[pymodule_export]
    use super::session::Session;
    #[pymodule_export]
    use super::signals::{Notice, Registration, Signals, block_signals};
    #[pymodule_export]
    use super::stats::{_buckets, instances, stats};
    #[pymodule_export]
    use super::waiter::{Ready, Waiter};
    use pyo3::prelude::*;

    #[pymodule_init]
    fn init(module: &Bound<'_, PyModule>) -> PyResult<()> {
        module.add("__version__", env!("CARGO_PKG_VERSION"))
    }
}
