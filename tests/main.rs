//! The workspace's integration tests: real processes against the real daemon.
//!
//! One binary. Started with `--peer` it is a participant instead (`util/peer.rs`): an unprivileged, dumb
//! program that knows `mq_open`, `sigqueue` and `sigwaitinfo` and does what it is told on standard input.

mod check;
mod credits;
mod demo;
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
        credits::a_stuck_receiver_leaves_the_signal_queue_to_others_of_its_user,
        demo::it_measures_three_lanes_twice_and_misses_no_message,
        demo::an_ordinary_user_gets_it_degraded_and_is_told,
        demo::a_terminal_shows_its_progress,
        demo::ended_by_sigint_it_says_so_and_leaves_nothing,
        demo::ended_by_sigterm_it_says_so_and_leaves_nothing,
        demo::ended_by_kill_9_it_leaves_nothing,
        demo::ended_by_sigquit_to_its_process_group_it_leaves_nothing,
        demo::when_its_daemon_is_killed_it_says_so_and_leaves_nothing,
        demo::when_a_part_is_killed_it_names_it_and_leaves_nothing,
        demo::with_a_privileged_binary_kill_9_leaves_nothing_either,
        demo::a_reader_that_goes_away_ends_it_quietly,
    ];
    libtest_mimic::run(&Arguments::from_args(), trials).exit_code()
}
