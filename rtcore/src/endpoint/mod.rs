//! Endpoints, their real-time halves: what a lane thread reads from and writes to.
//!
//! One file a kind. Each has a `Source`, a `Sink`, or both, with everything that is particular to the kind while
//! messages flow. [`source`] and [`sink`] hold what all kinds share; they state what a kind implements
//! (`SourceOps`, `SinkOps`) and dispatch by a match.
//!
//! A new kind is a file here and a line in the table below. If its threads make system calls that no other kind makes,
//! these go onto the one list of [`crate::lane::syscalls`].
//!
//! Constraint: all of it is built before the seal. Afterwards nothing here uses the heap, takes a lock or formats.
//! Invariant: no code outside this room asks of which kind a source or a sink is.

pub mod mqueue;
pub mod ring;
pub mod signal;
pub mod signal_ring;
pub mod sink;
pub mod source;
pub mod xddp;

#[cfg(test)]
mod ring_tests;

/// Makes the two enums of the kinds, and `each!`, a match with the same expression for every kind: static dispatch.
macro_rules! kinds {
    ($d:tt; $($(#[$doc:meta])* $Kind:ident => $file:ident,)*) => {
        /// What is read.
        #[derive(Debug)]
        pub enum SourceKind {
            $($(#[$doc])* $Kind($file::Source),)*
        }

        /// What is written.
        #[derive(Debug)]
        pub enum SinkKind {
            $($(#[$doc])* $Kind($file::Sink),)*
        }

        macro_rules! each {
            ($d Enum:ident, $d value:expr, $d half:ident => $d call:expr) => {
                match $d value {
                    $($d Enum::$Kind($d half) => $d call,)*
                }
            };
        }
    };
}

kinds! { $;
    /// A message queue.
    Mqueue => mqueue,
    /// A signal.
    Signal => signal,
    /// The ring of the owner's session: kind `lane` of a configuration.
    Ring => ring,
    /// Datagrams of Linux programs.
    Xddp => xddp,
}

use each;
