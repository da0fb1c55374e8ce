//! The bytes of an outcome between members.

use bytes::Bytes;
use prost::Message;
use ringfence_types::Outcome;

use crate::command::DecodeError;
use crate::{log_from_types, log_to_types, log_v1};

/// The bytes of `outcome`.
#[must_use]
pub fn encode(outcome: &Outcome) -> Bytes {
    Bytes::from(log_from_types::outcome(outcome).encode_to_vec())
}

/// The outcome that `bytes` hold; its keys and values share their memory.
pub fn decode(bytes: &Bytes) -> Result<Outcome, DecodeError> {
    log_to_types::outcome(log_v1::Outcome::decode(bytes.clone())?)
}
