//! What a control process links: sessions, senders, inboxes, signals without handlers, one wait.

pub mod signals;
pub mod waiter;
