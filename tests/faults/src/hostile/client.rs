//! A registered process that means harm (SECURITY.md), in a process of its own beside the innocent
//! stream.

use super::participant::liar_peer::obey;
use clap::Args;
use std::time::Duration;

/// Name of the process, and of its endpoints: `.out` to `.in` through a lane, `.direct` to
/// `.direct.in`.
pub const NAME: &str = "hostile";
/// Bytes of its rings' memory that are worth writing to: eight slots behind the words.
const RING_BYTES: usize = 1024;
/// Between two attempts to get a session.
const AGAIN: Duration = Duration::from_millis(10);

/// What it does, again and again, until it is killed.
#[derive(Args, Debug)]
pub struct Client {
    /// `indices`, `garbage`, `frames`, `deaf`, `sleepers`.
    what: String,
    /// The control socket.
    socket: String,
    /// Of its random numbers.
    seed: u64,
}

impl Client {
    /// Plays it until it is killed.
    pub fn play(self) -> anyhow::Result<()> {
        let mut rng = fastrand::Rng::with_seed(self.seed);
        loop {
            // rtd ends its session, closes its connection, or refuses it for a while: it comes
            // back.
            if self.session(&mut rng).is_err() {
                std::thread::sleep(AGAIN);
            }
        }
    }

    fn session(&self, rng: &mut fastrand::Rng) -> anyhow::Result<()> {
        obey(&["close"])?;
        obey(&["connect", &self.socket])?;
        obey(&["open", NAME])?;
        match self.what.as_str() {
            "indices" => indices(rng),
            "garbage" => garbage(rng),
            "frames" => frames(rng),
            "deaf" => obey(&["deaf", "100000"]).map(drop),
            "sleepers" => {
                obey(&["put", "hostile.out", "0000000000000000"])?;
                obey(&["sleepers", "100"]).map(drop)
            }
            other => anyhow::bail!("a hostile client does not know {other}"),
        }
    }
}

const ENDPOINTS: [&str; 4] = [
    "hostile.out",
    "hostile.in",
    "hostile.direct",
    "hostile.direct.in",
];

/// Indices that cannot be, behind messages that can.
fn indices(rng: &mut fastrand::Rng) -> anyhow::Result<()> {
    obey(&["join", "hostile.direct"])?;
    obey(&["join", "hostile.direct.in"])?;
    for _ in 0..rng.usize(..3) {
        obey(&["put", "hostile.out", "0000000000000000"])?;
    }
    let wrong = [u64::MAX, 1 << 63, 100, 9, rng.u64(..), 0][rng.usize(..6)].to_string();
    let endpoint = ENDPOINTS[rng.usize(..ENDPOINTS.len())];
    obey(&["poke", endpoint, "0", &wrong])?;
    obey(&["ring", endpoint])?;
    std::thread::sleep(Duration::from_millis(2));
    Ok(())
}

/// Anything anywhere in the memory that it may write.
fn garbage(rng: &mut fastrand::Rng) -> anyhow::Result<()> {
    for _ in 0..200 {
        let endpoint = ENDPOINTS[rng.usize(..ENDPOINTS.len())];
        let length = if endpoint.ends_with("in") {
            128
        } else {
            RING_BYTES
        };
        let offset = (8 * rng.usize(..length / 8)).to_string();
        // Small numbers look like indices, lengths and states.
        let value = if rng.bool() {
            rng.u64(..16)
        } else {
            rng.u64(..)
        };
        obey(&["poke", endpoint, &offset, &value.to_string()])?;
        obey(&["ring", endpoint])?;
    }
    std::thread::sleep(Duration::from_millis(2));
    Ok(())
}

/// Frames of every wrong shape, one after the other.
fn frames(rng: &mut fastrand::Rng) -> anyhow::Result<()> {
    loop {
        let frame = if rng.bool() {
            super::garbage(rng)
        } else {
            super::wrong_version(rng)
        };
        let hex: String = frame.iter().map(|byte| format!("{byte:02x}")).collect();
        if obey(&["frame", &hex])?.contains("closed") {
            return Ok(());
        }
        obey(&["close"])?;
        obey(&["connect", crate::fault::SOCKET])?;
    }
}
