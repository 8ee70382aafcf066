//! What the kernel says about a process and its threads (proc_pid_stat(5), proc_pid_status(5)).

use anyhow::Context as _;

/// One thread.
#[derive(Clone, Debug)]
pub struct Thread {
    /// Its name, at most 15 bytes.
    pub name: String,
    /// `S` sleeps, `R` runs or would.
    pub state: char,
    /// Page faults so far that needed no input/output.
    pub minor_faults: u64,
    /// Page faults so far that did.
    pub major_faults: u64,
    /// Real-time priority, 0 for an ordinary thread.
    pub priority: u32,
    /// 1 = SCHED_FIFO.
    pub policy: u32,
    /// CPUs it may use, as a list.
    pub cpus: String,
    /// Time it has had on a CPU.
    pub ran_ns: u64,
}

/// SCHED_FIFO in `Thread::policy`.
pub const FIFO: u32 = 1;

/// Whether the kernel tells how any process ended, also one that its parent reaped at once (Linux
/// 6.15, PIDFD_GET_INFO). On earlier kernels, a process that asks must be quicker than the parent.
pub fn tells_endings() -> anyhow::Result<bool> {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease")?;
    let mut numbers = release
        .split(|c: char| !c.is_ascii_digit())
        .map(str::parse::<u32>);
    let (Some(Ok(major)), Some(Ok(minor))) = (numbers.next(), numbers.next()) else {
        anyhow::bail!("kernel release {release:?}");
    };
    Ok((major, minor) >= (6, 15))
}

/// Reads about one thread of a process.
pub fn thread(pid: u32, tid: u32) -> anyhow::Result<Thread> {
    let read = |file: &str| {
        let path = format!("/proc/{pid}/task/{tid}/{file}");
        std::fs::read_to_string(&path).context(path)
    };
    let stat = read("stat")?;
    let (name, rest) = stat
        .split_once('(')
        .and_then(|(_, r)| r.rsplit_once(')'))
        .context("stat")?;
    // Field 3 of the man page is the first here.
    let fields: Vec<&str> = rest.split_whitespace().collect();
    let field = |number: usize| fields.get(number - 3).copied().context("stat is short");
    Ok(Thread {
        name: name.to_owned(),
        state: field(3)?.chars().next().context("no state")?,
        minor_faults: field(10)?.parse()?,
        major_faults: field(12)?.parse()?,
        priority: field(40)?.parse()?,
        policy: field(41)?.parse()?,
        cpus: status_line(&read("status")?, "Cpus_allowed_list")?,
        ran_ns: read("schedstat")?
            .split_whitespace()
            .next()
            .context("no schedstat")?
            .parse()?,
    })
}

/// Threads of a process.
pub fn threads(pid: u32) -> anyhow::Result<Vec<u32>> {
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task"))?;
    tasks
        .map(|task| Ok(task?.file_name().to_string_lossy().parse()?))
        .collect()
}

/// Whether every thread is stopped (SIGSTOP takes each at its own time).
pub fn stopped(pid: u32) -> anyhow::Result<bool> {
    let all: Vec<Thread> = threads(pid)?
        .into_iter()
        .map(|tid| thread(pid, tid))
        .collect::<Result<_, _>>()?;
    Ok(all.iter().all(|thread| thread.state == 'T'))
}

/// A line of /proc/PID/status.
pub fn status(pid: u32, key: &str) -> anyhow::Result<String> {
    status_line(
        &std::fs::read_to_string(format!("/proc/{pid}/status"))?,
        key,
    )
}

/// Signals that wait for anybody in this process, as masks: the process' and each thread's.
pub fn pending(pid: u32) -> anyhow::Result<u64> {
    let mut all = mask(&status(pid, "ShdPnd")?)?;
    for tid in threads(pid)? {
        let text = std::fs::read_to_string(format!("/proc/{pid}/task/{tid}/status"))?;
        all |= mask(&status_line(&text, "SigPnd")?)?;
    }
    Ok(all)
}

/// Signals that a thread blocks, as a mask.
pub fn blocked(pid: u32, tid: u32) -> anyhow::Result<u64> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/task/{tid}/status"))?;
    mask(&status_line(&text, "SigBlk")?)
}

fn mask(hex: &str) -> anyhow::Result<u64> {
    Ok(u64::from_str_radix(hex, 16)?)
}

fn status_line(text: &str, key: &str) -> anyhow::Result<String> {
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix(key)?.strip_prefix(':'));
    Ok(line.with_context(|| format!("no {key}"))?.trim().to_owned())
}

/// Whose a thread is and what it may do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Credentials {
    pub name: String,
    /// Real, effective, saved and file-system user.
    pub uids: Vec<u32>,
    /// The same of the group.
    pub gids: Vec<u32>,
    /// Supplementary groups.
    pub groups: Vec<u32>,
    /// CapInh, CapPrm, CapEff, CapBnd, CapAmb.
    pub sets: [u64; 5],
    /// NoNewPrivs.
    pub no_new_privs: bool,
}

/// The same of every thread of a process.
pub fn credentials(pid: u32) -> anyhow::Result<Vec<Credentials>> {
    let of = |tid| {
        let text = std::fs::read_to_string(format!("/proc/{pid}/task/{tid}/status"))?;
        let numbers = |key| -> anyhow::Result<Vec<u32>> {
            status_line(&text, key)?
                .split_whitespace()
                .map(|word| Ok(word.parse()?))
                .collect()
        };
        let set = |key| mask(&status_line(&text, key)?);
        Ok(Credentials {
            name: status_line(&text, "Name")?,
            uids: numbers("Uid")?,
            gids: numbers("Gid")?,
            groups: numbers("Groups")?,
            sets: [
                set("CapInh")?,
                set("CapPrm")?,
                set("CapEff")?,
                set("CapBnd")?,
                set("CapAmb")?,
            ],
            no_new_privs: status_line(&text, "NoNewPrivs")? == "1",
        })
    };
    threads(pid)?.into_iter().map(of).collect()
}
