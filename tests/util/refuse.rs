//! A kernel without some system calls, or a container's filter that refuses them: the same to a
//! program.

use seccompiler::{BpfProgram, SeccompAction, SeccompFilter};
use std::os::unix::process::CommandExt as _;
use std::process::Command;

/// Lets the command fail in these calls with this errno, and its children too.
pub fn refuse(command: &mut Command, calls: &[i64], errno: i32) -> anyhow::Result<()> {
    let rules = calls.iter().map(|call| (*call, Vec::new())).collect();
    let refused = SeccompAction::Errno(errno.unsigned_abs());
    let filter = SeccompFilter::new(
        rules,
        SeccompAction::Allow,
        refused,
        std::env::consts::ARCH.try_into()?,
    )?;
    let program: BpfProgram = filter.try_into()?;
    let apply = move || seccompiler::apply_filter(&program).map_err(std::io::Error::other);
    // SAFETY: it runs between fork and exec and makes two system calls on memory that is there
    // already.
    unsafe { command.pre_exec(apply) };
    Ok(())
}
