//! The names and priorities that a file uses, collected before its sections are read: a suggestion
//! for a missing or wrong value is a name that exists, or a name that is free.

use super::suggest;
use std::collections::HashSet;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// The names of a file.
#[derive(Debug, Default)]
pub struct Known {
    /// Names of lanes.
    pub lanes: Vec<String>,
    /// Names of processes.
    pub processes: Vec<String>,
    /// Names of endpoints.
    pub endpoints: Vec<String>,
    taken: HashSet<String>,
    /// An endpoint that a route may read.
    source: Option<String>,
    /// An endpoint that a route may send to.
    sink: Option<String>,
    /// A priority that no lane has.
    priority: u64,
}

impl Known {
    /// Collects the names from the parsed file.
    pub fn collect(root: &DeTable<'_>) -> Known {
        let [lanes, processes, endpoints, groups] =
            ["lane", "process", "endpoint", "group"].map(|section| texts(root, section, "name"));
        let read: HashSet<String> = texts(root, "route", "from").into_iter().collect();
        let sunk: HashSet<String> = ["to", "members"]
            .map(|key| [texts(root, "route", key), texts(root, "group", key)].concat())
            .concat()
            .into_iter()
            .collect();
        let pick = |other: &HashSet<String>| {
            endpoints
                .iter()
                .find(|name| !other.contains(*name))
                .or(endpoints.first())
                .cloned()
        };
        let priorities: HashSet<String> = texts(root, "lane", "priority").into_iter().collect();
        let free = (1..=98_u64).filter(|n| !priorities.contains(&n.to_string()));
        Known {
            source: pick(&sunk),
            sink: pick(&read),
            priority: free.min_by_key(|n| n.abs_diff(50)).unwrap_or(50),
            taken: [lanes.as_slice(), &processes, &endpoints, &groups]
                .concat()
                .into_iter()
                .collect(),
            lanes,
            processes,
            endpoints,
        }
    }

    /// An unused name, in quotes: `base`, or `base` with a number.
    pub fn free_name(&self, base: &str) -> String {
        suggest::free_name(base, |name| self.taken.contains(name))
    }

    /// A value for `lane` of a route.
    pub fn lane(&self) -> String {
        quoted_or(self.lanes.first(), "control")
    }

    /// A value for `from`.
    pub fn source(&self) -> String {
        quoted_or(self.source.as_ref(), "controller.out")
    }

    /// A value for `to` and `members`.
    pub fn sink(&self) -> String {
        quoted_or(self.sink.as_ref(), "drive.commands")
    }

    /// A value for `priority`.
    pub fn priority(&self) -> String {
        self.priority.to_string()
    }
}

fn quoted_or(name: Option<&String>, example: &str) -> String {
    super::values::quoted(name.map_or(example, String::as_str))
}

/// The texts of a key in all entries of a section: strings, numbers, and the items of lists.
fn texts(root: &DeTable<'_>, section: &str, key: &str) -> Vec<String> {
    let entries: &[Spanned<DeValue<'_>>] = match root.get(section).map(Spanned::get_ref) {
        Some(DeValue::Array(entries)) => entries,
        _ => &[],
    };
    let values = entries
        .iter()
        .filter_map(|entry| entry.get_ref().as_table()?.get(key))
        .map(Spanned::get_ref);
    let text = |value: &DeValue<'_>| match value {
        DeValue::String(text) => Some(text.to_string()),
        DeValue::Integer(number) => Some(number.as_str().to_owned()),
        _ => None,
    };
    values
        .flat_map(|value| match value {
            DeValue::Array(items) => items
                .iter()
                .filter_map(|item| text(item.get_ref()))
                .collect(),
            one => text(one).into_iter().collect::<Vec<_>>(),
        })
        .collect()
}
