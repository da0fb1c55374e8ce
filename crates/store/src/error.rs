//! What can go wrong here: failures, which stop the node, and refusals of reads, which do not.

use std::io;

use ringfence_types::Rejection;
use thiserror::Error;

/// The state cannot be read or written: the node that has it must stop.
#[derive(Debug, Error)]
pub enum StoreError {
    /// The file system refused. What was being written may or may not be there after a restart.
    #[error("the state file could not be read or written: {0}")]
    Io(#[from] io::Error),
    /// The file holds what was never written: it was cut short, or changed behind the store's back.
    #[error("the state file is corrupt: {0}")]
    Corrupt(String),
    /// The file is of a format that this version does not read.
    #[error("the state file has format {found}, this version reads format {expected}")]
    Format {
        /// What the file says.
        found: u32,
        /// What this version reads.
        expected: u32,
    },
    /// An earlier failure left it unknown what the file holds; only a restart can tell.
    #[error("an earlier failure of the state file is final: the node must be restarted")]
    Failed,
    /// The log holds a command that no writer writes.
    #[error("entry {index} of the log holds no command: {reason}")]
    Command {
        /// The entry's index.
        index: u64,
        /// What is wrong with it.
        reason: String,
    },
}

/// Why a read has no answer.
#[derive(Debug, Error)]
pub enum ReadError {
    /// The question cannot be answered by any member: the revision is gone, or not there yet.
    #[error(transparent)]
    Rejected(#[from] Rejection),
    /// The state could not be read: the node must stop.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl StoreError {
    pub(crate) fn corrupt(what: impl Into<String>) -> StoreError {
        StoreError::Corrupt(what.into())
    }
}

impl From<redb::StorageError> for StoreError {
    fn from(error: redb::StorageError) -> StoreError {
        match error {
            redb::StorageError::Io(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                StoreError::corrupt("it ends before its content does: it was cut short")
            }
            redb::StorageError::Io(error) if error.kind() == io::ErrorKind::InvalidData => {
                StoreError::corrupt(error.to_string())
            }
            redb::StorageError::Io(error) => StoreError::Io(error),
            redb::StorageError::PreviousIo => StoreError::Failed,
            other => StoreError::corrupt(other.to_string()),
        }
    }
}

impl From<redb::DatabaseError> for StoreError {
    fn from(error: redb::DatabaseError) -> StoreError {
        match error {
            redb::DatabaseError::Storage(error) => error.into(),
            other => StoreError::corrupt(other.to_string()),
        }
    }
}

impl From<redb::TransactionError> for StoreError {
    fn from(error: redb::TransactionError) -> StoreError {
        match error {
            redb::TransactionError::Storage(error) => error.into(),
            other => StoreError::corrupt(other.to_string()),
        }
    }
}

impl From<redb::TableError> for StoreError {
    fn from(error: redb::TableError) -> StoreError {
        match error {
            redb::TableError::Storage(error) => error.into(),
            other => StoreError::corrupt(other.to_string()),
        }
    }
}

impl From<redb::CommitError> for StoreError {
    fn from(error: redb::CommitError) -> StoreError {
        match error {
            redb::CommitError::Storage(error) => error.into(),
            other => StoreError::corrupt(other.to_string()),
        }
    }
}

impl From<redb::CursorError> for StoreError {
    fn from(error: redb::CursorError) -> StoreError {
        match error {
            redb::CursorError::Storage(error) => error.into(),
            other => StoreError::corrupt(other.to_string()),
        }
    }
}
