//! The hand tool: looks at a running daemon, registers processes, sends and listens.

use clap::{Parser, Subcommand};
use rtd::ctl;

/// Look at a running rtd, register processes, send and listen
#[derive(Parser)]
#[command(name = "rtctl", version, propagate_version = true)]
struct Cli {
    /// Instance, as in the configuration's [daemon] name
    #[arg(long, short, global = true, default_value = "rtd", env = "RTD_INSTANCE")]
    instance: String,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Lanes, routes, endpoints and processes
    Ls(ctl::ls::LsArgs),
    /// Where every message is, and how long it took
    Stats(ctl::stats::StatsArgs),
    /// Register a name and become CMD, which keeps the pid
    Run(ctl::run::RunArgs),
    /// Register a running process
    Register(ctl::register::RegisterArgs),
    /// Send a message into an endpoint
    Send(ctl::send::SendArgs),
    /// Print what arrives at an endpoint
    Listen(ctl::listen::ListenArgs),
}

fn main() -> std::process::ExitCode {
    let cli = Cli::parse();
    let done = match &cli.command {
        Command::Ls(args) => ctl::ls::ls(&cli.instance, args),
        Command::Stats(args) => ctl::stats::stats(&cli.instance, args),
        Command::Run(args) => return ctl::run::run(&cli.instance, args),
        Command::Register(args) => ctl::register::register(&cli.instance, args),
        Command::Send(args) => ctl::send::send(&cli.instance, args),
        Command::Listen(args) => ctl::listen::listen(&cli.instance, args),
    };
    match done {
        Ok(()) => std::process::ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("rtctl: {e:#}");
            std::process::ExitCode::FAILURE
        }
    }
}
