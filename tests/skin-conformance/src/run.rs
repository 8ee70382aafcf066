//! Runs rules one after the other and says how each ended.

use crate::rules::Rule;
use crate::skin::{Skin, Stop};
use std::any::Any;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::Duration;

/// A rule that has not returned by then never will: the longest sleeps for a fraction of a second.
const PATIENCE: Duration = Duration::from_secs(10);

/// SCHED_FIFO priority of the threads that rules run on.
pub(crate) const PRIORITY: i32 = 10;

/// How a rule ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Kept.
    Pass,
    /// Broken.
    Fail,
    /// Not applicable.
    Skip,
}

/// A rule that ran.
#[derive(Clone, Debug)]
pub struct Line {
    /// Its name.
    pub rule: &'static str,
    /// How it ended.
    pub verdict: Verdict,
    /// What was seen; may be empty.
    pub seen: String,
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let verdict = match self.verdict {
            Verdict::Pass => "pass",
            Verdict::Fail => "FAIL",
            Verdict::Skip => "skip",
        };
        write!(f, "{verdict}  {}", self.rule)?;
        if self.seen.is_empty() {
            Ok(())
        } else {
            write!(f, "  ({})", self.seen)
        }
    }
}

/// Something that rules run against: how a thread becomes real-time on it.
pub trait Subject: Sync {
    /// Makes the calling thread real-time; else why not.
    fn promote_to(&self, priority: i32) -> Result<(), String>;
}

impl Subject for dyn Skin {
    fn promote_to(&self, priority: i32) -> Result<(), String> {
        self.promote(priority).map_err(|errno| errno.to_string())
    }
}

impl Subject for rtcore::skin::Skin {
    fn promote_to(&self, priority: i32) -> Result<(), String> {
        let priority = u8::try_from(priority).map_err(|e| e.to_string())?;
        (self.setup.promote)(priority).map_err(|e| e.to_string())
    }
}

/// Runs a rule on a promoted thread of its own. A rule that hangs is given up with its thread.
pub fn run<S: Subject + ?Sized>(rule: &Rule<S>, subject: &'static S) -> Line {
    let (done, ended) = mpsc::channel();
    let check = rule.check;
    // Without a join: a thread that hangs does so until the process ends.
    std::thread::spawn(move || {
        block_all_signals();
        let verdict = match subject.promote_to(PRIORITY) {
            Ok(()) => guarded(|| check(subject)),
            Err(why) => Err(Stop::Broken(format!(
                "its thread was not promoted to SCHED_FIFO {PRIORITY}: {why}"
            ))),
        };
        let _ = done.send(verdict);
    });
    let verdict = match ended.recv_timeout(PATIENCE) {
        Ok(verdict) => verdict,
        Err(RecvTimeoutError::Timeout) => Err(Stop::Broken(format!(
            "no end after {} s",
            PATIENCE.as_secs()
        ))),
        Err(RecvTimeoutError::Disconnected) => {
            Err(Stop::Broken("its thread ended early".to_owned()))
        }
    };
    line(rule.name, verdict)
}

/// Runs a rule on the calling thread: for those that come before the process is bound.
pub fn run_here(rule: &Rule, skin: &'static dyn Skin) -> Line {
    line(rule.name, guarded(|| (rule.check)(skin)))
}

fn line(rule: &'static str, verdict: crate::skin::Ending) -> Line {
    let (verdict, seen) = match verdict {
        Ok(seen) => (Verdict::Pass, seen),
        Err(Stop::Broken(seen)) => (Verdict::Fail, seen),
        Err(Stop::Skipped(why)) => (Verdict::Skip, why),
    };
    Line {
        rule,
        verdict,
        seen,
    }
}

fn guarded(check: impl FnOnce() -> crate::skin::Ending) -> crate::skin::Ending {
    catch_unwind(AssertUnwindSafe(check)).unwrap_or_else(|panic| Err(Stop::Broken(words(&*panic))))
}

fn words(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or(panic.downcast_ref::<&str>().copied())
        .unwrap_or("panicked")
        .to_owned()
}

/// Linux's signals; where the skin's are Linux's they can be waited for only when blocked. Two are
/// libcobalt's own, with handlers: SIGWINCH takes a thread back to real time, SIGXCPU says why it
/// left.
fn block_all_signals() {
    // SAFETY: sigfillset initialises the set, a null old set is allowed.
    unsafe {
        let mut all = std::mem::zeroed();
        libc::sigfillset(&raw mut all);
        libc::sigdelset(&raw mut all, libc::SIGWINCH);
        libc::sigdelset(&raw mut all, libc::SIGXCPU);
        libc::pthread_sigmask(libc::SIG_SETMASK, &raw const all, std::ptr::null_mut());
    }
}
