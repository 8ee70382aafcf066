//! A page of text and tables for one output, at the terminal's width or without a limit.
//!
//! Invariant: columns that a table omits for lack of room are listed at the end, with the option
//! that shows them.

#![forbid(unsafe_code)]

use super::table::Table;
use crate::words::{self, filled};

/// How wide a command prints.
#[derive(Clone, Copy, Debug, Default, clap::Args)]
pub struct WidthArgs {
    /// Print all columns in full, even if the lines are longer than the terminal is wide
    #[arg(long, short)]
    pub wide: bool,
}

impl WidthArgs {
    /// The width in columns: that of `$COLUMNS`, which watch(1) sets, otherwise that of the
    /// terminal. None, so that everything is printed, with `--wide`, and into a file or a pipe.
    pub fn columns(self) -> Option<usize> {
        if self.wide {
            return None;
        }
        words::output_columns()
    }
}

/// A page under construction.
#[derive(Debug)]
pub struct Sheet {
    columns: Option<usize>,
    text: String,
    left_out: Vec<String>,
}

impl Sheet {
    /// An empty one.
    pub fn new(columns: Option<usize>) -> Sheet {
        Sheet {
            columns,
            text: String::new(),
            left_out: Vec::new(),
        }
    }

    /// Adds a line of prose, broken between words if there is no room.
    pub fn line(&mut self, text: &str) {
        self.text.push_str(&filled(text, self.columns));
        self.text.push('\n');
    }

    /// Adds a table with an empty line above it; nothing if it has no rows.
    pub fn table(&mut self, table: &Table) {
        self.captioned("", table);
    }

    /// The same with a line of prose above the header.
    pub fn captioned(&mut self, caption: &str, table: &Table) {
        if table.is_empty() {
            return;
        }
        self.text.push('\n');
        if !caption.is_empty() {
            self.line(caption);
        }
        for title in table.render_within(self.columns, &mut self.text) {
            if !self.left_out.contains(&title) {
                self.left_out.push(title);
            }
        }
    }

    /// The whole text.
    pub fn finish(mut self) -> String {
        if !self.left_out.is_empty() {
            let note = format!(
                "not shown for lack of room (--wide): {}",
                self.left_out.join(" ")
            );
            self.text.push('\n');
            self.line(&note);
        }
        self.text
    }
}

#[cfg(test)]
mod tests {
    use super::super::table::{left, right};
    use super::*;

    #[test]
    fn what_is_left_out_is_named_once() {
        let mut sheet = Sheet::new(Some(12));
        for name in ["a", "b"] {
            let mut table = Table::new(vec![
                left("NAME"),
                right("COUNT").rank(1),
                right("OTHER").rank(2),
            ]);
            table.row(vec![name.into(), "1".into(), "2".into()]);
            sheet.table(&table);
        }
        let text = sheet.finish();
        assert!(
            text.starts_with("\nNAME  COUNT\na         1\n\nNAME  COUNT\n"),
            "{text}"
        );
        assert_eq!(text.matches("OTHER").count(), 1, "{text}");
    }
}
