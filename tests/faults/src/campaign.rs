//! A run: fault after fault, each followed by a judgement.

use crate::account::{Accountant, Finding, Got, Interval, Verdict, Wrong};
use crate::books::Total;
use crate::fault::{self, Kind};
use crate::innocent::Latencies;
use crate::journal::{Fate, Mapped, Received, now_ns};
use crate::plan::{Share, Stream};
use crate::report::Report;
use crate::world::{PATIENCE, World};
use anyhow::{Context as _, ensure};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// With nothing moving for so long, nothing is on its way any more.
const STILL: Duration = Duration::from_millis(1500);

/// How often the campaign looks whether a process has ended by itself.
const REVIVE: Duration = Duration::from_millis(5);

/// A campaign in progress.
pub struct Campaign {
    world: World,
    accountants: Vec<Accountant>,
    /// Of the last judgement: the ledgers, and what the journals held.
    judged: Vec<Mark>,
    seed: u64,
    kinds: Vec<Kind>,
    /// Of the innocent stream.
    pub latencies: Latencies,
}

/// Up to where a stream has been judged.
#[derive(Clone, Debug, Default)]
struct Mark {
    begun: u64,
    received: Vec<u64>,
    lost: u64,
}

/// What a failed round says.
#[derive(Debug)]
pub struct Failure {
    /// The fault.
    pub kind: Kind,
    /// By stream.
    pub findings: Vec<(String, Finding)>,
}

impl Campaign {
    /// Starts the world.
    pub fn new(seed: u64, kinds: Vec<Kind>) -> anyhow::Result<Campaign> {
        let mut world = World::new(crate::plan::streams())?;
        world.start()?;
        let accountant = |s: &Stream| Accountant::new(s.to.len(), s.share).excluding(s.outside());
        let accountants = world.streams.iter().map(accountant).collect();
        let judged = world.streams.iter().map(|s| Mark { received: vec![0; s.to.len()], ..Mark::default() });
        let judged = judged.collect();
        let mut campaign =
            Campaign { world, accountants, judged, seed, kinds, latencies: Latencies::default() };
        campaign.world.run();
        campaign.flow().context("not even before the first fault")?;
        campaign.world.pause()?;
        let failure = campaign.judge(&fault::Done::default(), &mut Report::default())?;
        ensure!(failure.is_empty(), "wrong before the first fault: {failure:?}");
        Ok(campaign)
    }

    /// Does round `n`.
    pub fn round(&mut self, n: u64, report: &mut Report) -> anyhow::Result<Option<Failure>> {
        let mut rng = fastrand::Rng::with_seed(self.seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ n);
        let kind = self.kind(n);
        self.world.run();
        std::thread::sleep(Duration::from_micros(rng.u64(5_000..30_000)));
        let fault_ns = now_ns();
        let done = fault::perform(kind, &mut self.world, &mut rng).with_context(|| format!("{kind:?}"))?;
        let done_ns = now_ns();
        let recovered_ns = self.flow().with_context(|| format!("after {kind:?}"))?;
        self.world.pause()?;
        let before = self.judged.clone();
        let findings = self.judge(&done, report)?;
        self.measure(kind, &before, fault_ns..done_ns);
        report.fault(kind, recovered_ns.saturating_sub(fault_ns), findings.len());
        Ok((!findings.is_empty()).then_some(Failure { kind, findings }))
    }

    /// Takes the latencies of the innocent stream since `before`, by whether the message was sent during the fault.
    fn measure(&mut self, kind: Kind, before: &[Mark], fault: std::ops::Range<u64>) {
        for at in (0..self.world.streams.len()).filter(|at| self.world.streams[*at].innocent) {
            let (sent, received) = (&self.world.sent[at], &self.world.received[at][0]);
            for entry in before[at].received[0]..self.judged[at].received[0] {
                let (number, received_ns) = received.entry(entry);
                let begun_ns = sent.begun_ns(number);
                let during = fault.contains(&begun_ns).then_some(kind);
                if during.is_some() || begun_ns < fault.start {
                    self.latencies.add(during, received_ns.saturating_sub(begun_ns));
                }
            }
        }
    }

    /// The kind of fault `n`: all kinds once before any comes again, in another order each time.
    fn kind(&self, n: u64) -> Kind {
        let all = self.kinds.len() as u64;
        let mut order = self.kinds.clone();
        fastrand::Rng::with_seed(self.seed.wrapping_mul(0xd134_2543_de82_ef95) ^ (n / all))
            .shuffle(&mut order);
        // The remainder is below the number of kinds.
        order[usize::try_from(n % all).unwrap_or(0)]
    }

    /// Waits until every stream flows again: each receiver (of a group `any` or `round-robin`, one of them) has got a message
    /// that was begun after this call. Returns when the last one did.
    fn flow(&mut self) -> anyhow::Result<u64> {
        let begun: Vec<u64> = self.world.sent.iter().map(|s| s.begun.load(Ordering::Acquire)).collect();
        let mut latest_ns = 0;
        let (start, mut revived) = (Instant::now(), Instant::now());
        for (at, begun) in begun.into_iter().enumerate() {
            latest_ns = latest_ns.max(loop {
                if let Some(ns) = self.flows(at, begun) {
                    break ns;
                }
                ensure!(start.elapsed() < PATIENCE, "{}", self.stuck(at, begun));
                if revived.elapsed() > REVIVE {
                    self.world.revive()?;
                    revived = Instant::now();
                }
                std::thread::sleep(Duration::from_micros(300));
            });
        }
        Ok(latest_ns)
    }

    /// Why a stream does not flow, as far as can be seen.
    fn stuck(&self, at: usize, begun: u64) -> String {
        let (name, sent) = (self.world.streams[at].name(), &self.world.sent[at]);
        let last = sent.begun.load(Ordering::Acquire);
        let fates: Vec<Fate> = (last.saturating_sub(3)..=last).map(|n| sent.fate(n)).collect();
        let total = self.world.books.now().map(|totals| totals[at]);
        format!(
            "{name} is stuck: nothing came after {begun}; sent up to {last} ({fates:?}), the ledger says {total:?}"
        )
    }

    /// When the receivers of a stream got a message after number `begun`; none if one of them still waits for it.
    fn flows(&self, at: usize, begun: u64) -> Option<u64> {
        let last = |journal: &Mapped<Received>| {
            let count = journal.count.load(Ordering::Acquire);
            let (number, ns) = journal.entry(count.checked_sub(1)?);
            (number > begun).then_some(ns)
        };
        let mut all = self.world.received[at].iter().map(last);
        match self.world.streams[at].share {
            Share::Each => all.try_fold(0, |latest, ns| Some(latest.max(ns?))),
            Share::Any | Share::RoundRobin => all.flatten().max(),
        }
    }

    /// Judges all streams as soon as nothing is on its way.
    fn judge(&mut self, done: &fault::Done, report: &mut Report) -> anyhow::Result<Vec<(String, Finding)>> {
        let (mut moved, mut last) = (Instant::now(), Vec::new());
        loop {
            let totals = &self.world.books.now()?[..self.world.streams.len()];
            // A judgement copies what the accountants know: not while something moves.
            let counts = self.counts(totals);
            if counts != last {
                (moved, last) = (Instant::now(), counts);
                std::thread::sleep(Duration::from_millis(5));
                continue;
            }
            let waiting = totals.iter().any(|total| total.queued > 0);
            let mut accountants = self.accountants.clone();
            let mut judged = Vec::new();
            for (at, accountant) in accountants.iter_mut().enumerate() {
                judged.push(self.judge_stream(at, accountant, &totals[at], done));
            }
            let marks: Vec<Mark> = judged.iter().map(|(_, mark)| mark.clone()).collect();
            let settled = !waiting && judged.iter().all(|(verdict, _)| verdict.findings.is_empty());
            if settled || moved.elapsed() > STILL {
                (self.accountants, self.judged) = (accountants, marks);
                let verdicts = judged.into_iter().map(|(verdict, _)| verdict);
                let named = self.world.streams.iter().map(Stream::name).zip(verdicts);
                let mut findings = Vec::new();
                for (name, verdict) in named {
                    report.verdict(&verdict);
                    findings.extend(verdict.findings.into_iter().map(|f| (name.clone(), f)));
                }
                for (stream, total) in self.world.streams.iter().zip(totals).filter(|(_, t)| t.queued > 0) {
                    let finding = Finding { wrong: Wrong::Stuck, first: 0, count: total.queued };
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
        received.chain(totals.iter().map(|total| total.lost)).collect()
    }

    fn judge_stream(
        &self,
        at: usize,
        accountant: &mut Accountant,
        total: &Total,
        done: &fault::Done,
    ) -> (Verdict, Mark) {
        let (world, before) = (&self.world, &self.judged[at]);
        let begun = world.sent[at].begun.load(Ordering::Acquire);
        let sent: Vec<(u64, Fate)> =
            (before.begun + 1..=begun).map(|n| (n, world.sent[at].fate(n))).collect();
        let (mut got, mut received) = (Vec::new(), Vec::new());
        for (member, journal) in world.received[at].iter().enumerate() {
            let count = journal.count.load(Ordering::Acquire);
            got.extend((before.received[member]..count).map(|n| Got { member, number: journal.entry(n).0 }));
            received.push(count);
        }
        let allowed = fault::allowed(done, world, &world.streams[at]);
        let counts_refused = world.streams[at].direct;
        let discarded = world.received[at].iter().map(|journal| journal.discarded.load(Ordering::Acquire));
        let lost = total.lost + discarded.sum::<u64>();
        let counted = lost.saturating_sub(before.lost);
        let verdict = accountant.judge(&Interval {
            sent: &sent,
            got: &got,
            counted,
            counts_refused,
            allowed: &allowed,
        });
        (verdict, Mark { begun, received, lost })
    }

    /// The world, for what a failure says of it.
    pub fn world(&self) -> &World {
        &self.world
    }
}
