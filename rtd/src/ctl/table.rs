//! Aligned columns of plain text.
//!
//! Invariant: a cell that is missing or too many does not happen; a row is built from the same list as the
//! header.

#![forbid(unsafe_code)]

/// Where a column's text stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Align {
    /// Names.
    Left,
    /// Numbers.
    Right,
}

/// Rows under a header.
#[derive(Debug)]
pub struct Table {
    columns: Vec<(String, Align)>,
    rows: Vec<Vec<String>>,
}

impl Table {
    /// An empty table.
    pub fn new(columns: Vec<(String, Align)>) -> Table {
        Table { columns, rows: Vec::new() }
    }

    /// Adds a row.
    pub fn row(&mut self, cells: Vec<String>) {
        debug_assert_eq!(cells.len(), self.columns.len());
        self.rows.push(cells);
    }

    /// Appends the header and the rows to `out`; nothing at all when there are no rows.
    pub fn render(&self, out: &mut String) {
        if self.rows.is_empty() {
            return;
        }
        let width = |text: &str| text.chars().count();
        let mut widths: Vec<usize> = self.columns.iter().map(|(title, _)| width(title)).collect();
        for row in &self.rows {
            for (column, cell) in widths.iter_mut().zip(row) {
                *column = (*column).max(width(cell));
            }
        }
        let titles: Vec<String> = self.columns.iter().map(|(title, _)| title.clone()).collect();
        for row in std::iter::once(&titles).chain(&self.rows) {
            let mut line = String::new();
            for ((cell, &column), (_, align)) in row.iter().zip(&widths).zip(&self.columns) {
                if !line.is_empty() {
                    line.push_str("  ");
                }
                match align {
                    Align::Left => line.push_str(&format!("{cell:<column$}")),
                    Align::Right => line.push_str(&format!("{cell:>column$}")),
                }
            }
            out.push_str(line.trim_end());
            out.push('\n');
        }
    }
}

/// A left-aligned column.
pub fn left(title: &str) -> (String, Align) {
    (title.to_owned(), Align::Left)
}

/// A right-aligned column.
pub fn right(title: &str) -> (String, Align) {
    (title.to_owned(), Align::Right)
}

/// Text, or `-` for nothing.
pub fn or_dash(text: impl Into<String>) -> String {
    let text = text.into();
    if text.is_empty() { "-".to_owned() } else { text }
}

/// Nanoseconds as microseconds with one decimal.
pub fn us(ns: u64) -> String {
    format!("{}.{}", ns / 1000, ns % 1000 / 100)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up_and_lines_end_without_blanks() {
        let mut table = Table::new(vec![left("NAME"), right("COUNT"), left("NOTE")]);
        table.row(vec!["ü".into(), "1".into(), String::new()]);
        table.row(vec!["longer".into(), "1234567".into(), "x".into()]);
        let mut out = String::new();
        table.render(&mut out);
        assert_eq!(out, "NAME      COUNT  NOTE\nü             1\nlonger  1234567  x\n");
    }

    #[test]
    fn microseconds_have_one_decimal_cut_not_rounded() {
        assert_eq!([us(0), us(99), us(4_250), us(12_345_678)], ["0.0", "0.0", "4.2", "12345.6"]);
    }
}
