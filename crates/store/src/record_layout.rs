//! The byte layout of the table `records`: small tables beside the keys, whose rows are found by one search. The only file that
//! knows it.
//!
//! | tag | table | rest of the key | value |
//! |---|---|---|---|
//! | 1 | leases | lease (8) | index of the grant, seconds, deadline (8 each), number of keys (4) |
//! | 2 | keys of leases | lease (8), key | nothing |
//! | 3 | candidates | length of the lock's name (4), name, create revision (8) | key |
//! | 4 | holders | lock's name | create revision (8), key |
//! | 5 | guards | length of the start (4), start, kind of the end (1), end | kind of the scope (1), key or name |
//! | 6 | sessions | lease, index of the grant (8 each) | smallest open sequence (8), bytes of the answers kept (8) |
//! | 7 | answers | lease, index of the grant, sequence (8 each) | digest (16), kind (1), outcome or revision (8) |
//!
//! Integers are big-endian, a lease's number with its sign bit inverted so that numbers are in order.

use bytes::{BufMut, Bytes, BytesMut};
use redb::{Range, ReadOnlyTable, TableDefinition};
use ringfence_proto::outcome;
use ringfence_types::{
    Grant, Guard, Holder, Index, KeyRange, Lease, LeaseId, LeaseTime, RangeEnd, Resolution, Revision, Scope,
};

use crate::error::StoreError;
use crate::layout::length;

/// The table, keyed by tag and rest.
pub(crate) const RECORDS: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("records");

/// The table, open for reading, and a walk over it.
pub(crate) type RecordTable = ReadOnlyTable<&'static [u8], &'static [u8]>;
pub(crate) type RecordRange = Range<'static, &'static [u8], &'static [u8]>;

const LEASE: u8 = 1;
const LEASE_KEY: u8 = 2;
const CANDIDATE: u8 = 3;
const HOLDER: u8 = 4;
const GUARD: u8 = 5;
const SESSION: u8 = 6;
const ANSWER: u8 = 7;

/// What is kept of a session beside its answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Session {
    /// No smaller sequence is open.
    pub first_incomplete: u64,
    /// Bytes of the answers that are kept.
    pub bytes: u64,
}

/// What a write of a session came to, with the digest of the request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Answer {
    /// Of the request; 0 for a sequence that was closed without one.
    pub digest: u128,
    pub resolution: Resolution,
}

fn key(tag: u8, parts: &[&[u8]]) -> Bytes {
    let mut bytes = BytesMut::with_capacity(1 + parts.iter().map(|part| part.len()).sum::<usize>());
    bytes.put_u8(tag);
    parts.iter().for_each(|part| bytes.put_slice(part));
    bytes.freeze()
}

fn lease_number(lease: LeaseId) -> [u8; 8] {
    (lease.0 ^ i64::MIN).to_be_bytes()
}

fn grant_bytes(grant: Grant) -> [u8; 16] {
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&lease_number(grant.lease));
    bytes[8..].copy_from_slice(&grant.index.0.to_be_bytes());
    bytes
}

/// The prefix of all leases' keys.
pub(crate) fn leases() -> Bytes {
    Bytes::from_static(&[LEASE])
}

pub(crate) fn lease_key(lease: LeaseId) -> Bytes {
    key(LEASE, &[&lease_number(lease)])
}

/// The number of the lease whose record has this key.
pub(crate) fn number_of_lease(key: &[u8]) -> Result<LeaseId, StoreError> {
    let mut fields = Fields { table: "leases", bytes: rest(key) };
    let number = LeaseId(fields.i64()? ^ i64::MIN);
    fields.end()?;
    Ok(number)
}

/// Whether `key` is that of a lease.
pub(crate) fn is_lease(key: &[u8]) -> bool {
    key.first() == Some(&LEASE)
}

pub(crate) fn encode_lease(lease: &Lease) -> Bytes {
    let mut bytes = BytesMut::with_capacity(28);
    bytes.put_u64(lease.grant.index.0);
    bytes.put_u64(lease.ttl_seconds);
    bytes.put_u64(lease.deadline.0);
    bytes.put_u32(lease.keys);
    bytes.freeze()
}

pub(crate) fn decode_lease(key: &[u8], value: &[u8]) -> Result<Lease, StoreError> {
    let lease = number_of_lease(key)?;
    let mut fields = Fields { table: "leases", bytes: value };
    let index = Index(fields.u64()?);
    let (ttl_seconds, deadline) = (fields.u64()?, LeaseTime(fields.u64()?));
    let keys = fields.u32()?;
    fields.end()?;
    Ok(Lease { grant: Grant { lease, index }, ttl_seconds, deadline, keys })
}

/// The prefix of the keys of what hangs on `lease`.
pub(crate) fn keys_of_lease(lease: LeaseId) -> Bytes {
    key(LEASE_KEY, &[&lease_number(lease)])
}

pub(crate) fn hanging_key(lease: LeaseId, hanging: &[u8]) -> Bytes {
    key(LEASE_KEY, &[&lease_number(lease), hanging])
}

/// The key that hangs on a lease, out of the record's key.
pub(crate) fn hanging(record: &Bytes) -> Result<Bytes, StoreError> {
    if record.len() <= 9 { Err(malformed("lease_keys")) } else { Ok(record.slice(9..)) }
}

/// The prefix of the keys of all candidates of a lock, oldest first.
pub(crate) fn candidates(lock: &[u8]) -> Bytes {
    key(CANDIDATE, &[&length(lock).to_be_bytes(), lock])
}

pub(crate) fn candidate_key(lock: &[u8], created: Revision) -> Bytes {
    key(CANDIDATE, &[&length(lock).to_be_bytes(), lock, &created.0.to_be_bytes()])
}

/// A candidate: its key, and when it was created.
pub(crate) fn decode_candidate(record: &[u8], value: &Bytes) -> Result<Holder, StoreError> {
    let mut fields = Fields { table: "candidates", bytes: rest(record) };
    let name = fields.u32()? as usize;
    fields.take(name)?;
    let token = Revision(fields.i64()?);
    fields.end()?;
    Ok(Holder { key: value.clone(), token })
}

pub(crate) fn holder_key(lock: &[u8]) -> Bytes {
    key(HOLDER, &[lock])
}

pub(crate) fn encode_holder(holder: &Holder) -> Bytes {
    let mut bytes = BytesMut::with_capacity(8 + holder.key.len());
    bytes.put_i64(holder.token.0);
    bytes.put_slice(&holder.key);
    bytes.freeze()
}

pub(crate) fn decode_holder(value: &Bytes) -> Result<Holder, StoreError> {
    let mut fields = Fields { table: "holders", bytes: value };
    let token = Revision(fields.i64()?);
    Ok(Holder { key: value.slice(8..), token })
}

/// The prefix of all guards' keys.
pub(crate) fn guards() -> Bytes {
    Bytes::from_static(&[GUARD])
}

const END_SINGLE: u8 = 0;
const END_BEFORE: u8 = 1;
const END_UNBOUNDED: u8 = 2;
const SCOPE_KEY: u8 = 0;
const SCOPE_LOCK: u8 = 1;

pub(crate) fn guard_key(range: &KeyRange) -> Bytes {
    let (kind, end): (u8, &[u8]) = match &range.end {
        RangeEnd::Single => (END_SINGLE, &[]),
        RangeEnd::Before(end) => (END_BEFORE, end),
        RangeEnd::Unbounded => (END_UNBOUNDED, &[]),
    };
    key(GUARD, &[&length(&range.start).to_be_bytes(), &range.start, &[kind], end])
}

pub(crate) fn encode_scope(scope: &Scope) -> Bytes {
    let (kind, name) = match scope {
        Scope::Key(key) => (SCOPE_KEY, key),
        Scope::Lock(name) => (SCOPE_LOCK, name),
    };
    key(kind, &[name])
}

pub(crate) fn decode_guard(record: &Bytes, value: &Bytes) -> Result<Guard, StoreError> {
    let mut fields = Fields { table: "guards", bytes: rest(record) };
    let start_bytes = fields.u32()? as usize;
    let start = Bytes::copy_from_slice(fields.take(start_bytes)?);
    let end = match fields.u8()? {
        END_SINGLE => RangeEnd::Single,
        END_BEFORE => RangeEnd::Before(Bytes::copy_from_slice(fields.bytes)),
        END_UNBOUNDED => RangeEnd::Unbounded,
        _ => return Err(malformed("guards")),
    };
    let scope = match value.first() {
        Some(&SCOPE_KEY) => Scope::Key(value.slice(1..)),
        Some(&SCOPE_LOCK) => Scope::Lock(value.slice(1..)),
        _ => return Err(malformed("guards")),
    };
    Ok(Guard { range: KeyRange { start, end }, scope })
}

pub(crate) fn session_key(session: Grant) -> Bytes {
    key(SESSION, &[&grant_bytes(session)])
}

pub(crate) fn encode_session(session: Session) -> Bytes {
    let mut bytes = BytesMut::with_capacity(16);
    bytes.put_u64(session.first_incomplete);
    bytes.put_u64(session.bytes);
    bytes.freeze()
}

pub(crate) fn decode_session(value: &[u8]) -> Result<Session, StoreError> {
    let mut fields = Fields { table: "sessions", bytes: value };
    let session = Session { first_incomplete: fields.u64()?, bytes: fields.u64()? };
    fields.end()?;
    Ok(session)
}

/// The prefix of the keys of a session's answers, in the order of their sequences.
pub(crate) fn answers(session: Grant) -> Bytes {
    key(ANSWER, &[&grant_bytes(session)])
}

pub(crate) fn answer_key(session: Grant, sequence: u64) -> Bytes {
    key(ANSWER, &[&grant_bytes(session), &sequence.to_be_bytes()])
}

/// The sequence of an answer, out of the record's key.
pub(crate) fn sequence_of(record: &[u8]) -> Result<u64, StoreError> {
    let mut fields = Fields { table: "answers", bytes: rest(record) };
    fields.take(16)?;
    let sequence = fields.u64()?;
    fields.end()?;
    Ok(sequence)
}

const CLOSED: u8 = 0;
const ANSWERED: u8 = 1;
const APPLIED_AT: u8 = 2;

pub(crate) fn encode_answer(answer: &Answer) -> Bytes {
    let mut bytes = BytesMut::with_capacity(64);
    bytes.put_u128(answer.digest);
    match &answer.resolution {
        Resolution::Closed => bytes.put_u8(CLOSED),
        Resolution::Answered(answered) => {
            bytes.put_u8(ANSWERED);
            bytes.put_slice(&outcome::encode(answered));
        }
        Resolution::AppliedAt(revision) => {
            bytes.put_u8(APPLIED_AT);
            bytes.put_i64(revision.0);
        }
    }
    bytes.freeze()
}

pub(crate) fn decode_answer(value: &Bytes) -> Result<Answer, StoreError> {
    let mut fields = Fields { table: "answers", bytes: value };
    let digest = fields.u128()?;
    let resolution = match fields.u8()? {
        CLOSED => Resolution::Closed,
        ANSWERED => {
            let answered = outcome::decode(&value.slice(17..)).map_err(|_| malformed("answers"))?;
            return Ok(Answer { digest, resolution: Resolution::Answered(Box::new(answered)) });
        }
        APPLIED_AT => Resolution::AppliedAt(Revision(fields.i64()?)),
        _ => return Err(malformed("answers")),
    };
    fields.end()?;
    Ok(Answer { digest, resolution })
}

fn malformed(table: &str) -> StoreError {
    StoreError::corrupt(format!("a record of {table} is malformed"))
}

/// A record's key without its tag.
fn rest(key: &[u8]) -> &[u8] {
    key.get(1..).unwrap_or_default()
}

struct Fields<'a> {
    table: &'static str,
    bytes: &'a [u8],
}

impl<'a> Fields<'a> {
    fn take(&mut self, count: usize) -> Result<&'a [u8], StoreError> {
        let (taken, rest) = self.bytes.split_at_checked(count).ok_or_else(|| malformed(self.table))?;
        self.bytes = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], StoreError> {
        let mut array = [0; N];
        array.copy_from_slice(self.take(N)?);
        Ok(array)
    }

    fn u8(&mut self) -> Result<u8, StoreError> {
        self.array::<1>().map(|[byte]| byte)
    }

    fn u32(&mut self) -> Result<u32, StoreError> {
        self.array().map(u32::from_be_bytes)
    }

    fn u64(&mut self) -> Result<u64, StoreError> {
        self.array().map(u64::from_be_bytes)
    }

    fn i64(&mut self) -> Result<i64, StoreError> {
        self.array().map(i64::from_be_bytes)
    }

    fn u128(&mut self) -> Result<u128, StoreError> {
        self.array().map(u128::from_be_bytes)
    }

    fn end(&self) -> Result<(), StoreError> {
        if self.bytes.is_empty() { Ok(()) } else { Err(malformed(self.table)) }
    }
}

#[cfg(test)]
mod tests {
    use ringfence_types::Rejection;

    use super::*;

    const GRANT: Grant = Grant { lease: LeaseId(-7), index: Index(9) };

    fn bytes(text: &'static str) -> Bytes {
        Bytes::from_static(text.as_bytes())
    }

    #[test]
    fn records_come_back_whole() {
        let lease = Lease { grant: GRANT, ttl_seconds: 5, deadline: LeaseTime(6), keys: 7 };
        let lease_record = (lease_key(GRANT.lease), encode_lease(&lease));
        assert_eq!(decode_lease(&lease_record.0, &lease_record.1).unwrap(), lease);
        assert_eq!(hanging(&hanging_key(GRANT.lease, b"k")).unwrap(), "k");
        let holder = Holder { key: bytes("jobs/1"), token: Revision(8) };
        assert_eq!(decode_candidate(&candidate_key(b"jobs", Revision(8)), &holder.key).unwrap(), holder);
        assert_eq!(decode_holder(&encode_holder(&holder)).unwrap(), holder);
        for range in [
            KeyRange::single(bytes("a")),
            KeyRange::all(),
            KeyRange::prefix(bytes("a/")),
            KeyRange { start: Bytes::new(), end: RangeEnd::Before(bytes("b")) },
        ] {
            for scope in [Scope::Key(bytes("k")), Scope::Lock(bytes("jobs"))] {
                let guard = Guard { range: range.clone(), scope: scope.clone() };
                assert_eq!(decode_guard(&guard_key(&range), &encode_scope(&scope)).unwrap(), guard);
            }
        }
        let session = Session { first_incomplete: 3, bytes: 4 };
        assert_eq!(decode_session(&encode_session(session)).unwrap(), session);
        assert_eq!(sequence_of(&answer_key(GRANT, 11)).unwrap(), 11);
        for resolution in [
            Resolution::Closed,
            Resolution::AppliedAt(Revision(12)),
            Resolution::Answered(Box::new(Err(Rejection::KeyNotFound))),
        ] {
            let answer = Answer { digest: 13, resolution };
            assert_eq!(decode_answer(&encode_answer(&answer)).unwrap(), answer);
        }
    }

    #[test]
    fn candidates_of_one_lock_are_in_order_and_apart_from_those_of_others() {
        let mut keys = [
            candidate_key(b"b", Revision(1)),
            candidate_key(b"a", Revision(0x0200)),
            candidate_key(b"a", Revision(3)),
            candidate_key(b"a/b", Revision(2)),
        ];
        keys.sort();
        assert_eq!(keys[..2], [candidate_key(b"a", Revision(3)), candidate_key(b"a", Revision(0x0200))]);
        assert!(keys[2..].iter().all(|key| !key.starts_with(&candidates(b"a"))));
    }

    #[test]
    fn records_cut_short_are_corrupt() {
        let lease = Lease { grant: GRANT, ttl_seconds: 5, deadline: LeaseTime(6), keys: 7 };
        for len in 0..28 {
            assert!(decode_lease(&lease_key(GRANT.lease), &encode_lease(&lease)[..len]).is_err());
        }
        assert!(decode_lease(b"\x01", &encode_lease(&lease)).is_err());
        assert!(decode_holder(&bytes("short")).is_err());
        assert!(decode_session(b"short").is_err());
        assert!(decode_answer(&Bytes::from_static(&[9; 17])).is_err());
        assert!(decode_guard(&guards(), &bytes("")).is_err());
        assert!(hanging(&keys_of_lease(GRANT.lease)).is_err());
    }
}
