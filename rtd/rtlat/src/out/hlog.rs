//! HdrHistogram's interval log, version 1.3: a row per interval and series, in V2 deflate and
//! base64.
//!
//! Values in ns; only the column that people read, `Interval_Max`, is in us, as the divisor's line
//! says. Tags tell series and figure: `mq-0-raw`, `mq-0-corrected`.

use std::io::{self, Write};
use std::time::Duration;

use hdrhistogram::Histogram;
use hdrhistogram::serialization::V2DeflateSerializer;
use hdrhistogram::serialization::interval_log::{
    IntervalLogWriterBuilder, IntervalLogWriterError, Tag,
};

use super::{Figure, Interval, Run};
use crate::series::{Packed, Series};

const LEGEND: &str =
    r#""StartTimestamp","Interval_Length","Interval_Max","Interval_Compressed_Histogram""#;

struct Row<'a> {
    tag: String,
    start_time_ns: u64,
    length_ns: u64,
    recorded: Recorded<'a>,
}

enum Recorded<'a> {
    Interval(&'a Packed),
    All(&'a Histogram<u64>),
}

/// Writes a row per interval (raw), and for a series that has none two rows over its whole time,
/// raw and corrected.
pub fn write(
    out: &mut dyn Write,
    run: &Run,
    series: &[Series],
    intervals: &[Interval],
) -> io::Result<()> {
    let start_ns = run.start_time_ns;
    let seconds = start_ns as f64 / 1e9;
    writeln!(out, "#[Logged with rtlat {}]", env!("CARGO_PKG_VERSION"))?;
    writeln!(out, "#[Histogram log format version 1.3]")?;
    writeln!(
        out,
        "#[StartTime: {seconds:.3} (seconds since epoch), {}]",
        super::date::rfc2822(start_ns)
    )?;
    // Rows count from here. With StartTime alone, readers guess whether they do.
    writeln!(out, "#[BaseTime: {seconds:.3} (seconds since epoch)]")?;
    writeln!(out, "{LEGEND}")?;
    let (mut out, mut serializer) = (out, V2DeflateSerializer::new());
    let mut log = IntervalLogWriterBuilder::new()
        .with_max_value_divisor(1e3)
        .begin_log_with(&mut out, &mut serializer)?;
    for row in rows(series, intervals) {
        let since = Duration::from_nanos(row.start_time_ns.saturating_sub(start_ns));
        let length = Duration::from_nanos(row.length_ns);
        // One at a time: all of a night would not fit into memory.
        let unpacked;
        let histogram = match row.recorded {
            Recorded::Interval(packed) => {
                unpacked = packed.unpack();
                &unpacked
            }
            Recorded::All(histogram) => histogram,
        };
        log.write_histogram(histogram, since, length, Tag::new(&row.tag))
            .map_err(|e| match e {
                IntervalLogWriterError::IoError(e) => e,
                other => io::Error::other(format!("{}: {other}", row.tag)),
            })?;
    }
    Ok(())
}

/// All rows by time, as readers expect.
fn rows<'a>(series: &'a [Series], intervals: &'a [Interval]) -> Vec<Row<'a>> {
    let mut rows = Vec::new();
    for (i, s) in series.iter().enumerate() {
        // A tag has no blanks and commas.
        let name = s.name.replace(|c: char| c.is_whitespace() || c == ',', "_");
        let parts: Vec<&Interval> = intervals.iter().filter(|part| part.series == i).collect();
        let tag = |figure: Figure| format!("{name}-{}-{}", s.pair, figure.text());
        for part in &parts {
            let (start_time_ns, length_ns) = (part.start_time_ns, part.length_ns);
            rows.push(Row {
                tag: tag(Figure::Raw),
                start_time_ns,
                length_ns,
                recorded: Recorded::Interval(&part.raw),
            });
        }
        if parts.is_empty() {
            let (start_time_ns, length_ns) = (
                s.start_time_ns,
                s.end_time_ns.saturating_sub(s.start_time_ns),
            );
            for figure in Figure::ALL {
                let recorded = Recorded::All(figure.histogram(s));
                rows.push(Row {
                    tag: tag(figure),
                    start_time_ns,
                    length_ns,
                    recorded,
                });
            }
        }
    }
    rows.sort_by_key(|row| row.start_time_ns);
    rows
}
