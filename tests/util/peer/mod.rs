//! A participant: a process that obeys orders (`order`), a line each.
//!
//! The main thread obeys. A participant that gets orders of [`Process`], [`Queue`] and [`Signal`]
//! alone is a plain program: it makes the raw calls, registers by the control socket, and has
//! neither a session nor a thread of the library. `--peer LIBRARY` makes Cobalt's calls instead.

mod calls;
mod fork;
mod handlers;
mod queue;
mod receive;
mod sealed;
mod send;
mod session;
mod signal;

use super::order::{Answer, Order, Process, Second};
pub use super::talk::unhex;
use anyhow::{Context as _, bail};
use nix::unistd::{Pid, Uid};
use rtcore::skin::{Skin, cobalt};
use rtcore::sys::sched;
use session::Client;
use std::io::{BufRead as _, Write as _};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::ExitCode;
use std::sync::mpsc::{Receiver, Sender, channel};

/// Set where a participant has become another program by exec(2): that answers the order.
const REPLACED: &str = "RTD_TEST_REPLACED";

/// Body of a `--peer [LIBRARY]` process. On Cobalt its main thread is the Cobalt thread.
pub fn main(library: Option<&str>) -> ExitCode {
    let bind = |library| cobalt::load(Some(Path::new(library))).and_then(cobalt::Loaded::bind);
    let skin = match library.map(bind).transpose() {
        Ok(skin) => skin,
        Err(e) => {
            eprintln!("peer: {e}");
            return ExitCode::FAILURE;
        }
    };
    if std::env::var_os(REPLACED).is_some() && say(Ok(Answer::Done)).is_err() {
        return ExitCode::FAILURE;
    }
    let mut participant = Participant::on(skin);
    for line in std::io::stdin().lock().lines().map_while(Result::ok) {
        let answer = serde_json::from_str(&line)
            .map_err(anyhow::Error::from)
            .and_then(|order| participant.obey(order));
        if say(answer).is_err() {
            break;
        }
    }
    ExitCode::SUCCESS
}

/// Writes a line for the driver.
fn say(answer: anyhow::Result<Answer>) -> anyhow::Result<()> {
    let mut line = serde_json::to_vec(&answer.map_err(|e| format!("{e:#}")))?;
    line.push(b'\n');
    let mut out = std::io::stdout().lock();
    out.write_all(&line)?;
    Ok(out.flush()?)
}

struct Participant {
    /// Linux's calls where there is none.
    skin: Option<&'static Skin>,
    queue: queue::Open,
    second: SecondThread,
    client: Client,
    handlers: handlers::Dispatch,
}

impl Participant {
    fn on(skin: Option<&'static Skin>) -> Participant {
        Participant {
            skin,
            queue: queue::Open::on(skin),
            second: SecondThread::default(),
            client: Client::on(skin),
            handlers: handlers::Dispatch::default(),
        }
    }

    fn obey(&mut self, order: Order<'_>) -> anyhow::Result<Answer> {
        match order {
            Order::Process(order) => process(order),
            Order::Queue(order) => self.queue.obey(order),
            Order::Signal(order) => signal::obey(self.skin, order),
            Order::Second(order) => self.second.obey(order),
            Order::Session(order) => self.client.session_order(order),
            Order::Send(order) => self.client.send_order(order),
            Order::Receive(order) => self.client.receive_order(order),
            Order::Call(order) => self.client.call_order(order),
            Order::Handlers(order) => self.handlers.obey(&self.client, order),
            Order::Fork(order) => self.client.fork_order(order),
            Order::Liar(words) => {
                let said = super::liar_peer::obey(&words)?;
                Ok(Answer::Lines(said.lines().map(str::to_owned).collect()))
            }
        }
    }
}

fn process(order: Process<'_>) -> anyhow::Result<Answer> {
    match order {
        Process::Tid => return Ok(Answer::Number(sched::gettid().unsigned_abs().into())),
        Process::Name(name) => std::fs::write("/proc/thread-self/comm", name)?,
        Process::Fifo(priority) => sched::set_fifo(priority)?,
        Process::Pin(cpu) => sched::pin(cpu)?,
        Process::LimitSigpending(limit) => {
            let which = nix::sys::resource::Resource::RLIMIT_SIGPENDING;
            nix::sys::resource::setrlimit(which, limit, limit)?;
        }
        Process::Setpgid(pgid) => {
            nix::unistd::setpgid(Pid::from_raw(0), Pid::from_raw(pgid.try_into()?))?;
        }
        Process::Setsid => drop(nix::unistd::setsid()?),
        Process::Setresuid(real, effective, saved) => {
            let [real, effective, saved] = [real, effective, saved].map(Uid::from_raw);
            nix::unistd::setresuid(real, effective, saved)?;
        }
        Process::Exec => {
            let mut command = std::process::Command::new("/proc/self/exe");
            let arguments = std::env::args_os().skip(1);
            return Err(command.args(arguments).env(REPLACED, "1").exec().into());
        }
        Process::Exit(status) => std::process::exit(status),
        Process::Register { socket, name } => {
            rtd::ctl::register::this_process(socket.as_ref(), name)?;
        }
    }
    Ok(Answer::Done)
}

/// Another thread of this process, which obeys in the same way.
#[derive(Default)]
struct SecondThread {
    channel: Option<(Sender<Second>, Receiver<anyhow::Result<Answer>>)>,
}

impl SecondThread {
    fn obey(&mut self, order: Second) -> anyhow::Result<Answer> {
        if matches!(order, Second::End) {
            // Without orders the thread ends; its half of the answers goes with it.
            let (orders, answers) = self.channel.take().context("there is no second thread")?;
            drop(orders);
            return match answers.recv() {
                Ok(_) => bail!("an answer is left"),
                Err(_) => Ok(Answer::Done),
            };
        }
        let (orders, answers) = self.channel.get_or_insert_with(|| {
            let (orders, told) = channel();
            let (tell, answers) = channel();
            std::thread::spawn(move || {
                for order in told {
                    if tell.send(second(&order)).is_err() {
                        break;
                    }
                }
            });
            (orders, answers)
        });
        orders.send(order)?;
        answers.recv()?
    }
}

fn second(order: &Second) -> anyhow::Result<Answer> {
    match *order {
        Second::Tid => process(Process::Tid),
        Second::Block(signo) => signal::block(signo),
        Second::Take {
            signo,
            count,
            quiet_ms,
        } => signal::take(signo, count, quiet_ms),
        Second::End => bail!("the first thread ends the second"),
    }
}
