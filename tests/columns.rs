//! Tables and help on a terminal of 80 columns, and in full elsewhere.

use crate::util::lat::lat;
use crate::util::terminal::Terminal;
use crate::util::tool::{RTCTL, RTD, RTLAT, run};
use crate::util::{Daemon, Instance, Peer, lane, process, route, signal};
use anyhow::{Context as _, ensure};
use std::path::Path;
use std::process::Command;

tests![
    every_table_fits_a_terminal_of_80_columns,
    the_tables_of_rtlat_fit_a_terminal_of_80_columns,
    a_pipe_a_wide_terminal_and_wide_show_every_column,
    the_summary_of_a_check_fits_a_terminal_of_80_columns,
    every_help_fits_a_terminal_of_80_columns,
];

/// Every column of `rtctl stats` that counts something or says how things are.
const COLUMNS: &str = "LANE ROUTE STATE ACCEPTED DELIVERED EXPIRED DISPLACED REJECTED PEER-DEAD QUEUED MISSES P50 P90 P99 \
                       P99.9 MAX PRIO CPU WAIT DUTY DUTY-MAX MSW REFUSED-CALLS DEGRADED TARGET LAST LOST BY";

/// Several lanes, and routes with the longest names, of which some lose messages for several
/// reasons.
fn config(i: &Instance) -> String {
    let named = |name: &str, more: &str| format!("name = \"{name}\"\n{more}");
    i.head()
        + &lane("a.lane.with.quite.a.long.name", 70, "")
        + &i.mqueue("urgent", "")
        + &i.mqueue("stop", "")
        + &route(
            "urgent",
            &["stop"],
            "lane = \"a.lane.with.quite.a.long.name\"",
        )
        + &lane("spare", 20, "wait = \"spin:50\"")
        + &process("a.process.with.quite.a.longname")
        + &i.mqueue("in", "")
        + &i.mqueue("an.endpoint.of.a.queue.with.a.1", "")
        + &i.mqueue("an.endpoint.of.a.queue.with.a.2", "")
        + &signal(
            "an.endpoint.for.a.signal",
            "a.process.with.quite.a.longname",
            "SIGRTMIN+5",
            "",
        )
        + &route(
            "in",
            &[
                "an.endpoint.of.a.queue.with.a.1",
                "an.endpoint.for.a.signal",
            ],
            &named(
                "a.route.with.quite.a.long.name1",
                "truncate = true\ncapacity = 5",
            ),
        )
        + &route(
            "in",
            &["an.endpoint.of.a.queue.with.a.2"],
            &named(
                "a.route.with.quite.a.long.name2",
                "capacity = 20\nttl = \"1ms\"",
            ),
        )
        + &i.mqueue("other", "")
        + &i.mqueue("out", "")
        + &route("other", &["out"], &named("idle", "lane = \"spare\""))
}

/// A daemon of this configuration which has lost messages in several ways.
fn losing(i: &Instance) -> anyhow::Result<Daemon> {
    let daemon = Daemon::start(&config(i))?;
    Peer::sender(&i.queue("in"))?.stream(0, 25)?;
    i.until("some are lost", |s| {
        let [first, second] = [0, 1].map(|route| s.routes[route + 1].ledger);
        first.accepted == 50
            && first.rejected_total() > 0
            && first.peer_dead == 25
            && second.expired == 15
    })?;
    Ok(daemon)
}

/// What a command shows on a terminal of this many columns.
fn on_terminal(columns: u16, command: Command) -> anyhow::Result<String> {
    let (status, shown) = Terminal::of_columns(columns, command)?.end()?;
    ensure!(status.success(), "{status}: {shown}");
    // Bold and underlined text takes no columns.
    let mut parts = shown.split('\x1b');
    let first = parts.next().unwrap_or_default().to_owned();
    let plain = parts.fold(first, |text, part| {
        text + part.split_once('m').map_or(part, |(_, rest)| rest)
    });
    Ok(plain.replace("\r\n", "\n"))
}

/// No line is longer; a single word, such as the path of a socket, may be.
fn ensure_fits(columns: usize, text: &str) -> anyhow::Result<()> {
    let fits = |line: &str| line.chars().count() <= columns || !line.trim().contains(' ');
    match text.lines().find(|line| !fits(line)) {
        Some(line) => anyhow::bail!("{} columns: {line:?} in\n{text}", line.chars().count()),
        None => Ok(()),
    }
}

fn every_table_fits_a_terminal_of_80_columns() -> anyhow::Result<()> {
    let i = Instance::new()?;
    let daemon = losing(&i)?;
    for arguments in [
        &["ls"][..],
        &["stats"],
        &["stats", "--reasons"],
        &["stats", "--lane", "spare"],
    ] {
        let shown = on_terminal(80, i.rtctl_command(arguments))?;
        ensure_fits(80, &shown)?;
        ensure!(shown.contains(" STATE "), "{shown}");
        // The same where watch(1) runs it.
        let mut watched = i.rtctl_command(arguments);
        watched.env("COLUMNS", "80");
        ensure_fits(80, &run(watched)?.well()?)?;
    }
    let shown = on_terminal(80, i.rtctl_command(&["stats"]))?;
    let routes = shown
        .split("\nROUTE")
        .nth(1)
        .context("no table of routes")?;
    let header = routes.lines().next().unwrap_or_default();
    ensure!(
        ["STATE", "ACCEPTED", "REJECTED", "PEER-DEAD"]
            .iter()
            .all(|title| header.contains(title)),
        "losses are left out before what did not happen: {shown}"
    );
    ensure!(
        shown.contains("\na.route.w...name1 ")
            || shown.contains("\na.route.wi...name1 ")
            || shown.contains("name1 "),
        "{shown}"
    );
    let note = shown
        .split("not shown for lack of room (--wide):")
        .nth(1)
        .context("no note")?;
    ensure!(
        note.contains("P99.9") && note.contains("WAIT") && !note.contains("STATE"),
        "{shown}"
    );
    daemon.stop()?;
    Ok(())
}

fn the_tables_of_rtlat_fit_a_terminal_of_80_columns() -> anyhow::Result<()> {
    let i = Instance::new()?;
    for arguments in [
        &[
            "compare",
            "-q",
            "--turns",
            "1",
            "-l",
            "5",
            "--busy",
            "5",
            "--only",
            "mq-mq,direct",
        ][..],
        &[
            "interference",
            "-q",
            "--turns",
            "1",
            "-l",
            "20",
            "--path",
            "mq-mq",
            "--only",
            "telemetry",
        ],
        // Without SCHED_FIFO nothing that another program does makes it unclean.
        &["clean", "-p", "0", "-l", "200", "--path", "mq"],
    ] {
        let shown = on_terminal(80, lat(&i, arguments)?)?;
        ensure_fits(80, &shown).with_context(|| format!("{arguments:?}"))?;
        ensure!(
            shown.contains("not shown for lack of room (--wide):"),
            "{shown}"
        );
        let wide = on_terminal(80, lat(&i, &[arguments, &["--wide"]].concat())?)?;
        ensure!(
            !wide.contains("not shown") && wide.lines().any(|line| line.len() > 80),
            "{wide}"
        );
    }
    Ok(())
}

fn a_pipe_a_wide_terminal_and_wide_show_every_column() -> anyhow::Result<()> {
    let i = Instance::new()?;
    let daemon = losing(&i)?;
    let piped = run(i.rtctl_command(&["stats"]))?.well()?;
    let on_wide = on_terminal(400, i.rtctl_command(&["stats"]))?;
    let wide = on_terminal(80, i.rtctl_command(&["stats", "--wide"]))?;
    let mut watched = i.rtctl_command(&["stats", "-w"]);
    watched.env("COLUMNS", "80");
    for shown in [piped, on_wide, wide, run(watched)?.well()?] {
        let words: Vec<&str> = shown.split_whitespace().collect();
        for title in COLUMNS.split_whitespace() {
            ensure!(words.contains(&title), "no {title} in\n{shown}");
        }
        ensure!(
            shown.contains("\na.route.with.quite.a.long.name1 ") && !shown.contains("not shown"),
            "{shown}"
        );
    }
    daemon.stop()?;
    Ok(())
}

/// The summary on standard output; in a pipe a line stays one line.
fn the_summary_of_a_check_fits_a_terminal_of_80_columns() -> anyhow::Result<()> {
    let check = |name: &str| {
        let mut command = Command::new("sh");
        let file = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("../configs")
            .join(name);
        let script = "exec \"$0\" check --allow-degraded \"$1\" 2>/dev/null";
        command
            .args(["-c", script, RTD])
            .arg(file)
            .env_remove("COLUMNS");
        command
    };
    for name in ["demo-arm.toml", "examples.toml", "minimal.toml"] {
        let shown = on_terminal(80, check(name))?;
        ensure_fits(80, &shown)?;
        let piped = run(check(name))?.well()?;
        ensure!(
            piped.lines().any(|line| line.chars().count() > 80),
            "nothing to break: {piped}"
        );
        ensure!(
            shown.split_whitespace().eq(piped.split_whitespace()),
            "{shown}\n{piped}"
        );
    }
    Ok(())
}

fn every_help_fits_a_terminal_of_80_columns() -> anyhow::Result<()> {
    for program in [RTD, RTCTL, *RTLAT] {
        let help = |arguments: &[&str]| {
            let mut command = Command::new(program);
            command.args(arguments).arg("--help");
            on_terminal(80, command)
        };
        let all = help(&[])?;
        ensure_fits(80, &all)?;
        let commands = crate::help::commands(&all);
        ensure!(commands.len() > 2, "{all}");
        for command in commands {
            ensure_fits(80, &help(&[command])?)
                .with_context(|| format!("{program} {command} --help"))?;
        }
    }
    Ok(())
}
