//! The physical part of compaction: removing what no reader may ask for any more.
//!
//! A version below the compacted revision is out of reach once a younger one of its key stands at or below it, and a
//! tombstone at once. The changes of the compacted revision itself stay whole, so that a watch can begin there. So nothing
//! but the changes since the last sweep has to be looked at: each of them makes at most the one version that it replaced
//! superfluous, and itself if it is a tombstone. The work follows the number of changes, not the number of keys.

use redb::{ReadableTable, Table, WriteTransaction};
use ringfence_types::Revision;

use crate::base::Base;
use crate::error::StoreError;
use crate::layout::{self, HISTORY, INDEX, IndexKey, IndexValue, StampKey};
use crate::row::Stamp;

/// Changes that one checkpoint sweeps at most, so that it ends soon whatever was compacted.
const CHANGES_MAX: usize = 10_000;

/// What a sweep has done.
pub(crate) struct Swept {
    /// Everything up to here is swept now.
    pub up_to: Stamp,
    /// Bytes of the rows removed.
    pub bytes: u64,
    /// Versions removed.
    pub versions: u64,
}

impl Swept {
    /// That nothing was looked at after `swept`.
    pub fn nothing(swept: Stamp) -> Swept {
        Swept { up_to: swept, bytes: 0, versions: 0 }
    }
}

impl Base {
    /// Whether the file still holds changes that compaction has to look at.
    pub fn has_compaction_left(&self) -> bool {
        goal(self.state.compacted).is_some_and(|goal| self.swept < goal)
    }

    /// Whether all that compaction up to `revision` removes has been removed.
    pub fn is_swept(&self, revision: Revision) -> bool {
        self.state.compacted >= revision && goal(revision).is_none_or(|goal| self.swept >= goal)
    }
}

/// What is to be swept: everything up to the compacted revision.
fn goal(compacted: Revision) -> Option<Stamp> {
    (compacted > Revision(0)).then(|| Stamp::last_of(compacted))
}

/// The first change that has to be looked at. Those of an earlier compacted revision are looked at again: their tombstones
/// stayed then.
fn first_after(swept: Stamp) -> Stamp {
    if swept == Stamp::last_of(swept.revision) {
        return Stamp { revision: swept.revision, sub: 0 };
    }
    swept.after()
}

/// Sweeps on from `swept` towards the compacted revision.
pub(crate) fn sweep(
    transaction: &WriteTransaction,
    swept: Stamp,
    compacted: Revision,
) -> Result<Swept, StoreError> {
    let mut done = Swept::nothing(swept);
    let Some(goal) = goal(compacted).filter(|goal| swept < *goal) else { return Ok(done) };
    let mut index = transaction.open_table(INDEX)?;
    let mut history = transaction.open_table(HISTORY)?;
    let changes = changes_between(&history, swept, goal)?;
    done.up_to =
        if changes.len() < CHANGES_MAX { goal } else { changes.last().map_or(goal, |change| change.stamp) };
    let mut doomed: Vec<(Vec<u8>, Stamp)> = Vec::new();
    for change in &changes {
        let older = older_versions(&index, change)?;
        doomed.extend(older.into_iter().filter(|(_, stamp)| stamp.revision < compacted));
        if change.deleted && change.stamp.revision < compacted {
            doomed.push((layout::index_key(&change.key, change.stamp), change.stamp));
        }
    }
    // A key that changed several times within the piece dooms its oldest versions more than once. Sorting also lets
    // the removals go through each tree from left to right.
    doomed.sort_unstable();
    doomed.dedup();
    for (index_key, _) in &doomed {
        index.remove(index_key.as_slice())?;
    }
    doomed.sort_unstable_by_key(|(_, stamp)| *stamp);
    for (index_key, stamp) in &doomed {
        let Some(removed) = history.remove(&layout::encode_stamp(*stamp))? else {
            return Err(StoreError::corrupt(format!("the history lacks revision {}", stamp.revision)));
        };
        let row = layout::decode_history_row(*stamp, removed.value())?;
        done.bytes += layout::version_bytes(layout::key_of(index_key).len(), row.value.len());
        done.versions += 1;
    }
    Ok(done)
}

struct SweptChange {
    key: Vec<u8>,
    stamp: Stamp,
    deleted: bool,
}

/// The first changes after `swept`, up to `goal`.
fn changes_between(
    history: &Table<'_, StampKey, &'static [u8]>,
    swept: Stamp,
    goal: Stamp,
) -> Result<Vec<SweptChange>, StoreError> {
    let (from, to) = (layout::encode_stamp(first_after(swept)), layout::encode_stamp(goal));
    let mut changes = Vec::new();
    for entry in history.range::<&[u8; layout::STAMP_BYTES]>(&from..=&to)?.take(CHANGES_MAX) {
        let (stamp, value) = entry?;
        let stamp = layout::decode_stamp(stamp.value())?;
        let row = layout::decode_history_row(stamp, value.value())?;
        changes.push(SweptChange { key: row.key.to_vec(), stamp, deleted: row.row.deleted });
    }
    Ok(changes)
}

/// The versions of the change's key that are older than the change.
fn older_versions(
    index: &Table<'_, IndexKey, IndexValue>,
    change: &SweptChange,
) -> Result<Vec<(Vec<u8>, Stamp)>, StoreError> {
    let younger = layout::index_key(&change.key, change.stamp);
    let oldest = layout::index_key(&change.key, Stamp::MIN);
    let bounds =
        (std::ops::Bound::Excluded(younger.as_slice()), std::ops::Bound::Included(oldest.as_slice()));
    let mut older = Vec::new();
    for entry in index.range::<&[u8]>(bounds)? {
        let (index_key, _) = entry?;
        older.push((index_key.value().to_vec(), layout::stamp_of(index_key.value())?));
    }
    Ok(older)
}
