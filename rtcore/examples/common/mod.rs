//! What the controller and the drive agree on.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Target position and speed of the drive. `repr(C)` without padding: both programs see the same
/// bytes.
#[derive(Clone, Copy, Debug, FromBytes, Immutable, IntoBytes, KnownLayout)]
#[repr(C)]
pub struct SetPoint {
    /// Radians.
    pub position: f64,
    /// Radians a second.
    pub velocity: f64,
}

/// Time to run, from `--seconds N`; without it, for ever.
pub fn seconds() -> Result<u64, String> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    match args[..] {
        [] => Ok(u64::MAX),
        ["--seconds", text] => text.parse().map_err(|e| format!("--seconds {text}: {e}")),
        _ => Err(format!("{args:?}: the only option is --seconds N")),
    }
}
