//! What the documents allow to happen to a message, and nothing else. Each entry cites the
//! sentence.

/// A sentence of the documents.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Serialize, serde::Deserialize,
)]
pub enum Sentence {
    /// A killed rtd loses the message that a lane had received from a queue.
    QueueMessageInHand,
    /// A killed rtd loses the signals that were pending in its process.
    PendingInRtd,
    /// Signals that arrive after their lane has stopped.
    LateSignals,
    /// What was handed to a receiver that ended is delivered.
    HandedOver,
    /// A receiver behind a queue or a signal may get the message in hand twice.
    Twice,
    /// Two members of a group of which one gets each message may both get the message in hand.
    TwiceInGroup,
    /// A message that is refused as disconnected may arrive.
    RefusedAndArrived,
    /// The last page of a killed rtd shows more waiting copies than there were.
    LastPage,
    /// The page of a killed rtd was removed before, and the copy that took its place is up to 100
    /// ms old.
    OldFigures,
    /// What is replayed to the next rtd may be counted by both.
    Replayed,
    /// A ring whose other process ended with rtd.
    RingOfTheDead,
    /// A queue that another program removes.
    QueueRemoved,
    /// A receiver that reads the ring of an rtd that has ended reports to nobody what it discards.
    DiscardedAfterEnd,
}

impl Sentence {
    /// All of them.
    #[cfg(test)]
    pub const ALL: [Sentence; 13] = [
        Sentence::QueueMessageInHand,
        Sentence::PendingInRtd,
        Sentence::LateSignals,
        Sentence::HandedOver,
        Sentence::Twice,
        Sentence::TwiceInGroup,
        Sentence::RefusedAndArrived,
        Sentence::LastPage,
        Sentence::OldFigures,
        Sentence::Replayed,
        Sentence::RingOfTheDead,
        Sentence::DiscardedAfterEnd,
        Sentence::QueueRemoved,
    ];

    /// The file that has it, and its words there.
    pub fn source(self) -> (&'static str, &'static str) {
        match self {
            Sentence::QueueMessageInHand => (
                "rtd/book/src/messages.md",
                "the message that a lane had received from a message queue and not yet passed on",
            ),
            Sentence::PendingInRtd => (
                "rtd/book/src/messages.md",
                "real-time signals pending in rtd's own process",
            ),
            Sentence::LateSignals => (
                "rtd/book/src/messages.md",
                "signals that arrive after their lane has stopped",
            ),
            Sentence::HandedOver => (
                "rtd/book/src/messages.md",
                "the message was handed to the receiver's kernel queue or ring",
            ),
            Sentence::Twice => (
                "rtd/book/src/messages.md",
                "so their receivers may get that message twice",
            ),
            Sentence::TwiceInGroup => (
                "rtd/ARCHITECTURE.md",
                "this message can be received twice in a group, once by each of two members",
            ),
            Sentence::RefusedAndArrived => (
                "rtcore/src/client/sender.rs",
                "that is refused as disconnected may still arrive",
            ),
            Sentence::LastPage => (
                "rtd/book/src/messages.md",
                "can include copies that the killed rtd had just handed over",
            ),
            Sentence::OldFigures => (
                "rtd/book/src/messages.md",
                "does not know what was queued in the last 100 ms before the kill",
            ),
            Sentence::Replayed => (
                "rtd/book/src/messages.md",
                "replays what is in its ring, including the message that a lane had in hand",
            ),
            Sentence::DiscardedAfterEnd => (
                "rtd/book/src/configuration.md",
                "Messages that it discards there are counted in `Inbox::counters` only",
            ),
            Sentence::RingOfTheDead => (
                "rtd/book/src/messages.md",
                "messages in a ring whose other process died with rtd",
            ),
            Sentence::QueueRemoved => (
                "rtd/book/src/messages.md",
                "If a program removes a queue, the messages in it are lost with it",
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_documents_say_so() {
        let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
        let one_line = |text: &str| {
            let words = text
                .split_whitespace()
                .filter(|word| !matches!(*word, "///" | "//!"));
            words.collect::<Vec<_>>().join(" ")
        };
        for sentence in Sentence::ALL {
            let (file, words) = sentence.source();
            let text = std::fs::read_to_string(root.join(file)).unwrap();
            assert!(
                one_line(&text).contains(words),
                "{file} does not say: {words}"
            );
        }
    }
}
