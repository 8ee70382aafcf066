//! Frames survive encoding and decoding, and other bytes are refused.

use super::*;
use proptest::prelude::*;

fn request() -> impl Strategy<Value = Request> {
    let name = "[!-~]{1,31}".prop_map(|s| Name::new(&s).unwrap());
    prop_oneof![
        (name.clone(), 0..=i32::MAX, 0..=i32::MAX).prop_map(|(name, pid, tid)| Request::Register {
            name,
            pid,
            tid,
            exec_follows: false
        }),
        name.clone().prop_map(|name| Request::Register {
            name,
            pid: 0,
            tid: 0,
            exec_follows: true
        }),
        name.clone().prop_map(|name| Request::Unregister { name }),
        (
            name.clone(),
            0..=i32::MAX,
            any::<bool>(),
            any::<(u32, u32)>(),
            proptest::option::of(name.clone())
        )
            .prop_map(
                |(name, tid, semaphores, (resumes, program), lane)| Request::Open {
                    name,
                    tid,
                    semaphores,
                    resumes,
                    program,
                    lane
                }
            ),
        any::<u32>().prop_map(|serial| Request::Mapped { serial }),
        name.clone()
            .prop_map(|endpoint| Request::Explain { endpoint }),
        (name, any::<u32>())
            .prop_map(|(endpoint, messages)| Request::Flushed { endpoint, messages }),
        Just(Request::Ping),
        Just(Request::Leave),
        Just(Request::Refusals),
        any::<(u32, u32, u32)>().prop_map(|(channel, pid, program)| Request::Carry {
            channel,
            pid,
            program
        }),
    ]
}

/// A correct header and any bytes after it: passes the first check.
fn plausible() -> impl Strategy<Value = Vec<u8>> {
    (
        0_u16..12,
        proptest::collection::vec(any::<u8>(), FRAME_BYTES - 8),
    )
        .prop_map(|(kind, body)| {
            [
                &MAGIC[..],
                &VERSION.to_ne_bytes(),
                &kind.to_ne_bytes(),
                &body,
            ]
            .concat()
        })
}

proptest! {
    #[test]
    fn requests_survive_the_way_there(request in request()) {
        prop_assert_eq!(Request::decode(&request.encode()), Ok(request));
    }

    #[test]
    fn replies_survive_the_way_back(
        status in 0_usize..9, generation: u64, signals: u64, pid: u32, text in "[^\0]{0,56}",
    ) {
        let status = [Status::Ok, Status::Pending, Status::BadFrame, Status::UnknownName, Status::Held,
            Status::Denied, Status::NoProcess, Status::Busy, Status::Failed][status];
        let reply = Reply { status, generation, signals, pid, text };
        prop_assert_eq!(Reply::decode(&reply.encode()), Ok(reply));
    }

    #[test]
    fn arbitrary_bytes_are_refused_or_mean_exactly_themselves(
        bytes in prop_oneof![proptest::collection::vec(any::<u8>(), 0..600), plausible()],
    ) {
        if let Ok(request) = Request::decode(&bytes) {
            prop_assert_eq!(&request.encode()[..], &bytes[..]);
        }
        if let Ok(reply) = Reply::decode(&bytes) {
            prop_assert_eq!(&reply.encode()[..], &bytes[..]);
        }
    }

    #[test]
    fn a_flipped_byte_never_panics(request in request(), at in 0..FRAME_BYTES, to: u8) {
        let mut frame = request.encode();
        frame[at] = to;
        let _ = Request::decode(&frame);
    }

    #[test]
    fn texts_of_any_length_and_alphabet_fit(text in ".{0,300}") {
        let frame = Reply::plain(Status::Denied, text).encode();
        prop_assert!(Reply::decode(&frame).is_ok());
    }
}

#[test]
fn offsets_are_those_that_other_languages_use() {
    let name = Name::new("arm").unwrap();
    let frame = Request::Register {
        name,
        pid: 0x0102_0304,
        tid: 5,
        exec_follows: false,
    }
    .encode();
    assert_eq!(&frame[..4], b"rtd\0");
    assert_eq!(frame[4..6], 4_u16.to_ne_bytes());
    assert_eq!(frame[6..8], 1_u16.to_ne_bytes());
    assert_eq!(frame[8..12], 0x0102_0304_u32.to_ne_bytes());
    assert_eq!(frame[12..16], 5_u32.to_ne_bytes());
    assert_eq!(frame[16..20], 0_u32.to_ne_bytes());
    assert_eq!(&frame[20..24], b"arm\0");
    let reply = Reply {
        status: Status::Held,
        generation: 2,
        signals: 4,
        pid: 8,
        text: "no".into(),
    };
    let frame = reply.encode();
    assert_eq!(frame[6..8], 4_u16.to_ne_bytes());
    assert_eq!(frame[8..16], 2_u64.to_ne_bytes());
    assert_eq!(frame[16..24], 4_u64.to_ne_bytes());
    assert_eq!(frame[24..28], 8_u32.to_ne_bytes());
    assert_eq!(&frame[28..31], b"no\0");
}

#[test]
fn another_version_is_detected_in_any_frame() {
    let mut frame = [0xff; FRAME_BYTES];
    frame[..4].copy_from_slice(&MAGIC);
    frame[4..6].copy_from_slice(&9_u16.to_ne_bytes());
    let error = Request::decode(&frame).unwrap_err();
    assert_eq!(error, FrameError::Version(9));
    assert!(
        error
            .to_string()
            .starts_with("a frame of protocol version 9, expected 4: ")
    );
}

#[test]
fn names_that_could_be_mistaken_are_refused() {
    for name in ["", "a b", "a\n", "\u{e9}", "a\u{0}b", &"x".repeat(32)] {
        assert_eq!(Name::new(name), Err(FrameError::Name), "{name:?}");
    }
    assert!(Name::new(&"x".repeat(31)).is_ok());
    let mut frame = Request::Unregister {
        name: Name::new("arm").unwrap(),
    }
    .encode();
    frame[30] = b'x';
    assert_eq!(Request::decode(&frame), Err(FrameError::Name));
}

#[test]
fn an_exec_is_announced_only_for_oneself() {
    let name = Name::new("arm").unwrap();
    let frame = Request::Register {
        name,
        pid: 7,
        tid: 0,
        exec_follows: true,
    }
    .encode();
    assert!(matches!(
        Request::decode(&frame),
        Err(FrameError::Range { field: "flags", .. })
    ));
}

fn name() -> impl Strategy<Value = Name> {
    "[!-~]{1,31}".prop_map(|s| Name::new(&s).unwrap())
}

fn channel() -> impl Strategy<Value = Channel> {
    let role = prop_oneof![
        Just(Role::Sender),
        Just(Role::Inbox),
        any::<i32>().prop_map(|signo| Role::Signal { signo })
    ];
    let names = (name(), name(), proptest::option::of(name()), name(), name());
    let numbers = (
        any::<u32>(),
        any::<u8>(),
        any::<u32>(),
        any::<u32>(),
        any::<u64>(),
    );
    let promises = (any::<u32>(), any::<u64>(), any::<u64>());
    (role, any::<bool>(), names, numbers, promises).prop_map(
        |(role, direct, names, numbers, promises)| {
            let (endpoint, other, process, lane, route) = names;
            let (channel, priority, slots, payload_bytes, block_ns) = numbers;
            let (keep, ttl_ns, deadline_ns) = promises;
            Channel {
                channel,
                role,
                direct,
                endpoint,
                other,
                process,
                lane,
                priority,
                route,
                slots,
                payload_bytes,
                block_ns,
                keep,
                ttl_ns,
                deadline_ns,
            }
        },
    )
}

fn notice() -> impl Strategy<Value = Notice> {
    use crate::lane::peer::PeerState;
    use crate::sys::pidfd::Ending;
    let state = prop_oneof![
        Just(PeerState::Unregistered),
        Just(PeerState::Alive),
        Just(PeerState::Dead)
    ];
    let ending = prop_oneof![
        Just(None),
        any::<i32>().prop_map(|n| Some(Ending::Exit(n))),
        any::<i32>().prop_map(|n| Some(Ending::Signal(n)))
    ];
    let semaphores =
        (name(), any::<u32>(), any::<u32>()).prop_map(|(instance, own, lane)| Semaphores {
            instance,
            own,
            lane,
        });
    let semaphores = proptest::option::of(semaphores);
    prop_oneof![
        channel().prop_map(Notice::Channel),
        (any::<(u32, u32, u32, u32, u32)>(), semaphores).prop_map(
            |((channel, serial, pid, uid, program), semaphores)| {
                Notice::Ring {
                    channel,
                    serial,
                    pid,
                    uid,
                    program,
                    semaphores,
                }
            }
        ),
        any::<(u32, u32)>().prop_map(|(channel, serial)| Notice::Join { channel, serial }),
        any::<(u32, bool)>().prop_map(|(channel, reachable)| Notice::Reach { channel, reachable }),
        (name(), state, any::<u32>(), ending).prop_map(|(process, state, pid, ending)| {
            Notice::Peer(PeerStatus {
                process,
                state,
                pid,
                ending,
            })
        }),
        Just(Notice::Ready),
        any::<u32>().prop_map(|serial| Notice::Map { serial }),
    ]
}

proptest! {
    #[test]
    fn notices_survive_the_way(notice in notice()) {
        prop_assert_eq!(Answer::decode(&notice.encode()), Ok(Answer::Notice(notice)));
    }

    #[test]
    fn arbitrary_bytes_behind_a_notice_s_header_mean_exactly_themselves_or_nothing(
        kind in 100_u16..108, body in proptest::collection::vec(any::<u8>(), FRAME_BYTES - 8),
    ) {
        let bytes = [&MAGIC[..], &VERSION.to_ne_bytes(), &kind.to_ne_bytes(), &body].concat();
        if let Ok(notice) = Notice::decode(&bytes) {
            prop_assert_eq!(&notice.encode()[..], &bytes[..]);
        }
    }
}
