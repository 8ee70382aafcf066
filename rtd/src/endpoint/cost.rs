//! The resources that an endpoint needs.

/// Descriptors and memory. All fields are per endpoint, except `written`.
#[derive(Clone, Copy, Debug, Default)]
pub struct Cost {
    /// Descriptors of the endpoint itself.
    pub held: usize,
    /// Additional descriptors if a thread reads it.
    pub read: usize,
    /// Additional descriptors for each end of a route that writes it.
    pub written: usize,
    /// Bytes that the kernel charges against RLIMIT_MSGQUEUE.
    pub queue_bytes: u64,
    /// Bytes, headers included, on a skin whose queues are in a namespace of their own.
    pub private_queue_bytes: u64,
    /// Bytes of the buffer that datagrams are received into, if a thread reads it.
    pub buffer_bytes: u64,
}
