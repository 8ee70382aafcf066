//! SCHED_FIFO, pinning and thread identity, each read back after it was set.
