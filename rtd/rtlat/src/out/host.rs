//! The facts about the machine in rt-tests' JSON: uname(2) as /proc/sys/kernel has it, and whether
//! the kernel is PREEMPT_RT.

use std::path::Path;

use serde::Serialize;

/// The key `sysinfo`.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Host {
    /// Name of the system: `Linux`.
    pub sysname: String,
    pub nodename: String,
    pub release: String,
    /// Kernel version, which names the preemption model.
    pub version: String,
    /// Architecture, such as `x86_64`.
    pub machine: String,
    /// 1 if the kernel is PREEMPT_RT.
    pub realtime: u8,
}

impl Host {
    /// This machine. What cannot be read is empty.
    pub fn read() -> Host {
        let kernel =
            |name: &str| line(Path::new("/proc/sys/kernel").join(name)).unwrap_or_default();
        Host {
            sysname: kernel("ostype"),
            nodename: kernel("hostname"),
            release: kernel("osrelease"),
            version: kernel("version"),
            // Kernels before 6.1 do not tell.
            machine: line("/proc/sys/kernel/arch")
                .unwrap_or_else(|| std::env::consts::ARCH.to_owned()),
            realtime: u8::from(crate::preempt::is_rt(Path::new("/"))),
        }
    }
}

/// NUMA node of a CPU; -1 where the kernel knows none, as cyclictest says.
pub fn node(cpu: usize) -> i32 {
    let Ok(entries) = std::fs::read_dir(format!("/sys/devices/system/cpu/cpu{cpu}")) else {
        return -1;
    };
    let names = entries
        .flatten()
        .filter_map(|entry| entry.file_name().into_string().ok());
    names
        .filter_map(|name| name.strip_prefix("node")?.parse().ok())
        .next()
        .unwrap_or(-1)
}

fn line(path: impl AsRef<Path>) -> Option<String> {
    Some(std::fs::read_to_string(path).ok()?.trim_end().to_owned())
}
