//! The world of a run: namespaces of its own, the real daemon, and a process at each end of each
//! stream.

mod daemon;

use crate::actor::Actor;
use crate::books::Books;
use crate::journal::{Control, Mapped, Received, Sent};
use crate::leaks::Process;
use crate::patience::Patience;
use crate::plan::{self, EndKind, INSTANCE, Kin, SINK_SIGNAL, Stream};
use crate::points;
use anyhow::{Context as _, bail, ensure};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::sys::resource::{Resource, setrlimit};
use nix::sys::signal::{SigHandler, Signal, kill, signal};
use nix::sys::stat::Mode;
use nix::unistd::{Pid, getpgrp, getsid, setsid};
use rtcore::sys::process;
use rtcore::sys::sched::{Placement, place};
use std::fs::File;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::Ordering;
use std::time::Duration;

/// User ids of the programs at the ends.
const USERS: [u32; 3] = [65_531, 65_532, 65_533];
/// What a receiver with few signals may have queued.
const FEW_SIGNALS: u64 = 4;
/// Where the world is: on a tmpfs that nobody else sees.
const ROOT: &str = "/run/faults";
/// Where its queues can be listed.
pub const QUEUES: &str = "/run/mqueue";

/// The programs of a world, opened before [`enter`] hides the directory that they are in.
#[derive(Debug)]
pub struct Programs([(&'static str, File); 3]);

impl Programs {
    /// Those in the directory of this one.
    pub fn beside_this() -> anyhow::Result<Programs> {
        let here = std::env::current_exe()?;
        let open = |name| {
            let program = here.with_file_name(name);
            let file = File::open(&program);
            file.with_context(|| format!("{}: build it first", program.display()))
        };
        Ok(Programs([
            ("rtd", open("rtd")?),
            ("rtctl", open("rtctl")?),
            ("faults", File::open(&here)?),
        ]))
    }

    fn copy_to(&self, directory: &Path) -> anyhow::Result<()> {
        for (name, mut from) in self.0.iter().map(|(name, file)| (name, file)) {
            let path = directory.join(name);
            let mut to = File::create(&path).with_context(|| path.display().to_string())?;
            std::io::copy(&mut from, &mut to).with_context(|| path.display().to_string())?;
            open_to_all(&path, 0o755)?;
        }
        Ok(())
    }
}

/// The campaign's own namespaces: mounts and kernel queues. To be called on the only thread.
pub fn enter() -> anyhow::Result<()> {
    // Programs of other users have to reach what is made here, and ends have to be waited for,
    // whatever the process that starts the campaign has set.
    nix::sys::stat::umask(Mode::from_bits_truncate(0o022));
    // SAFETY: the default action runs no code of ours.
    unsafe { signal(Signal::SIGCHLD, SigHandler::SigDfl)? };
    // Groups compare sessions and process groups, which have no number here if their leaders are in
    // another pid namespace.
    if getpgrp().as_raw() == 0 || getsid(None)?.as_raw() == 0 {
        setsid().context("this process leads a group of a session of another pid namespace: start it with setsid(1)")?;
    }
    let flags = CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWIPC;
    unshare(flags).context("cannot unshare mounts and queues: run it as root")?;
    let none: Option<&str> = None;
    mount(none, "/", none, MsFlags::MS_PRIVATE | MsFlags::MS_REC, none)
        .context("mount --make-rprivate /")?;
    // The journals have their own: a full /run must not keep the ends from writing them.
    let places = [
        ("/dev/shm", "size=64m,mode=1777"),
        ("/run", "size=64m,mode=755"),
        (ROOT, "size=512m,mode=777"),
    ];
    for (at, size) in places {
        std::fs::create_dir_all(at).with_context(|| at.to_owned())?;
        mount(
            Some("tmpfs"),
            at,
            Some("tmpfs"),
            MsFlags::empty(),
            Some(size),
        )
        .with_context(|| format!("mount {at}"))?;
    }
    std::fs::create_dir(QUEUES).context(QUEUES)?;
    mount(
        Some("mqueue"),
        QUEUES,
        Some("mqueue"),
        MsFlags::empty(),
        none,
    )
    .context("mount mqueue")?;
    std::fs::create_dir("/run/rtd").context("/run/rtd")?;
    Ok(())
}

/// A process at one end of a stream.
#[derive(Debug)]
pub struct End {
    pub stream: usize,
    /// Which receiver; none: the sender.
    pub member: Option<usize>,
    child: Option<Child>,
}

impl End {
    /// Its process.
    pub fn pid(&self) -> Option<Pid> {
        self.child
            .as_ref()
            .and_then(|c| i32::try_from(c.id()).ok())
            .map(Pid::from_raw)
    }
}

/// The last end and start of the daemon. Times are of CLOCK_MONOTONIC, in nanoseconds.
#[derive(Clone, Debug)]
pub struct Restart {
    /// When it was told to end, or found to have ended.
    pub end_ns: u64,
    /// When it was gone.
    pub gone_ns: u64,
    /// By stream: the last message that was begun by then.
    pub begun: Vec<u64>,
    /// When the next one was started.
    pub start_ns: u64,
    /// When that was ready.
    pub ready_ns: u64,
}

/// Everything that runs.
#[derive(Debug)]
pub struct World {
    pub streams: Vec<Stream>,
    /// A process for each end.
    pub ends: Vec<End>,
    /// What the daemon has counted.
    pub books: Books,
    /// What senders are asked to do.
    pub control: Mapped<Control>,
    /// The journals of the senders, by stream.
    pub sent: Vec<Mapped<Sent>>,
    /// The journals of the receivers, by stream and member.
    pub received: Vec<Vec<Mapped<Received>>>,
    /// The point at which a process fails.
    pub points: Mapped<rtcore::fault::Page>,
    /// The CPU of the lanes.
    pub cpu: usize,
    /// Another one, if there is one.
    pub other_cpu: usize,
    /// The last one, until its recovery is measured.
    pub restart: Option<Restart>,
    /// The daemon's page was removed: the file is a copy now.
    pub page_is_copy: bool,
    /// The last daemon that ended left such a copy.
    pub ended_with_copy: bool,
    root: PathBuf,
    daemon: Option<Child>,
    /// For the next end that is started.
    sigpending: Option<u64>,
    /// How often the configuration was changed.
    changes: usize,
    config: String,
}

fn open_to_all(path: &Path, mode: u32) -> anyhow::Result<()> {
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode))
        .with_context(|| path.display().to_string())
}

/// Maps a journal that every user may write.
fn journal<T: crate::journal::Plain>(path: &Path) -> anyhow::Result<Mapped<T>> {
    let mapped = Mapped::open(path)?;
    open_to_all(path, 0o666)?;
    Ok(mapped)
}

impl World {
    /// Makes it.
    pub fn new(streams: Vec<Stream>, programs: &Programs) -> anyhow::Result<World> {
        let root = PathBuf::from(ROOT);
        programs.copy_to(&root)?;
        let control = journal(&root.join("control"))?;
        let points = journal(&root.join("points"))?;
        let (mut sent, mut received, mut ends) = (Vec::new(), Vec::new(), Vec::new());
        for stream in &streams {
            sent.push(journal(&root.join(stream.source()))?);
            let members = 0..stream.to.len();
            received.push(
                members
                    .clone()
                    .map(|m| journal(&root.join(stream.sink(m))))
                    .collect::<Result<_, _>>()?,
            );
            let members = members.map(Some).chain([None]);
            let all = members.map(|member| End {
                stream: stream.index,
                member,
                child: None,
            });
            ends.extend(all.filter(|_| !stream.is_of_answers()));
        }
        let cpus = rtcore::sys::cpus::allowed()?;
        let (other_cpu, cpu) = (
            cpus.iter().min().copied().unwrap_or(0),
            cpus.iter().max().copied().unwrap_or(0),
        );
        let config = plan::config(&streams, cpu, other_cpu, 0);
        std::fs::write(root.join("rtd.toml"), &config)?;
        let books = Books::default();
        Ok(World {
            streams,
            ends,
            books,
            control,
            sent,
            received,
            points,
            cpu,
            other_cpu,
            restart: None,
            page_is_copy: false,
            ended_with_copy: false,
            root,
            daemon: None,
            changes: 0,
            sigpending: None,
            config,
        })
    }

    /// Starts the daemon and everybody.
    pub fn start(&mut self) -> anyhow::Result<()> {
        self.start_daemon()?;
        for end in 0..self.ends.len() {
            self.start_end(end)?;
        }
        Ok(())
    }

    /// A program of the world as it is started, dying with this one.
    pub fn command(&self, program: &str) -> Command {
        let mut command = Command::new(self.root.join(program));
        command
            .env("RTD_INSTANCE", INSTANCE)
            .env(points::VARIABLE, self.root.join("points"));
        command.stdin(Stdio::null());
        process::die_with_parent_at_exec(&mut command);
        command
    }

    /// Which end of this stream the process `ends[at]` is: none if it is none of it, else the
    /// receiver's number or none for the sender.
    pub fn role(&self, at: usize, stream: &Stream) -> Option<Option<usize>> {
        let End {
            stream: index,
            member,
            ..
        } = self.ends[at];
        if index == stream.index {
            return Some(member);
        }
        let answers = stream.is_of_answers() && index + 1 == stream.index;
        answers.then(|| if member.is_some() { None } else { Some(0) })
    }

    /// Starts the process at an end.
    pub fn start_end(&mut self, at: usize) -> anyhow::Result<()> {
        let End { stream, member, .. } = self.ends[at];
        let stream = &self.streams[stream];
        let (side, kind, name, signal) = match member {
            Some(m) => ("receive", stream.to[m], stream.sink(m), SINK_SIGNAL),
            None => ("send", stream.from, stream.source(), stream.source_signal()),
        };
        let numbers = [stream.index as u64, signal as u64, stream.interval_us];
        let words = Actor::words(side, kind, &name, numbers, &self.root);
        let mut command = if kind.links() || member.is_none() {
            self.command("faults")
        } else {
            let mut command = self.command("rtctl");
            command
                .args(["run", "--as", &name, "--"])
                .arg(self.root.join("faults"));
            command
        };
        let log = std::fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.root.join("ends.log"))?;
        command.args(words).stderr(log);
        // Only root may signal a daemon of root's.
        if kind == EndKind::Queue || kind.links() || member.is_some() {
            let user = USERS[at % USERS.len()];
            command.uid(user).gid(user);
        }
        match stream.kin.filter(|_| member == Some(stream.to.len() - 1)) {
            Some(Kin::ProcessGroup) => _ = command.process_group(0),
            // SAFETY: setsid(2) is async-signal-safe, and nothing is allocated.
            Some(Kin::Session) => unsafe { _ = command.pre_exec(|| Ok(setsid().map(drop)?)) },
            None => {}
        }
        if let Some(signals) = self.sigpending {
            // SAFETY: setrlimit(2) is async-signal-safe, and nothing is allocated.
            unsafe {
                command
                    .pre_exec(move || Ok(setrlimit(Resource::RLIMIT_SIGPENDING, signals, signals)?))
            };
        }
        let child = command.spawn().context("cannot start an end")?;
        if stream.innocent {
            let priority = if member.is_some() { 32 } else { 30 };
            let placement = Placement {
                policy: libc::SCHED_FIFO,
                priority,
                cpus: vec![self.cpu],
            };
            place(i32::try_from(child.id())?, &placement)?;
        }
        self.ends[at].child = Some(child);
        Ok(())
    }

    /// Starts a hostile client.
    pub fn start_hostile(&self, what: &str, seed: u64) -> anyhow::Result<Child> {
        let mut command = self.command("faults");
        command.args(["hostile", what, crate::fault::SOCKET, &seed.to_string()]);
        command
            .uid(USERS[0])
            .gid(USERS[0])
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        command.spawn().context("cannot start a hostile client")
    }

    /// Starts a receiver with another RLIMIT_SIGPENDING, which it keeps until it ends.
    pub fn start_with_few_signals(&mut self, at: usize) -> anyhow::Result<()> {
        self.sigpending = Some(FEW_SIGNALS);
        let started = self.start_end(at);
        self.sigpending = None;
        started
    }

    /// Starts those that have ended; returns which of them had been killed by SIGKILL.
    pub fn revive(&mut self) -> anyhow::Result<Vec<usize>> {
        let mut killed = Vec::new();
        for at in 0..self.ends.len() {
            let status = match &mut self.ends[at].child {
                Some(child) => child.try_wait().unwrap_or_default(),
                None => Some(ExitStatus::default()),
            };
            if let Some(status) = status {
                killed.extend((status.signal() == Some(libc::SIGKILL)).then_some(at));
                self.start_end(at)?;
            }
        }
        Ok(killed)
    }

    /// Ends the process at an end.
    pub fn end(&mut self, at: usize, signal: Signal) -> anyhow::Result<()> {
        let mut child = self.ends[at].child.take().context("it has ended")?;
        let _ = kill(Pid::from_raw(i32::try_from(child.id())?), signal);
        wait(&mut child).context("an end does not end")?;
        Ok(())
    }

    /// By stream: the last message that was begun.
    pub fn begun(&self) -> Vec<u64> {
        self.sent
            .iter()
            .map(|sent| sent.begun.load(Ordering::Acquire))
            .collect()
    }

    /// Everything whose descriptors, threads and memory are compared with what they were. An end
    /// that started again is another process; rtd is one through all its lives.
    pub fn processes(&self) -> anyhow::Result<Vec<Process>> {
        let ends = self.ends.iter().filter_map(|end| {
            let (stream, pid) = (&self.streams[end.stream], end.pid()?.as_raw());
            let role = end
                .member
                .map_or_else(|| stream.source(), |member| stream.sink(member));
            Some(Process {
                name: format!("{role} (pid {pid})"),
                pid,
            })
        });
        let rtd = Process {
            name: "rtd".to_owned(),
            pid: self.daemon_pid()?.as_raw(),
        };
        Ok(ends.chain([rtd]).collect())
    }

    /// Lets the senders send.
    pub fn run(&self) {
        self.control.run.store(1, Ordering::Release);
    }

    /// Stops them, and returns when no send is in progress.
    pub fn pause(&mut self) -> anyhow::Result<()> {
        let pause = self.control.pauses.fetch_add(1, Ordering::AcqRel) + 1;
        self.control.run.store(0, Ordering::Release);
        let mut patience = Patience::new();
        loop {
            // No answer is on its way while no request is.
            let busy = (0..self.sent.len()).find(|at| {
                !self.streams[*at].is_of_answers()
                    && self.sent[*at].idle.load(Ordering::Acquire) < pause
            });
            let Some(busy) = busy else { return Ok(()) };
            ensure!(
                !patience.is_over(),
                "the sender of {} does not pause",
                self.streams[busy].name()
            );
            self.revive()?;
            std::thread::sleep(Duration::from_micros(200));
        }
    }

    /// Copies the daemon's log.
    pub fn copy_log(&self, to: &Path) -> anyhow::Result<()> {
        std::fs::copy(self.root.join("log"), to).with_context(|| to.display().to_string())?;
        Ok(())
    }

    /// The last lines of the daemon's log (`log`), or of what the ends wrote to standard error
    /// (`ends.log`).
    pub fn last_lines(&self, file: &str, lines: usize) -> String {
        let bytes = std::fs::read(self.root.join(file)).unwrap_or_default();
        let text = String::from_utf8_lossy(&bytes).into_owned();
        let all: Vec<&str> = text.lines().collect();
        all[all.len().saturating_sub(lines)..].join("\n")
    }
}

impl Drop for World {
    fn drop(&mut self) {
        let children = self.ends.iter_mut().filter_map(|end| end.child.as_mut());
        for child in children.chain(self.daemon.as_mut()) {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// Waits for the end of a process.
fn wait(child: &mut Child) -> anyhow::Result<ExitStatus> {
    let mut patience = Patience::new();
    loop {
        match child.try_wait() {
            Ok(None) => {}
            Ok(Some(status)) => return Ok(status),
            // A tracer reaped it.
            Err(e) if e.raw_os_error() == Some(libc::ECHILD) => {
                return Ok(ExitStatus::from_raw(libc::SIGKILL));
            }
            Err(e) => return Err(e.into()),
        }
        if patience.is_over() {
            bail!(
                "process {} does not end: {}",
                child.id(),
                threads(child.id())
            );
        }
        std::thread::sleep(Duration::from_micros(500));
    }
}

/// Its threads, each with its state, the process that traces it, and where it waits in the kernel.
fn threads(pid: u32) -> String {
    let of = |task: std::fs::DirEntry| {
        let read = |file: &str| std::fs::read_to_string(task.path().join(file)).unwrap_or_default();
        let status = read("status");
        let keys = ["Name:", "State:", "TracerPid:", "SigPnd:", "ShdPnd:"];
        let lines = status
            .lines()
            .filter(|line| keys.iter().any(|key| line.starts_with(key)));
        let lines = lines.collect::<Vec<_>>().join(" ").replace('\t', " ");
        format!("\n[{lines} wchan {}]\n{}", read("wchan"), read("stack"))
    };
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task"))
        .into_iter()
        .flatten()
        .flatten();
    tasks.map(of).collect()
}
