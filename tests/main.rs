//! The workspace's integration tests: real processes against the real daemon.
//!
//! One binary. Started with `--peer` it is a participant instead (`util/peer.rs`): an unprivileged, dumb
//! program that knows `mq_open`, `sigqueue` and `sigwaitinfo` and does what it is told on standard input.

mod crash;
mod credits;
mod grants;
mod groups;
mod lanes;
mod overflow;
mod pending;
mod queues;
mod sealed;
mod signals;
mod stop;
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
        crash::a_killed_sender_loses_nothing_it_sent,
        crash::a_killed_receiver_is_accounted_to_the_message,
        crash::a_killed_daemon_loses_what_it_had_in_hand,
        crash::a_daemon_killed_at_any_moment_loses_no_more,
        crash::queues_are_adopted_with_what_is_in_them,
        credits::a_stuck_receiver_leaves_the_signal_queue_to_others_of_its_user,
        grants::a_start_without_limits_is_refused,
        grants::a_start_that_the_kernel_refuses_takes_everything_back,
        grants::the_limits_that_a_refusal_names_are_enough,
        grants::the_capabilities_that_a_refusal_names_are_enough,
        grants::a_degraded_start_says_so_everywhere,
        groups::all_get_a_copy,
        groups::all_with_one_full_and_one_dead,
        groups::round_robin_takes_turns,
        groups::round_robin_skips_the_dead_and_the_full,
        groups::any_takes_the_first_with_room,
        groups::a_group_of_the_dead_is_dead,
        lanes::threads_are_what_the_lane_says,
        lanes::a_high_lane_overtakes_in_the_middle_of_a_fan_out,
        lanes::a_held_source_holds_up_no_other,
        lanes::a_spinning_lane_spins_and_then_sleeps,
        lanes::a_polling_lane_scans_its_sources,
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
        overflow::order_holds_while_a_slow_receiver_reads,
        overflow::a_full_queue_holds_up_no_other,
        pending::a_full_process_loses_nothing_within_the_capacity,
        pending::a_full_thread_loses_nothing_within_the_capacity,
        pending::a_used_up_share_loses_nothing_within_the_capacity,
        pending::past_the_capacity_the_policy_decides,
        pending::what_is_queued_expires,
        pending::what_is_queued_dies_with_its_receiver,
        pending::a_stuck_receiver_holds_up_nobody,
        queues::bytes_arrive_unchanged,
        queues::a_priority_is_kept_or_mapped,
        queues::higher_priorities_leave_a_source_first,
        queues::two_routes_read_one_source,
        queues::routes_chain_through_a_queue,
        queues::an_unmodified_sender_meets_reject_and_block,
        queues::a_registered_sender_is_the_verified_origin,
        sealed::the_straight_paths_touch_no_heap,
        sealed::the_crooked_paths_touch_no_heap,
        signals::value_and_origin_pass_from_signal_to_signal,
        signals::a_signal_in_a_queue_is_a_record,
        signals::a_forged_pid_is_a_claim,
        signals::only_the_owner_may_send,
        signals::a_payload_becomes_a_value,
        signals::a_signal_goes_to_the_thread_or_the_process,
        signals::a_doorbell_rings_once_for_many,
        signals::doorbells_into_the_daemon_coalesce,
        stop::a_stop_delivers_what_is_queued,
        stop::a_stop_accounts_for_the_rest,
        stop::a_second_signal_cuts_a_stop_short,
        stop::a_stop_leaves_a_held_senders_messages_alone,
        stop::queues_that_go_are_emptied_first,
        stop::a_hangup_is_answered_and_survived,
        stop::signals_of_strangers_leave_no_trace,
    ];
    libtest_mimic::run(&Arguments::from_args(), trials).exit_code()
}
