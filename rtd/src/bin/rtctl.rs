//! The command-line tool: inspects a running daemon, registers processes, sends and receives.

#![allow(
    rustdoc::broken_intra_doc_links,
    reason = "help texts show [daemon] as it is written"
)]

use clap::{Parser, Subcommand};
use rtd::ctl;
use std::path::PathBuf;
use std::process::ExitCode;

/// Heading of the options that every command has, to separate them from the command's own.
const WHICH: &str = "Daemon";

/// Inspect a running rtd, register processes, send and receive messages
#[derive(Parser)]
#[command(name = "rtctl", version, propagate_version = true)]
struct Cli {
    /// Name of the instance ([daemon] name in its configuration). Default: the only one that runs
    #[arg(long, short, global = true, env = "RTD_INSTANCE", help_heading = WHICH)]
    instance: Option<String>,
    /// Path of the control socket, if the instance's statistics page does not name it
    #[arg(long, global = true, value_name = "PATH", env = "RTD_SOCKET", help_heading = WHICH)]
    socket: Option<PathBuf>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// List lanes, routes, endpoints and processes
    Ls(ctl::ls::LsArgs),
    /// Show message counts and latencies of lanes and routes
    Stats(ctl::stats::StatsArgs),
    /// Register a name and execute CMD under the same pid
    Run(ctl::run::RunArgs),
    /// Register a running process
    Register(ctl::register::RegisterArgs),
    /// Free a name; its process keeps running
    Unregister(ctl::register::UnregisterArgs),
    /// Send a message into an endpoint
    Send(ctl::send::SendArgs),
    /// Print the messages that arrive at an endpoint
    Listen(ctl::listen::ListenArgs),
    /// Discard the messages that wait in an endpoint's queue
    Flush(ctl::flush::FlushArgs),
    /// Remove message queues by name
    Queue(ctl::queue::QueueArgs),
    /// Remove the queues, the page and the socket of an instance that was killed
    Cleanup(ctl::cleanup::CleanupArgs),
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let done = match &cli.command {
        Command::Queue(args) => Some(ctl::queue::queue(args)),
        Command::Cleanup(args) => Some(ctl::cleanup::cleanup(cli.instance.as_deref(), args)),
        _ => None,
    };
    if let Some(done) = done {
        return done.map_or_else(|e| failed(&e), |()| ExitCode::SUCCESS);
    }
    let instance = match cli
        .instance
        .clone()
        .map_or_else(rtd::ctl::page::default_instance, Ok)
    {
        Ok(instance) => instance,
        Err(e) => return failed(&e),
    };
    let instance = instance.as_str();
    let socket = || {
        cli.socket
            .clone()
            .unwrap_or_else(|| rtcore::client::locate::socket_of(instance))
    };
    let done = match &cli.command {
        Command::Ls(args) => ctl::ls::ls(instance, args),
        Command::Stats(args) => ctl::stats::stats(instance, args),
        Command::Run(args) => return ctl::run::run(instance, args, &socket()),
        Command::Register(args) => return ctl::register::register(args, &socket()),
        Command::Unregister(args) => return ctl::register::unregister(args, &socket()),
        Command::Send(args) => ctl::send::send(instance, args),
        Command::Listen(args) => ctl::listen::listen(instance, args, &socket()),
        Command::Flush(args) => ctl::flush::flush(instance, args),
        Command::Queue(_) | Command::Cleanup(_) => Ok(()),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => failed(&e),
    }
}

fn failed(e: &anyhow::Error) -> ExitCode {
    rtd::log::print(format_args!("rtctl: {e:#}"));
    ExitCode::FAILURE
}
