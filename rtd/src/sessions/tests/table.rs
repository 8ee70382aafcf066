//! Each event in each state, above all each way in which a session ends.

use super::*;
use PeerState::{Alive, Dead, Unregistered};

/// An effect in few words.
fn shown(effect: &Effect) -> String {
    match effect {
        Effect::Introduce { process, map } => format!("introduce {process} {map}"),
        Effect::Send { to, message } => match message {
            Message::Peer { of, status } => format!("send {to} peer {of} {:?}", status.state),
            Message::Map { serial } => format!("send {to} map {serial}"),
            Message::Ready => format!("send {to} ready"),
            Message::Reach { channel, reachable } => {
                format!("send {to} reach {channel} {reachable}")
            }
        },
        Effect::Attach { process } => format!("attach {process}"),
        Effect::Grant { process } => format!("grant {process}"),
        Effect::Announce { process } => format!("announce {process}"),
        Effect::Opened { process } => format!("opened {process}"),
        Effect::ReadFrom { process } => format!("read from {process}"),
        Effect::Record { process, .. } => format!("record {process}"),
        Effect::Disconnect { process } => format!("disconnect {process}"),
        Effect::Release { process } => format!("release {process}"),
        Effect::CountDeath { process } => format!("count death {process}"),
        Effect::Close { process } => format!("close {process}"),
        Effect::Create {
            serials: [sender, receiver],
            ..
        } => format!("create {sender} {receiver}"),
        Effect::Order { .. } => "order".to_owned(),
        Effect::Discard { .. } => "discard".to_owned(),
        Effect::Offer {
            serials: [sender, receiver],
            ..
        } => format!("offer {sender} {receiver}"),
        Effect::SendRing { end, .. } => format!("ring to {end}"),
        Effect::Seal {
            serials: [sender, receiver],
            ..
        } => format!("seal {sender} {receiver}"),
        Effect::SendJoin { end, .. } => format!("join to {end}"),
        Effect::LeaveToNext => "leave to next".to_owned(),
    }
}

/// A daemon whose effects all succeed, with what each event that they return would be.
struct Bench {
    topology: Topology,
    state: State,
}

impl Bench {
    fn new(large: bool) -> Bench {
        let topology = topology(large);
        Bench {
            state: topology.start(),
            topology,
        }
    }

    fn step(&mut self, event: Event) -> Vec<String> {
        self.topology
            .step(&mut self.state, event)
            .iter()
            .map(shown)
            .collect()
    }

    /// Opens a session to its end; returns the number of its Map.
    fn open(&mut self, process: ProcessId) -> u32 {
        let map = self.admit(process);
        self.step(Event::Mapped {
            process,
            serial: map,
        });
        self.step(changed(process, Alive));
        map
    }

    fn admit(&mut self, process: ProcessId) -> u32 {
        self.step(Event::Admitted { process });
        let Phase::Opening { map } = self.state.phase(process) else {
            panic!("{:?}", self.state)
        };
        map
    }

    /// The receiver's session has this phase; the sender's is open and joined to it, if both are in
    /// force.
    fn at(phase: Phase) -> Bench {
        let mut bench = Bench::new(false);
        bench.open(SENDING);
        if phase == Phase::Closed {
            return bench;
        }
        let map = bench.admit(RECEIVING);
        if matches!(phase, Phase::Opening { .. }) {
            return bench;
        }
        bench.step(Event::Mapped {
            process: RECEIVING,
            serial: map,
        });
        if phase == Phase::Mapped {
            return bench;
        }
        bench.step(changed(RECEIVING, Alive));
        bench.join([map + 1, map + 2]);
        if phase == Phase::Dying {
            bench.step(Event::Ended {
                process: RECEIVING,
                end: End::HungUp(Fate::Dying),
            });
        }
        assert_eq!(bench.state.phase(RECEIVING), phase);
        bench
    }

    fn join(&mut self, serials: [u32; 2]) {
        self.step(Event::Mapped {
            process: SENDING,
            serial: serials[0],
        });
        self.step(Event::Mapped {
            process: RECEIVING,
            serial: serials[1],
        });
        self.step(Event::Sealed { route: ROUTE });
    }
}

const OPENING: Phase = Phase::Opening { map: 4 };
const PHASES: [Phase; 5] = [
    Phase::Closed,
    OPENING,
    Phase::Mapped,
    Phase::Open,
    Phase::Dying,
];

/// What the sender is sent when the receiver is there no more: first that it reaches nobody, then
/// who it was.
fn gone(state: PeerState) -> Vec<String> {
    let reach = ["close 1", "send 0 reach 0 false", "send 0 reach 1 false"].map(str::to_owned);
    reach
        .into_iter()
        .chain([format!("send 0 peer 1 {state:?}")])
        .collect()
}

#[test]
fn a_session_opens_in_the_documented_order() {
    let mut bench = Bench::new(false);
    assert_eq!(
        bench.step(Event::Admitted { process: SENDING }),
        ["introduce 0 2", "send 0 map 2"]
    );
    assert!(
        bench
            .step(Event::Mapped {
                process: SENDING,
                serial: 1
            })
            .is_empty(),
        "another ring"
    );
    let mapped = bench.step(Event::Mapped {
        process: SENDING,
        serial: 2,
    });
    assert_eq!(mapped, ["attach 0", "grant 0", "announce 0"]);
    let open = bench.step(changed(SENDING, Alive));
    let expected = [
        "send 0 reach 0 false",
        "send 0 ready",
        "opened 0",
        "send 1 peer 0 Alive",
        "read from 0",
    ];
    assert_eq!(open, expected);

    let admitted = bench.step(Event::Admitted { process: RECEIVING });
    assert_eq!(
        admitted,
        ["introduce 1 4", "send 1 peer 0 Alive", "send 1 map 4"]
    );
    bench.step(Event::Mapped {
        process: RECEIVING,
        serial: 4,
    });
    let open = bench.step(changed(RECEIVING, Alive));
    let expected = [
        "send 1 ready",
        "opened 1",
        "send 0 peer 1 Alive",
        "read from 1",
        "create 5 6",
        "ring to 0",
        "ring to 1",
        "send 0 reach 0 true",
    ];
    assert_eq!(open, expected);
}

#[test]
fn a_direct_ring_is_joined_when_both_ends_have_mapped_their_halves() {
    let mut bench = Bench::new(false);
    bench.open(SENDING);
    bench.open(RECEIVING);
    for (process, serial) in [
        (SENDING, 6),
        (RECEIVING, 5),
        (SENDING, 5),
        (SENDING, 5),
        (RECEIVING, 99),
    ] {
        assert!(bench.step(Event::Mapped { process, serial }).is_empty());
    }
    assert_eq!(
        bench.step(Event::Mapped {
            process: RECEIVING,
            serial: 6
        }),
        ["seal 5 6"]
    );
    assert!(!bench.state.is_reached(SENDING, 1));
    let joined = bench.step(Event::Sealed { route: ROUTE });
    assert_eq!(
        joined,
        ["join to 1", "join to 0", "send 0 reach 1 true"],
        "the receiver first"
    );
    assert!(bench.step(Event::Tick).is_empty());
    assert!(bench.step(Event::Sealed { route: ROUTE }).is_empty());
}

/// Each end of each phase. The last column is the phase after it.
#[test]
fn every_end_of_a_session_has_its_effects() {
    let text = || "it lies".to_owned();
    let quiet = [
        End::Left,
        End::HungUp(Fate::Lives),
        End::HungUp(Fate::Dying),
        End::HungUp(Fate::Died),
    ];
    let loud = [
        End::BadFrame(text()),
        End::Violation(text()),
        End::Unread,
        End::Unmapped(text()),
        End::Failed(text()),
    ];
    for phase in PHASES {
        for end in quiet.iter().chain(&loud) {
            let mut bench = Bench::at(phase);
            let effects = bench.step(Event::Ended {
                process: RECEIVING,
                end: end.clone(),
            });
            let (expected, after): (&[&str], Phase) = match (phase, end) {
                (Phase::Closed, _) => (&[], Phase::Closed),
                // Neither the registry nor the partner knows of it.
                (Phase::Opening { .. } | Phase::Mapped, end) if quiet.contains(end) => {
                    (&["close 1"], Phase::Closed)
                }
                (Phase::Opening { .. } | Phase::Mapped, _) => {
                    (&["record 1", "close 1"], Phase::Closed)
                }
                (_, End::HungUp(Fate::Dying)) => (&["disconnect 1"], Phase::Dying),
                (phase, End::HungUp(Fate::Died)) => (&["count death 1"], phase),
                (phase, _) => (&["record 1", "release 1"], phase),
            };
            assert_eq!(effects, expected, "{end:?} in {phase:?}");
            assert_eq!(bench.state.phase(RECEIVING), after, "{end:?} in {phase:?}");
        }
    }
}

/// The registry's word ends a session in every phase, and its partner is sent so.
#[test]
fn a_process_without_its_name_has_no_session() {
    for state in [Dead, Unregistered] {
        for phase in PHASES {
            let mut bench = Bench::at(phase);
            let effects = bench.step(changed(RECEIVING, state));
            let peer = format!("send 0 peer 1 {state:?}");
            let expected = match phase {
                Phase::Closed => vec![peer],
                Phase::Opening { .. } | Phase::Mapped => vec!["close 1".to_owned(), peer],
                Phase::Open | Phase::Dying => gone(state),
            };
            assert_eq!(effects, expected, "{state:?} in {phase:?}");
            assert_eq!(bench.state.phase(RECEIVING), Phase::Closed);
        }
    }
}

/// The next session of a process is linked again, and the numbers of the ring before mean nothing
/// any more.
#[test]
fn a_session_that_is_replaced_gets_a_new_ring() {
    let mut bench = Bench::at(Phase::Open);
    bench.step(Event::Ended {
        process: RECEIVING,
        end: End::Left,
    });
    bench.step(changed(RECEIVING, Unregistered));
    let map = bench.open(RECEIVING);
    for (process, serial) in [(SENDING, 5), (RECEIVING, 6)] {
        assert!(bench.step(Event::Mapped { process, serial }).is_empty());
    }
    bench.step(Event::Mapped {
        process: SENDING,
        serial: map + 1,
    });
    let seal = bench.step(Event::Mapped {
        process: RECEIVING,
        serial: map + 2,
    });
    assert_eq!(seal, [format!("seal {} {}", map + 1, map + 2)]);
}

#[test]
fn a_process_that_registers_without_a_session_gets_no_ring() {
    let mut bench = Bench::at(Phase::Closed);
    assert_eq!(
        bench.step(changed(RECEIVING, Alive)),
        ["send 0 peer 1 Alive"]
    );
    assert!(bench.step(Event::Tick).is_empty());
    assert_eq!(bench.step(changed(RECEIVING, Dead)), ["send 0 peer 1 Dead"]);
}

/// The events of a phase that they do not belong to change nothing.
#[test]
fn other_events_have_no_effect() {
    for phase in PHASES {
        let mut bench = Bench::at(phase);
        let before = bench.state.clone();
        for event in [
            Event::Mapped {
                process: RECEIVING,
                serial: 99,
            },
            Event::Made {
                route: ROUTE,
                ok: true,
            },
            Event::Made {
                route: ROUTE,
                ok: false,
            },
            Event::Sealed { route: ROUTE },
            Event::Tick,
            Event::Admitted { process: SENDING },
        ] {
            assert!(
                bench.step(event.clone()).is_empty(),
                "{event:?} in {phase:?}"
            );
            assert_eq!(bench.state, before, "{event:?} in {phase:?}");
        }
        if phase != Phase::Closed {
            assert!(
                bench
                    .step(Event::Admitted { process: RECEIVING })
                    .is_empty(),
                "in {phase:?}"
            );
            assert_eq!(bench.state, before, "a second session in {phase:?}");
        }
        // Sessions end with the daemon's connections: nothing is sent, and nobody loses a name.
        assert_eq!(bench.step(Event::Stopped), ["leave to next"]);
        assert_eq!(bench.state, before, "a stop in {phase:?}");
    }
}

#[test]
fn a_ring_that_broke_is_replaced_with_the_next_tick() {
    let mut bench = Bench::at(Phase::Open);
    assert_eq!(
        bench.step(Event::Broken { route: ROUTE }),
        ["send 0 reach 1 false"]
    );
    let again = bench.step(Event::Tick);
    assert_eq!(again, ["create 7 8", "ring to 0", "ring to 1"]);
    bench.step(Event::Broken { route: ROUTE });
    assert_eq!(
        bench.step(Event::Tick),
        ["create 9 10", "ring to 0", "ring to 1"]
    );
}

#[test]
fn large_memory_is_ordered_once_and_serves_the_sessions_open_then() {
    let mut bench = Bench::new(true);
    bench.open(SENDING);
    let map = bench.admit(RECEIVING);
    bench.step(Event::Mapped {
        process: RECEIVING,
        serial: map,
    });
    let open = bench.step(changed(RECEIVING, Alive));
    assert_eq!(open[open.len() - 2..], ["order", "send 0 reach 0 true"]);
    assert!(bench.step(Event::Tick).is_empty());
    bench.step(changed(RECEIVING, Dead));
    bench.open(RECEIVING);
    assert!(
        bench.step(Event::Tick).is_empty(),
        "the memory is still being made"
    );
    assert_eq!(
        bench.step(Event::Made {
            route: ROUTE,
            ok: true
        })[1..],
        ["ring to 0", "ring to 1"],
        "it is the next session's"
    );
    bench.step(changed(RECEIVING, Dead));
    bench.open(RECEIVING);
    bench.step(changed(RECEIVING, Dead));
    assert_eq!(
        bench.step(Event::Made {
            route: ROUTE,
            ok: true
        }),
        ["discard"]
    );
    bench.open(RECEIVING);
    assert!(
        bench
            .step(Event::Made {
                route: ROUTE,
                ok: false
            })
            .is_empty()
    );
    assert_eq!(bench.step(Event::Tick), ["order"]);
}

#[test]
fn a_queue_takes_messages_until_its_owner_dies_and_a_signal_needs_its_owner() {
    let mut topology = topology(false);
    topology.channels[SENDING] = vec![
        ChannelKind::Routed(vec![Receiver::Queue(Some(RECEIVING))]),
        ChannelKind::Routed(vec![Receiver::Queue(None)]),
        ChannelKind::Routed(vec![Receiver::Signal(Some(RECEIVING))]),
        ChannelKind::Routed(vec![Receiver::Signal(None), Receiver::Session(None)]),
    ];
    let mut bench = Bench {
        state: topology.start(),
        topology,
    };
    bench.open(SENDING);
    let mut reached = |event| {
        bench.step(event);
        [0, 1, 2, 3].map(|channel| bench.state.is_reached(SENDING, channel))
    };
    assert_eq!(reached(Event::Tick), [true, true, false, false]);
    assert_eq!(
        reached(changed(RECEIVING, Alive)),
        [true, true, true, false]
    );
    assert_eq!(
        reached(changed(RECEIVING, Dead)),
        [false, true, false, false]
    );
    assert_eq!(
        reached(changed(RECEIVING, Unregistered)),
        [true, true, false, false]
    );
}
