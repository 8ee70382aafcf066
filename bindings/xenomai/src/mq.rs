//! The memory of a message queue in the core: the messages of one queue are in one piece of memory,
//! each after a header.
//!
//! From Xenomai's `kernel/cobalt/posix/mqueue.c`; the limit was met on a 3.3.1 core (Linux 6.6).

/// The header of each message in the core: a list entry, a priority, a length.
const HEADER_BYTES: usize = 4 * size_of::<usize>();
/// Messages begin at a multiple of this.
const ALIGN_BYTES: usize = size_of::<usize>();

/// Largest piece of memory that the core gets for a queue: 1024 pages of Linux (vmalloc, of an
/// order up to MAX_ORDER). Kernels before 6.4 allow twice as much; `xenomai.sysheap_size` has no
/// part in it.
pub const QUEUE_BYTES_MAX: usize = 4 << 20;

/// Bytes of a queue of this many messages of that size, headers included.
pub const fn queue_bytes(maxmsg: usize, msgsize: usize) -> usize {
    maxmsg.saturating_mul(message_bytes(msgsize))
}

/// The most messages of that size that a queue can have; 0 if one alone is too large.
pub const fn maxmsg_max(msgsize: usize) -> usize {
    QUEUE_BYTES_MAX / message_bytes(msgsize)
}

/// The longest messages of which a queue can have this many; 0 if headers alone are too large, or
/// for no messages.
pub const fn msgsize_max(maxmsg: usize) -> usize {
    let Some(message) = QUEUE_BYTES_MAX.checked_div(maxmsg) else {
        return 0;
    };
    (message / ALIGN_BYTES * ALIGN_BYTES).saturating_sub(HEADER_BYTES)
}

const fn message_bytes(msgsize: usize) -> usize {
    msgsize
        .saturating_add(HEADER_BYTES)
        .div_ceil(ALIGN_BYTES)
        .saturating_mul(ALIGN_BYTES)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_count_and_the_limit_is_inclusive() {
        assert_eq!(queue_bytes(10, 64), 10 * 96);
        assert_eq!(queue_bytes(10, 65), 10 * 104);
        assert_eq!(maxmsg_max(8192 - 32), 512);
        assert_eq!(queue_bytes(512, 8192 - 32), QUEUE_BYTES_MAX);
        assert_eq!(maxmsg_max(QUEUE_BYTES_MAX), 0);
        for maxmsg in [1, 3, 10, 513, 65_536] {
            let msgsize = msgsize_max(maxmsg);
            assert!(
                queue_bytes(maxmsg, msgsize) <= QUEUE_BYTES_MAX,
                "{maxmsg} x {msgsize}"
            );
            assert!(
                queue_bytes(maxmsg, msgsize + 1) > QUEUE_BYTES_MAX,
                "{maxmsg} x {msgsize}"
            );
        }
        assert_eq!((msgsize_max(65_536), msgsize_max(1 << 20)), (32, 0));
        assert_eq!(queue_bytes(usize::MAX, usize::MAX), usize::MAX);
    }
}
