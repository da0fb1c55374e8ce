//! Housekeeping without a pause: checkpoints, and the log that they make superfluous.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use openraft::errors::RaftError;
use ringfence_canary::Canary;
use ringfence_types::{Index, Revision};

use crate::api::Retention;
use crate::failures::Failures;
use crate::measure::Recorder;
use crate::node::Node;
use crate::raft::gate::Gate;
use crate::raft::log_store::LogStore;
use crate::raft::state_machine::Shelf;
use crate::raft::types::Raft;
use crate::rt;

/// Log that is superfluous is dropped in steps of at least this many entries: a purge is a record, too.
const PURGE_STEP: u64 = 1_000;
/// How often the log's end is noted, to tell the age of entries later.
const AGE_STEP: Duration = Duration::from_secs(5);

/// Shortest pause between two pieces of compaction: a state that is not believed is not compacted, and there is no hurry to look
/// again.
const SWEEP_PAUSE_MIN: Duration = Duration::from_millis(10);
/// Longest pause. Apply waits for a checkpoint when the head is full: not for long.
const SWEEP_PAUSE_MAX: Duration = Duration::from_millis(200);
/// Pause between two looks at how far compaction is.
const SWEPT_LOOK: Duration = Duration::from_millis(10);

/// What housekeeping works on.
pub(crate) struct Housekeeper {
    pub(crate) raft: Raft,
    pub(crate) log: LogStore,
    pub(crate) shelf: Arc<Shelf>,
    pub(crate) gate: Arc<Gate>,
    pub(crate) failures: Failures,
    pub(crate) checkpoint_interval: Duration,
    pub(crate) retention: Retention,
    pub(crate) checkpoint_time: Arc<Recorder>,
}

impl Housekeeper {
    /// Works for ever, or until the node fails.
    pub(crate) async fn run(self) {
        let mut ages = Ages::default();
        loop {
            let store = &self.shelf.store;
            // Compaction goes on to its end in pieces, whether anybody writes or not.
            if !store.is_checkpoint_due() {
                let wanted = self.shelf.checkpoint_wanted.notified();
                let _ = rt::timeout(self.checkpoint_interval, wanted).await;
            }
            let due = store.is_checkpoint_due() || store.head_bytes() > 0;
            let began = rt::now();
            if due && !self.checkpoint().await {
                return;
            }
            if store.has_sweep_left() {
                // Whoever writes meanwhile has the disk for half of the time at least.
                rt::sleep(rt::since(began).clamp(SWEEP_PAUSE_MIN, SWEEP_PAUSE_MAX)).await;
            }
            ages.note(self.log.log().last_index());
            self.purge(&ages).await;
            self.shelf.tidy().await;
        }
    }

    /// One checkpoint, told to openraft as a snapshot. False when the node has failed.
    async fn checkpoint(&self) -> bool {
        let done = checkpoint(&self.shelf, &self.gate, &self.failures, &self.checkpoint_time).await;
        // openraft purges only what a snapshot covers; this one is a position, no file.
        done && self.raft.trigger().snapshot().await.is_ok()
    }

    async fn purge(&self, ages: &Ages) {
        let log = self.log.log();
        let (Some(bound), Some(first)) = (self.gate.purge_bound(), log.first_index()) else { return };
        let by_bytes = log.purge_to_fit(self.retention.bytes);
        let by_time = ages.last_before(self.retention.time);
        let Some(superfluous) = by_bytes.max(by_time) else { return };
        let through = superfluous.min(bound.0);
        if through >= first + PURGE_STEP {
            drop(self.raft.trigger().purge_log(through).await);
        }
    }
}

/// One checkpoint, off the executor's threads. False when it failed, which is final.
pub(crate) async fn checkpoint(
    shelf: &Arc<Shelf>,
    gate: &Gate,
    failures: &Failures,
    time: &Recorder,
) -> bool {
    if shelf.quarantine.is_on() {
        // What is in memory is not to be believed either.
        return true;
    }
    let started = rt::now();
    let store = shelf.store.clone();
    let done = rt::blocking(move || store.checkpoint()).await;
    let goes_on = match done {
        Ok(Ok(Some(position))) => {
            if let Some(log_id) = position.log_id {
                gate.note_checkpoint(Index(log_id.index.0));
            }
            time.record(rt::since(started));
            true
        }
        Ok(Ok(None)) => true,
        Ok(Err(error)) => shelf.state_failed(&error),
        Err(error) => {
            failures.report(crate::api::Failure::Consensus(format!("the checkpoint's task: {error}")));
            false
        }
    };
    shelf.room.notify_waiters();
    goes_on
}

/// Writes an empty entry behind each snapshot that a member was sent, for ever.
///
/// A snapshot may end below the member's own log (the leader had purged what the member had, and the answers that said so
/// were lost). openraft then forgets that the entries behind the snapshot wait to be applied, and remembers it with the next
/// entry alone (reference: openraft, section 5): without one the member would lag behind until somebody writes.
pub(crate) async fn follow_snapshots(raft: Raft, shelf: Arc<Shelf>) {
    loop {
        shelf.snapshot_ended.notified().await;
        if Canary::NoEntryAfterSnapshot.sings() {
            // The member waits for whatever comes next.
            continue;
        }
        // Whoever leads by now, if it is not this node, has begun with an entry of its own.
        if let Err(RaftError::Fatal(_)) = raft.write_blank().await {
            return;
        }
    }
}

impl Node {
    /// Waits until the state file of this node has been freed of all that compaction up to `revision` removes.
    pub async fn until_swept(&self, revision: Revision) {
        while !self.0.shelf.store.is_swept(revision) {
            rt::sleep(SWEPT_LOOK).await;
        }
    }
}

/// Where the log ended at moments of the past.
#[derive(Debug, Default)]
struct Ages(VecDeque<(rt::Instant, u64)>);

impl Ages {
    /// Most moments kept; the oldest are forgotten, which keeps entries longer and never shorter.
    const MOMENTS_MAX: usize = 4096;

    fn note(&mut self, last: Option<u64>) {
        let Some(last) = last else { return };
        if self.0.back().is_some_and(|(at, _)| rt::since(*at) < AGE_STEP) {
            return;
        }
        if self.0.len() == Self::MOMENTS_MAX {
            self.0.pop_front();
        }
        self.0.push_back((rt::now(), last));
    }

    /// The last entry that is surely older than `age`.
    fn last_before(&self, age: Duration) -> Option<u64> {
        let older = self.0.iter().rev().find(|(at, _)| rt::since(*at) >= age);
        older.map(|(_, last)| *last)
    }
}
