//! What `rtlat` refuses, and with which exit code; and the end that `-b` makes.

use crate::util::Instance;
use crate::util::lat::{Counts, lat, measure_code};
use crate::util::needs::SECOND_USER;
use crate::util::tool::{as_nobody, run};
use anyhow::{Context as _, ensure};
use rtcore::sys::cpus;

tests![
    slips_exit_with_2_and_name_the_option,
    what_cannot_be_done_exits_with_1_and_says_what_would_help,
    what_an_ordinary_user_lacks_is_named_with_the_line_that_grants_it needs(SECOND_USER),
    a_broken_bound_exits_with_3_and_shows_the_culprit,
];

fn slips_exit_with_2_and_name_the_option() -> anyhow::Result<()> {
    let instance = Instance::new()?;
    for (args, names) in [
        (&["mq", "-p", "100"][..], "--priority"),
        (&["mq", "-i", "soon"], "--interval"),
        (&["mq", "-D", "1w"], "--duration"),
        (&["mq", "-D", "0"], "--duration"),
        (&["mq", "-l", "-1"], "-1"),
        (&["mq", "--size", "23"], "--size"),
        (&["mq", "--format", "xml"], "--format"),
        (&["mq", "--histogram", "0"], "--histogram"),
        (&["mq", "--nothing"], "--nothing"),
        (&["mq", "more"], "more"),
        (&["mq", "-t", "257"], "-t 257"),
        (&["mq", "-a", "x"], "-a x"),
        (&["mq", "-a", ","], "-a ,"),
        (&["mq", "--load", "disk"], "disk"),
        (&["mq", "--sync", "--round-trip"], "--round-trip"),
        (&["timer", "-i", "0"], "-i 0"),
        (&["timer", "-f"], "-f"),
        (&["timer", "--round-trip"], "--round-trip"),
        (&["timer", "--sync"], "--sync"),
        (&["route"], "<PATH>"),
        (&["route", "mq-tcp"], "mq-tcp"),
        (&["route", "mq-mq", "--from", "a", "--to", "b"], "--from"),
        (&["compare", "--only", "mqq"], "--only mqq"),
        (&["compare", "--placement", "there"], "--placement"),
        (&["nonsense"], "nonsense"),
        (&[], "Usage"),
    ] {
        let said = run(lat(&instance, args)?)?;
        ensure!(
            said.code() == Some(2) && said.out.is_empty(),
            "{args:?}: {said:?}"
        );
        ensure!(
            said.err.contains(names),
            "{args:?} does not name {names}: {}",
            said.err
        );
    }
    Ok(())
}

fn what_cannot_be_done_exits_with_1_and_says_what_would_help() -> anyhow::Result<()> {
    let instance = Instance::new()?;
    let last = cpus::allowed()?
        .into_iter()
        .max()
        .context("no CPU")?
        .to_string();
    for (args, says) in [
        (
            &["timer", "-a", "1023"][..],
            &["CPU 1023", "only on", last.as_str()][..],
        ),
        (
            &["mq", "--size", "16777000", "-l", "9"],
            &["16777000", "fs.mqueue.msgsize_max", "sysctl -w"],
        ),
        (
            &["sysv", "--size", "16777000", "-l", "9"],
            &["16777000", "kernel.msgm", "sysctl -w"],
        ),
        (
            &["signal", "-t", "200", "-l", "9"],
            &["real-time signals", "at most"],
        ),
        (
            &["compare", "--against", "/nowhere/base.json"],
            &["/nowhere/base.json"],
        ),
        (
            &[
                "route",
                "--from",
                "a",
                "--to",
                "b",
                "--instance",
                "nobody-is",
            ],
            &["nobody-is", "rtd run"],
        ),
    ] {
        run(lat(&instance, args)?)?
            .refused(says)
            .with_context(|| format!("{args:?}"))?;
    }
    Ok(())
}

fn what_an_ordinary_user_lacks_is_named_with_the_line_that_grants_it() -> anyhow::Result<()> {
    let instance = Instance::new()?;
    let as_them = |args: &[&str]| -> anyhow::Result<_> {
        let mut command = lat(&instance, args)?;
        as_nobody(&mut command).env("TMPDIR", "/tmp");
        run(command)
    };
    let fifo = ["SCHED_FIFO ", " was not granted", "cap_sys_nice", "-p 0"];
    for args in [
        &["timer", "-p", "50"][..],
        &["mq", "-p", "50"],
        &["mq", "-f", "--round-trip", "-p", "50"],
    ] {
        as_them(args)?
            .refused(&fifo)
            .with_context(|| format!("{args:?}"))?;
    }
    // Without, it measures; every mechanism.
    for name in [
        "timer", "mq", "signal", "sem", "mutex", "futex", "eventfd", "pipe", "unix", "sysv",
    ] {
        let out = as_them(&[name, "-q", "-l", "20"])?.well().context(name)?;
        ensure!(
            Counts::read(&out)?
                .iter()
                .all(|c| c.balances() && c.received > 0),
            "{name}: {out}"
        );
    }
    let out = as_them(&["route", "lane", "-q", "-l", "20", "-p", "0"])?.well()?;
    ensure!(
        Counts::read(&out)?
            .iter()
            .all(|c| c.balances() && c.received > 0),
        "{out}"
    );
    Ok(())
}

/// More than the quickest of wake-ups takes.
fn a_broken_bound_exits_with_3_and_shows_the_culprit() -> anyhow::Result<()> {
    let instance = Instance::new()?;
    for args in [
        &["timer"][..],
        &["timer", "-t", "2"],
        &["mq"],
        &["mq", "-f"],
        &["mq", "--round-trip", "-f"],
        &["pipe", "-t", "2"],
    ] {
        let all = [args, &["-q", "-b", "1"]].concat();
        let measured = measure_code(&instance, &all, 3)?;
        let out = &measured.said.out;
        for says in [
            "# Break thread: ",
            "# Break value: ",
            "more than the 1.00 us of -b",
            "\n# > ",
        ] {
            ensure!(out.contains(says), "{all:?} does not say {says:?}: {out}");
        }
        ensure!(measured.json["return_code"] == 3, "{}", measured.json);
        let culprits = measured.pairs();
        let culprit = culprits
            .iter()
            .map(|pair| &pair["culprit"])
            .find(|culprit| culprit.is_object());
        let culprit = culprit.with_context(|| measured.json.to_string())?;
        let index = usize::try_from(culprit["index"].as_u64().context("no index")?)?;
        let raw = culprit["samples"][index]["raw_ns"].as_u64();
        ensure!(
            raw.is_some_and(|ns| ns > 1000) && culprit["bound_ns"] == 1000,
            "{culprit}"
        );
        ensure!(Counts::read(out)?.iter().all(Counts::balances), "{out}");
    }
    // Nothing takes an hour.
    let measured = measure_code(&instance, &["mq", "-q", "-l", "20", "-b", "3600000000"], 0)?;
    ensure!(
        !measured.said.out.contains("Break"),
        "{}",
        measured.said.out
    );
    Ok(())
}
