//! SECURITY.md promises nothing that no test shows: each line of its tables names one, and each is
//! there.

use crate::util::tool::{RTCTL, RTD, run};
use anyhow::{Context as _, ensure};
use std::path::Path;
use std::process::Command;

tests![
    every_claim_names_a_test_that_is_there,
    no_program_of_an_ordinary_build_has_fault_points,
];

/// The words in backquotes that name a test: `module::test` of this binary, or `file.rs: test` of
/// any other.
fn named(text: &str) -> Vec<&str> {
    let words = text.split('`').skip(1).step_by(2);
    words
        .filter(|word| word.contains("::") || word.contains(".rs: "))
        .collect()
}

fn every_claim_names_a_test_that_is_there() -> anyhow::Result<()> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let text = std::fs::read_to_string(root.join("SECURITY.md")).context("SECURITY.md")?;
    let mut list = Command::new(std::env::current_exe()?);
    list.arg("--list");
    let list = run(list)?.well()?;
    let trials: Vec<&str> = list
        .lines()
        .filter_map(|line| line.strip_suffix(": test"))
        .collect();
    for name in named(&text) {
        match name.split_once(".rs: ") {
            None => ensure!(
                trials.contains(&name),
                "SECURITY.md names {name}, which is no test"
            ),
            Some((file, test)) => {
                let file = root.join(file).with_extension("rs");
                let source =
                    std::fs::read_to_string(&file).with_context(|| file.display().to_string())?;
                ensure!(
                    source.contains(&format!("fn {test}(")),
                    "SECURITY.md names {name}, which is no test"
                );
            }
        }
    }
    // A row of a table of attacks that names none is a claim without a proof.
    let rows = text
        .lines()
        .skip_while(|line| !line.contains("| shown by |"));
    let mut claims = 0;
    for row in rows.filter(|line| line.starts_with('|') && line.matches('|').count() == 4) {
        if row.contains("shown by") || row.starts_with("|---") {
            continue;
        }
        claims += 1;
        ensure!(!named(row).is_empty(), "no test shows this: {row}");
    }
    ensure!(claims > 10, "the tables were not found");
    Ok(())
}

/// `scripts/faults` checks that this text marks a build that has them.
fn no_program_of_an_ordinary_build_has_fault_points() -> anyhow::Result<()> {
    let mark = b"RTD_FAULT_POINTS";
    for program in [RTD, RTCTL] {
        let bytes = std::fs::read(program)?;
        ensure!(
            !bytes.windows(mark.len()).any(|window| window == mark),
            "{program} has fault points"
        );
    }
    Ok(())
}
