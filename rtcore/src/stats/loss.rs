//! The losses: the outcomes of an accepted message other than delivery, as one list.
//!
//! The ledger counts them, the page holds the time of the last one of each route, and log, tools
//! and JSON use these names.

use super::Ledger;
use crate::message::{Outcome, Reject};

/// How long a message counts as being lost now: `losing` is shown from the first loss until this
/// long after the last.
pub const LOSING_NS: u64 = 10_000_000_000;

/// An outcome other than delivered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Loss {
    /// The time to live ran out.
    Expired,
    /// Another message replaced it, by the route's overflow policy.
    Displaced,
    /// The receiver had ended or was not registered.
    PeerDead,
    /// The message was refused, for this reason.
    Rejected(Reject),
}

impl Loss {
    /// Length of an array with one element for each loss.
    pub const COUNT: usize = 3 + Reject::COUNT;

    /// All losses, in index order.
    pub const ALL: [Loss; Loss::COUNT] = {
        let mut all = [Loss::Expired; Loss::COUNT];
        (all[1], all[2]) = (Loss::Displaced, Loss::PeerDead);
        let mut at = 0;
        while at < Reject::COUNT {
            all[3 + at] = Loss::Rejected(Reject::ALL[at]);
            at += 1;
        }
        all
    };

    /// The loss of an outcome; none if the message was delivered.
    pub fn of(outcome: Outcome) -> Option<Loss> {
        match outcome {
            Outcome::Delivered => None,
            Outcome::Expired => Some(Loss::Expired),
            Outcome::Displaced => Some(Loss::Displaced),
            Outcome::PeerDead => Some(Loss::PeerDead),
            Outcome::Rejected(reason) => Some(Loss::Rejected(reason)),
        }
    }

    /// Its index in an array of [`Loss::COUNT`].
    pub fn index(self) -> usize {
        match self {
            Loss::Expired => 0,
            Loss::Displaced => 1,
            Loss::PeerDead => 2,
            Loss::Rejected(reason) => 3 + reason as usize,
        }
    }

    /// The name in `rtctl stats --json`.
    pub fn name(self) -> &'static str {
        match self {
            Loss::Expired => "expired",
            Loss::Displaced => "displaced",
            Loss::PeerDead => "peer_dead",
            Loss::Rejected(reason) => Reject::NAMES[reason as usize],
        }
    }

    /// Whether the configuration requests the loss: `conflate`, `displace-oldest` and
    /// `displace-newest` are the only policies that displace. Such messages are counted, but do not
    /// make a route `losing`.
    pub fn is_requested(self) -> bool {
        self == Loss::Displaced
    }
}

impl Ledger {
    /// The losses, in the order of [`Loss::ALL`].
    pub fn losses(&self) -> [u64; Loss::COUNT] {
        let mut losses = [0; Loss::COUNT];
        losses[..3].copy_from_slice(&[self.expired, self.displaced, self.peer_dead]);
        losses[3..].copy_from_slice(&self.rejected);
        losses
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_loss_has_its_own_place_and_name() {
        for (at, loss) in Loss::ALL.into_iter().enumerate() {
            assert_eq!(loss.index(), at);
            assert_eq!(
                Loss::ALL
                    .iter()
                    .filter(|other| other.name() == loss.name())
                    .count(),
                1,
                "{loss:?}"
            );
        }
    }

    #[test]
    fn losses_are_what_the_ledger_counts() {
        let ledger = Ledger {
            expired: 1,
            displaced: 2,
            peer_dead: 3,
            ..Ledger::default()
        };
        let mut rejected = ledger;
        rejected.rejected[Reject::Rate as usize] = 4;
        let count = |ledger: &Ledger, loss: Loss| ledger.losses()[loss.index()];
        assert_eq!(
            [Loss::Expired, Loss::Displaced, Loss::PeerDead].map(|l| count(&ledger, l)),
            [1, 2, 3]
        );
        assert_eq!(count(&rejected, Loss::Rejected(Reject::Rate)), 4);
        assert_eq!(rejected.losses().iter().sum::<u64>(), 10);
    }
}
