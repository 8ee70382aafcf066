//! All targets, each in a process of its own, as many side by side as there are CPUs.

use crate::engine::{Order, journaled, save};
use crate::targets::Target;
use anyhow::Context as _;
use rtcore::sys::process;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;

/// Plays the targets; false: an input was not survived.
pub fn run(
    targets: &[&Target],
    order: &Order,
    failures: &Path,
    jobs: usize,
) -> anyhow::Result<bool> {
    let (left, all_well) = (Mutex::new(targets.to_vec()), Mutex::new(true));
    let worker = || -> anyhow::Result<()> {
        loop {
            let Some(target) = left.lock().ok().and_then(|mut left| left.pop()) else {
                return Ok(());
            };
            if !one(target, order, failures)?
                && let Ok(mut well) = all_well.lock()
            {
                *well = false;
            }
        }
    };
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..jobs.max(1)).map(|_| scope.spawn(worker)).collect();
        workers.into_iter().try_for_each(|worker| {
            worker
                .join()
                .map_err(|_| anyhow::anyhow!("a thread of the campaign panicked"))?
        })
    })?;
    Ok(all_well.into_inner().unwrap_or(false))
}

/// One target: true if its process ended well. If not, its last input is saved.
fn one(target: &Target, order: &Order, failures: &Path) -> anyhow::Result<bool> {
    let journal = PathBuf::from(format!(
        "/dev/shm/fuzz-{}-{}",
        std::process::id(),
        target.name
    ));
    let mut command = Command::new(std::env::current_exe()?);
    command
        .arg("--worker")
        .arg(&journal)
        .arg("--seed")
        .arg(order.seed.to_string());
    command
        .arg("--seconds")
        .arg(order.time.as_secs().to_string())
        .arg(target.name);
    if order.save {
        command.arg("--save");
    }
    process::die_with_parent_at_exec(&mut command);
    let status = command.status().context("cannot start a process")?;
    let input = journaled(&journal);
    let _ = std::fs::remove_file(&journal);
    if status.success() {
        return Ok(true);
    }
    let file = save(
        &failures.join(target.name),
        &input.context("the process left no input")?,
    )?;
    println!(
        "{}: {status}; again: scripts/fuzz --input {} {}",
        target.name,
        file.display(),
        target.name
    );
    Ok(false)
}
