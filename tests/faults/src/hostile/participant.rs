//! The tests' hostile participant, and what it needs around it.

use std::time::Duration;

#[path = "../../../util/liar_peer.rs"]
pub mod liar_peer;

fn patience() -> Duration {
    Duration::from_secs(2)
}

mod peer {
    use anyhow::Context as _;

    pub fn unhex(hex: &str) -> anyhow::Result<Vec<u8>> {
        let digits = |at| hex.get(at..at + 2).context("an odd number of digits");
        (0..hex.len())
            .step_by(2)
            .map(|at| Ok(u8::from_str_radix(digits(at)?, 16)?))
            .collect()
    }
}
