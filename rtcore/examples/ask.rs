//! Questions with a deadline, and their answers.
//!
//! - Terminal 1: `cargo run --bin rtd -- run configs/examples.toml` (as an ordinary user with
//!   `--allow-degraded`)
//! - Terminal 2: `cargo run -p rtcore --example ask -- axis`
//! - Terminal 3: `cargo run -p rtcore --example ask -- panel 10`
//!
//! `ask axis MS` takes MS milliseconds over every third answer: the panel does not wait for it. A late
//! answer is counted and never taken for the answer to the next question. Kill the axis meanwhile: the
//! call ends at once.

use rtcore::client::{CallError, Event, Incoming, SendError, Session};
use rtcore::sys::clock::{monotonic_ns, sleep_until};
use std::process::ExitCode;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

// Holds the signals that come early: by default a real-time signal would end a program that has not
// blocked it yet.
rtcore::hold_signals!();

/// How long a question may take.
const LIMIT_NS: u64 = 20_000_000;
/// Time between two questions.
const PERIOD_NS: u64 = 100_000_000;

/// The answer to "where are you?".
#[derive(FromBytes, Immutable, IntoBytes, KnownLayout)]
#[repr(C)]
struct Position {
    radians: f64,
    at_ns: u64,
}

type Outcome = Result<(), Box<dyn std::error::Error>>;

fn main() -> ExitCode {
    let mut args = std::env::args().skip(1);
    let (side, number) = (
        args.next(),
        args.next().map(|text| text.parse::<u64>()).transpose(),
    );
    let done = match (side.as_deref(), number) {
        (Some("panel"), Ok(count)) => panel(count.unwrap_or(u64::MAX)),
        (Some("axis"), Ok(slow_ms)) => axis(slow_ms.unwrap_or(0).saturating_mul(1_000_000)),
        _ => Err("which side? `ask axis [MILLISECONDS]` or `ask panel [QUESTIONS]`".into()),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("ask: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Asks, ten times a second.
fn panel(count: u64) -> Outcome {
    let session = Session::connect("panel")?;
    let mut axis = session.caller("panel.questions", "panel.answers")?;
    let (mut answered, mut late) = (0, 0);
    let mut next_ns = monotonic_ns();
    for _ in 0..count {
        next_ns += PERIOD_NS;
        sleep_until(next_ns);
        let asked_ns = monotonic_ns();
        match axis.call(b"where are you?", asked_ns + LIMIT_NS) {
            Ok(reply) => {
                let took_us = (reply.received_ns() - asked_ns) / 1000;
                let Some(Position { radians, at_ns }) = reply.value() else {
                    return Err(format!("{} bytes are no position", reply.bytes().len()).into());
                };
                answered += 1;
                println!("{radians:.3} rad at {at_ns} ns, after {took_us} us");
            }
            Err(CallError::Timeout { .. }) => {
                late += 1;
                println!("no answer in time");
            }
            // The axis may start, or start again.
            Err(
                error @ (CallError::Send(SendError::PeerDead { .. }) | CallError::PeerDead { .. }),
            ) => {
                println!("{error}");
            }
            Err(error) => return Err(error.into()),
        }
    }
    println!(
        "{count} questions: {answered} answered, {late} not in time; {} answers came too late",
        axis.late()
    );
    Ok(())
}

/// Answers every request until the panel is gone.
fn axis(slow_ns: u64) -> Outcome {
    let session = Session::connect("axis")?;
    let mut inbox = session.inbox()?;
    let mut answers = session.sender("axis.answers")?;
    println!("waiting for questions");
    let mut count = 0_u64;
    loop {
        let question = match inbox.recv()? {
            Incoming::Message(question) => question,
            // The end of a panel that has asked nothing is that of an earlier panel.
            Incoming::Event(Event::PeerLost { process, .. }) if count > 0 => {
                println!("{process} is gone, after {count} questions");
                return Ok(());
            }
            Incoming::Event(_) => continue,
        };
        // The token assigns the answer to the question. A message that is no question has none.
        let Some(to) = question.reply_to() else {
            continue;
        };
        count += 1;
        if count.is_multiple_of(3) {
            sleep_until(monotonic_ns() + slow_ns);
        }
        let at_ns = monotonic_ns();
        let position = Position {
            radians: (at_ns as f64 * 1e-9).sin(),
            at_ns,
        };
        if let Err(error) = answers.reply(to, position.as_bytes()) {
            println!("not answered: {error}");
        }
    }
}
