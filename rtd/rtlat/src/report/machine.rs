//! The machine of a measurement.
//!
//! Constraint: a fact that cannot be read is `unknown`, never a failure; sizes read are bounded.
//! Invariant: the facts have the same names in the same order on every machine, so that two can be
//! compared.

use super::clean;
use crate::preempt;
use rtcore::sys::{cpus, procfs};
use serde::{Deserialize, Serialize};
use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};

const UNKNOWN: &str = "unknown";
/// Bytes of a file that are read at most.
const FILE_BYTES_MAX: u64 = 256 * 1024;
/// Characters of a fact that are kept; a kernel command line has up to 4096.
const FACT_CHARS_MAX: usize = 4200;
/// The value of /dev/cpu_dma_latency if no process asks for less
/// (PM_QOS_CPU_LATENCY_DEFAULT_VALUE).
const DMA_LATENCY_UNASKED_US: i32 = 2_000_000_000;

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fact {
    /// The name of the fact.
    pub name: String,
    /// Its value; `unknown` if it could not be read.
    pub value: String,
}

/// The facts, and the privileges that the run was refused.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Machine {
    /// In a fixed order.
    pub facts: Vec<Fact>,
    /// Sentences; none: nothing was refused.
    pub degraded: Vec<String>,
}

impl Machine {
    /// Reads the facts now. `used_cpus`: those the measurement ran on; `degraded`: a sentence per
    /// thing refused.
    ///
    /// Call it at the end of a run, while memory is still locked and /dev/cpu_dma_latency still
    /// held.
    pub fn read(used_cpus: &[usize], degraded: Vec<String>) -> Machine {
        Machine {
            facts: Reader {
                root: PathBuf::from("/"),
            }
            .facts(used_cpus),
            degraded,
        }
    }

    /// The value of a fact; `unknown` for one that is not there.
    pub fn fact(&self, name: &str) -> &str {
        self.facts
            .iter()
            .find(|fact| fact.name == name)
            .map_or(UNKNOWN, |fact| &fact.value)
    }
}

/// Reads below a root, which tests choose.
struct Reader {
    root: PathBuf,
}

impl Reader {
    fn facts(&self, used_cpus: &[usize]) -> Vec<Fact> {
        let mut facts = Vec::new();
        let mut add = |name: &str, value: Option<String>| {
            let value = value.map(|value| clean(value.trim(), FACT_CHARS_MAX));
            let value = value
                .filter(|value| !value.is_empty())
                .unwrap_or_else(|| UNKNOWN.to_owned());
            facts.push(Fact {
                name: name.to_owned(),
                value,
            });
        };
        add("kernel", self.text("proc/sys/kernel/osrelease"));
        add("kernel version", self.text("proc/sys/kernel/version"));
        add("architecture", Some(std::env::consts::ARCH.to_owned()));
        add("preemption", self.preemption());
        add("CPU model", self.cpu_model());
        add("CPUs online", self.text("sys/devices/system/cpu/online"));
        add("CPUs used", Some(cpus::show_list(used_cpus)));
        add("CPUs isolated", self.isolated());
        add(
            "CPUs without tick",
            self.or_none("sys/devices/system/cpu/nohz_full"),
        );
        add("SMT siblings", self.siblings(used_cpus));
        add(
            "governor",
            self.per_cpu(used_cpus, "cpufreq/scaling_governor"),
        );
        add(
            "idle driver",
            self.text("sys/devices/system/cpu/cpuidle/current_driver"),
        );
        add("cpu_dma_latency", self.dma_latency());
        add(
            "clock source",
            self.text("sys/devices/system/clocksource/clocksource0/current_clocksource"),
        );
        add("hypervisor", self.hypervisor());
        add("RT throttling", self.throttling());
        add("memory locked", self.locked());
        add("skin", Some(rtcore::skin::posix().name.to_owned()));
        add("load average", self.load_average());
        add("kernel command line", self.text("proc/cmdline"));
        facts
    }

    fn text(&self, path: impl AsRef<Path>) -> Option<String> {
        let mut bytes = Vec::new();
        File::open(self.root.join(path))
            .ok()?
            .take(FILE_BYTES_MAX)
            .read_to_end(&mut bytes)
            .ok()?;
        let text = String::from_utf8_lossy(&bytes).trim().to_owned();
        (!text.is_empty()).then_some(text)
    }

    /// A list of CPUs that may be empty.
    fn or_none(&self, path: &str) -> Option<String> {
        let there = self.root.join(path).exists();
        self.text(path)
            .filter(|text| text != "(null)")
            .or_else(|| there.then(|| "none".to_owned()))
    }

    /// At boot, or by a control group of isolated CPUs.
    fn isolated(&self) -> Option<String> {
        let lists: Vec<Vec<usize>> = [
            "sys/devices/system/cpu/isolated",
            "sys/fs/cgroup/cpuset.cpus.isolated",
        ]
        .iter()
        .filter_map(|path| cpus::parse_list(&self.or_none(path)?.replace("none", "")))
        .collect();
        (!lists.is_empty()).then(|| cpus::show_list(&lists.concat()))
    }

    fn preemption(&self) -> Option<String> {
        let version = self.text("proc/sys/kernel/version").unwrap_or_default();
        if preempt::is_rt(&self.root) {
            return Some("PREEMPT_RT".to_owned());
        }
        if version.contains("PREEMPT_DYNAMIC") {
            let mode = self.text("sys/kernel/debug/sched/preempt");
            let mode = mode
                .as_deref()
                .and_then(|modes| modes.split_once('(')?.1.split_once(')'));
            let mode = mode
                .map(|(mode, _)| mode.to_owned())
                .or_else(|| self.preempt_option());
            let mode = mode.map_or_else(
                || "which one is unknown".to_owned(),
                |mode| format!("{mode} now"),
            );
            return Some(format!("PREEMPT_DYNAMIC, {mode}"));
        }
        match version.as_str() {
            "" => None,
            _ if version.contains("PREEMPT_LAZY") => Some("lazy (PREEMPT_LAZY)".to_owned()),
            _ if version.contains("PREEMPT") => Some("full (PREEMPT)".to_owned()),
            _ => Some("none or voluntary".to_owned()),
        }
    }

    /// `preempt=` of the kernel command line; the last one counts.
    fn preempt_option(&self) -> Option<String> {
        let line = self.text("proc/cmdline")?;
        line.split_whitespace()
            .rev()
            .find_map(|word| word.strip_prefix("preempt="))
            .map(str::to_owned)
    }

    fn cpu_field(&self, key: &str) -> Option<String> {
        let text = self.text("proc/cpuinfo")?;
        let mut fields = text.lines().filter_map(|line| line.split_once(':'));
        fields
            .find(|(name, _)| name.trim() == key)
            .map(|(_, value)| value.trim().to_owned())
    }

    fn cpu_model(&self) -> Option<String> {
        let fields = ["model name", "Model", "Hardware", "cpu", "uarch"];
        fields
            .iter()
            .find_map(|key| self.cpu_field(key))
            .or_else(|| {
                self.text("proc/device-tree/model")
                    .map(|model| model.replace('\0', ""))
            })
    }

    /// One value per used CPU; said once when they agree.
    fn per_cpu(&self, used_cpus: &[usize], file: &str) -> Option<String> {
        let read = |cpu: &usize| {
            let value = self.text(format!("sys/devices/system/cpu/cpu{cpu}/{file}"));
            value.unwrap_or_else(|| UNKNOWN.to_owned())
        };
        let mut values: Vec<(usize, String)> =
            used_cpus.iter().map(|cpu| (*cpu, read(cpu))).collect();
        values.sort();
        values.dedup();
        let first = values.first()?.1.clone();
        if values.iter().all(|(_, value)| *value == first) {
            return Some(first);
        }
        let each: Vec<String> = values
            .iter()
            .map(|(cpu, value)| format!("CPU {cpu}: {value}"))
            .collect();
        Some(each.join(", "))
    }

    /// Other threads of the cores that were used.
    fn siblings(&self, used_cpus: &[usize]) -> Option<String> {
        let mut pairs = Vec::new();
        for cpu in used_cpus {
            let list = self.text(format!(
                "sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list"
            ))?;
            let others: Vec<usize> = cpus::parse_list(&list)?
                .into_iter()
                .filter(|other| other != cpu)
                .collect();
            if !others.is_empty() {
                pairs.push(format!("CPU {cpu} with {}", cpus::show_list(&others)));
            }
        }
        pairs.sort();
        pairs.dedup();
        Some(if pairs.is_empty() {
            "none".to_owned()
        } else {
            pairs.join("; ")
        })
    }

    /// Reading it gives the smallest latency that anybody asks for, in us (pm_qos_interface, kernel
    /// documentation).
    fn dma_latency(&self) -> Option<String> {
        let mut bytes = [0; 4];
        File::open(self.root.join("dev/cpu_dma_latency"))
            .ok()?
            .read_exact(&mut bytes)
            .ok()?;
        match i32::from_ne_bytes(bytes) {
            DMA_LATENCY_UNASKED_US => Some("nobody asks".to_owned()),
            us => Some(format!("{us} us")),
        }
    }

    fn hypervisor(&self) -> Option<String> {
        if let Some(kind) = self.text("sys/hypervisor/type") {
            return Some(format!("yes ({kind})"));
        }
        let flags = self.cpu_field("flags")?;
        let flagged = flags.split_whitespace().any(|flag| flag == "hypervisor");
        Some(
            if flagged {
                "yes (CPU flag)"
            } else {
                "no (no CPU flag)"
            }
            .to_owned(),
        )
    }

    fn throttling(&self) -> Option<String> {
        let runtime_us: i64 = self
            .text("proc/sys/kernel/sched_rt_runtime_us")?
            .parse()
            .ok()?;
        if runtime_us < 0 {
            return Some("off".to_owned());
        }
        let period = self
            .text("proc/sys/kernel/sched_rt_period_us")
            .unwrap_or_else(|| UNKNOWN.to_owned());
        Some(format!("on, {runtime_us} of {period} us"))
    }

    fn locked(&self) -> Option<String> {
        let status = self.text("proc/self/status")?;
        let kib: u64 = procfs::number(&status, "VmLck")?;
        Some(if kib == 0 {
            "no".to_owned()
        } else {
            format!("yes, {} MiB", kib / 1024)
        })
    }

    fn load_average(&self) -> Option<String> {
        let text = self.text("proc/loadavg")?;
        Some(
            text.split_whitespace()
                .take(3)
                .collect::<Vec<_>>()
                .join(" "),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Tree(PathBuf);

    impl Tree {
        fn new(name: &str, files: &[(&str, &str)]) -> Tree {
            let root =
                std::env::temp_dir().join(format!("rtlat-machine-{}-{name}", std::process::id()));
            for (path, text) in files {
                let path = root.join(path);
                std::fs::create_dir_all(path.parent().unwrap()).unwrap();
                std::fs::write(path, text).unwrap();
            }
            Tree(root)
        }

        fn machine(&self, used: &[usize]) -> Machine {
            Machine {
                facts: Reader {
                    root: self.0.clone(),
                }
                .facts(used),
                degraded: Vec::new(),
            }
        }
    }

    impl Drop for Tree {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn a_machine_without_files_is_unknown_not_a_failure() {
        let machine = Tree::new("empty", &[]).machine(&[]);
        for name in [
            "kernel",
            "preemption",
            "CPU model",
            "governor",
            "cpu_dma_latency",
            "memory locked",
        ] {
            assert_eq!(machine.fact(name), UNKNOWN, "{name}");
        }
        assert_eq!(machine.fact("skin"), "posix");
    }

    #[test]
    fn this_machine_has_a_kernel_and_a_cpu() {
        let machine = Machine::read(&[0], vec!["SCHED_FIFO was refused".to_owned()]);
        assert_ne!(machine.fact("kernel"), UNKNOWN);
        assert_eq!(machine.fact("CPUs used"), "0");
        assert_eq!(machine.degraded.len(), 1);
    }

    #[test]
    fn preemption_is_read_from_whatever_says_it() {
        let version = "proc/sys/kernel/version";
        let of = |name: &str, files: &[(&str, &str)]| {
            Tree::new(name, files)
                .machine(&[])
                .fact("preemption")
                .to_owned()
        };
        assert_eq!(of("rt", &[("sys/kernel/realtime", "1\n")]), "PREEMPT_RT");
        assert_eq!(
            of("rt-old", &[(version, "#1 SMP PREEMPT RT Debian")]),
            "PREEMPT_RT"
        );
        let dynamic = (version, "#1 SMP PREEMPT_DYNAMIC x");
        let debug = (
            "sys/kernel/debug/sched/preempt",
            "none voluntary (full) lazy \n",
        );
        assert_eq!(of("dyn", &[dynamic, debug]), "PREEMPT_DYNAMIC, full now");
        assert_eq!(
            of("dyn-boot", &[dynamic, ("proc/cmdline", "a preempt=none")]),
            "PREEMPT_DYNAMIC, none now"
        );
        assert_eq!(
            of("dyn-dark", &[dynamic]),
            "PREEMPT_DYNAMIC, which one is unknown"
        );
        assert_eq!(
            of("full", &[(version, "#1 SMP PREEMPT x")]),
            "full (PREEMPT)"
        );
        assert_eq!(of("server", &[(version, "#1 SMP x")]), "none or voluntary");
    }

    #[test]
    fn cpus_governors_siblings_and_limits_are_reported() {
        let cpu = "sys/devices/system/cpu";
        let tree = Tree::new(
            "full-tree",
            &[
                (
                    &format!("{cpu}/cpu2/cpufreq/scaling_governor"),
                    "performance\n",
                ),
                (
                    &format!("{cpu}/cpu3/cpufreq/scaling_governor"),
                    "powersave\n",
                ),
                (
                    &format!("{cpu}/cpu2/topology/thread_siblings_list"),
                    "2,6\n",
                ),
                (&format!("{cpu}/cpu3/topology/thread_siblings_list"), "3\n"),
                (&format!("{cpu}/isolated"), "2-3\n"),
                (&format!("{cpu}/nohz_full"), "(null)\n"),
                ("proc/sys/kernel/sched_rt_runtime_us", "-1\n"),
                ("proc/self/status", "Name:\tx\nVmLck:\t    20480 kB\n"),
                (
                    "proc/cpuinfo",
                    "processor\t: 0\nmodel name\t: A\x1b]0;x CPU\nflags\t\t: fpu hypervisor\n",
                ),
                ("proc/loadavg", "0.50 0.25 0.10 1/88 7091\n"),
            ],
        );
        let machine = tree.machine(&[3, 2]);
        assert_eq!(
            machine.fact("governor"),
            "CPU 2: performance, CPU 3: powersave"
        );
        assert_eq!(machine.fact("SMT siblings"), "CPU 2 with 6");
        assert_eq!(machine.fact("CPUs isolated"), "2-3");
        assert_eq!(machine.fact("CPUs without tick"), "none");
        assert_eq!(machine.fact("RT throttling"), "off");
        assert_eq!(machine.fact("memory locked"), "yes, 20 MiB");
        assert_eq!(machine.fact("hypervisor"), "yes (CPU flag)");
        assert_eq!(machine.fact("CPU model"), "A\u{fffd}]0;x CPU");
        assert_eq!(machine.fact("load average"), "0.50 0.25 0.10");
    }
}
