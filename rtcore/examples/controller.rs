//! A 1 kHz control loop that sends typed set points, on an absolute schedule.
//!
//! - Terminal 1: `cargo run --bin rtd -- run configs/examples.toml` (as an ordinary user with
//!   `--allow-degraded`)
//! - Terminal 2: `cargo run -p rtcore --example drive`
//! - Terminal 3: `cargo run -p rtcore --example controller -- --seconds 10`
//!
//! The route is direct (`path` in the configuration): a set point is in the drive's memory when
//! `send_at` returns, and set points arrive even while rtd is not running.

mod common;

use common::SetPoint;
use rtcore::client::{SendError, Session};
use rtcore::sys::clock::{monotonic_ns, sleep_until};
use std::process::ExitCode;
use zerocopy::IntoBytes;

// Holds the signals that come early: by default a real-time signal would end a program that has not
// blocked it yet.
rtcore::hold_signals!();

const PERIOD_NS: u64 = 1_000_000;
/// How long to wait for a drive at the start.
const PATIENCE_NS: u64 = 30_000_000_000;

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("controller: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<(), Box<dyn std::error::Error>> {
    let seconds = common::seconds()?;

    // Setup, not in real time: register the name, open the endpoint, wait for a drive.
    let session = Session::connect("controller")?;
    let mut setpoints = session.sender("controller.setpoints")?;
    println!("waiting for the drive");
    setpoints.wait_for_receiver(monotonic_ns() + PATIENCE_NS)?;

    // Real time from here on: priority below the lane's, all memory locked, the stack touched.
    match session
        .realtime()
        .lane("control")
        .below(1)
        .prefault_stack(64 * 1024)
        .enter()
    {
        Ok(granted) => println!("SCHED_FIFO {}", granted.priority()),
        Err(error) => eprintln!("not in real time, latencies have no bound: {error}"),
    }
    let done = control(&mut setpoints, seconds.saturating_mul(1_000_000_000));

    println!("{} set points sent, {} refused", done.sent, done.refused);
    if let Some(error) = done.last_refusal {
        println!("the last refusal: {error}");
    }
    Ok(())
}

/// The counts of the cycles.
#[derive(Default)]
struct Done {
    sent: u64,
    refused: u64,
    last_refusal: Option<SendError>,
}

/// The loop. It does not allocate, lock or print.
fn control(setpoints: &mut rtcore::client::Sender, for_ns: u64) -> Done {
    let mut done = Done::default();
    let start_ns = monotonic_ns();
    let mut next_ns = start_ns;
    while next_ns - start_ns < for_ns {
        next_ns += PERIOD_NS;
        sleep_until(next_ns);
        // A sine, computed from the scheduled time of this cycle, so that lateness does not distort
        // the path.
        let (position, velocity) = ((next_ns - start_ns) as f64 * 1e-9).sin_cos();
        let setpoint = SetPoint { position, velocity };
        // `PeerDead`: the drive ended and is not started again yet. `Full`: it is too slow. Neither
        // stops the cycle.
        match setpoints.send_at(next_ns, setpoint.as_bytes()) {
            Ok(_) => done.sent += 1,
            Err(error) => {
                done.refused += 1;
                done.last_refusal = Some(error);
            }
        }
    }
    done
}
