//! The files of a run: pictures in a directory, and the page.

use super::html::{self, Report};
use super::machine::Machine;
use super::plot;
use crate::args::ReportArgs;
use crate::out::Run;
use crate::run::to_file;
use crate::series::{Comparison, Series};
use anyhow::Context as _;
use std::path::Path;

/// The files of a run of pairs. `machine` is called only if a file needs it.
pub fn of_series(
    args: &ReportArgs,
    run: &Run,
    machine: impl FnOnce() -> Machine,
    series: &[Series],
) -> anyhow::Result<()> {
    if let Some(directory) = &args.svg {
        let all: Vec<&Series> = series.iter().collect();
        let places = Vec::from_iter(0..all.len());
        let figure = |title| plot::Figure {
            title,
            series: &all,
            places: &places,
            sisters: &all,
        };
        picture(directory, "histogram.svg", || {
            plot::histogram::histogram(&figure("Latency histogram"))
        })?;
        picture(directory, "percentiles.svg", || {
            plot::percentiles::percentiles(&figure("Latency percentiles"))
        })?;
    }
    let title = series
        .first()
        .map_or_else(String::new, |s| format!("Latency: {}", s.name));
    match &args.html {
        Some(path) => page(path, &title, run, &machine(), series, None),
        None => Ok(()),
    }
}

/// The files of a comparison.
pub fn of_comparison(
    args: &ReportArgs,
    run: &Run,
    machine: &Machine,
    comparison: &Comparison,
) -> anyhow::Result<()> {
    if let Some(directory) = &args.svg {
        let title = "Latency of mechanisms and routes";
        picture(directory, "comparison.svg", || {
            plot::comparison::comparison(title, comparison)
        })?;
    }
    match &args.html {
        Some(path) => page(
            path,
            "Latency of mechanisms and routes",
            run,
            machine,
            &[],
            Some(comparison),
        ),
        None => Ok(()),
    }
}

/// Makes the directory for pictures.
pub fn make(directory: &Path) -> anyhow::Result<()> {
    std::fs::create_dir_all(directory)
        .with_context(|| format!("cannot make {}", directory.display()))
}

fn picture(
    directory: &Path,
    name: &str,
    draw: impl FnOnce() -> anyhow::Result<String>,
) -> anyhow::Result<()> {
    to_file(&directory.join(name), |out| {
        Ok(out.write_all(draw()?.as_bytes())?)
    })
}

fn page(
    path: &Path,
    title: &str,
    run: &Run,
    machine: &Machine,
    series: &[Series],
    comparison: Option<&Comparison>,
) -> anyhow::Result<()> {
    let command: Vec<String> = std::env::args_os()
        .map(|word| word.to_string_lossy().into_owned())
        .collect();
    let unix_ns = run.end_time_ns;
    let text = html::page(&Report {
        title,
        command: &command,
        unix_ns,
        machine,
        series,
        comparison,
    })?;
    to_file(path, |out| Ok(out.write_all(text.as_bytes())?))
}
