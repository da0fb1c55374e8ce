//! What fuzz targets reach of this crate, and nobody else: everything that reads bytes of peers, of the log's records and
//! of the identity file. All of it answers whatever it is given with a value or an error.

use std::fmt::Debug;
use std::io;

use bytes::Bytes;

pub use crate::net::fuzzing::{handshake, peer_frames, snapshot_transfer};
use crate::raft::codec;

/// Reads what the log keeps for openraft: the first byte says what the others are.
///
/// # Panics
/// If something that can be read is written as something else.
pub fn raft_records(data: &[u8]) {
    let Some((kind, bytes)) = data.split_first() else { return };
    let bytes = Bytes::copy_from_slice(bytes);
    match kind % 4 {
        0 => round_trip(&bytes, codec::decode_entry, codec::encode_entry),
        1 => round_trip(&bytes, codec::decode_vote, codec::encode_vote),
        2 => round_trip(&bytes, codec::decode_log_id, codec::encode_log_id),
        _ => round_trip(&bytes, codec::decode_membership, codec::encode_membership),
    }
}

fn round_trip<T: Debug + PartialEq>(
    bytes: &Bytes,
    decode: impl Fn(&Bytes) -> io::Result<T>,
    encode: impl Fn(&T) -> Bytes,
) {
    if let Ok(value) = decode(bytes) {
        assert_eq!(decode(&encode(&value)).expect("our own bytes"), value);
    }
}

/// Reads an identity file of these lines, under a right checksum.
///
/// # Panics
/// If an identity that can be read is written as another one.
pub fn identity_file(lines: &str) {
    crate::identity::check_lines(lines);
}
