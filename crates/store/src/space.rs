//! How much of the state file is in use: a file never shrinks by itself, its free pages wait for new rows.

use std::sync::atomic::Ordering;

use redb::{ReadableTableMetadata, TableStats};

use crate::base::Base;
use crate::error::StoreError;
use crate::file::guarded;
use crate::store::Store;

/// What the state file takes, and what it needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Space {
    /// Bytes that it takes on the disk.
    disk_bytes: u64,
    /// Bytes of its pages that hold something.
    used_bytes: u64,
}

impl Space {
    /// Whether so much of the file is free that it is worth a rebuild.
    fn is_hollow(self, free_bytes_min: u64) -> bool {
        let free = self.disk_bytes.saturating_sub(self.used_bytes);
        free >= free_bytes_min && free > self.disk_bytes / 2
    }
}

impl Base {
    /// Looks at every page in use: a second or so for each GB. Of a snapshot of the file, so nobody waits for it.
    fn used_bytes(&self) -> Result<u64, StoreError> {
        let bytes =
            |stats: TableStats| stats.stored_bytes() + stats.metadata_bytes() + stats.fragmented_bytes();
        guarded(|| Ok(bytes(self.index.stats()?) + bytes(self.history.stats()?)))
    }
}

impl Store {
    /// Whether more than half of the state file is free, and at least `rebuild_free_bytes_min`. At times this reads the
    /// whole file, on the caller's thread.
    ///
    /// Rows do not tell how full their pages are: trees of small rows that came in any order take twice the rows' bytes,
    /// and a checkpoint needs room for the pages that it replaces. So the pages are counted where the rows explain less than
    /// half of the file, and again only when that has become worse.
    ///
    /// # Errors
    /// As the file system's, and [`StoreError::Corrupt`] where the file cannot be read.
    pub fn is_rebuild_due(&self) -> Result<bool, StoreError> {
        // A checkpoint under way has written what no snapshot of the file shows yet; the next look comes soon.
        let Some(between) = self.maintenance.try_lock() else { return Ok(false) };
        let base = self.view().sources.base.clone();
        let disk_bytes = base.file.disk_bytes()?;
        drop(between);
        if self.has_compaction_to_do(&base) {
            return Ok(false);
        }
        let min = self.options.rebuild_free_bytes_min;
        // Free pages, and what redb needs to find the rows.
        let unexplained = disk_bytes.saturating_sub(base.row_bytes);
        let surveyed = self.surveyed.fetch_min(unexplained, Ordering::Relaxed).min(unexplained);
        if unexplained < surveyed.saturating_add(min) || unexplained <= disk_bytes / 2 {
            return Ok(false);
        }
        self.surveyed.store(unexplained, Ordering::Relaxed);
        Ok(Space { disk_bytes, used_bytes: base.used_bytes()? }.is_hollow(min))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_hollow_when_most_of_it_is_free_and_that_is_worth_it() {
        let is_hollow = |disk_bytes, used_bytes| Space { disk_bytes, used_bytes }.is_hollow(64);
        assert!(is_hollow(1_000, 100) && is_hollow(129, 64));
        assert!(!is_hollow(1_000, 500), "a half is not more than a half");
        assert!(!is_hollow(100, 40), "not worth it");
        assert!(!is_hollow(100, 200), "a hole is full of nothing");
    }
}
