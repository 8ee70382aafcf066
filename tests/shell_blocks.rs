//! The commands that the documents show: each parses with the real program, and those of the first
//! configuration are run.

use crate::util::needs::Need;
use crate::util::tool::{Said, Tool, rtd, rtlat, run};
use crate::util::{Daemon, Instance, first_cpu};
use anyhow::{Context as _, ensure};
use rtcore::lane::peer::{PeerState, Reception};
use rtcore::stats::snapshot::{Endpoint, Process};
use rtcore::sys::process;
use std::path::{Path, PathBuf};
use std::process::Command;

static PYTHON: Need = Need::optional("python3", || {
    Command::new("python3")
        .arg("--version")
        .output()
        .is_ok_and(|said| said.status.success())
});

tests![
    every_shown_command_parses_with_the_real_program,
    the_first_configuration_runs_with_the_commands_below_it needs(PYTHON),
];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// The documents that show commands.
fn texts() -> anyhow::Result<Vec<(PathBuf, String)>> {
    let mut paths: Vec<PathBuf> = ["README.md", "SECURITY.md", "configs/README.md"]
        .map(|name| root().join(name))
        .into();
    for entry in std::fs::read_dir(root().join("rtd/book/src"))? {
        paths.push(entry?.path());
    }
    let read = |path: PathBuf| Ok((path.clone(), std::fs::read_to_string(path)?));
    paths.into_iter().map(read).collect()
}

/// The code of a document: shell blocks as they are, and each piece of inline code by itself.
fn code(text: &str) -> Vec<String> {
    let mut all = Vec::new();
    for (number, part) in text.split("```").enumerate() {
        if number % 2 == 0 {
            // Between asterisks stands a message that begins with the name of a program.
            let pieces: Vec<&str> = part.split('`').collect();
            let inline = pieces
                .chunks_exact(2)
                .filter(|pair| !pair[0].ends_with("**"));
            all.extend(inline.map(|pair| pair[1].to_owned()));
        } else if let Some(block) = part
            .strip_prefix("sh\n")
            .or_else(|| part.strip_prefix("text\n"))
        {
            all.push(block.to_owned());
        }
    }
    all
}

/// The commands of a piece of shell code, each as its words: quotes keep a word together, `#` begins
/// a comment, and a line end or an operator ends a command.
fn commands(code: &str) -> Vec<Vec<String>> {
    let (mut all, mut words, mut word) = (Vec::new(), Vec::new(), None::<String>);
    let (mut quote, mut is_comment) = (None, false);
    for c in code.chars().chain(['\n']) {
        match (quote, c) {
            _ if is_comment && c != '\n' => {}
            (Some(open), _) if c == open => quote = None,
            (Some(_), _) => word.get_or_insert_default().push(c),
            (None, '\'' | '"') => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            (None, '#') if word.is_none() => is_comment = true,
            (None, ' ' | '\n' | ';' | '&' | '|' | '>') => {
                words.extend(word.take());
                is_comment = false;
                if c != ' ' && !words.is_empty() {
                    all.push(std::mem::take(&mut words));
                }
            }
            (None, _) => word.get_or_insert_default().push(c),
        }
    }
    all
}

/// The program that a command starts and its arguments, if it is one of ours.
fn ours(words: &[String]) -> Option<(&'static str, Vec<&str>)> {
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let own = |word: &str| {
        let name = word.rsplit('/').next();
        ["rtd", "rtctl", "rtlat"]
            .into_iter()
            .find(|program| name == Some(*program))
    };
    match words.as_slice() {
        ["cargo", "run", rest @ ..] => {
            let program = rest.iter().find_map(|word| own(word))?;
            let at = rest.iter().position(|word| *word == "--")?;
            Some((program, rest[at + 1..].to_vec()))
        }
        ["sudo", program, rest @ ..] | [program, rest @ ..] => {
            Some((own(program)?, rest.to_vec())).filter(|(_, args)| !args.is_empty())
        }
        [] => None,
    }
}

/// Parses the arguments as the program does, and shows its help instead of running it: the parser
/// takes them from left to right, and ends with an error at one that it does not know.
fn parsed(program: &str, args: &[&str]) -> anyhow::Result<Said> {
    let end = args.iter().position(|arg| *arg == "--");
    let mut args = args[..end.unwrap_or(args.len())].to_vec();
    args.push("--help");
    let command = match program {
        "rtd" => rtd(&args),
        "rtlat" => rtlat(&args),
        _ => {
            let mut command = Command::new(crate::util::tool::RTCTL);
            command.args(&args);
            process::die_with_parent_at_exec(&mut command);
            command
        }
    };
    run(command)
}

fn every_shown_command_parses_with_the_real_program() -> anyhow::Result<()> {
    let mut count = 0;
    for (path, text) in texts()? {
        for words in code(&text).iter().flat_map(|code| commands(code)) {
            let Some((program, args)) = ours(&words) else {
                continue;
            };
            let said = parsed(program, &args)?;
            // The text may name what stands for a value: `rtlat compare --preset NAMES`.
            let stands_for = |arg: &&&str| arg.len() > 1 && arg.chars().all(|c| c.is_uppercase());
            let is_placeholder = args
                .iter()
                .filter(stands_for)
                .any(|arg| said.err.contains(&format!("invalid value '{arg}'")));
            ensure!(
                said.code() == Some(0) || is_placeholder,
                "{}: {}: {}",
                path.display(),
                words.join(" "),
                said.err
            );
            count += 1;
        }
    }
    ensure!(count > 50, "only {count} commands were found");
    Ok(())
}

/// A command of a block as it stands there, over several lines if its quotes go on.
fn lines(block: &str) -> Vec<String> {
    let mut all: Vec<String> = Vec::new();
    let mut is_open = false;
    for line in block.lines() {
        match all.last_mut() {
            Some(last) if is_open => *last += &format!("\n{line}"),
            _ => all.push(line.to_owned()),
        }
        is_open ^= line.matches('\'').count() % 2 == 1;
    }
    all
}

/// A newcomer's first steps: the configuration of the README, and each command below it in a shell.
fn the_first_configuration_runs_with_the_commands_below_it() -> anyhow::Result<()> {
    let text = std::fs::read_to_string(root().join("README.md"))?;
    let (_, rest) = text.split_once("```toml\n").context("no configuration")?;
    let (config, rest) = rest.split_once("```").context("no end")?;
    let block = rest
        .split("```text\n")
        .nth(1)
        .and_then(|rest| rest.split("```").next())
        .context("no commands")?;
    let instance = Instance::new()?;
    let config = config
        .replace("/panel", &instance.queue("panel"))
        .replace("cpu = 0", &format!("cpu = {}", first_cpu()));
    let (name, socket) = (&instance.name, instance.socket());
    let daemon = Daemon::start(&format!(
        "[daemon]\nname = \"{name}\"\nsocket = \"{socket}\"\n{config}"
    ))?;
    let programs = Path::new(crate::util::tool::RTCTL)
        .parent()
        .context("no directory")?;
    let shell = |line: &str| {
        let line = line.replace("target/release/", &format!("{}/", programs.display()));
        let mut command = Command::new("sh");
        command
            .args(["-c", &line])
            // The system's python3 first: a shim of a version manager starts slowly on a busy machine.
            .env(
                "PATH",
                format!(
                    "/usr/bin:/bin:{}",
                    std::env::var("PATH").unwrap_or_default()
                ),
            )
            .env("RTD_INSTANCE", name)
            .env("RTD_SOCKET", instance.socket());
        process::die_with_parent_at_exec(&mut command);
        command
    };
    let mut drive = None;
    let mut count = 0;
    for line in lines(block) {
        if line.contains("rtctl run") {
            drive = Some(Tool::start(shell(&line))?);
            // Registered is not ready: the program has to block the signal first.
            instance.until("the drive takes its signal", |page| {
                let is_there = |p: &Process| p.name == "drive" && p.state == PeerState::Alive;
                let takes =
                    |e: &Endpoint| e.name == "drive.stop" && e.reception == Reception::Takes;
                page.processes.iter().any(is_there) && page.endpoints.iter().any(takes)
            })?;
        } else if line.contains("rtctl") {
            run(shell(&line))?.well().with_context(|| line.clone())?;
            count += 1;
        }
    }
    ensure!(count == 2, "{count} commands were run");
    let said = drive.context("no program is started")?.end()?.well()?;
    ensure!(said.contains("si_code=-1"), "{said}");
    daemon.stop()?;
    Ok(())
}
