//! A loss reaches somebody: log, STATE and JSON show each one, with its receiver, its limit and
//! what to change.

use crate::util::book::End::{Delivered, Displaced, Expired, PeerDead, Queued, Rejected};
use crate::util::tool::run;
use crate::util::{Daemon, Instance, Peer, held, lane, process, route, rt, signal};
use anyhow::{Context as _, ensure};
use rtcore::message::Reject;
use rtcore::stats::reader::Snapshot;
use rtcore::sys::clock::monotonic_ns;
use rtcore::sys::rtsignal;
use serde_json::{Value, json};
use std::time::{Duration, Instant};

tests![
    every_kind_of_loss_is_logged_with_what_to_change,
    state_shows_what_is_lost_until_ten_seconds_later,
    a_receiver_at_its_limit_does_not_flood_the_log,
];

/// A lane without trouble, and one with routes on which every message is lost, each in its own way.
fn config(i: &Instance) -> String {
    let named = |name: &str, more: &str| format!("name = \"{name}\"\n{more}");
    i.head()
        + &lane("calm", 20, "")
        + &process("drive")
        + &process("panel")
        + &i.mqueue("in", "")
        + &i.mqueue("stuck", "maxmsg = 3")
        + &i.mqueue("late", "maxmsg = 2")
        + &i.mqueue("small", "")
        + &i.mqueue("fine", "")
        + &i.mqueue("other", "")
        + &i.mqueue("latest", "maxmsg = 1")
        + &signal("drive.stop", "drive", "SIGRTMIN+3", "")
        + &signal("press", "panel", "SIGRTMIN+4", "")
        + &route("in", &["stuck"], &named("full", "capacity = 2"))
        + &route(
            "in",
            &["late"],
            &named("expired", "capacity = 20\nttl = \"5ms\""),
        )
        + &route("in", &["small"], &named("long", "payload = 4"))
        + &route("in", &["fine"], &named("rate", "rate_hz = 1\nburst = 4"))
        + &route("in", &["drive.stop"], &named("dead", ""))
        + &route(
            "in",
            &["latest"],
            &named("conflates", "overflow = \"conflate\""),
        )
        + &route(
            "press",
            &["fine"],
            &named("origin", "accept_claimed = true"),
        )
        + &route("other", &["fine"], &named("idle", "lane = \"calm\""))
}

/// What each line about a first loss must have: route, receiver at fault, limit with its value,
/// what to change.
const LINES: [(&str, &[&str]); 6] = [
    (
        "full",
        &[
            "lost (full): stuck is full",
            "maxmsg = 3",
            "capacity = 2 in [[route]] \"full\"",
            "\"reject\"",
        ],
    ),
    (
        "expired",
        &[
            "lost (expired): late",
            "ttl = \"5ms\"",
            "[[route]] \"expired\"",
        ],
    ),
    (
        "long",
        &[
            "lost (too-large)",
            "payload = 4 bytes in [[route]] \"long\"",
        ],
    ),
    (
        "rate",
        &[
            "lost (rate)",
            "rate_hz = 1 with burst = 4",
            "[[route]] \"rate\"",
        ],
    ),
    (
        "dead",
        &[
            "lost (peer-dead)",
            "drive.stop",
            "process drive",
            "rtctl run --as drive",
        ],
    ),
    (
        "origin",
        &[
            "lost (origin)",
            "only process panel",
            "press",
            "[[endpoint]] \"press\"",
        ],
    ),
];

fn stats(i: &Instance) -> anyhow::Result<Value> {
    Ok(serde_json::from_str(
        &run(i.rtctl_command(&["stats", "--json"]))?.well()?,
    )?)
}

fn named<'a>(of: &'a Value, name: &str) -> anyhow::Result<&'a Value> {
    of.as_array()
        .into_iter()
        .flatten()
        .find(|entry| entry["name"] == name)
        .context("no such entry")
}

/// Ten messages of eight bytes into `in`, and one forbidden press.
fn lose_everything(i: &Instance, daemon: &Daemon) -> anyhow::Result<()> {
    Peer::sender(&i.queue("in"))?.stream(0, 10)?;
    let pid = i32::try_from(daemon.pid())?;
    rtsignal::queue_to_pid(pid, rt(4), 1).map_err(|e| anyhow::anyhow!("cannot press: {e}"))?;
    i.ledger_is(
        "full",
        10,
        &[(Delivered, 3), (Queued, 2), (Rejected(Reject::Full), 5)],
    )?;
    i.ledger_is("expired", 10, &[(Delivered, 2), (Expired, 8)])?;
    i.ledger_is("long", 10, &[(Rejected(Reject::TooLarge), 10)])?;
    i.ledger_is("rate", 10, &[(Delivered, 4), (Rejected(Reject::Rate), 6)])?;
    i.ledger_is("dead", 10, &[(PeerDead, 10)])?;
    i.ledger_is(
        "conflates",
        10,
        &[(Delivered, 1), (Queued, 1), (Displaced, 8)],
    )?;
    i.ledger_is("origin", 1, &[(Rejected(Reject::Origin), 1)])?;
    Ok(())
}

fn every_kind_of_loss_is_logged_with_what_to_change() -> anyhow::Result<()> {
    let i = Instance::new()?;
    let daemon = Daemon::start(&config(&i))?;
    lose_everything(&i, &daemon)?;
    for (route, parts) in LINES {
        daemon.logged(&format!("route {route}: "))?;
        let log = daemon.log();
        let lines: Vec<&str> = log
            .lines()
            .filter(|l| l.contains(&format!("route {route}: ")))
            .collect();
        let line = lines.first().context("no line")?;
        for part in parts {
            ensure!(line.contains(part), "{part:?} is not in {line}");
        }
    }
    ensure!(
        !daemon.log().contains("route conflates"),
        "what the configuration asks for: {}",
        daemon.log()
    );
    daemon.stop()?;
    Ok(())
}

/// `stats`, `ls` and JSON show the reasons while messages are lost and for ten seconds, and then
/// not any more.
fn state_shows_what_is_lost_until_ten_seconds_later() -> anyhow::Result<()> {
    let i = Instance::new()?;
    let daemon = Daemon::start(&config(&i))?;
    ensure!(named(&stats(&i)?["lanes"], "lane")?["losing"] == json!([]));
    lose_everything(&i, &daemon)?;
    i.until("losses have their times", |s| {
        s.routes
            .iter()
            .take(5)
            .all(|r| !r.losses.losing(s.taken_ns).is_empty())
    })?;
    let shown = stats(&i)?;
    for (name, reason) in [
        ("full", "full"),
        ("expired", "expired"),
        ("dead", "peer_dead"),
        ("rate", "rate"),
    ] {
        let route = named(&shown["routes"], name)?;
        ensure!(route["losing"] == json!([reason]), "{route:#}");
        let age = route["last_loss_age_s"][reason]
            .as_f64()
            .context("no age")?;
        ensure!((0.0..10.0).contains(&age), "{route:#}");
    }
    let target = &named(&shown["routes"], "full")?["targets"][0];
    ensure!(target["lost_by"] == json!({ "full": 5 }), "{target:#}");
    let conflates = named(&shown["routes"], "conflates")?;
    ensure!(
        conflates["losing"] == json!([]) && conflates["displaced"] == 8,
        "{conflates:#}"
    );
    ensure!(named(&shown["lanes"], "calm")?["losing"] == json!([]));
    for command in ["stats", "ls"] {
        let text = run(i.rtctl_command(&[command]))?.well()?;
        let row = |name: &str| {
            text.lines()
                .find(|l| l.starts_with(&format!("{name} ")))
                .unwrap_or_default()
        };
        ensure!(row("full").contains("losing: full"), "{text}");
        ensure!(
            row("lane").contains("losing: expired,peer-dead,full"),
            "{text}"
        );
        ensure!(
            row("calm").contains(" ok ") && row("idle").contains("ok"),
            "{text}"
        );
    }
    // Not before the ten seconds are over, and with a line that says so: due after one patience, so
    // it gets two.
    let full = |s: &Snapshot| {
        s.routes
            .iter()
            .find(|route| route.name == "full")
            .map(|route| route.losses)
    };
    let last_ns = full(&i.snapshot()?)
        .and_then(|l| l.last_ns.into_iter().flatten().max())
        .context("no loss")?;
    let line = "route full: nothing lost for 10 s, after 5 full";
    daemon.logged(line).or_else(|_| daemon.logged(line))?;
    let quiet_ns = monotonic_ns() - last_ns;
    ensure!(quiet_ns >= 10_000_000_000, "{quiet_ns}");
    i.until("all is well", |s| {
        s.lanes
            .iter()
            .all(|l| l.losses.losing(s.taken_ns).is_empty())
    })?;
    ensure!(named(&stats(&i)?["routes"], "full")?["rejected_by"]["full"] == 5);
    daemon.stop()?;
    Ok(())
}

/// A receiver that is full, and has room, and is full again, hundreds of times a second: a line at
/// once, then one a second.
fn a_receiver_at_its_limit_does_not_flood_the_log() -> anyhow::Result<()> {
    const LASTS: Duration = Duration::from_secs(3);
    let i = Instance::new()?;
    let config = i.head()
        + &i.mqueue("in", "")
        + &i.mqueue("out", "maxmsg = 1")
        + &route("in", &["out"], "capacity = 1");
    let daemon = Daemon::start(&config)?;
    let mut sender = Peer::sender(&i.queue("in"))?;
    let mut receiver = Peer::receiver(&i.queue("out"))?;
    let (start, mut rounds) = (Instant::now(), 0);
    while start.elapsed() < LASTS {
        // One is delivered, one queued, the others find no room; then all of it is taken and the
        // end has caught up.
        sender.stream(rounds * 10, 10)?;
        i.until("settled", |s| {
            s.routes[0].ledger.accepted == (rounds + 1) * 10
        })?;
        while held(&i.queue("out"))? > 0 {
            receiver.numbers(1)?;
        }
        rounds += 1;
    }
    let lost = i.snapshot()?.routes[0].ledger.rejected_total();
    ensure!(lost > rounds, "{lost} in {rounds} rounds");
    let log = daemon.stop()?;
    let lines: Vec<&str> = log
        .lines()
        .filter(|l| l.contains("route in->out: "))
        .collect();
    let seconds = start.elapsed().as_secs() + 1;
    ensure!(
        lines.len() as u64 <= 2 + seconds,
        "{} lines in {rounds} rounds: {lines:#?}",
        lines.len()
    );
    // Each loss is in one line.
    let number = |line: &&str| {
        line.split("in->out: ")
            .nth(1)?
            .split(' ')
            .next()?
            .parse::<u64>()
            .ok()
    };
    let logged: u64 = lines.iter().filter_map(number).sum();
    ensure!(logged == lost, "{logged} of {lost} in {lines:#?}");
    Ok(())
}
