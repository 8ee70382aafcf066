//! Requests and their answers.

use super::super::order::{Answer, Call as Order, CallEnd, Called, Refused};
use super::receive::{after, give_up_ns, receive_with};
use super::session::Client;
use anyhow::{Context as _, bail};
use rtcore::client::{CallError, Incoming};
use rtcore::sys::clock::monotonic_ns;

impl Client {
    pub fn call_order(&mut self, order: Order<'_>) -> anyhow::Result<Answer> {
        match order {
            Order::Caller {
                key,
                requests,
                answers,
            } => {
                let caller = self.session()?.caller(requests, answers)?;
                self.callers.insert(key.to_owned(), caller);
            }
            Order::Ask { key, request, ms } => return self.call(key, &request, ms),
            Order::Late(key) => {
                let late = self.callers.get(key).context("no caller")?.late();
                return Ok(Answer::Number(late));
            }
            Order::Serve {
                key,
                endpoint,
                count,
            } => self.serve(key, endpoint, count)?,
            Order::Hold(key) => {
                let request = receive_with(self.inbox(key)?, 1, give_up_ns(), |m| m.reply_to())?;
                self.asked = request.into_iter().next().flatten();
                self.asked.context("that was no request")?;
            }
            Order::Reply { endpoint, bytes } => {
                let to = self.asked.take().context("nothing was asked")?;
                self.sender(endpoint)?.reply(to, &bytes)?;
            }
        }
        Ok(Answer::Done)
    }

    fn call(&mut self, key: &str, request: &[u8], ms: u64) -> anyhow::Result<Answer> {
        let caller = self.callers.get_mut(key).context("no caller")?;
        let began = monotonic_ns();
        let ended = match caller.call(request, after(ms)) {
            Ok(reply) => CallEnd::Reply(reply.bytes().to_vec()),
            Err(CallError::Timeout { .. }) => CallEnd::Timeout,
            Err(CallError::PeerDead {
                process, ending, ..
            }) => CallEnd::PeerDead {
                process: process.to_string(),
                ending: ending.map_or("unknown".to_owned(), |ending| format!("{ending:?}")),
            },
            Err(CallError::Disconnected { why, .. }) => CallEnd::Disconnected(format!("{why:?}")),
            Err(CallError::Send(e)) => CallEnd::Unsent(Refused::from(&e)),
        };
        let took_ns = monotonic_ns() - began;
        Ok(Answer::Called(Called { took_ns, ended }))
    }

    fn serve(&mut self, key: &str, endpoint: &str, count: u64) -> anyhow::Result<()> {
        let (inbox, sender) = self.ends(key, endpoint)?;
        let mut n = 0;
        while n < count {
            let Some(incoming) = inbox.recv_deadline(give_up_ns())? else {
                bail!("only {n} came")
            };
            let Incoming::Message(request) = incoming else {
                continue;
            };
            let mut bytes = request.bytes().to_vec();
            bytes.reverse();
            sender.reply(request.reply_to().context("no request")?, &bytes)?;
            n += 1;
        }
        Ok(())
    }
}
