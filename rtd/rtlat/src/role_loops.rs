//! The loops of the two roles of a pair: one follows the schedule, one receives, and a round trip does both.
//!
//! Constraint: between a block's begin and its end they allocate nothing, lock nothing, and sleep
//! only where the mechanism or the schedule does (the guard allocator of the binary watches).

use super::breaker::Breaker;
use super::control_block::{Block, ControlBlock, Role};
use super::mech::{Rx, Stamp, Tx};
use super::recorder::{Recorder, Tally};
use super::series::Sample;
use rtcore::sys::clock::{monotonic_ns, sleep_until, sleep_until_or_signal};
use rtcore::sys::permission_hints::PermissionHint;
use rtcore::sys::{Errno, memory, sched};
use std::sync::{Arc, OnceLock};

/// Ends a block.
const END: u64 = 1 << 63;
/// Bits below: number within the block. Between: number of the block.
const ORDER_SHIFT: u32 = 40;
const NUMBER: u64 = (1 << ORDER_SHIFT) - 1;
const ORDER: u64 = !(END | NUMBER);

fn tag(order: u32) -> u64 {
    (u64::from(order) << ORDER_SHIFT) & ORDER
}

/// CPU and priority of a thread.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ThreadPlacement {
    /// CPU to be pinned to.
    pub cpu: Option<usize>,
    /// SCHED_FIFO priority, 0: SCHED_OTHER.
    pub priority: u8,
}

impl ThreadPlacement {
    /// Pins the calling thread and sets its priority. The error contains the line that grants a missing
    /// permission.
    pub fn take(&self, name: &str) -> anyhow::Result<()> {
        sched::set_name(name);
        if let Some(cpu) = self.cpu {
            sched::pin(cpu).map_err(|e| anyhow::anyhow!("cannot run on CPU {cpu}: {e}"))?;
        }
        memory::prefault_stack();
        if self.priority > 0 {
            sched::set_fifo(self.priority).map_err(|e| {
                let program = std::env::current_exe().unwrap_or_default();
                let fix = PermissionHint::Fifo.fix(&program.to_string_lossy());
                anyhow::anyhow!(
                    "SCHED_FIFO {} was not granted: {e}\n{fix}or measure without: -p 0",
                    self.priority
                )
            })?;
        }
        Ok(())
    }
}

/// The recording side: of a message pair its receiver, of a round trip or a timer who follows the
/// schedule.
///
/// Recorders go round: the main thread puts empty ones in, this side hands them over full.
#[derive(Debug)]
pub struct Log {
    pub control: Arc<ControlBlock>,
    pub fresh: rtrb::Consumer<Box<Recorder>>,
    /// Full ones. It has room for all there are.
    pub done: rtrb::Producer<Box<Recorder>>,
    /// Every sample, for a display of each one; a sample that finds no room is counted.
    pub samples: Option<rtrb::Producer<(u64, u64)>>,
    /// The kernel's trace, for a culprit.
    pub breaker: Option<Breaker>,
    /// The action on the trace.
    pub trace: Arc<OnceLock<String>>,
    at: At,
}

/// The position of a [`Log`] in the run.
#[derive(Debug, Default)]
struct At {
    open: u32,
    closed: u32,
    block: Block,
    current: Option<Box<Recorder>>,
    tally: Tally,
    slice_end_ns: u64,
    hit: bool,
    /// First point of the schedule that no recorded latency covers; 0: none is covered.
    next_point_ns: u64,
}

impl Log {
    /// Before the first block.
    pub fn new(
        control: Arc<ControlBlock>,
        fresh: rtrb::Consumer<Box<Recorder>>,
        done: rtrb::Producer<Box<Recorder>>,
        samples: Option<rtrb::Producer<(u64, u64)>>,
        breaker: Option<Breaker>,
        trace: Arc<OnceLock<String>>,
    ) -> Log {
        Log {
            control,
            fresh,
            done,
            samples,
            breaker,
            trace,
            at: At::default(),
        }
    }

    /// Opens a block, unless it is open.
    fn open(&mut self, order: u32) {
        if self.at.open == order {
            return;
        }
        let block = self.control.block();
        let slice_end_ns = if block.slice_ns > 0 {
            block.start_ns + block.slice_ns
        } else {
            u64::MAX
        };
        let (closed, current) = (self.at.closed, self.fresh.pop().ok());
        self.at = At {
            open: order,
            closed,
            block,
            current,
            slice_end_ns,
            ..At::default()
        };
    }

    /// A message came. One of an earlier block is late and counts as lost there.
    fn take(&mut self, stamp: &Stamp, now_ns: u64) {
        let order = self.control.order();
        if stamp.sequence & ORDER != tag(order) || order == self.at.closed {
            return;
        }
        self.open(order);
        if stamp.sequence & END != 0 {
            self.close(Role::Receiver);
        } else {
            let late_ns = stamp.sent_ns.saturating_sub(stamp.intended_ns);
            self.note(stamp, now_ns, late_ns);
        }
    }

    /// Nothing came for a while: the block may be over without its END.
    fn check_given_up(&mut self) {
        let order = self.control.order();
        if order != self.at.closed && self.control.is_given_up(order) {
            self.open(order);
            self.close(Role::Receiver);
        }
    }

    fn note(&mut self, stamp: &Stamp, received_ns: u64, late_ns: u64) {
        let number = stamp.sequence & NUMBER;
        let at = &mut self.at;
        if let (Some(sequence), Some(recorder)) =
            (number.checked_sub(at.block.warm), at.current.as_mut())
        {
            let sample = Sample {
                sequence,
                intended_ns: stamp.intended_ns,
                sent_ns: stamp.sent_ns,
                received_ns,
            };
            let interval_ns = at.block.interval_ns;
            let expected_ns = if at.next_point_ns > 0 {
                at.next_point_ns
            } else {
                self.control.first_ns()
            };
            if let Some(lost) = stamp
                .intended_ns
                .saturating_sub(expected_ns)
                .checked_div(interval_ns)
            {
                recorder.waited(expected_ns, lost, interval_ns, received_ns);
                let covered = 1 + late_ns / interval_ns;
                at.next_point_ns = at
                    .next_point_ns
                    .max(stamp.intended_ns + covered * interval_ns);
            }
            let is_culprit = recorder.record(sample, interval_ns, late_ns);
            at.tally.add(sample.raw_ns());
            if let Some(samples) = &mut self.samples {
                let shown = samples.push((sequence, sample.raw_ns()));
                self.control.note_hidden(u64::from(shown.is_err()));
            }
            self.control.publish(&at.tally);
            if is_culprit {
                self.culprit(sample.raw_ns());
            }
            if received_ns >= self.at.slice_end_ns {
                self.next_slice(received_ns);
            }
        }
        self.control.arrive(number);
    }

    #[cold]
    fn culprit(&mut self, latency_ns: u64) {
        if let Some(breaker) = &mut self.breaker {
            breaker.hit(latency_ns);
        }
        self.at.hit = true;
        self.control.stop();
    }

    /// With no empty recorder at hand the slice goes on: nothing is lost but the cut.
    fn next_slice(&mut self, now_ns: u64) {
        while self.at.slice_end_ns <= now_ns {
            self.at.slice_end_ns += self.at.block.slice_ns;
        }
        if let Ok(fresh) = self.fresh.pop()
            && let Some(full) = self.at.current.replace(fresh)
        {
            let _ = self.done.push(full);
        }
    }

    /// Points at the end of the schedule from which nothing came wait until now, at least.
    fn cover_tail(&mut self, now_ns: u64) {
        let (at, first_ns) = (&mut self.at, self.control.first_ns());
        let expected_ns = if at.next_point_ns > 0 {
            at.next_point_ns
        } else {
            first_ns
        };
        let end_ns = first_ns + self.control.counts(0).scheduled * at.block.interval_ns;
        if let (Some(points), Some(recorder)) = (
            end_ns
                .saturating_sub(expected_ns)
                .checked_div(at.block.interval_ns),
            at.current.as_mut(),
        ) {
            recorder.waited(expected_ns, points, at.block.interval_ns, now_ns);
        }
    }

    fn close(&mut self, role: Role) {
        self.cover_tail(monotonic_ns());
        if let Some(full) = self.at.current.take() {
            let _ = self.done.push(full);
        }
        if self.at.hit
            && let Some(breaker) = &self.breaker
        {
            // The run is over: the heap may be used.
            rtcore::seal::unseal();
            let _ = self.trace.set(breaker.outcome());
            rtcore::seal::seal();
        }
        self.at.closed = self.at.open;
        self.control.note_cpu(role);
        self.control.close(self.at.open);
    }
}

/// The meaning of a block's count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Loops {
    /// Points of the schedule, missed ones included: an outage does not prolong the run.
    Points,
    /// Wake-ups, as cyclictest's -l: a histogram has as many samples as were asked for.
    Samples,
}

/// Follows the schedule of a block, in this role: `act` sends each message.
fn pace(
    control: &ControlBlock,
    order: u32,
    (role, loops): (Role, Loops),
    mut act: impl FnMut(&Stamp) -> Result<(), Errno>,
) {
    let block = control.block();
    let mut number = 0;
    let mut put = |intended_ns: u64, sent_ns: u64| {
        let sequence = tag(order) | number;
        let sent = act(&Stamp {
            sequence,
            intended_ns,
            sent_ns,
        });
        match sent {
            Ok(()) if block.interval_ns == 0 || number < block.warm => {
                _ = control.await_arrival(number)
            }
            // No room: the message is lost, and counted as such.
            Ok(()) | Err(Errno::AGAIN) => {}
            Err(e) => fail(control, "cannot send", e),
        }
        number += 1;
    };
    for _ in 0..block.warm {
        let now_ns = monotonic_ns();
        put(now_ns, now_ns);
    }
    let (mut point, mut sent, mut missed) = (0, 0, 0);
    let start_ns = block.start_ns.max(monotonic_ns() + block.interval_ns);
    control.note_first(start_ns);
    let is_done = |point, sent| match loops {
        _ if block.count == 0 => false,
        Loops::Points => point >= block.count,
        Loops::Samples => sent >= block.count,
    };
    while !is_done(point, sent) && !control.is_stopped() {
        let intended_ns = start_ns + point * block.interval_ns;
        if block.interval_ns > 0 && !until(intended_ns, block.polls) {
            continue;
        }
        let now_ns = monotonic_ns();
        let late_ns = now_ns.saturating_sub(intended_ns);
        let is_bounded = block.count > 0 && loops == Loops::Points;
        let left = if is_bounded {
            block.count - point - 1
        } else {
            u64::MAX
        };
        let over = late_ns
            .checked_div(block.interval_ns)
            .unwrap_or(0)
            .min(left);
        put(
            if block.interval_ns > 0 {
                intended_ns
            } else {
                now_ns
            },
            now_ns,
        );
        point += 1 + over;
        missed += over;
        sent += 1;
        control.note_sent(point, sent, missed);
    }
    if sent == 0 {
        control.note_sent(0, 0, 0);
    }
    // First: a receiver that closes at the END message must find the counts.
    control.note_cpu(role);
    control.sent_all(order);
}

/// Waits for a point of the schedule; false: a signal handler ran, or it is time to look whether
/// the run goes on.
fn until(deadline_ns: u64, polls: bool) -> bool {
    if polls {
        std::hint::spin_loop();
        return monotonic_ns() >= deadline_ns;
    }
    sleep_until_or_signal(deadline_ns)
}

/// A role cannot go on. The run is over: the heap may be used.
fn fail(control: &ControlBlock, what: &str, e: Errno) {
    rtcore::seal::unseal();
    control.fail(&format!("{what}: {}", std::io::Error::from(e)));
    rtcore::seal::seal();
}

/// Repeats a call that a signal interrupted, until the run is over.
fn persist<T>(
    control: &ControlBlock,
    mut call: impl FnMut() -> Result<T, Errno>,
) -> Result<T, Errno> {
    loop {
        match call() {
            Err(Errno::INTR) if !control.is_stopped() => {}
            // Like one for which there was no room.
            Err(Errno::INTR) => return Err(Errno::AGAIN),
            other => return other,
        }
    }
}

/// Tells the receiver that a block is over, however full its queue is. It gives up when the
/// receiver has.
fn send_end(control: &ControlBlock, order: u32, tx: &mut dyn Tx) {
    let end = Stamp {
        sequence: END | tag(order),
        intended_ns: 0,
        sent_ns: 0,
    };
    while matches!(tx.send(&end), Err(Errno::AGAIN | Errno::INTR))
        && !control.is_given_up(order)
        && !control.is_quit()
    {
        sleep_until(monotonic_ns() + 1_000_000);
    }
}

/// Sends on schedule, block after block, until the pair ends.
pub fn send_blocks(control: &ControlBlock, tx: &mut dyn Tx) {
    rtcore::seal::seal();
    let mut done = 0;
    while let Some(order) = control.wait_order(done) {
        pace(control, order, (Role::Sender, Loops::Points), |stamp| {
            persist(control, || tx.send(stamp))
        });
        send_end(control, order, tx);
        done = order;
    }
    rtcore::seal::unseal();
}

/// Receives and records, block after block, until the pair ends.
pub fn record_blocks(log: &mut Log, rx: &mut dyn Rx) {
    rtcore::seal::seal();
    while !log.control.is_quit() {
        let got = rx.receive();
        let now_ns = monotonic_ns();
        match got {
            Ok(stamp) => log.take(&stamp, now_ns),
            // A message whose stamp is gone counts as lost.
            Err(Errno::INTR | Errno::AGAIN | Errno::STALE | Errno::BADMSG) => log.check_given_up(),
            // A mechanism whose sender has gone may say so at the end.
            Err(_) if log.control.is_quit() => break,
            Err(e) => {
                fail(&log.control, "cannot receive", e);
                break;
            }
        }
    }
    rtcore::seal::unseal();
}

/// The measured part of a message that another one requested.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Measured {
    /// From the question.
    ThereAndBack,
    /// From the answer's own send: the question only says when, as rt-tests do it.
    TheAnswer,
}

/// Sends on schedule, waits for each answer and records, block after block, until the pair ends.
pub fn ask_blocks(log: &mut Log, role: Role, tx: &mut dyn Tx, back: &mut dyn Rx) {
    rtcore::seal::seal();
    let control = Arc::clone(&log.control);
    let mut done = 0;
    while let Some(order) = control.wait_order(done) {
        log.open(order);
        pace(&control, order, (role, Loops::Points), |stamp| {
            persist(&control, || tx.send(stamp))?;
            if let Some((answer, now_ns)) = answer(&control, stamp, back)? {
                log.note(
                    &answer,
                    now_ns,
                    stamp.sent_ns.saturating_sub(stamp.intended_ns),
                );
            }
            Ok(())
        });
        log.close(role);
        done = order;
    }
    rtcore::seal::unseal();
}

/// The answer to this, and when it came; none: not within a second. A run that is stopped waits for
/// it too, or it would count as lost.
fn answer(
    control: &ControlBlock,
    stamp: &Stamp,
    back: &mut dyn Rx,
) -> Result<Option<(Stamp, u64)>, Errno> {
    const PATIENCE_NS: u64 = 1_000_000_000;
    loop {
        let got = back.receive();
        let now_ns = monotonic_ns();
        match got {
            Ok(answer) if answer.sequence == stamp.sequence => return Ok(Some((answer, now_ns))),
            Ok(_) | Err(Errno::INTR | Errno::AGAIN) => {}
            Err(e) => return Err(e),
        }
        if control.is_quit() || now_ns > stamp.sent_ns + PATIENCE_NS {
            return Ok(None);
        }
    }
}

/// Sends each message back, until the pair ends.
pub fn echo_blocks(
    control: &ControlBlock,
    role: Role,
    measured: Measured,
    rx: &mut dyn Rx,
    back: &mut dyn Tx,
) {
    rtcore::seal::seal();
    while !control.is_quit() {
        match rx.receive() {
            Ok(mut stamp) => {
                control.note_cpu(role);
                if measured == Measured::TheAnswer {
                    stamp.sent_ns = monotonic_ns();
                }
                match persist(control, || back.send(&stamp)) {
                    Ok(()) | Err(Errno::AGAIN) => {}
                    Err(e) => fail(control, "cannot answer", e),
                }
            }
            Err(Errno::INTR | Errno::AGAIN) => {}
            Err(_) if control.is_quit() => break,
            Err(e) => {
                fail(control, "cannot receive", e);
                break;
            }
        }
    }
    rtcore::seal::unseal();
}

/// Waits for the points of the schedule and records how late it was, block after block, until the
/// pair ends.
pub fn timer_blocks(log: &mut Log) {
    rtcore::seal::seal();
    let control = Arc::clone(&log.control);
    let mut done = 0;
    while let Some(order) = control.wait_order(done) {
        log.open(order);
        pace(&control, order, (Role::Sender, Loops::Samples), |woken| {
            let stamp = Stamp {
                sent_ns: woken.intended_ns,
                ..*woken
            };
            log.note(&stamp, woken.sent_ns, woken.sent_ns - woken.intended_ns);
            Ok(())
        });
        log.close(Role::Sender);
        done = order;
    }
    rtcore::seal::unseal();
}
