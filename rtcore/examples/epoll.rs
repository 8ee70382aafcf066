//! An inbox in the program's own event loop, beside a timer and signals.
//!
//! - Terminal 1: `cargo run --bin rtd -- run configs/examples.toml` (as an ordinary user with
//!   `--allow-degraded`)
//! - Terminal 2: `cargo run -p rtcore --example epoll`
//! - Terminal 3: `cargo run --bin rtctl -- --instance examples send console --text hello`
//!
//! An inbox is a descriptor (`AsFd`): the same works in any epoll set, in mio or tokio. It is
//! level-triggered: take messages until `try_recv` returns `None`. `rtctl send` writes a POSIX
//! message queue; rtd carries it into shared memory.

use rtcore::client::signals::Signals;
use rtcore::client::waiter::{Interest, SignalSource, Timer, Waiter};
use rtcore::client::{Inbox, Incoming, RecvError, Session};
use rtcore::sys::clock::monotonic_ns;
use rtcore::sys::signame;
use std::process::ExitCode;

// Holds the signals that come early: by default a real-time signal would end a program that has not
// blocked it yet.
rtcore::hold_signals!();

/// Keys of the waited-for sources.
const TIMER: u64 = 0;
const INBOX: u64 = 1;
const SIGNALS: u64 = 2;

const TICK_NS: u64 = 1_000_000_000;
/// Messages per turn, so that the other sources get their turn too.
const MESSAGES_PER_TURN: usize = 64;

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("epoll: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<(), Box<dyn std::error::Error>> {
    let ending = [signame::parse("SIGINT")?, signame::parse("SIGTERM")?];
    // Before the first thread, which is the session's: threads inherit the signal mask.
    Signals::block(ending)?;
    let session = Session::connect("monitor")?;
    let mut inbox = session.inbox()?;
    let signals = SignalSource::new(ending)?;
    let timer = Timer::new()?;
    timer.every(monotonic_ns() + TICK_NS, TICK_NS)?;

    // Ready sources are returned in the order of these priorities, highest first.
    let mut waiter = Waiter::with_capacity(3)?;
    waiter.add(&signals, SIGNALS, 9, Interest::Readable)?;
    waiter.add(&inbox, INBOX, 5, Interest::Readable)?;
    waiter.add(&timer, TIMER, 1, Interest::Readable)?;

    println!("waiting; Ctrl-C ends it");
    let mut received = 0_u64;
    loop {
        for ready in waiter.wait(None)? {
            match ready.key {
                SIGNALS => {
                    if let Some(signal) = signals.take() {
                        println!("{}, after {received} messages", signame::name(signal.signo));
                        return Ok(());
                    }
                }
                INBOX => received += take(&mut inbox)?,
                _ => println!("tick {}: {received} messages so far", timer.take()),
            }
        }
    }
}

/// Takes the waiting messages, up to a bound; the rest keep the descriptor readable.
fn take(inbox: &mut Inbox) -> Result<u64, RecvError> {
    let mut received = 0;
    for _ in 0..MESSAGES_PER_TURN {
        match inbox.try_recv()? {
            None => break,
            Some(Incoming::Message(message)) => {
                received += 1;
                let text = String::from_utf8_lossy(message.bytes());
                println!(
                    "{} (mq priority {}): {text}",
                    message.from(),
                    message.mq_priority()
                );
            }
            Some(Incoming::Event(event)) => println!("{event:?}"),
        }
    }
    Ok(received)
}
