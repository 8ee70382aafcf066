//! Carries out the effects of [`crate::sessions::state`], and the [`Consequence`]s of a change in
//! the registry, in their order. No other code does this.
//!
//! Invariant: an event is completely served, with all events that its effects return, before the
//! next one.

use super::registry::{Change, Consequence};
use super::{Control, Lanes};
use crate::daemon::rings::SealError;
use crate::plan::{ProcessId, RouteId};
use crate::sessions::event::{Effect, End, Event, Message, ProcessStatus};
use rtcore::wire::{Reply, Status};

/// The result of an effect.
#[derive(Default)]
struct Applied {
    /// Served after the effects of the list.
    events: Vec<Event>,
    /// The effect failed, and the rest of the list with it.
    failed: bool,
}

impl Applied {
    fn then(event: Event) -> Applied {
        Applied {
            events: vec![event],
            failed: false,
        }
    }

    /// The session cannot be put into effect.
    fn failed(process: ProcessId, text: String) -> Applied {
        Applied {
            events: vec![Event::Ended {
                process,
                end: End::Failed(text),
            }],
            failed: true,
        }
    }
}

impl From<Change> for Event {
    fn from(change: Change) -> Event {
        let Change {
            process,
            state,
            pid,
            ending,
        } = change;
        Event::Changed {
            process,
            status: ProcessStatus { state, pid, ending },
        }
    }
}

fn unless_read(sent: bool, process: ProcessId) -> Applied {
    if sent {
        Applied::default()
    } else {
        Applied::then(Event::Ended {
            process,
            end: End::Unread,
        })
    }
}

impl<L: Lanes> Control<L> {
    /// Serves an event of the sessions.
    pub(super) fn perform(&mut self, event: Event) {
        let mut events = vec![event];
        // The last event is served first: the events that follow from an event come before those
        // that follow from the event before it.
        while let Some(event) = events.pop() {
            let mut next = Vec::new();
            for effect in self.sessions.step(event) {
                let applied = self.apply(effect);
                next.extend(applied.events);
                if applied.failed {
                    break;
                }
            }
            events.extend(next.into_iter().rev());
        }
        self.keep();
    }

    /// Carries out the consequences of a change in the registry.
    pub(super) fn carry_out(&mut self, all: Vec<Consequence>) {
        for consequence in all {
            if let Some(event) = self.consequence(consequence) {
                self.perform(event);
            }
        }
        self.keep();
    }

    /// Carries out one consequence; returns its event for the sessions.
    fn consequence(&mut self, consequence: Consequence) -> Option<Event> {
        match consequence {
            Consequence::Shown {
                process,
                state,
                pid,
                uid,
            } => self.lanes.show(process, state, pid, uid),
            Consequence::Receptions(process) => self.lanes.receptions_changed(process),
            Consequence::Logged {
                is_warning: true,
                text,
            } => self.log.warning(format_args!("{text}")),
            Consequence::Logged {
                is_warning: false,
                text,
            } => self.log.info(format_args!("{text}")),
            Consequence::Refused(refusal) => {
                self.counters.refused += 1;
                self.log
                    .warning(format_args!("registration ended: {}", refusal.text));
            }
            Consequence::Changed(change) => return Some(change.into()),
        }
        None
    }

    fn consequences(&mut self, all: Vec<Consequence>) -> Applied {
        let events = all
            .into_iter()
            .filter_map(|consequence| self.consequence(consequence))
            .collect();
        Applied {
            events,
            failed: false,
        }
    }

    fn apply(&mut self, effect: Effect) -> Applied {
        match effect {
            Effect::Introduce { process, map } => {
                return unless_read(self.sessions.introduce(process, map), process);
            }
            Effect::Send { to, message } => {
                if let Message::Map { .. } = message {
                    rtcore::fault_point!("after_rings_sent_before_map");
                }
                return unless_read(self.sessions.send_message(to, message), to);
            }
            Effect::Attach { process } => return self.attach(process),
            Effect::Grant { process } => return self.grant(process),
            Effect::Announce { process } => return self.announce(process),
            Effect::Opened { process } => self.opened(process),
            Effect::ReadFrom { process } => self.sessions.rings.read_from(process),
            Effect::Record { process, end } => self.record(process, &end),
            Effect::Disconnect { process } => self.sessions.disconnect(process),
            Effect::Release { process } => {
                let all = self.registry.release(&self.epoll, process, None);
                return self.consequences(all);
            }
            Effect::CountDeath { process } => {
                let all = self.registry.ended(&self.epoll, process);
                return self.consequences(all);
            }
            Effect::Close { process } => {
                let warnings = self.sessions.close(process);
                self.warn(warnings);
                rtcore::fault_point!("after_leave_before_partners_know");
            }
            Effect::Create { route, serials } => {
                let created = self.sessions.rings.create(route, serials);
                return self.unless_broken(route, created);
            }
            Effect::Order { route } => {
                let ordered = self.sessions.rings.order(route);
                return ordered.map_or_else(
                    |text| {
                        self.warn(text);
                        Applied::then(Event::Made { route, ok: false })
                    },
                    |()| Applied::default(),
                );
            }
            Effect::Offer { route, serials } => {
                let offered = self.sessions.rings.offer_made(route, serials);
                return self.unless_broken(route, offered);
            }
            Effect::Discard { route } => self.sessions.rings.discard_made(route),
            Effect::SendRing { route, end } | Effect::SendJoin { route, end } => {
                return self.send_frame(route, end);
            }
            Effect::Seal { route, serials } => return self.seal(route, serials),
            Effect::LeaveToNext => {
                let warnings = self.sessions.rings.leave_to_next();
                self.warn(warnings);
            }
        }
        Applied::default()
    }

    pub(super) fn warn(&mut self, warnings: impl IntoIterator<Item = String>) {
        for warning in warnings {
            self.log.warning(format_args!("{warning}"));
        }
    }

    fn attach(&mut self, process: ProcessId) -> Applied {
        rtcore::fault_point!(
            "after_mapped_before_attach",
            return Applied::failed(process, "fault point".to_owned())
        );
        let Some(identity) = self
            .sessions
            .pending(process)
            .map(|pending| pending.identity.clone())
        else {
            return Applied::default();
        };
        if let Err(e) = self.sessions.rings.attach(process, identity) {
            self.counters.violations += 1;
            return Applied::failed(process, e.to_string());
        }
        rtcore::fault_point!("after_attach_before_kept");
        Applied::default()
    }

    fn grant(&mut self, process: ProcessId) -> Applied {
        let pending = self.sessions.pending(process);
        let Some(candidate) = pending.and_then(|pending| pending.candidate.take()) else {
            return Applied::default();
        };
        match self.registry.grant(&self.epoll, candidate) {
            Ok((reply, _)) => {
                if let Some(pending) = self.sessions.pending(process) {
                    pending.reply = reply;
                }
                // Stored before anybody can see it.
                self.keep();
                Applied::default()
            }
            Err(refusal) => Applied::failed(process, refusal.text),
        }
    }

    fn announce(&mut self, process: ProcessId) -> Applied {
        let (all, announced) = self.registry.announce(&self.epoll, process);
        let applied = self.consequences(all);
        if let Err(refusal) = announced {
            let failed = Applied::failed(process, refusal.text);
            return Applied {
                events: [failed.events, applied.events].concat(),
                failed: true,
            };
        }
        rtcore::fault_point!("after_announce_before_ready");
        applied
    }

    fn opened(&mut self, process: ProcessId) {
        let Some(pending) = self.sessions.take_pending(process) else {
            return;
        };
        self.settle_leftovers(process, pending.identity.pid, pending.continues);
        self.counters.sessions += 1;
        self.granted(process, &pending.reply);
    }

    fn unless_broken(&mut self, route: RouteId, made: Result<(), Option<String>>) -> Applied {
        let Err(text) = made else {
            return Applied::default();
        };
        self.warn(text);
        Applied::then(Event::Broken { route })
    }

    fn send_frame(&mut self, route: RouteId, end: usize) -> Applied {
        let Some(frame) = self.sessions.rings.take_frame(route, end) else {
            return Applied::default();
        };
        let sent = self.sessions.send_frame(&frame);
        rtcore::fault_point!("between_frames_of_direct_ring");
        unless_read(sent, frame.process)
    }

    fn seal(&mut self, route: RouteId, serials: [u32; 2]) -> Applied {
        match self.sessions.rings.seal(route, serials) {
            Ok(()) => Applied::then(Event::Sealed { route }),
            Err(SealError::Sealed(process, text)) => Applied::then(Event::Ended {
                process,
                end: End::Violation(text),
            }),
            Err(SealError::Failed(text)) => {
                self.warn(text);
                Applied::then(Event::Broken { route })
            }
        }
    }

    /// Writes why a session ends to the log and the counters.
    fn record(&mut self, process: ProcessId, end: &End) {
        let (name, holder) = self.registry.holder(process);
        let pid = self
            .sessions
            .pending(process)
            .map_or(holder, |pending| pending.identity.pid);
        let reason = match end {
            End::Left | End::HungUp(_) => {
                return self
                    .log
                    .info(format_args!("{name}: pid {pid} closed its session"));
            }
            End::BadFrame(text) => {
                self.counters.bad_frames += 1;
                // The session ends even if the client does not read this.
                let _ = self
                    .sessions
                    .reply(process, &Reply::plain(Status::BadFrame, text.as_str()));
                text.as_str()
            }
            End::Violation(text) => {
                self.counters.violations += 1;
                text
            }
            End::Unread => {
                self.counters.unread += 1;
                "it does not read"
            }
            End::Unmapped(text) | End::Failed(text) => text,
        };
        self.log.warning(format_args!(
            "{name}: session of pid {pid} closed: {reason}"
        ));
    }
}
