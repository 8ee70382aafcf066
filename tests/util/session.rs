//! What tests say to a participant with a session about streams of numbers, and what it answers.

use super::order::{Answer, Receive, Send, Session};
pub use super::order::{Got, Run, Tried};
use super::talk::{answers, patience_ms};
use super::{Instance, Peer, kernel, process, route};
use anyhow::{bail, ensure};
use nix::sys::signal::Signal;

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

answers! {
    runs: Runs -> Vec<Got>,
    tried: Tried -> Vec<Tried>,
}

impl Peer {
    /// One with a session of this name.
    pub fn session(instance: &Instance, name: &str) -> anyhow::Result<Peer> {
        let mut peer = Peer::start()?;
        peer.connect(instance, name)?;
        Ok(peer)
    }

    /// Opens a session.
    pub fn connect(&mut self, instance: &Instance, name: &str) -> anyhow::Result<()> {
        let socket = &instance.socket();
        self.tell(Session::Connect { socket, name }).map(drop)
    }

    /// Drops the session alone.
    pub fn close(&mut self) -> anyhow::Result<()> {
        self.tell(Session::Close).map(drop)
    }

    /// Drops all that it has of the library.
    pub fn close_all(&mut self) -> anyhow::Result<()> {
        self.tell(Session::CloseAll).map(drop)
    }

    /// The session's state.
    pub fn state(&mut self) -> anyhow::Result<String> {
        self.tell(Session::State)?.text()
    }

    /// Gets a sender for this endpoint.
    pub fn claim(&mut self, endpoint: &str) -> anyhow::Result<()> {
        self.tell(Send::Claim(endpoint)).map(drop)
    }

    /// Waits until somebody receives from the endpoint.
    pub fn reach(&mut self, endpoint: &str) -> anyhow::Result<()> {
        self.tell(Send::Reach(endpoint)).map(drop)
    }

    /// Opens the inbox `i` of all endpoints of the process.
    pub fn open_inbox(&mut self) -> anyhow::Result<()> {
        self.tell(Receive::Inbox { key: "i", of: None }).map(drop)
    }

    /// Opens the inbox `i` of these endpoints.
    pub fn open_inbox_of(&mut self, endpoints: &[&str]) -> anyhow::Result<()> {
        self.tell(inbox_of(endpoints)).map(drop)
    }

    /// Drops the inbox `i`.
    pub fn drop_inbox(&mut self) -> anyhow::Result<()> {
        self.tell(Receive::Drop("i")).map(drop)
    }

    /// Sends a number; its sequence.
    pub fn number(&mut self, endpoint: &str, number: u64) -> anyhow::Result<u64> {
        self.tell(send_number(endpoint, number))?.number()
    }

    /// Sends numbers with a pause after each.
    pub fn pace(
        &mut self,
        endpoint: &str,
        from: u64,
        count: u64,
        pause_us: u64,
    ) -> anyhow::Result<()> {
        let order = Send::Pace {
            endpoint,
            from,
            count,
            pause_us,
        };
        self.tell(order).map(drop)
    }

    /// Sends until it is refused: how many went, and why no more.
    pub fn fill(&mut self, endpoint: &str, from: u64) -> anyhow::Result<(u64, String)> {
        match self.tell(Send::Fill { endpoint, from })? {
            Answer::Filled { sent, why } => Ok((sent, why)),
            other => bail!("not Filled: {other:?}"),
        }
    }

    /// Makes its thread real-time below the lane; its priority.
    pub fn promote(&mut self, lane: &str) -> anyhow::Result<u64> {
        self.tell(Session::Promote(lane))?.number()
    }

    /// So many messages and events; fewer when none comes.
    pub fn got(&mut self, count: usize) -> anyhow::Result<Vec<Got>> {
        let (count, quiet_ms) = (count as u64, patience_ms());
        self.tell(Receive::Runs { count, quiet_ms })?.runs()
    }

    /// Everything up to this event or number (`event up`, `number 7`), which has to come.
    pub fn got_until(&mut self, wanted: &str) -> anyhow::Result<Vec<Got>> {
        self.ask_until(wanted)?;
        self.answered_until(wanted)
    }

    /// The same, asked now and answered later.
    pub fn ask_until(&mut self, wanted: &str) -> anyhow::Result<()> {
        let quiet_ms = patience_ms();
        self.ask(Receive::RunsUntil { wanted, quiet_ms })
    }

    /// The answer.
    pub fn answered_until(&mut self, wanted: &str) -> anyhow::Result<Vec<Got>> {
        let got = self.answer()?.runs()?;
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
        self.tell(Send::Flood { endpoint, pause_us }).map(drop)
    }

    /// Ends that: what became of each number.
    pub fn flooded(&mut self) -> anyhow::Result<Vec<Tried>> {
        self.tell(Send::Flooded)?.tried()
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

/// The order to open the inbox `i` of these endpoints.
pub fn inbox_of<'a>(endpoints: &[&'a str]) -> Receive<'a> {
    let (key, of) = ("i", Some(endpoints.to_vec()));
    Receive::Inbox { key, of }
}

/// The order to send a number.
pub fn send_number(endpoint: &str, number: u64) -> Send<'_> {
    let bytes = number.to_ne_bytes().to_vec();
    Send::Bytes { endpoint, bytes }
}
