//! The one binary: the server, a local cluster for development, and the tools that talk to any cluster.
//!
//! Reading order: [`cli`] (the commands and the flags that all of them share), [`exit`] (how a command can end),
//! [`commands`] (one file a command), then what several of them need: [`record`] (keys and values as text),
//! [`units`] (durations and sizes as people write them), [`output`] (tables and JSON).

mod cli;
mod commands;
mod exit;
mod output;
mod record;
mod units;

use std::process::ExitCode;

use clap::Parser as _;

use crate::cli::Cli;

/// Many small allocations from few threads: measured, the system's allocator costs a tenth of the throughput.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let cli = Cli::parse();
    match commands::run(cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report(),
    }
}
