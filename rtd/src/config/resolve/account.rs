//! The account that the daemon changes to, and the operations that it then cannot do without a
//! capability.
//!
//! Constraint: only a certain failure is an error. If a `[[process]]` may belong to any user, the
//! registration of a process that rtd cannot serve is refused.

use super::processes;
use super::{Context, whole_file};
use crate::config::Machine;
use crate::plan::{Plan, needs};
use crate::words::in_unit;
use rtcore::sys::ids::Account;
use rtcore::sys::permission_hints::setcap;

/// The account of `daemon.user` and `daemon.group`.
pub fn resolve(cx: &mut Context<'_, '_, '_>) -> Option<Account> {
    let daemon = &cx.config.daemon;
    if let (Some(group), true) = (daemon.group.at(), daemon.user.is_absent()) {
        let fix = "remove `group`\nadd `user`, the account that rtd becomes";
        cx.report
            .error(&group.place, "`group` has no effect without `user`", fix);
    }
    let uid = processes::account(cx, &daemon.user, "user")?;
    let gid = if daemon.group.is_absent() {
        primary_group(cx, uid)?
    } else {
        processes::account(cx, &daemon.group, "group")?
    };
    change(cx, Account { uid, gid });
    Some(Account { uid, gid })
}

/// The account that rtd will have, if it differs from its current one and rtd can change to it.
pub fn changed(cx: &Context<'_, '_, '_>, to: Option<Account>) -> Option<Account> {
    to.filter(|to| *to != own(cx.machine) && lacks(cx.machine, *to).is_empty())
}

fn own(machine: &Machine) -> Account {
    Account {
        uid: machine.uid,
        gid: machine.gid,
    }
}

/// The capabilities that rtd lacks to change to this account. Any change also drops the groups.
fn lacks(machine: &Machine, to: Account) -> Vec<&'static str> {
    let from = own(machine);
    let uid = (to.uid != from.uid && machine.cap_setuid == Some(false)).then_some("CAP_SETUID");
    let gid = (to != from && machine.cap_setgid == Some(false)).then_some("CAP_SETGID");
    uid.into_iter().chain(gid).collect()
}

/// Reports an account that rtd does not have and cannot change to.
fn change(cx: &mut Context<'_, '_, '_>, to: Account) {
    let (machine, daemon) = (cx.machine, &cx.config.daemon);
    let from = own(machine);
    let lacks = lacks(machine, to);
    if lacks.is_empty() {
        return;
    }
    let user = daemon.user.place_or(&whole_file());
    let place = if to.uid == from.uid {
        daemon.group.place_or(&user)
    } else {
        user
    };
    let (
        Account { uid, gid },
        Account {
            uid: own,
            gid: own_group,
        },
    ) = (to, from);
    let message = format!(
        "rtd cannot become uid {uid} gid {gid}: as uid {own} gid {own_group} it does not have {}",
        lacks.join(" and ")
    );
    let fix = format!(
        "start rtd as root, with CAP_SETUID and CAP_SETGID\n\
         {} (then rtd is that user from the start)\n\
         user = {own} and group = {own_group}",
        in_unit(format_args!("User={uid} and Group={gid}"))
    );
    cx.report.error(&place, message, fix);
}

fn primary_group(cx: &mut Context<'_, '_, '_>, uid: u32) -> Option<u32> {
    let message = match cx.machine.primary_group(uid) {
        Ok(Some(gid)) => return Some(gid),
        Ok(None) => format!("uid {uid} has no account, so its group is not known"),
        Err(reason) => format!("the group of uid {uid} could not be looked up: {reason}"),
    };
    let place = cx.config.daemon.user.place_or(&whole_file());
    cx.report
        .error(&place, message, "group = (the number of its group)");
    None
}

/// Reports operations that the daemon could not do under its new account.
pub fn check(cx: &mut Context<'_, '_, '_>, plan: &Plan) {
    let uid = plan
        .daemon
        .account
        .map_or(cx.machine.uid, |account| account.uid);
    if uid == 0 {
        return;
    }
    signals(cx, plan, uid);
    executables(cx, plan, uid);
}

fn signals(cx: &mut Context<'_, '_, '_>, plan: &Plan, uid: u32) {
    if cx.machine.cap_kill != Some(false) {
        return;
    }
    let mut reported = vec![false; plan.endpoints.len()];
    for (id, process) in needs::signalled(plan) {
        let Some(other) = process.uid.filter(|other| *other != uid) else {
            continue;
        };
        let (Some(endpoint), Some(written)) = (plan.endpoints.get(id), cx.config.endpoint.get(id))
        else {
            continue;
        };
        if std::mem::replace(&mut reported[id], true) {
            continue;
        }
        let message = format!(
            "signals for endpoint `{}` go to `{}` of uid {other}: rtd is uid {uid} and has no CAP_KILL to send them",
            endpoint.name, process.name
        );
        let fix = format!(
            "{}\n{}\nuser = {uid} in [[process]] `{}`",
            in_unit("AmbientCapabilities=CAP_KILL"),
            setcap("cap_kill,", &cx.machine.program),
            process.name
        );
        cx.report
            .error(&written.owner.place_or(&written.place), message, fix);
    }
}

fn executables(cx: &mut Context<'_, '_, '_>, plan: &Plan, uid: u32) {
    let config = cx.config;
    for (process, written) in plan.processes.iter().zip(&config.process) {
        if process.exe.is_none() || !process.may_be_of_another(uid) {
            continue;
        }
        let place = written.exe.place_or(&written.place);
        let name = &process.name;
        match (cx.machine.cap_sys_ptrace, process.uid) {
            (Some(false), Some(other)) => {
                let message = format!(
                    "the kernel shows the executable of `{name}` (uid {other}) only to processes \
                     with CAP_SYS_PTRACE: rtd is uid {uid} and does not have it"
                );
                let fix = format!(
                    "remove `exe` (it only detects mistakes; `user` and `group` exclude other \
                     users)\nuser = {uid} here\n{} (can read and change any process)",
                    in_unit("AmbientCapabilities=CAP_SYS_PTRACE")
                );
                cx.report.error(&place, message, fix);
            }
            (Some(true), _) => {
                let message = format!(
                    "for the `exe` of `{name}` rtd keeps CAP_SYS_PTRACE, which can read and change any process"
                );
                let fix = format!("remove `exe`\nuser = {uid} here, to run it as rtd's user");
                cx.report.warning(&place, message, fix);
            }
            _ => {}
        }
    }
}
