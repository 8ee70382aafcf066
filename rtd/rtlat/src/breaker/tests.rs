//! Against plain files, a FIFO, and the kernel's own trace where it is there.

use super::*;
use rtcore::sys::procfs;
use std::fs;
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

struct Directory(PathBuf);

impl Directory {
    fn empty(name: &str) -> Directory {
        let path = std::env::temp_dir().join(format!("rtlat-trace-{name}-{}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        Directory(path)
    }

    /// A trace as the kernel would have it, of plain files.
    fn new(name: &str) -> Directory {
        let directory = Directory::empty(name);
        directory.write("trace_marker", "");
        directory.write("tracing_on", "1\n");
        directory.write("current_tracer", "function\n");
        directory
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.0.join(name), text).unwrap();
    }

    fn read(&self, name: &str) -> String {
        fs::read_to_string(self.0.join(name)).unwrap()
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

#[test]
fn a_break_marks_the_trace_as_cyclictest_does_and_freezes_it() {
    let directory = Directory::new("plain");
    let mut breaker = Breaker::open_at(&directory.0, 100_000);
    assert!(
        breaker.outcome().contains("at a break (tracer function)"),
        "{}",
        breaker.outcome()
    );
    assert_eq!(directory.read("tracing_on"), "1\n");
    breaker.hit(123_456);
    breaker.hit(999_999);
    assert_eq!(
        directory.read("trace_marker"),
        "hit latency threshold (124 > 100) rtlat 123456 ns\n"
    );
    // The kernel replaces; a plain file keeps what stood behind.
    assert_eq!(directory.read("tracing_on"), "0\n");
    let outcome = breaker.outcome();
    assert!(
        outcome.contains("marked and frozen") && outcome.contains("echo 1 > "),
        "{outcome}"
    );
}

#[test]
fn the_line_holds_the_largest_numbers_and_exceeds_the_bound_by_its_looks() {
    let line =
        |latency, bound| String::from_utf8(Line::new(latency, bound).bytes().to_vec()).unwrap();
    assert_eq!(
        line(100_001, 100_000),
        "hit latency threshold (101 > 100) rtlat 100001 ns\n"
    );
    assert_eq!(line(0, 0), "hit latency threshold (0 > 0) rtlat 0 ns\n");
    let longest = line(u64::MAX, u64::MAX);
    assert!(
        longest.ends_with(&format!("rtlat {} ns\n", u64::MAX)),
        "{longest}"
    );
}

#[test]
fn a_blocked_marker_is_reported_and_the_trace_still_frozen() {
    let directory = Directory::new("full");
    fs::remove_file(directory.0.join("trace_marker")).unwrap();
    std::os::unix::fs::symlink("/dev/full", directory.0.join("trace_marker")).unwrap();
    let mut breaker = Breaker::open_at(&directory.0, 1000);
    breaker.hit(2000);
    assert_eq!(directory.read("tracing_on"), "0\n");
    assert!(
        breaker.outcome().contains("frozen without a marker"),
        "{}",
        breaker.outcome()
    );
}

#[test]
fn a_reader_gets_the_marker_in_one_piece_at_once() {
    let directory = Directory::new("fifo");
    let marker = directory.0.join("trace_marker");
    fs::remove_file(&marker).unwrap();
    assert!(
        Command::new("mkfifo")
            .arg(&marker)
            .status()
            .unwrap()
            .success()
    );
    // Read and write, so that opening it waits for nobody.
    let mut reader = fs::OpenOptions::new()
        .read(true)
        .write(true)
        .open(&marker)
        .unwrap();
    let mut breaker = Breaker::open_at(&directory.0, 1000);
    breaker.hit(2000);
    let mut line = [0; 128];
    let n = reader.read(&mut line).unwrap();
    assert_eq!(&line[..n], b"hit latency threshold (2 > 1) rtlat 2000 ns\n");
}

#[test]
fn a_trace_that_was_off_or_records_little_is_reported() {
    let directory = Directory::new("off");
    directory.write("current_tracer", "nop\n");
    let breaker = Breaker::open_at(&directory.0, 1);
    assert!(
        breaker.outcome().contains("tracer nop") && breaker.outcome().contains("echo function > ")
    );
    directory.write("tracing_on", "0\n");
    let mut breaker = Breaker::open_at(&directory.0, 1);
    breaker.hit(2);
    assert!(
        breaker.outcome().contains("was off"),
        "{}",
        breaker.outcome()
    );
}

#[test]
fn without_a_trace_a_break_does_nothing_and_prints_the_fix() {
    let directory = Directory::empty("absent");
    let mut breaker = Breaker::open_at(&directory.0, 1);
    breaker.hit(2);
    let outcome = breaker.outcome();
    assert!(
        outcome.contains("trace_marker")
            && outcome.contains("mount -t tracefs tracefs /sys/kernel/tracing"),
        "{outcome}"
    );
    // Whatever this machine has.
    assert!(!Breaker::open(1).outcome().is_empty());
}

#[test]
fn what_is_refused_is_granted_by_the_line_that_is_said() {
    let directory = Directory::new("refused");
    let marker = directory.0.join("trace_marker");
    fs::set_permissions(&marker, fs::Permissions::from_mode(0o400)).unwrap();
    let outcome = Breaker::open_at(&directory.0, 1).outcome();
    // Nothing is refused to root.
    if procfs::effective_uid() != 0 {
        assert!(
            outcome.contains(&format!("chmod a+rw {}", marker.display())),
            "{outcome}"
        );
    }
    let denied = io::Error::from(io::ErrorKind::PermissionDenied);
    let outcome = refusal(Path::new("/t"), &denied);
    assert!(
        outcome.ends_with("chmod a+x /t && chmod a+rw /t/trace_marker /t/tracing_on"),
        "{outcome}"
    );
}

/// In an instance of its own, so that nobody else's trace is touched.
#[test]
#[ignore = "needs root, and tracefs mounted"]
fn the_kernels_own_trace_ends_with_the_marker() {
    let root = tracefs::directory().expect("tracefs is mounted");
    let instance = root.join(format!("instances/rtlat-test-{}", std::process::id()));
    fs::create_dir(&instance).unwrap();
    let mut breaker = Breaker::open_at(&instance, 1000);
    breaker.hit(2000);
    let on = fs::read_to_string(instance.join("tracing_on")).unwrap();
    let trace = fs::read_to_string(instance.join("trace")).unwrap();
    let outcome = breaker.outcome();
    drop(breaker);
    fs::remove_dir(&instance).unwrap();
    assert_eq!(on.trim(), "0", "{outcome}");
    let last = trace.lines().last().unwrap();
    assert!(
        last.contains("hit latency threshold (2 > 1) rtlat 2000 ns"),
        "{last}
{outcome}"
    );
}
