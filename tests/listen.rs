//! `rtctl listen` by hand.

use crate::util::talk::unhex;
use crate::util::terminal::Terminal;
use crate::util::tool::{RTCTL, Tool, run};
use crate::util::{Daemon, Instance, Peer, process, route, rt, signal};
use anyhow::{Context as _, ensure};
use rtcore::lane::peer::PeerState;
use serde_json::{Value, json};
use std::process::Command;

tests![
    a_queue_is_shown_as_text_or_hex_with_its_priority,
    a_queue_is_shown_as_json,
    a_signal_is_shown_with_its_value_and_origin,
    it_steals_only_with_the_option,
    a_program_that_has_the_queue_open_keeps_its_messages,
    a_closed_pipe_loses_no_message,
    ctrl_c_ends_a_listener,
];

fn config(i: &Instance) -> String {
    i.head()
        + &process("arm")
        + &i.mqueue("in", "")
        + &i.mqueue("out", "")
        + &i.mqueue("bell", "msgsize = 8")
        + &signal("press", "", "SIGRTMIN+6", "")
        + &signal("arm.go", "arm", "SIGRTMIN+5", "")
        + &i.mqueue("orders", "")
        + &i.mqueue("owned", "owner = \"arm\"")
        + &route("in", &["out"], "name = \"bytes\"")
        + &route("orders", &["owned"], "name = \"orders\"")
        + &route("bell", &["arm.go"], "name = \"go\"")
        + &route(
            "press",
            &["arm.go"],
            "name = \"pressed\"\naccept_claimed = true",
        )
}

/// A process that opened a queue for sending.
fn sender(i: &Instance, queue: &str) -> anyhow::Result<Peer> {
    let mut peer = Peer::start()?;
    peer.open_to_send(&i.queue(queue))?;
    Ok(peer)
}

fn a_queue_is_shown_as_text_or_hex_with_its_priority() -> anyhow::Result<()> {
    let i = Instance::new()?;
    let _daemon = Daemon::start(&config(&i))?;
    let tool = Tool::start(i.rtctl_command(&["listen", "out", "--count", "3"]))?;
    let mut sender = sender(&i, "in")?;
    sender.send(7, &[0x67, 0x6f])?;
    ensure!(tool.line()? == "out: \"go\" (2 B, priority 7)\n");
    sender.send(0, &[0x1b, 0x5b, 0x32, 0x4a])?;
    ensure!(
        tool.line()? == "out: hex 1b5b324a (4 B, priority 0)\n",
        "escape codes reach the terminal"
    );
    sender.send(0, b"")?;
    ensure!(tool.line()? == "out: \"\" (0 B, priority 0)\n");
    tool.end()?.well()?;
    Ok(())
}

fn a_queue_is_shown_as_json() -> anyhow::Result<()> {
    let i = Instance::new()?;
    let _daemon = Daemon::start(&config(&i))?;
    let tool = Tool::start(i.rtctl_command(&["listen", "out", "--json", "--count", "2"]))?;
    let mut sender = sender(&i, "in")?;
    let mut one = |hex: &str, text: Value, len: usize| -> anyhow::Result<()> {
        sender.send(3, &unhex(hex)?)?;
        let mut got: Value = serde_json::from_str(&tool.line()?)?;
        let at = got
            .as_object_mut()
            .and_then(|o| o.remove("received_ns"))
            .context("no time")?;
        ensure!(at.as_u64().is_some_and(|ns| ns > 0), "{at}");
        let expected =
            json!({"endpoint": "out", "priority": 3, "len": len, "text": text, "hex": hex});
        ensure!(got == expected, "{got}");
        Ok(())
    };
    one("676f", json!("go"), 2)?;
    one("ff00", Value::Null, 2)?;
    tool.end()?.well()?;
    Ok(())
}

/// It takes the owner's name while it listens, and gives it back.
fn a_signal_is_shown_with_its_value_and_origin() -> anyhow::Result<()> {
    let i = Instance::new()?;
    let _daemon = Daemon::start(&config(&i))?;
    let mut bell = sender(&i, "bell")?;
    for json in [false, true] {
        let mut arguments = vec!["listen", "arm.go", "--count", "1"];
        arguments.extend(json.then_some("--json"));
        let tool = Tool::start(i.rtctl_command(&arguments))?;
        i.until("it is arm", |s| {
            s.processes[0].pid == tool.pid() && s.processes[0].state == PeerState::Alive
        })?;
        bell.send(0, &272_u64.to_ne_bytes())?;
        let line = tool.line()?;
        if json {
            let got: Value = serde_json::from_str(&line)?;
            ensure!(
                got["endpoint"] == "arm.go" && got["signo"] == rt(5) && got["value"] == 0x110,
                "{got}"
            );
            ensure!(
                got["pid"].is_u64() && got["uid"].is_u64() && got["received_ns"].is_u64(),
                "{got}"
            );
        } else {
            ensure!(
                line.starts_with("arm.go: SIGRTMIN+5 value 0x110 from pid "),
                "{line}"
            );
        }
        tool.end()?.well()?;
        i.until("it gave the name back", |s| {
            s.processes[0].state == PeerState::Dead
        })?;
    }
    let held = Peer::run_as(&i, "arm")?;
    let says = format!("arm is held by pid {}", held.pid());
    run(i.rtctl_command(&["listen", "arm.go"]))?.refused(&[&says])?;
    Ok(())
}

fn it_steals_only_with_the_option() -> anyhow::Result<()> {
    let i = Instance::new()?;
    let daemon = Daemon::start(&config(&i))?;
    let listen = |arguments: &[&str]| run(i.rtctl_command(&[&["listen"], arguments].concat()));
    listen(&["in"])?.refused(&["rtd reads in", "an endpoint it writes", "--steal"])?;
    listen(&["press"])?.refused(&["press is sent to rtd, nothing arrives there"])?;
    listen(&["nowhere"])?.refused(&[
        "has no endpoint nowhere",
        "in, out, bell, press, arm.go, orders, owned",
    ])?;

    // Its owner's messages are not ours, whether it is there or comes later.
    listen(&["owned", "--count", "1"])?
        .refused(&["owned is read by arm (not registered now)", "--steal"])?;
    let mut arm = Peer::run_as(&i, "arm")?;
    let says = format!("owned is read by arm (pid {})", arm.pid());
    listen(&["owned", "--count", "1"])?.refused(&[&says, "--steal"])?;
    sender(&i, "orders")?.send(0, &[0x01])?;
    arm.open_to_receive(&i.queue("owned"))?;
    ensure!(arm.receive_for(1, 10_000)? == [(0, vec![1])]);

    let thief = Tool::start(i.rtctl_command(&["listen", "owned", "--steal", "--count", "1"]))?;
    sender(&i, "orders")?.send(0, &[0x6d, 0x79])?;
    ensure!(thief.line()? == "owned: \"my\" (2 B, priority 0)\n");
    thief.end()?.well()?;
    daemon.stop()?;
    Ok(())
}

/// A program that only opened the queue, unknown to rtd, is its reader all the same; one that
/// writes it is none.
fn a_program_that_has_the_queue_open_keeps_its_messages() -> anyhow::Result<()> {
    let i = Instance::new()?;
    let daemon = Daemon::start(&config(&i))?;
    let _writer = sender(&i, "out")?;
    let mut reader = Peer::start()?;
    reader.open_to_receive(&i.queue("out"))?;
    let says = [
        "out is open for reading in",
        &format!("(pid {})", reader.pid()),
        "--steal",
    ];
    run(i.rtctl_command(&["listen", "out", "--count", "1"]))?.refused(&says)?;
    sender(&i, "in")?.send(0, &[0x01])?;
    ensure!(reader.receive_for(1, 10_000)? == [(0, vec![1])]);
    drop(reader);
    let tool = Tool::start(i.rtctl_command(&["listen", "out", "--count", "1"]))?;
    sender(&i, "in")?.send(0, &[0x67, 0x6f])?;
    ensure!(tool.line()? == "out: \"go\" (2 B, priority 0)\n");
    tool.end()?.well()?;
    daemon.stop()?;
    Ok(())
}

/// The message is out of the queue and can be printed nowhere else.
fn a_closed_pipe_loses_no_message() -> anyhow::Result<()> {
    let i = Instance::new()?;
    let _daemon = Daemon::start(&config(&i))?;
    let mut shell = Command::new("sh");
    let script = "{ \"$0\" --instance \"$1\" listen out; echo $? >&2; } | head -1";
    shell.arg("-c").arg(script).args([RTCTL, &i.name]);
    let shell = Tool::start(shell)?;
    let mut sender = sender(&i, "in")?;
    sender.send(0, &[0x6f, 0x6e, 0x65])?;
    ensure!(shell.line()? == "out: \"one\" (3 B, priority 0)\n");
    // The tool notices when it has more to say; head may take a moment to go.
    let mut end = None;
    let shell = std::cell::RefCell::new(Some(shell));
    crate::util::eventually(|| {
        sender.send(0, &[0x6d, 0x6f, 0x72, 0x65]).ok()?;
        let mut running = shell.borrow_mut();
        if running.as_mut()?.runs() {
            return None;
        }
        end = running.take();
        Some(())
    })?;
    let said = end.context("it runs still")?.end()?;
    let says = [
        "took one message that could not be written to standard output",
        "out: \"more\" (4 B, priority 0)\n1\n",
    ];
    ensure!(says.iter().all(|says| said.err.contains(says)), "{said:?}");
    Ok(())
}

/// Interrupted as a human does it.
fn ctrl_c_ends_a_listener() -> anyhow::Result<()> {
    let i = Instance::new()?;
    let _daemon = Daemon::start(&config(&i))?;
    let mut terminal = Terminal::start(i.rtctl_command(&["listen", "out"]))?;
    sender(&i, "in")?.send(0, &[0x67, 0x6f])?;
    terminal.until("the message", |shown| shown.contains("out: \"go\""))?;
    terminal.signal(nix::sys::signal::Signal::SIGINT)?;
    let (status, shown) = terminal.end()?;
    ensure!(
        !shown.contains("panicked") && !shown.contains("error"),
        "{status}: {shown}"
    );
    Ok(())
}
