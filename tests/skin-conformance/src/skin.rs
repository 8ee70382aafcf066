//! What is under test, in Rust's types. Errors are positive error numbers, whatever the call's own
//! convention.

use std::ffi::CStr;
use std::fmt;
use std::time::Duration;

/// A positive error number.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Errno(pub i32);

impl fmt::Display for Errno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = std::io::Error::from_raw_os_error(self.0).to_string();
        // Rust's text ends with the number, which stands in front here.
        write!(
            f,
            "errno {}, {}",
            self.0,
            text.split(" (os error").next().unwrap_or_default()
        )
    }
}

impl fmt::Debug for Errno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// How a rule ends that does not pass.
#[derive(Debug)]
pub enum Stop {
    /// The skin broke it: what was seen.
    Broken(String),
    /// It does not apply, or something is missing: what.
    Skipped(String),
}

impl From<Errno> for Stop {
    fn from(errno: Errno) -> Stop {
        Stop::Broken(format!("a call failed: {errno}"))
    }
}

/// What a rule saw that is worth a word; empty for nothing.
pub type Ending = Result<String, Stop>;

/// In what the skins differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Facts {
    /// Queue descriptors can be polled.
    pub pollable_mq: bool,
    /// A signal that finds no room is an error; else it is dropped.
    pub reports_signal_overflow: bool,
    /// Names of queues and semaphores are Linux's.
    pub shared_namespace: bool,
    /// Only promoted threads may block.
    pub promotion_needed: bool,
    /// A timed queue call with a null time returns this without touching errno; 0 where it waits
    /// for ever.
    pub null_time: i32,
    /// A signal to a thread that does not wait for it goes to a thread of its process that does.
    pub siblings_help: bool,
    /// The receiver sees the sending thread, as the kernel wrote it; else what the sender wrote.
    pub kernel_writes_origin: bool,
}

/// A received signal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Signal {
    /// Number.
    pub signo: i32,
    /// si_code.
    pub code: i32,
    /// What came with it.
    pub value: usize,
    /// si_pid.
    pub pid: i32,
}

/// A thread as a target.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    /// Kernel id.
    pub tid: i32,
    /// The C library's.
    pub pthread: libc::pthread_t,
}

/// A semaphore's memory, of a rule's or the skin's.
#[derive(Clone, Copy, Debug)]
pub struct Sem(pub(crate) *mut libc::sem_t);

// SAFETY: the calls on it are made for several threads, and a rule keeps the memory until all are
// done.
unsafe impl Send for Sem {}
// SAFETY: as above.
unsafe impl Sync for Sem {}

/// An open queue's size and fill.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attributes {
    /// Messages at most.
    pub maxmsg: libc::c_long,
    /// Bytes of the largest.
    pub msgsize: libc::c_long,
    /// Messages in it.
    pub curmsgs: libc::c_long,
}

/// A clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Clock {
    /// CLOCK_MONOTONIC.
    Monotonic,
    /// CLOCK_REALTIME, which the timed calls use.
    Realtime,
}

/// The skin. Every call acts for the calling thread.
pub trait Skin: Sync {
    /// Name, and where the calls come from.
    fn name(&self) -> String;
    /// How it is expected to behave.
    fn facts(&self) -> Facts;

    /// Makes the calling thread real-time.
    fn promote(&self, priority: i32) -> Result<(), Errno>;
    /// Whether the calling thread has lost its real-time mode; none where there is but one mode.
    fn relaxed(&self) -> Option<bool>;
    /// Names the calling thread.
    fn set_name(&self, name: &CStr) -> Result<(), Errno>;
    /// Runs this on a thread made by the skin, gives it 20, and returns what came back.
    fn on_own_thread(
        &self,
        routine: extern "C" fn(*mut libc::c_void) -> *mut libc::c_void,
    ) -> Result<usize, Errno>;

    /// mq_open(3) with O_CREAT and O_EXCL, for both directions.
    fn create_queue(
        &self,
        name: &CStr,
        maxmsg: i64,
        msgsize: i64,
        nonblocking: bool,
    ) -> Result<i32, Errno>;
    /// mq_open(3) for both directions.
    fn open_queue(&self, name: &CStr, nonblocking: bool) -> Result<i32, Errno>;
    /// mq_close(3).
    fn close_queue(&self, queue: i32) -> Result<(), Errno>;
    /// mq_unlink(3).
    fn unlink_queue(&self, name: &CStr) -> Result<(), Errno>;
    /// mq_getattr(3).
    fn attributes(&self, queue: i32) -> Result<Attributes, Errno>;
    /// mq_send(3).
    fn send(&self, queue: i32, message: &[u8], priority: u32) -> Result<(), Errno>;
    /// mq_timedsend(3), with an absolute time.
    fn send_until(&self, queue: i32, message: &[u8], at: Duration) -> Result<(), Errno>;
    /// mq_receive(3): length and priority.
    fn receive(&self, queue: i32, buffer: &mut [u8]) -> Result<(usize, u32), Errno>;
    /// mq_timedreceive(3), with an absolute time.
    fn receive_until(&self, queue: i32, buffer: &mut [u8], at: Duration) -> Result<usize, Errno>;
    /// mq_timedsend(3) and mq_timedreceive(3) with a null time: what they returned, and errno, 0
    /// before.
    fn null_times(&self, queue: i32) -> [(isize, i32); 2];
    /// mq_notify(3) by this signal; 0 takes it back.
    fn notify(&self, queue: i32, signo: i32) -> Result<(), Errno>;

    /// Queues a signal to a thread.
    fn signal(&self, target: Target, signo: i32, value: usize) -> Result<(), Errno>;
    /// The same by `pthread_sigqueue_np`; none where it is not exported.
    fn signal_np(&self, target: Target, signo: i32, value: usize) -> Option<Result<(), Errno>>;
    /// sigwaitinfo(2).
    fn wait(&self, signals: &[i32]) -> Result<Signal, Errno>;
    /// sigwait(3).
    fn wait_number(&self, signals: &[i32]) -> Result<i32, Errno>;
    /// sigtimedwait(2).
    fn wait_within(&self, signals: &[i32], time: Duration) -> Result<Signal, Errno>;
    /// sigpending(2): bit n-1 for signal n.
    fn pending(&self) -> Result<u64, Errno>;

    /// clock_gettime(2).
    fn now(&self, clock: Clock) -> Result<Duration, Errno>;
    /// clock_nanosleep(2) on CLOCK_MONOTONIC.
    fn sleep(&self, time: Duration, absolute: bool) -> Result<(), Errno>;

    /// sem_init(3), shared between processes, in memory that lasts until the call below.
    fn init_semaphore(&self, semaphore: Sem, value: u32) -> Result<(), Errno>;
    /// sem_destroy(3).
    fn destroy_semaphore(&self, semaphore: Sem) -> Result<(), Errno>;
    /// sem_open(3) with O_CREAT.
    fn open_semaphore(&self, name: &CStr, value: u32) -> Result<Sem, Errno>;
    /// sem_open(3) with O_CREAT and O_EXCL; without `create` neither.
    fn open_semaphore_as(&self, name: &CStr, create: bool) -> Result<Sem, Errno>;
    /// sem_close(3).
    fn close_semaphore(&self, semaphore: Sem) -> Result<(), Errno>;
    /// sem_unlink(3).
    fn unlink_semaphore(&self, name: &CStr) -> Result<(), Errno>;
    /// sem_post(3).
    fn post(&self, semaphore: Sem) -> Result<(), Errno>;
    /// sem_wait(3).
    fn take(&self, semaphore: Sem) -> Result<(), Errno>;
    /// sem_trywait(3).
    fn try_take(&self, semaphore: Sem) -> Result<(), Errno>;
    /// sem_timedwait(3), with an absolute time.
    fn take_until(&self, semaphore: Sem, at: Duration) -> Result<(), Errno>;
}

/// The calling thread as a target.
pub fn me() -> Target {
    // SAFETY: both take nothing.
    unsafe {
        Target {
            tid: libc::gettid(),
            pthread: libc::pthread_self(),
        }
    }
}
