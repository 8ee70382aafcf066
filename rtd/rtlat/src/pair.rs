//! One pair: made in three steps (shared memory and forks; threads; blocks), and run block by
//! block.
//!
//! Every fork comes before the first thread of the process: [`Pair::prepare`] of all pairs, then
//! [`Pair::launch`].

mod roles;

use super::breaker::Breaker;
use super::control_block::{Block, ControlBlock, Role};
use super::mech::Mechanism;
use super::recorder::{Recorder, Recording, Tally};
use super::role_loops::{Log, ThreadPlacement};
use super::series::{Packed, RoleInfo, Series};
use super::time::wall_at;
use crate::sys::fork::{ForkedChild, fork_child};
use anyhow::{Context as _, bail};
use roles::{partner, recorder};
use rtcore::sys::clock::{monotonic_ns, nanos};
use rtcore::sys::rtsignal;
use std::sync::{Arc, OnceLock};
use std::thread::JoinHandle;
use std::time::Duration;

/// Recorders that go round between a pair and the main thread: one at work, the others ready for
/// the next slices.
const RECORDERS: usize = 4;
/// How long a role may take to become ready.
const START_MAX: Duration = Duration::from_secs(30);
/// How often a look is taken at a block that nobody watches.
const POLL_NS: u64 = 10_000_000;
/// How long a role may take to end after a request.
const END: Duration = Duration::from_secs(5);
/// After the last message was sent, its receiver has this long to get it.
const ARRIVAL: Duration = Duration::from_secs(1);

/// The work of a pair.
pub enum Work {
    /// Waits for points in time.
    Timer,
    /// Messages from the sender to the receiver.
    OneWay(Box<dyn Mechanism>),
    /// The same, where one thread is both.
    OneThread(Box<dyn Mechanism>),
    /// There and back.
    RoundTrip(Box<dyn Mechanism>, Box<dyn Mechanism>),
    /// Messages from the sender to the receiver by the first, for each of which the receiver asks
    /// by the second.
    Synced(Box<dyn Mechanism>, Box<dyn Mechanism>),
}

/// How to make one.
pub struct PairSpec {
    /// Its work.
    pub work: Work,
    /// CPU and priority of its sender.
    pub sender: ThreadPlacement,
    /// CPU and priority of its receiver.
    pub receiver: ThreadPlacement,
    /// The role that does not record is a process.
    pub fork: bool,
    /// How to record.
    pub recording: Recording,
    /// The kernel's trace, for a culprit.
    pub breaker: Option<Breaker>,
    /// Every sample is shown.
    pub is_verbose: bool,
}

/// Samples between the thread that records and the main thread.
const SAMPLES: usize = 1 << 16;

/// The role that does not record.
enum Partner {
    None,
    Thread(JoinHandle<()>),
    Process(ForkedChild),
}

/// See the module.
pub struct Pair {
    number: usize,
    work: Arc<Work>,
    placements: [ThreadPlacement; 2],
    recording: Recording,
    control: Arc<ControlBlock>,
    partner: Partner,
    breaker: Option<Breaker>,
    fork: bool,
    is_verbose: bool,
    samples: Option<rtrb::Consumer<(u64, u64)>>,
    /// Changes that were processed.
    seen: u32,
    /// When the block was found sent.
    sent_ns: Option<u64>,
    /// When it was found stopped before that.
    stopped_ns: Option<u64>,
    recorder: Option<JoinHandle<()>>,
    trace: Arc<OnceLock<String>>,
    fresh: Option<rtrb::Producer<Box<Recorder>>>,
    done: Option<rtrb::Consumer<Box<Recorder>>>,
    /// The data of the running block so far, and its slices.
    whole: Recorder,
    slices: Vec<Slice>,
    order: u32,
    interval_ns: u64,
}

/// Part of a block.
#[derive(Debug)]
pub struct Slice {
    /// Receive times of its first and last message, CLOCK_MONOTONIC.
    pub from_ns: u64,
    /// End of the interval, on the same clock as `from_ns`.
    pub until_ns: u64,
    pub raw: Packed,
}

impl Pair {
    /// Makes the shared memory, and the child process where one is wanted.
    pub fn prepare(number: usize, spec: PairSpec) -> anyhow::Result<Pair> {
        let PairSpec {
            work,
            sender,
            receiver,
            fork,
            recording,
            breaker,
            is_verbose,
        } = spec;
        let control = Arc::new(ControlBlock::new().context("cannot map shared memory")?);
        let (work, placements) = (Arc::new(work), [sender, receiver]);
        let partner = match &*work {
            Work::Timer if fork => bail!("-f: a timer has no second process"),
            _ if fork && roles(&work) == 2 => {
                let (control, work) = (Arc::clone(&control), Arc::clone(&work));
                let child = fork_child(move || {
                    partner(&control, &work, placements);
                    u8::from(control.failure().is_some())
                });
                Partner::Process(child.context("cannot fork")?)
            }
            _ => Partner::None,
        };
        Ok(Pair {
            number,
            work,
            placements,
            recording,
            control,
            partner,
            breaker,
            fork,
            is_verbose,
            samples: None,
            seen: 0,
            sent_ns: None,
            stopped_ns: None,
            recorder: None,
            trace: Arc::default(),
            fresh: None,
            done: None,
            whole: Recorder::new(recording),
            slices: Vec::new(),
            order: 0,
            interval_ns: 0,
        })
    }

    /// Starts its threads and waits until both roles are ready.
    pub fn launch(&mut self) -> anyhow::Result<()> {
        let (fresh, take_fresh) = rtrb::RingBuffer::new(RECORDERS);
        let (give_done, done) = rtrb::RingBuffer::new(RECORDERS);
        (self.fresh, self.done) = (Some(fresh), Some(done));
        let (control, work, placements) = (
            Arc::clone(&self.control),
            Arc::clone(&self.work),
            self.placements,
        );
        let (breaker, trace) = (self.breaker.take(), Arc::clone(&self.trace));
        let (show, samples) = rtrb::RingBuffer::new(if self.is_verbose { SAMPLES } else { 0 });
        self.samples = self.is_verbose.then_some(samples);
        let show = self.is_verbose.then_some(show);
        let log = Log::new(
            Arc::clone(&control),
            take_fresh,
            give_done,
            show,
            breaker,
            trace,
        );
        let name = format!("rtlat-{}", self.number);
        let thread = std::thread::Builder::new().name(name);
        self.recorder = Some(
            thread
                .spawn(move || recorder(log, &work, placements))
                .context("cannot start a thread")?,
        );
        let roles = roles(&self.work);
        if roles == 2 && !self.fork {
            let (control, work) = (Arc::clone(&self.control), Arc::clone(&self.work));
            let thread = std::thread::Builder::new().name(format!("rtlat-{}p", self.number));
            let thread = thread.spawn(move || partner(&control, &work, placements));
            self.partner = Partner::Thread(thread.context("cannot start a thread")?);
        }
        self.await_ready(roles)
    }

    fn await_ready(&mut self, roles: u32) -> anyhow::Result<()> {
        let until_ns = monotonic_ns() + nanos(START_MAX);
        let mut seen = self.control.changes();
        while self.control.ready() < roles {
            self.check()?;
            let left_ns = until_ns.saturating_sub(monotonic_ns());
            if left_ns == 0 {
                bail!(
                    "{}: the sender or the receiver did not start within {START_MAX:?}",
                    self.name()
                );
            }
            // Bounded: a child that died does not wake us.
            seen = self.control.wait_change(seen, left_ns.min(100_000_000));
        }
        Ok(())
    }

    /// An error when a role failed.
    pub fn check(&mut self) -> anyhow::Result<()> {
        if let Some(why) = self.control.failure() {
            bail!("{}: {why}", self.name());
        }
        if let Partner::Process(child) = &mut self.partner
            && let Some(ending) = child
                .try_wait()
                .context("waiting for the sender's process")?
        {
            bail!("{}: its second process ended: {ending}", self.name());
        }
        Ok(())
    }

    /// `mq`, `route lane` ...
    pub fn name(&self) -> &str {
        match &*self.work {
            Work::Timer => "timer",
            Work::OneWay(mechanism)
            | Work::OneThread(mechanism)
            | Work::RoundTrip(mechanism, _)
            | Work::Synced(mechanism, _) => mechanism.name(),
        }
    }

    /// The words it shares.
    pub fn control(&self) -> &ControlBlock {
        &self.control
    }

    /// Starts a block. The one before has ended.
    pub fn begin(&mut self, block: &Block) {
        self.whole = Recorder::new(self.recording);
        self.slices.clear();
        (self.sent_ns, self.stopped_ns) = (None, None);
        self.interval_ns = block.interval_ns;
        if let Some(fresh) = &mut self.fresh {
            let wanted = if block.slice_ns > 0 { RECORDERS } else { 1 };
            while fresh.slots() + wanted > RECORDERS {
                // It has room: its slots were counted.
                let _ = fresh.push(Box::new(Recorder::new(self.recording)));
            }
        }
        self.order = self.control.begin(block);
    }

    /// Collects slices; true when the block has ended.
    fn collect(&mut self) -> bool {
        let is_closed = self.control.is_closed(self.order);
        while let Some(full) = self.done.as_mut().and_then(|done| done.pop().ok()) {
            self.whole.append(&full);
            self.slices.push(Slice {
                from_ns: full.first_ns,
                until_ns: full.last_ns,
                raw: Packed::of(&full.raw),
            });
            if let Some(fresh) = &mut self.fresh
                && !is_closed
            {
                // It has room: this one came out of it.
                let _ = fresh.push(Box::new(Recorder::new(self.recording)));
            }
        }
        is_closed
    }

    /// Whether all of the block is sent.
    pub fn is_sent(&self) -> bool {
        self.control.is_sent(self.order)
    }

    /// The values of the live view.
    pub fn tally(&self) -> Tally {
        self.control.tally()
    }

    /// Ends the block early, or hurries it on: threads that sleep are woken.
    pub fn stop(&self) {
        self.control.stop();
        self.wake();
    }

    /// The end of the block is not waited for any more.
    fn give_up(&self) {
        self.control.give_up(self.order);
        self.wake();
    }

    fn wake(&self) {
        for role in [Role::Sender, Role::Receiver] {
            let (tid, _) = self.control.whereabouts(role);
            if tid > 0 {
                // Only one of our own threads is reached by this; a tid that is a child's is none.
                rtsignal::wake(tid);
            }
        }
        if let Partner::Process(child) = &self.partner {
            let _ = rtsignal::queue_to_pid(child.pid(), rtsignal::WAKE, 0);
        }
    }

    /// Runs a block without a live view, for at most `limit`.
    pub fn run(&mut self, block: &Block, limit: Duration) -> anyhow::Result<Series> {
        self.begin(block);
        let until_ns = monotonic_ns() + nanos(limit);
        while !self.poll(until_ns)? {
            self.wait_change(POLL_NS);
        }
        Ok(self.series())
    }

    /// Whether the block has ended. It is stopped if it is not sent by `until_ns`; and a message
    /// that has not come a second after it was sent is lost.
    pub fn poll(&mut self, until_ns: u64) -> anyhow::Result<bool> {
        if self.collect() {
            return self.check().map(|()| true);
        }
        self.check()?;
        if let Work::OneWay(mechanism) = &*self.work {
            mechanism.find_again();
        }
        let now_ns = monotonic_ns();
        if self.is_sent() {
            let since_ns = *self.sent_ns.get_or_insert(now_ns);
            if now_ns > since_ns + nanos(ARRIVAL) {
                self.give_up();
            }
        } else if now_ns >= until_ns {
            self.stop();
        }
        if !self.is_sent() && self.control.is_stopped() {
            let since_ns = *self.stopped_ns.get_or_insert(now_ns);
            if now_ns > since_ns + nanos(END) {
                bail!(
                    "{}: its sender does not end: it was stopped (SIGSTOP), or a thread of a \
                     higher priority has its CPU",
                    self.name()
                );
            }
        }
        Ok(false)
    }

    /// Waits at most `timeout_ns` for a change by a role.
    pub fn wait_change(&mut self, timeout_ns: u64) {
        self.seen = self.control.wait_change(self.seen, timeout_ns);
    }

    /// The next sample to show: its number and its raw latency.
    pub fn next_sample(&mut self) -> Option<(u64, u64)> {
        self.samples.as_mut()?.pop().ok()
    }

    /// Thread and CPU of sender and receiver.
    pub fn whereabouts(&self) -> [(i32, usize); 2] {
        [Role::Sender, Role::Receiver].map(|role| self.control.whereabouts(role))
    }

    /// Whether it has no receiver.
    pub fn is_timer(&self) -> bool {
        matches!(*self.work, Work::Timer)
    }

    /// Whether its messages come back.
    pub fn is_round_trip(&self) -> bool {
        matches!(*self.work, Work::RoundTrip(..))
    }

    /// The results of the block that has ended.
    pub fn series(&mut self) -> Series {
        let whole = &self.whole;
        let info = |role: Role| {
            let (tid, last_cpu) = self.control.whereabouts(role);
            let placement = self.placements[role as usize];
            RoleInfo {
                tid,
                cpu: placement.cpu,
                last_cpu,
                priority: placement.priority,
            }
        };
        let payload_bytes = match &*self.work {
            Work::Timer => 0,
            Work::OneWay(mechanism)
            | Work::OneThread(mechanism)
            | Work::Synced(mechanism, _)
            | Work::RoundTrip(mechanism, _) => mechanism.payload_bytes(),
        };
        let sender = info(Role::Sender);
        Series {
            name: self.name().to_owned(),
            pair: self.number,
            sender,
            receiver: if roles(&self.work) == 1 {
                sender
            } else {
                info(Role::Receiver)
            },
            interval_ns: self.interval_ns,
            payload_bytes,
            is_round_trip: self.is_round_trip(),
            raw: whole.raw.clone(),
            corrected: whole.corrected.clone(),
            bins: whole.bins.clone(),
            overflows: whole.overflows,
            overflow_cycles: whole.overflow_cycles.clone(),
            min_ns: whole.tally.min_ns,
            last_ns: whole.tally.last_ns,
            max_ns: whole.tally.max_ns,
            sum_ns: whole.tally.sum_ns,
            counts: self.control.counts(whole.tally.received),
            start_time_ns: wall_at(whole.first_ns),
            end_time_ns: wall_at(whole.last_ns),
            culprit: whole.culprit(self.trace.get().map_or("", String::as_str)),
        }
    }

    /// Parts of the block that has ended.
    pub fn slices(&self) -> &[Slice] {
        &self.slices
    }
}

/// Threads or processes that do it.
fn roles(work: &Work) -> u32 {
    if matches!(work, Work::Timer | Work::OneThread(_)) {
        1
    } else {
        2
    }
}

impl Drop for Pair {
    fn drop(&mut self) {
        self.control.quit();
        let is_over = |pair: &Pair| {
            let recorder = pair.recorder.as_ref().is_none_or(JoinHandle::is_finished);
            recorder && !matches!(&pair.partner, Partner::Thread(thread) if !thread.is_finished())
        };
        // A receiver sleeps in its mechanism until somebody wakes it; it may have been just about
        // to.
        let mut seen = self.control.changes();
        let until_ns = monotonic_ns() + nanos(END);
        while !is_over(self) {
            if monotonic_ns() > until_ns {
                // They end with the process.
                return;
            }
            self.wake();
            seen = self.control.wait_change(seen, 1_000_000);
        }
        if let Some(thread) = self.recorder.take() {
            let _ = thread.join();
        }
        match std::mem::replace(&mut self.partner, Partner::None) {
            Partner::Thread(thread) => drop(thread.join()),
            // Dropped, it is ended.
            Partner::Process(_) | Partner::None => {}
        }
    }
}
