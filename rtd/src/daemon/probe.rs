//! Whether Cobalt can be had, tried in a child: a library may end the process that it cannot bind.
//!
//! Invariant: nothing of the library is loaded into the process that asks.

use super::own::{PATIENCE, own_binary, wait};
use crate::config::library;
use crate::config::machine::Found;
use anyhow::{Context as _, bail};
use rtcore::skin::{Skin, cobalt};
use rtcore::sys::accounts::own_uid;
use rtcore::sys::memfd;
use std::io::{Read as _, Seek as _, SeekFrom, Write as _};
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

/// Most bytes that are read of what the library and the probe said: the last ones, where the verdict is.
const SAID_BYTES_MAX: u64 = 1024 * 1024;
/// Most characters of a library's own words in a message.
const WORDS_MAX: usize = 200;

/// What precedes the verdict: the library's own words may be on the same output.
const LOADED: &str = "rtd-probe: loaded";
const YES: &str = "rtd-probe: yes: ";
const NO: &str = "rtd-probe: no: ";
const XDDP: &str = "rtd-probe: xddp: ";
const NO_XDDP: &str = "rtd-probe: no xddp: ";

/// The body of `cobalt-probe`: the verdict on standard output, unless the library ends the process.
pub fn run_probe(args: &ProbeArgs) -> anyhow::Result<()> {
    let say = |line: &str| {
        // What the library has said may end in the middle of a line.
        std::io::stdout().write_all(format!("\n{line}\n").as_bytes()).context("cannot say what was found")
    };
    // The check has looked before; but whoever may run this program may run the probe by itself.
    let library = args.path.as_deref().map(library::resolved);
    let fault = library.as_deref().and_then(|path| library::fault(path, library::trusted(own_uid())));
    if let Some(fault) = fault.filter(|fault| fault.is_open) {
        return say(&format!("{NO}{}", fault.text));
    }
    let loaded = cobalt::load(library.as_deref());
    say(LOADED)?;
    let verdict = loaded.and_then(|loaded| {
        let (description, devices) = (loaded.description(), loaded.xddp_devices());
        loaded.bind().map(|skin| (description, devices.and_then(|_| xddp(skin))))
    });
    let line = match verdict {
        Ok((what, Ok(devices))) => format!("{YES}{what}\n{XDDP}{}", devices.display()),
        Ok((what, Err(why))) => format!("{YES}{what}\n{NO_XDDP}{why}"),
        Err(why) => format!("{NO}{why}"),
    };
    say(&line)
}

/// Where the devices of XDDP are; whether the core has it turns out when a socket is made.
fn xddp(skin: &Skin) -> Result<&'static Path, String> {
    let calls = skin.xddp.ok_or_else(|| format!("`{}` has no such calls", skin.name))?;
    (calls.probe)().map(|()| calls.devices).map_err(|e| e.to_string())
}

/// What Cobalt is there, or why none.
pub fn cobalt(library: Option<&Path>) -> Result<Found, String> {
    if library.is_none() && !Path::new(cobalt::PROC_VERSION).exists() {
        return Err(format!("no Cobalt core runs in this kernel (there is no {})", cobalt::PROC_VERSION));
    }
    ask(library).map_err(|e| format!("{e:#}"))?
}

fn ask(library: Option<&Path>) -> anyhow::Result<Result<Found, String>> {
    let [mut said, mut complained] = [scratch()?, scratch()?];
    let mut command = own_binary()?;
    command.arg(SUBCOMMAND);
    if let Some(library) = library {
        command.arg("--library").arg(library);
    }
    command.stdin(Stdio::null()).stdout(said.try_clone()?).stderr(complained.try_clone()?);
    let mut child = command.spawn().context("cannot start the probe of Cobalt")?;
    let ended = wait(&mut child);
    if ended.is_err() {
        let _ = child.kill();
        let _ = child.wait();
    }
    let verdict = read(&mut said);
    let find = |mark: &str| verdict.lines().find_map(|line| line.strip_prefix(mark)).map(str::to_owned);
    let step = if find(LOADED).is_some() { "xenomai_init" } else { "loading the library" };
    let Ok(status) = ended else {
        bail!("{step} did not come back within {} s in the process that tried it", PATIENCE.as_secs());
    };
    if let Some(what) = find(YES) {
        let why = || find(NO_XDDP).unwrap_or_else(|| "the probe did not say why".to_owned());
        return Ok(Ok(Found { what, xddp: find(XDDP).map(PathBuf::from).ok_or_else(why) }));
    }
    let words = read(&mut complained);
    let words = words.lines().rev().map(printable).find(|line| !line.trim().is_empty());
    let words = words.unwrap_or_else(|| "nothing was said why".to_owned());
    Ok(Err(find(NO).unwrap_or_else(|| {
        format!(
            "{step} ended the process that tried it ({status}): {words}. Library and core have to be of one build, and \
             the user root or of the group of xenomai.allowed_group"
        )
    })))
}

fn scratch() -> anyhow::Result<std::fs::File> {
    memfd::scratch("rtd-probe").context("cannot make a place for what the probe says")
}

/// A line of somebody else's, for a terminal and a log; its end, where more was written in front of it.
fn printable(line: &str) -> String {
    let chars: Vec<char> = line.chars().filter(|c| !c.is_control()).collect();
    chars[chars.len().saturating_sub(WORDS_MAX)..].iter().collect()
}

/// The end of what somebody who has ended wrote.
fn read(file: &mut std::fs::File) -> String {
    let mut text = Vec::new();
    // What cannot be read is missing in an error message.
    let start = file.seek(SeekFrom::End(0)).unwrap_or(0).saturating_sub(SAID_BYTES_MAX);
    let _ = file.seek(SeekFrom::Start(start)).and_then(|_| file.take(SAID_BYTES_MAX).read_to_end(&mut text));
    String::from_utf8_lossy(&text).into_owned()
}
