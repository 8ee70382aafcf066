//! Request and reply.

use crate::daemon::{Link, Place, inbox, name, sender, session};
use crate::in_ms;
use rtcore::client::{CallError, Caller, Gone};
use rtcore::lane::peer::PeerState;
use rtcore::ring::Envelope;
use rtcore::sys::clock::monotonic_ns;
use rtcore::sys::pidfd::Ending;
use rtcore::wire::Channel;

/// The other process, as the daemon would pass its answers on.
fn answer(link: &mut Link, of: &Envelope, sequence: u64, bytes: &[u8]) {
    let mut reply = crate::daemon::envelope(sequence);
    reply.meta.correlation = of.meta.correlation;
    link.producer(1).push(&reply, bytes).unwrap();
}

fn request(link: &mut Link) -> (Envelope, Vec<u8>) {
    loop {
        if let Some(request) = link.take(0) {
            return request;
        }
        std::thread::yield_now();
    }
}

/// Lets the caller call, and plays the other side meanwhile.
fn during<T: Send>(
    caller: &mut Caller,
    ms: u64,
    other: impl FnOnce() -> T,
) -> (Result<Vec<u8>, CallError>, T) {
    std::thread::scope(|scope| {
        let calling = scope.spawn(|| {
            caller
                .call(b"question", in_ms(ms))
                .map(|reply| reply.bytes().to_vec())
        });
        let done = other();
        (calling.join().unwrap(), done)
    })
}

#[test]
fn an_answer_belongs_to_its_question_and_a_late_one_to_none() {
    let place = Place::new();
    let channels = [sender("arm.ask"), inbox("arm.answers", "planner.answers")];
    let (session, _daemon, mut link) = session(&place, &channels);
    let mut caller = session.caller("arm.ask", "arm.answers").unwrap();
    let (reply, first) = during(&mut caller, 10_000, || {
        let (envelope, bytes) = request(&mut link);
        assert_eq!(bytes, b"question");
        assert_ne!(envelope.meta.correlation, 0);
        answer(&mut link, &envelope, 1, b"answer");
        envelope
    });
    assert_eq!(reply.unwrap(), b"answer");
    let (reply, second) = during(&mut caller, 20, || request(&mut link).0);
    assert!(
        matches!(reply, Err(CallError::Timeout { waited_ns, .. }) if waited_ns >= 20_000_000),
        "{reply:?}"
    );
    assert_ne!(first.meta.correlation, second.meta.correlation);
    answer(&mut link, &second, 2, b"late");
    let (reply, ()) = during(&mut caller, 10_000, || {
        let envelope = request(&mut link).0;
        answer(&mut link, &second, 3, b"later");
        answer(&mut link, &envelope, 4, b"in time");
    });
    assert_eq!((reply.unwrap(), caller.late()), (b"in time".to_vec(), 2));
}

/// Answers from four processes, with as much room as rings have.
const CROWD: u32 = 4;
const SLOTS: u32 = 1 << 16;

/// Fills the rings with messages that answer nothing; so many are put in.
fn crowd(link: &mut Link, sequence: &mut u64) -> u64 {
    let mut put = 0;
    for number in 1..=CROWD as usize {
        let mut fits = true;
        while fits {
            *sequence += 1;
            let noise = crate::daemon::envelope(*sequence);
            fits = link.producer(number).push_quietly(&noise, b"noise").is_ok();
            put += u64::from(fits);
        }
    }
    put
}

/// Messages that answer nothing, more than can be dropped in the time: the call ends, and some of
/// them are left.
#[test]
fn a_call_ends_at_its_deadline_whatever_else_arrives() {
    let place = Place::new();
    let mut channels = vec![Channel {
        block_ns: 60_000_000_000,
        ..sender("arm.ask")
    }];
    channels.extend((0..CROWD).map(|n| Channel {
        slots: SLOTS,
        ..inbox("arm.answers", &format!("planner{n}.answers"))
    }));
    let (session, _daemon, mut link) = session(&place, &channels);
    let mut caller = session.caller("arm.ask", "arm.answers").unwrap();
    let mut sequence = 0;
    // They are there before the call, which drops what is old. Its question has no time left.
    let mut put = crowd(&mut link, &mut sequence);
    assert!(caller.call(b"question", in_ms(1)).is_err());
    assert!(
        caller.late() < put,
        "all {put} were dropped before the deadline was looked at"
    );
    // They come during the call: it waits for room, which it gets in the last moment.
    for _attempt in 0..100 {
        while !matches!(
            caller.call(b"question", in_ms(100)),
            Err(CallError::Send(_))
        ) {}
        let deadline_ns = in_ms(2_000);
        let reply = std::thread::scope(|scope| {
            let calling = scope.spawn(|| {
                caller
                    .call(b"question", deadline_ns)
                    .map(|r| r.bytes().to_vec())
            });
            while monotonic_ns() + 3_000_000 < deadline_ns {
                put += crowd(&mut link, &mut sequence);
            }
            link.take(0).unwrap();
            calling.join().unwrap()
        });
        match reply {
            // It came too late for its question.
            Err(CallError::Send(_)) => continue,
            Err(CallError::Timeout { .. }) => {}
            other => panic!("{other:?}"),
        }
        assert!(
            caller.late() < put,
            "all {put} were dropped before the deadline was looked at"
        );
        return;
    }
    panic!("never in time");
}

#[test]
fn the_end_of_who_would_answer_or_of_the_way_ends_the_call() {
    let place = Place::new();
    let channels = [sender("arm.ask"), inbox("arm.answers", "planner.answers")];
    let (session, daemon, mut link) = session(&place, &channels);
    let mut caller = session.caller("arm.ask", "arm.answers").unwrap();
    link.peer("drive", PeerState::Alive, 5, None);
    let ending = Some(Ending::Exit(1));
    let (reply, ()) = during(&mut caller, 60_000, || {
        request(&mut link);
        link.peer("drive", PeerState::Dead, 5, ending);
    });
    let (endpoint, process) = (name("arm.ask"), name("drive"));
    assert_eq!(
        reply,
        Err(CallError::PeerDead {
            endpoint,
            process,
            ending
        })
    );
    let (reply, ()) = during(&mut caller, 60_000, || {
        request(&mut link);
        drop(link);
        drop(daemon);
    });
    assert_eq!(
        reply,
        Err(CallError::Disconnected {
            endpoint,
            why: Gone::Down
        })
    );
    let refused = caller
        .call(b"question", in_ms(1_000))
        .map(|_| ())
        .unwrap_err();
    assert!(matches!(refused, CallError::Send(_)), "{refused}");
}

#[test]
fn an_answer_carries_what_the_question_gave() {
    let place = Place::new();
    let channels = [sender("arm.answers"), inbox("arm.ask", "planner.ask")];
    let (session, _daemon, mut link) = session(&place, &channels);
    let (mut sender, mut inbox) = (
        session.sender("arm.answers").unwrap(),
        session.inbox().unwrap(),
    );
    let mut question = crate::daemon::envelope(1);
    question.meta.correlation = 99;
    link.producer(1).push(&question, b"?").unwrap();
    let to = crate::message(&mut inbox, |m| m.reply_to()).unwrap();
    sender.reply(to, b"!").unwrap();
    sender.loan(0).unwrap().commit_reply(to).unwrap();
    for _ in 0..2 {
        assert_eq!(link.take(0).unwrap().0.meta.correlation, 99);
    }
}

/// A late answer to a caller that was dropped is no answer to the first call of the next one.
#[test]
fn a_new_caller_takes_no_answer_to_an_earlier_one() {
    let place = Place::new();
    let channels = [sender("arm.ask"), inbox("arm.answers", "planner.answers")];
    let (session, _daemon, mut link) = session(&place, &channels);
    let mut caller = session.caller("arm.ask", "arm.answers").unwrap();
    let (reply, first) = during(&mut caller, 20, || request(&mut link).0);
    assert!(matches!(reply, Err(CallError::Timeout { .. })), "{reply:?}");
    drop(caller);
    let mut caller = session.caller("arm.ask", "arm.answers").unwrap();
    let (reply, ()) = during(&mut caller, 10_000, || {
        let envelope = request(&mut link).0;
        answer(&mut link, &first, 1, b"late");
        answer(&mut link, &envelope, 2, b"in time");
    });
    assert_eq!((reply.unwrap(), caller.late()), (b"in time".to_vec(), 1));
}
