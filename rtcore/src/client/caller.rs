//! Request and reply over two endpoints.

use super::error::{CallError, RecvError};
use super::event::Event;
use super::inbox::{Found, Inbox};
use super::message::{Incoming, Message};
use super::sender::{Attempt, Sender, Stamp};
use crate::channel::Gone;
use crate::epoch::new_epoch;
use crate::sys::clock::monotonic_ns;

/// Sends a request and waits for the reply to it.
///
/// It owns the endpoint that it sends requests from and the endpoint at which it receives replies;
/// it may move between threads. The other side replies with [`Sender::reply`] and the value of
/// [`Head::reply_to`](super::Head::reply_to). One call at a time; calls neither allocate nor lock.
#[derive(Debug)]
pub struct Caller {
    sender: Sender,
    inbox: Inbox,
    last: u64,
    late: u64,
}

/// A call that is made in single turns; see [`Caller::question`].
#[derive(Clone, Copy, Debug)]
pub struct Question {
    attempt: Attempt,
    from_ns: u64,
}

/// The answer to a call.
pub type Reply<'a> = Message<'a>;

impl Caller {
    pub(super) fn new(sender: Sender, inbox: Inbox) -> Caller {
        // The upper half identifies this caller. A reply to a request of an earlier caller at the
        // same endpoints, of this process or of its predecessor, therefore matches no request.
        Caller {
            sender,
            inbox,
            last: u64::from(new_epoch()) << 32,
            late: 0,
        }
    }

    /// Sends a request and returns the reply, which must arrive before `deadline_ns`
    /// (CLOCK_MONOTONIC). Returns at the deadline, even if other messages keep arriving.
    ///
    /// Replies to earlier calls come too late. They are dropped and counted ([`Caller::late`]),
    /// like replies that match no request.
    ///
    /// Errors: [`CallError`]. If the process that would reply ends, or the route to it is lost, the
    /// call ends at once.
    pub fn call(&mut self, request: &[u8], deadline_ns: u64) -> Result<Reply<'_>, CallError> {
        let mut question = self.question(deadline_ns);
        while !self.ask(&mut question, request)? {
            self.sleep_for_room(&question)?;
        }
        loop {
            if let Some(found) = self.look(&question, deadline_ns)? {
                return self.reply(found);
            }
        }
    }

    /// Begins a call that is made in single turns, for a program that has something to do between
    /// two sleeps, such as handling a signal: [`Caller::ask`] until it is true, then
    /// [`Caller::try_answer`] until there is one, each with a sleep in between.
    pub fn question(&mut self, deadline_ns: u64) -> Question {
        let from_ns = monotonic_ns();
        self.clear(deadline_ns);
        self.last = self.last.wrapping_add(1).max(1);
        let stamp = Stamp {
            intended_ns: None,
            correlation: self.last,
        };
        Question {
            attempt: Attempt::stamped(stamp, deadline_ns),
            from_ns,
        }
    }

    /// Whether somebody can receive requests. If nobody can, it has slept once, at most until
    /// `deadline_ns`; it returns for a signal and for no reason, too. For the start of a program.
    ///
    /// Errors: as [`Sender::wait_for_receiver`].
    pub fn look_for_receiver(&mut self, deadline_ns: u64) -> Result<bool, CallError> {
        Ok(self.sender.look_for_receiver(deadline_ns)?)
    }

    /// Sends the request if there is room. False if the ring is full and the route lets the request
    /// wait: [`Caller::sleep_for_room`] follows, and then the next turn.
    ///
    /// Errors: [`CallError::Send`].
    pub fn ask(&mut self, question: &mut Question, request: &[u8]) -> Result<bool, CallError> {
        let sent = self.sender.attempt(&mut question.attempt, request)?;
        Ok(sent.is_some())
    }

    /// Sleeps once until there may be room for the request. Returns for a signal and for no reason,
    /// too.
    ///
    /// Errors: [`CallError::Send`].
    pub fn sleep_for_room(&mut self, question: &Question) -> Result<(), CallError> {
        Ok(self.sender.sleep_for_room(&question.attempt)?)
    }

    /// The answer, if it has come. [`Caller::sleep`] follows none.
    ///
    /// Errors: as [`Caller::call`].
    pub fn try_answer(&mut self, question: &Question) -> Result<Option<Reply<'_>>, CallError> {
        const PAST_NS: u64 = 0;
        match self.look(question, PAST_NS)? {
            Some(found) => self.reply(found).map(Some),
            None => Ok(None),
        }
    }

    /// Sleeps once until there may be an answer, or the deadline of the question has come. Returns
    /// for a signal and for no reason, too.
    pub fn sleep(&mut self, question: &Question) {
        // In a forked child the next turn says so.
        let _ = self.inbox.sleep_once(question.attempt.deadline_ns);
    }

    /// One look for the answer, which waits until `until_ns`. Another message, or an event, is
    /// passed over: the deadline is looked at behind each, however many there are and however fast
    /// they come.
    fn look(&mut self, question: &Question, until_ns: u64) -> Result<Option<Found>, CallError> {
        let endpoint = self.sender.channel().endpoint;
        let Question { attempt, from_ns } = question;
        match self.inbox.next::<false>(until_ns) {
            Ok(Some(found @ Found::Message { envelope, .. })) => {
                if envelope.meta.correlation == attempt.stamp.correlation {
                    return Ok(Some(found));
                }
                self.late += 1;
            }
            Ok(Some(Found::Event(event))) => self.check_event(event)?,
            // Nobody has the waker of a caller's inbox.
            Ok(None) | Err(RecvError::Woken) => {}
            Err(RecvError::Disconnected) => {
                return Err(CallError::Disconnected {
                    endpoint,
                    why: Gone::Closed,
                });
            }
            Err(RecvError::Forked { creator }) => {
                return Err(CallError::Disconnected {
                    endpoint,
                    why: Gone::Forked(creator),
                });
            }
        }
        let now_ns = monotonic_ns();
        if now_ns >= attempt.deadline_ns {
            return Err(CallError::Timeout {
                endpoint,
                waited_ns: now_ns.saturating_sub(*from_ns),
            });
        }
        Ok(None)
    }

    fn reply(&mut self, found: Found) -> Result<Reply<'_>, CallError> {
        let endpoint = self.sender.channel().endpoint;
        match self.inbox.present(found) {
            Incoming::Message(message) => Ok(message),
            // `found` is a message.
            Incoming::Event(_) => Err(CallError::Disconnected {
                endpoint,
                why: Gone::Down,
            }),
        }
    }

    /// Number of replies that came too late or matched no request.
    pub fn late(&self) -> u64 {
        self.late
    }

    /// How to wait for answers.
    pub fn set_wait(&mut self, wait: crate::lane::policy::Wait) {
        self.inbox.set_wait(wait);
    }

    /// Discards what is left of earlier calls: late replies, and events that do not concern this
    /// caller. It discards at most as many as there are at its start, so that a sender that never
    /// stops cannot delay the request without end.
    fn clear(&mut self, deadline_ns: u64) {
        const PAST_NS: u64 = 0;
        for _ in 0..self.inbox.holds_max() {
            match self.inbox.next::<false>(PAST_NS) {
                Ok(Some(found)) => self.late += u64::from(matches!(found, Found::Message { .. })),
                Ok(None) | Err(_) => return,
            }
            if monotonic_ns() >= deadline_ns {
                return;
            }
        }
    }

    /// Returns an error if the event ends the call.
    fn check_event(&self, event: Event) -> Result<(), CallError> {
        let channel = self.sender.channel();
        let endpoint = channel.endpoint;
        match event {
            Event::PeerLost {
                process, ending, ..
            } if channel.process == Some(process) => Err(CallError::PeerDead {
                endpoint,
                process,
                ending,
            }),
            Event::Refused { reason } if !channel.direct || self.inbox.is_routed() => {
                Err(CallError::Disconnected {
                    endpoint,
                    why: Gone::Refused(reason),
                })
            }
            Event::Down if !channel.direct || self.inbox.is_routed() => {
                Err(CallError::Disconnected {
                    endpoint,
                    why: Gone::Down,
                })
            }
            _ => Ok(()),
        }
    }
}
