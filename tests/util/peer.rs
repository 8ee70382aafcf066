//! A participant that links nothing of ours but the raw calls: told what to do line by line.
//!
//! Every command is answered by any number of data lines and then `ok`, or by `err TEXT`.

use super::patience_ns;
use super::session_peer::Links;
use anyhow::{Context as _, bail};
use rtcore::sys::mqueue::{self, Access, Queue};
use rtcore::sys::rtsignal::{self, SignalSet};
use rtcore::sys::{poll, process, sched};
use std::ffi::CString;
use std::io::{BufRead as _, Write as _};
use std::os::fd::AsRawFd;
use std::os::unix::process::CommandExt as _;
use std::sync::mpsc::{Receiver, Sender, channel};

/// Body of a `--peer` process.
pub fn main() -> std::process::ExitCode {
    let mut second = Second::default();
    let mut queue: Option<Queue> = None;
    let mut links = Links::default();
    serve(|words| match words {
        ["second", rest @ ..] => second.obey(rest),
        ["session", rest @ ..] => links.obey(rest),
        words => obey(words, &mut queue),
    })
}

/// Set where a participant has become another program by exec(2): that answers for the order.
const REPLACED: &str = "RTD_TEST_REPLACED";

/// Obeys line after line.
pub fn serve(mut obey: impl FnMut(&[&str]) -> Answer) -> std::process::ExitCode {
    if std::env::var_os(REPLACED).is_some() {
        println!("ok");
    }
    for line in std::io::stdin().lock().lines().map_while(Result::ok) {
        let words: Vec<&str> = line.split_whitespace().collect();
        let answer = match obey(&words) {
            Ok(mut data) => {
                data.push_str("ok\n");
                data
            }
            Err(e) => format!("err {e:#}\n"),
        };
        let mut out = std::io::stdout().lock();
        if out
            .write_all(answer.as_bytes())
            .and_then(|()| out.flush())
            .is_err()
        {
            break;
        }
    }
    std::process::ExitCode::SUCCESS
}

/// Data lines, or why not.
pub type Answer = anyhow::Result<String>;

/// Another thread of this process, which obeys in the same way.
#[derive(Default)]
struct Second {
    channel: Option<(Sender<Vec<String>>, Receiver<Answer>)>,
}

impl Second {
    fn obey(&mut self, words: &[&str]) -> anyhow::Result<String> {
        if words == ["end"] {
            // Without orders the thread ends; its half of the answers goes with it.
            let Some((orders, answers)) = self.channel.take() else {
                bail!("there is no second thread")
            };
            drop(orders);
            let gone = answers.recv().is_err();
            return if gone {
                Ok(String::new())
            } else {
                Err(anyhow::anyhow!("an answer is left"))
            };
        }
        let (orders, answers) = self.channel.get_or_insert_with(|| {
            let (orders, told) = channel::<Vec<String>>();
            let (tell, answers) = channel();
            std::thread::spawn(move || {
                let mut queue = None;
                for words in told {
                    let words: Vec<&str> = words.iter().map(String::as_str).collect();
                    if tell.send(obey(&words, &mut queue)).is_err() {
                        break;
                    }
                }
            });
            (orders, answers)
        });
        orders.send(words.iter().map(|&w| w.to_owned()).collect())?;
        answers.recv()?
    }
}

fn obey(words: &[&str], queue: &mut Option<Queue>) -> anyhow::Result<String> {
    let mut data = String::new();
    match words {
        // Before this a signal ends the process, as it would any program that does not expect it.
        ["block", signo] => SignalSet::of([signo.parse()?]).block()?,
        ["sigpending", limit] => limit_sigpending(limit.parse()?)?,
        ["fifo", priority] => sched::set_fifo(priority.parse()?)?,
        ["pin", cpu] => sched::pin(cpu.parse()?)?,
        // setpgid(2) and setsid(2) of this process.
        ["setpgid", pgid] => {
            let to = nix::unistd::Pid::from_raw(pgid.parse()?);
            nix::unistd::setpgid(nix::unistd::Pid::from_raw(0), to)?;
        }
        ["setsid"] => data = format!("{}\n", nix::unistd::setsid()?),
        // The same program once more in this process, with nothing of what it had.
        ["exec"] => {
            let mut command = std::process::Command::new("/proc/self/exe");
            return Err(command
                .args(std::env::args_os().skip(1))
                .env(REPLACED, "1")
                .exec()
                .into());
        }
        ["exit", status] => std::process::exit(status.parse()?),
        // The calling thread's name, in hexadecimal.
        ["name", hex] => std::fs::write("/proc/thread-self/comm", unhex(hex)?)?,
        ["tid"] => data = format!("{}\n", sched::gettid()),
        ["register", socket, name] => rtd::ctl::register::this_process(socket.as_ref(), name)?,
        ["open", access, name] => {
            let access = if *access == "send" {
                Access::Send
            } else {
                Access::Receive
            };
            *queue = Some(Queue::open(&CString::new(*name)?, access, true)?);
        }
        // A queue of its own making (mq_open(3) with O_CREAT), of ten 64-byte messages.
        ["create", name, mode] => {
            let mode = u32::from_str_radix(mode, 8)?;
            *queue = Some(Queue::create(&CString::new(*name)?, 10, 64, mode)?.0);
        }
        ["unlink", name] => Queue::unlink(&CString::new(*name)?)?,
        ["send", priority, hex] => {
            let queue = queue.as_ref().context("no queue is open")?;
            send(queue, &unhex(hex)?, priority.parse()?)?;
        }
        // As `send`, with an 8-byte counter as payload.
        ["stream", from, count] => {
            let queue = queue.as_ref().context("no queue is open")?;
            let from: u64 = from.parse()?;
            for n in 0..count.parse::<u64>()? {
                send(queue, &from.wrapping_add(n).to_ne_bytes(), 0)?;
            }
        }
        ["recv", count, timeout_ms] => {
            let queue = queue.as_ref().context("no queue is open")?;
            data = receive(queue, count.parse()?, timeout_ms.parse()?)?;
        }
        ["sigqueue", pid, signo, value] => {
            let sent = rtsignal::queue_to_pid(pid.parse()?, signo.parse()?, value.parse()?);
            sent.map_err(|e| anyhow::anyhow!("{e:?}"))?;
        }
        // Real, effective and saved user.
        ["setresuid", real, effective, saved] => {
            let id = |text: &str| anyhow::Ok(nix::unistd::Uid::from_raw(text.parse()?));
            nix::unistd::setresuid(id(real)?, id(effective)?, id(saved)?)?;
        }
        // kill(2), for standard signals.
        ["kill", pid, signo] => {
            let signal = nix::sys::signal::Signal::try_from(signo.parse::<i32>()?)?;
            nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid.parse()?), signal)?;
        }
        // As `sigqueue`, with a pid and a uid that are not its own (rt_sigqueueinfo(2) lets
        // anybody).
        ["forge", pid, signo, value, as_pid, as_uid] => {
            let to = process::pidfd(pid.parse()?)?;
            let (as_pid, as_uid) = (as_pid.parse()?, as_uid.parse()?);
            let sent = rtsignal::queue_to_pidfd(
                to.as_raw_fd(),
                signo.parse()?,
                value.parse()?,
                as_pid,
                as_uid,
            );
            sent.map_err(|e| anyhow::anyhow!("{e:?}"))?;
        }
        ["lane", rest @ ..] => data = super::lane_peer::obey(rest)?,
        ["liar", rest @ ..] => data = super::liar_peer::obey(rest)?,
        // Waits for a message in one queue, sends one into another, and says what a third then
        // holds.
        ["relay", from, to, watch] => data = relay(from, to, watch)?,
        ["sigwait", signo, count, timeout_ms] => {
            data = sigwait(signo.parse()?, count.parse()?, timeout_ms.parse()?)?;
        }
        other => data = super::signal_ways::obey(other)?,
    }
    Ok(data)
}

/// Waits for room with an event, so that a full queue is no failure.
fn send(queue: &Queue, bytes: &[u8], priority: u32) -> anyhow::Result<()> {
    loop {
        match mqueue::send(queue.as_raw_fd(), bytes, priority) {
            Ok(()) => return Ok(()),
            Err(rtcore::sys::Errno::AGAIN) => {}
            Err(e) => bail!("{e:?}"),
        }
        if poll::wait(
            &mut [poll::Interest::writable(queue.as_raw_fd())],
            patience_ns(),
        ) == Ok(0)
        {
            bail!("the queue stays full");
        }
    }
}

/// Up to `count` messages, as `PRIORITY HEX` lines; fewer when none comes for `timeout_ms`.
fn receive(queue: &Queue, count: usize, timeout_ms: u64) -> anyhow::Result<String> {
    let mut data = String::new();
    let mut buffer = vec![0; queue.attributes()?.msgsize];
    let mut n = 0;
    while n < count {
        match mqueue::receive(queue.as_raw_fd(), &mut buffer) {
            Ok((len, priority)) => {
                n += 1;
                data += &format!("{priority} {}\n", rtd::ctl::payload::hex(&buffer[..len]));
            }
            Err(rtcore::sys::Errno::AGAIN) => {
                let fd = queue.as_raw_fd();
                if poll::wait(&mut [poll::Interest::readable(fd)], timeout_ms * 1_000_000) == Ok(0)
                {
                    break;
                }
            }
            Err(e) => bail!("{e:?}"),
        }
    }
    Ok(data)
}

/// Up to `count` signals, as `VALUE PID UID TID` lines.
fn sigwait(signo: i32, count: usize, timeout_ms: u64) -> anyhow::Result<String> {
    let set = SignalSet::of([signo]);
    let pending = set.descriptor()?;
    let mut data = String::new();
    let mut n = 0;
    while n < count {
        match rtsignal::try_wait(&set) {
            Ok(got) => {
                n += 1;
                data += &format!(
                    "{} {} {} {}\n",
                    got.value,
                    got.pid,
                    got.uid,
                    sched::gettid()
                );
            }
            Err(rtcore::sys::Errno::AGAIN) => {
                let fd = pending.as_raw_fd();
                if poll::wait(&mut [poll::Interest::readable(fd)], timeout_ms * 1_000_000) == Ok(0)
                {
                    break;
                }
            }
            Err(e) => bail!("{e:?}"),
        }
    }
    Ok(data)
}

fn relay(from: &str, to: &str, watch: &str) -> anyhow::Result<String> {
    let open = |name: &str, access| {
        Queue::open(&CString::new(name)?, access, false).map_err(anyhow::Error::from)
    };
    let from = open(from, Access::Receive)?;
    let to = open(to, Access::Send)?;
    let watch = open(watch, Access::Receive)?;
    let mut buffer = vec![0; from.attributes()?.msgsize];
    mqueue::receive(from.as_raw_fd(), &mut buffer).map_err(|e| anyhow::anyhow!("{e:?}"))?;
    mqueue::send(to.as_raw_fd(), b"relayed", 0).map_err(|e| anyhow::anyhow!("{e:?}"))?;
    Ok(format!("{}\n", watch.attributes()?.curmsgs))
}

pub fn limit_sigpending(limit: u64) -> anyhow::Result<()> {
    nix::sys::resource::setrlimit(
        nix::sys::resource::Resource::RLIMIT_SIGPENDING,
        limit,
        limit,
    )?;
    Ok(())
}

/// Bytes from hexadecimal; `-` is none.
pub fn unhex(hex: &str) -> anyhow::Result<Vec<u8>> {
    if hex == "-" {
        return Ok(Vec::new());
    }
    (0..hex.len())
        .step_by(2)
        .map(|i| Ok(u8::from_str_radix(hex.get(i..i + 2).context("odd")?, 16)?))
        .collect()
}
