//! Whether Cobalt can be had, tried in a child: a library may end the process that it cannot bind.
//!
//! Invariant: nothing of the library is loaded into the process that asks.

use super::own::{own_binary, wait};
use anyhow::Context as _;
use rtcore::skin::cobalt;
use rtcore::sys::memfd;
use std::io::{Read as _, Seek as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::Stdio;

/// Name of the hidden subcommand.
pub const SUBCOMMAND: &str = "cobalt-probe";

/// Arguments of the hidden `cobalt-probe`.
#[derive(clap::Args, Clone, Debug)]
pub struct ProbeArgs {
    #[arg(long = "library")]
    path: Option<PathBuf>,
}

/// What precedes the verdict: the library's own words may be on the same output.
const YES: &str = "rtd-probe: yes: ";
const NO: &str = "rtd-probe: no: ";

/// The body of `cobalt-probe`: the verdict on standard output, unless the library ends the process.
pub fn run_probe(args: &ProbeArgs) -> anyhow::Result<()> {
    let loaded = cobalt::load(args.path.as_deref());
    let verdict = loaded.and_then(|loaded| {
        let description = loaded.description();
        loaded.bind().map(|_| description)
    });
    let line = match verdict {
        Ok(what) => format!("{YES}{what}\n"),
        Err(why) => format!("{NO}{why}\n"),
    };
    std::io::stdout().write_all(line.as_bytes()).context("cannot say what was found")
}

/// What Cobalt is there, for human eyes, or why none.
pub fn cobalt(library: Option<&Path>) -> Result<String, String> {
    if library.is_none() && !Path::new(cobalt::PROC_VERSION).exists() {
        return Err(format!("no Cobalt core runs in this kernel (there is no {})", cobalt::PROC_VERSION));
    }
    ask(library).map_err(|e| format!("{e:#}"))?
}

fn ask(library: Option<&Path>) -> anyhow::Result<Result<String, String>> {
    let [mut said, mut complained] = [scratch()?, scratch()?];
    let mut command = own_binary()?;
    command.arg(SUBCOMMAND);
    if let Some(library) = library {
        command.arg("--library").arg(library);
    }
    command.stdin(Stdio::null()).stdout(said.try_clone()?).stderr(complained.try_clone()?);
    let mut child = command.spawn().context("cannot start the probe of Cobalt")?;
    let status = match wait(&mut child) {
        Ok(status) => status,
        Err(e) => {
            let _ = child.kill();
            let _ = child.wait();
            return Err(e.context("the probe of Cobalt hangs"));
        }
    };
    let verdict = read(&mut said);
    let find = |mark: &str| verdict.lines().find_map(|line| line.strip_prefix(mark)).map(str::to_owned);
    if let Some(what) = find(YES) {
        return Ok(Ok(what));
    }
    let words = read(&mut complained);
    let words = words.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or("nothing was said why");
    Ok(Err(find(NO)
        .unwrap_or_else(|| format!("xenomai_init ended the process that tried it ({status}): {words}"))))
}

fn scratch() -> anyhow::Result<std::fs::File> {
    memfd::scratch("rtd-probe").context("cannot make a place for what the probe says")
}

/// What somebody who has ended wrote.
fn read(file: &mut std::fs::File) -> String {
    let mut text = Vec::new();
    // What cannot be read is missing in an error message.
    let _ = file.rewind().and_then(|()| file.read_to_end(&mut text));
    String::from_utf8_lossy(&text).into_owned()
}
