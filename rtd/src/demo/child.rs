//! The five parts as children, started from this very binary, and the way of their reports.
//!
//! A part says hello, gets its name, says that it is ready, and waits for the schedule; senders
//! report at its end, receivers once their standard input is closed, which also a dead parent does.

use super::PATIENCE;
use super::config::Setup;
use super::report::{Packed, Report};
use super::roles::{self, Role, Schedule};
use super::stop::Stop;
use crate::child::{own_binary, wait};
use anyhow::{Context as _, bail};
use ipc_channel::ipc::{self, IpcOneShotServer, IpcReceiver, IpcSender};
use rtcore::sys::process;
use serde::{Deserialize, Serialize};
use std::process::{Child, Stdio};
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Arguments of the hidden `rtd demo-part`: one of the demo's programs.
#[derive(clap::Args, Clone, Debug)]
pub struct Part {
    name: String,
    #[arg(long)]
    parent: u32,
    #[arg(long)]
    socket: String,
    #[arg(long)]
    report: String,
    #[arg(long)]
    daemon_pid: i32,
}

/// A part's first message: both ways between it and the parent.
#[derive(Serialize, Deserialize)]
struct Hello {
    schedule: IpcSender<Schedule>,
    progress: IpcReceiver<Progress>,
}

/// What a part tells.
#[derive(Debug, Serialize, Deserialize)]
enum Progress {
    Ready,
    Done(Vec<Packed>),
}

/// What arrives at the parent, from the thread that listens to one part.
enum Event {
    Hello(usize, IpcSender<Schedule>),
    Progress(Progress),
    Gone(usize),
}

/// The five parts.
pub struct Children {
    running: Vec<Running>,
    events: mpsc::Receiver<Event>,
    ready: usize,
    reports: Vec<Report>,
}

struct Running {
    role: Role,
    child: Child,
    schedule: Option<IpcSender<Schedule>>,
    /// Where its hello is awaited, until it came.
    server: Option<String>,
    listener: Option<JoinHandle<()>>,
}

impl Children {
    /// Starts them all.
    pub fn start(setup: &Setup, daemon_pid: u32) -> anyhow::Result<Children> {
        let (events_tx, events) = mpsc::channel();
        let mut children = Children {
            running: Vec::new(),
            events,
            ready: 0,
            reports: Vec::new(),
        };
        for (index, role) in Role::ALL.into_iter().enumerate() {
            let (server, server_name) = IpcOneShotServer::<Hello>::new()?;
            let mut command = own_binary()?;
            command
                .args(["demo-part", role.name()])
                .args(["--parent", &std::process::id().to_string()])
                .args(["--socket", &setup.socket])
                .args(["--report", &server_name])
                .args(["--daemon-pid", &daemon_pid.to_string()]);
            let child = command
                .stdin(Stdio::piped())
                .stdout(Stdio::null())
                .spawn()
                .with_context(|| format!("cannot start {}", role.name()))?;
            let events_tx = events_tx.clone();
            let listener = Some(std::thread::spawn(move || {
                listen(index, server, &events_tx)
            }));
            let server = Some(server_name);
            children.running.push(Running {
                role,
                child,
                schedule: None,
                server,
                listener,
            });
        }
        Ok(children)
    }

    /// Waits until every part has its name and waits for the schedule.
    pub fn await_ready(&mut self, stop: &Stop) -> anyhow::Result<()> {
        self.serve(stop, |c| c.ready == c.running.len())
            .context("while the parts started")
    }

    /// Tells everybody when what happens.
    pub fn begin(&self, schedule: Schedule) -> anyhow::Result<()> {
        for part in &self.running {
            let to = part
                .schedule
                .as_ref()
                .context("a part is ready and has not announced itself")?;
            to.send(schedule)
                .with_context(|| format!("{} does not take the schedule", part.role.name()))?;
        }
        Ok(())
    }

    /// Waits for the senders' reports.
    pub fn await_senders(&mut self, stop: &Stop) -> anyhow::Result<()> {
        let senders = self.running.iter().filter(|p| p.role.is_sender()).count();
        self.serve(stop, move |c| c.reports.len() >= senders)
            .context("while the senders ended")
    }

    /// Messages sent, as reported so far.
    pub fn sent(&self) -> u64 {
        self.reports.iter().map(|r| r.sent).sum()
    }

    /// Ends the receivers; everybody's result.
    pub fn finish(mut self, stop: &Stop) -> anyhow::Result<Vec<Report>> {
        for part in &mut self.running {
            drop(part.child.stdin.take());
        }
        let expected: usize = self.running.iter().map(|p| p.role.reports()).sum();
        self.serve(stop, move |c| c.reports.len() == expected)
            .context("while the receivers ended")?;
        Ok(std::mem::take(&mut self.reports))
    }

    /// An error when one ended with a failure.
    pub fn check(&mut self) -> anyhow::Result<()> {
        for part in &mut self.running {
            if let Some(status) = part.child.try_wait()?
                && !status.success()
            {
                bail!("{} ended with {status}", part.role.name());
            }
        }
        Ok(())
    }

    /// Takes what the parts tell until `enough`; looks between whether they live and the user still
    /// waits.
    fn serve(&mut self, stop: &Stop, enough: impl Fn(&Children) -> bool) -> anyhow::Result<()> {
        const LOOK: Duration = Duration::from_millis(50);
        let give_up = Instant::now() + PATIENCE;
        while !enough(self) {
            match self.events.recv_timeout(LOOK) {
                Ok(Event::Hello(part, schedule)) => {
                    self.running[part].schedule = Some(schedule);
                    self.running[part].server = None;
                }
                Ok(Event::Progress(Progress::Ready)) => self.ready += 1,
                Ok(Event::Progress(Progress::Done(packed))) => {
                    for report in packed {
                        self.reports.push(report.unpack()?);
                    }
                }
                Ok(Event::Gone(part)) => {
                    let part = &mut self.running[part];
                    bail!(
                        "{} ended before its report: {}",
                        part.role.name(),
                        wait(&mut part.child)?
                    );
                }
                Err(_) => {}
            }
            stop.wait_until(0)?;
            self.check()?;
            if Instant::now() > give_up {
                bail!("a part has sent nothing for {PATIENCE:?}");
            }
        }
        Ok(())
    }
}

impl Drop for Children {
    fn drop(&mut self) {
        for part in &mut self.running {
            if matches!(part.child.try_wait(), Ok(None)) {
                let _ = part.child.kill();
            }
            let _ = part.child.wait();
            // A server that still waits keeps a directory in $TMPDIR: a connection that says
            // nothing ends it.
            if let Some(server) = part.server.take() {
                drop(IpcSender::<Hello>::connect(server));
            }
            if let Some(listener) = part.listener.take() {
                let _ = listener.join();
            }
        }
    }
}

/// Passes on what one part tells, until its report or its end.
fn listen(index: usize, server: IpcOneShotServer<Hello>, events: &mpsc::Sender<Event>) {
    // A failed send says that the parent needs no more.
    let Ok((_, hello)) = server.accept() else {
        let _ = events.send(Event::Gone(index));
        return;
    };
    let _ = events.send(Event::Hello(index, hello.schedule));
    loop {
        match hello.progress.recv() {
            Ok(done @ Progress::Done(_)) => {
                let _ = events.send(Event::Progress(done));
                return;
            }
            Ok(progress) => {
                let _ = events.send(Event::Progress(progress));
            }
            Err(_) => {
                let _ = events.send(Event::Gone(index));
                return;
            }
        }
    }
}

/// The body of `rtd demo-part`: takes its name, plays its role, reports.
pub fn run_part(part: &Part) -> anyhow::Result<()> {
    process::die_with_parent(part.parent).context("the demo is gone")?;
    let role = Role::of(&part.name).with_context(|| format!("no part is called {}", part.name))?;
    let (schedule, begin) = ipc::channel()?;
    let (progress_tx, progress) = ipc::channel()?;
    // At once: until then the parent holds a directory in $TMPDIR for us.
    IpcSender::connect(part.report.clone())?.send(Hello { schedule, progress })?;
    let ready = roles::prepare(role, part.socket.as_ref(), part.daemon_pid)?;
    progress_tx.send(Progress::Ready)?;
    let schedule = begin.recv().context("the demo is gone")?;
    let reports = ready.play(schedule)?;
    progress_tx.send(Progress::Done(reports.iter().map(Report::pack).collect()))?;
    Ok(())
}
