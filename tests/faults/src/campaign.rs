//! A run: fault after fault, each followed by a judgement.

use crate::account::{Accountant, Finding, Got, Interval, Numbers, Verdict, Wrong};
use crate::books::Total;
use crate::fault::{self, Kind};
use crate::innocent::Latencies;
use crate::journal::{self, CORRUPT, Fate, Mapped, Received, now_ns};
use crate::leaks::{Growth, Leaks};
use crate::patience::Patience;
use crate::plan::{Share, Stream};
use crate::record::Chosen;
use crate::report::{Outcome, Recovery};
use crate::world::{Programs, QUEUES, World};
use anyhow::{Context as _, ensure};
use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// With nothing moving for so long, nothing is on its way any more.
const STILL: Duration = Duration::from_millis(1500);

/// How often the campaign checks whether a process has ended by itself.
const REVIVE: Duration = Duration::from_millis(5);

/// A campaign in progress.
pub struct Campaign {
    world: World,
    accountants: Vec<Accountant>,
    /// Of the last judgement: the ledgers, and what the journals held.
    checked: Vec<Mark>,
    leaks: Leaks,
    /// Of the innocent stream.
    pub latencies: Latencies,
}

/// Up to where a stream has been checked.
#[derive(Clone, Debug, Default)]
struct Mark {
    begun: u64,
    received: Vec<u64>,
    lost: u64,
}

/// What is wrong, by stream.
pub type Findings = Vec<(String, Finding)>;

impl Campaign {
    /// Starts the world.
    pub fn new(streams: Vec<Stream>, programs: &Programs) -> anyhow::Result<Campaign> {
        let mut world = World::new(streams, programs)?;
        world.start()?;
        let accountant = |s: &Stream| Accountant::new(s.to.len(), s.share).excluding(s.outside());
        let accountants = world.streams.iter().map(accountant).collect();
        let checked = world.streams.iter().map(|s| Mark {
            received: vec![0; s.to.len()],
            ..Mark::default()
        });
        let checked = checked.collect();
        let (leaks, latencies) = (Leaks::default(), Latencies::default());
        let mut campaign = Campaign {
            world,
            accountants,
            checked,
            leaks,
            latencies,
        };
        campaign.world.run();
        campaign.flow().context("not even before the first fault")?;
        campaign.world.pause()?;
        let findings = campaign.check(&fault::Done::default(), &mut Outcome::default())?;
        ensure!(
            findings.is_empty(),
            "wrong before the first fault: {findings:?}"
        );
        campaign.world.restart = None;
        campaign.leaks()?;
        Ok(campaign)
    }

    /// Causes a fault and checks its consequences.
    pub fn round(&mut self, fault: Chosen) -> anyhow::Result<(Outcome, Findings)> {
        let mut rng = fastrand::Rng::with_seed(fault.draws);
        self.world.run();
        self.await_messages(rng.u64(50..300))?;
        let received = self.received();
        let fault_ns = now_ns();
        let done = fault::perform(fault.kind, &mut self.world, &mut rng);
        let mut done = done.with_context(|| format!("{:?}", fault.kind))?;
        let done_ns = now_ns();
        let begun = self.world.begun();
        self.flow()
            .with_context(|| format!("after {:?}: {}", fault.kind, done.what))?;
        done.in_flight = received
            .iter()
            .zip(&begun)
            .enumerate()
            .map(|(at, span)| self.in_flight(at, span))
            .collect();
        let recovery = self.recovery(fault_ns, &begun);
        self.world.pause()?;
        let mut outcome = Outcome {
            what: done.what.clone(),
            not_reached: done.not_reached,
            recovery,
            ..Outcome::default()
        };
        let before = self.checked.clone();
        let findings = self.check(&done, &mut outcome)?;
        self.measure(fault.kind, &before, fault_ns..done_ns);
        if let Some(rate) = done.rate {
            self.latencies.rate(fault.kind, rate);
        }
        Ok((outcome, findings))
    }

    /// By stream: how many messages each of its receivers has got.
    fn received(&self) -> Vec<Vec<u64>> {
        let counts = |journals: &Vec<Mapped<Received>>| {
            journals
                .iter()
                .map(|journal| journal.count.load(Ordering::Acquire))
                .collect()
        };
        self.world.received.iter().map(counts).collect()
    }

    /// The messages of a stream that may have been on their way during the fault: before it, its
    /// receivers had got so many; after it, number `begun` had been begun.
    fn in_flight(&self, at: usize, (received, begun): (&Vec<u64>, &u64)) -> Numbers {
        let journals = self.world.received[at].iter();
        // One that a filter excludes gets nothing.
        let before = journals
            .clone()
            .zip(received)
            .filter(|(_, count)| **count > 0)
            .map(|(journal, count)| {
                let last = (0..*count).rev().map(|n| journal.entry(n).0);
                last.take(journal::SLOTS)
                    .find(|number| *number != CORRUPT)
                    .unwrap_or(0)
            });
        let after = journals.zip(&self.checked[at].received);
        let after = after.filter_map(|(journal, from)| first_after(journal, *from, *begun));
        let first = before.min().unwrap_or(0) + 1;
        Numbers {
            first,
            last: after.map(|(number, _)| number).max().unwrap_or(u64::MAX),
        }
    }

    /// Waits until the senders have begun so many messages.
    fn await_messages(&self, count: u64) -> anyhow::Result<()> {
        let begun = |campaign: &Campaign| campaign.world.begun().iter().sum::<u64>();
        let (until, mut patience) = (begun(self) + count, Patience::new());
        while begun(self) < until {
            ensure!(!patience.is_over(), "nobody sends");
            std::thread::sleep(Duration::from_micros(300));
        }
        Ok(())
    }

    /// How long it took until messages flowed that were begun after the fault: after the end of
    /// rtd, or else after `begun`.
    fn recovery(&mut self, fault_ns: u64, begun: &[u64]) -> Recovery {
        let restart = self.world.restart.take();
        let (from_ns, begun) = restart.as_ref().map_or((fault_ns, begun), |restart| {
            (
                restart.start_ns - (restart.gone_ns - restart.end_ns),
                &restart.begun,
            )
        });
        let mut recovery = Recovery {
            ready_ns: restart
                .as_ref()
                .map(|restart| restart.ready_ns - restart.start_ns),
            ..Recovery::default()
        };
        for (at, stream) in self.world.streams.iter().enumerate() {
            let times = self.world.received[at]
                .iter()
                .zip(&self.checked[at].received);
            let times: Vec<u64> = times
                .filter_map(|(journal, from)| Some(first_after(journal, *from, begun[at])?.1))
                .collect();
            let ns = |time: Option<&u64>| time.map(|time| time.saturating_sub(from_ns));
            let last = match stream.share {
                Share::Each => ns(times.iter().max()),
                Share::Any | Share::RoundRobin => ns(times.iter().min()),
            };
            if restart.is_some() && !stream.direct {
                recovery.first_ns = recovery
                    .first_ns
                    .into_iter()
                    .chain(ns(times.iter().min()))
                    .min();
            }
            if restart.is_none() || !stream.direct {
                recovery.each_ns.extend(last);
            }
            recovery.all_ns = recovery.all_ns.max(last.unwrap_or(0));
        }
        recovery
    }

    /// What has grown since the first quiet moment, as far as it does not go away again.
    pub fn leaks(&mut self) -> anyhow::Result<Vec<Growth>> {
        let directories = ["/run/rtd", "/dev/shm", QUEUES].map(PathBuf::from);
        let mut patience = Patience::of(STILL);
        loop {
            let grown = self.leaks.look(&self.world.processes()?, &directories)?;
            if grown.is_empty() || patience.is_over() {
                return Ok(grown);
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Takes the latencies of the innocent stream since `before`, by whether the message was sent
    /// during the fault.
    fn measure(&mut self, kind: Kind, before: &[Mark], fault: std::ops::Range<u64>) {
        for at in (0..self.world.streams.len()).filter(|at| self.world.streams[*at].innocent) {
            let (sent, received) = (&self.world.sent[at], &self.world.received[at][0]);
            for entry in before[at].received[0]..self.checked[at].received[0] {
                let (number, received_ns) = received.entry(entry);
                let begun_ns = sent.begun_ns(number);
                let during = fault.contains(&begun_ns).then_some(kind);
                if during.is_some() || begun_ns < fault.start {
                    self.latencies
                        .add(during, received_ns.saturating_sub(begun_ns));
                }
            }
        }
    }

    /// Waits until every stream flows again: each receiver (of a group `any` or `round-robin`, one
    /// of them) has got a message that was begun after this call.
    fn flow(&mut self) -> anyhow::Result<()> {
        let (mut patience, mut revived) = (Patience::new(), Instant::now());
        for (at, begun) in self.world.begun().into_iter().enumerate() {
            while !self.flows(at, begun) {
                ensure!(!patience.is_over(), "{}", self.stuck(at, begun));
                if revived.elapsed() > REVIVE {
                    self.world.revive()?;
                    revived = Instant::now();
                }
                std::thread::sleep(Duration::from_micros(300));
            }
        }
        Ok(())
    }

    /// Why a stream does not flow, as far as can be seen.
    fn stuck(&self, at: usize, begun: u64) -> String {
        let (name, sent) = (self.world.streams[at].name(), &self.world.sent[at]);
        let last = sent.begun.load(Ordering::Acquire);
        let fates: Vec<Fate> = (last.saturating_sub(3)..=last)
            .map(|n| sent.fate(n))
            .collect();
        let total = self.world.books.now().map(|totals| totals[at]);
        format!(
            "{name} is stuck: nothing came after {begun}; sent up to {last} ({fates:?}), the ledger says {total:?}"
        )
    }

    /// Whether the receivers of a stream have got a message after number `begun`.
    fn flows(&self, at: usize, begun: u64) -> bool {
        let last = |journal: &Mapped<Received>| {
            let count = journal.count.load(Ordering::Acquire);
            count
                .checked_sub(1)
                .is_some_and(|last| journal.entry(last).0 > begun)
        };
        let mut all = self.world.received[at].iter().map(last);
        match self.world.streams[at].share {
            Share::Each => all.all(|flows| flows),
            Share::Any | Share::RoundRobin => all.any(|flows| flows),
        }
    }

    /// Checks all streams as soon as nothing is on its way.
    fn check(&mut self, done: &fault::Done, outcome: &mut Outcome) -> anyhow::Result<Findings> {
        let (mut patience, mut last) = (Patience::of(STILL), Vec::new());
        loop {
            let totals = &self.world.books.now()?[..self.world.streams.len()];
            self.journals_are_whole()?;
            // A check copies what the accountants know: not while something moves.
            let counts = self.counts(totals);
            if counts != last {
                (patience, last) = (Patience::of(STILL), counts);
                std::thread::sleep(Duration::from_millis(5));
                continue;
            }
            let waiting = totals.iter().any(|total| total.queued > 0);
            let mut accountants = self.accountants.clone();
            let mut checked = Vec::new();
            for (at, accountant) in accountants.iter_mut().enumerate() {
                checked.push(self.check_stream(at, accountant, &totals[at], done));
            }
            let marks: Vec<Mark> = checked.iter().map(|(_, mark)| mark.clone()).collect();
            let settled = !waiting
                && checked
                    .iter()
                    .all(|(verdict, _)| verdict.findings.is_empty());
            if settled || patience.is_over() {
                (self.accountants, self.checked) = (accountants, marks);
                let verdicts = checked.into_iter().map(|(verdict, _)| verdict);
                let named = self.world.streams.iter().map(Stream::name).zip(verdicts);
                let mut findings = Vec::new();
                for (name, verdict) in named {
                    outcome.add(&verdict);
                    findings.extend(verdict.findings.into_iter().map(|f| (name.clone(), f)));
                }
                for (stream, total) in self
                    .world
                    .streams
                    .iter()
                    .zip(totals)
                    .filter(|(_, t)| t.queued > 0)
                {
                    let finding = Finding {
                        wrong: Wrong::Stuck,
                        first: 0,
                        count: total.queued,
                    };
                    *outcome.wrong.entry(Wrong::Stuck).or_default() += total.queued;
                    findings.push((stream.name(), finding));
                }
                return Ok(findings);
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// What the journals hold, and what the ledgers count as lost.
    fn counts(&self, totals: &[Total]) -> Vec<u64> {
        let received = self.world.received.iter().flatten();
        let received = received.map(|journal| journal.count.load(Ordering::Acquire));
        received
            .chain(totals.iter().map(|total| total.lost))
            .collect()
    }

    /// An error if a journal was written over since the last check, which nothing could be said of.
    fn journals_are_whole(&self) -> anyhow::Result<()> {
        for (at, before) in self.checked.iter().enumerate() {
            let begun = self.world.sent[at].begun.load(Ordering::Acquire) - before.begun;
            let journals = self.world.received[at].iter().zip(&before.received);
            let received = journals
                .map(|(journal, before)| journal.count.load(Ordering::Acquire) - before)
                .max();
            let most = begun.max(received.unwrap_or(0));
            ensure!(
                most <= journal::SLOTS as u64,
                "{}: {most} messages since the last check, a journal holds {}: the machine is too slow",
                self.world.streams[at].name(),
                journal::SLOTS
            );
        }
        Ok(())
    }

    fn check_stream(
        &self,
        at: usize,
        accountant: &mut Accountant,
        total: &Total,
        done: &fault::Done,
    ) -> (Verdict, Mark) {
        let (world, before) = (&self.world, &self.checked[at]);
        let begun = world.sent[at].begun.load(Ordering::Acquire);
        let sent: Vec<(u64, Fate)> = (before.begun + 1..=begun)
            .map(|n| (n, world.sent[at].fate(n)))
            .collect();
        let (mut got, mut received) = (Vec::new(), Vec::new());
        for (member, journal) in world.received[at].iter().enumerate() {
            let count = journal.count.load(Ordering::Acquire);
            got.extend((before.received[member]..count).map(|n| Got {
                member,
                number: journal.entry(n).0,
            }));
            received.push(count);
        }
        let allowed = fault::allowed(done, world, &world.streams[at]);
        let counts_refused = world.streams[at].direct;
        let discarded = world.received[at]
            .iter()
            .map(|journal| journal.discarded.load(Ordering::Acquire));
        let lost = total.lost + discarded.sum::<u64>();
        let counted = lost.saturating_sub(before.lost);
        let verdict = accountant.check(&Interval {
            sent: &sent,
            got: &got,
            counted,
            counts_refused,
            strangers: done
                .strangers
                .filter(|(stream, _)| *stream == at)
                .map_or(0, |(_, count)| count),
            allowed: &allowed,
        });
        (
            verdict,
            Mark {
                begun,
                received,
                lost,
            },
        )
    }

    /// The world, for what a failure says of it.
    pub fn world(&self) -> &World {
        &self.world
    }
}

/// The first message after number `begun` that a receiver got, of those from place `from` on, and
/// when.
fn first_after(journal: &Mapped<Received>, from: u64, begun: u64) -> Option<(u64, u64)> {
    let mut entries = (from..journal.count.load(Ordering::Acquire)).map(|n| journal.entry(n));
    entries.find(|(number, _)| *number > begun && *number != CORRUPT)
}
