//! [`crate::Skin`] over a table of C calls: libcobalt's or Linux's.

use crate::skin::{Attributes, Clock, Errno, Facts, Sem, Signal, Skin, Target};
use libc::{c_int, c_long, siginfo_t, sigset_t, sigval, timespec};
use std::ffi::CStr;
use std::mem::{MaybeUninit, zeroed};
use std::ptr::{null, null_mut};
use std::time::Duration;
use xenomai::Api;

/// The calls, with what is expected of them.
#[derive(Debug)]
pub struct Calls {
    /// The table.
    pub api: Api,
    /// Name, and where they come from.
    pub name: String,
    /// How they are expected to behave.
    pub facts: Facts,
}

impl Calls {
    /// Linux's.
    pub fn posix() -> Calls {
        let facts = Facts {
            pollable_mq: true,
            reports_signal_overflow: true,
            shared_namespace: true,
            promotion_needed: false,
            null_time: 0,
            siblings_help: false,
            kernel_writes_origin: false,
        };
        Calls {
            api: crate::posix::api(),
            name: "posix".to_owned(),
            facts,
        }
    }

    /// A library's.
    pub fn cobalt(library: &xenomai::Library) -> Calls {
        let facts = Facts {
            pollable_mq: false,
            reports_signal_overflow: false,
            shared_namespace: false,
            promotion_needed: true,
            null_time: -libc::EFAULT,
            siblings_help: true,
            kernel_writes_origin: true,
        };
        let said = library
            .stand_in()
            .map(|said| format!(" ({said})"))
            .unwrap_or_default();
        Calls {
            api: *library.api(),
            name: format!("cobalt, {}{said}", library.name()),
            facts,
        }
    }
}

fn errno() -> Errno {
    // SAFETY: the address of the calling thread's errno is always valid.
    Errno(unsafe { *libc::__errno_location() })
}

/// -1 and errno.
fn checked(rc: c_int) -> Result<(), Errno> {
    if rc < 0 { Err(errno()) } else { Ok(()) }
}

/// A positive error number. A negative one, as a call of the other convention has it, is not to be
/// mistaken for success.
fn numbered(rc: c_int) -> Result<(), Errno> {
    if rc == 0 { Ok(()) } else { Err(Errno(rc)) }
}

fn timespec(time: Duration) -> timespec {
    timespec {
        tv_sec: libc::time_t::try_from(time.as_secs()).unwrap_or(libc::time_t::MAX),
        tv_nsec: c_long::from(time.subsec_nanos().cast_signed()),
    }
}

fn set_of(signals: &[i32]) -> sigset_t {
    let mut set = MaybeUninit::uninit();
    // SAFETY: sigemptyset initialises it, the others find it so.
    unsafe {
        libc::sigemptyset(set.as_mut_ptr());
        for &signo in signals {
            libc::sigaddset(set.as_mut_ptr(), signo);
        }
        set.assume_init()
    }
}

fn value_of(value: usize) -> sigval {
    sigval {
        sival_ptr: std::ptr::without_provenance_mut(value),
    }
}

fn received(signo: c_int, info: &siginfo_t) -> Result<Signal, Errno> {
    if signo < 0 {
        return Err(errno());
    }
    // SAFETY: both are written for every signal that a process sent, and zero before.
    let (value, pid) = unsafe { (info.si_value().sival_ptr.addr(), info.si_pid()) };
    Ok(Signal {
        signo,
        code: info.si_code,
        value,
        pid,
    })
}

fn bytes(message: &[u8]) -> *const libc::c_char {
    message.as_ptr().cast()
}

// SAFETY of the calls below, unless said otherwise: pointers are to initialised values that outlive
// the call, lengths are those of the slices; the rules pass only descriptors and semaphores that
// the skin made.
#[expect(
    clippy::undocumented_unsafe_blocks,
    reason = "said once for all, above"
)]
impl Skin for Calls {
    fn name(&self) -> String {
        self.name.clone()
    }

    fn facts(&self) -> Facts {
        self.facts
    }

    fn promote(&self, priority: i32) -> Result<(), Errno> {
        let mut param: libc::sched_param = unsafe { zeroed() };
        param.sched_priority = priority;
        numbered(unsafe {
            (self.api.pthread_setschedparam)(
                libc::pthread_self(),
                libc::SCHED_FIFO,
                &raw const param,
            )
        })
    }

    fn relaxed(&self) -> Option<bool> {
        let mode = unsafe { (self.api.cobalt_thread_mode)() };
        self.facts
            .promotion_needed
            .then_some(mode & xenomai::mode::RELAXED != 0)
    }

    fn set_name(&self, name: &CStr) -> Result<(), Errno> {
        numbered(unsafe { (self.api.pthread_setname_np)(libc::pthread_self(), name.as_ptr()) })
    }

    fn on_own_thread(
        &self,
        routine: extern "C" fn(*mut libc::c_void) -> *mut libc::c_void,
    ) -> Result<usize, Errno> {
        let mut thread = MaybeUninit::uninit();
        let argument = std::ptr::without_provenance_mut(20);
        let mut value = null_mut();
        numbered(unsafe {
            (self.api.pthread_create)(thread.as_mut_ptr(), null(), routine, argument)
        })?;
        numbered(unsafe { (self.api.pthread_join)(thread.assume_init(), &raw mut value) })?;
        Ok(value.addr())
    }

    fn create_queue(
        &self,
        name: &CStr,
        maxmsg: i64,
        msgsize: i64,
        nonblocking: bool,
    ) -> Result<i32, Errno> {
        let mut attributes: libc::mq_attr = unsafe { zeroed() };
        attributes.mq_maxmsg = c_long::try_from(maxmsg).unwrap_or(c_long::MAX);
        attributes.mq_msgsize = c_long::try_from(msgsize).unwrap_or(c_long::MAX);
        let flags = libc::O_RDWR
            | libc::O_CREAT
            | libc::O_EXCL
            | if nonblocking { libc::O_NONBLOCK } else { 0 };
        let mode: libc::c_uint = 0o600;
        let queue = unsafe { (self.api.mq_open)(name.as_ptr(), flags, mode, &raw mut attributes) };
        checked(queue).map(|()| queue)
    }

    fn open_queue(&self, name: &CStr, nonblocking: bool) -> Result<i32, Errno> {
        let flags = libc::O_RDWR | if nonblocking { libc::O_NONBLOCK } else { 0 };
        let queue = unsafe { (self.api.mq_open)(name.as_ptr(), flags) };
        checked(queue).map(|()| queue)
    }

    fn close_queue(&self, queue: i32) -> Result<(), Errno> {
        checked(unsafe { (self.api.mq_close)(queue) })
    }

    fn unlink_queue(&self, name: &CStr) -> Result<(), Errno> {
        checked(unsafe { (self.api.mq_unlink)(name.as_ptr()) })
    }

    fn attributes(&self, queue: i32) -> Result<Attributes, Errno> {
        let mut got: libc::mq_attr = unsafe { zeroed() };
        checked(unsafe { (self.api.mq_getattr)(queue, &raw mut got) })?;
        Ok(Attributes {
            maxmsg: got.mq_maxmsg,
            msgsize: got.mq_msgsize,
            curmsgs: got.mq_curmsgs,
        })
    }

    fn send(&self, queue: i32, message: &[u8], priority: u32) -> Result<(), Errno> {
        checked(unsafe { (self.api.mq_send)(queue, bytes(message), message.len(), priority) })
    }

    fn send_until(&self, queue: i32, message: &[u8], at: Duration) -> Result<(), Errno> {
        let at = timespec(at);
        checked(unsafe {
            (self.api.mq_timedsend)(queue, bytes(message), message.len(), 0, &raw const at)
        })
    }

    fn receive(&self, queue: i32, buffer: &mut [u8]) -> Result<(usize, u32), Errno> {
        let mut priority = 0;
        let start = buffer.as_mut_ptr().cast();
        let length =
            unsafe { (self.api.mq_receive)(queue, start, buffer.len(), &raw mut priority) };
        Ok((usize::try_from(length).map_err(|_| errno())?, priority))
    }

    fn receive_until(&self, queue: i32, buffer: &mut [u8], at: Duration) -> Result<usize, Errno> {
        let at = timespec(at);
        let start = buffer.as_mut_ptr().cast();
        let length = unsafe {
            (self.api.mq_timedreceive)(queue, start, buffer.len(), null_mut(), &raw const at)
        };
        usize::try_from(length).map_err(|_| errno())
    }

    fn null_times(&self, queue: i32) -> [(isize, i32); 2] {
        let mut buffer = [0u8; 64];
        unsafe {
            *libc::__errno_location() = 0;
            let sent = (self.api.mq_timedsend)(queue, bytes(b"x"), 1, 0, null());
            let sent = (isize::try_from(sent).unwrap_or(0), errno().0);
            *libc::__errno_location() = 0;
            let start = buffer.as_mut_ptr().cast();
            let got = (self.api.mq_timedreceive)(queue, start, buffer.len(), null_mut(), null());
            [sent, (got, errno().0)]
        }
    }

    fn notify(&self, queue: i32, signo: i32) -> Result<(), Errno> {
        let mut event: libc::sigevent = unsafe { zeroed() };
        event.sigev_notify = libc::SIGEV_SIGNAL;
        event.sigev_signo = signo;
        event.sigev_value = value_of(7);
        let event = if signo == 0 { null() } else { &raw const event };
        checked(unsafe { (self.api.mq_notify)(queue, event) })
    }

    fn signal(&self, target: Target, signo: i32, value: usize) -> Result<(), Errno> {
        checked(unsafe { (self.api.sigqueue)(target.tid, signo, value_of(value)) })
    }

    fn signal_np(&self, target: Target, signo: i32, value: usize) -> Option<Result<(), Errno>> {
        let call = self.api.pthread_sigqueue_np?;
        Some(numbered(unsafe {
            call(target.pthread, signo, value_of(value))
        }))
    }

    fn wait(&self, signals: &[i32]) -> Result<Signal, Errno> {
        let (set, mut info) = (set_of(signals), unsafe { zeroed() });
        received(
            unsafe { (self.api.sigwaitinfo)(&raw const set, &raw mut info) },
            &info,
        )
    }

    fn wait_number(&self, signals: &[i32]) -> Result<i32, Errno> {
        let (set, mut signo) = (set_of(signals), 0);
        numbered(unsafe { (self.api.sigwait)(&raw const set, &raw mut signo) })?;
        Ok(signo)
    }

    fn wait_within(&self, signals: &[i32], time: Duration) -> Result<Signal, Errno> {
        let (set, time, mut info) = (set_of(signals), timespec(time), unsafe { zeroed() });
        received(
            unsafe { (self.api.sigtimedwait)(&raw const set, &raw mut info, &raw const time) },
            &info,
        )
    }

    fn pending(&self) -> Result<u64, Errno> {
        let mut set = set_of(&[]);
        checked(unsafe { (self.api.sigpending)(&raw mut set) })?;
        let member = |n: &i32| unsafe { libc::sigismember(&raw const set, *n) } == 1;
        Ok((1..=64)
            .filter(member)
            .fold(0, |bits, n| bits | 1 << (n - 1)))
    }

    fn now(&self, clock: Clock) -> Result<Duration, Errno> {
        let mut now: timespec = unsafe { zeroed() };
        let clock = match clock {
            Clock::Monotonic => libc::CLOCK_MONOTONIC,
            Clock::Realtime => libc::CLOCK_REALTIME,
        };
        checked(unsafe { (self.api.clock_gettime)(clock, &raw mut now) })?;
        let (seconds, nanos) = (u64::try_from(now.tv_sec), u32::try_from(now.tv_nsec));
        Ok(Duration::new(seconds.unwrap_or(0), nanos.unwrap_or(0)))
    }

    fn sleep(&self, time: Duration, absolute: bool) -> Result<(), Errno> {
        let (time, flags) = (
            timespec(time),
            if absolute { libc::TIMER_ABSTIME } else { 0 },
        );
        numbered(unsafe {
            (self.api.clock_nanosleep)(libc::CLOCK_MONOTONIC, flags, &raw const time, null_mut())
        })
    }

    fn init_semaphore(&self, semaphore: Sem, value: u32) -> Result<(), Errno> {
        checked(unsafe { (self.api.sem_init)(semaphore.0, 1, value) })
    }

    fn destroy_semaphore(&self, semaphore: Sem) -> Result<(), Errno> {
        checked(unsafe { (self.api.sem_destroy)(semaphore.0) })
    }

    fn open_semaphore(&self, name: &CStr, value: u32) -> Result<Sem, Errno> {
        let mode: libc::c_uint = 0o600;
        let semaphore = unsafe { (self.api.sem_open)(name.as_ptr(), libc::O_CREAT, mode, value) };
        if semaphore.is_null() {
            Err(errno())
        } else {
            Ok(Sem(semaphore))
        }
    }

    fn open_semaphore_as(&self, name: &CStr, create: bool) -> Result<Sem, Errno> {
        let (mode, value): (libc::c_uint, libc::c_uint) = (0o600, 0);
        let flags = if create {
            libc::O_CREAT | libc::O_EXCL
        } else {
            0
        };
        let semaphore = unsafe { (self.api.sem_open)(name.as_ptr(), flags, mode, value) };
        if semaphore.is_null() {
            Err(errno())
        } else {
            Ok(Sem(semaphore))
        }
    }

    fn close_semaphore(&self, semaphore: Sem) -> Result<(), Errno> {
        checked(unsafe { (self.api.sem_close)(semaphore.0) })
    }

    fn unlink_semaphore(&self, name: &CStr) -> Result<(), Errno> {
        checked(unsafe { (self.api.sem_unlink)(name.as_ptr()) })
    }

    fn post(&self, semaphore: Sem) -> Result<(), Errno> {
        checked(unsafe { (self.api.sem_post)(semaphore.0) })
    }

    fn take(&self, semaphore: Sem) -> Result<(), Errno> {
        checked(unsafe { (self.api.sem_wait)(semaphore.0) })
    }

    fn try_take(&self, semaphore: Sem) -> Result<(), Errno> {
        checked(unsafe { (self.api.sem_trywait)(semaphore.0) })
    }

    fn take_until(&self, semaphore: Sem, at: Duration) -> Result<(), Errno> {
        let at = timespec(at);
        checked(unsafe { (self.api.sem_timedwait)(semaphore.0, &raw const at) })
    }
}
