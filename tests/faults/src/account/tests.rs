//! Every kind of fault, planted into a stream of each kind, is found; and what a sentence allows is
//! excused and counted.

use super::*;

fn accepted(numbers: impl IntoIterator<Item = u64>) -> Vec<(u64, Fate)> {
    numbers.into_iter().map(|n| (n, Fate::Accepted)).collect()
}

fn got(member: usize, numbers: impl IntoIterator<Item = u64>) -> Vec<Got> {
    numbers
        .into_iter()
        .map(|number| Got { member, number })
        .collect()
}

fn check(share: Share, members: usize, sent: &[(u64, Fate)], got: &[Got], counted: u64) -> Verdict {
    Accountant::new(members, share).check(&Interval {
        sent,
        got,
        counted,
        ..Interval::default()
    })
}

fn found(verdict: &Verdict) -> Vec<(Wrong, u64, u64)> {
    verdict
        .findings
        .iter()
        .map(|f| (f.wrong, f.first, f.count))
        .collect()
}

const SHARES: [(Share, usize); 4] = [
    (Share::Each, 1),
    (Share::Each, 3),
    (Share::Any, 2),
    (Share::RoundRobin, 3),
];

/// Everybody gets what is due, in order.
fn all(share: Share, members: usize, numbers: std::ops::RangeInclusive<u64>) -> Vec<Got> {
    match share {
        Share::Each => (0..members).flat_map(|m| got(m, numbers.clone())).collect(),
        Share::Any | Share::RoundRobin => numbers
            .map(|number| Got {
                member: usize::try_from(number).unwrap() % members,
                number,
            })
            .collect(),
    }
}

#[test]
fn nothing_is_found_where_nothing_is_wrong() {
    for (share, members) in SHARES {
        let verdict = check(
            share,
            members,
            &accepted(1..=50),
            &all(share, members, 1..=50),
            0,
        );
        assert_eq!(found(&verdict), [], "{share:?}");
        assert_eq!(verdict.accepted, 50);
    }
}

#[test]
fn a_loss_is_found_unless_the_ledger_counts_it() {
    for (share, members) in SHARES {
        let mut came = all(share, members, 1..=50);
        came.retain(|g| g.number != 20 || g.member != came_to(share, members, 20));
        let verdict = check(share, members, &accepted(1..=50), &came, 0);
        assert_eq!(found(&verdict), [(Wrong::Lost, 20, 1)], "{share:?}");
        assert_eq!(
            found(&check(share, members, &accepted(1..=50), &came, 1)),
            [],
            "{share:?}"
        );
        assert_eq!(
            found(&check(share, members, &accepted(1..=50), &came, 3)),
            [(Wrong::Miscounted, 50, 2)]
        );
    }
}

fn came_to(share: Share, members: usize, number: u64) -> usize {
    if share == Share::Each {
        0
    } else {
        usize::try_from(number).unwrap() % members
    }
}

#[test]
fn a_stream_that_is_stuck_loses_all_that_follows() {
    for (share, members) in SHARES {
        let verdict = check(
            share,
            members,
            &accepted(1..=50),
            &all(share, members, 1..=10),
            0,
        );
        let copies = if share == Share::Each {
            members as u64
        } else {
            1
        };
        assert_eq!(
            found(&verdict),
            [(Wrong::Lost, 11, 40 * copies)],
            "{share:?}"
        );
    }
}

#[test]
fn a_duplicate_is_found() {
    for (share, members) in SHARES {
        let mut came = all(share, members, 1..=50);
        came.push(Got {
            member: 0,
            number: 30,
        });
        assert_eq!(
            found(&check(share, members, &accepted(1..=50), &came, 0)),
            [(Wrong::Duplicated, 30, 1)]
        );
    }
}

#[test]
fn a_message_out_of_order_is_found() {
    for (share, members) in SHARES {
        let mut came = all(share, members, 1..=50);
        let late = came.iter().position(|g| g.number == 20).unwrap();
        let late = came.remove(late);
        let behind = came.iter().rposition(|g| g.member == late.member).unwrap();
        came.insert(behind + 1, late);
        let verdict = check(share, members, &accepted(1..=50), &came, 0);
        assert_eq!(found(&verdict), [(Wrong::Reordered, 20, 1)], "{share:?}");
    }
}

#[test]
fn a_message_to_a_process_outside_the_group_is_found() {
    for share in [Share::Any, Share::RoundRobin] {
        let mut accountant = Accountant::new(3, share).excluding(Some(2));
        let mut came = all(share, 2, 1..=50);
        came[19].member = 2;
        let verdict = accountant.check(&Interval {
            sent: &accepted(1..=50),
            got: &came,
            ..Interval::default()
        });
        assert_eq!(found(&verdict), [(Wrong::Misrouted, 20, 1)], "{share:?}");
    }
}

#[test]
fn corrupted_and_invented_messages_are_found() {
    for (share, members) in SHARES {
        let mut came = all(share, members, 1..=50);
        came.push(Got {
            member: 0,
            number: CORRUPT,
        });
        came.push(Got {
            member: 0,
            number: 51,
        });
        let wrong = [(Wrong::Corrupted, CORRUPT, 1), (Wrong::Invented, 51, 1)];
        assert_eq!(
            found(&check(share, members, &accepted(1..=50), &came, 0)),
            wrong
        );
    }
}

#[test]
fn a_refused_message_that_arrives_is_found_and_an_unknown_one_may() {
    let sent = [
        (1, Fate::Accepted),
        (2, Fate::Refused),
        (3, Fate::Begun),
        (4, Fate::Begun),
    ];
    let verdict = check(Share::Each, 1, &sent, &got(0, [1, 2, 3]), 0);
    assert_eq!(found(&verdict), [(Wrong::Invented, 2, 1)]);
    // The ledger may have counted the one that did not come.
    assert_eq!(found(&check(Share::Each, 1, &sent, &got(0, [1, 3]), 1)), []);
}

#[test]
fn the_ledger_may_count_what_a_stranger_sent() {
    let (sent, came) = (accepted(1..=10), got(0, 1..=10));
    let interval = |strangers| Interval {
        sent: &sent,
        got: &came,
        counted: 3,
        strangers,
        ..Interval::default()
    };
    assert_eq!(
        found(&Accountant::new(1, Share::Each).check(&interval(3))),
        []
    );
    let verdict = Accountant::new(1, Share::Each).check(&interval(2));
    assert_eq!(found(&verdict), [(Wrong::Miscounted, 10, 1)]);
}

#[test]
fn a_message_that_comes_after_its_judgement_is_late() {
    let mut accountant = Accountant::new(1, Share::Each);
    let first = accountant.check(&Interval {
        sent: &accepted(1..=3),
        got: &got(0, 1..=2),
        ..Interval::default()
    });
    assert_eq!(found(&first), [(Wrong::Lost, 3, 1)]);
    let second = accountant.check(&Interval {
        sent: &accepted(4..=5),
        got: &got(0, 3..=5),
        ..Interval::default()
    });
    assert_eq!(found(&second), [(Wrong::Late, 3, 1)]);
}

fn allowance(count: u64, numbers: Numbers) -> Allowance {
    Allowance {
        wrong: Wrong::Lost,
        count,
        numbers,
        sentence: Sentence::QueueMessageInHand,
    }
}

#[test]
fn an_allowance_excuses_only_messages_that_were_in_flight() {
    let allowed = [allowance(u64::MAX, Numbers { first: 4, last: 7 })];
    let sent = accepted(1..=10);
    let check = |came: &[u64], counted| {
        let got = got(0, came.iter().copied());
        let interval = Interval {
            sent: &sent,
            got: &got,
            counted,
            allowed: &allowed,
            ..Interval::default()
        };
        Accountant::new(1, Share::Each).check(&interval)
    };
    assert_eq!(found(&check(&[1, 2, 3, 8, 9, 10], 0)), []);
    // One before, one behind.
    assert_eq!(found(&check(&[1, 2, 8, 9, 10], 0)), [(Wrong::Lost, 3, 1)]);
    assert_eq!(found(&check(&[1, 2, 3, 8, 10], 0)), [(Wrong::Lost, 9, 1)]);
    // The ledger explains those.
    let verdict = check(&[1, 2, 8, 10], 2);
    assert_eq!(found(&verdict), []);
    assert_eq!(
        verdict.excused,
        BTreeMap::from([(Sentence::QueueMessageInHand, 4)])
    );
}

#[test]
fn a_message_whose_loss_was_excused_may_come() {
    let allowed = [allowance(1, Numbers::ALL)];
    let mut accountant = Accountant::new(1, Share::Each);
    let sent = accepted(1..=3);
    let first = Interval {
        sent: &sent,
        got: &got(0, 1..=2),
        allowed: &allowed,
        ..Interval::default()
    };
    assert_eq!(found(&accountant.check(&first)), []);
    let second = Interval {
        sent: &accepted(4..=5),
        got: &got(0, 3..=5),
        ..Interval::default()
    };
    assert_eq!(found(&accountant.check(&second)), []);
}

#[test]
fn an_allowance_excuses_its_own_kind_as_often_as_it_says() {
    let allowed = [allowance(2, Numbers::ALL)];
    let interval = |sent, got| Interval {
        sent,
        got,
        allowed: &allowed,
        ..Interval::default()
    };
    let (sent, came) = (accepted(1..=10), got(0, (1..=7).chain([7])));
    let verdict = Accountant::new(1, Share::Each).check(&interval(&sent, &came));
    assert_eq!(
        found(&verdict),
        [(Wrong::Lost, 10, 1), (Wrong::Duplicated, 7, 1)]
    );
    assert_eq!(
        verdict.excused,
        BTreeMap::from([(Sentence::QueueMessageInHand, 2)])
    );
}
