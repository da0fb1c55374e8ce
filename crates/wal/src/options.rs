//! How a log is laid out, and how much of it stays in memory.

use crate::error::WalError;
use crate::layout::{
    BATCH_HEADER_BYTES, BLOCK_BYTES, RECORD_HEADER_BYTES, RESTATED_BYTES_MAX, SEGMENT_BYTES_MAX,
    SEGMENT_BYTES_MIN,
};

/// How a log is laid out, and how much of it stays in memory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// Size of new segments. Segments of another size that exist already go on being used.
    pub segment_bytes: u64,
    /// Soft bound on the records of one batch, in bytes; a batch always holds at least one.
    pub batch_bytes_max: usize,
    /// Bytes of the newest entries that stay in memory once they are durable. Those that are not durable always do.
    pub cache_bytes: usize,
    /// Most segments that are kept for recycling when all their entries are purged.
    pub recycled_segments_max: usize,
    /// Mixed into the checksum of each batch header when the log is made, and read from it ever after. Where clients
    /// can choose what the entries hold it should be a number that they cannot guess: then nobody can write a value
    /// that looks like a batch.
    pub salt: u64,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            segment_bytes: 64 << 20,
            batch_bytes_max: 8 << 20,
            cache_bytes: 64 << 20,
            recycled_segments_max: 2,
            salt: 0,
        }
    }
}

impl Options {
    pub(crate) fn check(&self) -> Result<(), WalError> {
        if !(SEGMENT_BYTES_MIN..=SEGMENT_BYTES_MAX).contains(&self.segment_bytes) {
            return Err(WalError::Options("a segment has 16 KiB at least and 1 GiB at most"));
        }
        if !self.segment_bytes.is_multiple_of(BLOCK_BYTES as u64) {
            return Err(WalError::Options("a segment's size is a multiple of 512"));
        }
        Ok(())
    }

    /// Most bytes of records in one batch: what fits into a fresh segment beside all that its first batch restates.
    pub(crate) fn records_bytes_max(&self) -> usize {
        let segment_bytes = usize::try_from(self.segment_bytes).expect("its size is bounded");
        segment_bytes - BLOCK_BYTES - RESTATED_BYTES_MAX
    }

    /// Largest data of an entry.
    pub(crate) fn entry_bytes_max(&self) -> usize {
        self.records_bytes_max() - RECORD_HEADER_BYTES - size_of::<u64>()
    }
}

const _: () = assert!(BATCH_HEADER_BYTES < BLOCK_BYTES, "a batch header lies within one block");
