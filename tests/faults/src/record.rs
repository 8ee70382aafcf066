//! The record of a run: what it was made from, each fault before it is done, and what came of it. A
//! file of JSON lines.
//!
//! So a run that was interrupted goes on after its last checked fault, and a run that failed can be
//! played again.

use crate::fault::Kind;
use crate::report::Outcome;
use anyhow::{Context as _, ensure};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::path::Path;

const VERSION: u32 = 1;

/// What a run is made from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Run {
    version: u32,
    /// From it follow the kinds of the faults and their draws.
    pub seed: u64,
    /// The kinds that it chooses from.
    pub kinds: Vec<Kind>,
}

impl Run {
    /// A new one.
    pub fn new(seed: u64, kinds: Vec<Kind>) -> Run {
        Run {
            version: VERSION,
            seed,
            kinds,
        }
    }

    /// Its fault number `n`: all kinds come once before any comes again, in another order each
    /// time.
    pub fn choose(&self, n: u64) -> Chosen {
        let all = self.kinds.len() as u64;
        let mut order = self.kinds.clone();
        fastrand::Rng::with_seed(self.seed.wrapping_mul(0xd134_2543_de82_ef95) ^ (n / all))
            .shuffle(&mut order);
        // The remainder is below the number of kinds.
        let kind = order[usize::try_from(n % all).unwrap_or(0)];
        Chosen {
            n,
            kind,
            draws: self.seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ n,
        }
    }
}

/// A fault to be done. All its parameters are drawn from `draws`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Chosen {
    /// Its number in the run.
    pub n: u64,
    /// Its kind.
    pub kind: Kind,
    /// Seed of the generator that everything else is drawn from.
    pub draws: u64,
}

/// A line of the file.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Line {
    Run(Run),
    Fault(Chosen),
    Judged { n: u64, outcome: Outcome },
}

/// What a record says.
#[derive(Clone, Debug)]
pub struct Past {
    /// What the run is made from.
    pub run: Run,
    /// The faults that were begun, in order.
    pub begun: Vec<Chosen>,
    /// Those that were checked.
    pub checked: Vec<(Kind, Outcome)>,
    /// Number of the first one that was not.
    pub next: u64,
}

/// A record that is being written.
#[derive(Debug)]
pub struct Record(File);

impl Record {
    /// Begins one; an earlier file is replaced.
    pub fn create(path: &Path, run: &Run) -> anyhow::Result<Record> {
        let file = File::create(path).with_context(|| path.display().to_string())?;
        let mut record = Record(file);
        record.write(&Line::Run(run.clone()))?;
        Ok(record)
    }

    /// Goes on with the one that [`read`] has read.
    pub fn append(path: &Path) -> anyhow::Result<Record> {
        let text = std::fs::read_to_string(path)?;
        let file = OpenOptions::new()
            .append(true)
            .open(path)
            .with_context(|| path.display().to_string())?;
        // What an interrupted run wrote of its last line.
        file.set_len(text.rfind('\n').map_or(0, |end| end + 1) as u64)?;
        Ok(Record(file))
    }

    /// A fault is about to be done.
    pub fn begin(&mut self, fault: Chosen) -> anyhow::Result<()> {
        self.write(&Line::Fault(fault))
    }

    /// It was checked.
    pub fn checked(&mut self, n: u64, outcome: &Outcome) -> anyhow::Result<()> {
        self.write(&Line::Judged {
            n,
            outcome: outcome.clone(),
        })
    }

    fn write(&mut self, line: &Line) -> anyhow::Result<()> {
        let mut text = serde_json::to_string(line)?;
        text.push('\n');
        self.0
            .write_all(text.as_bytes())
            .context("the record of the run")
    }
}

/// Reads a record. A last line that is not complete does not count.
pub fn read(path: &Path) -> anyhow::Result<Past> {
    let text = std::fs::read_to_string(path).with_context(|| path.display().to_string())?;
    parse(&text).with_context(|| path.display().to_string())
}

fn parse(text: &str) -> anyhow::Result<Past> {
    let complete = &text[..text.rfind('\n').map_or(0, |end| end + 1)];
    let mut lines = complete.lines().map(serde_json::from_str::<Line>);
    let Some(Ok(Line::Run(run))) = lines.next() else {
        anyhow::bail!("no record of a run of this version")
    };
    ensure!(
        run.version == VERSION && !run.kinds.is_empty(),
        "a record of version {}",
        run.version
    );
    let (mut begun, mut checked, mut next) = (BTreeMap::new(), Vec::new(), 0);
    for line in lines {
        match line? {
            Line::Fault(fault) => _ = begun.insert(fault.n, fault),
            Line::Judged { n, outcome } => {
                let fault = begun
                    .get(&n)
                    .with_context(|| format!("fault {n} was checked, and not begun"))?;
                checked.push((fault.kind, outcome));
                next = n + 1;
            }
            Line::Run(_) => anyhow::bail!("two runs in one record"),
        }
    }
    Ok(Past {
        run,
        begun: begun.into_values().collect(),
        checked,
        next,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run() -> Run {
        Run::new(7, vec![Kind::KillRtd, Kind::Hog, Kind::Garbage])
    }

    #[test]
    fn a_seed_gives_the_same_faults_and_all_kinds_equally_often() {
        let all: Vec<Chosen> = (0..30).map(|n| run().choose(n)).collect();
        assert_eq!(all, (0..30).map(|n| run().choose(n)).collect::<Vec<_>>());
        for kind in run().kinds {
            assert_eq!(all.iter().filter(|fault| fault.kind == kind).count(), 10);
        }
        let other: Vec<Chosen> = (0..30)
            .map(|n| Run::new(8, run().kinds).choose(n))
            .collect();
        assert_ne!(all, other);
    }

    #[test]
    fn an_interrupted_run_goes_on_after_its_last_judged_fault_and_replays_all_that_it_began() {
        let path = std::env::temp_dir().join(format!("faults-record-{}", std::process::id()));
        let mut record = Record::create(&path, &run()).unwrap();
        let outcome = Outcome {
            what: "a \"quoted\" one".to_owned(),
            accepted: 5,
            ..Outcome::default()
        };
        for n in 0..3 {
            record.begin(run().choose(n)).unwrap();
            record.checked(n, &outcome).unwrap();
        }
        record.begin(run().choose(3)).unwrap();
        drop(record);
        // As a kill in the middle of a line leaves it.
        let torn = std::fs::read_to_string(&path).unwrap() + "{\"checked\":{\"n\":3,";
        std::fs::write(&path, torn).unwrap();
        let past = read(&path).unwrap();
        assert_eq!((past.next, past.begun.len(), past.checked.len()), (3, 4, 3));
        assert_eq!(past.run, run());
        assert_eq!(past.checked[2].1.what, outcome.what);
        let mut record = Record::append(&path).unwrap();
        record.begin(run().choose(3)).unwrap();
        record.checked(3, &outcome).unwrap();
        let past = read(&path).unwrap();
        assert_eq!((past.next, past.begun.len(), past.checked.len()), (4, 4, 4));
        std::fs::remove_file(&path).unwrap();
        assert!(parse("rubbish\n").is_err() && parse("").is_err());
    }
}
