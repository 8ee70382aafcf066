//! Endpoints, the real-time half: the sources that a lane thread reads and the sinks that it
//! writes.
//!
//! Each kind has one file with a `Source`, a `Sink`, or both, which contain everything that is
//! particular to the kind while messages flow. [`source`] and [`sink`] hold the code that all kinds
//! share. They define the traits that a kind implements (`SourceOps`, `SinkOps`), and dispatch by a
//! match.
//!
//! A new kind is a file here and a line in the table below. If its threads make system calls that
//! no other kind makes, these go onto the one list of [`crate::lane::syscalls`].
//!
//! Constraint: all of it is built before the seal. Afterwards nothing here uses the heap, takes a
//! lock or formats. Invariant: no code outside this module asks for the kind of a source or a sink.

pub mod mqueue;
pub mod ring;
pub mod signal;
pub mod signal_ring;
pub mod sink;
pub mod source;
pub mod xddp;

use crate::stats::layout::EndpointRecord;
use std::io;

#[cfg(test)]
mod ring_tests;

/// Makes the two enums of the kinds, and `each!`, a match with the same expression for every kind:
/// static dispatch.
macro_rules! kinds {
    ($d:tt; $($(#[$doc:meta])* $Kind:ident = $number:literal => $file:ident,)*) => {
        /// A source of any kind.
        #[derive(Debug)]
        pub enum SourceKind {
            $($(#[$doc])* $Kind($file::Source),)*
        }

        /// A sink of any kind.
        #[derive(Debug)]
        pub enum SinkKind {
            $($(#[$doc])* $Kind($file::Sink),)*
        }

        /// The description of an endpoint on the statistics page.
        #[derive(Clone, Debug, PartialEq, Eq)]
        pub enum Shown {
            $($(#[$doc])* $Kind($file::Shown),)*
            /// A kind that this version does not know, by its number on the page.
            Unknown(u32),
        }

        impl Shown {
            /// Writes the description into a record of the page.
            pub(crate) fn write(&self, record: &mut EndpointRecord) -> io::Result<()> {
                match self {
                    $(Shown::$Kind(shown) => {
                        record.kind = $number;
                        shown.write(record)
                    })*
                    Shown::Unknown(number) => {
                        record.kind = *number;
                        Ok(())
                    }
                }
            }

            /// Reads the description from a record of the page.
            pub(crate) fn read(record: &EndpointRecord) -> Shown {
                match record.kind {
                    $($number => Shown::$Kind($file::Shown::read(record)),)*
                    other => Shown::Unknown(other),
                }
            }
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

// The number of a kind is its number on the statistics page.
kinds! { $;
    /// A message queue.
    Mqueue = 1 => mqueue,
    Signal = 2 => signal,
    /// A ring of the owner's session: kind `lane` of a configuration.
    Ring = 3 => ring,
    /// Datagrams of plain Linux programs.
    Xddp = 4 => xddp,
}

use each;
