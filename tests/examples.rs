//! The examples of the client library, as their user starts them: against the real daemon on
//! configs/examples.toml.
//!
//! They belong to another package than this binary; cargo is asked to bring them up to date first,
//! with the profile and into the directory that this binary was built with.

use crate::util::tool::{Said, Tool, cargo_build};
use crate::util::{Daemon, Instance, first_cpu, privileged};
use anyhow::{Context as _, ensure};
use nix::sys::signal::Signal;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

tests![
    a_controller_commands_a_drive_at_1_khz,
    a_press_stops_the_machine,
    the_end_of_the_button_stops_the_machine,
    a_button_that_hangs_stops_the_machine,
    the_end_of_the_daemon_stops_the_machine,
    questions_are_answered_or_late,
    a_loop_of_ones_own_waits_for_an_inbox_too,
    each_holds_the_signals_that_come_early,
    without_a_daemon_each_says_how_to_start_it,
];

/// The directory of the built examples.
pub fn built() -> anyhow::Result<&'static Path> {
    static BUILT: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    let built = BUILT.get_or_init(|| {
        // Where the tests are without a compiler (scripts/rt-vm), they lie ready.
        if let Some(ready) = std::env::var_os("RTD_TEST_EXAMPLES") {
            return Ok(ready.into());
        }
        // The whole workspace, whose features are those that the tests were built with.
        cargo_build(&["--workspace", "--examples"])
            .map(|directory| directory.join("examples"))
            .map_err(|e| format!("{e:#}"))
    });
    built.as_deref().map_err(|e| anyhow::anyhow!("{e}"))
}

/// The daemon on configs/examples.toml, under a name and on queues of its own.
pub fn daemon(i: &Instance) -> anyhow::Result<Daemon> {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../configs/examples.toml");
    let text = std::fs::read_to_string(&file)?;
    let own = format!("name = \"{}\"\nsocket = \"{}\"", i.name, i.socket());
    let text = text
        .replacen("name = \"examples\"", &own, 1)
        .replace("/rtd-examples.console", &i.queue("console"))
        .replace("cpu = 0", &format!("cpu = {}", first_cpu()));
    Daemon::start(&text)
}

/// Starts an example with these arguments on this instance: [`rust`], or one of another language,
/// which has the same name, arguments and output.
pub type Start = fn(&Instance, &str, &[&str]) -> anyhow::Result<Tool>;

/// The Rust one.
pub fn rust(i: &Instance, name: &str, args: &[&str]) -> anyhow::Result<Tool> {
    let mut command = Command::new(built()?.join(name));
    command.args(args).env("RTD_INSTANCE", &i.name);
    rtcore::sys::process::die_with_parent_at_exec(&mut command);
    Tool::start(command)
}

/// Reads its lines until one begins like this.
pub fn until(tool: &Tool, start: &str) -> anyhow::Result<String> {
    loop {
        let line = tool
            .line()
            .with_context(|| format!("waiting for {start:?}"))?;
        if line.starts_with(start) {
            return Ok(line);
        }
    }
}

/// It says whether it runs in real time, by the grants of this user.
fn ensure_granted(said: &Said) -> anyhow::Result<()> {
    ensure!(
        said.err.contains("not in real time") != privileged(),
        "{said:?}"
    );
    ensure!(
        privileged() || said.err.contains("setcap") || said.err.contains("ulimit"),
        "no fix: {said:?}"
    );
    Ok(())
}

fn a_controller_commands_a_drive_at_1_khz() -> anyhow::Result<()> {
    commands(rust, rust)
}

pub fn commands(controller: Start, drive: Start) -> anyhow::Result<()> {
    let i = Instance::new()?;
    let _daemon = daemon(&i)?;
    let drive = drive(&i, "drive", &["--seconds", "4"])?;
    until(&drive, "set points")?;
    let controller = controller(&i, "controller", &["--seconds", "1"])?;
    let controller = controller.end()?;
    ensure_granted(&controller)?;
    let out = controller.well()?;
    // Refused are those that the drive had no room for, because it got no CPU.
    let (sent, refused) = sent_and_refused(&out).with_context(|| out.clone())?;
    ensure!(sent + refused == 1000.0 && sent > 0.0, "{out}");
    let drive = drive.end()?;
    ensure_granted(&drive)?;
    let out = drive.well()?;
    let rows: Vec<Vec<f64>> = out.lines().map(numbers).collect();
    ensure!(rows.len() == 4, "one row a second: {out}");
    ensure!(
        rows.iter().map(|row| row[0]).sum::<f64>() == sent,
        "{sent} sent: {out}"
    );
    for row in rows.iter().filter(|row| row[0] > 0.0) {
        ensure!(
            row[1] == 0.0 && 0.0 < row[2] && row[2] <= row[3] && row[3] <= row[4],
            "{out}"
        );
    }
    ensure!(out.ends_with("holding: nobody commands\n"), "{out}");
    Ok(())
}

fn sent_and_refused(out: &str) -> Option<(f64, f64)> {
    let line = out
        .lines()
        .find(|line| line.contains(" set points sent, "))?;
    let (sent, refused) = line
        .strip_suffix(" refused")?
        .split_once(" set points sent, ")?;
    Some((sent.parse().ok()?, refused.parse().ok()?))
}

fn numbers(line: &str) -> Vec<f64> {
    line.split_whitespace()
        .map_while(|word| word.parse().ok())
        .collect()
}

/// The machine moves, and this is what ends the button.
fn stopped_by(
    (machine, button): (Start, Start),
    end: impl FnOnce(&mut Tool, &mut Option<Daemon>) -> anyhow::Result<()>,
) -> anyhow::Result<String> {
    let i = Instance::new()?;
    let mut daemon = Some(daemon(&i)?);
    let machine = machine(&i, "estop", &["machine"])?;
    until(&machine, "waiting for the button")?;
    let mut button = button(&i, "estop", &["button"])?;
    until(&machine, "moving")?;
    until(&button, "press Enter")?;
    end(&mut button, &mut daemon)?;
    let stop = until(&machine, "STOP: ")?;
    machine.end()?.well()?;
    Ok(stop)
}

fn a_press_stops_the_machine() -> anyhow::Result<()> {
    pressed(rust, rust)
}

pub fn pressed(machine: Start, button: Start) -> anyhow::Result<()> {
    let stop = stopped_by((machine, button), |button, _| button.type_in(b"\n"))?;
    ensure!(
        stop.contains("pressed, by pid ") && stop.contains("verified: true"),
        "{stop}"
    );
    Ok(())
}

fn the_end_of_the_button_stops_the_machine() -> anyhow::Result<()> {
    killed(rust, rust)
}

pub fn killed(machine: Start, button: Start) -> anyhow::Result<()> {
    let stop = stopped_by((machine, button), |button, _| {
        button.signal(Signal::SIGKILL)
    })?;
    ensure!(
        stop.contains("button is gone (killed by SIGKILL)"),
        "{stop}"
    );
    Ok(())
}

fn a_button_that_hangs_stops_the_machine() -> anyhow::Result<()> {
    let stop = stopped_by((rust, rust), |button, _| button.signal(Signal::SIGSTOP))?;
    ensure!(stop.contains("silent"), "{stop}");
    Ok(())
}

fn the_end_of_the_daemon_stops_the_machine() -> anyhow::Result<()> {
    without_a_daemon_it_stops(rust, rust)
}

pub fn without_a_daemon_it_stops(machine: Start, button: Start) -> anyhow::Result<()> {
    let stop = stopped_by((machine, button), |_, daemon| {
        daemon.take().map_or(Ok(()), Daemon::kill)
    })?;
    ensure!(stop.contains("rtd is gone"), "{stop}");
    Ok(())
}

fn questions_are_answered_or_late() -> anyhow::Result<()> {
    asked(rust, rust)
}

pub fn asked(panel: Start, axis: Start) -> anyhow::Result<()> {
    let i = Instance::new()?;
    let _daemon = daemon(&i)?;
    let axis = axis(&i, "ask", &["axis", "50"])?;
    until(&axis, "waiting for questions")?;
    let out = panel(&i, "ask", &["panel", "10"])?.end()?.well()?;
    let answered = out.lines().filter(|line| line.contains(" rad at ")).count();
    let late = out
        .lines()
        .filter(|line| line.starts_with("no answer in time"))
        .count();
    ensure!(
        answered + late == 10 && late >= 3,
        "every third answer takes 50 ms of 20: {out}"
    );
    let last = format!("10 questions: {answered} answered, {late} not in time; ");
    ensure!(out.contains(&last), "{out}");
    let axis = axis.end()?.well()?;
    ensure!(axis.contains("panel is gone, after 10 questions"), "{axis}");
    Ok(())
}

fn a_loop_of_ones_own_waits_for_an_inbox_too() -> anyhow::Result<()> {
    looped(rust)
}

pub fn looped(start: Start) -> anyhow::Result<()> {
    let i = Instance::new()?;
    let _daemon = daemon(&i)?;
    let epoll = start(&i, "epoll", &[])?;
    until(&epoll, "waiting")?;
    let sent = i.rtctl(&["send", "console", "--text", "hello"])?;
    ensure!(sent.status.success(), "{sent:?}");
    ensure!(until(&epoll, "console (")?.ends_with(": hello\n"));
    until(&epoll, "tick 1: 1 messages so far")?;
    epoll.signal(Signal::SIGTERM)?;
    let out = epoll.end()?.well()?;
    ensure!(out.ends_with("SIGTERM, after 1 messages\n"), "{out}");
    Ok(())
}

fn each_holds_the_signals_that_come_early() -> anyhow::Result<()> {
    held(rust)
}

/// Each waits for a partner, so its signal mask can be read.
pub fn held(start: Start) -> anyhow::Result<()> {
    let i = Instance::new()?;
    let _daemon = daemon(&i)?;
    let all: [(&str, &[&str]); 5] = [
        ("controller", &[]),
        ("drive", &[]),
        ("estop", &["machine"]),
        ("ask", &["axis"]),
        ("epoll", &[]),
    ];
    for (name, args) in all {
        let tool = start(&i, name, args)?;
        crate::starting::holds_signals(tool.pid()).context(name)?;
    }
    Ok(())
}

fn without_a_daemon_each_says_how_to_start_it() -> anyhow::Result<()> {
    refused(rust)
}

pub fn refused(start: Start) -> anyhow::Result<()> {
    let i = Instance::new()?;
    let all: [(&str, &[&str]); 7] = [
        ("controller", &[]),
        ("drive", &["--seconds", "1"]),
        ("estop", &["button"]),
        ("estop", &["machine"]),
        ("ask", &["panel"]),
        ("ask", &["axis"]),
        ("epoll", &[]),
    ];
    for (name, args) in all {
        start(&i, name, args)?
            .end()?
            .refused(&[name, "rtd is not running there: start it"])?;
    }
    for (name, args) in [
        ("estop", &["sideways"][..]),
        ("ask", &[]),
        ("drive", &["--minutes", "1"]),
    ] {
        start(&i, name, args)?.end()?.refused(&[name])?;
    }
    Ok(())
}
