//! openraft's log on ours: entries, votes, truncations and purges are records of one log, in the order of the calls.
//!
//! `append` returns once its entries are readable; a worker of its own writes and syncs everything that waits, at once,
//! and then completes the callbacks in order. `save_vote` and truncation wait for that worker: when they return, every
//! earlier append is durable too. Without that barrier openraft would acknowledge to a new leader what is not on disk
//! (reference: openraft, section 2.3).

use std::collections::VecDeque;
use std::fmt::Debug;
use std::io;
use std::ops::{Bound, RangeBounds};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use openraft::OptionalSend;
use openraft::storage::{IOFlushed, LogState, RaftLogReader, RaftLogStorage};
use parking_lot::Mutex;
use ringfence_canary::Canary;
use ringfence_types::limits;
use ringfence_wal::{Entry, Log, Ticket, WalError};
use tokio::sync::{Notify, oneshot};

use super::codec;
use super::gate::Gate;
use super::types::{RaftEntry, RaftLogId, RaftVote, TypeConfig};
use crate::api::Failure;
use crate::failures::Failures;
use crate::measure::Recorder;
use crate::rt;

/// The log as openraft sees it; clones read and write the same one. The workers end when the last clone is gone.
#[derive(Clone)]
pub(crate) struct LogStore(Arc<Owner>);

struct Owner(Arc<Shared>);

impl Drop for Owner {
    fn drop(&mut self) {
        self.0.closing.store(true, Ordering::Release);
        self.0.wake.notify_one();
        self.0.wake_spare.notify_one();
    }
}

struct Shared {
    log: Log,
    gate: Arc<Gate>,
    failures: Failures,
    /// Who waits for which record to be durable, in order.
    waiting: Mutex<VecDeque<(Ticket, Waiter)>>,
    wake: Notify,
    wake_spare: Notify,
    sync_time: Recorder,
    /// When the write and sync under way began, in nanoseconds on the runtime's clock; 0 while there is none.
    flushing_since: AtomicU64,
    closing: AtomicBool,
}

enum Waiter {
    Raft(IOFlushed<TypeConfig>),
    Caller(oneshot::Sender<Result<(), String>>),
}

impl LogStore {
    /// Takes a log over and starts its worker.
    pub(crate) fn start(log: Log, gate: Arc<Gate>, failures: Failures) -> io::Result<LogStore> {
        let shared = Arc::new(Shared {
            log,
            gate,
            failures,
            waiting: Mutex::default(),
            wake: Notify::new(),
            wake_spare: Notify::new(),
            sync_time: Recorder::default(),
            flushing_since: AtomicU64::new(0),
            closing: AtomicBool::new(false),
        });
        rt::spawn_worker("log", flush_for_ever(shared.clone()))?;
        rt::spawn_worker("log-spare", prepare_for_ever(shared.clone()))?;
        Ok(LogStore(Arc::new(Owner(shared))))
    }

    /// The log below.
    pub(crate) fn log(&self) -> &Log {
        &self.0.0.log
    }

    /// Time of one write and sync.
    pub(crate) fn sync_time(&self) -> &Recorder {
        &self.0.0.sync_time
    }

    /// How long the write and sync under way has been going on.
    pub(crate) fn flushing_for(&self) -> Option<Duration> {
        let since = self.0.0.flushing_since.load(Ordering::Acquire);
        (since != 0).then(|| rt::since(rt::Instant::from_nanoseconds(since)))
    }

    fn wait_for(&self, ticket: Ticket, waiter: Waiter) {
        self.0.0.waiting.lock().push_back((ticket, waiter));
        self.0.0.wake.notify_one();
    }

    async fn barrier(&self, ticket: Ticket) -> io::Result<()> {
        let (durable, waiting) = oneshot::channel();
        self.wait_for(ticket, Waiter::Caller(durable));
        match waiting.await {
            Ok(result) => result.map_err(io::Error::other),
            Err(_) => Err(io::Error::other("the log's worker has stopped")),
        }
    }

    /// Entries from `from` up to, and without, `until`: as many as fit the bound, and at least one if there is one.
    pub(crate) fn entries(&self, from: u64, until: u64, bytes_max: usize) -> io::Result<Vec<RaftEntry>> {
        let entries = self.0.0.log.read(from, until, bytes_max).map_err(wal_error)?;
        entries.iter().map(|entry| codec::decode_entry(&entry.data)).collect()
    }

    fn last_log_id(&self) -> io::Result<Option<RaftLogId>> {
        if let Some(last) = self.0.0.log.last_index() {
            let entries = self.entries(last, last + 1, usize::MAX)?;
            return Ok(entries.first().map(|entry| entry.log_id));
        }
        self.purged_log_id()
    }

    fn purged_log_id(&self) -> io::Result<Option<RaftLogId>> {
        self.0.0.log.purged().map(|(_, mark)| codec::decode_log_id(&mark)).transpose()
    }

    /// The vote, the last position and the newest known commit that are on disk.
    pub(crate) fn positions(&self) -> io::Result<(Option<RaftVote>, Option<RaftLogId>, Option<RaftLogId>)> {
        let vote = self.0.0.log.vote().as_ref().map(codec::decode_vote).transpose()?;
        Ok((vote, self.last_log_id()?, self.known_committed()?))
    }

    /// The newest commit that was known when the last batch was written, as far as the log goes: a batch may be written
    /// before a committed entry that waits behind it.
    fn known_committed(&self) -> io::Result<Option<RaftLogId>> {
        let committed = self.0.0.log.committed().as_ref().map(codec::decode_log_id).transpose()?;
        Ok(committed.min(self.last_log_id()?))
    }
}

/// An error of the log as openraft takes it: the node stops.
fn wal_error(error: WalError) -> io::Error {
    io::Error::other(error)
}

/// Writes and syncs whatever waits, until the log is closed and nothing waits any more.
async fn flush_for_ever(shared: Arc<Shared>) {
    loop {
        if !shared.log.has_staged() {
            // A record may have become durable before its waiter was in the queue.
            shared.complete(shared.log.durable());
            if shared.closing.load(Ordering::Acquire) {
                return;
            }
            shared.wake.notified().await;
            continue;
        }
        let started = rt::now();
        shared.flushing_since.store(started.nanoseconds().max(1), Ordering::Release);
        rt::sync_pause().await;
        let flushed = shared.log.flush();
        shared.flushing_since.store(0, Ordering::Release);
        match flushed {
            Ok(ticket) => {
                shared.sync_time.record(rt::since(started));
                shared.complete(ticket);
            }
            Err(error) => return shared.fail(&error),
        }
        if shared.log.wants_spare() {
            shared.wake_spare.notify_one();
        }
    }
}

/// Makes segments ready before they are needed, off the way of a write.
async fn prepare_for_ever(shared: Arc<Shared>) {
    while !shared.closing.load(Ordering::Acquire) {
        if shared.log.wants_spare()
            && let Err(error) = shared.log.prepare_spare()
        {
            // No room yet: a write that needs the segment tries once more, and that one decides.
            tracing::warn!("no spare segment for the log: {error}");
        }
        shared.wake_spare.notified().await;
    }
}

impl Shared {
    fn complete(&self, durable: Ticket) {
        // openraft takes the completion of an append for that of all before it: telling the last one is enough.
        let mut last = None;
        loop {
            let waiter = {
                let mut waiting = self.waiting.lock();
                match waiting.front() {
                    Some((ticket, _)) if *ticket <= durable => waiting.pop_front(),
                    _ => break,
                }
            };
            match waiter {
                Some((_, Waiter::Raft(callback @ IOFlushed::Notify(_)))) => last = Some(callback),
                Some((_, Waiter::Raft(callback))) => callback.io_completed(Ok(())),
                Some((_, Waiter::Caller(caller))) => {
                    // In the order of the calls: a vote is told after the appends before it.
                    if let Some(callback) = last.take() {
                        callback.io_completed(Ok(()));
                    }
                    drop(caller.send(Ok(())));
                }
                None => break,
            }
        }
        if let Some(callback) = last {
            callback.io_completed(Ok(()));
        }
    }

    /// A failed write or sync is final: nothing that waits will ever be durable, and the node stops.
    fn fail(&self, error: &WalError) {
        self.failures.report(failure_of(error));
        for (_, waiter) in self.waiting.lock().drain(..) {
            match waiter {
                Waiter::Raft(callback) => callback.io_completed(Err(io::Error::other(error.to_string()))),
                Waiter::Caller(caller) => drop(caller.send(Err(error.to_string()))),
            }
        }
    }
}

/// What an error of the log means for the node.
pub(crate) fn failure_of(error: &WalError) -> Failure {
    match error {
        WalError::Corrupt { .. } => Failure::LogCorrupt(error.to_string()),
        _ => Failure::Disk(error.to_string()),
    }
}

impl RaftLogReader<TypeConfig> for LogStore {
    async fn try_get_log_entries<RB: RangeBounds<u64> + Clone + Debug + OptionalSend>(
        &mut self,
        range: RB,
    ) -> io::Result<Vec<RaftEntry>> {
        let from = match range.start_bound() {
            Bound::Included(index) => *index,
            Bound::Excluded(index) => index + 1,
            Bound::Unbounded => 0,
        };
        let until = match range.end_bound() {
            Bound::Included(index) => index + 1,
            Bound::Excluded(index) => *index,
            Bound::Unbounded => u64::MAX,
        };
        // The log answers up to a bound of bytes at a time; openraft wants the whole range.
        let mut entries = Vec::new();
        let mut next = from.max(self.0.0.log.first_index().unwrap_or(u64::MAX));
        while next < until {
            let mut more = self.entries(next, until, limits::WAL_BATCH_BYTES_MAX)?;
            let Some(last) = more.last() else { break };
            next = last.log_id.index() + 1;
            entries.append(&mut more);
        }
        Ok(entries)
    }

    async fn read_vote(&mut self) -> io::Result<Option<RaftVote>> {
        self.0.0.log.vote().as_ref().map(codec::decode_vote).transpose()
    }

    async fn limited_get_log_entries(&mut self, start: u64, end: u64) -> io::Result<Vec<RaftEntry>> {
        self.entries(start, end, limits::APPEND_BYTES_MAX)
    }
}

impl RaftLogStorage<TypeConfig> for LogStore {
    type LogReader = Self;

    async fn get_log_state(&mut self) -> io::Result<LogState<TypeConfig>> {
        Ok(LogState { last_purged_log_id: self.purged_log_id()?, last_log_id: self.last_log_id()? })
    }

    async fn get_log_reader(&mut self) -> Self {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &RaftVote) -> io::Result<()> {
        self.0.0.gate.save_vote(vote)?;
        if Canary::VoteNotDurable.sings() {
            // openraft goes on with the vote in memory; a restart finds the one before.
            return Ok(());
        }
        let ticket = self.0.0.log.save_vote(codec::encode_vote(vote)).map_err(wal_error)?;
        if Canary::VoteBeforeFlush.sings() {
            // openraft now takes all appends before the vote for durable, and acknowledges them to a new leader.
            self.0.0.wake.notify_one();
            return Ok(());
        }
        self.barrier(ticket).await
    }

    async fn save_committed(&mut self, committed: Option<RaftLogId>) -> io::Result<()> {
        self.0.0.gate.note_committed(committed);
        if let Some(committed) = committed {
            self.0.0.log.note_committed(codec::encode_log_id(&committed));
        }
        Ok(())
    }

    async fn read_committed(&mut self) -> io::Result<Option<RaftLogId>> {
        self.known_committed()
    }

    async fn append<I>(&mut self, entries: I, callback: IOFlushed<TypeConfig>) -> io::Result<()>
    where
        I: IntoIterator<Item = RaftEntry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let entries: Vec<RaftEntry> = entries.into_iter().collect();
        self.0.0.gate.append(&entries)?;
        let records = entries
            .iter()
            .map(|entry| Entry { index: entry.log_id.index(), data: codec::encode_entry(entry) })
            .collect();
        let ticket = self.0.0.log.append(records).map_err(wal_error)?;
        self.wait_for(ticket, Waiter::Raft(callback));
        Ok(())
    }

    async fn truncate_after(&mut self, last: Option<RaftLogId>) -> io::Result<()> {
        self.0.0.gate.truncate_after(last)?;
        let ticket = self.0.0.log.truncate_after(last.map(|last| last.index())).map_err(wal_error)?;
        self.barrier(ticket).await
    }

    /// Returns before the purge is durable: a crash brings back entries that nobody needs, and no hole.
    async fn purge(&mut self, log_id: RaftLogId) -> io::Result<()> {
        self.0.0.gate.purge(&log_id)?;
        self.0.0.log.purge(log_id.index(), codec::encode_log_id(&log_id)).map_err(wal_error)?;
        self.0.0.wake.notify_one();
        Ok(())
    }
}
