//! The bytes of a command in the log.

use bytes::Bytes;
use prost::Message;
use ringfence_types::Command;
use thiserror::Error;

use crate::{log_from_types, log_to_types, log_v1};

/// Bytes that are no command or outcome that this build understands.
#[derive(Debug, Error)]
pub enum DecodeError {
    /// The bytes are not in the format at all.
    #[error("the message is malformed: {0}")]
    Malformed(#[from] prost::DecodeError),
    /// A field that every writer sets is absent, or its kind is one that a newer version added.
    #[error("{field} is absent or of a kind that this version does not know")]
    Unknown {
        /// The field, by the message that it belongs to.
        field: &'static str,
    },
    /// Fields contradict each other, or hold what no writer writes.
    #[error("{field} holds what no writer writes")]
    Contradiction {
        /// The field, by the message that it belongs to.
        field: &'static str,
    },
}

/// The bytes of `command`: written once, then shared by the log, the peers and `apply`.
#[must_use]
pub fn encode(command: &Command) -> Bytes {
    Bytes::from(log_from_types::command(command).encode_to_vec())
}

/// The command that `bytes` hold; its keys and values share their memory.
pub fn decode(bytes: &Bytes) -> Result<Command, DecodeError> {
    log_to_types::command(log_v1::Command::decode(bytes.clone())?)
}
