//! The readiness set of the control thread (never on a real-time thread).
