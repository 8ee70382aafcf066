//! Plain lines on standard error, `rtd: warning: ...`; the service manager adds the time.
//!
//! Who reads standard error may stop reading, and write(2) then waits. So a daemon hands its lines
//! to a thread that does nothing but write them ([`start`]); before that, and in the tools, they go
//! out directly.
//!
//! Constraint: allocates. Never on a real-time thread. Invariant: once started, logging waits for
//! nobody. Lines that find the queue full are counted, and the count is logged when the writer gets
//! through again.

use rtcore::sys::printable::printable;
use std::fmt::Arguments;
use std::io::{self, Write};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Condvar, Mutex, OnceLock, PoisonError};
use std::time::Duration;

/// Lines that wait for the writer; some hundred bytes each.
const LINES_MAX: usize = 256;
/// How long an ending daemon waits until its last lines are out.
const FLUSH_MAX: Duration = Duration::from_millis(200);
/// Formatting is done by the others; locked memory counts.
const STACK_BYTES: usize = 64 * 1024;

static LOGGER: OnceLock<Logger> = OnceLock::new();

/// Something happened that an operator wants to see.
pub fn info(text: Arguments<'_>) {
    line("", text);
}

/// Something is wrong and the daemon goes on.
pub fn warning(text: Arguments<'_>) {
    line("warning: ", text);
}

pub fn error(text: Arguments<'_>) {
    line("error: ", text);
}

/// A line as it is, from a program that has no such thread (yet). Where nobody reads standard error
/// any more it is lost, and the program goes on, which `eprintln!` would not.
pub fn print(text: Arguments<'_>) {
    write(&format!("{text}\n"));
}

/// From here on a thread writes the lines. It has the signal mask of the caller, so every signal
/// that somebody else is to take must be blocked by now. What it does first, `enter`, has been done
/// when this returns.
pub fn start(enter: impl FnOnce() + Send + 'static) -> io::Result<Started> {
    let (logger, writer) = Logger::new();
    // Started twice: the first one stays, and this writer ends with its queue.
    if LOGGER.set(logger).is_ok() {
        let thread = std::thread::Builder::new()
            .name("log".to_owned())
            .stack_size(STACK_BYTES);
        let (entered_tx, entered) = sync_channel(1);
        thread.spawn(move || {
            enter();
            // Nobody listens only if the starter is gone.
            let _ = entered_tx.send(());
            writer.run(&mut io::stderr());
        })?;
        let _ = entered.recv();
    }
    Ok(Started(()))
}

/// Dropping it waits until the lines are out, but not for a reader that does not read.
#[derive(Debug)]
pub struct Started(());

impl Drop for Started {
    fn drop(&mut self) {
        if let Some(logger) = LOGGER.get() {
            logger.flush(FLUSH_MAX);
        }
    }
}

/// Why the program ends, as it is, over as many lines as it has. A daemon whose standard error is
/// not read, or closed, ends all the same: this waits as long as a flush at most.
pub fn last(error: Arguments<'_>) {
    let text = format!("rtd: error: {error}\n");
    match LOGGER.get() {
        Some(logger) => {
            logger.put(text);
            logger.flush(FLUSH_MAX);
        }
        None => write(&text),
    }
}

fn write(text: &str) {
    // Nobody to tell when standard error is gone.
    let _ = io::stderr().lock().write_all(text.as_bytes());
}

fn line(level: &str, text: Arguments<'_>) {
    // One write per line, so that lines of several threads do not mix. Control characters can come
    // from the paths and names of clients and must not move the cursor of the terminal that shows
    // the log.
    let text = printable(&format!("rtd: {level}{text}")) + "\n";
    match LOGGER.get() {
        Some(logger) => logger.put(text),
        None => write(&text),
    }
}

/// The end of the queue that lines go into.
#[derive(Debug)]
struct Logger {
    lines: SyncSender<String>,
    /// Lines put into the queue.
    put: AtomicU64,
    progress: Arc<Progress>,
}

/// The end that they are written from.
#[derive(Debug)]
struct Writer {
    lines: Receiver<String>,
    progress: Arc<Progress>,
}

#[derive(Debug, Default)]
struct Progress {
    /// Lines that found the queue full and were not reported yet.
    lost: AtomicU64,
    /// Lines written. Held for the addition only, never over a write.
    written: Mutex<u64>,
    moved: Condvar,
}

impl Logger {
    fn new() -> (Logger, Writer) {
        let (sender, lines) = sync_channel(LINES_MAX);
        let progress = Arc::new(Progress::default());
        let put = AtomicU64::new(0);
        (
            Logger {
                lines: sender,
                put,
                progress: Arc::clone(&progress),
            },
            Writer { lines, progress },
        )
    }

    fn put(&self, line: String) {
        match self.lines.try_send(line) {
            Ok(()) => self.put.fetch_add(1, Ordering::Relaxed),
            Err(_) => self.progress.lost.fetch_add(1, Ordering::Relaxed),
        };
    }

    /// Waits until what this thread put is written, at most so long; whether it is.
    fn flush(&self, limit: Duration) -> bool {
        let wanted = self.put.load(Ordering::Relaxed);
        let written = self
            .progress
            .written
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let waited = self
            .progress
            .moved
            .wait_timeout_while(written, limit, |written| *written < wanted);
        !waited.unwrap_or_else(PoisonError::into_inner).1.timed_out()
    }
}

impl Writer {
    fn run(self, out: &mut dyn Write) {
        for line in &self.lines {
            // Nobody to tell when standard error is gone.
            let _ = out.write_all(line.as_bytes());
            let lost = self.progress.lost.swap(0, Ordering::Relaxed);
            if lost > 0 {
                let _ = writeln!(
                    out,
                    "rtd: warning: {lost} log lines are lost: standard error was not read"
                );
            }
            *self
                .progress
                .written
                .lock()
                .unwrap_or_else(PoisonError::into_inner) += 1;
            self.progress.moved.notify_all();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{BufRead, BufReader};
    use std::time::Instant;

    #[test]
    fn a_blocked_reader_delays_nobody_and_gets_the_number_of_lost_lines() {
        let (reader, mut pipe) = io::pipe().unwrap();
        let (logger, writer) = Logger::new();
        let thread = std::thread::spawn(move || writer.run(&mut pipe));
        let start = Instant::now();
        // More than any pipe and the queue take together.
        let total = 20_000;
        for n in 0..total {
            logger.put(format!("{n:>200}\n"));
        }
        assert!(!logger.flush(Duration::from_millis(50)), "nobody reads");
        assert!(
            start.elapsed() < Duration::from_secs(5),
            "{:?}",
            start.elapsed()
        );

        let reader = std::thread::spawn(move || {
            BufReader::new(reader)
                .lines()
                .collect::<io::Result<Vec<_>>>()
        });
        assert!(logger.flush(Duration::from_secs(10)));
        drop(logger);
        thread.join().unwrap();
        let lines = reader.join().unwrap().unwrap();
        let (counts, whole): (Vec<_>, Vec<_>) =
            lines.iter().partition(|line| line.starts_with("rtd: "));
        let number = |line: &&String| {
            line.split(' ')
                .nth(2)
                .and_then(|n| n.parse::<usize>().ok())
                .unwrap()
        };
        let lost: usize = counts.iter().map(number).sum();
        assert!(lost > 0 && counts.len() < 100, "{counts:?}");
        assert_eq!(whole.len() + lost, total);
    }
}
