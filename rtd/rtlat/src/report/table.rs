//! A comparison as a table of plain text.

use super::{PLACEMENTS, clean, paths, ratio, raw_at, row, us_of};
use crate::series::{Comparison, Row, Series, Turn};
use rtd::ctl::table::{Column, Table, left, right};

/// Longest path that a table shows whole.
const PATH_CHARS_MAX: usize = 40;

/// The columns of [`cells`].
pub(super) const TITLES: [&str; 11] = [
    "PATH",
    "PLACEMENT",
    "P50",
    "P99",
    "P99.9",
    "MAX",
    "X MQ",
    "BUSY P50",
    "X MQ",
    "LOST",
    "MISSED",
];

/// The order in which the columns of [`TITLES`] are left out if the terminal is too narrow.
const RANKS: [u8; 11] = [0, 0, 0, 1, 4, 3, 0, 0, 0, 2, 5];

/// The table: raw latencies in us on the schedule, `BUSY` back to back, each with its ratio to `mq`
/// in the same placement (median over the turns).
pub fn table(comparison: &Comparison) -> Table {
    let column = |(at, title): (usize, &&str)| -> Column {
        let column = if at < 2 { left(title) } else { right(title) };
        column.rank(RANKS[at])
    };
    let mut table = Table::new(TITLES.iter().enumerate().map(column).collect());
    for path in paths(comparison) {
        for row in PLACEMENTS
            .iter()
            .filter_map(|&placement| row(comparison, path, placement))
        {
            table.row(cells(comparison, row));
        }
    }
    table
}

/// The reasons why messages of these rows were lost, one line after `#` each.
pub fn losses(comparison: &Comparison) -> String {
    let lost = |row: &&Row| row.paced.counts.lost + row.busy.counts.lost > 0;
    let line = |row: &Row| {
        let count = row.paced.counts.lost + row.busy.counts.lost;
        let path = clean(&row.path, PATH_CHARS_MAX);
        format!(
            "# {path}, {}: {count} lost: {}\n",
            row.placement.text(),
            why_lost(&row.path)
        )
    };
    comparison.rows.iter().filter(lost).map(line).collect()
}

/// The reason why a message of this mechanism is lost.
pub fn why_lost(name: &str) -> &'static str {
    match name {
        "mutex" => {
            "a hand-over holds one message, so a receiver that is a whole interval late costs the next one"
        }
        _ => "the receiver was so late that there was no room for more, or the route refused them",
    }
}

/// One row, as texts.
pub(super) fn cells(comparison: &Comparison, row: &Row) -> Vec<String> {
    let reference = comparison.reference(row.placement);
    // A turn in which nothing came has a median of 0, which would be the best of ratios.
    let times = |series: &Series, figure: fn(&Turn) -> u64| {
        let reference = reference.filter(|_| series.counts.received > 0);
        ratio(reference.and_then(|reference| row.ratio(reference, figure)))
    };
    let paced = &row.paced;
    let at = |quantile| us_of(paced, raw_at(paced, quantile));
    vec![
        clean(&row.path, PATH_CHARS_MAX),
        row.placement.text().to_owned(),
        at(0.5),
        at(0.99),
        at(0.999),
        us_of(paced, paced.max_ns),
        times(paced, |turn| turn.paced_p50_ns),
        us_of(&row.busy, raw_at(&row.busy, 0.5)),
        times(&row.busy, |turn| turn.busy_p50_ns),
        (paced.counts.lost + row.busy.counts.lost).to_string(),
        paced.counts.missed.to_string(),
    ]
}

#[cfg(test)]
mod tests {
    use super::super::samples;
    use super::*;

    fn text(comparison: &Comparison) -> String {
        let mut out = String::new();
        table(comparison).render(&mut out);
        out
    }

    #[test]
    fn every_row_stands_in_aligned_columns_raw_mechanisms_first() {
        let mut comparison = samples::comparison(1, 20);
        comparison.rows[0].path = "mq".to_owned();
        let text = text(&comparison);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 17);
        let width = lines[0].chars().count();
        assert!(
            lines.iter().all(|line| line.chars().count() == width),
            "{text}"
        );
        let at = |path: &str| {
            lines
                .iter()
                .position(|line| line.starts_with(path))
                .unwrap()
        };
        assert!(at("signal") < at("mq -> mq"), "{text}");
        assert!(lines[at("mq ")].contains(" 1.00 "), "{text}");
    }

    #[test]
    fn what_was_not_measured_is_a_dash() {
        let mut comparison = samples::comparison(1, 3);
        comparison.rows.truncate(2);
        comparison.rows[0].paced = samples::series("mq", &[]);
        comparison.rows[0].busy = samples::series("mq", &[]);
        let text = text(&comparison);
        let dashed: Vec<&str> = text.lines().nth(1).unwrap().split_whitespace().collect();
        assert_eq!(
            dashed,
            [
                "mq", "same", "CPU", "-", "-", "-", "-", "-", "-", "-", "0", "0"
            ]
        );
    }
}
