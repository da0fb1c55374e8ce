//! Space without a pause: a state file that is mostly free is rebuilt while the node serves.

use std::sync::Arc;
use std::time::Duration;

use crate::api::Failure;
use crate::failures::Failures;
use crate::raft::state_machine::{Shelf, failure_of};
use crate::rt;

/// How often the file is looked at; mostly that is two numbers.
const LOOK: Duration = Duration::from_secs(5);
/// Shortest time from one rebuild to the next that nobody asked for. Where checkpoints replace most of the file, half of it
/// is free again soon, and that room is needed: a rebuild is not worth it every minute.
const PAUSE_MIN: Duration = Duration::from_secs(120);
/// The same as a multiple of what the last one took, so that rebuilds take 2 % of the time at most.
const PAUSE_FACTOR: u32 = 50;

/// Rebuilds the state file whenever it is worth it, one at a time, until the node fails.
pub(crate) async fn give_back(shelf: Arc<Shelf>, failures: Failures) {
    while failures.first().is_none() {
        rt::sleep(LOOK).await;
        match is_due(&shelf).await {
            Ok(true) => {}
            Ok(false) => continue,
            Err(failure) => return failures.report(failure),
        }
        let started = rt::now();
        if let Err(failure) = rebuild(&shelf).await {
            tracing::warn!("the state file stays as large as it is: {failure}");
        }
        rt::sleep((rt::since(started) * PAUSE_FACTOR).max(PAUSE_MIN)).await;
    }
}

async fn is_due(shelf: &Arc<Shelf>) -> Result<bool, Failure> {
    if shelf.quarantine.is_on() {
        return Ok(false);
    }
    let store = shelf.store.clone();
    let looked = rt::blocking(move || store.is_rebuild_due()).await.map_err(|error| task_failed(&error))?;
    match looked {
        Err(error) if shelf.state_failed(&error) => Ok(false),
        looked => looked.map_err(|error| failure_of(&error)),
    }
}

/// Rebuilds the state file now, off the executor's threads.
pub(crate) async fn rebuild(shelf: &Arc<Shelf>) -> Result<(), Failure> {
    let started = rt::now();
    let stats = shelf.store.stats().unwrap_or_default();
    tracing::info!(
        file_bytes = stats.file_bytes,
        in_use_bytes = stats.in_use_bytes,
        "rebuilding the state file"
    );
    let working = shelf.clone();
    let rebuilt = rt::blocking(move || working.rebuild_verified()).await;
    match rebuilt.map_err(|error| task_failed(&error))?? {
        Some(rebuilt) => tracing::info!(
            disk_bytes_before = rebuilt.disk_bytes_before,
            disk_bytes_after = rebuilt.disk_bytes_after,
            seconds = rt::since(started).as_secs_f64(),
            "rebuilt the state file"
        ),
        None => tracing::info!("a snapshot has taken the place of the state file while it was rebuilt"),
    }
    // What was replaced takes its space until the last view of it is gone.
    shelf.tidy().await;
    Ok(())
}

fn task_failed(error: &std::io::Error) -> Failure {
    Failure::Consensus(format!("the task that rebuilds the state file: {error}"))
}
