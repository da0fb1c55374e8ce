//! A start replays the log's tail, and each command of it needs the newest row of its keys. On a cold disk, one read after
//! the other, that took most of a start; here the reads are made before, side by side and in the order of the keys, so
//! that each page of the state file is read once and apply finds all of them in memory.

use std::collections::BTreeSet;
use std::io;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::future::join_all;
use ringfence_store::{Store, View};
use ringfence_types::{
    Command, DeleteRange, KeyRange, Operation, Put, RangeEnd, RangeQuery, Txn, Write, limits,
};

use crate::raft::log_store::LogStore;
use crate::rt;

/// Reads under way at once. Disks answer many as fast as one.
const READERS: usize = 8;
/// Below this many keys a start is quick anyway.
const KEYS_MIN: usize = 256;

/// Reads what the replay of the log's tail is going to need. What fails here fails in the replay too, and is told there.
pub(crate) async fn warm(log: &LogStore, store: &Arc<Store>) -> io::Result<()> {
    let (log, view) = (log.clone(), store.view());
    let keys = rt::blocking(move || keys_to_replay(&log, &view)).await??;
    if keys.len() < KEYS_MIN {
        return Ok(());
    }
    let share = keys.len().div_ceil(READERS);
    let readers = keys.chunks(share).map(|keys| {
        let (keys, view) = (keys.to_vec(), store.view());
        rt::blocking(move || read(&view, keys))
    });
    join_all(readers).await.into_iter().collect::<io::Result<()>>()
}

fn read(view: &View, keys: Vec<Bytes>) {
    for key in keys {
        let mut query = RangeQuery::new(KeyRange::single(key));
        query.keys_only = true;
        if view.range(&query).is_err() {
            return;
        }
    }
}

/// The keys that the committed entries after the state's position write or compare, in order.
fn keys_to_replay(log: &LogStore, view: &View) -> io::Result<Vec<Bytes>> {
    let (_, _, committed) = log.positions()?;
    let mut keys = BTreeSet::new();
    let mut next = view.applied().map_or(0, |applied| applied.index.0 + 1);
    let until = committed.map_or(0, |committed| committed.index() + 1);
    while next < until {
        let entries = log.entries(next, until, limits::WAL_BATCH_BYTES_MAX)?;
        let Some(last) = entries.last() else { break };
        next = last.log_id.index() + 1;
        for entry in &entries {
            if let openraft::EntryPayload::Normal(sealed) = &entry.payload
                && let Ok(command) = ringfence_proto::command::decode(&sealed.command)
            {
                collect(&command, &mut keys);
            }
        }
    }
    Ok(keys.into_iter().collect())
}

fn collect(command: &Command, keys: &mut BTreeSet<Bytes>) {
    match command {
        Command::Put(put) => collect_put(put, keys),
        Command::DeleteRange(delete) => collect_deletion(delete, keys),
        Command::Txn(txn) => collect_txn(txn, keys),
        Command::Conditional(conditional) => match &conditional.write {
            Write::Put(put) => collect_put(put, keys),
            Write::DeleteRange(delete) => collect_deletion(delete, keys),
            Write::Txn(txn) => collect_txn(txn, keys),
        },
        Command::Compact { .. }
        | Command::ChangeAlarm { .. }
        | Command::PublishMember { .. }
        | Command::ChangeMember(_)
        | Command::Lease { .. }
        | Command::ChangeGuard(_)
        | Command::Resolve { .. } => {}
    }
}

fn collect_put(put: &Put, keys: &mut BTreeSet<Bytes>) {
    keys.insert(put.key.clone());
}

fn collect_deletion(delete: &DeleteRange, keys: &mut BTreeSet<Bytes>) {
    keys.insert(delete.range.start.clone());
}

fn collect_txn(txn: &Txn, keys: &mut BTreeSet<Bytes>) {
    let compared = txn.compares.iter().filter(|compare| compare.range.end == RangeEnd::Single);
    keys.extend(compared.map(|compare| compare.range.start.clone()));
    for operation in txn.success.iter().chain(&txn.failure) {
        match operation {
            Operation::Put(put) => collect_put(put, keys),
            Operation::DeleteRange(delete) => collect_deletion(delete, keys),
            Operation::Range(_) | Operation::Txn(_) => {}
        }
    }
}
