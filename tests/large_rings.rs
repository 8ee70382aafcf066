//! Sessions whose rings take hundreds of MiB: nobody waits for their memory but who asked for it,
//! and they do not get rtd killed where its control group has no room for them.

use crate::util::needs::Need;
use crate::util::session::lane_end;
use crate::util::tool::{RTD, run};
use crate::util::{Daemon, Instance, process, route};
use anyhow::{Context as _, ensure};
use rtcore::client::Session;
use rtcore::sys::seqpacket::Conn;
use rtcore::wire::{FRAME_BYTES, Request};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

tests![
    a_large_session_holds_up_nobody,
    a_session_that_outgrows_the_control_group_is_refused_and_rtd_lives needs(MEMORY_GROUP),
];

/// A ring of 256 MiB.
const LARGE: &str = "msgsize = 65536\nmaxmsg = 4096";
/// A ping that takes longer was held up by something.
const HELD_UP: Duration = Duration::from_millis(400);

/// Process `arm` sends from so many large endpoints.
fn config(i: &Instance, large: usize) -> String {
    let ends = (0..large).map(|n| {
        lane_end(&format!("arm.{n}"), "arm", LARGE)
            + &route(
                &format!("arm.{n}"),
                &["drive.in"],
                "capacity = 1\noverflow = \"reject\"",
            )
    });
    i.head()
        + &process("arm")
        + &process("drive")
        + &lane_end("drive.in", "drive", "msgsize = 65536\nmaxmsg = 2")
        + &ends.collect::<String>()
}

/// Asks again and again until `done`: the longest answer.
fn longest_ping(socket: &str, done: impl Fn() -> bool) -> anyhow::Result<Duration> {
    let mut longest = Duration::ZERO;
    let mut pings = 0;
    while !done() || pings == 0 {
        let since = Instant::now();
        let conn = Conn::connect(Path::new(socket), Duration::from_secs(20))?;
        conn.send(&Request::Ping.encode())?;
        let mut frame = [0; FRAME_BYTES];
        conn.receive_within(&mut frame, Duration::from_secs(20))?;
        longest = longest.max(since.elapsed());
        pings += 1;
        std::thread::sleep(Duration::from_millis(2));
    }
    Ok(longest)
}

/// Four rings of 256 MiB: the session opens when they are made, and others are answered meanwhile,
/// also while they go.
fn a_large_session_holds_up_nobody() -> anyhow::Result<()> {
    let i = Instance::new()?;
    let daemon = Daemon::start(&config(&i, 4))?;
    let socket = i.socket();
    let open = || {
        let since = Instant::now();
        let session = Session::builder("arm")
            .socket(socket.clone())
            .timeout(Duration::from_secs(60))
            .connect();
        (session, since.elapsed())
    };
    let (longest, session, took) = std::thread::scope(|scope| {
        let opening = scope.spawn(open);
        let longest = longest_ping(&socket, || opening.is_finished());
        let (session, took) = opening
            .join()
            .map_err(|_| anyhow::anyhow!("the client panicked"))?;
        anyhow::Ok((longest?, session?, took))
    })?;
    println!("opened after {took:?}, longest ping {longest:?}");
    ensure!(
        longest < HELD_UP,
        "a ping took {longest:?} while a session opened, which took {took:?}"
    );
    session.sender("arm.3")?.send(b"hello").ok();
    // One that goes before its rings are made, and one that asks twice.
    drop(session);
    i.until("it has left", |s| {
        s.processes[0].pid != std::process::id() || s.processes[0].state as u32 != 1
    })?;
    let closing = Instant::now();
    let longest = longest_ping(&socket, || closing.elapsed() > Duration::from_millis(700))?;
    println!("longest ping while the rings go: {longest:?}");
    ensure!(
        longest < HELD_UP,
        "a ping took {longest:?} while the rings of a session went"
    );
    let conn = Conn::connect(Path::new(&socket), Duration::from_secs(5))?;
    let ask = Request::Open {
        name: rtcore::wire::Name::new("arm")?,
        tid: 0,
        semaphores: false,
        resumes: 0,
        program: 1,
        lane: None,
    };
    conn.send(&ask.encode())?;
    drop(conn);
    let (session, took) = open();
    println!("opened again after {took:?}");
    drop(session?);
    daemon.stop()?;
    Ok(())
}

pub static MEMORY_GROUP: Need = Need::new("a memory controller of control groups (root)", || {
    Instance::new().is_ok_and(|i| Group::new(&i).is_some())
});

/// A control group of the test's own; removed at the end.
struct Group {
    dir: PathBuf,
    limit: &'static str,
}

impl Group {
    /// None where there is no memory controller that this user may use.
    fn new(i: &Instance) -> Option<Group> {
        let hierarchies = [
            ("/sys/fs/cgroup/memory", "memory.limit_in_bytes"),
            ("/sys/fs/cgroup", "memory.max"),
        ];
        hierarchies.into_iter().find_map(|(root, limit)| {
            let dir = Path::new(root).join(format!("rtd-{}", i.name));
            std::fs::create_dir(&dir).ok()?;
            let group = Group { dir, limit };
            group.dir.join(limit).exists().then_some(group)
        })
    }

    fn limit_to(&self, bytes: u64) -> anyhow::Result<()> {
        Ok(std::fs::write(
            self.dir.join(self.limit),
            bytes.to_string(),
        )?)
    }

    fn add(&self, pid: u32) -> anyhow::Result<()> {
        Ok(std::fs::write(
            self.dir.join("cgroup.procs"),
            pid.to_string(),
        )?)
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir(&self.dir);
    }
}

/// rtd was killed by the kernel for what its client asked for.
fn a_session_that_outgrows_the_control_group_is_refused_and_rtd_lives() -> anyhow::Result<()> {
    let i = Instance::new()?;
    let group = Group::new(&i).context("no memory controller")?;
    let text = config(&i, 1);
    let daemon = Daemon::start(&text)?;
    group.add(daemon.pid())?;
    group.limit_to(64 << 20)?;
    let open = || {
        Session::builder("arm")
            .socket(i.socket())
            .timeout(Duration::from_secs(30))
            .connect()
    };
    let refused = open().err().context("the session opened")?.to_string();
    let limit = group.dir.join(group.limit).display().to_string();
    for says in [
        "the rings of arm take 268",
        "endpoint arm.0",
        &limit,
        "maxmsg",
        "MemoryMax=",
    ] {
        ensure!(refused.contains(says), "{says}: {refused}");
    }
    run(i.rtctl_command(&["stats"]))?.well()?;
    // The check knows it before the start.
    let script = format!(
        "echo $$ > {}/cgroup.procs && exec {RTD} check -",
        group.dir.display()
    );
    let config_file = i.file("rtd.toml");
    std::fs::write(&config_file, &text)?;
    let mut check = Command::new("sh");
    check
        .args(["-c", &script])
        .stdin(std::fs::File::open(&config_file)?);
    let said = check.output()?;
    let said =
        String::from_utf8_lossy(&said.stderr).into_owned() + &String::from_utf8_lossy(&said.stdout);
    ensure!(
        said.contains(&limit) && said.contains("arm.0"),
        "rtd check: {said}"
    );
    group.limit_to(1 << 30)?;
    let session = open().context("the limit is higher now")?;
    drop(session);
    daemon.stop()?;
    Ok(())
}
