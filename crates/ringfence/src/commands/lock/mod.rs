//! `ringfence lock`: locks for scripts and programs.

pub(crate) mod run;

use clap::Subcommand;

use crate::cli::Shared;
use crate::exit::Failure;

/// Take locks, and do things only while they are held.
#[derive(Debug, Subcommand)]
pub(crate) enum Lock {
    /// Run a command only while a lock is held.
    Run(Box<run::Run>),
}

impl Lock {
    pub(crate) async fn run(self, shared: &Shared) -> Result<(), Failure> {
        match self {
            Lock::Run(run) => run.run(shared).await,
        }
    }
}
