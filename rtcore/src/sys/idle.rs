//! Keeps the CPUs out of deep idle states while something is measured: waking up from one takes
//! longer than a message (Documentation/power/pm_qos_interface).

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::MetadataExt as _;

/// The kernel limits the exit latency of idle states to the value that is written here, while the
/// file stays open.
pub const DEVICE: &str = "/dev/cpu_dma_latency";

/// The wish is granted while this lives.
#[derive(Debug)]
pub struct Awake {
    held: Option<File>,
    /// One line on whether it was granted.
    pub text: String,
}

impl Awake {
    /// Whether it was granted.
    pub fn is_held(&self) -> bool {
        self.held.is_some()
    }
}

/// Asks for a wake-up latency of 0 us.
pub fn hold() -> Awake {
    hold_at(0)
}

/// Leaves the device alone, as the user asked.
pub fn leave() -> Awake {
    Awake {
        held: None,
        text: format!("{DEVICE} is not held, as requested: waking an idle CPU adds to all figures"),
    }
}

/// Asks for a wake-up latency of at most this.
pub fn hold_at(latency_us: i32) -> Awake {
    let asked = request(latency_us);
    let text = match &asked {
        Ok(_) if latency_us == 0 => {
            format!("{DEVICE} is held at 0: no CPU idles deeply during the run")
        }
        Ok(_) => {
            format!("{DEVICE} is held at {latency_us} us: a CPU may idle as deeply as that allows")
        }
        Err(e) => {
            let why = match e.kind() {
                io::ErrorKind::NotFound => "it does not exist here".to_owned(),
                io::ErrorKind::PermissionDenied => "only root may".to_owned(),
                _ => e.to_string(),
            };
            format!(
                "{DEVICE} is not held at {latency_us} ({why}): waking an idle CPU adds to all figures"
            )
        }
    };
    Awake {
        held: asked.ok(),
        text,
    }
}

/// Limits the exit latency of idle states to this until the file is closed.
pub fn request(latency_us: i32) -> io::Result<File> {
    let mut device = OpenOptions::new().write(true).open(DEVICE)?;
    device.write_all(&latency_us.to_ne_bytes())?;
    Ok(device)
}

/// Whether this process can hold the device. If not: the error, and the permissions of the device
/// where it exists.
pub fn probe() -> Result<(), String> {
    // Opening without a write requests nothing: the kernel's default is no limit.
    let opened = OpenOptions::new().write(true).open(DEVICE);
    opened
        .map(drop)
        .map_err(|why| match std::fs::metadata(DEVICE) {
            Ok(meta) => {
                format!(
                    "{why}; mode {:04o}, uid {}, gid {}",
                    meta.mode() & 0o7777,
                    meta.uid(),
                    meta.gid()
                )
            }
            Err(_) => why.to_string(),
        })
}
