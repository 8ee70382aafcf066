//! How many signals wait for a process: the SigQ, SigPnd and ShdPnd lines of /proc/PID/task/TID/status
//! (proc_pid_status(5)).
//!
//! Constraint: read from an open descriptor into the stack, without the heap, because a lane thread asks when
//! a receiver's credit is used up.

use std::os::fd::BorrowedFd;

/// What the file said.
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

/// Reads the file from its beginning; none when the process is gone or a line is missing.
pub fn read(status: BorrowedFd<'_>) -> Option<SignalQueue> {
    // The three lines come within the first 2 KiB, also with the longest name and many groups.
    let mut buffer = [0; 4096];
    let n = rustix::io::pread(status, &mut buffer, 0).ok()?;
    parse(buffer.get(..n)?)
}

fn parse(text: &[u8]) -> Option<SignalQueue> {
    let (mut queue, mut own, mut shared) = (None, None, None);
    for line in text.split(|&b| b == b'\n') {
        if let Some(rest) = line.strip_prefix(b"SigQ:\t") {
            let at = rest.iter().position(|&b| b == b'/')?;
            queue = Some((number(&rest[..at], 10)?, number(&rest[at + 1..], 10)?));
        } else if let Some(rest) = line.strip_prefix(b"SigPnd:\t") {
            own = number(rest, 16);
        } else if let Some(rest) = line.strip_prefix(b"ShdPnd:\t") {
            shared = number(rest, 16);
            break;
        }
    }
    let (queued, limit) = queue?;
    let saturate = |n: u64| u32::try_from(n).unwrap_or(u32::MAX);
    Some(SignalQueue { queued: saturate(queued), limit: saturate(limit), pending: own? | shared? })
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
        let queue = parse(text).unwrap();
        assert_eq!(queue, SignalQueue { queued: 3, limit: 96365, pending: 0x2_0000_0001 });
        assert!(queue.has(1) && queue.has(34) && !queue.has(33) && !queue.has(0) && !queue.has(65));
    }

    #[test]
    fn a_text_without_them_says_nothing() {
        for text in
            [&b""[..], b"SigQ:\t3\n", b"SigQ:\tx/y\nSigPnd:\t0\nShdPnd:\t0\n", b"SigQ:\t1/2\nShdPnd:\t0\n"]
        {
            assert_eq!(parse(text), None);
        }
    }

    #[test]
    fn the_kernels_own_file_has_them() {
        let file = std::fs::File::open("/proc/thread-self/status").unwrap();
        assert!(read(file.as_fd()).unwrap().limit > 0);
    }
}
