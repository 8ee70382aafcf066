//! Named points at which a test build fails on request: faults from inside, for the fault campaign
//! (`tests/faults`).
//!
//! [`fault_point!`](crate::fault_point) marks the place between two steps that belong together. A
//! build without the cargo feature `fault-points` has no code there; only the spelling of the name
//! is checked, by the compiler. A build with the feature maps a [`Page`] when it starts (`attach`).
//! The campaign shares that page: it arms one point at a time there, and a process that reaches the
//! point then ends by SIGKILL, sleeps, or takes the failure that the point names.
//!
//! A point on a real-time path costs one load while it is not armed. It never allocates, opens or
//! locks anything.

use crate::sys::{clock, process};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

/// The points, by name. Each is at one place.
pub const POINTS: [&str; 20] = [
    // A lane, with a message in hand.
    "after_dequeue_before_dispatch",
    "between_two_receivers",
    "after_delivery_before_ledger",
    "after_queued_delivery_before_ledger",
    "after_dispatch_before_release",
    "after_release_before_ledger_is_shown",
    "before_stop_gives_up_on_queued",
    "after_stop_gave_up_on_queued",
    // The control thread: sessions, registrations, start and stop.
    "after_rings_sent_before_map",
    "after_mapped_before_attach",
    "after_attach_before_kept",
    "after_announce_before_ready",
    "after_leave_before_partners_know",
    "between_frames_of_direct_ring",
    "after_draft_before_rename",
    "after_page_filled_before_named",
    "after_adoption_before_lanes",
    // A client, and for rings also a lane.
    "after_reserve_before_publish",
    "after_take_before_count",
    "after_map_before_mapped",
];

/// The feature's mark: the environment variable that names the file of the page. A program without
/// fault points does not contain this text.
#[cfg(feature = "fault-points")]
pub const VARIABLE: &str = "RTD_FAULT_POINTS";

/// The number of a point.
///
/// Panics if there is no such point: while the program is compiled, as
/// [`fault_point!`](crate::fault_point) calls it.
pub const fn number(name: &str) -> u32 {
    let (mut at, mut count) = (0, 0);
    while at < POINTS.len() {
        if same(POINTS[at], name) {
            return count;
        }
        (at, count) = (at + 1, count + 1);
    }
    panic!("POINTS in rtcore/src/fault.rs has no such fault point")
}

const fn same(a: &str, b: &str) -> bool {
    let (a, b) = (a.as_bytes(), b.as_bytes());
    let mut at = 0;
    while at < a.len() && at < b.len() && a[at] == b[at] {
        at += 1;
    }
    at == a.len() && at == b.len()
}

/// A place at which a test build fails on request; see [the module](crate::fault).
///
/// `fault_point!("name")` may end the process or delay it. `fault_point!("name", failure)` also
/// evaluates `failure` (a `return`, say) if the armed action is
/// [`Action::Fail`](crate::fault::Action::Fail).
#[cfg(feature = "fault-points")]
#[macro_export]
macro_rules! fault_point {
    ($name:literal) => {
        $crate::fault::reach(const { $crate::fault::number($name) });
    };
    ($name:literal, $failure:expr) => {
        if $crate::fault::reach(const { $crate::fault::number($name) }) {
            $failure;
        }
    };
}

/// A place at which a test build fails on request; see [the module](crate::fault). Nothing in this
/// build.
#[cfg(not(feature = "fault-points"))]
#[macro_export]
macro_rules! fault_point {
    ($name:literal $(, $failure:expr)?) => {
        const _: u32 = $crate::fault::number($name);
    };
}

/// The action of a process at the armed point.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Action {
    /// It ends by SIGKILL.
    Kill = 1,
    /// The process sleeps at the point.
    Delay = 2,
    /// The call at the point fails. It has no effect at a point without such a call.
    Fail = 3,
}

/// An order: the point, the action there, and how often it fires.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Order {
    /// [`number`] of the point.
    pub point: u32,
    /// What the point does when it fires.
    pub action: Action,
    /// The affected process; 0: any process that reaches the point.
    pub pid: u32,
    /// Limit of the number of times.
    pub times: u32,
    /// Probability each time, in units of 2^-32.
    pub chance: u32,
    /// Length of a delay.
    pub delay_ns: u64,
    /// Seed of the random numbers.
    pub seed: u64,
}

/// The lower half of [`Page::strikes`].
const LEFT: u64 = u32::MAX as u64;

/// The memory that the campaign shares with the processes that it arms. Zero: nothing is armed.
#[derive(Debug, Default, zerocopy::FromBytes)]
#[repr(C)]
pub struct Page {
    /// The armed point and 1; 0: none. Written last.
    point: AtomicU32,
    pid: AtomicU32,
    action: AtomicU32,
    chance: AtomicU32,
    /// Number of times that the point has fired (upper half), and that it may still fire (lower
    /// half).
    strikes: AtomicU64,
    delay_ns: AtomicU64,
    draw: AtomicU64,
}

impl Page {
    /// Arms a point.
    pub fn arm(&self, order: &Order) {
        self.disarm();
        self.pid.store(order.pid, Ordering::Relaxed);
        self.action.store(order.action as u32, Ordering::Relaxed);
        self.chance.store(order.chance, Ordering::Relaxed);
        self.strikes.store(order.times.into(), Ordering::Relaxed);
        self.delay_ns.store(order.delay_ns, Ordering::Relaxed);
        // A xorshift generator never leaves 0.
        self.draw.store(order.seed | 1, Ordering::Relaxed);
        self.point.store(order.point + 1, Ordering::Release);
    }

    /// Disarms the point; returns how often it has fired.
    pub fn disarm(&self) -> u64 {
        self.point.store(0, Ordering::Relaxed);
        // A process that saw the point armed may be about to fire: this decides.
        self.strikes.fetch_and(!LEFT, Ordering::AcqRel) >> 32
    }

    /// Number of times that the point has fired since it was armed.
    pub fn struck(&self) -> u64 {
        self.strikes.load(Ordering::Acquire) >> 32
    }

    /// The action for process `pid` at this point now.
    #[inline]
    pub fn strikes(&self, point: u32, pid: u32) -> Option<Action> {
        let armed = self.point.load(Ordering::Acquire) == point + 1;
        if armed { self.draw(pid) } else { None }
    }

    #[cold]
    fn draw(&self, pid: u32) -> Option<Action> {
        let meant = self.pid.load(Ordering::Relaxed);
        if meant != 0 && meant != pid {
            return None;
        }
        // Two threads that draw at once may get the same number, which does no harm.
        let mut draw = self.draw.load(Ordering::Relaxed);
        draw ^= draw << 13;
        draw ^= draw >> 7;
        draw ^= draw << 17;
        self.draw.store(draw, Ordering::Relaxed);
        if draw >> 32 >= u64::from(self.chance.load(Ordering::Relaxed)) {
            return None;
        }
        let once_more = |strikes: u64| (strikes & LEFT > 0).then(|| strikes + (1 << 32) - 1);
        self.strikes
            .fetch_update(Ordering::AcqRel, Ordering::Relaxed, once_more)
            .ok()?;
        match self.action.load(Ordering::Relaxed) {
            1 => Some(Action::Kill),
            2 => Some(Action::Delay),
            3 => Some(Action::Fail),
            _ => None,
        }
    }

    /// Carries out the order; true if the call at the point must fail.
    pub fn reach(&self, point: u32, pid: u32) -> bool {
        match self.strikes(point, pid) {
            None => false,
            Some(Action::Kill) => process::kill_this(),
            Some(Action::Delay) => {
                clock::sleep_until(clock::monotonic_ns() + self.delay_ns.load(Ordering::Relaxed));
                false
            }
            Some(Action::Fail) => true,
        }
    }
}

#[cfg(feature = "fault-points")]
pub use attached::{attach, reach};

#[cfg(feature = "fault-points")]
mod attached {
    use super::{Page, VARIABLE};
    use crate::sys::shm::Mapping;
    use std::fs::File;
    use std::io;
    use std::sync::OnceLock;

    struct Attached {
        memory: Mapping,
        pid: u32,
    }

    static ATTACHED: OnceLock<Attached> = OnceLock::new();

    /// Maps the page that the environment names. Without one, no point ever fires. Call it once,
    /// when the program starts.
    ///
    /// Errors: the file cannot be opened or mapped.
    pub fn attach() -> io::Result<()> {
        let Some(path) = std::env::var_os(VARIABLE) else {
            return Ok(());
        };
        let file = File::options().read(true).write(true).open(path)?;
        if file.metadata()?.len() < size_of::<Page>() as u64 {
            return Err(io::Error::other("the page of fault points is too short"));
        }
        let memory = Mapping::new(&file, size_of::<Page>())?;
        // A second call changes nothing.
        let _ = ATTACHED.set(Attached {
            memory,
            pid: std::process::id(),
        });
        Ok(())
    }

    /// Called at a point; true if the call there must fail.
    #[inline]
    pub fn reach(point: u32) -> bool {
        let Some(Attached { memory, pid }) = ATTACHED.get() else {
            return false;
        };
        // SAFETY: the file is written by the campaign's `Page` only, which is atomics; the mapping
        // is never dropped.
        unsafe { memory.view::<Page>(0) }.reach(point, *pid)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::{Path, PathBuf};

    fn order(point: u32, action: Action) -> Order {
        Order {
            point,
            action,
            pid: 0,
            times: 1,
            chance: u32::MAX,
            delay_ns: 0,
            seed: 7,
        }
    }

    #[test]
    fn an_armed_point_strikes_as_often_as_ordered_and_no_other_does() {
        let page = Page::default();
        assert_eq!(page.strikes(3, 1), None, "nothing is armed");
        page.arm(&Order {
            times: 2,
            ..order(3, Action::Fail)
        });
        assert_eq!(page.strikes(4, 1), None);
        assert!(page.reach(3, 1));
        assert_eq!(
            (page.strikes(3, 1), page.strikes(3, 1)),
            (Some(Action::Fail), None)
        );
        assert_eq!(page.struck(), 2);
        page.arm(&order(3, Action::Delay));
        assert_eq!(page.disarm(), 0);
        assert!(!page.reach(3, 1), "disarmed");
    }

    #[test]
    fn only_the_process_that_is_meant_is_struck() {
        let page = Page::default();
        page.arm(&Order {
            pid: 20,
            ..order(0, Action::Kill)
        });
        assert_eq!(
            (page.strikes(0, 21), page.strikes(0, 20)),
            (None, Some(Action::Kill))
        );
    }

    #[test]
    fn a_point_strikes_with_the_probability_that_was_ordered() {
        let page = Page::default();
        page.arm(&Order {
            times: u32::MAX,
            chance: u32::MAX / 4,
            ..order(5, Action::Delay)
        });
        let struck = (0..10_000).filter(|_| page.strikes(5, 1).is_some()).count();
        assert!((2_000..3_000).contains(&struck), "{struck} of 10000");
    }

    fn sources(dir: &Path, found: &mut Vec<PathBuf>) {
        for entry in std::fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                sources(&path, found);
            } else if path.extension().is_some_and(|end| end == "rs") && !path.ends_with("fault.rs")
            {
                found.push(path);
            }
        }
    }

    #[test]
    fn each_point_is_at_one_place() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let mut files = Vec::new();
        for dir in ["src", "../rtd/src"] {
            sources(&root.join(dir), &mut files);
        }
        let text: String = files
            .iter()
            .map(|file| std::fs::read_to_string(file).unwrap())
            .collect();
        // As if each were on one line.
        let text: String = text.split_whitespace().collect();
        for name in POINTS {
            let places = text.matches(&format!("fault_point!(\"{name}\"")).count();
            assert_eq!(places, 1, "{name}");
        }
        assert_eq!(text.matches("fault_point!(\"").count(), POINTS.len());
    }
}
