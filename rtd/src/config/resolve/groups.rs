//! Groups: members that exist, once each, and their filters.

use super::names::{Names, Target};
use super::{Context, list_with, list_without};
use crate::config::reader::Field;
use crate::config::sections::Group;
use crate::config::suggest::list_line;
use crate::plan::{EndpointId, Filter};
use rtcore::lane::policy::GroupMode;

/// A group's entry.
pub struct Made {
    /// How members are chosen.
    pub mode: GroupMode,
    /// The members.
    pub members: Vec<EndpointId>,
    /// The filter that restricts the members at a given time.
    pub filter: Option<Filter>,
}

/// All groups, by index.
pub fn resolve(cx: &mut Context<'_, '_, '_>) -> Vec<Made> {
    let config = cx.config;
    let mut groups = Vec::with_capacity(config.group.len());
    for group in &config.group {
        let members = members(cx, group);
        let filter = filter(cx, group);
        if !group.process_group_of.is_absent() || !group.session_of.is_absent() {
            owners(cx, group);
        }
        let mode = group.mode.get().map_or(GroupMode::All, |mode| mode.0);
        groups.push(Made {
            mode,
            members,
            filter,
        });
    }
    groups
}

fn members(cx: &mut Context<'_, '_, '_>, group: &Group) -> Vec<EndpointId> {
    let mut members = Vec::new();
    for at in &group.members {
        match cx.names.targets.get(&at.value).copied() {
            Some(Target::Endpoint(id)) if members.contains(&id) => {
                let message = format!("`{}` is a member already", at.value);
                cx.report
                    .error(&at.place, message, list_line("members", names(group)));
            }
            Some(Target::Endpoint(id)) => members.push(id),
            Some(Target::Group(_)) => {
                let message = format!("`{}` is a group; members are endpoints", at.value);
                let without = list_without("members", &group.members, &at.place);
                let fix = without
                    .unwrap_or_else(|| format!("name the members of `{}` instead", at.value));
                cx.report.error(&at.place, message, fix);
            }
            None => {
                let known = cx.names.endpoints();
                let write = |near: &str| list_with("members", &group.members, &at.place, near);
                cx.unknown_name(&at.place, "endpoint", &at.value, &known, write);
            }
        }
    }
    members
}

fn names(group: &Group) -> impl Iterator<Item = &str> {
    group.members.iter().map(|at| at.value.as_str())
}

fn filter(cx: &mut Context<'_, '_, '_>, group: &Group) -> Option<Filter> {
    if let (Some(_), Some(second)) = (group.process_group_of.at(), group.session_of.at()) {
        let message = "a group filters by `process_group_of` or by `session_of`, not by both";
        cx.report.error(
            &second.place,
            message,
            "remove `session_of`\nremove `process_group_of`",
        );
    }
    let process_group = process(cx, &group.process_group_of, "process_group_of");
    let session = process(cx, &group.session_of, "session_of");
    process_group
        .map(Filter::ProcessGroupOf)
        .or(session.map(Filter::SessionOf))
}

fn process(cx: &mut Context<'_, '_, '_>, field: &Field<String>, key: &str) -> Option<usize> {
    let at = field.at()?;
    let found = cx.names.processes.get(&at.value).copied();
    if found.is_none() {
        let known = Names::sorted(&cx.names.processes);
        cx.unknown_value(&at.place, key, "process", &at.value, &known);
    }
    found
}

/// A filter compares the owners, so every member must have one.
fn owners(cx: &mut Context<'_, '_, '_>, group: &Group) {
    let config = cx.config;
    for at in &group.members {
        let Some(Target::Endpoint(id)) = cx.names.targets.get(&at.value).copied() else {
            continue;
        };
        if config
            .endpoint
            .get(id)
            .is_some_and(|endpoint| endpoint.owner.is_absent())
        {
            let message = format!(
                "no process owns `{}`: members are selected by the process group or session of \
                 their owners",
                at.value
            );
            let without = list_without("members", &group.members, &at.place);
            let without = without.map_or_else(String::new, |line| format!("\n{line}"));
            let fix = format!("{} (endpoint `{}`){without}", cx.owner_line(), at.value);
            cx.report.error(&at.place, message, fix);
        }
    }
}
