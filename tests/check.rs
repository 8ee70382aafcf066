//! `rtd check` as its user meets it: all problems of a file at once, each with its place and its
//! fix.

use crate::util::needs::NO_RTPRIO;
use crate::util::tool::{as_nobody, rtd, run, run_on};
use crate::util::{self, Instance, privileged, route};
use anyhow::{Context as _, bail, ensure};
use rtcore::sys::accounts::own_uid;
use std::path::{Path, PathBuf};

tests![
    all_problems_are_reported_at_once_each_with_its_place_and_fix,
    json_has_the_same_problems_for_a_program,
    the_exit_code_says_runs_refused_or_unreadable,
    a_good_file_shows_what_it_means,
    standard_input_is_a_dash,
    the_schema_is_the_file_in_configs,
    every_file_in_configs_passes,
    run_refuses_a_faulty_file_with_the_same_words,
    what_is_not_granted_is_refused_with_the_line_that_grants_it needs(NO_RTPRIO),
    a_plan_that_outgrows_memory_is_refused,
];

/// Faults of all kinds in one file; none depends on the machine or the user.
const FAULTY: &str = r#"[daemon]
name = "two words"

[[lane]]
name = "fast"
priority = 99
cpu = 9999
prioritty = 3

[[lane]]
name = "slow"
priority = 20
cpu = 0

[[lane]]
name = "equal"
priority = 20    # ä line with more than ASCII
cpu = 0

[[process]]
name = "drive"
user = "no-such-user-here"

[[endpoint]]
name = "a"
kind = "mqueue"
queue = "/rtd-check.same"

[[endpoint]]
name = "b"
kind = "mqueue"
queue = "/rtd-check.same" # again

[[endpoint]]
name = "sig"
kind = "signal"
signal = "32"
owner = "drive"

[[endpoint]]
name = "c"
kind = "mqueue"

[[endpoint]]
name = "d"
kind = "mqueue"

[[route]]
from = "a"
to = ["see"]
lane = "slow"
overflow = "conflat"

[[route]]
from = "b"
to = ["sig"]
lane = "slo"
ttl = "5 minuts"

[[route]]
from = "c"
to = ["d"]
lane = "slow"

[[route]]
from = "d"
to = ["c"]
lane = "slow"

[[endpoint]]
name = "ring"
kind = "lane"
owner = "drive"
maxmsg = 65536
msgsize = 1048576

[[endpoint]]
name = "ring2"
kind = "lane"
owner = "drive"
msgsize = 1048576
maxmsg = 1

[[group]]
name = "team"
members = ["ring2"]
session_of = "drives"

[[route]]
from = "ring"
to = ["ring2"]
lane = "slow"
path = "direct"
rate_hz = 100
"#;

/// A fault: the line it is in and the marked piece of it, the key, a part of the message and of the
/// fix.
struct Fault(
    &'static str,
    &'static str,
    &'static str,
    &'static str,
    &'static str,
);

const FAULTS: [Fault; 16] = [
    Fault(
        "name = \"two words\"",
        "\"two words\"",
        "daemon.name",
        "is not allowed in a name",
        "name = \"two",
    ),
    Fault(
        "priority = 99",
        "99",
        "lane[0].priority",
        "99 is not within 1 to 98",
        "priority = 98",
    ),
    Fault("cpu = 9999", "9999", "lane[0].cpu", "9999", "cpu = "),
    Fault(
        "prioritty = 3",
        "prioritty",
        "lane[0].prioritty",
        "did you mean `priority`?",
        "`priority`",
    ),
    Fault(
        "priority = 20    #",
        "20",
        "lane[2].priority",
        "neither could preempt",
        "priority = 19",
    ),
    Fault(
        "user = ",
        "\"no-such-user-here\"",
        "process[0].user",
        "there is no user",
        "useradd --system",
    ),
    Fault(
        "queue = \"/rtd-check.same\" #",
        "\"/rtd-check.same\"",
        "endpoint[1].queue",
        "only one of them",
        "queue = \"/b\"",
    ),
    Fault(
        "signal = ",
        "\"32\"",
        "endpoint[2].signal",
        "kept by the C library",
        "signal = \"SIGRTMIN",
    ),
    Fault(
        "to = [\"see\"]",
        "\"see\"",
        "route[0].to[0]",
        "no endpoint or group is named `see`",
        "",
    ),
    Fault(
        "overflow = ",
        "\"conflat\"",
        "route[0].overflow",
        "`displace-oldest`",
        "overflow = \"conflate\"",
    ),
    Fault(
        "lane = \"slo\"",
        "\"slo\"",
        "route[1].lane",
        "did you mean `slow`?",
        "lane = \"slow\"",
    ),
    Fault(
        "ttl = ",
        "\"5 minuts\"",
        "route[1].ttl",
        "is not a time",
        "ttl = \"5min\"",
    ),
    Fault(
        "to = [\"c\"]",
        "\"c\"",
        "route[3].to[0]",
        "circulate without end: c -> d -> c",
        "remove this route",
    ),
    Fault(
        "maxmsg = 65536",
        "65536",
        "endpoint[5].maxmsg",
        "at most 268435456 are possible",
        "maxmsg = 256",
    ),
    Fault(
        "session_of = ",
        "\"drives\"",
        "group[0].session_of",
        "did you mean `drive`?",
        "session_of = \"drive\"",
    ),
    Fault(
        "rate_hz = ",
        "100",
        "route[4].rate_hz",
        "do not pass through rtd",
        "path = \"routed\"",
    ),
];

impl Fault {
    /// Line and column (from 1) in [`FAULTY`], and the line.
    fn place(&self) -> anyhow::Result<(usize, usize, &'static str)> {
        let mut lines = FAULTY.lines().enumerate();
        let (number, line) = lines
            .find(|(_, line)| line.starts_with(self.0))
            .context("no such line")?;
        let column = line.find(self.1).context("not in its line")?;
        Ok((number + 1, column + 1, line))
    }
}

fn all_problems_are_reported_at_once_each_with_its_place_and_fix() -> anyhow::Result<()> {
    let i = Instance::new()?;
    let file = i.file("faulty.toml").display().to_string();
    std::fs::write(&file, FAULTY)?;
    let said = run(rtd(&["check", "--allow-degraded", &file]))?;
    ensure!(said.code() == Some(1) && said.out.is_empty(), "{said:?}");
    for fault in &FAULTS {
        let Fault(_, marked, key, message, fix) = fault;
        let (line, column, text) = fault.place()?;
        let head = format!("{file}:{line}:{column}: error: ");
        let block = said.err.split("\n\n").find(|b| b.starts_with(&head));
        let block = block.with_context(|| format!("nothing at {head}\n{}", said.err))?;
        let rows: Vec<&str> = block.lines().collect();
        ensure!(rows[0].contains(message), "{block}");
        ensure!(rows[1] == format!("{line} | {text}"), "{block}");
        let gutter = " ".repeat(line.to_string().len());
        let (indent, carets) = (" ".repeat(column - 1), "^".repeat(marked.len()));
        ensure!(
            rows[2] == format!("{gutter} | {indent}{carets} {key}"),
            "{block}"
        );
        ensure!(rows[3].starts_with(&format!("{gutter} = fix: ")), "{block}");
        ensure!(rows[3..].iter().any(|row| row.contains(fix)), "{block}");
    }
    let errors = said
        .err
        .lines()
        .filter(|l| l.starts_with(&file) && l.contains(": error: "))
        .count();
    ensure!(
        errors == FAULTS.len(),
        "{errors} instead of {}:\n{}",
        FAULTS.len(),
        said.err
    );
    ensure!(
        said.err
            .contains(&format!("\n{}, ", rtd::words::counted(errors, "error"))),
        "{}",
        said.err
    );
    Ok(())
}

fn json_has_the_same_problems_for_a_program() -> anyhow::Result<()> {
    let i = Instance::new()?;
    let file = i.file("faulty.toml").display().to_string();
    std::fs::write(&file, FAULTY)?;
    let said = run(rtd(&["check", "--json", "--allow-degraded", &file]))?;
    ensure!(said.code() == Some(1) && said.err.is_empty(), "{said:?}");
    let all: Vec<serde_json::Value> = serde_json::from_str(&said.out)?;
    for fault in &FAULTS {
        let (line, column, text) = fault.place()?;
        let found = all
            .iter()
            .find(|d| d["line"] == line && d["column"] == column);
        let found = found.with_context(|| format!("nothing at {line}:{column}"))?;
        ensure!(
            found["key"] == fault.2 && found["source_line"] == text,
            "{found}"
        );
        ensure!(
            found["severity"] == "error" && found["file"] == file.as_str(),
            "{found}"
        );
        ensure!(
            found["message"]
                .as_str()
                .is_some_and(|m| m.contains(fault.3)),
            "{found}"
        );
        ensure!(
            found["fix"]
                .as_str()
                .is_some_and(|m| m.contains(fault.4) && !m.is_empty()),
            "{found}"
        );
        ensure!(found["length"] == fault.1.len(), "{found}");
    }
    let good = run_on(
        rtd(&["check", "--json", "--allow-degraded", "-"]),
        good(&i).as_bytes(),
    )?;
    ensure!(good.code() == Some(0), "{good:?}");
    serde_json::from_str::<Vec<serde_json::Value>>(&good.out)?;
    Ok(())
}

/// A configuration with nothing wrong.
fn good(i: &Instance) -> String {
    i.head() + &i.mqueue("a", "") + &i.mqueue("b", "") + &route("a", &["b"], "")
}

/// The same with shared memory, through the daemon and past it.
fn good_lanes(i: &Instance) -> String {
    let mut text = good(i) + "[[process]]\nname = \"arm\"\nabove_ceiling = \"warn\"\n";
    for name in ["out", "past", "in"] {
        text += &format!(
            "[[endpoint]]\nname = \"{name}\"\nkind = \"lane\"\nowner = \"arm\"\nmsgsize = 64\n"
        );
    }
    text += "[[group]]\nname = \"team\"\nmembers = [\"in\"]\nprocess_group_of = \"arm\"\n";
    text + &route("out", &["team"], "") + &route("past", &["in"], "path = \"direct\"\n")
}

fn the_exit_code_says_runs_refused_or_unreadable() -> anyhow::Result<()> {
    let i = Instance::new()?;
    let path = |name: &str| i.file(name).display().to_string();
    let code = |file: &str| anyhow::Ok(run(rtd(&["check", "--allow-degraded", file]))?.code());
    std::fs::write(i.file("good.toml"), good(&i))?;
    ensure!(code(&path("good.toml"))? == Some(0));
    std::fs::write(i.file("bad.toml"), "[[lane]]\n")?;
    ensure!(code(&path("bad.toml"))? == Some(1));
    std::fs::write(i.file("latin.toml"), b"name = \"\xe4\"")?;
    ensure!(code(&path("latin.toml"))? == Some(2));
    ensure!(code(&path("absent.toml"))? == Some(2));
    ensure!(code(&path("."))? == Some(2), "a directory");
    // Without a file both mean the same one.
    for command in ["check", "run"] {
        let help = run(rtd(&[command, "--help"]))?.well()?;
        ensure!(help.contains("[default: /etc/rtd.toml]"), "{help}");
    }
    Ok(())
}

fn a_good_file_shows_what_it_means() -> anyhow::Result<()> {
    let i = Instance::new()?;
    let out = run_on(
        rtd(&["check", "--allow-degraded", "-"]),
        good(&i).as_bytes(),
    )?
    .well()?;
    for text in [
        &i.name,
        "lane lane  priority 50",
        "a -> b",
        "reject x64",
        "queue bytes",
        "threads",
    ] {
        ensure!(out.contains(text), "{text:?} is not in\n{out}");
    }
    let out = run_on(
        rtd(&["check", "--allow-degraded", "-"]),
        good_lanes(&i).as_bytes(),
    )?
    .well()?;
    for text in [
        "out -> team (all of 1 in the process group of arm)  <=64B  reject x64",
        "past -> in  direct  <=64B  reject\n",
        "in  lane  64 x 64B  owner arm",
        "threads        2",
    ] {
        ensure!(out.contains(text), "{text:?} is not in\n{out}");
    }
    ensure!(!Path::new(&i.socket()).exists(), "checking made something");
    Ok(())
}

fn standard_input_is_a_dash() -> anyhow::Result<()> {
    let said = run_on(rtd(&["check", "--allow-degraded", "-"]), FAULTY.as_bytes())?;
    ensure!(
        said.code() == Some(1) && said.err.contains("-:2:8: error: "),
        "{said:?}"
    );
    Ok(())
}

fn the_schema_is_the_file_in_configs() -> anyhow::Result<()> {
    let out = run(rtd(&["check", "--schema"]))?.well()?;
    ensure!(
        out == std::fs::read_to_string(configs().join("rtd.schema.json"))?,
        "configs/ has another"
    );
    Ok(())
}

fn configs() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../configs")
}

/// On the machine that the tests run on, by whom they are run.
fn every_file_in_configs_passes() -> anyhow::Result<()> {
    let mut checked = 0;
    for entry in std::fs::read_dir(configs())? {
        let path = entry?.path();
        if path.extension().is_none_or(|e| e != "toml") {
            continue;
        }
        let file = path.display().to_string();
        let mut arguments = vec!["check", &file];
        if !privileged() {
            arguments.push("--allow-degraded");
        }
        let out = run(rtd(&arguments))?.well().with_context(|| file.clone())?;
        ensure!(
            out.contains("\nlane ") && out.contains("\nendpoints\n"),
            "{out}"
        );
        checked += 1;
    }
    ensure!(checked >= 2, "only {checked} files in configs/");
    Ok(())
}

fn run_refuses_a_faulty_file_with_the_same_words() -> anyhow::Result<()> {
    let i = Instance::new()?;
    let file = i.file("faulty.toml").display().to_string();
    let named = FAULTY.replace("name = \"two words\"", &format!("name = \"{}\"", i.name));
    std::fs::write(&file, named)?;
    let check = run(rtd(&["check", &file]))?;
    let problems = check.err.rsplit_once("\n\n").context("no summary")?.0;
    let said = run(rtd(&["run", &file]))?;
    ensure!(said.code() == Some(1) && said.out.is_empty(), "{said:?}");
    ensure!(
        said.err.starts_with(problems),
        "check:\n{problems}\nrun:\n{}",
        said.err
    );
    ensure!(
        said.err.contains(&format!("{file} cannot run, see above")),
        "{}",
        said.err
    );
    ensure!(
        i.snapshot().is_err() && !Path::new(&i.socket()).exists(),
        "it left something"
    );
    Ok(())
}

/// An ordinary user without rtprio: refused with the lines that grant it; degraded where that is
/// allowed.
fn what_is_not_granted_is_refused_with_the_line_that_grants_it() -> anyhow::Result<()> {
    let switch = own_uid() == 0;
    let i = Instance::new()?;
    let check = |arguments: &[&str]| {
        let mut command = rtd(arguments);
        if switch {
            as_nobody(&mut command);
        }
        run_on(command, good(&i).as_bytes())
    };
    for command in ["check", "run"] {
        let arguments = if command == "check" {
            vec!["check", "-"]
        } else {
            vec!["run", "-"]
        };
        let err = check(&arguments)?.refused(&["above RLIMIT_RTPRIO = 0", "LimitRTPRIO=51"])?;
        ensure!(
            err.contains("@rtd - rtprio 51 in /etc/security/limits.d/rtd.conf"),
            "{err}"
        );
    }
    let said = check(&["check", "--allow-degraded", "-"])?;
    if said.code() != Some(0)
        || !said
            .err
            .contains(": warning: lane `lane` (50) and the watchdog")
    {
        bail!("{said:?}");
    }
    Ok(())
}

/// Queues in front of targets that no machine has the memory for: refused by name, whatever the
/// privilege, where the allocation aborted the daemon and left its queues behind.
fn a_plan_that_outgrows_memory_is_refused() -> anyhow::Result<()> {
    let i = Instance::new()?;
    let large = "maxmsg = 1\nmsgsize = 16777216";
    let mut text = i.head() + &i.mqueue("a", large);
    let targets: Vec<String> = (0..32).map(|n| format!("b{n}")).collect();
    for target in &targets {
        text += &i.mqueue(target, large);
    }
    let targets: Vec<&str> = targets.iter().map(String::as_str).collect();
    text += &route("a", &targets, "capacity = 65536");
    for command in ["check", "run"] {
        let said = run_on(rtd(&[command, "--allow-degraded", "-"]), text.as_bytes())?;
        let err = said.refused(&[
            "are available (MemAvailable)",
            "capacity 65536 x ",
            "payload = ",
        ])?;
        ensure!(err.contains("route[0].capacity"), "{err}");
    }
    ensure!(
        !util::exists(&i.queue("a"))? && i.snapshot().is_err(),
        "it left something"
    );
    Ok(())
}
