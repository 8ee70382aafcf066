//! Sessions as their user meets them: who gets one, which ends it has, and what is told of the
//! rest.

use crate::util::book::End::Delivered;
use crate::util::kernel;
use crate::util::needs::ROOT;
use crate::util::order;
use crate::util::session::inbox_of;
use crate::util::session::{count, lane_end, planner_and_arm, runs, unbroken};
use crate::util::tool::run;
use crate::util::{Daemon, Instance, Peer, process, route, signal};
use anyhow::{Context as _, ensure};
use nix::sys::resource::{RLIM_INFINITY, Resource, setrlimit};
use nix::unistd::{getegid, geteuid};
use std::os::unix::process::CommandExt as _;

tests![
    a_name_is_had_by_who_may_have_it,
    a_process_has_one_session_of_a_name,
    an_endpoint_that_is_not_to_be_had_names_the_rule,
    without_its_daemon_there_is_no_session,
    a_thread_above_its_lane_is_refused_or_warned_of needs(ROOT),
    rtctl_shows_sessions_and_balanced_ledgers_of_both_paths,
    a_real_time_thread_with_limited_cpu_time_is_warned_of_once needs(ROOT),
];

/// A planner that sends to an arm through the daemon (`cmd`) and directly (`fast`), and a stranger.
fn config(i: &Instance) -> String {
    i.head()
        + &process("planner")
        + &process("arm")
        + &lane_end("cmd", "planner", "")
        + &lane_end("fast", "planner", "")
        + &lane_end("unread", "planner", "")
        + &lane_end("arm.cmd", "arm", "")
        + &lane_end("arm.fast", "arm", "maxmsg = 16")
        + &i.mqueue("mail", "owner = \"planner\"")
        + &i.mqueue("log", "")
        + &signal("stop", "arm", "SIGRTMIN+4", "")
        + &route("cmd", &["arm.cmd"], "")
        + &route("fast", &["arm.fast"], "path = \"direct\"")
        + &route("mail", &["log"], "")
        + &route("log", &["stop"], "")
}

fn a_name_is_had_by_who_may_have_it() -> anyhow::Result<()> {
    let i = Instance::new()?;
    let (uid, gid) = (geteuid().as_raw(), getegid().as_raw());
    let own = std::env::current_exe()?;
    let keys = [
        ("own", format!("user = {uid}\ngroup = {gid}\nexe = {own:?}")),
        ("user", format!("user = {}", uid + 1)),
        ("group", format!("group = {}", gid + 54_321)),
        ("shell", "exe = \"/bin/sh\"".to_owned()),
    ];
    let mut text = config(&i);
    for (name, key) in keys {
        text += &format!("{}{key}\n", process(name));
    }
    let _daemon = Daemon::start(&text)?;
    let mut peer = Peer::start()?;
    let socket = i.socket();
    let socket = socket.as_str();
    let (pid, other) = (peer.pid(), uid + 1);
    let is_uid = format!("pid {pid} is uid {uid}, [[process]] \"user\" requires uid {other}");
    peer.refused(
        order::Session::Connect {
            socket,
            name: "user",
        },
        &["Denied", &is_uid, "correct user ="],
    )?;
    let no_gid = format!(
        "not in gid {}, which [[process]] \"group\" requires",
        gid + 54_321
    );
    peer.refused(
        order::Session::Connect {
            socket,
            name: "group",
        },
        &["Denied", &no_gid, "correct group ="],
    )?;
    peer.refused(
        order::Session::Connect {
            socket,
            name: "shell",
        },
        &["Denied", "\"shell\" requires exe /", "correct exe ="],
    )?;
    let says = [
        "UnknownName",
        "no process is named nobody: add [[process]] name = \"nobody\"",
        "arm, own",
    ];
    peer.refused(
        order::Session::Connect {
            socket,
            name: "nobody",
        },
        &says,
    )?;
    let too_long = "n".repeat(32);
    peer.refused(
        order::Session::Connect {
            socket,
            name: &too_long,
        },
        &["is not a process name", "1..=31 bytes"],
    )?;
    // None of it was in the way of the one that it may have.
    peer.connect(&i, "own")?;
    // The page has it once its rings are on their way, a moment after the session is open.
    i.until("own is registered", |page| {
        let alive: Vec<_> = page.processes.iter().filter(|p| p.pid != 0).collect();
        alive.len() == 1 && alive[0].name == "own" && alive[0].pid == pid
    })?;
    Ok(())
}

fn a_process_has_one_session_of_a_name() -> anyhow::Result<()> {
    let i = Instance::new()?;
    let _daemon = Daemon::start(&config(&i))?;
    let mut arm = Peer::with_inbox(&i, "arm")?;
    let socket = &i.socket();
    let again = || order::Session::ConnectAgain {
        socket,
        name: "arm",
    };
    let pid = arm.pid();
    arm.refused(
        again(),
        &[
            "Held",
            &format!("held by a session of the same pid {pid}"),
            "close that",
        ],
    )?;
    // Another name is another matter, and the refusal cost the first one nothing.
    arm.tell(order::Session::ConnectAgain {
        socket: &i.socket(),
        name: "planner",
    })?;
    let mut planner = Peer::from_endpoint(&i, "planner", "cmd")?;
    planner.number("cmd", 7)?;
    unbroken(&arm.got_until("number 7")?, 7, 1)?;
    arm.close()?;
    arm.tell(again())?;
    Ok(())
}

fn an_endpoint_that_is_not_to_be_had_names_the_rule() -> anyhow::Result<()> {
    let i = Instance::new()?;
    let _daemon = Daemon::start(&config(&i))?;
    let mut planner = Peer::from_endpoint(&i, "planner", "cmd")?;
    let mut sender =
        |endpoint: &str, says: &[&str]| planner.refused(order::Send::Claim(endpoint), says);
    sender(
        "arm.cmd",
        &[
            "Denied",
            "belongs to process `arm` ([[endpoint]] owner = \"arm\"), this session is `planner`",
        ],
    )?;
    sender("unread", &["Denied", "add [[route]] from = \"unread\""])?;
    sender(
        "mail",
        &[
            "Denied",
            &format!("`mail` is an mqueue: mq_open(\"{}\")", i.queue("mail")),
        ],
    )?;
    sender("stop", &["Denied", "`stop` is a signal", "sigwaitinfo(2)"])?;
    sender(
        "nowhere",
        &[
            "Unknown",
            "no endpoint is named `nowhere`: add [[endpoint]] name = \"nowhere\"",
        ],
    )?;
    sender(
        "cmd",
        &[
            "Taken",
            "`cmd` is held by a sender of thread",
            "drop that first",
        ],
    )?;
    // The receiving side has the same rules.
    let mut inbox = |endpoint: &str, says: &[&str]| planner.refused(inbox_of(&[endpoint]), says);
    inbox("arm.cmd", &["Denied", "belongs to process `arm`"])?;
    inbox(
        "cmd",
        &[
            "Denied",
            "no route writes `cmd`: add [[route]] to = [\"cmd\"]",
        ],
    )?;
    // After all these refusals the session is what it was.
    let mut arm = Peer::with_inbox(&i, "arm")?;
    planner.reach("cmd")?;
    planner.number("cmd", 1)?;
    unbroken(&arm.got_until("number 1")?, 1, 1)?;
    Ok(())
}

fn without_its_daemon_there_is_no_session() -> anyhow::Result<()> {
    let (i, other) = (Instance::new()?, Instance::new()?);
    let mut peer = Peer::start()?;
    let socket = &i.socket();
    let open = || order::Session::Connect {
        socket,
        name: "arm",
    };
    let says = [
        "NoDaemon",
        &i.socket(),
        "rtd is not running there: start it",
    ];
    peer.refused(open(), &says)?;
    // Of another instance, which has no such process, and whose socket is not the one that is
    // meant.
    let text = other.head()
        + &process("leg")
        + &other.mqueue("a", "")
        + &other.mqueue("b", "")
        + &route("a", &["b"], "");
    let _other = Daemon::start(&text)?;
    peer.refused(open(), &says)?;
    peer.refused(
        order::Session::ConnectInstance {
            instance: &i.name,
            name: "arm",
        },
        &["NoDaemon"],
    )?;
    let unknown = ["UnknownName", "no process is named arm", "use one of: leg"];
    peer.refused(
        order::Session::ConnectInstance {
            instance: &other.name,
            name: "arm",
        },
        &unknown,
    )?;
    // One that was killed leaves its socket's file, behind which nobody listens.
    Daemon::start(&config(&i))?.kill()?;
    ensure!(std::path::Path::new(&i.socket()).exists());
    peer.refused(open(), &says)?;
    let _daemon = Daemon::start(&config(&i))?;
    peer.tell(order::Session::ConnectInstance {
        instance: &i.name,
        name: "arm",
    })?;
    Ok(())
}

/// A thread above the lane would keep the lane from running: refused, unless the configuration says
/// otherwise.
fn a_thread_above_its_lane_is_refused_or_warned_of() -> anyhow::Result<()> {
    let i = Instance::new()?;
    let ends = lane_end("legs", "leg", "") + &route("cmd", &["legs"], "") + &process("leg");
    let text = config(&i) + &ends + "above_ceiling = \"warn\"\n";
    let daemon = Daemon::start(&text)?;
    let mut peer = Peer::start()?;
    peer.tell(order::Process::Fifo(51))?;
    let says = [
        "Denied",
        "has real-time priority 51, not below lane \"lane\" with 50",
        "above_ceiling = \"warn\" in [[process]] \"arm\"",
    ];
    peer.refused(
        order::Session::Connect {
            socket: &i.socket(),
            name: "arm",
        },
        &says,
    )?;
    peer.connect(&i, "leg")?;
    daemon.logged("of leg has real-time priority 51, not below lane \"lane\" with 50")?;
    peer.close()?;
    // The lane must be able to preempt it.
    peer.tell(order::Process::Fifo(50))?;
    peer.refused(
        order::Session::Connect {
            socket: &i.socket(),
            name: "arm",
        },
        &["priority 50, not below", "chrt -f -p 49"],
    )?;
    peer.tell(order::Process::Fifo(49))?;
    peer.connect(&i, "arm")?;
    ensure!(kernel::thread(peer.pid(), peer.pid())?.priority == 49);
    Ok(())
}

/// What `rtctl ls` and `rtctl stats` say of lane endpoints and of both paths, while messages flow
/// and after.
fn rtctl_shows_sessions_and_balanced_ledgers_of_both_paths() -> anyhow::Result<()> {
    let i = Instance::new()?;
    let _daemon = Daemon::start(&config(&i))?;
    let mut planner = Peer::from_endpoint(&i, "planner", "cmd")?;
    planner.claim("fast")?;
    let mut arm = Peer::with_inbox(&i, "arm")?;
    planner.reach("fast")?;
    let listing = run(i.rtctl_command(&["ls"]))?.well()?;
    let row = |name: &str| -> anyhow::Result<Vec<&str>> {
        let line = listing
            .lines()
            .find(|line| line.split_whitespace().next() == Some(name));
        Ok(line
            .with_context(|| format!("no row {name}:\n{listing}"))?
            .split_whitespace()
            .collect())
    };
    let (planner_pid, uid) = (planner.pid().to_string(), geteuid().to_string());
    assert_eq!(row("planner")?, ["planner", "alive", &planner_pid, &uid]);
    assert_eq!(
        row("cmd")?,
        [
            "cmd", "-", "lane", "planner", "source", "64", "x", "256", "B"
        ]
    );
    assert_eq!(
        row("arm.fast")?,
        [
            "arm.fast", "-", "lane", "arm", "sink", "16", "x", "256", "B"
        ]
    );
    assert_eq!(
        row("cmd->arm.cmd")?,
        ["cmd->arm.cmd", "ok", "lane", "routed", "cmd", "arm.cmd"]
    );
    assert_eq!(
        row("fast->arm.fast")?,
        ["fast->arm.fast", "ok", "lane", "direct", "fast", "arm.fast"]
    );

    // Under traffic, some of which finds its rings full: whatever is shown adds up.
    let last = format!("number {}", u64::MAX);
    arm.ask_until(&last)?;
    planner.flood("fast", 0)?;
    let mut looks = 0;
    i.until("a thousand sent", |page| {
        looks += 1;
        let whole = page.routes.iter().filter(|route| route.consistent);
        whole
            .clone()
            .for_each(|route| assert!(route.ledger.balances(), "{route:?}"));
        whole.map(|route| route.ledger.accepted).sum::<u64>() > 1000
    })
    .context("under traffic")?;
    ensure!(looks > 0);
    let tried = planner.flooded()?;
    let sent: u64 = tried
        .iter()
        .filter(|t| t.refused.is_none())
        .map(|t| t.count)
        .sum();
    let full: u64 = tried
        .iter()
        .filter(|t| t.refused == Some(order::Refused::Full))
        .map(|t| t.count)
        .sum();
    ensure!(
        tried.iter().map(|t| t.count).sum::<u64>() == sent + full,
        "{tried:?}"
    );
    planner.number("cmd", u64::MAX)?;
    let got = arm.answered_until(&last)?;
    let direct: u64 = runs(&got)
        .iter()
        .filter(|run| run.from == "fast")
        .map(|run| run.count)
        .sum();
    // The one by the other path may have been there before the last of these.
    if let rest @ 1.. = sent - direct {
        ensure!(count(&arm.got(usize::try_from(rest)?)?) == rest);
    }
    i.ledger_is("cmd->arm.cmd", 1, &[(Delivered, 1)])?;
    let page = i.until("all of it is accounted", |page| {
        page.routes[1].ledger.delivered == sent
    })?;
    let ledger = page.routes[1].ledger;
    ensure!(
        (ledger.accepted, ledger.rejected_total()) == (sent + full, full),
        "{ledger:?}"
    );
    let text = run(i.rtctl_command(&["stats", "--json"]))?.well()?;
    let document: serde_json::Value = serde_json::from_str(&text)?;
    let route = document["routes"]
        .as_array()
        .and_then(|all| all.iter().find(|r| r["name"] == "fast->arm.fast"));
    let route = route.with_context(|| format!("no route: {text}"))?;
    ensure!(
        route["path"] == "direct" && route["accepted"] == sent + full,
        "{route}"
    );
    Ok(())
}

/// The kernel ends a process whose real-time thread runs for RLIMIT_RTTIME without sleeping, and
/// says nothing.
fn a_real_time_thread_with_limited_cpu_time_is_warned_of_once() -> anyhow::Result<()> {
    let i = Instance::new()?;
    let _daemon = Daemon::start(&planner_and_arm(&i, "", "", ""))?;
    for (limit_us, warnings) in [(10_000_000, 1), (RLIM_INFINITY, 0)] {
        let (said, limit) = (i.file("stderr"), move || {
            Ok(setrlimit(Resource::RLIMIT_RTTIME, limit_us, limit_us)?)
        });
        let stderr = std::fs::File::create(&said)?;
        let mut planner = Peer::start_with(|command| {
            // SAFETY: between fork and exec the closure makes one system call.
            unsafe { command.stderr(stderr).pre_exec(limit) };
        })?;
        planner.connect(&i, "planner")?;
        planner.claim("cmd")?;
        planner.promote("lane")?;
        planner.promote("lane")?;
        let said = std::fs::read_to_string(said)?;
        let warned = said
            .matches("rtd client: warning: RLIMIT_RTTIME is 10000000 us")
            .count();
        ensure!(warned == warnings, "limit {limit_us}: {said:?}");
        ensure!(
            warned == 0 || said.contains("LimitRTTIME=infinity"),
            "{said:?}"
        );
    }
    Ok(())
}
