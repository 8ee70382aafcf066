//! Request and reply over two endpoints.

use super::error::{CallError, RecvError};
use super::event::Event;
use super::inbox::{Found, Inbox};
use super::message::{Incoming, Message};
use super::sender::Sender;
use crate::channel::Gone;
use crate::epoch::new_epoch;
use crate::sys::clock::monotonic_ns;

/// Asks, and waits for the answer to that very question.
///
/// It owns the endpoint it asks from and the one the answers come to; it may move between threads.
/// The other side answers with [`Sender::reply`] and what [`Head::reply_to`](super::Head::reply_to)
/// gave it. One call at a time; calls neither allocate nor lock.
#[derive(Debug)]
pub struct Caller {
    sender: Sender,
    inbox: Inbox,
    last: u64,
    late: u64,
}

/// The answer to a call.
pub type Reply<'a> = Message<'a>;

impl Caller {
    pub(super) fn new(sender: Sender, inbox: Inbox) -> Caller {
        // The upper half is this caller's own: an answer to an earlier one at the same endpoints,
        // of this process or of its predecessor, answers nothing here.
        Caller {
            sender,
            inbox,
            last: u64::from(new_epoch()) << 32,
            late: 0,
        }
    }

    /// Sends a request and returns its answer, which has to come before `deadline_ns`
    /// (CLOCK_MONOTONIC). Returns at the deadline whatever else arrives.
    ///
    /// Answers to earlier calls, which come too late, are dropped and counted ([`Caller::late`]),
    /// and so is what answers nothing.
    ///
    /// Errors: [`CallError`]. When the process that would answer dies, or the way to it, the call
    /// ends at once.
    pub fn call(&mut self, request: &[u8], deadline_ns: u64) -> Result<Reply<'_>, CallError> {
        let from_ns = monotonic_ns();
        self.clear(deadline_ns);
        self.last = self.last.wrapping_add(1).max(1);
        let correlation = self.last;
        self.sender
            .send_correlated(correlation, request, deadline_ns)?;
        let found = self.await_answer(correlation, from_ns, deadline_ns)?;
        match self.inbox.present(found) {
            Incoming::Message(message) => Ok(message),
            // `found` is a message.
            Incoming::Event(_) => {
                let endpoint = self.sender.channel().endpoint;
                Err(CallError::Disconnected {
                    endpoint,
                    why: Gone::Down,
                })
            }
        }
    }

    /// The message with this correlation. Other messages and events are passed over, however many
    /// there are and however fast they come: the deadline is looked at behind each.
    fn await_answer(
        &mut self,
        correlation: u64,
        from_ns: u64,
        deadline_ns: u64,
    ) -> Result<Found, CallError> {
        loop {
            let endpoint = self.sender.channel().endpoint;
            match self.inbox.next::<false>(deadline_ns) {
                Ok(Some(found @ Found::Message { envelope, .. })) => {
                    if envelope.meta.correlation == correlation {
                        return Ok(found);
                    }
                    self.late += 1;
                }
                Ok(Some(Found::Event(event))) => self.judge(event)?,
                Ok(None) => {}
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
            if now_ns >= deadline_ns {
                return Err(CallError::Timeout {
                    endpoint,
                    waited_ns: now_ns.saturating_sub(from_ns),
                });
            }
        }
    }

    /// Answers that came too late, or answered nothing that was asked.
    pub fn late(&self) -> u64 {
        self.late
    }

    /// How to wait for answers.
    pub fn set_wait(&mut self, wait: crate::lane::policy::Wait) {
        self.inbox.set_wait(wait);
    }

    /// Drops what is left of earlier calls: late answers, and events that are not about this one.
    /// No more than was there when it began, so that a sender that never stops does not keep the
    /// request from being sent.
    fn clear(&mut self, deadline_ns: u64) {
        const PAST_NS: u64 = 0;
        for _ in 0..self.inbox.holds_max() {
            match self.inbox.next::<false>(PAST_NS) {
                Ok(Some(found)) => self.late += u64::from(matches!(found, Found::Message { .. })),
                Ok(None) | Err(RecvError::Disconnected | RecvError::Forked { .. }) => return,
            }
            if monotonic_ns() >= deadline_ns {
                return;
            }
        }
    }

    /// Whether an event ends the call.
    fn judge(&self, event: Event) -> Result<(), CallError> {
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
