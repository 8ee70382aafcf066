//! CPU time that the kernel reserves for ordinary threads where real-time threads would use all of
//! it.

use std::path::Path;

const RT_RUNTIME: &str = "/proc/sys/kernel/sched_rt_runtime_us";
const RT_PERIOD: &str = "/proc/sys/kernel/sched_rt_period_us";
const RELEASE: &str = "/proc/sys/kernel/osrelease";
const FAIR_SERVER: &str = "/sys/kernel/debug/sched/fair_server";
/// The first Linux with the fair server. It replaced throttling, which since then exists with
/// CONFIG_RT_GROUP_SCHED only.
const FAIR_SERVER_SINCE: (u32, u32) = (6, 12);

/// The mechanism that takes time from a real-time thread while an ordinary thread waits for the
/// same CPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Throttle {
    /// Real-time throttling takes `taken_us` of every `period_us` that real-time threads would use
    /// whole.
    RealTime {
        /// Time of ordinary threads.
        taken_us: u64,
        /// The period.
        period_us: u64,
    },
    /// The fair server takes up to this in each of its periods (1 s unless changed).
    FairServer {
        /// The longest `runtime` of these CPUs.
        taken_us: u64,
    },
    /// The kernel has a fair server, and its files cannot be read (debugfs is for root).
    FairServerUnread,
}

/// The mechanism on these CPUs; none if there is none, or if it cannot be read.
pub fn of_cpus(cpus: &[usize]) -> Option<Throttle> {
    let number = |path: &str| {
        std::fs::read_to_string(path)
            .ok()?
            .trim()
            .parse::<i64>()
            .ok()
    };
    let runtimes = cpus.iter().map(|cpu| {
        std::fs::read_to_string(Path::new(FAIR_SERVER).join(format!("cpu{cpu}/runtime")))
            .ok()?
            .trim()
            .parse()
            .ok()
    });
    let runtimes: Option<Vec<u64>> = runtimes.collect();
    of_values(
        &std::fs::read_to_string(RELEASE).ok()?,
        number(RT_RUNTIME),
        number(RT_PERIOD),
        runtimes,
    )
}

fn of_values(
    release: &str,
    runtime_us: Option<i64>,
    period_us: Option<i64>,
    fair_server_ns: Option<Vec<u64>>,
) -> Option<Throttle> {
    match fair_server_ns {
        Some(runtimes) => {
            let taken_us = runtimes.into_iter().max()?.div_ceil(1000);
            return (taken_us > 0).then_some(Throttle::FairServer { taken_us });
        }
        None if version(release)? >= FAIR_SERVER_SINCE => return Some(Throttle::FairServerUnread),
        None => {}
    }
    // -1 is off.
    let runtime_us = u64::try_from(runtime_us?).ok()?;
    let period_us = u64::try_from(period_us?).ok()?;
    let taken_us = period_us.saturating_sub(runtime_us);
    (taken_us > 0).then_some(Throttle::RealTime {
        taken_us,
        period_us,
    })
}

/// Major and minor number of a release such as `6.1.0-13-rt-amd64`.
fn version(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit());
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn throttling_is_what_an_older_kernel_has() {
        let of = |runtime| of_values("6.1.0-13-rt-amd64\n", Some(runtime), Some(1_000_000), None);
        assert_eq!(
            of(950_000),
            Some(Throttle::RealTime {
                taken_us: 50_000,
                period_us: 1_000_000
            })
        );
        assert_eq!(of(-1), None);
        assert_eq!(of(1_000_000), None);
        assert_eq!(of_values("6.1.0", None, None, None), None);
        assert_eq!(
            of_values("no release", Some(950_000), Some(1_000_000), None),
            None
        );
    }

    #[test]
    fn the_fair_server_is_read_and_else_expected_from_6_12_on() {
        let of = |release: &str, fair| of_values(release, Some(950_000), Some(1_000_000), fair);
        assert_eq!(
            of("6.12.1", Some(vec![0, 50_000_000])),
            Some(Throttle::FairServer { taken_us: 50_000 })
        );
        assert_eq!(of("6.12.1", Some(vec![0, 0])), None);
        assert_eq!(of("6.12.0-rc1", None), Some(Throttle::FairServerUnread));
        assert_eq!(of("7.0.3", None), Some(Throttle::FairServerUnread));
        assert!(matches!(
            of("6.9.12", None),
            Some(Throttle::RealTime { .. })
        ));
    }
}
