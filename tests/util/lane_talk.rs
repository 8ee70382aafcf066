//! What tests say to a participant that has a session, and what it answers, as values.

use super::{Instance, Peer, eventually, patience, process, route};
use anyhow::Context as _;

/// A message as it came out of an inbox.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Got {
    pub endpoint: String,
    pub from: String,
    pub lane: String,
    pub route: String,
    pub sequence: u64,
    pub missed: u64,
    pub intended_ns: u64,
    pub sent_ns: u64,
    pub correlation: u64,
    pub pid: u32,
    pub uid: u32,
    pub verified: bool,
    pub mq_priority: u32,
    /// Number and value, where it was a signal.
    pub signal: (i32, u64),
    pub bytes: Vec<u8>,
}

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

impl Peer {
    /// A participant with a session as `name`.
    pub fn in_session(instance: &Instance, name: &str) -> anyhow::Result<Peer> {
        let mut peer = Peer::start()?;
        peer.connect(instance, name)?;
        Ok(peer)
    }

    /// Opens a session as `name`.
    pub fn connect(&mut self, instance: &Instance, name: &str) -> anyhow::Result<()> {
        self.tell(&format!("lane connect {} {name}", instance.socket()))?;
        Ok(())
    }

    /// One that sends from `endpoint`, whose receiver may come later.
    pub fn from_endpoint(instance: &Instance, name: &str, endpoint: &str) -> anyhow::Result<Peer> {
        let mut peer = Peer::in_session(instance, name)?;
        peer.tell(&format!("lane claim {endpoint}"))?;
        Ok(peer)
    }

    /// One that receives everything in the inbox `i`.
    pub fn with_inbox(instance: &Instance, name: &str) -> anyhow::Result<Peer> {
        let mut peer = Peer::in_session(instance, name)?;
        peer.tell("lane inbox i")?;
        Ok(peer)
    }

    /// Waits until somebody receives from the endpoint.
    pub fn reach(&mut self, endpoint: &str) -> anyhow::Result<()> {
        self.tell(&format!("lane reach {endpoint}"))?;
        Ok(())
    }

    /// Sends bytes; their sequence number, or the refusal in a word.
    pub fn lane_send(
        &mut self,
        endpoint: &str,
        bytes: &[u8],
    ) -> anyhow::Result<Result<u64, String>> {
        Ok(self.timed_send(endpoint, bytes)?.0)
    }

    /// The same with the time it took.
    pub fn timed_send(
        &mut self,
        endpoint: &str,
        bytes: &[u8],
    ) -> anyhow::Result<(Result<u64, String>, u64)> {
        let hex = if bytes.is_empty() {
            "-".to_owned()
        } else {
            rtd::ctl::payload::hex(bytes)
        };
        let lines = self.tell(&format!("lane send {endpoint} {hex}"))?;
        let (word, took) = first(&lines)?.split_once(' ').context("no time")?;
        Ok((word.parse().map_err(|_| word.to_owned()), took.parse()?))
    }

    /// Sends numbers, each at once or not at all: how many went in, and how many found it full.
    pub fn burst(&mut self, endpoint: &str, from: u64, count: u64) -> anyhow::Result<(u64, u64)> {
        let lines = self.tell(&format!("lane burst {endpoint} {from} {count}"))?;
        let words: Vec<u64> = first(&lines)?
            .split(' ')
            .map(str::parse)
            .collect::<Result<_, _>>()?;
        anyhow::ensure!(
            words[2] == 0,
            "{} were refused for another reason",
            words[2]
        );
        Ok((words[0], words[1]))
    }

    /// Sends numbers, waiting for room.
    pub fn lane_stream(&mut self, endpoint: &str, from: u64, count: u64) -> anyhow::Result<()> {
        self.tell(&format!("lane stream {endpoint} {from} {count}"))?;
        Ok(())
    }

    /// Waits for `count` messages in inbox `i`; fewer when no more come.
    pub fn take(&mut self, count: usize) -> anyhow::Result<Vec<Got>> {
        self.take_from("i", count)
    }

    /// The same from another inbox.
    pub fn take_from(&mut self, key: &str, count: usize) -> anyhow::Result<Vec<Got>> {
        let lines = self.tell(&format!(
            "lane recv {key} {count} {}",
            patience().as_millis()
        ))?;
        lines
            .iter()
            .filter(|line| line.starts_with("m "))
            .map(|line| parse(line))
            .collect()
    }

    /// What is there now, messages and events, as lines.
    pub fn now(&mut self) -> anyhow::Result<Vec<String>> {
        self.tell("lane recv i 1000000 0")
    }

    /// Messages that are there now.
    pub fn left(&mut self) -> anyhow::Result<Vec<Got>> {
        self.now()?
            .iter()
            .filter(|line| line.starts_with("m "))
            .map(|line| parse(line))
            .collect()
    }

    /// Waits for an event that begins so.
    pub fn event(&mut self, begins: &str) -> anyhow::Result<String> {
        let begins = format!("e {begins}");
        eventually(|| {
            self.now()
                .ok()?
                .into_iter()
                .find(|line| line.starts_with(&begins))
        })
        .with_context(|| format!("no event {begins}"))
    }

    /// As `take`, the payloads as numbers.
    pub fn take_numbers(&mut self, count: usize) -> anyhow::Result<Vec<u64>> {
        self.ask_numbers(count)?;
        self.taken_numbers()
    }

    /// Begins to wait for numbers; `taken_numbers` has them.
    pub fn ask_numbers(&mut self, count: usize) -> anyhow::Result<()> {
        self.ask(&format!(
            "lane numbers i {count} {}",
            patience().as_millis()
        ))
    }

    /// The answer to `ask_numbers`.
    pub fn taken_numbers(&mut self) -> anyhow::Result<Vec<u64>> {
        Ok(self
            .answer()?
            .iter()
            .map(|line| line.parse())
            .collect::<Result<_, _>>()?)
    }
}

/// The one line of an answer.
pub fn first(lines: &[String]) -> anyhow::Result<&str> {
    lines.first().map(String::as_str).context("no answer")
}

fn parse(line: &str) -> anyhow::Result<Got> {
    let mut words = line.split(' ').skip(1);
    let mut next = || {
        words
            .next()
            .map(str::to_owned)
            .with_context(|| format!("short: {line}"))
    };
    Ok(Got {
        endpoint: next()?,
        from: next()?,
        lane: next()?,
        route: next()?,
        sequence: next()?.parse()?,
        missed: next()?.parse()?,
        intended_ns: next()?.parse()?,
        sent_ns: next()?.parse()?,
        correlation: next()?.parse()?,
        pid: next()?.parse()?,
        uid: next()?.parse()?,
        verified: next()? == "1",
        mq_priority: next()?.parse()?,
        signal: (next()?.parse()?, next()?.parse()?),
        bytes: super::peer::unhex(&next()?)?,
    })
}
