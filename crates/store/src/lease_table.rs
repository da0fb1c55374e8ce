//! The leases in force, in memory: by their numbers and by their deadlines. Made again from the file at a start.
//!
//! A renewal is the most frequent command of all: it finds its lease here, and not by a search through head and base.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use parking_lot::Mutex;
use ringfence_types::{Grant, Lease, LeaseId, LeaseTime};

use crate::base::Base;
use crate::error::StoreError;
use crate::record_layout;

/// The leases in force.
///
/// It follows the newest state that is being applied, which may be ahead of every view: whoever acts on it without being apply
/// has it judged by apply again.
#[derive(Debug, Default)]
pub(crate) struct LeaseTable(Mutex<Leases>);

#[derive(Debug, Default)]
struct Leases {
    /// Each with its record as it stands in the state: an older version may have written it otherwise.
    by_number: BTreeMap<LeaseId, (Lease, Bytes)>,
    by_deadline: BTreeSet<(LeaseTime, Grant)>,
}

impl LeaseTable {
    /// Those in a file.
    pub fn of(base: &Base) -> Result<LeaseTable, StoreError> {
        let mut leases = Leases::default();
        let prefix = record_layout::leases();
        for entry in base.records(std::ops::Bound::Included(&prefix))?.into_iter().flatten() {
            let (key, value) = entry?;
            if !key.value().starts_with(&prefix) {
                break;
            }
            let lease = record_layout::decode_lease(key.value(), value.value())?;
            leases.by_deadline.insert((lease.deadline, lease.grant));
            leases.by_number.insert(lease.grant.lease, (lease, Bytes::copy_from_slice(value.value())));
        }
        Ok(LeaseTable(Mutex::new(leases)))
    }

    /// A lease in force.
    pub fn lease(&self, lease: LeaseId) -> Option<Lease> {
        self.0.lock().by_number.get(&lease).map(|(lease, _)| *lease)
    }

    /// Takes over what a command has made of a lease's record, and returns the record before.
    pub fn change(&self, key: &[u8], value: Option<&Bytes>) -> Result<Option<Bytes>, StoreError> {
        let number = record_layout::number_of_lease(key)?;
        let after = value.map(|value| record_layout::decode_lease(key, value)).transpose()?;
        let mut leases = self.0.lock();
        let before = match (after, value) {
            (Some(after), Some(value)) => {
                leases.by_deadline.insert((after.deadline, after.grant));
                leases.by_number.insert(number, (after, value.clone()))
            }
            _ => leases.by_number.remove(&number),
        };
        let Some((before, record)) = before else { return Ok(None) };
        if after.is_none_or(|after| (after.deadline, after.grant) != (before.deadline, before.grant)) {
            leases.by_deadline.remove(&(before.deadline, before.grant));
        }
        Ok(Some(record))
    }

    /// The leases whose deadlines are at or before `clock`, the earliest first, up to `count_max` of them.
    pub fn due(&self, clock: LeaseTime, count_max: usize) -> Vec<Grant> {
        let leases = self.0.lock();
        let due = leases.by_deadline.iter().take_while(|(deadline, _)| *deadline <= clock);
        due.take(count_max).map(|(_, grant)| *grant).collect()
    }

    /// The number of leases.
    pub fn count(&self) -> usize {
        self.0.lock().by_number.len()
    }
}

#[cfg(test)]
mod tests {
    use ringfence_types::Index;

    use super::*;

    #[test]
    fn a_change_moves_a_lease_and_returns_its_record_before() {
        let table = LeaseTable::default();
        let lease = |grant, deadline| Lease {
            grant: Grant { lease: LeaseId(7), index: Index(grant) },
            ttl_seconds: 2,
            deadline: LeaseTime(deadline),
            keys: 0,
        };
        let key = record_layout::lease_key(LeaseId(7));
        let change = |after: Option<Lease>| {
            let value = after.as_ref().map(record_layout::encode_lease);
            table.change(&key, value.as_ref()).unwrap()
        };
        let (granted, renewed, again) = (lease(1, 5), lease(1, 9), lease(2, 6));
        let record = |lease: &Lease| Some(record_layout::encode_lease(lease));
        assert_eq!(change(Some(granted)), None);
        assert_eq!(change(Some(granted)), record(&granted), "the same once more loses nothing");
        assert_eq!(table.due(LeaseTime(5), 9), [granted.grant]);
        assert_eq!(change(Some(renewed)), record(&granted));
        assert_eq!((table.due(LeaseTime(8), 9), table.lease(LeaseId(7))), (vec![], Some(renewed)));
        assert_eq!(change(None), record(&renewed));
        assert_eq!((table.count(), table.due(LeaseTime(99), 9)), (0, vec![]));
        assert_eq!(change(None), None);
        change(Some(again));
        assert_eq!((table.count(), table.due(LeaseTime(6), 9)), (1, vec![again.grant]));
    }
}
