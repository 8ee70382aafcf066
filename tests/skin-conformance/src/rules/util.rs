//! What several rules need.

use crate::skin::{Clock, Errno, Skin, Stop};
use std::ffi::{CStr, CString};
use std::fmt::{Debug, Display};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

/// Long enough to be told from nothing.
pub(super) const A_WHILE: Duration = Duration::from_millis(30);

/// No lower number is real-time to Linux's C libraries, and Cobalt has 64.
pub(super) const FIRST: i32 = 40;
pub(super) const SECOND: i32 = 41;
pub(super) const THIRD: i32 = 42;

pub(super) fn broken(seen: impl Display) -> Stop {
    Stop::Broken(seen.to_string())
}

pub(super) fn skipped(why: impl Display) -> Stop {
    Stop::Skipped(why.to_string())
}

/// Both are the same, or the rule is broken.
pub(super) fn same<T: PartialEq + Debug>(what: &str, got: T, wanted: T) -> Result<(), Stop> {
    if got == wanted {
        Ok(())
    } else {
        Err(broken(format!("{what}: {got:?}, not {wanted:?}")))
    }
}

/// The call failed with this error, which is what there is to tell.
pub(super) fn refused<T: Debug>(
    what: &str,
    got: Result<T, Errno>,
    wanted: i32,
) -> Result<String, Stop> {
    match got {
        Err(errno) if errno.0 == wanted => Ok(errno.to_string()),
        Err(errno) => Err(broken(format!(
            "{what}: {errno}; expected {}",
            Errno(wanted)
        ))),
        Ok(value) => Err(broken(format!(
            "{what} succeeded with {value:?}; expected {}",
            Errno(wanted)
        ))),
    }
}

/// Runs this and checks that it took at least so long by the skin's own clock.
pub(super) fn not_early<T>(
    skin: &dyn Skin,
    time: Duration,
    call: impl FnOnce() -> T,
) -> Result<(T, String), Stop> {
    let start = skin.now(Clock::Monotonic)?;
    let result = call();
    let took = skin.now(Clock::Monotonic)?.saturating_sub(start);
    if took < time {
        return Err(broken(format!(
            "returned after {took:?}, {time:?} were asked for"
        )));
    }
    Ok((result, format!("{:?} late", took.saturating_sub(time))))
}

/// So much later by the clock of the timed calls.
pub(super) fn in_a_while(skin: &dyn Skin) -> Result<Duration, Errno> {
    Ok(skin.now(Clock::Realtime)? + A_WHILE)
}

/// A name that no other rule or process has.
pub(super) fn fresh_name() -> CString {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    CString::new(format!("/skin-conformance.{}.{count}", std::process::id()))
        .expect("has no zero in it")
}

/// A queue that goes with its owner.
pub(super) struct Queue<'a> {
    skin: &'a dyn Skin,
    pub(super) mqd: i32,
    pub(super) name: CString,
}

impl<'a> Queue<'a> {
    pub(super) fn create(
        skin: &'a dyn Skin,
        maxmsg: i64,
        msgsize: i64,
        nonblocking: bool,
    ) -> Result<Self, Errno> {
        let name = fresh_name();
        let mqd = skin.create_queue(&name, maxmsg, msgsize, nonblocking)?;
        Ok(Queue { skin, mqd, name })
    }

    /// Receives into a buffer of 64 bytes.
    pub(super) fn receive(&self) -> Result<(Vec<u8>, u32), Errno> {
        let mut buffer = [0; 64];
        let (length, priority) = self.skin.receive(self.mqd, &mut buffer)?;
        Ok((buffer[..length].to_vec(), priority))
    }

    pub(super) fn send(&self, message: &[u8], priority: u32) -> Result<(), Errno> {
        self.skin.send(self.mqd, message, priority)
    }
}

impl Drop for Queue<'_> {
    fn drop(&mut self) {
        // Also where the rule did it already.
        let _ = self.skin.unlink_queue(&self.name);
        let _ = self.skin.close_queue(self.mqd);
    }
}

/// Runs a helper on a promoted thread of its own, beside this one. It says how it ended where it is
/// joined.
pub(super) fn beside<'scope, T: Send + 'scope>(
    scope: &'scope std::thread::Scope<'scope, '_>,
    skin: &'scope dyn Skin,
    helper: impl FnOnce() -> Result<T, Stop> + Send + 'scope,
) -> std::thread::ScopedJoinHandle<'scope, Result<T, Stop>> {
    scope.spawn(move || {
        skin.promote(crate::run::PRIORITY)?;
        helper()
    })
}

/// What a helper ended with.
pub(super) fn joined<T>(
    handle: std::thread::ScopedJoinHandle<'_, Result<T, Stop>>,
) -> Result<T, Stop> {
    handle
        .join()
        .map_err(|_| broken("a helping thread panicked"))?
}

/// Has a blocking call interrupted by a Linux signal: sends SIGURG to the thread, again and again,
/// until it came back.
pub(super) fn interrupted<T: Debug + Send>(
    skin: &dyn Skin,
    call: impl FnOnce() -> Result<T, Errno> + Send,
) -> Result<String, Stop> {
    let promote = || Ok(skin.promote(crate::run::PRIORITY)?);
    let pause = || {
        let _ = skin.sleep(Duration::from_millis(2), false);
    };
    interrupted_by(promote, pause, call)
}

/// The same, with how the calling thread is promoted and how the other one passes a short time.
pub(super) fn interrupted_by<T: Debug + Send>(
    promote: impl FnOnce() -> Result<(), Stop> + Send,
    pause: impl Fn(),
    call: impl FnOnce() -> Result<T, Errno> + Send,
) -> Result<String, Stop> {
    extern "C" fn nothing(_: libc::c_int) {}
    // SAFETY: the action is zero but for a handler that does nothing; without SA_RESTART.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = nothing as extern "C" fn(libc::c_int) as libc::sighandler_t;
        libc::sigaction(libc::SIGURG, &raw const action, std::ptr::null_mut());
    }
    let back = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let (tell, told) = std::sync::mpsc::channel();
        let back = &back;
        let victim = scope.spawn(move || {
            promote()?;
            unblock(libc::SIGURG);
            let _ = tell.send(crate::skin::me().pthread);
            let result = call();
            back.store(true, Ordering::Release);
            refused("the interrupted call", result, libc::EINTR)
        });
        if let Ok(thread) = told.recv() {
            while !back.load(Ordering::Acquire) && !victim.is_finished() {
                pause();
                // SAFETY: a thread that is not joined yet.
                unsafe { libc::pthread_kill(thread, libc::SIGURG) };
            }
        }
        joined(victim)
    })
}

fn unblock(signo: libc::c_int) {
    // SAFETY: the set is initialised before it is used, a null old set is allowed.
    unsafe {
        let mut set = std::mem::zeroed();
        libc::sigemptyset(&raw mut set);
        libc::sigaddset(&raw mut set, signo);
        libc::pthread_sigmask(libc::SIG_UNBLOCK, &raw const set, std::ptr::null_mut());
    }
}

/// Whether Linux has a queue of this name.
pub(super) fn linux_has_queue(name: &CStr) -> bool {
    // SAFETY: a terminated string; the descriptor is closed again.
    unsafe {
        let mqd = libc::mq_open(name.as_ptr(), libc::O_RDONLY | libc::O_NONBLOCK);
        if mqd >= 0 {
            libc::mq_close(mqd);
        }
        mqd >= 0
    }
}

/// RLIMIT_SIGPENDING, put back at the end.
pub(super) struct PendingLimit(libc::rlimit);

impl PendingLimit {
    pub(super) fn set(soft: libc::rlim_t) -> Result<PendingLimit, Stop> {
        let mut old = libc::rlimit {
            rlim_cur: 0,
            rlim_max: 0,
        };
        // SAFETY: ours to write and to read.
        let rc = unsafe {
            libc::getrlimit(libc::RLIMIT_SIGPENDING, &raw mut old);
            let new = libc::rlimit {
                rlim_cur: soft.min(old.rlim_max),
                ..old
            };
            libc::setrlimit(libc::RLIMIT_SIGPENDING, &raw const new)
        };
        if rc < 0 {
            Err(skipped("RLIMIT_SIGPENDING cannot be lowered"))
        } else {
            Ok(PendingLimit(old))
        }
    }
}

impl Drop for PendingLimit {
    fn drop(&mut self) {
        // SAFETY: what it was.
        unsafe { libc::setrlimit(libc::RLIMIT_SIGPENDING, &raw const self.0) };
    }
}
