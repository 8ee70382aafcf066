//! `rtd demo`: the embedded default.
