//! From the vocabulary to the log's messages. Keys and values are shared, not copied.

use ringfence_types as types;

use crate::log_v1::{
    self as log, command, compare, key_range, operation, outcome as wire_outcome, rejection, reply,
};

/// The message of a command.
pub(crate) fn command(command: &types::Command) -> log::Command {
    let kind = match command {
        types::Command::Put(put) => command::Kind::Put(self::put(put)),
        types::Command::DeleteRange(delete) => command::Kind::DeleteRange(delete_range(delete)),
        types::Command::Txn(txn) => command::Kind::Txn(self::txn(txn)),
        types::Command::Compact { revision } => command::Kind::Compact(log::Compact { revision: revision.0 }),
        types::Command::ChangeAlarm { alarm, raised } => {
            command::Kind::ChangeAlarm(log::ChangeAlarm { alarm: Some(self::alarm(alarm)), raised: *raised })
        }
        types::Command::PublishMember { id, name, peer_urls, client_urls } => {
            command::Kind::PublishMember(log::PublishMember {
                id: id.0,
                name: name.clone(),
                peer_urls: peer_urls.clone(),
                client_urls: client_urls.clone(),
            })
        }
        types::Command::ChangeMember(change) => command::Kind::ChangeMember(change_member(change)),
        types::Command::Conditional(conditional) => {
            command::Kind::Conditional(self::conditional(conditional))
        }
        types::Command::Lease { command, clock } => {
            return log::Command { kind: Some(lease_command(command)), lease_clock: clock.0 };
        }
        types::Command::ChangeGuard(change) => command::Kind::ChangeGuard(log::ChangeGuard {
            range: Some(range(&change.range)),
            scope: change.scope.as_ref().map(scope),
            fences: change.fences.iter().map(fence).collect(),
            overrides: change.overrides,
        }),
        types::Command::Resolve { session, sequence, first_incomplete } => {
            let (session, sequence, first_incomplete) = (Some(grant(session)), *sequence, *first_incomplete);
            command::Kind::Resolve(log::Resolve { session, sequence, first_incomplete })
        }
    };
    log::Command { kind: Some(kind), lease_clock: 0 }
}

fn lease_command(command: &types::LeaseCommand) -> command::Kind {
    let grants = |grants: &[types::Grant]| grants.iter().map(grant).collect();
    match command {
        types::LeaseCommand::Grant { lease, ttl_seconds } => {
            command::Kind::GrantLease(log::GrantLease { lease: lease.0, ttl_seconds: *ttl_seconds })
        }
        types::LeaseCommand::Revoke { lease } => command::Kind::RevokeLease(lease.0),
        types::LeaseCommand::Renew { grants: renewed } => {
            command::Kind::RenewLeases(log::RenewLeases { grants: grants(renewed) })
        }
        types::LeaseCommand::Expire { grants: due } => {
            command::Kind::ExpireLeases(log::ExpireLeases { grants: grants(due) })
        }
        types::LeaseCommand::Tick => command::Kind::TickLeaseClock(log::TickLeaseClock {}),
    }
}

pub(crate) fn conditional(conditional: &types::Conditional) -> log::Conditional {
    use log::conditional::Write;
    let write = match &conditional.write {
        types::Write::Put(put) => Write::Put(self::put(put)),
        types::Write::DeleteRange(delete) => Write::DeleteRange(delete_range(delete)),
        types::Write::Txn(txn) => Write::Txn(self::txn(txn)),
    };
    log::Conditional {
        write: Some(write),
        fences: conditional.fences.iter().map(fence).collect(),
        session: conditional.session.as_ref().map(|stamp| log::SessionStamp {
            session: Some(grant(&stamp.session)),
            sequence: stamp.sequence,
            first_incomplete: stamp.first_incomplete,
            digest: bytes::Bytes::copy_from_slice(&stamp.digest.to_be_bytes()),
        }),
    }
}

fn grant(grant: &types::Grant) -> log::Grant {
    log::Grant { lease: grant.lease.0, index: grant.index.0 }
}

fn scope(scope: &types::Scope) -> log::Scope {
    let kind = match scope {
        types::Scope::Key(key) => log::scope::Kind::Key(key.clone()),
        types::Scope::Lock(name) => log::scope::Kind::Lock(name.clone()),
    };
    log::Scope { kind: Some(kind) }
}

fn fence(fence: &types::Fence) -> log::Fence {
    log::Fence { scope: Some(scope(&fence.scope)), token: fence.token.0 }
}

fn lease(lease: &types::Lease) -> log::Lease {
    log::Lease {
        grant: Some(grant(&lease.grant)),
        ttl_seconds: lease.ttl_seconds,
        deadline: lease.deadline.0,
        keys: lease.keys,
    }
}

fn resolution(resolution: &types::Resolution) -> log::Resolution {
    use log::resolution::Kind;
    let kind = match resolution {
        types::Resolution::Closed => Kind::Closed(log::Empty {}),
        types::Resolution::Answered(answer) => Kind::Answered(crate::outcome::encode(answer)),
        types::Resolution::AppliedAt(revision) => Kind::AppliedAt(revision.0),
    };
    log::Resolution { kind: Some(kind) }
}

/// The message of an outcome.
pub(crate) fn outcome(outcome: &types::Outcome) -> log::Outcome {
    let result = match outcome {
        Ok(applied) => wire_outcome::Result::Applied(log::Applied {
            revision: applied.revision.0,
            index: applied.index.0,
            reply: Some(reply(&applied.reply)),
        }),
        Err(rejection) => wire_outcome::Result::Rejection(self::rejection(rejection)),
    };
    log::Outcome { result: Some(result) }
}

fn range(range: &types::KeyRange) -> log::KeyRange {
    let end = match &range.end {
        types::RangeEnd::Single => None,
        types::RangeEnd::Before(end) => Some(key_range::End::Before(end.clone())),
        types::RangeEnd::Unbounded => Some(key_range::End::Unbounded(true)),
    };
    log::KeyRange { start: range.start.clone(), end }
}

fn put(put: &types::Put) -> log::Put {
    let (value, keep_value) = match &put.value {
        types::PutValue::Set(value) => (value.clone(), false),
        types::PutValue::Keep => (bytes::Bytes::new(), true),
    };
    let (lease, keep_lease) = match put.lease {
        types::PutLease::Set(lease) => (lease.0, false),
        types::PutLease::Keep => (0, true),
    };
    log::Put { key: put.key.clone(), value, lease, prev_kv: put.prev_kv, keep_value, keep_lease }
}

fn delete_range(delete: &types::DeleteRange) -> log::DeleteRange {
    log::DeleteRange { range: Some(range(&delete.range)), prev_kv: delete.prev_kv }
}

fn txn(txn: &types::Txn) -> log::Txn {
    log::Txn {
        compares: txn.compares.iter().map(compare).collect(),
        success: txn.success.iter().map(operation).collect(),
        failure: txn.failure.iter().map(operation).collect(),
    }
}

fn operation(operation: &types::Operation) -> log::Operation {
    let kind = match operation {
        types::Operation::Range(query) => operation::Kind::Range(self::query(query)),
        types::Operation::Put(put) => operation::Kind::Put(self::put(put)),
        types::Operation::DeleteRange(delete) => operation::Kind::DeleteRange(delete_range(delete)),
        types::Operation::Txn(txn) => operation::Kind::Txn(self::txn(txn)),
    };
    log::Operation { kind: Some(kind) }
}

fn compare(compare: &types::Compare) -> log::Compare {
    let operator = match compare.operator {
        types::CompareOperator::Equal => compare::Operator::Equal,
        types::CompareOperator::Greater => compare::Operator::Greater,
        types::CompareOperator::Less => compare::Operator::Less,
        types::CompareOperator::NotEqual => compare::Operator::NotEqual,
    };
    let target = match &compare.target {
        types::CompareTarget::Version(version) => compare::Target::Version(*version),
        types::CompareTarget::Create(revision) => compare::Target::CreateRevision(revision.0),
        types::CompareTarget::Mod(revision) => compare::Target::ModRevision(revision.0),
        types::CompareTarget::Value(value) => compare::Target::Value(value.clone()),
        types::CompareTarget::Lease(lease) => compare::Target::Lease(lease.0),
    };
    log::Compare { range: Some(range(&compare.range)), operator: operator.into(), target: Some(target) }
}

fn query(query: &types::RangeQuery) -> log::RangeQuery {
    use log::range_query::{SortOrder, SortTarget};
    let sort_order = match query.sort_order {
        types::SortOrder::None => SortOrder::None,
        types::SortOrder::Ascend => SortOrder::Ascend,
        types::SortOrder::Descend => SortOrder::Descend,
    };
    let sort_target = match query.sort_target {
        types::SortTarget::Key => SortTarget::Key,
        types::SortTarget::Version => SortTarget::Version,
        types::SortTarget::Create => SortTarget::Create,
        types::SortTarget::Mod => SortTarget::Mod,
        types::SortTarget::Value => SortTarget::Value,
    };
    log::RangeQuery {
        range: Some(range(&query.range)),
        limit: query.limit,
        revision: query.revision.map(|revision| revision.0),
        sort_order: sort_order.into(),
        sort_target: sort_target.into(),
        keys_only: query.keys_only,
        count_only: query.count_only,
        min_mod_revision: query.min_mod_revision.0,
        max_mod_revision: query.max_mod_revision.0,
        min_create_revision: query.min_create_revision.0,
        max_create_revision: query.max_create_revision.0,
    }
}

fn reply(reply: &types::Reply) -> log::Reply {
    let kind = match reply {
        types::Reply::Blank => reply::Kind::Blank(log::Empty {}),
        types::Reply::Put(put) => {
            reply::Kind::Put(log::PutReply { prev_kv: put.prev_kv.as_ref().map(key_value) })
        }
        types::Reply::DeleteRange(delete) => reply::Kind::DeleteRange(log::DeleteRangeReply {
            deleted: delete.deleted,
            prev_kvs: delete.prev_kvs.iter().map(key_value).collect(),
        }),
        types::Reply::Range(range) => reply::Kind::Range(log::RangeReply {
            kvs: range.kvs.iter().map(key_value).collect(),
            more: range.more,
            count: range.count,
        }),
        types::Reply::Txn(txn) => reply::Kind::Txn(log::TxnReply {
            succeeded: txn.succeeded,
            replies: txn.replies.iter().map(self::reply).collect(),
        }),
        types::Reply::Compact => reply::Kind::Compact(log::Empty {}),
        types::Reply::Alarms(alarms) => {
            reply::Kind::Alarms(log::Alarms { alarms: alarms.iter().map(alarm).collect() })
        }
        types::Reply::PublishMember => reply::Kind::PublishMember(log::Empty {}),
        types::Reply::Member(member) => reply::Kind::Member(self::member(member)),
        types::Reply::LeaseGranted(lease) => reply::Kind::LeaseGranted(self::lease(lease)),
        types::Reply::LeaseRevoked => reply::Kind::LeaseRevoked(log::Empty {}),
        types::Reply::LeasesRenewed(leases) => {
            reply::Kind::LeasesRenewed(log::Leases { leases: leases.iter().map(lease).collect() })
        }
        types::Reply::LeasesExpired(grants) => {
            reply::Kind::LeasesExpired(log::Grants { grants: grants.iter().map(grant).collect() })
        }
        types::Reply::LeaseClock => reply::Kind::LeaseClock(log::Empty {}),
        types::Reply::GuardChanged => reply::Kind::GuardChanged(log::Empty {}),
        types::Reply::Resolved(resolved) => reply::Kind::Resolved(resolution(resolved)),
    };
    log::Reply { kind: Some(kind) }
}

fn wanted(wanted: types::Wanted) -> log::Wanted {
    match wanted {
        types::Wanted::Voter => log::Wanted::Voter,
        types::Wanted::Learner => log::Wanted::Learner,
        types::Wanted::Removed => log::Wanted::Removed,
    }
}

fn member(member: &types::Member) -> log::Member {
    log::Member {
        id: member.id.0,
        name: member.name.clone(),
        peer_urls: member.peer_urls.clone(),
        client_urls: member.client_urls.clone(),
        disk_id: member.disk_id,
        wanted: wanted(member.wanted).into(),
        replaces: member.replaces.map_or(0, |id| id.0),
    }
}

fn change_member(change: &types::MemberChange) -> log::ChangeMember {
    use log::change_member::{Add, Join, Kind, Update};
    let kind = match change {
        types::MemberChange::Add { peer_urls, wanted, replaces } => Kind::Add(Add {
            peer_urls: peer_urls.clone(),
            wanted: self::wanted(*wanted).into(),
            replaces: replaces.map_or(0, |id| id.0),
        }),
        types::MemberChange::Join { name, peer_urls, disk_id, wanted } => Kind::Join(Join {
            name: name.clone(),
            peer_urls: peer_urls.clone(),
            disk_id: *disk_id,
            wanted: self::wanted(*wanted).into(),
        }),
        types::MemberChange::Update { id, peer_urls } => {
            Kind::Update(Update { id: id.0, peer_urls: peer_urls.clone() })
        }
        types::MemberChange::Promote { id } => Kind::Promote(id.0),
        types::MemberChange::Remove { id } => Kind::Remove(id.0),
    };
    log::ChangeMember { kind: Some(kind) }
}

fn alarm(alarm: &types::Alarm) -> log::Alarm {
    let kind = match alarm.kind {
        types::AlarmKind::Corrupt => log::alarm::Kind::Corrupt,
        types::AlarmKind::NoSpace => log::alarm::Kind::Nospace,
    };
    log::Alarm { member: alarm.member.0, kind: kind.into() }
}

fn key_value(kv: &types::KeyValue) -> log::KeyValue {
    log::KeyValue {
        key: kv.key.clone(),
        create_revision: kv.create_revision.0,
        mod_revision: kv.mod_revision.0,
        version: kv.version,
        value: kv.value.clone(),
        lease: kv.lease.0,
    }
}

fn rejection(rejection: &types::Rejection) -> log::Rejection {
    let kind = match rejection {
        types::Rejection::Compacted { oldest } => rejection::Kind::Compacted(oldest.0),
        types::Rejection::FutureRevision { current } => rejection::Kind::FutureRevision(current.0),
        types::Rejection::KeyNotFound => rejection::Kind::KeyNotFound(log::Empty {}),
        types::Rejection::LeaseNotFound => rejection::Kind::LeaseNotFound(log::Empty {}),
        types::Rejection::MemberNotFound(id) => rejection::Kind::MemberNotFound(id.0),
        types::Rejection::MemberRemoved(id) => rejection::Kind::MemberRemoved(id.0),
        types::Rejection::MemberTaken { what, member } => {
            rejection::Kind::MemberTaken(log::MemberTaken { what: what.clone(), member: member.0 })
        }
        types::Rejection::TooManyMembers(members) => rejection::Kind::TooManyMembers(*members as u64),
        types::Rejection::CorruptCluster => rejection::Kind::CorruptCluster(log::Empty {}),
        types::Rejection::LeaseExists => rejection::Kind::LeaseExists(log::Empty {}),
        types::Rejection::LeaseFull(max) => rejection::Kind::LeaseFull(*max),
        types::Rejection::StaleFence { scope, presented, in_force } => {
            rejection::Kind::StaleFence(log::StaleFence {
                scope: Some(self::scope(scope)),
                presented: presented.0,
                in_force: in_force.map(|token| token.0),
            })
        }
        types::Rejection::GuardedRange { range, scope } => rejection::Kind::GuardedRange(log::GuardedRange {
            range: Some(self::range(range)),
            scope: Some(self::scope(scope)),
        }),
        types::Rejection::GuardNotFound => rejection::Kind::GuardNotFound(log::Empty {}),
        types::Rejection::GuardOverItsLock { scope } => rejection::Kind::GuardOverItsLock(self::scope(scope)),
        types::Rejection::TooManyGuards(guards) => rejection::Kind::TooManyGuards(*guards as u64),
        types::Rejection::SessionEnded => rejection::Kind::SessionEnded(log::Empty {}),
        types::Rejection::SequenceClosed(sequence) => rejection::Kind::SequenceClosed(*sequence),
        types::Rejection::SequenceAboveWindow { sequence, max } => {
            rejection::Kind::SequenceAboveWindow(log::SequenceAboveWindow { sequence: *sequence, max: *max })
        }
        types::Rejection::SequenceReused(sequence) => rejection::Kind::SequenceReused(*sequence),
        types::Rejection::AnswerNotKept(revision) => rejection::Kind::AnswerNotKept(revision.0),
        types::Rejection::AnswerTooLarge { max } => rejection::Kind::AnswerTooLarge(*max),
        types::Rejection::UnknownCommand(kind) => rejection::Kind::UnknownCommand(kind.clone()),
    };
    log::Rejection { kind: Some(kind) }
}
