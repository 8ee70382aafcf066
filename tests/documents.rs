//! The documents agree with the code: rtd/ARCHITECTURE.md names each module and each file of tests,
//! links have targets, configurations run, and the messages that the manual explains exist. (The
//! commands that they show: `shell_blocks`.)

use crate::util::tool::{rtd, run_on};
use anyhow::{Context as _, ensure};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

tests![
    the_map_of_the_code_names_every_module_and_test_file,
    every_file_of_tests_is_a_module,
    every_link_of_the_documents_has_its_target,
    every_configuration_in_the_documents_runs,
    every_message_of_the_troubleshooting_page_is_in_the_code,
];

/// The modules of a directory, by name.
fn modules(directory: &Path) -> anyhow::Result<BTreeSet<String>> {
    let entries = std::fs::read_dir(directory).with_context(|| directory.display().to_string())?;
    let mut names = BTreeSet::new();
    for entry in entries {
        let name = entry?.file_name().to_string_lossy().into_owned();
        let name = name.strip_suffix(".rs").unwrap_or(&name).to_owned();
        let is_module =
            !name.contains('.') && !["mod", "main", "lib", "tests"].contains(&name.as_str());
        names.extend(is_module.then_some(name));
    }
    Ok(names)
}

fn the_map_of_the_code_names_every_module_and_test_file() -> anyhow::Result<()> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let map = std::fs::read_to_string(root.join("rtd/ARCHITECTURE.md"))?;
    let is_named = |name: &String| map.contains(&format!("`{name}`"));
    // `rt_tests` is rtlat's module for options of rt-tests.
    let is_test = |name: &str| name.ends_with("_tests") && name != "rt_tests";
    // rtlat is one room.
    let mut rooms = vec![Path::new("rtd/rtlat/src").to_owned()];
    for source in ["rtcore/src", "rtd/src"] {
        let names = modules(&root.join(source))?;
        // Their rows say that they have one file for each kernel object and each command.
        let names = names
            .iter()
            .filter(|name| !["sys", "ctl", "bin"].contains(&name.as_str()));
        rooms.extend(
            names
                .map(|name| Path::new(source).join(name))
                .filter(|room| root.join(room).is_dir()),
        );
    }
    for room in rooms {
        let missing: Vec<String> = modules(&root.join(&room))?
            .into_iter()
            .filter(|name| !is_named(name) && !is_test(name))
            .collect();
        ensure!(
            missing.is_empty(),
            "{}: the map does not name {missing:?}",
            room.display()
        );
    }
    let files = modules(&root.join("tests"))?;
    let files: BTreeSet<String> = files
        .into_iter()
        .filter(|name| root.join("tests").join(format!("{name}.rs")).exists())
        .collect();
    let table = map
        .split("### Tests")
        .nth(1)
        .context("no section of tests")?;
    let table = table.split("## Invariants").next().unwrap_or_default();
    let rows = table.lines().filter(|line| line.starts_with("| "));
    let listed: BTreeSet<String> = rows
        .flat_map(|row| row.split('`').skip(1).step_by(2))
        .map(str::to_owned)
        .collect();
    ensure!(
        listed == files,
        "not named: {:?}; not there: {:?}",
        &files - &listed,
        &listed - &files
    );
    Ok(())
}

/// A file that `main.rs` does not name is not compiled, and none of its tests would run.
fn every_file_of_tests_is_a_module() -> anyhow::Result<()> {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests");
    let is_file = |name: &String| tests.join(format!("{name}.rs")).exists();
    let files: BTreeSet<String> = modules(&tests)?.into_iter().filter(is_file).collect();
    let listed = crate::MODULES.iter().map(|(name, _)| (*name).to_owned());
    let listed: BTreeSet<String> = listed.collect();
    ensure!(listed == files, "{:?}", &files - &listed);
    Ok(())
}

/// Documents that a reader of the repository opens.
fn texts(root: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let mut texts: Vec<PathBuf> = [
        "README.md",
        "SECURITY.md",
        "CHANGELOG.md",
        "configs/README.md",
        "bindings/python/README.md",
        "bindings/xenomai/README.md",
        "rtd/ARCHITECTURE.md",
    ]
    .map(|name| root.join(name))
    .into();
    for entry in std::fs::read_dir(root.join("rtd/book/src"))? {
        texts.push(entry?.path());
    }
    Ok(texts)
}

/// Lines outside of code blocks.
fn prose(text: &str) -> String {
    let mut is_code = false;
    let outside = text.lines().filter(|line| {
        let is_fence = line.starts_with("```");
        is_code ^= is_fence;
        !is_code && !is_fence
    });
    outside.collect::<Vec<_>>().join("\n")
}

/// The anchor of a heading, as code hosts and mdBook make it.
fn anchor(heading: &str) -> String {
    let kept = heading.trim_start_matches('#').trim().to_lowercase();
    let kept: String = kept
        .chars()
        .filter(|c| c.is_alphanumeric() || " -_".contains(*c))
        .collect();
    kept.replace(' ', "-")
}

fn every_link_of_the_documents_has_its_target() -> anyhow::Result<()> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let mut links = 0;
    for text in texts(&root)? {
        let prose = prose(&std::fs::read_to_string(&text)?);
        let directory = text.parent().context("no directory")?;
        for link in prose
            .split("](")
            .skip(1)
            .filter_map(|rest| rest.split(')').next())
        {
            if link.starts_with("http") {
                continue;
            }
            links += 1;
            let (file, fragment) = link.split_once('#').unwrap_or((link, ""));
            let file = if file.is_empty() {
                text.clone()
            } else {
                directory.join(file)
            };
            ensure!(file.exists(), "{}: {link} leads nowhere", text.display());
            if !fragment.is_empty() {
                let target = std::fs::read_to_string(&file)?;
                let found = target
                    .lines()
                    .any(|line| line.starts_with('#') && anchor(line) == fragment);
                ensure!(found, "{}: {link}: no such heading", text.display());
            }
        }
    }
    ensure!(links > 40, "only {links} links were found");
    Ok(())
}

/// A block that is marked `toml` is a whole configuration; parts of one are marked `toml,ignore`.
fn every_configuration_in_the_documents_runs() -> anyhow::Result<()> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let mut count = 0;
    for text in texts(&root)? {
        let content = std::fs::read_to_string(&text)?;
        for block in content
            .split("\n```toml\n")
            .skip(1)
            .filter_map(|rest| rest.split("\n```").next())
        {
            let said = run_on(rtd(&["check", "--allow-degraded", "-"]), block.as_bytes())?;
            ensure!(
                said.code() == Some(0),
                "{}:\n{block}\n{said:?}",
                text.display()
            );
            count += 1;
        }
    }
    ensure!(count >= 3, "only {count} configurations were found");
    Ok(())
}

/// What the manual quotes as a message is in the code, so that a search for it succeeds.
fn every_message_of_the_troubleshooting_page_is_in_the_code() -> anyhow::Result<()> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let mut code = String::new();
    let mut rooms = vec![root.join("rtcore/src"), root.join("rtd/src")];
    while let Some(room) = rooms.pop() {
        for entry in std::fs::read_dir(room)? {
            let path = entry?.path();
            if path.is_dir() {
                rooms.push(path);
            } else {
                code += &std::fs::read_to_string(path)?;
            }
        }
    }
    // Texts go on behind a backslash at the end of a line.
    let lines: Vec<&str> = code.split("\\\n").map(str::trim_start).collect();
    let code = lines.concat().replace("\\\"", "\"");
    let page = std::fs::read_to_string(root.join("rtd/book/src/troubleshooting.md"))?;
    let quotes: Vec<&str> = page
        .split("**`")
        .skip(1)
        .filter_map(|rest| rest.split("`**").next())
        .collect();
    ensure!(
        quotes.len() > 15,
        "only {} messages were found",
        quotes.len()
    );
    for quote in quotes {
        for part in quote
            .split("...")
            .map(str::trim)
            .filter(|part| !part.is_empty())
        {
            ensure!(code.contains(part), "no message has `{part}`");
        }
    }
    Ok(())
}
