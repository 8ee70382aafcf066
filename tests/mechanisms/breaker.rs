//! The receiving thread of a latency measurement marks and freezes the trace without touching the
//! heap.

use rtcore::seal;
use rtlat::breaker::Breaker;
use std::path::Path;

pub fn a_break_touches_no_heap() -> anyhow::Result<()> {
    let directory = std::env::temp_dir().join(format!("rtlat-breaker-{}", std::process::id()));
    std::fs::create_dir(&directory)?;
    let checked = checked_in(&directory);
    std::fs::remove_dir_all(&directory)?;
    checked
}

fn checked_in(directory: &Path) -> anyhow::Result<()> {
    for (name, text) in [
        ("trace_marker", ""),
        ("tracing_on", "1\n"),
        ("current_tracer", "function\n"),
    ] {
        std::fs::write(directory.join(name), text)?;
    }
    let mut there = Breaker::open_at(directory, 100_000);
    let mut absent = Breaker::open_at(&directory.join("nothing"), 100_000);
    // On a thread of its own, whose count begins at 0.
    let breaches = std::thread::scope(|scope| {
        let hits = scope.spawn(|| {
            seal::seal();
            there.hit(123_456);
            absent.hit(123_456);
            seal::unseal();
            seal::breaches()
        });
        hits.join().unwrap_or(u64::MAX)
    });
    anyhow::ensure!(breaches == 0, "{breaches} heap calls");
    let marker = std::fs::read_to_string(directory.join("trace_marker"))?;
    anyhow::ensure!(
        marker.starts_with("hit latency threshold (124 > 100)"),
        "{marker}"
    );
    Ok(())
}
