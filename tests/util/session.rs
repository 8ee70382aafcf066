//! What tests say to a participant with a session, and what it answers, as values.

use super::{Instance, Peer, kernel, patience, process, route};
use anyhow::{Context as _, bail, ensure};
use nix::sys::signal::Signal;

/// Consecutive numbers with consecutive sequences from one sender, as they were received.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Run {
    /// The sender's endpoint.
    pub from: String,
    /// Of the first.
    pub sequence: u64,
    /// The first.
    pub number: u64,
    /// How many.
    pub count: u64,
    /// Sequences that are missing in front of it.
    pub missed: u64,
    /// When the first came.
    pub received_ns: u64,
    /// Who sent them.
    pub pid: u32,
    /// Whether that is sure.
    pub verified: bool,
}

/// What an inbox gave.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Got {
    /// Numbers.
    Run(Run),
    /// Anything else, in the words of the participant.
    Other(String),
}

/// What became of consecutive numbers that a flood tried to send.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tried {
    /// `ok`, or what was wrong.
    pub answer: String,
    /// The first.
    pub number: u64,
    /// Its sequence, where it was sent.
    pub sequence: u64,
    /// How many.
    pub count: u64,
    /// The longest call.
    pub longest_ns: u64,
}

/// A lane endpoint.
pub fn lane_end(name: &str, owner: &str, more: &str) -> String {
    format!("[[endpoint]]\nname = \"{name}\"\nkind = \"lane\"\nowner = \"{owner}\"\n{more}\n")
}

/// A planner with a way of each path to an arm: `cmd` to `arm.cmd` through the daemon, `fast` to
/// `arm.fast` directly. The keys of the four endpoints, of the routed route, and of the direct one.
pub fn planner_and_arm(i: &Instance, ends: &str, routed: &str, direct: &str) -> String {
    i.head()
        + &process("planner")
        + &process("arm")
        + &lane_end("cmd", "planner", ends)
        + &lane_end("fast", "planner", ends)
        + &lane_end("arm.cmd", "arm", ends)
        + &lane_end("arm.fast", "arm", ends)
        + &route("cmd", &["arm.cmd"], routed)
        + &route(
            "fast",
            &["arm.fast"],
            &format!("path = \"direct\"\n{direct}"),
        )
}

/// All events, in order.
pub fn events(got: &[Got]) -> Vec<&str> {
    got.iter()
        .filter_map(|got| match got {
            Got::Other(text) => text.strip_prefix("event "),
            Got::Run(_) => None,
        })
        .collect()
}

/// All numbers, in order.
pub fn runs(got: &[Got]) -> Vec<&Run> {
    got.iter()
        .filter_map(|got| match got {
            Got::Run(run) => Some(run),
            Got::Other(_) => None,
        })
        .collect()
}

/// Messages in these runs.
pub fn count(got: &[Got]) -> u64 {
    runs(got).iter().map(|run| run.count).sum()
}

/// Fails unless these are `from..from + count`, in order, with nothing missing. (An event may come
/// between two.)
pub fn unbroken(got: &[Got], from: u64, count: u64) -> anyhow::Result<()> {
    let mut next = from;
    let mut whole = true;
    for run in runs(got) {
        whole &= (run.number, run.missed) == (next, 0);
        next = run.number + run.count;
    }
    ensure!(
        whole && next == from + count,
        "not {count} from {from}: {got:?}"
    );
    Ok(())
}

impl Peer {
    /// One with a session of this name.
    pub fn session(instance: &Instance, name: &str) -> anyhow::Result<Peer> {
        let mut peer = Peer::start()?;
        peer.open(instance, name)?;
        Ok(peer)
    }

    /// One that sends from this endpoint.
    pub fn session_sender(instance: &Instance, name: &str, endpoint: &str) -> anyhow::Result<Peer> {
        let mut peer = Peer::session(instance, name)?;
        peer.tell(&format!("session sender {endpoint}"))?;
        Ok(peer)
    }

    /// One that receives all that there is.
    pub fn session_inbox(instance: &Instance, name: &str) -> anyhow::Result<Peer> {
        let mut peer = Peer::session(instance, name)?;
        peer.tell("session inbox")?;
        Ok(peer)
    }

    /// Opens a session.
    pub fn open(&mut self, instance: &Instance, name: &str) -> anyhow::Result<()> {
        self.tell(&format!("session open {} {name}", instance.socket()))?;
        Ok(())
    }

    /// The error of a command that has to fail, which says all these things.
    pub fn refused(&mut self, command: &str, says: &[&str]) -> anyhow::Result<String> {
        self.ask(command)?;
        match self.answer() {
            Ok(data) => bail!("{command:?} was not refused: {data:?}"),
            Err(e) => {
                let text = e.to_string();
                let silent: Vec<_> = says.iter().filter(|says| !text.contains(*says)).collect();
                ensure!(
                    silent.is_empty(),
                    "{command:?} does not say {silent:?}: {text}"
                );
                Ok(text)
            }
        }
    }

    /// Sends a number; its sequence.
    pub fn number(&mut self, endpoint: &str, number: u64) -> anyhow::Result<u64> {
        let said = self.tell(&format!("session number {endpoint} {number}"))?;
        Ok(said.first().context("no sequence")?.parse()?)
    }

    /// Sends until it is refused: how many went, and why no more.
    pub fn fill(&mut self, endpoint: &str, from: u64) -> anyhow::Result<(u64, String)> {
        let said = self.tell(&format!("session fill {endpoint} {from}"))?;
        let [count, why] = said.as_slice() else {
            bail!("{said:?}")
        };
        Ok((count.parse()?, why.clone()))
    }

    /// So many messages and events; fewer when none comes.
    pub fn got(&mut self, count: usize) -> anyhow::Result<Vec<Got>> {
        parse(&self.tell(&format!("session recv {count} {}", patience().as_millis()))?)
    }

    /// Everything up to this event or number (`event up`, `number 7`), which has to come.
    pub fn got_until(&mut self, wanted: &str) -> anyhow::Result<Vec<Got>> {
        self.ask_until(wanted)?;
        self.answered_until(wanted)
    }

    /// The same, asked now and answered later.
    pub fn ask_until(&mut self, wanted: &str) -> anyhow::Result<()> {
        self.ask(&format!(
            "session until {} {wanted}",
            patience().as_millis()
        ))
    }

    /// The answer.
    pub fn answered_until(&mut self, wanted: &str) -> anyhow::Result<Vec<Got>> {
        let got = parse(&self.answer()?)?;
        let came = match got.last() {
            Some(Got::Other(text)) => text == wanted || text.starts_with(&format!("{wanted} ")),
            Some(Got::Run(run)) => wanted == format!("number {}", run.number + (run.count - 1)),
            None => false,
        };
        ensure!(came, "never came: {wanted}; {got:?}");
        Ok(got)
    }

    /// Sends numbers from 1 on in a thread of its own, with this pause after each.
    pub fn flood(&mut self, endpoint: &str, pause_us: u64) -> anyhow::Result<()> {
        self.tell(&format!("session flood {endpoint} {pause_us}"))?;
        Ok(())
    }

    /// Ends that: what became of each number.
    pub fn flooded(&mut self) -> anyhow::Result<Vec<Tried>> {
        let parse = |line: &String| {
            let words: Vec<&str> = line.split(' ').collect();
            let [answer, number, sequence, count, longest] = words.as_slice() else {
                bail!("{line}")
            };
            Ok(Tried {
                answer: (*answer).to_owned(),
                number: number.parse()?,
                sequence: sequence.parse()?,
                count: count.parse()?,
                longest_ns: longest.parse()?,
            })
        };
        self.tell("session flooded")?.iter().map(parse).collect()
    }

    /// SIGSTOP, until every thread stands still.
    pub fn freeze(&self) -> anyhow::Result<()> {
        self.signal(Signal::SIGSTOP)?;
        super::eventually(|| kernel::stopped(self.pid()).ok()?.then_some(()))
    }

    /// SIGCONT.
    pub fn thaw(&self) -> anyhow::Result<()> {
        self.signal(Signal::SIGCONT)
    }
}

/// What an inbox gave, from the lines of a participant.
pub fn parse(lines: &[String]) -> anyhow::Result<Vec<Got>> {
    let parse = |line: &String| {
        let Some(rest) = line.strip_prefix("run ") else {
            return Ok(Got::Other(line.clone()));
        };
        let words: Vec<&str> = rest.split(' ').collect();
        let [
            from,
            sequence,
            number,
            count,
            missed,
            received,
            pid,
            verified,
        ] = words.as_slice()
        else {
            bail!("{line}")
        };
        Ok(Got::Run(Run {
            from: (*from).to_owned(),
            sequence: sequence.parse()?,
            number: number.parse()?,
            count: count.parse()?,
            missed: missed.parse()?,
            received_ns: received.parse()?,
            pid: pid.parse()?,
            verified: verified.parse()?,
        }))
    };
    lines.iter().map(parse).collect()
}
