//! What a forked child of a participant with a session meets there.

use super::super::order::{Answer, Fork as Order};
use super::super::patience;
use super::receive::ONLY;
use super::session::Client;
use anyhow::{Context as _, bail, ensure};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{ForkResult, Pid, fork};
use rtcore::client::signals::{Flags, Signals};
use rtcore::client::waiter::{Interest, Waiter};
use rtcore::client::{Inbox, Origin, Sender, Session};
use rtcore::sys::signame;
use std::fmt::{Debug, Display, Write as _};
use std::io::{Read as _, Write as _};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// A child with copies of all descriptors of this process except the standard ones, for which the
/// program that started the tests waits. It outlives its parent, for a bounded time.
fn idle() -> anyhow::Result<Pid> {
    let limit_s = u32::try_from(patience().as_secs())?;
    // SAFETY: the child makes system calls only, until it is killed.
    match unsafe { fork() }? {
        ForkResult::Child => loop {
            nix::unistd::alarm::set(limit_s);
            for standard in 0..3 {
                let _ = nix::unistd::close(standard);
            }
            nix::unistd::pause();
        },
        ForkResult::Parent { child } => Ok(child),
    }
}

/// Runs `work` in a forked child; what it returned there. An error if the child ended in any other
/// way. What `work` takes out of its environment, the parent still has.
fn in_child(work: impl FnOnce() -> String) -> anyhow::Result<String> {
    let (mut reader, mut writer) = std::io::pipe()?;
    let limit_s = u32::try_from(patience().as_secs())?;
    // SAFETY: the tests want to know what happens in a child of a process with several threads. It
    // ends by _exit(2).
    match unsafe { fork() }? {
        ForkResult::Child => {
            drop(reader);
            // One that blocks for ever is ended by SIGALRM.
            nix::unistd::alarm::set(limit_s);
            let text =
                catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|_| "panicked\n".to_owned());
            let status = i32::from(writer.write_all(text.as_bytes()).is_err());
            // SAFETY: ends the child without the exit handlers of its parent.
            unsafe { nix::libc::_exit(status) }
        }
        ForkResult::Parent { child } => {
            drop(writer);
            let mut text = String::new();
            reader.read_to_string(&mut text)?;
            match waitpid(child, None)? {
                WaitStatus::Exited(_, 0) => Ok(text),
                other => bail!("the child ended: {other:?}, after {text:?}"),
            }
        }
    }
}

/// One line of a call and its result.
fn line<T: Debug, E: Display>(text: &mut String, call: &str, result: Result<T, E>) {
    let _ = match result {
        Ok(value) => writeln!(text, "{call}: ok {value:?}"),
        Err(e) => writeln!(text, "{call}: {}", e.to_string().replace('\n', " ")),
    };
}

/// A value of each type that a child inherits.
struct Inherited {
    session: Arc<Session>,
    sender: Sender,
    inbox: Inbox,
    signals: Arc<Signals>,
    waiter: Waiter,
}

impl Inherited {
    /// Every call, and then every drop.
    fn touch(mut self, is_arm: impl Fn(&Origin) -> bool, parent: u32) -> String {
        let mut text = String::new();
        let sender = &mut self.sender;
        line(&mut text, "try_send", sender.try_send(b"x"));
        line(&mut text, "send", sender.send(b"x"));
        let batch = sender.send_batch([b"x".as_slice(), b"y"]);
        line(
            &mut text,
            "send_batch",
            batch.error.map_or(Ok(batch.sent), Err),
        );
        line(&mut text, "loan", sender.loan(8).map(|loan| loan.len()));
        line(
            &mut text,
            "wait_for_receiver",
            sender.wait_for_receiver(u64::MAX),
        );
        let inbox = &mut self.inbox;
        line(&mut text, "try_recv", inbox.try_recv().map(|_| ()));
        line(&mut text, "recv", inbox.recv().map(|_| ()));
        line(
            &mut text,
            "recv_deadline",
            inbox.recv_deadline(u64::MAX).map(|_| ()),
        );
        line(
            &mut text,
            "recv_in_place",
            inbox.recv_in_place().map(|_| ()),
        );
        line(
            &mut text,
            "waiter.wait",
            self.waiter.wait(Some(0)).map(|_| ()),
        );
        line(&mut text, "waiter.remove", self.waiter.remove(0));
        let session = &self.session;
        line(&mut text, "sender", session.sender("other").map(|_| ()));
        line(&mut text, "inbox", session.inbox().map(|_| ()));
        line(
            &mut text,
            "inbox_of",
            session.inbox_of(&["arm.cmd"]).map(|_| ()),
        );
        line(
            &mut text,
            "caller",
            session.caller("other", "arm.cmd").map(|_| ()),
        );
        line(&mut text, "signals", session.signals().map(|_| ()));
        line(
            &mut text,
            "register",
            self.signals
                .register(signame::rt_min() + 1, Flags::new(), |_| {}),
        );
        line(
            &mut text,
            "enter",
            session
                .realtime()
                .lane("l")
                .lock_memory(false)
                .enter()
                .map(|_| ()),
        );
        let _ = writeln!(text, "state: {:?}", session.state());
        let origin = Origin {
            pid: parent,
            uid: 0,
            verified: true,
        };
        let is = (
            is_arm(&origin),
            session.is("arm")(&origin),
            session.peers().len(),
            session.channels().len(),
        );
        let _ = writeln!(text, "is: {is:?}");
        // SAFETY: the other users of the session are threads that this child does not have. What is
        // left of it is not dropped again, because the child exits.
        drop(unsafe { std::ptr::read(Arc::as_ptr(&self.session)) });
        let Inherited {
            session,
            sender,
            inbox,
            signals,
            waiter,
        } = self;
        std::mem::forget(session);
        drop((sender, inbox, signals, waiter));
        text + "dropped\n"
    }
}

impl Client {
    pub fn fork_order(&mut self, order: Order<'_>) -> anyhow::Result<Answer> {
        let said = match order {
            Order::Touch { endpoint, rounds } => self.touch(endpoint, rounds)?,
            Order::Loan(endpoint) => self.across_a_loan(endpoint)?,
            Order::InPlace => self.across_a_message()?,
            Order::Connect {
                socket,
                name,
                endpoint,
                number,
            } => in_child(|| {
                let sent = self
                    .builder(name)
                    .socket(socket)
                    .connect()
                    .map_err(|e| e.to_string())
                    .and_then(|session| {
                        let mut sender = session.sender(endpoint).map_err(|e| e.to_string())?;
                        sender
                            .send(&number.to_ne_bytes())
                            .map_err(|e| e.to_string())
                    });
                format!("{sent:?}\n")
            })?,
            Order::Idle => return Ok(Answer::Number(idle()?.as_raw().try_into()?)),
        };
        Ok(Answer::Lines(said.lines().map(str::to_owned).collect()))
    }

    fn touch(&mut self, endpoint: &str, rounds: u64) -> anyhow::Result<String> {
        let session = self.session.take().context("no session")?;
        let sender = self.senders.remove(endpoint).context("no sender")?;
        let inbox = self.inboxes.remove(ONLY).context("no inbox")?;
        let signals = session.signals()?;
        let mut waiter = Waiter::with_capacity(1)?;
        waiter.add(&inbox, 0, 0, Interest::Readable)?;
        let (is_arm, parent) = (session.is("arm"), std::process::id());
        // Holds the session's locks most of the time.
        let stop = Arc::new(AtomicBool::new(false));
        let (used, stopped) = (Arc::clone(&session), Arc::clone(&stop));
        let user = std::thread::spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                let _ = (used.peers(), used.channels());
            }
        });
        let mut all = Some(Inherited {
            session,
            sender,
            inbox,
            signals,
            waiter,
        });
        let mut said = Vec::new();
        for _ in 0..rounds {
            let touch = || {
                all.take()
                    .map(|all| all.touch(&is_arm, parent))
                    .unwrap_or_default()
            };
            said.push(in_child(touch)?);
        }
        stop.store(true, Ordering::Relaxed);
        user.join()
            .map_err(|_| anyhow::anyhow!("the thread panicked"))?;
        // The parent's go on.
        let Inherited {
            session,
            sender,
            inbox,
            mut waiter,
            ..
        } = all.context("the parent's are gone")?;
        waiter.remove(0)?;
        self.senders.insert(endpoint.to_owned(), sender);
        self.inboxes.insert(ONLY.to_owned(), inbox);
        self.session = Some(session);
        said.dedup();
        ensure!(said.len() == 1, "not always the same: {said:?}");
        Ok(said.remove(0))
    }

    /// A slot that is lent during the fork: the parent sends it.
    fn across_a_loan(&mut self, endpoint: &str) -> anyhow::Result<String> {
        let mut loan = self.sender(endpoint)?.loan(8)?;
        loan.copy_from_slice(&7_u64.to_ne_bytes());
        let mut loan = Some(loan);
        let said = in_child(|| {
            drop(loan.take());
            "dropped\n".to_owned()
        })?;
        let commit = || {
            let mut text = String::new();
            let Some(loan) = loan.take() else { return text };
            line(&mut text, "len", Ok::<_, String>(loan.len()));
            line(&mut text, "commit", loan.commit());
            text
        };
        let said = said + &in_child(commit)?;
        loan.context("the parent's loan is gone")?.commit()?;
        Ok(said)
    }

    /// A message that is read in place during the fork: the parent reads it on.
    fn across_a_message(&mut self) -> anyhow::Result<String> {
        let inbox = self.inbox(ONLY)?;
        let message = loop {
            if let Some(message) = inbox.recv_in_place()?.message() {
                break message;
            }
        };
        let mut message = Some(message);
        let copy = || {
            let copied = message.take().map(|message| message.copy_to(&mut [0; 8]));
            format!("copied: {copied:?}\n")
        };
        let said = in_child(copy)?;
        let (message, mut number) = (message.context("the parent's message is gone")?, [0; 8]);
        ensure!(
            message.copy_to(&mut number) == 8,
            "the parent's message is gone"
        );
        Ok(said + &format!("number: {}\n", u64::from_ne_bytes(number)))
    }
}
