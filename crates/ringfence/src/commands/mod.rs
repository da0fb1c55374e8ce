//! The commands, one file or folder each, and how they are run.

mod ack;
pub(crate) mod bench;
pub(crate) mod compact;
pub(crate) mod completions;
pub(crate) mod config;
pub(crate) mod del;
pub(crate) mod dev;
pub(crate) mod diff;
pub(crate) mod export;
pub(crate) mod fence;
pub(crate) mod get;
pub(crate) mod guard;
pub(crate) mod history;
pub(crate) mod import;
pub(crate) mod leader;
pub(crate) mod lease;
pub(crate) mod lock;
pub(crate) mod member;
pub(crate) mod metrics;
pub(crate) mod put;
mod range;
pub(crate) mod recover;
mod scope;
pub(crate) mod scrub;
pub(crate) mod serve;
pub(crate) mod snapshot;
pub(crate) mod status;
pub(crate) mod top;
pub(crate) mod txn;
pub(crate) mod watch;

use std::num::NonZero;
use std::thread;

use tokio::runtime::{Builder, Runtime};

use crate::cli::{Cli, Command};
use crate::exit::Failure;

/// More threads than this gain nothing: the work is dominated by few connections and one log.
const RUNTIME_THREADS_MAX: usize = 4;

/// Runs the command that the command line names.
pub(crate) fn run(cli: Cli) -> Result<(), Failure> {
    let shared = &cli.shared;
    match cli.command {
        Command::Serve(serve) => serve.run(),
        Command::Dev(dev) => small_runtime()?.block_on(dev.run()),
        Command::Put(put) => small_runtime()?.block_on(put.run(shared)),
        Command::Get(get) => small_runtime()?.block_on(get.run(shared)),
        Command::Del(del) => small_runtime()?.block_on(del.run(shared)),
        Command::Txn(txn) => small_runtime()?.block_on(txn.run(shared)),
        Command::Watch(watch) => small_runtime()?.block_on(watch.run(shared)),
        Command::History(history) => small_runtime()?.block_on(history.run(shared)),
        Command::Diff(diff) => small_runtime()?.block_on(diff.run(shared)),
        Command::Compact(compact) => small_runtime()?.block_on(compact.run(shared)),
        Command::Guard(guard) => small_runtime()?.block_on(guard.run(shared)),
        Command::Fence(fence) => small_runtime()?.block_on(fence.run(shared)),
        Command::Import(import) => runtime(default_threads())?.block_on(import.run(shared)),
        Command::Export(export) => runtime(default_threads())?.block_on(export.run(shared)),
        Command::Status(status) => small_runtime()?.block_on(status.run(shared)),
        Command::Top(top) => small_runtime()?.block_on(top.run(shared)),
        Command::Member(member) => small_runtime()?.block_on(member.run(shared)),
        Command::Elect(elect) => small_runtime()?.block_on(elect.run(shared)),
        Command::Leader(leader) => small_runtime()?.block_on(leader.run(shared)),
        Command::Lease(lease) => small_runtime()?.block_on(lease.run(shared)),
        Command::Recover(recover) => recover.run(shared),
        Command::Snapshot(snapshot) => small_runtime()?.block_on(snapshot.run(shared)),
        Command::Scrub(scrub) => small_runtime()?.block_on(scrub.run(shared)),
        Command::Bench(bench) => runtime(default_threads())?.block_on(bench.run(shared)),
        Command::Completions(completions) => completions.run(),
        Command::Config(config) => config.run(),
        Command::Lock(lock) => small_runtime()?.block_on(lock.run(shared)),
        // Small runtimes have no threads of their own: the kernel ends a process with the *thread* that started it.
        Command::RunWatchdog(flags) => small_runtime()?.block_on(lock::run::watchdog::run(flags)),
        Command::RunInit(flags) => small_runtime()?.block_on(lock::run::init::run(flags)),
    }
}

/// A runtime with that many threads.
pub(crate) fn runtime(threads: usize) -> Result<Runtime, Failure> {
    Ok(Builder::new_multi_thread().worker_threads(threads).enable_all().build()?)
}

/// A runtime for one request after the other: it starts fastest.
fn small_runtime() -> Result<Runtime, Failure> {
    Ok(Builder::new_current_thread().enable_all().build()?)
}

pub(crate) fn default_threads() -> usize {
    thread::available_parallelism().map_or(1, NonZero::get).min(RUNTIME_THREADS_MAX)
}
