//! Resource limits and the sysctls that bound message queues and signals.
