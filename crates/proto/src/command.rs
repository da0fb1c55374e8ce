//! The bytes of a command in the log.

use bytes::{BufMut, Bytes, BytesMut};
use prost::Message;
use prost::encoding::{WireType, decode_key, encode_key, encode_varint};
use ringfence_types::{Command, LeaseTime};
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

/// The field of a command that holds the leader's reading of the lease clock.
const LEASE_CLOCK_FIELD: u32 = 32;
/// The kinds of commands about leases, by their fields.
const LEASE_KINDS: std::ops::RangeInclusive<u32> = 6..=10;

/// The kinds of commands that may need more room than they give back, by their fields: puts, transactions, conditional writes, grants
/// of leases and changes of guards.
const CLAIMING_KINDS: [u32; 5] = [1, 3, 5, 7, 12];

/// Whether `bytes` may be a command that needs more room than it gives back; [`Command::claim`] says whether it is. Looks at the
/// first byte or two.
#[must_use]
pub fn may_claim_space(bytes: &Bytes) -> bool {
    decode_key(&mut bytes.as_ref()).is_ok_and(|(field, _)| CLAIMING_KINDS.contains(&field))
}

/// Whether `bytes` are a command about leases, which the leader has to put its clock on.
#[must_use]
pub fn wants_lease_clock(bytes: &Bytes) -> bool {
    // A command's kind stands first, since every writer writes fields in the order of their numbers.
    decode_key(&mut bytes.as_ref()).is_ok_and(|(field, _)| LEASE_KINDS.contains(&field))
}

/// The command in `bytes` with the leader's reading of the lease clock on it; an earlier one counts no more.
#[must_use]
pub fn with_lease_clock(bytes: &Bytes, clock: LeaseTime) -> Bytes {
    let mut stamped = BytesMut::with_capacity(bytes.len() + 12);
    stamped.put_slice(bytes);
    // Of a field that stands there twice the last one counts.
    encode_key(LEASE_CLOCK_FIELD, WireType::Varint, &mut stamped);
    encode_varint(clock.0, &mut stamped);
    stamped.freeze()
}

#[cfg(test)]
mod tests {
    use ringfence_types::{
        Claim, Conditional, DeleteRange, Grant, GuardChange, Index, KeyRange, LeaseCommand, LeaseId,
        Operation, Put, PutLease, PutValue, Revision, Scope, Txn, Write,
    };

    use super::*;

    #[test]
    fn the_leader_puts_its_clock_on_commands_about_leases_alone() {
        let grants = vec![Grant { lease: LeaseId(7), index: Index(9) }];
        for command in [
            LeaseCommand::Grant { lease: LeaseId(-1), ttl_seconds: 5 },
            LeaseCommand::Revoke { lease: LeaseId(0) },
            LeaseCommand::Renew { grants: grants.clone() },
            LeaseCommand::Expire { grants },
            LeaseCommand::Renew { grants: vec![] },
            LeaseCommand::Tick,
        ] {
            let bytes = encode(&Command::Lease { command: command.clone(), clock: LeaseTime(3) });
            assert!(wants_lease_clock(&bytes), "{command:?}");
            let stamped = with_lease_clock(&with_lease_clock(&bytes, LeaseTime(4)), LeaseTime(u64::MAX));
            let expected = Command::Lease { command, clock: LeaseTime(u64::MAX) };
            assert_eq!(decode(&stamped).expect("it is well-formed"), expected);
        }
        assert!(!wants_lease_clock(&encode(&Command::Compact { revision: Revision(3) })));
        assert!(!wants_lease_clock(&Bytes::new()));
    }

    #[test]
    fn what_claims_room_is_looked_at() {
        let put = Put {
            key: Bytes::from_static(b"k"),
            value: PutValue::Keep,
            lease: PutLease::Keep,
            prev_kv: false,
        };
        let write = Write::Put(put.clone());
        let grant = LeaseCommand::Grant { lease: LeaseId(1), ttl_seconds: 5 };
        let guard = GuardChange {
            range: KeyRange::all(),
            scope: Some(Scope::Key(Bytes::new())),
            fences: vec![],
            overrides: false,
        };
        for command in [
            Command::Put(put.clone()),
            Command::Txn(Txn { success: vec![Operation::Put(put)], ..Txn::default() }),
            Command::Conditional(Conditional { write, fences: vec![], session: None }),
            Command::Lease { command: grant, clock: LeaseTime(0) },
            Command::ChangeGuard(guard),
        ] {
            assert_ne!(command.claim(), Claim::Nothing, "{command:?}");
            assert!(may_claim_space(&encode(&command)), "{command:?}");
        }
        for command in [
            Command::DeleteRange(DeleteRange { range: KeyRange::all(), prev_kv: true }),
            Command::Compact { revision: Revision(3) },
            Command::Lease { command: LeaseCommand::Revoke { lease: LeaseId(1) }, clock: LeaseTime(0) },
        ] {
            assert!(!may_claim_space(&encode(&command)), "{command:?}");
        }
    }
}
