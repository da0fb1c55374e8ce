//! Fences and guards: judged within apply, on the state before the command (DESIGN, section 6).

use std::sync::Arc;

use ringfence_canary::Canary;
use ringfence_types::{
    Compare, CompareOperator, CompareTarget, Fence, Guard, GuardChange, KeyRange, Operation, RangeEnd,
    Rejection, Revision, Scope, Txn, Write, limits,
};

use crate::error::{ReadError, StoreError};
use crate::record_layout;
use crate::transaction::Transaction;

/// What the path through a transaction has proven: a key with the create revision that a compare found.
type Proofs<'a> = Vec<(&'a KeyRange, Revision)>;

impl Transaction<'_> {
    /// The token of a scope that is in force; none where nobody holds it.
    pub fn token_in_force(&self, scope: &Scope) -> Result<Option<Revision>, StoreError> {
        match scope {
            Scope::Key(key) => Ok(self.existing(key)?.map(|row| row.create_revision)),
            Scope::Lock(name) => Ok(self.holder(name)?.map(|holder| holder.token)),
        }
    }

    /// Refuses the command unless all of its fences hold.
    pub fn check_fences(&self, fences: &[Fence]) -> Result<(), ReadError> {
        for Fence { scope, token } in fences {
            let in_force = self.token_in_force(scope)?;
            if in_force != Some(*token) && !Canary::FenceSkipped.sings() {
                return Err(
                    Rejection::StaleFence { scope: scope.clone(), presented: *token, in_force }.into()
                );
            }
        }
        Ok(())
    }

    /// Refuses a write that touches a guarded range without a fence of the guard's scope, or a compare that proves the same.
    /// The fences are known to hold.
    pub fn check_guards(&self, write: WriteRef<'_>, fences: &[Fence]) -> Result<(), ReadError> {
        if self.state().guards.is_empty() {
            return Ok(());
        }
        match write {
            WriteRef::Range(range) => self.check_range(range, fences, &Proofs::new()),
            WriteRef::Txn(txn) => self.check_txn(txn, fences, &mut Proofs::new()),
        }
    }

    fn check_txn<'t>(
        &self,
        txn: &'t Txn,
        fences: &[Fence],
        proofs: &mut Proofs<'t>,
    ) -> Result<(), ReadError> {
        let mut succeeded = true;
        for compare in &txn.compares {
            succeeded = succeeded && self.holds(compare)?;
        }
        let known = proofs.len();
        if succeeded {
            proofs.extend(txn.compares.iter().filter_map(proof));
        }
        for operation in if succeeded { &txn.success } else { &txn.failure } {
            match operation {
                Operation::Range(_) => {}
                Operation::Put(put) => {
                    self.check_range(&KeyRange::single(put.key.clone()), fences, proofs)?;
                }
                Operation::DeleteRange(delete) => self.check_range(&delete.range, fences, proofs)?,
                Operation::Txn(nested) => self.check_txn(nested, fences, proofs)?,
            }
        }
        proofs.truncate(known);
        Ok(())
    }

    /// Whether or not there is a key to delete: what a guarded range will hold is not for the unfenced to say.
    fn check_range(&self, range: &KeyRange, fences: &[Fence], proofs: &Proofs<'_>) -> Result<(), ReadError> {
        for guard in self.state().guards.iter().filter(|guard| guard.range.overlaps(range)) {
            let is_fenced = fences.iter().any(|fence| fence.scope == guard.scope);
            if !is_fenced && !self.is_proven(&guard.scope, proofs)? {
                let (range, scope) = (guard.range.clone(), guard.scope.clone());
                return Err(Rejection::GuardedRange { range, scope }.into());
            }
        }
        Ok(())
    }

    /// Whether a compare has shown that the writer holds `scope`: etcd's `IsOwner`, on the holder's own key.
    fn is_proven(&self, scope: &Scope, proofs: &Proofs<'_>) -> Result<bool, StoreError> {
        let proven = |key: &[u8], token| {
            proofs.iter().any(|(range, created)| range.start.as_ref() == key && *created == token)
        };
        Ok(match scope {
            Scope::Key(key) => self.existing(key)?.is_some_and(|row| proven(key, row.create_revision)),
            Scope::Lock(name) => self.holder(name)?.is_some_and(|holder| proven(&holder.key, holder.token)),
        })
    }

    /// Sets, changes or removes a guard; returns the guards as they are then.
    pub fn change_guard(&mut self, change: &GuardChange) -> Result<Arc<Vec<Guard>>, ReadError> {
        self.check_fences(&change.fences)?;
        if !change.overrides {
            self.check_range(&change.range, &change.fences, &Proofs::new())?;
        }
        let mut guards = Arc::clone(&self.state().guards);
        let others = Arc::make_mut(&mut guards);
        let before = others.len();
        others.retain(|guard| guard.range != change.range);
        if let Some(guard) = change.guard() {
            check_decides(others, &guard)?;
            if others.len() >= limits::GUARDS_MAX {
                return Err(Rejection::TooManyGuards(others.len()).into());
            }
            others.push(guard);
            others.sort_by_cached_key(|guard| record_layout::guard_key(&guard.range));
        } else if others.len() == before {
            return Err(Rejection::GuardNotFound.into());
        }
        let scope = change.scope.as_ref().map(record_layout::encode_scope);
        self.set_record(record_layout::guard_key(&change.range), scope);
        Ok(guards)
    }
}

/// What a write touches.
#[derive(Clone, Copy)]
pub(crate) enum WriteRef<'a> {
    Range(&'a KeyRange),
    Txn(&'a Txn),
}

/// What a compare that holds says about who created a key.
fn proof(compare: &Compare) -> Option<(&KeyRange, Revision)> {
    match compare.target {
        CompareTarget::Create(created)
            if compare.operator == CompareOperator::Equal
                && compare.range.end == RangeEnd::Single
                && created > Revision(0) =>
        {
            Some((&compare.range, created))
        }
        _ => None,
    }
}

/// Refuses a guard that would cover keys which decide who holds a guard's scope, or whose scope others cover: nobody could take
/// the lock any more that the guard asks for.
fn check_decides(others: &[Guard], guard: &Guard) -> Result<(), Rejection> {
    let all = || others.iter().chain([guard]);
    let covered = all().find_map(|scope| {
        let scope = &scope.scope;
        all().any(|covering| scope.is_decided_in(&covering.range)).then(|| scope.clone())
    });
    covered.map_or(Ok(()), |scope| Err(Rejection::GuardOverItsLock { scope }))
}

/// Runs `check` on what a write touches.
pub(crate) fn touched<T>(write: &Write, check: impl FnOnce(WriteRef<'_>) -> T) -> T {
    match write {
        Write::Put(put) => check(WriteRef::Range(&KeyRange::single(put.key.clone()))),
        Write::DeleteRange(delete) => check(WriteRef::Range(&delete.range)),
        Write::Txn(txn) => check(WriteRef::Txn(txn)),
    }
}
