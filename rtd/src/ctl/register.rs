//! `rtctl register`: registers a running process. Also the client's half of the control socket,
//! which `rtctl run` shares.

#![allow(
    rustdoc::broken_intra_doc_links,
    reason = "help texts show [[process]] as it is written"
)]

use super::page;
use clap::Args;
use rtcore::client::locate;
use rtcore::sys::seqpacket::{Conn, Received};
use rtcore::sys::signame;
use rtcore::wire::{FRAME_BYTES, Name, Reply, Request, Status};
use std::fmt::Write;
use std::io;
use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};

/// Total time that a command waits for the daemon.
const PATIENCE: Duration = Duration::from_secs(5);
/// Pause between two attempts while many clients use the socket.
const BUSY_PAUSE: Duration = Duration::from_millis(10);

/// Give a running process its name.
///
/// rtd sends the process a signal only while it blocks or handles the signal, and checks that once
/// a second. exec(2) removes handlers: a program that executes another one must block the signals
/// first, or the next signal ends it.
#[derive(Args, Clone, Debug)]
pub struct RegisterArgs {
    /// Register the process under this name of a [[process]] in the configuration
    #[arg(long = "as", value_name = "NAME")]
    pub name: String,
    /// Process to register; it must belong to the caller, unless the caller is root
    #[arg(long, value_name = "PID", value_parser = clap::value_parser!(i32).range(1..))]
    pub pid: i32,
    /// Thread that receives thread-directed signals [default: the main thread]
    #[arg(long, value_name = "TID", value_parser = clap::value_parser!(i32).range(1..))]
    pub tid: Option<i32>,
}

/// Free the name of a process that keeps running.
#[derive(Args, Clone, Debug)]
pub struct UnregisterArgs {
    /// Free this name; its process must belong to the caller, unless the caller is root
    #[arg(long = "as", value_name = "NAME")]
    pub name: String,
}

/// Runs `rtctl unregister`; 0 if the name is free now, 1 with the reason on standard error if not.
pub fn unregister(args: &UnregisterArgs, socket: &Path) -> ExitCode {
    let released = Name::new(&args.name).map_err(|e| format!("--as {:?}: {e}", args.name));
    let released = released.and_then(|name| request(socket, &Request::Unregister { name }));
    match released {
        Ok((_, reply)) => {
            // If nobody reads the output, the request was still carried out.
            let _ = super::page::print(&format!("{}\n", reply.text));
            ExitCode::SUCCESS
        }
        Err(text) => {
            crate::log::print(format_args!("rtctl: {text}"));
            ExitCode::FAILURE
        }
    }
}

/// Runs `rtctl register`; 0 if the name was granted, 1 with the reason on standard error if not.
pub fn register(args: &RegisterArgs, socket: &Path) -> ExitCode {
    let result = claim(socket, &args.name, args.pid, args.tid.unwrap_or(0), false);
    match result {
        Ok((_, reply)) => {
            // If nobody reads the output, the name is still granted.
            let _ = super::page::print(&format!("{}\n", granted(&args.name, &reply)));
            ExitCode::SUCCESS
        }
        Err(text) => {
            crate::log::print(format_args!("rtctl: {text}"));
            ExitCode::FAILURE
        }
    }
}

/// Registers the calling process. It should have blocked its signals before, because by default
/// they end it.
pub fn this_process(socket: &Path, name: &str) -> anyhow::Result<()> {
    claim(socket, name, 0, 0, false).map_err(|text| anyhow::anyhow!("{text}"))?;
    Ok(())
}

/// Requests a name; returns the connection, because its end has a meaning after exec.
pub fn claim(
    socket: &Path,
    name: &str,
    pid: i32,
    tid: i32,
    exec_follows: bool,
) -> Result<(Conn, Reply), String> {
    let name = Name::new(name).map_err(|e| format!("--as {name:?}: {e}"))?;
    request(
        socket,
        &Request::Register {
            name,
            pid,
            tid,
            exec_follows,
        },
    )
}

/// Sends one request until it is answered; an error is the daemon's refusal.
fn request(socket: &Path, request: &Request) -> Result<(Conn, Reply), String> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let (conn, reply) = ask(socket, request, left.max(Duration::from_millis(1)))?;
        match reply.status {
            Status::Ok | Status::Pending => return Ok((conn, reply)),
            // Many clients use the socket: the daemon closed the connection before it had read the
            // request, so a second request is not a duplicate. A client cannot see when there is
            // room.
            Status::Busy if Instant::now() < deadline => std::thread::sleep(BUSY_PAUSE),
            _ => return Err(reply.text),
        }
    }
}

/// One request, one reply, on a connection of its own.
pub fn ask(socket: &Path, request: &Request, limit: Duration) -> Result<(Conn, Reply), String> {
    let path = socket.display();
    let deadline = Instant::now() + limit;
    let conn = connect(socket, limit).map_err(|e| no_daemon(socket, &e))?;
    // If sending fails, the daemon has closed the connection, and its reason can still be read.
    let sent = conn.send(&request.encode());
    let mut frame = [0; FRAME_BYTES];
    let left = deadline.saturating_duration_since(Instant::now());
    match (conn.receive_within(&mut frame, left), sent) {
        (Ok(Received::Packet(bytes)), _) => {
            let whole = frame.get(..bytes).unwrap_or(&frame[..0]);
            let reply = Reply::decode(whole).map_err(|e| format!("{path}: {e}"))?;
            Ok((conn, reply))
        }
        (_, Err(e)) => Err(format!("{path}: {e}")),
        (Err(e), _) if e.kind() == io::ErrorKind::TimedOut => Err(format!(
            "{path}: no answer within {} s: does rtd hang? see rtctl ls",
            PATIENCE.as_secs()
        )),
        (Err(e), _) => Err(format!("{path}: {e}")),
        // A closed connection whose reason did not arrive: the same as busy.
        (Ok(_), _) => Ok((
            conn,
            Reply::plain(Status::Busy, format!("{path}: rtd closed the connection")),
        )),
    }
}

/// Connects. Waits for a socket that was removed under a running daemon.
fn connect(socket: &Path, limit: Duration) -> io::Result<Conn> {
    let give_up = Instant::now() + limit.min(page::RESTORED_WITHIN);
    loop {
        let error = match Conn::connect(socket, limit) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => e,
            connected => return connected,
        };
        if Instant::now() > give_up || locate::serving(socket).is_none() {
            return Err(error);
        }
        std::thread::sleep(BUSY_PAUSE);
    }
}

fn no_daemon(socket: &Path, e: &io::Error) -> String {
    let fix = match e.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => match locate::serving(socket)
        {
            Some((name, pid)) => format!(
                ": instance \"{name}\" runs (pid {pid}), but its control socket was removed; the log of rtd says why it \
                 cannot make it again"
            ),
            None => format!(
                ": rtd is not running there: start it, or give the path that [daemon] socket names\n\
                 \x20 {}",
                page::others()
            ),
        },
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => {
            ": rtd accepts no connections: does it hang?".to_owned()
        }
        _ => String::new(),
    };
    // The error already names the path.
    let path = if e.to_string().contains(&*socket.to_string_lossy()) {
        None
    } else {
        Some(socket)
    };
    let mut text = path
        .map(|p| format!("{}: ", p.display()))
        .unwrap_or_default();
    // Writing to a String does not fail.
    let _ = write!(text, "{e}{fix}");
    text
}

/// `registered as arm (pid 1234, generation 2, signals SIGRTMIN+1 SIGRTMIN+2)`.
pub(super) fn granted(name: &str, reply: &Reply) -> String {
    let mut text = format!(
        "registered as {name} (pid {}, generation {}",
        reply.pid, reply.generation
    );
    if reply.signals != 0 {
        text.push_str(", signals");
        for signo in (1..=64).filter(|signo| reply.signals >> (signo - 1) & 1 == 1) {
            // Writing to a String does not fail.
            let _ = write!(text, " {}", signame::name(signo));
        }
    }
    if reply.status == Status::Pending {
        text.push_str(", active once rtd has seen the executable");
    }
    text.push(')');
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_grant_reads_as_a_sentence() {
        let mut reply = Reply::plain(Status::Ok, "");
        (reply.pid, reply.generation) = (12, 2);
        assert_eq!(
            granted("arm", &reply),
            "registered as arm (pid 12, generation 2)"
        );
        (reply.signals, reply.status) = (1 << 34 | 1 << 63, Status::Pending);
        let expected = "registered as arm (pid 12, generation 2, signals SIGRTMIN+1 SIGRTMIN+30, active once rtd has seen the \
                        executable)";
        assert_eq!(granted("arm", &reply), expected);
    }

    #[test]
    fn without_a_daemon_the_path_and_the_hint_are_shown() {
        let text = claim(Path::new("/nonexistent/rtd.sock"), "arm", 0, 0, false).unwrap_err();
        assert!(
            text.contains("/nonexistent/rtd.sock") && text.contains("start it"),
            "{text}"
        );
        let text = claim(Path::new("/nonexistent/rtd.sock"), "a b", 0, 0, false).unwrap_err();
        assert!(text.contains("--as \"a b\""), "{text}");
    }
}
