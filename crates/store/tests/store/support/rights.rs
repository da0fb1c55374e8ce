//! Leases, candidates, fences and guards in their plainest form: lists that are searched from one end to the other.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use ringfence_types::{
    CompareOperator, CompareTarget, Fence, Grant, Guard, GuardChange, Holder, Index, KeyRange, Lease,
    LeaseCommand, LeaseId, LeaseTime, Operation, RangeEnd, Rejection, Reply, Revision, Scope, Txn, Write,
    limits,
};

use super::model::{Keys, holds};

#[derive(Debug, Clone, Default)]
pub struct Rights {
    pub clock: LeaseTime,
    pub leases: BTreeMap<LeaseId, Lease>,
    /// The candidates' keys, each with its lock.
    pub candidates: BTreeSet<(Bytes, Bytes)>,
    pub guards: Vec<Guard>,
}

impl Rights {
    /// A lease as it is told, with the number of its keys.
    pub fn told(&self, lease: &Lease, keys: &Keys) -> Lease {
        let hanging = keys.values().filter(|kv| kv.lease == lease.grant.lease).count();
        Lease { keys: u32::try_from(hanging).expect("few"), ..*lease }
    }

    /// The candidates of a lock, oldest first.
    pub fn candidates_of(&self, lock: &[u8], keys: &Keys) -> Vec<Holder> {
        let of_lock = self.candidates.iter().filter(|(_, name)| name == lock);
        let mut candidates: Vec<Holder> =
            of_lock.map(|(key, _)| Holder { key: key.clone(), token: keys[key].create_revision }).collect();
        candidates.sort_by_key(|candidate| candidate.token);
        candidates
    }

    pub fn renew(&mut self, grants: &[Grant], keys: &Keys) -> Reply {
        let mut renewed = Vec::new();
        for grant in grants {
            if let Some(lease) = self.leases.get_mut(&grant.lease).filter(|lease| lease.grant == *grant) {
                lease.deadline = LeaseTime(self.clock.0 + lease.ttl_seconds * 1_000);
                let lease = *lease;
                renewed.push(self.told(&lease, keys));
            }
        }
        Reply::LeasesRenewed(renewed)
    }

    pub fn grant(&mut self, lease: LeaseId, ttl_seconds: u64, index: u64) -> Result<Reply, Rejection> {
        if self.leases.contains_key(&lease) {
            return Err(Rejection::LeaseExists);
        }
        let ttl_seconds = ttl_seconds.max(limits::LEASE_TTL_SECONDS_MIN);
        let granted = Lease {
            grant: Grant { lease, index: Index(index) },
            ttl_seconds,
            deadline: LeaseTime(self.clock.0 + ttl_seconds * 1_000),
            keys: 0,
        };
        self.leases.insert(lease, granted);
        Ok(Reply::LeaseGranted(granted))
    }

    /// Those of the grants that end now.
    pub fn due(&self, command: &LeaseCommand) -> Vec<Grant> {
        let LeaseCommand::Expire { grants } = command else { return Vec::new() };
        let is_due = |grant: &&Grant| {
            self.leases
                .get(&grant.lease)
                .is_some_and(|lease| lease.grant == **grant && lease.deadline <= self.clock)
        };
        grants.iter().filter(is_due).copied().collect()
    }

    /// Follows a change of the keys: `created` are those that it created with a lease.
    pub fn follow(&mut self, before: &Keys, after: &Keys, created: &BTreeSet<Bytes>) {
        let same = |key: &Bytes| {
            let created = |keys: &Keys| keys.get(key).map(|kv| kv.create_revision);
            created(before).is_some() && created(before) == created(after)
        };
        self.candidates.retain(|(key, _)| same(key));
        let locks: Vec<(Bytes, Bytes)> =
            created.iter().filter_map(|key| Some((key.clone(), Scope::lock_of(key)?))).collect();
        for (key, lock) in &locks {
            if locks.iter().filter(|(_, other)| other == lock).count() == 1 {
                self.candidates.insert((key.clone(), lock.clone()));
            }
        }
    }

    fn in_force(&self, scope: &Scope, keys: &Keys) -> Option<(Bytes, Revision)> {
        match scope {
            Scope::Key(key) => keys.get(key).map(|kv| (key.clone(), kv.create_revision)),
            Scope::Lock(name) => self.candidates_of(name, keys).first().map(|h| (h.key.clone(), h.token)),
        }
    }

    pub fn check_fences(&self, fences: &[Fence], keys: &Keys) -> Result<(), Rejection> {
        for fence in fences {
            let in_force = self.in_force(&fence.scope, keys).map(|(_, token)| token);
            if in_force != Some(fence.token) {
                let (scope, presented) = (fence.scope.clone(), fence.token);
                return Err(Rejection::StaleFence { scope, presented, in_force });
            }
        }
        Ok(())
    }

    pub fn check_write(&self, write: &Write, fences: &[Fence], keys: &Keys) -> Result<(), Rejection> {
        match write {
            Write::Put(put) => self.check_range(&KeyRange::single(put.key.clone()), fences, &[], keys),
            Write::DeleteRange(delete) => self.check_range(&delete.range, fences, &[], keys),
            Write::Txn(txn) => self.check_txn(txn, fences, &[], keys),
        }
    }

    fn check_txn(
        &self,
        txn: &Txn,
        fences: &[Fence],
        proofs: &[(Bytes, Revision)],
        keys: &Keys,
    ) -> Result<(), Rejection> {
        let succeeded = txn.compares.iter().all(|compare| holds(keys, compare));
        let mut proofs = proofs.to_vec();
        if succeeded {
            proofs.extend(txn.compares.iter().filter_map(|compare| match compare.target {
                CompareTarget::Create(created)
                    if compare.operator == CompareOperator::Equal
                        && compare.range.end == RangeEnd::Single =>
                {
                    Some((compare.range.start.clone(), created))
                }
                _ => None,
            }));
        }
        for operation in if succeeded { &txn.success } else { &txn.failure } {
            match operation {
                Operation::Range(_) => {}
                Operation::Put(put) => {
                    self.check_range(&KeyRange::single(put.key.clone()), fences, &proofs, keys)?;
                }
                Operation::DeleteRange(delete) => self.check_range(&delete.range, fences, &proofs, keys)?,
                Operation::Txn(nested) => self.check_txn(nested, fences, &proofs, keys)?,
            }
        }
        Ok(())
    }

    fn check_range(
        &self,
        range: &KeyRange,
        fences: &[Fence],
        proofs: &[(Bytes, Revision)],
        keys: &Keys,
    ) -> Result<(), Rejection> {
        for guard in self.guards.iter().filter(|guard| guard.range.overlaps(range)) {
            let proven = self.in_force(&guard.scope, keys).is_some_and(|held| proofs.contains(&held));
            if !proven && fences.iter().all(|fence| fence.scope != guard.scope) {
                let (range, scope) = (guard.range.clone(), guard.scope.clone());
                return Err(Rejection::GuardedRange { range, scope });
            }
        }
        Ok(())
    }

    pub fn change_guard(&mut self, change: &GuardChange, keys: &Keys) -> Result<Reply, Rejection> {
        self.check_fences(&change.fences, keys)?;
        if !change.overrides {
            self.check_range(&change.range, &change.fences, &[], keys)?;
        }
        let mut guards: Vec<Guard> =
            self.guards.iter().filter(|guard| guard.range != change.range).cloned().collect();
        match change.guard() {
            Some(guard) => {
                guards.push(guard);
                // The model knows no order of guards: the scope named may be another one.
                let covered = guards
                    .iter()
                    .any(|scope| guards.iter().any(|guard| scope.scope.is_decided_in(&guard.range)));
                if covered {
                    return Err(Rejection::GuardOverItsLock {
                        scope: change.scope.clone().expect("it is set"),
                    });
                }
            }
            None if guards.len() == self.guards.len() => return Err(Rejection::GuardNotFound),
            None => {}
        }
        self.guards = guards;
        Ok(Reply::GuardChanged)
    }
}
