//! Daemons, participants and their surroundings, shared by all tests. Everything here cleans up
//! after itself, also when a test fails.

pub mod answer;
pub mod arena;
pub mod book;
pub mod cobalt_bench;
pub mod halt;
pub mod kernel;
pub mod lane_talk;
pub mod lat;
pub mod liar_peer;
#[macro_use]
pub mod needs;
pub mod notices;
pub mod order;
pub mod peer;
pub mod refuse;
pub mod session;
pub mod stranger;
pub mod talk;
pub mod terminal;
pub mod tool;
pub mod trace;

pub use needs::skip;

use anyhow::{Context as _, bail};
use order::Answer;
use rtcore::lane::peer::Reception;
use rtcore::stats::reader::{Reader, Snapshot};
use rtcore::sys::mqueue::Queue;
use rtcore::sys::{clock, process};
use std::ffi::CString;
use std::io::{BufRead, BufReader, Read as _, Write as _};
use std::path::PathBuf;
use std::process::{Child, ChildStdin, ChildStdout, Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, LazyLock, Mutex};
use std::time::{Duration, Instant};

/// Longest time a test waits for something that should happen at once: ten seconds on a machine
/// that the tests have for themselves, as many times longer as `RTD_TEST_PATIENCE` says on one that
/// is so much slower (an emulated one).
///
/// Every limit of the tests that a slow machine may reach comes from here.
pub fn patience() -> Duration {
    static PATIENCE: LazyLock<Duration> = LazyLock::new(|| {
        let times = std::env::var("RTD_TEST_PATIENCE").map_or(Ok(1), |times| times.parse());
        Duration::from_secs(10) * times.expect("RTD_TEST_PATIENCE is a whole number")
    });
    *PATIENCE
}

/// The same in nanoseconds.
pub fn patience_ns() -> u64 {
    clock::nanos(patience())
}

/// A test's own instance: names that no other test, run or user shares.
#[derive(Debug)]
pub struct Instance {
    /// Instance name.
    pub name: String,
    directory: PathBuf,
    queues: std::cell::RefCell<Vec<String>>,
}

impl Instance {
    /// A new one.
    pub fn new() -> anyhow::Result<Instance> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!(
            "t{}-{}",
            std::process::id(),
            NEXT.fetch_add(1, Ordering::Relaxed)
        );
        let directory = std::env::temp_dir().join(format!("rtd-{name}"));
        std::fs::create_dir_all(&directory)?;
        Ok(Instance {
            name,
            directory,
            queues: std::cell::RefCell::default(),
        })
    }

    /// Name of a queue of this instance; removed when the test ends.
    pub fn queue(&self, part: &str) -> String {
        let name = format!("/rtd-{}.{part}", self.name);
        self.queues.borrow_mut().push(name.clone());
        name
    }

    /// Control socket.
    pub fn socket(&self) -> String {
        self.directory.join("rtd.sock").display().to_string()
    }

    /// A file of this instance.
    pub fn file(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    /// `[daemon]` and one lane called `lane` on the first allowed CPU; queues stay unless said
    /// otherwise.
    pub fn head(&self) -> String {
        let (name, socket) = (&self.name, self.socket());
        format!(
            "[daemon]\nname = \"{name}\"\nsocket = \"{socket}\"\n{}",
            lane("lane", 50, "")
        )
    }

    /// An mqueue endpoint on its own queue of ten 64-byte messages; `more` adds keys.
    pub fn mqueue(&self, name: &str, more: &str) -> String {
        let queue = self.queue(name);
        let mut text = format!(
            "[[endpoint]]\nname = \"{name}\"\nkind = \"mqueue\"\nqueue = \"{queue}\"\n{more}\n"
        );
        for (key, value) in [("maxmsg", 10), ("msgsize", 64)] {
            if !more.contains(key) {
                text += &format!("{key} = {value}\n");
            }
        }
        text
    }

    /// Runs `rtctl` on this instance.
    pub fn rtctl(&self, args: &[&str]) -> anyhow::Result<Output> {
        self.rtctl_command(args)
            .output()
            .context("cannot run rtctl")
    }

    /// The same, not started yet.
    pub fn rtctl_command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(tool::RTCTL);
        command
            .args(["--instance", &self.name])
            .env("RTD_SOCKET", self.socket())
            .args(args);
        // Set where tests are run from a shell that exports it, and it would shorten what they
        // read.
        command.env_remove("COLUMNS");
        process::die_with_parent_at_exec(&mut command);
        command
    }

    /// The file of its page.
    pub fn page(&self) -> anyhow::Result<PathBuf> {
        Ok(Reader::open(&self.name)?.path().to_owned())
    }

    /// What the page says now.
    pub fn snapshot(&self) -> anyhow::Result<Snapshot> {
        Ok(Reader::open(&self.name)?.snapshot()?)
    }

    /// Waits until the page says this of a signal to the endpoint's owner.
    pub fn reception(&self, endpoint: &str, wanted: Reception) -> anyhow::Result<()> {
        let of = |endpoint: &str| {
            let all = self.snapshot().ok()?.endpoints;
            all.into_iter()
                .find(|e| e.name == endpoint)
                .map(|e| e.reception)
        };
        eventually(|| (of(endpoint)? == wanted).then_some(()))
            .with_context(|| format!("{:?}", of(endpoint)))
    }

    /// Waits until the page says so.
    pub fn until(
        &self,
        what: &str,
        mut said: impl FnMut(&Snapshot) -> bool,
    ) -> anyhow::Result<Snapshot> {
        let mut last = None;
        eventually(|| {
            let snapshot = self.snapshot().ok()?;
            let yes = said(&snapshot);
            last = Some(snapshot);
            yes.then_some(())
        })
        .with_context(|| {
            format!(
                "never: {what}; last {:#?}",
                last.as_ref().map(|s| &s.routes)
            )
        })?;
        last.context("no snapshot")
    }
}

impl Drop for Instance {
    fn drop(&mut self) {
        for queue in self
            .queues
            .borrow()
            .iter()
            .filter_map(|q| CString::new(q.as_str()).ok())
        {
            let _ = Queue::unlink(&queue);
        }
        let _ = std::fs::remove_dir_all(&self.directory);
        let _ = self.page().map(std::fs::remove_file);
    }
}

/// A `[[lane]]` on the first allowed CPU.
pub fn lane(name: &str, priority: u8, more: &str) -> String {
    format!(
        "[[lane]]\nname = \"{name}\"\npriority = {priority}\ncpu = {}\n{more}\n",
        first_cpu()
    )
}

/// A signal endpoint.
pub fn signal(name: &str, owner: &str, signal: &str, more: &str) -> String {
    let owner = if owner.is_empty() {
        String::new()
    } else {
        format!("owner = \"{owner}\"\n")
    };
    format!(
        "[[endpoint]]\nname = \"{name}\"\nkind = \"signal\"\nsignal = \"{signal}\"\n{owner}{more}\n"
    )
}

/// A `[[process]]` anybody may be.
pub fn process(name: &str) -> String {
    format!("[[process]]\nname = \"{name}\"\n")
}

/// A route in the lane `lane`.
pub fn route(from: &str, to: &[&str], more: &str) -> String {
    let lane = if more.contains("lane =") {
        ""
    } else {
        "lane = \"lane\"\n"
    };
    format!("[[route]]\nfrom = \"{from}\"\nto = {to:?}\n{lane}{more}\n")
}

/// The first CPU this process may use.
pub fn first_cpu() -> usize {
    rtcore::sys::cpus::allowed()
        .ok()
        .and_then(|c| c.into_iter().min())
        .unwrap_or(0)
}

/// Kernel number of SIGRTMIN+n.
pub fn rt(n: i32) -> i32 {
    rtcore::sys::rtsignal::rt_range().0 + n
}

/// Asks again until there is an answer.
pub fn eventually<T>(mut ask: impl FnMut() -> Option<T>) -> anyhow::Result<T> {
    let give_up = Instant::now() + patience();
    loop {
        if let Some(answer) = ask() {
            return Ok(answer);
        }
        if Instant::now() > give_up {
            bail!("not within {:?}", patience());
        }
        // What is asked for has no descriptor to wait on (another process' page).
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Whether this user may have SCHED_FIFO and locked memory; tried, not guessed.
pub fn privileged() -> bool {
    let fifo = std::thread::spawn(|| rtcore::sys::sched::set_fifo(1).is_ok())
        .join()
        .unwrap_or(false);
    fifo && rtcore::sys::accounts::own_uid() == 0
}

/// Messages in a queue now.
pub fn held(queue: &str) -> anyhow::Result<usize> {
    let queue = Queue::open(
        &CString::new(queue)?,
        rtcore::sys::mqueue::Access::Receive,
        true,
    )?;
    Ok(queue.attributes()?.curmsgs)
}

/// Whose a queue is.
pub fn status(queue: &str) -> anyhow::Result<rtcore::sys::mqueue::Status> {
    let queue = Queue::open(
        &CString::new(queue)?,
        rtcore::sys::mqueue::Access::Receive,
        true,
    )?;
    Ok(queue.status()?)
}

/// Whether a queue of this name exists.
pub fn exists(queue: &str) -> anyhow::Result<bool> {
    match Queue::open(
        &CString::new(queue)?,
        rtcore::sys::mqueue::Access::Receive,
        true,
    ) {
        Ok(_) => Ok(true),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(false),
        Err(e) => Err(e.into()),
    }
}

/// The real `rtd run`.
#[derive(Debug)]
pub struct Daemon {
    child: Child,
    log: Arc<Mutex<String>>,
    reader: Option<std::thread::JoinHandle<()>>,
}

impl Daemon {
    /// Starts it on this configuration and waits for READY. Degraded where the user has no
    /// privilege.
    pub fn start(config: &str) -> anyhow::Result<Daemon> {
        Daemon::start_with(config, |_| {})
    }

    /// The same, with the command changed first.
    pub fn start_with(config: &str, change: impl FnOnce(&mut Command)) -> anyhow::Result<Daemon> {
        let mut command = Daemon::command();
        change(&mut command);
        Daemon::spawn(command, config)
    }

    /// The same; the daemon gets its configuration after `before`, which has its pid.
    pub fn start_after(
        config: &str,
        before: impl FnOnce(u32) -> anyhow::Result<()>,
    ) -> anyhow::Result<Daemon> {
        Daemon::spawn_after(Daemon::command(), config, before)
    }

    fn command() -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_rtd"));
        command.args(["run", "-"]);
        if !privileged() {
            command.arg("--allow-degraded");
        }
        command
    }

    /// Starts this command, which is some `rtd run`, on this configuration.
    pub fn spawn(command: Command, config: &str) -> anyhow::Result<Daemon> {
        Daemon::spawn_after(command, config, |_| Ok(()))
    }

    fn spawn_after(
        mut command: Command,
        config: &str,
        before: impl FnOnce(u32) -> anyhow::Result<()>,
    ) -> anyhow::Result<Daemon> {
        command
            .env("RTD_GUARD", "abort")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        process::die_with_parent_at_exec(&mut command);
        let mut child = command.spawn().context("cannot start rtd")?;
        let mut stdin = child.stdin.take().context("no stdin")?;
        let stderr = child.stderr.take().context("no stderr")?;
        let log = Arc::new(Mutex::new(String::new()));
        let written = Arc::clone(&log);
        let reader = std::thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                written
                    .lock()
                    .unwrap_or_else(|e| e.into_inner())
                    .push_str(&(line + "\n"));
            }
        });
        let stdout = child.stdout.take().context("no stdout")?;
        let daemon = Daemon {
            child,
            log,
            reader: Some(reader),
        };
        before(daemon.pid())?;
        stdin.write_all(config.as_bytes())?;
        drop(stdin);
        let mut line = String::new();
        BufReader::new(stdout).read_line(&mut line)?;
        if line.trim_end() != "READY" {
            let (status, log) = daemon.end()?;
            bail!("rtd did not start, {status}:\n{log}");
        }
        Ok(daemon)
    }

    /// What it has logged so far.
    pub fn log(&self) -> String {
        self.log.lock().unwrap_or_else(|e| e.into_inner()).clone()
    }

    /// Waits until it has logged this.
    pub fn logged(&self, text: &str) -> anyhow::Result<()> {
        eventually(|| self.log().contains(text).then_some(()))
            .with_context(|| format!("never logged {text:?}:\n{}", self.log()))
    }

    /// Its pid.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: nix::sys::signal::Signal) -> anyhow::Result<()> {
        let pid = nix::unistd::Pid::from_raw(i32::try_from(self.child.id())?);
        Ok(nix::sys::signal::kill(pid, signal)?)
    }

    /// SIGSTOP, until every thread stands still: from then on nothing takes a message.
    pub fn freeze(&self) -> anyhow::Result<()> {
        self.signal(nix::sys::signal::Signal::SIGSTOP)?;
        let stopped = |task: std::fs::DirEntry| {
            let stat = std::fs::read_to_string(task.path().join("stat")).ok()?;
            Some(stat.rsplit_once(") ")?.1.starts_with('T'))
        };
        let tasks = format!("/proc/{}/task", self.pid());
        eventually(|| {
            let mut all = std::fs::read_dir(&tasks).ok()?.flatten();
            all.all(|task| stopped(task) == Some(true)).then_some(())
        })
        .context("rtd does not stand still")
    }

    /// SIGTERM, and what it logged; an error unless it ends well.
    pub fn stop(self) -> anyhow::Result<String> {
        self.signal(nix::sys::signal::Signal::SIGTERM)?;
        let (status, log) = self.end()?;
        if !status.success() {
            bail!("rtd ended with {status}:\n{log}");
        }
        Ok(log)
    }

    /// Waits for its end.
    pub fn end(mut self) -> anyhow::Result<(std::process::ExitStatus, String)> {
        let status =
            eventually(|| self.child.try_wait().ok().flatten()).context("rtd does not end")?;
        if let Some(reader) = self.reader.take() {
            let _ = reader.join();
        }
        Ok((status, self.log()))
    }

    /// kill -9.
    pub fn kill(mut self) -> anyhow::Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A participant process.
#[derive(Debug)]
pub struct Peer {
    child: Child,
    stdin: ChildStdin,
    stdout: BufReader<ChildStdout>,
}

impl Peer {
    /// Starts one.
    pub fn start() -> anyhow::Result<Peer> {
        Peer::start_with(|_| {})
    }

    /// The same, with the command changed first.
    pub fn start_with(change: impl FnOnce(&mut Command)) -> anyhow::Result<Peer> {
        let mut command = Command::new(std::env::current_exe()?);
        command.arg("--peer");
        Peer::spawn(command, change)
    }

    /// One that makes Cobalt's calls out of this library, with the command changed first.
    pub fn on_cobalt(library: &str, change: impl FnOnce(&mut Command)) -> anyhow::Result<Peer> {
        let mut command = Command::new(std::env::current_exe()?);
        command.args(["--peer", library]);
        Peer::spawn(command, change)
    }

    /// One that is registered by `rtctl run --as NAME` before it starts.
    pub fn run_as(instance: &Instance, name: &str) -> anyhow::Result<Peer> {
        let binary = std::env::current_exe()?;
        let mut command = instance.rtctl_command(&["run", "--as", name, "--"]);
        command.arg(binary).arg("--peer").stderr(Stdio::null());
        Peer::spawn(command, |_| {})
    }

    /// The same, and then it blocks these signals, as a program that waits for them does.
    pub fn ready_as(instance: &Instance, name: &str, signals: &[i32]) -> anyhow::Result<Peer> {
        let mut peer = Peer::run_as(instance, name)?;
        for signo in signals {
            peer.block(*signo)?;
        }
        Ok(peer)
    }

    fn spawn(mut command: Command, change: impl FnOnce(&mut Command)) -> anyhow::Result<Peer> {
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        process::die_with_parent_at_exec(&mut command);
        change(&mut command);
        let mut child = command.spawn().context("cannot start a peer")?;
        let stdin = child.stdin.take().context("no stdin")?;
        let stdout = BufReader::new(child.stdout.take().context("no stdout")?);
        let mut peer = Peer {
            child,
            stdin,
            stdout,
        };
        peer.tid()?;
        Ok(peer)
    }

    /// Its pid.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// kill -9.
    pub fn kill(mut self) -> anyhow::Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    /// How it ended, when it has.
    pub fn end(mut self) -> anyhow::Result<std::process::ExitStatus> {
        eventually(|| self.child.try_wait().ok().flatten()).context("the peer does not end")
    }

    /// Sends it a signal. One that dies of it is waited for when it is dropped, so that until then
    /// everybody can learn how it ended.
    pub fn signal(&self, signal: nix::sys::signal::Signal) -> anyhow::Result<()> {
        let pid = nix::unistd::Pid::from_raw(i32::try_from(self.child.id())?);
        Ok(nix::sys::signal::kill(pid, signal)?)
    }

    fn line(&mut self) -> anyhow::Result<String> {
        let mut line = String::new();
        if self.stdout.read_line(&mut line)? == 0 {
            bail!("the peer is gone: {:?}", self.child.wait());
        }
        Ok(line.trim_end().to_owned())
    }

    /// All whole answers that are left when it has ended.
    pub fn last_answers(&mut self) -> anyhow::Result<Vec<Answer>> {
        let mut rest = String::new();
        self.stdout.read_to_string(&mut rest)?;
        let whole = rest.rsplit_once('\n').map_or("", |(whole, _)| whole);
        let parse = |line| serde_json::from_str::<Result<Answer, String>>(line);
        let answers = whole
            .lines()
            .map(|line| parse(line)?.map_err(anyhow::Error::msg));
        answers.collect()
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
