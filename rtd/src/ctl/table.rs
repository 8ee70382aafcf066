//! Aligned columns of plain text.
//!
//! Within a width, a table first leaves out columns and then shortens text. A number is never
//! shortened.
//!
//! Invariant: a cell that is missing or too many does not happen; a row is built from the same list
//! as the header.

#![forbid(unsafe_code)]

/// Where a column's text stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Align {
    /// Names and other text.
    Left,
    Right,
}

/// A title, and what happens to its column where there is no room.
#[derive(Clone, Debug)]
pub struct Column {
    title: String,
    align: Align,
    rank: u8,
}

impl Column {
    /// 0, the default: the column is always there. The higher the rank, the earlier the column is
    /// left out.
    pub fn rank(self, rank: u8) -> Column {
        Column { rank, ..self }
    }
}

/// A left-aligned column.
pub fn left(title: &str) -> Column {
    Column {
        title: title.to_owned(),
        align: Align::Left,
        rank: 0,
    }
}

/// A right-aligned column.
pub fn right(title: &str) -> Column {
    Column {
        title: title.to_owned(),
        align: Align::Right,
        rank: 0,
    }
}

/// Between two columns.
const GAP: &str = "  ";
/// Text is shortened to this before a column is left out, and to less only where nothing else
/// helps.
const TEXT_COLUMNS: usize = 13;
/// Shorter than this, text says nothing.
const TEXT_COLUMNS_MIN: usize = 8;
const ELLIPSIS: &str = "...";

/// Rows under a header.
#[derive(Debug)]
pub struct Table {
    columns: Vec<Column>,
    rows: Vec<Vec<String>>,
}

impl Table {
    /// An empty table.
    pub fn new(columns: Vec<Column>) -> Table {
        Table {
            columns,
            rows: Vec::new(),
        }
    }

    /// Adds a row.
    pub fn row(&mut self, cells: Vec<String>) {
        debug_assert_eq!(cells.len(), self.columns.len());
        self.rows.push(cells);
    }

    /// Whether it has no rows.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// Appends the header and the rows to `out`; nothing at all when there are no rows.
    pub fn render(&self, out: &mut String) {
        self.render_within(None, out);
    }

    /// The same in lines of at most `width`; the titles of the columns that have no room.
    pub fn render_within(&self, width: Option<usize>, out: &mut String) -> Vec<String> {
        if self.rows.is_empty() {
            return Vec::new();
        }
        let mut widths: Vec<usize> = self
            .columns
            .iter()
            .map(|column| length(&column.title))
            .collect();
        for row in &self.rows {
            for (column, cell) in widths.iter_mut().zip(row) {
                *column = (*column).max(length(cell));
            }
        }
        let mut kept: Vec<usize> = (0..self.columns.len()).collect();
        if let Some(width) = width {
            kept = self.choose(&widths, width);
            self.shrink(&kept, &mut widths, width);
        }
        let titles: Vec<String> = self
            .columns
            .iter()
            .map(|column| column.title.clone())
            .collect();
        for row in std::iter::once(&titles).chain(&self.rows) {
            let mut line = String::new();
            for (n, &i) in kept.iter().enumerate() {
                let (cell, column) = (shortened(&row[i], widths[i]), widths[i]);
                line.push_str(if n == 0 { "" } else { GAP });
                match self.columns[i].align {
                    Align::Left => line.push_str(&format!("{cell:<column$}")),
                    Align::Right => line.push_str(&format!("{cell:>column$}")),
                }
            }
            out.push_str(line.trim_end());
            out.push('\n');
        }
        titles
            .into_iter()
            .enumerate()
            .filter(|(i, _)| !kept.contains(i))
            .map(|(_, title)| title)
            .collect()
    }

    /// The columns that fit: those of rank 0, then one after the other in the order of their ranks.
    /// A column in which nothing happened comes after all others, so that one loss shows its
    /// column.
    fn choose(&self, widths: &[usize], width: usize) -> Vec<usize> {
        let least = |i: usize| match self.columns[i].align {
            Align::Left => widths[i].min(TEXT_COLUMNS.max(length(&self.columns[i].title))),
            Align::Right => widths[i],
        };
        let mut order: Vec<usize> = (0..self.columns.len()).collect();
        order.sort_by_key(|&i| {
            let rank = self.columns[i].rank;
            (rank > 0, rank > 0 && self.is_idle(i), rank)
        });
        let (mut kept, mut used) = (Vec::new(), 0);
        for i in order {
            let more = least(i) + if kept.is_empty() { 0 } else { GAP.len() };
            if self.columns[i].rank == 0 || used + more <= width {
                kept.push(i);
                used += more;
            }
        }
        kept.sort_unstable();
        kept
    }

    /// Takes from the longest text until the lines are short enough, or no text can be shorter.
    fn shrink(&self, kept: &[usize], widths: &mut [usize], width: usize) {
        loop {
            let used =
                kept.iter().map(|&i| widths[i]).sum::<usize>() + GAP.len() * (kept.len() - 1);
            let texts = kept
                .iter()
                .filter(|&&i| self.columns[i].align == Align::Left);
            let longest = texts.copied().max_by_key(|&i| widths[i]);
            match longest.filter(|&i| used > width && widths[i] > TEXT_COLUMNS_MIN) {
                Some(i) => widths[i] -= 1,
                None => return,
            }
        }
    }

    fn is_idle(&self, column: usize) -> bool {
        self.rows
            .iter()
            .all(|row| matches!(row[column].as_str(), "0" | "-" | "" | "0.0" | "0.0%"))
    }
}

fn length(text: &str) -> usize {
    text.chars().count()
}

/// `text` in at most `width`. A name loses its middle, because names differ at both ends; words
/// lose what comes last.
fn shortened(text: &str, width: usize) -> String {
    let all = length(text);
    if all <= width {
        return text.to_owned();
    }
    let room = width.saturating_sub(ELLIPSIS.len());
    let head = if text.contains(' ') {
        room
    } else {
        room.div_ceil(2)
    };
    let tail = room - head;
    text.chars()
        .take(head)
        .chain(ELLIPSIS.chars())
        .chain(text.chars().skip(all - tail))
        .collect()
}

/// Text, or `-` for nothing.
pub fn or_dash(text: impl Into<String>) -> String {
    let text = text.into();
    if text.is_empty() {
        "-".to_owned()
    } else {
        text
    }
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
        assert_eq!(
            out,
            "NAME      COUNT  NOTE\nü             1\nlonger  1234567  x\n"
        );
    }

    /// Idle columns go first, then those of a high rank, then text is shortened; numbers stay
    /// whole.
    #[test]
    fn within_a_width_the_most_important_stays() {
        let columns = vec![
            left("NAME"),
            left("STATE"),
            right("ACCEPTED"),
            right("EXPIRED").rank(1),
            right("REJECTED").rank(1),
            right("P50").rank(2),
            right("P90").rank(3),
        ];
        let mut table = Table::new(columns);
        let name = "a.very.long.name.of.a.route->drive";
        table.row(
            [
                name,
                "losing: peer-dead",
                "12345678901",
                "0",
                "77",
                "1.5",
                "2.5",
            ]
            .map(str::to_owned)
            .into(),
        );
        let at = |width| {
            let mut out = String::new();
            let left_out = table.render_within(Some(width), &mut out);
            (left_out.join(" "), out)
        };
        assert_eq!(at(200).0, "");
        assert_eq!(at(58).0, "EXPIRED P90");
        let (left_out, out) = at(41);
        assert_eq!(left_out, "EXPIRED REJECTED P50 P90");
        let header = format!("{:13}  {:13}  {:>11}\n", "NAME", "STATE", "ACCEPTED");
        assert_eq!(out, header + "a.ver...drive  losing: pe...  12345678901\n");
        assert!(
            at(30)
                .1
                .lines()
                .all(|line| line.contains("12345678901") || line.contains("ACCEPTED"))
        );
        for width in 36..120 {
            let lines = at(width).1;
            assert!(
                lines.lines().all(|line| length(line) <= width),
                "{width}: {lines}"
            );
        }
    }

    #[test]
    fn microseconds_have_one_decimal_cut_not_rounded() {
        assert_eq!(
            [us(0), us(99), us(4_250), us(12_345_678)],
            ["0.0", "0.0", "4.2", "12345.6"]
        );
    }
}
