//! The handlers per signal number, in the order in which they are called.
//!
//! Constraint: a handler is taken out while it runs, so that the registry is not locked meanwhile
//! and the handler may change it, even its own entry. A value that leaves the registry is returned
//! to the caller, which drops it outside the lock, because dropping a handler may run any code,
//! too. Invariant: at most one handler is [`State::Running`], as there is one dispatcher.

use super::{HandlerId, Notice, Origin, SignalsError};
use crate::client::inbox::Inbox;
use crate::sys::rtsignal;
use std::sync::atomic::{AtomicU64, Ordering};

/// Limit of the handlers of one signal number.
pub const HANDLERS_MAX: usize = 64;

/// The type of a handler.
pub(super) type Handler = Box<dyn FnMut(&Notice<'_>) + Send>;
type Filter = Box<dyn Fn(&Origin) -> bool + Send>;

/// When and in which order a handler is called. Default: for every signal, after the handlers that
/// are already registered.
#[derive(Default)]
pub struct Flags {
    once: bool,
    first: bool,
    only_from: Option<Filter>,
}

impl Flags {
    /// For every signal, after the handlers that are already registered.
    pub fn new() -> Flags {
        Flags::default()
    }

    /// The handler is removed after its first call. (A signal that [`Flags::only_from`] excludes is
    /// not a call.)
    #[must_use]
    pub fn once(mut self) -> Flags {
        self.once = true;
        self
    }

    /// The handler comes before the others; among several of these, the one that was registered
    /// last comes first.
    #[must_use]
    pub fn first(mut self) -> Flags {
        self.first = true;
        self
    }

    /// The handler is called only for signals whose origin passes. The predicate runs on the
    /// dispatcher thread, before each call.
    ///
    /// The reliability of an origin: `verified` is true if the kernel wrote it (kill(2),
    /// tgkill(2)), or if a message came through a ring ([`Notice::head`]) whose sender the daemon
    /// has verified. A *queued* signal (sigqueue(3)) carries the values that its sender wrote, so
    /// its origin is a claim of a process that may signal this one. rtd writes the verified origin
    /// into the signals that it passes on, but the kernel cannot prove to the receiver that rtd
    /// wrote it. For queued signals this filter is therefore no access control. For access control,
    /// give the endpoint a ring (`msgsize`) and check `verified`, or rely on the daemon's policy
    /// and a user id of the program's own.
    #[must_use]
    pub fn only_from(mut self, predicate: impl Fn(&Origin) -> bool + Send + 'static) -> Flags {
        self.only_from = Some(Box::new(predicate));
        self
    }
}

impl std::fmt::Debug for Flags {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Flags")
            .field("once", &self.once)
            .field("first", &self.first)
            .field("only_from", &self.only_from.is_some())
            .finish()
    }
}

/// A handler with its filter, out of the registry while it runs.
pub(super) struct Callee {
    filter: Option<Filter>,
    handler: Handler,
}

impl Callee {
    /// Calls the handler if the filter accepts the origin; sets `called` when the call begins.
    pub(super) fn call(&mut self, notice: &Notice<'_>, called: &mut bool) {
        if self
            .filter
            .as_ref()
            .is_some_and(|passes| !passes(&notice.origin))
        {
            return;
        }
        *called = true;
        (self.handler)(notice);
    }
}

/// The fate of a running handler when it returns.
enum Next {
    Stay,
    Go,
    Become(Handler),
}

impl Next {
    fn left(self) -> Left {
        if let Next::Become(handler) = self {
            left(handler)
        } else {
            None
        }
    }
}

enum State {
    Idle(Callee),
    Running(Next),
}

struct Entry {
    id: HandlerId,
    once: bool,
    state: State,
}

/// All handlers.
pub(super) struct Registry {
    /// By signal number; index 0 is unused.
    entries: [Vec<Entry>; 65],
    /// Signals that the dispatcher takes, as a mask. A signal stays in it when its last handler is
    /// removed: see [`super::Signals`].
    pub(super) taken: u64,
    /// Inboxes for rings beside signals, until the dispatcher takes them.
    pub(super) inboxes: Vec<(i32, Inbox)>,
}

/// A value that a change removed from the registry, to be dropped outside the lock.
pub(super) type Left = Option<Box<dyn Send>>;

fn left(value: impl Send + 'static) -> Left {
    Some(Box::new(value))
}

impl Registry {
    pub(super) fn new() -> Registry {
        Registry {
            entries: [const { Vec::new() }; 65],
            taken: 0,
            inboxes: Vec::new(),
        }
    }

    /// The entries of the signal; an invalid number, which no caller passes, gets the unused ones.
    fn of(&mut self, signo: i32) -> &mut Vec<Entry> {
        let index = usize::try_from(signo)
            .ok()
            .filter(|&n| n < self.entries.len())
            .unwrap_or(0);
        &mut self.entries[index]
    }

    /// Adds a handler where the flags say, and the signal to the mask of taken ones. Returns a
    /// refused handler.
    pub(super) fn add(
        &mut self,
        signo: i32,
        flags: Flags,
        handler: Handler,
    ) -> (Result<HandlerId, SignalsError>, Left) {
        // Unique in the process, so that an id that is passed to the wrong `Signals` does not name
        // a handler there.
        static NEXT: AtomicU64 = AtomicU64::new(1);
        let callee = Callee {
            filter: flags.only_from,
            handler,
        };
        let entries = self.of(signo);
        if entries.len() >= HANDLERS_MAX {
            return (
                Err(SignalsError::TooMany {
                    signo,
                    limit: HANDLERS_MAX,
                }),
                left(callee),
            );
        }
        let id = HandlerId {
            signo,
            number: NEXT.fetch_add(1, Ordering::Relaxed),
        };
        let at = if flags.first { 0 } else { entries.len() };
        entries.insert(
            at,
            Entry {
                id,
                once: flags.once,
                state: State::Idle(callee),
            },
        );
        self.taken |= rtsignal::bit(signo);
        (Ok(id), None)
    }

    /// Replaces a handler; its flags stay. Returns the handler that is no longer needed.
    pub(super) fn replace(
        &mut self,
        id: HandlerId,
        handler: Handler,
    ) -> (Result<(), SignalsError>, Left) {
        match self.find(id) {
            Some(Entry {
                state: State::Idle(callee),
                ..
            }) => (
                Ok(()),
                left(std::mem::replace(&mut callee.handler, handler)),
            ),
            Some(Entry {
                state: State::Running(next),
                ..
            }) if !matches!(next, Next::Go) => (
                Ok(()),
                std::mem::replace(next, Next::Become(handler)).left(),
            ),
            _ => (Err(SignalsError::NoSuchHandler { id }), left(handler)),
        }
    }

    /// Removes a handler; a running one is removed when it returns.
    pub(super) fn remove(&mut self, id: HandlerId) -> Result<Left, SignalsError> {
        match self.find(id) {
            Some(Entry {
                state: State::Idle(_),
                ..
            }) => Ok(self.take_out(id)),
            Some(Entry {
                state: State::Running(next),
                ..
            }) if !matches!(next, Next::Go) => Ok(std::mem::replace(next, Next::Go).left()),
            _ => Err(SignalsError::NoSuchHandler { id }),
        }
    }

    /// Writes the signal's handlers in order into `ids`; returns their number.
    pub(super) fn list(
        &mut self,
        signo: i32,
        ids: &mut [Option<HandlerId>; HANDLERS_MAX],
    ) -> usize {
        let entries = self.of(signo);
        for (slot, entry) in ids.iter_mut().zip(entries.iter()) {
            *slot = Some(entry.id);
        }
        entries.len()
    }

    /// Takes a handler out to run it; none if it was removed meanwhile.
    pub(super) fn begin(&mut self, id: HandlerId) -> Option<Callee> {
        let entry = self.find(id)?;
        match std::mem::replace(&mut entry.state, State::Running(Next::Stay)) {
            State::Idle(callee) => Some(callee),
            // Unreachable: there is one dispatcher.
            running @ State::Running(_) => {
                entry.state = running;
                None
            }
        }
    }

    /// Puts a handler back after its call, or carries out a change that was requested meanwhile.
    pub(super) fn end(&mut self, id: HandlerId, mut callee: Callee, called: bool) -> Left {
        let Some(entry) = self.find(id) else {
            return left(callee);
        };
        match std::mem::replace(&mut entry.state, State::Running(Next::Stay)) {
            State::Running(Next::Become(handler)) => {
                let former = std::mem::replace(&mut callee.handler, handler);
                // A new handler: the first call of a one-shot is still to come.
                entry.state = State::Idle(callee);
                left(former)
            }
            State::Running(Next::Stay) if !(entry.once && called) => {
                entry.state = State::Idle(callee);
                None
            }
            _ => {
                self.take_out(id);
                left(callee)
            }
        }
    }

    fn find(&mut self, id: HandlerId) -> Option<&mut Entry> {
        self.of(id.signo).iter_mut().find(|entry| entry.id == id)
    }

    fn take_out(&mut self, id: HandlerId) -> Left {
        let entries = self.of(id.signo);
        let at = entries.iter().position(|entry| entry.id == id)?;
        left(entries.remove(at))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::{Arc, Mutex};

    const SIGNO: i32 = 40;
    type Log = Arc<Mutex<Vec<&'static str>>>;

    fn says(log: &Log, word: &'static str) -> Handler {
        let log = Arc::clone(log);
        Box::new(move |_| log.lock().unwrap().push(word))
    }

    fn notice(pid: u32) -> Notice<'static> {
        let origin = Origin {
            pid,
            uid: 0,
            verified: true,
        };
        Notice {
            signo: SIGNO,
            value: 0,
            origin,
            payload: &[],
            head: None,
            received_ns: 0,
        }
    }

    /// Does what the dispatcher does for one signal.
    fn ring(registry: &mut Registry, pid: u32) {
        let mut ids = [None; HANDLERS_MAX];
        let count = registry.list(SIGNO, &mut ids);
        for id in ids[..count].iter().flatten() {
            let Some(mut callee) = registry.begin(*id) else {
                continue;
            };
            let mut called = false;
            callee.call(&notice(pid), &mut called);
            drop(registry.end(*id, callee, called));
        }
    }

    fn said(log: &Log) -> Vec<&'static str> {
        std::mem::take(&mut log.lock().unwrap())
    }

    #[test]
    fn handlers_are_called_as_registered_and_the_last_first_before_all() {
        let (mut registry, log) = (Registry::new(), Log::default());
        for (word, first) in [("a", false), ("b", false), ("x", true), ("y", true)] {
            let flags = if first {
                Flags::new().first()
            } else {
                Flags::new()
            };
            registry.add(SIGNO, flags, says(&log, word)).0.unwrap();
        }
        ring(&mut registry, 1);
        assert_eq!(said(&log), ["y", "x", "a", "b"]);
        assert_eq!(registry.taken, 1 << (SIGNO - 1));
    }

    #[test]
    fn a_one_shot_survives_what_its_filter_keeps_from_it() {
        let (mut registry, log) = (Registry::new(), Log::default());
        let flags = Flags::new().once().only_from(|origin| origin.pid == 7);
        let id = registry.add(SIGNO, flags, says(&log, "seven")).0.unwrap();
        ring(&mut registry, 6);
        assert!(said(&log).is_empty());
        ring(&mut registry, 7);
        ring(&mut registry, 7);
        assert_eq!(said(&log), ["seven"]);
        assert!(registry.remove(id).is_err());
    }

    #[test]
    fn a_change_to_a_running_handler_takes_effect_after_it() {
        let (mut registry, log) = (Registry::new(), Log::default());
        let id = registry
            .add(SIGNO, Flags::new().once(), says(&log, "old"))
            .0
            .unwrap();
        let mut callee = registry.begin(id).unwrap();
        assert!(registry.begin(id).is_none());
        registry.replace(id, says(&log, "skipped")).0.unwrap();
        registry.replace(id, says(&log, "new")).0.unwrap();
        callee.call(&notice(1), &mut false);
        drop(registry.end(id, callee, true));
        ring(&mut registry, 1);
        ring(&mut registry, 1);
        assert_eq!(
            said(&log),
            ["old", "new"],
            "the new one had its own one shot"
        );

        let id = registry
            .add(SIGNO, Flags::new(), says(&log, "leaving"))
            .0
            .unwrap();
        let callee = registry.begin(id).unwrap();
        drop(registry.remove(id).unwrap());
        assert!(
            registry.remove(id).is_err() && registry.replace(id, says(&log, "late")).0.is_err()
        );
        drop(registry.end(id, callee, true));
        ring(&mut registry, 1);
        assert!(said(&log).is_empty());
    }

    #[test]
    fn handlers_of_one_signal_are_bounded() {
        let (mut registry, log) = (Registry::new(), Log::default());
        for _ in 0..HANDLERS_MAX {
            registry
                .add(SIGNO, Flags::new(), says(&log, "one"))
                .0
                .unwrap();
        }
        let refused = registry
            .add(SIGNO, Flags::new(), says(&log, "too many"))
            .0
            .unwrap_err();
        assert!(refused.to_string().contains("64 handlers"), "{refused}");
        assert!(
            registry
                .add(SIGNO + 1, Flags::new(), says(&log, "other"))
                .0
                .is_ok()
        );
    }
}
