//! A lane's thread: wait, dispatch, account. Nothing here touches the heap after the seal.
//!
//! A `block` worker reads one source with a blocking receive; while one of its routes has messages
//! waiting for a full receiver it waits for the source and for room together instead. A `spin` or
//! `poll` worker scans.

use super::event::{EventKind, EventSink};
use super::progress::ProgressCell;
use super::route::{AtStop, Context, Route};
use super::waits::Waits;
use crate::endpoint::source::{Failure, Leftover, Source};
use crate::seal;
use crate::skin::{Semaphore, Skin};
use crate::stats::cells::WorkerCell;
use crate::stats::{Ledger, WorkerCounters};
use crate::sys::memory::{self, ThreadUsage};
use crate::sys::seccomp::Program;
use crate::sys::thread::CpuClock;
use crate::sys::{Errno, rtsignal, sched};
use crate::wait::{Timeout, Wait};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Pause after a receive error: a persistent error must not become a busy loop at FIFO priority.
const ERROR_PAUSE_NS: u64 = 1_000_000;
/// Limit of the messages of one source that are taken before the other sources, or the lane's other
/// threads, which share its CPU at equal priority.
const BURST_MAX: usize = 32;
/// Period at which a thread that only its source can wake checks whether receivers have come or
/// gone.
const RECEIVERS_POLL_NS: u64 = 100_000_000;
/// Limit of the messages of one source that a stop takes after its time is over. It is larger than
/// RLIMIT_SIGPENDING usually allows; it exists because a sender may never stop.
const LEFT_MAX: usize = 262_144;
/// During a stop, the longest wait for room before the next read of the clock.
const STOP_WAIT_NS: u64 = 1_000_000;

/// One source and every route from it.
#[derive(Debug)]
pub struct Input {
    /// The source.
    pub source: Source,
    /// Its routes, in configuration order.
    pub routes: Vec<Route>,
}

impl Input {
    fn has_backlog(&self) -> bool {
        self.routes.iter().any(Route::has_backlog)
    }

    /// Whether a message must not be taken now, see [`Route::holds_source`].
    #[inline]
    fn is_held(&self) -> bool {
        self.routes.iter().any(Route::holds_source)
    }

    /// Limit of the messages of one turn. Messages of a ring come without a call. If a route may
    /// hold the thread, the page must first show the outcomes of the earlier message, so a turn
    /// takes one message.
    fn burst(&self) -> usize {
        let hides = self.routes.len() > 1 && self.routes.iter().any(Route::may_hold);
        if self.source.is_ring() && !hides {
            BURST_MAX
        } else {
            1
        }
    }

    /// How long to wait for a message if there is no other work. If Linux signals may not wake the
    /// skin's threads, the thread wakes up by itself when no ring's doorbell can wake it.
    fn idle(&self, skin: &Skin) -> Timeout {
        let is_woken = skin.is_relaxed.is_none() || self.source.is_ring();
        let polls = !is_woken && self.routes.iter().any(Route::has_rings);
        if polls {
            Timeout(RECEIVERS_POLL_NS)
        } else {
            Timeout::FOREVER
        }
    }

    /// How long the source is left unread; none if a message can be taken now. A ring is left
    /// unread while every route from it is above its rate: the sender sees it fill, and the lane
    /// does no work for messages that it would reject. Messages of a queue or signal are read and
    /// rejected: a full queue would hold up its other writers, and programs that block in
    /// mq_send(3); pending signals count against the limit of rtd's user.
    #[inline]
    fn rest_ns(&self, skin: &Skin) -> Option<u64> {
        let due_ns = if self.source.is_ring() {
            self.routes.iter().map(Route::due_ns).min()?
        } else {
            0
        };
        // Without a limit there is no need to read the clock.
        let rest_ns = if due_ns == 0 {
            0
        } else {
            due_ns.saturating_sub((skin.now_ns)())
        };
        (rest_ns > 0).then_some(rest_ns)
    }
}

/// The worker, complete before its thread starts.
#[derive(Debug)]
pub struct Worker {
    pub name: String,
    /// The real-time calls.
    pub skin: &'static Skin,
    pub priority: u8,
    pub cpu: usize,
    /// How to wait.
    pub wait: Wait,
    /// One for `block` and `spin`, any number for `poll`.
    pub inputs: Vec<Input>,
    /// Record of its counters on the page.
    pub cell: WorkerCell,
    /// Its progress counters.
    pub progress: ProgressCell,
    /// For reports to the log.
    pub events: EventSink,
    /// 0 while running, otherwise the time at which a stop gives up queued messages.
    pub stop_at_ns: Arc<AtomicU64>,
    /// Empty, with room for every source and every end ([`Worker::waits_for`]).
    pub waits: Waits,
    /// The filter of its system calls after the seal ([`super::syscalls::program`]); none if no
    /// filter would see them.
    pub calls: Option<Program>,
}

/// The permissions that the kernel granted to the thread.
#[derive(Debug)]
pub struct Granted {
    /// Kernel thread id.
    pub tid: i32,
    /// SCHED_FIFO at the lane's priority, or why not.
    pub fifo: Result<(), String>,
    /// Pinned, or why not.
    pub pinned: Result<(), String>,
    /// Whether a filter of its system calls is available, or why not.
    pub confined: Result<(), String>,
    /// The CPU time that it has used, for the watchdog.
    pub clock: Result<CpuClock, String>,
}

/// The result of a worker.
#[derive(Debug)]
pub struct Report {
    pub name: String,
    /// Counters at the end of the thread.
    pub counters: WorkerCounters,
    /// Faults and switches between seal and stop; none if the kernel did not say.
    pub since_seal: Option<ThreadUsage>,
    /// Its inputs: the thread that takes the report closes descriptors and unmaps rings, which the
    /// lane thread may not do.
    pub inputs: Vec<Input>,
}

impl Report {
    /// The report of a thread that never ran.
    pub fn empty(name: &str) -> Report {
        let counters = WorkerCounters::default();
        Report {
            name: name.to_owned(),
            counters,
            since_seal: None,
            inputs: Vec::new(),
        }
    }

    /// Route index and ledger, of each of its routes.
    pub fn ledgers(&self) -> impl Iterator<Item = (u32, Ledger)> + '_ {
        self.inputs
            .iter()
            .flat_map(|input| &input.routes)
            .map(|route| (route.index(), *route.ledger()))
    }

    /// Accounts for messages that are left in the rings that it read. Returns for each source the
    /// index of its first route, and the number of messages that stay for the next daemon.
    pub fn leftovers(&mut self) -> impl Iterator<Item = (u32, u64)> + '_ {
        self.inputs.iter_mut().filter_map(|input| {
            let Leftover { kept, orphaned } = input.source.leftover();
            if orphaned > 0 {
                input
                    .routes
                    .iter_mut()
                    .for_each(|route| route.lose_orphaned(orphaned));
            }
            Some((input.routes.first()?.index(), kept)).filter(|_| kept > 0)
        })
    }
}

impl Worker {
    /// The wait for a worker over these inputs, allocated; or its doorbell.
    pub fn waits_for(inputs: &[Input], doorbell: Option<Arc<Semaphore>>) -> Waits {
        let ends: usize = inputs.iter().flat_map(|i| &i.routes).map(Route::ends).sum();
        Waits::with_room_for(ends + inputs.len(), doorbell)
    }

    /// Makes the calling thread a lane thread: mask, name, CPU, priority, stack. Call it before
    /// `run`.
    pub fn enter(&self) -> Granted {
        sched::set_name(&self.name);
        // Every other signal that this thread could get was blocked by the spawner.
        let wake = rtsignal::SignalSet::of([rtsignal::WAKE]).unblock();
        let pinned = sched::pin(self.cpu).and(wake).map_err(|e| e.to_string());
        let fifo = (self.skin.setup.promote)(self.priority).map_err(|e| e.to_string());
        memory::prefault_stack();
        let confined = self
            .calls
            .as_ref()
            .map_or(Ok(()), seal::try_confine)
            .map_err(|e| e.to_string());
        let clock = CpuClock::of_this_thread().map_err(|e| e.to_string());
        Granted {
            tid: sched::gettid(),
            fifo,
            pinned,
            confined,
            clock,
        }
    }

    /// Seals the thread and moves messages until a stop is requested; then drains within the time
    /// limit.
    pub fn run(mut self) -> Report {
        let mut waits = self.waits;
        let sealed_at = memory::thread_usage();
        self.cell.sealed(sealed_at.as_ref().ok());
        let confined = self.calls.as_ref().map_or(Ok(()), seal::confine);
        seal::seal();
        let mut run = Running {
            skin: self.skin,
            events: self.events,
            stop_at_ns: &self.stop_at_ns,
            counters: WorkerCounters::default(),
            cell: self.cell,
            progress: self.progress,
            last_reported: None,
            draining: false,
        };
        let now_ns = (run.skin.now_ns)();
        self.inputs
            .iter_mut()
            .flat_map(|input| &mut input.routes)
            .for_each(|route| route.start(now_ns));
        if let Err(errno) = confined {
            run.events
                .emit((run.skin.now_ns)(), EventKind::Unconfined { errno });
        }
        // The calls before this point were Linux calls, and a lane that polls makes no call that
        // would restore its mode.
        run.regain_mode();
        match (self.wait, self.inputs.as_mut_slice()) {
            (Wait::Block, [input]) => run.block(input, &mut waits),
            (wait, inputs) => run.scan(inputs, wait, &mut waits),
        }
        run.drain(&mut self.inputs, &mut waits);
        let usage = memory::thread_usage();
        seal::unseal();
        let counters = run.counters;
        let since_seal = sealed_at
            .ok()
            .zip(usage.ok())
            .map(|(from, to)| to.since(&from));
        Report {
            name: self.name,
            counters,
            since_seal,
            inputs: self.inputs,
        }
    }
}

/// The loop's state, apart from the inputs it works on.
struct Running<'a> {
    skin: &'static Skin,
    events: EventSink,
    stop_at_ns: &'a AtomicU64,
    counters: WorkerCounters,
    cell: WorkerCell,
    progress: ProgressCell,
    last_reported: Option<Errno>,
    /// The worker is draining.
    draining: bool,
}

impl Running<'_> {
    fn stopping(&self) -> bool {
        self.stop_at_ns.load(Ordering::Relaxed) != 0
    }

    /// One source, blocking.
    fn block(&mut self, input: &mut Input, waits: &mut Waits) {
        let idle = input.idle(self.skin);
        let burst = input.burst();
        let mut unbroken = 0;
        while !self.stopping() {
            if input.has_backlog() {
                self.pump(input);
            }
            let timeout = match input.has_backlog() || input.rest_ns(self.skin).is_some() {
                true => self.await_work(std::slice::from_mut(input), waits),
                false => idle,
            };
            let taken = self.turn(input, timeout);
            unbroken = if taken < burst { 0 } else { unbroken + taken };
            if unbroken >= BURST_MAX {
                unbroken = 0;
                (self.skin.yield_now)();
            }
        }
    }

    /// Any number of sources: reads one after the other, and sleeps when the strategy says so.
    fn scan(&mut self, inputs: &mut [Input], wait: Wait, waits: &mut Waits) {
        let mut spin_until_ns = None;
        while !self.stopping() {
            let mut worked = false;
            for input in inputs.iter_mut() {
                if input.has_backlog() {
                    self.pump(input);
                }
                worked |= self.turn(input, Timeout::NOW) > 0;
            }
            if worked {
                spin_until_ns = None;
            } else if wait.spins(&mut spin_until_ns, self.skin.now_ns) {
                std::hint::spin_loop();
            } else if self.sleep_for_work(inputs, waits) {
                // A wait that ended without a message is no reason to spin again.
                spin_until_ns = None;
            }
        }
    }

    /// Sleeps until there may be work; true if it has done some.
    fn sleep_for_work(&mut self, inputs: &mut [Input], waits: &mut Waits) -> bool {
        let timeout = match &*inputs {
            [input] if !input.has_backlog() && input.rest_ns(self.skin).is_none() => {
                input.idle(self.skin)
            }
            _ => self.await_work(inputs, waits),
        };
        match (inputs, timeout) {
            ([input], timeout) if timeout != Timeout::NOW => self.turn(input, timeout) > 0,
            _ => false,
        }
    }

    /// Takes one message, or a burst of those in a ring, and dispatches them to their routes;
    /// returns their number.
    #[inline]
    fn turn(&mut self, input: &mut Input, timeout: Timeout) -> usize {
        let burst = input.burst();
        let mut taken = 0;
        while taken < burst
            && self.may_take(input)
            && self.take(input, if taken == 0 { timeout } else { Timeout::NOW })
        {
            taken += 1;
        }
        if taken > 0 {
            crate::fault_point!("after_release_before_ledger_is_shown");
            input.routes.iter_mut().for_each(Route::publish);
            self.watch_mode();
            self.publish();
        } else {
            // A process that registers or ends wakes the lanes (EINTR).
            input.routes.iter_mut().for_each(Route::renew);
            input.source.let_go();
            self.woken();
        }
        if input.source.take_torn() {
            self.report_torn(input);
        }
        taken
    }

    /// Whether a message may be taken. At a stop, a message that can stay where it is belongs to
    /// the next daemon; a drain accounts for the others within its own time limit, so it does not
    /// wait for a receiver to reconnect.
    #[inline]
    fn may_take(&self, input: &Input) -> bool {
        (self.draining || !input.is_held())
            && (!self.stopping() || input.source.drain_at_stop || input.source.is_orphaned())
            && input.rest_ns(self.skin).is_none()
    }

    #[inline]
    fn take(&mut self, input: &mut Input, timeout: Timeout) -> bool {
        let source = &mut input.source;
        // The slot is not released before the dispatch. A sender that is gone replays nothing to
        // the next daemon.
        let stays = source.is_ring() && !source.is_orphaned();
        match source.receive(self.skin, timeout) {
            Ok(message) => {
                let dequeued_ns = message.dequeued_ns;
                crate::fault_point!("after_dequeue_before_dispatch");
                self.progress.work();
                self.last_reported = None;
                let mut ctx = Context {
                    skin: self.skin,
                    events: &mut self.events,
                    stop_at_ns: self.stop_at_ns,
                    progress: &mut self.progress,
                    last_ns: dequeued_ns,
                    at_stop: if stays { AtStop::Leave } else { AtStop::Wait },
                    stays,
                };
                let mut dispatched = 0;
                for route in &mut input.routes {
                    route.dispatch(&message, &mut ctx);
                    dispatched += 1;
                    if ctx.at_stop == AtStop::Left {
                        break;
                    }
                }
                let left = ctx.at_stop == AtStop::Left;
                // A delivery has read the clock; a message that no receiver got was work too.
                let ended_ns = if ctx.last_ns == dequeued_ns {
                    (self.skin.now_ns)()
                } else {
                    ctx.last_ns
                };
                let duty_ns = ended_ns.saturating_sub(dequeued_ns);
                self.counters.duty_max_ns = self.counters.duty_max_ns.max(duty_ns);
                self.progress.done(duty_ns);
                if left {
                    input.routes[..dispatched]
                        .iter_mut()
                        .for_each(Route::hand_back);
                    input.source.put_back();
                    return false;
                }
                crate::fault_point!("after_dispatch_before_release");
                self.counters.received += 1;
                // Only now: a message that a killed daemon had not finished is still in the
                // sender's ring.
                input.source.release();
                true
            }
            Err(Failure::Os(Errno::AGAIN | Errno::TIMEDOUT)) => false,
            Err(Failure::Os(Errno::INTR)) => {
                self.counters.wakeups += 1;
                false
            }
            Err(failure) => {
                self.receive_failed(input, failure);
                false
            }
        }
    }

    #[cold]
    fn receive_failed(&mut self, input: &Input, failure: Failure) {
        self.counters.errors += 1;
        let route = input.routes.first().map_or(u32::MAX, Route::index);
        let errno = match failure {
            Failure::Os(errno) => errno,
            Failure::Corrupt(corrupt) => {
                // The ring is given up, so this cannot fail again.
                let generation = input.source.generation();
                let kind = EventKind::Corrupt {
                    route,
                    sink: None,
                    generation,
                    corrupt,
                };
                self.events.emit((self.skin.now_ns)(), kind);
                return self.publish();
            }
        };
        if self.last_reported != Some(errno) {
            self.last_reported = Some(errno);
            self.events.emit(
                (self.skin.now_ns)(),
                EventKind::ReceiveFailed { route, errno },
            );
        }
        self.publish();
        (self.skin.sleep_until)((self.skin.now_ns)() + ERROR_PAUSE_NS);
    }

    #[cold]
    fn report_torn(&mut self, input: &Input) {
        let route = input.routes.first().map_or(u32::MAX, Route::index);
        self.events
            .emit((self.skin.now_ns)(), EventKind::Torn { route });
    }

    /// Checks whether the thread lost its real-time mode. Since a blocking receive restores the
    /// mode, the last dispatch caused the loss. Returns whether there was one.
    #[inline]
    fn watch_mode(&mut self) -> bool {
        let is_relaxed = self.skin.is_relaxed.is_some_and(|is_relaxed| is_relaxed());
        if is_relaxed {
            self.relaxed();
        }
        is_relaxed
    }

    /// Handles a wait that brought no message: a Linux signal, SIGSTOP or ptrace(2) may have ended
    /// it, which costs the thread its mode. The wake-up of a stop is the daemon's own signal and
    /// does not count.
    #[inline]
    fn woken(&mut self) {
        if !self.stopping() && self.watch_mode() {
            self.publish();
        }
    }

    #[cold]
    fn relaxed(&mut self) {
        self.counters.mode_switches += 1;
        let times = self.counters.mode_switches;
        // Reports the first time, and then ever more rarely: the counter has the exact number.
        if times.is_power_of_two() {
            self.events
                .emit((self.skin.now_ns)(), EventKind::Relaxed { times });
        }
        self.regain_mode();
    }

    /// Restores the thread's real-time mode, as each call that may block does: here a sleep that is
    /// already over. Rings of a busy lane, or of one that polls, need no such call, so the thread
    /// would stay in Linux's mode.
    fn regain_mode(&self) {
        if self.skin.is_relaxed.is_some() {
            (self.skin.sleep_until)((self.skin.now_ns)());
        }
    }

    fn pump(&mut self, input: &mut Input) {
        self.progress.work();
        let mut ctx = Context {
            skin: self.skin,
            events: &mut self.events,
            stop_at_ns: self.stop_at_ns,
            progress: &mut self.progress,
            last_ns: 0,
            at_stop: AtStop::Wait,
            stays: false,
        };
        for route in input.routes.iter_mut().filter(|r| r.has_backlog()) {
            route.pump(&mut ctx);
        }
        self.progress.rest();
        // Not `woken`, which publishes only after the loss of the mode.
        if !self.stopping() {
            self.watch_mode();
        }
        self.publish();
    }

    /// Messages wait for a full receiver: waits until there may be room, or a source has a message.
    /// Returns how long to wait in the source itself if its skin cannot wait for both. Rings ring
    /// one doorbell, at either end of the thread.
    fn await_work(&mut self, inputs: &mut [Input], waits: &mut Waits) -> Timeout {
        let all_held = inputs.iter().all(Input::is_held);
        if self.skin.caps.pollable_mq
            || all_held
            || inputs.iter().all(|input| input.source.is_ring())
        {
            self.await_room(inputs, true, u64::MAX, waits);
            return Timeout::NOW;
        }
        waits.clear();
        let backlog = inputs
            .iter_mut()
            .flat_map(|input| &mut input.routes)
            .filter(|r| r.has_backlog());
        let bound_ns = backlog
            .map(|route| route.await_room(waits))
            .min()
            .unwrap_or(0);
        Timeout(waits.bound(bound_ns))
    }

    /// Waits until a full receiver may have room, or (`sources`) a source has a message, within a
    /// time limit.
    fn await_room(
        &mut self,
        inputs: &mut [Input],
        sources: bool,
        limit_ns: u64,
        waits: &mut Waits,
    ) {
        waits.clear();
        let mut bound_ns = limit_ns;
        for route in inputs
            .iter_mut()
            .flat_map(|input| &mut input.routes)
            .filter(|r| r.has_backlog())
        {
            bound_ns = bound_ns.min(route.await_room(waits));
        }
        // Descriptors first: they decide whether a ring is waited for by its word or by its
        // descriptor.
        let (rings, others) = (true, false);
        for kind in [others, rings] {
            let read =
                |input: &&mut Input| sources && input.source.is_ring() == kind && !input.is_held();
            for input in inputs.iter_mut().filter(read) {
                // A source that is left unread is no reason to wake up before it is due.
                match input.rest_ns(self.skin) {
                    Some(rest_ns) => bound_ns = bound_ns.min(rest_ns),
                    None if !input.source.arm(waits) => bound_ns = 0,
                    None => {}
                }
            }
        }
        if bound_ns > 0 {
            // SAFETY: the words are those of rings that these inputs hold, which nobody else
            // replaces.
            let woken = unsafe { waits.wait(self.skin, bound_ns) };
            self.woken();
            match woken {
                Err(Errno::INTR) => self.counters.wakeups += 1,
                Ok(()) | Err(Errno::AGAIN | Errno::TIMEDOUT) => {}
                // The wait would fail again at once, so that the thread would spin.
                Err(errno) => {
                    if let Some(input) = inputs.first() {
                        self.receive_failed(input, Failure::Os(errno));
                    }
                }
            }
        }
        inputs.iter_mut().for_each(|input| input.source.disarm());
    }

    /// The end of the lane: messages that are still in signals (and in queues that are removed) are
    /// routed, queued messages get a last chance, and the rest is accounted for.
    fn drain(&mut self, inputs: &mut [Input], waits: &mut Waits) {
        self.draining = true;
        loop {
            let mut worked = false;
            for input in inputs.iter_mut() {
                input.source.stop();
                self.pump(input);
                if input.source.drain_at_stop || input.source.is_orphaned() {
                    worked |= self.turn(input, Timeout::NOW) > 0;
                }
            }
            let now = (self.skin.now_ns)();
            let give_up = self.stop_at_ns.load(Ordering::Relaxed);
            let backlog = inputs.iter().any(Input::has_backlog);
            if now >= give_up || !(worked || backlog) {
                break;
            }
            if !worked {
                self.await_room(inputs, false, STOP_WAIT_NS.min(give_up - now), waits);
            }
        }
        // No time is left to deliver the messages, but they must be accounted for: nobody else
        // knows them.
        for input in inputs
            .iter_mut()
            .filter(|input| input.source.is_lost_at_stop())
        {
            let mut bound = LEFT_MAX;
            while bound > 0 && self.turn(input, Timeout::NOW) > 0 {
                bound -= 1;
            }
        }
        crate::fault_point!("before_stop_gives_up_on_queued");
        for route in inputs.iter_mut().flat_map(|i| &mut i.routes) {
            route.abandon();
        }
        self.publish();
        crate::fault_point!("after_stop_gave_up_on_queued");
    }

    #[inline]
    fn publish(&mut self) {
        self.counters.events_lost = self.events.lost();
        self.counters.allocations = seal::breaches();
        self.watch_calls();
        self.cell.publish(&self.counters);
    }

    #[inline]
    fn watch_calls(&mut self) {
        let refused = seal::refused();
        if refused.calls != self.counters.refused_calls {
            self.refused(refused);
        }
    }

    #[cold]
    fn refused(&mut self, refused: seal::Refused) {
        let reported = self.counters.refused_calls;
        self.counters.refused_calls = refused.calls;
        self.counters.set_refused_call(refused.last);
        // Reports the first time, and then ever more rarely: the counter has the exact number.
        if refused.calls.next_power_of_two() > reported.next_power_of_two() || reported == 0 {
            let kind = EventKind::Refused {
                call: refused.last,
                times: refused.calls,
            };
            self.events.emit((self.skin.now_ns)(), kind);
        }
    }
}
