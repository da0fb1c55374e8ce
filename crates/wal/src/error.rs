//! What can go wrong with the log.

use std::io;
use std::sync::Arc;

use thiserror::Error;

/// Why the log did not do what it was asked.
#[derive(Debug, Error)]
pub enum WalError {
    /// The disk failed. If it failed in writing or syncing, the log is poisoned from now on.
    #[error("the log's disk failed while {doing}: {source}")]
    Io {
        /// What the log was doing.
        doing: &'static str,
        /// What the disk said.
        source: io::Error,
    },
    /// An earlier write or sync failed, so nothing is known of what is durable: the process must stop.
    #[error("the log has stopped for good, because {0}")]
    Poisoned(Arc<str>),
    /// The log is damaged at a place that had been durable. Nothing was changed.
    #[error("the log is corrupt in segment {segment:016x} at byte {offset} (batch {batch}): {reason}")]
    Corrupt {
        /// The segment's number, which is its file's name.
        segment: u64,
        /// Where in the segment.
        offset: u64,
        /// The number of the batch that should be there, or the smallest that it can have; 0 if that is not known.
        batch: u64,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// The log was written by a version of the program that this one does not know.
    #[error("the log's segment {segment:016x} has format {found}; this program reads up to {known}")]
    Format {
        /// The segment's number.
        segment: u64,
        /// The format that it says it has.
        found: u32,
        /// The newest format that this program reads.
        known: u32,
    },
    /// What was to be written does not fit into the log.
    #[error("{bytes} bytes are too many for one record of the log: at most {bytes_max} fit")]
    TooLarge {
        /// Bytes of the record.
        bytes: usize,
        /// Bytes that fit.
        bytes_max: usize,
    },
    /// The options contradict themselves.
    #[error("the log's options cannot be met: {0}")]
    Options(&'static str),
}

impl WalError {
    /// Names what the log was doing when the disk failed.
    pub(crate) fn io(doing: &'static str) -> impl FnOnce(io::Error) -> WalError {
        move |source| WalError::Io { doing, source }
    }
}
