//! Every byte layout of the state file: its tables, their keys and values. The only file that knows them.
//!
//! Integers are big-endian. Table names and numbers are never used again for something else.
//!
//! | table | key | value |
//! |---|---|---|
//! | `index` | key of any length, 12 bytes of stamp, inverted | [`INDEX_VALUE_BYTES`]: create revision, version, lease (8 each), flags (1), hash (16) |
//! | `history` | 12 bytes of stamp | flags (1), create revision, version, lease (8 each), length of the key (4), key, value |
//! | `members` | node id | length and bytes of the name, number of peer URLs, each with its length, the same for client URLs; then (absent in rows of the first version) disk id (8), wanted (1), the member that it replaces (8) |
//! | `records` | tag (1) and what the tag says | see `record_layout`; absent in files of the first version |
//! | `meta` | name | see [`meta_name`] |
//!
//! A stamp is a revision (8) and a number within it (4). The index holds it inverted, so that a key's newest version
//! comes first. Index entries are small, so that reads which need no values are cheap; the value lies in the history
//! alone. A history row repeats the fields, so that watches and checks read the history in one pass without the index.

use std::cmp::Ordering;
use std::collections::BTreeSet;

use bytes::Bytes;
use redb::TableDefinition;
use ringfence_types::{Alarm, AlarmKind, Index, LeaseId, LogId, Member, NodeId, Revision, Term, Wanted};

use crate::error::StoreError;
use crate::hash::RowHash;
use crate::row::{Change, Row, Stamp};

/// The name of the state file in the store's directory.
pub const STATE_FILE: &str = "state.redb";
/// What unfinished files end with: they are removed when a store is opened.
pub(crate) const UNFINISHED_SUFFIX: &str = ".unfinished";
/// The format of the state file.
pub(crate) const FORMAT: u32 = 1;

pub(crate) const STAMP_BYTES: usize = 12;
pub(crate) const INDEX_VALUE_BYTES: usize = 41;
const HISTORY_HEADER_BYTES: usize = 29;
const FLAG_DELETED: u8 = 1;

pub(crate) type IndexValue = &'static [u8; INDEX_VALUE_BYTES];
pub(crate) type StampKey = &'static [u8; STAMP_BYTES];

pub(crate) const INDEX: TableDefinition<'_, IndexKey, IndexValue> = TableDefinition::new("index");
pub(crate) const HISTORY: TableDefinition<'_, StampKey, &[u8]> = TableDefinition::new("history");
pub(crate) const MEMBERS: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("members");
pub(crate) const META: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("meta");

/// The rows of the table `meta`.
pub(crate) mod meta_name {
    /// The file's format: 4 bytes.
    pub const FORMAT: &str = "format";
    /// The version of the hash in `row_sum`: 1 byte.
    pub const HASH_VERSION: &str = "hash_version";
    /// The log id of the last entry that the file holds: 24 bytes, or none.
    pub const APPLIED: &str = "applied";
    /// The last membership: 1 byte that tells whether a log id of 24 bytes follows, then bytes that the store does not
    /// look into; or none.
    pub const MEMBERSHIP: &str = "membership";
    /// The store's revision: 8 bytes.
    pub const REVISION: &str = "revision";
    /// The oldest revision that can be read: 8 bytes.
    pub const COMPACTED: &str = "compacted";
    /// Everything up to this stamp has been swept by compaction: 12 bytes.
    pub const SWEPT: &str = "swept";
    /// Sum of the hashes of the newest version of every key that exists: 16 bytes.
    pub const ROW_SUM: &str = "row_sum";
    /// The chain over all changes: 16 bytes.
    pub const CHAIN: &str = "chain";
    /// The lease clock: 8 bytes; or none for 0.
    pub const LEASE_CLOCK: &str = "lease_clock";
    /// Sum of the hashes of all records: 16 bytes; or none for 0.
    pub const RECORD_SUM: &str = "record_sum";
    /// The alarms that are raised, 9 bytes each; or none.
    pub const ALARMS: &str = "alarms";
    /// Bytes of the rows of `index` and `history`: 8 bytes.
    pub const ROW_BYTES: &str = "row_bytes";
}

/// The key of the index as redb sees it: ordered by key first, then newest first.
#[derive(Debug)]
pub(crate) struct IndexKey;

impl redb::Value for IndexKey {
    type SelfType<'a> = &'a [u8];
    type AsBytes<'a> = &'a [u8];

    fn fixed_width() -> Option<usize> {
        None
    }

    fn from_bytes<'a>(data: &'a [u8]) -> &'a [u8]
    where
        Self: 'a,
    {
        data
    }

    fn as_bytes<'a, 'b: 'a>(value: &'a &'b [u8]) -> &'a [u8]
    where
        Self: 'b,
    {
        value
    }

    fn type_name() -> redb::TypeName {
        redb::TypeName::new("ringfence::IndexKey")
    }
}

impl redb::Key for IndexKey {
    fn compare(a: &[u8], b: &[u8]) -> Ordering {
        // Without the split a key that is another's prefix would be compared by the bytes of its stamp.
        let ((a_key, a_stamp), (b_key, b_stamp)) = (split(a), split(b));
        a_key.cmp(b_key).then_with(|| a_stamp.cmp(b_stamp))
    }
}

fn split(bytes: &[u8]) -> (&[u8], &[u8]) {
    bytes.split_at(bytes.len().saturating_sub(STAMP_BYTES))
}

/// A length as the layouts write it. Requests are far smaller than 4 GiB.
pub(crate) fn length(bytes: &[u8]) -> u32 {
    u32::try_from(bytes.len()).expect("no key, value or name is longer than a request")
}

pub(crate) fn encode_stamp(stamp: Stamp) -> [u8; STAMP_BYTES] {
    let mut bytes = [0; STAMP_BYTES];
    bytes[..8].copy_from_slice(&stamp.revision.0.to_be_bytes());
    bytes[8..].copy_from_slice(&stamp.sub.to_be_bytes());
    bytes
}

pub(crate) fn decode_stamp(bytes: &[u8]) -> Result<Stamp, StoreError> {
    let mut reader = Reader { table: "stamp", bytes };
    let stamp = Stamp { revision: Revision(reader.i64()?), sub: reader.u32()? };
    reader.end()?;
    Ok(stamp)
}

/// Writes an index key into `buffer`, over what it held.
pub(crate) fn encode_index_key(key: &[u8], stamp: Stamp, buffer: &mut Vec<u8>) {
    buffer.clear();
    buffer.extend_from_slice(key);
    buffer.extend(encode_stamp(stamp).iter().map(|byte| !byte));
}

/// An index key of its own.
pub(crate) fn index_key(key: &[u8], stamp: Stamp) -> Vec<u8> {
    let mut buffer = Vec::with_capacity(key.len() + STAMP_BYTES);
    encode_index_key(key, stamp, &mut buffer);
    buffer
}

/// The key within an index key.
pub(crate) fn key_of(index_key: &[u8]) -> &[u8] {
    split(index_key).0
}

/// The stamp within an index key.
pub(crate) fn stamp_of(index_key: &[u8]) -> Result<Stamp, StoreError> {
    let mut bytes = [0; STAMP_BYTES];
    let inverted = split(index_key).1;
    if inverted.len() != STAMP_BYTES {
        return Err(StoreError::corrupt("a key of the index is too short"));
    }
    for (byte, inverted) in bytes.iter_mut().zip(inverted) {
        *byte = !inverted;
    }
    decode_stamp(&bytes)
}

pub(crate) fn encode_index_value(row: &Row) -> [u8; INDEX_VALUE_BYTES] {
    let mut bytes = [0; INDEX_VALUE_BYTES];
    bytes[..8].copy_from_slice(&row.create_revision.0.to_be_bytes());
    bytes[8..16].copy_from_slice(&row.version.to_be_bytes());
    bytes[16..24].copy_from_slice(&row.lease.0.to_be_bytes());
    bytes[24] = flags(row);
    bytes[25..].copy_from_slice(&row.hash.0.to_be_bytes());
    bytes
}

pub(crate) fn decode_index_row(index_key: &[u8], value: &[u8]) -> Result<Row, StoreError> {
    let mut reader = Reader { table: "index", bytes: value };
    let create_revision = Revision(reader.i64()?);
    let version = reader.i64()?;
    let lease = LeaseId(reader.i64()?);
    let deleted = reader.flags()?;
    let hash = RowHash(reader.u128()?);
    reader.end()?;
    Ok(Row { stamp: stamp_of(index_key)?, create_revision, version, lease, deleted, hash })
}

/// Writes a history value into `buffer`, over what it held.
pub(crate) fn encode_history_value(change: &Change, buffer: &mut Vec<u8>) {
    buffer.clear();
    buffer.push(flags(&change.row));
    buffer.extend_from_slice(&change.row.create_revision.0.to_be_bytes());
    buffer.extend_from_slice(&change.row.version.to_be_bytes());
    buffer.extend_from_slice(&change.row.lease.0.to_be_bytes());
    buffer.extend_from_slice(&length(&change.key).to_be_bytes());
    buffer.extend_from_slice(&change.key);
    buffer.extend_from_slice(&change.value);
}

/// A row of the history, borrowed from the file. Its hash is computed from what is there.
pub(crate) struct HistoryRow<'a> {
    pub row: Row,
    pub key: &'a [u8],
    pub value: &'a [u8],
}

impl HistoryRow<'_> {
    /// The row, owned.
    pub fn to_change(&self) -> Change {
        Change {
            key: Bytes::copy_from_slice(self.key),
            row: self.row,
            value: Bytes::copy_from_slice(self.value),
        }
    }
}

pub(crate) fn decode_history_row(stamp: Stamp, bytes: &[u8]) -> Result<HistoryRow<'_>, StoreError> {
    let mut reader = Reader { table: "history", bytes };
    let deleted = reader.flags()?;
    let create_revision = Revision(reader.i64()?);
    let version = reader.i64()?;
    let lease = LeaseId(reader.i64()?);
    let key = reader.prefixed()?;
    let value = reader.bytes;
    let mut row = Row { stamp, create_revision, version, lease, deleted, hash: RowHash(0) };
    row.hash = crate::hash::row(key, &row, value);
    Ok(HistoryRow { row, key, value })
}

/// Whether a row of the history is a deletion, and its key, without a look at the rest.
pub(crate) fn peek_history_row(bytes: &[u8]) -> Result<(bool, &[u8]), StoreError> {
    let mut reader = Reader { table: "history", bytes };
    let deleted = reader.flags()?;
    for _ in 0..3 {
        reader.i64()?;
    }
    Ok((deleted, reader.prefixed()?))
}

/// The bytes that one version takes in `index` and `history` together.
pub(crate) fn version_bytes(key_len: usize, value_len: usize) -> u64 {
    let index = key_len + STAMP_BYTES + INDEX_VALUE_BYTES;
    let history = STAMP_BYTES + HISTORY_HEADER_BYTES + key_len + value_len;
    (index + history) as u64
}

fn flags(row: &Row) -> u8 {
    if row.deleted { FLAG_DELETED } else { 0 }
}

pub(crate) fn encode_member(member: &Member) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut push = |text: &str| {
        bytes.extend_from_slice(&length(text.as_bytes()).to_be_bytes());
        bytes.extend_from_slice(text.as_bytes());
    };
    push(&member.name);
    for urls in [&member.peer_urls, &member.client_urls] {
        // A number of URLs is written like a text's length, so that no two members share their bytes.
        push(&urls.len().to_string());
        urls.iter().for_each(|url| push(url));
    }
    bytes.extend_from_slice(&member.disk_id.to_be_bytes());
    bytes.push(match member.wanted {
        Wanted::Voter => 0,
        Wanted::Learner => 1,
        Wanted::Removed => 2,
    });
    bytes.extend_from_slice(&member.replaces.map_or(0, |id| id.0).to_be_bytes());
    bytes
}

pub(crate) fn decode_member(id: u64, bytes: &[u8]) -> Result<Member, StoreError> {
    let mut reader = Reader { table: "members", bytes };
    let name = reader.text()?;
    let peer_urls = reader.texts()?;
    let client_urls = reader.texts()?;
    let id = NodeId(id);
    if reader.bytes.is_empty() {
        // Written by the first version, which knew founders alone.
        let (disk_id, wanted, replaces) = (0, Wanted::Voter, None);
        return Ok(Member { id, name, peer_urls, client_urls, disk_id, wanted, replaces });
    }
    let disk_id = reader.u64()?;
    let wanted = match reader.array()? {
        [0] => Wanted::Voter,
        [1] => Wanted::Learner,
        [2] => Wanted::Removed,
        _ => return Err(reader.corrupt()),
    };
    let replaces = Some(NodeId(reader.u64()?)).filter(|id| id.0 != 0);
    reader.end()?;
    Ok(Member { id, name, peer_urls, client_urls, disk_id, wanted, replaces })
}

/// An alarm: the member (8), then the number of its kind.
pub(crate) const ALARM_BYTES: usize = 9;
const ALARM_CORRUPT: u8 = 1;

pub(crate) fn encode_alarm(alarm: Alarm) -> [u8; ALARM_BYTES] {
    let mut bytes = [0; ALARM_BYTES];
    bytes[..8].copy_from_slice(&alarm.member.0.to_be_bytes());
    bytes[8] = match alarm.kind {
        AlarmKind::Corrupt => ALARM_CORRUPT,
    };
    bytes
}

pub(crate) fn decode_alarms(bytes: &[u8]) -> Result<BTreeSet<Alarm>, StoreError> {
    let mut reader = Reader { table: "meta", bytes };
    let mut alarms = BTreeSet::new();
    while !reader.bytes.is_empty() {
        let member = NodeId(reader.u64()?);
        let kind = match reader.array()? {
            [ALARM_CORRUPT] => AlarmKind::Corrupt,
            _ => return Err(reader.corrupt()),
        };
        alarms.insert(Alarm { member, kind });
    }
    Ok(alarms)
}

pub(crate) fn encode_log_id(log_id: LogId) -> [u8; 24] {
    let mut bytes = [0; 24];
    bytes[..8].copy_from_slice(&log_id.term.0.to_be_bytes());
    bytes[8..16].copy_from_slice(&log_id.node.0.to_be_bytes());
    bytes[16..].copy_from_slice(&log_id.index.0.to_be_bytes());
    bytes
}

pub(crate) fn decode_log_id(bytes: &[u8]) -> Result<LogId, StoreError> {
    let mut reader = Reader { table: "meta", bytes };
    let log_id = reader.log_id()?;
    reader.end()?;
    Ok(log_id)
}

pub(crate) fn encode_membership(log_id: Option<LogId>, membership: &[u8]) -> Vec<u8> {
    let mut bytes = vec![u8::from(log_id.is_some())];
    if let Some(log_id) = log_id {
        bytes.extend_from_slice(&encode_log_id(log_id));
    }
    bytes.extend_from_slice(membership);
    bytes
}

pub(crate) fn decode_membership(bytes: &[u8]) -> Result<(Option<LogId>, Bytes), StoreError> {
    let mut reader = Reader { table: "meta", bytes };
    let log_id = if reader.flags()? { Some(reader.log_id()?) } else { None };
    Ok((log_id, Bytes::copy_from_slice(reader.bytes)))
}

/// Reads the fields of a row one after the other.
struct Reader<'a> {
    table: &'static str,
    bytes: &'a [u8],
}

impl<'a> Reader<'a> {
    fn corrupt(&self) -> StoreError {
        StoreError::corrupt(format!("a row of the table {} is malformed", self.table))
    }

    fn take(&mut self, count: usize) -> Result<&'a [u8], StoreError> {
        let (taken, rest) = self.bytes.split_at_checked(count).ok_or_else(|| self.corrupt())?;
        self.bytes = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], StoreError> {
        let mut array = [0; N];
        array.copy_from_slice(self.take(N)?);
        Ok(array)
    }

    fn flags(&mut self) -> Result<bool, StoreError> {
        match self.array()? {
            [0] => Ok(false),
            [FLAG_DELETED] => Ok(true),
            _ => Err(self.corrupt()),
        }
    }

    fn u32(&mut self) -> Result<u32, StoreError> {
        Ok(u32::from_be_bytes(self.array()?))
    }

    fn u64(&mut self) -> Result<u64, StoreError> {
        Ok(u64::from_be_bytes(self.array()?))
    }

    fn i64(&mut self) -> Result<i64, StoreError> {
        Ok(i64::from_be_bytes(self.array()?))
    }

    fn u128(&mut self) -> Result<u128, StoreError> {
        Ok(u128::from_be_bytes(self.array()?))
    }

    fn log_id(&mut self) -> Result<LogId, StoreError> {
        Ok(LogId { term: Term(self.u64()?), node: NodeId(self.u64()?), index: Index(self.u64()?) })
    }

    fn prefixed(&mut self) -> Result<&'a [u8], StoreError> {
        let count = self.u32()? as usize;
        self.take(count)
    }

    fn text(&mut self) -> Result<String, StoreError> {
        let bytes = self.prefixed()?;
        String::from_utf8(bytes.to_vec()).map_err(|_| self.corrupt())
    }

    fn texts(&mut self) -> Result<Vec<String>, StoreError> {
        let count: usize = self.text()?.parse().map_err(|_| self.corrupt())?;
        (0..count).map(|_| self.text()).collect()
    }

    fn end(&self) -> Result<(), StoreError> {
        if self.bytes.is_empty() { Ok(()) } else { Err(self.corrupt()) }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use redb::Key;

    use super::*;

    fn stamp(revision: i64, sub: u32) -> Stamp {
        Stamp { revision: Revision(revision), sub }
    }

    /// A row that uses every field.
    fn change() -> Change {
        let value = Bytes::from_static(b"value");
        let row = Row::live(b"key", stamp(0x0102, 3), Revision(0x0a0b), 4, LeaseId(5), &value);
        Change { key: Bytes::from_static(b"key"), row, value }
    }

    #[test]
    fn layouts_stay_as_they_are() {
        // A change here is a change of the file's format: it needs a new number, and a way to read the old one.
        let change = change();
        assert_eq!(index_key(b"key", change.row.stamp), {
            let mut bytes = b"key".to_vec();
            bytes.extend([0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xfe, 0xfd, 0xff, 0xff, 0xff, 0xfc]);
            bytes
        });
        let value = encode_index_value(&change.row);
        assert_eq!(
            value[..25],
            [0, 0, 0, 0, 0, 0, 10, 11, 0, 0, 0, 0, 0, 0, 0, 4, 0, 0, 0, 0, 0, 0, 0, 5, 0]
        );
        assert_eq!(value[25..], change.row.hash.0.to_be_bytes());
        let mut history = Vec::new();
        encode_history_value(&change, &mut history);
        assert_eq!(history[..29], {
            let mut bytes = vec![0];
            bytes.extend(&value[..24]);
            bytes.extend([0, 0, 0, 3]);
            bytes
        });
        assert_eq!(history[29..], *b"keyvalue");
        assert_eq!(
            change.row.hash.0, 133_071_078_361_354_374_342_799_012_984_696_126_331,
            "the hash's version 1"
        );
    }

    #[test]
    fn rows_come_back_whole() {
        let mut change = change();
        for row in [change.row, Row::tombstone(b"key", stamp(9, 1))] {
            change.row = row;
            if row.deleted {
                change.value = Bytes::new();
            }
            let index_key = index_key(&change.key, row.stamp);
            assert_eq!(decode_index_row(&index_key, &encode_index_value(&row)).unwrap(), row);
            assert_eq!(key_of(&index_key), b"key");
            let mut history = Vec::new();
            encode_history_value(&change, &mut history);
            assert_eq!(decode_history_row(row.stamp, &history).unwrap().to_change(), change);
            assert_eq!(peek_history_row(&history).unwrap(), (row.deleted, change.key.as_ref()));
            assert_eq!(
                version_bytes(change.key.len(), change.value.len()),
                (index_key.len() + INDEX_VALUE_BYTES + STAMP_BYTES + history.len()) as u64
            );
        }
    }

    #[test]
    fn rows_cut_short_are_corrupt() {
        let change = change();
        let value = encode_index_value(&change.row);
        assert!(decode_index_row(b"short", &value).is_err());
        assert!(decode_index_row(&index_key(b"key", change.row.stamp), &value[..40]).is_err());
        let mut history = Vec::new();
        encode_history_value(&change, &mut history);
        for len in 0..32 {
            assert!(decode_history_row(change.row.stamp, &history[..len]).is_err(), "{len} bytes");
        }
    }

    #[test]
    fn members_of_the_first_version_are_founders() {
        let member = Member {
            id: NodeId(7),
            name: "a".into(),
            peer_urls: vec!["http://a:2380".into()],
            client_urls: Vec::new(),
            disk_id: 0,
            wanted: Wanted::Voter,
            replaces: None,
        };
        let bytes = encode_member(&member);
        assert_eq!(decode_member(7, &bytes[..bytes.len() - 17]).expect("it is lawful"), member);
        assert!(decode_member(7, &bytes[..bytes.len() - 1]).is_err());
    }

    proptest! {
        #[test]
        fn the_index_is_ordered_by_key_and_then_from_new_to_old(
            a in prop::collection::vec(prop::sample::select(vec![0u8, 1, 0xfe, 0xff]), 0..4),
            b in prop::collection::vec(prop::sample::select(vec![0u8, 1, 0xfe, 0xff]), 0..4),
            stamps in any::<[(u32, u32); 2]>(),
        ) {
            let [x, y] = stamps.map(|(revision, sub)| stamp(i64::from(revision), sub));
            let expected = a.cmp(&b).then(y.cmp(&x));
            prop_assert_eq!(IndexKey::compare(&index_key(&a, x), &index_key(&b, y)), expected);
        }

        #[test]
        fn members_come_back_whole(
            name in ".{0,9}",
            urls in prop::collection::vec(".{0,9}", 0..5),
            split in 0..5usize,
            disk_id in any::<u64>(),
            wanted in prop::sample::select(vec![Wanted::Voter, Wanted::Learner, Wanted::Removed]),
            replaces in prop::option::of((1..=u64::MAX).prop_map(NodeId)),
        ) {
            let split = split.min(urls.len());
            let member = Member {
                id: NodeId(7),
                name,
                peer_urls: urls[..split].to_vec(),
                client_urls: urls[split..].to_vec(),
                disk_id,
                wanted,
                replaces,
            };
            prop_assert_eq!(decode_member(7, &encode_member(&member)).unwrap(), member);
        }
    }
}
