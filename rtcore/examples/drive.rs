//! A drive: takes set points in a real-time thread, and prints every second how late they were.
//!
//! See `controller.rs` for how to start it. With `--seconds N` it ends after that time.
//!
//! It has two threads: one receives, and does not use the heap, a lock or the terminal; the other
//! prints the counts of the first.

mod common;

use common::SetPoint;
use rtcore::client::realtime::RealTimeBuilder;
use rtcore::client::{Event, Inbox, Incoming, RecvError, Session};
use rtcore::sys::clock::monotonic_ns;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

// Holds the signals that come early: by default a real-time signal would end a program that has not
// blocked it yet.
rtcore::hold_signals!();

/// Without a set point for this time the drive holds its position.
const WATCHDOG_NS: u64 = 10_000_000;

/// One second's figures: written by the real-time thread, taken by the other.
#[derive(Default)]
struct Figures {
    count: AtomicU64,
    missed: AtomicU64,
    sum_ns: AtomicU64,
    min_ns: AtomicU64,
    max_ns: AtomicU64,
    holding: AtomicBool,
}

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("drive: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<(), Box<dyn std::error::Error>> {
    let seconds = common::seconds()?;
    let session = Session::connect("drive")?;
    let inbox = session.inbox()?;
    let realtime = session
        .realtime()
        .lane("control")
        .below(1)
        .prefault_stack(64 * 1024);
    let figures = Arc::new(Figures::default());
    figures.clear();

    let shared = Arc::clone(&figures);
    let thread = std::thread::Builder::new()
        .name("drive".into())
        .spawn(move || follow(inbox, realtime, &shared))?;
    println!(
        "{:>9} {:>7} {:>11} {:>11} {:>11}",
        "set points", "missed", "min us", "avg us", "max us"
    );
    for _ in 0..seconds {
        std::thread::sleep(Duration::from_secs(1));
        figures.print();
    }
    // Dropping the session ends the inbox: the thread returns when it has taken all messages.
    drop(session);
    thread.join().map_err(|_| "the real-time thread panicked")?;
    Ok(())
}

/// The real-time thread.
fn follow(mut inbox: Inbox, realtime: RealTimeBuilder, figures: &Figures) {
    if let Err(error) = realtime.enter() {
        eprintln!("not in real time, latencies have no bound: {error}");
    }
    let mut target = SetPoint {
        position: 0.0,
        velocity: 0.0,
    };
    loop {
        match inbox.recv_deadline(monotonic_ns() + WATCHDOG_NS) {
            Ok(Some(Incoming::Message(message))) => {
                figures.record(
                    message.received_ns().saturating_sub(message.intended_ns()),
                    message.missed(),
                );
                // A message of another length is not from our controller.
                if let Some(setpoint) = message.value() {
                    target = setpoint;
                }
            }
            // The end of the controller is reported at once, its silence by the watchdog.
            Ok(Some(Incoming::Event(Event::PeerLost { .. }))) | Ok(None) => {
                target.velocity = 0.0;
                figures.holding.store(true, Ordering::Relaxed);
            }
            Ok(Some(Incoming::Event(_))) => {}
            Err(RecvError::Disconnected | RecvError::Forked { .. } | RecvError::Woken) => return,
        }
        // Here the motor would get `target`.
        std::hint::black_box(&target);
    }
}

impl Figures {
    fn clear(&self) {
        self.min_ns.store(u64::MAX, Ordering::Relaxed);
    }

    fn record(&self, late_ns: u64, missed: u64) {
        self.holding.store(false, Ordering::Relaxed);
        self.count.fetch_add(1, Ordering::Relaxed);
        self.missed.fetch_add(missed, Ordering::Relaxed);
        self.sum_ns.fetch_add(late_ns, Ordering::Relaxed);
        self.min_ns.fetch_min(late_ns, Ordering::Relaxed);
        self.max_ns.fetch_max(late_ns, Ordering::Relaxed);
    }

    fn print(&self) {
        let [count, missed, sum, max] = [&self.count, &self.missed, &self.sum_ns, &self.max_ns]
            .map(|figure| figure.swap(0, Ordering::Relaxed));
        let min = self.min_ns.swap(u64::MAX, Ordering::Relaxed);
        let holding = if self.holding.load(Ordering::Relaxed) {
            "  holding: nobody commands"
        } else {
            ""
        };
        let (min, count_or_1) = (if count == 0 { 0 } else { min }, count.max(1));
        let [min, avg, max] = [min, sum / count_or_1, max].map(|ns| ns as f64 / 1000.0);
        println!("{count:>10} {missed:>7} {min:>11.1} {avg:>11.1} {max:>11.1}{holding}");
    }
}
