//! `rtctl run --as NAME -- CMD...`: takes a name, then executes the program, so that the pid stays
//! and an unmodified program is a registered process.
//!
//! Constraint: between the grant and exec(2) the command starts no thread or process and leaves no
//! object behind. The connection is close-on-exec: its end shows the daemon that the program runs.

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

/// Exit status if the program exists and cannot be executed, as env(1) uses it.
const CANNOT_RUN: u8 = 126;
/// Exit status if there is no such program.
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

/// Runs `rtctl run`; returns only if the program did not start: 1 if the name was refused, 127 if
/// there is no such program, 126 if it cannot be executed.
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
    // Standard output belongs to the program.
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
