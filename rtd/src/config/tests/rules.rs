//! Faults between tables: names, circles, lanes on one CPU, signals, payloads.

use super::util::check_with;
use super::util::machine;
use super::util::{LANE, PROCESS, ROUTE, SIGNAL_ROUTE};
use super::util::{error, expect, line_of, only, queues, run, shown, warning, whole, with};
use crate::config::{CheckOptions, Machine};

#[test]
fn unknown_names_come_with_the_nearest_one() {
    let text = with(&whole(), "lane = \"control\"", "lane = \"contrl\"");
    error(
        &text,
        line_of(&text, "lane =", 0),
        "route[0].lane",
        "did you mean `control`?",
        "lane = \"control\"",
    );
    let text = with(&whole(), "to = [\"out\"]", "to = [\"out\", \"oot\"]");
    error(
        &text,
        line_of(&text, "to =", 0),
        "route[0].to[1]",
        "did you mean `out`?",
        "to = [\"out\"]",
    );
    let text = with(&whole(), "from = \"in\"", "from = \"inn\"");
    let line = line_of(&text, "from =", 0);
    error(
        &text,
        line,
        "route[0].from",
        "did you mean `in`?",
        "from = \"in\"",
    );
    let text = with(&whole(), "owner = \"drive\"", "owner = \"somebody\"");
    error(
        &text,
        line_of(&text, "owner", 0),
        "endpoint[3].owner",
        "there are: `drive`",
        "add a process",
    );
}

#[test]
fn duplicate_names_point_at_the_first() {
    let text = format!("{}[[process]]\nname = \"drive\"\n", whole());
    let line = text.lines().count();
    error(
        &text,
        line,
        "process[1].name",
        "the first is on line 6",
        "name = \"drive-2\"",
    );
    let text = format!("{}[[group]]\nname = \"out\"\nmembers = [\"in\"]\n", whole());
    let line = line_of(&text, "name = \"out\"", 1);
    error(
        &text,
        line,
        "group[0].name",
        "second endpoint or group named `out`",
        "name = \"out-2\"",
    );
}

#[test]
fn a_circle_is_named_with_everything_on_it() {
    let text = format!(
        "{}[[route]]\nfrom = \"out\"\nto = [\"in\"]\nlane = \"control\"\n",
        queues()
    );
    let line = line_of(&text, "to =", 1);
    error(
        &text,
        line,
        "route[1].to[0]",
        "in -> out -> in",
        "remove this route",
    );
    let text = with(&queues(), "to = [\"out\"]", "to = [\"out\", \"in\"]");
    error(
        &text,
        line_of(&text, "to =", 0),
        "route[0].to[1]",
        "in -> in",
        "to = [\"out\"]",
    );
    let text = format!(
        "{}[[group]]\nname = \"g\"\nmembers = [\"in\"]\n[[route]]\nfrom = \"out\"\nto = [\"g\"]\nlane = \"control\"\n",
        queues()
    );
    error(
        &text,
        line_of(&text, "to =", 1),
        "route[1].to[0]",
        "in -> out -> in",
        "remove this route",
    );
}

#[test]
fn a_chain_that_does_not_close_is_fine() {
    let text = format!(
        "{}[[endpoint]]\nname = \"third\"\nkind = \"mqueue\"\n[[route]]\nfrom = \"out\"\nto = [\"third\"]\nlane = \"control\"\n",
        queues()
    );
    assert!(
        run(&text).diagnostics.is_empty(),
        "{}",
        shown(&run(&text).diagnostics)
    );
}

#[test]
fn a_cpu_exists_and_is_allowed() {
    error(
        &with(&whole(), "cpu = 0", "cpu = 9"),
        4,
        "lane[0].cpu",
        "online: 0-3",
        "cpu = 0",
    );
    error(
        &with(&whole(), "cpu = 0", "cpu = 2"),
        4,
        "lane[0].cpu",
        "allowed: 0-1,3",
        "AllowedCPUs=0-3",
    );
}

#[test]
fn poll_is_for_isolated_cpus() {
    let poll = |cpu: u8, more: &str| {
        let lane = format!(
            "[[lane]]\nname = \"control\"\npriority = 50\ncpu = {cpu}\nwait = \"poll\"\n{more}"
        );
        with(&whole(), LANE, &lane)
    };
    error(
        &poll(0, ""),
        5,
        "lane[0].wait",
        "not isolated (isolated: 3)",
        "unisolated = true",
    );
    assert!(run(&poll(3, "")).diagnostics.is_empty());
    assert!(run(&poll(0, "unisolated = true\n")).diagnostics.is_empty());
    let lower = "[[lane]]\nname = \"low\"\npriority = 10\ncpu = 3\n";
    let text = with(&poll(3, ""), PROCESS, &format!("{lower}{PROCESS}"));
    let text = with(&text, SIGNAL_ROUTE, &SIGNAL_ROUTE.replace("control", "low"));
    error(
        &text,
        5,
        "lane[0].wait",
        "lane `low` below it would never run",
        "wait = \"block\"",
    );
    let unknown = Machine {
        cpus_isolated: None,
        ..super::util::machine()
    };
    let checked = check_with("t", &poll(0, ""), &unknown, CheckOptions::default());
    assert!(checked.plan.is_some());
    expect(
        only(&checked),
        5,
        "lane[0].wait",
        "does not show whether CPU 0 is isolated",
        "unisolated = true",
    );
    let text = with(&whole(), LANE, &format!("{LANE}unisolated = true\n"));
    warning(
        &text,
        5,
        "lane[0].unisolated",
        "only with wait = \"poll\"",
        "remove `unisolated`",
    );
}

#[test]
fn a_spinning_lane_has_one_source() {
    let text = with(&whole(), LANE, &format!("{LANE}wait = \"spin:50\"\n"));
    error(
        &text,
        5,
        "lane[0].wait",
        "its routes read `in`, `press`",
        "a lane of its own",
    );
    let text = with(&queues(), LANE, &format!("{LANE}wait = \"spin:50\"\n"));
    assert!(run(&text).diagnostics.is_empty());
}

#[test]
fn lanes_on_one_cpu_differ_in_priority() {
    let second = "[[lane]]\nname = \"other\"\npriority = 50\ncpu = 0\n";
    let text = with(
        &whole(),
        SIGNAL_ROUTE,
        &SIGNAL_ROUTE.replace("control", "other"),
    );
    let same = with(&text, PROCESS, &format!("{second}{PROCESS}"));
    error(
        &same,
        7,
        "lane[1].priority",
        "both have priority 50 on CPU 0",
        "priority = 49",
    );
    let elsewhere = same.replacen("cpu = 0\n[[process]]", "cpu = 1\n[[process]]", 1);
    assert!(
        run(&elsewhere).diagnostics.is_empty(),
        "{}",
        shown(&run(&elsewhere).diagnostics)
    );
}

#[test]
fn a_source_is_read_in_one_lane() {
    let second = "[[lane]]\nname = \"other\"\npriority = 51\ncpu = 0\n";
    let text = format!("{second}{}{}", queues(), ROUTE.replace("control", "other"));
    let line = line_of(&text, "lane = \"other\"", 0);
    error(
        &text,
        line,
        "route[1].lane",
        "already read in lane `control`",
        "lane = \"control\"",
    );
}

#[test]
fn queues_and_signals_are_distinguished() {
    let text = with(
        &queues(),
        "name = \"out\"\n",
        "name = \"out\"\nqueue = \"/in\"\n",
    );
    error(
        &text,
        line_of(&text, "queue", 0),
        "endpoint[1].queue",
        "already belongs to the endpoint on line 5",
        "queue = \"/out\"",
    );
    for (bad, meant) in [
        ("in", "/in"),
        ("/", "/in"),
        ("/a/b", "/a.b"),
        ("/..", "/in"),
        ("/a\\u0000", "/a"),
    ] {
        let text = with(
            &queues(),
            "name = \"in\"\n",
            &format!("name = \"in\"\nqueue = \"{bad}\"\n"),
        );
        error(
            &text,
            7,
            "endpoint[0].queue",
            "is not the name of a queue",
            &format!("queue = \"{meant}\""),
        );
    }
    let second = "[[endpoint]]\nname = \"press2\"\nkind = \"signal\"\nsignal = \"SIGRTMIN+1\"\n";
    let text = format!(
        "{}{second}{}",
        whole(),
        SIGNAL_ROUTE.replace("press", "press2")
    );
    let line = line_of(&text, "signal = \"SIGRTMIN+1\"", 1);
    error(
        &text,
        line,
        "endpoint[4].signal",
        "already read by endpoint `press`",
        "signal = \"SIGRTMIN+3\"",
    );
    let second = "[[endpoint]]\nname = \"stop2\"\nkind = \"signal\"\nsignal = \"SIGRTMIN+2\"\nowner = \"drive\"\n";
    let text = with(
        &format!("{}{second}", whole()),
        "to = [\"stop\"]",
        "to = [\"stop\", \"stop2\"]",
    );
    let line = line_of(&text, "signal = \"SIGRTMIN+2\"", 1);
    warning(
        &text,
        line,
        "endpoint[4].signal",
        "cannot distinguish the two",
        "signal = \"SIGRTMIN+3\"",
    );
}

#[test]
fn keys_of_the_other_kind_are_refused() {
    let text = with(
        &whole(),
        "signal = \"SIGRTMIN+1\"",
        "signal = \"SIGRTMIN+1\"\nmaxmsg = 3",
    );
    error(
        &text,
        line_of(&text, "maxmsg", 0),
        "endpoint[2].maxmsg",
        "has no effect without",
        "remove `maxmsg`",
    );
    let text = with(
        &whole(),
        "msgsize = 64",
        "target = \"thread\"\nmsgsize = 64",
    );
    error(
        &text,
        line_of(&text, "target", 0),
        "endpoint[0].target",
        "has no effect for",
        "remove `target`",
    );
    let text = with(&whole(), "signal = \"SIGRTMIN+1\"\n", "");
    let line = line_of(&text, "[[endpoint]]", 2);
    error(
        &text,
        line,
        "endpoint[2].signal",
        "`signal` is missing",
        "signal = \"SIGRTMIN+3\"",
    );
}

#[test]
fn groups_have_endpoints_once_and_nothing_else() {
    let group = |members: &str| {
        let group = format!("[[group]]\nname = \"g\"\nmembers = {members}\n");
        format!(
            "{group}{}",
            with(&queues(), "to = [\"out\"]", "to = [\"g\"]")
        )
    };
    assert!(run(&group("[\"out\"]")).diagnostics.is_empty());
    error(
        &group("[\"out\", \"out\"]"),
        3,
        "group[0].members[1]",
        "a member already",
        "members = [\"out\"]",
    );
    error(
        &group("[\"out\", \"g\"]"),
        3,
        "group[0].members[1]",
        "is a group",
        "members = [\"out\"]",
    );
    error(
        &group("[\"out\", \"aut\"]"),
        3,
        "group[0].members[1]",
        "did you mean `out`?",
        "members = [\"out\"]",
    );
    error(
        &group("[]"),
        3,
        "group[0].members",
        "is empty",
        "members = [",
    );
    let text = with(&group("[\"out\"]"), "from = \"in\"", "from = \"g\"");
    error(
        &text,
        line_of(&text, "from", 0),
        "route[0].from",
        "read from one endpoint",
        "one route for each of `out`",
    );
    let text = with(&group("[\"out\"]"), "to = [\"g\"]", "to = [\"g\", \"out\"]");
    warning(
        &text,
        line_of(&text, "to", 0),
        "route[0].to[1]",
        "a second time",
        "name it once",
    );
    let text = with(&queues(), "to = [\"out\"]", "to = [\"out\", \"out\"]");
    error(
        &text,
        line_of(&text, "to", 0),
        "route[0].to[1]",
        "named twice",
        "to = [\"out\"]",
    );
}

#[test]
fn rates_and_capacities_fit_together() {
    let text = format!("{}burst = 5\n", queues());
    error(
        &text,
        text.lines().count(),
        "route[0].burst",
        "no effect without `rate_hz`",
        "rate_hz = 1000",
    );
    let plan = run(&format!("{}rate_hz = 1000\n", queues())).plan.unwrap();
    assert_eq!(
        plan.routes[0].rate,
        Some(rtcore::lane::policy::Rate {
            per_second: 1000,
            burst: 100
        })
    );
    let text = format!("{}overflow = \"conflate\"\ncapacity = 9\n", queues());
    warning(
        &text,
        text.lines().count(),
        "route[0].capacity",
        "the latest message only",
        "remove `capacity`",
    );
}

#[test]
fn what_nobody_uses_is_a_warning() {
    let text = format!(
        "{}[[lane]]\nname = \"idle\"\npriority = 3\ncpu = 0\n",
        whole()
    );
    warning(
        &text,
        line_of(&text, "name = \"idle\"", 0),
        "lane[1]",
        "lane `idle` is not used",
        "remove it",
    );
    let text = format!("{}[[process]]\nname = \"idle\"\n", whole());
    warning(
        &text,
        text.lines().count(),
        "process[1]",
        "owns no endpoint",
        "remove it",
    );
    let text = format!(
        "{}[[endpoint]]\nname = \"idle\"\nkind = \"mqueue\"\n",
        whole()
    );
    warning(
        &text,
        line_of(&text, "name = \"idle\"", 0),
        "endpoint[4]",
        "no route reads it",
        "remove it",
    );
    let text = format!(
        "{}[[group]]\nname = \"idle\"\nmembers = [\"out\"]\n",
        whole()
    );
    warning(
        &text,
        line_of(&text, "name = \"idle\"", 0),
        "group[0]",
        "no route sends to it",
        "remove it",
    );
    warning("", 1, "", "nothing to do", "[[route]]");
}

#[test]
fn accounts_and_executables_exist() {
    let process = |line: &str| with(&whole(), PROCESS, &format!("{PROCESS}{line}\n"));
    error(
        &process("user = \"ghost\""),
        7,
        "process[0].user",
        "there is no user `ghost`",
        "useradd --system ghost",
    );
    error(
        &process("group = \"ghost\""),
        7,
        "process[0].group",
        "there is no group",
        "groupadd --system ghost",
    );
    error(
        &process("exe = \"drive\""),
        7,
        "process[0].exe",
        "not an absolute path",
        "exe = \"/usr/bin/drive\"",
    );
    error(
        &process("exe = \"/no\""),
        7,
        "process[0].exe",
        "no such file",
        "install it",
    );
    error(
        &process("user = -1"),
        7,
        "process[0].user",
        "-1 is not an id (0 to 4294967294)",
        "user = 1000",
    );
    let all = process("user = \"robot\"\ngroup = 5\nexe = \"/usr/bin/drive\"");
    // Signals go to it, and what it runs is looked at: of another user, that takes capabilities.
    let able = Machine {
        cap_kill: None,
        cap_sys_ptrace: None,
        ..machine()
    };
    let plan = check_with("t", &all, &able, CheckOptions::default())
        .plan
        .unwrap();
    assert_eq!(
        (plan.processes[0].uid, plan.processes[0].gid),
        (Some(1001), Some(5))
    );
}

#[test]
fn a_queue_that_anybody_writes_and_nobody_owns_is_a_warning() {
    let text = with(&queues(), "msgsize = 64", "msgsize = 64\nmode = \"0666\"");
    warning(
        &text,
        9,
        "endpoint[0].mode",
        "any program",
        "mode = \"0660\"",
    );
}

#[test]
fn an_owner_whose_queue_others_write_is_a_warning() {
    let at =
        |old: &str, keys: &str| with(&whole(), old, &format!("{old}owner = \"drive\"\n{keys}"));
    let (source, sink) = ("msgsize = 64\n", "\"out\"\n");
    assert!(
        run(&at(source, "")).diagnostics.is_empty(),
        "a queue does not tell its reader the origin"
    );
    assert!(run(&at(sink, "mode = \"0660\"\n")).diagnostics.is_empty());
    for (old, key, message) in [
        (source, "endpoint[0].mode", "name of"),
        (sink, "endpoint[1].mode", "bypass rtd"),
    ] {
        let text = at(old, "mode = \"0662\"\n");
        warning(
            &text,
            line_of(&text, "mode", 0),
            key,
            message,
            "mode = \"0660\"",
        );
    }
    let to_signal = |keys: &str| {
        with(
            &at(source, keys),
            "to = [\"out\"]\n",
            "to = [\"out\", \"stop\"]\ntruncate = true\n",
        )
    };
    let (text, line) = (to_signal(""), line_of(&to_signal(""), "[[endpoint]]", 0));
    warning(
        &text,
        line,
        "endpoint[0]",
        "mode 0660 lets the queue's group write",
        "mode = \"0600\"",
    );
    let text = to_signal("mode = \"0602\"\n");
    warning(
        &text,
        line_of(&text, "mode", 0),
        "endpoint[0].mode",
        "any program",
        "mode = \"0600\"",
    );
    assert!(run(&to_signal("mode = \"0600\"\n")).diagnostics.is_empty());
}

#[test]
fn a_lane_that_polls_several_sources_may_not_block() {
    let poll = |more: &str| {
        with(
            &whole(),
            "cpu = 0\n",
            &format!("cpu = 3\nwait = \"poll\"\n{more}"),
        )
    };
    assert!(run(&poll("")).diagnostics.is_empty());
    let text = with(
        &poll(""),
        "to = [\"out\"]\n",
        "to = [\"out\"]\noverflow = \"block:5s\"\n",
    );
    let line = line_of(&text, "overflow", 0);
    error(
        &text,
        line,
        "route[0].overflow",
        "delay `in`, `press`",
        "wait = \"block\"",
    );
    let text = poll("overflow = \"block:5s\"\n");
    let checked = run(&text);
    let errors = checked
        .diagnostics
        .iter()
        .filter(|d| d.message.contains("blocks the one thread"));
    assert_eq!(
        (checked.plan.is_none(), errors.count()),
        (true, 2),
        "{}",
        shown(&checked.diagnostics)
    );
    let alone = with(
        &queues(),
        "cpu = 0\n",
        "cpu = 3\nwait = \"poll\"\noverflow = \"block:5s\"\n",
    );
    assert!(
        run(&alone).diagnostics.is_empty(),
        "one source holds up itself only"
    );
}

#[test]
fn a_mode_that_keeps_rtd_out_is_refused() {
    let text = with(&queues(), "msgsize = 64", "msgsize = 64\nmode = \"0460\"");
    error(
        &text,
        9,
        "endpoint[0].mode",
        "keeps rtd itself",
        "mode = \"0660\"",
    );
}

#[test]
fn a_socket_has_an_absolute_path_that_fits() {
    let socket = |path: &str| format!("[daemon]\nsocket = \"{path}\"\n{}", whole());
    error(
        &socket("x.sock"),
        2,
        "daemon.socket",
        "not an absolute socket path",
        "socket = \"/run/user/1000/rtd/rtd.sock\"",
    );
    error(
        &socket(&format!("/{}", "x".repeat(107))),
        2,
        "daemon.socket",
        "at most 107",
        "socket =",
    );
    assert!(run(&socket("/tmp/x.sock")).diagnostics.is_empty());
}

#[test]
fn route_names_are_made_of_the_ends_fit_and_differ() {
    let long = "x".repeat(31);
    let text = format!(
        "{}{ROUTE}{ROUTE}",
        queues().replace("\"out\"", &format!("\"{long}\""))
    )
    .replace("\"out\"", &format!("\"{long}\""));
    let plan = run(&text).plan.unwrap();
    let names: Vec<&str> = plan
        .routes
        .iter()
        .map(|route| route.name.as_str())
        .collect();
    assert_eq!(names[0], format!("in->{}", "x".repeat(27)));
    assert_eq!(names[1], format!("in->{}#2", "x".repeat(25)));
    assert_eq!(names[2], format!("in->{}#3", "x".repeat(25)));
}
