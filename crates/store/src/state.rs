//! The logical meta of the state: everything beside the keys.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;
use ringfence_canary::Canary;
use ringfence_types::{Alarm, AlarmKind, Guard, LeaseTime, LogId, Member, NodeId, Rejection, Revision};

use crate::hash::{self, RowHash, RowSum, StateHash};
use crate::row::Change;

/// How far a state is in the log.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Position {
    /// The last entry in it; none in a state that has never applied one.
    pub log_id: Option<LogId>,
    /// The last membership in it with the entry that set it, in bytes that the store does not look into.
    pub membership: Option<(Option<LogId>, Bytes)>,
}

/// The logical meta at one applied index.
///
/// Invariants: `Revision::EMPTY <= compacted + 1`, `compacted <= revision`, and `row_sum` is the sum of the hashes of the
/// newest versions of all keys that exist.
#[derive(Debug, Clone)]
pub(crate) struct State {
    pub position: Position,
    pub revision: Revision,
    /// The oldest revision that can be read; 0 while nothing was compacted.
    pub compacted: Revision,
    pub row_sum: RowSum,
    /// The chain over all changes there ever were.
    pub chain: u128,
    /// A handful of records, each as large as its addresses.
    pub members: Arc<BTreeMap<NodeId, Member>>,
    /// What is wrong with the cluster: at most one of each kind a member.
    pub alarms: Arc<BTreeSet<Alarm>>,
    /// The largest reading of the lease clock that an entry carried.
    pub lease_clock: LeaseTime,
    /// The sum of the hashes of all records.
    pub record_sum: RowSum,
    /// The guards, in the order of their records: each write is held against all of them.
    pub guards: Arc<Vec<Guard>>,
}

impl State {
    /// The state of a store that nothing was ever applied to.
    pub fn empty() -> State {
        State {
            position: Position::default(),
            revision: Revision::EMPTY,
            compacted: Revision(0),
            row_sum: RowSum::default(),
            chain: 0,
            members: Arc::default(),
            alarms: Arc::default(),
            lease_clock: LeaseTime(0),
            record_sum: RowSum::default(),
            guards: Arc::default(),
        }
    }

    /// The members' records, to be changed.
    pub fn members_mut(&mut self) -> &mut BTreeMap<NodeId, Member> {
        Arc::make_mut(&mut self.members)
    }

    /// The hash of the whole logical state.
    pub fn hash(&self) -> StateHash {
        let mut sum = self.row_sum;
        sum.add(hash::meta("revision", u128::from(self.revision.0.unsigned_abs())));
        sum.add(hash::meta("compacted", u128::from(self.compacted.0.unsigned_abs())));
        sum.add(hash::meta("chain", self.chain));
        for member in self.members.values() {
            sum.add(hash::member(member));
        }
        for alarm in self.alarms.iter() {
            sum.add(hash::alarm(*alarm));
        }
        // A state without leases has the hash that it had before there were any.
        if self.lease_clock > LeaseTime(0) {
            sum.add(hash::meta("lease_clock", u128::from(self.lease_clock.0)));
        }
        sum.add(RowHash(self.record_sum.0));
        StateHash(sum.0)
    }

    /// Whether nobody can say which state is right.
    pub fn is_corrupt(&self) -> bool {
        self.alarms.iter().any(|alarm| alarm.kind == AlarmKind::Corrupt)
    }

    /// The revision that a question means, if it can be answered.
    pub fn readable(&self, revision: Option<Revision>) -> Result<Revision, Rejection> {
        match revision {
            Some(revision) if revision > self.revision => {
                Err(Rejection::FutureRevision { current: self.revision })
            }
            Some(revision) if revision > Revision(0) && revision < self.compacted => {
                Err(Rejection::Compacted { oldest: self.compacted })
            }
            Some(revision) if revision > Revision(0) => Ok(revision),
            // etcd's clients write "the newest" as 0.
            _ => Ok(self.revision),
        }
    }

    /// Takes a change of a record into the hashes.
    pub fn account_record(&mut self, key: &[u8], replaced: Option<&Bytes>, value: Option<&Bytes>) {
        if let Some(replaced) = replaced {
            self.record_sum.subtract(hash::record(key, replaced));
        }
        if let Some(value) = value {
            self.record_sum.add(hash::record(key, value));
        }
    }

    /// The last entry in the state: records made by later ones are not in it.
    pub fn until(&self) -> u64 {
        self.position.log_id.map_or(0, |log_id| log_id.index.0)
    }

    /// Takes a change into the hashes; `replaced` is what was the newest version of the key.
    pub fn account(&mut self, change: &Change, replaced: Option<&crate::row::Row>) {
        if Canary::HashWithoutTable.sings() {
            // The rows of keys are left out of the running hash, but not of what recomputes it.
            return;
        }
        if let Some(replaced) = replaced.filter(|row| !row.deleted) {
            self.row_sum.subtract(replaced.hash);
        }
        if !change.row.deleted {
            self.row_sum.add(change.row.hash);
        }
        self.chain = hash::chain(self.chain, change.row.hash);
    }
}
