//! TOML text to a checked [`Plan`], with every problem reported at once.
//!
//! Steps: text -> [`sections::Config`] (as written, each key with its place; `reader`, `values`) ->
//! [`Plan`] (`resolve`: names to indices, rules between sections, limits of the [`Machine`]). Each
//! step reports its problems and continues, so that one run shows all of them.
//!
//! Invariant: the result contains a plan only if no error was reported.
#![forbid(unsafe_code)]

pub mod cobalt;
pub mod command;
pub mod diagnostic;
mod known;
pub mod machine;
mod picture;
mod prepared;
pub(crate) mod reader;
mod reference;
pub(crate) mod resolve;
pub mod schema;
pub mod sections;
mod suggest;
mod summary;
mod syntax;
pub mod values;

#[cfg(test)]
mod tests;

use crate::plan::{Plan, SkinChoice};
pub use diagnostic::{Diagnostic, Severity};
use diagnostic::{Place, Report};
pub use machine::Machine;
pub use prepared::notes as machine_notes;
pub(crate) use resolve::library;
pub use summary::summary;
use toml::de::DeTable;

/// The name of an instance whose configuration gives none.
pub const DEFAULT_INSTANCE: &str = "rtd";
/// Largest configuration file.
pub const FILE_BYTES_MAX: usize = 1024 * 1024;

/// Shortcomings that the caller allows.
#[derive(Clone, Copy, Debug, Default)]
pub struct CheckOptions {
    /// Locked memory and real-time priority that are not granted are warnings (`--allow-degraded`).
    pub allow_degraded: bool,
    /// The skin that replaces the file's (`--skin`).
    pub skin: Option<SkinChoice>,
}

/// The result of a check.
#[derive(Debug)]
pub struct Checked {
    /// The plan, if there was no error.
    pub plan: Option<Plan>,
    /// Errors and warnings in the order of the file.
    pub diagnostics: Vec<Diagnostic>,
}

/// Checks a configuration against a machine; `path_or_name` is the file's name in diagnostics.
///
/// The error holds every problem, warnings included. Use [`check_with`] for the warnings of a plan
/// that can run.
pub fn check(path_or_name: &str, text: &str, machine: &Machine) -> Result<Plan, Vec<Diagnostic>> {
    let checked = check_with(path_or_name, text, machine, CheckOptions::default());
    checked.plan.ok_or(checked.diagnostics)
}

/// As [`check`], with options, and with warnings in either case.
pub fn check_with(
    path_or_name: &str,
    text: &str,
    machine: &Machine,
    options: CheckOptions,
) -> Checked {
    let mut report = Report::new(path_or_name, text);
    if text.len() > FILE_BYTES_MAX {
        let message = format!(
            "{} bytes of configuration, the limit is {FILE_BYTES_MAX}",
            text.len()
        );
        let place = Place {
            span: 0..0,
            key: String::new(),
        };
        report.error(&place, message, "split the deployment over several daemons");
        return Checked {
            plan: None,
            diagnostics: report.finish(),
        };
    }
    let (root, errors) = DeTable::parse_recoverable(text);
    for error in errors {
        let span = error.span().unwrap_or(0..0);
        let hint = syntax::hint(report.line_text(span.start), error.message());
        report.syntax(span, format!("syntax: {}", error.message()), &hint);
    }
    let config = sections::Config::read(&mut report, root.get_ref());
    let plan = resolve::plan(&config, machine, options, &mut report);
    let diagnostics = report.finish();
    let refused = diagnostics.iter().any(Diagnostic::is_error);
    Checked {
        plan: (!refused).then_some(plan),
        diagnostics,
    }
}
