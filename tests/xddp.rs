//! Datagrams between Cobalt lanes and plain Linux programs, on the stand-in: a port's other end is
//! opened by this process, which is such a program.

use super::util::cobalt_bench::{Bench, balanced, lacks_stand_in};
use super::util::{patience, route};
use crate::util::needs::ROOT;
use anyhow::{Context as _, ensure};
use stand_in_cobalt::Device;
use stand_in_cobalt::copies::Kind;
use std::io;
use std::time::Duration;

tests![
    datagrams_go_from_a_device_into_a_queue_and_from_a_queue_to_the_device needs(ROOT),
    a_full_pool_is_a_full_receiver_and_then_the_policy_decides needs(ROOT),
    a_datagram_that_is_too_long_is_rejected_and_counted needs(ROOT),
    a_program_that_closes_the_device_disturbs_nobody needs(ROOT),
    a_program_that_opens_the_device_before_rtd_starts_waits_for_it needs(ROOT),
    a_stop_takes_what_is_in_the_port_and_frees_it needs(ROOT),
    a_port_that_another_rtd_has_refuses_the_start needs(ROOT),
    what_is_missing_for_it_is_refused_with_the_reason needs(ROOT),
    the_check_says_what_cobalt_means_for_a_plan,
    a_library_that_others_may_write_is_not_even_tried,
];

/// What a pool for 64 messages of 64 bytes holds of 8 bytes.
pub const POOL: u64 = 128;

/// No message comes: so long.
pub const A_WHILE: Duration = Duration::from_millis(200);

pub fn port(name: &str, number: i16, more: &str) -> String {
    let size = if more.contains("msgsize") {
        ""
    } else {
        "msgsize = 64\n"
    };
    format!("[[endpoint]]\nname = \"{name}\"\nkind = \"xddp\"\nport = {number}\n{size}{more}\n")
}

/// The next message, which is a number.
pub fn number(device: &Device) -> anyhow::Result<u64> {
    let message = device.read(patience())?.context("no message came")?;
    Ok(u64::from_ne_bytes(message.as_slice().try_into()?))
}

fn datagrams_go_from_a_device_into_a_queue_and_from_a_queue_to_the_device() -> anyhow::Result<()> {
    let bench = Bench::new(Kind::Stock)?;
    let at = &bench.instance;
    let config = bench.head()
        + &at.mqueue("in", "")
        + &at.mqueue("out", "")
        + &port("hmi", 1, "label = \"hmi\"")
        + &route("in", &["hmi"], "capacity = 512")
        + &route("hmi", &["out"], "capacity = 512");
    let daemon = bench.daemon(&config)?;
    let (mut sender, mut receiver) = (bench.sends_to("in")?, bench.receives_from("out")?);
    // What is sent while nobody is there waits.
    sender.stream(0, 3)?;
    at.until("sent", |s| s.routes[0].ledger.delivered == 3)?;
    let hmi = bench.open_device(1)?;
    ensure!([number(&hmi)?, number(&hmi)?, number(&hmi)?] == [0, 1, 2]);
    sender.stream(3, 200)?;
    for n in 3..203 {
        ensure!(number(&hmi)? == n);
    }
    // Both directions of one device, which is no circle; more than the receiver's queue holds.
    for n in 0..200_u64 {
        hmi.write(&n.to_ne_bytes())?;
    }
    ensure!(receiver.numbers_for(200, 2000)? == (0..200).collect::<Vec<_>>());
    let read = at.until("all delivered", |s| {
        s.routes.iter().all(|r| r.ledger.delivered >= 200)
    })?;
    balanced(&read)?;
    ensure!(
        read.workers.iter().all(|w| w.counters.allocations == 0),
        "{:#?}",
        read.workers
    );
    let device = bench.device(1);
    let listing = String::from_utf8(at.rtctl(&["ls"])?.stdout)?;
    ensure!(
        listing.contains(&format!("{}  64 x 64 B", device.display())),
        "{listing}"
    );
    let label = bench.label("hmi");
    ensure!(
        std::fs::read_link(&label)? == device,
        "the label leads to the device"
    );
    for command in [&["send", "hmi", "--text", "x"][..], &["listen", "hmi"]] {
        let refused = at.rtctl(command)?;
        let said = String::from_utf8(refused.stderr)?;
        ensure!(
            !refused.status.success() && said.contains("one program can open at a time"),
            "{said}"
        );
    }
    let log = daemon.stop()?;
    ensure!(
        log.contains("have no origin: every program that may open the device can send them"),
        "{log}"
    );
    ensure!(!label.exists(), "the port is free again");
    Ok(())
}

fn a_full_pool_is_a_full_receiver_and_then_the_policy_decides() -> anyhow::Result<()> {
    const MESSAGES: u64 = 300;
    for (policy, keeps_last) in [("reject", false), ("displace-oldest", true)] {
        let bench = Bench::new(Kind::Stock)?;
        let at = &bench.instance;
        let config = bench.head()
            + &at.mqueue("in", "")
            + &at.mqueue("side", "")
            + &port("hmi", 0, "maxmsg = 64\nmsgsize = 64")
            + &route(
                "in",
                &["hmi"],
                &format!("capacity = 5\noverflow = \"{policy}\""),
            )
            + &route("in", &["side"], "capacity = 512");
        let daemon = bench.daemon(&config)?;
        let mut sender = bench.sends_to("in")?;
        sender.stream(0, MESSAGES)?;
        let full = at.until("all accepted", |s| {
            s.routes.iter().all(|r| r.ledger.accepted == MESSAGES)
        })?;
        balanced(&full)?;
        let ledger = &full.routes[0].ledger;
        // Shorter ones than the longest have room in greater number: the core takes 64 bytes for 8
        // and a header.
        ensure!((ledger.delivered, ledger.queued) == (POOL, 5), "{ledger:?}");
        // A device that nobody reads holds up no other receiver.
        let mut side = bench.receives_from("side")?;
        ensure!(
            side.receive_for(MESSAGES, 2000)?.len() == usize::try_from(MESSAGES)?,
            "{policy}"
        );
        let hmi = bench.open_device(0)?;
        let first = ledger.delivered;
        let rest = if keeps_last { MESSAGES - 5 } else { first };
        for n in (0..first).chain(rest..rest + 5) {
            let got = number(&hmi)?;
            ensure!(got == n, "{policy}: {got}, not {n}");
        }
        ensure!(hmi.read(A_WHILE)?.is_none());
        balanced(&at.until("the rest went on", |s| {
            s.routes[0].ledger.delivered == first + 5
        })?)?;
        daemon.stop()?;
    }
    Ok(())
}

fn a_datagram_that_is_too_long_is_rejected_and_counted() -> anyhow::Result<()> {
    let bench = Bench::new(Kind::Stock)?;
    let at = &bench.instance;
    let config = bench.head()
        + &at.mqueue("out", "msgsize = 64")
        + &port("hmi", 0, "msgsize = 64\nmaxmsg = 100")
        + &route("hmi", &["out"], "");
    let daemon = bench.daemon(&config)?;
    let (hmi, mut receiver) = (bench.open_device(0)?, bench.receives_from("out")?);
    hmi.write(&[1; 65])?;
    // As long as the pool admits: still seen whole, and not received as something shorter.
    hmi.write(&[2; 8000])?;
    hmi.write(&[3; 64])?;
    ensure!(receiver.receive_for(2, 500)? == [(0, vec![3; 64])]);
    let read = at.until("accounted", |s| s.routes[0].ledger.accepted == 3)?;
    balanced(&read)?;
    let ledger = &read.routes[0].ledger;
    ensure!(
        (ledger.delivered, ledger.rejected.iter().sum::<u64>()) == (1, 2),
        "{ledger:?}"
    );
    ensure!(read.workers[0].counters.errors == 0);
    daemon.stop()?;
    Ok(())
}

fn a_program_that_closes_the_device_disturbs_nobody() -> anyhow::Result<()> {
    let bench = Bench::new(Kind::Stock)?;
    let at = &bench.instance;
    let config =
        bench.head() + &at.mqueue("out", "") + &port("hmi", 2, "") + &route("hmi", &["out"], "");
    let daemon = bench.daemon(&config)?;
    let mut receiver = bench.receives_from("out")?;
    for n in 0..20_u64 {
        let hmi = bench.open_device(2)?;
        hmi.write(&n.to_ne_bytes())?;
        ensure!(receiver.numbers_for(1, 5000)? == [n]);
        let second = Device::open_now(&bench.device(2))
            .map(drop)
            .map_err(|e| e.kind());
        ensure!(second == Err(io::ErrorKind::ResourceBusy), "{second:?}");
    }
    let read = at.until("all delivered", |s| s.routes[0].ledger.delivered == 20)?;
    balanced(&read)?;
    ensure!(read.workers[0].counters.errors == 0, "{:#?}", read.workers);
    let log = daemon.stop()?;
    ensure!(log.contains("accepted 20 = delivered 20 "), "{log}");
    Ok(())
}

fn a_program_that_opens_the_device_before_rtd_starts_waits_for_it() -> anyhow::Result<()> {
    let bench = Bench::new(Kind::Stock)?;
    let at = &bench.instance;
    let config =
        bench.head() + &at.mqueue("out", "") + &port("hmi", 1, "") + &route("hmi", &["out"], "");
    // The stand-in's devices are there once a process was bound.
    drop(bench.peer()?);
    let device = bench.device(1);
    let now = Device::open_now(&device).map(drop).map_err(|e| e.kind());
    ensure!(now == Err(io::ErrorKind::WouldBlock), "{now:?}");
    let hmi = std::thread::spawn(move || {
        let opened = Device::open(&device)?;
        opened.write(&5_u64.to_ne_bytes()).map(|()| opened)
    });
    let daemon = bench.daemon(&config)?;
    let opened = hmi
        .join()
        .map_err(|_| anyhow::anyhow!("the program panicked"))??;
    ensure!(bench.receives_from("out")?.numbers_for(1, 5000)? == [5]);
    daemon.stop()?;
    drop(opened);
    Ok(())
}

fn a_stop_takes_what_is_in_the_port_and_frees_it() -> anyhow::Result<()> {
    let bench = Bench::new(Kind::Stock)?;
    let at = &bench.instance;
    // A receiver that is full holds the lane's thread: what comes after stays in the port.
    let config = bench.head()
        + &at.mqueue("out", "")
        + &port("hmi", 0, "")
        + &route(
            "hmi",
            &["out"],
            "capacity = 1\noverflow = \"block:10000000\"",
        );
    let daemon = bench.daemon(&config)?;
    let hmi = bench.open_device(0)?;
    for n in 0..14_u64 {
        hmi.write(&n.to_ne_bytes())?;
    }
    at.until("the lane is held", |s| s.routes[0].ledger.delivered == 10)?;
    let log = daemon.stop()?;
    // Ten are in the queue; the others were taken at the stop, and none of them is unaccounted for.
    ensure!(
        log.contains("accepted 14 = delivered 10 ") && log.contains("rejected 4 "),
        "{log}"
    );
    let is_broken =
        |result: io::Result<()>| result.is_err_and(|e| e.kind() == io::ErrorKind::BrokenPipe);
    ensure!(
        is_broken(hmi.read(A_WHILE).map(drop)) && is_broken(hmi.write(b"x")),
        "the other end is closed"
    );
    drop(hmi);
    let waits = Device::open_now(&bench.device(0))
        .map(drop)
        .map_err(|e| e.kind());
    ensure!(waits == Err(io::ErrorKind::WouldBlock), "{waits:?}");
    // The next one finds the port free, also after one that could not clean up.
    let mut receiver = bench.receives_from("out")?;
    ensure!(receiver.numbers_for(14, 200)? == (0..10).collect::<Vec<_>>());
    bench.daemon(&config)?.kill()?;
    let daemon = bench.daemon(&config)?;
    let hmi = bench.open_device(0)?;
    hmi.write(&77_u64.to_ne_bytes())?;
    ensure!(receiver.numbers_for(1, 5000)? == [77]);
    daemon.stop()?;
    Ok(())
}

fn a_port_that_another_rtd_has_refuses_the_start() -> anyhow::Result<()> {
    let bench = Bench::new(Kind::Stock)?;
    let at = &bench.instance;
    let config =
        bench.head() + &at.mqueue("out", "") + &port("hmi", 0, "") + &route("hmi", &["out"], "");
    let daemon = bench.daemon(&config)?;
    let other = super::util::Instance::new()?;
    let second = config
        .replace(&at.name, &other.name)
        .replace(&at.socket(), &other.socket());
    let said = bench
        .daemon(&second)
        .map(|_| ())
        .map_err(|e| format!("{e:#}"));
    ensure!(
        said.as_ref()
            .is_err_and(|e| e.contains("cannot bind XDDP port 0")),
        "{said:?}"
    );
    daemon.stop()?;
    Ok(())
}

fn what_is_missing_for_it_is_refused_with_the_reason() -> anyhow::Result<()> {
    let bench = Bench::new(Kind::Stock)?;
    let at = &bench.instance;
    let routed =
        |ports: &str| bench.head() + &at.mqueue("out", "") + ports + &route("hmi", &["out"], "");
    let hmi = routed(&port("hmi", 0, ""));
    let twice = port("hmi", 0, "label = \"a\"") + &port("other", 0, "label = \"a\"");
    let cases = [
        (
            hmi.clone(),
            &["--skin", "posix"][..],
            "",
            &["only Cobalt has XDDP ports", "skin = \"cobalt\""][..],
        ),
        (
            hmi.clone(),
            &[],
            "1",
            &["is not available", "CONFIG_XENO_DRIVERS_RTIPC_XDDP"],
        ),
        (
            routed(&port("hmi", 40, "")),
            &[],
            "",
            &["has no device", "rtp40", "CONFIG_XENO_OPT_PIPE_NRDEV"],
        ),
        (
            routed(&port("hmi", -1, "")),
            &[],
            "",
            &["-1 is not within 0 to 32767"],
        ),
        (
            routed(&port("hmi", 0, "").replace("port = 0\n", "")),
            &[],
            "",
            &["`port` is missing"],
        ),
        (
            routed(&port("hmi", 0, "label = \"a/b\"")),
            &[],
            "",
            &["`a/b` is not a label"],
        ),
        (
            routed(&port("hmi", 0, "mode = \"0600\"")),
            &[],
            "",
            &["`mode` has no effect for kind = \"xddp\""],
        ),
        (
            routed(&port("hmi", 0, "maxmsg = 65536")),
            &[],
            "",
            &["a port's pool has at most 4194304"],
        ),
        (
            routed(&twice),
            &[],
            "",
            &[
                "port 0 already belongs to the endpoint on line",
                "port = 1",
                "label `a` already belongs to the endpoint",
            ],
        ),
    ];
    for (config, args, no_xddp, parts) in cases {
        if !no_xddp.is_empty() && lacks_stand_in("RTD_STAND_IN_NO_XDDP").is_some() {
            continue;
        }
        let refused = bench.check(&config, args, &[("RTD_STAND_IN_NO_XDDP", no_xddp)])?;
        let said = String::from_utf8(refused.stderr)?;
        ensure!(refused.status.code() == Some(1), "{config}{said}");
        for part in parts {
            ensure!(said.contains(part), "no {part:?} in {said}");
        }
    }
    if lacks_stand_in("Kind::Without").is_none() {
        let lacking = Bench::new(Kind::Without("__cobalt_recvfrom"))?;
        let config = hmi.replace(&bench.libcobalt, &lacking.libcobalt);
        let said = String::from_utf8(lacking.check(&config, &[], &[])?.stderr)?;
        ensure!(said.contains("does not export __cobalt_recvfrom"), "{said}");
        // Without such an endpoint the same library does.
        let none = lacking.head()
            + &at.mqueue("in", "")
            + &at.mqueue("out", "")
            + &route("in", &["out"], "");
        ensure!(lacking.check(&none, &[], &[])?.status.success());
    }
    let fine = bench.check(&hmi, &[], &[])?;
    let (out, said) = (
        String::from_utf8(fine.stdout)?,
        String::from_utf8(fine.stderr)?,
    );
    let device = bench.device(0);
    ensure!(fine.status.success() && said.is_empty(), "{said}");
    ensure!(
        out.contains(&format!("xddp {}  64 x 64B", device.display())),
        "{out}"
    );
    Ok(())
}

fn the_check_says_what_cobalt_means_for_a_plan() -> anyhow::Result<()> {
    let bench = Bench::new(Kind::Stock)?;
    let at = &bench.instance;
    let config = bench.head()
        + &super::util::process("arm")
        + &at.mqueue("in", "msgsize = 8\nmaxmsg = 10")
        + &super::util::signal("ring", "arm", "SIGRTMIN+4", "target = \"thread\"")
        + &port("hmi", 0, "")
        + &route("in", &["ring", "hmi"], "");
    let out = String::from_utf8(bench.check(&config, &[], &[])?.stdout)?;
    for part in [
        "queue bytes    400 of the kernel's memory, by `cobalt`; none of Linux's queues",
        "queues are in the namespace of `cobalt`",
        "a receiver of `ring` sees the lane's thread as the sender",
        "the core drops unread messages of `hmi`",
    ] {
        ensure!(out.contains(part), "no {part:?} in {out}");
    }
    // Nobody asked for Cobalt by name: said aloud, and not taken at all for queues that are written
    // for Linux's programs.
    let auto = bench.check(&config, &["--skin", "auto"], &[])?;
    let said = String::from_utf8(auto.stderr)?;
    ensure!(
        auto.status.success() && said.contains("plain Linux programs do not see: `in`"),
        "{said}"
    );
    let queues = bench.head()
        + &at.mqueue("in", "mode = \"0600\"")
        + &at.mqueue("out", "")
        + &route("in", &["out"], "");
    let posix = String::from_utf8(bench.check(&queues, &["--skin", "auto"], &[])?.stdout)?;
    ensure!(
        posix.contains("skin posix: endpoint `in` has a `mode`"),
        "{posix}"
    );
    ensure!(!posix.contains("namespace of `cobalt`"), "{posix}");
    Ok(())
}

fn a_library_that_others_may_write_is_not_even_tried() -> anyhow::Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    let bench = Bench::new(Kind::Stock)?;
    let at = &bench.instance;
    let copy = at.file("libcobalt.so.2");
    std::fs::copy(&bench.libcobalt, &copy)?;
    let shown = copy.display().to_string();
    let config =
        bench.head() + &at.mqueue("in", "") + &at.mqueue("out", "") + &route("in", &["out"], "");
    let config = config.replace(&bench.libcobalt, &shown);
    for (mode, status, part) in [
        (0o755, Some(0), ""),
        (0o777, Some(1), "any user may write it"),
        (0o757, Some(1), "any user may write it"),
    ] {
        std::fs::set_permissions(&copy, std::fs::Permissions::from_mode(mode))?;
        let checked = bench.check(&config, &[], &[])?;
        let said = String::from_utf8(checked.stderr)?;
        ensure!(
            checked.status.code() == status && said.contains(part),
            "{mode:o}: {said}"
        );
        if status == Some(1) {
            let fix = format!("chmod go-w {shown}");
            ensure!(
                said.contains("daemon.cobalt_library") && said.contains(&fix),
                "{said}"
            );
            // A fall-back would be a choice that the author of the file made.
            ensure!(
                bench
                    .check(&config, &["--skin", "auto"], &[])?
                    .status
                    .code()
                    == Some(1)
            );
        }
    }
    Ok(())
}
