//! When leases may end: an index in memory of all leases by their deadlines, made again from the file at a start.

use std::collections::BTreeSet;

use bytes::Bytes;
use parking_lot::Mutex;
use ringfence_types::{Grant, Lease, LeaseTime};

use crate::base::Base;
use crate::error::StoreError;
use crate::record_layout;

/// The leases by their deadlines.
///
/// It follows the newest state that is being applied, which may be ahead of every view: whoever acts on it has it judged by
/// apply again.
#[derive(Debug, Default)]
pub(crate) struct Deadlines(Mutex<BTreeSet<(LeaseTime, Grant)>>);

impl Deadlines {
    /// Those of the leases in a file.
    pub fn of(base: &Base) -> Result<Deadlines, StoreError> {
        let deadlines = Deadlines::default();
        let prefix = record_layout::leases();
        for entry in base.records(std::ops::Bound::Included(&prefix))?.into_iter().flatten() {
            let (key, value) = entry?;
            if !key.value().starts_with(&prefix) {
                break;
            }
            let lease = record_layout::decode_lease(key.value(), value.value())?;
            deadlines.0.lock().insert((lease.deadline, lease.grant));
        }
        Ok(deadlines)
    }

    /// Takes over a change of a lease's record.
    pub fn change(
        &self,
        key: &[u8],
        before: Option<&Bytes>,
        after: Option<&Bytes>,
    ) -> Result<(), StoreError> {
        let lease = |value: Option<&Bytes>| -> Result<Option<Lease>, StoreError> {
            value.map(|value| record_layout::decode_lease(key, value)).transpose()
        };
        let (before, after) = (lease(before)?, lease(after)?);
        let mut deadlines = self.0.lock();
        if let Some(before) = before {
            deadlines.remove(&(before.deadline, before.grant));
        }
        if let Some(after) = after {
            deadlines.insert((after.deadline, after.grant));
        }
        Ok(())
    }

    /// The leases whose deadlines are at or before `clock`, the earliest first, up to `count_max` of them.
    pub fn due(&self, clock: LeaseTime, count_max: usize) -> Vec<Grant> {
        let deadlines = self.0.lock();
        let due = deadlines.iter().take_while(|(deadline, _)| *deadline <= clock);
        due.take(count_max).map(|(_, grant)| *grant).collect()
    }

    /// The number of leases.
    pub fn count(&self) -> usize {
        self.0.lock().len()
    }
}
