//! The one program: the server, a local cluster for development, and the tools that talk to any cluster.
//!
//! It is a library so that `ringfence`, its twin with canaries and the fuzz targets share it. Reading order: `cli` (the
//! commands and the flags that all of them share), `exit` (how a command can end), `commands` (one file a command),
//! then what several of them need: `record` (keys and values as text), `units` (durations and sizes as people write
//! them), `output` (tables and JSON).

#[cfg(feature = "canary")]
mod canaries;
mod cli;
mod commands;
mod exit;
#[cfg(feature = "fuzzing")]
pub mod fuzzing;
mod output;
mod record;
mod units;

use std::process::ExitCode;

use clap::Parser as _;

use crate::cli::Cli;

/// Many small allocations from few threads: measured, the system's allocator costs a tenth of the throughput.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Does what the command line says.
#[must_use]
pub fn run() -> ExitCode {
    let cli = Cli::parse();
    match commands::run(cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report(),
    }
}
