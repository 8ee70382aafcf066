//! The options of cyclictest 2.x and its family that most users never need, so that their command
//! lines run unchanged.
//!
//! Each is honoured, or accepted with one line that says what rtlat does instead
//! ([`RtTestsArgs::notes`]), or refused with the reason ([`RtTestsArgs::refuse`]). Nothing is
//! ignored in silence, unless rtlat always does what the option asks for.

#![forbid(unsafe_code)]

use super::args::BadOption;
use std::path::PathBuf;

/// `--policy`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Policy {
    /// SCHED_OTHER.
    Other,
    /// SCHED_OTHER.
    Normal,
    /// SCHED_BATCH: refused.
    Batch,
    /// SCHED_IDLE: refused.
    Idle,
    /// SCHED_FIFO.
    Fifo,
    /// SCHED_RR: measured as SCHED_FIFO.
    Rr,
}

/// See the module.
#[derive(clap::Args, Clone, Debug, Default)]
#[command(next_help_heading = "Further options of rt-tests")]
pub struct RtTestsArgs {
    /// Start pair N at N times US microseconds after the common start
    #[arg(short = 'A', long, value_name = "US", num_args = 0..=1, default_missing_value = "0", value_parser = clap::value_parser!(u64).range(..=3_600_000_000))]
    pub aligned: Option<u64>,
    /// Start US microseconds after a full second of CLOCK_MONOTONIC
    #[arg(long, value_name = "US", num_args = 0..=1, default_missing_value = "0", conflicts_with = "aligned", value_parser = clap::value_parser!(u64).range(..=3_600_000_000))]
    pub secaligned: Option<u64>,
    /// Clock: 0 is CLOCK_MONOTONIC; 1 is accepted, and rtlat uses CLOCK_MONOTONIC
    #[arg(short = 'c', long, value_name = "CLOCK", value_parser = clap::value_parser!(u8).range(..=1))]
    pub clock: Option<u8>,
    /// Scheduling policy: fifo or other; rr is accepted and measured as fifo
    #[arg(long, value_name = "NAME", value_enum)]
    pub policy: Option<Policy>,
    /// Give each further thread of `timer` the next lower priority (the pairs of the other
    /// measurements always do)
    #[arg(long)]
    pub priospread: bool,
    /// Do not hold /dev/cpu_dma_latency
    #[arg(long)]
    pub default_system: bool,
    /// Do not hold /dev/cpu_dma_latency, to save the battery
    #[arg(long)]
    pub laptop: bool,
    /// Hold /dev/cpu_dma_latency at US microseconds
    #[arg(long, value_name = "US", default_value_t = 0, value_parser = clap::value_parser!(i32).range(0..))]
    pub latency: i32,
    /// Redraw the live view only when the maximum has increased
    #[arg(short = 'M', long)]
    pub refresh_on_max: bool,
    /// Accepted and ignored: rtlat always sleeps until absolute times
    #[arg(short = 'r', long)]
    pub relative: bool,
    /// Accepted and ignored: rtlat always sleeps with clock_nanosleep(2)
    #[arg(short = 's', long)]
    pub system: bool,
    /// Accepted and ignored: rtlat always sleeps with clock_nanosleep(2)
    #[arg(short = 'x', long = "posix_timers")]
    pub posix_timers: bool,
    /// Accepted and ignored: rtlat always sleeps with clock_nanosleep(2)
    #[arg(short = 'n', long)]
    pub nanosleep: bool,
    /// Accepted and ignored: rtlat never buffers its output
    #[arg(short = 'u', long)]
    pub unbuffered: bool,
    /// Accepted and ignored: -b always marks the trace
    #[arg(long)]
    pub tracemark: bool,
    /// Do not mark or stop the kernel's trace when -b stops the run
    #[arg(long, conflicts_with = "tracemark")]
    pub notrace: bool,
    /// Refused: pmqtest's forced timeout
    #[arg(long = "forcetimeout", value_name = "SECONDS", hide = true)]
    pub force_timeout: Option<String>,
    /// Accepted and ignored: rtlat does not count SMIs
    #[arg(long)]
    pub smi: bool,
    /// Accepted and ignored: rtlat does not list spikes
    #[arg(long, value_name = "US")]
    pub spike: Option<u64>,
    /// Accepted and ignored: rtlat does not list spikes
    #[arg(long, value_name = "N")]
    pub spike_nodes: Option<u64>,
    /// Accepted and ignored: -v prints every sample
    #[arg(short = 'o', long, value_name = "N")]
    pub oscope: Option<u64>,
    /// Accepted and ignored: rtlat does not check the clock's resolution
    #[arg(short = 'R', long)]
    pub resolution: bool,
    /// Accepted and ignored: rtlat does not pin its main thread
    #[arg(long, value_name = "CPUS")]
    pub mainaffinity: Option<String>,
    /// Accepted and ignored: a message that takes longer than a second counts as lost
    #[arg(short = 'T', long, value_name = "SECONDS")]
    pub timeout: Option<u64>,
    /// Refused: rtlat does not write its status into a FIFO
    #[arg(short = 'F', long, value_name = "PATH")]
    pub fifo: Option<PathBuf>,
}

/// The answer to pmqtest's -f TO.
pub fn forced_timeout(seconds: &str) -> BadOption {
    BadOption(format!(
        "-f {seconds}: pmqtest's forced timeout delays each message on purpose, which measures nothing; -f without a value \
         makes the other end a process, -T is accepted"
    ))
}

impl RtTestsArgs {
    /// Errors: an option without the effect that a user of rt-tests expects, with the reason and
    /// what to use instead.
    pub fn refuse(&self) -> Result<(), BadOption> {
        if let Some(path) = &self.fifo {
            return Err(BadOption(format!(
                "-F {}: rtlat writes no status into a FIFO; -v prints every sample, --json writes the results",
                path.display()
            )));
        }
        if let Some(seconds) = &self.force_timeout {
            return Err(forced_timeout(seconds));
        }
        match self.policy {
            Some(Policy::Batch | Policy::Idle) => Err(BadOption(
                "--policy: rtlat measures SCHED_FIFO (fifo) and SCHED_OTHER (other); under SCHED_BATCH and SCHED_IDLE \
                 latency has no bound"
                    .to_owned(),
            )),
            _ => Ok(()),
        }
    }

    /// The differences between the request and the action of rtlat, one per line.
    pub fn notes(&self) -> Vec<&'static str> {
        let all = [
            (
                self.clock == Some(1),
                "-c 1: measured with CLOCK_MONOTONIC, because a step of the wall clock would count as latency",
            ),
            (
                self.policy == Some(Policy::Rr),
                "--policy rr: measured with SCHED_FIFO, which differs only if threads share a CPU and a priority",
            ),
            (
                self.relative,
                "-r: sleeps until absolute times, so that a late wake-up does not shift the schedule",
            ),
            (
                self.system,
                "-s: sleeps with clock_nanosleep(2) instead of nanosleep(2)",
            ),
            (
                self.posix_timers,
                "-x: sleeps with clock_nanosleep(2) instead of a POSIX timer",
            ),
            (
                self.smi,
                "--smi: SMIs are not counted; turbostat shows them",
            ),
            (
                self.spike.is_some() || self.spike_nodes.is_some(),
                "--spike: spikes are not listed; -h US counts them as overflows with their cycle, -v prints every sample",
            ),
            (
                self.oscope.is_some(),
                "-o: samples are not thinned out; -v prints every sample",
            ),
            (
                self.resolution,
                "-R: the clock's resolution is not checked; latencies are kept in nanoseconds",
            ),
            (
                self.mainaffinity.is_some(),
                "--mainaffinity: the main thread is not pinned; use taskset(1), and -a for the measuring threads",
            ),
            (
                self.timeout.is_some_and(|seconds| seconds != 1),
                "-T: the timeout is one second; a message that takes longer counts as lost",
            ),
        ];
        all.into_iter()
            .filter(|(is_given, _)| *is_given)
            .map(|(_, note)| note)
            .collect()
    }

    /// The wake-up latency to hold in /dev/cpu_dma_latency; none: it is left alone.
    pub fn dma_latency_us(&self) -> Option<i32> {
        (!self.default_system && !self.laptop).then_some(self.latency)
    }

    /// First point of pair `number`'s schedule, given the earliest one of the run.
    pub fn start_ns(&self, earliest_ns: u64, number: usize) -> u64 {
        const SECOND_NS: u64 = 1_000_000_000;
        match (self.aligned, self.secaligned) {
            (Some(us), _) => earliest_ns + us * 1000 * number as u64,
            (_, Some(us)) => earliest_ns.next_multiple_of(SECOND_NS) + us * 1000,
            _ => earliest_ns,
        }
    }
}
