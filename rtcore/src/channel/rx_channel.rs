//! The session thread's part of a receiving channel: its rings, the processes at their other ends,
//! and the rings that wait for the inbox.

use super::WAITING_MAX;
use super::hand_off::{HandOff, HandOffItem, hand_off};
use super::partner::Partner;
use super::rx::{RxEnd, RxHandle, RxShared};
use crate::message::Origin;
use crate::ring::Consumer;
use crate::wire::{Channel, Request};
use std::collections::VecDeque;
use std::os::fd::BorrowedFd;
use std::sync::Arc;

/// A ring that an inbox has.
#[derive(Debug)]
pub(crate) struct RxRing {
    shared: Arc<RxShared>,
    partner: Option<Partner>,
}

#[derive(Debug)]
pub(crate) struct RxChannel {
    pub channel: Channel,
    pub id: Option<u32>,
    hand_off: HandOff<RxEnd>,
    waiting: VecDeque<HandOffItem<RxEnd>>,
    lost: u64,
    rings: Vec<RxRing>,
    /// Partners of rings that are gone, still in the session thread's set.
    pub gone: Vec<Partner>,
}

impl RxChannel {
    pub fn new(index: usize, channel: Channel) -> (RxChannel, RxHandle) {
        let (hand_off, end) = hand_off();
        let entry = RxChannel {
            channel,
            id: None,
            hand_off,
            waiting: VecDeque::new(),
            lost: 0,
            rings: Vec::new(),
            gone: Vec::new(),
        };
        (entry, RxHandle::new(index, end, channel))
    }

    /// Offers a new ring, to be read after the earlier ones are done. It is not armed: no signal is
    /// sent for it before its reader, which is woken by other means, has checked it.
    pub fn renew(&mut self, consumer: Consumer, partner: Option<(Partner, Origin)>) {
        let (bells, bell) = consumer.bell();
        let shared = Arc::new(RxShared::new(bells.clone(), bell));
        let (partner, origin) = partner.unzip();
        for ring in self.rings.iter().filter(|ring| {
            ring.partner
                .as_ref()
                .is_some_and(|of| !of.remains(partner.as_ref()))
        }) {
            ring.shared.end();
        }
        self.rings.push(RxRing {
            shared: Arc::clone(&shared),
            partner,
        });
        let mut buffer = vec![0; self.channel.payload_bytes as usize].into_boxed_slice();
        crate::sys::memory::touch(&mut buffer);
        let channel = self.channel;
        let recorder = consumer.recorder();
        let timed = channel.ttl_ns != 0 || channel.deadline_ns != 0;
        let partner = origin;
        let end = RxEnd {
            consumer,
            buffer,
            shared,
            channel,
            partner,
            watched: false,
            torn: false,
            recorder,
            timed,
            pause: 0,
        };
        self.waiting.push_back(HandOffItem {
            end: Some(end),
            generation: 0,
            origin: Origin::UNKNOWN,
        });
        self.flush();
    }

    /// The direct rings of the channel.
    pub fn carried(&self, channel: u32) -> impl Iterator<Item = (Request, [BorrowedFd<'_>; 3])> {
        self.rings
            .iter()
            .filter_map(move |ring| Some(ring.partner.as_ref()?.carry(channel)))
    }

    /// The daemon is gone, or its configuration has no such channel any more. Messages that have
    /// come can still be read.
    pub fn shut(&mut self) {
        self.id = None;
        for ring in self.rings.iter().filter(|ring| ring.partner.is_none()) {
            ring.shared.end();
        }
    }

    /// The process at the other end of one of its rings, by token.
    pub fn partner(&self, token: u64) -> Option<&Partner> {
        self.rings
            .iter()
            .find(|ring| ring.is(token))?
            .partner
            .as_ref()
    }

    /// The producer of the direct ring with this token has ended.
    pub fn on_peer_exit(&mut self, token: u64) {
        for ring in self.rings.iter().filter(|ring| ring.is(token)) {
            ring.shared.end();
        }
    }

    /// Wakes the thread that sleeps at any of its rings; call it after a `fence(SeqCst)`.
    pub fn ring(&self) {
        for ring in &self.rings {
            ring.shared.ring();
        }
    }

    /// Number of messages that were lost with rings that nobody read, since the last call.
    pub fn take_lost(&mut self) -> u64 {
        std::mem::take(&mut self.lost)
    }

    /// Collects returned rings and hands out waiting ones; true if there were any.
    pub fn flush(&mut self) -> bool {
        self.hand_off.collect();
        let mut handed_out = false;
        while let Some(offer) = self.waiting.pop_front() {
            if let Err(offer) = self.hand_off.offer(offer) {
                self.waiting.push_front(offer);
                break;
            }
            handed_out = true;
        }
        if self.waiting.len() > WAITING_MAX
            && let Some(HandOffItem {
                end: Some(mut oldest),
                ..
            }) = self.waiting.pop_front()
        {
            self.lost += oldest.consumer.available().unwrap_or(0);
        }
        let (gone, kept) =
            std::mem::take(&mut self.rings)
                .into_iter()
                .partition(|ring: &RxRing| {
                    // The inbox's half was dropped.
                    Arc::strong_count(&ring.shared) == 1
                });
        self.rings = kept;
        self.gone
            .extend(gone.into_iter().filter_map(|ring: RxRing| ring.partner));
        handed_out
    }
}

impl RxRing {
    fn is(&self, token: u64) -> bool {
        self.partner
            .as_ref()
            .is_some_and(|partner| partner.token == token)
    }
}
