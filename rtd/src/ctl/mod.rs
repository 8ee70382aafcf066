//! The commands of `rtctl`.

pub mod cleanup;
pub mod document;
mod figures;
pub mod flush;
pub mod listen;
pub mod ls;
pub mod page;
pub mod payload;
pub mod queue;
pub mod register;
pub mod run;
pub mod send;
pub mod sheet;
pub mod stats;
pub mod table;
pub mod verdict;

/// A number of seconds on the command line, within bounds.
fn seconds_within(text: &str, min: f64, max: f64) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(seconds) if (min..=max).contains(&seconds) => Ok(seconds),
        _ => Err(format!("expected {min} to {max} seconds")),
    }
}

#[cfg(test)]
mod tests;
