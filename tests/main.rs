//! The workspace's integration tests: real processes against the real daemon.
//!
//! One binary. Started with `--peer` it is a participant instead (`util/peer.rs`): an unprivileged, dumb
//! program that knows `mq_open`, `sigqueue` and `sigwaitinfo` and does what it is told on standard input.

mod abuse;
mod check;
mod claims;
mod cobalt;
mod confined;
mod crash;
mod credentials;
mod credits;
mod death;
mod demo;
mod examples;
mod grants;
mod groups;
mod help;
mod holding;
mod hostile;
mod lane_calls;
mod lane_overflow;
mod lane_routes;
mod lane_waits;
mod lanes;
mod lat_breaker;
mod lat_clean;
mod lat_compare;
mod lat_files;
mod lat_interference;
mod lat_load;
mod lat_mechanisms;
mod lat_options;
mod lat_regressions;
mod lat_routes;
mod lat_rt_tests;
mod lat_running;
mod lat_view;
mod liars;
mod listen;
mod overflow;
mod partners;
mod pending;
mod queues;
mod quiet;
mod registration;
mod regressions;
mod restart;
mod sealed;
mod send;
mod sends;
mod sessions;
mod signal_payload;
mod signals;
mod stats;
mod stop;
mod util;
mod watch;
mod xddp;

use libtest_mimic::{Arguments, Failed, Trial};
use rtcore::seal::GuardAlloc;

/// Counts what a participant's thread allocates while it is sealed (`quiet`).
#[global_allocator]
static GUARD: GuardAlloc = GuardAlloc;

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
    if args.get(1).is_some_and(|a| a == "--breach") {
        return confined::breach();
    }
    if args.get(1).is_some_and(|a| a == "--signal-peer") {
        return util::signal_peer::main();
    }
    if let (Some("--cobalt-peer"), Some(library)) = (args.get(1).map(String::as_str), args.get(2)) {
        return util::cobalt_peer::main(library);
    }
    let trials: Vec<Trial> = trials![
        cobalt::a_queue_is_routed_into_a_queue_and_every_tool_says_on_what,
        cobalt::a_queue_is_routed_into_a_thread_s_signals,
        cobalt::a_signal_to_a_lane_thread_is_passed_on,
        cobalt::past_the_capacity_the_policy_decides,
        cobalt::a_stop_delivers_or_accounts_and_keeps_the_queues_or_not,
        cobalt::a_thread_that_loses_its_mode_is_counted_and_told,
        cobalt::the_choice_falls_back_with_the_reason_or_fails_with_it,
        cobalt::a_thread_that_is_not_promoted_refuses_the_start_also_a_degraded_one,
        cobalt::what_cobalt_cannot_do_is_refused_with_what_mends_it,
        confined::each_lane_thread_has_a_filter_and_a_strangers_sigsys_is_no_breach,
        confined::a_call_off_the_list_is_refused_counted_and_named,
        confined::in_tests_a_call_off_the_list_aborts_and_the_line_names_it,
        confined::a_start_without_a_filter_is_refused_or_said_everywhere,
        crash::a_killed_sender_loses_nothing_it_sent,
        crash::a_killed_receiver_is_accounted_to_the_message,
        crash::a_killed_daemon_loses_what_it_had_in_hand,
        crash::a_daemon_killed_at_any_moment_loses_no_more,
        crash::queues_are_adopted_with_what_is_in_them,
        credits::a_stuck_receiver_leaves_the_signal_queue_to_others_of_its_user,
        credits::a_signal_nobody_takes_holds_up_no_other_of_its_process,
        credits::registering_again_buys_no_credit,
        credits::the_registered_thread_may_end,
        grants::a_start_without_limits_is_refused,
        grants::a_start_that_the_kernel_refuses_takes_everything_back,
        grants::the_limits_that_a_refusal_names_are_enough,
        grants::the_capabilities_that_a_refusal_names_are_enough,
        grants::a_failed_start_touches_no_message,
        grants::a_degraded_start_says_so_everywhere,
        groups::all_get_a_copy,
        groups::all_with_one_full_and_one_dead,
        groups::round_robin_takes_turns,
        groups::round_robin_skips_the_dead_and_the_full,
        groups::any_takes_the_first_with_room,
        groups::what_waits_for_a_member_outlives_it,
        groups::a_member_that_refuses_is_passed_over,
        groups::a_group_of_the_dead_is_dead,
        groups::all_is_who_is_in_the_process_group_now,
        groups::a_process_that_changes_its_group_is_seen_by_itself,
        groups::members_of_the_process_group_take_turns,
        groups::what_is_queued_for_a_member_stays_with_it,
        groups::a_session_is_without_those_that_made_their_own,
        holding::a_strangers_queue_is_not_adopted,
        holding::an_adopted_queue_gets_the_configured_mode,
        holding::what_is_lost_with_a_queue_is_told,
        holding::a_queue_removed_under_rtd_is_told,
        holding::a_queue_has_one_reader,
        holding::a_shared_queue_goes_with_its_last_user,
        lanes::threads_are_what_the_lane_says,
        lanes::a_high_lane_overtakes_in_the_middle_of_a_fan_out,
        lanes::a_held_source_holds_up_no_other,
        lanes::a_spinning_lane_spins_and_then_sleeps,
        lanes::a_polling_lane_scans_its_sources,
        lat_breaker::a_break_touches_no_heap,
        lat_clean::every_path_is_clean,
        lat_clean::whatever_is_unclean_is_found_and_named,
        lat_clean::who_takes_the_cpu_and_is_no_lane_is_named,
        lat_clean::a_slip_on_the_command_line_is_refused,
        lat_regressions::results_that_cannot_be_kept_are_refused_before_the_run,
        lat_regressions::a_file_that_turns_out_full_takes_no_text_with_it,
        lat_regressions::samples_that_nobody_reads_end_the_run,
        lat_regressions::a_daemon_that_dies_ends_the_run_and_leaves_no_queue,
        lat_regressions::a_mask_is_heeded,
        lat_regressions::a_cpu_outside_the_mask_may_be_asked_for,
        lat_regressions::a_sender_that_is_stopped_for_good_ends_the_run,
        lat_regressions::a_reader_that_has_left_is_in_nobodys_way,
        lat_regressions::what_cannot_be_sent_is_told_soon,
        lat_regressions::too_many_routes_of_signals_are_told_in_numbers,
        lat_interference::every_condition_holds_and_has_its_ratio_to_alone,
        lat_interference::ended_half_way_it_stops_everything_it_started,
        lat_interference::what_cannot_be_is_refused,
        lat_load::what_runs_beside_is_told,
        lat_load::workers_end_with_the_measurement_whatever_ends_it,
        lat_load::a_worker_that_dies_makes_the_run_fail,
        lat_load::a_load_that_cannot_be_is_refused,
        lat_compare::a_table_has_every_path_with_its_ratio_to_mq,
        lat_compare::every_path_can_be_compared_between_processes,
        lat_compare::its_files_say_the_same,
        lat_compare::a_baseline_is_saved_and_judged_by,
        lat_compare::enough_turns_are_judged,
        lat_compare::ended_by_sigint_it_shows_the_turns_it_has,
        lat_files::json_has_figures_that_fit_together,
        lat_files::hgrm_is_a_percentile_table,
        lat_files::hlog_is_an_interval_log,
        lat_files::csv_has_equal_rows,
        lat_files::xenomai_has_its_columns,
        lat_files::pictures_are_well_formed,
        lat_files::the_page_has_all_in_it,
        lat_files::a_file_that_cannot_be_written_is_an_error_that_names_it,
        lat_mechanisms::between_threads,
        lat_mechanisms::between_processes,
        lat_mechanisms::there_and_back_between_threads,
        lat_mechanisms::there_and_back_between_processes,
        lat_mechanisms::asked_for_between_threads,
        lat_mechanisms::asked_for_between_processes,
        lat_mechanisms::two_pairs_of_threads,
        lat_mechanisms::two_pairs_of_processes_there_and_back,
        lat_mechanisms::a_pair_on_every_cpu,
        lat_mechanisms::a_pair_of_processes_on_every_cpu,
        lat_mechanisms::on_any_cpu_the_counts_add_up,
        lat_mechanisms::back_to_back,
        lat_mechanisms::real_time_threads_run_where_and_as_they_are_told,
        lat_mechanisms::timers_of_every_number,
        lat_mechanisms::ended_by_sigint_they_show_what_they_have,
        lat_mechanisms::killed_they_leave_nothing,
        lat_mechanisms::a_sender_that_is_killed_is_told,
        lat_options::slips_exit_with_2_and_name_the_option,
        lat_options::what_cannot_be_done_exits_with_1_and_says_what_would_help,
        lat_options::what_an_ordinary_user_lacks_is_named_with_the_line_that_grants_it,
        lat_options::a_broken_bound_exits_with_3_and_shows_the_culprit,
        lat_routes::between_threads,
        lat_routes::between_processes,
        lat_routes::there_and_back_between_threads,
        lat_routes::there_and_back_between_processes,
        lat_routes::asked_for_between_processes,
        lat_routes::two_pairs_through_one_daemon,
        lat_routes::a_lane_that_spins,
        lat_routes::ended_by_sigint_they_show_what_they_have,
        lat_routes::killed_they_leave_nothing,
        lat_rt_tests::cyclictest_and_timer_bring_the_same,
        lat_rt_tests::a_histogram_on_standard_output_is_cyclictests,
        lat_rt_tests::pmqtest_and_mq_bring_the_same,
        lat_rt_tests::sigwaittest_and_signal_bring_the_same,
        lat_rt_tests::gnuplot_draws_the_osadl_picture,
        lat_running::every_kind_to_every_kind,
        lat_running::what_cannot_be_measured_is_refused_with_what_there_is,
        lat_running::an_end_that_somebody_has_is_left_to_them,
        lat_running::without_a_daemon_it_says_how_to_start_one,
        lat_running::killed_it_gives_back_what_it_took,
        lat_view::a_duration_ends_it,
        lat_view::whichever_comes_first_ends_it,
        lat_view::a_pipe_gets_no_escape_codes,
        lat_view::verbose_shows_every_sample,
        lat_view::a_terminal_is_redrawn_and_ends_with_the_result,
        lat_view::quiet_on_a_terminal_shows_the_result_alone,
        lat_view::what_a_stopped_sender_misses_is_in_the_corrected_figures,
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
        signal_payload::payloads_of_every_size_come_with_their_verified_origin,
        signal_payload::a_burst_past_a_slow_handler_is_lossless_with_few_signals,
        signal_payload::the_lowest_number_comes_first_between_rings_and_plain_signals,
        signal_payload::a_signal_that_is_passed_on_keeps_its_value,
        signal_payload::a_thread_as_target_reaches_the_dispatcher,
        signal_payload::a_full_signal_queue_delays_the_doorbell_and_loses_nothing,
        signal_payload::a_killed_daemon_loses_and_repeats_nothing,
        signal_payload::a_killed_receiver_is_accounted_and_its_successor_receives,
        signal_payload::a_receiver_without_a_session_gets_values_and_no_more,
        signal_payload::plain_signals_from_before_the_session_are_no_doorbells,
        signal_payload::nobody_is_signalled_before_a_handler_is_there,
        signal_payload::after_the_session_plain_signals_go_on_and_nothing_is_left,
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
        check::all_problems_are_reported_at_once_each_with_its_place_and_mend,
        check::json_has_the_same_problems_for_a_program,
        check::the_exit_code_says_runs_refused_or_unreadable,
        check::a_good_file_shows_what_it_means,
        check::standard_input_is_a_dash,
        check::the_schema_is_the_file_in_configs,
        check::every_file_in_configs_passes,
        check::run_refuses_a_faulty_file_with_the_same_words,
        check::what_is_not_granted_is_refused_with_the_line_that_grants_it,
        check::a_plan_that_outgrows_memory_is_refused,
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
        examples::a_controller_commands_a_drive_at_1_khz,
        examples::a_press_stops_the_machine,
        examples::the_end_of_the_button_stops_the_machine,
        examples::a_button_that_hangs_stops_the_machine,
        examples::the_end_of_the_daemon_stops_the_machine,
        examples::questions_are_answered_or_late,
        examples::a_loop_of_ones_own_waits_for_an_inbox_too,
        examples::without_a_daemon_each_says_how_to_start_it,
        abuse::half_and_oversized_frames_are_answered_and_closed,
        abuse::garbage_of_the_right_size_is_answered_and_closed,
        abuse::a_flood_that_reads_no_answers_is_cut_off,
        abuse::a_flood_of_good_requests_keeps_nobody_out,
        abuse::a_thousand_idle_connections_keep_nobody_out,
        abuse::a_storm_of_connections_leaves_no_descriptor_behind,
        credentials::a_user_and_a_group_are_demanded,
        credentials::an_executable_is_demanded_of_a_running_program,
        credentials::an_executable_is_demanded_of_what_run_starts,
        credentials::a_wrong_program_loses_the_name_and_lives,
        credentials::nobody_registers_another_users_process,
        credentials::another_user_takes_what_is_meant_for_it_and_nothing_else,
        credentials::a_hand_made_request_is_judged_by_the_sockets_credentials,
        death::kill_9_turns_messages_into_peer_dead_until_a_restart_takes_over,
        death::what_is_queued_for_a_process_that_dies_is_accounted_at_once,
        death::a_restart_reads_what_was_delivered_before,
        death::an_exit_is_seen_like_a_kill,
        death::a_restart_follows_its_death_at_once_again_and_again,
        death::kill_9_in_the_middle_of_a_stream_loses_no_count,
        hostile::a_log_that_nobody_reads_holds_up_nothing,
        hostile::a_strangers_page_is_no_order_to_root,
        hostile::a_number_that_passed_on_gets_no_signal,
        hostile::one_name_on_every_connection_keeps_nobody_out,
        registration::run_gives_an_unmodified_program_a_name_and_the_pid_stays,
        registration::the_program_keeps_its_streams_arguments_and_exit_code,
        registration::what_cannot_be_run_says_126_or_127_and_gives_the_name_back,
        registration::a_name_that_a_live_process_holds_is_refused,
        registration::a_name_that_does_not_exist_is_refused_with_those_that_do,
        registration::a_running_program_is_registered_by_its_pid_and_gets_its_signals,
        registration::what_is_no_process_is_refused,
        registration::without_a_daemon_the_way_to_start_it_is_told,
        registration::a_signal_does_not_kill_a_program_that_does_not_expect_it,
        registration::no_signal_kills_between_registration_and_sigwait,
        regressions::a_lane_that_drains_sooner_than_others_is_no_defect,
        stats::json_has_every_key_and_the_right_figures,
        stats::ls_and_stats_show_all_of_it_to_a_human,
        stats::a_hung_daemon_is_shown_as_hung_with_its_figures,
        stats::a_killed_daemon_leaves_its_figures,
        stats::after_a_clean_stop_the_error_says_how_to_start,
        stats::every_snapshot_of_a_flood_balances,
        stats::another_user_reads_the_page_and_cannot_write_it,
        stats::a_degraded_daemon_says_so_everywhere,
        stats::the_instance_comes_from_the_option_or_the_environment,
        watch::into_a_pipe_it_prints_block_after_block_and_sigint_ends_it,
        watch::a_closed_pipe_ends_it_quietly,
        watch::json_comes_as_one_document_a_line_with_rates,
        watch::a_terminal_is_redrawn_in_place,
        watch::it_outlives_the_daemon_and_finds_the_next,
        send::every_form_of_payload_arrives_unchanged,
        send::a_signal_goes_to_the_daemon_or_to_the_owner,
        send::count_is_exact_and_rate_is_a_schedule,
        send::a_full_queue_is_waited_for_or_counted,
        send::sigint_ends_it_and_it_says_how_many,
        send::refusals_say_what_and_what_instead,
        send::a_signal_for_a_daemon_that_is_gone_is_not_sent,
        listen::a_queue_is_shown_as_text_or_hex_with_its_priority,
        listen::a_queue_is_shown_as_json,
        listen::a_signal_is_shown_with_its_value_and_origin,
        listen::it_steals_only_when_told,
        listen::a_closed_pipe_ends_it_quietly,
        listen::ctrl_c_ends_a_listener,
        sessions::a_name_is_had_by_who_may_have_it,
        sessions::a_process_has_one_session_of_a_name,
        sessions::an_endpoint_that_is_not_to_be_had_names_the_rule,
        sessions::without_its_daemon_there_is_no_session,
        sessions::a_thread_above_its_lane_is_refused_or_warned_of,
        sessions::rtctl_shows_sessions_and_balanced_ledgers_of_both_paths,
        sends::a_direct_receiver_that_is_stopped_makes_its_sender_full,
        sends::a_routed_receiver_that_is_stopped_makes_its_sender_full,
        sends::what_a_lane_rejects_is_missing_at_the_receiver,
        sends::a_message_longer_than_a_slot_is_refused_with_the_bound,
        sends::a_receiver_that_ended_is_told_with_its_cause,
        sends::a_receiver_that_never_was_is_told_as_not_there,
        sends::a_sender_killed_at_work_loses_nothing_it_was_told_is_sent,
        sends::a_sender_killed_half_way_through_a_slot_sends_nothing_of_it,
        claims::of_two_that_claim_a_name_exactly_one_gets_it,
        claims::killed_right_after_it_connected_a_process_leaves_nothing,
        claims::killed_while_it_connects_a_process_leaves_nothing,
        claims::a_receiver_may_come_and_go_while_nothing_is_sent,
        restart::a_killed_daemon_loses_no_routed_message,
        restart::a_stopped_daemon_loses_no_routed_message,
        restart::a_killed_daemon_interrupts_no_direct_traffic,
        restart::a_stopped_daemon_interrupts_no_direct_traffic,
        restart::without_a_daemon_a_routed_send_is_disconnected_at_once,
        restart::a_changed_configuration_takes_ends_and_brings_others,
        partners::a_routed_receiver_that_goes_is_told_with_its_cause_and_told_back,
        partners::a_direct_receiver_that_goes_is_told_with_its_cause_and_told_back,
        partners::a_sender_that_goes_is_told_and_its_successor_heard,
        partners::without_a_daemon_the_death_of_a_direct_partner_is_told,
        partners::what_a_dead_direct_receiver_had_not_taken_is_told_to_its_sender,
        lane_routes::a_queue_and_a_signal_reach_an_inbox,
        lane_routes::a_lane_reaches_a_process_and_a_thread_by_signal,
        lane_routes::a_lane_reaches_a_queue_with_the_routes_priority,
        lane_routes::origin_number_and_stamps_pass_unchanged,
        lane_routes::a_client_that_writes_another_origin_is_who_it_is,
        lane_routes::what_was_rejected_shows_as_a_gap,
        lane_routes::a_group_of_all_kinds_gets_a_copy_each,
        lane_routes::a_group_of_all_kinds_takes_turns,
        lane_routes::a_group_of_all_kinds_has_one_that_takes_it,
        lane_routes::the_highest_lane_comes_first_out_of_one_inbox,
        lane_routes::equal_lanes_take_turns_in_an_inbox,
        lane_routes::a_receiver_returns_often_before_a_silent_sender,
        lane_overflow::reject_keeps_what_came_first,
        lane_overflow::displace_oldest_keeps_the_latest,
        lane_overflow::displace_newest_keeps_the_first_and_the_last,
        lane_overflow::conflate_keeps_the_latest_alone,
        lane_overflow::block_gives_up_after_its_bound,
        lane_overflow::block_fills_the_senders_ring_and_loses_nothing,
        lane_overflow::a_send_waits_at_most_its_bound_for_room,
        lane_overflow::a_direct_sender_is_told_what_does_not_fit,
        lane_overflow::what_waits_for_a_stopped_receiver_expires,
        lane_overflow::more_than_the_rate_is_rejected,
        lane_overflow::a_full_ring_holds_up_no_other,
        lane_overflow::order_holds_while_a_slow_receiver_reads,
        lane_overflow::a_lane_spins_on_several_rings_and_sleeps_in_all_of_them,
        lane_overflow::a_lane_polls_several_rings,
        lane_calls::each_question_has_its_answer,
        lane_calls::a_late_answer_is_counted_and_dropped,
        lane_calls::a_killed_server_ends_the_call_at_once,
        lane_calls::two_clients_share_a_server,
        lane_waits::every_strategy_receives_what_comes_by_every_way,
        lane_waits::a_deadline_ends_a_wait_and_a_message_ends_it_sooner,
        lane_waits::a_foreign_event_loop_misses_no_message,
        lane_waits::one_wait_has_what_is_ready_in_order_of_priority,
        liars::a_tail_beyond_the_slots_is_a_lie,
        liars::a_tail_that_goes_back_is_a_lie,
        liars::a_slot_announced_and_never_written_is_a_lie,
        liars::a_slot_announced_half_written_is_a_lie,
        liars::a_length_beyond_a_slot_is_a_lie,
        liars::flags_that_nobody_knows_are_a_lie,
        liars::a_replayed_slot_is_a_lie,
        liars::a_replayed_number_is_dropped_by_the_receiver,
        liars::a_head_beyond_the_tail_is_a_lie,
        liars::a_lie_in_a_direct_ring_is_found_by_its_receiver_and_by_the_daemon,
        liars::a_slot_of_nonsense_in_a_direct_ring_harms_nobody,
        liars::sessions_opened_and_closed_in_a_loop_leave_nothing,
        liars::descriptors_that_are_sent_are_not_kept,
        liars::connections_that_say_nothing_are_bounded,
        liars::a_session_that_never_reads_is_closed,
        liars::frames_that_no_client_sends_end_the_session,
        liars::nothing_makes_a_writer_of_a_reader,
        liars::a_hole_in_its_own_memory_harms_itself,
        liars::bells_that_are_rung_for_nothing_wake_and_harm_nobody,
        liars::one_that_is_stopped_holds_up_nobody,
        liars::one_that_changes_its_user_speaks_for_neither,
        quiet::a_send_into_a_polling_lane_makes_no_system_call,
        quiet::a_direct_send_to_a_polling_receiver_makes_no_system_call,
        quiet::a_send_to_a_sleeper_makes_the_call_that_wakes_it,
        quiet::a_client_allocates_nothing_after_connect,
        quiet::a_lane_thread_over_rings_touches_no_heap_and_faults_nothing,
        help::every_command_has_help,
        xddp::datagrams_go_from_a_device_into_a_queue_and_from_a_queue_to_the_device,
        xddp::a_full_pool_is_a_full_receiver_and_then_the_policy_decides,
        xddp::a_datagram_that_is_too_long_is_rejected_and_counted,
        xddp::a_program_that_closes_the_device_disturbs_nobody,
        xddp::a_stop_takes_what_is_in_the_port_and_frees_it,
        xddp::a_port_that_another_rtd_has_refuses_the_start,
        xddp::what_is_missing_for_it_is_refused_with_the_reason,
        xddp::the_check_says_what_cobalt_means_for_a_plan,
        xddp::a_library_that_others_may_write_is_not_even_tried,
    ];
    libtest_mimic::run(&Arguments::from_args(), trials).exit_code()
}
