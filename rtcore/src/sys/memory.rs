//! Locking, prefaulting and the allocator settings that keep pages resident (mlock(2), mallopt(3)).

use std::io;

/// Stack of a lane thread in bytes; all of it is locked, so it is kept small.
pub const LANE_STACK_BYTES: usize = 256 * 1024;
/// Stack of a thread that tries one call and ends. The C library keeps the stacks of threads that
/// have ended, and `mlockall` makes all of them resident: with the default of 2 MiB a start locked
/// up to 24 MiB more, one for each lane thread that tried its filter at the same time.
pub const PROBE_STACK_BYTES: usize = 64 * 1024;

/// Bytes of its stack a lane thread touches before it is sealed.
const PREFAULT_STACK_BYTES: usize = 96 * 1024;
const PAGE_BYTES: usize = 4096;

/// Locks everything that is mapped now (mlockall(2) MCL_CURRENT). To be called when all threads
/// stand and all queues are allocated.
///
/// Not MCL_FUTURE: the real-time threads map nothing later, and under a finite RLIMIT_MEMLOCK it
/// would make an innocent allocation of the control thread fail.
///
/// Errors: ENOMEM or EPERM when RLIMIT_MEMLOCK is too small and CAP_IPC_LOCK is missing.
pub fn lock_all() -> io::Result<()> {
    nix::sys::mman::mlockall(nix::sys::mman::MlockAllFlags::MCL_CURRENT)?;
    Ok(())
}

/// Bytes of everything that this process maps (proc_pid_statm(5)): mlockall(2) holds them against
/// RLIMIT_MEMLOCK.
pub fn mapped_bytes() -> io::Result<u64> {
    let statm = std::fs::read_to_string("/proc/self/statm")?;
    let pages = statm
        .split_whitespace()
        .next()
        .and_then(|pages| pages.parse::<u64>().ok());
    let pages = pages.ok_or_else(|| io::Error::other("/proc/self/statm: no number of pages"))?;
    Ok(pages.saturating_mul(page_bytes() as u64))
}

/// Bytes of a page (sysconf(3)). Not from `rustix::param`, which opens /proc/self/auxv before Linux
/// 6.4 and panics if it may not: a program that was granted capabilities with setcap(8) may not.
pub fn page_bytes() -> usize {
    // SAFETY: no pointers are involved.
    let bytes = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
    usize::try_from(bytes).unwrap_or(PAGE_BYTES)
}

/// Settings for a process that locks its memory: one arena (each further one reserves 64 MiB), and
/// freed memory stays mapped so that it does not fault back in.
pub fn configure_allocator() {
    // SAFETY: mallopt only takes integers; called before threads start.
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, 1);
        libc::mallopt(libc::M_TRIM_THRESHOLD, -1);
        libc::mallopt(libc::M_MMAP_MAX, 0);
    }
}

/// Ensures that the next allocations, of this many bytes together, use memory that the process
/// already has. An error (ENOMEM) if the kernel refuses it: a program that keeps allocating then
/// ends by SIGABRT at some point. Call it after [`configure_allocator`], which keeps freed memory.
pub fn reserve_heap(bytes: usize) -> io::Result<()> {
    let mut memory: Vec<u8> = Vec::new();
    memory
        .try_reserve_exact(bytes)
        .map_err(|_| io::Error::from_raw_os_error(libc::ENOMEM))?;
    // So that the compiler leaves the pair of calls in.
    std::hint::black_box(&mut memory);
    Ok(())
}

/// Touches the calling thread's stack below this frame, so that it does not fault later.
#[inline(never)]
pub fn prefault_stack() {
    let mut pages = [0u8; PREFAULT_STACK_BYTES];
    touch(&mut pages);
}

/// Limit of [`prefault_stack_by`]: half of the smallest stack of a thread of the standard library.
pub const PREFAULT_STACK_BYTES_MAX: usize = 512 * 1024;

/// Touches this many bytes of the calling thread's stack below this frame, at most
/// [`PREFAULT_STACK_BYTES_MAX`].
pub fn prefault_stack_by(bytes: usize) {
    descend(bytes.min(PREFAULT_STACK_BYTES_MAX));
}

#[inline(never)]
fn descend(bytes: usize) {
    const FRAME_BYTES: usize = 16 * 1024;
    let mut frame = [0u8; FRAME_BYTES];
    touch(&mut frame);
    if bytes > FRAME_BYTES {
        descend(bytes - FRAME_BYTES);
    }
    // After the call, so that it is no tail call, which would use this frame again.
    touch(&mut frame[..1]);
}

/// Reserves this many bytes of heap for the calling thread: freed memory stays mapped and comes
/// back without a fault (mallopt(3)). It applies to the whole process; call it before its other
/// threads use the heap.
pub fn prefault_heap(bytes: usize) {
    // SAFETY: mallopt only takes integers; the caller's timing is as documented.
    unsafe {
        libc::mallopt(libc::M_TRIM_THRESHOLD, -1);
        libc::mallopt(libc::M_MMAP_MAX, 0);
    }
    let mut memory = vec![0u8; bytes];
    touch(&mut memory);
}

/// Writes one byte of every page, so that each is present and private.
pub fn touch(bytes: &mut [u8]) {
    for page in bytes.chunks_mut(PAGE_BYTES) {
        // SAFETY: a chunk is never empty, and the reference is exclusive; volatile so that it
        // stays.
        unsafe { std::ptr::write_volatile(page.as_mut_ptr(), 0) };
    }
}

/// Faults and context switches of the calling thread so far (getrusage(2) RUSAGE_THREAD).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ThreadUsage {
    /// Page faults that needed no input/output.
    pub minor_faults: i64,
    /// Page faults that did.
    pub major_faults: i64,
    /// Times the thread went to sleep.
    pub voluntary_switches: i64,
    /// Times the thread was preempted.
    pub involuntary_switches: i64,
}

/// Usage of the calling thread.
pub fn thread_usage() -> io::Result<ThreadUsage> {
    let usage = nix::sys::resource::getrusage(nix::sys::resource::UsageWho::RUSAGE_THREAD)?;
    Ok(ThreadUsage {
        minor_faults: usage.minor_page_faults(),
        major_faults: usage.major_page_faults(),
        voluntary_switches: usage.voluntary_context_switches(),
        involuntary_switches: usage.involuntary_context_switches(),
    })
}

impl ThreadUsage {
    /// The difference from `earlier`.
    pub fn since(&self, earlier: &ThreadUsage) -> ThreadUsage {
        ThreadUsage {
            minor_faults: self.minor_faults - earlier.minor_faults,
            major_faults: self.major_faults - earlier.major_faults,
            voluntary_switches: self.voluntary_switches - earlier.voluntary_switches,
            involuntary_switches: self.involuntary_switches - earlier.involuntary_switches,
        }
    }
}
