//! The packages that the workspace is made of are as deny.toml allows: licences, one version of
//! each, from crates.io alone.

use anyhow::{Context as _, ensure};
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

tests![
    the_packages_are_as_deny_toml_allows,
    an_expression_of_licenses_is_judged_as_a_whole,
];

/// The part of deny.toml that is checked here.
struct Policy {
    licenses: Vec<String>,
    /// Name, and how the version begins that may be there beside another.
    skip: Vec<(String, String)>,
}

fn the_packages_are_as_deny_toml_allows() -> anyhow::Result<()> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let policy = policy(&std::fs::read_to_string(root.join("deny.toml"))?)?;
    let packages = packages(&root)?;
    let mut versions: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for package in &packages {
        let word = |key: &str| package[key].as_str();
        let (name, version) = (
            word("name").context("no name")?,
            word("version").context("no version")?,
        );
        let license =
            word("license").with_context(|| format!("{name} {version} has no license"))?;
        ensure!(
            allows(&policy.licenses, license),
            "{name} {version}: deny.toml does not allow {license}"
        );
        let source = word("source").unwrap_or("this repository");
        let known = [
            "this repository",
            "registry+https://github.com/rust-lang/crates.io-index",
        ];
        ensure!(
            known.contains(&source),
            "{name} {version} comes from {source}"
        );
        let skipped = policy
            .skip
            .iter()
            .any(|(n, start)| n == name && version.starts_with(&format!("{start}.")));
        if !skipped {
            versions.entry(name).or_default().push(version);
        }
    }
    let twice: Vec<_> = versions
        .iter()
        .filter(|(_, versions)| versions.len() > 1)
        .collect();
    ensure!(twice.is_empty(), "in more than one version: {twice:?}");
    for (name, start) in policy.skip {
        let of_name = packages
            .iter()
            .filter(|package| package["name"] == name.as_str())
            .count();
        ensure!(
            of_name > 1,
            "deny.toml skips {name} {start}, which is there in one version"
        );
    }
    Ok(())
}

fn an_expression_of_licenses_is_judged_as_a_whole() -> anyhow::Result<()> {
    let allowed = ["MIT", "Zlib", "ISC WITH known-exception"].map(str::to_owned);
    for (expression, expected) in [
        ("MIT", true),
        ("GPL-3.0", false),
        ("GPL-3.0 OR MIT", true),
        ("GPL-3.0/MIT", true),
        ("GPL-3.0 AND MIT", false),
        ("(GPL-3.0 OR MIT) AND Zlib", true),
        ("(GPL-3.0 OR MIT) AND BSD-2-Clause", false),
        ("Zlib AND MIT OR GPL-3.0", true),
        ("MIT WITH some-exception", false),
        ("MIT WITH some-exception OR Zlib", true),
        ("ISC WITH known-exception", true),
        ("ISC", false),
        ("ISC WITH", false),
        ("", false),
        ("MIT OR", false),
    ] {
        ensure!(allows(&allowed, expression) == expected, "{expression:?}");
    }
    Ok(())
}

fn policy(text: &str) -> anyhow::Result<Policy> {
    let table: toml::Table = text.parse()?;
    let licenses = table["licenses"]["allow"]
        .as_array()
        .context("[licenses] allow")?;
    let licenses = licenses
        .iter()
        .filter_map(|license| license.as_str().map(str::to_owned))
        .collect();
    let skip = table["bans"]["skip"].as_array().context("[bans] skip")?;
    let word = |entry: &toml::Value, key: &str| Some(entry.get(key)?.as_str()?.to_owned());
    let skip = skip
        .iter()
        .map(|entry| Some((word(entry, "name")?, word(entry, "version")?)));
    Ok(Policy {
        licenses,
        skip: skip
            .collect::<Option<_>>()
            .context("[bans] skip: name and version")?,
    })
}

/// As cargo sees them, without those that only other systems need.
fn packages(root: &Path) -> anyhow::Result<Vec<Value>> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let arguments = [
        "metadata",
        "--format-version=1",
        "--locked",
        "--filter-platform=x86_64-unknown-linux-gnu",
    ];
    let output = Command::new(cargo)
        .args(arguments)
        .current_dir(root)
        .output()
        .context("cargo metadata")?;
    ensure!(
        output.status.success(),
        "cargo metadata: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    let metadata: Value = serde_json::from_slice(&output.stdout)?;
    let packages = metadata["packages"]
        .as_array()
        .context("no packages")?
        .clone();
    ensure!(packages.len() > 20, "{} packages", packages.len());
    Ok(packages)
}

/// Whether the allowed licenses satisfy an SPDX expression. A license with an exception is another
/// one, which the list names as `A WITH B`.
fn allows(allowed: &[String], expression: &str) -> bool {
    let spaced = expression
        .replace('(', " ( ")
        .replace(')', " ) ")
        .replace('/', " OR ");
    let words: Vec<&str> = spaced.split_whitespace().collect();
    let mut rest = words.as_slice();
    any_of(allowed, &mut rest) == Some(true) && rest.is_empty()
}

/// Alternatives. None: it is no expression.
fn any_of(allowed: &[String], words: &mut &[&str]) -> Option<bool> {
    let mut satisfied = all_of(allowed, words)?;
    while words.first() == Some(&"OR") {
        *words = &words[1..];
        satisfied |= all_of(allowed, words)?;
    }
    Some(satisfied)
}

fn all_of(allowed: &[String], words: &mut &[&str]) -> Option<bool> {
    let mut satisfied = one(allowed, words)?;
    while words.first() == Some(&"AND") {
        *words = &words[1..];
        satisfied &= one(allowed, words)?;
    }
    Some(satisfied)
}

fn one(allowed: &[String], words: &mut &[&str]) -> Option<bool> {
    let (first, rest) = words.split_first()?;
    *words = rest;
    if *first == "(" {
        let satisfied = any_of(allowed, words)?;
        let (end, rest) = words.split_first()?;
        *words = rest;
        return (*end == ")").then_some(satisfied);
    }
    let mut license = (*first).to_owned();
    if words.first() == Some(&"WITH") {
        license = format!("{license} WITH {}", words.get(1)?);
        *words = &words[2..];
    }
    Some(allowed.contains(&license))
}
