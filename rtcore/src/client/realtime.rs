//! Making the calling thread a real-time one (sched(7), mlockall(2)), with errors that name the
//! line that grants it.

use super::core::Core;
use crate::channel::error::ForkedText;
use crate::sys::forked::Forked;
use crate::sys::permission_hints::PermissionHint;
use crate::sys::{limits, memory, sched};
use crate::wire::{Channel, Name};
use std::io::{self, Write as _};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use thiserror::Error;

/// Lowest SCHED_FIFO priority.
const PRIORITY_MIN: u8 = 1;

/// The real-time settings for a thread; see [`Session::realtime`](super::Session::realtime).
///
/// One rule holds here and at every registration: **a thread runs below each lane that it sends or
/// receives in**, because otherwise it could keep the lane's thread, which serves it, from running.
/// [`RealTimeBuilder::enter`] applies it to the lane that is named, and the session declares that
/// lane whenever it registers with rtd, also after a restart of rtd. If a thread got its priority
/// by other means, rtd knows only the lanes of the process: the thread must be below the highest of
/// them, and rtd logs a warning if it is not below the others.
///
/// ```no_run
/// # use rtcore::client::Session;
/// # let session = Session::connect("arm")?;
/// let granted = session
///     .realtime()
///     .lane("control")
///     .below(1)
///     .cpu(1)
///     .lock_memory(true)
///     .prefault_stack(128 * 1024)
///     .heap(4 * 1024 * 1024)
///     .enter()?;
/// println!("SCHED_FIFO {}", granted.priority());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
pub struct RealTimeBuilder {
    channels: Vec<Channel>,
    core: Arc<Core>,
    lane: Option<String>,
    below: u8,
    cpu: Option<usize>,
    lock: bool,
    stack_bytes: usize,
    heap_bytes: usize,
}

/// The settings that a thread was granted. They last until the thread ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RealTime {
    priority: u8,
    cpu: Option<usize>,
}

impl RealTime {
    /// SCHED_FIFO priority.
    pub fn priority(&self) -> u8 {
        self.priority
    }

    /// The CPU that it is pinned to, if any.
    pub fn cpu(&self) -> Option<usize> {
        self.cpu
    }
}

/// Why a thread is not real-time.
#[derive(Debug, Error)]
pub enum RealTimeError {
    /// No lane was named, or no channel of the session is in that lane.
    #[error(
        "{asked}: a thread must run below the ceiling of the lane that it uses; lanes of this \
         session: \
         {lanes}"
    )]
    Lane {
        /// The requested lane.
        asked: String,
        /// The lanes of the session.
        lanes: String,
    },
    /// The requested priority is too low or not below the lane.
    #[error(
        "lane `{lane}` runs at SCHED_FIFO {ceiling}, and {below} below that is not a priority: \
         pass 1 to {} to \
         below(), or raise [[lane]] priority",
        .ceiling.saturating_sub(1)
    )]
    Below {
        /// Name of the lane.
        lane: String,
        /// Its priority.
        ceiling: u8,
        /// The requested distance.
        below: u8,
    },
    /// The requested stack is larger than a thread is certain to have.
    #[error(
        "cannot prefault {bytes} bytes of stack: a thread is certain to have only {max}; pass less"
    )]
    Stack {
        /// The requested size.
        bytes: usize,
        /// The limit.
        max: usize,
    },
    /// This process is the child of a fork(2) of the one that opened the session.
    #[error("cannot make the thread real-time: {}", ForkedText(*creator))]
    Forked {
        /// Pid of the process that opened the session.
        creator: u32,
    },
    /// The kernel refused.
    #[error("{what}: {source}\n{fix}")]
    Refused {
        /// The setting that was refused.
        what: String,
        /// The kernel's error.
        source: io::Error,
        /// The line that grants it.
        fix: String,
    },
}

impl RealTimeBuilder {
    pub(super) fn new(channels: Vec<Channel>, core: Arc<Core>) -> RealTimeBuilder {
        RealTimeBuilder {
            channels,
            core,
            lane: None,
            below: 1,
            cpu: None,
            lock: true,
            stack_bytes: 0,
            heap_bytes: 0,
        }
    }

    /// Selects the lane: the lowest one that the thread sends or receives in.
    pub fn lane(mut self, name: &str) -> RealTimeBuilder {
        self.lane = Some(name.to_owned());
        self
    }

    /// Sets the distance below the lane's priority; 1 by default. 0 is refused, because the daemon
    /// could not preempt the thread.
    pub fn below(mut self, steps: u8) -> RealTimeBuilder {
        self.below = steps;
        self
    }

    /// Pins the thread to this CPU. By default its CPUs do not change.
    pub fn cpu(mut self, cpu: usize) -> RealTimeBuilder {
        self.cpu = Some(cpu);
        self
    }

    /// Locks all memory that the process has at that time; true by default. Rings are locked in any
    /// case, including later ones.
    pub fn lock_memory(mut self, lock: bool) -> RealTimeBuilder {
        self.lock = lock;
        self
    }

    /// Touches this many bytes of the thread's stack, at most [`memory::PREFAULT_STACK_BYTES_MAX`].
    pub fn prefault_stack(mut self, bytes: usize) -> RealTimeBuilder {
        self.stack_bytes = bytes;
        self
    }

    /// Reserves this many bytes of heap and keeps freed memory, for the whole process (mallopt(3)).
    /// It is better not to allocate at all.
    pub fn heap(mut self, bytes: usize) -> RealTimeBuilder {
        self.heap_bytes = bytes;
        self
    }

    /// Applies the settings in a safe order: memory, CPU, and the priority last. It uses the calls
    /// of the session's skin: on Cobalt the thread becomes a Cobalt thread.
    ///
    /// If RLIMIT_RTTIME limits how long the thread may run without sleeping, it prints one warning
    /// on standard error, once in the process, because the kernel would end the process without a
    /// message.
    ///
    /// Errors: [`RealTimeError`]; settings that were granted before the failure stay.
    pub fn enter(self) -> Result<RealTime, RealTimeError> {
        let creator = |forked: Forked| RealTimeError::Forked {
            creator: forked.creator,
        };
        self.core.check().map_err(creator)?;
        let (lane, priority) = self.priority()?;
        if self.stack_bytes > memory::PREFAULT_STACK_BYTES_MAX {
            let max = memory::PREFAULT_STACK_BYTES_MAX;
            return Err(RealTimeError::Stack {
                bytes: self.stack_bytes,
                max,
            });
        }
        if self.heap_bytes > 0 {
            memory::prefault_heap(self.heap_bytes);
        }
        memory::prefault_stack_by(self.stack_bytes);
        limits::raise_soft();
        if self.lock {
            memory::lock_all().map_err(refused(
                "locking memory (mlockall)".to_owned(),
                PermissionHint::Memory,
            ))?;
        }
        if let Some(cpu) = self.cpu {
            sched::pin(cpu).map_err(refused(
                format!("pinning to CPU {cpu}"),
                PermissionHint::Pinning,
            ))?;
        }
        (self.core.skin.setup.promote)(priority).map_err(refused(
            format!("SCHED_FIFO {priority}"),
            PermissionHint::Fifo,
        ))?;
        self.core.entered(lane);
        warn_of_cpu_time();
        Ok(RealTime {
            priority,
            cpu: self.cpu,
        })
    }

    fn priority(&self) -> Result<(Name, u8), RealTimeError> {
        let named = |channel: &&Channel| Some(channel.lane.as_str()) == self.lane.as_deref();
        let Some(lane) = self.channels.iter().find(named) else {
            let mut lanes: Vec<&str> = self
                .channels
                .iter()
                .map(|channel| channel.lane.as_str())
                .collect();
            lanes.sort_unstable();
            lanes.dedup();
            let lanes = if lanes.is_empty() {
                "none".to_owned()
            } else {
                lanes.join(", ")
            };
            let asked = self
                .lane
                .as_ref()
                .map_or("no lane was named".to_owned(), |l| format!("no lane `{l}`"));
            return Err(RealTimeError::Lane { asked, lanes });
        };
        let (ceiling, below) = (lane.priority, self.below);
        let priority = ceiling
            .checked_sub(below)
            .filter(|priority| *priority >= PRIORITY_MIN && below > 0);
        let below = || RealTimeError::Below {
            lane: lane.lane.as_str().to_owned(),
            ceiling,
            below,
        };
        priority
            .map(|priority| (lane.lane, priority))
            .ok_or_else(below)
    }
}

/// Writes to standard error, because the process may be gone before anybody can read the value.
fn warn_of_cpu_time() {
    // Not a Once: a thread that held it during a fork would block the child without end.
    static DONE: AtomicBool = AtomicBool::new(false);
    if !DONE.swap(true, Ordering::Relaxed)
        && let Some(warning) = limits::real_time_warning("this process")
    {
        let _ = writeln!(io::stderr(), "rtd client: warning: {warning}");
    }
}

fn refused(what: String, hint: PermissionHint) -> impl FnOnce(io::Error) -> RealTimeError {
    let program =
        std::env::current_exe().map_or("PROGRAM".to_owned(), |path| path.display().to_string());
    move |source| RealTimeError::Refused {
        what,
        source,
        fix: hint.fix(&program),
    }
}
