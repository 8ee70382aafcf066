//! `rtctl stats --watch`: into a pipe, into JSON, on a terminal, and its end.

use crate::util::order;
use crate::util::terminal::Terminal;
use crate::util::tool::{RTCTL, Tool, run};
use crate::util::{Daemon, Instance, Peer, route};
use anyhow::{Context as _, ensure};
use nix::sys::signal::Signal;
use std::process::Command;

tests![
    into_a_pipe_it_prints_block_after_block_and_sigint_ends_it,
    a_closed_pipe_ends_it_quietly,
    json_comes_as_one_document_a_line_with_rates,
    a_terminal_is_redrawn_in_place,
    it_outlives_the_daemon_and_finds_the_next,
];

fn config(i: &Instance) -> String {
    let name = "name = \"flow\"\noverflow = \"displace-oldest\"";
    i.head() + &i.mqueue("in", "") + &i.mqueue("out", "") + &route("in", &["out"], name)
}

/// The daemon, and a stream through it that outlasts the test.
fn flowing(i: &Instance) -> anyhow::Result<(Daemon, Peer)> {
    let daemon = Daemon::start(&config(i))?;
    let mut sender = Peer::start()?;
    sender.open_to_send(&i.queue("in"))?;
    sender.ask(order::Queue::Stream {
        from: 0,
        count: 1_000_000_000,
    })?;
    i.until("it flows", |s| s.routes[0].ledger.accepted > 0)?;
    Ok((daemon, sender))
}

/// Reads on to the next line that starts so.
fn line_of(tool: &Tool, start: &str) -> anyhow::Result<String> {
    loop {
        let line = tool.line()?;
        if line.starts_with(start) {
            return Ok(line);
        }
    }
}

fn into_a_pipe_it_prints_block_after_block_and_sigint_ends_it() -> anyhow::Result<()> {
    let i = Instance::new()?;
    let _flow = flowing(&i)?;
    let tool = Tool::start(i.rtctl_command(&["stats", "--watch", "0.1"]))?;
    for _ in 0..4 {
        ensure!(line_of(&tool, &format!("{}: pid ", i.name))?.contains(", running, up "));
        ensure!(line_of(&tool, "messages per second")?.contains("of this interval"));
        let row = line_of(&tool, "flow ")?;
        let accepted: f64 = row.split_whitespace().nth(2).context("no cell")?.parse()?;
        ensure!(accepted > 10.0, "nothing flows: {row}");
    }
    tool.signal(Signal::SIGINT)?;
    let said = tool.end()?;
    ensure!(said.code() == Some(0) && said.err.is_empty(), "{said:?}");
    ensure!(
        !said.out.contains('\x1b') && said.out.ends_with('\n'),
        "{said:?}"
    );
    Ok(())
}

fn a_closed_pipe_ends_it_quietly() -> anyhow::Result<()> {
    let i = Instance::new()?;
    let _flow = flowing(&i)?;
    let mut shell = Command::new("sh");
    let script = "{ \"$0\" --instance \"$1\" stats --watch 0.05; echo $? >&2; } | head -3";
    shell.arg("-c").arg(script).args([RTCTL, &i.name]);
    let said = run(shell)?;
    ensure!(
        said.out.lines().count() == 3 && said.err == "0\n",
        "{said:?}"
    );
    Ok(())
}

fn json_comes_as_one_document_a_line_with_rates() -> anyhow::Result<()> {
    let i = Instance::new()?;
    let _flow = flowing(&i)?;
    let tool = Tool::start(i.rtctl_command(&["stats", "--json", "--watch", "0.1"]))?;
    let mut before = 0;
    for _ in 0..3 {
        let document: serde_json::Value = serde_json::from_str(&tool.line()?)?;
        let route = &document["routes"][0];
        ensure!(
            document["interval_s"].as_f64().is_some_and(|s| s > 0.05),
            "{document}"
        );
        ensure!(
            route["per_second"]["accepted"]
                .as_f64()
                .is_some_and(|rate| rate > 10.0),
            "{route}"
        );
        let accepted = route["accepted"].as_u64().context("no count")?;
        ensure!(accepted > before, "{accepted} after {before}");
        let interval = route["latency_ns"]["count"].as_u64().context("no count")?;
        ensure!(
            interval <= accepted - before || before == 0,
            "latencies of more than the interval: {route}"
        );
        before = accepted;
    }
    tool.signal(Signal::SIGTERM)?;
    ensure!(tool.end()?.code() == Some(0));
    Ok(())
}

fn a_terminal_is_redrawn_in_place() -> anyhow::Result<()> {
    const HOME: &str = "\x1b[H";
    let i = Instance::new()?;
    let _flow = flowing(&i)?;
    let mut terminal = Terminal::start(i.rtctl_command(&["stats", "--watch", "0.1"]))?;
    terminal.until("four times", |shown| shown.matches(HOME).count() >= 4)?;
    terminal.signal(Signal::SIGINT)?;
    let (status, shown) = terminal.end()?;
    ensure!(status.success(), "{status}");
    ensure!(
        shown.starts_with("\x1b[2J\x1b[H") && shown.matches("\x1b[2J").count() == 1,
        "{shown:?}"
    );
    // Each drawing wipes what was longer before, to the right and below.
    for drawing in shown.split(HOME).skip(1) {
        let rows = drawing.matches('\n').count();
        ensure!(
            drawing.matches("\x1b[K\r\n").count() == rows && drawing.contains("\x1b[J"),
            "{drawing:?}"
        );
        ensure!(drawing.contains("flow "), "{drawing:?}");
    }
    Ok(())
}

/// It goes on through the end of the daemon, and through the next one's start.
fn it_outlives_the_daemon_and_finds_the_next() -> anyhow::Result<()> {
    let i = Instance::new()?;
    let (daemon, sender) = flowing(&i)?;
    let tool = Tool::start(i.rtctl_command(&["stats", "--watch", "0.05"]))?;
    let head = format!("{}: pid ", i.name);
    ensure!(line_of(&tool, &head)?.contains(", running, "));
    drop(sender);
    daemon.kill()?;
    let shown = |what: &str| -> anyhow::Result<()> {
        // Bounded by the patience of each line, and by this many drawings.
        for _ in 0..400 {
            if line_of(&tool, &head)?.contains(what) {
                return Ok(());
            }
        }
        anyhow::bail!("never shown: {what}")
    };
    shown("STOPPED")?;
    let next = Daemon::start(&config(&i))?;
    shown(&format!("pid {}, running", next.pid()))?;
    next.stop()?;
    shown("STOPPED")?;
    tool.signal(Signal::SIGINT)?;
    ensure!(tool.end()?.code() == Some(0));
    Ok(())
}
