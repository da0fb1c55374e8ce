//! The table `meta` and the members: everything in the file beside the keys.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use redb::{ReadTransaction, ReadableTable, TableError, WriteTransaction};
use ringfence_types::{Guard, LeaseTime, Member, NodeId, Revision};

use crate::error::StoreError;
use crate::hash::{HASH_VERSION, RowSum};
use crate::layout::{self, MEMBERS, META, meta_name};
use crate::record_layout::{self, RECORDS, RecordTable};
use crate::row::Stamp;
use crate::state::{Position, State};

/// What a transaction writes into the file's meta beside the logical state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Housekeeping {
    pub swept: Stamp,
    pub row_bytes: u64,
}

/// Writes everything beside the keys.
pub(crate) fn write(
    transaction: &WriteTransaction,
    state: &State,
    housekeeping: Housekeeping,
) -> Result<(), StoreError> {
    let mut members = transaction.open_table(MEMBERS)?;
    members.retain(|id, _| state.members.contains_key(&NodeId(id)))?;
    for member in state.members.values() {
        members.insert(member.id.0, layout::encode_member(member).as_slice())?;
    }
    let mut meta = transaction.open_table(META)?;
    meta.insert(meta_name::FORMAT, layout::FORMAT.to_be_bytes().as_slice())?;
    meta.insert(meta_name::HASH_VERSION, [HASH_VERSION].as_slice())?;
    meta.insert(meta_name::REVISION, state.revision.0.to_be_bytes().as_slice())?;
    meta.insert(meta_name::COMPACTED, state.compacted.0.to_be_bytes().as_slice())?;
    meta.insert(meta_name::ROW_SUM, state.row_sum.0.to_be_bytes().as_slice())?;
    meta.insert(meta_name::CHAIN, state.chain.to_be_bytes().as_slice())?;
    meta.insert(meta_name::SWEPT, layout::encode_stamp(housekeeping.swept).as_slice())?;
    meta.insert(meta_name::ROW_BYTES, housekeeping.row_bytes.to_be_bytes().as_slice())?;
    let alarms: Vec<u8> = state.alarms.iter().flat_map(|alarm| layout::encode_alarm(*alarm)).collect();
    meta.insert(meta_name::LEASE_CLOCK, state.lease_clock.0.to_be_bytes().as_slice())?;
    meta.insert(meta_name::RECORD_SUM, state.record_sum.0.to_be_bytes().as_slice())?;
    meta.insert(meta_name::ALARMS, alarms.as_slice())?;
    if let Some(log_id) = state.position.log_id {
        meta.insert(meta_name::APPLIED, layout::encode_log_id(log_id).as_slice())?;
    }
    if let Some((log_id, membership)) = &state.position.membership {
        meta.insert(meta_name::MEMBERSHIP, layout::encode_membership(*log_id, membership).as_slice())?;
    }
    Ok(())
}

/// Reads everything beside the keys.
pub(crate) fn read(transaction: &ReadTransaction) -> Result<(State, Housekeeping), StoreError> {
    let meta = transaction.open_table(META)?;
    let optional = |name: &str| -> Result<Option<Vec<u8>>, StoreError> {
        Ok(meta.get(name)?.map(|guard| guard.value().to_vec()))
    };
    let format = u32::from_be_bytes(fixed(meta_name::FORMAT, optional(meta_name::FORMAT)?)?);
    if format != layout::FORMAT {
        return Err(StoreError::Format { found: format, expected: layout::FORMAT });
    }
    let [hash_version] = fixed(meta_name::HASH_VERSION, optional(meta_name::HASH_VERSION)?)?;
    if hash_version != HASH_VERSION {
        return Err(StoreError::corrupt(format!("its hash has the unknown version {hash_version}")));
    }
    let number = |name| -> Result<i64, StoreError> { Ok(i64::from_be_bytes(fixed(name, optional(name)?)?)) };
    let sum = |name| -> Result<u128, StoreError> { Ok(u128::from_be_bytes(fixed(name, optional(name)?)?)) };
    let position = Position {
        log_id: optional(meta_name::APPLIED)?.map(|bytes| layout::decode_log_id(&bytes)).transpose()?,
        membership: optional(meta_name::MEMBERSHIP)?
            .map(|bytes| layout::decode_membership(&bytes))
            .transpose()?,
    };
    let state = State {
        position,
        revision: Revision(number(meta_name::REVISION)?),
        compacted: Revision(number(meta_name::COMPACTED)?),
        row_sum: RowSum(sum(meta_name::ROW_SUM)?),
        chain: sum(meta_name::CHAIN)?,
        members: Arc::new(read_members(transaction)?),
        // Files of versions that knew no alarms, and no records, have no such rows.
        lease_clock: LeaseTime(match optional(meta_name::LEASE_CLOCK)? {
            None => 0,
            clock => u64::from_be_bytes(fixed(meta_name::LEASE_CLOCK, clock)?),
        }),
        record_sum: RowSum(match optional(meta_name::RECORD_SUM)? {
            None => 0,
            sum => u128::from_be_bytes(fixed(meta_name::RECORD_SUM, sum)?),
        }),
        guards: Arc::new(read_guards(transaction)?),
        alarms: Arc::new(layout::decode_alarms(&optional(meta_name::ALARMS)?.unwrap_or_default())?),
    };
    let housekeeping = Housekeeping {
        swept: layout::decode_stamp(&fixed::<{ layout::STAMP_BYTES }>(
            meta_name::SWEPT,
            optional(meta_name::SWEPT)?,
        )?)?,
        row_bytes: u64::from_be_bytes(fixed(meta_name::ROW_BYTES, optional(meta_name::ROW_BYTES)?)?),
    };
    if state.compacted > state.revision || state.revision < Revision::EMPTY {
        return Err(StoreError::corrupt("its revisions contradict each other"));
    }
    Ok((state, housekeeping))
}

/// The table of the records, if the file has one.
pub(crate) fn open_records(transaction: &ReadTransaction) -> Result<Option<RecordTable>, StoreError> {
    match transaction.open_table(RECORDS) {
        Ok(records) => Ok(Some(records)),
        Err(TableError::TableDoesNotExist(_)) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

fn read_guards(transaction: &ReadTransaction) -> Result<Vec<Guard>, StoreError> {
    let Some(records) = open_records(transaction)? else { return Ok(Vec::new()) };
    let prefix = record_layout::guards();
    let mut guards = Vec::new();
    for entry in records.range::<&[u8]>(prefix.as_ref()..)? {
        let (key, value) = entry?;
        if !key.value().starts_with(&prefix) {
            break;
        }
        let (key, value) = (Bytes::copy_from_slice(key.value()), Bytes::copy_from_slice(value.value()));
        guards.push(record_layout::decode_guard(&key, &value)?);
    }
    Ok(guards)
}

fn read_members(transaction: &ReadTransaction) -> Result<BTreeMap<NodeId, Member>, StoreError> {
    let members = transaction.open_table(MEMBERS)?;
    let mut records = BTreeMap::new();
    for entry in members.iter()? {
        let (id, bytes) = entry?;
        let member = layout::decode_member(id.value(), bytes.value())?;
        records.insert(member.id, member);
    }
    Ok(records)
}

fn fixed<const N: usize>(name: &str, bytes: Option<Vec<u8>>) -> Result<[u8; N], StoreError> {
    let bytes = bytes.ok_or_else(|| StoreError::corrupt(format!("its meta lacks {name}")))?;
    <[u8; N]>::try_from(bytes.as_slice())
        .map_err(|_| StoreError::corrupt(format!("{name} in its meta is malformed")))
}
