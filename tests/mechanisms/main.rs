//! The raw mechanisms of rtlat, with real threads and a real forked child.
//!
//! Constraint: fork needs a process of one thread, and a test harness has several: the tests of
//! forking start this program again with [`SCENARIO`] set, which then plays that one scenario
//! (`forked`).

mod breaker;
mod forked;
mod threads;

use libtest_mimic::{Arguments, Trial};
use rtlat::mech::{self, Kind, Stamp, signal};
use std::process::ExitCode;

/// So that it shows when a send or a receive uses the heap.
#[global_allocator]
static HEAP: rtcore::seal::GuardAlloc = rtcore::seal::GuardAlloc;

/// Environment variable that names the scenario to play.
const SCENARIO: &str = "RTLAT_TEST_SCENARIO";
/// Messages of a run.
const MESSAGES: u64 = 1000;
const PAYLOAD_BYTES: usize = 64;

fn stamp(sequence: u64) -> Stamp {
    Stamp {
        sequence,
        intended_ns: 3 * sequence + 1,
        sent_ns: 3 * sequence + 2,
    }
}

fn main() -> ExitCode {
    signal::block(signal::every()).expect("the mask of the main thread");
    rtcore::sys::rtsignal::install_wake().expect("the handler that interrupts");
    if let Ok(scenario) = std::env::var(SCENARIO) {
        return forked::play(&scenario);
    }
    let mut trials = vec![
        Trial::test("sizes_out_of_bounds_are_refused", || {
            sizes_out_of_bounds_are_refused();
            Ok(())
        }),
        Trial::test("breaker::a_break_touches_no_heap", || {
            breaker::a_break_touches_no_heap().map_err(|e| format!("{e:#}").into())
        }),
        Trial::test(
            "threads::a_sender_of_a_mutex_that_leaves_is_reported",
            || {
                threads::a_sender_of_a_mutex_that_leaves_is_reported();
                Ok(())
            },
        ),
    ];
    for scenario in forked::FORKS {
        trials.push(Trial::test(format!("forked::{scenario}"), move || {
            forked::start(scenario);
            Ok(())
        }));
    }
    for (number, kind) in Kind::all().into_iter().enumerate() {
        let name = kind.name();
        let mut of_threads = |what: &str, test: fn(Kind, usize), nth: usize| {
            // Each test of signals has a number of its own.
            let pair = nth * Kind::all().len() + number;
            trials.push(Trial::test(format!("threads::{what}::{name}"), move || {
                test(kind, pair % 30);
                Ok(())
            }));
        };
        of_threads(
            "messages_come_in_order_without_the_heap",
            threads::messages_come_in_order,
            0,
        );
        of_threads(
            "a_burst_comes_one_by_one",
            threads::a_burst_comes_one_by_one,
            1,
        );
        of_threads(
            "an_idle_receiver_looks_up",
            threads::an_idle_receiver_looks_up,
            2,
        );
        trials.push(Trial::test(
            format!("forked::messages_of_a_child_come_in_order::{name}"),
            move || {
                forked::start(&format!("deliver {name}"));
                Ok(())
            },
        ));
    }
    libtest_mimic::run(&Arguments::from_args(), trials).exit_code()
}

fn sizes_out_of_bounds_are_refused() {
    for kind in Kind::all().into_iter().filter(|kind| kind.has_payload()) {
        let refused = |bytes| match mech::of(kind, bytes, 0) {
            Ok(_) => panic!("{} takes {bytes} bytes", kind.name()),
            Err(e) => format!("{e:#}"),
        };
        let short = refused(mech::STAMP_BYTES - 1);
        assert!(short.contains("23 bytes"), "{short}");
        let long = refused(1 << 30);
        assert!(
            long.contains("1073741824 bytes") && long.contains("take less")
                || long.contains("sysctl -w"),
            "{long}"
        );
        let made = mech::of(kind, mech::STAMP_BYTES, 0).expect("the smallest payload");
        assert_eq!(
            (made.name(), made.payload_bytes()),
            (kind.name(), mech::STAMP_BYTES)
        );
    }
}
