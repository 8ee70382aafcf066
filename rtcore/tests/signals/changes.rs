//! Handlers that come, go and change while signals arrive.

use crate::util::{queue, rt};
use rtcore::client::signals::{Flags, HANDLERS_MAX, Signals};
use std::sync::mpsc::{RecvError, channel};
use std::sync::{Arc, OnceLock};

pub fn a_handler_may_change_everything_about_itself() {
    let signals = Arc::new(Signals::start().unwrap());
    let (tell, told) = channel();
    let own = Arc::new(OnceLock::new());
    let (known, handle) = (Arc::clone(&own), Arc::downgrade(&signals));
    let id = signals
        .register(rt(11), Flags::new(), move |_| {
            tell.send("first").unwrap();
            let signals = handle.upgrade().unwrap();
            let (id, told_second, told_other) = (*known.wait(), tell.clone(), tell.clone());
            let (known, again) = (Arc::clone(&known), handle.clone());
            signals
                .replace(id, move |_| {
                    told_second.send("second").unwrap();
                    again.upgrade().unwrap().remove(*known.wait()).unwrap();
                })
                .unwrap();
            signals
                .register(rt(11), Flags::new(), move |_| {
                    told_other.send("other").unwrap()
                })
                .unwrap();
        })
        .unwrap();
    own.set(id).unwrap();
    for value in 0..3 {
        queue(rt(11), value);
    }
    let order: Vec<_> = told.iter().take(4).collect();
    assert_eq!(order, ["first", "second", "other", "other"]);
    assert!(signals.remove(id).is_err());
}

pub fn a_handler_may_drop_the_dispatcher() {
    let signals = Arc::new(Signals::start().unwrap());
    let (alive, ended) = channel::<()>();
    // Lives as long as the registry, and the thread holds that until its end.
    signals
        .register(rt(12), Flags::new(), move |_| drop(alive.clone()))
        .unwrap();
    let mut handle = Some(Arc::clone(&signals));
    let (ready, is_ready) = channel::<()>();
    signals
        .register(rt(13), Flags::new(), move |_| {
            is_ready.recv().unwrap();
            drop(handle.take());
        })
        .unwrap();
    queue(rt(13), 0);
    drop(signals);
    ready.send(()).unwrap();
    assert_eq!(ended.recv(), Err(RecvError), "the thread has ended");
    let next = Signals::start().unwrap();
    next.register(rt(13), Flags::new(), |_| {}).unwrap();
}

pub fn a_drop_waits_for_the_running_handler() {
    let signals = Signals::start().unwrap();
    let (entered, inside) = channel();
    let (open, gate) = channel::<()>();
    let done = Arc::new(OnceLock::new());
    let end = Arc::clone(&done);
    signals
        .register(rt(14), Flags::new(), move |_| {
            entered.send(()).unwrap();
            gate.recv().unwrap();
            let _ = end.set(());
        })
        .unwrap();
    queue(rt(14), 0);
    inside.recv().unwrap();
    let dropper = std::thread::spawn(move || drop(signals));
    open.send(()).unwrap();
    dropper.join().unwrap();
    assert_eq!(done.get(), Some(&()));
}

pub fn nothing_is_lost_while_handlers_come_and_go() {
    const SIGNALS: u64 = 3000;
    const IN_FLIGHT: u64 = 100;
    let signals = Signals::start().unwrap();
    let (tell, told) = channel();
    signals
        .register(rt(15), Flags::new(), move |notice| {
            tell.send(notice.value).unwrap()
        })
        .unwrap();
    std::thread::scope(|scope| {
        let (end, ending) = channel::<()>();
        let signals = &signals;
        scope.spawn(move || {
            while ending.try_recv().is_err() {
                let passing = signals
                    .register(rt(15), Flags::new().first(), |_| {})
                    .unwrap();
                let other = signals
                    .register(rt(16), Flags::new().once(), |_| {})
                    .unwrap();
                signals.replace(passing, |_| {}).unwrap();
                signals.remove(passing).unwrap();
                signals.remove(other).unwrap();
            }
        });
        for value in 0..SIGNALS {
            queue(rt(15), value);
            if value >= IN_FLIGHT {
                assert_eq!(told.recv().unwrap(), value - IN_FLIGHT);
            }
        }
        for value in SIGNALS - IN_FLIGHT..SIGNALS {
            assert_eq!(told.recv().unwrap(), value);
        }
        end.send(()).unwrap();
    });
    let counters = signals.counters();
    assert_eq!((counters.received, counters.unhandled), (SIGNALS, 0));
}

pub fn without_a_handler_signals_are_drained_and_counted() {
    let signals = Signals::start().unwrap();
    let id = signals.register(rt(17), Flags::new(), |_| {}).unwrap();
    let (tell, told) = channel();
    signals
        .register(rt(18), Flags::new(), move |_| tell.send(()).unwrap())
        .unwrap();
    signals.remove(id).unwrap();
    for value in 0..5 {
        queue(rt(17), value);
    }
    // The higher number comes after all the lower ones.
    queue(rt(18), 0);
    told.recv().unwrap();
    let counters = signals.counters();
    assert_eq!((counters.received, counters.unhandled), (6, 5));
}

pub fn what_a_handler_owns_may_panic_when_it_goes() {
    struct Trap;
    impl Drop for Trap {
        fn drop(&mut self) {
            panic!("meant to panic");
        }
    }
    let signals = Signals::start().unwrap();
    let (tell, told) = channel();
    let trap = Trap;
    signals
        .register(rt(19), Flags::new().once(), move |_| _ = &trap)
        .unwrap();
    signals
        .register(rt(19), Flags::new(), move |notice| {
            tell.send(notice.value).unwrap()
        })
        .unwrap();
    queue(rt(19), 1);
    queue(rt(19), 2);
    assert_eq!(told.iter().take(2).collect::<Vec<_>>(), [1, 2]);
    assert_eq!(signals.counters().panics, 1);
}

pub fn what_is_refused_may_use_the_dispatcher_as_it_goes() {
    struct Asks(Arc<Signals>);
    impl Drop for Asks {
        fn drop(&mut self) {
            // Takes the registry's lock.
            let none = self.0.register(0, Flags::new(), |_| {});
            assert!(
                none.is_err()
                    && self
                        .0
                        .register(rt(29), Flags::new().once(), |_| {})
                        .is_err()
            );
        }
    }
    let signals = Arc::new(Signals::start().unwrap());
    let ids: Vec<_> = (0..HANDLERS_MAX)
        .map(|_| signals.register(rt(29), Flags::new(), |_| {}).unwrap())
        .collect();
    let asks = Asks(Arc::clone(&signals));
    let refused = signals
        .register(rt(29), Flags::new(), move |_| _ = &asks)
        .unwrap_err();
    assert!(refused.to_string().contains("64 handlers"), "{refused}");
    signals.remove(ids[0]).unwrap();
    let last = signals.register(rt(29), Flags::new(), |_| {}).unwrap();
    let asks = Asks(Arc::clone(&signals));
    assert!(signals.replace(ids[0], move |_| _ = &asks).is_err());
    let asks = Asks(Arc::clone(&signals));
    signals.replace(last, move |_| _ = &asks).unwrap();
    signals.replace(last, |_| {}).unwrap();
}
