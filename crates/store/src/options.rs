//! How much memory and disk a store may use, and what it tells about itself.

use crate::marks::HASH_STEP;

/// The bounds of a store, and how often it remembers its hash.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Options {
    /// Size of redb's page cache.
    pub cache_bytes: usize,
    /// From this size of the head on a checkpoint is due.
    pub head_bytes_soft: usize,
    /// From this size of the head on nothing more may be applied until a checkpoint has freed it.
    pub head_bytes_max: usize,
    /// A state file is rebuilt when more than half of it is free, and at least so many bytes.
    pub rebuild_free_bytes_min: u64,
    /// The hash is remembered at every index that is a multiple of this.
    pub hash_step: u64,
}

impl Default for Options {
    /// A merge rewrites every page of the index that one of its rows falls on, so twice the head costs half as much a row
    /// where the keys are many. Head, frozen head and cache together stay below 400 MiB.
    fn default() -> Options {
        Options {
            cache_bytes: 128 << 20,
            head_bytes_soft: 64 << 20,
            head_bytes_max: 128 << 20,
            rebuild_free_bytes_min: 64 << 20,
            hash_step: HASH_STEP,
        }
    }
}

/// What a store tells about itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Stats {
    /// Length of the state file.
    pub file_bytes: u64,
    /// Bytes of the rows in the state file, without what redb needs to find them.
    pub in_use_bytes: u64,
    /// Memory of the head.
    pub head_bytes: u64,
    /// Memory of the frozen head; 0 while no checkpoint runs.
    pub frozen_bytes: u64,
    /// Checkpoints since the store was opened.
    pub checkpoints: u64,
    /// Rows merged from heads into the base since the store was opened.
    pub rows_merged: u64,
    /// Versions of keys removed by compaction since the store was opened.
    pub versions_compacted: u64,
    /// Rebuilds of the state file since the store was opened.
    pub rebuilds: u64,
    /// Bytes of disk that rebuilds have given back since the store was opened.
    pub bytes_given_back: u64,
}
