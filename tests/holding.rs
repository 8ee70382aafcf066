//! Queues that others have a hand in: made before rtd, removed under it, shared with another instance.

use crate::util::tool::{NOBODY, as_nobody, nobody_lacks};
use crate::util::{Daemon, Instance, Peer, held, route, skip, status};
use anyhow::{Context as _, ensure};

/// `in` to `out`; `daemon` and `source` add keys.
fn config(instance: &Instance, daemon: &str, source: &str) -> String {
    instance.head().replace("[daemon]", &format!("[daemon]\n{daemon}"))
        + &instance.mqueue("in", source)
        + &instance.mqueue("out", "")
        + &route("in", &["out"], "")
}

/// Why a daemon did not start.
fn refusal(config: &str) -> anyhow::Result<String> {
    Ok(format!("{:#}", Daemon::start(config).err().context("it started")?))
}

/// Who made a queue can change its mode and read and write it whatever the configuration says.
pub fn a_strangers_queue_is_not_adopted() -> anyhow::Result<()> {
    if let Some(needs) = nobody_lacks() {
        return skip(needs);
    }
    let i = Instance::new()?;
    let mut stranger = Peer::start_with(|c| _ = as_nobody(c))?;
    stranger.tell(&format!("create {} 666", i.queue("in")))?;
    stranger.send(0, b"forged")?;
    let said = refusal(&config(&i, "", "mode = \"0600\""))?;
    ensure!(said.contains(&format!("belongs to uid {NOBODY}")) && said.contains("rm /dev/mqueue"), "{said}");
    ensure!(held(&i.queue("in"))? == 1 && status(&i.queue("in"))?.mode == 0o666, "it was touched");
    Ok(())
}

/// A mode that was changed in the file is the queue's after the next start.
pub fn an_adopted_queue_gets_the_configured_mode() -> anyhow::Result<()> {
    let i = Instance::new()?;
    Daemon::start(&config(&i, "", "mode = \"0666\""))?.stop()?;
    ensure!(status(&i.queue("in"))?.mode == 0o666);
    let log = Daemon::start(&config(&i, "", "mode = \"0600\""))?.stop()?;
    ensure!(status(&i.queue("in"))?.mode == 0o600);
    ensure!(log.contains("mode 0666 changed to 0600") && log.contains("keeps it open"), "{log}");
    let log = Daemon::start(&config(&i, "", "mode = \"0600\""))?.stop()?;
    ensure!(!log.contains("changed to"), "{log}");
    Ok(())
}
