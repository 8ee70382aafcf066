//! `rtctl run --as NAME -- CMD...`: take a name, then become the program, so that the pid stays and
//! an unmodified program is a registered process.
//!
//! Constraint: nothing may be started or left behind between the grant and exec(2); the connection
//! is close-on-exec, and its end is how the daemon learns that the program runs.

#![allow(
    rustdoc::broken_intra_doc_links,
    reason = "help texts show [[process]] as it is written"
)]

use super::register::{claim, granted};
use crate::words::SHARE_IPC;
use clap::Args;
use std::ffi::OsString;
use std::io;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, ExitCode};

/// The program exists and could not be run, as env(1) has it.
const CANNOT_RUN: u8 = 126;
/// There is no such program.
const NOT_FOUND: u8 = 127;

/// Take a name and run a program under it.
///
/// rtd sends the program a signal only while the program blocks or handles it, and checks that once
/// a second. exec(2) removes handlers: a program that executes another one must block the signals
/// first, or the next signal ends it.
#[derive(Args, Clone, Debug)]
pub struct RunArgs {
    /// Register the program under this name of a [[process]] in the configuration
    #[arg(long = "as", value_name = "NAME")]
    pub name: String,
    /// Has no effect: rtd sends a signal once the program blocks or handles it
    #[arg(long)]
    pub no_block: bool,
    /// Program and its arguments
    #[arg(required = true, last = true, value_name = "CMD")]
    pub command: Vec<OsString>,
}

/// Runs `rtctl run`; returns only if the program did not start: 1 when the name was refused, 127
/// when there is no such program, 126 when it cannot be run.
pub fn run(instance: &str, args: &RunArgs, socket: &Path) -> ExitCode {
    let Some((program, arguments)) = args.command.split_first() else {
        crate::log::print(format_args!("rtctl: no command: write it after --"));
        return ExitCode::FAILURE;
    };
    if args.no_block {
        crate::log::print(format_args!(
            "rtctl: --no-block has no effect: rtd sends a signal once the program blocks or handles it"
        ));
    }
    if let Some(queues) = super::page::unreachable_queues(instance, &args.name) {
        crate::log::print(format_args!(
            "rtctl: warning: this program is in another IPC namespace than rtd: it cannot open the queues of {queues}; run it in \
             rtd's ({SHARE_IPC})"
        ));
    }
    // The signal mask stays as it is: the program starts as without rtctl.
    let (conn, reply) = match claim(socket, &args.name, 0, 0, true) {
        Ok(granted) => granted,
        Err(text) => {
            crate::log::print(format_args!("rtctl: {text}"));
            return ExitCode::FAILURE;
        }
    };
    // Standard output is the program's.
    crate::log::print(format_args!("rtctl: {}", granted(&args.name, &reply)));
    let e = Command::new(program).args(arguments).exec();
    drop(conn);
    crate::log::print(format_args!("rtctl: cannot run {}: {e}", program.display()));
    ExitCode::from(if e.kind() == io::ErrorKind::NotFound {
        NOT_FOUND
    } else {
        CANNOT_RUN
    })
}
