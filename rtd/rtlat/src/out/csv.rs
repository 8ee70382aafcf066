//! One row per series, for spreadsheets and pandas. Times in ns.

use std::io::{self, Write};

use super::{Figure, PERCENTILES};
use crate::series::{RoleInfo, Series};

const PLACEMENT: &str = "name,pair,round_trip,payload_bytes,interval_ns,\
    sender_tid,sender_cpu,sender_last_cpu,sender_priority,\
    receiver_tid,receiver_cpu,receiver_last_cpu,receiver_priority,\
    scheduled,sent,received,missed,lost";

/// Writes the head and the rows. A CPU is empty if the thread was not pinned.
pub fn write(out: &mut dyn Write, series: &[Series]) -> io::Result<()> {
    write!(out, "{PLACEMENT}")?;
    for figure in Figure::ALL.map(Figure::text) {
        write!(out, ",{figure}_min_ns,{figure}_mean_ns")?;
        for (name, _) in PERCENTILES {
            write!(out, ",{figure}_{}_ns", name.replace('.', "_"))?;
        }
    }
    writeln!(out)?;
    for s in series {
        row(out, s)?;
    }
    Ok(())
}

fn row(out: &mut dyn Write, s: &Series) -> io::Result<()> {
    let c = s.counts;
    write!(
        out,
        "{},{},{},{},{}",
        quoted(&s.name),
        s.pair,
        s.is_round_trip,
        s.payload_bytes,
        s.interval_ns
    )?;
    write!(out, "{}{}", info(&s.sender), info(&s.receiver))?;
    write!(
        out,
        ",{},{},{},{},{}",
        c.scheduled, c.sent, c.received, c.missed, c.lost
    )?;
    for figure in Figure::ALL {
        write!(out, ",{},{:.1}", figure.min_ns(s), figure.mean_ns(s))?;
        for ns in figure.percentiles_ns(s) {
            write!(out, ",{ns}")?;
        }
    }
    writeln!(out)
}

fn info(p: &RoleInfo) -> String {
    let cpu = p.cpu.map_or(String::new(), |cpu| cpu.to_string());
    format!(",{},{cpu},{},{}", p.tid, p.last_cpu, p.priority)
}

/// RFC 4180, section 2.6.
fn quoted(text: &str) -> String {
    if text.contains([',', '"', '\n', '\r']) {
        format!("\"{}\"", text.replace('"', "\"\""))
    } else {
        text.to_owned()
    }
}
