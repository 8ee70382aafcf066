//! TOML text to `Config`, with every problem reported at once.
