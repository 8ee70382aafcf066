//! A System V message queue without a key (sysvipc(7), msgget(2) IPC_PRIVATE).
//!
//! Its number is seen by the whole ipc namespace (ipcs -q), so its mode lets its user alone use it.
//! The kernel keeps it until a process removes it: its maker does so on drop, a forked child does
//! not.

use rtcore::sys::context::named;
use rtcore::sys::{Call, Errno};
use std::io;

/// A sysctl that bounds these queues.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sysctl {
    /// kernel.msgmax: bytes per message.
    Msgmax,
    /// kernel.msgmnb: bytes per queue.
    Msgmnb,
}

impl Sysctl {
    /// As sysctl(8) takes it.
    pub fn name(self) -> &'static str {
        match self {
            Sysctl::Msgmax => "kernel.msgmax",
            Sysctl::Msgmnb => "kernel.msgmnb",
        }
    }

    /// Its value in bytes.
    pub fn read(self) -> io::Result<usize> {
        let path = match self {
            Sysctl::Msgmax => "/proc/sys/kernel/msgmax",
            Sysctl::Msgmnb => "/proc/sys/kernel/msgmnb",
        };
        let text = std::fs::read_to_string(path).map_err(|e| named(path, e))?;
        let text = text.trim();
        let no_number = || {
            io::Error::new(
                io::ErrorKind::InvalidData,
                format!("{path}: `{text}` is not a number"),
            )
        };
        text.parse().map_err(|_| no_number())
    }
}

/// A message as the calls take it: its type, then its bytes.
#[derive(Debug)]
pub struct Message {
    /// The type in the first word (1; the calls refuse 0), the bytes from the second on.
    words: Vec<libc::c_long>,
    bytes: usize,
}

impl Message {
    /// Room for this many bytes, all zero and present.
    pub fn new(bytes: usize) -> Message {
        Message {
            words: vec![1; 1 + bytes.div_ceil(size_of::<libc::c_long>())],
            bytes,
        }
        .cleared()
    }

    fn cleared(mut self) -> Message {
        self.bytes_mut().fill(0);
        self
    }

    pub fn bytes(&self) -> &[u8] {
        // SAFETY: `words` has room for `bytes` bytes behind the first word (`new`), all of them
        // written.
        unsafe { std::slice::from_raw_parts(self.words.as_ptr().add(1).cast(), self.bytes) }
    }

    /// The bytes, for writing.
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        // SAFETY: as in `bytes`; borrowed exclusively.
        unsafe { std::slice::from_raw_parts_mut(self.words.as_mut_ptr().add(1).cast(), self.bytes) }
    }
}

#[derive(Debug)]
pub struct Queue {
    id: i32,
    maker: i32,
}

impl Queue {
    /// An empty queue of mode 0600.
    ///
    /// Errors: ENOSPC at kernel.msgmni queues; ENOSYS on a kernel without them.
    pub fn new() -> io::Result<Queue> {
        // SAFETY: plain integers.
        let id = unsafe { libc::msgget(libc::IPC_PRIVATE, libc::IPC_CREAT | 0o600) };
        if id >= 0 {
            return Ok(Queue {
                id,
                maker: rtcore::sys::sched::getpid(),
            });
        }
        let e = io::Error::last_os_error();
        let fix = match e.raw_os_error() {
            Some(libc::ENOSPC) => {
                "; the limit is kernel.msgmni: ipcs -q lists the queues, ipcrm -q ID removes one, \
                 sysctl -w kernel.msgmni=N admits more"
            }
            _ => "",
        };
        Err(io::Error::new(
            e.kind(),
            format!("cannot make a System V message queue: {e}{fix}"),
        ))
    }

    /// Its number, as ipcs(1) shows it.
    pub fn id(&self) -> i32 {
        self.id
    }

    /// Adds a message (msgsnd(2)). EAGAIN: no room; EINVAL: longer than kernel.msgmax.
    #[inline]
    pub fn send(&self, message: &Message) -> Call<()> {
        let at = message.words.as_ptr().cast();
        // SAFETY: a long and `bytes` bytes behind it are readable (Message::new).
        let rc = unsafe { libc::msgsnd(self.id, at, message.bytes, libc::IPC_NOWAIT) };
        if rc < 0 { Err(Errno::last()) } else { Ok(()) }
    }

    /// Waits for the next message: its length (msgrcv(2)). EINTR after a signal handler; E2BIG: it
    /// is longer than `message`; EIDRM: the queue was removed.
    #[inline]
    pub fn receive(&self, message: &mut Message) -> Call<usize> {
        let at = message.words.as_mut_ptr().cast();
        // SAFETY: a long and `bytes` bytes behind it are writable (Message::new).
        let n = unsafe { libc::msgrcv(self.id, at, message.bytes, 0, 0) };
        usize::try_from(n).map_err(|_| Errno::last())
    }
}

impl Drop for Queue {
    fn drop(&mut self) {
        if self.maker == rtcore::sys::sched::getpid() {
            // SAFETY: plain integers; removing needs no buffer. A queue that is already removed is
            // no error.
            unsafe { libc::msgctl(self.id, libc::IPC_RMID, std::ptr::null_mut()) };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn exists(id: i32) -> bool {
        // SAFETY: msqid_ds is plain integers, for which zero is a value; writable for the call.
        unsafe {
            let mut state: libc::msqid_ds = std::mem::zeroed();
            libc::msgctl(id, libc::IPC_STAT, &raw mut state) == 0
        }
    }

    #[test]
    fn messages_come_in_order_and_the_queue_goes_with_who_made_it() {
        let queue = Queue::new().unwrap();
        let id = queue.id();
        let (mut sent, mut got) = (Message::new(25), Message::new(40));
        for n in 0..3 {
            sent.bytes_mut().fill(n);
            queue.send(&sent).unwrap();
        }
        for n in 0..3 {
            assert_eq!(queue.receive(&mut got), Ok(25));
            assert_eq!(
                (&got.bytes()[..25], &got.bytes()[25..]),
                (&[n; 25][..], &[0; 15][..])
            );
        }
        queue.send(&sent).unwrap();
        assert_eq!(
            queue.receive(&mut Message::new(24)),
            Err(Errno(libc::E2BIG))
        );
        assert!(exists(id));
        drop(queue);
        assert!(!exists(id));
    }

    #[test]
    fn a_full_queue_and_a_message_past_the_limit_are_errors() {
        let queue = Queue::new().unwrap();
        let message = Message::new(1024);
        let full =
            (0..=Sysctl::Msgmnb.read().unwrap() / 1024).find_map(|_| queue.send(&message).err());
        assert_eq!(full, Some(Errno::AGAIN));
        let long = Message::new(Sysctl::Msgmax.read().unwrap() + 1);
        assert_eq!(queue.send(&long), Err(Errno(libc::EINVAL)));
    }
}
