//! The calls, one typed function pointer each.
//!
//! Constraint: nothing here interprets a result. What a call may do to the calling thread is part
//! of its description, because under Cobalt that is what decides whether it may stand on a
//! real-time path:
//!
//! - *primary*: needs a Cobalt thread (EPERM for any other) and runs it under the Cobalt scheduler;
//! - *any*: needs a bound process only, and leaves the thread's mode as it is;
//! - *secondary*: hands the thread to Linux until its next *primary* call. For setup only.
//!
//! Before [`Api::xenomai_init`] every call fails with ENOSYS (no Cobalt in this kernel) or EPERM
//! (process not bound).

use libc::{c_char, c_int, c_uint, c_void};
use libc::{
    clockid_t, mq_attr, mqd_t, pid_t, pthread_attr_t, pthread_t, sched_param, sem_t, sigevent,
};
use libc::{siginfo_t, sigset_t, size_t, sockaddr, socklen_t, ssize_t, timespec};
use libloading::os::unix::Library as Handle;

/// The bits of [`Api::cobalt_thread_mode`]'s result.
pub mod mode {
    /// The thread is in secondary mode: Linux schedules it. Also set for a thread that is not
    /// Cobalt's.
    pub const RELAXED: libc::c_int = 0x80;
}

/// Declares the table once: field, symbol and type stand in one line, so that none of them can
/// drift.
macro_rules! api {
    (
        required { $($(#[$doc:meta])* $field:ident = $symbol:literal: fn($($parameter:tt)*) $(-> $result:ty)?;)* }
        optional { $($(#[$odoc:meta])* $ofield:ident = $osymbol:literal: fn($($oparameter:tt)*) $(-> $oresult:ty)?;)* }
    ) => {
        /// The calls of a library, see the module's comment for *primary*, *any* and *secondary*.
        ///
        /// Each is unsafe as C is: pointers have to be valid for what the POSIX page of the call
        /// says, and the types are those of this target's libc, for which libcobalt has to be
        /// built.
        #[derive(Clone, Copy, Debug)]
        pub struct Api {
            $($(#[$doc])* pub $field: unsafe extern "C" fn($($parameter)*) $(-> $result)?,)*
            $($(#[$odoc])* pub $ofield: Option<unsafe extern "C" fn($($oparameter)*) $(-> $oresult)?>,)*
        }

        impl Api {
            /// Symbols that every library has to export.
            pub const REQUIRED: &[&str] = &[$($symbol),*];

            /// Symbols that are used where they are.
            pub const OPTIONAL: &[&str] = &[$($osymbol),*];

            /// Looks all of them up; the error is the first required one that is missing.
            pub(crate) fn resolve(handle: &Handle) -> Result<Api, &'static str> {
                Ok(Api {
                    // SAFETY: the symbol has this type in every release that exports it (the table
                    // above), and the caller keeps the library loaded.
                    $($field: *unsafe { handle.get(concat!($symbol, "\0").as_bytes()) }.map_err(|_| $symbol)?,)*
                    // SAFETY: as above.
                    $($ofield: unsafe { handle.get(concat!($osymbol, "\0").as_bytes()) }.ok().map(|f| *f),)*
                })
            }
        }
    };
}

api! {
    required {
        /// Binds the process to the core and makes the calling thread a Cobalt thread with its
        /// present policy and priority; locks the process's memory (mlockall(2)); starts a printing
        /// thread.
        ///
        /// 1. Call it on the main thread, before any other thread exists; it asserts the first.
        /// 2. It *exits the process* on any failure, after a line on standard error: try it in a
        ///    child first.
        /// 3. `argc` and `argv` are read for options (`--cpu-affinity`, `--no-mlock` ...) and
        ///    written: give it a made-up vector, program name and null pointer, of writable strings
        ///    that live as long as the process.
        /// 4. Once: a second call warns and does nothing.
        xenomai_init = "xenomai_init": fn(*mut c_int, *mut *const *mut c_char);

        /// Modes of the calling thread, bits of [`mode`]. Reads memory that the core shares: no
        /// system call. *any*.
        cobalt_thread_mode = "cobalt_thread_mode": fn() -> c_int;

        /// mq_open(3): a descriptor, or -1 and errno. *secondary*.
        ///
        /// Variadic: after `oflag` with O_CREAT come a mode, which is ignored (any process that is
        /// bound may open any queue), and a pointer to the attributes, null for the core's
        /// defaults. The names are Cobalt's own and shared with no Linux queue; at most
        /// [`crate::NAME_MAX`] bytes; they last until unlinked. All messages are allocated here:
        /// ENOSPC says that the core's heap is too small. O_NONBLOCK has to be given here.
        mq_open = "__cobalt_mq_open": fn(*const c_char, c_int, ...) -> mqd_t;

        /// mq_close(3): 0, or -1 and errno. *secondary*. Also for descriptors of which a copy was
        /// made: close(2) is not the same.
        mq_close = "__cobalt_mq_close": fn(mqd_t) -> c_int;

        /// mq_unlink(3): 0, or -1 and errno. *secondary*.
        mq_unlink = "__cobalt_mq_unlink": fn(*const c_char) -> c_int;

        /// mq_getattr(3): 0, or -1 and errno. *any*.
        mq_getattr = "__cobalt_mq_getattr": fn(mqd_t, *mut mq_attr) -> c_int;

        /// mq_send(3): 0, or -1 and errno; EAGAIN when full and opened with O_NONBLOCK. *primary*.
        /// Highest priority first, then first in, first out. Allocates nothing.
        mq_send = "__cobalt_mq_send": fn(mqd_t, *const c_char, size_t, c_uint) -> c_int;

        /// mq_timedsend(3): 0, or -1 and errno; ETIMEDOUT. *primary*. The time is absolute, of
        /// *Cobalt's* CLOCK_REALTIME ([`Api::clock_gettime`]), which is not Linux's. A null time
        /// returns -14 (-EFAULT) and leaves errno alone, in every release: a caller that looks for
        /// -1 takes it for success.
        mq_timedsend = "__cobalt_mq_timedsend": fn(mqd_t, *const c_char, size_t, c_uint, *const timespec) -> c_int;

        /// mq_receive(3): the length, or -1 and errno; EAGAIN when empty and opened with
        /// O_NONBLOCK, EINTR after a Linux signal. *primary*. The buffer has to hold the queue's
        /// largest message (EMSGSIZE).
        mq_receive = "__cobalt_mq_receive": fn(mqd_t, *mut c_char, size_t, *mut c_uint) -> ssize_t;

        /// mq_timedreceive(3): the length, or -1 and errno; ETIMEDOUT. *primary*. Time and null
        /// time as for [`Api::mq_timedsend`].
        mq_timedreceive = "__cobalt_mq_timedreceive":
            fn(mqd_t, *mut c_char, size_t, *mut c_uint, *const timespec) -> ssize_t;

        /// mq_notify(3): 0, or -1 and errno; EBUSY. *primary*. SIGEV_SIGNAL to the calling thread
        /// only, as a Cobalt signal with code SI_MESGQ; one-shot; null takes it back.
        mq_notify = "__cobalt_mq_notify": fn(mqd_t, *const sigevent) -> c_int;

        /// As sigqueue(3), but to the Cobalt thread of this kernel *thread* id (a process is its
        /// main thread): 0, or -1 and errno; ESRCH if there is no such Cobalt thread. *any*, of
        /// which a Cobalt thread stays in its mode.
        ///
        /// - 0 does not say that it was queued: with the pool of [`crate::SIGNAL_POOL`] used up it
        ///   is dropped, and so is a standard signal (1 to 31) that the thread has pending already.
        /// - Numbers outside [`crate::SIGNALS`] are orders to the scheduler, not EINVAL: refuse
        ///   them before.
        /// - If the addressed thread is not waiting for the number while another thread of its
        ///   process is, that one gets it at once. Otherwise it is queued to the addressed thread.
        /// - The receiver sees `si_pid` and `si_uid` as the core wrote them: the sending *thread*'s
        ///   id, its real uid.
        sigqueue = "__cobalt_sigqueue": fn(pid_t, c_int, libc::sigval) -> c_int;

        /// sigwait(3): 0, or a *positive* error number. *primary*.
        sigwait = "__cobalt_sigwait": fn(*const sigset_t, *mut c_int) -> c_int;

        /// sigwaitinfo(2): the number, or -1 and errno; EINTR after a Linux signal. *primary*.
        /// Lowest number first, first in, first out inside one. The signals need not be blocked:
        /// there are no handlers and no default actions, and they are disjoint from Linux's signals
        /// of the same numbers.
        sigwaitinfo = "__cobalt_sigwaitinfo": fn(*const sigset_t, *mut siginfo_t) -> c_int;

        /// sigtimedwait(2): the number, or -1 and errno; EAGAIN when the relative time is over, at
        /// once for a time of zero. *primary*. A null time is EFAULT.
        sigtimedwait = "__cobalt_sigtimedwait": fn(*const sigset_t, *mut siginfo_t, *const timespec) -> c_int;

        /// sigpending(2) of the calling thread: 0, or -1 and errno. *primary*. Fills the first 8
        /// bytes: zero the set before.
        sigpending = "__cobalt_sigpending": fn(*mut sigset_t) -> c_int;

        /// kill(2) to a Cobalt thread by its id: 0, or -1 and errno. *any*. With an id that is no
        /// Cobalt thread's, or one that is not positive, it is Linux's kill(2), of the *process*.
        /// Drops silently as [`Api::sigqueue`] does.
        kill = "__cobalt_kill": fn(pid_t, c_int) -> c_int;

        /// pthread_create(3): 0, or a *positive* error number. The thread is a Cobalt thread from
        /// its start. *secondary*.
        pthread_create = "__cobalt_pthread_create": fn(
            *mut pthread_t, *const pthread_attr_t, extern "C" fn(*mut c_void) -> *mut c_void, *mut c_void
        ) -> c_int;

        /// pthread_join(3): 0, or a *positive* error number. *secondary*.
        pthread_join = "__cobalt_pthread_join": fn(pthread_t, *mut *mut c_void) -> c_int;

        /// pthread_kill(3): 0, or a *positive* error number. *any*. For a thread that is not
        /// Cobalt's it is Linux's.
        pthread_kill = "__cobalt_pthread_kill": fn(pthread_t, c_int) -> c_int;

        /// pthread_setschedparam(3): 0, or a *positive* error number; EPERM without the right to
        /// SCHED_FIFO. Called by a thread for itself it *promotes* it: a thread that Linux or
        /// Rust's std made becomes a Cobalt thread, in primary mode. For another thread it only
        /// changes what is Cobalt's already. Sets the Linux side too, at most 99.
        pthread_setschedparam = "__cobalt_pthread_setschedparam": fn(pthread_t, c_int, *const sched_param) -> c_int;

        /// Names a Cobalt thread for /proc/xenomai/sched: 0, or a *positive* error number. *any*.
        pthread_setname_np = "__cobalt_pthread_setname_np": fn(pthread_t, *const c_char) -> c_int;

        /// clock_gettime(2): 0, or -1 and errno. *any*; CLOCK_MONOTONIC and CLOCK_REALTIME without
        /// a system call.
        ///
        /// CLOCK_REALTIME is Cobalt's own and drifts from Linux's. CLOCK_MONOTONIC is Linux's on
        /// Dovetail kernels (Xenomai 3.2 and later, Linux 5.10 and later), its own on I-pipe
        /// kernels: times of both worlds compare there only.
        clock_gettime = "__cobalt_clock_gettime": fn(clockid_t, *mut timespec) -> c_int;

        /// clock_nanosleep(2): 0, or a *positive* error number; EINTR after a Linux signal.
        /// *primary*.
        clock_nanosleep = "__cobalt_clock_nanosleep": fn(clockid_t, c_int, *const timespec, *mut timespec) -> c_int;

        /// sem_init(3): 0, or -1 and errno. *secondary*. With `pshared` in memory that several
        /// bound processes map; a `sem_t` of Cobalt's is none of Linux's.
        sem_init = "__cobalt_sem_init": fn(*mut sem_t, c_int, c_uint) -> c_int;

        /// sem_destroy(3): 0, or -1 and errno; 1 if threads were waiting, which now fail with
        /// EINVAL. *secondary*.
        sem_destroy = "__cobalt_sem_destroy": fn(*mut sem_t) -> c_int;

        /// sem_post(3): 0, or -1 and errno. *any*.
        sem_post = "__cobalt_sem_post": fn(*mut sem_t) -> c_int;

        /// sem_wait(3): 0, or -1 and errno; EINTR after a Linux signal. *primary*.
        sem_wait = "__cobalt_sem_wait": fn(*mut sem_t) -> c_int;

        /// sem_trywait(3): 0, or -1 and errno; EAGAIN when there is none to take. *primary*, and
        /// never waits.
        sem_trywait = "__cobalt_sem_trywait": fn(*mut sem_t) -> c_int;

        /// sem_timedwait(3): 0, or -1 and errno; ETIMEDOUT. *primary*. The time is absolute, of
        /// *Cobalt's* CLOCK_REALTIME.
        sem_timedwait = "__cobalt_sem_timedwait": fn(*mut sem_t, *const timespec) -> c_int;

        /// sem_open(3): the semaphore, or null (SEM_FAILED) and errno. *secondary*. Variadic: after
        /// `oflag` with O_CREAT come the mode, which is ignored, and the value. Cobalt's own names,
        /// which begin with a slash and stay until unlinked, also after the end of who made them; a
        /// process that opens one twice gets the same address.
        sem_open = "__cobalt_sem_open": fn(*const c_char, c_int, ...) -> *mut sem_t;

        /// sem_close(3): 0, or -1 and errno. *secondary*.
        sem_close = "__cobalt_sem_close": fn(*mut sem_t) -> c_int;

        /// sem_unlink(3): 0, or -1 and errno. *secondary*. Who has it open goes on with it.
        sem_unlink = "__cobalt_sem_unlink": fn(*const c_char) -> c_int;
    }
    optional {
        /// sched_yield(2): 0, or -1 and errno. *primary*. Threads of the same priority run first.
        sched_yield = "__cobalt_sched_yield": fn() -> c_int;

        /// Queues a signal with a value to a thread: 0, or a *positive* error number. An extension
        /// of Xenomai 2.2 to 2.6, where it is a symbol of the kernel module; no library of any
        /// release exports it. For builds that add it.
        pthread_sigqueue_np = "pthread_sigqueue_np": fn(pthread_t, c_int, libc::sigval) -> c_int;

        /// socket(2): a descriptor, or -1 and errno. *secondary*. For [`crate::rtipc::AF_RTIPC`]
        /// with SOCK_DGRAM; a core without that protocol is EAFNOSUPPORT or ENOPROTOOPT. Any family
        /// that the core does not know is Linux's.
        socket = "__cobalt_socket": fn(c_int, c_int, c_int) -> c_int;

        /// close(2) of a descriptor of the core: 0, or -1 and errno. *secondary*. libc's would
        /// leave the core's half open.
        close = "__cobalt_close": fn(c_int) -> c_int;

        /// bind(2): 0, or -1 and errno; EADDRINUSE where the port is taken. *secondary*. The memory
        /// of the port's messages is allocated here.
        bind = "__cobalt_bind": fn(c_int, *const sockaddr, socklen_t) -> c_int;

        /// setsockopt(2): 0, or -1 and errno. *any*: a descriptor of the core is served in the
        /// caller's mode.
        setsockopt = "__cobalt_setsockopt": fn(c_int, c_int, c_int, *const c_void, socklen_t) -> c_int;

        /// recvfrom(2): the length, or -1 and errno; see [`crate::rtipc`] for XDDP's. *primary*.
        /// With an address it does not write the address' length back in every release: pass null
        /// for both.
        recvfrom = "__cobalt_recvfrom":
            fn(c_int, *mut c_void, size_t, c_int, *mut sockaddr, *mut socklen_t) -> ssize_t;

        /// sendto(2): the length, or -1 and errno; see [`crate::rtipc`] for XDDP's. *primary*. A
        /// null address is the port that the socket is bound to.
        sendto = "__cobalt_sendto": fn(c_int, *const c_void, size_t, c_int, *const sockaddr, socklen_t) -> ssize_t;
    }
}
