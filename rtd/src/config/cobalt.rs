//! Whether Cobalt is available, tried in a child: a library may end the process that it cannot
//! bind.
//!
//! Invariant: the library is never loaded into the process that calls [`probe`].

use super::library;
use super::machine::Found;
use crate::child::{PATIENCE, own_binary, wait};
use crate::plan::needs;
use anyhow::{Context as _, bail};
use rtcore::skin::{Skin, cobalt};
use rtcore::sys::accounts::own_uid;
use rtcore::sys::caps::{self, Set};
use rtcore::sys::ids::Account;
use rtcore::sys::printable::printable_char;
use rtcore::sys::{ids, memfd};
use std::io::{Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;

/// Name of the hidden subcommand.
pub const SUBCOMMAND: &str = "cobalt-probe";

/// Arguments of the hidden `cobalt-probe`.
#[derive(clap::Args, Clone, Debug)]
pub struct ProbeArgs {
    #[arg(long = "library")]
    path: Option<PathBuf>,
    /// Become this user first
    #[arg(long, requires = "gid")]
    uid: Option<u32>,
    /// In this group
    #[arg(long, requires = "uid")]
    gid: Option<u32>,
}

/// Limit of the bytes that are read from the output of the library and the probe: the last ones,
/// which contain the result.
const SAID_BYTES_MAX: u64 = 1024 * 1024;
/// Limit of the characters of a library's own message in an error.
const WORDS_MAX: usize = 200;

/// The word before the result: the library's own messages may be on the same output.
const LOADED: &str = "rtd-probe: loaded";
const CLOSED: &str = "rtd-probe: closed: ";
const YES: &str = "rtd-probe: yes: ";
const NO: &str = "rtd-probe: no: ";
const XDDP: &str = "rtd-probe: xddp: ";
const NO_XDDP: &str = "rtd-probe: no xddp: ";

/// Main function of `cobalt-probe`: prints the result on standard output, unless the library ends
/// the process.
pub fn run_probe(args: &ProbeArgs) -> anyhow::Result<()> {
    let print = |line: &str| {
        // The library's output may end in the middle of a line.
        std::io::stdout()
            .write_all(format!("\n{line}\n").as_bytes())
            .context("cannot report what the probe found")
    };
    // The check has tested this before; but every user who may run this program may run the probe
    // directly.
    let library = args.path.as_deref().map(library::resolved);
    let fault = library
        .as_deref()
        .and_then(|path| library::fault(path, library::trusted(own_uid())));
    if let Some(fault) = fault.filter(|fault| fault.is_open) {
        return print(&format!("{NO}{}", fault.text));
    }
    if let (Some(uid), Some(gid)) = (args.uid, args.gid) {
        become_as_a_start_does(Account { uid, gid })?;
    }
    let loaded = cobalt::load(library.as_deref());
    print(LOADED)?;
    if let Some(closed) = loaded
        .as_ref()
        .ok()
        .and_then(|loaded| closed_device(loaded.memory_devices().as_path()))
    {
        // When the library ends the process, it describes its needs in its own words.
        print(&format!("{CLOSED}{closed}"))?;
    }
    let verdict = loaded.and_then(|loaded| {
        let (description, devices) = (loaded.description(), loaded.xddp_devices());
        loaded
            .bind()
            .map(|skin| (description, devices.and_then(|_| xddp(skin))))
    });
    let line = match verdict {
        Ok((what, Ok(devices))) => format!("{YES}{what}\n{XDDP}{}", devices.display()),
        Ok((what, Err(why))) => format!("{YES}{what}\n{NO_XDDP}{why}"),
        Err(why) => format!("{NO}{why}"),
    };
    print(&line)
}

/// Becomes the user that the daemon will be when it binds, with the capabilities that it then has
/// (`daemon/privilege.rs`).
fn become_as_a_start_does(account: Account) -> anyhow::Result<()> {
    let permitted = caps::permitted().context("cannot read the capabilities")?;
    ids::become_account(account)
        .with_context(|| format!("cannot become uid {} gid {}", account.uid, account.gid))?;
    caps::hold(permitted.and(Set::of(needs::TO_START)))
        .context("cannot keep the capabilities of a start")
}

/// The first device of the core's memory that this process may not open, and why.
fn closed_device(directory: &Path) -> Option<String> {
    let devices = std::fs::read_dir(directory)
        .ok()?
        .flatten()
        .map(|entry| entry.path());
    let is_memory = |path: &PathBuf| {
        path.file_name()
            .is_some_and(|name| name.as_encoded_bytes().starts_with(b"memdev-"))
    };
    let mut devices: Vec<PathBuf> = devices.filter(is_memory).collect();
    devices.sort();
    devices.into_iter().find_map(|path| {
        let refused = std::fs::File::options()
            .read(true)
            .write(true)
            .open(&path)
            .err()?;
        let meta = path.metadata().ok()?;
        let (uid, gid, mode) = (meta.uid(), meta.gid(), meta.mode() & 0o7777);
        Some(format!(
            "{}: {refused} (owner uid {uid}, gid {gid}, mode {mode:04o})",
            path.display()
        ))
    })
}

/// Directory of the devices of XDDP; whether the core supports it is found out when a socket is
/// made.
fn xddp(skin: &Skin) -> Result<&'static Path, String> {
    let calls = skin
        .xddp
        .ok_or_else(|| format!("`{}` has no such calls", skin.name))?;
    (calls.probe)()
        .map(|()| calls.devices)
        .map_err(|e| e.to_string())
}

/// The Cobalt that is available for this process, or for the user that it will become; or why there
/// is none.
pub fn probe(library: Option<&Path>, account: Option<Account>) -> Result<Found, String> {
    if library.is_none() && !Path::new(cobalt::PROC_VERSION).exists() {
        return Err(format!(
            "no Cobalt core runs in this kernel (there is no {})",
            cobalt::PROC_VERSION
        ));
    }
    ask(library, account).map_err(|e| format!("{e:#}"))?
}

fn ask(library: Option<&Path>, account: Option<Account>) -> anyhow::Result<Result<Found, String>> {
    let [mut said, mut complained] = [scratch()?, scratch()?];
    let mut command = own_binary()?;
    command.arg(SUBCOMMAND);
    if let Some(library) = library {
        command.arg("--library").arg(library);
    }
    if let Some(Account { uid, gid }) = account {
        command.args(["--uid", &uid.to_string(), "--gid", &gid.to_string()]);
    }
    command
        .stdin(Stdio::null())
        .stdout(said.try_clone()?)
        .stderr(complained.try_clone()?);
    let mut child = command
        .spawn()
        .context("cannot start the probe of Cobalt")?;
    let ended = wait(&mut child);
    if ended.is_err() {
        let _ = child.kill();
        let _ = child.wait();
    }
    let verdict = read(&mut said);
    let find = |mark: &str| {
        verdict
            .lines()
            .find_map(|line| line.strip_prefix(mark))
            .map(str::to_owned)
    };
    let step = if find(LOADED).is_some() {
        "xenomai_init"
    } else {
        "loading the library"
    };
    let Ok(status) = ended else {
        bail!(
            "{step} did not return within {} s in the child process that tried it",
            PATIENCE.as_secs()
        );
    };
    if let Some(what) = find(YES) {
        let why = || find(NO_XDDP).unwrap_or_else(|| "the probe gave no reason".to_owned());
        return Ok(Ok(Found {
            what,
            xddp: find(XDDP).map(PathBuf::from).ok_or_else(why),
        }));
    }
    let words = read(&mut complained);
    let words = words
        .lines()
        .rev()
        .map(end_of_line)
        .find(|line| line.contains(char::is_alphanumeric));
    let words = words.unwrap_or_else(|| "no reason was given".to_owned());
    Ok(Err(find(NO).unwrap_or_else(|| {
        let user = account.map_or_else(String::new, |a| format!(" as uid {} gid {}", a.uid, a.gid));
        let closed = find(CLOSED).map_or_else(String::new, |closed| format!(". {closed}"));
        format!(
            "{step} ended the child process that tried it{user} ({status}): {words}{closed}. \
             Library and core must be of one build; \
             the user must be root or in the group of xenomai.allowed_group ({}), which needs read and write access to \
             /dev/rtdm/memdev-*",
            allowed_group()
        )
    })))
}

/// The group whose members may use the core.
fn allowed_group() -> String {
    const PARAMETER: &str = "/sys/module/xenomai/parameters/allowed_group";
    match std::fs::read_to_string(PARAMETER).map(|text| text.trim().to_owned()) {
        Ok(gid) if gid.starts_with('-') => format!("{PARAMETER}: {gid} is not a group"),
        Ok(gid) => format!("{PARAMETER}: gid {gid}"),
        Err(_) => PARAMETER.to_owned(),
    }
}

fn scratch() -> anyhow::Result<std::fs::File> {
    memfd::scratch("rtd-probe").context("cannot create a file for the output of the probe")
}

/// A line of another program's output, safe for a terminal and a log; only its end, because other
/// output may precede it.
fn end_of_line(line: &str) -> String {
    let chars: Vec<char> = line.chars().map(printable_char).collect();
    chars[chars.len().saturating_sub(WORDS_MAX)..]
        .iter()
        .collect()
}

/// The end of the output of a process that has ended.
fn read(file: &mut std::fs::File) -> String {
    let mut text = Vec::new();
    // Output that cannot be read is missing in an error message.
    let start = file
        .seek(SeekFrom::End(0))
        .unwrap_or(0)
        .saturating_sub(SAID_BYTES_MAX);
    let _ = file
        .seek(SeekFrom::Start(start))
        .and_then(|_| file.take(SAID_BYTES_MAX).read_to_end(&mut text));
    String::from_utf8_lossy(&text).into_owned()
}
