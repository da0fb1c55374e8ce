//! The running hash of the logical state.
//!
//! It is a sum modulo 2^128 of one keyed 128-bit hash a logical row, so it depends on the rows alone: not on the order of
//! their writing, nor on batches, checkpoints, compaction or snapshots. The key is fixed and public: the hash finds
//! divergence and decay, not forgery. Members compare it only within one [`HASH_VERSION`].

use std::fmt;
use std::hash::Hasher;

use ringfence_types::{Alarm, Member, Revision};
use siphasher::sip128::{Hasher128, SipHasher13};

use crate::layout;
use crate::row::Row;

/// Changes whenever the same state would get another hash.
pub(crate) const HASH_VERSION: u8 = 1;

/// The hash of the whole logical state at one applied index.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StateHash(pub u128);

impl fmt::Display for StateHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

/// The hash of one logical row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct RowHash(pub u128);

/// The sum of the hashes of a set of rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct RowSum(pub u128);

impl RowSum {
    pub fn add(&mut self, hash: RowHash) {
        self.0 = self.0.wrapping_add(hash.0);
    }

    pub fn subtract(&mut self, hash: RowHash) {
        self.0 = self.0.wrapping_sub(hash.0);
    }
}

/// The tables as the hash names them; numbers are never used again.
#[derive(Clone, Copy)]
enum Table {
    Key = 1,
    Member = 2,
    Meta = 3,
    Chain = 4,
    Alarm = 5,
    Record = 6,
}

fn hasher(table: Table) -> SipHasher13 {
    let mut hasher = SipHasher13::new_with_keys(0x7269_6e67_6665_6e63, 0x6520_7374_6174_6521);
    hasher.write(&[HASH_VERSION, table as u8]);
    hasher
}

fn finish(hasher: &SipHasher13) -> RowHash {
    RowHash(hasher.finish128().as_u128())
}

/// The hash of one version of a key; `row.hash` itself is not looked at.
pub(crate) fn row(key: &[u8], row: &Row, value: &[u8]) -> RowHash {
    let mut fields = [0; 37];
    fields[0] = u8::from(row.deleted);
    fields[1..5].copy_from_slice(&layout::length(key).to_be_bytes());
    fields[5..13].copy_from_slice(&row.create_revision.0.to_be_bytes());
    fields[13..21].copy_from_slice(&row.stamp.revision.0.to_be_bytes());
    fields[21..29].copy_from_slice(&row.version.to_be_bytes());
    fields[29..37].copy_from_slice(&row.lease.0.to_be_bytes());
    let mut hasher = hasher(Table::Key);
    hasher.write(&fields);
    hasher.write(key);
    hasher.write(value);
    finish(&hasher)
}

/// The hash of a member's record.
pub(crate) fn member(member: &Member) -> RowHash {
    let mut hasher = hasher(Table::Member);
    hasher.write(&member.id.0.to_be_bytes());
    hasher.write(&layout::encode_member(member));
    finish(&hasher)
}

/// The hash of an alarm that is raised.
pub(crate) fn alarm(alarm: Alarm) -> RowHash {
    let mut hasher = hasher(Table::Alarm);
    hasher.write(&layout::encode_alarm(alarm));
    finish(&hasher)
}

/// The hash of a record of one of the small tables.
pub(crate) fn record(key: &[u8], value: &[u8]) -> RowHash {
    let mut hasher = hasher(Table::Record);
    hasher.write(&layout::length(key).to_be_bytes());
    hasher.write(key);
    hasher.write(value);
    finish(&hasher)
}

/// The hash of a logical number that the state knows by name.
pub(crate) fn meta(name: &str, value: u128) -> RowHash {
    let mut hasher = hasher(Table::Meta);
    hasher.write(name.as_bytes());
    hasher.write(&[0]);
    hasher.write(&value.to_be_bytes());
    finish(&hasher)
}

/// The chain over all changes, one link further: it covers the history, which the sum over the newest rows does not.
pub(crate) fn chain(chain: u128, change: RowHash) -> u128 {
    let mut hasher = hasher(Table::Chain);
    hasher.write(&chain.to_be_bytes());
    hasher.write(&change.0.to_be_bytes());
    finish(&hasher).0
}

/// The chain of a history that begins anew at `revision`, out of the old one's.
pub(crate) fn chain_anew(chain: u128, revision: Revision) -> u128 {
    let mut hasher = hasher(Table::Chain);
    hasher.write(&chain.to_be_bytes());
    hasher.write(&revision.0.to_be_bytes());
    finish(&hasher).0
}
