//! Signals, asynchronous handlers and the one wait, with real signals, threads and processes.
//!
//! Constraint: signals belong to the process, which all tests share. `main` blocks every one of
//! them before a thread exists, and each test has numbers of its own ([`util::rt`]).

mod changes;
#[path = "../client/daemon.rs"]
mod daemon;
mod dispatcher;
mod handler;
mod payload;
mod util;
mod waiter;
mod waiter_faults;

use libtest_mimic::{Arguments, Trial};
use rtcore::client::signals::Signals;
use rtcore::sys::signame;

/// So that a test can show that a wait leaves the heap alone.
#[global_allocator]
static HEAP: rtcore::seal::GuardAlloc = rtcore::seal::GuardAlloc;

macro_rules! trials {
    ($($module:ident :: $test:ident),* $(,)?) => {
        vec![$(Trial::test(concat!(stringify!($module), "::", stringify!($test)), || {
            $module::$test();
            Ok(())
        })),*]
    };
}

fn main() -> std::process::ExitCode {
    // Those that the tests use; ^C still ends them.
    let all = (signame::rt_min()..=signame::rt_max()).chain([util::usr1()]);
    Signals::block(all).expect("the mask of the main thread");
    let trials = trials![
        dispatcher::a_value_and_its_claimed_origin_arrive,
        dispatcher::an_origin_that_the_kernel_wrote_is_verified,
        dispatcher::the_lowest_pending_number_is_handled_first,
        dispatcher::what_is_pending_before_registration_is_handled,
        dispatcher::a_panicking_handler_stops_nobody,
        dispatcher::a_thread_that_lets_a_signal_through_is_named,
        dispatcher::a_signal_has_one_taker_in_the_process,
        dispatcher::what_cannot_be_caught_is_refused,
        dispatcher::a_blocking_call_is_not_interrupted,
        changes::a_handler_may_change_everything_about_itself,
        changes::a_handler_may_drop_the_dispatcher,
        changes::a_drop_waits_for_the_running_handler,
        changes::nothing_is_lost_while_handlers_come_and_go,
        changes::without_a_handler_signals_are_drained_and_counted,
        changes::what_is_refused_may_use_the_dispatcher_as_it_goes,
        changes::what_a_handler_owns_may_panic_when_it_goes,
        handler::it_runs_on_a_guarded_stack_of_its_own,
        handler::a_blocking_read_is_restarted,
        handler::it_restores_what_it_found,
        handler::errno_survives_it,
        handler::its_doorbell_wakes_a_waiter,
        payload::a_message_is_looked_for_or_rung_for_and_neither_before_a_handler,
        payload::another_ring_wakes_the_dispatcher_without_a_signal,
        payload::a_session_has_one_dispatcher_at_a_time,
        waiter::ready_things_come_in_priority_order_until_they_are_served,
        waiter::a_deadline_is_kept_and_a_past_one_only_looks,
        waiter::room_and_hang_up_are_reported,
        waiter::signals_are_one_of_the_things,
        waiter::a_wait_leaves_the_heap_alone,
        waiter::timers_count_what_was_missed,
        waiter_faults::an_interrupted_wait_keeps_its_deadline,
        waiter_faults::a_closed_source_is_reported_until_it_is_removed,
        waiter_faults::a_closed_thing_with_a_duplicate_does_not_spin_after_removal,
        waiter_faults::a_number_that_is_used_again_is_not_confused,
        waiter_faults::refusals_say_what_to_do,
    ];
    libtest_mimic::run(&Arguments::from_args(), trials).exit_code()
}
