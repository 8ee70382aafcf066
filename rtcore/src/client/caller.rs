//! Request and reply over two endpoints.

use super::error::{CallError, RecvError};
use super::event::Event;
use super::inbox::{Found, Inbox};
use super::message::{Incoming, Message};
use super::sender::Sender;
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

    /// Returns the message with this correlation. Skips other messages and events, and checks the
    /// deadline after each, so that a fast sender cannot extend the call.
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
            if now_ns >= deadline_ns {
                return Err(CallError::Timeout {
                    endpoint,
                    waited_ns: now_ns.saturating_sub(from_ns),
                });
            }
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
