//! Emergency stop over the highest lane, fail safe: every failure stops the machine.
//!
//! - Terminal 1: `cargo run --bin rtd -- run configs/examples.toml` (as an ordinary user with
//!   `--allow-degraded`)
//! - Terminal 2: `cargo run -p rtcore --example estop -- machine`
//! - Terminal 3: `cargo run -p rtcore --example estop -- button`, then press Enter
//!
//! The button repeats all the time that it is *not* pressed. The machine moves as long as it receives
//! this message, and stops when it receives the press, when the button's process ends, when rtd ends,
//! and when it receives nothing. So a broken path is never taken for a button that is not pressed. (No
//! program replaces the safety relay.)

use rtcore::client::waiter::{Interest, Waiter};
use rtcore::client::{Event, Inbox, Incoming, RecvError, Session};
use rtcore::sys::clock::{monotonic_ns, sleep_until};
use std::process::ExitCode;

// Holds the signals that come early: by default a real-time signal would end a program that has not
// blocked it yet.
rtcore::hold_signals!();

const RELEASED: u8 = 0;
const PRESSED: u8 = 1;
/// How often the button repeats its message.
const ALIVE_NS: u64 = 40_000_000;
/// Silence of this length stops the machine.
const SILENCE_NS: u64 = 5 * ALIVE_NS;
/// How long each side waits for the other at the start.
const PATIENCE_NS: u64 = 30_000_000_000;

type Outcome = Result<(), Box<dyn std::error::Error>>;

fn main() -> ExitCode {
    let side = std::env::args().nth(1);
    let done = match side.as_deref() {
        Some("button") => button(),
        Some("machine") => machine(),
        _ => Err("which side? estop machine, or estop button".into()),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("estop: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Sends "released" until Enter is pressed, then "pressed". The end of the terminal is a press.
fn button() -> Outcome {
    let session = Session::connect("button")?;
    let mut state = session.sender("button.state")?;
    println!("waiting for the machine");
    state.wait_for_receiver(monotonic_ns() + PATIENCE_NS)?;
    enter_realtime(&session);

    let mut waiter = Waiter::with_capacity(1)?;
    waiter.add(&std::io::stdin(), 0, 0, Interest::Readable)?;
    println!("press Enter to stop the machine");
    let mut next_ns = monotonic_ns();
    while waiter.wait(Some(next_ns))?.is_empty() {
        state.send_at(next_ns, &[RELEASED])?;
        next_ns += ALIVE_NS;
    }
    // It repeats the press until there is no receiver any more: the end of this process, which is
    // reported before messages, must not hide the press.
    while state.send(&[PRESSED]).is_ok() {
        sleep_until(monotonic_ns() + ALIVE_NS);
    }
    println!("pressed, and nobody listens any more");
    Ok(())
}

/// Moves as long as it receives "released"; returns when it stops, and says why.
fn machine() -> Outcome {
    let session = Session::connect("machine")?;
    let mut inbox = session.inbox()?;
    println!("waiting for the button");
    // The machine stands still until it receives "released", even if a button has ended before.
    let until_ns = monotonic_ns() + PATIENCE_NS;
    while let Some(why) = listen(&mut inbox, until_ns)? {
        if monotonic_ns() >= until_ns {
            return Err(format!("not moving at all: {why}").into());
        }
    }
    println!("moving");
    enter_realtime(&session);
    let why = loop {
        if let Some(why) = listen(&mut inbox, monotonic_ns() + SILENCE_NS)? {
            break why;
        }
    };
    // Here the brakes would close; the output comes after that.
    println!("STOP: {why}");
    Ok(())
}

/// Waits for the next message of the button: `None` if it is released, else the reason to stop.
fn listen(inbox: &mut Inbox, until_ns: u64) -> Result<Option<String>, RecvError> {
    loop {
        return Ok(match inbox.recv_deadline(until_ns)? {
            Some(Incoming::Message(message)) => match message.bytes() {
                [RELEASED] => None,
                [PRESSED] => {
                    let ago_us = message.received_ns().saturating_sub(message.sent_ns()) / 1000;
                    let who = message.origin();
                    Some(format!(
                        "pressed, by pid {} (verified: {}), {ago_us} us ago",
                        who.pid, who.verified
                    ))
                }
                other => Some(format!("{other:?} is neither pressed nor released")),
            },
            Some(Incoming::Event(Event::PeerLost {
                process, ending, ..
            })) => Some(format!(
                "{process} is gone ({})",
                ending.map_or("it left".into(), |e| e.to_string())
            )),
            Some(Incoming::Event(Event::Down)) => Some("rtd is gone".into()),
            Some(Incoming::Event(Event::PeerBack { .. } | Event::Up)) => continue,
            Some(Incoming::Event(other)) => Some(format!("{other:?}")),
            None => Some("the button is silent".into()),
        });
    }
}

fn enter_realtime(session: &Session) {
    if let Err(error) = session
        .realtime()
        .lane("estop")
        .below(1)
        .prefault_stack(64 * 1024)
        .enter()
    {
        eprintln!("not in real time, the stop has no bound: {error}");
    }
}
