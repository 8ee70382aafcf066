//! The real-time calls as one table.
