//! What a view tells about leases, holders of locks, and guards.

use bytes::Bytes;
use ringfence_types::{Guard, Holder, Lease, LeaseId, LeaseTime};

use crate::error::ReadError;
use crate::view::View;

impl View {
    /// The reading of the lease clock that was applied last.
    #[must_use]
    pub fn lease_clock(&self) -> LeaseTime {
        unimplemented!()
    }

    /// A lease, if it is in force.
    ///
    /// # Errors
    /// A failure to read the file.
    pub fn lease(&self, _lease: LeaseId) -> Result<Option<Lease>, ReadError> {
        unimplemented!()
    }

    /// All leases, by their numbers.
    ///
    /// # Errors
    /// A failure to read the file.
    pub fn leases(&self) -> Result<Vec<Lease>, ReadError> {
        unimplemented!()
    }

    /// The keys that hang on a lease, in their order.
    ///
    /// # Errors
    /// A failure to read the file.
    pub fn lease_keys(&self, _lease: LeaseId) -> Result<Vec<Bytes>, ReadError> {
        unimplemented!()
    }

    /// Who holds a lock.
    ///
    /// # Errors
    /// A failure to read the file.
    pub fn holder(&self, _lock: &Bytes) -> Result<Option<Holder>, ReadError> {
        unimplemented!()
    }

    /// The candidates of a lock, oldest first, up to `count_max` of them: the first one is the holder.
    ///
    /// # Errors
    /// A failure to read the file.
    pub fn candidates(&self, _lock: &Bytes, _count_max: usize) -> Result<Vec<Holder>, ReadError> {
        unimplemented!()
    }

    /// The guards, by their ranges.
    #[must_use]
    pub fn guards(&self) -> Vec<Guard> {
        unimplemented!()
    }
}
