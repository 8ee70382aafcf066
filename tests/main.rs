//! The workspace's integration tests: real processes against the real daemon.
//!
//! One binary. Started with `--peer` it is a participant instead (`util/peer.rs`): an unprivileged, dumb
//! program that knows `mq_open`, `sigqueue` and `sigwaitinfo` and does what it is told on standard input.

mod credits;
mod util;

use libtest_mimic::{Arguments, Failed, Trial};

/// Rows of (name, function); a test that lacks a privilege says so and returns.
macro_rules! trials {
    ($($module:ident :: $test:ident),* $(,)?) => {
        vec![$(Trial::test(concat!(stringify!($module), "::", stringify!($test)), || {
            $module::$test().map_err(|e| Failed::from(format!("{e:#}")))
        })),*]
    };
}

fn main() -> std::process::ExitCode {
    let args: Vec<String> = std::env::args().collect();
    if args.get(1).is_some_and(|a| a == "--peer") {
        return util::peer::main();
    }
    let trials: Vec<Trial> =
        trials![credits::a_stuck_receiver_leaves_the_signal_queue_to_others_of_its_user,];
    libtest_mimic::run(&Arguments::from_args(), trials).exit_code()
}
