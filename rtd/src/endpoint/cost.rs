//! What an endpoint takes of the machine.

/// Descriptors and memory. All of it is per endpoint, except what is read or written more than
/// once.
#[derive(Clone, Copy, Debug, Default)]
pub struct Cost {
    /// Descriptors of the endpoint itself.
    pub held: usize,
    /// More descriptors if a thread reads it.
    pub read: usize,
    /// More descriptors for each end of a route that writes it.
    pub written: usize,
    /// Bytes that the kernel charges against RLIMIT_MSGQUEUE.
    pub queue_bytes: u64,
    /// Bytes, headers included, on a skin whose queues are in a namespace of their own.
    pub private_queue_bytes: u64,
    /// Bytes of the buffer that datagrams are received into, if a thread reads it.
    pub buffer_bytes: u64,
}
