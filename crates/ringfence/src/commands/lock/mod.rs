//! `ringfence lock` and `ringfence elect`: locks and elections, for people, scripts and programs.

mod acquire;
pub(crate) mod elect;
mod inspect;
mod release;
pub(crate) mod run;
mod session;

use clap::Subcommand;

use crate::cli::Shared;
use crate::exit::Failure;

/// Take locks, and do things only while they are held.
#[derive(Debug, Subcommand)]
pub(crate) enum Lock {
    /// Run a command only while a lock is held.
    Run(Box<run::Run>),
    /// Take a lock, and print its fencing token, its key and its lease.
    Acquire(acquire::Acquire),
    /// Give a lock back, or a place among those that wait for it.
    Release(release::Release),
    /// Show who holds a lock.
    Holder {
        /// The lock's name.
        name: String,
    },
    /// Show who waits for a lock, in the order in which they will have it.
    Waiters {
        /// The lock's name.
        name: String,
    },
}

impl Lock {
    pub(crate) async fn run(self, shared: &Shared) -> Result<(), Failure> {
        match self {
            Lock::Run(run) => run.run(shared).await,
            Lock::Acquire(acquire) => acquire.run(shared).await,
            Lock::Release(release) => release.run(shared).await,
            Lock::Holder { name } => inspect::holder(shared, &name).await,
            Lock::Waiters { name } => inspect::waiters(shared, &name).await,
        }
    }
}
