//! The entries that names refer to. The first of two equal names keeps it.

use crate::config::diagnostic::{Place, Report};
use crate::config::reader::Field;
use crate::config::sections::Config;
use crate::config::suggest;
use crate::config::values::Name;
use std::collections::{HashMap, HashSet};

/// The entry that a name in `from`, `to` or `members` refers to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// Index of an endpoint.
    Endpoint(usize),
    /// Index of a group.
    Group(usize),
}

/// Names to indices.
pub struct Names {
    pub lanes: HashMap<String, usize>,
    pub processes: HashMap<String, usize>,
    /// Endpoints and groups: one set of names.
    pub targets: HashMap<String, Target>,
    /// Key paths of the entries whose name another entry has already.
    pub second: HashSet<String>,
}

impl Names {
    /// Collects all names and reports duplicates.
    pub fn collect(config: &Config, report: &mut Report<'_>) -> Names {
        let mut second = HashSet::new();
        let lanes = config.lane.iter().enumerate().map(|(i, e)| (&e.name, i));
        let lanes = table(report, &mut second, "lane", lanes);
        let processes = config.process.iter().enumerate().map(|(i, e)| (&e.name, i));
        let processes = table(report, &mut second, "process", processes);
        let endpoints = config
            .endpoint
            .iter()
            .enumerate()
            .map(|(i, e)| (&e.name, Target::Endpoint(i)));
        let groups = config
            .group
            .iter()
            .enumerate()
            .map(|(i, e)| (&e.name, Target::Group(i)));
        let targets = table(
            report,
            &mut second,
            "endpoint or group",
            endpoints.chain(groups),
        );
        table(
            report,
            &mut second,
            "route",
            config.route.iter().enumerate().map(|(i, e)| (&e.name, i)),
        );
        Names {
            lanes,
            processes,
            targets,
            second,
        }
    }

    /// Names of endpoints, sorted for suggestions.
    pub fn endpoints(&self) -> Vec<String> {
        let is_endpoint = |t: &Target| matches!(t, Target::Endpoint(_));
        let names = self
            .targets
            .iter()
            .filter(|(_, t)| is_endpoint(t))
            .map(|(name, _)| name.clone());
        let mut names: Vec<String> = names.collect();
        names.sort();
        names
    }

    /// Names in a table, sorted for suggestions.
    pub fn sorted<T>(table: &HashMap<String, T>) -> Vec<String> {
        let mut names: Vec<String> = table.keys().cloned().collect();
        names.sort();
        names
    }
}

fn table<'c, T>(
    report: &mut Report<'_>,
    second: &mut HashSet<String>,
    what: &str,
    entries: impl Iterator<Item = (&'c Field<Name>, T)>,
) -> HashMap<String, T> {
    let entries: Vec<(&Field<Name>, T)> = entries.collect();
    // A name that is suggested for one entry is not suggested for the next.
    let mut names: HashSet<String> = entries
        .iter()
        .filter_map(|(field, _)| field.get())
        .map(|name| name.0.clone())
        .collect();
    let mut found: HashMap<String, (T, &'c Place)> = HashMap::new();
    for (field, value) in entries {
        let Some(at) = field.at() else { continue };
        if let Some((_, first)) = found.get(&at.value.0) {
            let message = format!(
                "a second {what} named `{}`; the first is on line {}",
                at.value.0,
                report.line(first)
            );
            let is_taken = |name: &str| names.contains(name);
            let free = suggest::free_name(&at.value.0, is_taken);
            report.error(&at.place, message, format!("name = {free}"));
            names.extend(free.get(1..free.len() - 1).map(str::to_owned));
            second.extend(at.place.key.strip_suffix(".name").map(str::to_owned));
            continue;
        }
        found.insert(at.value.0.clone(), (value, &at.place));
    }
    found
        .into_iter()
        .map(|(name, (value, _))| (name, value))
        .collect()
}
