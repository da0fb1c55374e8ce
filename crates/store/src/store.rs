//! The store: one state machine over one directory.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use parking_lot::{Mutex, RwLock};
use ringfence_disk::Disk;
use ringfence_types::{Grant, Index, Lease, LeaseId, LeaseTime, Outcome, Revision};

use crate::apply::{self, Entry};
use crate::base::Base;
use crate::error::StoreError;
use crate::file;
use crate::head::Head;
use crate::lease_table::LeaseTable;
use crate::marks::{HashMark, HashMarks};
use crate::options::{Options, Stats};
use crate::sources::Sources;
use crate::state::{Position, State};
use crate::view::View;

/// The state machine of one node.
///
/// One thread applies, another checkpoints, any number take views:
///
/// ```text
/// apply(entries)   -> rows into the head, then a new applied index and revision for every later view
/// checkpoint()     -> head frozen, merged into the file, synced, dropped; a crash goes back to here
/// open(), applied() -> the position of the last checkpoint: replay the log from the entry after it
/// ```
///
/// Invariants:
/// - entries are applied in the order of the log, each exactly once, and become visible a batch at a time;
/// - the file is always the state at one applied index, whatever was in memory;
/// - after a failure of the file nothing is written to it any more ([`StoreError::Failed`]).
pub struct Store {
    pub(crate) disk: Arc<dyn Disk>,
    pub(crate) options: Options,
    /// What views are made of. Locked for the moment of a copy or a swap.
    pub(crate) current: RwLock<View>,
    /// Held for a batch, and by a checkpoint for the moment in which it freezes the head: between two batches.
    pub(crate) applying: Mutex<()>,
    apply_entered: AtomicBool,
    /// Held by whatever writes the file; keeps what could not be freed yet because a view saw it.
    pub(crate) maintenance: Mutex<Retired>,
    /// Held by a rebuild from its beginning to its end.
    pub(crate) rebuild: Mutex<()>,
    /// Whether a rebuild is under way, so that compaction waits. Changed with `maintenance` locked alone.
    pub(crate) rebuilding: AtomicBool,
    /// The bytes of the file that its rows did not explain when it was last looked at page by page.
    pub(crate) surveyed: AtomicU64,
    pub(crate) failed: AtomicBool,
    /// Locked for the moment of a look or an addition.
    pub(crate) marks: Mutex<HashMarks>,
    pub(crate) counters: Counters,
}

/// Heads and snapshots that are out of use. They are freed here, not by the reader that happens to be the last to let
/// go: freeing a head takes milliseconds, and closing a file syncs it.
#[derive(Default)]
pub(crate) struct Retired {
    heads: Vec<Arc<Head>>,
    bases: Vec<Arc<Base>>,
}

#[derive(Default)]
pub(crate) struct Counters {
    pub checkpoints: AtomicU64,
    pub rows_merged: AtomicU64,
    pub versions_compacted: AtomicU64,
    pub rebuilds: AtomicU64,
    pub bytes_given_back: AtomicU64,
}

impl Store {
    /// Opens the state in `disk`, or makes an empty one. Takes as long however many keys there are.
    ///
    /// # Errors
    /// [`StoreError::Corrupt`] where the state file is cut short or damaged, [`StoreError::Format`] where it is of
    /// another version, else as the file system's.
    pub fn open(disk: Arc<dyn Disk>, options: Options) -> Result<Store, StoreError> {
        let file = file::open_state_file(disk.as_ref(), options.cache_bytes)?;
        let base = Base::new(Arc::new(file))?;
        let leases = file::guarded(|| LeaseTable::of(&base))?;
        Ok(Store {
            disk,
            options,
            current: RwLock::new(View::of_base_with(Arc::new(base), Arc::new(leases))),
            applying: Mutex::new(()),
            apply_entered: AtomicBool::new(false),
            maintenance: Mutex::default(),
            rebuild: Mutex::default(),
            rebuilding: AtomicBool::new(false),
            surveyed: AtomicU64::new(0),
            failed: AtomicBool::new(false),
            marks: Mutex::default(),
            counters: Counters::default(),
        })
    }

    /// How far the state is, in memory included.
    #[must_use]
    pub fn applied(&self) -> Position {
        self.current.read().position()
    }

    /// How far the file is: what a crash leaves.
    #[must_use]
    pub fn checkpointed(&self) -> Position {
        self.current.read().sources.base.state.position.clone()
    }

    /// Carries out entries, in order; each gets its outcome. They become visible together, when all are carried out.
    ///
    /// # Errors
    /// A failure to read the file, or an entry that no writer writes. Nothing of the batch is visible then, and nothing
    /// more is applied.
    ///
    /// # Panics
    /// If the entries are not exactly the next ones of the log, or if two threads apply at once.
    pub fn apply(&self, entries: &[Entry]) -> Result<Vec<Outcome>, StoreError> {
        self.apply_with(|sources, state| {
            let mut outcomes = Vec::with_capacity(entries.len());
            for entry in entries {
                outcomes.push(apply::entry(sources, state, entry)?);
                if let Some(mark) = HashMark::of(state, self.options.hash_step) {
                    self.marks.lock().push(mark);
                }
            }
            Ok(outcomes)
        })
    }

    /// The marks after `index` that are remembered: hashes that members may compare with each other.
    #[must_use]
    pub fn hash_marks(&self, after: Index) -> Vec<HashMark> {
        self.marks.lock().after(after)
    }

    /// Runs one batch on a copy of the state's meta, and publishes what it has become.
    pub(crate) fn apply_with<T>(
        &self,
        batch: impl FnOnce(&Sources, &mut State) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        assert!(!self.apply_entered.swap(true, Ordering::AcqRel), "one thread applies at a time");
        let answer = self.apply_locked(batch);
        self.apply_entered.store(false, Ordering::Release);
        answer
    }

    fn apply_locked<T>(
        &self,
        batch: impl FnOnce(&Sources, &mut State) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let _applying = self.applying.lock();
        self.check_usable()?;
        let View { sources, state } = self.view();
        let mut next = State::clone(&state);
        let answer = batch(&sources, &mut next);
        if answer.is_err() {
            // The head may hold rows of the batch's first entries; they must never be counted to another revision.
            self.failed.store(true, Ordering::Release);
            return answer;
        }
        assert!(next.revision >= state.revision, "the revision never falls");
        self.current.write().state = Arc::new(next);
        answer
    }

    /// The newest state.
    #[must_use]
    pub fn view(&self) -> View {
        self.current.read().clone()
    }

    /// Leases whose deadlines are at or before `clock`, the earliest first, up to `count_max` of them.
    #[must_use]
    pub fn due_leases(&self, clock: LeaseTime, count_max: usize) -> Vec<Grant> {
        self.current.read().sources.leases.due(clock, count_max)
    }

    /// A lease in the newest state, which may be ahead of every view: a hint that apply judges again.
    #[must_use]
    pub fn newest_lease(&self, lease: LeaseId) -> Option<Lease> {
        self.current.read().sources.leases.lease(lease)
    }

    /// The number of leases in force.
    #[must_use]
    pub fn lease_count(&self) -> usize {
        self.current.read().sources.leases.count()
    }

    /// Memory of the head: what the next checkpoint will merge.
    #[must_use]
    pub fn head_bytes(&self) -> usize {
        self.current.read().sources.head.bytes()
    }

    /// What the state needs of the disk, in bytes: the rows in the file, and those that wait in memory. Deletions and compaction
    /// bring it down. Cheap enough for each write.
    #[must_use]
    pub fn used_bytes(&self) -> u64 {
        let current = self.current.read();
        let sources = &current.sources;
        let frozen = sources.frozen.as_ref().map_or(0, |frozen| frozen.bytes());
        sources.base.row_bytes + (sources.head.bytes() + frozen) as u64
    }

    /// Whether a checkpoint should be made soon: the head is large, or compaction has work left.
    #[must_use]
    pub fn is_checkpoint_due(&self) -> bool {
        let view = self.view();
        view.sources.head.bytes() >= self.options.head_bytes_soft || self.is_sweep_due(&view)
    }

    /// Whether the next checkpoint would find something to compact.
    #[must_use]
    pub fn has_sweep_left(&self) -> bool {
        self.is_sweep_due(&self.view())
    }

    /// The same, what was applied since the last checkpoint included.
    fn is_sweep_due(&self, view: &View) -> bool {
        let base = &view.sources.base;
        let is_behind = base.has_compaction_left() || view.state.compacted > base.state.compacted;
        is_behind && !self.rebuilding.load(Ordering::Acquire)
    }

    /// Whether the file holds nothing any more that compaction up to `revision` removes. False while that revision is not
    /// compacted.
    #[must_use]
    pub fn is_swept(&self, revision: Revision) -> bool {
        self.current.read().sources.base.is_swept(revision)
    }

    /// Whether the next checkpoint has something to compact. Compaction waits for the end of a rebuild, which has to take
    /// over everything that happens to the file meanwhile.
    pub(crate) fn has_compaction_to_do(&self, base: &Base) -> bool {
        base.has_compaction_left() && !self.rebuilding.load(Ordering::Acquire)
    }

    /// Whether nothing more may be applied until a checkpoint has freed the head.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.head_bytes() >= self.options.head_bytes_max
    }

    /// Numbers for status and metrics.
    ///
    /// # Errors
    /// As the file system's.
    pub fn stats(&self) -> Result<Stats, StoreError> {
        let view = self.view();
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Ok(Stats {
            file_bytes: view.sources.base.file.bytes()?,
            in_use_bytes: view.sources.base.row_bytes,
            head_bytes: view.sources.head.bytes() as u64,
            frozen_bytes: view.sources.frozen.as_ref().map_or(0, |frozen| frozen.bytes() as u64),
            checkpoints: count(&self.counters.checkpoints),
            rows_merged: count(&self.counters.rows_merged),
            versions_compacted: count(&self.counters.versions_compacted),
            rebuilds: count(&self.counters.rebuilds),
            bytes_given_back: count(&self.counters.bytes_given_back),
        })
    }

    /// Puts a newer snapshot of the file, or another file, in the place of the current base; a frozen head is in it.
    pub(crate) fn replace_base(&self, fresh: Base) {
        let replaced = {
            let mut current = self.current.write();
            let sources = Sources {
                head: Arc::clone(&current.sources.head),
                frozen: None,
                base: Arc::new(fresh),
                leases: Arc::clone(&current.sources.leases),
            };
            std::mem::replace(&mut current.sources, Arc::new(sources))
        };
        drop(replaced);
    }

    /// Frees what is out of use and no view sees any more. A checkpoint does it too; this is for a node at rest. Takes its
    /// time where a file has to be closed.
    pub fn tidy(&self) {
        self.maintenance.lock().take(None, None);
    }

    /// Whether an earlier failure is final.
    #[must_use]
    pub fn has_failed(&self) -> bool {
        self.failed.load(Ordering::Acquire)
    }

    pub(crate) fn check_usable(&self) -> Result<(), StoreError> {
        if self.has_failed() { Err(StoreError::Failed) } else { Ok(()) }
    }

    /// Remembers that what the file holds is no longer known.
    pub(crate) fn fail<T>(&self, result: Result<T, StoreError>) -> Result<T, StoreError> {
        if result.is_err() {
            self.failed.store(true, Ordering::Release);
        }
        result
    }
}

impl Retired {
    /// Takes over what is out of use, and frees what no view sees any more.
    pub fn take(&mut self, head: Option<Arc<Head>>, base: Option<Arc<Base>>) {
        self.heads.extend(head);
        self.bases.extend(base);
        self.heads.retain(|head| Arc::strong_count(head) > 1);
        self.bases.retain(|base| Arc::strong_count(base) > 1);
    }
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Store")
            .field("disk", &self.disk)
            .field("applied", &self.applied())
            .finish_non_exhaustive()
    }
}
