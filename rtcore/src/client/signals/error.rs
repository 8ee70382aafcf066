//! Why a signal or a handler was refused.

use super::HandlerId;
use crate::sys::forked::Forked;
use crate::sys::signame;
use std::io;

/// Errors of signals and handlers. Each names the signal and the fix.
#[derive(Debug, thiserror::Error)]
pub enum SignalsError {
    /// No program can take this number, or rtcore needs it itself.
    #[error("signal {} cannot be taken: {why}", named(*.signo))]
    Refused {
        /// The requested number.
        signo: i32,
        /// The reason, and an alternative.
        why: &'static str,
    },
    /// A thread does not block the signal, so the kernel may deliver it there instead of to the
    /// dispatcher.
    #[error(
        "signal {}: thread {tid} ({comm}) does not block it or waits for it itself, so it may get \
         the signal; \
         call Signals::block([{signo}]) in main before the first thread starts",
        named(*.signo)
    )]
    Unblocked {
        /// The signal.
        signo: i32,
        /// Kernel id of the thread.
        tid: i32,
        /// Its name as `ps -L` shows it.
        comm: String,
    },
    /// Another taker in this process has the signal; a signal has one taker.
    #[error(
        "signal {}: another Signals, SignalSource or handler of this process has it; drop that one first or \
         register with it",
        named(*.signo)
    )]
    Taken {
        /// The signal.
        signo: i32,
    },
    /// The signal has as many handlers as possible.
    #[error("signal {} has {limit} handlers, which is the maximum; remove one first", named(*.signo))]
    TooMany {
        /// The signal.
        signo: i32,
        /// [`super::HANDLERS_MAX`].
        limit: usize,
    },
    /// The handler was removed before, was a one-shot that has run, or belongs to another
    /// [`super::Signals`].
    #[error(
        "{id:?}: no such handler here (removed, a one-shot that has run, or another Signals'); register it again"
    )]
    NoSuchHandler {
        /// The requested handler.
        id: HandlerId,
    },
    /// This process is the child of a fork(2) of the one that started the dispatcher, and has no
    /// such thread.
    #[error(
        "this process was forked from process {creator}, which started the dispatcher: start a Signals, or open a session, \
         in this process"
    )]
    Forked {
        /// Pid of the process that started the dispatcher.
        creator: u32,
    },
    /// A system call failed.
    #[error("{what}: {source}")]
    System {
        /// Name of the failed step.
        what: &'static str,
        /// The kernel's error.
        source: io::Error,
    },
}

impl From<Forked> for SignalsError {
    fn from(Forked { creator }: Forked) -> SignalsError {
        SignalsError::Forked { creator }
    }
}

impl SignalsError {
    /// Makes a function for `map_err`.
    pub(in crate::client) fn system(what: &'static str) -> impl FnOnce(io::Error) -> SignalsError {
        move |source| SignalsError::System { what, source }
    }
}

/// Name and number of a signal, or only the number if it has no name.
fn named(signo: i32) -> String {
    let (name, number) = (signame::name(signo), signo.to_string());
    if name == number {
        number
    } else {
        format!("{name} ({number})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_names_the_signal_the_thread_and_the_fix() {
        let e = SignalsError::Unblocked {
            signo: signame::rt_min(),
            tid: 7,
            comm: "worker".to_owned(),
        };
        let text = e.to_string();
        for part in [
            "SIGRTMIN (",
            "thread 7 (worker)",
            "Signals::block([",
            "before the first thread",
        ] {
            assert!(text.contains(part), "{text}");
        }
        let e = SignalsError::Refused {
            signo: 99,
            why: "there is no such signal",
        };
        assert_eq!(
            e.to_string(),
            "signal 99 cannot be taken: there is no such signal"
        );
    }
}
