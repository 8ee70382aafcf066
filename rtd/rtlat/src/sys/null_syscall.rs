//! System calls that do little, so that the way into the kernel and back is most of them: a load on
//! its entry, on its clocks and on the address space. They bypass the vDSO, where clock_gettime(2)
//! would not enter the kernel.

use std::io;

const MAP_BYTES: usize = 16 * 1024;
const PAGE_BYTES: usize = 4096;

/// getppid(2), clock_gettime(2), and four pages mapped, written and unmapped (mmap(2)).
///
/// Errors: ENOMEM, when there is no memory for four pages.
pub fn round() -> io::Result<()> {
    let mut now = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: the first call takes nothing, the second writes `now`, which is ours.
    unsafe {
        libc::syscall(libc::SYS_getppid);
        libc::syscall(libc::SYS_clock_gettime, libc::CLOCK_MONOTONIC, &raw mut now);
    }
    std::hint::black_box(now.tv_nsec);
    let (access, flags) = (
        libc::PROT_READ | libc::PROT_WRITE,
        libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
    );
    // SAFETY: a fresh mapping at an address of the kernel's choice touches nothing of ours.
    let at = unsafe { libc::mmap(std::ptr::null_mut(), MAP_BYTES, access, flags, -1, 0) };
    if at == libc::MAP_FAILED {
        return Err(rtcore::sys::context::named(
            "four pages",
            io::Error::last_os_error(),
        ));
    }
    for page in 0..MAP_BYTES / PAGE_BYTES {
        // SAFETY: inside the mapping made above, which nobody else knows.
        unsafe { at.cast::<u8>().add(page * PAGE_BYTES).write_volatile(1) };
    }
    // SAFETY: the mapping made above, whole; no reference to it remains.
    unsafe { libc::munmap(at, MAP_BYTES) };
    Ok(())
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_round_leaves_no_mapping_behind() {
        let maps = || std::fs::read_to_string("/proc/self/statm").unwrap();
        let size = |text: &str| text.split(' ').next().unwrap().parse::<u64>().unwrap();
        super::round().unwrap();
        let before = size(&maps());
        for _ in 0..10_000 {
            super::round().unwrap();
        }
        // Other tests map meanwhile; ours would have been 40000 pages.
        assert!(size(&maps()) < before + 20_000);
    }
}
