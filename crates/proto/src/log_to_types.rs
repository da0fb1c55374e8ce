//! From the log's messages to the vocabulary. Whatever a writer cannot have written is an error here, so that damage
//! or a newer writer is noticed instead of being applied as something else.

use ringfence_types as types;
use ringfence_types::{LeaseId, Revision};

use crate::command::DecodeError;
use crate::log_v1::{
    self as log, command, compare, key_range, operation, outcome as wire_outcome, rejection, reply,
};

/// The command of a message.
pub(crate) fn command(message: log::Command) -> Result<types::Command, DecodeError> {
    let lease = |command| types::Command::Lease { command, clock: types::LeaseTime(message.lease_clock) };
    Ok(match known(message.kind, "Command.kind")? {
        command::Kind::Put(put) => types::Command::Put(self::put(put)?),
        command::Kind::DeleteRange(delete) => types::Command::DeleteRange(delete_range(delete)?),
        command::Kind::Txn(txn) => types::Command::Txn(self::txn(txn)?),
        command::Kind::Compact(compact) => types::Command::Compact { revision: Revision(compact.revision) },
        command::Kind::ChangeAlarm(change) => types::Command::ChangeAlarm {
            alarm: alarm(known(change.alarm, "ChangeAlarm.alarm")?)?,
            raised: change.raised,
        },
        command::Kind::PublishMember(member) => types::Command::PublishMember {
            id: types::NodeId(member.id),
            name: member.name,
            peer_urls: member.peer_urls,
            client_urls: member.client_urls,
        },
        command::Kind::ChangeMember(change) => types::Command::ChangeMember(change_member(change)?),
        command::Kind::Conditional(message) => types::Command::Conditional(conditional(message)?),
        command::Kind::RenewLeases(renew) => {
            lease(types::LeaseCommand::Renew { grants: renew.grants.into_iter().map(grant).collect() })
        }
        command::Kind::GrantLease(grant) => {
            lease(types::LeaseCommand::Grant { lease: LeaseId(grant.lease), ttl_seconds: grant.ttl_seconds })
        }
        command::Kind::RevokeLease(id) => lease(types::LeaseCommand::Revoke { lease: LeaseId(id) }),
        command::Kind::ExpireLeases(expire) => {
            lease(types::LeaseCommand::Expire { grants: expire.grants.into_iter().map(grant).collect() })
        }
        command::Kind::TickLeaseClock(_) => lease(types::LeaseCommand::Tick),
        command::Kind::Resolve(resolve) => types::Command::Resolve {
            session: grant(known(resolve.session, "Resolve.session")?),
            sequence: resolve.sequence,
            first_incomplete: resolve.first_incomplete,
        },
        command::Kind::ChangeGuard(change) => types::Command::ChangeGuard(types::GuardChange {
            range: range(change.range, "ChangeGuard.range")?,
            scope: change.scope.map(scope).transpose()?,
            fences: all(change.fences, fence)?,
            overrides: change.overrides,
        }),
    })
}

/// The outcome of a message.
pub(crate) fn outcome(message: log::Outcome) -> Result<types::Outcome, DecodeError> {
    Ok(match known(message.result, "Outcome.result")? {
        wire_outcome::Result::Applied(applied) => Ok(types::Applied {
            revision: Revision(applied.revision),
            index: types::Index(applied.index),
            reply: reply(known(applied.reply, "Applied.reply")?)?,
        }),
        wire_outcome::Result::Rejection(rejection) => Err(self::rejection(rejection)?),
    })
}

/// A field that every writer of this version sets.
fn known<T>(field: Option<T>, name: &'static str) -> Result<T, DecodeError> {
    field.ok_or(DecodeError::Unknown { field: name })
}

fn conditional(message: log::Conditional) -> Result<types::Conditional, DecodeError> {
    use log::conditional::Write;
    let write = match known(message.write, "Conditional.write")? {
        Write::Put(put) => types::Write::Put(self::put(put)?),
        Write::DeleteRange(delete) => types::Write::DeleteRange(delete_range(delete)?),
        Write::Txn(txn) => types::Write::Txn(self::txn(txn)?),
    };
    let session = message.session.map(session_stamp).transpose()?;
    Ok(types::Conditional { write, fences: all(message.fences, fence)?, session })
}

fn session_stamp(message: log::SessionStamp) -> Result<types::SessionStamp, DecodeError> {
    let digest = <[u8; 16]>::try_from(message.digest.as_ref())
        .map_err(|_| DecodeError::Contradiction { field: "SessionStamp.digest" })?;
    Ok(types::SessionStamp {
        session: grant(known(message.session, "SessionStamp.session")?),
        sequence: message.sequence,
        first_incomplete: message.first_incomplete,
        digest: u128::from_be_bytes(digest),
    })
}

fn grant(message: log::Grant) -> types::Grant {
    types::Grant { lease: LeaseId(message.lease), index: types::Index(message.index) }
}

fn scope(message: log::Scope) -> Result<types::Scope, DecodeError> {
    Ok(match known(message.kind, "Scope.kind")? {
        log::scope::Kind::Key(key) => types::Scope::Key(key),
        log::scope::Kind::Lock(name) => types::Scope::Lock(name),
    })
}

fn fence(message: log::Fence) -> Result<types::Fence, DecodeError> {
    let scope = scope(known(message.scope, "Fence.scope")?)?;
    Ok(types::Fence { scope, token: Revision(message.token) })
}

fn lease(message: log::Lease) -> Result<types::Lease, DecodeError> {
    Ok(types::Lease {
        grant: grant(known(message.grant, "Lease.grant")?),
        ttl_seconds: message.ttl_seconds,
        deadline: types::LeaseTime(message.deadline),
        keys: message.keys,
    })
}

fn resolution(message: log::Resolution) -> Result<types::Resolution, DecodeError> {
    use log::resolution::Kind;
    Ok(match known(message.kind, "Resolution.kind")? {
        Kind::Closed(_) => types::Resolution::Closed,
        Kind::Answered(answer) => types::Resolution::Answered(Box::new(crate::outcome::decode(&answer)?)),
        Kind::AppliedAt(revision) => types::Resolution::AppliedAt(Revision(revision)),
    })
}

/// A list, each member of it converted.
fn all<M, T>(
    messages: Vec<M>,
    convert: impl FnMut(M) -> Result<T, DecodeError>,
) -> Result<Vec<T>, DecodeError> {
    messages.into_iter().map(convert).collect()
}

fn range(message: Option<log::KeyRange>, name: &'static str) -> Result<types::KeyRange, DecodeError> {
    let message = known(message, name)?;
    let end = match message.end {
        None => types::RangeEnd::Single,
        Some(key_range::End::Before(end)) => types::RangeEnd::Before(end),
        Some(key_range::End::Unbounded(true)) => types::RangeEnd::Unbounded,
        Some(key_range::End::Unbounded(false)) => {
            return Err(DecodeError::Contradiction { field: "KeyRange.unbounded" });
        }
    };
    Ok(types::KeyRange { start: message.start, end })
}

fn wanted(message: i32) -> Result<types::Wanted, DecodeError> {
    Ok(match known(log::Wanted::try_from(message).ok(), "Wanted")? {
        log::Wanted::Voter => types::Wanted::Voter,
        log::Wanted::Learner => types::Wanted::Learner,
        log::Wanted::Removed => types::Wanted::Removed,
    })
}

/// A member's number where there may be none.
fn optional_id(id: u64) -> Option<types::NodeId> {
    Some(types::NodeId(id)).filter(|id| id.0 != 0)
}

fn member(message: log::Member) -> Result<types::Member, DecodeError> {
    Ok(types::Member {
        id: types::NodeId(message.id),
        name: message.name,
        peer_urls: message.peer_urls,
        client_urls: message.client_urls,
        disk_id: message.disk_id,
        wanted: wanted(message.wanted)?,
        replaces: optional_id(message.replaces),
    })
}

fn change_member(message: log::ChangeMember) -> Result<types::MemberChange, DecodeError> {
    use log::change_member::Kind;
    Ok(match known(message.kind, "ChangeMember.kind")? {
        Kind::Add(add) => types::MemberChange::Add {
            peer_urls: add.peer_urls,
            wanted: wanted(add.wanted)?,
            replaces: optional_id(add.replaces),
        },
        Kind::Join(join) => types::MemberChange::Join {
            name: join.name,
            peer_urls: join.peer_urls,
            disk_id: join.disk_id,
            wanted: wanted(join.wanted)?,
        },
        Kind::Update(update) => {
            types::MemberChange::Update { id: types::NodeId(update.id), peer_urls: update.peer_urls }
        }
        Kind::Promote(id) => types::MemberChange::Promote { id: types::NodeId(id) },
        Kind::Remove(id) => types::MemberChange::Remove { id: types::NodeId(id) },
    })
}

fn put(message: log::Put) -> Result<types::Put, DecodeError> {
    let value = match message.keep_value {
        false => types::PutValue::Set(message.value),
        true if message.value.is_empty() => types::PutValue::Keep,
        true => return Err(DecodeError::Contradiction { field: "Put.value" }),
    };
    let lease = match message.keep_lease {
        false => types::PutLease::Set(LeaseId(message.lease)),
        true if message.lease == 0 => types::PutLease::Keep,
        true => return Err(DecodeError::Contradiction { field: "Put.lease" }),
    };
    Ok(types::Put { key: message.key, value, lease, prev_kv: message.prev_kv })
}

fn delete_range(message: log::DeleteRange) -> Result<types::DeleteRange, DecodeError> {
    Ok(types::DeleteRange { range: range(message.range, "DeleteRange.range")?, prev_kv: message.prev_kv })
}

fn txn(message: log::Txn) -> Result<types::Txn, DecodeError> {
    Ok(types::Txn {
        compares: all(message.compares, compare)?,
        success: all(message.success, operation)?,
        failure: all(message.failure, operation)?,
    })
}

fn operation(message: log::Operation) -> Result<types::Operation, DecodeError> {
    Ok(match known(message.kind, "Operation.kind")? {
        operation::Kind::Range(query) => types::Operation::Range(self::query(query)?),
        operation::Kind::Put(put) => types::Operation::Put(self::put(put)?),
        operation::Kind::DeleteRange(delete) => types::Operation::DeleteRange(delete_range(delete)?),
        operation::Kind::Txn(txn) => types::Operation::Txn(self::txn(txn)?),
    })
}

fn compare(message: log::Compare) -> Result<types::Compare, DecodeError> {
    let operator = match known(compare::Operator::try_from(message.operator).ok(), "Compare.operator")? {
        compare::Operator::Equal => types::CompareOperator::Equal,
        compare::Operator::Greater => types::CompareOperator::Greater,
        compare::Operator::Less => types::CompareOperator::Less,
        compare::Operator::NotEqual => types::CompareOperator::NotEqual,
    };
    let target = match known(message.target, "Compare.target")? {
        compare::Target::Version(version) => types::CompareTarget::Version(version),
        compare::Target::CreateRevision(revision) => types::CompareTarget::Create(Revision(revision)),
        compare::Target::ModRevision(revision) => types::CompareTarget::Mod(Revision(revision)),
        compare::Target::Value(value) => types::CompareTarget::Value(value),
        compare::Target::Lease(lease) => types::CompareTarget::Lease(LeaseId(lease)),
    };
    Ok(types::Compare { range: range(message.range, "Compare.range")?, operator, target })
}

fn query(message: log::RangeQuery) -> Result<types::RangeQuery, DecodeError> {
    use log::range_query::{SortOrder, SortTarget};
    let sort_order = match known(SortOrder::try_from(message.sort_order).ok(), "RangeQuery.sort_order")? {
        SortOrder::None => types::SortOrder::None,
        SortOrder::Ascend => types::SortOrder::Ascend,
        SortOrder::Descend => types::SortOrder::Descend,
    };
    let sort_target = match known(SortTarget::try_from(message.sort_target).ok(), "RangeQuery.sort_target")? {
        SortTarget::Key => types::SortTarget::Key,
        SortTarget::Version => types::SortTarget::Version,
        SortTarget::Create => types::SortTarget::Create,
        SortTarget::Mod => types::SortTarget::Mod,
        SortTarget::Value => types::SortTarget::Value,
    };
    Ok(types::RangeQuery {
        range: range(message.range, "RangeQuery.range")?,
        limit: message.limit,
        revision: message.revision.map(Revision),
        sort_order,
        sort_target,
        keys_only: message.keys_only,
        count_only: message.count_only,
        min_mod_revision: Revision(message.min_mod_revision),
        max_mod_revision: Revision(message.max_mod_revision),
        min_create_revision: Revision(message.min_create_revision),
        max_create_revision: Revision(message.max_create_revision),
    })
}

fn reply(message: log::Reply) -> Result<types::Reply, DecodeError> {
    Ok(match known(message.kind, "Reply.kind")? {
        reply::Kind::Blank(_) => types::Reply::Blank,
        reply::Kind::Put(put) => types::Reply::Put(types::PutReply { prev_kv: put.prev_kv.map(key_value) }),
        reply::Kind::DeleteRange(delete) => types::Reply::DeleteRange(types::DeleteRangeReply {
            deleted: delete.deleted,
            prev_kvs: delete.prev_kvs.into_iter().map(key_value).collect(),
        }),
        reply::Kind::Range(range) => types::Reply::Range(types::RangeReply {
            kvs: range.kvs.into_iter().map(key_value).collect(),
            more: range.more,
            count: range.count,
        }),
        reply::Kind::Txn(txn) => types::Reply::Txn(types::TxnReply {
            succeeded: txn.succeeded,
            replies: all(txn.replies, self::reply)?,
        }),
        reply::Kind::Compact(_) => types::Reply::Compact,
        reply::Kind::Alarms(alarms) => types::Reply::Alarms(all(alarms.alarms, alarm)?),
        reply::Kind::PublishMember(_) => types::Reply::PublishMember,
        reply::Kind::Member(member) => types::Reply::Member(self::member(member)?),
        reply::Kind::LeaseGranted(lease) => types::Reply::LeaseGranted(self::lease(lease)?),
        reply::Kind::LeaseRevoked(_) => types::Reply::LeaseRevoked,
        reply::Kind::LeasesRenewed(renewed) => types::Reply::LeasesRenewed(all(renewed.leases, lease)?),
        reply::Kind::LeasesExpired(expired) => {
            types::Reply::LeasesExpired(expired.grants.into_iter().map(grant).collect())
        }
        reply::Kind::LeaseClock(_) => types::Reply::LeaseClock,
        reply::Kind::GuardChanged(_) => types::Reply::GuardChanged,
        reply::Kind::Resolved(resolved) => types::Reply::Resolved(resolution(resolved)?),
    })
}

fn alarm(message: log::Alarm) -> Result<types::Alarm, DecodeError> {
    let kind = match known(log::alarm::Kind::try_from(message.kind).ok(), "Alarm.kind")? {
        log::alarm::Kind::Corrupt => types::AlarmKind::Corrupt,
        log::alarm::Kind::Nospace => types::AlarmKind::NoSpace,
        log::alarm::Kind::Unspecified => return Err(DecodeError::Unknown { field: "Alarm.kind" }),
    };
    Ok(types::Alarm { member: types::NodeId(message.member), kind })
}

fn key_value(message: log::KeyValue) -> types::KeyValue {
    types::KeyValue {
        key: message.key,
        create_revision: Revision(message.create_revision),
        mod_revision: Revision(message.mod_revision),
        version: message.version,
        value: message.value,
        lease: LeaseId(message.lease),
    }
}

fn rejection(message: log::Rejection) -> Result<types::Rejection, DecodeError> {
    Ok(match known(message.kind, "Rejection.kind")? {
        rejection::Kind::Compacted(oldest) => types::Rejection::Compacted { oldest: Revision(oldest) },
        rejection::Kind::FutureRevision(current) => {
            types::Rejection::FutureRevision { current: Revision(current) }
        }
        rejection::Kind::KeyNotFound(_) => types::Rejection::KeyNotFound,
        rejection::Kind::LeaseNotFound(_) => types::Rejection::LeaseNotFound,
        rejection::Kind::MemberNotFound(id) => types::Rejection::MemberNotFound(types::NodeId(id)),
        rejection::Kind::MemberRemoved(id) => types::Rejection::MemberRemoved(types::NodeId(id)),
        rejection::Kind::MemberTaken(taken) => {
            types::Rejection::MemberTaken { what: taken.what, member: types::NodeId(taken.member) }
        }
        rejection::Kind::TooManyMembers(members) => types::Rejection::TooManyMembers(members as usize),
        rejection::Kind::CorruptCluster(_) => types::Rejection::CorruptCluster,
        rejection::Kind::LeaseExists(_) => types::Rejection::LeaseExists,
        rejection::Kind::LeaseFull(max) => types::Rejection::LeaseFull(max),
        rejection::Kind::StaleFence(stale) => types::Rejection::StaleFence {
            scope: scope(known(stale.scope, "StaleFence.scope")?)?,
            presented: Revision(stale.presented),
            in_force: stale.in_force.map(Revision),
        },
        rejection::Kind::GuardedRange(guarded) => types::Rejection::GuardedRange {
            range: range(guarded.range, "GuardedRange.range")?,
            scope: scope(known(guarded.scope, "GuardedRange.scope")?)?,
        },
        rejection::Kind::GuardNotFound(_) => types::Rejection::GuardNotFound,
        rejection::Kind::GuardOverItsLock(covered) => {
            types::Rejection::GuardOverItsLock { scope: scope(covered)? }
        }
        rejection::Kind::TooManyGuards(guards) => types::Rejection::TooManyGuards(guards as usize),
        rejection::Kind::SessionEnded(_) => types::Rejection::SessionEnded,
        rejection::Kind::SequenceClosed(sequence) => types::Rejection::SequenceClosed(sequence),
        rejection::Kind::SequenceAboveWindow(above) => {
            types::Rejection::SequenceAboveWindow { sequence: above.sequence, max: above.max }
        }
        rejection::Kind::SequenceReused(sequence) => types::Rejection::SequenceReused(sequence),
        rejection::Kind::AnswerTooLarge(max) => types::Rejection::AnswerTooLarge { max },
        rejection::Kind::AnswerNotKept(revision) => types::Rejection::AnswerNotKept(Revision(revision)),
        rejection::Kind::UnknownCommand(kind) => types::Rejection::UnknownCommand(kind),
    })
}
