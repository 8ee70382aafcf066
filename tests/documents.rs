//! rtd/ARCHITECTURE.md is a map of the whole tree: it names each module and each file of tests, and none that is not there.

use anyhow::{Context as _, ensure};
use std::collections::BTreeSet;
use std::path::Path;

/// The modules of a directory, by name.
fn modules(directory: &Path) -> anyhow::Result<BTreeSet<String>> {
    let entries = std::fs::read_dir(directory).with_context(|| directory.display().to_string())?;
    let mut names = BTreeSet::new();
    for entry in entries {
        let name = entry?.file_name().to_string_lossy().into_owned();
        let name = name.strip_suffix(".rs").unwrap_or(&name).to_owned();
        let is_module = !name.contains('.') && !["mod", "main", "lib", "tests"].contains(&name.as_str());
        names.extend(is_module.then_some(name));
    }
    Ok(names)
}

pub fn the_map_of_the_code_names_every_module_and_test_file() -> anyhow::Result<()> {
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
        let names = names.iter().filter(|name| !["sys", "ctl", "bin"].contains(&name.as_str()));
        rooms.extend(names.map(|name| Path::new(source).join(name)).filter(|room| root.join(room).is_dir()));
    }
    for room in rooms {
        let missing: Vec<String> = modules(&root.join(&room))?
            .into_iter()
            .filter(|name| !is_named(name) && !is_test(name))
            .collect();
        ensure!(missing.is_empty(), "{}: the map does not name {missing:?}", room.display());
    }
    let files = modules(&root.join("tests"))?;
    let files: BTreeSet<String> =
        files.into_iter().filter(|name| root.join("tests").join(format!("{name}.rs")).exists()).collect();
    let table = map.split("### Tests").nth(1).context("no section of tests")?;
    let table = table.split("## Invariants").next().unwrap_or_default();
    let rows = table.lines().filter(|line| line.starts_with("| "));
    let listed: BTreeSet<String> =
        rows.flat_map(|row| row.split('`').skip(1).step_by(2)).map(str::to_owned).collect();
    ensure!(listed == files, "not named: {:?}; not there: {:?}", &files - &listed, &listed - &files);
    Ok(())
}
