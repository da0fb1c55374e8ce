//! What a command claims of the space that a cluster has.

use bytes::Bytes;

use crate::command::{Command, LeaseCommand, Operation, Put, PutLease, PutValue, Txn, Write};
use crate::fence::Scope;
use crate::key::LeaseId;
use crate::limits::RIGHTS_WRITE_BYTES_MAX;

/// What a command claims of the space that a cluster has, in rising order of how soon it must be refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Claim {
    /// Nothing, or it gives some back: reads, deletions, ends of leases, compaction.
    Nothing,
    /// A little, for who may do what: leases, the keys of locks and elections, guards.
    Rights,
    /// Room for keys.
    Keys,
}

impl Command {
    /// What the command claims. It depends on the command alone.
    #[must_use]
    pub fn claim(&self) -> Claim {
        match self {
            Command::Put(put) => of_puts(&[put], false),
            Command::Txn(txn) => of_txn(txn),
            Command::Conditional(conditional) => match &conditional.write {
                Write::Put(put) => of_puts(&[put], false),
                Write::DeleteRange(_) => Claim::Nothing,
                Write::Txn(txn) => of_txn(txn),
            },
            Command::Lease { command: LeaseCommand::Grant { .. }, .. } => Claim::Rights,
            Command::ChangeGuard(change) if change.scope.is_some() => Claim::Rights,
            Command::ChangeGuard(_)
            | Command::Lease { .. }
            | Command::DeleteRange(_)
            | Command::Compact { .. }
            | Command::PublishMember { .. }
            | Command::ChangeMember(_)
            | Command::ChangeAlarm { .. }
            | Command::Resolve { .. } => Claim::Nothing,
        }
    }
}

fn of_txn(txn: &Txn) -> Claim {
    let mut puts = Vec::new();
    collect(txn, &mut puts);
    of_puts(&puts, !txn.compares.is_empty())
}

/// The puts of both branches, nested ones included.
fn collect<'a>(txn: &'a Txn, puts: &mut Vec<&'a Put>) {
    for operation in txn.success.iter().chain(&txn.failure) {
        match operation {
            Operation::Put(put) => puts.push(put),
            Operation::Txn(nested) => collect(nested, puts),
            Operation::Range(_) | Operation::DeleteRange(_) => {}
        }
    }
}

fn of_puts(puts: &[&Put], compared: bool) -> Claim {
    if puts.is_empty() {
        return Claim::Nothing;
    }
    let bytes: usize = puts.iter().map(|put| put.key.len() + value(put).map_or(0, Bytes::len)).sum();
    let is_small = bytes <= RIGHTS_WRITE_BYTES_MAX;
    if is_small && puts.iter().all(|put| is_candidate(put, compared)) { Claim::Rights } else { Claim::Keys }
}

fn value(put: &Put) -> Option<&Bytes> {
    match &put.value {
        PutValue::Set(value) => Some(value),
        PutValue::Keep => None,
    }
}

/// Whether a put is shaped as those are that queue for a lock or an election, by the service or by a client's recipe: a key
/// right below a name, on a lease. A leader that proclaims something keeps the lease that its key has, under a compare.
fn is_candidate(put: &Put, compared: bool) -> bool {
    let is_leased = match put.lease {
        PutLease::Set(lease) => lease != LeaseId(0),
        PutLease::Keep => compared,
    };
    is_leased && Scope::lock_of(&put.key).is_some()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::{Compare, CompareOperator, CompareTarget, Conditional, DeleteRange, GuardChange};
    use crate::key::{KeyRange, Revision};
    use crate::lease::LeaseTime;

    fn put(key: &'static str, lease: i64, value_bytes: usize) -> Put {
        Put {
            key: Bytes::from_static(key.as_bytes()),
            value: PutValue::Set(vec![0; value_bytes].into()),
            lease: PutLease::Set(LeaseId(lease)),
            prev_kv: false,
        }
    }

    fn txn(success: Vec<Operation>) -> Txn {
        Txn { compares: Vec::new(), success, failure: Vec::new() }
    }

    #[test]
    fn puts_claim_room_unless_they_queue_for_a_lock() {
        assert_eq!(Command::Put(put("jobs/1", 7, 10)).claim(), Claim::Rights);
        for wrong in [put("jobs/1", 0, 10), put("jobs", 7, 10), put("jobs/1", 7, RIGHTS_WRITE_BYTES_MAX)] {
            assert_eq!(Command::Put(wrong.clone()).claim(), Claim::Keys, "{wrong:?}");
            let nested = txn(vec![Operation::Txn(txn(vec![Operation::Put(wrong)]))]);
            assert_eq!(Command::Txn(nested.clone()).claim(), Claim::Keys);
            let conditional = Conditional { write: Write::Txn(nested), fences: vec![], session: None };
            assert_eq!(Command::Conditional(conditional).claim(), Claim::Keys);
        }
    }

    #[test]
    fn one_put_of_another_kind_makes_a_transaction_one_of_keys() {
        let two = |second| txn(vec![Operation::Put(put("jobs/1", 7, 0)), Operation::Put(second)]);
        assert_eq!(Command::Txn(two(put("jobs/2", 7, 0))).claim(), Claim::Rights);
        assert_eq!(Command::Txn(two(put("config", 0, 0))).claim(), Claim::Keys);
        let mut other_branch = two(put("jobs/2", 7, 0));
        other_branch.failure = vec![Operation::Put(put("config", 0, 0))];
        assert_eq!(Command::Txn(other_branch).claim(), Claim::Keys);
    }

    #[test]
    fn a_key_that_keeps_its_lease_needs_a_compare() {
        let proclaim = Put { lease: PutLease::Keep, ..put("jobs/1", 0, 9) };
        assert_eq!(Command::Put(proclaim.clone()).claim(), Claim::Keys);
        let compare = Compare {
            range: KeyRange::single(proclaim.key.clone()),
            operator: CompareOperator::Equal,
            target: CompareTarget::Create(Revision(4)),
        };
        let proclaim = Txn { compares: vec![compare], ..txn(vec![Operation::Put(proclaim)]) };
        assert_eq!(Command::Txn(proclaim).claim(), Claim::Rights);
    }

    #[test]
    fn what_gives_back_claims_nothing() {
        let delete = DeleteRange { range: KeyRange::all(), prev_kv: false };
        let lease = |command| Command::Lease { command, clock: LeaseTime(0) };
        for command in [
            Command::DeleteRange(delete.clone()),
            Command::Txn(txn(vec![Operation::DeleteRange(delete)])),
            Command::Compact { revision: Revision(3) },
            lease(LeaseCommand::Revoke { lease: LeaseId(1) }),
            lease(LeaseCommand::Expire { grants: vec![] }),
            lease(LeaseCommand::Renew { grants: vec![] }),
        ] {
            assert_eq!(command.claim(), Claim::Nothing, "{command:?}");
        }
        let grant = LeaseCommand::Grant { lease: LeaseId(1), ttl_seconds: 5 };
        assert_eq!(lease(grant).claim(), Claim::Rights);
        let guard = |scope| GuardChange { range: KeyRange::all(), scope, fences: vec![], overrides: false };
        assert_eq!(Command::ChangeGuard(guard(None)).claim(), Claim::Nothing);
        assert_eq!(Command::ChangeGuard(guard(Some(Scope::Key(Bytes::new())))).claim(), Claim::Rights);
    }
}
