//! The workspace's integration tests: real processes against the real daemon.
//!
//! One binary. Started with `--peer` it is a participant instead (`util/peer.rs`): an unprivileged, dumb
//! program that knows `mq_open`, `sigqueue` and `sigwaitinfo` and does what it is told on standard input.

mod groups;
mod overflow;
mod pending;
mod queues;
mod signals;
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
        groups::all_get_a_copy,
        groups::all_with_one_full_and_one_dead,
        groups::round_robin_takes_turns,
        groups::round_robin_skips_the_dead_and_the_full,
        groups::any_takes_the_first_with_room,
        groups::a_group_of_the_dead_is_dead,
        overflow::reject_keeps_what_came_first,
        overflow::displace_oldest_keeps_the_latest,
        overflow::displace_newest_keeps_the_first_and_the_last,
        overflow::conflate_keeps_the_latest_alone,
        overflow::block_gives_up_after_its_bound,
        overflow::block_loses_nothing_within_its_bound,
        overflow::what_waits_too_long_expires,
        overflow::what_is_held_too_long_expires,
        overflow::more_than_the_rate_is_rejected,
        overflow::more_than_the_payload_bound_is_rejected,
        overflow::a_late_delivery_is_a_deadline_miss,
        overflow::a_full_queue_holds_up_no_other,
        pending::a_full_process_loses_nothing_within_the_capacity,
        pending::a_full_thread_loses_nothing_within_the_capacity,
        pending::past_the_capacity_the_policy_decides,
        pending::what_is_queued_expires_or_dies_with_its_receiver,
        pending::a_stuck_receiver_holds_up_nobody,
        queues::bytes_arrive_unchanged,
        queues::a_priority_is_kept_or_mapped,
        queues::higher_priorities_leave_a_source_first,
        queues::two_routes_read_one_source,
        queues::routes_chain_through_a_queue,
        queues::an_unmodified_sender_meets_reject_and_block,
        queues::a_registered_sender_is_the_verified_origin,
        signals::value_and_origin_pass_from_signal_to_signal,
        signals::a_signal_in_a_queue_is_a_record,
        signals::a_forged_pid_is_a_claim,
        signals::only_the_owner_may_send,
        signals::a_payload_becomes_a_value,
        signals::a_signal_goes_to_the_thread_or_the_process,
        signals::a_doorbell_rings_once_for_many,
        signals::doorbells_into_the_daemon_coalesce,
    ];
    libtest_mimic::run(&Arguments::from_args(), trials).exit_code()
}
