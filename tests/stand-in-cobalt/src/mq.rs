//! Message queues: Linux's, under names of the space, behind descriptors that cannot be polled.

use crate::shared::{NAME_BYTES, Notification};
use crate::signal::{Sent, send};
use crate::thread::{left, primary, primary_call, secondary};
use crate::{Core, checked, init, last_errno, or_errno, space};
use libc::{c_char, c_int, c_uint, mq_attr, mqd_t, sigevent, size_t, ssize_t, timespec};
use std::ffi::CStr;
use std::sync::atomic::{AtomicI32, AtomicU32, Ordering};

const DESCRIPTORS: usize = 4096;
const NAME_MAX: usize = 63;
/// Largest piece of memory that the core gets for a queue.
const QUEUE_BYTES_MAX: usize = 4 << 20;
/// What the core puts in front of each message.
const HEADER_BYTES: usize = 32;

/// The Linux queue behind a descriptor, plus one; 0 for none.
static QUEUES: [AtomicI32; DESCRIPTORS] = [const { AtomicI32::new(0) }; DESCRIPTORS];

/// Descriptors of this process that ask for notification are rare; others shall not look for them.
static NOTIFYING: AtomicU32 = AtomicU32::new(0);

fn slot(mqd: mqd_t) -> Core<&'static AtomicI32> {
    usize::try_from(mqd)
        .ok()
        .and_then(|at| QUEUES.get(at))
        .ok_or(libc::EBADF)
}

fn queue(mqd: mqd_t) -> Core<mqd_t> {
    match slot(mqd)?.load(Ordering::Acquire) {
        0 => Err(libc::EBADF),
        queue => Ok(queue - 1),
    }
}

/// A descriptor that polls as POLLERR, as Cobalt's do: the writing end of a pipe that nobody reads.
fn deaf_descriptor() -> Core<c_int> {
    let mut ends = [0; 2];
    // SAFETY: room for two descriptors.
    checked(unsafe { libc::pipe2(ends.as_mut_ptr(), libc::O_CLOEXEC) })?;
    // SAFETY: ours, and nobody knows it.
    unsafe { libc::close(ends[0]) };
    Ok(ends[1])
}

/// 1. `name` is a terminated string.
unsafe fn linux_name(name: *const c_char) -> Core<std::ffi::CString> {
    // SAFETY: (1).
    let name = unsafe { CStr::from_ptr(name) };
    if name.is_empty() {
        return Err(libc::EINVAL);
    }
    if name.count_bytes() > NAME_MAX {
        return Err(libc::ENAMETOOLONG);
    }
    space::linux_name(name).ok_or(libc::EINVAL)
}

/// C's is variadic, see `sem`; the mode is ignored.
#[unsafe(no_mangle)]
unsafe extern "C" fn __cobalt_mq_open(
    name: *const c_char,
    oflag: c_int,
    _mode: c_uint,
    attributes: *mut mq_attr,
) -> mqd_t {
    or_errno((|| {
        let shared = secondary()?;
        // SAFETY: the caller's statement (mq_open(3)).
        let linux = unsafe { linux_name(name) }?;
        let creating = oflag & libc::O_CREAT != 0;
        let attributes = if creating {
            attributes
        } else {
            std::ptr::null_mut()
        };
        // SAFETY: the caller's statement (mq_open(3)): null or valid.
        if unsafe { attributes.as_ref() }.is_some_and(|asked| !has_room(asked)) {
            return Err(libc::ENOSPC);
        }
        let oflag = oflag | libc::O_CLOEXEC;
        // SAFETY: a terminated string, and attributes null or of the caller's.
        let queue = match checked(unsafe {
            libc::mq_open(linux.as_ptr(), oflag, 0o600 as c_uint, attributes)
        }) {
            // Cobalt has no limit by user; its heap is what runs out.
            Err(libc::EMFILE | libc::ENOMEM) => return Err(libc::ENOSPC),
            other => other?,
        };
        let close = |errno| {
            // SAFETY: opened above, and nobody knows it.
            unsafe { libc::mq_close(queue) };
            errno
        };
        let deaf = deaf_descriptor().map_err(close)?;
        let Ok(slot) = slot(deaf) else {
            // SAFETY: as above.
            unsafe { libc::close(deaf) };
            return Err(close(libc::EMFILE));
        };
        if creating {
            // SAFETY: the caller's statement.
            remember(&mut shared.lock().names, unsafe { CStr::from_ptr(name) });
        }
        slot.store(queue + 1, Ordering::Release);
        Ok(deaf)
    })())
}

/// Whether the core has memory for such a queue, whose messages it allocates in one piece. Other
/// mistakes are Linux's to find.
fn has_room(asked: &mq_attr) -> bool {
    let size = |n: libc::c_long| usize::try_from(n).unwrap_or(0);
    let message = (size(asked.mq_msgsize) + HEADER_BYTES).next_multiple_of(size_of::<usize>());
    message.saturating_mul(size(asked.mq_maxmsg)) <= QUEUE_BYTES_MAX
}

/// So that the space can be emptied. A name that finds no room stays behind.
fn remember(names: &mut [[u8; NAME_BYTES]], name: &CStr) {
    let name = name.to_bytes_with_nul();
    if names.iter().any(|known| known.starts_with(name)) {
        return;
    }
    if let Some(free) = names.iter_mut().find(|known| known[0] == 0) {
        free[..name.len()].copy_from_slice(name);
    }
}

#[unsafe(no_mangle)]
extern "C" fn __cobalt_mq_close(mqd: mqd_t) -> c_int {
    or_errno((|| {
        secondary()?;
        let queue = match slot(mqd)?.swap(0, Ordering::AcqRel) {
            0 => return Err(libc::EBADF),
            queue => queue - 1,
        };
        // SAFETY: both were opened by `__cobalt_mq_open` and are nobody's from here on.
        unsafe { libc::mq_close(queue) };
        // SAFETY: as above.
        checked(unsafe { libc::close(mqd) })
    })())
}

#[unsafe(no_mangle)]
unsafe extern "C" fn __cobalt_mq_unlink(name: *const c_char) -> c_int {
    or_errno((|| {
        let shared = secondary()?;
        // SAFETY: the caller's statement (mq_unlink(3)).
        let linux = unsafe { linux_name(name) }?;
        // SAFETY: a terminated string.
        checked(unsafe { libc::mq_unlink(linux.as_ptr()) })?;
        // SAFETY: the caller's statement.
        let name = unsafe { CStr::from_ptr(name) }.to_bytes_with_nul();
        shared
            .lock()
            .names
            .iter_mut()
            .filter(|known| known.starts_with(name))
            .for_each(|known| known[0] = 0);
        Ok(0)
    })())
}

#[unsafe(no_mangle)]
unsafe extern "C" fn __cobalt_mq_getattr(mqd: mqd_t, attributes: *mut mq_attr) -> c_int {
    or_errno(init::bound().and_then(|_| {
        let queue = queue(mqd)?;
        // SAFETY: the caller's statement (mq_getattr(3)).
        checked(unsafe { libc::mq_getattr(queue, attributes) })
    }))
}

#[unsafe(no_mangle)]
unsafe extern "C" fn __cobalt_mq_send(
    mqd: mqd_t,
    bytes: *const c_char,
    length: size_t,
    prio: c_uint,
) -> c_int {
    // SAFETY: the caller's statement (mq_send(3)).
    sending(mqd, |queue| unsafe {
        libc::mq_send(queue, bytes, length, prio)
    })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn __cobalt_mq_timedsend(
    mqd: mqd_t,
    bytes: *const c_char,
    length: size_t,
    prio: c_uint,
    time: *const timespec,
) -> c_int {
    if time.is_null() {
        return -libc::EFAULT;
    }
    // SAFETY: the caller's statement (mq_timedsend(3)).
    sending(mqd, |queue| unsafe {
        libc::mq_timedsend(queue, bytes, length, prio, time)
    })
}

fn sending(mqd: mqd_t, send: impl FnOnce(mqd_t) -> c_int) -> c_int {
    or_errno(queue(mqd).and_then(|queue| {
        let notifying = NOTIFYING.load(Ordering::Relaxed) != 0;
        let was_empty = notifying && fill(queue)? == 0;
        primary_call(|| send(queue))?;
        // A receiver that was waiting has taken it by now, and then nobody is told.
        if was_empty && fill(queue)? != 0 {
            notify(queue)?;
        }
        Ok(0)
    }))
}

fn fill(queue: mqd_t) -> Core<libc::c_long> {
    // SAFETY: mq_attr is plain data for which zero is a value.
    let mut attributes: mq_attr = unsafe { std::mem::zeroed() };
    // SAFETY: our own to write.
    checked(unsafe { libc::mq_getattr(queue, &raw mut attributes) })?;
    Ok(attributes.mq_curmsgs)
}

fn inode(queue: mqd_t) -> Core<u64> {
    // SAFETY: stat is plain data for which zero is a value.
    let mut status: libc::stat = unsafe { std::mem::zeroed() };
    // SAFETY: our own to write.
    checked(unsafe { libc::fstat(queue, &raw mut status) })?;
    Ok(status.st_ino)
}

fn notify(queue: mqd_t) -> Core<()> {
    let inode = inode(queue)?;
    let asked = {
        let mut tables = init::bound()?.lock();
        let Some(entry) = tables.notifications.iter_mut().find(|n| n.inode == inode) else {
            return Ok(());
        };
        let asked = *entry;
        entry.inode = 0;
        asked
    };
    let sent = Sent {
        signo: asked.signo,
        code: libc::SI_MESGQ,
        value: asked.value,
    };
    // Who asked may be gone by now.
    let _ = send(asked.tid, &sent, false);
    Ok(())
}

#[unsafe(no_mangle)]
unsafe extern "C" fn __cobalt_mq_notify(mqd: mqd_t, event: *const sigevent) -> c_int {
    or_errno((|| {
        let (shared, tid) = primary()?;
        let inode = inode(queue(mqd)?)?;
        let mut tables = shared.lock();
        let held = tables
            .notifications
            .iter()
            .find(|n| n.inode == inode)
            .map(|n| n.tid);
        // SAFETY: the caller's statement (mq_notify(3)): null or valid.
        let Some(event) = (unsafe { event.as_ref() }) else {
            tables
                .notifications
                .iter_mut()
                .filter(|n| n.inode == inode && n.tid == tid)
                .for_each(|n| n.inode = 0);
            return Ok(0);
        };
        if event.sigev_notify != libc::SIGEV_SIGNAL || !(1..=64).contains(&event.sigev_signo) {
            return Err(libc::EINVAL);
        }
        if held.is_some_and(|holder| tables.find(holder).is_ok()) {
            return Err(libc::EBUSY);
        }
        let free = tables
            .notifications
            .iter_mut()
            .find(|n| n.inode == 0)
            .ok_or(libc::ENOSPC)?;
        let value = event.sigev_value.sival_ptr.addr() as u64;
        *free = Notification {
            inode,
            tid,
            signo: event.sigev_signo,
            value,
        };
        NOTIFYING.store(1, Ordering::Relaxed);
        Ok(0)
    })())
}

#[unsafe(no_mangle)]
unsafe extern "C" fn __cobalt_mq_receive(
    mqd: mqd_t,
    bytes: *mut c_char,
    length: size_t,
    prio: *mut c_uint,
) -> ssize_t {
    // SAFETY: the caller's statement (mq_receive(3)).
    receiving(mqd, |queue| unsafe {
        libc::mq_receive(queue, bytes, length, prio)
    })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn __cobalt_mq_timedreceive(
    mqd: mqd_t,
    bytes: *mut c_char,
    length: size_t,
    prio: *mut c_uint,
    time: *const timespec,
) -> ssize_t {
    if time.is_null() {
        return (-libc::EFAULT) as ssize_t;
    }
    // SAFETY: the caller's statement (mq_timedreceive(3)).
    receiving(mqd, |queue| unsafe {
        libc::mq_timedreceive(queue, bytes, length, prio, time)
    })
}

fn receiving(mqd: mqd_t, receive: impl FnOnce(mqd_t) -> ssize_t) -> ssize_t {
    let result = queue(mqd).and_then(|queue| {
        primary()?;
        let length = receive(queue);
        left(if length < 0 {
            Err(last_errno())
        } else {
            Ok(length)
        })
    });
    result.unwrap_or_else(|errno| {
        crate::set_errno(errno);
        -1
    })
}
