//! What the floors above need in order to keep leases: the clock, and which leases are due.

use ringfence_types::{Command, Grant, Lease, LeaseCommand, LeaseId, LeaseTime};

use crate::api::ProposeError;
use crate::node::Node;
use crate::rt;

impl Node {
    /// The lease clock's reading of this moment. None unless this node leads, its leader lease holds, and it has applied the
    /// first entry of its leadership; on other members [`ringfence_store::View::lease_clock`] tells the last applied one.
    #[must_use]
    pub fn lease_clock(&self) -> Option<LeaseTime> {
        self.0.authority.lease_clock()
    }

    /// Leases whose deadlines are at or before `clock` in the newest local state, the earliest first, up to `count_max`.
    #[must_use]
    pub fn due_leases(&self, clock: LeaseTime, count_max: usize) -> Vec<Grant> {
        self.0.shelf.store.due_leases(clock, count_max)
    }

    /// A lease as this member knows it, which may be too old and too new: a hint that apply judges again.
    #[must_use]
    pub fn lease_hint(&self, lease: LeaseId) -> Option<Lease> {
        self.0.shelf.store.newest_lease(lease)
    }

    /// The number of leases in force in the newest local state.
    #[must_use]
    pub fn lease_count(&self) -> usize {
        self.0.shelf.store.lease_count()
    }

    /// Writes the lease clock down, for a successor to go on from.
    ///
    /// # Errors
    /// As [`Node::propose`]; the clock is carried on all the same by whatever comes next.
    pub async fn carry_lease_clock(&self, deadline: rt::Instant) -> Result<(), ProposeError> {
        let tick = Command::Lease { command: LeaseCommand::Tick, clock: LeaseTime(0) };
        // It changes nothing but the clock, and so is never refused for a reason of its own.
        self.propose_anyway(&tick, deadline).await.map(drop)
    }
}
