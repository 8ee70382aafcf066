//! What the lanes use: `rtcore`'s table over the calls, where loss is not silent and no number is
//! an order.

use super::Rule;
use super::util::{A_WHILE, FIRST, PendingLimit, SECOND, broken, fresh_name, same, skipped};
use crate::run::PRIORITY;
use crate::skin::{Ending, Stop};
use rtcore::skin::{OpenQueue, Semaphore, SignalAddress, Skin, semaphore};
use rtcore::sys::clock::nanos;
use rtcore::sys::mqueue::Access;
use rtcore::sys::pidfd::PidFd;
use rtcore::sys::poll::Interest;
use rtcore::sys::rtsignal::{SignalSet, bit};
use rtcore::sys::{Call, Errno, sched};
use std::fmt::Debug;
use std::os::fd::{AsFd, AsRawFd};
use std::time::Duration;

pub(super) type Table = &'static Skin;

pub(super) const RULES: &[Rule<Skin>] = &[
    Rule {
        name: "table: a queue is created once, adopted again, refused with another size",
        check: queues,
    },
    Rule {
        name: "table: mq calls keep order and report full, empty and too long",
        check: messages,
    },
    Rule {
        name: "table: a bounded receive is ETIMEDOUT, not early",
        check: bounded_receive,
    },
    Rule {
        name: "table: a signal arrives with its value, and with the origin that the skin promises",
        check: signals,
    },
    Rule {
        name: "table: a bounded wait for a signal is EAGAIN, not early",
        check: bounded_wait,
    },
    Rule {
        name: "table: the numbers 65 to 69 are refused",
        check: orders,
    },
    Rule {
        name: "table: a signal to a thread that has ended is ESRCH",
        check: gone,
    },
    Rule {
        name: "table: what it accepts of a flood of signals is delivered",
        check: flood,
    },
    Rule {
        name: "table: time goes forward, and no sleep is early",
        check: time,
    },
    Rule {
        name: "table: waiting for readiness ends with readiness or with its bound",
        check: ready,
    },
    Rule {
        name: "table: a doorbell that was rung before it was cleared wakes nobody, after it does",
        check: doorbell,
    },
    Rule {
        name: "table: a bounded wait at a doorbell is ETIMEDOUT, not early",
        check: bounded_doorbell,
    },
    Rule {
        name: "table: a doorbell rings from a thread that is not promoted, and wakes such a one",
        check: ordinary,
    },
    Rule {
        name: "table: a promoted thread takes the signals that are the library's own",
        check: unblocked,
    },
    Rule {
        name: "table: a lane's calls keep its thread in real-time mode",
        check: mode,
    },
    Rule {
        name: "table: a thread that is not promoted is refused where the skin says so",
        check: not_promoted,
    },
];

/// The error is this one.
pub(super) fn refused<T: Debug>(what: &str, got: Call<T>, wanted: i32) -> Result<String, Stop> {
    let plain = got.map_err(|errno| crate::Errno(errno.0));
    super::util::refused(what, plain, wanted)
}

pub(super) fn failed(errno: Errno) -> Stop {
    broken(format!("a call failed: {}", crate::Errno(errno.0)))
}

/// A queue whose name goes with it.
struct Queue {
    skin: Table,
    open: OpenQueue,
    name: std::ffi::CString,
}

impl Queue {
    fn create(skin: Table, maxmsg: usize, msgsize: usize) -> Result<Queue, Stop> {
        let name = fresh_name();
        let (open, adopted) = OpenQueue::create(skin, &name, maxmsg, msgsize).map_err(broken)?;
        let queue = Queue { skin, open, name };
        same("adopted", adopted, false)?;
        Ok(queue)
    }

    fn send(&self, message: &[u8], priority: u32) -> Call<()> {
        (self.skin.mq_send)(self.open.mqd(), message, priority)
    }

    fn receive(&self, buffer: &mut [u8]) -> Call<(usize, u32)> {
        (self.skin.mq_receive)(self.open.mqd(), buffer)
    }
}

impl Drop for Queue {
    fn drop(&mut self) {
        let _ = (self.skin.setup.mq_unlink)(&self.name);
    }
}

fn queues(skin: Table) -> Ending {
    let queue = Queue::create(skin, 4, 32)?;
    let (second, adopted) = OpenQueue::create(skin, &queue.name, 4, 32).map_err(broken)?;
    same("adopted", adopted, true)?;
    let attributes = second.attributes().map_err(broken)?;
    same(
        "size",
        (attributes.maxmsg, attributes.msgsize, attributes.curmsgs),
        (4, 32, 0),
    )?;
    let Err(other_size) = OpenQueue::create(skin, &queue.name, 4, 48) else {
        return Err(broken("a queue of 32 bytes was adopted for 48"));
    };
    let sender = OpenQueue::open(skin, &queue.name, Access::Send, true).map_err(broken)?;
    refused(
        "receiving from the sending half",
        (skin.mq_receive)(sender.mqd(), &mut [0; 32]),
        libc::EBADF,
    )?;
    Ok(other_size.to_string())
}

fn messages(skin: Table) -> Ending {
    let queue = Queue::create(skin, 2, 8)?;
    let mut buffer = [0; 8];
    refused(
        "receiving from an empty queue",
        queue.receive(&mut buffer),
        libc::EAGAIN,
    )?;
    queue.send(b"low", 1).map_err(failed)?;
    queue.send(b"high", 2).map_err(failed)?;
    refused(
        "sending to a full queue",
        queue.send(b"more", 3),
        libc::EAGAIN,
    )?;
    refused("sending too much", queue.send(&[0; 9], 3), libc::EMSGSIZE)?;
    for (message, priority) in [(&b"high"[..], 2), (b"low", 1)] {
        let (length, got) = queue.receive(&mut buffer).map_err(failed)?;
        same(
            "message and priority",
            (&buffer[..length], got),
            (message, priority),
        )?;
    }
    Ok(String::new())
}

/// Runs this and checks that it took at least so long.
pub(super) fn not_early<T>(
    skin: Table,
    time: Duration,
    call: impl FnOnce() -> T,
) -> Result<T, Stop> {
    let start = (skin.now_ns)();
    let result = call();
    let took = Duration::from_nanos((skin.now_ns)() - start);
    if took < time {
        Err(broken(format!("returned after {took:?} of {time:?}")))
    } else {
        Ok(result)
    }
}

fn bounded_receive(skin: Table) -> Ending {
    let queue = Queue::create(skin, 1, 8)?;
    let blocking = OpenQueue::open(skin, &queue.name, Access::Receive, false).map_err(broken)?;
    let mut buffer = [0; 8];
    let got = not_early(skin, A_WHILE, || {
        (skin.mq_receive_within)(blocking.mqd(), &mut buffer, nanos(A_WHILE))
    })?;
    let errno = refused("mq_receive_within", got, libc::ETIMEDOUT)?;
    queue.send(b"now", 1).map_err(failed)?;
    let got =
        (skin.mq_receive_within)(blocking.mqd(), &mut buffer, nanos(A_WHILE)).map_err(failed)?;
    same("length and priority", got, (3, 1))?;
    Ok(errno)
}

/// The calling thread's address, with what keeps it valid.
fn me() -> Result<(SignalAddress, PidFd), Stop> {
    let pid = sched::getpid();
    let process = PidFd::open(pid).map_err(broken)?;
    let to = SignalAddress {
        pidfd: process.as_fd().as_raw_fd(),
        pid,
        tid: sched::gettid(),
        pidfd_is_thread: false,
    };
    Ok((to, process))
}

fn signals(skin: Table) -> Ending {
    let (to, _process) = me()?;
    let set = SignalSet::of([FIRST, SECOND]);
    for (signo, value) in [(SECOND, 3), (FIRST, 1), (FIRST, u64::MAX)] {
        (skin.signal_send)(to, signo, value, 4711, 815).map_err(failed)?;
    }
    for (signo, value) in [(FIRST, 1), (FIRST, u64::MAX), (SECOND, 3)] {
        let got = (skin.signal_wait)(&set).map_err(failed)?;
        same("number and value", (got.signo, got.value), (signo, value))?;
        let own = u32::try_from(to.tid).unwrap_or(0);
        same(
            "origin's pid",
            got.pid,
            if skin.caps.passes_origin { 4711 } else { own },
        )?;
    }
    Ok(if skin.caps.passes_origin {
        "the one it is given"
    } else {
        "the sending thread"
    }
    .to_owned())
}

fn bounded_wait(skin: Table) -> Ending {
    let set = SignalSet::of([FIRST]);
    refused(
        "without time",
        (skin.signal_wait_within)(&set, 0),
        libc::EAGAIN,
    )?;
    let got = not_early(skin, A_WHILE, || {
        (skin.signal_wait_within)(&set, nanos(A_WHILE))
    })?;
    refused("with time", got, libc::EAGAIN)
}

fn orders(skin: Table) -> Ending {
    let (to, _process) = me()?;
    let mut seen = String::new();
    for signo in 65..=69 {
        seen = refused(
            &format!("number {signo}"),
            (skin.signal_send)(to, signo, 0, 0, 0),
            libc::EINVAL,
        )?;
    }
    Ok(seen)
}

fn gone(skin: Table) -> Ending {
    let (to, _process) = me()?;
    let ended = std::thread::spawn(move || {
        let _ = (skin.setup.promote)(priority());
        sched::gettid()
    });
    let tid = ended
        .join()
        .map_err(|_| broken("a helping thread panicked"))?;
    // join(3) returns when the thread's memory is free, which is just before the kernel forgets its
    // number.
    let sent = || (skin.signal_send)(SignalAddress { tid, ..to }, FIRST, 0, 0, 0);
    let end = (skin.now_ns)() + nanos(Duration::from_secs(2));
    while sent().is_ok() && (skin.now_ns)() < end {
        std::thread::yield_now();
    }
    refused("a signal to it", sent(), libc::ESRCH)
}

fn flood(skin: Table) -> Ending {
    let (to, _process) = me()?;
    let _limit = if skin.caps.reports_signal_overflow {
        Some(PendingLimit::set(16)?)
    } else {
        None
    };
    let set = SignalSet::of([FIRST]);
    let mut accepted = 0;
    let refusal = loop {
        match (skin.signal_send)(to, FIRST, accepted, 0, 0) {
            Ok(()) if accepted < 1000 => accepted += 1,
            Ok(()) => {
                return Err(broken(
                    "1000 signals were accepted for a thread that takes none",
                ));
            }
            Err(errno) => break errno,
        }
    };
    let mut delivered = 0;
    while let Ok(got) = (skin.signal_wait_within)(&set, 0) {
        same("value", got.value, delivered)?;
        delivered += 1;
    }
    same("delivered of the accepted", delivered, accepted)?;
    let errno = refused::<()>("the one past the limit", Err(refusal), libc::EAGAIN)?;
    (skin.signal_send)(to, FIRST, 0, 0, 0).map_err(failed)?;
    (skin.signal_wait)(&set).map_err(failed)?;
    Ok(format!("{errno} after {accepted}"))
}

fn time(skin: Table) -> Ending {
    let mut last = (skin.now_ns)();
    for _ in 0..10_000 {
        let now = (skin.now_ns)();
        if now < last {
            return Err(broken(format!("{now} ns after {last} ns")));
        }
        last = now;
    }
    let until = last + nanos(A_WHILE);
    (skin.sleep_until)(until);
    let now = (skin.now_ns)();
    if now < until {
        return Err(broken(format!("{} ns early", until - now)));
    }
    (skin.sleep_until)(0);
    Ok(format!("{} ns late", now - until))
}

fn ready(skin: Table) -> Ending {
    let queue = Queue::create(skin, 1, 8)?;
    not_early(skin, A_WHILE, || {
        (skin.wait_ready)(&mut [Interest::NONE], nanos(A_WHILE))
    })?
    .map_err(failed)?;
    if !skin.caps.pollable_mq {
        return Ok("its bound only: queues cannot be polled".to_owned());
    }
    queue.send(b"1", 0).map_err(failed)?;
    let mut interests = [Interest::readable(queue.open.mqd())];
    same(
        "ready",
        (skin.wait_ready)(&mut interests, nanos(A_WHILE)).map_err(failed)?,
        1,
    )?;
    Ok(String::new())
}

fn mode(skin: Table) -> Ending {
    let Some(is_relaxed) = skin.is_relaxed else {
        return Err(skipped("one mode only"));
    };
    let queue = Queue::create(skin, 1, 8)?;
    let (to, _process) = me()?;
    let set = SignalSet::of([FIRST]);
    let bell = bell(skin)?;
    let mut buffer = [0; 8];
    queue.send(b"1", 0).map_err(failed)?;
    queue.receive(&mut buffer).map_err(failed)?;
    for _ in 0..1000 {
        queue.send(b"1", 0).map_err(failed)?;
        queue.receive(&mut buffer).map_err(failed)?;
        (skin.signal_send)(to, FIRST, 1, 0, 0).map_err(failed)?;
        (skin.signal_wait)(&set).map_err(failed)?;
        (skin.now_ns)();
        bell.clear();
        bell.post();
        bell.wait(nanos(A_WHILE)).map_err(failed)?;
        same("relaxed", is_relaxed(), false)?;
    }
    Ok(String::new())
}

fn not_promoted(skin: Table) -> Ending {
    let queue = Queue::create(skin, 1, 8)?;
    let sent = std::thread::scope(|scope| scope.spawn(|| queue.send(b"1", 0)).join());
    let sent = sent.map_err(|_| broken("a helping thread panicked"))?;
    if !skin.caps.unpromoted_threads {
        return refused("mq_send", sent, libc::EPERM);
    }
    sent.map_err(failed)?;
    Ok("it is not".to_owned())
}

/// A doorbell whose name is gone already.
fn bell(skin: Table) -> Result<Semaphore, Stop> {
    let name = fresh_name();
    let made = Semaphore::create(skin, &name).map_err(broken)?;
    semaphore::unlink(skin, &name).map_err(broken)?;
    Ok(made)
}

fn doorbell(skin: Table) -> Ending {
    let bell = bell(skin)?;
    (0..3).for_each(|_| bell.post());
    bell.clear();
    let errno = refused(
        "after it was cleared",
        bell.wait(nanos(A_WHILE)),
        libc::ETIMEDOUT,
    )?;
    bell.post();
    bell.wait(u64::MAX).map_err(failed)?;
    Ok(errno)
}

fn bounded_doorbell(skin: Table) -> Ending {
    let bell = bell(skin)?;
    let waited = not_early(skin, A_WHILE, || bell.wait(nanos(A_WHILE)))?;
    refused("waiting", waited, libc::ETIMEDOUT)
}

/// One that may not wait sleeps instead, so that a program which asks again and again does not
/// spin.
fn ordinary(skin: Table) -> Ending {
    let bell = &bell(skin)?;
    std::thread::scope(|scope| {
        scope.spawn(|| bell.post());
        bell.wait(u64::MAX).map_err(failed)?;
        let own = || {
            let start = std::time::Instant::now();
            (bell.wait(nanos(A_WHILE)), start.elapsed())
        };
        let (waited, took) = scope
            .spawn(own)
            .join()
            .map_err(|_| broken("a helping thread panicked"))?;
        same("slept", took >= Duration::from_millis(1), true)?;
        Ok(format!("{waited:?}"))
    })
}

fn unblocked(skin: Table) -> Ending {
    if skin.is_relaxed.is_none() {
        return Err(skipped("the library has none"));
    }
    let own = SignalSet::of([libc::SIGWINCH, libc::SIGXCPU]);
    let blocked = std::thread::spawn(move || -> Result<u64, Stop> {
        own.block().map_err(broken)?;
        (skin.setup.promote)(priority()).map_err(broken)?;
        Ok(rtcore::sys::epoll::blocked_signals())
    });
    let blocked = blocked
        .join()
        .map_err(|_| broken("a helping thread panicked"))??;
    let left = [libc::SIGWINCH, libc::SIGXCPU].map(|signo| blocked & bit(signo) != 0);
    same("SIGWINCH and SIGXCPU blocked", left, [false, false])?;
    Ok(String::new())
}

fn priority() -> u8 {
    u8::try_from(PRIORITY).unwrap_or(1)
}
