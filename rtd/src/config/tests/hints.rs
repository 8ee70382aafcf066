//! A hint that reads like a line of the file is one: written there, the error or warning is gone.
//!
//! The hints of a few correct files that are spoilt line by line are tried here. `util::check_with`
//! tries those of every file that another test of the configuration checks, on the machine of that
//! test.

use super::util::{
    LANE, LANE_ROUTE, LANES, PROCESS, SIGNAL_ROUTE, SIGNALS, error, lanes, line_of, machine,
    queues, run, shown, whole, with,
};
use crate::config::{self, CheckOptions, Diagnostic, Machine};
use toml::de::DeTable;

/// The text with a line of the hint in place of the faulty one; none if the hint is not a line to
/// copy.
fn applied(text: &str, fault: &Diagnostic, hint: &str) -> Option<String> {
    let mut lines: Vec<&str> = text.lines().collect();
    let at = fault.line - 1;
    let is_header = |line: &str| line.trim_start().starts_with('[');
    let key = |line: &str| {
        line.split(['=', ':', ' '])
            .next()
            .map(str::trim)
            .map(str::to_owned)
    };
    let header = is_header(lines.get(at)?);
    if let Some(hint) = hint.strip_suffix(" in [daemon]") {
        let has_daemon = lines.iter().position(|line| *line == "[daemon]");
        let daemon = has_daemon.unwrap_or_else(|| {
            lines.insert(0, "[daemon]");
            0
        });
        let end = lines[daemon + 1..]
            .iter()
            .position(|line| is_header(line))
            .map_or(lines.len(), |n| daemon + 1 + n);
        match lines[daemon + 1..end]
            .iter()
            .position(|line| key(line) == key(hint))
        {
            Some(other) => lines[daemon + 1 + other] = hint,
            None => lines.insert(daemon + 1, hint),
        }
        return Some(lines.join("\n") + "\n");
    }
    if let Some(key) = hint
        .strip_prefix("remove `")
        .and_then(|rest| rest.split('`').next())
    {
        if !lines[at].starts_with(key) {
            return None;
        }
        lines.remove(at);
    } else if let Some((new, old)) = hint
        .strip_prefix("write `")
        .and_then(|rest| rest.trim_end_matches('`').split_once("` instead of `"))
    {
        let renamed = lines[at].replacen(old, new, 1);
        lines[at] = &renamed;
        return Some(lines.join("\n") + "\n");
    } else if DeTable::parse(hint).is_err() {
        return None;
    } else if hint.starts_with('[') || (!header && key(hint) == key(lines[at])) {
        lines[at] = hint;
    } else {
        // Another key of the same entry, or one that is missing.
        let start = if header {
            at
        } else {
            lines[..at].iter().rposition(|line| is_header(line))?
        };
        let end = lines[start + 1..]
            .iter()
            .position(|line| is_header(line))
            .map(|end| start + 1 + end);
        let entry = start + 1..end.unwrap_or(lines.len());
        match lines[entry].iter().position(|line| key(line) == key(hint)) {
            Some(other) if !header => lines[start + 1 + other] = hint,
            _ => lines.insert(start + 1, hint),
        }
    }
    Some(lines.join("\n") + "\n")
}

/// Applies every hint of every diagnostic of `text` on its own, on this machine; how many were
/// lines to copy.
pub fn hints_hold(
    text: &str,
    machine: &Machine,
    options: CheckOptions,
    failures: &mut Vec<String>,
) -> usize {
    let checked = config::check_with("test.toml", text, machine, options);
    let mut count = 0;
    // What a warning says of a file with errors, such as a key that is there twice, follows from
    // these.
    let counts = |fault: &&Diagnostic| fault.is_error() || checked.plan.is_some();
    for fault in checked.diagnostics.iter().filter(counts) {
        for hint in fault.fix.lines() {
            let Some(fixed) = applied(text, fault, hint) else {
                continue;
            };
            count += 1;
            let again = config::check_with("test.toml", &fixed, machine, options);
            let remains = |other: &&Diagnostic| {
                (other.severity, &other.key, &other.message)
                    == (fault.severity, &fault.key, &fault.message)
            };
            if let Some(other) = again.diagnostics.iter().find(remains) {
                failures.push(format!(
                    "`{hint}` is the hint of\n{fault}and leads to\n{other}"
                ));
            }
        }
    }
    count
}

/// What is written instead of a value.
const VALUES: [&str; 32] = [
    "5",
    "0",
    "-1",
    "99999999999",
    "1.5",
    "0.5",
    "true",
    "false",
    "\"\"",
    "\"50\"",
    "\"1500\"",
    "\"1.5ms\"",
    "\"5 msec\"",
    "\"99h\"",
    "\"80\"",
    "\"0%\"",
    "\"yes\"",
    "\"false\"",
    "\"x\"",
    "\"a b\"",
    "\"/\"",
    "\"//a/b\"",
    "[\"in\"]",
    "[5]",
    "[]",
    "[\"out\", \"out\"]",
    "{ a = 1 }",
    "word",
    "0660",
    "5ms",
    "= 3",
    "\"open",
];

fn spoilt(text: &str) -> Vec<String> {
    let lines: Vec<&str> = text.lines().collect();
    let mut all = Vec::new();
    for (at, line) in lines.iter().enumerate() {
        let mut put = |new: Option<String>| {
            let mut lines: Vec<String> = lines.iter().map(|&line| line.to_owned()).collect();
            match new {
                Some(new) => lines[at] = new,
                None => drop(lines.remove(at)),
            }
            all.push(lines.join("\n") + "\n");
        };
        let Some((key, value)) = line.split_once(" = ") else {
            put(Some(line.replace(']', "")));
            put(Some(line.replace("[[", "[").replace("]]", "]")));
            continue;
        };
        put(None);
        put(Some(format!("{line}\n{line}")));
        put(Some(format!("{key}{key} = {value}\n{line}")));
        put(Some(format!("{}x = {value}", key)));
        put(Some(format!("{key} {value}")));
        put(Some(format!("{key}: {value}")));
        put(Some(format!("{key} = {}", value.replace('"', ""))));
        put(Some(format!("{key} = {}", value.trim_matches(['[', ']']))));
        // Two letters in the wrong order, as in `drvie`.
        if value.len() > 5 {
            let mut letters: Vec<char> = value.chars().collect();
            letters.swap(3, 4);
            put(Some(format!(
                "{key} = {}",
                letters.iter().collect::<String>()
            )));
        }
        VALUES
            .iter()
            .for_each(|value| put(Some(format!("{key} = {value}"))));
    }
    all
}

/// Every key there is, each with a value that is right.
fn everything() -> String {
    let daemon = "[daemon]\nname = \"cell\"\nsocket = \"/run/user/1000/c.sock\"\nkeep_queues = false\ndrain = \"1s\"\n\
                  rejoin = \"1.5s\"\nskin = \"posix\"\nwatchdog = \"50ms\"\nduty_window = \"1s\"\non_runaway = \"report\"\n\
                  on_tampering = \"report\"\nrttime = \"2s\"\ncpu_dma_latency = 20\n";
    let lane = "[[lane]]\nname = \"fast\"\npriority = 60\ncpu = 1\nwait = \"block\"\ncapacity = 8\noverflow = \"block:500\"\n\
                deadline = \"1.5ms\"\nstall = \"300ms\"\nduty = \"80%\"\n";
    let process = "[[process]]\nname = \"planner\"\nuser = \"robot\"\ngroup = \"rtd\"\nabove_ceiling = \"warn\"\n";
    let endpoints = "[[endpoint]]\nname = \"in\"\nkind = \"mqueue\"\nqueue = \"/nb-in\"\nmsgsize = 64\nmaxmsg = 8\n\
                     mode = \"0660\"\nflush_at_start = true\n\
                     [[endpoint]]\nname = \"out\"\nkind = \"mqueue\"\nmsgsize = 64\nowner = \"planner\"\n\
                     [[endpoint]]\nname = \"spare\"\nkind = \"lane\"\nowner = \"drive\"\nmsgsize = 64\n";
    let group = "[[group]]\nname = \"team\"\nmembers = [\"out\", \"spare\"]\nmode = \"all\"\nsession_of = \"drive\"\n";
    let route = "[[route]]\nname = \"r\"\nfrom = \"in\"\nto = [\"team\"]\nlane = \"fast\"\nttl = \"5ms\"\ndeadline = \"3ms\"\n\
                 rate_hz = 100\nburst = 5\npayload = 64\ncapacity = 4\noverflow = \"conflate\"\nrejoin = \"1s\"\n\
                 mq_priority = \"keep\"\n";
    [
        daemon,
        LANE,
        lane,
        PROCESS,
        process,
        endpoints,
        SIGNALS,
        group,
        route,
        SIGNAL_ROUTE,
    ]
    .concat()
}

#[test]
fn a_hint_that_is_applied_removes_the_error() {
    let (mut count, mut failures) = (0, Vec::new());
    let machine = machine();
    let direct = format!("{}path = \"direct\"\n", lanes());
    for base in [everything(), whole(), queues(), lanes(), direct] {
        assert!(
            run(&base).plan.is_some(),
            "{}",
            shown(&run(&base).diagnostics)
        );
        for text in spoilt(&base) {
            count += hints_hold(&text, &machine, CheckOptions::default(), &mut failures);
        }
    }
    assert!(
        failures.is_empty(),
        "{} of {count}:\n{}",
        failures.len(),
        failures.join("\n")
    );
    assert!(count > 4_000, "only {count} hints could be applied");
}

/// Each case of a report: the broken line, its hints.
#[test]
fn hints_are_what_was_meant() {
    let text = [LANE, PROCESS, LANES, LANE_ROUTE].concat();
    let route = |to: &str| with(&text, "[\"axis\"]", to);
    let to = line_of(&text, "to", 0);
    error(
        &route("[\"axsi\"]"),
        to,
        "route[0].to[0]",
        "did you mean `axis`",
        "to = [\"axis\"]",
    );
    error(
        &route("\"axis\""),
        to,
        "route[0].to",
        "a string where a list",
        "to = [\"axis\"]",
    );
    error(
        &route("[\"axis\", \"axis\"]"),
        to,
        "route[0].to[1]",
        "twice",
        "to = [\"axis\"]",
    );
    let lane = |line: &str| format!("{LANE}{line}\n{}", [PROCESS, LANES, LANE_ROUTE].concat());
    error(
        &lane("deadline = \"1500\""),
        5,
        "lane[0].deadline",
        "no unit (ns, us, ms",
        "deadline = \"1500us\"\ndeadline = \"1500ms\"",
    );
    assert!(run(&lane("deadline = \"1.5ms\"")).plan.is_some());
    let text = with(&text, "priority = 50", "priority = \"50\"");
    error(
        &text,
        3,
        "lane[0].priority",
        "a string where a whole number",
        "priority = 50",
    );
    let text = with(
        &queues(),
        "msgsize = 64",
        "queue = \"nb-drive\"\nmsgsize = 64",
    );
    error(
        &text,
        8,
        "endpoint[0].queue",
        "begins with `/`",
        "queue = \"/nb-drive\"",
    );
    let text = with(&queues(), "name = \"in\"", "name = in");
    error(&text, 6, "", "syntax", "name = \"in\"");
    let text = with(&queues(), "msgsize = 64", "msgsize = 64\nmode = 0660");
    error(&text, 9, "", "syntax", "mode = \"0660\"");
    let text = with(&whole(), "cpu = 0", "cpu = 0\nunisolated = \"false\"");
    error(
        &text,
        5,
        "lane[0].unisolated",
        "true or false",
        "unisolated = false",
    );
}

/// A program that opens one queue at both ends: a second name for one of them, and no advice that
/// makes a circle.
#[test]
fn one_queue_as_source_and_sink_gets_a_second_name() {
    let same = with(
        &queues(),
        "name = \"in\"",
        "name = \"in\"\nqueue = \"/drive\"",
    );
    let same = with(
        &same,
        "name = \"out\"",
        "name = \"out\"\nqueue = \"/drive\"",
    );
    let line = line_of(&same, "queue", 1);
    error(
        &same,
        line,
        "endpoint[1].queue",
        "rtd would read its own messages",
        "queue = \"/out\"",
    );
    // Two endpoints of one sort: there one of them is too many.
    let three = with(
        &queues(),
        "[[route]]",
        "[[endpoint]]\nname = \"too\"\nkind = \"mqueue\"\nqueue = \"/out\"\nmsgsize = 64\n[[route]]",
    );
    let line = line_of(&three, "queue", 0);
    let both = with(&three, "to = [\"out\"]", "to = [\"out\", \"too\"]");
    error(
        &both,
        line,
        "endpoint[2].queue",
        "only one of them",
        "use endpoint `out` in all the routes",
    );
}

#[test]
fn the_first_name_that_is_free_is_suggested() {
    let text = with(
        &queues(),
        "name = \"out\"",
        "name = \"out\"\nqueue = \"/in\"",
    );
    let text = with(&text, "name = \"in\"", "name = \"in\"\nqueue = \"/out\"");
    assert!(run(&text).plan.is_some(), "crossed names are two names");
    let text = with(&text, "\"/out\"", "\"out\"");
    error(
        &text,
        7,
        "endpoint[0].queue",
        "begins with `/`",
        "queue = \"/out\"",
    );
    let text = format!(
        "{}[[endpoint]]\nname = \"in\"\nkind = \"mqueue\"\n",
        queues()
    );
    let found = run(&text);
    assert!(
        found.diagnostics.iter().any(|d| d.fix == "name = \"in-2\""),
        "{}",
        shown(&found.diagnostics)
    );
}
