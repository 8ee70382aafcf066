//! A session, and what a participant has of it.

use super::super::order::{Answer, Session as Order};
use super::super::patience;
use super::send::Flood;
use anyhow::Context as _;
use rtcore::client::{Builder, Caller, Inbox, PeerStatus, ReplyTo, Sender, Session};
use rtcore::lane::peer::PeerState;
use rtcore::skin::Skin;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::Barrier;
use std::time::Duration;

/// What one participant has of the library. (The session is dropped last.)
#[derive(Default)]
pub struct Client {
    /// Linux's calls where there is none.
    pub skin: Option<&'static Skin>,
    pub senders: BTreeMap<String, Sender>,
    pub inboxes: BTreeMap<String, Inbox>,
    pub callers: BTreeMap<String, Caller>,
    /// A request that is not answered yet.
    pub asked: Option<ReplyTo>,
    pub flood: Option<Flood>,
    pub session: Option<Arc<Session>>,
}

/// An error with its variant in front, so that a test can tell which it is.
pub fn told<E: std::error::Error + Send + Sync + 'static>(e: E) -> anyhow::Error {
    anyhow::anyhow!("{e:?}: {e}")
}

impl Client {
    /// With sessions on this skin.
    pub fn on(skin: Option<&'static Skin>) -> Client {
        Client {
            skin,
            ..Client::default()
        }
    }

    pub fn builder(&self, name: &str) -> Builder {
        let builder = Session::builder(name).timeout(patience());
        self.skin.map_or(builder.clone(), |skin| builder.skin(skin))
    }

    pub fn session(&self) -> anyhow::Result<&Arc<Session>> {
        self.session.as_ref().context("no session")
    }

    pub fn sender(&mut self, endpoint: &str) -> anyhow::Result<&mut Sender> {
        let sender = self.senders.get_mut(endpoint);
        sender.with_context(|| format!("no sender {endpoint}"))
    }

    pub fn inbox(&mut self, key: &str) -> anyhow::Result<&mut Inbox> {
        let inbox = self.inboxes.get_mut(key);
        inbox.with_context(|| format!("no inbox {key}"))
    }

    /// One of each.
    pub fn ends(&mut self, key: &str, out: &str) -> anyhow::Result<(&mut Inbox, &mut Sender)> {
        let inbox = self.inboxes.get_mut(key).context("no inbox")?;
        Ok((inbox, self.senders.get_mut(out).context("no sender")?))
    }

    fn connect(&mut self, builder: Builder) -> anyhow::Result<()> {
        self.session = Some(Arc::new(builder.connect().map_err(told)?));
        Ok(())
    }

    pub fn session_order(&mut self, order: Order<'_>) -> anyhow::Result<Answer> {
        match order {
            Order::Connect { socket, name } => self.connect(self.builder(name).socket(socket))?,
            Order::ConnectWithin {
                limit_ms,
                socket,
                name,
            } => {
                let limit = Duration::from_millis(limit_ms);
                self.connect(self.builder(name).timeout(limit).socket(socket))?;
            }
            Order::ConnectInstance { instance, name } => {
                self.connect(self.builder(name).instance(instance))?;
            }
            Order::ConnectAgain { socket, name } => {
                let builder = Session::builder(name).socket(socket);
                drop(builder.connect().map_err(told)?);
            }
            Order::Close => self.session = None,
            Order::CloseAll => *self = Client::on(self.skin),
            Order::State => return Ok(Answer::Text(format!("{:?}", self.session()?.state()))),
            Order::Lives(process) => {
                let lives = |peer: &PeerStatus| {
                    peer.state == PeerState::Alive && peer.process.as_str() == process
                };
                return Ok(Answer::Is(self.session()?.peers().iter().any(lives)));
            }
            Order::Promote(lane) => {
                let realtime = self.session()?.realtime().lane(lane);
                let granted = realtime.below(1).lock_memory(false).enter();
                let priority = granted.map_err(told)?.priority();
                return Ok(Answer::Number(priority.into()));
            }
            Order::Race { endpoint, rounds } => return self.race(endpoint, rounds),
        }
        Ok(Answer::Done)
    }

    fn race(&self, endpoint: &str, rounds: u64) -> anyhow::Result<Answer> {
        let (session, start) = (self.session()?, Barrier::new(2));
        let claim = || {
            start.wait();
            session.inbox_of(&[endpoint])
        };
        let mut wrong = 0;
        for _ in 0..rounds {
            let [a, b] = std::thread::scope(|scope| {
                [scope.spawn(claim), scope.spawn(claim)].map(|thread| thread.join())
            });
            let claimed = [&a, &b]
                .into_iter()
                .filter(|claimed| matches!(claimed, Ok(Ok(_))));
            wrong += u64::from(claimed.count() != 1);
        }
        Ok(Answer::Number(wrong))
    }
}
