//! The scrubber: reads everything that the store holds, computes every hash anew from what is there, and compares.
//!
//! redb checks nothing when it reads, so decay shows only to whoever looks. A scrub goes over the state in steps, each on a
//! view of its own: none is held for long, and the caller decides how fast. All steps look at one revision, whose sum of
//! hashes is known from its beginning. That stays exact while rows move from the head into the file and compaction removes
//! older versions; only when compaction passes the revision itself, or another state is put in the place of this one, is
//! there nothing left to compare with, and the scrub begins anew.

use std::sync::{Arc, Weak};

use bytes::Bytes;
use ringfence_types::Revision;

use crate::error::StoreError;
use crate::file::{OpenFile, guarded};
use crate::hash::{self, RowSum};
use crate::layout;
use crate::row::{Row, Stamp};
use crate::view::View;

/// What redb reads to find one version's value, beside the value itself: a page.
const SEARCH_BYTES: u64 = 4_096;

/// A scrub under way.
#[derive(Debug)]
pub struct Scrub {
    revision: Revision,
    expected: RowSum,
    /// The file that is looked at; a store whose state was replaced has another.
    file: Weak<OpenFile>,
    newest: RowSum,
    /// The last version looked at.
    after: Option<(Vec<u8>, Stamp)>,
    /// The last key of which a version at the revision was seen.
    last_key: Option<Vec<u8>>,
    progress: ScrubProgress,
}

/// How far a scrub is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ScrubProgress {
    /// Versions of keys whose hashes were computed anew.
    pub versions: u64,
    /// Keys that exist among them.
    pub keys: u64,
    /// Bytes read for it, about.
    pub bytes: u64,
}

/// What a step of a scrub came to. Damage is an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ScrubStep {
    /// There is more to read.
    More,
    /// Everything at the revision is what was applied.
    Sound {
        /// The revision that was looked at.
        revision: Revision,
    },
    /// The revision is gone, or the state has been replaced: a new scrub has to be begun.
    Overtaken,
}

/// The records change without a revision, so all of them are looked at in one step, on one view: they are few beside the keys.
fn check_records(view: &View) -> Result<(), StoreError> {
    let mut sum = RowSum::default();
    guarded(|| {
        let all = Bytes::new();
        let mut scan = view.sources.records(None, &all, None, view.state.until())?;
        while let Some((key, value)) = scan.step()? {
            sum.add(hash::record(&key, &value));
        }
        Ok(())
    })?;
    if sum != view.state.record_sum {
        return Err(StoreError::corrupt("its records are not those that were applied: the hash differs"));
    }
    Ok(())
}

impl Scrub {
    /// Begins a scrub of what `view` sees.
    #[must_use]
    pub fn begin(view: &View) -> Scrub {
        Scrub {
            revision: view.revision(),
            expected: view.state.row_sum,
            file: Arc::downgrade(&view.sources.base.file),
            newest: RowSum::default(),
            after: None,
            last_key: None,
            progress: ScrubProgress::default(),
        }
    }

    /// How far it is.
    #[must_use]
    pub fn progress(&self) -> ScrubProgress {
        self.progress
    }

    /// Whether `view` no longer tells what this scrub would have to see: its revision is gone, or its state is another.
    #[must_use]
    pub fn is_overtaken(&self, view: &View) -> bool {
        let file = &view.sources.base.file;
        view.compacted() > self.revision || !std::ptr::eq(self.file.as_ptr(), Arc::as_ptr(file))
    }

    /// Reads on, on a view no older than that of the step before, until about `bytes_max` bytes are read.
    ///
    /// # Errors
    /// [`StoreError::Corrupt`] where something is not what was applied; else a failure of the disk.
    pub fn step(&mut self, view: &View, bytes_max: u64) -> Result<ScrubStep, StoreError> {
        if self.is_overtaken(view) {
            return Ok(ScrubStep::Overtaken);
        }
        let until = self.progress.bytes.saturating_add(bytes_max);
        let after = self.after.take();
        let more = guarded(|| {
            let after = after.as_ref().map(|(key, stamp)| (key.as_slice(), *stamp));
            view.sources.versions_after(after, self.revision, &mut |key, row| {
                self.look(view, key, row)?;
                let more = self.progress.bytes < until;
                if !more {
                    self.after = Some((key.to_vec(), row.stamp));
                }
                Ok(more)
            })
        })?;
        if more {
            return Ok(ScrubStep::More);
        }
        if self.newest != self.expected {
            return Err(StoreError::corrupt("its keys are not those that were applied: the hash differs"));
        }
        check_records(view)?;
        Ok(ScrubStep::Sound { revision: self.revision })
    }

    /// Takes in one version, whose hash is computed anew from its value.
    fn look(&mut self, view: &View, key: &[u8], row: &Row) -> Result<(), StoreError> {
        let value_bytes = match view.sources.in_memory(key, row.stamp) {
            Some(value) if hash::row(key, row, &value) == row.hash => value.len(),
            Some(_) => {
                let revision = row.stamp.revision;
                return Err(StoreError::corrupt(format!(
                    "the value written at revision {revision} has changed in memory"
                )));
            }
            // The base computes the hash of what it finds, and compares.
            None => view.sources.base.value(key, row)?.len(),
        };
        self.progress.versions += 1;
        self.progress.bytes += SEARCH_BYTES + layout::version_bytes(key.len(), value_bytes);
        if self.last_key.as_deref() == Some(key) {
            return Ok(());
        }
        let last_key = self.last_key.get_or_insert_default();
        last_key.clear();
        last_key.extend_from_slice(key);
        if !row.deleted {
            self.newest.add(row.hash);
            self.progress.keys += 1;
        }
        Ok(())
    }
}
