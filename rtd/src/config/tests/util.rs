//! A machine to check against, a configuration to spoil, and how to look for a diagnostic.

use super::hints::hints_hold;
use crate::config::machine::{Cobalt, Known, Queues};
use crate::config::{self, CheckOptions, Checked, Diagnostic, Machine};
use rtcore::sys::limits::Limit;
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

/// A machine with four CPUs, CPU 3 isolated, CPU 2 not allowed, and the usual limits with no
/// privilege.
pub fn machine() -> Machine {
    let limit = |value: u64| {
        Some(Limit {
            soft: Some(value),
            hard: Some(value),
        })
    };
    Machine {
        cpus_existing: Some(vec![0, 1, 2, 3]),
        cpus_allowed: Some(vec![0, 1, 3]),
        cpus_isolated: Some(vec![3]),
        throttle: |_| None,
        cpu_dma_latency: Ok(()),
        rlimit_msgqueue: limit(819_200),
        rlimit_memlock: limit(256 * 1024 * 1024),
        rlimit_sigpending: limit(4096),
        rlimit_rtprio: limit(98),
        rlimit_nofile: limit(1024),
        msg_max: Some(10),
        msgsize_max: Some(8192),
        queues_max: Some(256),
        memory_available: Some(1 << 30),
        memory_limit: "MemAvailable".to_owned(),
        program_bytes: 8 * 1024 * 1024,
        cap_sys_resource: Some(false),
        cap_ipc_lock: Some(false),
        cap_sys_nice: Some(false),
        fifo_refused: false,
        user_namespace: false,
        cap_kill: Some(false),
        cap_sys_ptrace: Some(false),
        cap_setuid: Some(false),
        cap_setgid: Some(false),
        program: "/opt/rtd".to_owned(),
        uid: 1000,
        gid: 1000,
        run_dir_owner: None,
        runtime_dir: Some(PathBuf::from("/run/user/1000")),
        queues: Queues::Listed(Vec::new()),
        cobalt: Cobalt::Fixed(Err("no Cobalt core runs".into())),
        known: Known::Fixed {
            users: BTreeMap::from([("robot".to_owned(), 1001)]),
            groups: BTreeMap::from([("rtd".to_owned(), 990)]),
            exes: BTreeSet::from([PathBuf::from("/usr/bin/drive")]),
        },
    }
}

/// A valid configuration, a piece of text per section so that tests can spoil one.
pub const LANE: &str = "[[lane]]\nname = \"control\"\npriority = 50\ncpu = 0\n";
pub const PROCESS: &str = "[[process]]\nname = \"drive\"\n";
pub const QUEUES: &str = "[[endpoint]]\nname = \"in\"\nkind = \"mqueue\"\nmsgsize = 64\n\
                          [[endpoint]]\nname = \"out\"\nkind = \"mqueue\"\nmsgsize = 64\n";
pub const SIGNALS: &str = "[[endpoint]]\nname = \"press\"\nkind = \"signal\"\nsignal = \"SIGRTMIN+1\"\n\
                           [[endpoint]]\nname = \"stop\"\nkind = \"signal\"\nsignal = \"SIGRTMIN+2\"\nowner = \"drive\"\n";
pub const ROUTE: &str = "[[route]]\nfrom = \"in\"\nto = [\"out\"]\nlane = \"control\"\n";
pub const SIGNAL_ROUTE: &str =
    "[[route]]\nfrom = \"press\"\nto = [\"stop\"]\nlane = \"control\"\naccept_claimed = true\n";

/// Two ends in shared memory, each of another process.
pub const LANES: &str = "[[process]]\nname = \"planner\"\n\
                         [[endpoint]]\nname = \"plan\"\nkind = \"lane\"\nowner = \"planner\"\nmsgsize = 64\n\
                         [[endpoint]]\nname = \"axis\"\nkind = \"lane\"\nowner = \"drive\"\nmsgsize = 64\n";
pub const LANE_ROUTE: &str = "[[route]]\nfrom = \"plan\"\nto = [\"axis\"]\nlane = \"control\"\n";

/// From lane endpoint to lane endpoint.
pub fn lanes() -> String {
    [LANE, PROCESS, LANES, LANE_ROUTE].concat()
}

/// Both routes with what they need.
pub fn whole() -> String {
    [LANE, PROCESS, QUEUES, SIGNALS, ROUTE, SIGNAL_ROUTE].concat()
}

/// Two queues and their route only.
pub fn queues() -> String {
    [LANE, QUEUES, ROUTE].concat()
}

/// Replaces a piece of text that must be there.
pub fn with(text: &str, old: &str, new: &str) -> String {
    assert!(text.contains(old), "{old:?} is not in the text");
    text.replacen(old, new, 1)
}

/// Checks a file, and that each of its hints works, unless it is a flood of faults.
#[track_caller]
pub fn check_with(file: &str, text: &str, machine: &Machine, options: CheckOptions) -> Checked {
    let checked = config::check_with(file, text, machine, options);
    if checked.diagnostics.len() <= FAULTS_MAX && text.len() <= TRIED_BYTES_MAX {
        let mut failures = Vec::new();
        hints_hold(text, machine, options, &mut failures);
        assert!(failures.is_empty(), "{}", failures.join("\n"));
    }
    checked
}

/// Diagnostics of a file whose hints are tried: each takes another check of the file.
const FAULTS_MAX: usize = 20;
/// Longest such file: one that is made to take long would be checked again for each hint.
const TRIED_BYTES_MAX: usize = 64 * 1024;

/// Checks on the machine above.
#[track_caller]
pub fn run(text: &str) -> Checked {
    check_with("test.toml", text, &machine(), CheckOptions::default())
}

/// Line (from 1) of the `nth` line that begins with `start`.
pub fn line_of(text: &str, start: &str, nth: usize) -> usize {
    let mut lines = text
        .lines()
        .enumerate()
        .filter(|(_, line)| line.starts_with(start));
    lines
        .nth(nth)
        .map_or_else(|| panic!("no line {start:?}"), |(at, _)| at + 1)
}

/// The one diagnostic, with what it must say.
#[track_caller]
pub fn only(checked: &Checked) -> &Diagnostic {
    assert_eq!(
        checked.diagnostics.len(),
        1,
        "{}",
        shown(&checked.diagnostics)
    );
    &checked.diagnostics[0]
}

/// Asserts one error with its line, key path, and a piece of message and fix.
#[track_caller]
pub fn error(text: &str, line: usize, key: &str, message: &str, fix: &str) {
    let checked = run(text);
    assert!(checked.plan.is_none(), "a plan came out of\n{text}");
    expect(only(&checked), line, key, message, fix);
}

/// Asserts a plan with one warning.
#[track_caller]
pub fn warning(text: &str, line: usize, key: &str, message: &str, fix: &str) {
    let checked = run(text);
    assert!(checked.plan.is_some(), "{}", shown(&checked.diagnostics));
    expect(only(&checked), line, key, message, fix);
}

#[track_caller]
pub fn expect(found: &Diagnostic, line: usize, key: &str, message: &str, fix: &str) {
    assert_eq!((found.line, found.key.as_str()), (line, key), "{found}");
    assert!(
        found.message.contains(message),
        "no {message:?} in\n{found}"
    );
    assert!(found.fix.contains(fix), "no {fix:?} in\n{found}");
}

pub fn shown(diagnostics: &[Diagnostic]) -> String {
    diagnostics.iter().map(Diagnostic::to_string).collect()
}
