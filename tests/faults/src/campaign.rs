//! A run: fault after fault, each followed by a judgement.

use crate::account::{Accountant, Finding, Got, Interval, Verdict, Wrong};
use crate::books::Total;
use crate::fault::{self, Kind};
use crate::journal::{Fate, Mapped, Received, now_ns};
use crate::plan::{Share, Stream};
use crate::report::Report;
use crate::world::{PATIENCE, World};
use anyhow::{Context as _, ensure};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// With nothing moving for so long, nothing is on its way any more.
const STILL: Duration = Duration::from_millis(1500);

/// A campaign in progress.
pub struct Campaign {
    world: World,
    accountants: Vec<Accountant>,
    /// Of the last judgement: the ledgers, and what the journals held.
    judged: Vec<Mark>,
    seed: u64,
    kinds: Vec<Kind>,
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
        let accountants = world.streams.iter().map(|s| Accountant::new(s.to.len(), s.share)).collect();
        let judged = world.streams.iter().map(|s| Mark { received: vec![0; s.to.len()], ..Mark::default() });
        let judged = judged.collect();
        let mut campaign = Campaign { world, accountants, judged, seed, kinds };
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
        let kind = self.kinds[rng.usize(..self.kinds.len())];
        self.world.run();
        std::thread::sleep(Duration::from_micros(rng.u64(5_000..30_000)));
        let fault_ns = now_ns();
        let done = fault::perform(kind, &mut self.world, &mut rng).with_context(|| format!("{kind:?}"))?;
        let recovered_ns = self.flow().with_context(|| format!("after {kind:?}"))?;
        self.world.pause()?;
        let findings = self.judge(&done, report)?;
        report.fault(kind, recovered_ns.saturating_sub(fault_ns), findings.len());
        Ok((!findings.is_empty()).then_some(Failure { kind, findings }))
    }

    /// Waits until every stream flows again: each receiver (of a group `any` or `round-robin`, one of them) has got a message
    /// that was begun after this call. Returns when the last one did.
    fn flow(&mut self) -> anyhow::Result<u64> {
        let begun: Vec<u64> = self.world.sent.iter().map(|s| s.begun.load(Ordering::Acquire)).collect();
        let mut latest_ns = 0;
        let start = Instant::now();
        for (at, begun) in begun.into_iter().enumerate() {
            latest_ns = latest_ns.max(loop {
                if let Some(ns) = self.flows(at, begun) {
                    break ns;
                }
                ensure!(start.elapsed() < PATIENCE, "{}", self.stuck(at, begun));
                self.world.revive()?;
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
            let totals = self.world.books.now()?;
            let waiting = totals.iter().any(|total| total.queued > 0);
            let mut accountants = self.accountants.clone();
            let mut judged = Vec::new();
            for (at, accountant) in accountants.iter_mut().enumerate() {
                judged.push(self.judge_stream(at, accountant, &totals[at], done));
            }
            let marks: Vec<Mark> = judged.iter().map(|(_, mark)| mark.clone()).collect();
            let seen: Vec<(Vec<u64>, u64)> = marks.iter().map(|m| (m.received.clone(), m.lost)).collect();
            if seen != last {
                (moved, last) = (Instant::now(), seen);
            }
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
                for (stream, total) in self.world.streams.iter().zip(&totals).filter(|(_, t)| t.queued > 0) {
                    let finding = Finding { wrong: Wrong::Stuck, first: 0, count: total.queued };
                    findings.push((stream.name(), finding));
                }
                return Ok(findings);
            }
            std::thread::sleep(Duration::from_millis(2));
        }
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
        let counted = total.lost.saturating_sub(before.lost);
        let verdict = accountant.judge(&Interval {
            sent: &sent,
            got: &got,
            counted,
            counts_refused,
            allowed: &allowed,
        });
        (verdict, Mark { begun, received, lost: total.lost })
    }

    /// The world, for what a failure says of it.
    pub fn world(&self) -> &World {
        &self.world
    }
}
