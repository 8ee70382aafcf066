//! `rtlat clean`: a clean run is clean, and whatever is not is found.
//!
//! Without RTD_GUARD=abort, which would end the process instead of telling.

use crate::util::lat::{Traces, lat};
use crate::util::needs::{KERNEL_TRACE, ROOT};
use crate::util::tool::{Said, Tool};
use crate::util::{Daemon, Instance, first_cpu, lane, privileged, route};
use anyhow::{Context as _, ensure};
use rtcore::sys::mqueue::{self, Access, Queue};
use serde_json::Value;
use std::ffi::CString;
use std::os::fd::AsRawFd as _;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

tests![
    every_path_is_clean,
    a_path_that_is_named_twice_runs_over_two_lanes,
    whatever_is_unclean_is_found_and_named,
    who_takes_the_cpu_and_is_no_lane_is_named needs(ROOT, KERNEL_TRACE),
    another_daemon_that_takes_the_cpu_is_named needs(ROOT, KERNEL_TRACE),
    a_slip_on_the_command_line_is_refused,
];

/// Enough for a rest of the sender, and for the intruder to come by often.
const COUNT: u64 = 5000;

fn run(instance: &Instance, more: &[&str]) -> anyhow::Result<(Said, Value)> {
    let (count, file) = (COUNT.to_string(), instance.file("clean.json"));
    let mut args = vec!["clean", "-l", &count];
    args.extend(if privileged() {
        [].as_slice()
    } else {
        &["-p", "0"]
    });
    args.extend(more);
    let mut command = lat(instance, &args)?;
    command.arg("--json").arg(&file).env_remove("RTD_GUARD");
    let tool = Tool::start(command)?;
    let traces = Traces::of(tool.pid(), instance);
    let said = tool.end()?;
    traces.ensure_gone()?;
    let json = serde_json::from_slice(&std::fs::read(file).with_context(|| format!("{said:?}"))?)?;
    Ok((said, json))
}

/// The reasons of a path, but for what other tests did, whose lanes are on the same CPU at the same
/// time.
fn own_reasons(path: &Value) -> Vec<&str> {
    reasons(path)
        .into_iter()
        .filter(|reason| !reason.contains("not part of the run"))
        .collect()
}

fn reasons(path: &Value) -> Vec<&str> {
    path["reasons"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .collect()
}

/// The exit code agrees with the document, for any cause.
fn code_of(said: &Said, json: &Value) -> anyhow::Result<()> {
    let paths = json["paths"].as_array().into_iter().flatten();
    let is_clean = paths
        .clone()
        .all(|path| path["reasons"].as_array().is_some_and(Vec::is_empty));
    ensure!(paths.count() > 0 && json["clean"] == is_clean, "{json}");
    let code = if is_clean { 0 } else { 5 };
    ensure!(
        said.code() == Some(code) && json["return_code"] == code,
        "{said:?}"
    );
    let line = if is_clean { "\nclean: " } else { "\nunclean: " };
    ensure!(said.out.contains(line), "{}", said.out);
    Ok(())
}

fn every_path_is_clean() -> anyhow::Result<()> {
    let instance = Instance::new()?;
    let (said, json) = run(&instance, &[])?;
    code_of(&said, &json)?;
    let paths = json["paths"].as_array().context("no paths")?;
    let keys: Vec<_> = paths
        .iter()
        .filter_map(|path| path["path"].as_str())
        .collect();
    ensure!(
        keys == ["mq", "signal", "lane-routed", "lane-direct"],
        "{keys:?}"
    );
    for path in paths {
        ensure!(own_reasons(path).is_empty(), "{path}");
        ensure!(
            path["sent"] == COUNT && path["received"] == COUNT && path["lost"] == 0,
            "{path}"
        );
        let threads = path["threads"].as_array().context("no threads")?;
        let roles: Vec<_> = threads
            .iter()
            .filter_map(|thread| thread["role"].as_str())
            .collect();
        let direct = path["path"] == "lane-direct";
        ensure!(
            roles
                == if direct {
                    vec!["sender", "receiver"]
                } else {
                    vec!["lane", "sender", "receiver"]
                }
        );
        for thread in threads {
            ensure!(
                thread["messages"] == COUNT && thread["allocations"] == 0,
                "{thread}"
            );
            ensure!(
                thread["is_confined"] == true && thread["refused_calls"] == 0,
                "{thread}"
            );
        }
        // A message each: what is counted is counted.
        let sender = threads
            .iter()
            .find(|thread| thread["role"] == "sender")
            .context("no sender")?;
        ensure!(
            !privileged() || sender["involuntary_switches"].as_u64() >= Some(COUNT),
            "{sender}"
        );
    }
    Ok(())
}

fn a_path_that_is_named_twice_runs_over_two_lanes() -> anyhow::Result<()> {
    let instance = Instance::new()?;
    let (said, json) = run(&instance, &["--path", "mq,mq"])?;
    code_of(&said, &json)?;
    let lanes: Vec<_> = (0..2)
        .map(|n| &json["paths"][n]["threads"][0]["name"])
        .collect();
    ensure!(lanes == ["tx0.msg", "tx1.msg"], "{json}");
    Ok(())
}

fn whatever_is_unclean_is_found_and_named() -> anyhow::Result<()> {
    let instance = Instance::new()?;
    let wrongs = [
        ("heap", "heap calls"),
        ("call", "getppid(2)"),
        ("loss", "1 of 5000 messages were lost"),
    ];
    let of_memory = ("fault", "minor and 0 major page faults");
    for (unclean, found) in wrongs.into_iter().chain(privileged().then_some(of_memory)) {
        let (said, json) = run(&instance, &["--path", "mq", "--unclean", unclean])?;
        code_of(&said, &json)?;
        let reasons = own_reasons(&json["paths"][0]);
        ensure!(
            reasons.len() == 1 && reasons[0].contains(found),
            "{unclean}: {reasons:?}"
        );
        ensure!(
            said.out
                .contains(&format!("unclean: mq -> mq: {}", reasons[0])),
            "{}",
            said.out
        );
    }
    Ok(())
}

fn who_takes_the_cpu_and_is_no_lane_is_named() -> anyhow::Result<()> {
    let instance = Instance::new()?;
    let (said, json) = run(&instance, &["--path", "signal", "--unclean", "preempt"])?;
    ensure!(said.code() == Some(5), "{said:?}");
    let reasons = reasons(&json["paths"][0]);
    ensure!(
        reasons
            .iter()
            .any(|reason| reason.contains("by rtlat-intruder")),
        "{reasons:?}"
    );
    Ok(())
}

/// A machine runs several cells: the daemon whose lane takes the CPU is named, with its pid.
fn another_daemon_that_takes_the_cpu_is_named() -> anyhow::Result<()> {
    let other = Instance::new()?;
    let (name, socket) = (&other.name, other.socket());
    let head = format!(
        "[daemon]\nname = \"{name}\"\nsocket = \"{socket}\"\n{}",
        lane("lane", 90, "")
    );
    let keys = "overflow = \"displace-oldest\"";
    let config = head
        + &other.mqueue("busy", "")
        + &other.mqueue("sink", "")
        + &route("busy", &["sink"], keys);
    let daemon = Daemon::start(&config)?;
    let queue = Queue::open(&CString::new(other.queue("busy"))?, Access::Send, true)?;
    let (is_over, cpu) = (AtomicBool::new(false), first_cpu().to_string());
    let (said, json) = std::thread::scope(|scope| {
        scope.spawn(|| {
            while !is_over.load(Ordering::Relaxed) {
                // A full queue is as busy.
                let _ = mqueue::send(queue.as_raw_fd(), &[0; 8], 0);
                std::thread::sleep(Duration::from_millis(1));
            }
        });
        let ran = run(&Instance::new()?, &["--path", "mq", "-a", &cpu]);
        is_over.store(true, Ordering::Relaxed);
        ran
    })?;
    let wanted = format!(
        "of rtd \"{name}\" (pid {}), which is not part of the run",
        daemon.pid()
    );
    let reasons = reasons(&json["paths"][0]);
    ensure!(
        said.code() == Some(5) && reasons.iter().any(|reason| reason.contains(&wanted)),
        "{wanted}: {reasons:?}"
    );
    daemon.stop()?;
    Ok(())
}

fn a_slip_on_the_command_line_is_refused() -> anyhow::Result<()> {
    let instance = Instance::new()?;
    for args in [
        ["clean", "-a", "0-1"],
        ["clean", "--path", "mqq"],
        ["clean", "-l", "0"],
    ] {
        let said = Tool::start(lat(&instance, &args)?)?.end()?;
        ensure!(
            said.code() == Some(2) || said.err.contains("may not run on CPU"),
            "{args:?}: {said:?}"
        );
    }
    Ok(())
}
