//! Bytes that Python owns, and bytes that Python sees.

use crate::errors::{self, Kind};
use pyo3::exceptions::PyBufferError;
use pyo3::prelude::*;
use pyo3::{PyTraverseError, PyVisit, ffi};
use rtcore::sys::forked::{Creator, fill_hole};
use std::ffi::c_int;
use std::mem::MaybeUninit;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// The bytes of any object that has some in one piece: bytes, bytearray, memoryview, a ctypes
/// structure, a contiguous numpy array. Held, they neither move nor go.
pub struct Bytes(Box<ffi::Py_buffer>);

impl Bytes {
    /// Errors: TypeError for an object without a buffer; BufferError for one in several pieces.
    pub fn of(object: &Bound<'_, PyAny>) -> PyResult<Bytes> {
        let mut view = Box::new(MaybeUninit::<ffi::Py_buffer>::uninit());
        // SAFETY: the object is alive, the view is ours to fill; the GIL is held (`Bound`).
        let rc = unsafe {
            ffi::PyObject_GetBuffer(object.as_ptr(), view.as_mut_ptr(), ffi::PyBUF_SIMPLE)
        };
        if rc < 0 {
            return Err(PyErr::fetch(object.py()));
        }
        // SAFETY: the call has filled it.
        Ok(Bytes(unsafe { view.assume_init() }))
    }

    /// For a call that keeps the GIL: no Python code changes them meanwhile.
    pub fn as_slice<'py>(&'py self, _py: Python<'py>) -> &'py [u8] {
        let len = usize::try_from(self.0.len).unwrap_or(0);
        if len == 0 {
            return &[];
        }
        // SAFETY: PyBUF_SIMPLE promises `len` bytes at `buf`, until the view is released.
        unsafe { std::slice::from_raw_parts(self.0.buf.cast::<u8>(), len) }
    }
}

impl Drop for Bytes {
    fn drop(&mut self) {
        Python::attach(|_py| {
            // SAFETY: `of` filled it, once; the GIL is held.
            unsafe { ffi::PyBuffer_Release(&raw mut *self.0) };
        });
    }
}

/// Slots that views show at the moment. Their memory is not inherited by a forked child.
static SHOWN: Mutex<Vec<(usize, usize)>> = Mutex::new(Vec::new());

fn shown() -> MutexGuard<'static, Vec<(usize, usize)>> {
    SHOWN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// In the child of a fork: a view that it has inherited shows zeros, in memory of its own.
/// os.register_at_fork calls it, with the GIL held across the fork, so no other thread had the lock.
#[pyfunction]
pub fn _after_fork_in_child() {
    for (address, len) in shown().drain(..) {
        // Without memory for it the child is ended by the first access.
        let _ = fill_hole(address, len);
    }
}

/// A slot that Python code sees through the buffer protocol: what keeps it, and how many exports of
/// it there are.
///
/// Invariant: while `exports` is not 0, `held` is there, and with it the bytes at `start`.
pub struct View<T> {
    inner: Mutex<Inner<T>>,
    start: usize,
    len: usize,
    readonly: bool,
    creator: Creator,
}

struct Inner<T> {
    held: Option<T>,
    exports: usize,
    /// The memoryview that was handed out, to be released when the `with` ends.
    given: Option<Py<PyAny>>,
    /// The `with` is over: the slot goes with its last export.
    over: bool,
}

/// What the end of a `with` found.
pub enum Ended<T> {
    /// No export is left.
    Whole(T),
    /// It was over before.
    Before,
    /// So many exports go on.
    InUse(usize),
}

impl<T: Send> View<T> {
    /// `start` is the address of `len` bytes that stay there as long as `held` does.
    pub fn new(held: T, start: usize, len: usize, readonly: bool, creator: Creator) -> View<T> {
        shown().push((start, len));
        let inner = Inner {
            held: Some(held),
            exports: 0,
            given: None,
            over: false,
        };
        View {
            inner: Mutex::new(inner),
            start,
            len,
            readonly,
            creator,
        }
    }

    fn inner(&self) -> MutexGuard<'_, Inner<T>> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn len(&self) -> usize {
        self.len
    }

    /// The one memoryview over `owner`, whose `__getbuffer__` is [`View::export`].
    pub fn memoryview<'py>(&self, owner: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
        let py = owner.py();
        if let Some(given) = &self.inner().given {
            return Ok(given.bind(py).clone());
        }
        // SAFETY: the owner is alive; a null result is an exception that is set.
        let made = unsafe {
            Bound::from_owned_ptr_or_err(py, ffi::PyMemoryView_FromObject(owner.as_ptr()))
        }?;
        self.inner().given = Some(made.clone().unbind());
        Ok(made)
    }

    /// `__getbuffer__`.
    ///
    /// # Safety
    /// 1. `view` is a Py_buffer to fill, `owner` the object whose `__releasebuffer__` is
    ///    [`View::released`].
    pub unsafe fn export(
        &self,
        owner: &Bound<'_, PyAny>,
        view: *mut ffi::Py_buffer,
        flags: c_int,
    ) -> PyResult<()> {
        if let Err(forked) = self.creator.check() {
            let text = format!(
                "this process was forked from process {}, which has the slot: open a session in this process",
                forked.creator
            );
            return Err(errors::new(Kind::Forked, None, text));
        }
        let mut inner = self.inner();
        if inner.over || inner.held.is_none() {
            return Err(PyBufferError::new_err(
                "the slot was given back when its `with` ended: use it inside, or copy the bytes",
            ));
        }
        let (start, len) = (self.start, isize::try_from(self.len).unwrap_or(isize::MAX));
        // SAFETY: the caller's contract; the bytes stay while `held` does, which the count below
        // keeps. The call itself looks at `flags`.
        let rc = unsafe {
            let start = std::ptr::with_exposed_provenance_mut(start);
            ffi::PyBuffer_FillInfo(
                view,
                owner.as_ptr(),
                start,
                len,
                self.readonly.into(),
                flags,
            )
        };
        if rc < 0 {
            return Err(PyErr::fetch(owner.py()));
        }
        inner.exports += 1;
        Ok(())
    }

    /// `__releasebuffer__`.
    pub fn released(&self) {
        let mut inner = self.inner();
        inner.exports = inner.exports.saturating_sub(1);
        let left = (inner.over && inner.exports == 0).then(|| inner.held.take());
        drop(inner);
        if left.is_some() {
            self.forget();
        }
        // What is left gives the slot back.
    }

    /// The end of the `with`: releases the memoryview that was handed out, then counts.
    pub fn end(&self, py: Python<'_>) -> Ended<T> {
        let given = self.inner().given.take();
        if let Some(given) = given {
            // BufferError if something looks through it; that keeps the export, which is counted.
            let _ = given.bind(py).call_method0("release");
            drop(given);
        }
        let mut inner = self.inner();
        if inner.over {
            return Ended::Before;
        }
        inner.over = true;
        if inner.exports > 0 {
            return Ended::InUse(inner.exports);
        }
        let held = inner.held.take();
        drop(inner);
        self.forget();
        held.map_or(Ended::Before, Ended::Whole)
    }

    fn forget(&self) {
        let mut shown = shown();
        if let Some(at) = shown
            .iter()
            .position(|slot| *slot == (self.start, self.len))
        {
            shown.swap_remove(at);
        }
    }

    pub fn traverse(&self, visit: &PyVisit<'_>) -> Result<(), PyTraverseError> {
        match self.inner.try_lock() {
            Ok(inner) => visit.call(&inner.given),
            Err(_) => Ok(()),
        }
    }

    pub fn clear(&self) {
        let given = self.inner().given.take();
        drop(given);
    }
}

impl<T> Drop for View<T> {
    fn drop(&mut self) {
        let inner = self.inner.get_mut().unwrap_or_else(PoisonError::into_inner);
        if inner.held.is_some() {
            let mut shown = shown();
            if let Some(at) = shown
                .iter()
                .position(|slot| *slot == (self.start, self.len))
            {
                shown.swap_remove(at);
            }
        }
    }
}

/// BufferError for a `with` that ends too early.
pub fn still_in_use(exports: usize, consequence: &str) -> PyErr {
    let (views, them) = match exports {
        1 => ("1 view of the slot is".to_owned(), "it"),
        n => (format!("{n} views of the slot are"), "them"),
    };
    PyBufferError::new_err(format!(
        "{views} still in use (a slice, a numpy array): delete {them} before the `with` ends, or copy the bytes; {consequence}"
    ))
}
