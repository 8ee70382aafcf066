//! Signals and their payloads by the library's dispatcher.

use super::super::order::{Answer, Dispatcher, Handlers as Order, Noticed};
use super::super::patience;
use super::session::Client;
use anyhow::{Context as _, ensure};
use rtcore::client::Session;
use rtcore::client::signals::{Flags, Notice, Signals};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};

/// What handlers and orders share.
#[derive(Default)]
struct Log {
    noticed: Mutex<Vec<Noticed>>,
    grown: Condvar,
    /// Handlers wait while it is set.
    held: Mutex<bool>,
    released: Condvar,
}

/// The dispatcher of this process and what its handlers noted.
#[derive(Default)]
pub struct Dispatch {
    log: Arc<Log>,
    signals: Option<Arc<Signals>>,
    /// A dispatcher that one of its handlers replaces.
    replaced: Arc<Mutex<Option<Arc<Signals>>>>,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(|e| e.into_inner())
}

impl Log {
    fn note(&self, notice: &Notice<'_>) {
        let head = notice.head;
        locked(&self.noticed).push(Noticed {
            signo: notice.signo,
            value: notice.value,
            pid: notice.origin.pid,
            verified: notice.origin.verified,
            head: head.map(|head| (head.from().to_owned(), head.sequence())),
            payload: notice.payload.to_vec(),
        });
        self.grown.notify_all();
    }
}

impl Dispatch {
    pub fn obey(&mut self, client: &Client, order: Order<'_>) -> anyhow::Result<Answer> {
        match order {
            Order::Block(signo) => Signals::block([signo])?,
            Order::Handle { signo, from } => {
                let session = client.session()?;
                let flags = from.map_or_else(Flags::new, |from| {
                    let is = session.is(from);
                    Flags::new().only_from(move |origin| origin.verified && is(origin))
                });
                self.handle(session, signo, flags)?;
            }
            Order::ReplaceInHandler(signo) => self.replace_in_handler(client.session()?, signo)?,
            Order::Hold => *locked(&self.log.held) = true,
            Order::Release => {
                *locked(&self.log.held) = false;
                self.log.released.notify_all();
            }
            Order::Notices(count) => return Ok(Answer::Notices(self.grown_to(count)?.clone())),
            Order::CountUp { from, count } => {
                let noticed = self.grown_to(count)?;
                let wrong = (from..)
                    .zip(noticed.iter())
                    .find(|(n, got)| *n != got.value);
                ensure!(wrong.is_none(), "{wrong:?}");
                ensure!(
                    noticed.len() as u64 == count,
                    "{} came, not {count}",
                    noticed.len()
                );
            }
            Order::Counters => {
                let c = self.signals.as_ref().context("no dispatcher")?.counters();
                return Ok(Answer::Dispatcher(Dispatcher {
                    received: c.received,
                    unhandled: c.unhandled,
                    doorbells: c.doorbells,
                    duplicates: c.duplicates,
                }));
            }
            Order::End => self.signals = None,
        }
        Ok(Answer::Done)
    }

    fn handle(&mut self, session: &Session, signo: i32, flags: Flags) -> anyhow::Result<()> {
        let log = Arc::clone(&self.log);
        if self.signals.is_none() {
            self.signals = Some(session.signals()?);
        }
        let signals = self.signals.as_ref().context("no dispatcher")?;
        signals.register(signo, flags, move |notice| {
            let mut held = locked(&log.held);
            while *held {
                held = log.released.wait(held).unwrap_or_else(|e| e.into_inner());
            }
            drop(held);
            log.note(notice);
        })?;
        Ok(())
    }

    fn replace_in_handler(&mut self, session: &Arc<Session>, signo: i32) -> anyhow::Result<()> {
        let (log, place) = (Arc::clone(&self.log), Arc::clone(&self.replaced));
        let first = session.signals()?;
        let mut session = Some(Arc::clone(session));
        first.register(signo, Flags::new(), move |notice| {
            log.note(notice);
            let Some(session) = session.take() else {
                return;
            };
            drop(locked(&place).take());
            let log = Arc::clone(&log);
            let next = session.signals().and_then(|next| {
                next.register(signo, Flags::new(), move |notice| log.note(notice))
                    .map(|_| next)
            });
            // What went wrong shows by what never comes.
            *locked(&place) = next.ok();
        })?;
        *locked(&self.replaced) = Some(first);
        Ok(())
    }

    /// Waits for so many.
    fn grown_to(&self, count: u64) -> anyhow::Result<MutexGuard<'_, Vec<Noticed>>> {
        let noticed = locked(&self.log.noticed);
        let waited = self
            .log
            .grown
            .wait_timeout_while(noticed, 3 * patience(), |all| (all.len() as u64) < count);
        let (noticed, timeout) = waited.unwrap_or_else(|e| e.into_inner());
        ensure!(!timeout.timed_out(), "{} notices of {count}", noticed.len());
        Ok(noticed)
    }
}
