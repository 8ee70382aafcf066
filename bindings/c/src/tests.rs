//! The header, the list of exported symbols and the source are one: functions with their arguments,
//! sizes and offsets, numbers. `UPDATE_GOLDEN=1` writes `tests/abi.c`, which C compiles.

use crate::error::KINDS;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::mem::offset_of;
use std::path::{Path, PathBuf};
use std::process::Command;

fn at(file: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(file)
}

fn read(file: &str) -> String {
    std::fs::read_to_string(at(file)).unwrap()
}

/// Text of C without comments and preprocessor lines.
fn code(header: &str) -> String {
    let mut code = String::new();
    let mut rest = header;
    while let Some((before, comment)) = rest.split_once("/*") {
        code += before;
        rest = comment.split_once("*/").unwrap().1;
    }
    code += rest;
    let lines = code.lines().map(str::trim_end);
    let mut is_macro = false;
    let lines: Vec<&str> = lines
        .filter(|line| {
            let skip = is_macro || line.starts_with('#');
            is_macro = skip && line.ends_with('\\');
            !skip
        })
        .collect();
    lines.join("\n")
}

/// A declaration of C as `type name`, with the name apart.
fn declared(text: &str) -> (String, String) {
    let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
    let at = text.rfind([' ', '*']).unwrap() + 1;
    (text[..at].trim().replace(" *", "*"), text[at..].to_owned())
}

/// Functions of the header: name, and the types of result and arguments.
fn of_header() -> BTreeMap<String, Vec<String>> {
    let header = code(&read("include/rtcore.h"));
    let mut functions = BTreeMap::new();
    for statement in header.split(';') {
        // What is left of a structure, or of `extern "C" {`, comes before it.
        let statement = statement.rsplit(['{', '}']).next().unwrap_or_default();
        let Some((head, arguments)) = statement.split_once('(') else {
            continue;
        };
        if head.contains("typedef") {
            continue;
        }
        let (result, name) = declared(head);
        let arguments = arguments.trim_end().strip_suffix(')').unwrap();
        let mut types = vec![result];
        if arguments.trim() != "void" {
            types.extend(arguments.split(',').map(|argument| declared(argument).0));
        }
        functions.insert(name, types);
    }
    functions
}

/// A type of Rust as C writes it.
fn in_c(rust: &str) -> String {
    let rust = rust.trim();
    if let Some(to) = rust.strip_prefix("*mut ") {
        return format!("{}*", in_c(to));
    }
    if let Some(to) = rust.strip_prefix("*const ") {
        return if to.starts_with('*') {
            format!("{}const*", in_c(to))
        } else {
            format!("const {}*", in_c(to))
        };
    }
    match rust {
        "" => "void",
        "c_char" => "char",
        "c_void" => "void",
        "c_int" => "int",
        "usize" => "size_t",
        "isize" => "ssize_t",
        "u64" => "uint64_t",
        "i64" => "int64_t",
        "u32" => "uint32_t",
        "i32" => "int32_t",
        "u8" => "uint8_t",
        "iovec" => "struct iovec",
        other => other,
    }
    .to_owned()
}

/// The same of the source.
fn of_source() -> BTreeMap<String, Vec<String>> {
    let mut functions = BTreeMap::new();
    for entry in std::fs::read_dir(at("src")).unwrap() {
        let source = std::fs::read_to_string(entry.unwrap().path()).unwrap();
        let Some((_, exported)) = source.split_once("\nexport! {\n") else {
            continue;
        };
        for function in exported.split("\n    fn ").skip(1) {
            let (name, rest) = function.split_once('(').unwrap();
            let (arguments, rest) = rest.split_once(')').unwrap();
            let result = rest.split_once('{').unwrap().0.trim();
            let mut types = vec![in_c(result.strip_prefix("->").unwrap_or_default())];
            let arguments = arguments.split(',').filter(|text| !text.trim().is_empty());
            types.extend(arguments.map(|argument| {
                in_c(
                    &argument
                        .split_once(':')
                        .unwrap()
                        .1
                        .replace("std::ffi::", ""),
                )
            }));
            functions.insert(name.to_owned(), types);
        }
    }
    functions
}

#[test]
fn the_header_declares_what_the_source_defines() {
    let (header, source) = (of_header(), of_source());
    assert!(source.len() > 50, "{source:?}");
    for (name, types) in &source {
        assert_eq!(header.get(name), Some(types), "{name}: header, source");
    }
    for name in header.keys() {
        assert!(source.contains_key(name), "{name} is in the header alone");
    }
}

#[test]
fn the_exported_symbols_are_the_functions_of_the_header() {
    let map = code(&read("rtcore.map"));
    let listed = map.split(['{', ';']).map(str::trim);
    let listed: Vec<&str> = listed
        .filter_map(|line| line.rsplit([':', '\n']).next())
        .map(str::trim)
        .filter(|line| line.starts_with("rtcore_"))
        .collect();
    let header = of_header();
    assert_eq!(listed, header.keys().collect::<Vec<_>>());
}

#[test]
fn the_errors_of_the_header_are_those_of_the_source() {
    let header = read("include/rtcore.h");
    let mut numbers = header.lines().filter_map(|line| {
        let mut words = line.strip_prefix("#define RTCORE_ERR_")?.split_whitespace();
        Some((words.next()?.to_owned(), words.next()?.parse().unwrap()))
    });
    for (name, number) in KINDS {
        let (in_header, same): (String, u32) = numbers.next().unwrap();
        assert_eq!(
            (in_header.replace('_', "").to_lowercase(), same),
            (name.to_lowercase(), *number)
        );
    }
    assert_eq!(numbers.next(), None);
}

/// Lines that fail to compile unless C sees the structure as this library does.
macro_rules! layout {
    ($text:ident, $($structure:ident { $($field:ident),* $(,)? })*) => {$({
        use crate::$structure as this;
        let name = stringify!($structure);
        writeln!($text, "\n_Static_assert(sizeof({name}) == {}, \"{name}\");", size_of::<this>()).unwrap();
        $(writeln!(
            $text,
            "_Static_assert(offsetof({name}, {field}) == {}, \"{name}.{field}\");",
            offset_of!(this, $field),
            field = stringify!($field),
        ).unwrap();)*
    })*};
}

#[test]
fn sizes_and_offsets_are_those_that_c_asserts() {
    let mut text = String::from(
        "/* Sizes and offsets of rtcore.h on LP64, as the library has them: made by the test of this name in\n * src/tests.rs. */\n#include \"rtcore.h\"\n",
    );
    writeln!(
        text,
        "\n_Static_assert(sizeof(rtcore_error) == {}, \"rtcore_error\");",
        crate::error::ERROR_BYTES
    )
    .unwrap();
    layout! { text,
        rtcore_message {
            kind, flags, data, len, sequence, missed, intended_ns, sent_ns, received_ns, reply_to, pid, uid, signo,
            mq_priority, signal_value, ending_kind, ending_value, count, endpoint, from, lane, route, process, reason,
        }
        rtcore_options { size, instance, socket, timeout_ns, tid, skin, cobalt_library }
        rtcore_peer { process, state, pid, ending_kind, ending_value }
        rtcore_channel {
            endpoint, other, process, lane, route, role, flags, priority, signo, slots, msgsize, keep, reserved,
            block_ns, ttl_ns, deadline_ns,
        }
        rtcore_inbox_counters {
            received, duplicates, missed, expired, superseded, late, torn, corrupt, events_lost,
        }
        rtcore_notice {
            signo, flags, value, data, len, pid, uid, received_ns, sequence, missed, intended_ns, sent_ns, endpoint,
            from, lane, route,
        }
        rtcore_signals_counters { received, doorbells, duplicates, unhandled, calls }
        rtcore_ready { key, priority, flags }
        rtcore_realtime { size, lane, below, cpu, flags, reserved, stack, heap }
        rtcore_breaches {
            heap_calls, minor_faults, major_faults, voluntary_switches, involuntary_switches,
        }
    }
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(at("tests/abi.c"), &text).unwrap();
    }
    assert_eq!(read("tests/abi.c"), text);
}

/// Set in the process that panics.
const PANICS: &str = "RTCORE_C_TEST_PANICS";

#[test]
fn a_panic_names_the_function_and_ends_the_process() {
    if std::env::var_os(PANICS).is_some() {
        crate::entry::entered("rtcore_send", || panic!("a defect"));
    }
    let mut same = Command::new(std::env::current_exe().unwrap());
    same.args(["a_panic_names_the_function", "--nocapture"])
        .env(PANICS, "1");
    let ended = same.output().unwrap();
    let said = String::from_utf8_lossy(&ended.stderr);
    assert!(said.contains("rtcore: panic in rtcore_send()"), "{said}");
    assert_eq!(
        std::os::unix::process::ExitStatusExt::signal(&ended.status),
        Some(libc::SIGABRT)
    );
}
