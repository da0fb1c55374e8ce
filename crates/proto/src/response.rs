//! From the vocabulary to clients' answers. Keys and values are handed over, not copied.

use ringfence_types::{
    CausalToken, DeleteRangeReply, Event, EventKind, KeyValue, Member, NodeId, PutReply, RangeReply, Reply,
    Term, TxnReply,
};

use crate::etcdserverpb as etcd;
use crate::etcdserverpb::response_op::Response;
use crate::mvccpb;
use crate::ringfence_v1 as v1;

/// Where and when an answer was given.
#[must_use]
pub fn header(token: CausalToken, member: NodeId, term: Term) -> etcd::ResponseHeader {
    let CausalToken { cluster_id, revision, index } = token;
    etcd::ResponseHeader {
        cluster_id,
        member_id: member.0,
        revision: revision.0,
        raft_term: term.0,
        applied_index: index.0,
    }
}

/// The position of an answer by its header; none where that does not tell.
#[must_use]
pub fn token_of(header: &etcd::ResponseHeader) -> Option<CausalToken> {
    CausalToken::new(header.cluster_id, header.revision, header.applied_index)
}

/// The answer to a range.
#[must_use]
pub fn range(reply: RangeReply, header: etcd::ResponseHeader) -> etcd::RangeResponse {
    etcd::RangeResponse {
        header: Some(header),
        kvs: key_values(reply.kvs),
        more: reply.more,
        count: count(reply.count),
        age_ms: None,
    }
}

/// The answer to a put.
#[must_use]
pub fn put(reply: PutReply, header: etcd::ResponseHeader) -> etcd::PutResponse {
    etcd::PutResponse { header: Some(header), prev_kv: reply.prev_kv.map(key_value), checked: None }
}

/// The answer to a deletion.
#[must_use]
pub fn delete_range(reply: DeleteRangeReply, header: etcd::ResponseHeader) -> etcd::DeleteRangeResponse {
    etcd::DeleteRangeResponse {
        header: Some(header),
        deleted: count(reply.deleted),
        prev_kvs: key_values(reply.prev_kvs),
        checked: None,
    }
}

/// The answer to a transaction. As in etcd, the answers within it say the revision alone.
#[must_use]
pub fn txn(reply: TxnReply, header: etcd::ResponseHeader) -> etcd::TxnResponse {
    let inner = etcd::ResponseHeader { revision: header.revision, ..Default::default() };
    etcd::TxnResponse {
        header: Some(header),
        succeeded: reply.succeeded,
        responses: reply.replies.into_iter().map(|reply| operation(reply, inner)).collect(),
        checked: None,
    }
}

/// A member as clients see it.
#[must_use]
pub fn member(member: &Member, is_learner: bool) -> etcd::Member {
    etcd::Member {
        id: member.id.0,
        name: member.name.clone(),
        peer_ur_ls: member.peer_urls.clone(),
        client_ur_ls: member.client_urls.clone(),
        is_learner,
        replaces: member.replaces.map_or(0, |id| id.0),
    }
}

/// A key as clients see it.
#[must_use]
pub fn key_value(kv: KeyValue) -> mvccpb::KeyValue {
    mvccpb::KeyValue {
        key: kv.key,
        create_revision: kv.create_revision.0,
        mod_revision: kv.mod_revision.0,
        version: kv.version,
        value: kv.value,
        lease: kv.lease.0,
    }
}

/// A version of a key, told by the event that made it.
#[must_use]
pub fn version(event: Event) -> v1::Version {
    v1::Version {
        mod_revision: event.kv.mod_revision.0,
        deleted: event.kind == EventKind::Delete,
        create_revision: event.kv.create_revision.0,
        version: event.kv.version,
        value: event.kv.value,
        lease: event.kv.lease.0,
    }
}

/// Keys as clients see them.
#[must_use]
pub fn key_values(kvs: Vec<KeyValue>) -> Vec<mvccpb::KeyValue> {
    kvs.into_iter().map(key_value).collect()
}

fn operation(reply: Reply, header: etcd::ResponseHeader) -> etcd::ResponseOp {
    let response = match reply {
        Reply::Range(reply) => Some(Response::ResponseRange(range(reply, header))),
        Reply::Put(reply) => Some(Response::ResponsePut(put(reply, header))),
        Reply::DeleteRange(reply) => Some(Response::ResponseDeleteRange(delete_range(reply, header))),
        Reply::Txn(reply) => Some(Response::ResponseTxn(txn(reply, header))),
        // No operation of a transaction has these for an answer.
        Reply::Blank
        | Reply::Compact
        | Reply::Alarms(_)
        | Reply::PublishMember
        | Reply::Member(_)
        | Reply::LeaseGranted(_)
        | Reply::LeaseRevoked
        | Reply::LeasesRenewed(_)
        | Reply::LeasesExpired(_)
        | Reply::LeaseClock
        | Reply::GuardChanged
        | Reply::Resolved(_) => None,
    };
    etcd::ResponseOp { response }
}

/// A number of keys as etcd writes it.
fn count(keys: u64) -> i64 {
    i64::try_from(keys).unwrap_or(i64::MAX)
}
