//! The streams of the campaign, and the configuration that carries them.

use crate::hostile::{GUEST, NAME};
use std::fmt::Write as _;

/// How a program takes part at one end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EndKind {
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
    /// Two lane endpoints: asks from one and reads the answers at the other (`Caller`).
    Ask,
    /// Two lane endpoints: reads requests at one and answers from the other.
    Answer,
}

impl EndKind {
    /// As a command-line word.
    pub fn word(self) -> &'static str {
        match self {
            EndKind::Queue => "queue",
            EndKind::Signal => "signal",
            EndKind::Handler => "handler",
            EndKind::Payload => "payload",
            EndKind::Lane => "lane",
            EndKind::Ask => "ask",
            EndKind::Answer => "answer",
        }
    }

    /// From that word.
    pub fn of(word: &str) -> Option<EndKind> {
        [
            EndKind::Queue,
            EndKind::Signal,
            EndKind::Handler,
            EndKind::Payload,
            EndKind::Lane,
            EndKind::Ask,
            EndKind::Answer,
        ]
        .into_iter()
        .find(|w| w.word() == word)
    }

    /// Whether its endpoint is a lane endpoint.
    pub fn is_lane(self) -> bool {
        matches!(self, EndKind::Lane | EndKind::Ask | EndKind::Answer)
    }

    /// Whether the process connects itself; else `rtctl run` registers it.
    pub fn links(self) -> bool {
        self == EndKind::Payload || self.is_lane()
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

/// Which members of a group get messages: those that have this in common with the sender.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kin {
    /// The POSIX process group.
    ProcessGroup,
    /// The POSIX session.
    Session,
}

/// One sender, one route, one or more receivers.
#[derive(Clone, Debug)]
pub struct Stream {
    /// Place in the plan; also its tag in each message.
    pub index: usize,
    /// The sender.
    pub from: EndKind,
    /// The receivers.
    pub to: Vec<EndKind>,
    /// Who gets a message.
    pub share: Share,
    /// The members of the group are filtered. The last receiver is outside and gets nothing.
    pub kin: Option<Kin>,
    /// From memory to memory.
    pub direct: bool,
    pub lane: &'static str,
    /// Further keys of the route.
    pub keys: &'static str,
    /// Time between two messages.
    pub interval_us: u64,
    /// Its latency is measured beside each hostile load: its two processes are SCHED_FIFO below the
    /// lane, on the lane's CPU.
    pub innocent: bool,
}

/// Name of the source of a stream.
pub fn source(index: usize) -> String {
    format!("s{index:02}")
}

/// Name of a sink of a stream.
pub fn sink(index: usize, member: usize) -> String {
    format!("r{index:02}.{member}")
}

/// Messages that a queue or a ring holds.
pub const MAXMSG: usize = 8;
/// Copies that a route holds for a full receiver.
pub const CAPACITY: usize = 16;

impl Stream {
    /// Name of the route.
    pub fn name(&self) -> String {
        let ends: Vec<&str> = self.to.iter().map(|kind| kind.word()).collect();
        let ends = match &ends[..] {
            [first, others @ ..] if !others.is_empty() && others.iter().all(|o| o == first) => {
                format!("{first}s")
            }
            ends if ends.len() > 3 => "every".to_owned(),
            ends => ends.join("-"),
        };
        let how = match (self.direct, self.share) {
            (true, _) => "-direct",
            (_, Share::Any) if self.kin == Some(Kin::ProcessGroup) => "-any-pgrp",
            (_, Share::RoundRobin) if self.kin == Some(Kin::Session) => "-rr-session",
            (_, Share::Any) => "-any",
            (_, Share::RoundRobin) => "-rr",
            _ => "",
        };
        let how = if self.innocent { "-innocent" } else { how };
        format!("{:02}-{}-{ends}{how}", self.index, self.from.word())
    }

    /// Whether its sender and its receiver are those of the stream before: it carries the answers
    /// to the requests there.
    pub fn is_of_answers(&self) -> bool {
        self.from == EndKind::Answer
    }

    /// Its source.
    pub fn source(&self) -> String {
        source(self.index)
    }

    /// One of its sinks.
    pub fn sink(&self, member: usize) -> String {
        sink(self.index, member)
    }

    /// The receiver that gets nothing.
    pub fn outside(&self) -> Option<usize> {
        self.kin.map(|_| self.to.len() - 1)
    }

    /// Name of the sending process.
    fn sender(&self) -> String {
        if self.is_of_answers() {
            sink(self.index - 1, 0)
        } else {
            self.source()
        }
    }

    /// Name of a receiving process.
    fn receiver(&self, member: usize) -> String {
        if self.is_of_answers() {
            source(self.index - 1)
        } else {
            self.sink(member)
        }
    }

    /// Name of a queue.
    pub fn queue(endpoint: &str) -> String {
        format!("/faults.{endpoint}")
    }

    /// Number n of SIGRTMIN+n: of the source's own, since all sources share rtd's process.
    pub fn source_signal(&self) -> usize {
        1 + self.index
    }

    fn endpoint(
        &self,
        name: &str,
        owner: &str,
        kind: EndKind,
        signal: usize,
        is_source: bool,
    ) -> String {
        let mut text = format!("[[endpoint]]\nname = \"{name}\"\n");
        let owner = format!("owner = \"{owner}\"\n");
        let _ = match kind {
            EndKind::Queue => {
                let queue = Stream::queue(name);
                let size = if self.from == EndKind::Signal { 32 } else { 16 };
                let owner = if is_source { "" } else { owner.as_str() };
                write!(
                    text,
                    "kind = \"mqueue\"\nqueue = \"{queue}\"\nmode = \"0666\"\nmaxmsg = {MAXMSG}\nmsgsize = {size}\n{owner}"
                )
            }
            EndKind::Lane | EndKind::Ask | EndKind::Answer => {
                let size = if kind == EndKind::Lane { 16 } else { 24 };
                write!(
                    text,
                    "kind = \"lane\"\nmaxmsg = {MAXMSG}\nmsgsize = {size}\n{owner}"
                )
            }
            EndKind::Signal | EndKind::Handler | EndKind::Payload => {
                let owner = if is_source { "" } else { owner.as_str() };
                let size = if kind == EndKind::Payload {
                    "msgsize = 32\nmaxmsg = 8\n"
                } else {
                    ""
                };
                write!(
                    text,
                    "kind = \"signal\"\nsignal = \"SIGRTMIN+{signal}\"\n{owner}{size}"
                )
            }
        };
        text
    }

    fn text(&self, capacity: usize) -> String {
        let mut text = String::new();
        let (source, sender) = (self.source(), self.sender());
        if self.from.is_lane() && !self.is_of_answers() {
            let _ = write!(text, "[[process]]\nname = \"{sender}\"\n");
        }
        text += &self.endpoint(&source, &sender, self.from, self.source_signal(), true);
        let mut sinks = Vec::new();
        for (member, &kind) in self.to.iter().enumerate() {
            let (name, receiver) = (self.sink(member), self.receiver(member));
            if !self.is_of_answers() {
                let _ = write!(text, "[[process]]\nname = \"{receiver}\"\n");
            }
            text += &self.endpoint(&name, &receiver, kind, SINK_SIGNAL, false);
            sinks.push(name);
        }
        let mode = match self.share {
            Share::Each => None,
            Share::Any => Some("any"),
            Share::RoundRobin => Some("round-robin"),
        };
        if let Some(mode) = mode {
            let group = format!("g{:02}", self.index);
            let _ = write!(
                text,
                "[[group]]\nname = \"{group}\"\nmembers = {sinks:?}\nmode = \"{mode}\"\n"
            );
            let _ = match self.kin {
                Some(Kin::ProcessGroup) => writeln!(text, "process_group_of = \"{sender}\""),
                Some(Kin::Session) => writeln!(text, "session_of = \"{sender}\""),
                None => Ok(()),
            };
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
            let to_value = self
                .to
                .iter()
                .any(|kind| matches!(kind, EndKind::Signal | EndKind::Handler));
            if to_value && self.from != EndKind::Signal {
                text += "truncate = true\n";
            }
            if self.from == EndKind::Signal {
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

/// The lane that polls. Its thread is made an ordinary one: a SCHED_FIFO thread that polls would
/// take one of the machine's CPUs from all other programs.
pub const POLLING_LANE: &str = "poll";
/// Its nice value: it polls with what the others leave.
pub const POLLING_NICE: i32 = 10;

/// A row of the table of streams.
struct Row {
    from: EndKind,
    to: Vec<EndKind>,
    share: Share,
    kin: Option<Kin>,
    direct: bool,
    lane: &'static str,
    keys: &'static str,
}

/// A routed stream to each of these receivers.
fn routed(from: EndKind, to: &[EndKind], lane: &'static str) -> Row {
    Row {
        from,
        to: to.to_vec(),
        share: Share::Each,
        kin: None,
        direct: false,
        lane,
        keys: "",
    }
}

/// The streams of a slow machine, by their place in the table: every kind of end, a direct one, a
/// group, a policy before every kind of receiver, requests with their answers, and the innocent
/// one.
const FEW: [usize; 11] = [0, 2, 7, 8, 13, 14, 19, 25, 29, 30, 31];

/// All streams, or with `few` a third of them, each four times slower.
pub fn streams(few: bool) -> Vec<Stream> {
    let rows = rows();
    let last = rows.len() - 1;
    let kept = rows
        .into_iter()
        .enumerate()
        .filter(|(place, _)| !few || FEW.contains(place));
    let stream = |(index, (place, row)): (usize, (usize, Row))| {
        let Row {
            from,
            to,
            share,
            kin,
            direct,
            lane,
            keys,
        } = row;
        let innocent = place == last;
        let interval_us = if innocent {
            1000
        } else {
            1500 + 150 * index as u64
        };
        let interval_us = if few { 4 * interval_us } else { interval_us };
        Stream {
            index,
            from,
            to,
            share,
            kin,
            direct,
            lane,
            keys,
            interval_us,
            innocent,
        }
    };
    kept.enumerate().map(stream).collect()
}

fn rows() -> Vec<Row> {
    use EndKind::{Answer, Ask, Handler, Lane, Payload, Queue, Signal};
    const EVERY: [EndKind; 4] = [Queue, Signal, Payload, Lane];
    let direct = |keys| Row {
        direct: true,
        keys,
        ..routed(Lane, &[Lane], "high")
    };
    let mode = |share, members: usize| Row {
        share,
        keys: "overflow = \"block:5ms\"",
        ..routed(Lane, &vec![Lane; members], "low")
    };
    let policy = |from, keys| Row {
        keys,
        ..routed(from, &EVERY, "low")
    };
    vec![
        routed(Queue, &[Queue], "high"),
        routed(Queue, &[Signal], "high"),
        routed(Queue, &[Handler], "low"),
        routed(Queue, &[Payload], "low"),
        routed(Queue, &[Lane], "high"),
        routed(Signal, &[Queue], "low"),
        routed(Signal, &[Signal], "high"),
        routed(Signal, &[Payload], "low"),
        routed(Signal, &[Lane], "high"),
        routed(Lane, &[Queue], "low"),
        routed(Lane, &[Signal], "high"),
        routed(Lane, &[Handler], "low"),
        routed(Lane, &[Payload], "spin"),
        routed(Lane, &[Lane], "spin"),
        direct(""),
        direct("overflow = \"block:2ms\""),
        direct("ttl = \"200ms\""),
        routed(Lane, &[Lane, Lane, Queue], "low"),
        routed(Queue, &[Queue, Lane], "low"),
        mode(Share::Any, 2),
        mode(Share::RoundRobin, 3),
        Row {
            kin: Some(Kin::ProcessGroup),
            ..mode(Share::Any, 3)
        },
        Row {
            kin: Some(Kin::Session),
            ..mode(Share::RoundRobin, 3)
        },
        policy(Lane, "overflow = \"conflate\""),
        policy(Queue, "overflow = \"displace-oldest\""),
        policy(Lane, "overflow = \"displace-newest\""),
        policy(Lane, "overflow = \"block:20ms\"\nttl = \"200ms\""),
        routed(Lane, &[Lane], POLLING_LANE),
        routed(Queue, &[Signal], POLLING_LANE),
        routed(Ask, &[Answer], "high"),
        routed(Answer, &[Ask], "high"),
        // The innocent one.
        routed(Lane, &[Lane], "high"),
    ]
}

/// The configuration, with lanes on CPU `cpu` and the polling one on CPU `other`; every second
/// `variant` has lanes of other priorities and routes of other capacities.
pub fn config(streams: &[Stream], cpu: usize, other: usize, variant: usize) -> String {
    let (more, capacity) = if variant.is_multiple_of(2) {
        (0, CAPACITY)
    } else {
        (5, CAPACITY / 2)
    };
    let mut text =
        format!("[daemon]\nname = \"{INSTANCE}\"\nkeep_queues = true\nrttime = \"off\"\n");
    for (lane, priority, wait) in [
        ("high", 80, "block"),
        ("spin", 60, "spin:20"),
        ("low", 40, "block"),
    ] {
        let priority = priority + more;
        let _ = write!(
            text,
            "[[lane]]\nname = \"{lane}\"\npriority = {priority}\ncpu = {cpu}\nwait = \"{wait}\"\n"
        );
    }
    let _ = write!(
        text,
        "[[lane]]\nname = \"{POLLING_LANE}\"\npriority = {}\ncpu = {other}\nwait = \"poll\"\nunisolated = true\n",
        20 + more
    );
    for stream in streams {
        text += &stream.text(capacity);
    }
    text + &hostile() + &format!("[[process]]\nname = \"{GUEST}\"\n")
}

/// The endpoints and routes of the hostile client: in the lane of the innocent stream.
fn hostile() -> String {
    let mut text = format!("[[process]]\nname = \"{NAME}\"\n");
    for (from, path) in [("out", "routed"), ("direct", "direct")] {
        let to = if from == "out" { "in" } else { "direct.in" };
        for end in [from, to] {
            let _ = write!(
                text,
                "[[endpoint]]\nname = \"{NAME}.{end}\"\nkind = \"lane\"\nowner = \"{NAME}\"\n\
                 maxmsg = {MAXMSG}\nmsgsize = 16\n"
            );
        }
        let _ = write!(
            text,
            "[[route]]\nname = \"{NAME}-{from}\"\nfrom = \"{NAME}.{from}\"\nto = [\"{NAME}.{to}\"]\n\
             lane = \"high\"\npath = \"{path}\"\n"
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_source_has_a_signal_of_its_own() {
        let all = streams(false);
        let sources = all.iter().filter(|s| s.from == EndKind::Signal);
        assert!(
            sources.clone().all(|s| s.source_signal() < 30),
            "SIGRTMIN+n goes up to 30"
        );
        assert!(all.len() >= 16);
    }

    #[test]
    fn every_kind_of_sender_meets_every_kind_of_receiver() {
        let all = streams(false);
        for from in [EndKind::Queue, EndKind::Signal, EndKind::Lane] {
            for to in [
                EndKind::Queue,
                EndKind::Signal,
                EndKind::Payload,
                EndKind::Lane,
            ] {
                assert!(
                    all.iter().any(|s| s.from == from && s.to.contains(&to)),
                    "{from:?} to {to:?}"
                );
            }
        }
    }

    #[test]
    fn every_policy_meets_every_kind_of_receiver() {
        let all = streams(false);
        for key in [
            "conflate",
            "displace-oldest",
            "displace-newest",
            "block",
            "ttl",
        ] {
            for to in [
                EndKind::Queue,
                EndKind::Signal,
                EndKind::Payload,
                EndKind::Lane,
            ] {
                assert!(
                    all.iter()
                        .any(|s| s.keys.contains(key) && s.to.contains(&to)),
                    "{key} to {to:?}"
                );
            }
        }
    }

    #[test]
    fn answers_come_from_the_receivers_of_the_stream_before() {
        for all in [streams(false), streams(true)] {
            assert_eq!(all.iter().filter(|s| s.is_of_answers()).count(), 1);
            for answers in all.iter().filter(|s| s.is_of_answers()) {
                let requests = &all[answers.index - 1];
                assert_eq!(
                    (requests.from, &requests.to[..]),
                    (answers.to[0], &[answers.from][..])
                );
                assert_eq!(
                    (requests.source(), requests.sink(0)),
                    (answers.receiver(0), answers.sender())
                );
            }
        }
    }

    #[test]
    fn a_few_streams_have_every_kind_of_end() {
        let few = streams(true);
        for kind in [
            EndKind::Queue,
            EndKind::Signal,
            EndKind::Lane,
            EndKind::Ask,
            EndKind::Answer,
        ] {
            assert!(few.iter().any(|s| s.from == kind), "from {kind:?}");
        }
        for kind in [
            EndKind::Queue,
            EndKind::Signal,
            EndKind::Handler,
            EndKind::Payload,
            EndKind::Lane,
            EndKind::Ask,
            EndKind::Answer,
        ] {
            assert!(few.iter().any(|s| s.to.contains(&kind)), "to {kind:?}");
        }
        assert!(few.iter().any(|s| s.direct) && few.iter().any(|s| s.share != Share::Each));
        assert_eq!(few.iter().filter(|s| s.innocent).count(), 1);
        assert!(few.iter().enumerate().all(|(at, s)| s.index == at));
    }
}
