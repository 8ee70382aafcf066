//! The files of a run: pictures and the report.
use super::super::args::ReportArgs;
use super::super::out::Run;
use super::super::series::Series;
/// x
pub fn of_series(
    _args: &ReportArgs,
    _run: &Run,
    _load: &str,
    _awake: &str,
    _series: &[Series],
) -> anyhow::Result<()> {
    Ok(())
}
