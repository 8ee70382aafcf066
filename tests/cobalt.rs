//! The daemon on Cobalt: its main ways and its accounts, on the stand-in for libcobalt; and how it
//! comes to run there or not.

use super::util::cobalt_bench::{Bench, balanced, lacks_stand_in};
use super::util::{eventually, process, route, rt, signal, skip};
use crate::util::needs::ROOT;
use anyhow::{Context as _, ensure};
use stand_in_cobalt::copies::Kind;

tests![
    a_queue_is_routed_into_a_queue_and_every_tool_says_on_what needs(ROOT),
    a_queue_is_routed_into_a_thread_s_signals needs(ROOT),
    a_signal_to_a_lane_thread_is_passed_on needs(ROOT),
    past_the_capacity_the_policy_decides needs(ROOT),
    a_stop_delivers_or_accounts_and_keeps_the_queues_or_not needs(ROOT),
    a_thread_that_loses_its_mode_is_counted_and_logged needs(ROOT),
    the_choice_falls_back_with_the_reason_or_fails_with_it,
    a_thread_that_is_not_promoted_refuses_the_start_also_a_degraded_one needs(ROOT),
    settings_that_cobalt_lacks_are_refused_with_the_fix,
];

fn a_queue_is_routed_into_a_queue_and_every_tool_says_on_what() -> anyhow::Result<()> {
    let bench = Bench::new(Kind::Stock)?;
    let at = &bench.instance;
    let config = bench.head()
        + &at.mqueue("in", "")
        + &at.mqueue("out", "")
        + &route("in", &["out"], "capacity = 512");
    let daemon = bench.daemon(&config)?;
    let (mut sender, mut receiver) = (bench.sends_to("in")?, bench.receives_from("out")?);
    sender.send(3, &[0x61, 0x62, 0x63])?;
    ensure!(receiver.receive_for(1, 5000)? == [(3, b"abc".to_vec())]);
    sender.stream(0, 500)?;
    // More than the receiver's queue holds: the rest waits in front of it and comes in order.
    ensure!(receiver.numbers_for(500, 2000)? == (0..500).collect::<Vec<_>>());
    let read = at.until("all delivered", |s| s.routes[0].ledger.delivered == 501)?;
    balanced(&read)?;
    let skin = bench.skin();
    ensure!((read.skin.as_str(), read.private_namespace) == (skin, true));
    ensure!(read.lanes[0].counters.mode_switches == 0 && read.workers[0].counters.allocations == 0);
    let listing = String::from_utf8(at.rtctl(&["ls"])?.stdout)?;
    ensure!(listing.contains(&format!("skin {skin}")), "{listing}");
    let sent = at.rtctl(&["send", "in", "--text", "x"])?;
    let said = String::from_utf8(sent.stderr)?;
    ensure!(
        !sent.status.success() && said.contains(&format!("in is a queue of the skin `{skin}`")),
        "{said}"
    );
    let log = daemon.stop()?;
    ensure!(log.contains(&format!("skin {skin}: ")), "{log}");
    ensure!(
        log.contains("NOT real time") == skin.contains("stand-in"),
        "{log}"
    );
    Ok(())
}

fn a_queue_is_routed_into_a_thread_s_signals() -> anyhow::Result<()> {
    // Of a library that is named there is one kind.
    let kinds = if lacks_stand_in("").is_some() { 1 } else { 2 };
    for kind in [Kind::Stock, Kind::WithSigqueueNp].into_iter().take(kinds) {
        into_signals(kind).with_context(|| format!("{kind:?}"))?;
    }
    Ok(())
}

/// Three times what the core's pool holds, to one that does not take them: it drops what finds no
/// room and calls that success, so what is lost there would be lost without an outcome.
fn into_signals(kind: Kind) -> anyhow::Result<()> {
    const MESSAGES: u64 = 400;
    let bench = Bench::new(kind)?;
    let at = &bench.instance;
    let config = bench.head()
        + &process("arm")
        + &at.mqueue("in", "msgsize = 8")
        + &signal("ring", "arm", "SIGRTMIN+4", "target = \"thread\"")
        + &route("in", &["ring"], "capacity = 512");
    let daemon = bench.daemon(&config)?;
    let (mut arm, mut sender) = (bench.registered("arm")?, bench.sends_to("in")?);
    sender.stream(1, MESSAGES)?;
    let full = at.until("the rest is queued", |s| {
        let ledger = &s.routes[0].ledger;
        ledger.accepted == MESSAGES
            && ledger.queued > 0
            && ledger.delivered + ledger.queued == MESSAGES
    })?;
    balanced(&full)?;
    let delivered = full.routes[0].ledger.delivered;
    ensure!(
        (1..=128).contains(&delivered),
        "the pool holds 128, {delivered} were called delivered"
    );
    let got = arm.values_for(rt(4), MESSAGES, 2000)?;
    ensure!(
        got == (1..=MESSAGES).collect::<Vec<_>>(),
        "{} arrived: {got:?}",
        got.len()
    );
    balanced(&at.until("all delivered", |s| {
        s.routes[0].ledger.delivered == MESSAGES
    })?)?;
    daemon.stop()?;
    Ok(())
}

fn a_signal_to_a_lane_thread_is_passed_on() -> anyhow::Result<()> {
    let bench = Bench::new(Kind::Stock)?;
    let config = bench.head()
        + &process("arm")
        + &signal("press", "", "SIGRTMIN+1", "")
        + &signal("stop", "arm", "SIGRTMIN+2", "target = \"thread\"")
        + &route("press", &["stop"], "accept_claimed = true");
    let daemon = bench.daemon(&config)?;
    let (mut arm, mut panel) = (bench.registered("arm")?, bench.peer()?);
    let lane = bench.instance.snapshot()?.workers[0].tid;
    for value in [7, 8, 9] {
        panel.ring(lane, rt(1), value)?;
    }
    ensure!(arm.values_for(rt(2), 3, 5000)? == [7, 8, 9]);
    for order in 65..=69 {
        let refused = panel.ring(lane, order, 0).map_err(|e| format!("{e:#}"));
        ensure!(
            refused.as_ref().is_err_and(|e| e.contains("EINVAL")),
            "{order}: {refused:?}"
        );
    }
    // One that nobody owns any more: dead at once, and a signal to its number reaches nobody.
    arm.kill()?;
    bench.instance.until("seen dead", |s| {
        s.processes[0].state == rtcore::lane::peer::PeerState::Dead
    })?;
    panel.ring(lane, rt(1), 1)?;
    balanced(
        &bench
            .instance
            .until("told so", |s| s.routes[0].ledger.peer_dead == 1)?,
    )?;
    daemon.stop()?;
    Ok(())
}

fn past_the_capacity_the_policy_decides() -> anyhow::Result<()> {
    // Ten in the receiver's queue, five in front of it; of thirty the first or the last stay.
    for (policy, last) in [("reject", 15), ("displace-oldest", 30)] {
        let bench = Bench::new(Kind::Stock)?;
        let at = &bench.instance;
        let more = format!("capacity = 5\noverflow = \"{policy}\"");
        let config = bench.head()
            + &at.mqueue("in", "")
            + &at.mqueue("out", "")
            + &at.mqueue("side", "")
            + &route("in", &["out"], &more)
            + &route("in", &["side"], "capacity = 64");
        let daemon = bench.daemon(&config)?;
        let (mut sender, mut receiver) = (bench.sends_to("in")?, bench.receives_from("out")?);
        sender.stream(1, 30)?;
        let read = at.until("all accepted", |s| {
            s.routes.iter().all(|r| r.ledger.accepted == 30)
        })?;
        balanced(&read)?;
        let first: Vec<u64> = (1..=10).chain(last - 4..=last).collect();
        let got = receiver.numbers_for(30, 500)?;
        ensure!(got == first, "{policy}: {got:?}");
        // A receiver that is stuck holds up no other of the same source.
        let mut side = bench.receives_from("side")?;
        ensure!(
            side.numbers_for(30, 2000)? == (1..=30).collect::<Vec<_>>(),
            "{policy}"
        );
        daemon.stop()?;
    }
    Ok(())
}

fn a_stop_delivers_or_accounts_and_keeps_the_queues_or_not() -> anyhow::Result<()> {
    for keep in [true, false] {
        let bench = Bench::new(Kind::Stock)?;
        let at = &bench.instance;
        let head = bench.head().replacen(
            "[daemon]\n",
            &format!("[daemon]\nkeep_queues = {keep}\n"),
            1,
        );
        let config =
            head + &at.mqueue("in", "") + &at.mqueue("out", "") + &route("in", &["out"], "");
        let daemon = bench.daemon(&config)?;
        let mut sender = bench.sends_to("in")?;
        sender.stream(0, 14)?;
        at.until("four wait", |s| s.routes[0].ledger.queued == 4)?;
        let log = daemon.stop()?;
        ensure!(
            log.contains("accepted 14 = delivered 10 ") && log.contains("rejected 4 "),
            "{log}"
        );
        let there = bench.receives_from("out");
        ensure!(there.is_ok() == keep, "keep_queues = {keep}");
        if keep {
            ensure!(there?.numbers_for(14, 200)? == (0..10).collect::<Vec<_>>());
            let log = bench.daemon(&config)?.stop()?;
            ensure!(log.contains("adopted message queue"), "{log}");
        }
    }
    Ok(())
}

fn a_thread_that_loses_its_mode_is_counted_and_logged() -> anyhow::Result<()> {
    if let Some(lack) = lacks_stand_in("RTD_STAND_IN_RELAX_EVERY") {
        return skip(&lack);
    }
    let bench = Bench::new(Kind::Stock)?;
    let at = &bench.instance;
    let config =
        bench.head() + &at.mqueue("in", "") + &at.mqueue("out", "") + &route("in", &["out"], "");
    // A receive, a send, and a sleep that takes the mode back: each of the sends leaves the thread
    // relaxed.
    let daemon = bench.daemon_with(&config, |command| {
        command.env("RTD_STAND_IN_RELAX_EVERY", "3");
    })?;
    let (mut sender, mut receiver) = (bench.sends_to("in")?, bench.receives_from("out")?);
    sender.stream(0, 40)?;
    ensure!(receiver.receive_for(40, 2000)?.len() == 40);
    let read = at.until("counted", |s| s.lanes[0].counters.mode_switches >= 5)?;
    ensure!(read.workers[0].counters.mode_switches == read.lanes[0].counters.mode_switches);
    daemon.logged("thread in of lane lane lost its real-time mode (1 time by now")?;
    let json: serde_json::Value = serde_json::from_slice(&at.rtctl(&["stats", "--json"])?.stdout)?;
    ensure!(
        json["skin"] == "cobalt (stand-in)"
            && json["lanes"][0]["mode_switches"].as_u64() >= Some(5)
    );
    let log = daemon.stop()?;
    let told = log.matches("lost its real-time mode").count();
    ensure!((2..=12).contains(&told), "told {told} times:\n{log}");
    Ok(())
}

fn the_choice_falls_back_with_the_reason_or_fails_with_it() -> anyhow::Result<()> {
    if let Some(lack) = lacks_stand_in("RTD_STAND_IN_INIT") {
        return skip(&lack);
    }
    let missing = Kind::Without("__cobalt_mq_send");
    let cases = [
        (
            Kind::Stock,
            "exit",
            "xenomai_init ended the child process that tried it (exit status: 1)",
        ),
        (Kind::Stock, "enosys", "Cobalt core not enabled in kernel"),
        (Kind::Stock, "eperm", "returned without binding the process"),
        (Kind::RefusesDlopen, "", "--enable-dlopen-libs"),
        (missing, "", "does not export __cobalt_mq_send"),
    ];
    for (kind, init, reason) in cases {
        let bench = Bench::new(kind)?;
        let at = &bench.instance;
        let config = bench.head()
            + &at.mqueue("in", "")
            + &at.mqueue("out", "")
            + &route("in", &["out"], "");
        let env = [("RTD_STAND_IN_INIT", init)];
        let refused = bench.check(&config, &[], &env)?;
        let said = String::from_utf8(refused.stderr)?;
        ensure!(
            refused.status.code() == Some(1) && said.contains(reason),
            "{kind:?} {init}: {said}"
        );
        ensure!(
            said.contains("daemon.skin") && said.contains("fix: skin = \"posix\""),
            "{said}"
        );
        let falls_back = bench.check(&config, &["--skin", "auto"], &env)?;
        let (out, said) = (
            String::from_utf8(falls_back.stdout)?,
            String::from_utf8(falls_back.stderr)?,
        );
        ensure!(
            falls_back.status.success() && out.contains("skin posix: ") && out.contains(reason),
            "{out}"
        );
        ensure!(
            said.contains("warning: Cobalt is not available, so the lanes would run on posix"),
            "{said}"
        );
    }
    let bench = Bench::new(Kind::Stock)?;
    let at = &bench.instance;
    let config =
        bench.head() + &at.mqueue("in", "") + &at.mqueue("out", "") + &route("in", &["out"], "");
    let posix = String::from_utf8(bench.check(&config, &["--skin", "posix"], &[])?.stdout)?;
    ensure!(posix.contains("skin posix: asked for"), "{posix}");
    let none = config.replace(&format!("cobalt_library = {:?}\n", bench.libcobalt), "");
    let refused = String::from_utf8(bench.check(&none, &[], &[])?.stderr)?;
    let cobalt_runs_here = std::path::Path::new("/proc/xenomai/version").exists();
    ensure!(
        cobalt_runs_here || refused.contains("no Cobalt core runs in this kernel"),
        "{refused}"
    );
    // The start falls back as the check does.
    let daemon = bench.daemon_with(
        &config.replace("skin = \"cobalt\"", "skin = \"auto\""),
        |command| {
            command.env("RTD_STAND_IN_INIT", "exit");
        },
    )?;
    ensure!(at.snapshot()?.skin == "posix");
    daemon.logged("skin posix: xenomai_init ended the child process that tried it")?;
    daemon.stop()?;
    Ok(())
}

fn a_thread_that_is_not_promoted_refuses_the_start_also_a_degraded_one() -> anyhow::Result<()> {
    if let Some(lack) = lacks_stand_in("RTD_STAND_IN_PROMOTE_OTHERS") {
        return skip(&lack);
    }
    let bench = Bench::new(Kind::Stock)?;
    let at = &bench.instance;
    let config =
        bench.head() + &at.mqueue("in", "") + &at.mqueue("out", "") + &route("in", &["out"], "");
    let refused = bench.daemon_with(&config, |command| {
        command
            .arg("--allow-degraded")
            .env("RTD_STAND_IN_PROMOTE_OTHERS", "1");
    });
    let said = refused.map(|_| ()).map_err(|e| format!("{e:#}"));
    ensure!(
        said.as_ref()
            .is_err_and(|e| e.contains("cannot run threads without their priority")),
        "{said:?}"
    );
    // What was made is taken back.
    eventually(|| bench.receives_from("out").is_err().then_some(()))
}

fn settings_that_cobalt_lacks_are_refused_with_the_fix() -> anyhow::Result<()> {
    let bench = Bench::new(Kind::Stock)?;
    let at = &bench.instance;
    let lane = |name: &str, owner: &str| {
        format!(
            "[[endpoint]]\nname = \"{name}\"\nkind = \"lane\"\nowner = \"{owner}\"\nmsgsize = 64\n"
        )
    };
    let ends =
        process("planner") + &process("arm") + &lane("plan", "planner") + &lane("axis", "arm");
    let routed = bench.head() + &ends + &route("plan", &["axis"], "");
    let checked = bench.check(&routed, &[], &[])?;
    let said = String::from_utf8(checked.stdout)?;
    ensure!(
        checked.status.success() && said.contains("sessions that bind it as well: arm, planner"),
        "{said}"
    );
    let direct = bench.head() + &ends + &route("plan", &["axis"], "path = \"direct\"");
    let checked = bench.check(&direct, &[], &[])?;
    ensure!(
        checked.status.success()
            && !String::from_utf8(checked.stdout)?.contains("sessions that bind")
    );
    let long = "q".repeat(70);
    let warned = bench.head()
        + &process("arm")
        + &at.mqueue("in", "mode = \"0600\"")
        + &signal("ring", "arm", "SIGRTMIN+4", "")
        + &route("in", &["ring"], "truncate = true");
    let said = String::from_utf8(bench.check(&warned, &[], &[])?.stderr)?;
    ensure!(
        said.contains("target = \"thread\"") && said.contains("`mode` has no effect"),
        "{said}"
    );
    let long = warned.replacen(&at.queue("in"), &format!("/{long}"), 1);
    let said = String::from_utf8(bench.check(&long, &[], &[])?.stderr)?;
    ensure!(said.contains("71 bytes, on `cobalt` at most 63"), "{said}");
    Ok(())
}
