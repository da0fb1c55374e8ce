//! The command line of the harness.

mod cli;

use std::process::ExitCode;

use clap::Parser as _;

use cli::{Cli, Exit};

fn main() -> ExitCode {
    match cli::dispatch(Cli::parse()) {
        Ok(exit) => exit.into(),
        Err(error) => {
            eprintln!("jepsen: {error:#}");
            Exit::Unknown.into()
        }
    }
}
