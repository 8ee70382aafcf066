//! Arguments from C: pointers, names and structures are checked here, in one place each.
//!
//! A structure begins with its size, or is given with it. The library takes what both sides know: a
//! program that was built with a newer header may pass a longer one, whose unknown rest has to be
//! zero (E2BIG), as clone3(2) has it.

use crate::error::{Failure, Misuse};
use std::ffi::{CStr, c_char, c_void};
use std::mem::MaybeUninit;

/// A structure of which zero is a value, and which has no padding that matters.
///
/// # Safety
/// 1. `repr(C)`, of integers and pointers alone.
pub unsafe trait Plain: Copy {}

/// What a handle's pointer leads to.
///
/// # Safety
/// 1. Null, or a handle that its `open` returned and that no other thread uses meanwhile.
#[inline]
pub unsafe fn handle<'a, T>(pointer: *mut T) -> Result<&'a mut T, Failure> {
    // SAFETY: the caller's contract.
    unsafe { pointer.as_mut() }.ok_or(Failure::Misuse(Misuse::NullHandle))
}

/// The same for a handle that several threads may use.
///
/// # Safety
/// 1. Null, or a handle that its `open` returned.
#[inline]
pub unsafe fn shared<'a, T>(pointer: *const T) -> Result<&'a T, Failure> {
    // SAFETY: the caller's contract.
    unsafe { pointer.as_ref() }.ok_or(Failure::Misuse(Misuse::NullHandle))
}

/// Bytes that C gives.
///
/// # Safety
/// 1. Null, or readable for `len` bytes for as long as the result is used.
#[inline]
pub unsafe fn bytes<'a>(pointer: *const c_void, len: usize) -> Result<&'a [u8], Failure> {
    if len == 0 {
        return Ok(&[]);
    }
    if pointer.is_null() {
        return Err(Failure::Misuse(Misuse::NullBytes));
    }
    if isize::try_from(len).is_err() {
        return Err(Failure::Misuse(Misuse::Length));
    }
    // SAFETY: not null, and the caller's contract; no object is longer than isize::MAX.
    Ok(unsafe { std::slice::from_raw_parts(pointer.cast(), len) })
}

/// An array that C gives.
///
/// # Safety
/// 1. Null, or `count` valid elements for as long as the result is used.
pub unsafe fn array<'a, T>(pointer: *const T, count: usize) -> Result<&'a [T], Failure> {
    if count == 0 {
        return Ok(&[]);
    }
    if pointer.is_null() || !pointer.is_aligned() {
        return Err(Failure::Misuse(Misuse::NullBytes));
    }
    if count
        .checked_mul(size_of::<T>())
        .is_none_or(|bytes| isize::try_from(bytes).is_err())
    {
        return Err(Failure::Misuse(Misuse::Length));
    }
    // SAFETY: not null, aligned, and the caller's contract; its size was checked.
    Ok(unsafe { std::slice::from_raw_parts(pointer, count) })
}

/// A string that C gives; none where the pointer is null.
///
/// # Safety
/// 1. Null, or a string that ends with a zero byte and stays for as long as the result is used.
pub unsafe fn text<'a>(pointer: *const c_char) -> Result<Option<&'a str>, Failure> {
    if pointer.is_null() {
        return Ok(None);
    }
    // SAFETY: not null, and the caller's contract.
    let text = unsafe { CStr::from_ptr(pointer) };
    text.to_str()
        .map(Some)
        .map_err(|_| Failure::Misuse(Misuse::Text))
}

/// A string that has to be there.
///
/// # Safety
/// 1. As of [`text`].
pub unsafe fn name<'a>(pointer: *const c_char) -> Result<&'a str, Failure> {
    // SAFETY: the caller's contract.
    unsafe { text(pointer) }?.ok_or(Failure::Misuse(Misuse::NullName))
}

/// A structure that begins with its size; all zero where the pointer is null.
///
/// # Safety
/// 1. Null, or readable for as many bytes as its first word says.
pub unsafe fn options<T: Plain>(pointer: *const T) -> Result<T, Failure> {
    let mut value = MaybeUninit::<T>::zeroed();
    if !pointer.is_null() {
        if !pointer.is_aligned() {
            return Err(Failure::Misuse(Misuse::Size));
        }
        // SAFETY: not null, aligned, and the caller's contract.
        let size = unsafe { pointer.cast::<usize>().read() };
        if size < size_of::<T>() || isize::try_from(size).is_err() {
            return Err(Failure::Misuse(Misuse::Size));
        }
        let known = size_of::<T>();
        // SAFETY: the caller's contract; the rest lies behind what this library knows.
        let rest =
            unsafe { std::slice::from_raw_parts(pointer.cast::<u8>().add(known), size - known) };
        if rest.iter().any(|byte| *byte != 0) {
            return Err(Failure::Misuse(Misuse::Future));
        }
        // SAFETY: both are valid for a `T`, which is plain.
        unsafe { value.as_mut_ptr().copy_from_nonoverlapping(pointer, 1) };
    }
    // SAFETY: `T` is plain: zero is a value, and so are the bytes that were copied.
    Ok(unsafe { value.assume_init() })
}

/// Fills a structure of the caller's that has this size; what this library does not know of becomes
/// zero.
///
/// # Safety
/// 1. Null, or writable for `size` bytes.
#[inline]
pub unsafe fn fill<T: Plain>(pointer: *mut T, size: usize, value: &T) -> Result<(), Failure> {
    check_place(pointer, size)?;
    // SAFETY: checked, and the caller's contract.
    unsafe {
        pointer.write(*value);
        if size > size_of::<T>() {
            let rest = pointer.cast::<u8>().add(size_of::<T>());
            rest.write_bytes(0, size - size_of::<T>());
        }
    }
    Ok(())
}

/// Whether [`fill`] takes it.
#[inline]
pub fn check_place<T>(pointer: *mut T, size: usize) -> Result<(), Failure> {
    if pointer.is_null() {
        Err(Failure::Misuse(Misuse::NullBytes))
    } else if size < size_of::<T>() || !pointer.is_aligned() {
        Err(Failure::Misuse(Misuse::Size))
    } else {
        Ok(())
    }
}

/// Gives a new handle to C.
///
/// # Safety
/// 1. `out` is null or writable.
pub unsafe fn give<T>(out: *mut *mut T, value: T) -> Result<(), Failure> {
    // SAFETY: the caller's contract.
    let place = unsafe { out.as_mut() }.ok_or(Failure::Misuse(Misuse::NullBytes))?;
    *place = Box::into_raw(Box::new(value));
    Ok(())
}

/// Takes a handle back; null is none.
///
/// # Safety
/// 1. Null, or what [`give`] gave and nobody uses any more.
pub unsafe fn take_back<T>(pointer: *mut T) {
    if !pointer.is_null() {
        // SAFETY: the caller's contract.
        drop(unsafe { Box::from_raw(pointer) });
    }
}
