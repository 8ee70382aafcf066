//! What tests say to a participant about its handlers of signals, and what it answers.

use super::Peer;
use super::order::{Dispatcher, Handlers, Noticed, Send, Signal};
use super::talk::answers;

answers! {
    notices: Notices -> Vec<Noticed>,
    dispatcher: Dispatcher -> Dispatcher,
}

impl Peer {
    /// Logs what comes.
    pub fn handle(&mut self, signo: i32) -> anyhow::Result<()> {
        self.tell(Handlers::Handle { signo, from: None }).map(drop)
    }

    /// As a program that uses the library blocks a signal, before it has threads.
    pub fn block_for_handlers(&mut self, signo: i32) -> anyhow::Result<()> {
        self.tell(Handlers::Block(signo)).map(drop)
    }

    /// Handlers wait until `release`.
    pub fn hold(&mut self) -> anyhow::Result<()> {
        self.tell(Handlers::Hold).map(drop)
    }

    pub fn release(&mut self) -> anyhow::Result<()> {
        self.tell(Handlers::Release).map(drop)
    }

    /// Queues a plain signal to itself.
    pub fn queue_to_self(&mut self, signo: i32, value: u64) -> anyhow::Result<()> {
        let pid = self.pid();
        self.tell(Signal::QueueToProcess { pid, signo, value })
            .map(drop)
    }

    /// All that handlers were called with, when there are so many.
    pub fn noticed(&mut self, count: u64) -> anyhow::Result<Vec<Noticed>> {
        self.tell(Handlers::Notices(count))?.notices()
    }

    /// Waits until the values count up from there, without any more.
    pub fn counts_up(&mut self, from: u64, count: u64) -> anyhow::Result<()> {
        self.tell(Handlers::CountUp { from, count }).map(drop)
    }

    /// The dispatcher's counters.
    pub fn dispatched(&mut self) -> anyhow::Result<Dispatcher> {
        self.tell(Handlers::Counters)?.dispatcher()
    }

    /// Sends numbers in payloads of this length, each until it goes in.
    pub fn press(
        &mut self,
        endpoint: &str,
        from: u64,
        count: u64,
        len: usize,
    ) -> anyhow::Result<()> {
        let order = Send::Press {
            endpoint,
            from,
            count,
            len,
        };
        self.tell(order).map(drop)
    }
}
