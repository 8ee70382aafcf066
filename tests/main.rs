//! The workspace's integration tests: real processes against the real daemon.
//!
//! One binary. Started with `--peer` it is a participant instead (`util/peer`): a program that obeys
//! the orders it reads from standard input (`util/order.rs`).
//!
//! Each module has the table of its tests ([`util::needs`]), and [`MODULES`] lists the modules. A
//! test without a row and a module that is not listed are dead code, which does not compile;
//! `documents` looks for files that are no module.

#![deny(dead_code)]

#[macro_use]
mod util;

mod abuse;
mod adoption;
mod bindings_c;
mod check;
mod claims;
mod cobalt;
mod cobalt_broken;
mod cobalt_core;
mod cobalt_rings;
mod columns;
mod confined;
mod containers;
mod crash;
mod credentials;
mod credits;
mod death;
mod demo;
mod dependencies;
mod descriptors;
mod documents;
mod examples;
mod flush;
mod forked;
mod groups;
mod guard;
mod handshakes;
mod help;
mod holders;
mod holding;
mod hostile;
mod journals;
mod lane_calls;
mod lane_overflow;
mod lane_routes;
mod lane_waits;
mod lanes;
mod large_rings;
mod lat_clean;
mod lat_compare;
mod lat_files;
mod lat_interference;
mod lat_load;
mod lat_mechanisms;
mod lat_options;
mod lat_outage;
mod lat_regressions;
mod lat_routes;
mod lat_rt_tests;
mod lat_running;
mod lat_view;
mod leftovers;
mod listen;
mod lives;
mod losses;
mod namespaces;
mod notify;
mod origins;
mod outside;
mod overflow;
mod partners;
mod pending;
mod permissions;
mod places;
mod policies;
mod prepared;
mod privilege;
mod queues;
mod quiet;
mod ready;
mod receiver;
mod reconnect;
mod refusals;
mod refused_calls;
mod registration;
mod regressions;
mod rejoin;
mod removed;
mod reopening;
mod restart;
mod resumed;
mod sealed;
mod security;
mod send;
mod sends;
mod sessions;
mod shell_blocks;
mod signal_payload;
mod signals;
mod starting;
mod stats;
mod stop;
mod storms;
mod violations;
mod watch;
mod wording;
mod xddp;

use libtest_mimic::Arguments;
use rtcore::seal::GuardAlloc;
use util::needs::Test;

/// Counts what a participant's thread allocates while it is sealed (`quiet`).
#[global_allocator]
static GUARD: GuardAlloc = GuardAlloc;

/// Each module's name and table.
macro_rules! modules {
    ($($module:ident),* $(,)?) => { &[$((stringify!($module), $module::TESTS)),*] };
}

/// All tests.
static MODULES: &[(&str, &[Test])] = modules![
    abuse,
    adoption,
    bindings_c,
    check,
    claims,
    cobalt,
    cobalt_broken,
    cobalt_core,
    cobalt_rings,
    columns,
    confined,
    containers,
    crash,
    credentials,
    credits,
    death,
    demo,
    dependencies,
    descriptors,
    documents,
    examples,
    flush,
    forked,
    groups,
    guard,
    handshakes,
    help,
    holders,
    holding,
    hostile,
    journals,
    lane_calls,
    lane_overflow,
    lane_routes,
    lane_waits,
    lanes,
    large_rings,
    lat_clean,
    lat_compare,
    lat_files,
    lat_interference,
    lat_load,
    lat_mechanisms,
    lat_options,
    lat_outage,
    lat_regressions,
    lat_routes,
    lat_rt_tests,
    lat_running,
    lat_view,
    leftovers,
    listen,
    lives,
    losses,
    namespaces,
    notify,
    origins,
    outside,
    overflow,
    partners,
    pending,
    permissions,
    places,
    policies,
    prepared,
    privilege,
    queues,
    quiet,
    ready,
    receiver,
    reconnect,
    refusals,
    refused_calls,
    registration,
    regressions,
    rejoin,
    removed,
    reopening,
    restart,
    resumed,
    sealed,
    security,
    send,
    sends,
    sessions,
    shell_blocks,
    signal_payload,
    signals,
    starting,
    stats,
    stop,
    storms,
    violations,
    watch,
    wording,
    xddp,
];

fn main() -> std::process::ExitCode {
    let args: Vec<String> = std::env::args().collect();
    if args.get(1).is_some_and(|a| a == "--peer") {
        return util::peer::main(args.get(2).map(String::as_str));
    }
    if args.get(1).is_some_and(|a| a == "--breach") {
        return confined::breach();
    }
    if args.get(1).is_some_and(|a| a == "--fault") {
        return confined::fault();
    }
    let tests = MODULES.iter().flat_map(|(_, tests)| tests.iter());
    let trials = tests.map(Test::trial).collect();
    libtest_mimic::run(&Arguments::from_args(), trials).exit_code()
}
