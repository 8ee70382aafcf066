//! The programs at the two ends of a stream. They know their journal and their endpoint, and
//! nothing of the campaign.

mod child;
mod receive;
mod send;

use crate::journal::{CORRUPT, Control, Mapped, STRANGER};
use crate::plan::{self, EndKind};
use anyhow::Context as _;
use clap::Args;
use rtcore::client::Session;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How an end is started.
#[derive(Args, Debug)]
pub struct Actor {
    /// `send` or `receive`.
    side: String,
    /// How it takes part.
    #[arg(value_parser = |word: &str| EndKind::of(word).ok_or("no such kind"))]
    kind: EndKind,
    /// Its endpoint, and its name.
    endpoint: String,
    /// Number of the stream.
    index: usize,
    /// Number n of SIGRTMIN+n.
    signal: usize,
    /// Time between two messages.
    interval_us: u64,
    /// Where the journals are.
    directory: PathBuf,
}

impl Actor {
    /// The words after the program's name.
    pub fn words(
        side: &str,
        kind: EndKind,
        endpoint: &str,
        numbers: [u64; 3],
        directory: &Path,
    ) -> Vec<String> {
        let [index, signal, interval_us] = numbers.map(|n| n.to_string());
        let directory = directory.display().to_string();
        ["actor", side, kind.word(), endpoint]
            .map(str::to_owned)
            .into_iter()
            .chain([index, signal, interval_us, directory])
            .collect()
    }

    /// Plays it until it is killed.
    pub fn play(self) -> anyhow::Result<()> {
        #[cfg(feature = "fault-points")]
        rtcore::fault::attach().context("fault points")?;
        match self.side.as_str() {
            "send" => send::play(&self),
            "receive" => receive::play(&self),
            other => anyhow::bail!("there is no side {other}"),
        }
    }

    fn control(&self) -> anyhow::Result<Mapped<Control>> {
        Mapped::open(&self.directory.join("control"))
    }

    fn journal<T: crate::journal::Plain>(&self) -> anyhow::Result<Mapped<T>> {
        self.journal_of(&self.endpoint)
    }

    fn journal_of<T: crate::journal::Plain>(&self, endpoint: &str) -> anyhow::Result<Mapped<T>> {
        Mapped::open(&self.directory.join(endpoint))
    }

    /// Where answers are sent from, and where they come.
    fn answers(&self) -> (String, String) {
        (plan::source(self.index + 1), plan::sink(self.index + 1, 0))
    }

    fn tag(&self) -> u64 {
        tag(self.index)
    }

    fn signo(&self) -> i32 {
        // At most 30.
        rtcore::sys::rtsignal::rt_range().0 + i32::try_from(self.signal).unwrap_or(0)
    }

    /// A session under its name, whenever rtd is there.
    fn session(&self) -> anyhow::Result<Session> {
        loop {
            match Session::builder(&self.endpoint)
                .instance(crate::plan::INSTANCE)
                .timeout(Duration::from_secs(5))
                .connect()
            {
                Ok(session) => return Ok(session),
                // The name's last holder may still be ending, and rtd may be away.
                Err(_) => std::thread::sleep(Duration::from_millis(3)),
            }
        }
    }
}

/// What tells the messages of one stream from those of another.
pub fn tag(index: usize) -> u64 {
    (index as u64 + 1) << 48
}

/// The messages of a stream: its tag and a number, and the complement of both.
fn message(tag: u64, n: u64) -> [u8; 16] {
    let value = tag | n;
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&value.to_ne_bytes());
    bytes[8..].copy_from_slice(&(!value).to_ne_bytes());
    bytes
}

/// The number of a message; [`CORRUPT`] where it is not one of the stream's.
fn number(tag: u64, bytes: &[u8]) -> u64 {
    let word = |at: usize| {
        bytes
            .get(at..at + 8)
            .and_then(|b| b.try_into().ok())
            .map(u64::from_ne_bytes)
    };
    let Some(value) = word(0) else { return CORRUPT };
    if value == STRANGER {
        return STRANGER;
    }
    let whole = match bytes.len() {
        8 | 32 => true,
        16 | 24 => word(8) == Some(!value),
        _ => false,
    };
    if whole && value >> 48 == tag >> 48 {
        value & ((1 << 48) - 1)
    } else {
        CORRUPT
    }
}

/// An answer: a message of the stream of answers, and the number of the request.
fn answer(tag: u64, n: u64, request: u64) -> [u8; 24] {
    let mut bytes = [0; 24];
    bytes[..16].copy_from_slice(&message(tag, n));
    bytes[16..].copy_from_slice(&request.to_ne_bytes());
    bytes
}

/// The number of an answer; [`CORRUPT`] where it is not the answer to that request.
fn answer_number(tag: u64, request: u64, bytes: &[u8]) -> u64 {
    if bytes.get(16..) == Some(&request.to_ne_bytes()[..]) {
        number(tag, bytes)
    } else {
        CORRUPT
    }
}

fn queue(
    endpoint: &str,
    access: rtcore::sys::mqueue::Access,
    nonblocking: bool,
) -> anyhow::Result<rtcore::sys::mqueue::Queue> {
    let name = std::ffi::CString::new(crate::plan::Stream::queue(endpoint))?;
    rtcore::sys::mqueue::Queue::open(&name, access, nonblocking)
        .with_context(|| endpoint.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_of_another_stream_or_with_wrong_bytes_is_corrupt() {
        let good = message(tag(3), 77);
        assert_eq!(number(tag(3), &good), 77);
        assert_eq!(number(tag(3), &good[..8]), 77);
        assert_eq!(number(tag(4), &good), CORRUPT);
        assert_eq!(number(tag(3), &good[..12]), CORRUPT);
        let reply = answer(tag(3), 77, 5);
        assert_eq!(
            (
                answer_number(tag(3), 5, &reply),
                answer_number(tag(3), 6, &reply)
            ),
            (77, CORRUPT)
        );
        for at in 0..16 {
            let mut bad = good;
            bad[at] ^= 1;
            assert_eq!(number(tag(3), &bad), CORRUPT, "byte {at}");
        }
    }
}
