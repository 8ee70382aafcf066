//! What the machine adds to latencies: rtd says it in one line each, and holds /dev/cpu_dma_latency
//! where asked.

use crate::util::needs::{DMA_LATENCY, ROOT, SECOND_USER};
use crate::util::tool::{as_nobody, rtd, run_on};
use crate::util::{Daemon, Instance, first_cpu, route};
use anyhow::{Context as _, ensure};
use rtcore::sys::{cpus, idle, throttle};
use std::io::Read as _;
use std::path::Path;

tests![
    the_device_is_held_from_before_the_change_of_user_to_the_end needs(ROOT, DMA_LATENCY),
    a_device_that_cannot_be_opened_is_a_warning_with_its_permissions_and_the_fix needs(SECOND_USER),
    check_and_start_say_in_one_line_each_what_adds_to_latencies,
];

fn config(instance: &Instance, daemon: &str) -> String {
    [
        instance
            .head()
            .replacen("[daemon]\n", &format!("[daemon]\n{daemon}\n"), 1),
        instance.mqueue("in", ""),
        instance.mqueue("out", ""),
        route("in", &["out"], ""),
    ]
    .concat()
}

const NOBODY: u32 = 65_534;

/// How many descriptors of a process are the device.
fn held_by(pid: u32) -> anyhow::Result<usize> {
    let mut count = 0;
    for entry in std::fs::read_dir(format!("/proc/{pid}/fd"))? {
        count += usize::from(
            std::fs::read_link(entry?.path()).is_ok_and(|to| to == Path::new(idle::DEVICE)),
        );
    }
    Ok(count)
}

fn the_device_is_held_from_before_the_change_of_user_to_the_end() -> anyhow::Result<()> {
    let instance = Instance::new()?;
    let daemon = Daemon::start(&config(&instance, ""))?;
    ensure!(
        held_by(daemon.pid())? == 0,
        "held although the file does not ask for it"
    );
    daemon.logged("/dev/cpu_dma_latency is not held by rtd")?;
    drop(daemon);
    for user in ["", "\nuser = \"nobody\""] {
        let socket = instance.socket();
        let dir = Path::new(&socket).parent().context("no directory")?;
        let owner = if user.is_empty() { 0 } else { NOBODY };
        std::os::unix::fs::chown(dir, Some(owner), None)?;
        let daemon = Daemon::start(&config(&instance, &format!("cpu_dma_latency = 20{user}")))?;
        daemon.logged("/dev/cpu_dma_latency is held at 20 us")?;
        let log = daemon.log();
        ensure!(!log.contains("is not held"), "{log}");
        ensure!(held_by(daemon.pid())? == 1, "rtd does not hold it:\n{log}");
        // The kernel's answer is the least of all requests: another program may request less.
        let mut bytes = [0; 4];
        std::fs::File::open(idle::DEVICE)?.read_exact(&mut bytes)?;
        ensure!(
            (0..=20).contains(&i32::from_ne_bytes(bytes)),
            "{}",
            i32::from_ne_bytes(bytes)
        );
    }
    Ok(())
}

fn a_device_that_cannot_be_opened_is_a_warning_with_its_permissions_and_the_fix()
-> anyhow::Result<()> {
    let instance = Instance::new()?;
    let mut command = rtd(&["check", "--allow-degraded", "-"]);
    as_nobody(&mut command);
    let said = run_on(
        command,
        config(&instance, "cpu_dma_latency = 20").as_bytes(),
    )?;
    let why = if Path::new(idle::DEVICE).exists() {
        "; mode 0600, uid 0, gid 0)"
    } else {
        "No such file"
    };
    for part in [
        why,
        "cpu_dma_latency = 20",
        "cannot open /dev/cpu_dma_latency",
        "GROUP=\"rtd\"",
        "DeviceAllow=",
    ] {
        ensure!(said.err.contains(part), "no {part:?} in\n{}", said.err);
    }
    // It is said once.
    ensure!(!said.out.contains("is not held"), "{}", said.out);
    Ok(())
}

fn check_and_start_say_in_one_line_each_what_adds_to_latencies() -> anyhow::Result<()> {
    let instance = Instance::new()?;
    let text = config(&instance, "");
    let said = run_on(rtd(&["check", "--allow-degraded", "-"]), text.as_bytes())?;
    let out = said.well()?;
    let daemon = Daemon::start(&text)?;
    daemon.logged("control socket")?;
    let log = daemon.log();
    let shared = cpus::isolated().is_ok_and(|isolated| !isolated.contains(&first_cpu()));
    let takes = throttle::of_cpus(&[first_cpu()]).is_some();
    let lines = [
        ("is not held by rtd", true),
        ("from lanes on a busy CPU", takes),
        ("lane `lane` on CPU", shared),
    ];
    for (line, expected) in lines {
        for (place, text) in [("check", &out), ("log", &log)] {
            let count = text.matches(line).count();
            ensure!(
                count == usize::from(expected),
                "{line:?} is {count} times in {place}:\n{text}"
            );
        }
    }
    let without = run_on(
        rtd(&["check", "--allow-degraded", "-"]),
        config(&instance, "cpu_dma_latency = 0").as_bytes(),
    )?;
    ensure!(
        !without.out.contains("is not held by rtd"),
        "{}",
        without.out
    );
    Ok(())
}
