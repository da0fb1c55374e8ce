//! A look at the bytes of a request for extensions that this version would overlook. A decoder skips the fields that it does
//! not know; for most of them that is right, but a fence that is skipped makes an unfenced write.
//!
//! Refused are, in requests that may change something or say how fresh their answer must be: unknown fields from 1000 up, extensions
//! inside the operations of a transaction, and every unknown field inside the messages of the extensions themselves.

use std::any::TypeId;

use prost::encoding::{DecodeContext, WireType, decode_key, decode_varint, skip_field};
use ringfence_types::limits::TXN_DEPTH_MAX;

use crate::etcdserverpb as etcd;
use crate::extension::ExtensionError;
use crate::ringfence_v1 as v1;
use crate::{v3electionpb as election, v3lockpb as lock};

/// The first field number that is ours in etcd's messages.
const FIRST_EXTENSION: u32 = 1_000;
/// Two messages lie between a transaction and one nested in it; below the innermost lie its operations.
const DEPTH_MAX: usize = 2 * TXN_DEPTH_MAX;

/// What is looked for in a message.
#[derive(Debug)]
pub struct Shape {
    /// Fields that hold messages which are looked into.
    followed: &'static [(u32, &'static Shape)],
    /// The first number at which a field that is not followed is refused.
    refused_from: u32,
    /// Whether the message is a part of a transaction's operations.
    is_nested: bool,
}

static SESSION: Shape = ours(&[], 3);
static SCOPE: Shape = ours(&[], 3);
static FENCE: Shape = ours(&[(1, &SCOPE)], 3);
static SESSION_STAMP: Shape = ours(&[(1, &SESSION)], 4);
static ACK: Shape = ours(&[], 5);
static TOKEN: Shape = ours(&[], 4);
static FRESHNESS: Shape = ours(&[(6, &TOKEN)], 7);

static WRITE: Shape = etcds(&[(1000, &FENCE), (1001, &SESSION_STAMP), (1002, &ACK)], false);
static TXN: Shape = etcds(
    &[
        (1, &LEAF),
        (2, &OPERATION),
        (3, &OPERATION),
        (1000, &FENCE),
        (1001, &SESSION_STAMP),
        (1002, &ACK),
        (1003, &FRESHNESS),
    ],
    false,
);
static NESTED_TXN: Shape = etcds(&[(1, &LEAF), (2, &OPERATION), (3, &OPERATION)], true);
static OPERATION: Shape = etcds(&[(1, &LEAF), (2, &LEAF), (3, &LEAF), (4, &NESTED_TXN)], true);
static LEAF: Shape = etcds(&[], true);
/// No extension at all.
static PLAIN: Shape = etcds(&[], false);
/// One extension, which is a number.
static NUMBERED: Shape = Shape { followed: &[], refused_from: FIRST_EXTENSION + 1, is_nested: false };
/// A leader of an election, named by the key that it was elected with.
static OF_LEADER: Shape = etcds(&[(1, &PLAIN)], false);
/// A question that says how fresh its answer must be.
static READ: Shape = etcds(&[(1000, &FRESHNESS)], false);

static CHANGE_GUARD: Shape = ours(&[(3, &SCOPE), (4, &FENCE)], 6);
static LIST_GUARDS: Shape = ours(&[(1, &FRESHNESS)], 2);
static INSPECT: Shape = ours(&[(1, &SCOPE), (3, &FRESHNESS)], 4);
static RESOLVE: Shape = ours(&[(1, &SESSION)], 4);

/// A message of etcd's: what it does not know is none of its business below our numbers.
const fn etcds(followed: &'static [(u32, &'static Shape)], is_nested: bool) -> Shape {
    Shape { followed, refused_from: FIRST_EXTENSION, is_nested }
}

/// A message of ours: every field that this version does not know might change what it means.
const fn ours(followed: &'static [(u32, &'static Shape)], refused_from: u32) -> Shape {
    Shape { followed, refused_from, is_nested: false }
}

/// What to look for in messages of a type; none where nothing could be overlooked.
#[must_use]
pub fn shape_of<M: 'static>() -> Option<&'static Shape> {
    let message = TypeId::of::<M>();
    // Constants all of them: what is left of this for a given type is its result.
    macro_rules! find {
        ($($shape:ident: $($request:ty),+;)+) => {
            $($(if message == TypeId::of::<$request>() {
                return Some(&$shape);
            })+)+
        };
    }
    find! {
        WRITE: etcd::PutRequest, etcd::DeleteRangeRequest;
        TXN: etcd::TxnRequest;
        READ: etcd::RangeRequest, etcd::LeaseTimeToLiveRequest, etcd::LeaseLeasesRequest, election::LeaderRequest;
        PLAIN: etcd::CompactionRequest, etcd::LeaseGrantRequest, etcd::LeaseRevokeRequest,
            etcd::LeaseKeepAliveRequest, lock::LockRequest, election::CampaignRequest;
        PLAIN: etcd::MemberRemoveRequest, etcd::MemberUpdateRequest, etcd::MemberPromoteRequest,
            etcd::AlarmRequest, etcd::MoveLeaderRequest;
        NUMBERED: lock::UnlockRequest, etcd::MemberAddRequest;
        OF_LEADER: election::ProclaimRequest, election::ResignRequest;
        CHANGE_GUARD: v1::ChangeGuardRequest;
        LIST_GUARDS: v1::ListGuardsRequest;
        INSPECT: v1::InspectRequest;
        RESOLVE: v1::ResolveRequest;
    }
    None
}

/// Looks through a message.
///
/// # Errors
/// Where it has something that would be overlooked, or is malformed.
pub fn scan(message: &[u8], shape: &Shape) -> Result<(), ExtensionError> {
    at_depth(message, shape, 0)
}

fn at_depth(mut message: &[u8], shape: &Shape, depth: usize) -> Result<(), ExtensionError> {
    if depth > DEPTH_MAX {
        return Err(ExtensionError::Malformed);
    }
    while !message.is_empty() {
        let (field, wire_type) = decode_key(&mut message).map_err(malformed)?;
        let followed = shape.followed.iter().find(|(number, _)| *number == field);
        if followed.is_none() && field >= shape.refused_from {
            let is_known = TXN.followed.iter().any(|(number, _)| *number == field);
            let misplaced = shape.is_nested && is_known;
            return Err(if misplaced { ExtensionError::Nested } else { ExtensionError::UnknownField(field) });
        }
        if wire_type != WireType::LengthDelimited {
            skip_field(wire_type, field, &mut message, DecodeContext::default()).map_err(malformed)?;
            continue;
        }
        let length = decode_varint(&mut message).map_err(malformed)?;
        let length = usize::try_from(length).map_err(|_| ExtensionError::Malformed)?;
        let (inner, rest) = message.split_at_checked(length).ok_or(ExtensionError::Malformed)?;
        if let Some((_, shape)) = followed {
            at_depth(inner, shape, depth + 1)?;
        }
        message = rest;
    }
    Ok(())
}

fn malformed(_: prost::DecodeError) -> ExtensionError {
    ExtensionError::Malformed
}
