//! The client library against a daemon's half that the tests play, over the same wire and the same
//! kind of rings:
//!
//! - `connecting`: sessions, refusals, claims
//! - `sending`: senders
//! - `receiving`: inboxes, order, waiting, descriptors
//! - `restarts`: daemons that come and go under traffic
//! - `direct`: rings from process to process
//! - `calls`: request and reply
//! - `turns`: the same waits in single turns, which signals end
#![cfg(not(loom))]

mod calls;
mod connecting;
mod daemon;
mod direct;
mod receiving;
mod restarts;
mod sending;
mod turns;

use rtcore::client::{Event, Inbox, Message};
use rtcore::sys::clock::monotonic_ns;

/// So far from now, CLOCK_MONOTONIC.
fn in_ms(ms: u64) -> u64 {
    monotonic_ns() + ms * 1_000_000
}

/// The next event; messages before it are skipped.
fn event(inbox: &mut Inbox) -> Event {
    loop {
        let incoming = inbox
            .recv_deadline(in_ms(10_000))
            .unwrap()
            .expect("nothing came");
        if let Some(event) = incoming.event() {
            return event;
        }
    }
}

/// The next message's bytes; events before it are skipped.
fn bytes(inbox: &mut Inbox) -> Vec<u8> {
    message(inbox, |message| message.bytes().to_vec())
}

fn message<T>(inbox: &mut Inbox, of: impl Fn(Message<'_>) -> T) -> T {
    loop {
        let incoming = inbox
            .recv_deadline(in_ms(10_000))
            .unwrap()
            .expect("nothing came");
        if let Some(message) = incoming.message() {
            return of(message);
        }
    }
}
