//! A configuration: the way of `rtd check` from its text to what it prints, on machines that are
//! made up.

use rtcore::sys::limits::Limit;
use rtd::config::command::{CheckArgs, EXIT_REFUSED, EXIT_RUNS, Output, check_text};
use rtd::config::machine::{Cobalt, Known, Queues};
use rtd::config::{CheckOptions, Machine, check_with, schema};
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

/// Diagnostics have a place and a fix; a plan comes out only without errors, and keeps its
/// promises.
pub fn play(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    for machine in [
        machine(),
        Machine {
            known: machine().known,
            cobalt: machine().cobalt,
            ..Machine::unknown()
        },
    ] {
        let options = CheckOptions {
            allow_degraded: true,
            ..CheckOptions::default()
        };
        let checked = check_with("fuzz.toml", &text, &machine, options);
        for diagnostic in &checked.diagnostics {
            assert!(!diagnostic.to_string().contains('\x1b'), "{diagnostic}");
            assert!(
                diagnostic.line >= 1 && diagnostic.column >= 1 && diagnostic.length >= 1,
                "{diagnostic}"
            );
            assert!(
                !diagnostic.message.is_empty() && !diagnostic.fix.is_empty(),
                "{diagnostic}"
            );
        }
        let refused = checked
            .diagnostics
            .iter()
            .any(|diagnostic| diagnostic.is_error());
        assert_eq!(checked.plan.is_none(), refused);
        if let Some(plan) = &checked.plan {
            assert_eq!(plan.broken_invariant(), None);
        }
        for output in [Output::Summary, Output::Json, Output::Svg] {
            let (mut out, mut err) = (Vec::new(), Vec::new());
            let args = CheckArgs {
                output,
                options,
                columns: Some(40),
            };
            let code = check_text("fuzz.toml", &text, args, &machine, &mut out, &mut err);
            assert_eq!(code, if refused { EXIT_REFUSED } else { EXIT_RUNS });
            assert!(
                output != Output::Json || serde_json::from_slice::<serde_json::Value>(&out).is_ok()
            );
        }
    }
}

/// Four CPUs, CPU 3 isolated, CPU 2 not allowed, and the usual limits with no privilege.
fn machine() -> Machine {
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
        rlimit_msgqueue: limit(819_200),
        rlimit_memlock: limit(256 << 20),
        rlimit_sigpending: limit(4096),
        rlimit_rtprio: limit(98),
        rlimit_nofile: limit(1024),
        msg_max: Some(10),
        msgsize_max: Some(8192),
        queues_max: Some(256),
        memory_available: Some(1 << 30),
        memory_limit: "MemAvailable".to_owned(),
        program_bytes: 8 * 1024 * 1024,
        program: "/opt/rtd".to_owned(),
        uid: 1000,
        gid: 1000,
        runtime_dir: Some(PathBuf::from("/run/user/1000")),
        queues: Queues::Listed(Vec::new()),
        cobalt: Cobalt::Fixed(Err("no Cobalt core runs".into())),
        known: Known::Fixed {
            users: BTreeMap::from([("robot".to_owned(), 1001)]),
            groups: BTreeMap::from([("rtd".to_owned(), 990)]),
            exes: BTreeSet::from([PathBuf::from("/usr/bin/drive")]),
        },
        ..Machine::unknown()
    }
}

/// The configurations of the repository.
pub fn seeds() -> Vec<Vec<u8>> {
    let all = [
        include_str!("../../../../configs/demo-arm.toml"),
        include_str!("../../../../configs/examples.toml"),
        include_str!("../../../../configs/minimal.toml"),
    ];
    all.map(|text| text.as_bytes().to_vec()).to_vec()
}

/// Keys and values of the schema, and what TOML consists of.
pub fn words() -> Vec<Vec<u8>> {
    let schema = schema::json();
    let mut words = super::words_of([
        schema.as_str(),
        include_str!("../../../../configs/examples.toml"),
    ]);
    let toml = [
        "[[", "]]", "[", "]", " = ", "\"", "'", "\"\"\"", "\n", "#", "{", "}", ",", ".", "1e9",
        "0x", "\\u0000",
    ];
    words.extend(toml.map(|word| word.as_bytes().to_vec()));
    words.extend(
        ["lane", "process", "endpoint", "group", "route"]
            .map(|s| format!("\n[[{s}]]\nname = \"").into_bytes()),
    );
    words
}
