//! Leases within a command: what hangs on them, and their ends.

use bytes::Bytes;
use ringfence_canary::Canary;
use ringfence_types::{Grant, Index, Lease, LeaseCommand, LeaseId, LeaseTime, Rejection, Reply, limits};

use crate::error::{ReadError, StoreError};
use crate::record_layout;
use crate::transaction::Transaction;

impl Transaction<'_> {
    /// A lease that is in force.
    pub fn lease(&self, id: LeaseId) -> Result<Option<Lease>, StoreError> {
        let key = record_layout::lease_key(id);
        match self.changed_record(&key) {
            Some(record) => record.map(|value| record_layout::decode_lease(&key, value)).transpose(),
            None => Ok(self.newest_lease(id)),
        }
    }

    /// A lease, if this grant of it is in force.
    pub fn granted(&self, grant: Grant) -> Result<Option<Lease>, StoreError> {
        let lease = self.lease(grant.lease)?;
        Ok(lease.filter(|lease| lease.grant == grant || Canary::GrantIgnored.sings()))
    }

    /// Carries out a command about leases that stands at `index`, at the time `now`.
    pub fn change_leases(
        &mut self,
        command: &LeaseCommand,
        now: LeaseTime,
        index: Index,
    ) -> Result<Reply, ReadError> {
        match command {
            LeaseCommand::Grant { lease, ttl_seconds } => {
                self.grant(Grant { lease: *lease, index }, *ttl_seconds, now).map(Reply::LeaseGranted)
            }
            LeaseCommand::Revoke { lease } => {
                let lease = self.lease(*lease)?.ok_or(Rejection::LeaseNotFound)?;
                self.end_lease(&lease)?;
                Ok(Reply::LeaseRevoked)
            }
            LeaseCommand::Renew { grants } => Ok(Reply::LeasesRenewed(self.renew(grants, now)?)),
            LeaseCommand::Tick => Ok(Reply::LeaseClock),
            LeaseCommand::Expire { .. } => unreachable!("each lease ends at a revision of its own"),
        }
    }

    fn grant(&mut self, grant: Grant, ttl_seconds: u64, now: LeaseTime) -> Result<Lease, ReadError> {
        if grant.lease == LeaseId(0) {
            return Err(Rejection::LeaseNotFound.into());
        }
        if self.lease(grant.lease)?.is_some() {
            return Err(Rejection::LeaseExists.into());
        }
        let ttl_seconds = ttl_seconds.clamp(limits::LEASE_TTL_SECONDS_MIN, limits::LEASE_TTL_SECONDS_MAX);
        let deadline = Lease::deadline_from(now, ttl_seconds);
        let lease = Lease { grant, ttl_seconds, deadline, keys: 0 };
        self.set_lease(&lease);
        Ok(lease)
    }

    /// Lets those of the grants begin anew that are in force, and returns them.
    fn renew(&mut self, grants: &[Grant], now: LeaseTime) -> Result<Vec<Lease>, ReadError> {
        let mut renewed = Vec::with_capacity(grants.len());
        for grant in grants {
            let Some(lease) = self.granted(*grant)? else { continue };
            let lease = Lease { deadline: Lease::deadline_from(now, lease.ttl_seconds), ..lease };
            self.set_lease(&lease);
            renewed.push(lease);
        }
        Ok(renewed)
    }

    /// Whether a grant is in force and due at `now`: the lease, if so.
    pub fn due(&self, grant: Grant, now: LeaseTime) -> Result<Option<Lease>, StoreError> {
        let lease = self.granted(grant)?;
        Ok(lease.filter(|lease| lease.deadline <= now || Canary::EndUnjudged.sings()))
    }

    /// Ends a lease: its keys are deleted, whatever guards them, and its session is forgotten.
    pub fn end_lease(&mut self, lease: &Lease) -> Result<(), ReadError> {
        let prefix = record_layout::keys_of_lease(lease.grant.lease);
        for (record, _) in self.scan_records(&prefix)? {
            let key = record_layout::hanging(&record)?;
            self.set_record(record, None);
            self.delete_key(&key)?;
        }
        self.set_record(record_layout::lease_key(lease.grant.lease), None);
        self.forget_session(lease.grant)?;
        Ok(())
    }

    /// Takes a key off one lease and hangs it on another; 0 is none.
    pub fn rehang(&mut self, key: &Bytes, from: LeaseId, to: LeaseId) -> Result<(), ReadError> {
        if from == to {
            return Ok(());
        }
        if from != LeaseId(0) {
            self.set_record(record_layout::hanging_key(from, key), None);
            // A lease that is ending is gone before its keys are.
            if let Some(lease) = self.lease(from)? {
                self.set_lease(&Lease { keys: lease.keys.saturating_sub(1), ..lease });
            }
        }
        if to != LeaseId(0) {
            let lease = self.lease(to)?.ok_or(Rejection::LeaseNotFound)?;
            if lease.keys >= limits::LEASE_KEYS_MAX {
                return Err(Rejection::LeaseFull(limits::LEASE_KEYS_MAX).into());
            }
            self.set_record(record_layout::hanging_key(to, key), Some(Bytes::new()));
            self.set_lease(&Lease { keys: lease.keys + 1, ..lease });
        }
        Ok(())
    }

    fn set_lease(&mut self, lease: &Lease) {
        let key = record_layout::lease_key(lease.grant.lease);
        self.set_record(key, Some(record_layout::encode_lease(lease)));
    }
}
