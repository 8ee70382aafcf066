//! A report as one file of HTML: tables, pictures, the machine, the command line.
//!
//! Constraint: nothing is loaded from anywhere; no script. Readable on a light and on a dark screen
//! and on paper. Invariant: all text from outside passes `escape`, which leaves neither markup nor
//! control characters.

use super::machine::Machine;
use super::{
    PLACEMENTS, clean, conditions, corrected_at, corrected_max_ns, is_routed, label, paths, plot,
    raw_at, row, table, us, us_of,
};
use crate::out::date::utc;
use crate::series::{Comparison, Placement, Series};
use std::fmt::Write as _;

/// Characters of the command line that are shown; past that no one reads it.
const COMMAND_CHARS_MAX: usize = 20_000;
/// Series in one picture: one colour each.
const SERIES_PER_PICTURE: usize = 8;

const STYLE: &str = "
:root { color-scheme: light dark; --line: #ccc; --soft: #f3f3f3; }
@media (prefers-color-scheme: dark) { :root { --line: #555; --soft: #2a2a2a; } }
body { font: 15px/1.45 sans-serif; max-width: 1080px; margin: 2em auto; padding: 0 1em; }
h1 { font-size: 1.6em; margin-bottom: 0; }
h2 { font-size: 1.2em; margin-top: 2em; }
pre { background: var(--soft); padding: .7em; white-space: pre-wrap; overflow-wrap: anywhere; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: 13px; }
th, td { border-bottom: 1px solid var(--line); padding: .25em .55em; text-align: right; vertical-align: top; }
th { font-weight: 600; }
th.name, td.name { text-align: left; }
th[colspan] { text-align: center; }
table.facts td { overflow-wrap: anywhere; }
table.facts td:first-child { white-space: nowrap; }
.wide { overflow-x: auto; }
.degraded { border-left: 4px solid #d55e00; padding-left: .8em; }
figure { margin: 1.2em 0; overflow-x: auto; }
figure svg { background: #fff; max-width: 100%; height: auto; }
@media print {
  @page { size: A4 landscape; margin: 12mm; }
  body { margin: 0; max-width: none; }
  figure, tr { break-inside: avoid; }
  h2 { break-after: avoid; }
  .wide { overflow: visible; }
}
";

const NOTES: &str = "
<p><b>raw</b>: received minus actually sent, as rt-tests show it (of a timer: woken minus intended).
<b>corrected</b>: received minus the moment at which the schedule wanted it sent, with an entry for every point of the
schedule that was missed. A sender that was held up shows a good raw and a bad corrected latency; a control loop feels
the corrected one.</p>
<p>Times are in us (1 us = 1000 ns) of CLOCK_MONOTONIC. Percentiles come from histograms of three digits; smallest and
largest raw latencies are exact. scheduled = sent + missed; sent = received + lost.</p>
";

const COMPARISON_NOTES: &str = "
<p><b>paced</b>: on the schedule, raw. <b>back to back</b>: each message follows the arrival of the one before, so caches
are warm. <b>x mq</b>: the median over all turns of this path's p50 / the p50 of the raw message queue in the same turn and
placement. Ratios of one run can be compared with those of another; absolute times of a shared machine cannot.</p>
";

/// All that a report says.
#[derive(Clone, Copy, Debug)]
pub struct Report<'a> {
    pub title: &'a str,
    /// The exact command line, word by word.
    pub command: &'a [String],
    /// When it ended, ns since 1970.
    pub unix_ns: u64,
    /// The machine of the run.
    pub machine: &'a Machine,
    /// The series measured in addition to a comparison; may be empty.
    pub series: &'a [Series],
    /// A comparison; its series are shown too.
    pub comparison: Option<&'a Comparison>,
}

/// The page. Fails only where a picture cannot be drawn.
pub fn page(report: &Report<'_>) -> anyhow::Result<String> {
    let mut out = String::with_capacity(256 * 1024);
    let title = escape(report.title);
    write!(
        out,
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width\">\n<title>{title}</title>\n\
         <style>{STYLE}</style>\n</head>\n<body>\n<h1>{title}</h1>\n<p>{}, rtlat {}</p>\n<pre>{}</pre>\n",
        utc(report.unix_ns),
        env!("CARGO_PKG_VERSION"),
        escape_to(&command_line(report.command), COMMAND_CHARS_MAX)
    )?;
    degraded(&mut out, report.machine)?;
    if let Some(comparison) = report.comparison {
        compared(&mut out, comparison)?;
    }
    let series: Vec<&Series> = report.series.iter().collect();
    if !series.is_empty() {
        out.push_str("<h2>Results</h2>\n");
        results(&mut out, &series)?;
        let places = Vec::from_iter(0..series.len());
        for (part, places) in series
            .chunks(SERIES_PER_PICTURE)
            .zip(places.chunks(SERIES_PER_PICTURE))
        {
            let of = plot::Figure {
                title: "",
                series: part,
                places,
                sisters: &series,
            };
            let [histogram, percentiles] =
                ["Latency histogram", "Latency percentiles"].map(|what| heading(what, part));
            figure(
                &mut out,
                &plot::histogram::histogram(&plot::Figure {
                    title: &histogram,
                    ..of
                })?,
            );
            figure(
                &mut out,
                &plot::percentiles::percentiles(&plot::Figure {
                    title: &percentiles,
                    ..of
                })?,
            );
        }
    }
    out.push_str("<h2>Terms</h2>\n");
    out.push_str(NOTES);
    if report.comparison.is_some() {
        out.push_str(COMPARISON_NOTES);
    }
    machine(&mut out, report.machine)?;
    out.push_str("</body>\n</html>\n");
    Ok(out)
}

/// Text for HTML, bounded.
fn escape(text: &str) -> String {
    escape_to(text, 4200)
}

fn escape_to(text: &str, chars_max: usize) -> String {
    let mut out = String::with_capacity(text.len());
    for c in clean(text, chars_max).chars() {
        match c {
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '&' => out.push_str("&amp;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            c => out.push(c),
        }
    }
    out
}

/// The words as a POSIX shell takes them again.
pub fn command_line(words: &[String]) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_=+./,:@%".contains(c);
    let quoted = words.iter().map(|word| {
        if !word.is_empty() && word.chars().all(plain) {
            word.clone()
        } else {
            format!("'{}'", word.replace('\'', "'\\''"))
        }
    });
    quoted.collect::<Vec<_>>().join(" ")
}

fn heading(what: &str, series: &[&Series]) -> String {
    match series {
        [one] => format!("{what}: {}", clean(&one.name, 60)),
        _ => what.to_owned(),
    }
}

fn figure(out: &mut String, svg: &str) {
    out.push_str("<figure>");
    out.push_str(svg);
    out.push_str("</figure>\n");
}

fn cells(out: &mut String, tag: &str, texts: &[String], names: usize) -> std::fmt::Result {
    for (at, text) in texts.iter().enumerate() {
        let class = if at < names { " class=\"name\"" } else { "" };
        write!(out, "<{tag}{class}>{}</{tag}>", escape(text))?;
    }
    Ok(())
}

fn degraded(out: &mut String, machine: &Machine) -> std::fmt::Result {
    if machine.degraded.is_empty() {
        return Ok(());
    }
    out.push_str(
        "<div class=\"degraded\"><p><b>Degraded: these figures show no worst case.</b></p><ul>",
    );
    for sentence in &machine.degraded {
        write!(out, "<li>{}</li>", escape(sentence))?;
    }
    out.push_str("</ul></div>\n");
    Ok(())
}

fn machine(out: &mut String, machine: &Machine) -> std::fmt::Result {
    out.push_str("<h2>Machine</h2>\n<table class=\"facts\">\n");
    let verdict = if machine.degraded.is_empty() {
        "no"
    } else {
        "yes, see the top"
    };
    let facts = machine
        .facts
        .iter()
        .map(|fact| (fact.name.as_str(), fact.value.as_str()));
    for (name, value) in facts.chain([("degraded", verdict)]) {
        writeln!(
            out,
            "<tr><td class=\"name\">{}</td><td class=\"name\">{}</td></tr>",
            escape(name),
            escape(value)
        )?;
    }
    out.push_str("</table>\n");
    Ok(())
}

/// Counts, raw and corrected latencies of each series.
fn results(out: &mut String, series: &[&Series]) -> std::fmt::Result {
    out.push_str("<div class=\"wide\"><table>\n<tr><th class=\"name\" rowspan=\"2\">series</th>");
    for title in ["scheduled", "sent", "received", "missed", "lost"] {
        write!(out, "<th rowspan=\"2\">{title}</th>")?;
    }
    out.push_str("<th colspan=\"5\">raw (us)</th><th colspan=\"5\">corrected (us)</th></tr>\n<tr>");
    for title in ["min", "p50", "p99", "p99.9", "max"].repeat(2) {
        write!(out, "<th>{title}</th>")?;
    }
    out.push_str("</tr>\n");
    for one in series {
        let counts = &one.counts;
        let mut texts = vec![label(one, series, 60)];
        let numbers = [
            counts.scheduled,
            counts.sent,
            counts.received,
            counts.missed,
            counts.lost,
        ];
        texts.extend(numbers.map(|count| count.to_string()));
        texts.push(us_of(one, one.min_ns));
        texts.extend([0.5, 0.99, 0.999].map(|quantile| us_of(one, raw_at(one, quantile))));
        texts.push(us_of(one, one.max_ns));
        if one.corrected.is_empty() {
            texts.extend(vec!["-".to_owned(); 5]);
        } else {
            texts.push(us(one.corrected.min()));
            texts.extend([0.5, 0.99, 0.999].map(|quantile| us(corrected_at(one, quantile))));
            texts.push(us(corrected_max_ns(one)));
        }
        out.push_str("<tr>");
        cells(out, "td", &texts, 1)?;
        out.push_str("</tr>\n");
    }
    out.push_str("</table></div>\n");
    Ok(())
}

/// The comparison: picture, table of both placements, and its series in full.
fn compared(out: &mut String, comparison: &Comparison) -> anyhow::Result<()> {
    writeln!(
        out,
        "<h2>Comparison</h2>\n<p>{}</p>",
        escape(&conditions(comparison))
    )?;
    figure(
        out,
        &plot::comparison::comparison("One-way latency by path and placement", comparison)?,
    );
    out.push_str("<div class=\"wide\"><table>\n<tr><th class=\"name\" rowspan=\"2\">path</th><th class=\"name\" rowspan=\"2\">placement</th>");
    out.push_str("<th colspan=\"5\">paced (us)</th><th colspan=\"2\">back to back (us)</th>");
    out.push_str("<th rowspan=\"2\">lost</th><th rowspan=\"2\">missed</th></tr>\n<tr>");
    for title in ["p50", "p99", "p99.9", "max", "x mq", "p50", "x mq"] {
        write!(out, "<th>{title}</th>")?;
    }
    out.push_str("</tr>\n");
    let paths = paths(comparison);
    for path in &paths {
        let found = PLACEMENTS
            .iter()
            .filter_map(|&placement| row(comparison, path, placement));
        for (at, row) in found.enumerate() {
            out.push_str("<tr>");
            let mut texts = table::cells(comparison, row);
            if at > 0 {
                texts[0].clear();
            }
            cells(out, "td", &texts, 2)?;
            out.push_str("</tr>\n");
        }
    }
    out.push_str("</table></div>\n");
    for placement in PLACEMENTS {
        in_placement(out, comparison, &paths, placement)?;
    }
    Ok(())
}

fn in_placement(
    out: &mut String,
    comparison: &Comparison,
    paths: &[&str],
    placement: Placement,
) -> anyhow::Result<()> {
    let rows: Vec<_> = paths
        .iter()
        .filter_map(|path| row(comparison, path, placement))
        .collect();
    if rows.is_empty() {
        return Ok(());
    }
    let where_ = placement.text();
    // Both placements and both groups have the same axes.
    let sisters: Vec<&Series> = comparison.rows.iter().map(|row| &row.paced).collect();
    for (what, series) in [
        (
            "paced",
            rows.iter().map(|row| &row.paced).collect::<Vec<_>>(),
        ),
        ("back to back", rows.iter().map(|row| &row.busy).collect()),
    ] {
        writeln!(out, "<h2>{where_}, {what}</h2>")?;
        results(out, &series)?;
    }
    for (group, routed) in [("raw mechanisms", false), ("through rtd", true)] {
        let chosen = rows.iter().filter(|row| is_routed(&row.path) == routed);
        let place =
            |row: &crate::series::Row| paths.iter().position(|path| *path == row.path).unwrap_or(0);
        let (series, places): (Vec<&Series>, Vec<usize>) =
            chosen.map(|row| (&row.paced, place(row))).unzip();
        let title = &format!("{where_}, paced: {group}");
        for (series, places) in series
            .chunks(SERIES_PER_PICTURE)
            .zip(places.chunks(SERIES_PER_PICTURE))
        {
            let of = plot::Figure {
                title,
                series,
                places,
                sisters: &sisters,
            };
            figure(out, &plot::percentiles::percentiles(&of)?);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::machine::Fact;
    use super::super::samples::{self, Random};
    use super::*;

    fn hostile_machine() -> Machine {
        let fact = |name: &str, value: &str| Fact {
            name: name.to_owned(),
            value: value.to_owned(),
        };
        Machine {
            facts: vec![
                fact("kernel", "6.18.0"),
                fact("kernel command line", "</td><script>alert(1)</script>"),
            ],
            degraded: vec!["SCHED_FIFO 80 was refused <b>".to_owned()],
        }
    }

    fn page_of(series: &[Series], comparison: Option<&Comparison>) -> String {
        let command = ["rtlat", "mq", "-n", "it's <script>\x1b"].map(str::to_owned);
        let machine = hostile_machine();
        let report = Report {
            title: "rtlat <mq>",
            command: &command,
            unix_ns: 1_795_374_448_000_000_000,
            machine: &machine,
            series,
            comparison,
        };
        page(&report).unwrap()
    }

    /// Every element that was opened is closed, in order.
    fn assert_balanced(page: &str) {
        let mut open: Vec<&str> = Vec::new();
        for part in page.split('<').skip(1) {
            let tag = part.split('>').next().unwrap();
            let name = tag.split([' ', '\n']).next().unwrap();
            match name.strip_prefix('/') {
                Some(name) => assert_eq!(open.pop(), Some(name)),
                None if name.starts_with('!') || name == "meta" || tag.ends_with('/') => {}
                None => open.push(name),
            }
        }
        assert!(open.is_empty(), "{open:?}");
    }

    #[test]
    fn a_page_holds_all_and_loads_nothing() {
        let mut random = Random(5);
        let mut one = samples::series("mq", &random.latencies(2700.0, 20_000));
        one.corrected.saturating_record(3_000_000);
        let page = page_of(&[one, samples::series("mq </svg>", &[])], None);
        keep("series", &page);
        assert_balanced(&page);
        for text in [
            "<h1>rtlat &lt;mq&gt;</h1>",
            "2026-11-22 19:07:28 UTC",
            "6.18.0",
            "Degraded",
            "corrected",
        ] {
            assert!(page.contains(text), "{text}");
        }
        assert_eq!(page.matches("<svg ").count(), 2);
        for outside in ["src=", "href=", "url(", "@import", "<script", "<b>\n</li>"] {
            assert!(!page.contains(outside), "{outside}");
        }
        assert!(!page.chars().any(|c| c.is_control() && c != '\n'));
    }

    #[test]
    fn a_comparison_shows_both_placements() {
        let mut all = samples::comparison(6, 20);
        all.rows[0].paced.counts.missed = 3;
        let page = page_of(&[], Some(&all));
        keep("comparison", &page);
        assert_balanced(&page);
        assert_eq!(page.matches("<svg ").count(), 5);
        assert!(page.contains("mq -&gt; signal") && page.contains("other CPU"));
        all.rows.clear();
        assert_balanced(&page_of(&[], Some(&all)));
    }

    #[test]
    fn the_command_line_can_be_given_to_a_shell_again() {
        let words = ["rtlat", "--html", "a b", "it's", "", "$x", "-a0,1"].map(str::to_owned);
        assert_eq!(
            command_line(&words),
            "rtlat --html 'a b' 'it'\\''s' '' '$x' -a0,1"
        );
    }

    fn keep(name: &str, page: &str) {
        if let Some(directory) = std::env::var_os("RTLAT_PICTURES") {
            std::fs::write(
                std::path::Path::new(&directory).join(format!("{name}.html")),
                page,
            )
            .unwrap();
        }
    }
}
