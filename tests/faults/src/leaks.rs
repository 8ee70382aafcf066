//! What is left behind: descriptors, threads and memory of processes that live on, and files.
//!
//! Everything is compared with what it was in the first quiet moment of the run. Each fault leaves
//! the topology as it was, so what grows is a leak. A new life of rtd is compared with the first
//! one.

use anyhow::Context as _;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// What may be there more than in the first quiet moment. A leak of one for each fault exceeds it
/// soon.
const DESCRIPTORS_MORE: u64 = 6;
const THREADS_MORE: u64 = 1;
/// The heap keeps what it once needed (4 MiB more were seen after 200 hostile connections at a
/// time), and the C library keeps stacks of threads that have ended, 64 KiB for each lane thread.
const MEMORY_MORE_KIB: u64 = 8 * 1024;

/// Amounts by name, such as `descriptors of socket` or `threads`.
type Amounts = BTreeMap<String, u64>;

/// Something that is more than it was.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Growth {
    /// Whose, or where.
    pub at: String,
    pub what: String,
    /// In the first quiet moment.
    pub was: u64,
    /// Now.
    pub is: u64,
}

impl std::fmt::Display for Growth {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Growth { at, what, was, is } = self;
        write!(f, "{at}: {what} grew from {was} to {is}")
    }
}

/// The state in the first quiet moment, of each process and each directory.
#[derive(Debug, Default)]
pub struct Leaks {
    first: BTreeMap<String, Amounts>,
}

/// A process of the world.
#[derive(Clone, Debug)]
pub struct Process {
    /// Under which it is compared. A life that is compared with no other has its pid in there.
    pub name: String,
    /// Its number.
    pub pid: i32,
}

impl Leaks {
    /// Compares the processes and directories with what they were when they were first seen.
    pub fn look(
        &mut self,
        processes: &[Process],
        directories: &[PathBuf],
    ) -> anyhow::Result<Vec<Growth>> {
        let mut grown = Vec::new();
        for Process { name, pid } in processes {
            grown.extend(self.compare(name, amounts_of(*pid).with_context(|| name.clone())?));
        }
        for directory in directories {
            grown.extend(self.compare(&directory.display().to_string(), files_in(directory)?));
        }
        Ok(grown)
    }

    fn compare(&mut self, at: &str, now: Amounts) -> Vec<Growth> {
        let Some(first) = self.first.get(at) else {
            self.first.insert(at.to_owned(), now);
            return Vec::new();
        };
        let growth = |(what, is): (String, u64)| {
            let was = first.get(&what).copied().unwrap_or(0);
            let is_leak = is > was + slack(&what);
            is_leak.then(|| Growth {
                at: at.to_owned(),
                what,
                was,
                is,
            })
        };
        now.into_iter().filter_map(growth).collect()
    }
}

fn slack(what: &str) -> u64 {
    match what {
        "threads" => THREADS_MORE,
        "locked KiB" | "anonymous KiB" => MEMORY_MORE_KIB,
        _ if what.starts_with("file ") => 0,
        _ => DESCRIPTORS_MORE,
    }
}

fn amounts_of(pid: i32) -> anyhow::Result<Amounts> {
    let proc = PathBuf::from(format!("/proc/{pid}"));
    let mut amounts = Amounts::new();
    for fd in std::fs::read_dir(proc.join("fd"))? {
        // One may be closed meanwhile.
        let Ok(target) = std::fs::read_link(fd?.path()) else {
            continue;
        };
        *amounts.entry("descriptors".to_owned()).or_default() += 1;
        *amounts
            .entry(format!("descriptors of {}", kind(&target)))
            .or_default() += 1;
    }
    let threads = std::fs::read_dir(proc.join("task"))?.count() as u64;
    amounts.insert("threads".to_owned(), threads);
    let rollup = std::fs::read_to_string(proc.join("smaps_rollup")).context("smaps_rollup")?;
    for (key, what) in [("Locked:", "locked KiB"), ("Anonymous:", "anonymous KiB")] {
        let line = rollup
            .lines()
            .find_map(|line| line.strip_prefix(key))
            .unwrap_or("0");
        let kib = line
            .split_whitespace()
            .next()
            .and_then(|number| number.parse().ok())
            .unwrap_or(0);
        amounts.insert(what.to_owned(), kib);
    }
    Ok(amounts)
}

/// What a descriptor is of, without the numbers that tell one from another.
fn kind(target: &Path) -> String {
    let text = target.to_string_lossy();
    text.trim_end_matches(" (deleted)")
        .chars()
        .filter(|c| !c.is_ascii_digit())
        .collect()
}

fn files_in(directory: &Path) -> anyhow::Result<Amounts> {
    let entries = match std::fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Amounts::new()),
        Err(e) => return Err(e).with_context(|| directory.display().to_string()),
    };
    let names = entries.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()));
    names
        .map(|name: anyhow::Result<String>| Ok((format!("file {}", name?), 1)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn this() -> [Process; 1] {
        let pid = i32::try_from(std::process::id()).unwrap();
        [Process {
            name: "this".to_owned(),
            pid,
        }]
    }

    fn grown(leaks: &mut Leaks, directories: &[PathBuf]) -> Vec<String> {
        leaks
            .look(&this(), directories)
            .unwrap()
            .into_iter()
            .map(|growth| growth.what)
            .collect()
    }

    // One test, as the others of this program would come and go with threads and descriptors of
    // their own.
    #[test]
    fn planted_leaks_of_each_kind_are_found_and_named() {
        let child = |what: &str| {
            let mut leaks = Leaks::default();
            let directory =
                std::env::temp_dir().join(format!("faults-leaks-{}", std::process::id()));
            std::fs::create_dir_all(&directory).unwrap();
            let directories = [directory.clone()];
            assert_eq!(grown(&mut leaks, &directories), Vec::<String>::new());
            let found = match what {
                "descriptors" => {
                    let kept: Vec<_> = (0..20)
                        .map(|_| std::fs::File::open("/dev/zero").unwrap())
                        .collect();
                    let found = grown(&mut leaks, &directories);
                    assert_eq!(kept.len(), 20);
                    found
                }
                "threads" => {
                    let (end, ends) = std::sync::mpsc::channel::<()>();
                    let ends = std::sync::Arc::new(std::sync::Mutex::new(ends));
                    for _ in 0..20 {
                        let ends = std::sync::Arc::clone(&ends);
                        std::thread::spawn(move || _ = ends.lock().unwrap().recv());
                    }
                    let found = grown(&mut leaks, &directories);
                    drop(end);
                    found
                }
                "memory" => {
                    let kept = vec![1_u8; 32 << 20];
                    let found = grown(&mut leaks, &directories);
                    assert_eq!(std::hint::black_box(kept).len(), 32 << 20);
                    found
                }
                _ => {
                    std::fs::write(directory.join("left"), "").unwrap();
                    grown(&mut leaks, &directories)
                }
            };
            std::fs::remove_dir_all(directory).unwrap();
            found
        };
        let has =
            |found: Vec<String>, what: &str| assert!(found.iter().any(|f| f == what), "{found:?}");
        has(child("descriptors"), "descriptors of /dev/zero");
        has(child("threads"), "threads");
        has(child("memory"), "anonymous KiB");
        has(child("files"), "file left");
    }

    #[test]
    fn what_is_closed_again_is_no_leak() {
        let mut leaks = Leaks::default();
        let sockets = |n| Amounts::from([("descriptors of socket:[]".to_owned(), n)]);
        assert!(leaks.compare("rtd", sockets(30)).is_empty());
        assert!(
            leaks
                .compare("rtd", sockets(30 + DESCRIPTORS_MORE))
                .is_empty()
        );
        let growth = Growth {
            at: "rtd".to_owned(),
            what: "descriptors of socket:[]".to_owned(),
            was: 30,
            is: 37,
        };
        assert_eq!(leaks.compare("rtd", sockets(37)), [growth]);
    }
}
