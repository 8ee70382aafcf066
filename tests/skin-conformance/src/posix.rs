//! POSIX in the shape of the binding's table, so that one implementation of [`crate::Skin`] serves
//! both.
//!
//! Three entries have no POSIX call of the same form and are ours: binding, the mode, and a signal
//! to a thread by id.

use libc::{c_char, c_int, pid_t, sigval};
use xenomai::Api;

/// Linux's calls.
pub fn api() -> Api {
    Api {
        xenomai_init: bind,
        cobalt_thread_mode: mode,
        mq_open: libc::mq_open,
        mq_close: libc::mq_close,
        mq_unlink: libc::mq_unlink,
        mq_getattr: libc::mq_getattr,
        mq_send: libc::mq_send,
        mq_timedsend: libc::mq_timedsend,
        mq_receive: libc::mq_receive,
        mq_timedreceive: libc::mq_timedreceive,
        mq_notify,
        sigqueue,
        sigwait: libc::sigwait,
        sigwaitinfo: libc::sigwaitinfo,
        sigtimedwait: libc::sigtimedwait,
        sigpending: libc::sigpending,
        kill: libc::kill,
        pthread_create: libc::pthread_create,
        pthread_join: libc::pthread_join,
        pthread_kill: libc::pthread_kill,
        pthread_setschedparam: libc::pthread_setschedparam,
        pthread_setname_np: libc::pthread_setname_np,
        clock_gettime: libc::clock_gettime,
        clock_nanosleep: libc::clock_nanosleep,
        sem_init: libc::sem_init,
        sem_destroy: libc::sem_destroy,
        sem_post: libc::sem_post,
        sem_wait: libc::sem_wait,
        sem_trywait: libc::sem_trywait,
        sem_timedwait: libc::sem_timedwait,
        sem_open: libc::sem_open,
        sem_close: libc::sem_close,
        sem_unlink: libc::sem_unlink,
        sched_yield: Some(libc::sched_yield),
        pthread_sigqueue_np: None,
        socket: None,
        close: None,
        bind: None,
        setsockopt: None,
        recvfrom: None,
        sendto: None,
    }
}

unsafe extern "C" fn bind(_: *mut c_int, _: *mut *const *mut c_char) {}

unsafe extern "C" fn mode() -> c_int {
    0
}

unsafe extern "C" {
    // Not in the libc crate for every C library.
    fn mq_notify(mqd: libc::mqd_t, event: *const libc::sigevent) -> c_int;
}

/// The head of a siginfo_t as rt_tgsigqueueinfo(2) takes it.
#[repr(C)]
struct Info {
    signo: c_int,
    errno: c_int,
    code: c_int,
    #[cfg(target_pointer_width = "64")]
    _align: c_int,
    pid: pid_t,
    uid: libc::uid_t,
    value: sigval,
}

unsafe extern "C" fn sigqueue(tid: pid_t, signo: c_int, value: sigval) -> c_int {
    // SAFETY: both are plain data for which zero is a value.
    let mut info: libc::siginfo_t = unsafe { std::mem::zeroed() };
    let head = (&raw mut info).cast::<Info>();
    // SAFETY: a siginfo_t begins like this and is larger; the calls take nothing.
    unsafe {
        (*head).signo = signo;
        (*head).code = libc::SI_QUEUE;
        (*head).pid = libc::getpid();
        (*head).uid = libc::getuid();
        (*head).value = value;
    }
    // SAFETY: plain integers and an initialised record. A rule's target is a thread of this
    // process.
    let rc = unsafe {
        libc::syscall(
            libc::SYS_rt_tgsigqueueinfo,
            libc::getpid(),
            tid,
            signo,
            &raw const info,
        )
    };
    if rc < 0 { -1 } else { 0 }
}
