//! The workspace's integration tests: real processes against the real daemon.
//!
//! One binary. Started with `--peer` it is a participant instead (`util/peer.rs`): an unprivileged, dumb
//! program that knows `mq_open`, `sigqueue` and `sigwaitinfo` and does what it is told on standard input.

mod check;
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
    let trials: Vec<Trial> = trials![
        check::all_problems_are_reported_at_once_each_with_its_place_and_mend,
        check::json_has_the_same_problems_for_a_program,
        check::the_exit_code_says_runs_refused_or_unreadable,
        check::a_good_file_shows_what_it_means,
        check::standard_input_is_a_dash,
        check::the_schema_is_the_file_in_configs,
        check::every_file_in_configs_passes,
        check::run_refuses_a_faulty_file_with_the_same_words,
        check::what_is_not_granted_is_refused_with_the_line_that_grants_it,
    ];
    libtest_mimic::run(&Arguments::from_args(), trials).exit_code()
}
