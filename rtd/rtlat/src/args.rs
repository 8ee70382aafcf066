//! The letters of rt-tests, as parsed, and their values on this machine.

#![forbid(unsafe_code)]

use super::mech::Mechanism;
use super::out::Format;
use super::pair::Work;
use super::role_loops::ThreadPlacement;
use super::rt_tests::{Policy, RtTestsArgs};
use anyhow::{Context as _, bail};
use rtcore::sys::cpus;
use std::path::PathBuf;
use std::time::Duration;

/// Most pairs of one run.
const PAIRS_MAX: usize = 256;
/// Longest histogram, in bins of 1 us: ten seconds.
const BINS_MAX: u64 = 10_000_000;

/// A slip on the command line that clap cannot see; like those it does, it exits with 2.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct BadOption(pub String);

/// The options of every measurement. An option that cyclictest or pmqtest has too has their letter:
/// -h is the histogram, and help has no letter.
#[derive(clap::Args, Clone, Debug)]
#[command(disable_help_flag = true)]
pub struct MeasureArgs {
    /// Print help
    #[arg(long, action = clap::ArgAction::Help)]
    help: Option<bool>,
    /// Pin threads to these CPUs, in turn: the sender and the receiver of each pair, or each thread
    /// of `timer`. Without a list pair N runs on CPU N [default: not pinned]
    #[arg(short = 'a', long, value_name = "CPUS", num_args = 0..=1, default_missing_value = "all")]
    pub affinity: Option<String>,
    /// Stop at a latency above US microseconds: show it with the samples around it, mark and stop
    /// the kernel's trace, and exit with 3
    #[arg(short = 'b', long, value_name = "US", value_parser = microseconds)]
    pub breaktrace: Option<u64>,
    /// Make each pair's interval US microseconds longer than that of the pair before [default: 500;
    /// with a histogram always 0]
    #[arg(short = 'd', long, value_name = "US", value_parser = microseconds)]
    pub distance: Option<u64>,
    /// End the run after TIME: a number of seconds, or one with the unit s, m, h or d
    #[arg(short = 'D', long, value_name = "TIME", value_parser = duration)]
    pub duration: Option<Duration>,
    /// Make the side that does not record a process instead of a thread: the sender, or with
    /// --round-trip the receiver. A value is accepted and ignored, as sigwaittest and svsematest
    /// do; pmqtest's -f TO is refused
    #[arg(short = 'f', long, value_name = "OPT", num_args = 0..=1, default_missing_value = "")]
    pub fork: Option<String>,
    /// Send a message every US microseconds (the first pair; see --distance). 0: send each message
    /// when the one before has arrived
    #[arg(short = 'i', long, value_name = "US", default_value_t = 1000, value_parser = microseconds)]
    pub interval: u64,
    /// End the run after N points of the schedule (of `timer`: N samples). 0: run until ^C
    #[arg(short = 'l', long, value_name = "N", default_value_t = 0, value_parser = clap::value_parser!(u64).range(..1 << 39))]
    pub loops: u64,
    /// Lock all memory of this process. A process of --fork locks only the memory that it shares
    /// with this one
    #[arg(short = 'm', long)]
    pub mlockall: bool,
    /// Show latencies in nanoseconds
    #[arg(short = 'N', long)]
    pub nsecs: bool,
    /// SCHED_FIFO priority of the first pair; each further pair is one lower (threads of `timer`
    /// only with --priospread). 0: SCHED_OTHER. A sender is one below its receiver, so that the
    /// receiver does not wait while the sender sets its next timer [default: 0; for `route` 70]
    #[arg(short = 'p', long = "priority", visible_alias = "prio", value_name = "PRIO", value_parser = clap::value_parser!(u8).range(..=99))]
    pub priority: Option<u8>,
    /// Print only the summary at the end
    #[arg(short = 'q', long)]
    pub quiet: bool,
    /// Measure one pair (`timer`: one thread) on each CPU, all at the same priority
    #[arg(short = 'S', long)]
    pub smp: bool,
    /// Measure N pairs (`timer`: N threads) at once; without a number one per CPU
    #[arg(short = 't', long, value_name = "N", num_args = 0..=1, default_missing_value = "0", default_value = "1")]
    pub threads: usize,
    /// Print a line for every sample: number of the pair, number of the sample, latency
    #[arg(short = 'v', long)]
    pub verbose: bool,
    /// Exit with 0 even if messages were refused or lost
    #[arg(long)]
    pub allow_loss: bool,
    /// Measure the round trip instead of one way: the sender waits for the answer and records
    #[arg(long)]
    pub round_trip: bool,
    /// Make the receiver follow the schedule and request each message by one of the same kind, as
    /// pmqtest and sigwaittest do. Caches are then warm; without this option each message is the
    /// first activity after an idle gap
    #[arg(long, conflicts_with = "round_trip")]
    pub sync: bool,
    /// Bytes of a message, if the path carries a payload [default: 64, or the msgsize of a running
    /// daemon's endpoints if that is smaller; below 24 bytes a message carries a number only, and
    /// its times are kept in shared memory]
    #[arg(long, value_name = "BYTES", value_parser = clap::value_parser!(u32).range(24..=16 << 20))]
    pub size: Option<u32>,
    /// Print a histogram of US bins of 1 us. All pairs then have the same priority and interval
    #[arg(short = 'h', long, value_name = "US", value_parser = clap::value_parser!(u64).range(1..=BINS_MAX))]
    pub histogram: Option<u64>,
    /// Print a histogram of US bins of 1 us, with one more column that adds up all pairs
    #[arg(short = 'H', long, value_name = "US", value_parser = clap::value_parser!(u64).range(1..=BINS_MAX))]
    pub histofall: Option<u64>,
    /// Write the histogram to this file instead of standard output
    #[arg(long, value_name = "FILE")]
    pub histfile: Option<PathBuf>,
    /// The options of the output.
    #[command(flatten)]
    pub report: ReportArgs,
    /// cyclictest's rarer options.
    #[command(flatten)]
    pub rt_tests: RtTestsArgs,
}

/// Default of --size.
pub const PAYLOAD_BYTES: usize = 64;
/// Default of -d.
const DISTANCE_US: u64 = 500;

/// The files, the directory and the format of the output.
#[derive(clap::Args, Clone, Debug)]
pub struct ReportArgs {
    /// Write the results to this file as JSON, in the structure of rt-tests
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
    /// Print the results in this format instead of the lines of cyclictest and pmqtest
    #[arg(long, value_name = "FORMAT", value_enum)]
    pub format: Option<Format>,
    /// Write pictures as SVG files into this directory
    #[arg(long, value_name = "DIR")]
    pub svg: Option<PathBuf>,
    /// Write one HTML file with pictures, tables and facts about the machine
    #[arg(long, value_name = "FILE")]
    pub html: Option<PathBuf>,
    /// Run this load during the measurement: cpu, memory, syscall or ipc, with :N workers (default:
    /// one per CPU). stress-ng generates it if it is installed, unless the name begins with own:
    #[arg(long, value_name = "KIND[:N]", value_delimiter = ',')]
    pub load: Vec<String>,
}

const SECOND_NS: u64 = 1_000_000_000;

/// Microseconds up to an hour, with or without their unit: rt-tests read `20us` as 20.
fn microseconds(text: &str) -> Result<u64, String> {
    const HOUR_US: u64 = 3_600_000_000;
    rtd::words::parse_time(text, &[("us", 1_000), ("", 1_000)])
        .filter(|ns| ns.is_multiple_of(1_000) && ns / 1_000 <= HOUR_US)
        .map(|ns| ns / 1_000)
        .ok_or_else(|| {
            format!("{text:?} is not a number of microseconds from 0 to {HOUR_US}: 200 or 200us")
        })
}

/// The units of cyclictest's -D.
const DURATION_UNITS: [(&str, u64); 5] = [
    ("", SECOND_NS),
    ("s", SECOND_NS),
    ("m", 60 * SECOND_NS),
    ("h", 3_600 * SECOND_NS),
    ("d", 86_400 * SECOND_NS),
];

fn duration(text: &str) -> Result<Duration, String> {
    // Whole numbers, as cyclictest reads them; at most a year, because a longer time is a slip.
    Some(text)
        .filter(|text| !text.contains('.'))
        .and_then(|text| rtd::words::parse_time(text, &DURATION_UNITS))
        .filter(|ns| (SECOND_NS..=366 * 86_400 * SECOND_NS).contains(ns))
        .map(Duration::from_nanos)
        .ok_or_else(|| format!("{text:?} is not a duration: 10, 10s, 5m, 2h or 1d"))
}

/// A pair's part of the arguments.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    pub sender: ThreadPlacement,
    pub receiver: ThreadPlacement,
    pub interval_ns: u64,
}

impl MeasureArgs {
    /// Payload that was asked for, or the usual one.
    pub fn payload_bytes(&self) -> anyhow::Result<usize> {
        self.size
            .map_or(Ok(PAYLOAD_BYTES), |bytes| Ok(usize::try_from(bytes)?))
    }

    /// Ways that each pair needs: there, and perhaps back.
    pub fn directions(&self) -> usize {
        if self.round_trip || self.sync { 2 } else { 1 }
    }

    /// The work of a pair with these options.
    pub fn work(
        &self,
        mut make: impl FnMut(usize) -> anyhow::Result<Box<dyn Mechanism>>,
    ) -> anyhow::Result<Work> {
        let there = make(0)?;
        Ok(match (self.round_trip, self.sync) {
            (true, _) => Work::RoundTrip(there, make(1)?),
            (_, true) => Work::Synced(there, make(1)?),
            _ => Work::OneWay(there),
        })
    }
}

/// How many threads of its own each pair has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Roles {
    One,
    /// Sender and receiver.
    Two,
}

impl MeasureArgs {
    /// Bins of the histogram that was asked for; 0: none.
    pub fn bins(&self) -> usize {
        self.histogram
            .or(self.histofall)
            .map_or(0, |us| usize::try_from(us).unwrap_or(usize::MAX))
    }

    /// The differences from the command line, one per line, for standard error.
    ///
    /// Errors: an option that is refused.
    pub fn notes(&self) -> Result<Vec<&'static str>, BadOption> {
        self.rt_tests.refuse()?;
        let mut notes = self.rt_tests.notes();
        if self.bins() > 0 && self.distance.is_some_and(|us| us > 0) {
            notes.push(
                "-d: a histogram needs the same interval for every pair, so the distance is 0",
            );
        }
        Ok(notes)
    }

    /// Priority of the first pair.
    fn first_priority(&self, count: usize, default_priority: u8) -> u8 {
        match (self.rt_tests.policy, self.priority) {
            (Some(Policy::Other | Policy::Normal), _) => 0,
            // As cyclictest: one above the number of threads.
            (Some(Policy::Fifo | Policy::Rr), None | Some(0)) => {
                u8::try_from(count + 1).unwrap_or(99).min(99)
            }
            (_, given) => given.unwrap_or(default_priority),
        }
    }

    /// The pairs: where each runs, and when.
    pub fn places(&self, roles: Roles, default_priority: u8) -> anyhow::Result<Vec<Place>> {
        let allowed = allowed_cpus()?;
        let given = given_cpus()?;
        let count = if self.smp || self.threads == 0 {
            given.len()
        } else {
            self.threads
        };
        if count > PAIRS_MAX {
            bail!(BadOption(format!("-t {count}: at most {PAIRS_MAX}")));
        }
        if self.interval == 0 && roles == Roles::One {
            bail!(BadOption("-i 0: a timer needs an interval".to_owned()));
        }
        let affinity = if self.smp {
            Some("all")
        } else {
            self.affinity.as_deref()
        };
        let list = affinity.map(|text| {
            if text == "all" {
                Ok(given)
            } else {
                cpu_list(text, &allowed)
            }
        });
        let list = list.transpose()?;
        // cyclictest 2.x spreads priorities when asked to; its family always does.
        let is_spread = roles == Roles::Two || self.rt_tests.priospread;
        let same_priority = self.smp || self.bins() > 0 || !is_spread;
        let distance_us = if self.bins() > 0 {
            0
        } else {
            self.distance.unwrap_or(DISTANCE_US)
        };
        let first = self.first_priority(count, default_priority);
        let is_alone = roles == Roles::Two && self.directions() == 1;
        let place = |n: usize| {
            let lower = if same_priority {
                0
            } else {
                u8::try_from(n).unwrap_or(u8::MAX)
            };
            let priority = if first == 0 {
                0
            } else {
                first.saturating_sub(lower).max(1)
            };
            // `all`: pair N as a whole on CPU N, as rt-tests have it.
            let step = if roles == Roles::Two && affinity != Some("all") {
                2
            } else {
                1
            };
            let cpu = |n: usize| list.as_ref().map(|list| list[n % list.len()]);
            let placement = |n, priority| ThreadPlacement {
                cpu: cpu(n),
                priority,
            };
            let interval_us = self.interval
                + if self.interval == 0 {
                    0
                } else {
                    distance_us * n as u64
                };
            Place {
                sender: placement(n * step, if is_alone { below(priority) } else { priority }),
                receiver: placement(n * step + usize::from(step == 2), priority),
                interval_ns: interval_us * 1000,
            }
        };
        Ok((0..count).map(place).collect())
    }
}

/// The priority of a sender that follows the schedule, with a receiver of this one: lower, so that
/// on one CPU the receiver does not wait while the sender sets its next timer after a message.
pub fn below(priority: u8) -> u8 {
    if priority == 0 {
        0
    } else {
        (priority - 1).max(1)
    }
}

/// CPUs that this process may use.
pub fn allowed_cpus() -> anyhow::Result<Vec<usize>> {
    cpus::allowed().context("cannot read which CPUs this process may use")
}

/// CPUs that this process was given when it started.
pub fn given_cpus() -> anyhow::Result<Vec<usize>> {
    cpus::given().context("cannot read which CPUs this process was given")
}

/// The CPUs of `-a`. An error names a CPU that this process may not use.
pub fn cpu_list(text: &str, allowed: &[usize]) -> anyhow::Result<Vec<usize>> {
    let wrong = || BadOption(format!("-a {text}: CPUs are numbers: 1, 0,2 or 4-7"));
    let list = cpus::parse_list(text).ok_or_else(wrong)?;
    if list.is_empty() {
        bail!(BadOption(format!("-a {text}: no CPU")));
    }
    if let Some(cpu) = list.iter().find(|cpu| !allowed.contains(cpu)) {
        bail!(
            "-a {text}: this process may not run on CPU {cpu}, only on {}",
            cpus::show_list(allowed)
        );
    }
    Ok(list)
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Cli {
        #[command(flatten)]
        measure: MeasureArgs,
    }

    fn parse(text: &str) -> MeasureArgs {
        Cli::try_parse_from(format!("x {text}").split_whitespace())
            .unwrap()
            .measure
    }

    #[test]
    fn times_have_units() {
        for (text, seconds) in [
            ("7", 7),
            ("7s", 7),
            ("5m", 300),
            ("2h", 7200),
            ("1d", 86_400),
        ] {
            assert_eq!(duration(text), Ok(Duration::from_secs(seconds)), "{text}");
        }
        for text in [
            "",
            "m",
            "0",
            "-1",
            "1.5",
            "1w",
            "99999999d",
            "18446744073709551615d",
            "7µ",
        ] {
            assert!(duration(text).is_err(), "{text}");
        }
    }

    #[test]
    fn further_pairs_are_later_and_lower_unless_they_are_all_alike() {
        let of = |text: &str| parse(text).places(Roles::Two, 0).unwrap();
        let seen: Vec<(u8, u64)> = of("-t 3 -p 80")
            .iter()
            .map(|p| (p.sender.priority, p.interval_ns))
            .collect();
        assert_eq!(seen, [(79, 1_000_000), (78, 1_500_000), (77, 2_000_000)]);
        assert!(
            of("-t 3 -p 80 --histogram 100")
                .iter()
                .all(|p| p.receiver.priority == 80)
        );
        assert!(of("-p 80 --sync").iter().all(|p| p.sender.priority == 80));
        assert!(
            parse("-p 80")
                .places(Roles::One, 0)
                .unwrap()
                .iter()
                .all(|p| p.sender.priority == 80)
        );
        assert!(
            of("-t 3 -p 80 -h 100")
                .iter()
                .all(|p| p.interval_ns == 1_000_000)
        );
        assert!(
            of("-t 3 -p 80 -d 700 -H100")
                .iter()
                .all(|p| p.interval_ns == 1_000_000)
        );
        let timers = |text: &str| parse(text).places(Roles::One, 0).unwrap();
        assert!(timers("-t 3 -p 80").iter().all(|p| p.sender.priority == 80));
        assert_eq!(timers("-t 3 -p 80 --priospread")[2].sender.priority, 78);
        assert_eq!(timers("-t 3 --policy=fifo")[0].sender.priority, 4);
        assert_eq!(timers("-p 80 --policy=other")[0].sender.priority, 0);
        assert!(of("-t 3 -p 2").iter().all(|p| p.receiver.priority >= 1));
        assert!(
            of("-t 3")
                .iter()
                .all(|p| p.receiver.priority == 0 && p.sender.cpu.is_none())
        );
    }

    #[test]
    fn cpus_are_given_out_in_turn() {
        let allowed = cpus::allowed().unwrap();
        let (a, b) = (allowed[0], allowed[allowed.len() - 1]);
        let of = |text: &str, roles| {
            let places = parse(text).places(roles, 0).unwrap();
            places
                .iter()
                .map(|p| (p.sender.cpu.unwrap(), p.receiver.cpu.unwrap()))
                .collect::<Vec<_>>()
        };
        let list = format!("-a {a},{b} -t 2");
        if a != b {
            assert_eq!(of(&list, Roles::Two), [(a, b), (a, b)]);
            assert_eq!(of(&list, Roles::One), [(a, a), (b, b)]);
        }
        assert_eq!(of(&format!("-a {a} -t 2"), Roles::Two), [(a, a), (a, a)]);
        let whole: Vec<(usize, usize)> = allowed.iter().map(|cpu| (*cpu, *cpu)).collect();
        assert_eq!(of("-S", Roles::Two), whole);
        assert_eq!(of("-a -t", Roles::Two), whole);
        let text = parse("-a 1023")
            .places(Roles::One, 0)
            .unwrap_err()
            .to_string();
        assert!(text.contains("may not run on CPU 1023"), "{text}");
        assert!(parse("-a x").places(Roles::One, 0).is_err());
    }

    #[test]
    fn bundled_letters_and_attached_values_are_understood() {
        let args = parse("-l2000 -m -Sp90 -i200 -h400 -q -d0 -D10 -b500");
        assert_eq!(
            (args.loops, args.interval, args.priority),
            (2000, 200, Some(90))
        );
        assert_eq!(
            (args.histogram, args.distance, args.breaktrace),
            (Some(400), Some(0), Some(500))
        );
        assert!(
            args.smp
                && args.mlockall
                && args.quiet
                && args.duration == Some(Duration::from_secs(10))
        );
        assert_eq!(parse("-H400").histofall, Some(400));
        assert_eq!(parse("-t8 -a1").threads, 8);
        assert_eq!(parse("--prio=80").priority, Some(80));
        assert_eq!(
            (
                parse("-b 20us -i 100us").breaktrace,
                parse("-i 100us").interval
            ),
            (Some(20), 100)
        );
        assert_eq!(
            [parse("-f -q"), parse("-q"), parse("-fx")].map(|args| args.fork.is_some()),
            [true, false, true]
        );
        let notes = parse("-c1 -r -x --policy=rr --smi --spike=100 -h100 -d100")
            .notes()
            .unwrap();
        assert_eq!(notes.len(), 7, "{notes:?}");
        let silent =
            "-n -u -M --tracemark --priospread --laptop --default-system --latency=5 -A50 -c0 -T1";
        assert!(parse(silent).notes().unwrap().is_empty());
        for refused in ["-F /tmp/x", "--policy=idle"] {
            assert!(parse(refused).notes().is_err(), "{refused}");
        }
    }

    #[test]
    fn slips_are_refused() {
        for text in [
            "-p 100",
            "-i x",
            "--size 8",
            "--format xml",
            "--histogram 0",
            "-D 0",
            "-l -1",
            "-w",
            "-d 18446744073709551615",
        ] {
            assert!(
                Cli::try_parse_from(format!("x {text}").split_whitespace()).is_err(),
                "{text}"
            );
        }
        assert!(parse("-i 0").places(Roles::One, 0).is_err());
        assert!(parse("-t 1000").places(Roles::Two, 0).is_err());
    }
}
