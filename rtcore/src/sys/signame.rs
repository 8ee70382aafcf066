//! Signal names as people write them, to kernel numbers and back.
//!
//! Accepted: `SIGRTMIN`, `SIGRTMIN+3`, `SIGRTMAX-1`, `SIGUSR1`, the same without `SIG`, and plain
//! numbers. SIGRTMIN is asked of the C library at run time: glibc keeps 32 and 33 for its own
//! threads, so it is 34 there and not the kernel's 32.
//!
//! Invariant: a number that [`parse`] returns is one the C library lets a program use.

/// Why a text names no usable signal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SignalNameError {
    /// Neither a name nor a number.
    #[error("not a signal name")]
    Unknown,
    /// Between the kernel's first real-time signal and the C library's SIGRTMIN.
    #[error("signal {0} is kept by the C library for its own threads")]
    Reserved(i32),
    /// Outside 1..=SIGRTMAX.
    #[error("signal {0} does not exist (1 to {max})", max = rt_max())]
    OutOfRange(i64),
}

/// Lowest real-time signal a program may use.
pub fn rt_min() -> i32 {
    libc::SIGRTMIN()
}

/// Highest real-time signal.
pub fn rt_max() -> i32 {
    libc::SIGRTMAX()
}

/// Whether a number is a real-time signal: queued one by one, with a value.
pub fn is_realtime(signo: i32) -> bool {
    (rt_min()..=rt_max()).contains(&signo)
}

/// First number above the standard signals (signal(7)).
const KERNEL_RT_MIN: i32 = 32;

const STANDARD: [(&str, i32); 33] = [
    ("HUP", libc::SIGHUP),
    ("INT", libc::SIGINT),
    ("QUIT", libc::SIGQUIT),
    ("ILL", libc::SIGILL),
    ("TRAP", libc::SIGTRAP),
    ("ABRT", libc::SIGABRT),
    ("BUS", libc::SIGBUS),
    ("FPE", libc::SIGFPE),
    ("KILL", libc::SIGKILL),
    ("USR1", libc::SIGUSR1),
    ("SEGV", libc::SIGSEGV),
    ("USR2", libc::SIGUSR2),
    ("PIPE", libc::SIGPIPE),
    ("ALRM", libc::SIGALRM),
    ("TERM", libc::SIGTERM),
    ("STKFLT", libc::SIGSTKFLT),
    ("CHLD", libc::SIGCHLD),
    ("CONT", libc::SIGCONT),
    ("STOP", libc::SIGSTOP),
    ("TSTP", libc::SIGTSTP),
    ("TTIN", libc::SIGTTIN),
    ("TTOU", libc::SIGTTOU),
    ("URG", libc::SIGURG),
    ("XCPU", libc::SIGXCPU),
    ("XFSZ", libc::SIGXFSZ),
    ("VTALRM", libc::SIGVTALRM),
    ("PROF", libc::SIGPROF),
    ("WINCH", libc::SIGWINCH),
    ("IO", libc::SIGIO),
    ("PWR", libc::SIGPWR),
    ("SYS", libc::SIGSYS),
    // Other names of numbers above.
    ("POLL", libc::SIGIO),
    ("IOT", libc::SIGABRT),
];

/// The number a text stands for. Case does not matter.
pub fn parse(text: &str) -> Result<i32, SignalNameError> {
    let upper = text.trim().to_ascii_uppercase();
    if let Ok(number) = upper.parse::<i64>() {
        return from_number(number);
    }
    let bare = upper.strip_prefix("SIG").unwrap_or(&upper);
    if let Some((_, signo)) = STANDARD.iter().find(|(name, _)| *name == bare) {
        return Ok(*signo);
    }
    let (base, rest) = if let Some(rest) = bare.strip_prefix("RTMIN") {
        (rt_min(), rest)
    } else if let Some(rest) = bare.strip_prefix("RTMAX") {
        (rt_max(), rest)
    } else {
        return Err(SignalNameError::Unknown);
    };
    if rest.is_empty() {
        return from_number(i64::from(base));
    }
    // The sign is part of the offset, so `+3` and `-1` parse as they stand and `3` alone does not.
    if !rest.starts_with(['+', '-']) {
        return Err(SignalNameError::Unknown);
    }
    let offset: i32 = rest.parse().map_err(|_| SignalNameError::Unknown)?;
    from_number(i64::from(base) + i64::from(offset))
}

/// Checks a plain number.
pub fn from_number(number: i64) -> Result<i32, SignalNameError> {
    let Ok(signo) = i32::try_from(number) else {
        return Err(SignalNameError::OutOfRange(number));
    };
    if (KERNEL_RT_MIN..rt_min()).contains(&signo) {
        return Err(SignalNameError::Reserved(signo));
    }
    if !(1..=rt_max()).contains(&signo) {
        return Err(SignalNameError::OutOfRange(number));
    }
    Ok(signo)
}

/// The name to show for a number: `SIGUSR1`, `SIGRTMIN+3`, or the number itself.
pub fn name(signo: i32) -> String {
    if let Some((name, _)) = STANDARD.iter().find(|(_, n)| *n == signo) {
        return format!("SIG{name}");
    }
    if signo == rt_min() {
        return "SIGRTMIN".to_owned();
    }
    if is_realtime(signo) {
        return format!("SIGRTMIN+{}", signo - rt_min());
    }
    signo.to_string()
}

/// Names of the standard signals without other spellings, for suggestions.
pub fn standard_names() -> impl Iterator<Item = String> {
    STANDARD
        .iter()
        .take(STANDARD.len() - 2)
        .map(|(name, _)| format!("SIG{name}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_offsets_become_numbers() {
        assert_eq!(parse("SIGRTMIN"), Ok(rt_min()));
        assert_eq!(parse("SIGRTMIN+3"), Ok(rt_min() + 3));
        assert_eq!(parse("SIGRTMAX-1"), Ok(rt_max() - 1));
        assert_eq!(parse("sigusr1"), Ok(libc::SIGUSR1));
        assert_eq!(parse("USR2"), Ok(libc::SIGUSR2));
        assert_eq!(parse("64"), Ok(64));
    }

    #[test]
    fn what_the_c_library_keeps_is_refused() {
        for number in KERNEL_RT_MIN..rt_min() {
            assert_eq!(
                parse(&number.to_string()),
                Err(SignalNameError::Reserved(number))
            );
        }
        assert_eq!(
            parse("SIGRTMIN-1"),
            Err(SignalNameError::Reserved(rt_min() - 1))
        );
    }

    #[test]
    fn what_does_not_exist_is_refused() {
        assert_eq!(
            parse("SIGRTMAX+1"),
            Err(SignalNameError::OutOfRange(i64::from(rt_max()) + 1))
        );
        assert_eq!(parse("0"), Err(SignalNameError::OutOfRange(0)));
        assert_eq!(
            parse("9999999999"),
            Err(SignalNameError::OutOfRange(9_999_999_999))
        );
        for text in [
            "",
            "SIG",
            "SIGFOO",
            "SIGRTMIN3",
            "SIGRTMIN+",
            "SIGRTMIN+x",
            "RTMAX-99999999999999",
        ] {
            assert_eq!(parse(text), Err(SignalNameError::Unknown), "{text}");
        }
    }

    #[test]
    fn every_usable_number_survives_the_way_to_its_name_and_back() {
        for signo in (1..KERNEL_RT_MIN).chain(rt_min()..=rt_max()) {
            assert_eq!(parse(&name(signo)), Ok(signo));
        }
    }
}
