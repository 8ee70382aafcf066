//! Whom the daemon becomes, and what is refused because that one could not do it.

use super::util::check_with;
use super::util::{
    LANE, PROCESS, SIGNAL_ROUTE, SIGNALS, expect, machine, only, queues, shown, with,
};
use crate::config::machine::Machine;
use crate::config::{CheckOptions, Checked};
use crate::plan::needs;
use rtcore::sys::caps::Capability;
use rtcore::sys::ids::Account;

/// Started by root, which may do everything.
fn roots() -> Machine {
    let yes = Some(true);
    Machine {
        uid: 0,
        gid: 0,
        cap_kill: yes,
        cap_sys_ptrace: yes,
        cap_setuid: yes,
        cap_setgid: yes,
        cap_sys_nice: yes,
        cap_ipc_lock: yes,
        cap_sys_resource: yes,
        ..machine()
    }
}

fn on(machine: &Machine, text: &str) -> Checked {
    check_with("t", text, machine, CheckOptions::default())
}

#[track_caller]
fn refused(machine: &Machine, text: &str, line: usize, key: &str, message: &str, fix: &str) {
    let checked = on(machine, text);
    assert!(checked.plan.is_none());
    expect(only(&checked), line, key, message, fix);
}

fn daemon(keys: &str, text: &str) -> String {
    format!("[daemon]\n{keys}\n{text}")
}

#[test]
fn the_account_is_looked_up_and_a_group_may_be_named() {
    let account = |keys: &str| {
        on(&roots(), &daemon(keys, &queues()))
            .plan
            .unwrap()
            .daemon
            .account
    };
    assert_eq!(account(""), None);
    assert_eq!(
        account("user = \"robot\"\ngroup = \"rtd\""),
        Some(Account {
            uid: 1001,
            gid: 990
        })
    );
    assert_eq!(
        account("user = 7\ngroup = 8"),
        Some(Account { uid: 7, gid: 8 })
    );
    let text = daemon("user = \"robot\"", &queues());
    refused(
        &roots(),
        &text,
        2,
        "daemon.user",
        "uid 1001 has no account",
        "group = (the number",
    );
    let text = daemon("group = \"rtd\"", &queues());
    refused(
        &roots(),
        &text,
        2,
        "daemon.group",
        "has no effect without `user`",
        "remove `group`",
    );
}

#[test]
fn only_who_may_change_ids_becomes_another() {
    let text = daemon("user = 7\ngroup = 8", &queues());
    let says = "uid 1000 gid 1000 it does not have CAP_SETUID and CAP_SETGID";
    refused(
        &machine(),
        &text,
        2,
        "daemon.user",
        says,
        "User=7 and Group=8 in the unit's",
    );
    let unknown = Machine {
        cap_setuid: None,
        cap_setgid: None,
        ..machine()
    };
    assert!(
        on(&unknown, &text).plan.is_some(),
        "not known is not refused"
    );
    let own = on(&machine(), &daemon("user = 1000\ngroup = 1000", &queues()));
    assert!(own.diagnostics.is_empty(), "{}", shown(&own.diagnostics));
}

#[test]
fn what_is_missing_to_change_the_ids_is_named_and_no_more() {
    let group_alone = daemon("user = 0\ngroup = 8", &queues());
    let no_setgid = Machine {
        cap_setgid: Some(false),
        ..roots()
    };
    refused(
        &no_setgid,
        &group_alone,
        3,
        "daemon.group",
        "does not have CAP_SETGID",
        "user = 0 and group = 0",
    );
    let no_setuid = Machine {
        cap_setuid: Some(false),
        ..roots()
    };
    assert!(
        on(&no_setuid, &group_alone).diagnostics.is_empty(),
        "it stays the same user"
    );
    let another = daemon("user = 7\ngroup = 8", &queues());
    refused(
        &no_setuid,
        &another,
        2,
        "daemon.user",
        "does not have CAP_SETUID",
        "start rtd as root",
    );
    refused(
        &no_setgid,
        &another,
        2,
        "daemon.user",
        "does not have CAP_SETGID",
        "start rtd as root",
    );
}

/// One signal of `drive`, which has these keys.
fn signals(keys: &str) -> String {
    [LANE, &format!("{PROCESS}{keys}\n"), SIGNALS, SIGNAL_ROUTE].concat()
}

#[test]
fn signals_to_a_certain_other_user_need_the_capability() {
    let text = signals("user = \"robot\"");
    let says = "rtd is uid 1000 and has no CAP_KILL";
    refused(
        &machine(),
        &text,
        16,
        "endpoint[1].owner",
        says,
        "user = 1000 in [[process]] `drive`",
    );
    for fine in [signals(""), signals("user = 1000")] {
        assert!(on(&machine(), &fine).diagnostics.is_empty());
    }
    assert!(
        on(
            &Machine {
                cap_kill: Some(true),
                ..machine()
            },
            &text
        )
        .diagnostics
        .is_empty()
    );
    // Whom it becomes counts, not who starts it.
    let without = Machine {
        cap_kill: Some(false),
        ..roots()
    };
    assert!(
        on(&without, &text).diagnostics.is_empty(),
        "root signals everybody"
    );
    let becomes = daemon("user = 7\ngroup = 8", &text);
    refused(
        &without,
        &becomes,
        19,
        "endpoint[1].owner",
        "rtd is uid 7",
        "AmbientCapabilities=CAP_KILL",
    );
}

#[test]
fn an_executable_of_another_user_is_refused_or_warned_of() {
    let exe = |keys: &str| signals(&format!("{keys}\nexe = \"/usr/bin/drive\""));
    let lacks = Machine {
        cap_kill: Some(true),
        ..machine()
    };
    let text = exe("user = \"robot\"");
    refused(
        &lacks,
        &text,
        8,
        "process[0].exe",
        "only to processes with CAP_SYS_PTRACE",
        "remove `exe`",
    );
    assert!(
        on(&lacks, &exe("")).diagnostics.is_empty(),
        "its own user's programs can be seen"
    );
    let checked = on(&roots(), &daemon("user = 7\ngroup = 8", &text));
    assert!(checked.plan.is_some());
    expect(
        only(&checked),
        11,
        "process[0].exe",
        "rtd keeps CAP_SYS_PTRACE",
        "user = 7 here",
    );
    assert!(
        on(&roots(), &text).diagnostics.is_empty(),
        "root that stays root"
    );
}

#[test]
fn what_is_needed_follows_from_the_plan() {
    let needed = |text: &str, uid: u32, infinite: bool| -> Vec<Capability> {
        let plan = on(&roots(), text).plan.unwrap();
        needs::to_run(
            &plan,
            uid,
            needs::Limits {
                memlock_infinite: infinite,
                rtprio: None,
            },
        )
        .into_iter()
        .map(|need| need.capability)
        .collect()
    };
    assert_eq!(needed(&queues(), 7, true), []);
    assert_eq!(needed(&queues(), 7, false), [Capability::IpcLock]);
    assert_eq!(needed(&signals(""), 7, true), [Capability::Kill]);
    assert_eq!(needed(&signals("user = 7"), 7, true), []);
    assert_eq!(
        needed(&signals("user = 8"), 0, false),
        [],
        "root is not asked"
    );
    let exe = with(
        &signals("user = 8"),
        "user = 8",
        "user = 8\nexe = \"/usr/bin/drive\"",
    );
    assert_eq!(
        needed(&exe, 7, true),
        [Capability::Kill, Capability::SysPtrace]
    );
}
