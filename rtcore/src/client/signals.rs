//! Signals without tears.
