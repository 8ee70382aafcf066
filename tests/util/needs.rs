//! The table of a module's tests (`tests!`), and what a test needs of the user and the machine: the
//! row has both.
//!
//! A need is tried once, when the first test that has it is due; nothing is concluded from a uid
//! alone. A test whose need is not met is reported as ignored, with the need as the reason. In CI
//! root has to have them all, except those that no privilege brings (see [`Need::optional`]).

use super::halt::Halted;
use super::tool::as_nobody;
use super::{privileged, tool::RTCTL};
use anyhow::bail;
use libtest_mimic::{Completion, Failed, Trial};
use rtcore::sys::limits::{self, Kind};
use rtcore::sys::{accounts, cpus};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::LazyLock;

/// Something that a test cannot do without.
#[derive(Debug)]
pub struct Need {
    text: &'static str,
    is_met: LazyLock<bool>,
    in_ci: bool,
}

impl Need {
    /// One that root in CI has.
    pub const fn new(text: &'static str, probe: fn() -> bool) -> Need {
        Need {
            text,
            is_met: LazyLock::new(probe),
            in_ci: true,
        }
    }

    /// One that root may lack in CI as well.
    pub const fn optional(text: &'static str, probe: fn() -> bool) -> Need {
        Need {
            text,
            is_met: LazyLock::new(probe),
            in_ci: false,
        }
    }
}

/// SCHED_FIFO, locked memory, the users of other processes.
pub static ROOT: Need = Need::new("root with SCHED_FIFO", privileged);

/// A second user.
pub static SECOND_USER: Need = Need::new(
    "root, and a build directory that uid 65534 may enter",
    nobody_runs,
);

/// Somebody who is not root: the test's own user, or a second one.
pub static ORDINARY_USER: Need = Need::new(
    "an ordinary user, or a build directory that uid 65534 may enter",
    || accounts::own_uid() != 0 || nobody_runs(),
);

/// The same without RLIMIT_RTPRIO.
pub static NO_RTPRIO: Need = Need::new("a user without rtprio, or root", || {
    nobody_runs()
        || (accounts::own_uid() != 0 && limits::get(Kind::RtPrio).is_ok_and(|l| l.soft == Some(0)))
});

/// mount(2), in namespaces of the test's own.
pub static MOUNT: Need = Need::new("CAP_SYS_ADMIN, to make namespaces and mount", || {
    succeeds(
        "unshare",
        &[
            "--mount",
            "--pid",
            "--fork",
            "--mount-proc",
            "mount",
            "-t",
            "tmpfs",
            "none",
            "/run",
        ],
    )
});

/// A container or a sysctl may forbid them.
pub static USER_NAMESPACES: Need = Need::optional("user namespaces for ordinary users", || {
    let unshare = ["unshare", "--user", "--map-root-user", "true"];
    match accounts::own_uid() {
        0 => succeeds(
            "setpriv",
            &[
                &["--reuid", "65534", "--regid", "65534", "--clear-groups"][..],
                &unshare,
            ]
            .concat(),
        ),
        _ => succeeds(unshare[0], &unshare[1..]),
    }
});

/// Linux 5.6, and CONFIG_TIME_NS.
pub static TIME_NAMESPACES: Need = Need::new("time namespaces", || {
    succeeds(
        "unshare",
        &["--time", "--monotonic", "5000", "--fork", "true"],
    )
});

/// Root of a container may not have it.
pub static HARD_LIMITS: Need = Need::optional("CAP_SYS_RESOURCE, to raise hard limits", || {
    succeeds(
        "prlimit",
        &["--rtprio=99:99", "--memlock=unlimited:unlimited", "true"],
    )
});

/// ptrace(2) of a child: Yama or a seccomp filter may forbid it.
pub static PTRACE: Need = Need::new("ptrace(2) of own processes", || {
    let Ok(mut child) = Command::new("cat").stdin(Stdio::piped()).spawn() else {
        return false;
    };
    let is_met = Halted::thread(child.id()).is_ok();
    let _ = child.kill();
    let _ = child.wait();
    is_met
});

/// One CPU for the lane and one for the test.
pub static TWO_CPUS: Need = Need::new("two CPUs", || count_cpus() >= 2);

/// A lane that polls takes a CPU for itself where it is real-time.
pub static SPARE_CPU: Need = Need::new("two CPUs (a polling SCHED_FIFO thread takes one)", || {
    !privileged() || count_cpus() >= 2
});

/// The stand-in for libcobalt sees which Linux calls a thread makes.
pub static FOLLOWING: Need = Need::new(
    "x86_64 and Linux 5.11 (Syscall User Dispatch)",
    stand_in_cobalt::follow::is_supported,
);

/// A user whom the kernel holds to RLIMIT_SIGPENDING. Root is not.
pub static HELD_TO_SIGPENDING: Need = Need::optional(
    "a user without CAP_SYS_RESOURCE (RLIMIT_SIGPENDING)",
    || !privileged(),
);

/// Linux 6.3.
pub static MEMFD_NOEXEC: Need = Need::new("vm.memfd_noexec (Linux 6.3)", || {
    Path::new("/proc/sys/vm/memfd_noexec").exists()
});

/// The device of the power management.
pub static DMA_LATENCY: Need = Need::new("/dev/cpu_dma_latency", || {
    Path::new(rtcore::sys::idle::DEVICE).exists()
});

/// Who preempted a thread is in the kernel's trace.
pub static KERNEL_TRACE: Need = Need::new("the kernel's trace (tracefs, root)", || {
    let is_there = |at: &&str| Path::new(at).join("tracing_on").exists();
    let is_mounted = ["/sys/kernel/tracing", "/sys/kernel/debug/tracing"]
        .iter()
        .any(is_there);
    // Otherwise rtlat mounts one in a mount namespace of its own, which needs the same permission.
    privileged()
        && (is_mounted
            || succeeds(
                "unshare",
                &["-m", "mount", "-t", "tracefs", "tracefs", "/mnt"],
            ))
});

/// An ordinary user of CI has one and cannot write to the build directory; the machine of scripts/rt-vm
/// has none.
pub static COMPILER: Need = Need::optional("a C compiler, make and cargo", || {
    ["cc", "make", "cargo"].into_iter().all(is_installed)
});
pub static PKG_CONFIG: Need = Need::optional("pkg-config", || is_installed("pkg-config"));
pub static CHRT: Need = Need::new("chrt (util-linux)", || succeeds("chrt", &["--max"]));
pub static PRLIMIT: Need = Need::new("prlimit (util-linux)", || {
    succeeds("prlimit", &["--version"])
});
pub static TASKSET: Need = Need::new("taskset (util-linux)", || {
    succeeds("taskset", &["--version"])
});
pub static SETCAP: Need = Need::optional("setcap (libcap2-bin)", || is_installed("setcap"));
pub static GNUPLOT: Need = Need::new("gnuplot (apt install gnuplot-nox)", || {
    is_installed("gnuplot")
});
pub static JQ: Need = Need::new("jq (apt install jq)", || is_installed("jq"));
pub static RT_TESTS: Need = Need::new("rt-tests (apt install rt-tests)", || {
    ["cyclictest", "pmqtest", "sigwaittest"]
        .into_iter()
        .all(is_installed)
});

/// A test, and what it needs.
#[derive(Debug)]
pub struct Test {
    /// `module::function`.
    pub name: &'static str,
    pub needs: &'static [&'static Need],
    pub run: fn() -> anyhow::Result<()>,
}

/// The table of a module's tests: a row is the function and what it needs.
macro_rules! tests {
    ($($test:ident $(needs($($need:ident),+))?),* $(,)?) => {
        pub static TESTS: &[$crate::util::needs::Test] = &[$($crate::util::needs::Test {
            name: concat!(module_path!(), "::", stringify!($test)),
            needs: &[$($(&$need),+)?],
            run: $test,
        }),*];
    };
}

impl Test {
    /// The same for the runner, which ignores it if one of its needs is not met.
    pub fn trial(&'static self) -> Trial {
        // Without the name of the crate.
        let name = self
            .name
            .split_once("::")
            .map_or(self.name, |(_, name)| name);
        Trial::ignorable_test(name, || {
            self.outcome().map_err(|e| Failed::from(format!("{e:#}")))
        })
    }

    fn outcome(&self) -> anyhow::Result<Completion> {
        if let Some(lack) = self.needs.iter().find(|need| !*need.is_met) {
            return ignored(lack.text, lack.in_ci);
        }
        match (self.run)().map_err(anyhow::Error::downcast::<Lacks>) {
            Ok(()) => Ok(Completion::Completed),
            Err(Ok(Lacks(what))) => ignored(&what, true),
            Err(Err(failure)) => Err(failure),
        }
    }
}

fn ignored(what: &str, in_ci: bool) -> anyhow::Result<Completion> {
    if in_ci && std::env::var_os("CI").is_some() && accounts::own_uid() == 0 {
        bail!("CI must not skip a test: it needs {what}");
    }
    Ok(Completion::ignored_with(format!("needs {what}")))
}

/// A need that has a parameter, so that only the test itself can say it.
#[derive(Debug)]
struct Lacks(String);

impl std::fmt::Display for Lacks {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "needs {}", self.0)
    }
}

impl std::error::Error for Lacks {}

/// Ends a test as ignored, because this is missing. A need without a parameter stands in the
/// test's row instead.
pub fn skip(what: &str) -> anyhow::Result<()> {
    Err(Lacks(what.to_owned()).into())
}

fn nobody_runs() -> bool {
    let mut probe = Command::new(RTCTL);
    probe.arg("--version").stdout(Stdio::null());
    accounts::own_uid() == 0
        && as_nobody(&mut probe)
            .status()
            .is_ok_and(|status| status.success())
}

fn count_cpus() -> usize {
    cpus::allowed().map_or(1, |all| all.len())
}

fn quiet(program: &str, arguments: &[&str]) -> Command {
    let mut command = Command::new(program);
    command
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    command
}

fn succeeds(program: &str, arguments: &[&str]) -> bool {
    quiet(program, arguments)
        .status()
        .is_ok_and(|status| status.success())
}

fn is_installed(program: &str) -> bool {
    quiet(program, &["--version"]).status().is_ok()
}
