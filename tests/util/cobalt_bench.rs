//! A daemon and participants on the stand-in for libcobalt, in a space of their own; or on the
//! library that [`LIBRARY`] names, which on a Cobalt kernel is the real one.

use super::{Daemon, Instance, Peer};
use anyhow::{Context as _, ensure};
use rtcore::stats::reader::Snapshot;
use stand_in_cobalt::copies::{self, Kind};
use stand_in_cobalt::{Device, Space, follow};
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// Names the library that takes the place of the stand-in as it is built ([`Kind::Stock`]). Tests
/// that need a switch or another kind of the stand-in are skipped then.
const LIBRARY: &str = "RTD_COBALT_LIBRARY";
/// Has the stand-in count what Linux calls promoted threads make.
const FOLLOW: &str = "RTD_STAND_IN_FOLLOW";
/// What the real core shows of threads, semaphores and ports.
const CORE: &str = "/proc/xenomai";

fn named_library() -> Option<String> {
    std::env::var(LIBRARY).ok().filter(|path| !path.is_empty())
}

/// What a test needs that only the stand-in of this build has, if another library is named.
pub fn lacks_stand_in(what: &str) -> Option<String> {
    named_library().map(|path| format!("the stand-in ({what}), and {LIBRARY}={path}"))
}

/// A deployment in a space of its own.
#[derive(Debug)]
pub struct Bench {
    pub instance: Instance,
    pub libcobalt: String,
    /// None: the library is the real one.
    space: Option<Space>,
}

impl Bench {
    /// Its own space, and this library.
    pub fn new(kind: Kind) -> anyhow::Result<Bench> {
        let instance = Instance::new()?;
        let named = named_library().filter(|_| kind == Kind::Stock);
        let libcobalt = named.map_or_else(
            || Ok(copies::library(kind)?.display().to_string()),
            io::Result::Ok,
        )?;
        // A copy of the stand-in under another name is one still.
        let space = copies::is_stand_in(Path::new(&libcobalt))?.then(|| Space::new(&instance.name));
        Ok(Bench {
            instance,
            libcobalt,
            space,
        })
    }

    /// Name of the skin, as the tools show it.
    pub fn skin(&self) -> &'static str {
        if self.space.is_some() {
            "cobalt (stand-in)"
        } else {
            "cobalt"
        }
    }

    /// What a process has in its environment to be in the space.
    pub fn environment(&self) -> Option<(&'static str, &str)> {
        self.space.as_ref().map(Space::environment)
    }

    /// Names of the instance's semaphores that nobody has unlinked.
    pub fn semaphores(&self) -> Vec<String> {
        if let Some(space) = &self.space {
            return space.semaphores();
        }
        let prefix = format!("rtd.{}.", self.instance.name);
        let entries = std::fs::read_dir(format!("{CORE}/registry/posix/sem"))
            .into_iter()
            .flatten()
            .flatten();
        let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
        let names = names.map(|name| name.trim_start_matches('/').to_owned());
        names
            .filter(|name| name.starts_with(&prefix))
            .map(|name| format!("/{name}"))
            .collect()
    }

    /// The file of an XDDP port's device.
    pub fn device(&self, port: i16) -> PathBuf {
        self.space.as_ref().map_or_else(
            || format!("/dev/rtp{port}").into(),
            |space| space.device(port),
        )
    }

    /// What leads to the device of the port with this label.
    pub fn label(&self, label: &str) -> PathBuf {
        let real = || Path::new(CORE).join("registry/rtipc/xddp").join(label);
        self.space.as_ref().map_or_else(real, |space| {
            space.device(0).with_file_name("registry").join(label)
        })
    }

    /// The device, as a plain Linux program opens it that does not wait for rtd. A program that is
    /// being started by another test has what this process had open until its exec(2): meanwhile
    /// the device is busy.
    pub fn open_device(&self, port: i16) -> anyhow::Result<Device> {
        let path = self.device(port);
        super::eventually(|| match Device::open_now(&path) {
            Err(e)
                if e.kind() == io::ErrorKind::WouldBlock
                    || e.kind() == io::ErrorKind::ResourceBusy =>
            {
                None
            }
            opened => Some(opened),
        })?
        .with_context(|| format!("device of port {port}"))
    }

    /// The space, for what only the stand-in has.
    pub fn space(&self) -> anyhow::Result<&Space> {
        self.space.as_ref().context("this is no stand-in")
    }

    /// As [`Instance::head`], on this library.
    pub fn head(&self) -> String {
        let daemon = format!(
            "[daemon]\nskin = \"cobalt\"\ncobalt_library = {:?}\n",
            self.libcobalt
        );
        self.instance.head().replacen("[daemon]\n", &daemon, 1)
    }

    /// The daemon.
    pub fn daemon(&self, config: &str) -> anyhow::Result<Daemon> {
        self.daemon_with(config, |_| {})
    }

    /// The same, with the command changed first.
    pub fn daemon_with(
        &self,
        config: &str,
        change: impl FnOnce(&mut Command),
    ) -> anyhow::Result<Daemon> {
        Daemon::start_with(config, |command| {
            command.envs(self.environment());
            change(command);
        })
    }

    /// A participant on Cobalt.
    pub fn peer(&self) -> anyhow::Result<Peer> {
        self.peer_with(|_| {})
    }

    fn peer_with(&self, change: impl FnOnce(&mut Command)) -> anyhow::Result<Peer> {
        Peer::on_cobalt(&self.libcobalt, |command| {
            command.envs(self.environment());
            change(command);
        })
    }

    /// The daemon, whose Linux calls are counted.
    pub fn followed(&self, config: &str) -> anyhow::Result<Daemon> {
        self.daemon_with(config, |command| {
            command.env(FOLLOW, "1");
        })
    }

    /// A participant with a session of this name, whose main thread is promoted below the lane; its
    /// Linux calls are counted where they can be.
    pub fn session(&self, name: &str) -> anyhow::Result<Peer> {
        let mut peer = self.peer_with(|command| {
            if follow::is_supported() {
                command.env(FOLLOW, "1");
            }
        })?;
        peer.connect(&self.instance, name)?;
        ensure!(peer.promote("lane")? == 49);
        Ok(peer)
    }

    /// One that sends from this endpoint.
    pub fn sender(&self, name: &str, endpoint: &str) -> anyhow::Result<Peer> {
        let mut peer = self.session(name)?;
        peer.claim(endpoint)?;
        Ok(peer)
    }

    /// One that receives all that there is.
    pub fn inbox(&self, name: &str) -> anyhow::Result<Peer> {
        let mut peer = self.session(name)?;
        peer.open_inbox()?;
        Ok(peer)
    }

    /// Linux calls of a promoted thread that was in real-time mode, and the last one's number. The
    /// real core counts how often a thread left that mode (MSW), whatever made it leave.
    pub fn linux_calls(&self, tid: u32) -> anyhow::Result<(u32, i32)> {
        let calls = match &self.space {
            Some(space) => space.linux_calls(i32::try_from(tid)?),
            None => mode_switches(tid).map(|switches| (switches, 0)),
        };
        calls.with_context(|| format!("nobody knows thread {tid}"))
    }

    /// A peer that has taken this name.
    pub fn registered(&self, name: &str) -> anyhow::Result<Peer> {
        let mut peer = self.peer()?;
        peer.register(&self.instance, name)?;
        Ok(peer)
    }

    /// A peer that has this queue of the instance open for sending.
    pub fn sends_to(&self, queue: &str) -> anyhow::Result<Peer> {
        let mut peer = self.peer()?;
        peer.open_to_send(&self.instance.queue(queue))?;
        Ok(peer)
    }

    /// One that has it open for receiving.
    pub fn receives_from(&self, queue: &str) -> anyhow::Result<Peer> {
        let mut peer = self.peer()?;
        peer.open_to_receive(&self.instance.queue(queue))?;
        Ok(peer)
    }

    /// `rtd check` on a configuration.
    pub fn check(
        &self,
        config: &str,
        args: &[&str],
        env: &[(&str, &str)],
    ) -> anyhow::Result<Output> {
        let file = self.instance.file("check.toml");
        std::fs::write(&file, config)?;
        let mut command = Command::new(env!("CARGO_BIN_EXE_rtd"));
        command.arg("check");
        if !super::privileged() && !args.contains(&"--allow-degraded") {
            command.arg("--allow-degraded");
        }
        command
            .args(args)
            .arg(&file)
            .envs(self.environment())
            .envs(env.iter().copied());
        command.output().context("cannot run rtd check")
    }
}

/// The core's MSW of a thread: CPU, PID, MSW and others in a line each.
fn mode_switches(tid: u32) -> Option<u32> {
    let table = std::fs::read_to_string(format!("{CORE}/sched/stat")).ok()?;
    let mut rows = table
        .lines()
        .map(|line| line.split_whitespace().collect::<Vec<_>>());
    rows.find(|row| row.get(1) == Some(&tid.to_string().as_str()))?
        .get(2)?
        .parse()
        .ok()
}

/// No message is unaccounted for.
pub fn balanced(snapshot: &Snapshot) -> anyhow::Result<()> {
    ensure!(
        snapshot.routes.iter().all(|r| r.ledger.balances()),
        "{:#?}",
        snapshot.routes
    );
    Ok(())
}
