//! `rtlat route --from --to` while its daemon is stopped, killed or suspended: what was refused or
//! lost waits until the next success, whatever the mechanism, and a measurement goes on as soon as
//! the daemon does.

use crate::util::lat::Counts;
use crate::util::session::lane_end;
use crate::util::tool::{Said, Tool, rtlat};
use crate::util::{Daemon, Instance, privileged, process, route, signal};
use anyhow::{Context as _, ensure};
use nix::sys::signal::Signal;
use rtcore::stats::reader::Snapshot;
use serde_json::Value;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

tests![
    a_stopped_daemon_that_is_started_again,
    a_killed_daemon_that_is_started_again,
    a_suspended_daemon_that_goes_on,
    a_daemon_that_stays_away,
];

/// Source and sink of each route that is measured.
const ROUTES: [[&str; 2]; 6] = [
    ["mq", "mq"],
    ["mq", "sig"],
    ["sig", "sig"],
    ["lane", "lane"],
    ["lane", "mq"],
    ["direct", "direct"],
];
/// Between points of the schedule.
const INTERVAL: &str = "-i2000";
/// The outage takes at least so long, and as long as the measurement before it.
const OUTAGE: Duration = Duration::from_secs(1);

/// Names of the two ends.
fn ends([from, to]: [&str; 2]) -> [String; 2] {
    [format!("{from}-{to}.in"), format!("{from}-{to}.out")]
}

fn config(instance: &Instance) -> String {
    let mut config = instance.head();
    for (number, kinds) in ROUTES.into_iter().enumerate() {
        let [source, sink] = ends(kinds);
        for (at, (name, kind)) in [&source, &sink].into_iter().zip(kinds).enumerate() {
            let owner = format!("{name}.owner");
            let msgsize = if kinds[1] == "sig" && at == 0 { 8 } else { 64 };
            config += &process(&owner);
            config += &match kind {
                "mq" => instance.mqueue(name, &format!("owner = \"{owner}\"\nmsgsize = {msgsize}")),
                "sig" => signal(
                    name,
                    &owner,
                    &format!("SIGRTMIN+{}", 1 + 2 * number + at),
                    "",
                ),
                _ => lane_end(name, &owner, &format!("maxmsg = 16\nmsgsize = {msgsize}")),
            };
        }
        let more = match kinds {
            ["sig", _] => "accept_claimed = true",
            ["direct", _] => "path = \"direct\"",
            _ => "",
        };
        config += &route(&source, &[&sink], more);
    }
    config
}

/// A route that is measured.
struct Measurement {
    kinds: [&'static str; 2],
    tool: Tool,
    json: std::path::PathBuf,
}

impl Measurement {
    fn start(
        instance: &Instance,
        kinds: [&'static str; 2],
        more: &[&str],
    ) -> anyhow::Result<Measurement> {
        let [from, to] = ends(kinds);
        let json = instance.file(&format!("{from}.json"));
        let path = json.display().to_string();
        let way = [
            "route",
            "--instance",
            &instance.name,
            "--from",
            &from,
            "--to",
            &to,
        ];
        let tool = Tool::start(rtlat(
            &[&way[..], &["-p0", INTERVAL, "-v", "--json", &path], more].concat(),
        ))?;
        Ok(Measurement { kinds, tool, json })
    }

    fn end(self) -> anyhow::Result<Ended> {
        self.tool.signal(Signal::SIGINT)?;
        let said = self.tool.end()?;
        let json = std::fs::read(&self.json)?;
        let json =
            serde_json::from_slice(&json).with_context(|| format!("{:?}: {said:?}", self.kinds))?;
        Ok(Ended {
            kinds: self.kinds,
            said,
            json,
        })
    }
}

struct Ended {
    kinds: [&'static str; 2],
    said: Said,
    json: Value,
}

impl Ended {
    fn counts(&self) -> anyhow::Result<Counts> {
        Counts::of(&self.json["thread"]["0"])
    }

    /// A figure of the corrected latencies.
    fn corrected_ns(&self, name: &str) -> anyhow::Result<u64> {
        self.json["thread"]["0"]["percentiles_ns"]["corrected"][name]
            .as_u64()
            .with_context(|| name.to_owned())
    }

    /// The schedule was followed to its end; what was lost is said first and is the exit code.
    fn is_accounted_for(&self, loss_code: i32) -> anyhow::Result<Counts> {
        let counts = self.counts()?;
        ensure!(counts.balances() && counts.scheduled >= 500, "{counts:?}");
        let code = if counts.lost > 0 { loss_code } else { 0 };
        ensure!(
            self.said.code() == Some(code) && self.json["return_code"] == code,
            "{:?}",
            self.said.code()
        );
        ensure!(
            self.said.err.contains("refused or lost") == (code == 6),
            "{}",
            self.said.err
        );
        if counts.lost > 0 {
            let position = |what: &str| {
                self.said
                    .out
                    .find(what)
                    .with_context(|| format!("no {what}"))
            };
            ensure!(
                position(" messages were refused or lost")? < position("#0: ID")?,
                "the loss comes first"
            );
        }
        Ok(counts)
    }

    /// Half of the points are in the outage or after it: the tenth that waited longest, more than
    /// half of an outage.
    fn felt_the_outage(&self, back_ns: Option<u64>) -> anyhow::Result<()> {
        let pair = &self.json["thread"]["0"];
        ensure!(
            self.corrected_ns("p90")? > 500_000_000,
            "{}",
            pair["percentiles_ns"]
        );
        ensure!(
            self.corrected_ns("max")? >= 900_000_000,
            "{}",
            pair["percentiles_ns"]
        );
        let end_ns = pair["end_time_ns"].as_u64().context("no end_time_ns")?;
        ensure!(
            back_ns.is_none_or(|back_ns| end_ns > back_ns),
            "it did not go on"
        );
        Ok(())
    }
}

/// Messages that were delivered on each route, by the page.
fn delivered(snapshot: &Snapshot) -> Vec<u64> {
    let routes = ROUTES
        .iter()
        .filter(|kinds| kinds[0] != "direct")
        .map(|kinds| {
            let [source, sink] = ends(*kinds);
            format!("{source}->{sink}")
        });
    let of = |name: String| {
        snapshot
            .routes
            .iter()
            .find(|r| r.name == name)
            .map_or(0, |r| r.ledger.delivered)
    };
    routes.map(of).collect()
}

/// Measures all routes while this happens to their daemon. Those of `lossless` lose nothing; direct
/// ones feel nothing.
fn outage(
    more: &[&str],
    loss_code: i32,
    lossless: &[[&str; 2]],
    happens: impl FnOnce(Daemon, &str, Duration) -> anyhow::Result<Option<Daemon>>,
) -> anyhow::Result<()> {
    let instance = Instance::new()?;
    let config = config(&instance);
    let daemon = Daemon::start(&config)?;
    let begun = Instant::now();
    let measurements = ROUTES.map(|kinds| Measurement::start(&instance, kinds, more));
    let measurements = measurements
        .into_iter()
        .collect::<anyhow::Result<Vec<_>>>()?;
    for measurement in &measurements {
        measurement
            .tool
            .line()
            .with_context(|| format!("{:?} does not measure", measurement.kinds))?;
    }
    let daemon = happens(daemon, &config, OUTAGE.max(begun.elapsed()))?;
    let mut back_ns = None;
    if daemon.is_some() {
        back_ns = Some(u64::try_from(
            SystemTime::now().duration_since(UNIX_EPOCH)?.as_nanos(),
        )?);
        let before = delivered(&instance.snapshot()?);
        let passes = |s: &Snapshot| {
            delivered(s)
                .iter()
                .zip(&before)
                .all(|(now, before)| *now > before + 10)
        };
        instance.until("messages pass again", passes)?;
    }
    let ended = measurements
        .into_iter()
        .map(Measurement::end)
        .collect::<anyhow::Result<Vec<_>>>()?;
    for ended in &ended {
        let context = || {
            format!(
                "{:?}: {} {}",
                ended.kinds, ended.said.err, ended.json["thread"]["0"]["counts"]
            )
        };
        let counts = ended.is_accounted_for(loss_code).with_context(context)?;
        if ended.kinds[0] == "direct" {
            // Without SCHED_FIFO a busy machine may keep the receiver from its ring for more
            // messages than that has slots.
            let few = counts.lost == 0 || !privileged() && counts.lost * 10 < counts.scheduled;
            ensure!(
                few && ended.corrected_ns("p90")? < 500_000_000,
                "{}",
                context()
            );
            continue;
        }
        ended.felt_the_outage(back_ns).with_context(context)?;
        let is_lossless = lossless.contains(&ended.kinds);
        ensure!(
            (counts.lost == 0) == is_lossless,
            "{}: {counts:?}",
            context()
        );
    }
    daemon.map_or(Ok(()), |daemon| daemon.stop().map(drop))
}

fn a_stopped_daemon_that_is_started_again() -> anyhow::Result<()> {
    outage(&[], 6, &[], |daemon, config, outage| {
        daemon.stop()?;
        std::thread::sleep(outage);
        Daemon::start(config).map(Some)
    })
}

/// The senders are processes here.
fn a_killed_daemon_that_is_started_again() -> anyhow::Result<()> {
    outage(&["-f"], 6, &[], |daemon, config, outage| {
        daemon.kill()?;
        std::thread::sleep(outage);
        Daemon::start(config).map(Some)
    })
}

/// Its loss is accepted here. Signals wait for it in the kernel.
fn a_suspended_daemon_that_goes_on() -> anyhow::Result<()> {
    outage(
        &["--allow-loss"],
        0,
        &[["sig", "sig"]],
        |daemon, _, outage| {
            daemon.freeze()?;
            std::thread::sleep(outage);
            daemon.signal(Signal::SIGCONT)?;
            Ok(Some(daemon))
        },
    )
}

/// Points from which on nothing came wait until the end.
fn a_daemon_that_stays_away() -> anyhow::Result<()> {
    outage(&[], 6, &[], |daemon, _, outage| {
        daemon.stop()?;
        std::thread::sleep(outage);
        Ok(None)
    })
}
