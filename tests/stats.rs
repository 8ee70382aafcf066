//! `rtctl ls` and `rtctl stats`: correct figures, also of a daemon that hangs or is gone.

use crate::util::needs::{ORDINARY_USER, SECOND_USER};
use crate::util::order;
use crate::util::tool::{NOBODY, as_nobody, run};
use crate::util::{
    Daemon, Instance, Peer, eventually, first_cpu, lane, privileged, process, route, signal,
};
use anyhow::{Context as _, ensure};
use nix::sys::signal::Signal;
use rtcore::sys::accounts::own_uid;
use rtcore::sys::limits;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::process::Command;
use std::time::Instant;

tests![
    json_has_every_key_and_the_right_figures,
    ls_and_stats_show_all_of_it_to_a_human,
    a_hung_daemon_is_shown_as_hung_with_its_figures,
    a_killed_daemon_leaves_its_figures,
    after_a_clean_stop_the_error_says_how_to_start,
    every_snapshot_of_a_flood_balances,
    another_user_reads_the_page_and_cannot_write_it needs(SECOND_USER),
    a_degraded_daemon_says_so_everywhere needs(ORDINARY_USER),
    the_instance_comes_from_the_option_or_the_environment,
];

const LANE_KEYS: &str = "name priority cpu wait degraded losing last_loss_age_s duty_max_ns mode_switches refused_calls last_refused_call guard";
const ROUTE_KEYS: &str =
    "name lane from to path latency_by targets consistent losing last_loss_age_s lost_in_last_life";
const COUNT_KEYS: &str = "accepted delivered expired displaced rejected peer_dead queued deadline_misses \
                          latency_ns rejected_by";
const LATENCY_KEYS: &str = "count min p50 p90 p99 p999 max";

/// One source and four routes whose receivers never read, so that each ends its messages
/// differently.
fn config(i: &Instance) -> String {
    let name = |n: &str| format!("name = \"{n}\"\n");
    i.head()
        + &lane("spare", 20, "wait = \"spin:50\"\ncapacity = 7")
        + &process("ghost")
        + &i.mqueue("in", "")
        + &i.mqueue("a", "")
        + &i.mqueue("b", "")
        + &i.mqueue("c", "")
        + &i.mqueue("other", "")
        + &i.mqueue("d", "")
        + &signal("s", "ghost", "SIGRTMIN+5", "")
        + &route("in", &["a"], &(name("rejects") + "capacity = 5"))
        + &route(
            "in",
            &["b"],
            &(name("expires") + "capacity = 20\nttl = \"1ms\""),
        )
        + &route(
            "in",
            &["c"],
            &(name("displaces")
                + "capacity = 5\noverflow = \"displace-oldest\"\ndeadline = \"1us\""),
        )
        + &route("in", &["s"], &name("nobody"))
        + &route("other", &["d"], &(name("idle") + "lane = \"spare\""))
}

/// What 25 messages into `in` come to: accepted, delivered, expired, displaced, rejected,
/// peer_dead, queued.
const EXPECTED: [(&str, [u64; 7]); 5] = [
    ("rejects", [25, 10, 0, 0, 10, 0, 5]),
    ("expires", [25, 10, 15, 0, 0, 0, 0]),
    ("displaces", [25, 10, 0, 10, 0, 0, 5]),
    ("nobody", [25, 0, 0, 0, 0, 25, 0]),
    ("idle", [0; 7]),
];
const OUTCOMES: [&str; 7] = [
    "accepted",
    "delivered",
    "expired",
    "displaced",
    "rejected",
    "peer_dead",
    "queued",
];

/// The daemon after that traffic.
fn after_traffic(i: &Instance) -> anyhow::Result<Daemon> {
    let daemon = Daemon::start(&config(i))?;
    let mut sender = Peer::start()?;
    sender.open_to_send(&i.queue("in"))?;
    sender.stream(0, 25)?;
    let settled = |s: &rtcore::stats::reader::Snapshot| s.routes[1].ledger.expired == 15;
    i.until("settled", |s| {
        settled(s) && s.routes.iter().take(4).all(|r| r.ledger.accepted == 25)
    })?;
    Ok(daemon)
}

fn document(i: &Instance) -> anyhow::Result<Value> {
    Ok(serde_json::from_str(
        &run(i.rtctl_command(&["stats", "--json"]))?.well()?,
    )?)
}

fn keys(of: &Value) -> BTreeSet<&str> {
    of.as_object()
        .into_iter()
        .flatten()
        .map(|(key, _)| key.as_str())
        .collect()
}

fn words(text: &'static str) -> BTreeSet<&'static str> {
    text.split_whitespace().collect()
}

/// Every figure of the document, against [`EXPECTED`].
fn ensure_figures(document: &Value) -> anyhow::Result<()> {
    for (name, expected) in EXPECTED {
        let routes = document["routes"].as_array().context("no routes")?;
        let route = routes
            .iter()
            .find(|r| r["name"] == name)
            .context("no such route")?;
        ensure!(
            OUTCOMES.map(|key| route[key].as_u64()) == expected.map(Some),
            "{route:#}"
        );
        let targets = route["targets"].as_array().context("no targets")?;
        let [target] = targets.as_slice() else {
            anyhow::bail!("one target each: {route:#}")
        };
        let age = target["last_delivery_age_s"].as_f64();
        ensure!(
            target["delivered"] == expected[1] && age.is_some() == (expected[1] > 0),
            "{route:#}"
        );
        ensure!(
            target["endpoint"] == route["to"] && route["path"] == "routed",
            "{route:#}"
        );
        ensure!(
            route["latency_ns"]["count"] == expected[1] && route["consistent"] == true,
            "{route:#}"
        );
        // The third to be served, so later than its 1 us; a machine that is faster may say so.
        let misses = if name == "displaces" { 10 } else { 0 };
        let fast = misses > 0 && route["latency_ns"]["min"].as_u64() <= Some(1_000);
        ensure!(fast || route["deadline_misses"] == misses, "{route:#}");
        ensure!(route["rejected_by"]["full"] == expected[4], "{route:#}");
    }
    let lane = &document["lanes"][0];
    for (n, key) in OUTCOMES.iter().enumerate() {
        let sum: u64 = EXPECTED.iter().map(|(_, expected)| expected[n]).sum();
        ensure!(
            lane[*key] == sum,
            "{key} of the lane is not {sum}: {lane:#}"
        );
    }
    let l = &lane["latency_ns"];
    let quantiles = ["min", "p50", "p90", "p99", "p999", "max"].map(|q| l[q].as_u64().unwrap_or(0));
    ensure!(
        l["count"] == 30 && quantiles[0] > 0 && quantiles.is_sorted(),
        "{l}"
    );
    ensure!(
        lane["duty_max_ns"].as_u64() > l["max"].as_u64().map(|max| max / 2),
        "{lane:#}"
    );
    Ok(())
}

fn json_has_every_key_and_the_right_figures() -> anyhow::Result<()> {
    let i = Instance::new()?;
    let daemon = after_traffic(&i)?;
    let all = document(&i)?;
    ensure!(
        all["instance"] == i.name.as_str()
            && all["pid"] == daemon.pid()
            && all["state"] == "running"
    );
    ensure!(
        all["skin"] == "posix" && all["lanes"][0]["mode_switches"] == 0,
        "{}",
        all["skin"]
    );
    for (section, own) in [("lanes", LANE_KEYS), ("routes", ROUTE_KEYS)] {
        for entry in all[section].as_array().context("no such section")? {
            let expected = words(own).union(&words(COUNT_KEYS)).copied().collect();
            ensure!(keys(entry) == expected, "{section}: {:?}", keys(entry));
            ensure!(
                keys(&entry["latency_ns"]) == words(LATENCY_KEYS),
                "{:?}",
                keys(&entry["latency_ns"])
            );
        }
    }
    ensure_figures(&all)?;
    let (first, spare) = (&all["lanes"][0], &all["lanes"][1]);
    ensure!(first["name"] == "lane" && first["priority"] == 50 && first["cpu"] == first_cpu());
    ensure!(first["wait"] == "block" && spare["wait"] == "spin:50" && spare["priority"] == 20);
    let degraded = if privileged() {
        json!([])
    } else {
        json!(["fifo", "memory"])
    };
    ensure!(first["degraded"] == degraded, "{}", first["degraded"]);
    daemon.stop()?;
    Ok(())
}

fn ls_and_stats_show_all_of_it_to_a_human() -> anyhow::Result<()> {
    let i = Instance::new()?;
    let daemon = after_traffic(&i)?;
    let ls = run(i.rtctl_command(&["ls"]))?.well()?;
    let head = format!("{}: pid {}, running, up ", i.name, daemon.pid());
    let signal = format!("SIGRTMIN+5 ({})", crate::util::rt(5));
    for text in [
        &head,
        &i.socket(),
        "spin:50",
        "ghost",
        "unregistered",
        &signal,
        "displaces",
        "10 x 64 B",
    ] {
        ensure!(ls.contains(text), "{text:?} is not in\n{ls}");
    }
    let stats = run(i.rtctl_command(&["stats", "--reasons"]))?.well()?;
    let row = stats
        .lines()
        .find(|l| l.starts_with("rejects "))
        .context("no row")?;
    // Name and STATE, which is `ok` until the control thread has seen the losses and `losing: full`
    // then; ACCEPTED DELIVERED EXPIRED DISPLACED REJECTED, the reasons, PEER-DEAD QUEUED MISSES.
    let figures: Vec<&str> = row
        .split_whitespace()
        .skip_while(|cell| cell.parse::<u64>().is_err())
        .collect();
    ensure!(
        figures[..15]
            == "25 10 0 0 10 10 0 0 0 0 0 0 0 5 0"
                .split(' ')
                .collect::<Vec<_>>(),
        "{row}"
    );
    let one = run(i.rtctl_command(&["stats", "--route", "idle"]))?.well()?;
    ensure!(
        one.contains("\nidle ") && !one.contains("rejects") && !one.contains("\nlane "),
        "{one}"
    );
    run(i.rtctl_command(&["stats", "--lane", "x"]))?.refused(&["no lane \"x\"", "lane, spare"])?;
    Ok(())
}

fn a_hung_daemon_is_shown_as_hung_with_its_figures() -> anyhow::Result<()> {
    let i = Instance::new()?;
    let daemon = after_traffic(&i)?;
    daemon.freeze()?;
    let hung = eventually(|| document(&i).ok().filter(|d| d["state"] == "hung"))?;
    ensure_figures(&hung)?;
    let text = run(i.rtctl_command(&["stats"]))?.well()?;
    ensure!(text.contains("HUNG (no heartbeat for "), "{text}");
    daemon.signal(Signal::SIGCONT)?;
    eventually(|| document(&i).ok().filter(|d| d["state"] == "running"))?;
    daemon.stop()?;
    Ok(())
}

fn a_killed_daemon_leaves_its_figures() -> anyhow::Result<()> {
    let i = Instance::new()?;
    after_traffic(&i)?.kill()?;
    let stopped = document(&i)?;
    ensure!(stopped["state"] == "stopped", "{stopped:#}");
    ensure_figures(&stopped)?;
    for command in ["stats", "ls"] {
        let text = run(i.rtctl_command(&[command]))?.well()?;
        ensure!(
            text.contains("STOPPED ") && text.contains("displaces"),
            "{text}"
        );
    }
    // The next one takes the page over and begins at zero.
    let next = Daemon::start(&config(&i))?;
    let fresh = document(&i)?;
    ensure!(
        fresh["pid"] == next.pid() && fresh["lanes"][0]["accepted"] == 0,
        "{fresh:#}"
    );
    next.stop()?;
    Ok(())
}

fn after_a_clean_stop_the_error_says_how_to_start() -> anyhow::Result<()> {
    let i = Instance::new()?;
    after_traffic(&i)?.stop()?;
    let page = format!("{}.page", i.name);
    for command in ["stats", "ls"] {
        let says = [&i.name, "does not run", &page, "rtd run", "on this machine"];
        run(i.rtctl_command(&[command]))?.refused(&says)?;
    }
    Ok(())
}

/// A reader that copies while a lane writes at full speed never sees a message in two places or in
/// none.
fn every_snapshot_of_a_flood_balances() -> anyhow::Result<()> {
    const SNAPSHOTS: usize = 3_000;
    let i = Instance::new()?;
    let both = route("in", &["out"], "overflow = \"displace-oldest\"") + &route("in", &["s"], "");
    let queues = i.mqueue("in", "") + &i.mqueue("out", "");
    let ghost = process("ghost") + &signal("s", "ghost", "SIGRTMIN+5", "");
    let daemon = Daemon::start(&(i.head() + &queues + &ghost + &both))?;
    let mut sender = Peer::start()?;
    sender.open_to_send(&i.queue("in"))?;
    // More than there is time for: the flood outlasts the snapshots, and ends with its process.
    sender.ask(order::Queue::Stream {
        from: 0,
        count: 1_000_000_000,
    })?;
    i.until("it flows", |s| s.routes[0].ledger.accepted > 100)?;
    let reader = rtcore::stats::reader::Reader::open(&i.name)?;
    let mut last = 0;
    let mut moved = 0;
    let mut torn = 0;
    let start = Instant::now();
    for n in 0..SNAPSHOTS {
        let snapshot = reader.snapshot()?;
        let whole = snapshot.routes.iter().filter(|r| r.consistent);
        for route in whole {
            ensure!(
                route.ledger.balances(),
                "snapshot {n}: {}: {:?}",
                route.name,
                route.ledger
            );
        }
        let whole = snapshot.lanes.iter().filter(|l| l.consistent);
        for lane in whole {
            ensure!(
                lane.ledger.balances(),
                "snapshot {n}: {}: {:?}",
                lane.name,
                lane.ledger
            );
        }
        torn += usize::from(snapshot.routes.iter().any(|r| !r.consistent));
        let accepted = snapshot.lanes[0].ledger.accepted;
        ensure!(
            accepted >= last,
            "snapshot {n}: it went back from {last} to {accepted}"
        );
        moved += usize::from(accepted > last);
        last = accepted;
    }
    ensure!(
        moved > 100,
        "the page moved {moved} times in {:?}: no flood",
        start.elapsed()
    );
    // A CPU that was taken from the lane for longer than a reader waits: then the snapshot says so
    // itself.
    ensure!(
        torn < SNAPSHOTS / 100,
        "{torn} snapshots were caught in an update"
    );
    drop(sender);
    daemon.stop()?;
    Ok(())
}

fn another_user_reads_the_page_and_cannot_write_it() -> anyhow::Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    let i = Instance::new()?;
    let daemon = after_traffic(&i)?;
    let page = i.page()?;
    let mode = std::fs::metadata(&page)?.permissions().mode() & 0o777;
    ensure!(mode == 0o644, "{mode:o}");
    let mut stats = i.rtctl_command(&["stats", "--json"]);
    as_nobody(&mut stats);
    ensure_figures(&serde_json::from_str(&run(stats)?.well()?)?)?;
    let before = std::fs::read(&page)?.len();
    for attempt in ["echo x >> \"$0\"", "rm -f \"$0\"", "chmod 666 \"$0\""] {
        let mut shell = Command::new("sh");
        as_nobody(shell.arg("-c").arg(attempt).arg(&page));
        let said = run(shell)?;
        ensure!(!said.status.success(), "uid {NOBODY} may {attempt}");
    }
    ensure!(std::fs::read(&page)?.len() == before);
    daemon.stop()?;
    Ok(())
}

/// A degraded daemon says so in each output.
fn a_degraded_daemon_says_so_everywhere() -> anyhow::Result<()> {
    let switch = own_uid() == 0;
    let i = Instance::new()?;
    // Where the other user may listen.
    let directory = i.file("nobody");
    std::fs::create_dir(&directory)?;
    let socket = directory.join("rtd.sock").display().to_string();
    let daemon = Daemon::start_with(&config(&i).replace(&i.socket(), &socket), |command| {
        if switch {
            let _ = std::os::unix::fs::chown(&directory, Some(NOBODY), Some(NOBODY));
            as_nobody(command.arg("--allow-degraded"));
        }
    })?;
    // Some machines let everybody lock memory.
    let memory = limits::get(limits::Kind::MemLock)?.soft.is_some();
    let lacks = if memory {
        vec!["fifo", "memory"]
    } else {
        vec!["fifo"]
    };
    ensure!(
        document(&i)?["lanes"][0]["degraded"] == json!(lacks),
        "{:#}",
        document(&i)?
    );
    for command in ["ls", "stats"] {
        let text = run(i.rtctl_command(&[command]))?.well()?;
        ensure!(
            text.contains(", DEGRADED\n") && text.contains(&format!(" {}\n", lacks.join(","))),
            "{text}"
        );
    }
    let log = daemon.stop()?;
    ensure!(
        log.contains("warning: DEGRADED: ") && log.contains("SCHED_FIFO 50 for lane lane"),
        "{log}"
    );
    Ok(())
}

/// Which instance: by option, by environment, and what happens with none.
fn the_instance_comes_from_the_option_or_the_environment() -> anyhow::Result<()> {
    let i = Instance::new()?;
    let _daemon = after_traffic(&i)?;
    let mut by_environment = Command::new(crate::util::tool::RTCTL);
    by_environment.arg("ls").env("RTD_INSTANCE", &i.name);
    ensure!(
        run(by_environment)?
            .well()?
            .starts_with(&format!("{}: pid ", i.name))
    );
    let mut absent = Command::new(crate::util::tool::RTCTL);
    absent.args(["ls", "--instance", "no-such-instance"]);
    // Those that run now are named: this test's own among them, unless others hide it for a moment.
    let says = [
        "\"no-such-instance\" does not run",
        i.name.as_str(),
        "--instance NAME",
    ];
    run(absent)?.refused(&says)?;
    let mut bad = Command::new(crate::util::tool::RTCTL);
    bad.args(["ls", "--instance", "../etc"]);
    run(bad)?.refused(&["instance name \"../etc\""])?;
    Ok(())
}
