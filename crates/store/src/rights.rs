//! What a view tells about leases, holders of locks, and guards.

use bytes::Bytes;
use ringfence_types::{Guard, Holder, Lease, LeaseId, LeaseTime};

use crate::error::ReadError;
use crate::file::guarded;
use crate::record_layout;
use crate::view::View;

impl View {
    /// The reading of the lease clock that was applied last.
    #[must_use]
    pub fn lease_clock(&self) -> LeaseTime {
        self.state.lease_clock
    }

    /// A lease, if it is in force.
    ///
    /// # Errors
    /// A failure to read the file.
    pub fn lease(&self, lease: LeaseId) -> Result<Option<Lease>, ReadError> {
        let key = record_layout::lease_key(lease);
        let record = self.sources.record(None, &key, self.state.until())?;
        Ok(record.map(|value| record_layout::decode_lease(&key, &value)).transpose()?)
    }

    /// All leases, by their numbers.
    ///
    /// # Errors
    /// A failure to read the file.
    pub fn leases(&self) -> Result<Vec<Lease>, ReadError> {
        let records = self.all_records(&record_layout::leases(), usize::MAX)?;
        Ok(records
            .iter()
            .map(|(key, value)| record_layout::decode_lease(key, value))
            .collect::<Result<_, _>>()?)
    }

    /// The keys that hang on a lease, in their order.
    ///
    /// # Errors
    /// A failure to read the file.
    pub fn lease_keys(&self, lease: LeaseId) -> Result<Vec<Bytes>, ReadError> {
        let records = self.all_records(&record_layout::keys_of_lease(lease), usize::MAX)?;
        Ok(records.iter().map(|(key, _)| record_layout::hanging(key)).collect::<Result<_, _>>()?)
    }

    /// Who holds a lock.
    ///
    /// # Errors
    /// A failure to read the file.
    pub fn holder(&self, lock: &Bytes) -> Result<Option<Holder>, ReadError> {
        let record = self.sources.record(None, &record_layout::holder_key(lock), self.state.until())?;
        Ok(record.map(|value| record_layout::decode_holder(&value)).transpose()?)
    }

    /// The candidates of a lock, oldest first, up to `count_max` of them: the first one is the holder.
    ///
    /// # Errors
    /// A failure to read the file.
    pub fn candidates(&self, lock: &Bytes, count_max: usize) -> Result<Vec<Holder>, ReadError> {
        let records = self.all_records(&record_layout::candidates(lock), count_max)?;
        let candidates = records.iter().map(|(key, value)| record_layout::decode_candidate(key, value));
        Ok(candidates.collect::<Result<_, _>>()?)
    }

    /// The guards, by their ranges.
    #[must_use]
    pub fn guards(&self) -> Vec<Guard> {
        self.state.guards.to_vec()
    }

    /// The records whose keys begin with `prefix`.
    fn all_records(&self, prefix: &Bytes, count_max: usize) -> Result<Vec<(Bytes, Bytes)>, ReadError> {
        let until = self.state.until();
        Ok(guarded(|| self.sources.records(None, prefix, None, until)?.collect(count_max))?)
    }
}
