//! What tests say to a participant with a session about single messages, and what it answers.

use super::order::{Answer, Counters, Item, Receive, Refused, Send, Sent};
use super::talk::{answers, patience_ms};
use super::{Instance, Peer, eventually, process, route};
use anyhow::{Context as _, bail};

/// A message as it came out of an inbox.
pub use super::order::Received as Got;

impl Got {
    /// The payload as a number.
    pub fn number(&self) -> Option<u64> {
        self.bytes
            .as_slice()
            .try_into()
            .ok()
            .map(u64::from_ne_bytes)
    }
}

/// A lane endpoint of `slots` slots of 64 bytes.
pub fn endpoint(name: &str, owner: &str, slots: usize) -> String {
    format!(
        "[[endpoint]]\nname = \"{name}\"\nkind = \"lane\"\nowner = \"{owner}\"\nmaxmsg = {slots}\nmsgsize = 64\n"
    )
}

/// `a.out` to `b.in`, with so many slots each; the keys of the route.
pub fn pair(instance: &Instance, [out, into]: [usize; 2], rules: &str) -> String {
    instance.head()
        + &process("a")
        + &process("b")
        + &endpoint("a.out", "a", out)
        + &endpoint("b.in", "b", into)
        + &route("a.out", &["b.in"], rules)
}

/// `a`, which reaches `b`, which receives in its inbox `i`.
pub fn peers(instance: &Instance) -> anyhow::Result<[Peer; 2]> {
    let b = Peer::with_inbox(instance, "b")?;
    let mut a = Peer::from_endpoint(instance, "a", "a.out")?;
    a.reach("a.out")?;
    Ok([a, b])
}

answers! {
    items: Items -> Vec<Item>,
    counters: Counters -> Counters,
}

/// With the session's participant (`session`).
impl Peer {
    /// One that sends from `endpoint`, whose receiver may come later.
    pub fn from_endpoint(instance: &Instance, name: &str, endpoint: &str) -> anyhow::Result<Peer> {
        let mut peer = Peer::session(instance, name)?;
        peer.claim(endpoint)?;
        Ok(peer)
    }

    /// One that receives everything in the inbox `i`.
    pub fn with_inbox(instance: &Instance, name: &str) -> anyhow::Result<Peer> {
        let mut peer = Peer::session(instance, name)?;
        peer.open_inbox()?;
        Ok(peer)
    }

    /// Sends bytes; their sequence number, or the refusal.
    pub fn lane_send(
        &mut self,
        endpoint: &str,
        bytes: &[u8],
    ) -> anyhow::Result<Result<u64, Refused>> {
        Ok(self.timed_send(endpoint, bytes)?.0)
    }

    /// The same with the time it took.
    pub fn timed_send(
        &mut self,
        endpoint: &str,
        bytes: &[u8],
    ) -> anyhow::Result<(Result<u64, Refused>, u64)> {
        let order = Send::Timed {
            endpoint,
            bytes: bytes.to_vec(),
            intended_ns: None,
        };
        let Sent { sent, took_ns } = self.tell(order)?.sent()?;
        Ok((sent, took_ns))
    }

    /// Sends numbers, each at once or not at all: how many went in, and how many found it full.
    pub fn burst(&mut self, endpoint: &str, from: u64, count: u64) -> anyhow::Result<(u64, u64)> {
        let order = Send::Burst {
            endpoint,
            from,
            count,
        };
        let Answer::Burst { sent, full, other } = self.tell(order)? else {
            bail!("not Burst")
        };
        anyhow::ensure!(other == 0, "{other} were refused for another reason");
        Ok((sent, full))
    }

    /// Sends numbers, waiting for room.
    pub fn lane_stream(&mut self, endpoint: &str, from: u64, count: u64) -> anyhow::Result<()> {
        let order = Send::Stream {
            endpoint,
            from,
            count,
        };
        self.tell(order).map(drop)
    }

    /// Waits for `count` messages in inbox `i`; fewer when no more come.
    pub fn take(&mut self, count: usize) -> anyhow::Result<Vec<Got>> {
        self.take_from("i", count)
    }

    /// The same from another inbox.
    pub fn take_from(&mut self, key: &str, count: usize) -> anyhow::Result<Vec<Got>> {
        let (count, ms) = (count as u64, patience_ms());
        messages(self.tell(Receive::Items { key, count, ms })?)
    }

    /// What is there now, messages and events.
    pub fn now(&mut self) -> anyhow::Result<Vec<Item>> {
        let (key, count, ms) = ("i", 1_000_000, 0);
        self.tell(Receive::Items { key, count, ms })?.items()
    }

    /// Messages that are there now.
    pub fn left(&mut self) -> anyhow::Result<Vec<Got>> {
        messages(Answer::Items(self.now()?))
    }

    /// Waits for an event that says this.
    pub fn event(&mut self, says: &str) -> anyhow::Result<()> {
        let says_so = |item: &Item| matches!(item, Item::Event(text) if text.contains(says));
        eventually(|| self.now().ok()?.iter().any(says_so).then_some(()))
            .with_context(|| format!("no event {says}"))
    }

    /// As `take`, the payloads as numbers.
    pub fn take_numbers(&mut self, count: usize) -> anyhow::Result<Vec<u64>> {
        self.ask_numbers(count)?;
        self.taken_numbers()
    }

    /// Begins to wait for numbers; `taken_numbers` has them.
    pub fn ask_numbers(&mut self, count: usize) -> anyhow::Result<()> {
        let (key, count, ms) = ("i", count as u64, patience_ms());
        self.ask(Receive::Numbers { key, count, ms })
    }

    /// The answer to `ask_numbers`.
    pub fn taken_numbers(&mut self) -> anyhow::Result<Vec<u64>> {
        self.answer()?.numbers()
    }

    /// Numbers that come within this time.
    pub fn numbers_within(&mut self, count: u64, ms: u64) -> anyhow::Result<Vec<u64>> {
        let key = "i";
        self.tell(Receive::Numbers { key, count, ms })?.numbers()
    }

    /// Numbers that are there, read in place.
    pub fn in_place(&mut self, count: u64) -> anyhow::Result<Vec<u64>> {
        let key = "i";
        self.tell(Receive::InPlace { key, count })?.numbers()
    }

    /// Those of the inbox `i`.
    pub fn counters(&mut self) -> anyhow::Result<Counters> {
        self.tell(Receive::Counters("i"))?.counters()
    }
}

/// Counters of an inbox that got so many messages, of which so many are missing, and nothing else.
pub fn clean(received: u64, missed: u64) -> Counters {
    Counters {
        received,
        missed,
        ..Counters::default()
    }
}

/// The messages of these items.
fn messages(answer: Answer) -> anyhow::Result<Vec<Got>> {
    let message = |item| match item {
        Item::Message(message) => Some(message),
        Item::Event(_) => None,
    };
    Ok(answer.items()?.into_iter().filter_map(message).collect())
}
