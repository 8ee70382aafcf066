//! Tokens identify the descriptors of the readiness set.

use crate::plan::ProcessId;

/// The descriptor of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Token {
    Listener,
    Signals,
    Ticker,
    /// Ordered rings are ready.
    Made,
    Peer {
        process: ProcessId,
    },
    Expected {
        process: ProcessId,
    },
    Client {
        slot: usize,
        uses: u32,
    },
    Session {
        process: ProcessId,
        uses: u32,
    },
}

impl Token {
    pub fn encode(self) -> u64 {
        // A slot is below CONNECTIONS_MAX; a process index is below the number of lines in a file.
        match self {
            Token::Listener => 0,
            Token::Signals => 1,
            Token::Ticker => 2,
            Token::Made => 7,
            Token::Peer { process } => 3 | (process as u64) << 8,
            Token::Expected { process } => 6 | (process as u64) << 8,
            Token::Client { slot, uses } => 4 | (slot as u64) << 8 | u64::from(uses) << 32,
            Token::Session { process, uses } => 5 | (process as u64) << 8 | u64::from(uses) << 32,
        }
    }

    pub fn decode(token: u64) -> Option<Token> {
        let middle = |bits: u64| usize::try_from(bits >> 8).ok();
        Some(match token & 0xff {
            0 => Token::Listener,
            1 => Token::Signals,
            2 => Token::Ticker,
            7 => Token::Made,
            3 => Token::Peer {
                process: middle(token)?,
            },
            6 => Token::Expected {
                process: middle(token)?,
            },
            4 => Token::Client {
                slot: middle(token & 0xffff_ffff)?,
                uses: u32::try_from(token >> 32).ok()?,
            },
            5 => {
                let process = middle(token & 0xffff_ffff)?;
                Token::Session {
                    process,
                    uses: u32::try_from(token >> 32).ok()?,
                }
            }
            _ => return None,
        })
    }

    /// Order within a turn, see the module's invariant.
    pub fn rank(self) -> u8 {
        match self {
            Token::Peer { .. } | Token::Expected { .. } => 0,
            // A client that closes a session and opens the next one has closed the first.
            Token::Session { .. } => 1,
            Token::Client { .. } => 2,
            Token::Made => 3,
            Token::Listener => 4,
            Token::Ticker => 5,
            Token::Signals => 6,
        }
    }
}
