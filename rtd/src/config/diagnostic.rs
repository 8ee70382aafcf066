//! Problems with a configuration: the place, the fault, and the line that fixes it.
//!
//! Constraint: the text of a file is untrusted output on a terminal, so control characters in
//! quoted lines are replaced, and a long line is shown as a window around the fault.

use rtcore::sys::printable::printable_char;
use serde::Serialize;
use std::collections::BTreeSet;
use std::fmt;
use std::ops::Range;

/// Limit of the problems that are stored for one file; a note replaces the rest.
pub const DIAGNOSTICS_MAX: usize = 200;
/// Limit of the shown piece of a source line, in characters.
const LINE_CHARS_MAX: usize = 160;
/// Characters that are shown before the fault if the line is longer than that.
const LINE_CHARS_BEFORE: usize = 60;

/// Whether a problem refuses the plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// The plan is refused.
    Error,
    /// The plan runs, but probably not as intended.
    Warning,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Diagnostic {
    /// Error or warning.
    pub severity: Severity,
    /// Name of the file as it was passed.
    pub file: String,
    /// Line, from 1.
    pub line: usize,
    /// Column in characters, from 1.
    pub column: usize,
    /// Length of the fault in characters, at least 1, within the line.
    pub length: usize,
    /// Path of the key such as `route[2].lane` (counted from 0), empty for the file as a whole.
    pub key: String,
    /// The fault, with the value and the limit.
    pub message: String,
    /// The text to write or the command to run instead; several lines are alternatives.
    pub fix: String,
    /// The line as it is in the file, or the piece around the fault if it is long; control
    /// characters are replaced.
    pub source_line: String,
    /// Characters of `source_line` in front of the fault.
    pub caret: usize,
}

impl Diagnostic {
    /// Whether it refuses the plan.
    pub fn is_error(&self) -> bool {
        self.severity == Severity::Error
    }
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let severity = if self.is_error() { "error" } else { "warning" };
        writeln!(
            f,
            "{}:{}:{}: {severity}: {}",
            self.file, self.line, self.column, self.message
        )?;
        let gutter = self.line.to_string();
        writeln!(f, "{gutter} | {}", self.source_line)?;
        // Tabs before the caret stay tabs, so that it is below the fault at any tab width.
        let before = self.source_line.chars().take(self.caret);
        let indent: String = before.map(|c| if c == '\t' { '\t' } else { ' ' }).collect();
        let room = self
            .source_line
            .chars()
            .count()
            .saturating_sub(self.caret)
            .max(1);
        let carets = "^".repeat(self.length.clamp(1, room));
        let blank = " ".repeat(gutter.len());
        writeln!(
            f,
            "{blank} | {indent}{carets}{}{}",
            if self.key.is_empty() { "" } else { " " },
            self.key
        )?;
        let mut label = "fix:";
        for line in self.fix.lines() {
            writeln!(f, "{blank} = {label} {line}")?;
            label = " or:";
        }
        Ok(())
    }
}

/// The piece of a line to show and the characters in front of the fault at `column` (from 1) in it.
fn window(line: &str, column: usize) -> (String, usize) {
    let before = column.saturating_sub(1);
    let start = if line.chars().nth(LINE_CHARS_MAX).is_some() {
        before.saturating_sub(LINE_CHARS_BEFORE)
    } else {
        0
    };
    let safe = |c: char| if c == '\t' { c } else { printable_char(c) };
    let piece = line
        .chars()
        .skip(start)
        .take(LINE_CHARS_MAX)
        .map(safe)
        .collect();
    (piece, before - start)
}

/// A place in the text, and its key path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// Byte range in the text.
    pub span: Range<usize>,
    pub key: String,
}

/// Collects the problems of one file.
pub struct Report<'t> {
    file: String,
    text: &'t str,
    /// Start of each line; a file with many faults is searched without a scan for each fault.
    line_starts: Vec<usize>,
    found: Vec<(usize, Diagnostic)>,
    /// Lines (from 1) with broken syntax: other faults on them are consequences.
    broken_lines: BTreeSet<usize>,
    dropped: usize,
}

impl<'t> Report<'t> {
    /// An empty report on a text.
    pub fn new(file: &str, text: &'t str) -> Report<'t> {
        let breaks = text
            .bytes()
            .enumerate()
            .filter(|(_, byte)| *byte == b'\n')
            .map(|(at, _)| at + 1);
        Report {
            file: file.to_owned(),
            text,
            line_starts: std::iter::once(0).chain(breaks).collect(),
            found: Vec::new(),
            broken_lines: BTreeSet::new(),
            dropped: 0,
        }
    }

    pub fn text(&self) -> &'t str {
        self.text
    }

    /// A fault in the syntax; hides its consequences on the same line.
    pub fn syntax(&mut self, span: Range<usize>, message: String, fix: &str) {
        let line = self.locate(span.start).0;
        self.push(
            Severity::Error,
            &Place {
                span,
                key: String::new(),
            },
            message,
            fix.to_owned(),
        );
        self.broken_lines.insert(line);
    }

    /// Whether there was a syntax fault: names may then be missing although the author wrote them.
    pub fn has_broken_lines(&self) -> bool {
        !self.broken_lines.is_empty()
    }

    /// Adds an error.
    pub fn error(&mut self, place: &Place, message: impl Into<String>, fix: impl Into<String>) {
        self.push(Severity::Error, place, message.into(), fix.into());
    }

    /// Adds a warning.
    pub fn warning(&mut self, place: &Place, message: impl Into<String>, fix: impl Into<String>) {
        self.push(Severity::Warning, place, message.into(), fix.into());
    }

    /// Adds an error, or a warning if the caller allows the shortcoming.
    pub fn error_unless(&mut self, allowed: bool, place: &Place, message: String, fix: String) {
        let severity = if allowed {
            Severity::Warning
        } else {
            Severity::Error
        };
        self.push(severity, place, message, fix);
    }

    fn push(&mut self, severity: Severity, place: &Place, message: String, fix: String) {
        // Warnings are dropped first: the number of errors decides whether the plan is refused. A
        // dropped problem is not located: a file may consist of faults only.
        let full = self.found.len() >= DIAGNOSTICS_MAX;
        let warning = || self.found.iter().rposition(|(_, d)| !d.is_error());
        let gives_way = if full && severity == Severity::Error {
            warning()
        } else {
            None
        };
        if full && gives_way.is_none() {
            self.dropped += 1;
            return;
        }
        let (line, column, source_line) = self.locate(place.span.start);
        if self.broken_lines.contains(&line) {
            return;
        }
        if let Some(warning) = gives_way {
            self.dropped += 1;
            self.found.remove(warning);
        }
        let end = place.span.end.max(place.span.start);
        let length = self.text.get(place.span.start..end).map_or(1, |s| {
            let first_line = s.lines().next().unwrap_or("");
            first_line.chars().take(LINE_CHARS_MAX).count().max(1)
        });
        let (source_line, caret) = window(source_line, column);
        let diagnostic = Diagnostic {
            severity,
            file: self.file.clone(),
            line,
            column,
            length,
            key: place.key.clone(),
            message,
            fix,
            source_line,
            caret,
        };
        self.found.push((place.span.start, diagnostic));
    }

    /// Line and column (from 1) of a byte offset, and the line's text.
    fn locate(&self, offset: usize) -> (usize, usize, &'t str) {
        let mut offset = offset.min(self.text.len());
        while !self.text.is_char_boundary(offset) {
            offset -= 1;
        }
        let line = self.line_starts.partition_point(|start| *start <= offset);
        let line_start = self.line_starts.get(line - 1).copied().unwrap_or(0);
        let column = self.text[line_start..offset].chars().count() + 1;
        let rest = &self.text[line_start..];
        let source_line = rest.split('\n').next().unwrap_or("").trim_end_matches('\r');
        (line, column, source_line)
    }

    /// The text of the line that a byte offset is in.
    pub fn line_text(&self, offset: usize) -> &'t str {
        self.locate(offset).2
    }

    /// The line (from 1) of a place.
    pub fn line(&self, place: &Place) -> usize {
        self.locate(place.span.start).0
    }

    /// All problems, in the order of the file.
    pub fn finish(mut self) -> Vec<Diagnostic> {
        // A stable sort: the first problem found at a place stays first.
        self.found.sort_by_key(|(offset, _)| *offset);
        let mut all: Vec<Diagnostic> = self
            .found
            .into_iter()
            .map(|(_, diagnostic)| diagnostic)
            .collect();
        if self.dropped > 0
            && let Some(last) = all.last().cloned()
        {
            let message = format!("{} more problems are not shown", self.dropped);
            all.push(Diagnostic {
                message,
                fix: "fix those above first".to_owned(),
                ..last
            });
        }
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(text: &str, span: Range<usize>) -> Diagnostic {
        let mut report = Report::new("f.toml", text);
        let place = Place {
            span,
            key: "lane[0].cpu".to_owned(),
        };
        report.error(&place, "no such CPU", "cpu = 0\ncpu = 1");
        report.finish().remove(0)
    }

    #[test]
    fn the_caret_stands_under_the_fault() {
        let text = "[[lane]]\n\tcpu = 77 # é\n";
        let shown = one(text, 16..18).to_string();
        let expected = "f.toml:2:8: error: no such CPU\n2 | \tcpu = 77 # é\n  | \t      ^^ lane[0].cpu\n  = fix: cpu = 0\n  =  or: cpu = 1\n";
        assert_eq!(shown, expected);
    }

    #[test]
    fn columns_count_characters_and_offsets_may_be_anywhere() {
        let text = "é = 1\r\nx";
        assert_eq!(one(text, 3..4).column, 3);
        assert_eq!(one(text, 1..1).column, 1);
        assert_eq!(one(text, 1..1).source_line, "é = 1");
        assert_eq!(one(text, 999..1000).line, 2);
    }

    #[test]
    fn control_characters_do_not_reach_the_terminal_and_long_lines_are_cut() {
        let text = format!("a = \"\x1b[2J\" # {}", "x".repeat(5000));
        let shown = one(&text, 4..9).to_string();
        assert!(!shown.contains('\x1b'));
        assert!(shown.lines().all(|line| line.chars().count() < 200));
        let shown = one(&text, 4000..4001).to_string();
        assert!(
            shown.lines().all(|line| line.chars().count() < 200),
            "{shown}"
        );
    }

    #[test]
    fn a_flood_of_problems_is_cut_and_errors_outlive_warnings() {
        let mut report = Report::new("f", "x");
        let place = Place {
            span: 0..1,
            key: String::new(),
        };
        for _ in 0..DIAGNOSTICS_MAX {
            report.warning(&place, "w", "m");
        }
        report.error(&place, "e", "m");
        let all = report.finish();
        assert_eq!(all.len(), DIAGNOSTICS_MAX + 1);
        assert_eq!(
            all.iter().filter(|d| d.is_error()).count(),
            2,
            "the error and the closing note"
        );
    }
}
