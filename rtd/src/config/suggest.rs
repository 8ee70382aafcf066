//! "Did you mean": the nearest known name to an unknown one.

use super::values::quoted;
use crate::plan::NAME_BYTES_MAX;

/// The nearest candidate, if it is near enough to be a typing error.
pub fn nearest<'c>(wrong: &str, candidates: impl IntoIterator<Item = &'c str>) -> Option<&'c str> {
    // Names are bounded elsewhere, but a wrong one is not, and the distance costs the product of
    // both lengths.
    if wrong.len() > 64 {
        return None;
    }
    let lower = wrong.to_lowercase();
    let distance = |name: &str| strsim::osa_distance(&lower, &name.to_lowercase());
    let candidates: Vec<&str> = candidates.into_iter().collect();
    let best = candidates
        .iter()
        .map(|name| (distance(name), *name))
        .min_by_key(|(d, _)| *d)?;
    if best.0 <= (wrong.chars().count() / 3).max(1) {
        return Some(best.1);
    }
    // Too different by letters, but one is the beginning of the other: `prio`, `displace`.
    let begins = |name: &&str| lower.starts_with(*name) || name.starts_with(&lower);
    candidates
        .into_iter()
        .filter(|name| lower.len() >= 3 && name.len() >= 3)
        .find(begins)
}

/// `key = ["a", "b"]`, each name once.
pub fn list_line<'c>(key: &str, names: impl IntoIterator<Item = &'c str>) -> String {
    let mut once: Vec<&str> = Vec::new();
    for name in names {
        if !once.contains(&name) {
            once.push(name);
        }
    }
    let names: Vec<String> = once.into_iter().map(quoted).collect();
    format!("{key} = [{}]", names.join(", "))
}

/// An unused name, in quotes: `base`, or `base` with a number.
pub fn free_name(base: &str, taken: impl Fn(&str) -> bool) -> String {
    let numbered = (2..).map(|number: u32| {
        let tail = format!("-{number}");
        let mut end = base.len().min(NAME_BYTES_MAX.saturating_sub(tail.len()));
        while !base.is_char_boundary(end) {
            end -= 1;
        }
        format!("{}{tail}", &base[..end])
    });
    let free = std::iter::once(base.to_owned())
        .chain(numbered)
        .find(|name| !taken(name));
    quoted(&free.unwrap_or_default())
}

/// A list for display, `a`, `b` and so on, cut if it is long.
pub fn list<'c>(names: impl IntoIterator<Item = &'c str>) -> String {
    let names: Vec<&str> = names.into_iter().collect();
    let shown: Vec<String> = names
        .iter()
        .take(12)
        .map(|name| format!("`{name}`"))
        .collect();
    let more = names.len().saturating_sub(shown.len());
    match (shown.len(), more) {
        (0, _) => "none".to_owned(),
        (_, 0) => shown.join(", "),
        _ => format!("{} and {more} more", shown.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slips_are_found_and_strangers_are_not() {
        let keys = ["priority", "cpu", "name", "overflow"];
        assert_eq!(nearest("priorty", keys), Some("priority"));
        assert_eq!(nearest("prio", keys), Some("priority"));
        assert_eq!(nearest("Overflow", keys), Some("overflow"));
        assert_eq!(
            nearest("displace", ["reject", "displace-oldest"]),
            Some("displace-oldest")
        );
        assert_eq!(nearest("colour", keys), None);
        assert_eq!(nearest(&"x".repeat(100_000), keys), None);
        assert_eq!(nearest("x", []), None);
    }
}
