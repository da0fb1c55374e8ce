//! etcd's data model in its plainest form: every state there ever was, kept whole.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use ringfence_types::{
    Applied, Command, Compare, CompareOperator, CompareTarget, DeleteRange, DeleteRangeReply, Event,
    EventKind, Fence, Index, KeyRange, KeyValue, LeaseCommand, LeaseId, LeaseTime, Operation, Outcome, Put,
    PutLease, PutReply, PutValue, RangeQuery, RangeReply, Rejection, Reply, Revision, SortOrder, SortTarget,
    Txn, TxnReply, Write,
};

use super::rights::Rights;

pub type Keys = BTreeMap<Bytes, KeyValue>;

#[derive(Debug, Clone)]
pub struct Model {
    /// The keys at each revision; the first is revision 1, the empty store.
    states: Vec<Keys>,
    pub compacted: i64,
    pub events: Vec<Event>,
    pub rights: Rights,
    /// The index of the next entry.
    index: u64,
}

impl Model {
    pub fn new() -> Model {
        Model {
            states: vec![Keys::new()],
            compacted: 0,
            events: Vec::new(),
            rights: Rights::default(),
            index: 0,
        }
    }

    pub fn revision(&self) -> Revision {
        Revision(i64::try_from(self.states.len()).expect("a short history"))
    }

    pub fn newest(&self) -> &Keys {
        self.states.last().expect("the empty state at least")
    }

    pub fn apply(&mut self, command: &Command) -> Outcome {
        let index = self.index;
        self.index += 1;
        let reply = match command {
            Command::Compact { revision } => self.compact(*revision)?,
            Command::Put(put) => self.write(&Write::Put(put.clone()), &[])?,
            Command::DeleteRange(delete) => self.write(&Write::DeleteRange(delete.clone()), &[])?,
            Command::Txn(txn) => self.write(&Write::Txn(txn.clone()), &[])?,
            Command::Conditional(conditional) => self.write(&conditional.write, &conditional.fences)?,
            Command::Lease { command, clock } => self.change_leases(command, *clock, index)?,
            Command::ChangeGuard(change) => {
                let keys = self.newest().clone();
                self.rights.change_guard(change, &keys)?
            }
            Command::PublishMember { .. } => Reply::PublishMember,
            // The roster's own tests say what becomes of it.
            Command::ChangeMember(_) => unreachable!(),
            // Refuses everything that follows, so that nothing is generated with it: it has a scenario of its own.
            Command::ChangeAlarm { .. } => unreachable!("the model knows no alarms"),
            Command::Resolve { .. } => unreachable!("the model knows no sessions"),
        };
        Ok(Applied { revision: self.revision(), index: Index(index), reply })
    }

    fn compact(&mut self, revision: Revision) -> Result<Reply, Rejection> {
        if revision.0 <= self.compacted {
            return Err(Rejection::Compacted { oldest: Revision(self.compacted) });
        }
        if revision > self.revision() {
            return Err(Rejection::FutureRevision { current: self.revision() });
        }
        self.compacted = revision.0;
        Ok(Reply::Compact)
    }

    fn write(&mut self, write: &Write, fences: &[Fence]) -> Result<Reply, Rejection> {
        self.rights.check_fences(fences, self.newest())?;
        self.rights.check_write(write, fences, self.newest())?;
        let mut step = self.step();
        let reply = match write {
            Write::Put(put) => Reply::Put(step.put(put)?),
            Write::DeleteRange(delete) => Reply::DeleteRange(step.delete(delete)),
            Write::Txn(txn) => Reply::Txn(step.txn(txn)?),
        };
        let Step { keys, events, created, .. } = step;
        self.take_over(keys, events, &created);
        Ok(reply)
    }

    fn step(&self) -> Step<'_> {
        Step { model: self, keys: self.newest().clone(), events: Vec::new(), created: BTreeSet::new() }
    }

    fn take_over(&mut self, keys: Keys, events: Vec<Event>, created: &BTreeSet<Bytes>) {
        if !events.is_empty() {
            let before = self.newest().clone();
            self.rights.follow(&before, &keys, created);
            self.states.push(keys);
            self.events.extend(events);
        }
    }

    fn change_leases(
        &mut self,
        command: &LeaseCommand,
        clock: LeaseTime,
        index: u64,
    ) -> Result<Reply, Rejection> {
        self.rights.clock = self.rights.clock.max(clock);
        match command {
            LeaseCommand::Grant { lease, ttl_seconds } => self.rights.grant(*lease, *ttl_seconds, index),
            LeaseCommand::Revoke { lease } => {
                if !self.rights.leases.contains_key(lease) {
                    return Err(Rejection::LeaseNotFound);
                }
                self.end(*lease);
                Ok(Reply::LeaseRevoked)
            }
            LeaseCommand::Renew { grants } => {
                let keys = self.newest().clone();
                Ok(self.rights.renew(grants, &keys))
            }
            LeaseCommand::Expire { .. } => {
                let due = self.rights.due(command);
                due.iter().for_each(|grant| self.end(grant.lease));
                Ok(Reply::LeasesExpired(due))
            }
            LeaseCommand::Tick => Ok(Reply::LeaseClock),
        }
    }

    fn end(&mut self, lease: LeaseId) {
        self.rights.leases.remove(&lease);
        let mut step = self.step();
        let hanging: Vec<Bytes> =
            step.keys.values().filter(|kv| kv.lease == lease).map(|kv| kv.key.clone()).collect();
        for key in hanging {
            step.delete(&DeleteRange { range: KeyRange::single(key), prev_kv: false });
        }
        let Step { keys, events, created, .. } = step;
        self.take_over(keys, events, &created);
    }

    pub fn range(&self, query: &RangeQuery) -> Result<RangeReply, Rejection> {
        self.range_with(self.newest(), query)
    }

    fn range_with(&self, newest: &Keys, query: &RangeQuery) -> Result<RangeReply, Rejection> {
        let keys = match query.revision {
            None | Some(Revision(0)) => newest,
            Some(revision) if revision > self.revision() => {
                return Err(Rejection::FutureRevision { current: self.revision() });
            }
            Some(revision) if revision.0 < self.compacted => {
                return Err(Rejection::Compacted { oldest: Revision(self.compacted) });
            }
            Some(revision) => &self.states[usize::try_from(revision.0).expect("positive") - 1],
        };
        let within: Vec<&KeyValue> = keys.values().filter(|kv| query.range.contains(&kv.key)).collect();
        let count = within.len() as u64;
        if query.count_only {
            return Ok(RangeReply { kvs: Vec::new(), more: false, count });
        }
        let passes = |value: Revision, min: Revision, max: Revision| {
            (min.0 == 0 || value >= min) && (max.0 == 0 || value <= max)
        };
        let mut kvs: Vec<KeyValue> = within
            .into_iter()
            .filter(|kv| passes(kv.mod_revision, query.min_mod_revision, query.max_mod_revision))
            .filter(|kv| passes(kv.create_revision, query.min_create_revision, query.max_create_revision))
            .cloned()
            .collect();
        let ascending = |a: &KeyValue, b: &KeyValue| match query.sort_target {
            SortTarget::Key => a.key.cmp(&b.key),
            SortTarget::Version => a.version.cmp(&b.version),
            SortTarget::Create => a.create_revision.cmp(&b.create_revision),
            // Keys of one transaction share it, and stay in the order of their keys.
            SortTarget::Mod => a.mod_revision.cmp(&b.mod_revision),
            SortTarget::Value => a.value.cmp(&b.value),
        };
        match query.sort_order {
            SortOrder::None | SortOrder::Ascend => kvs.sort_by(ascending),
            SortOrder::Descend => kvs.sort_by(|a, b| ascending(b, a)),
        }
        let limit = usize::try_from(query.limit).expect("small");
        let more = limit > 0 && kvs.len() > limit;
        if more {
            kvs.truncate(limit);
        }
        if query.keys_only {
            kvs.iter_mut().for_each(|kv| kv.value = Bytes::new());
        }
        Ok(RangeReply { kvs, more, count })
    }
}

/// One command under way.
struct Step<'a> {
    model: &'a Model,
    keys: Keys,
    events: Vec<Event>,
    /// The keys created with a lease, and not deleted since.
    created: BTreeSet<Bytes>,
}

impl Step<'_> {
    fn put(&mut self, put: &Put) -> Result<PutReply, Rejection> {
        let old = self.keys.get(&put.key).cloned();
        let value = match (&put.value, &old) {
            (PutValue::Set(value), _) => value.clone(),
            (PutValue::Keep, Some(old)) => old.value.clone(),
            (PutValue::Keep, None) => return Err(Rejection::KeyNotFound),
        };
        let lease = match (put.lease, &old) {
            (PutLease::Set(LeaseId(0)), _) => LeaseId(0),
            (PutLease::Set(lease), _) if self.model.rights.leases.contains_key(&lease) => lease,
            (PutLease::Set(_), _) => return Err(Rejection::LeaseNotFound),
            (PutLease::Keep, Some(old)) => old.lease,
            (PutLease::Keep, None) => return Err(Rejection::KeyNotFound),
        };
        if old.is_none() && lease != LeaseId(0) {
            self.created.insert(put.key.clone());
        }
        let mod_revision = self.model.revision().next();
        let kv = KeyValue {
            key: put.key.clone(),
            create_revision: old.as_ref().map_or(mod_revision, |old| old.create_revision),
            mod_revision,
            version: old.as_ref().map_or(1, |old| old.version + 1),
            value,
            lease,
        };
        self.keys.insert(put.key.clone(), kv.clone());
        self.events.push(Event { kind: EventKind::Put, kv });
        Ok(PutReply { prev_kv: old.filter(|_| put.prev_kv) })
    }

    fn delete(&mut self, delete: &DeleteRange) -> DeleteRangeReply {
        let doomed: Vec<KeyValue> =
            self.keys.values().filter(|kv| delete.range.contains(&kv.key)).cloned().collect();
        for kv in &doomed {
            self.keys.remove(&kv.key);
            self.created.remove(&kv.key);
            self.events.push(Event::deletion(kv.key.clone(), self.model.revision().next()));
        }
        let deleted = doomed.len() as u64;
        DeleteRangeReply { deleted, prev_kvs: if delete.prev_kv { doomed } else { Vec::new() } }
    }

    fn txn(&mut self, txn: &Txn) -> Result<TxnReply, Rejection> {
        let succeeded = txn.compares.iter().all(|compare| holds(self.model.newest(), compare));
        let mut replies = Vec::new();
        for operation in if succeeded { &txn.success } else { &txn.failure } {
            replies.push(match operation {
                Operation::Range(query) => Reply::Range(self.model.range_with(&self.keys, query)?),
                Operation::Put(put) => Reply::Put(self.put(put)?),
                Operation::DeleteRange(delete) => Reply::DeleteRange(self.delete(delete)),
                Operation::Txn(nested) => Reply::Txn(self.txn(nested)?),
            });
        }
        Ok(TxnReply { succeeded, replies })
    }
}

pub fn holds(keys: &Keys, compare: &Compare) -> bool {
    let within: Vec<&KeyValue> = keys.values().filter(|kv| compare.range.contains(&kv.key)).collect();
    if within.is_empty() {
        if matches!(compare.target, CompareTarget::Value(_)) {
            return false;
        }
        let zero = KeyValue {
            key: Bytes::new(),
            create_revision: Revision(0),
            mod_revision: Revision(0),
            version: 0,
            value: Bytes::new(),
            lease: LeaseId(0),
        };
        return relation(&zero, compare);
    }
    within.into_iter().all(|kv| relation(kv, compare))
}

fn relation(kv: &KeyValue, compare: &Compare) -> bool {
    let ordering = match &compare.target {
        CompareTarget::Version(operand) => kv.version.cmp(operand),
        CompareTarget::Create(operand) => kv.create_revision.cmp(operand),
        CompareTarget::Mod(operand) => kv.mod_revision.cmp(operand),
        CompareTarget::Value(operand) => kv.value.cmp(operand),
        CompareTarget::Lease(operand) => kv.lease.cmp(operand),
    };
    match compare.operator {
        CompareOperator::Equal => ordering == Ordering::Equal,
        CompareOperator::NotEqual => ordering != Ordering::Equal,
        CompareOperator::Greater => ordering == Ordering::Greater,
        CompareOperator::Less => ordering == Ordering::Less,
    }
}
