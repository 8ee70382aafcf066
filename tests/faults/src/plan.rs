//! The streams of the campaign, and the configuration that carries them.

use std::fmt::Write as _;

/// How a program takes part at one end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// mq_send(3), mq_receive(3).
    Queue,
    /// sigqueue(3), sigwaitinfo(2); links nothing.
    Signal,
    /// A handler of sigaction(2); links nothing.
    Handler,
    /// A signal endpoint with `msgsize`: the library's dispatcher.
    Payload,
    /// A lane endpoint.
    Lane,
}

impl Way {
    /// As a command-line word.
    pub fn word(self) -> &'static str {
        match self {
            Way::Queue => "queue",
            Way::Signal => "signal",
            Way::Handler => "handler",
            Way::Payload => "payload",
            Way::Lane => "lane",
        }
    }

    /// From that word.
    pub fn of(word: &str) -> Option<Way> {
        [Way::Queue, Way::Signal, Way::Handler, Way::Payload, Way::Lane]
            .into_iter()
            .find(|w| w.word() == word)
    }

    /// Whether the process connects itself; else `rtctl run` registers it.
    pub fn links(self) -> bool {
        matches!(self, Way::Payload | Way::Lane)
    }
}

/// Who of several receivers gets a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Share {
    /// Each of them.
    Each,
    /// One of them: group `any`.
    Any,
    /// One of them: group `round-robin`.
    RoundRobin,
}

/// One sender, one route, one or more receivers.
#[derive(Clone, Debug)]
pub struct Stream {
    /// Place in the plan; also its tag in each message.
    pub index: usize,
    /// The sender.
    pub from: Way,
    /// The receivers.
    pub to: Vec<Way>,
    /// Who gets a message.
    pub share: Share,
    /// From memory to memory.
    pub direct: bool,
    /// The lane.
    pub lane: &'static str,
    /// Further keys of the route.
    pub keys: &'static str,
    /// Time between two messages.
    pub interval_us: u64,
}

/// Messages that a queue or a ring holds.
pub const MAXMSG: usize = 8;
/// Copies that a route holds for a full receiver.
pub const CAPACITY: usize = 16;

impl Stream {
    /// Name of the route.
    pub fn name(&self) -> String {
        let ends: Vec<&str> = self.to.iter().map(|way| way.word()).collect();
        let how = match (self.direct, self.share) {
            (true, _) => "-direct",
            (_, Share::Any) => "-any",
            (_, Share::RoundRobin) => "-rr",
            _ => "",
        };
        format!("{:02}-{}-{}{how}", self.index, self.from.word(), ends.join("-"))
    }

    /// Its source, which is also the name of the sender.
    pub fn source(&self) -> String {
        format!("s{:02}", self.index)
    }

    /// One of its sinks, which is also the name of the receiver.
    pub fn sink(&self, member: usize) -> String {
        format!("r{:02}.{member}", self.index)
    }

    /// Name of a queue.
    pub fn queue(endpoint: &str) -> String {
        format!("/faults.{endpoint}")
    }

    /// Number n of SIGRTMIN+n: of the source's own, since all sources share rtd's process.
    pub fn source_signal(&self) -> usize {
        1 + self.index
    }

    fn endpoint(&self, name: &str, way: Way, signal: usize, is_source: bool) -> String {
        let mut text = format!("[[endpoint]]\nname = \"{name}\"\n");
        let owner = format!("owner = \"{name}\"\n");
        let _ = match way {
            Way::Queue => {
                let queue = Stream::queue(name);
                let size = if self.from == Way::Signal { 32 } else { 16 };
                let owner = if is_source { "" } else { owner.as_str() };
                write!(
                    text,
                    "kind = \"mqueue\"\nqueue = \"{queue}\"\nmode = \"0666\"\nmaxmsg = {MAXMSG}\nmsgsize = {size}\n{owner}"
                )
            }
            Way::Lane => write!(text, "kind = \"lane\"\nmaxmsg = {MAXMSG}\nmsgsize = 16\n{owner}"),
            Way::Signal | Way::Handler | Way::Payload => {
                let owner = if is_source { "" } else { owner.as_str() };
                let size = if way == Way::Payload { "msgsize = 32\nmaxmsg = 8\n" } else { "" };
                write!(text, "kind = \"signal\"\nsignal = \"SIGRTMIN+{signal}\"\n{owner}{size}")
            }
        };
        text
    }

    fn text(&self, capacity: usize) -> String {
        let mut text = String::new();
        let source = self.source();
        if self.from == Way::Lane {
            let _ = write!(text, "[[process]]\nname = \"{source}\"\n");
        }
        text += &self.endpoint(&source, self.from, self.source_signal(), true);
        let mut sinks = Vec::new();
        for (member, &way) in self.to.iter().enumerate() {
            let name = self.sink(member);
            let _ = write!(text, "[[process]]\nname = \"{name}\"\n");
            text += &self.endpoint(&name, way, SINK_SIGNAL, false);
            sinks.push(name);
        }
        let mode = match self.share {
            Share::Each => None,
            Share::Any => Some("any"),
            Share::RoundRobin => Some("round-robin"),
        };
        if let Some(mode) = mode {
            let group = format!("g{:02}", self.index);
            let _ = write!(text, "[[group]]\nname = \"{group}\"\nmembers = {sinks:?}\nmode = \"{mode}\"\n");
            sinks = vec![group];
        }
        let (name, lane, keys) = (self.name(), self.lane, self.keys);
        let _ = write!(
            text,
            "[[route]]\nname = \"{name}\"\nfrom = \"{source}\"\nto = {sinks:?}\nlane = \"{lane}\"\n{keys}\n"
        );
        if self.direct {
            text += "path = \"direct\"\n";
        } else {
            if !self.keys.contains("capacity") {
                let _ = writeln!(text, "capacity = {capacity}");
            }
            let to_value = self.to.iter().any(|way| matches!(way, Way::Signal | Way::Handler));
            if to_value && self.from != Way::Signal {
                text += "truncate = true\n";
            }
            if self.from == Way::Signal {
                text += "accept_claimed = true\n";
            }
        }
        text
    }
}

/// Number n of SIGRTMIN+n that every receiver of signals waits for.
pub const SINK_SIGNAL: usize = 1;

/// The instance.
pub const INSTANCE: &str = "faults";

/// All streams.
pub fn streams() -> Vec<Stream> {
    use Way::{Handler, Lane, Payload, Queue, Signal};
    let plain = |from, to, lane| (from, vec![to], Share::Each, false, lane, "");
    let mut rows = vec![
        plain(Queue, Queue, "high"),
        plain(Queue, Signal, "high"),
        plain(Queue, Handler, "low"),
        plain(Queue, Payload, "low"),
        plain(Queue, Lane, "high"),
        plain(Signal, Queue, "low"),
        plain(Signal, Signal, "high"),
        plain(Signal, Payload, "low"),
        plain(Signal, Lane, "high"),
        plain(Lane, Queue, "low"),
        plain(Lane, Signal, "high"),
        plain(Lane, Handler, "low"),
        plain(Lane, Payload, "spin"),
        plain(Lane, Lane, "spin"),
    ];
    rows.push((Lane, vec![Lane], Share::Each, true, "high", ""));
    rows.push((Lane, vec![Lane], Share::Each, true, "high", "overflow = \"block:2ms\""));
    rows.push((Lane, vec![Lane, Lane, Queue], Share::Each, false, "low", ""));
    rows.push((Queue, vec![Queue, Lane], Share::Each, false, "low", ""));
    rows.push((Lane, vec![Lane, Lane], Share::Any, false, "low", "overflow = \"block:5ms\""));
    rows.push((Lane, vec![Lane, Lane, Lane], Share::RoundRobin, false, "low", "overflow = \"block:5ms\""));
    rows.push((Lane, vec![Lane], Share::Each, false, "low", "overflow = \"conflate\""));
    rows.push((Lane, vec![Lane], Share::Each, false, "low", "overflow = \"displace-oldest\""));
    rows.push((Queue, vec![Lane], Share::Each, false, "low", "overflow = \"displace-newest\""));
    rows.push((Lane, vec![Queue], Share::Each, false, "low", "overflow = \"block:20ms\"\nttl = \"200ms\""));
    let stream = |(index, row): (usize, Row)| {
        let (from, to, share, direct, lane, keys) = row;
        let interval_us = 700 + 130 * index as u64;
        Stream { index, from, to, share, direct, lane, keys, interval_us }
    };
    rows.into_iter().enumerate().map(stream).collect()
}

type Row = (Way, Vec<Way>, Share, bool, &'static str, &'static str);

/// The configuration; every second `variant` has lanes of other priorities and routes of other capacities.
pub fn config(streams: &[Stream], cpu: usize, variant: usize) -> String {
    let (more, capacity) = if variant.is_multiple_of(2) { (0, CAPACITY) } else { (5, CAPACITY / 2) };
    let mut text = format!("[daemon]\nname = \"{INSTANCE}\"\nkeep_queues = true\nrttime = \"off\"\n");
    for (lane, priority, wait) in [("high", 80, "block"), ("spin", 60, "spin:20"), ("low", 40, "block")] {
        let priority = priority + more;
        let _ = write!(
            text,
            "[[lane]]\nname = \"{lane}\"\npriority = {priority}\ncpu = {cpu}\nwait = \"{wait}\"\n"
        );
    }
    for stream in streams {
        text += &stream.text(capacity);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_source_has_a_signal_of_its_own() {
        let all = streams();
        let sources = all.iter().filter(|s| s.from == Way::Signal);
        assert!(sources.clone().all(|s| s.source_signal() < 30), "SIGRTMIN+n goes up to 30");
        assert!(all.len() >= 16);
    }

    #[test]
    fn every_kind_of_sender_meets_every_kind_of_receiver() {
        let all = streams();
        for from in [Way::Queue, Way::Signal, Way::Lane] {
            for to in [Way::Queue, Way::Signal, Way::Payload, Way::Lane] {
                assert!(all.iter().any(|s| s.from == from && s.to.contains(&to)), "{from:?} to {to:?}");
            }
        }
    }
}
