//! stress-ng(1) as the source of load: which stressors stand for a kind, and which version it is.
//!
//! Only stressors that leave the machine as it is: rtlat often runs as root.

use super::Kind;
use anyhow::Context;
use std::io::ErrorKind;
use std::process::Command;

/// The reason why there is none for [`Kind::Syscall`].
pub(super) const NO_SYSCALL: &str = "the system-call stressors of stress-ng change the machine when run by root (--get \
    cancels a running adjtime(3))";

/// `stress-ng 0.15.06`; none: it is not installed.
pub(super) fn version() -> anyhow::Result<Option<String>> {
    let output = match Command::new("stress-ng").arg("--version").output() {
        Ok(output) => output,
        Err(e) if matches!(e.kind(), ErrorKind::NotFound | ErrorKind::PermissionDenied) => {
            return Ok(None);
        }
        Err(e) => {
            return Err(e)
                .context("cannot run stress-ng --version; --load own:KIND does not need it");
        }
    };
    // stress-ng, version 0.15.06 (gcc 12.2.0, ...)
    let text = String::from_utf8_lossy(&output.stdout);
    let number = text
        .split_whitespace()
        .skip_while(|word| *word != "version")
        .nth(1);
    Ok(Some(format!(
        "stress-ng {}",
        number.unwrap_or("of unknown version")
    )))
}

/// The arguments that make `count` workers of a kind; none: it has nothing fitting.
pub(super) fn arguments(kind: Kind, count: usize) -> Option<Vec<String>> {
    let words = |text: String| Some(text.split(' ').map(str::to_owned).collect());
    match kind {
        Kind::Cpu => words(format!("--cpu {count}")),
        // It takes twelve times the cache size that it is given.
        Kind::Memory => {
            let cache_bytes = super::worker::buffer_bytes() / 12;
            words(format!(
                "--stream {count} --stream-l3-size {}k",
                cache_bytes / 1024
            ))
        }
        Kind::Syscall => None,
        // Not --mq: its queues would come out of the limits (mqueue(7)) of the queues that are
        // measured. Not internet sockets: their ports may be somebody's.
        Kind::Ipc => {
            let (pipes, sockets, futexes) = (count.div_ceil(3), (count + 1) / 3, count / 3);
            let mut text = format!("--pipe {pipes}");
            if sockets > 0 {
                text += &format!(" --sock {sockets} --sock-domain unix");
            }
            if futexes > 0 {
                text += &format!(" --futex {futexes}");
            }
            words(text)
        }
    }
}

/// Runs until it is told to end. Its verbose lines say when each stressor has started.
pub(super) fn command(arguments: &[String]) -> Command {
    let mut command = Command::new("stress-ng");
    command
        .args(["--verbose", "--timeout", "0", "--temp-path"])
        .arg(std::env::temp_dir())
        .args(arguments);
    command
}
