//! A session that is being opened.

use super::error::ConnectError;
use super::session::Session;
use crate::sync::{AtomicU32, Ordering};
use crate::sys::futex;
use std::io;
use std::sync::Arc;
use std::sync::mpsc::{self, TryRecvError};

type Outcome = Result<(), ConnectError>;

/// The session thread's half: it reports how the first attempt to connect ended. Dropped without a
/// report, the thread has ended.
#[derive(Debug)]
pub(super) struct Report {
    /// None while it is dropped.
    outcome: Option<mpsc::SyncSender<Outcome>>,
    /// Changes with the report, or with its absence.
    over: Arc<AtomicU32>,
}

/// The other half.
#[derive(Debug)]
pub(super) struct Outcomes {
    outcome: mpsc::Receiver<Outcome>,
    over: Arc<AtomicU32>,
}

pub(super) fn channel() -> (Report, Outcomes) {
    let (sender, outcome) = mpsc::sync_channel(1);
    let over = Arc::new(AtomicU32::new(0));
    let report = Report {
        outcome: Some(sender),
        over: Arc::clone(&over),
    };
    (report, Outcomes { outcome, over })
}

impl Report {
    /// If nobody listens, the caller has given up: its session is dropped, which stops the thread.
    pub fn send(self, outcome: Outcome) {
        if let Some(sender) = &self.outcome {
            let _ = sender.send(outcome);
        }
    }
}

impl Drop for Report {
    fn drop(&mut self) {
        self.outcome = None;
        // SYNC POINT with `Connecting::sleep_once`: the channel has the report, or has ended.
        self.over.store(1, Ordering::Release);
        futex::wake_all(&self.over);
    }
}

/// A session that is being opened ([`Builder::start`](super::session::Builder::start)), for a
/// program that has something to do between two sleeps. Dropping it gives the attempt up.
#[derive(Debug)]
pub struct Connecting {
    session: Session,
    outcomes: Outcomes,
}

impl Connecting {
    pub(super) fn new(session: Session, outcomes: Outcomes) -> Connecting {
        Connecting { session, outcomes }
    }

    /// Waits until the session is open.
    ///
    /// Errors: [`ConnectError`].
    pub fn finish(self) -> Result<Session, ConnectError> {
        match self.outcomes.outcome.recv() {
            Ok(outcome) => outcome.map(|()| self.session),
            Err(mpsc::RecvError) => Err(ended()),
        }
    }

    /// The session, or itself if that is not open yet.
    ///
    /// Errors: [`ConnectError`].
    pub fn try_finish(self) -> Result<Result<Session, Connecting>, ConnectError> {
        match self.outcomes.outcome.try_recv() {
            Ok(outcome) => outcome.map(|()| Ok(self.session)),
            Err(TryRecvError::Empty) => Ok(Err(self)),
            Err(TryRecvError::Disconnected) => Err(ended()),
        }
    }

    /// Sleeps once until the session may be open. Returns for a signal whose handler was installed
    /// without SA_RESTART and for no reason, too. The time limit is the session's.
    pub fn sleep_once(&mut self) {
        if self.outcomes.over.load(Ordering::Acquire) == 0 {
            // Whatever ended it, the caller looks.
            let _ = futex::wait(&self.outcomes.over, 0, u64::MAX);
        }
    }
}

/// The thread panicked; its text is out already.
fn ended() -> ConnectError {
    ConnectError::System {
        what: "the session's thread".to_owned(),
        source: io::Error::other("it ended without a report"),
    }
}
