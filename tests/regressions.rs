//! Defects that were found once, each with the least that shows it.

use crate::util::{Daemon, Instance, Peer, route};
use anyhow::ensure;

tests![a_lane_that_drains_sooner_than_others_is_no_defect,];

/// A lane thread that had drained and ended before the others was taken for one that died by
/// itself: a clean stop ended with exit code 1.
fn a_lane_that_drains_sooner_than_others_is_no_defect() -> anyhow::Result<()> {
    let i = Instance::new()?;
    // Five control ticks long, because nobody reads `out`.
    let config = i
        .head()
        .replace("[daemon]\n", "[daemon]\ndrain = \"500ms\"\n")
        + &i.mqueue("idle", "")
        + &i.mqueue("in", "")
        + &i.mqueue("sink", "")
        + &i.mqueue("out", "")
        + &route("idle", &["sink"], "name = \"idle\"")
        + &route("in", &["out"], "name = \"stuck\"\ncapacity = 20");
    let daemon = Daemon::start(&config)?;
    let mut sender = Peer::start()?;
    sender.open_to_send(&i.queue("in"))?;
    sender.stream(0, 25)?;
    i.until("15 wait", |s| s.routes[1].ledger.queued == 15)?;
    let log = daemon.stop()?;
    let ledger = "accepted 25 = delivered 10 + expired 0 + displaced 0 + rejected 15 + peer-dead 0 + queued 0";
    ensure!(log.contains(ledger) && !log.contains("defect"), "{log}");
    Ok(())
}
