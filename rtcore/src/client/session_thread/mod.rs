//! The session's own thread, `rtd-session`: an ordinary one that holds the connection to the
//! daemon, maps and unmaps rings, hands their ends to senders and inboxes, watches partners, and
//! reconnects.
//!
//! The thread and the senders and inboxes never wait for each other. They exchange everything
//! through queues ([`crate::channel::hand_off`], [`MailboxSender`]), barriers (`channel::barrier`)
//! and bells.
//!
//! Invariant: a routed ring's barrier is closed as soon as its connection has ended, and its
//! messages move once, into the next routed ring of the channel, before that is handed out.

mod notifications;
mod opening;
mod shared;

use super::connecting::Report;
use super::core::{Command, Core, State};
use super::error::ConnectError;
use super::event::Event;
use super::locate::{Place, may_order};
use crate::channel::{CloseReason, RxChannel, TxChannel, reason};
use crate::sys::epoll::Epoll;
use crate::sys::seqpacket::{Conn, Received};
use crate::wire::{Answer, FRAME_BYTES, FrameError, PeerStatus, Reply, Request, VERSION};
use notifications::HalfRing;
use opening::{Opening, Step};
use std::collections::VecDeque;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

const CONTROL: u64 = 0;
const CONNECTION: u64 = 1;
/// First token of a partner.
const PARTNERS: u64 = 16;

/// Pause between attempts at a socket whose file has not changed since the last attempt.
const RETRY: Duration = Duration::from_millis(50);
/// Pause between two checks of the socket's file while there is no daemon; each check costs a
/// system call. In the first second, a daemon that was restarted comes back.
///
/// The file is not watched with inotify(7): if a process ends with such a watch, or soon after it
/// removed one, it stays until a worker of the kernel has run on each CPU that used one
/// (`fsnotify_destroy_group`). Beside busy real-time threads this took more than 20 seconds, during
/// which the process counted as alive.
const CHECK_SOON: Duration = Duration::from_millis(5);
const LOOK: Duration = Duration::from_millis(50);
const SOON: Duration = Duration::from_secs(1);
/// Pause between attempts after a refusal, which seldom changes before a restart of rtd.
const REFUSED_RETRY: Duration = Duration::from_secs(1);
/// How long the result of [`SessionThread::serving`] is used.
const SERVING_MAX: Duration = Duration::from_secs(1);
/// Longest time that connect(2) waits for room in the daemon's backlog.
const CONNECT_MAX: Duration = Duration::from_secs(1);
/// Shortest life of a connection after which the thread reconnects at once.
const STOOD: Duration = Duration::from_secs(1);
/// How long to wait for the daemon to report the exit status of a partner, if this process cannot
/// read it.
const WITNESS_MAX: Duration = Duration::from_millis(10);
/// Pause between attempts while many clients crowd the daemon's socket.
const BUSY_RETRY: Duration = Duration::from_millis(10);
/// Limit of the questions that wait for their answers.
const QUESTIONS_MAX: usize = 64;

/// Why there is no connection, or no more.
#[derive(Debug)]
pub(super) enum Failure {
    Busy(Reply),
    Refused(Reply),
    Protocol(String),
    System(String, io::Error),
    /// connect(2) failed.
    NoDaemon(io::Error),
    Stranger(u32),
    /// The daemon closed it.
    Closed,
    Timeout,
}

impl Failure {
    fn system(what: &str) -> impl FnOnce(io::Error) -> Failure + use<> {
        let what = what.to_owned();
        |e| Failure::System(what, e)
    }
}

/// The settings of a new session.
#[derive(Debug)]
pub(super) struct Order {
    pub place: Place,
    pub tid: i32,
    pub limit: Duration,
}

/// Identifies the file at a path: another daemon makes another file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct SocketFile {
    device: u64,
    inode: u64,
    /// The time of the last change: a file system may give the inode number of a removed file to
    /// the next one.
    changed: (i64, i64),
}

impl SocketFile {
    fn at(path: &Path) -> Option<SocketFile> {
        let file = path.symlink_metadata().ok()?;
        Some(SocketFile {
            device: file.dev(),
            inode: file.ino(),
            changed: (file.ctime(), file.ctime_nsec()),
        })
    }
}

/// Phase of the connection.
#[derive(Debug)]
enum Phase {
    Down { next: Instant },
    Opening(Opening),
    Up,
}

/// State of the session thread.
#[derive(Debug)]
pub(super) struct SessionThread {
    core: Arc<Core>,
    order: Order,
    path: PathBuf,
    set: Epoll,
    /// The file that was at the path of the socket before the last attempt.
    seen: Option<SocketFile>,
    /// When the last connection ended.
    down_since: Instant,
    conn: Option<Conn>,
    phase: Phase,
    /// The channel to `connect` and its time limit, until `connect` returns.
    first: Option<(Report, Instant)>,
    /// The daemon's reply when the last attempt found no room.
    busy: Option<Reply>,
    /// Number of the reason of the daemon's refusal, until the session is up.
    refused: Option<u32>,
    /// Messages came, or may come, through an attempt that did not end with Ready.
    holds_messages: bool,
    /// `connect` has returned the session.
    is_handed_out: bool,
    /// The daemon whose page names the socket although nobody listens there, and the time at which
    /// the pages were read.
    serving: Option<(Instant, Option<(String, u32)>)>,
    /// Number of the current connection.
    connection: u64,
    /// The registration of the last connection that was open.
    generation: u32,
    up_since: Instant,
    outs: Vec<TxChannel>,
    ins: Vec<RxChannel>,
    /// Halves of direct rings, by serial.
    halves: Vec<HalfRing>,
    questions: VecDeque<mpsc::SyncSender<Reply>>,
    /// Peers whose exit was seen before the daemon reported its cause, with the time limit for the
    /// report.
    unreported_exits: Vec<(PeerStatus, Instant)>,
    next_token: u64,
}

impl SessionThread {
    pub fn new(core: Arc<Core>, order: Order, opened: Report) -> io::Result<SessionThread> {
        let set = Epoll::new()?;
        set.add(&core.control, CONTROL)?;
        let now = Instant::now();
        let first = Some((opened, now + order.limit));
        Ok(SessionThread {
            core,
            order,
            path: PathBuf::new(),
            set,
            seen: None,
            down_since: now,
            conn: None,
            phase: Phase::Down { next: now },
            first,
            busy: None,
            refused: None,
            holds_messages: false,
            is_handed_out: false,
            serving: None,
            connection: 0,
            generation: 0,
            up_since: now,
            outs: Vec::new(),
            ins: Vec::new(),
            halves: Vec::new(),
            questions: VecDeque::new(),
            unreported_exits: Vec::new(),
            next_token: PARTNERS,
        })
    }

    /// Runs until the session is dropped, or its first attempt has failed.
    pub fn live(mut self) {
        let mut tokens = Vec::new();
        loop {
            let now = Instant::now();
            let wake = match &self.phase {
                Phase::Down { next } => Some((*next).min(now + self.check_interval())),
                Phase::Opening(opening) => Some(opening.deadline),
                Phase::Up => None,
            };
            let wake = self
                .unreported_exits
                .iter()
                .map(|(_, until)| *until)
                .chain(wake)
                .min();
            let timeout = wake.map(|at| at.saturating_duration_since(now));
            if self.set.wait(&mut tokens, timeout).is_err() {
                break;
            }
            let mut stop = false;
            for token in &tokens {
                match *token {
                    CONTROL => stop |= self.commands(),
                    CONNECTION => _ = self.read(),
                    token => self.partner_ended(token),
                }
            }
            if stop || self.on_time() {
                break;
            }
        }
        self.finish();
    }

    /// Does the work that is due; true if the first attempt has failed for good.
    fn on_time(&mut self) -> bool {
        let now = Instant::now();
        self.report_exit(|until| until <= now);
        let failed = match &self.phase {
            Phase::Down { next } if *next <= now || self.has_new_socket() => self.dial().err(),
            Phase::Opening(opening) if opening.deadline <= now => Some(Failure::Timeout),
            _ => None,
        };
        if let Some(failure) = failed {
            self.fail(failure);
        }
        self.first.is_none() && !self.is_handed_out
    }

    fn check_interval(&self) -> Duration {
        if self.is_handed_out && self.down_since.elapsed() < SOON {
            CHECK_SOON
        } else {
            LOOK
        }
    }

    /// Whether a daemon has made or removed the socket since the last attempt began.
    fn has_new_socket(&self) -> bool {
        self.is_handed_out && SocketFile::at(&self.path) != self.seen
    }

    /// Connects and requests the name; the replies are read later.
    fn dial(&mut self) -> Result<(), Failure> {
        let (path, check) = self.order.place.resolve();
        self.path = path;
        self.seen = SocketFile::at(&self.path);
        // The kernel does not accept a limit of 0.
        let limit = self
            .order
            .limit
            .clamp(Duration::from_millis(1), CONNECT_MAX);
        let conn = Conn::connect(&self.path, limit).map_err(|e| match e.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => Failure::NoDaemon(e),
            _ => Failure::System("connecting".to_owned(), e),
        })?;
        if check {
            let uid = conn
                .peer()
                .map_err(Failure::system("asking who listens"))?
                .uid;
            if !may_order(uid) {
                return Err(Failure::Stranger(uid));
            }
        }
        let request = Request::Open {
            name: self.core.process,
            tid: self.order.tid,
            semaphores: self.core.has_semaphores(),
            resumes: self.generation,
            program: crate::epoch::program(),
            lane: self.core.lane_of(self.order.tid),
        };
        // If sending fails, the daemon has closed the connection, and its reason can still be read.
        let _ = conn.send(&request.encode());
        self.set
            .add(&conn, CONNECTION)
            .map_err(Failure::system("watching the connection"))?;
        self.conn = Some(conn);
        let deadline = self
            .first
            .as_ref()
            .map_or_else(|| Instant::now() + self.order.limit, |(_, until)| *until);
        self.phase = Phase::Opening(Opening::new(deadline));
        Ok(())
    }

    /// Reads a bounded number of the daemon's frames. Returns whether there may be more.
    fn read(&mut self) -> bool {
        for _ in 0..64 {
            let mut frame = [0; FRAME_BYTES];
            let mut fds = Vec::new();
            let Some(conn) = &self.conn else { return false };
            let done = match conn.receive_with(&mut frame, &mut fds) {
                Ok(Received::Packet(len)) => self.frame(frame.get(..len).unwrap_or_default(), fds),
                Ok(Received::Nothing) => return false,
                Ok(Received::Closed) => Err(Failure::Closed),
                Err(e) => Err(Failure::System("reading from rtd".to_owned(), e)),
            };
            if let Err(failure) = done {
                self.fail(failure);
                return false;
            }
        }
        true
    }

    /// Reads all frames that are there, for threads that wait for this.
    fn catch_up(&mut self) {
        if let Some(asked) = self.core.waiting() {
            while self.read() {}
            self.core.answer(asked);
        }
    }

    fn frame(&mut self, bytes: &[u8], fds: Vec<OwnedFd>) -> Result<(), Failure> {
        let answer = Answer::decode(bytes).map_err(|e| Failure::Protocol(violation(&e)))?;
        match (answer, &mut self.phase) {
            (Answer::Reply(reply), Phase::Opening(opening)) => opening.reply(reply, fds),
            (Answer::Notice(notice), Phase::Opening(opening)) => {
                match opening.notice(notice, fds)? {
                    Step::Nothing => return Ok(()),
                    Step::Map(serial) => {
                        opening.map(&self.core)?;
                        crate::fault_point!(
                            "after_map_before_mapped",
                            return Err(Failure::system("fault point")(
                                io::ErrorKind::OutOfMemory.into()
                            ))
                        );
                        self.hand_over();
                        // If the daemon has closed the connection, the next read returns the
                        // reason.
                        let _ = self
                            .conn
                            .as_ref()
                            .map(|conn| conn.send(&Request::Mapped { serial }.encode()));
                        return Ok(());
                    }
                    Step::Ready => {}
                }
                if let Phase::Opening(opening) = std::mem::replace(&mut self.phase, Phase::Up) {
                    self.open(opening)?;
                    self.up_since = Instant::now();
                    (self.busy, self.refused, self.serving) = (None, None, None);
                    self.is_handed_out = true;
                    self.wake();
                    if let Some((opened, _)) = self.first.take() {
                        // The caller of `connect` takes the session over. If it has given up, the
                        // session is dropped, which stops this thread.
                        opened.send(Ok(()));
                    }
                }
                Ok(())
            }
            (Answer::Reply(reply), _) => {
                if let Some(question) = self.questions.pop_front() {
                    // The thread that asked may have given up.
                    let _ = question.try_send(reply);
                }
                Ok(())
            }
            (Answer::Notice(notice), _) => {
                self.notice(notice, fds)?;
                self.wake();
                Ok(())
            }
        }
    }

    /// Handles the end of a connection, or of an attempt at one.
    fn fail(&mut self, failure: Failure) {
        self.hang_up();
        let ended = std::mem::replace(
            &mut self.phase,
            Phase::Down {
                next: Instant::now(),
            },
        );
        if let Phase::Opening(opening) = ended {
            // A daemon that lives delivers until it has noticed the end of the connection.
            let may_deliver = opening.is_mapped() && matches!(failure, Failure::Timeout);
            self.holds_messages |= self.keep_received(opening) || may_deliver;
        }
        let failure = match (failure, self.busy.take()) {
            // The daemon answers, but had no room; the time limit passed during the next attempt.
            (Failure::Timeout, Some(reply)) => Failure::Busy(reply),
            (failure, _) => failure,
        };
        if let Failure::Busy(reply) = &failure {
            self.busy = Some(reply.clone());
        }
        let busy = matches!(failure, Failure::Busy(_));
        let refused = matches!(
            failure,
            Failure::Refused(_) | Failure::Stranger(_) | Failure::Protocol(_)
        );
        let reason = match &failure {
            Failure::Refused(reply) => Some(reason::keep(&reply.text)),
            _ => None,
        };
        let ended = matches!(
            failure,
            Failure::Closed | Failure::System(..) | Failure::NoDaemon(_)
        );
        // Giving up would lose messages that a daemon delivered before it ended.
        let again = (busy || ended && self.holds_messages)
            && self
                .first
                .as_ref()
                .is_none_or(|(_, until)| Instant::now() < *until);
        let error = self.error(failure);
        let first = if again { None } else { self.first.take() };
        // Only the session can return messages that were delivered to it.
        self.is_handed_out |= first.is_some() && self.holds_messages;
        // A daemon that ends connections as soon as they are open is not contacted again at once.
        let stood = self.connection > 0 && self.up_since.elapsed() > STOOD;
        let state = std::mem::replace(&mut self.core.table().state, State::Down(error.to_string()));
        let was_up = state == State::Up;
        if was_up {
            self.down_since = Instant::now();
        }
        // The attempt may have reached the daemon before the one that has just started.
        let pause = match (was_up && stood || self.has_new_socket(), busy) {
            (true, _) => Duration::ZERO,
            (false, true) => BUSY_RETRY,
            (false, false) if refused => REFUSED_RETRY,
            (false, false) => RETRY,
        };
        self.phase = Phase::Down {
            next: Instant::now() + pause,
        };
        // Includes a connection that was never completely up: some of its rings may be in use.
        self.shut(reason.map_or(CloseReason::Down, CloseReason::Refused));
        if was_up {
            self.queue_event(Event::Down);
        }
        if let Some(number) = reason.filter(|_| self.refused != reason) {
            self.refused = reason;
            self.queue_event(Event::Refused {
                reason: reason::text(number),
            });
        }
        self.report_exit(|_| true);
        self.wake();
        if let Some((opened, _)) = first {
            // `connect` waits for this.
            opened.send(if self.is_handed_out {
                Ok(())
            } else {
                Err(error)
            });
        }
    }

    /// Drops the connection.
    fn hang_up(&mut self) {
        if let Some(conn) = self.conn.take() {
            let _ = self.set.remove(&conn);
            conn.hang_up();
        }
        self.halves.clear();
        // Dropping the channel notifies the threads that asked.
        self.questions.clear();
    }

    fn error(&mut self, failure: Failure) -> ConnectError {
        let (path, limit) = (self.path.clone(), self.order.limit);
        let refused = |reply: Reply| ConnectError::Refused {
            process: self.core.process,
            status: reply.status,
            text: reply.text,
        };
        match failure {
            Failure::Busy(reply) | Failure::Refused(reply) => refused(reply),
            Failure::Protocol(what) => ConnectError::Protocol { path, what },
            Failure::System(what, source) => ConnectError::System { what, source },
            Failure::NoDaemon(source) => match self.serving() {
                Some((instance, pid)) => ConnectError::NoSocket {
                    path,
                    instance,
                    pid,
                    source,
                },
                None => ConnectError::NoDaemon { path, source },
            },
            Failure::Stranger(uid) => ConnectError::Stranger { path, uid },
            Failure::Closed => {
                let text = "rtd closed the connection: it ended, or its log says why it ended this session";
                let source = io::Error::new(io::ErrorKind::ConnectionReset, text);
                ConnectError::System {
                    what: path.display().to_string(),
                    source,
                }
            }
            Failure::Timeout => ConnectError::Timeout { path, limit },
        }
    }

    /// The running daemon whose socket was removed. The search runs once a second, not at each
    /// attempt, because it opens and maps the statistics pages.
    fn serving(&mut self) -> Option<(String, u32)> {
        let now = Instant::now();
        let known = self
            .serving
            .take()
            .filter(|(read, _)| now.duration_since(*read) < SERVING_MAX);
        let (read, serving) = known.unwrap_or_else(|| (now, self.order.place.serving(&self.path)));
        self.serving = Some((read, serving.clone()));
        serving
    }

    /// Carries out commands and collects returned ends; true if the session was dropped.
    fn commands(&mut self) -> bool {
        self.core.control.take();
        self.catch_up();
        let commands = std::mem::take(&mut self.core.table().commands);
        let (mut stop, mut wake) = (false, self.core.take_wake());
        for command in commands {
            match command {
                Command::Stop => stop = true,
                Command::Wake => wake = true,
                Command::Explain { endpoint, answer } => {
                    let up =
                        matches!(self.phase, Phase::Up) && self.questions.len() < QUESTIONS_MAX;
                    let request = Request::Explain { endpoint }.encode();
                    if up
                        && self
                            .conn
                            .as_ref()
                            .is_some_and(|conn| conn.send(&request).unwrap_or(false))
                    {
                        self.questions.push_back(answer);
                    }
                }
            }
        }
        if self.flush() || wake {
            self.wake();
        }
        stop
    }

    /// Cleans up after the session was dropped, or never opened.
    fn finish(&mut self) {
        // If the frame does not fit, rtd treats the end of the connection as an unannounced one.
        let _ = self
            .conn
            .as_ref()
            .map(|conn| conn.send(&Request::Leave.encode()));
        self.hang_up();
        self.shut(CloseReason::Closed);
        let mut table = self.core.table();
        table.state = State::Closed;
        let (senders, receivers) = (
            std::mem::take(&mut table.senders),
            std::mem::take(&mut table.receivers),
        );
        drop(table);
        // Drops the ends that nobody holds.
        drop((senders, receivers));
        self.core.close();
        self.wake();
    }

    fn shut(&mut self, why: CloseReason) {
        self.outs.iter_mut().for_each(|entry| entry.shut(why));
        self.ins.iter_mut().for_each(RxChannel::shut);
    }
}

/// Describes a frame that cannot be read; [`ConnectError::Protocol`] adds the fix.
fn violation(error: &FrameError) -> String {
    match error {
        FrameError::Version(theirs) => {
            format!("rtd speaks protocol version {theirs}, this program {VERSION}")
        }
        other => other.to_string(),
    }
}
