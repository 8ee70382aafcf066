//! `rtd check FILE`: all problems on stderr, the plan on stdout as a summary or a picture.
//!
//! Exit codes: 0 the plan can run (with or without warnings), 1 it is refused, 2 the file could not
//! be read or the result not written.

use super::{
    CheckOptions, Checked, Diagnostic, FILE_BYTES_MAX, Machine, check_with, picture, reference,
    schema, summary,
};
use crate::plan::Plan;
use crate::words::{counted, filled};
use rtcore::sys::{limits, memory};
use std::io::{self, Read, Write};
use std::path::Path;

/// The plan can run.
pub const EXIT_RUNS: u8 = 0;
/// The plan is refused.
pub const EXIT_REFUSED: u8 = 1;
/// The file could not be read, or the result could not be written.
pub const EXIT_IO: u8 = 2;

/// The output of `rtd check` on stdout; diagnostics go to stderr, except as JSON.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Output {
    /// A summary of the plan.
    #[default]
    Summary,
    /// The diagnostics as a JSON array.
    Json,
    /// A picture of lanes and routes.
    Svg,
}

/// Parameters of `rtd check`.
#[derive(Clone, Copy, Debug, Default)]
pub struct CheckArgs {
    /// The output on stdout.
    pub output: Output,
    /// The shortcomings that are allowed.
    pub options: CheckOptions,
    /// The width of the terminal, at which the lines of the summary are broken; none for a file or
    /// a pipe.
    pub columns: Option<usize>,
}

/// Checks a file (`-` is standard input) against this machine and prints the result. Returns the
/// exit code.
pub fn check(file: &Path, args: CheckArgs) -> u8 {
    // As `rtd run` does, so that both see the same limits and map the same memory.
    memory::configure_allocator();
    limits::raise_soft();
    check_on(
        file,
        args,
        &Machine::probe(),
        &mut io::stdout().lock(),
        &mut io::stderr().lock(),
    )
}

/// As [`check`], against any machine and onto any output.
pub fn check_on(
    file: &Path,
    args: CheckArgs,
    machine: &Machine,
    out: &mut dyn Write,
    err: &mut dyn Write,
) -> u8 {
    let text = match read(file) {
        Ok(text) => text,
        Err(error) => {
            // If writing fails, there is no way to report it.
            let _ = writeln!(err, "rtd check: {}: {error}", file.display());
            return EXIT_IO;
        }
    };
    check_text(&file.display().to_string(), &text, args, machine, out, err)
}

/// As [`check_on`], for the content of a file.
pub fn check_text(
    name: &str,
    text: &str,
    args: CheckArgs,
    machine: &Machine,
    out: &mut dyn Write,
    err: &mut dyn Write,
) -> u8 {
    let checked = check_with(name, text, machine, args.options);
    let printed = match args.output {
        Output::Json => print_json(&checked, out),
        Output::Summary => print_text(&checked, out, err, |plan| {
            summary(plan, machine)
                .lines()
                .map(|line| filled(line, args.columns) + "\n")
                .collect()
        }),
        Output::Svg => print_text(&checked, out, err, picture::svg),
    };
    match (printed, checked.plan) {
        (Err(_), _) => EXIT_IO,
        (Ok(()), Some(_)) => EXIT_RUNS,
        (Ok(()), None) => EXIT_REFUSED,
    }
}

/// Prints the JSON schema. Returns the exit code.
pub fn print_schema() -> u8 {
    print(&schema::json())
}

/// Prints the reference of all keys. Returns the exit code.
pub fn print_reference() -> u8 {
    print(&reference::markdown())
}

fn print(text: &str) -> u8 {
    match io::stdout().lock().write_all(text.as_bytes()) {
        Ok(()) => EXIT_RUNS,
        Err(_) => EXIT_IO,
    }
}

/// Reads a configuration file with a bound on its size; `-` is standard input.
pub fn read(file: &Path) -> io::Result<String> {
    let mut bytes = Vec::new();
    // One byte more than the limit shows that it is exceeded, without reading a device to its end.
    let bound = FILE_BYTES_MAX as u64 + 1;
    if file == Path::new("-") {
        io::stdin().lock().take(bound).read_to_end(&mut bytes)?;
    } else {
        std::fs::File::open(file)?
            .take(bound)
            .read_to_end(&mut bytes)?;
    }
    String::from_utf8(bytes).map_err(|error| {
        let at = error.utf8_error().valid_up_to();
        let message = format!("not UTF-8 at byte {at}: a configuration is UTF-8 text");
        io::Error::new(io::ErrorKind::InvalidData, message)
    })
}

fn print_json(checked: &Checked, out: &mut dyn Write) -> io::Result<()> {
    serde_json::to_writer_pretty(&mut *out, &checked.diagnostics)?;
    out.write_all(b"\n")
}

fn print_text(
    checked: &Checked,
    out: &mut dyn Write,
    err: &mut dyn Write,
    show: impl Fn(&Plan) -> String,
) -> io::Result<()> {
    for diagnostic in &checked.diagnostics {
        writeln!(err, "{diagnostic}")?;
    }
    let errors = checked
        .diagnostics
        .iter()
        .filter(|d| Diagnostic::is_error(d))
        .count();
    let warnings = checked.diagnostics.len() - errors;
    if errors + warnings > 0 {
        writeln!(
            err,
            "{}, {}",
            counted(errors, "error"),
            counted(warnings, "warning")
        )?;
    }
    match &checked.plan {
        Some(plan) => out.write_all(show(plan).as_bytes()),
        None => Ok(()),
    }
}
