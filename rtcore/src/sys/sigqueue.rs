//! The number of signals that wait for a process: the SigQ, SigPnd and ShdPnd lines of
//! /proc/PID/task/TID/status (proc_pid_status(5)).
//!
//! Constraint: read from an open descriptor into the stack, without the heap, because a lane thread
//! reads it when a receiver's credit is used up.

use std::os::fd::BorrowedFd;

/// The content of the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SignalQueue {
    /// Signals queued for the whole uid.
    pub queued: u32,
    /// RLIMIT_SIGPENDING of the process.
    pub limit: u32,
    /// Pending signals of the thread and the process; bit n-1 is signal n.
    pub pending: u64,
}

impl SignalQueue {
    /// Whether this signal waits.
    pub fn has(&self, signo: i32) -> bool {
        (1..=64).contains(&signo) && self.pending >> (signo - 1) & 1 == 1
    }
}

/// Bytes of one read.
const CHUNK_BYTES: usize = 4096;
/// Longer than any of the three lines; of a longer line only the beginning is kept from one read to
/// the next.
const LINE_BYTES: usize = 64;
/// A process has at most 65,536 groups (NGROUPS_MAX) of at most 11 bytes in front of the three
/// lines.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// Reads the file from its beginning; none when the process is gone or a line is missing.
///
/// The three lines are behind the supplementary groups, which may fill many pages: it reads on
/// until it has them. Each read begins where the one before ended, so that the kernel goes on in
/// the text that it has made.
pub fn read(status: BorrowedFd<'_>) -> Option<SignalQueue> {
    let mut lines = Lines::default();
    let mut buffer = [0; LINE_BYTES + CHUNK_BYTES];
    let (mut kept, mut at) = (0, 0);
    while at < FILE_BYTES_MAX {
        let n = rustix::io::pread(status, &mut buffer[kept..kept + CHUNK_BYTES], at).ok()?;
        if n == 0 {
            return None;
        }
        at += n as u64;
        let text = &buffer[..kept + n];
        let whole = text
            .iter()
            .rposition(|&b| b == b'\n')
            .map_or(0, |end| end + 1);
        if let Some(queue) = lines.take(&text[..whole]) {
            return Some(queue);
        }
        let rest = whole..(kept + n).min(whole + LINE_BYTES);
        kept = rest.len();
        buffer.copy_within(rest, 0);
    }
    None
}

/// The lines found so far.
#[derive(Default)]
struct Lines {
    /// Signals queued, and the limit.
    queue: Option<(u64, u64)>,
    /// Pending signals of the thread.
    own: Option<u64>,
}

impl Lines {
    /// Takes whole lines. The last of the three completes the answer.
    fn take(&mut self, text: &[u8]) -> Option<SignalQueue> {
        for line in text.split(|&b| b == b'\n') {
            if let Some(rest) = line.strip_prefix(b"SigQ:\t") {
                let mut numbers = rest.split(|&b| b == b'/').map(|digits| number(digits, 10));
                self.queue = numbers.next().flatten().zip(numbers.next().flatten());
            } else if let Some(rest) = line.strip_prefix(b"SigPnd:\t") {
                self.own = number(rest, 16);
            } else if let Some(rest) = line.strip_prefix(b"ShdPnd:\t") {
                let (queued, limit) = self.queue?;
                let saturate = |n: u64| u32::try_from(n).unwrap_or(u32::MAX);
                let pending = self.own? | number(rest, 16)?;
                return Some(SignalQueue {
                    queued: saturate(queued),
                    limit: saturate(limit),
                    pending,
                });
            }
        }
        None
    }
}

fn number(digits: &[u8], radix: u32) -> Option<u64> {
    let digit = |b: &u8| char::from(*b).to_digit(radix);
    let add = |n: u64, d: u32| n.checked_mul(radix.into())?.checked_add(d.into());
    digits.iter().try_fold(0u64, |n, b| add(n, digit(b)?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsFd;

    #[test]
    fn reads_the_three_lines() {
        let text =
            b"Name:\tx\nSigQ:\t3/96365\nSigPnd:\t0000000000000001\nShdPnd:\t0000000200000000\nSigBlk:\t0\n";
        let queue = Lines::default().take(text).unwrap();
        assert_eq!(
            queue,
            SignalQueue {
                queued: 3,
                limit: 96365,
                pending: 0x2_0000_0001
            }
        );
        assert!(queue.has(1) && queue.has(34) && !queue.has(33) && !queue.has(0) && !queue.has(65));
    }

    #[test]
    fn a_text_without_them_says_nothing() {
        for text in [
            &b""[..],
            b"SigQ:\t3\n",
            b"SigQ:\tx/y\nSigPnd:\t0\nShdPnd:\t0\n",
            b"SigQ:\t1/2\nShdPnd:\t0\n",
        ] {
            assert_eq!(Lines::default().take(text), None);
        }
    }

    /// As of a process in 2,000 groups: the lines begin in the fifth read, and each place in the
    /// file is once where a read ends.
    #[test]
    fn lines_behind_many_groups_are_found_wherever_a_read_ends() {
        let groups: String = (0..2000).map(|n| format!("{} ", 1_000_000 + n)).collect();
        let path = std::env::temp_dir().join(format!("rtd-status-{}", std::process::id()));
        for pad in 0..200 {
            let name = "n".repeat(pad);
            let text = format!(
                "Name:\t{name}\nGroups:\t{groups}\nSigQ:\t3/96365\nSigPnd:\t0000000000000001\n\
                 ShdPnd:\t0000000200000000\nSigBlk:\t0000000000000000\n"
            );
            std::fs::write(&path, text).unwrap();
            let file = std::fs::File::open(&path).unwrap();
            let queue = SignalQueue {
                queued: 3,
                limit: 96365,
                pending: 0x2_0000_0001,
            };
            assert_eq!(read(file.as_fd()), Some(queue), "{pad}");
        }
        std::fs::remove_file(&path).unwrap();
    }

    #[test]
    fn the_kernels_own_file_has_them() {
        let file = std::fs::File::open("/proc/thread-self/status").unwrap();
        assert!(read(file.as_fd()).unwrap().limit > 0);
    }
}
