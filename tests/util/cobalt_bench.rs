//! A daemon and participants on the stand-in for libcobalt, in a space of their own.

use super::{Daemon, Instance, Peer};
use anyhow::{Context as _, ensure};
use rtcore::stats::reader::Snapshot;
use stand_in_cobalt::copies::{self, Kind};
use stand_in_cobalt::{Space, follow};
use std::process::{Command, Output};

/// Has the stand-in count what Linux calls promoted threads make.
const FOLLOW: &str = "RTD_STAND_IN_FOLLOW";

/// A deployment in a space of its own.
#[derive(Debug)]
pub struct Bench {
    pub instance: Instance,
    pub space: Space,
    pub libcobalt: String,
}

impl Bench {
    /// Its own space, and this library.
    pub fn new(kind: Kind) -> anyhow::Result<Bench> {
        let instance = Instance::new()?;
        let space = Space::new(&instance.name);
        let libcobalt = copies::library(kind)?.display().to_string();
        Ok(Bench { instance, space, libcobalt })
    }

    /// As [`Instance::head`], on this library.
    pub fn head(&self) -> String {
        let daemon = format!("[daemon]\nskin = \"cobalt\"\ncobalt_library = {:?}\n", self.libcobalt);
        self.instance.head().replacen("[daemon]\n", &daemon, 1)
    }

    /// The daemon.
    pub fn daemon(&self, config: &str) -> anyhow::Result<Daemon> {
        self.daemon_with(config, |_| {})
    }

    /// The same, with the command changed first.
    pub fn daemon_with(&self, config: &str, change: impl FnOnce(&mut Command)) -> anyhow::Result<Daemon> {
        Daemon::start_with(config, |command| {
            let (key, value) = self.space.environment();
            command.env(key, value);
            change(command);
        })
    }

    /// A participant on Cobalt.
    pub fn peer(&self) -> anyhow::Result<Peer> {
        self.peer_with(|_| {})
    }

    fn peer_with(&self, change: impl FnOnce(&mut Command)) -> anyhow::Result<Peer> {
        let (key, value) = self.space.environment();
        Peer::on_cobalt(&self.libcobalt, |command| {
            command.env(key, value);
            change(command);
        })
    }

    /// The daemon, whose Linux calls are counted.
    pub fn followed(&self, config: &str) -> anyhow::Result<Daemon> {
        self.daemon_with(config, |command| {
            command.env(FOLLOW, "1");
        })
    }

    /// A participant with a session of this name, whose main thread is promoted below the lane; its Linux calls are
    /// counted where they can be.
    pub fn session(&self, name: &str) -> anyhow::Result<Peer> {
        let mut peer = self.peer_with(|command| {
            if follow::is_supported() {
                command.env(FOLLOW, "1");
            }
        })?;
        peer.tell(&format!("session open {} {name}", self.instance.socket()))?;
        ensure!(peer.tell("session promote lane")? == ["49"]);
        Ok(peer)
    }

    /// One that sends from this endpoint.
    pub fn sender(&self, name: &str, endpoint: &str) -> anyhow::Result<Peer> {
        let mut peer = self.session(name)?;
        peer.tell(&format!("session sender {endpoint}"))?;
        Ok(peer)
    }

    /// One that receives all that there is.
    pub fn inbox(&self, name: &str) -> anyhow::Result<Peer> {
        let mut peer = self.session(name)?;
        peer.tell("session inbox")?;
        Ok(peer)
    }

    /// Linux calls of a promoted thread that was in real-time mode.
    pub fn linux_calls(&self, tid: u32) -> anyhow::Result<(u32, i32)> {
        self.space.linux_calls(i32::try_from(tid)?).with_context(|| format!("nobody knows thread {tid}"))
    }

    /// A peer that has taken this name.
    pub fn registered(&self, name: &str) -> anyhow::Result<Peer> {
        let mut peer = self.peer()?;
        peer.tell(&format!("register {} {name}", self.instance.socket()))?;
        Ok(peer)
    }

    /// A peer that has this queue of the instance open.
    pub fn at(&self, access: &str, queue: &str) -> anyhow::Result<Peer> {
        let mut peer = self.peer()?;
        peer.tell(&format!("open {access} {}", self.instance.queue(queue)))?;
        Ok(peer)
    }

    /// `rtd check` on a configuration.
    pub fn check(&self, config: &str, args: &[&str], env: &[(&str, &str)]) -> anyhow::Result<Output> {
        let file = self.instance.file("check.toml");
        std::fs::write(&file, config)?;
        let (key, value) = self.space.environment();
        let mut command = Command::new(env!("CARGO_BIN_EXE_rtd"));
        command.arg("check").args(args).arg(&file).env(key, value).envs(env.iter().copied());
        command.output().context("cannot run rtd check")
    }
}

/// No message is unaccounted for.
pub fn balanced(snapshot: &Snapshot) -> anyhow::Result<()> {
    ensure!(snapshot.routes.iter().all(|r| r.ledger.balances()), "{:#?}", snapshot.routes);
    Ok(())
}
