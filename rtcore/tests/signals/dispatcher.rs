//! What arrives, in which order, and who is refused.

use crate::util::{queue, rt, usr1};
use rtcore::client::signals::{Flags, Signals, SignalsError};
use rtcore::client::waiter::SignalSource;
use rtcore::sys::{rtsignal, signame};
use std::io::{Read, Write};
use std::process::Command;
use std::sync::mpsc::{channel, sync_channel};

pub fn a_value_and_its_claimed_origin_arrive() {
    let signals = Signals::start().unwrap();
    let (tell, told) = channel();
    let before = rtcore::sys::clock::monotonic_ns();
    let flags = Flags::new().only_from(|origin| origin.pid == std::process::id());
    signals
        .register(rt(0), flags, move |notice| {
            tell.send((
                notice.signo,
                notice.value,
                notice.origin,
                notice.received_ns,
            ))
            .unwrap();
            assert!(notice.payload.is_empty());
        })
        .unwrap();
    queue(rt(0), u64::MAX - 1);
    let (signo, value, origin, received_ns) = told.recv().unwrap();
    assert_eq!(
        (signo, value, origin.verified),
        (rt(0), u64::MAX - 1, false)
    );
    assert!(received_ns > before);
}

pub fn an_origin_that_the_kernel_wrote_is_verified() {
    let signals = Signals::start().unwrap();
    let (tell, told) = channel();
    signals
        .register(
            rt(1),
            Flags::new().only_from(|origin| origin.verified),
            move |notice| {
                tell.send((notice.origin, notice.value)).unwrap();
            },
        )
        .unwrap();
    queue(rt(1), 7);
    let script = format!("kill -s {} {} && echo $$", rt(1), std::process::id());
    let sent = Command::new("sh").args(["-c", &script]).output().unwrap();
    let sender: u32 = String::from_utf8(sent.stdout)
        .unwrap()
        .trim()
        .parse()
        .unwrap();
    let (origin, value) = told.recv().unwrap();
    assert_eq!((origin.pid, origin.verified, value), (sender, true, 0));
    assert_eq!(
        signals.counters().unhandled,
        1,
        "the queued one was kept from the handler"
    );
}

pub fn the_lowest_pending_number_is_handled_first() {
    let signals = Signals::start().unwrap();
    let (tell, told) = channel();
    let (open, gate) = channel::<()>();
    let (entered, inside) = channel();
    signals
        .register(rt(2), Flags::new(), move |_| {
            entered.send(()).unwrap();
            gate.recv().unwrap();
        })
        .unwrap();
    for signo in [rt(5), rt(3), usr1(), rt(4)] {
        let tell = tell.clone();
        signals
            .register(signo, Flags::new(), move |n| {
                tell.send((n.signo, n.value)).unwrap()
            })
            .unwrap();
    }
    queue(rt(2), 0);
    inside.recv().unwrap();
    for (signo, value) in [(rt(5), 1), (rt(4), 2), (rt(3), 3), (rt(3), 4), (usr1(), 5)] {
        queue(signo, value);
    }
    open.send(()).unwrap();
    let order: Vec<_> = told.iter().take(5).collect();
    assert_eq!(
        order,
        [(usr1(), 5), (rt(3), 3), (rt(3), 4), (rt(4), 2), (rt(5), 1)]
    );
}

pub fn what_is_pending_before_registration_is_handled() {
    queue(rt(6), 11);
    let signals = Signals::start().unwrap();
    let (tell, told) = channel();
    signals
        .register(rt(6), Flags::new(), move |notice| {
            tell.send(notice.value).unwrap()
        })
        .unwrap();
    assert_eq!(told.recv().unwrap(), 11);
}

pub fn a_panicking_handler_stops_nobody() {
    let signals = Signals::start().unwrap();
    let (tell, told) = channel();
    signals
        .register(rt(7), Flags::new(), |notice| {
            assert!(notice.value > 1, "meant to panic")
        })
        .unwrap();
    signals
        .register(rt(7), Flags::new(), move |notice| {
            tell.send(notice.value).unwrap()
        })
        .unwrap();
    for value in 1..=3 {
        queue(rt(7), value);
    }
    assert_eq!(told.iter().take(3).collect::<Vec<_>>(), [1, 2, 3]);
    let counters = signals.counters();
    assert_eq!((counters.panics, counters.received), (1, 3), "{counters:?}");
}

pub fn a_thread_that_lets_a_signal_through_is_named() {
    let signals = Signals::start().unwrap();
    let (ready, is_ready) = channel();
    let (end, ending) = channel::<()>();
    let open = std::thread::Builder::new()
        .name("lets-through".to_owned())
        .spawn(move || {
            rtsignal::SignalSet::of([rt(8)]).unblock().unwrap();
            ready.send(rtcore::sys::sched::gettid()).unwrap();
            ending.recv().unwrap();
        });
    let tid = is_ready.recv().unwrap();
    let refused = signals.register(rt(8), Flags::new(), |_| {}).unwrap_err();
    let text = refused.to_string();
    for part in [
        &signame::name(rt(8)),
        &format!("thread {tid} (lets-through)"),
        "Signals::block([",
    ] {
        assert!(text.contains(part), "{text}");
    }
    assert!(matches!(
        SignalSource::new([rt(8)]).unwrap_err(),
        SignalsError::Unblocked { .. }
    ));
    end.send(()).unwrap();
    open.unwrap().join().unwrap();
    signals.register(rt(8), Flags::new(), |_| {}).unwrap();
}

pub fn a_signal_has_one_taker_in_the_process() {
    let (first, second) = (Signals::start().unwrap(), Signals::start().unwrap());
    let id = first.register(rt(9), Flags::new(), |_| {}).unwrap();
    first.register(rt(9), Flags::new(), |_| {}).unwrap();
    let refused = second.register(rt(9), Flags::new(), |_| {}).unwrap_err();
    assert!(
        matches!(refused, SignalsError::Taken { signo } if signo == rt(9)),
        "{refused}"
    );
    assert!(matches!(
        second.remove(id),
        Err(SignalsError::NoSuchHandler { .. })
    ));
    drop(first);
    let (tell, told) = sync_channel(1);
    second
        .register(rt(9), Flags::new(), move |notice| {
            tell.send(notice.value).unwrap()
        })
        .unwrap();
    queue(rt(9), 5);
    assert_eq!(told.recv().unwrap(), 5);
}

pub fn what_cannot_be_caught_is_refused() {
    let signals = Signals::start().unwrap();
    for signo in [0, 9, 11, 19, 32, 33, rtsignal::WAKE, 65] {
        let refused = signals.register(signo, Flags::new(), |_| {}).unwrap_err();
        assert!(matches!(refused, SignalsError::Refused { .. }), "{refused}");
        assert!(Signals::block([signo]).is_err());
    }
}

pub fn a_blocking_call_is_not_interrupted() {
    let signals = Signals::start().unwrap();
    let (tell, told) = channel();
    signals
        .register(rt(10), Flags::new(), move |notice| {
            tell.send(notice.value).unwrap()
        })
        .unwrap();
    let (mut reader, mut writer) = std::io::pipe().unwrap();
    let (begin, begun) = channel();
    let blocked = std::thread::spawn(move || {
        begin.send(rtcore::sys::sched::gettid()).unwrap();
        let mut byte = [0];
        (reader.read(&mut byte).map_err(|e| e.kind()), byte)
    });
    crate::util::until_asleep(begun.recv().unwrap());
    for value in 0..20 {
        queue(rt(10), value);
    }
    assert_eq!(told.iter().take(20).sum::<u64>(), 190);
    writer.write_all(&[3]).unwrap();
    assert_eq!(blocked.join().unwrap(), (Ok(1), [3]));
}
