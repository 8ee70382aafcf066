//! What the Cobalt core does to a running rtd: it reports threads that run away, and takes them out
//! of their mode.

use super::util::cobalt_bench::{Bench, balanced, lacks_stand_in};
use super::util::session::lane_end;
use super::util::stranger::Stranger;
use super::util::{Daemon, process, route, skip};
use crate::util::needs::ROOT;
use anyhow::ensure;
use nix::sys::signal::Signal;
use stand_in_cobalt::copies::Kind;
use stand_in_cobalt::report_runaway;
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::os::unix::process::ExitStatusExt as _;

tests![
    a_runaway_that_the_core_reports_ends_rtd_in_order_or_is_only_named needs(ROOT),
    a_signal_of_a_stranger_is_no_report_of_the_core needs(ROOT),
    a_mode_that_is_lost_while_a_lane_sleeps_is_counted needs(ROOT),
    a_client_that_the_core_reports_ends_as_its_library_has_it,
    a_user_who_may_not_use_the_core_is_seen_before_it_ends_the_start needs(ROOT),
];

/// Exit status of a daemon that ended because a lane ran away.
const EXIT_RUNAWAY: i32 = 3;

/// A queue into a queue, and a session's ring, whose doorbells are semaphores of the core.
fn config(bench: &Bench, daemon: &str) -> String {
    let at = &bench.instance;
    bench
        .head()
        .replacen("[daemon]\n", &format!("[daemon]\n{daemon}\n"), 1)
        + &process("planner")
        + &at.mqueue("in", "")
        + &at.mqueue("out", "")
        + &lane_end("plan", "planner", "msgsize = 64")
        + &route("in", &["out"], "")
        + &route("plan", &["out"], "")
}

/// Does to the thread that reads `in` what the core's watchdog does.
fn run_away(bench: &Bench, daemon: &Daemon) -> anyhow::Result<()> {
    let tid = lane_thread(bench)?;
    Ok(report_runaway(i32::try_from(daemon.pid())?, tid)?)
}

fn lane_thread(bench: &Bench) -> anyhow::Result<i32> {
    let page = bench.instance.snapshot()?;
    let tid = page
        .workers
        .iter()
        .find(|worker| worker.name == "in")
        .map_or(0, |worker| worker.tid);
    ensure!(tid != 0, "no thread reads `in`: {:?}", page.workers);
    Ok(i32::try_from(tid)?)
}

fn a_runaway_that_the_core_reports_ends_rtd_in_order_or_is_only_named() -> anyhow::Result<()> {
    for what in ["report", "stop"] {
        let bench = Bench::new(Kind::Stock)?;
        let at = &bench.instance;
        let daemon = bench.daemon(&config(&bench, &format!("on_runaway = \"{what}\"")))?;
        let (mut sender, mut receiver) = (bench.sends_to("in")?, bench.receives_from("out")?);
        sender.stream(0, 3)?;
        ensure!(receiver.numbers_for(3, 5000)? == [0, 1, 2]);
        run_away(&bench, &daemon)?;
        let named = "lane lane: thread in (tid ";
        let told = "ran without waiting once until the watchdog of the cobalt core reported it";
        if what == "report" {
            for _ in 0..2 {
                let before = daemon.log().matches(told).count();
                run_away(&bench, &daemon)?;
                super::util::eventually(|| {
                    (daemon.log().matches(told).count() > before).then_some(())
                })?;
            }
            ensure!(daemon.log().contains(named), "{}", daemon.log());
            // The lane goes on.
            sender.stream(3, 3)?;
            ensure!(receiver.numbers_for(3, 5000)? == [3, 4, 5]);
            balanced(&at.until("all delivered", |s| s.routes[0].ledger.delivered == 6)?)?;
            daemon.stop()?;
        } else {
            let (status, log) = daemon.end()?;
            ensure!(status.code() == Some(EXIT_RUNAWAY), "{status}:\n{log}");
            ensure!(log.contains(named) && log.contains(told), "{log}");
            ensure!(log.contains("on_runaway = \"stop\" in [daemon]"), "{log}");
            ensure!(log.contains("accepted 3 = delivered 3 "), "{log}");
        }
        ensure!(at.snapshot().is_err(), "the page is gone");
        ensure!(bench.semaphores().is_empty(), "{:?}", bench.semaphores());
    }
    Ok(())
}

/// kill(1) of the number by which the core reports.
fn a_signal_of_a_stranger_is_no_report_of_the_core() -> anyhow::Result<()> {
    let bench = Bench::new(Kind::Stock)?;
    let daemon = bench.daemon(&config(&bench, "on_runaway = \"stop\""))?;
    daemon.signal(Signal::SIGXCPU)?;
    let (mut sender, mut receiver) = (bench.sends_to("in")?, bench.receives_from("out")?);
    sender.stream(0, 3)?;
    ensure!(receiver.numbers_for(3, 5000)? == [0, 1, 2]);
    let log = daemon.stop()?;
    ensure!(!log.contains("without waiting once"), "{log}");
    Ok(())
}

/// A Linux signal wakes a lane that sleeps in its queue, at its doorbell, or in front of a full
/// receiver.
fn a_mode_that_is_lost_while_a_lane_sleeps_is_counted() -> anyhow::Result<()> {
    let bench = Bench::new(Kind::Stock)?;
    let daemon = bench.daemon(&config(&bench, ""))?;
    let at = &bench.instance;
    let wake = |reader: &str| -> anyhow::Result<()> {
        let of = |page: &rtcore::stats::reader::Snapshot| {
            let worker = page.workers.iter().find(|worker| worker.name == reader);
            worker.map_or((0, 0), |worker| (worker.tid, worker.counters.mode_switches))
        };
        let (tid, before) = of(&at.snapshot()?);
        ensure!(tid != 0, "no thread reads `{reader}`");
        // Repeated: one that comes between two sleeps ends none.
        super::util::eventually(|| {
            rtcore::sys::rtsignal::queue_to_thread(
                i32::try_from(daemon.pid()).ok()?,
                i32::try_from(tid).ok()?,
                rtcore::sys::rtsignal::WAKE,
                0,
                0,
                0,
            )
            .ok()?;
            (of(&at.snapshot().ok()?).1 > before).then_some(())
        })
    };
    wake("in")?;
    wake("plan")?;
    // Twelve messages for a queue of ten: two wait, and so does the thread.
    let mut sender = bench.sends_to("in")?;
    sender.stream(0, 12)?;
    at.until("two wait", |s| s.routes[0].ledger.queued == 2)?;
    wake("in")?;
    daemon.logged("lost its real-time mode")?;
    ensure!(at.snapshot()?.lanes[0].counters.mode_switches >= 3);
    daemon.stop()?;
    Ok(())
}

/// A program of a user's own on Cobalt keeps what the library does about it.
fn a_client_that_the_core_reports_ends_as_its_library_has_it() -> anyhow::Result<()> {
    let bench = Bench::new(Kind::Stock)?;
    let mut peer = bench.peer()?;
    let tid = i32::try_from(peer.tid()?)?;
    report_runaway(i32::try_from(peer.pid())?, tid)?;
    let status = peer.end()?;
    ensure!(status.signal() == Some(nix::libc::SIGXCPU), "{status}");
    Ok(())
}

/// Root starts rtd as a user who may not open the core's devices: the check and the start try it as
/// that user.
fn a_user_who_may_not_use_the_core_is_seen_before_it_ends_the_start() -> anyhow::Result<()> {
    if let Some(lack) = lacks_stand_in("its device of the core's memory") {
        return skip(&lack);
    }
    let bench = Bench::new(Kind::Stock)?;
    let at = &bench.instance;
    let user = Stranger::new(at)?;
    let account = format!("user = {0}\ngroup = {0}", user.uid);
    let config = config(&bench, &account);
    let device = bench.space()?.memory_device();
    std::fs::create_dir_all(device.parent().unwrap_or(&device))?;
    std::fs::write(&device, "")?;
    let open_to_all =
        |mode| std::fs::set_permissions(&device, std::fs::Permissions::from_mode(mode));
    open_to_all(0o600)?;
    let refused = bench.check(&config, &[], &[])?;
    let said = String::from_utf8(refused.stderr)?;
    ensure!(refused.status.code() == Some(1), "{said}");
    for part in [
        &format!("as uid {0} gid {0}", user.uid),
        &format!("{}: Permission denied", device.display()),
        "(owner uid 0, gid 0, mode 0600)",
        "/sys/module/xenomai/parameters/allowed_group",
        "/dev/rtdm/memdev-*",
        "group = (the group of xenomai.allowed_group",
    ] {
        ensure!(said.contains(part), "no {part:?} in {said}");
    }
    let auto = bench.check(&config, &["--skin", "auto"], &[])?;
    let (out, said) = (
        String::from_utf8(auto.stdout)?,
        String::from_utf8(auto.stderr)?,
    );
    ensure!(
        auto.status.success() && out.contains("skin posix: "),
        "{out}{said}"
    );
    ensure!(
        said.matches("Cobalt is not available, so the lanes would run on posix: ")
            .count()
            == 1,
        "{said}"
    );
    // The start chooses as the check does.
    let daemon = bench.daemon_with(&config, |command| {
        command.args(["--skin", "auto"]);
    })?;
    ensure!(at.snapshot()?.skin == "posix");
    daemon.logged(
        "so the lanes would run on posix: xenomai_init ended the child process that tried it as \
         uid ",
    )?;
    daemon.stop()?;
    // Root's own check has nothing against it, and with the device's permissions that user's has
    // not either.
    let own = config.replace(&account, "");
    ensure!(bench.check(&own, &[], &[])?.status.success());
    open_to_all(0o660)?;
    chown(&device, None, Some(user.uid))?;
    let daemon = bench.daemon(&config)?;
    let page = at.snapshot()?;
    ensure!(
        (page.skin.as_str(), page.uid) == (bench.skin(), user.uid),
        "{page:?}"
    );
    daemon.stop()?;
    Ok(())
}
