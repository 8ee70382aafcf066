//! The help of all programs.

use crate::util::tool::{RTCTL, RTD, RTLAT, run};
use anyhow::ensure;
use std::process::Command;

tests![every_command_has_help,];

/// Commands that the help of a program lists.
pub fn commands(help: &str) -> Vec<&str> {
    let list = help.split("Commands:\n").nth(1).unwrap_or_default();
    list.lines()
        .take_while(|l| l.starts_with("  "))
        // Deeper is what a description continues with.
        .filter(|l| !l.starts_with("   "))
        .filter_map(|l| l.split_whitespace().next())
        .filter(|c| *c != "help")
        .collect()
}

fn every_command_has_help() -> anyhow::Result<()> {
    let expected = [
        (RTD, &["run", "check", "demo"][..]),
        (
            RTCTL,
            &[
                "ls",
                "stats",
                "run",
                "register",
                "unregister",
                "send",
                "listen",
                "flush",
            ][..],
        ),
        (
            *RTLAT,
            &["timer", "mq", "signal", "futex", "route", "compare"],
        ),
    ];
    for (program, expected) in expected {
        let tool = |arguments: &[&str]| {
            let mut command = Command::new(program);
            command.args(arguments);
            run(command)
        };
        let help = tool(&["--help"])?.well()?;
        let listed = commands(&help);
        ensure!(expected.iter().all(|c| listed.contains(c)), "{listed:?}");
        for command in listed {
            let help = tool(&[command, "--help"])?.well()?;
            ensure!(
                help.contains("Usage: ") && help.lines().count() > 3,
                "{command}: {help}"
            );
            // Where an option lists its values clap indents the empty lines too.
            let blanks = |l: &str| l.ends_with(' ') && !l.trim().is_empty();
            ensure!(
                !help.lines().any(blanks),
                "{command}: blanks at the end of a line"
            );
        }
        ensure!(
            tool(&["--version"])?
                .well()?
                .contains(env!("CARGO_PKG_VERSION"))
        );
        let none = tool(&[])?;
        ensure!(
            none.code() == Some(2) && none.err.contains("Usage: "),
            "{none:?}"
        );
        let wrong = tool(&["nonsense"])?;
        ensure!(
            wrong.code() == Some(2) && wrong.err.contains("'nonsense'"),
            "{wrong:?}"
        );
    }
    Ok(())
}
