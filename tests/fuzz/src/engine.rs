//! One target in one process: it plays what is saved, then mutations of that, and keeps in memory
//! what reaches something new.
//!
//! Before each input the process writes it into its journal, a file in memory. So whatever ends the
//! process, a panic, an abort or a signal, the campaign that started it has the input.

use crate::coverage::Reached;
use crate::memory;
use crate::mutate::mutate;
use crate::targets::Target;
use anyhow::Context as _;
use std::fs::File;
use std::io::Read as _;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// An input that takes more CPU time than this hangs.
const CPU_MAX: Duration = Duration::from_secs(1);
/// One that is asleep in so many looks does, too.
const ASLEEP_MAX: u32 = 50;
/// Between two looks of the thread that finds inputs that hang.
const LOOK: Duration = Duration::from_millis(100);

/// What a run is given.
#[derive(Clone, Debug)]
pub struct Order {
    /// Time for mutations.
    pub time: Duration,
    /// What the mutations are made from.
    pub seed: u64,
    /// Directory of what is saved.
    pub corpus: PathBuf,
    /// Where the current input goes.
    pub journal: Option<PathBuf>,
    /// Add to the corpus what reaches something new.
    pub save: bool,
}

/// Inputs so far; the thread beside them looks at it.
static PLAYED: AtomicU64 = AtomicU64::new(0);

/// Plays `target` as ordered, and says what came of it.
pub fn run(target: &Target, order: &Order) -> anyhow::Result<String> {
    let journal = order
        .journal
        .as_deref()
        .map(File::create)
        .transpose()
        .context("journal")?;
    std::thread::spawn(find_hang);
    let mut inputs = vec![Vec::new()];
    inputs.extend((target.seeds)());
    inputs.extend(saved(&order.corpus)?.into_iter().map(|(_, bytes)| bytes));
    let mut reached = Reached::default();
    let mut pool = Vec::new();
    for input in inputs {
        play(target, &input, journal.as_ref())?;
        reached.take();
        pool.push(input);
    }
    let (words, first) = ((target.words)(), reached.count());
    let mut rng = fastrand::Rng::with_seed(order.seed);
    let (start, mut kept) = (Instant::now(), 0);
    while start.elapsed() < order.time {
        let (one, other) = (
            &pool[rng.usize(..pool.len())],
            &pool[rng.usize(..pool.len())],
        );
        let input = mutate(one, other, &words, target.bytes_max, &mut rng);
        play(target, &input, journal.as_ref())?;
        if reached.take() {
            if order.save {
                save(&order.corpus, &input)?;
            }
            kept += 1;
            pool.push(input);
        }
    }
    Ok(format!(
        "{}: {} inputs, {kept} new ones of interest; {} of {} places reached, {first} by what is saved",
        target.name,
        PLAYED.load(Ordering::Relaxed),
        reached.count(),
        Reached::counters()
    ))
}

/// Plays one input. Whatever is wrong with it ends the process.
pub fn play(target: &Target, input: &[u8], journal: Option<&File>) -> anyhow::Result<()> {
    if let Some(journal) = journal {
        let head = u64::try_from(input.len())?.to_ne_bytes();
        journal
            .write_all_at(&[&head, input].concat(), 0)
            .context("journal")?;
    }
    PLAYED.fetch_add(1, Ordering::Relaxed);
    memory::bound();
    (target.play)(input);
    memory::unbound();
    Ok(())
}

/// The input that a journal holds.
pub fn journaled(path: &Path) -> anyhow::Result<Vec<u8>> {
    let mut head = [0; 8];
    let mut file = File::open(path)?;
    file.read_exact(&mut head)?;
    let mut input = Vec::new();
    file.take(u64::from_ne_bytes(head))
        .read_to_end(&mut input)?;
    Ok(input)
}

/// What is saved in a corpus, by name.
pub fn saved(corpus: &Path) -> anyhow::Result<Vec<(PathBuf, Vec<u8>)>> {
    let mut all = Vec::new();
    for entry in std::fs::read_dir(corpus).with_context(|| corpus.display().to_string())? {
        let path = entry?.path();
        let bytes = std::fs::read(&path).with_context(|| path.display().to_string())?;
        all.push((path, bytes));
    }
    all.sort();
    Ok(all)
}

/// Saves an input under a name made of what it holds.
pub fn save(directory: &Path, input: &[u8]) -> anyhow::Result<PathBuf> {
    let path = directory.join(name(input));
    std::fs::create_dir_all(directory).and_then(|()| std::fs::write(&path, input))?;
    Ok(path)
}

/// FNV-1a.
fn name(input: &[u8]) -> String {
    let hash = input.iter().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    });
    format!("{hash:016x}")
}

/// Ends the process when an input takes too long. What counts is CPU time and sleep, because the
/// machine may have other work.
fn find_hang() {
    let (mut played, mut asleep, mut cpu) = (0, 0, cpu_time());
    loop {
        std::thread::sleep(LOOK);
        let now = PLAYED.load(Ordering::Relaxed);
        if now != played {
            (played, asleep, cpu) = (now, 0, cpu_time());
            continue;
        }
        asleep += u32::from(is_asleep());
        let taken = cpu_time().saturating_sub(cpu);
        if taken > CPU_MAX || asleep > ASLEEP_MAX {
            eprintln!(
                "fuzz: an input takes too long: {taken:?} on the CPU, asleep in {asleep} looks"
            );
            std::process::abort();
        }
    }
}

/// Whether the first thread, which plays, waits for something other than a CPU.
fn is_asleep() -> bool {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    stat.rsplit(')')
        .next()
        .is_some_and(|rest| rest.trim_start().starts_with(['S', 'D']))
}

/// CPU time of this process.
fn cpu_time() -> Duration {
    let mut time = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: a valid structure to write to.
    unsafe { libc::clock_gettime(libc::CLOCK_PROCESS_CPUTIME_ID, &raw mut time) };
    let part = |n: i64| u64::try_from(n).unwrap_or(0);
    Duration::from_secs(part(time.tv_sec)) + Duration::from_nanos(part(time.tv_nsec))
}

/// Removes from a corpus what reaches nothing that smaller inputs do not.
pub fn shrink(target: &Target, corpus: &Path) -> anyhow::Result<String> {
    anyhow::ensure!(
        Reached::counters() > 0,
        "built without counters: use scripts/fuzz"
    );
    let mut reached = Reached::default();
    for seed in (target.seeds)() {
        play(target, &seed, None)?;
    }
    reached.take();
    let mut all = saved(corpus)?;
    all.sort_by_key(|(_, input)| input.len());
    let (count, mut kept) = (all.len(), 0);
    for (path, input) in all {
        play(target, &input, None)?;
        if reached.take() {
            kept += 1;
        } else {
            std::fs::remove_file(path)?;
        }
    }
    Ok(format!("{}: {kept} of {count} inputs kept", target.name))
}
