//! The commands that the documents show: each command of rtd, rtctl and rtlat parses with the real
//! program, those of the first configuration and of the examples are run, and all others are listed
//! with the reason why no test runs them.

use crate::examples;
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
    every_other_shown_command_is_run_or_listed,
    the_examples_run_with_the_commands_of_the_manual,
    the_first_configuration_runs_with_the_commands_below_it needs(PYTHON),
];

/// The commands that no test runs, by their beginning, with the reason.
const NOT_RUN: &[(&str, &str)] = &[
    ("cargo build", "the tests themselves need its programs"),
    ("cargo test", "it would run the tests again"),
    ("make -C bindings/c", "bindings_c.rs runs it"),
    ("cc main.c", "bindings_c.rs runs it"),
    ("cc -static main.c", "bindings_c.rs runs it"),
    ("pip install", "downloads and installs a package"),
    ("python3 -m rtcore", "test_programs.py runs them"),
    ("python3 bindings/python", "test_programs.py runs them"),
    ("sudo install", "writes to directories of the system"),
    ("sudo useradd", "adds a user to the system"),
    ("sudo systemctl", "starts a service of the system"),
    ("export", "sets a variable for the commands after it"),
    ("scripts/rt-vm", "starts a virtual machine"),
];

/// The examples with their own commands in the manual: the lines of output after each of which its
/// user presses Enter, and a part of the remaining output.
const EXAMPLES: [(&str, &[&str], &str); 4] = [
    ("controller", &[], " set points sent, "),
    ("ask", &[], "5 questions: "),
    ("estop", &["moving"], "STOP: pressed, by pid "),
    (
        "epoll",
        &["waiting", "console ("],
        "SIGTERM, after 1 messages",
    ),
];

/// Seconds after which an example ends even if its test has failed.
const EXAMPLE_S: &str = "120";

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

/// The shell blocks of a document.
fn blocks(text: &str) -> Vec<&str> {
    let blocks = text.split("```").skip(1).step_by(2);
    blocks
        .filter_map(|block| {
            block
                .strip_prefix("sh\n")
                .or_else(|| block.strip_prefix("text\n"))
        })
        .collect()
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

/// The name of the example that the command starts.
fn example(words: &[String]) -> Option<&str> {
    words.first()?.strip_prefix("target/debug/examples/")
}

fn every_other_shown_command_is_run_or_listed() -> anyhow::Result<()> {
    let mut listed = vec![0; NOT_RUN.len()];
    for (path, text) in texts()? {
        for words in blocks(&text).into_iter().flat_map(commands) {
            // A block of text may show output instead of commands.
            let is_command = ["cargo", "sudo", "export", "make", "cc", "pip", "python3"]
                .contains(&words[0].as_str())
                || words[0].starts_with("scripts/")
                || words[0].starts_with("target/");
            if !is_command || ours(&words).is_some() || example(&words).is_some() {
                continue;
            }
            let line = words.join(" ");
            let at = NOT_RUN
                .iter()
                .position(|(start, _)| line.starts_with(start))
                .with_context(|| format!("{}: not run, not listed: {line}", path.display()))?;
            listed[at] += 1;
        }
    }
    for ((start, reason), count) in NOT_RUN.iter().zip(listed) {
        ensure!(count > 0, "no document shows {start} ({reason})");
    }
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
        // A comment may have an apostrophe.
        let code = line.split_once(" # ").map_or(line, |(code, _)| code);
        is_open ^= code.matches('\'').count() % 2 == 1;
    }
    all
}

/// The directory of the built programs.
fn programs() -> anyhow::Result<&'static Path> {
    Path::new(crate::util::tool::RTCTL)
        .parent()
        .context("no directory")
}

/// The line in a shell whose commands find this instance.
fn shell(instance: &Instance, line: &str) -> Command {
    let mut command = Command::new("sh");
    command
        .args(["-c", line])
        // The system's python3 first: a shim of a version manager starts slowly on a busy machine.
        .env(
            "PATH",
            format!(
                "/usr/bin:/bin:{}",
                std::env::var("PATH").unwrap_or_default()
            ),
        )
        .env("RTD_INSTANCE", &instance.name)
        .env("RTD_SOCKET", instance.socket());
    process::die_with_parent_at_exec(&mut command);
    command
}

/// Each line of the manual that starts examples, on the file that it names.
fn the_examples_run_with_the_commands_of_the_manual() -> anyhow::Result<()> {
    let text = std::fs::read_to_string(root().join("rtd/book/src/client.md"))?;
    let instance = Instance::new()?;
    let daemon = examples::daemon(&instance)?;
    let built = examples::built()?.display();
    let mut run = Vec::new();
    for line in blocks(&text).into_iter().flat_map(lines) {
        let all = commands(&line);
        let Some(name) = all.iter().filter_map(|words| example(words)).next_back() else {
            continue;
        };
        let (_, presses, output) = EXAMPLES
            .into_iter()
            .find(|(example, ..)| *example == name)
            .with_context(|| format!("no test for {line}"))?;
        // A person waits a second until the program is ready; the test sees when it is.
        let command = line
            .replace("sleep 1;", "read _;")
            .replace(
                "target/debug/examples/",
                &format!("timeout {EXAMPLE_S} {built}/"),
            )
            .replace("target/debug/rtctl", crate::util::tool::RTCTL);
        // The event loop ends by a signal, as with Ctrl-C.
        let end = match name {
            "epoll" => "read _; kill $!; wait $!",
            _ => "wait $!",
        };
        let mut tool = Tool::start(shell(&instance, &format!("set -e\n{command}\n{end}")))?;
        for start in presses {
            examples::until(&tool, start).with_context(|| line.clone())?;
            tool.type_in(b"\n")?;
        }
        let said = tool.end()?.well().with_context(|| line.clone())?;
        ensure!(said.contains(output), "{line}: {said}");
        run.push(name.to_owned());
    }
    let wanted: Vec<&str> = EXAMPLES.iter().map(|(name, ..)| *name).collect();
    ensure!(run == wanted, "{run:?} were run");
    daemon.stop()?;
    Ok(())
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
    let programs = programs()?.display();
    let shell = |line: &str| {
        shell(
            &instance,
            &line.replace("target/release/", &format!("{programs}/")),
        )
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
