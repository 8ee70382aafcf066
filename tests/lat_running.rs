//! `rtlat route --from --to`: the routes of a daemon that runs already, taken over for a
//! measurement and given back.

use crate::places::Apart;
use crate::util::lat::{Counts, lat, lossless, start};
use crate::util::needs::{MOUNT, ROOT};
use crate::util::session::lane_end;
use crate::util::tool::{RTLAT, Said, run};
use crate::util::{Daemon, Instance, Peer, first_cpu, process, route, signal};
use anyhow::{Context as _, ensure};
use nix::sys::signal::Signal;
use rtcore::lane::peer::PeerState;
use std::sync::OnceLock;

tests![
    every_kind_to_every_kind,
    endpoints_of_eight_bytes_are_measured,
    without_a_name_the_only_instance_is_measured needs(ROOT, MOUNT),
    what_cannot_be_measured_is_refused_with_what_there_is,
    an_end_that_somebody_has_is_left_to_them,
    without_a_daemon_it_says_how_to_start_one,
    killed_it_gives_back_what_it_took,
];

/// Short: a route's name has 31 bytes.
const KINDS: [&str; 3] = ["mq", "sig", "lane"];
const LOOPS: u64 = 30;

/// An end of a route, of its own process.
fn end(instance: &Instance, name: &str, kind: &str, number: usize, msgsize: usize) -> String {
    let owner = format!("{name}.owner");
    let of_kind = match kind {
        "mq" => instance.mqueue(name, &format!("owner = \"{owner}\"\nmsgsize = {msgsize}")),
        "sig" => signal(name, &owner, &format!("SIGRTMIN+{}", 1 + number), ""),
        _ => lane_end(name, &owner, &format!("maxmsg = 16\nmsgsize = {msgsize}")),
    };
    process(&owner) + &of_kind
}

/// A route from each kind to each, `A-B.in` to `A-B.out`, and an end that none leads to.
fn config(instance: &Instance) -> String {
    let mut config = instance.head();
    for (number, (from, to)) in pairs().enumerate() {
        let [source, sink] = ["in", "out"].map(|end| format!("{from}-{to}.{end}"));
        let msgsize = if to == "sig" { 8 } else { 64 };
        config += &end(instance, &source, from, 2 * number, msgsize);
        config += &end(instance, &sink, to, 2 * number + 1, 64);
        let claimed = if from == "sig" {
            "accept_claimed = true"
        } else {
            ""
        };
        config += &route(&source, &[&sink], claimed);
    }
    config + &end(instance, "alone", "mq", 0, 64)
}

fn pairs() -> impl Iterator<Item = (&'static str, &'static str)> {
    KINDS
        .into_iter()
        .flat_map(|from| KINDS.into_iter().map(move |to| (from, to)))
}

fn args<'a>(instance: &'a Instance, from: &'a str, to: &'a str, more: &[&'a str]) -> Vec<&'a str> {
    let way = [
        "route",
        "--instance",
        &instance.name,
        "--from",
        from,
        "--to",
        to,
    ];
    [&way[..], &lossless("40", cpu()), more].concat()
}

fn tries(instance: &Instance, from: &str, to: &str, more: &[&str]) -> anyhow::Result<Said> {
    run(lat(instance, &args(instance, from, to, more))?)
}

/// The lane's, on which nothing is lost.
fn cpu() -> &'static str {
    static CPU: OnceLock<String> = OnceLock::new();
    CPU.get_or_init(|| first_cpu().to_string())
}

fn delivered(instance: &Instance, route: &str) -> anyhow::Result<u64> {
    let snapshot = instance.snapshot()?;
    let route = snapshot
        .routes
        .iter()
        .find(|r| r.name == route)
        .with_context(|| format!("no {route}"))?;
    ensure!(route.ledger.balances(), "{route:?}");
    Ok(route.ledger.delivered)
}

fn every_kind_to_every_kind() -> anyhow::Result<()> {
    let instance = Instance::new()?;
    let daemon = Daemon::start(&config(&instance))?;
    for (from, to) in pairs() {
        let [source, sink] = ["in", "out"].map(|end| format!("{from}-{to}.{end}"));
        for more in [&[][..], &["-f"]] {
            let context = || format!("{source} -> {sink} {more:?}");
            let before = delivered(&instance, &format!("{source}->{sink}"))?;
            let said = tries(
                &instance,
                &source,
                &sink,
                &[&["-q", "-l", "30"], more].concat(),
            )?;
            let out = said.well().with_context(context)?;
            let counts = Counts::read(&out)?;
            ensure!(
                counts.len() == 1 && counts[0].balances() && counts[0].is_whole(),
                "{}: {out}",
                context()
            );
            ensure!(
                counts[0].scheduled == LOOPS && out.contains(&format!("route {source} -> {sink}")),
                "{out}"
            );
            // Those that are not recorded went the same way.
            let route = format!("{source}->{sink}");
            let enough = before + counts[0].received;
            instance.until("it went through the daemon", |s| {
                s.routes
                    .iter()
                    .any(|r| r.name == route && r.ledger.delivered > enough)
            })?;
        }
    }
    // Its owners are gone: all names are free.
    let free = |s: &rtcore::stats::reader::Snapshot| {
        s.processes.iter().all(|p| p.state != PeerState::Alive)
    };
    instance.until("all names are free", free)?;
    daemon.stop()?;
    Ok(())
}

/// Controllers exchange setpoints of eight bytes, which have no room for a time.
fn endpoints_of_eight_bytes_are_measured() -> anyhow::Result<()> {
    let instance = Instance::new()?;
    let mut config = instance.head();
    let ways = [
        ("mq", "mq", ""),
        ("lane", "lane", ""),
        ("mq", "lane", ""),
        ("lane", "lane", "path = \"direct\""),
    ];
    for (number, (from, to, more)) in ways.into_iter().enumerate() {
        let [source, sink] = ["in", "out"].map(|end| format!("{number}.{end}"));
        // The sink alone would have room.
        config +=
            &(end(&instance, &source, from, 0, 8) + &end(&instance, &sink, to, 0, 8 + 8 * number));
        config += &route(&source, &[&sink], more);
    }
    config += &(end(&instance, "tiny.in", "mq", 0, 4) + &end(&instance, "tiny.out", "mq", 0, 4));
    config += &route("tiny.in", &["tiny.out"], "");
    let daemon = Daemon::start(&config)?;
    for number in 0..ways.len() {
        let [source, sink] = ["in", "out"].map(|end| format!("{number}.{end}"));
        for more in [&[][..], &["-f"]] {
            let out = tries(
                &instance,
                &source,
                &sink,
                &[&["-q", "-l", "30"], more].concat(),
            )?
            .well()?;
            let counts = Counts::read(&out)?;
            ensure!(
                counts[0].scheduled == LOOPS && counts[0].received > 0 && counts[0].is_whole(),
                "{out}"
            );
            ensure!(counts[0].balances() && out.contains(", 8 B"), "{out}");
        }
    }
    tries(&instance, "0.in", "0.out", &["--size", "64"])?.refused(&[
        "64 bytes",
        "takes 8",
        "leave --size out",
    ])?;
    tries(&instance, "tiny.in", "tiny.out", &[])?
        .refused(&["tiny.in takes 4 bytes", "raise msgsize"])?;
    daemon.stop()?;
    Ok(())
}

/// In a mount namespace, where no other test's page is.
fn without_a_name_the_only_instance_is_measured() -> anyhow::Result<()> {
    let instance = Instance::new()?;
    let apart = Apart::start("true", &config(&instance))?;
    let line = [
        "route",
        "--from",
        "mq-mq.in",
        "--to",
        "mq-mq.out",
        "-q",
        "-l",
        "30",
        "--allow-loss",
    ];
    let mut command = apart.beside(*RTLAT, &line);
    command.env_remove("RTD_INSTANCE");
    let out = run(command)?.well()?;
    let counts = Counts::read(&out)?;
    ensure!(
        counts[0].received > 0 && out.contains("route mq-mq.in -> mq-mq.out"),
        "{out}"
    );
    apart.0.stop()?;
    Ok(())
}

fn what_cannot_be_measured_is_refused_with_what_there_is() -> anyhow::Result<()> {
    let instance = Instance::new()?;
    let daemon = Daemon::start(&config(&instance))?;
    let lists = [
        "has no endpoint nowhere",
        "mq-mq.in",
        "lane-sig.out",
        "alone",
    ];
    tries(&instance, "nowhere", "mq-mq.out", &["-l", "9"])?.refused(&lists)?;
    tries(&instance, "mq-mq.in", "nowhere", &["-l", "9"])?.refused(&lists)?;
    let routes = [
        "leads from mq-mq.in to alone",
        "mq-mq.in->mq-mq.out",
        "lane-lane.in->lane-lane.out",
    ];
    tries(&instance, "mq-mq.in", "alone", &["-l", "9"])?.refused(&routes)?;
    for more in [&["--round-trip"][..], &["--sync"], &["-S"], &["-t", "2"]] {
        let said = tries(&instance, "mq-mq.in", "mq-mq.out", more)?;
        ensure!(
            said.code() == Some(2) && said.err.contains("one pair is measured, one way"),
            "{said:?}"
        );
    }
    let large = tries(
        &instance,
        "lane-lane.in",
        "lane-lane.out",
        &["-l", "9", "--size", "65"],
    )?;
    large.refused(&["65 bytes", "takes 64", "--size 64"])?;
    let none = run(lat(&instance, &["route", "--from", "mq-mq.in"])?)?;
    ensure!(
        none.code() == Some(2) && none.err.contains("--to"),
        "{none:?}"
    );
    // None of that cost the daemon anything.
    tries(&instance, "mq-mq.in", "mq-mq.out", &["-q", "-l", "9"])?.well()?;
    daemon.stop()?;
    Ok(())
}

fn an_end_that_somebody_has_is_left_to_them() -> anyhow::Result<()> {
    let instance = Instance::new()?;
    let daemon = Daemon::start(&config(&instance))?;
    let mut owner = Peer::start()?;
    owner.connect(&instance, "lane-lane.out.owner")?;
    tries(&instance, "lane-lane.in", "lane-lane.out", &["-l", "9"])?
        .refused(&["lane-lane.out.owner"])?;
    owner.kill()?;
    let mut owner = Peer::start()?;
    owner.connect(&instance, "mq-mq.out.owner")?;
    let said = tries(&instance, "mq-mq.in", "mq-mq.out", &["-l", "9"])?;
    said.refused(&["mq-mq.out is read by a registered process"])?;
    owner.kill()?;
    daemon.stop()?;
    Ok(())
}

fn without_a_daemon_it_says_how_to_start_one() -> anyhow::Result<()> {
    let instance = Instance::new()?;
    tries(&instance, "a", "b", &["-l", "9"])?.refused(&[&instance.name, "rtd run"])?;
    Ok(())
}

fn killed_it_gives_back_what_it_took() -> anyhow::Result<()> {
    let instance = Instance::new()?;
    let daemon = Daemon::start(&config(&instance))?;
    for (from, to) in pairs() {
        let [source, sink] = ["in", "out"].map(|end| format!("{from}-{to}.{end}"));
        let (tool, traces) = start(&instance, &args(&instance, &source, &sink, &["-v", "-f"]))?;
        tool.signal(Signal::SIGKILL)?;
        ensure!(tool.end()?.signal() == Some(9));
        traces.ensure_gone().with_context(|| source.clone())?;
        let free = |s: &rtcore::stats::reader::Snapshot| {
            s.processes.iter().all(|p| p.state != PeerState::Alive)
        };
        instance.until("all names are free", free)?;
        // What was under way may be counted there, and no more than that.
        let again = tries(&instance, &source, &sink, &["-q", "-l", "30"])?;
        let out = again.well().with_context(|| format!("{source} again"))?;
        ensure!(
            Counts::read(&out)?
                .iter()
                .all(|c| c.balances() && c.is_whole()),
            "{source}: {out}"
        );
    }
    daemon.stop()?;
    Ok(())
}
