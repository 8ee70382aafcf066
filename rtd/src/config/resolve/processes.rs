//! Processes: checks that their accounts and executables exist.

use super::Context;
use crate::config::reader::Field;
use crate::config::values::Account;
use crate::plan::ProcessPlan;
use std::path::{Path, PathBuf};

/// Makes the processes.
pub fn resolve(cx: &mut Context<'_, '_, '_>) -> Vec<ProcessPlan> {
    let config = cx.config;
    let mut processes = Vec::with_capacity(config.process.len());
    for process in &config.process {
        processes.push(ProcessPlan {
            name: process
                .name
                .get()
                .map(|name| name.0.clone())
                .unwrap_or_default(),
            uid: account(cx, &process.user, "user"),
            gid: account(cx, &process.group, "group"),
            exe: executable(cx, &process.exe),
            above_ceiling: process.above_ceiling.get().is_some_and(|above| above.0),
        });
    }
    processes
}

/// The id of an account that a key names.
pub fn account(cx: &mut Context<'_, '_, '_>, field: &Field<Account>, kind: &str) -> Option<u32> {
    let at = field.at()?;
    let name = match &at.value {
        Account::Id(id) => return Some(*id),
        Account::Name(name) => name,
    };
    let found = if kind == "user" {
        cx.machine.user_id(name)
    } else {
        cx.machine.group_id(name)
    };
    let shown = name.escape_debug();
    match found {
        Ok(Some(id)) => return Some(id),
        Ok(None) => {
            let fix = format!(
                "{kind}add --system {shown}\n{kind} = (a number, for an account made later)"
            );
            cx.report.error(
                &at.place,
                format!("there is no {kind} `{shown}` on this machine"),
                fix,
            );
        }
        // The account decides who may register, so a guess is not acceptable.
        Err(reason) => {
            let message = format!("{kind} `{shown}` could not be looked up: {reason}");
            cx.report
                .error(&at.place, message, format!("{kind} = (the number)"));
        }
    }
    None
}

fn executable(cx: &mut Context<'_, '_, '_>, field: &Field<String>) -> Option<PathBuf> {
    let at = field.at()?;
    let path = Path::new(&at.value);
    let shown = at.value.escape_debug();
    if !path.is_absolute() {
        cx.report.error(
            &at.place,
            format!("`{shown}` is not an absolute path"),
            format!("exe = \"/usr/bin/{shown}\""),
        );
        return None;
    }
    match cx.machine.executable(path) {
        Ok(canonical) => Some(canonical),
        Err(reason) => {
            let fix = "install it there first\nexe = (the path it has)";
            cx.report
                .error(&at.place, format!("executable `{shown}`: {reason}"), fix);
            None
        }
    }
}
