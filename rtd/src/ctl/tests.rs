//! What `ls` and `stats` print, from a page that the test writes.

use super::stats::{StatsArgs, stats};
use rtcore::endpoint::{Shown, signal};
use rtcore::lane::peer::PeerState;
use rtcore::stats::guard::GuardState;
use rtcore::stats::layout::{Header, VERSION, version_name};
use rtcore::stats::writer::Page;
use rtcore::stats::{EndpointSpec, LaneSpec, PageSpec, RouteSpec, WorkerSpec};
use rtcore::stats::{Guard, Ledger, WorkerCounters, degraded};
use rtcore::sys::clock::monotonic_ns;
use rtcore::sys::rtsignal::{SignalSet, TERMINATION};
use std::io::{BufRead, BufReader, Lines};
use std::mem::offset_of;
use std::os::unix::fs::FileExt as _;
use std::process::{Child, ChildStdout, Command, ExitStatus, Stdio};

const CHILD: &str = "RTD_CTL_TEST";

fn page(name: &str) -> Page {
    let lane = |name: &str, priority| LaneSpec {
        name: name.into(),
        priority,
        cpu: 1,
        wait: "block".into(),
        confined: priority > 0,
    };
    let route = |name: &str, lane, ends: &[u32]| RouteSpec {
        name: name.into(),
        lane,
        from: 0,
        to: "drive".into(),
        ends: ends.to_vec(),
        direct: lane == 1,
    };
    Page::create(&PageSpec {
        name: name.into(),
        socket: "/run/rtd/x.sock".into(),
        skin: "posix".into(),
        private_namespace: false,
        lanes: vec![lane("estop", 90), lane("telemetry", 10)],
        routes: vec![
            route("button->drive", 0, &[0, 9]),
            route("flood->logger", 1, &[0]),
        ],
        endpoints: vec![EndpointSpec {
            name: "button".into(),
            owner: Some(0),
            is_source: true,
            is_sink: false,
            kind: Shown::Signal(signal::Shown {
                signo: 37,
                to_thread: false,
            }),
        }],
        processes: vec!["panel".into()],
        workers: vec![WorkerSpec {
            lane: 0,
            name: "button".into(),
        }],
    })
    .unwrap()
}

fn filled(name: &str) -> Page {
    let page = page(name);
    page.add_degraded(0, degraded::FIFO | degraded::MEMORY);
    page.set_process(0, PeerState::Alive, 42, 1000);
    page.set_worker_tid(0, 4242);
    page.worker(0).publish(&WorkerCounters {
        received: 9,
        duty_max_ns: 71_000,
        ..WorkerCounters::default()
    });
    page.guard(0).publish(&Guard {
        state: GuardState::Stalled,
        stalls: 2,
        stall_max_ns: 250_000_000,
        over_budget: 5,
        duty_permille: 123,
        ..Guard::default()
    });
    let mut cell = page.route(0);
    cell.record_latency(4_000);
    cell.record_latency(90_000);
    cell.record_delivery(0, monotonic_ns() - 7_000_000_000);
    cell.publish(&Ledger {
        accepted: 10,
        delivered: 2,
        expired: 1,
        rejected: [3, 0, 0, 1, 0, 0, 0],
        queued: 3,
        deadline_misses: 1,
        ..Ledger::default()
    });
    page.set_ready(monotonic_ns());
    page
}

/// Runs a command of this module in a process of its own, as the binary would. Without arguments it
/// is nobody's child and has nothing to do.
#[test]
fn child_that_prints() {
    let Ok(arguments) = std::env::var(CHILD) else {
        return;
    };
    #[derive(clap::Parser)]
    enum Tool {
        Ls {
            instance: String,
            #[command(flatten)]
            args: super::ls::LsArgs,
        },
        Stats {
            instance: String,
            #[command(flatten)]
            args: StatsArgs,
        },
    }
    let words = std::iter::once("rtctl").chain(arguments.split(' '));
    match <Tool as clap::Parser>::parse_from(words) {
        Tool::Ls { instance, args } => super::ls::ls(&instance, &args).unwrap(),
        Tool::Stats { instance, args } => stats(&instance, &args).unwrap(),
    }
    // Here the binary would return; what the test harness still wants to print is not part of it.
    std::process::exit(0);
}

struct Tool(Child, Lines<BufReader<ChildStdout>>);

impl Tool {
    /// SIGINT is blocked in the whole process (masks are inherited), as it is when the command runs
    /// on the main thread of the binary.
    fn start(arguments: &str) -> Tool {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command
            .args([
                "--exact",
                "ctl::tests::child_that_prints",
                "--nocapture",
                "--test-threads=1",
            ])
            .env(CHILD, arguments)
            .env_remove("COLUMNS")
            .stdout(Stdio::piped());
        let signals = SignalSet::of(TERMINATION);
        signals.block().unwrap();
        let child = command.spawn();
        signals.unblock().unwrap();
        let mut child = child.unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        Tool(child, lines)
    }

    /// Everything it prints but what the test harness has in front of it.
    fn output(arguments: &str) -> String {
        let Tool(mut child, lines) = Tool::start(arguments);
        let all = lines.map(Result::unwrap).collect::<Vec<_>>().join("\n");
        assert!(child.wait().unwrap().success(), "{all}");
        let (_harness, text) = all.split_once("child_that_prints ... ").unwrap();
        text.to_owned()
    }

    fn end(mut self) -> ExitStatus {
        self.1.by_ref().for_each(drop);
        self.0.wait().unwrap()
    }
}

fn name(what: &str) -> String {
    format!("ctl{}.{what}", std::process::id())
}

#[test]
fn json_has_the_promised_keys_in_order() {
    let name = name("json");
    let _page = filled(&name);
    let text = Tool::output(&format!("stats {name} --json"));
    let json: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(json["instance"], name.as_str());
    assert_eq!(
        (&json["state"], &json["ready"]),
        (&"running".into(), &true.into())
    );
    assert!(json["uptime_s"].as_f64().unwrap() >= 0.0);
    let lane = &json["lanes"][0];
    assert_eq!(lane["degraded"], serde_json::json!(["fifo", "memory"]));
    assert_eq!(
        (&lane["priority"], &lane["cpu"], &lane["wait"]),
        (&90.into(), &1.into(), &"block".into())
    );
    assert_eq!(
        (&lane["accepted"], &lane["rejected"], &lane["peer_dead"]),
        (&10.into(), &4.into(), &0.into())
    );
    assert_eq!(
        (&lane["duty_max_ns"], &lane["deadline_misses"]),
        (&71_000.into(), &1.into())
    );
    let guard = &lane["guard"];
    assert_eq!(
        (&guard["state"], &guard["stalls"]),
        (&"stalled".into(), &2.into())
    );
    assert_eq!(
        (&guard["stall_max_ns"], &guard["over_budget"]),
        (&250_000_000.into(), &5.into())
    );
    assert_eq!(
        (&guard["duty_percent"], &guard["demoted"]),
        (&12.3.into(), &false.into())
    );
    assert_eq!(&json["workers"][0]["guard"], guard);
    assert_eq!(json["lanes"][1]["guard"]["state"], "ok");
    let reasons = serde_json::json!({"full": 3, "too_large": 0, "rate": 0, "origin": 1, "error": 0, "stopped": 0, "ignored": 0});
    assert_eq!(lane["rejected_by"], reasons);
    assert_eq!(
        (&lane["latency_ns"]["count"], &lane["latency_ns"]["max"]),
        (&2.into(), &90_000.into())
    );
    let route = &json["routes"][0];
    assert_eq!(
        (&route["lane"], &route["from"], &route["to"]),
        (&"estop".into(), &"button".into(), &"drive".into())
    );
    assert_eq!(route["consistent"], true);
    assert_eq!(
        (&route["path"], &json["routes"][1]["path"]),
        (&"routed".into(), &"direct".into())
    );
    let [first, second] = [0, 1].map(|end| &route["targets"][end]);
    assert_eq!(
        (&first["endpoint"], &first["delivered"]),
        (&"button".into(), &1.into())
    );
    assert!(
        first["last_delivery_age_s"].as_f64().unwrap() >= 7.0,
        "{first}"
    );
    let nothing = serde_json::json!({
        "endpoint": null, "waiting": null, "delivered": 0, "last_delivery_age_s": null, "lost_by": {},
        "receiver": {"expired": 0, "superseded": 0, "late": 0, "unread": 0}
    });
    assert_eq!(second, &nothing);
    assert_eq!(
        (&route["latency_by"], &json["routes"][1]["latency_by"]),
        (&"rtd".into(), &"receiver".into())
    );
    assert_eq!(json["routes"][1]["targets"].as_array().unwrap().len(), 1);
    assert_eq!(
        json["processes"][0],
        serde_json::json!({"name": "panel", "state": "alive", "pid": 42, "uid": 1000})
    );
    assert_eq!(
        (
            &json["endpoints"][0]["kind"],
            &json["endpoints"][0]["signo"]
        ),
        (&"signal".into(), &37.into())
    );
    let order = [
        "\"instance\"",
        "\"pid\"",
        "\"state\"",
        "\"ready\"",
        "\"uptime_s\"",
        "\"lanes\"",
        "\"routes\"",
        "\"workers\"",
    ];
    let places: Vec<_> = order.iter().map(|key| text.find(key).unwrap()).collect();
    assert!(places.is_sorted(), "{places:?}");
}

#[test]
fn text_says_loudly_what_is_missing_and_lines_up() {
    let name = name("text");
    let _page = filled(&name);
    let text = Tool::output(&format!("stats {name} --reasons"));
    let lines: Vec<&str> = text.lines().collect();
    assert!(
        lines[0].starts_with(&format!("{name}: pid ")) && lines[0].ends_with(", DEGRADED"),
        "{text}"
    );
    let header = lines.iter().find(|line| line.starts_with("LANE")).unwrap();
    let estop = lines.iter().find(|line| line.starts_with("estop")).unwrap();
    assert!(
        header.ends_with("DEGRADED") && estop.ends_with("fifo,memory"),
        "{text}"
    );
    let under = |title: &str| {
        let end = header.find(title).unwrap() + title.len();
        estop[..end].rsplit(' ').next().unwrap()
    };
    assert_eq!(
        [
            under("ACCEPTED"),
            under("REJECTED"),
            under("FULL"),
            under("ORIGIN")
        ],
        ["10", "4", "3", "1"]
    );
    assert_eq!(
        [under("P50"), under("MAX"), under("QUEUED")],
        ["4.0", "90.0", "3"]
    );
    assert!(
        estop.contains(" 12.3% ")
            && estop.starts_with("estop      stalled (2 stalls 5 over-budget) "),
        "{text}"
    );
    let (_, targets) = text.split_once("TARGET").unwrap();
    let words: Vec<&str> = targets.split_whitespace().collect();
    assert_eq!(
        words[..7],
        [
            "DELIVERED",
            "LAST",
            "LOST",
            "BY",
            "button->drive",
            "button",
            "1"
        ],
        "{text}"
    );
    assert!(
        words[7].parse::<f64>().unwrap() >= 7.0 && words[8..12] == ["s", "ago", "0", "-"],
        "{text}"
    );
    let rest = ["button->drive", "-", "0", "never", "0", "-"];
    assert_eq!(words[12..], rest, "one target is not worth a line: {text}");
    let listing = Tool::output(&format!("ls {name}"));
    for needle in [
        "panel",
        "alive",
        "routed",
        "direct",
        "42",
        "SIGRTMIN+3 (37)",
        "estop  button  4242",
        "flood->logger",
    ] {
        assert!(listing.contains(needle), "{needle} not in\n{listing}");
    }
}

#[test]
fn a_lane_or_a_route_can_be_singled_out_and_a_wrong_one_is_named() {
    let name = name("single");
    let _page = filled(&name);
    let text = Tool::output(&format!("stats {name} --lane telemetry"));
    assert!(
        text.contains("flood->logger")
            && !text.contains("button->drive")
            && !text.contains("estop"),
        "{text}"
    );
    let text = Tool::output(&format!("stats {name} --route button->drive --json"));
    let json: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(
        (
            json["lanes"].as_array().unwrap().len(),
            &json["lanes"][0]["name"]
        ),
        (1, &"estop".into())
    );
    assert_eq!(json["routes"].as_array().unwrap().len(), 1);
    let wrong = StatsArgs {
        lane: Some("estopp".into()),
        ..StatsArgs::default()
    };
    let text = stats(&name, &wrong).unwrap_err().to_string();
    assert!(
        text.contains("\"estopp\"") && text.contains("estop, telemetry"),
        "{text}"
    );
}

#[test]
fn watching_shows_rates_follows_a_restart_and_ends_well_on_sigint() {
    let name = name("watch");
    let first = filled(&name);
    let mut tool = Tool::start(&format!("stats {name} --json --watch 0.05"));
    let mut next = || -> serde_json::Value {
        let line = tool
            .1
            .by_ref()
            .map(Result::unwrap)
            .find(|line| line.contains("{\"instance\""))
            .unwrap();
        serde_json::from_str(&line[line.find('{').unwrap()..]).unwrap()
    };
    let json = next();
    assert_eq!(
        (
            &json["lanes"][0]["accepted"],
            &json["lanes"][0]["per_second"]["accepted"]
        ),
        (&10.into(), &0.0.into())
    );
    assert_eq!(json["routes"][0]["targets"][0]["delivered_per_second"], 0.0);
    assert_eq!(
        json["lanes"][0]["latency_ns"]["count"], 0,
        "nothing happened in this interval"
    );
    assert!(json["interval_s"].as_f64().unwrap() > 0.04);
    drop(first);
    let second = page(&name);
    second.route(1).publish(&Ledger {
        accepted: 7,
        delivered: 7,
        ..Ledger::default()
    });
    // How many intervals the restart takes is the scheduler's affair, that it is seen is ours.
    while next()["lanes"][1]["accepted"] != 7 {}
    let pid = tool.0.id().to_string();
    assert!(
        Command::new("kill")
            .args(["-INT", &pid])
            .status()
            .unwrap()
            .success()
    );
    assert!(tool.end().success());
}

#[test]
fn a_closed_pipe_ends_watching_without_an_error() {
    let name = name("pipe");
    let _page = filled(&name);
    let Tool(mut child, mut lines) = Tool::start(&format!("stats {name} --watch 0.05"));
    assert!(
        lines
            .by_ref()
            .map_while(Result::ok)
            .any(|line| line.starts_with("LANE"))
    );
    drop(lines);
    assert!(child.wait().unwrap().success());
}

/// The page of an rtd of another version: whatever reads it names both versions.
#[test]
fn a_page_of_another_version_is_refused_with_both_versions() {
    let name = name("version");
    let page = filled(&name);
    let file = std::fs::OpenOptions::new()
        .write(true)
        .open(page.path())
        .unwrap();
    file.write_at(&10u32.to_ne_bytes(), offset_of!(Header, version) as u64)
        .unwrap();
    let text = stats(&name, &StatsArgs::default()).unwrap_err().to_string();
    let both = format!(
        "has layout version 10, this program reads {}:",
        version_name(VERSION)
    );
    assert!(
        text.contains(&both) && text.contains(&page.path().display().to_string()),
        "{text}"
    );
}
