//! The sessions of the daemon, as a pure state machine.
//!
//! Constraint: no input or output, no clock, no descriptor and no memory of a ring. The control
//! thread feeds events in and carries out the effects (`control::effects`, the one place that
//! does).

pub mod event;
pub mod state;

#[cfg(test)]
mod tests;
