//! Half of a ping-pong, the twin of pingpong.c: the same calls in the same order, so that their
//! times differ by what a caller in C pays. `pingpong ping ENDPOINT ROUNDS`, `pingpong pong ENDPOINT`;
//! `cost/run` starts both and compares.

use client::client::{Event, Inbox, Incoming, Session};
use client::sys::clock::monotonic_ns;
use std::error::Error;

/// The next message; none when the other side has ended.
fn next(inbox: &mut Inbox) -> Result<Option<u64>, Box<dyn Error>> {
    loop {
        match inbox.recv()? {
            Incoming::Message(message) => {
                return Ok(Some(message.value().ok_or("another length")?));
            }
            Incoming::Event(Event::PeerLost { .. }) => return Ok(None),
            Incoming::Event(_) => {}
        }
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [side, endpoint, rest @ ..] = &arguments[..] else {
        return Err("pingpong ping ENDPOINT ROUNDS, or pingpong pong ENDPOINT".into());
    };
    let pings = side == "ping";
    let rounds: u64 = rest.first().map_or(Ok(0), |rounds| rounds.parse())?;
    let session = Session::connect(side)?;
    let mut sender = session.sender(endpoint)?;
    let mut inbox = session.inbox()?;
    sender.wait_for_receiver(monotonic_ns() + 30_000_000_000)?;
    session.realtime().lane("lane").below(1).enter()?;
    let mut took = vec![0; usize::try_from(rounds)? + 1];
    took.clear();
    for round in 0..if pings { rounds } else { u64::MAX } {
        if pings {
            let sent_ns = monotonic_ns();
            sender.send(&round.to_ne_bytes())?;
            if next(&mut inbox)? != Some(round) {
                return Err("another answer".into());
            }
            took.push(monotonic_ns() - sent_ns);
        } else {
            let Some(number) = next(&mut inbox)? else {
                break;
            };
            if sender.send(&number.to_ne_bytes()).is_err() {
                break;
            }
        }
    }
    if pings {
        let sum: u64 = took.iter().sum();
        took.sort_unstable();
        println!("{} {}", took[took.len() / 2], sum / rounds);
    }
    Ok(())
}
