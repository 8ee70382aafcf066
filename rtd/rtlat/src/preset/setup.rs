//! The parts of the presets: daemons, paths, and the experiment that measures them.

use super::table::{Aim, Row};
use crate::beside::Condition;
use crate::control_block::Block;
use crate::experiment::{Experiment, Subject};
use crate::mech::{self, Kind, Mechanism};
use crate::pair::{Pair, PairSpec, Work};
use crate::recorder::Recording;
use crate::role_loops::ThreadPlacement;
use crate::route::{LaneArgs, OwnRoute, config};
use crate::run::Conditions;
use rtd::daemon::own::{self, OwnDaemon};
use std::ffi::CString;

/// SCHED_FIFO priority of the lanes, and of what stands in for one.
pub const LANE_PRIORITY: u8 = 80;
/// Payload of each message, in bytes.
pub const BYTES: usize = 64;
/// Messages of a turn before those that are recorded.
const WARM: u64 = 10;

/// How much is measured, and where.
#[derive(Clone, Copy, Debug)]
pub struct Effort {
    /// CPU that everything shares.
    pub cpu: usize,
    /// The one of who polls, where there is another.
    pub other: Option<usize>,
    pub turns: u64,
    /// Messages of a turn.
    pub messages: u64,
    /// Show no progress.
    pub quiet: bool,
}

impl Effort {
    /// On the shared CPU.
    pub fn placement(&self, priority: u8) -> ThreadPlacement {
        ThreadPlacement {
            cpu: Some(self.cpu),
            priority,
        }
    }

    /// Each message follows the arrival of the one before.
    pub fn back_to_back(&self) -> Block {
        Block {
            count: self.messages,
            warm: WARM,
            ..Block::default()
        }
    }
}

/// A daemon with one lane and these routes. `more` is further text of its configuration, and
/// `queues` those it makes by it.
pub struct Setup<'a> {
    /// Tells it from another of the same run.
    pub name: &'a str,
    /// CPU of the lane.
    pub cpu: usize,
    /// How the lane waits.
    pub wait: &'a str,
    pub routes: &'a [OwnRoute],
    /// See the type.
    pub more: &'a str,
    /// See the type.
    pub queues: Vec<String>,
}

impl Setup<'_> {
    /// Starts the daemon and waits until it is ready.
    pub fn start(self) -> anyhow::Result<OwnDaemon> {
        let (instance, socket) = own::names(self.name);
        let lane = LaneArgs {
            lane_priority: LANE_PRIORITY,
            lane_cpu: Some(self.cpu),
            lane_wait: self.wait.to_owned(),
        };
        let text = config(&instance, &socket, &lane, self.cpu, self.routes) + self.more;
        let mut queues = self
            .queues
            .into_iter()
            .map(CString::new)
            .collect::<Result<Vec<_>, std::ffi::NulError>>()?;
        for route in self.routes {
            queues.extend(route.queues(&instance)?);
        }
        OwnDaemon::start(&text, &instance, socket, queues)
    }
}

/// A sleeping lane on the shared CPU with these routes.
pub fn daemon(effort: &Effort, routes: &[OwnRoute]) -> anyhow::Result<OwnDaemon> {
    let cpu = effort.cpu;
    Setup {
        name: "rtlat",
        cpu,
        wait: "block",
        routes,
        more: "",
        queues: Vec::new(),
    }
    .start()
}

/// A row to measure.
pub struct Path {
    pub title: &'static str,
    /// Its aim.
    pub aim: Option<Aim>,
    /// The work of its pair.
    pub work: Work,
    /// CPU and priority of its sender.
    pub sender: ThreadPlacement,
    /// CPU and priority of its receiver.
    pub receiver: ThreadPlacement,
}

impl Path {
    /// From a process to another at the same place.
    pub fn hop(
        title: &'static str,
        aim: Option<Aim>,
        mechanism: impl Mechanism + 'static,
        placement: ThreadPlacement,
    ) -> Path {
        Path {
            title,
            aim,
            work: Work::OneWay(Box::new(mechanism)),
            sender: placement,
            receiver: placement,
        }
    }

    /// The same over a mechanism of the kernel. `number` distinguishes it from others of its kind.
    pub fn raw(
        title: &'static str,
        kind: Kind,
        number: usize,
        placement: ThreadPlacement,
    ) -> anyhow::Result<Path> {
        let work = Work::OneWay(mech::of(kind, BYTES, number)?);
        Ok(Path {
            title,
            aim: None,
            work,
            sender: placement,
            receiver: placement,
        })
    }
}

/// Measures them in turns, in pairs of processes, and ends the daemons.
pub fn measure(
    effort: &Effort,
    conditions: &mut Conditions,
    block: Block,
    paths: Vec<Path>,
) -> anyhow::Result<Vec<Row>> {
    let (mut titles, mut subjects) = (Vec::new(), Vec::new());
    for Path {
        title,
        aim,
        work,
        sender,
        receiver,
    } in paths
    {
        let spec = PairSpec {
            work,
            sender,
            receiver,
            fork: true,
            recording: Recording::default(),
            breaker: None,
            is_verbose: false,
        };
        subjects.push(Subject {
            title: title.to_owned(),
            pair: Pair::prepare(subjects.len(), spec)?,
        });
        titles.push((title, aim));
    }
    let Effort { turns, quiet, .. } = *effort;
    let experiment = Experiment {
        beside: &[Condition::Alone],
        blocks: &[block],
        turns,
        quiet,
    };
    let results = experiment.run(subjects, conditions)?;
    let rows = results.outcomes.into_iter().filter_map(|outcome| {
        let (path, aim) = titles[outcome.subject];
        let block = outcome.blocks.into_iter().next()?;
        let medians = block.turns.into_iter().map(|[p50, _]| p50).collect();
        Some(Row {
            path,
            aim,
            series: block.series,
            medians,
        })
    });
    Ok(rows.collect())
}
