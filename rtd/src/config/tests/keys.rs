//! Faults that show in one table alone: syntax, unknown keys, types, ranges, forms.

use super::util::{LANE, error, line_of, queues, run, shown, whole, with};

#[test]
fn a_whole_configuration_passes() {
    let checked = run(&whole());
    assert!(
        checked.plan.is_some() && checked.diagnostics.is_empty(),
        "{}",
        shown(&checked.diagnostics)
    );
}

#[test]
fn an_unknown_key_is_refused_with_the_one_that_was_meant() {
    let text = with(&whole(), "priority = 50", "priority = 50\nprioritty = 50");
    error(
        &text,
        4,
        "lane[0].prioritty",
        "did you mean `priority`?",
        "remove `prioritty`",
    );
    let text = with(&whole(), "priority = 50", "priority = 50\ncolour = \"red\"");
    error(
        &text,
        4,
        "lane[0].colour",
        "unknown key `colour`",
        "known here: `name`, `priority`, `cpu`",
    );
}

#[test]
fn an_unknown_section_is_refused_with_the_one_that_was_meant() {
    error(
        &with(&whole(), "[[lane]]", "[lanes]\n[[lane]]"),
        1,
        "lanes",
        "unknown section",
        "[[lane]]",
    );
    error(
        &with(&whole(), "[[lane]]", "deamon = 3\n[[lane]]"),
        1,
        "deamon",
        "outside any section",
        "header",
    );
    error(
        &with(&whole(), "[[lane]]", "[lane]"),
        1,
        "lane",
        "one table where a list",
        "[[lane]]",
    );
    let text = format!("{}[[daemon]]\n", whole());
    error(
        &text,
        text.lines().count(),
        "daemon",
        "one table, not array",
        "[daemon]",
    );
}

#[test]
fn a_missing_key_is_named() {
    error(
        &with(&whole(), "cpu = 0\n", ""),
        1,
        "lane[0].cpu",
        "`cpu` is missing",
        "cpu = 0",
    );
    let text = with(&queues(), "to = [\"out\"]\n", "");
    error(
        &text,
        line_of(&text, "[[route]]", 0),
        "route[0].to",
        "`to` is missing",
        "to = [",
    );
}

#[test]
fn wrong_types_say_what_belongs_there() {
    for (old, new, key, message, fix) in [
        (
            "cpu = 0",
            "cpu = \"zero\"",
            "cpu",
            "a string where a whole number belongs",
            "cpu = 0",
        ),
        ("cpu = 0", "cpu = 1.5", "cpu", "a float where", "cpu = 1"),
        ("cpu = 0", "cpu = [0]", "cpu", "an array where", "cpu = 0"),
        (
            "cpu = 0",
            "cpu = 0\nunisolated = \"yes\"",
            "unisolated",
            "true or false",
            "unisolated = true",
        ),
        (
            "cpu = 0",
            "cpu = 0\nwait = true",
            "wait",
            "a boolean where a string",
            "wait = \"block\"",
        ),
    ] {
        let text = with(&whole(), old, new);
        let line = line_of(&text, key, 0);
        error(&text, line, &format!("lane[0].{key}"), message, fix);
    }
    let text = with(&queues(), "to = [\"out\"]", "to = \"out\"");
    error(
        &text,
        line_of(&text, "to", 0),
        "route[0].to",
        "a string where a list",
        "to = [",
    );
}

#[test]
fn numbers_out_of_range_name_the_range() {
    for (old, new, key, fix) in [
        (
            "priority = 50",
            "priority = 99",
            "priority",
            "priority = 98",
        ),
        ("priority = 50", "priority = 0", "priority", "priority = 1"),
        ("priority = 50", "priority = -3", "priority", "priority = 1"),
        (
            "cpu = 0",
            "cpu = 0\ncapacity = 0",
            "capacity",
            "capacity = 1",
        ),
        (
            "cpu = 0",
            "cpu = 0\ncapacity = 99999999999999999999",
            "capacity",
            "capacity = 65536",
        ),
    ] {
        let text = with(&whole(), old, new);
        error(
            &text,
            line_of(&text, key, 0),
            &format!("lane[0].{key}"),
            "is not within",
            fix,
        );
    }
}

#[test]
fn times_need_a_unit_and_bounds() {
    for (value, message, fix) in [
        ("5", "5 has no unit", "ttl = \"5ms\""),
        ("\"5\"", "has no unit", "ttl = \"5us\"\nttl = \"5ms\""),
        ("\"fast\"", "is not a time", "ttl = \"200ms\""),
        ("\"2s5ms\"", "is not a time", "ttl = \"2s\""),
        ("\"0us\"", "not within 1us to 3600s", "ttl = \"1us\""),
        ("\"99999999999999999999s\"", "is not a time", "ttl"),
        ("\"61min\"", "not within", "ttl = \"3600s\""),
    ] {
        let text = format!("{}ttl = {value}\n", queues());
        error(&text, text.lines().count(), "route[0].ttl", message, fix);
    }
}

#[test]
fn waits_and_overflows_have_their_forms() {
    for (value, message, fix) in [
        ("spin", "needs its time", "wait = \"spin:50\""),
        ("spin:0", "not within 1us", "wait = \"spin:50\""),
        (
            "spin:99999999",
            "`poll` spins without end",
            "wait = \"spin:50\"",
        ),
        ("spin:x", "is not one of", "wait = "),
        ("blok", "is not one of", "wait = \"block\""),
    ] {
        let text = with(&whole(), LANE, &format!("{LANE}wait = \"{value}\"\n"));
        error(&text, 5, "lane[0].wait", message, fix);
    }
    for (value, message, fix) in [
        ("block", "needs a bound", "overflow = \"block:500\""),
        ("block:11s", "not within", "overflow = \"block:500\""),
        (
            "displace",
            "is not one of",
            "overflow = \"displace-oldest\"",
        ),
    ] {
        let text = with(&whole(), LANE, &format!("{LANE}overflow = \"{value}\"\n"));
        error(&text, 5, "lane[0].overflow", message, fix);
    }
}

#[test]
fn modes_are_octal_and_priorities_are_numbers_or_keep() {
    for (value, message, fix) in [
        ("660", "is decimal", "mode = \"0660\""),
        ("\"0888\"", "is not octal", "mode = \"0660\""),
        ("\"+660\"", "is not octal", "mode = \"0660\""),
        ("0o7777", "not within", "mode = \"0660\""),
    ] {
        let text = with(
            &queues(),
            "msgsize = 64\n",
            &format!("msgsize = 64\nmode = {value}\n"),
        );
        error(&text, 9, "endpoint[0].mode", message, fix);
    }
    for good in ["\"0660\"", "\"660\"", "0o660", "\"0o660\""] {
        let text = with(
            &queues(),
            "msgsize = 64\n",
            &format!("msgsize = 64\nmode = {good}\n"),
        );
        let plan = run(&text).plan.unwrap();
        let crate::endpoint::EndpointKind::Mqueue(queue) = &plan.endpoints[0].kind else {
            panic!()
        };
        assert_eq!(queue.mode, 0o660, "{good}");
    }
    for (value, message) in [
        ("32768", "not within 0 to 32767"),
        ("\"high\"", "is not `keep`"),
    ] {
        let text = format!("{}mq_priority = {value}\n", queues());
        error(
            &text,
            text.lines().count(),
            "route[0].mq_priority",
            message,
            "mq_priority = ",
        );
    }
}

#[test]
fn signals_that_do_not_exist_or_are_kept_are_refused() {
    for (value, message, fix) in [
        ("\"SIGUSR3\"", "is not a signal", "signal = \"SIGUSR"),
        ("\"32\"", "kept by the C library", "signal = \"SIGRTMIN+3\""),
        ("33", "kept by the C library", "signal = \"SIGRTMIN+3\""),
        (
            "\"SIGRTMAX+1\"",
            "does not exist",
            "signal = \"SIGRTMIN+3\"",
        ),
    ] {
        let text = with(&whole(), "\"SIGRTMIN+1\"", value);
        error(
            &text,
            line_of(&text, "signal", 0),
            "endpoint[2].signal",
            message,
            fix,
        );
    }
}

#[test]
fn names_have_a_length_and_a_character_set() {
    let long = "x".repeat(32);
    for (name, message, fix) in [
        ("", "cannot be empty", "name = "),
        (
            long.as_str(),
            "32 bytes long, the limit is 31",
            "name = \"xxx",
        ),
        ("a b", "is not allowed in a name", "name = \"ab\""),
        ("../x", "is not allowed in a name", "name = \"x\""),
        ("-x", "is not allowed in a name", "name = \"x\""),
    ] {
        let text = format!("[daemon]\nname = \"{name}\"\n{}", whole());
        error(&text, 2, "daemon.name", message, fix);
    }
}

#[test]
fn broken_syntax_is_reported_beside_other_faults_and_without_their_echo() {
    let text = with(&whole(), "priority = 50", "priority = = 50");
    let text = with(&text, "kind = \"mqueue\"", "kind = \"mqeue\"");
    let checked = run(&text);
    let errors: Vec<_> = checked
        .diagnostics
        .iter()
        .filter(|d| d.is_error())
        .collect();
    assert!(
        errors
            .iter()
            .any(|d| d.line == 3 && d.message.starts_with("syntax:")),
        "{}",
        shown(&checked.diagnostics)
    );
    let kind = errors.iter().find(|d| d.key == "endpoint[0].kind").unwrap();
    assert!(kind.fix.contains("kind = \"mqueue\""));
    assert!(
        errors
            .iter()
            .all(|d| d.line == 3 || d.key == "endpoint[0].kind"),
        "{}",
        shown(&checked.diagnostics)
    );
}

#[test]
fn a_key_given_twice_is_a_syntax_error_at_the_second() {
    error(
        &with(&whole(), "cpu = 0", "cpu = 0\ncpu = 1"),
        5,
        "",
        "duplicate key",
        "remove one of the two lines",
    );
}

#[test]
fn a_refused_key_has_no_echo_in_the_routes() {
    let text = with(&whole(), "kind = \"mqueue\"", "kind = \"mqeue\"");
    error(
        &text,
        line_of(&text, "kind", 0),
        "endpoint[0].kind",
        "not one of",
        "kind = \"mqueue\"",
    );
    let text = with(&whole(), "msgsize = 64", "msgsize = 0");
    error(
        &text,
        line_of(&text, "msgsize", 0),
        "endpoint[0].msgsize",
        "not within",
        "msgsize = 1",
    );
    let text = with(&whole(), "SIGRTMIN+2", "SIGFOO");
    error(
        &text,
        line_of(&text, "signal", 1),
        "endpoint[3].signal",
        "is not a signal",
        "signal = ",
    );
}

#[test]
fn a_file_of_nothing_but_faults_is_answered_soon() {
    let start = std::time::Instant::now();
    let lines: String = (0..20_000).map(|n| format!("k{n} = 1\n")).collect();
    let one_line: String = (0..20_000).map(|n| format!("k{n}=1,")).collect();
    for text in [
        format!("[daemon]\n{lines}"),
        format!("daemon = {{ {one_line} }}\n"),
        "]".repeat(200_000),
    ] {
        let checked = run(&text);
        assert!(checked.plan.is_none());
        let most = crate::config::diagnostic::DIAGNOSTICS_MAX + 1;
        assert!((1..=most).contains(&checked.diagnostics.len()));
        assert!(shown(&checked.diagnostics).len() < 200_000);
    }
    // Seconds where nobody else computes; a search per fault takes many minutes.
    assert!(start.elapsed().as_secs() < 90, "{:?}", start.elapsed());
}

#[test]
fn a_file_without_bounds_is_not_read() {
    let text = "#".repeat(crate::config::FILE_BYTES_MAX + 1);
    error(&text, 1, "", "the limit is 1048576", "split the deployment");
}

/// One fault of each sort in one file: all of them in one run, in the order of the file.
#[test]
fn all_problems_show_at_once() {
    let text = "[daemon]\nnmae = \"x\"\n\
        [[lane]]\nname = \"a\"\npriority = 99\ncpu = 77\nwait = \"spin\"\n\
        [[lane]]\nname = \"a\"\npriority = \"high\"\n\
        [[endpoint]]\nname = \"q\"\nkind = \"mqueue\"\nowner = \"nobody-here\"\nmaxmsg = 5000\n\
        [[route]]\nfrom = \"q\"\nto = [\"p\", \"q\"]\nlane = \"b\"\nttl = 5\nspeed = 3\n";
    let checked = run(text);
    let keys: Vec<&str> = checked
        .diagnostics
        .iter()
        .filter(|d| d.is_error())
        .map(|d| d.key.as_str())
        .collect();
    assert_eq!(
        keys,
        [
            "daemon.nmae",
            "lane[0].priority",
            "lane[0].cpu",
            "lane[0].wait",
            "lane[1].cpu",
            "lane[1].name",
            "lane[1].priority",
            "endpoint[0]",
            "endpoint[0].owner",
            "endpoint[0].maxmsg",
            "route[0].to[0]",
            "route[0].to[1]",
            "route[0].lane",
            "route[0].ttl",
            "route[0].speed",
        ],
        "{}",
        shown(&checked.diagnostics)
    );
    assert!(checked.diagnostics.is_sorted_by_key(|d| (d.line, d.column)));
}
