//! Marks and freezes the kernel's trace when a latency exceeds the `-b` bound, so that the trace
//! ends with the cause of the late sample.
//!
//! Everything is opened at setup; the receiving thread does two write(2) and nothing else. The
//! marker begins as cyclictest's does, for the scripts that look for it. A missing trace is no
//! error: the break counts all the same.

use crate::sys::tracefs::{self, Control};
use rtcore::sys::Call;
use std::io;
use std::path::{Path, PathBuf};

/// Longest marker: two numbers of 20 digits in us, one in ns, and the words.
const LINE_BYTES: usize = 128;

/// Stands ready to mark and freeze the trace.
#[derive(Debug)]
pub struct Breaker {
    bound_ns: u64,
    files: Result<Files, String>,
    /// The kernel's results of the marker and of the freeze; `None` if no latency exceeded the
    /// bound.
    done: Option<(Call<()>, Call<()>)>,
}

#[derive(Debug)]
struct Files {
    directory: PathBuf,
    marker: Control,
    switch: Control,
    was_on: bool,
    tracer: String,
}

impl Breaker {
    /// Opens the machine's trace, for breaks of this bound.
    pub fn open(bound_ns: u64) -> Breaker {
        let reason = match tracefs::directory() {
            Some(directory) => return Breaker::open_at(&directory, bound_ns),
            None if tracefs::is_supported() => {
                format!(
                    "tracefs is not mounted; mount -t tracefs tracefs {}",
                    tracefs::DIRECTORIES[0]
                )
            }
            None => "this kernel has no tracefs (CONFIG_FTRACE)".to_owned(),
        };
        Breaker {
            bound_ns,
            files: Err(reason),
            done: None,
        }
    }

    /// Opens the trace at a place of the caller's: a mount elsewhere, or an instance
    /// (`instances/NAME`).
    pub fn open_at(directory: &Path, bound_ns: u64) -> Breaker {
        let files = Files::open(directory).map_err(|e| refusal(directory, &e));
        Breaker {
            bound_ns,
            files,
            done: None,
        }
    }

    /// Marks the trace and freezes it, the first time. Two write(2): it neither allocates nor
    /// blocks.
    pub fn hit(&mut self, latency_ns: u64) {
        if self.done.is_some() {
            return;
        }
        let Ok(files) = &self.files else { return };
        let line = Line::new(latency_ns, self.bound_ns);
        let marked = files.marker.write(line.bytes());
        self.done = Some((marked, files.switch.write(b"0")));
    }

    /// The action on the trace, or the reason why there was none: a sentence without its full stop.
    pub fn outcome(&self) -> String {
        let files = match &self.files {
            Ok(files) => files,
            Err(reason) => return format!("no trace: {reason}"),
        };
        let at = files.directory.display();
        let Some((marked, frozen)) = self.done else {
            return format!(
                "trace at {at} is marked and frozen at a break ({})",
                files.recording()
            );
        };
        if !files.was_on {
            return format!("trace at {at} was off and is empty; echo 1 > {at}/tracing_on");
        }
        match (marked, frozen) {
            (Ok(()), Ok(())) => format!(
                "trace marked and frozen: {at}/trace ({}); go on with echo 1 > {at}/tracing_on",
                files.recording()
            ),
            (Ok(()), Err(e)) => format!("trace marked but not frozen, {at}/tracing_on: {e}"),
            (Err(e), Ok(())) => format!("trace frozen without a marker, {at}/trace_marker: {e}"),
            (Err(e), Err(_)) => format!("trace neither marked nor frozen, {at}/trace_marker: {e}"),
        }
    }
}

impl Files {
    fn open(directory: &Path) -> io::Result<Files> {
        let read = |name: &str| {
            std::fs::read_to_string(directory.join(name)).map(|text| text.trim().to_owned())
        };
        Ok(Files {
            directory: directory.to_path_buf(),
            marker: Control::open(&directory.join("trace_marker"))?,
            switch: Control::open(&directory.join("tracing_on"))?,
            was_on: read("tracing_on").is_ok_and(|text| text != "0"),
            tracer: read("current_tracer").unwrap_or_else(|_| "unknown".to_owned()),
        })
    }

    /// The contents of the trace besides the marker.
    fn recording(&self) -> String {
        match self.tracer.as_str() {
            "nop" => format!(
                "tracer nop: it shows the events that are on, if any; echo function > {}/current_tracer shows more",
                self.directory.display()
            ),
            tracer => format!("tracer {tracer}"),
        }
    }
}

/// The reason why it could not be opened, with the line that fixes it.
fn refusal(directory: &Path, error: &io::Error) -> String {
    let at = directory.display();
    match error.kind() {
        io::ErrorKind::PermissionDenied => format!(
            "{error}; run it as root, or grant it: chmod a+x {at} && chmod a+rw {at}/trace_marker {at}/tracing_on"
        ),
        io::ErrorKind::NotFound => format!(
            "{error}; mount -t tracefs tracefs {}",
            tracefs::DIRECTORIES[0]
        ),
        io::ErrorKind::ReadOnlyFilesystem => format!("{error}; mount -o remount,rw {at}"),
        _ => error.to_string(),
    }
}

/// `hit latency threshold (LATENCY > BOUND)` in us, as cyclictest writes it, and the latency in ns
/// behind.
struct Line {
    text: [u8; LINE_BYTES],
    length: usize,
}

impl Line {
    fn new(latency_ns: u64, bound_ns: u64) -> Line {
        let mut line = Line {
            text: [0; LINE_BYTES],
            length: 0,
        };
        line.push(b"hit latency threshold (");
        // Rounded up, so that it reads as more than the bound.
        line.push_number(latency_ns.div_ceil(1000));
        line.push(b" > ");
        line.push_number(bound_ns / 1000);
        line.push(b") rtlat ");
        line.push_number(latency_ns);
        line.push(b" ns\n");
        line
    }

    fn push(&mut self, bytes: &[u8]) {
        let room = &mut self.text[self.length..];
        let n = bytes.len().min(room.len());
        room[..n].copy_from_slice(&bytes[..n]);
        self.length += n;
    }

    fn push_number(&mut self, mut number: u64) {
        let mut digits = [0; 20];
        let mut first = digits.len();
        loop {
            first -= 1;
            digits[first] = b"0123456789"[(number % 10) as usize];
            number /= 10;
            if number == 0 {
                break;
            }
        }
        self.push(&digits[first..]);
    }

    fn bytes(&self) -> &[u8] {
        &self.text[..self.length]
    }
}

#[cfg(test)]
mod tests;
