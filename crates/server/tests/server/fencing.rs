//! Fences, guards and sessions on a cluster of one node, as clients over the network see them: those that set fields, those that
//! can set metadata alone, and plain clients of etcd.

use ringfence_proto::codec::ScanningCodec;
use ringfence_proto::etcdserverpb::request_op::Request as Op;
use ringfence_proto::etcdserverpb::{self as etcd, compare::TargetUnion};
use ringfence_proto::ringfence_v1::error_detail::AttemptApplied;
use ringfence_proto::ringfence_v1::fencing_client::FencingClient;
use ringfence_proto::ringfence_v1::{self as v1, resolve_response};
use ringfence_types::Grant;
use tonic::metadata::{AsciiMetadataKey, MetadataMap};
use tonic::transport::Channel;
use tonic::{Code, Request, Status};

use crate::harness::{Server, assert_refused, detail, put, range};

impl Server {
    fn fencing(&self) -> FencingClient<Channel> {
        FencingClient::new(self.channel.clone())
    }

    /// Has a lease queue for a lock, and returns the token that it gets.
    async fn queue(&self, lock: &str, lease: i64) -> i64 {
        let candidate = etcd::PutRequest { lease, ..put(&format!("{lock}/{lease:x}"), "") };
        self.kv().put(candidate).await.unwrap().into_inner().header.unwrap().revision
    }

    /// The store's revision, which nothing but a change of keys changes.
    fn revision(&self) -> i64 {
        self.node.view().revision().0
    }

    async fn value(&self, key: &'static str) -> Option<String> {
        let kvs = self.kv().range(range(key, "")).await.unwrap().into_inner().kvs;
        kvs.first().map(|kv| String::from_utf8(kv.value.to_vec()).unwrap())
    }

    async fn metric(&self, sample: &str) -> u64 {
        let page = self.get("/metrics").await.1;
        let line = page.lines().find_map(|line| line.strip_prefix(sample));
        line.map_or(0, |value| value.trim().parse().unwrap())
    }

    async fn guard(&self, prefix: &'static str, scope: v1::Scope) {
        self.fencing().change_guard(guard(prefix, Some(scope))).await.unwrap();
    }
}

fn lock(name: &str) -> v1::Scope {
    v1::Scope { kind: Some(v1::scope::Kind::Lock(name.to_owned().into())) }
}

fn key(name: &str) -> v1::Scope {
    v1::Scope { kind: Some(v1::scope::Kind::Key(name.to_owned().into())) }
}

fn fence(scope: v1::Scope, token: i64) -> v1::Fence {
    v1::Fence { scope: Some(scope), token }
}

fn fenced(key: &str, value: &str, scope: v1::Scope, token: i64) -> etcd::PutRequest {
    etcd::PutRequest { fences: vec![fence(scope, token)], ..put(key, value) }
}

fn stamp(session: Grant, sequence: u64) -> Option<v1::SessionStamp> {
    let session = Some(v1::Session { lease: session.lease.0, grant: session.index.0 });
    Some(v1::SessionStamp { session, sequence, first_incomplete: sequence })
}

/// A guard on the keys that begin with `prefix`, which does not end in the last byte.
fn guard(prefix: &'static str, scope: Option<v1::Scope>) -> v1::ChangeGuardRequest {
    let mut end = prefix.as_bytes().to_vec();
    *end.last_mut().unwrap() += 1;
    v1::ChangeGuardRequest { key: prefix.into(), range_end: end.into(), scope, ..Default::default() }
}

fn op(request: Op) -> etcd::RequestOp {
    etcd::RequestOp { request: Some(request) }
}

/// What etcd's clients call `IsOwner`: the key exists and was created at this revision.
fn is_owner(key: &str, token: i64) -> etcd::Compare {
    let target = etcd::compare::CompareTarget::Create.into();
    let target_union = Some(TargetUnion::CreateRevision(token));
    etcd::Compare { key: key.to_owned().into(), target, target_union, ..Default::default() }
}

fn with_metadata<T>(message: T, pairs: &[(&str, &str)]) -> Request<T> {
    let mut request = Request::new(message);
    for (key, value) in pairs {
        let key: AsciiMetadataKey = key.parse().unwrap();
        request.metadata_mut().append(key, value.parse().unwrap());
    }
    request
}

fn checked(metadata: &MetadataMap) -> Option<&str> {
    metadata.get("ringfence-checked").map(|value| value.to_str().unwrap())
}

/// Refused for this reason, and nothing has changed.
#[track_caller]
fn assert_reason<T: std::fmt::Debug>(result: Result<T, Status>, code: Code, reason: &str) -> Status {
    let status = result.unwrap_err();
    let detail = detail(&status);
    assert_eq!((status.code(), detail.reason.as_str()), (code, reason), "{status:?}");
    assert_eq!(detail.attempt_applied(), AttemptApplied::No, "{status:?}");
    assert!(status.message().starts_with("ringfence: "), "{status:?}");
    status
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fenced_write_happens_only_while_its_token_is_in_force() {
    let server = Server::start().await;
    let mut kv = server.kv();
    for lease in [1, 2] {
        server.grant(lease).await;
    }
    let (first, second) = (server.queue("jobs", 1).await, server.queue("jobs", 2).await);

    let answer = kv.put(fenced("k", "1", lock("jobs"), first)).await.unwrap();
    assert_eq!(checked(answer.metadata()), Some(format!("lock:jobs;{first}").as_str()));
    let said = answer.into_inner().checked.unwrap();
    assert_eq!(said, v1::Checked { fences: vec![fence(lock("jobs"), first)], ..v1::Checked::default() });
    let plain = kv.put(put("other", "v")).await.unwrap();
    assert!(checked(plain.metadata()).is_none() && plain.into_inner().checked.is_none());

    let before = server.revision();
    let waiting = kv.put(fenced("k", "2", lock("jobs"), second)).await;
    let status = assert_reason(waiting, Code::FailedPrecondition, "stale_fence");
    let stale = detail(&status).stale_fence.unwrap();
    assert_eq!((stale.scope, stale.presented, stale.in_force), (Some(lock("jobs")), second, first));
    let future = kv.put(fenced("k", "2", lock("jobs"), before + 1_000)).await;
    assert_reason(future, Code::FailedPrecondition, "stale_fence");
    assert_eq!(server.metric("ringfence_refusals_total{by=\"state\",reason=\"stale_fence\"}").await, 2);
    assert_eq!(server.metric("ringfence_refusals_total{by=\"gate\",reason=\"stale_fence\"}").await, 0);
    assert_eq!(server.revision(), before);

    // The holder's release fences it at that very moment, and the waiter's token is in force.
    let release = etcd::DeleteRangeRequest {
        key: "jobs/1".into(),
        fences: vec![fence(lock("jobs"), first)],
        ..Default::default()
    };
    let released = kv.delete_range(release).await.unwrap().into_inner();
    assert!(released.deleted == 1 && released.checked.is_some());
    let late = kv.put(fenced("k", "3", lock("jobs"), first)).await;
    let status = assert_reason(late, Code::FailedPrecondition, "stale_fence");
    assert_eq!(detail(&status).stale_fence.unwrap().in_force, second);
    assert_eq!(server.metric("ringfence_refusals_total{by=\"gate\",reason=\"stale_fence\"}").await, 1);
    let write = etcd::TxnRequest {
        success: vec![op(Op::RequestPut(put("k", "4")))],
        fences: vec![fence(lock("jobs"), second)],
        ..Default::default()
    };
    let written = kv.txn(write).await.unwrap();
    assert_eq!(checked(written.metadata()), Some(format!("lock:jobs;{second}").as_str()));
    assert_eq!(server.value("k").await.as_deref(), Some("4"));

    let inspect = v1::InspectRequest { scope: Some(lock("jobs")), ..Default::default() };
    let inspected = server.fencing().inspect(inspect).await.unwrap().into_inner();
    let holder = inspected.holder.unwrap();
    assert_eq!((holder.key.as_ref(), holder.token, holder.lease), (&b"jobs/2"[..], second, 2));
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_is_a_scope_while_it_exists() {
    let server = Server::start().await;
    let mut kv = server.kv();
    let token = server.put("leader", "a").await.header.unwrap().revision;
    server.put("leader", "still a").await;
    kv.put(fenced("k", "1", key("leader"), token)).await.expect("a later put keeps the create revision");
    let inspect = |scope| v1::InspectRequest { scope: Some(scope), ..Default::default() };
    let held = server.fencing().inspect(inspect(key("leader"))).await.unwrap().into_inner();
    assert_eq!(held.holder.unwrap().token, token);
    assert!(held.waiters.is_empty());

    let delete = etcd::DeleteRangeRequest { key: "leader".into(), ..Default::default() };
    kv.delete_range(delete).await.unwrap();
    let again = server.put("leader", "b").await.header.unwrap().revision;
    let stale = kv.put(fenced("k", "2", key("leader"), token)).await;
    let status = assert_reason(stale, Code::FailedPrecondition, "stale_fence");
    assert_eq!(detail(&status).stale_fence.unwrap().in_force, again);
    assert_eq!(server.value("k").await.as_deref(), Some("1"));
    let nobody = server.fencing().inspect(inspect(lock("nobody"))).await.unwrap().into_inner();
    assert_eq!((nobody.holder, nobody.revision), (None, server.revision()));
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn metadata_says_the_same_as_fields() {
    let server = Server::start().await;
    let mut kv = server.kv();
    let session = server.grant(0x1f).await;
    let token = server.queue("a b,c", 0x1f).await;
    let leader = server.put("leader", "x").await.header.unwrap().revision;
    let fences = format!("lock:a%20b%2Cc;{token}, key:leader;{leader}");
    let stamp = format!("1f;{};1;1", session.index.0);
    let pairs = [("ringfence-fence", fences.as_str()), ("ringfence-session", stamp.as_str())];
    let answer = kv.put(with_metadata(put("k", "v"), &pairs)).await.unwrap();
    let expected = format!("lock:a%20b%2Cc;{token},key:leader;{leader},session");
    assert_eq!(checked(answer.metadata()), Some(expected.as_str()));
    let said = answer.into_inner().checked.unwrap();
    assert!(said.session && said.fences.len() == 2);
    // Sent again, it is the same write; once the fence does not hold, a new one is refused.
    let again = kv.put(with_metadata(put("k", "v"), &pairs)).await.unwrap().into_inner();
    assert_eq!(again.header.unwrap().revision, server.revision());
    let delete = etcd::DeleteRangeRequest { key: "leader".into(), ..Default::default() };
    kv.delete_range(delete).await.unwrap();
    let stale = kv.put(with_metadata(put("k", "w"), &pairs[..1])).await;
    assert_reason(stale, Code::FailedPrecondition, "stale_fence");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn wrong_input_is_refused_and_changes_nothing() {
    let server = Server::start().await;
    let mut kv = server.kv();
    let session = server.grant(1).await;
    let token = server.queue("jobs", 1).await;
    let before = server.revision();

    // A scope that nobody holds, and a token that was never granted.
    for (scope, token) in [(lock("nobody"), token), (key("absent"), token), (lock("jobs"), 1)] {
        let stale = kv.put(fenced("k", "v", scope, token)).await;
        assert_reason(stale, Code::FailedPrecondition, "stale_fence");
    }
    for request in [
        fenced("k", "v", v1::Scope { kind: None }, token),
        fenced("k", "v", lock("jobs"), 0),
        etcd::PutRequest { fences: vec![fence(lock("jobs"), token); 2], ..put("k", "v") },
        etcd::PutRequest { session: Some(v1::SessionStamp::default()), ..put("k", "v") },
    ] {
        assert_reason(kv.put(request).await, Code::InvalidArgument, "invalid_extension");
    }
    for pair in [
        ("ringfence-fence", "jobs;1"),
        ("ringfence-fence", ""),
        ("ringfence-session", "1;2;3"),
        ("ringfence-freshness", "any"),
        ("ringfence-ack", "most"),
        ("ringfence-fense", "lock:jobs;1"),
    ] {
        let refused = kv.put(with_metadata(put("k", "v"), &[pair])).await;
        let status = assert_reason(refused, Code::InvalidArgument, "invalid_extension");
        assert!(status.message().contains(pair.0), "{status:?}");
        let compaction = etcd::CompactionRequest { revision: before, physical: false };
        let refused = kv.compact(with_metadata(compaction, &[pair])).await;
        assert_reason(refused, Code::InvalidArgument, "invalid_extension");
    }
    let twice = with_metadata(fenced("k", "v", lock("jobs"), token), &[("ringfence-fence", "lock:jobs;1")]);
    assert_reason(kv.put(twice).await, Code::InvalidArgument, "invalid_extension");

    // Fences on what only reads, and on an operation.
    let reads =
        || etcd::TxnRequest { success: vec![op(Op::RequestRange(range("k", "")))], ..Default::default() };
    let fenced_read = etcd::TxnRequest { fences: vec![fence(lock("jobs"), token)], ..reads() };
    assert_reason(kv.txn(fenced_read).await, Code::InvalidArgument, "invalid_extension");
    let fence_text = format!("lock:jobs;{token}");
    let fenced_read = with_metadata(reads(), &[("ringfence-fence", fence_text.as_str())]);
    assert_reason(kv.txn(fenced_read).await, Code::InvalidArgument, "invalid_extension");
    let inner = fenced("k", "v", lock("jobs"), token);
    let nested = etcd::TxnRequest { success: vec![op(Op::RequestPut(inner))], ..Default::default() };
    assert_reason(kv.txn(nested).await, Code::InvalidArgument, "invalid_extension");

    // Sessions: never granted, and ended.
    let other = Grant { index: ringfence_types::Index(session.index.0 + 1), ..session };
    let foreign = etcd::PutRequest { session: stamp(other, 1), ..put("k", "v") };
    assert_reason(kv.put(foreign).await, Code::FailedPrecondition, "session_ended");
    // Guards without keys, without a scope, and none to remove.
    let mut fencing = server.fencing();
    let empty = v1::ChangeGuardRequest { range_end: "a".into(), ..guard("b", Some(lock("jobs"))) };
    assert_reason(fencing.change_guard(empty).await, Code::InvalidArgument, "invalid_guard");
    let keyless = v1::ChangeGuardRequest { key: "".into(), ..guard("b", Some(lock("jobs"))) };
    assert_refused(
        fencing.change_guard(keyless).await,
        Code::InvalidArgument,
        "etcdserver: key is not provided",
    );
    let scopeless = guard("b", Some(v1::Scope { kind: None }));
    assert_reason(fencing.change_guard(scopeless).await, Code::InvalidArgument, "invalid_extension");
    assert_reason(fencing.change_guard(guard("b", None)).await, Code::FailedPrecondition, "guard_not_found");

    assert_eq!(server.revision(), before);
    assert!(
        fencing.list_guards(v1::ListGuardsRequest::default()).await.unwrap().into_inner().guards.is_empty()
    );
    server.stop().await;
}

/// A put as a version to come may know it.
#[derive(Clone, PartialEq, prost::Message)]
struct FuturePut {
    #[prost(bytes = "vec", tag = "1")]
    key: Vec<u8>,
    #[prost(bytes = "vec", tag = "2")]
    value: Vec<u8>,
    #[prost(uint64, tag = "1004")]
    unheard_of: u64,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_extension_that_this_version_does_not_know_is_not_overlooked() {
    let server = Server::start().await;
    let send = async |put: FuturePut| {
        let mut grpc = tonic::client::Grpc::new(server.channel.clone());
        grpc.ready().await.unwrap();
        let path = http::uri::PathAndQuery::from_static("/etcdserverpb.KV/Put");
        let codec = ScanningCodec::<FuturePut, etcd::PutResponse>::default();
        grpc.unary(Request::new(put), path, codec).await
    };
    let put = |unheard_of| FuturePut { key: b"k".to_vec(), value: b"v".to_vec(), unheard_of };
    let before = server.revision();
    let status = assert_reason(send(put(7)).await, Code::InvalidArgument, "invalid_extension");
    assert!(status.message().contains("extension field 1004"), "{status:?}");
    assert_eq!(server.revision(), before);
    assert_eq!(server.metric("ringfence_refusals_total{by=\"form\",reason=\"invalid_extension\"}").await, 1);
    send(put(0)).await.expect("without it, it is a put");
    server.stop().await;
}

/// A request of any kind as a version to come may know it.
#[derive(Clone, PartialEq, prost::Message)]
struct Future {
    #[prost(uint64, tag = "1999")]
    unheard_of: u64,
}

/// An answer of which nothing is read.
#[derive(Clone, PartialEq, prost::Message)]
struct Anything {}

/// The calls that may change something, or say how fresh their answer must be.
const LOOKED_THROUGH: &[&str] = &[
    "/etcdserverpb.KV/Range",
    "/etcdserverpb.KV/Put",
    "/etcdserverpb.KV/DeleteRange",
    "/etcdserverpb.KV/Txn",
    "/etcdserverpb.KV/Compact",
    "/etcdserverpb.Lease/LeaseGrant",
    "/etcdserverpb.Lease/LeaseRevoke",
    "/etcdserverpb.Lease/LeaseKeepAlive",
    "/etcdserverpb.Lease/LeaseTimeToLive",
    "/etcdserverpb.Lease/LeaseLeases",
    "/etcdserverpb.Cluster/MemberAdd",
    "/etcdserverpb.Cluster/MemberRemove",
    "/etcdserverpb.Cluster/MemberUpdate",
    "/etcdserverpb.Cluster/MemberPromote",
    "/etcdserverpb.Maintenance/Alarm",
    "/etcdserverpb.Maintenance/MoveLeader",
    "/v3lockpb.Lock/Lock",
    "/v3lockpb.Lock/Unlock",
    "/v3electionpb.Election/Campaign",
    "/v3electionpb.Election/Proclaim",
    "/v3electionpb.Election/Leader",
    "/v3electionpb.Election/Observe",
    "/v3electionpb.Election/Resign",
    "/ringfence.v1.Fencing/ChangeGuard",
    "/ringfence.v1.Fencing/ListGuards",
    "/ringfence.v1.Fencing/Inspect",
    "/ringfence.v1.Fencing/Resolve",
];

/// The calls that may change something and take no extension, not even one that this version knows.
const UNEXTENDED: &[&str] = &[
    "/etcdserverpb.KV/Compact",
    "/etcdserverpb.Lease/LeaseGrant",
    "/etcdserverpb.Lease/LeaseRevoke",
    "/etcdserverpb.Lease/LeaseKeepAlive",
    "/etcdserverpb.Cluster/MemberAdd",
    "/etcdserverpb.Cluster/MemberRemove",
    "/etcdserverpb.Cluster/MemberUpdate",
    "/etcdserverpb.Cluster/MemberPromote",
    "/v3lockpb.Lock/Lock",
    "/v3lockpb.Lock/Unlock",
    "/v3electionpb.Election/Campaign",
    "/v3electionpb.Election/Proclaim",
    "/v3electionpb.Election/Resign",
    "/ringfence.v1.Fencing/ChangeGuard",
    "/ringfence.v1.Fencing/Resolve",
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_call_overlooks_an_extension() {
    let server = Server::start().await;
    let send = async |path: &'static str, unheard_of, pairs: &[(&str, &str)]| {
        let mut grpc = tonic::client::Grpc::new(server.channel.clone());
        grpc.ready().await.unwrap();
        let codec = ScanningCodec::<Future, Anything>::default();
        let mut request = with_metadata(Future { unheard_of }, pairs);
        request.set_timeout(std::time::Duration::from_secs(5));
        grpc.unary(request, http::uri::PathAndQuery::from_static(path), codec).await
    };
    let before = server.revision();
    for path in LOOKED_THROUGH {
        let status = send(path, 7, &[]).await.expect_err(path);
        assert_eq!(status.code(), Code::InvalidArgument, "{path}: {status:?}");
        assert!(status.message().contains("extension field 1999"), "{path}: {status:?}");
        let detail = detail(&status);
        assert_eq!(
            (detail.reason.as_str(), detail.attempt_applied()),
            ("invalid_extension", AttemptApplied::No)
        );
    }
    for path in UNEXTENDED {
        for pair in [
            ("ringfence-fence", "lock:jobs;1"),
            ("ringfence-session", "1;2;3;3"),
            ("ringfence-ack", "all"),
            ("ringfence-freshness", "any"),
            ("ringfence-fense", "lock:jobs;1"),
        ] {
            let status = send(path, 0, &[pair]).await.expect_err(path);
            assert_eq!(status.code(), Code::InvalidArgument, "{path} with {pair:?}: {status:?}");
            assert_eq!(detail(&status).reason, "invalid_extension", "{path} with {pair:?}: {status:?}");
            assert!(status.message().contains(pair.0), "{path} with {pair:?}: {status:?}");
        }
    }
    assert_eq!(server.revision(), before);
    assert_eq!(server.node.status().leases, 0, "nothing was granted");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_guarded_range_takes_fences_and_what_plain_clients_know() {
    let server = Server::start().await;
    let (mut kv, mut fencing) = (server.kv(), server.fencing());
    for lease in [1, 2] {
        server.grant(lease).await;
    }
    let (first, second) = (server.queue("jobs", 1).await, server.queue("jobs", 2).await);
    server.guard("state/", lock("jobs")).await;
    let guards = fencing.list_guards(v1::ListGuardsRequest::default()).await.unwrap().into_inner().guards;
    let expected = v1::Guard { key: "state/".into(), range_end: "state0".into(), scope: Some(lock("jobs")) };
    assert_eq!(guards, [expected]);

    // Whoever carries no fence of the scope is refused, whatever else is asked.
    let before = server.revision();
    assert_reason(kv.put(put("state/a", "x")).await, Code::FailedPrecondition, "guarded_range");
    let leader = server.put("leader", "x").await.header.unwrap().revision;
    let other_scope = kv.put(fenced("state/a", "x", key("leader"), leader)).await;
    assert_reason(other_scope, Code::FailedPrecondition, "guarded_range");
    let everything =
        etcd::DeleteRangeRequest { key: "a".into(), range_end: "z".into(), ..Default::default() };
    assert_reason(kv.delete_range(everything).await, Code::FailedPrecondition, "guarded_range");
    assert_eq!(server.revision(), before + 1);
    assert_eq!(server.metric("ringfence_refusals_total{by=\"state\",reason=\"guarded_range\"}").await, 3);
    kv.put(fenced("state/a", "1", lock("jobs"), first)).await.expect("the holder's fence opens it");

    // etcd's IsOwner opens it too, on the holder's own key and with the token in force.
    let owned = |owner: &str, token: i64, value: &str| etcd::TxnRequest {
        compare: vec![is_owner(owner, token)],
        success: vec![op(Op::RequestPut(put("state/a", value)))],
        ..Default::default()
    };
    assert!(kv.txn(owned("jobs/1", first, "2")).await.unwrap().into_inner().succeeded);
    assert_eq!(server.value("state/a").await.as_deref(), Some("2"));
    assert!(!kv.txn(owned("jobs/1", first + 1, "3")).await.unwrap().into_inner().succeeded);
    // It holds, but of a waiter's key.
    assert_reason(kv.txn(owned("jobs/2", second, "3")).await, Code::FailedPrecondition, "guarded_range");
    let otherwise = etcd::TxnRequest {
        compare: vec![is_owner("jobs/1", first + 1)],
        failure: vec![op(Op::RequestPut(put("state/a", "3")))],
        ..Default::default()
    };
    assert_reason(kv.txn(otherwise).await, Code::FailedPrecondition, "guarded_range");

    // The next holder: the same client's transaction is a failed compare, and its fence is stale.
    let release = etcd::DeleteRangeRequest { key: "jobs/1".into(), ..Default::default() };
    kv.delete_range(release).await.unwrap();
    assert!(!kv.txn(owned("jobs/1", first, "4")).await.unwrap().into_inner().succeeded);
    let late = kv.put(fenced("state/a", "4", lock("jobs"), first)).await;
    assert_reason(late, Code::FailedPrecondition, "stale_fence");
    assert!(kv.txn(owned("jobs/2", second, "5")).await.unwrap().into_inner().succeeded);
    assert_eq!(server.value("state/a").await.as_deref(), Some("5"));
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_change_over_guarded_keys_needs_a_fence_or_an_administrator() {
    let server = Server::start().await;
    let mut fencing = server.fencing();
    server.grant(1).await;
    let token = server.queue("jobs", 1).await;
    server.guard("state/", lock("jobs")).await;
    for change in
        [guard("state/", None), guard("state/", Some(lock("others"))), guard("st", Some(lock("others")))]
    {
        let refused = fencing.change_guard(change.clone()).await;
        assert_reason(refused, Code::FailedPrecondition, "guarded_range");
        let stale = v1::ChangeGuardRequest { fences: vec![fence(lock("jobs"), token + 1)], ..change };
        assert_reason(fencing.change_guard(stale).await, Code::FailedPrecondition, "stale_fence");
    }
    let with_fence = v1::ChangeGuardRequest {
        fences: vec![fence(lock("jobs"), token)],
        ..guard("state/", Some(lock("others")))
    };
    fencing.change_guard(with_fence).await.expect("a current fence of the guard's scope allows it");
    assert_eq!(server.metric("ringfence_guard_overrides_total").await, 0);
    let overriding = v1::ChangeGuardRequest { r#override: true, ..guard("state/", None) };
    fencing.change_guard(overriding).await.expect("an administrator may");
    assert_eq!(server.metric("ringfence_guard_overrides_total").await, 1);
    assert!(
        fencing.list_guards(v1::ListGuardsRequest::default()).await.unwrap().into_inner().guards.is_empty()
    );
    server.kv().put(put("state/a", "x")).await.expect("nothing is guarded any more");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_guard_over_its_own_lock() {
    let server = Server::start().await;
    let mut fencing = server.fencing();
    // Nobody could ever queue for a lock whose keys want its own fence.
    for (prefix, scope) in [("jobs/", lock("jobs")), ("j", lock("jobs")), ("leader", key("leader"))] {
        let refused = fencing.change_guard(guard(prefix, Some(scope))).await;
        assert_reason(refused, Code::InvalidArgument, "guard_over_its_lock");
    }
    // Nor for one whose keys want the fence of another, with which that one's would be closed in turn.
    server.guard("state/", lock("jobs")).await;
    let chained = fencing.change_guard(guard("jobs/", Some(lock("others")))).await;
    assert_reason(chained, Code::InvalidArgument, "guard_over_its_lock");
    let covers_scope = fencing.change_guard(guard("other/", Some(lock("state")))).await;
    assert_reason(covers_scope, Code::InvalidArgument, "guard_over_its_lock");
    server.grant(1).await;
    let token = server.queue("jobs", 1).await;
    server
        .kv()
        .put(fenced("state/a", "1", lock("jobs"), token))
        .await
        .expect("the lock can be taken and used");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_retry_of_an_applied_release_and_write() {
    let server = Server::start().await;
    let mut kv = server.kv();
    let session = server.grant(1).await;
    server.grant(2).await;
    let (first, second) = (server.queue("jobs", 1).await, server.queue("jobs", 2).await);
    let release = etcd::DeleteRangeRequest { key: "jobs/1".into(), ..Default::default() };
    let release_and_write = |sequence: Option<u64>, value: &str| etcd::TxnRequest {
        success: vec![op(Op::RequestDeleteRange(release.clone())), op(Op::RequestPut(put("state", value)))],
        fences: vec![fence(lock("jobs"), first)],
        session: sequence.and_then(|sequence| stamp(session, sequence)),
        ..Default::default()
    };
    let applied = kv.txn(release_and_write(Some(1), "done")).await.unwrap().into_inner();
    assert!(applied.succeeded && applied.checked.as_ref().is_some_and(|checked| checked.session));
    let after = server.revision();

    // The fence was given up by the write itself: without the session the retry would be called stale.
    let mut retried =
        kv.txn(release_and_write(Some(1), "done")).await.expect("it is the same write").into_inner();
    let header = retried.header.as_mut().unwrap();
    let first_entry = applied.header.unwrap().applied_index;
    assert!(std::mem::replace(&mut header.applied_index, first_entry) > first_entry, "it is another entry");
    assert_eq!(retried, applied);
    assert_reason(kv.txn(release_and_write(None, "done")).await, Code::FailedPrecondition, "stale_fence");
    // Another request under the number of this one is nobody's retry; a new one meets the fence as it is now.
    let other = kv.txn(release_and_write(Some(1), "other")).await;
    assert_reason(other, Code::InvalidArgument, "sequence_reused");
    let late = kv.txn(release_and_write(Some(2), "late")).await;
    let status = assert_reason(late, Code::FailedPrecondition, "stale_fence");
    assert_eq!(detail(&status).stale_fence.unwrap().in_force, second);
    assert_eq!((server.revision(), server.value("state").await.as_deref()), (after, Some("done")));
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_write_of_a_session_is_made_definite() {
    let server = Server::start().await;
    let (mut kv, mut fencing) = (server.kv(), server.fencing());
    let session = server.grant(1).await;
    let write = |sequence, value| etcd::PutRequest { session: stamp(session, sequence), ..put("k", value) };
    let revision = kv.put(write(1, "1")).await.unwrap().into_inner().header.unwrap().revision;
    let refused = etcd::PutRequest { lease: 77, session: stamp(session, 2), ..put("k", "2") };
    assert_eq!(kv.put(refused).await.unwrap_err().code(), Code::NotFound);
    let mut resolve = async |sequence| {
        let session = Some(v1::Session { lease: 1, grant: session.index.0 });
        let answer = fencing.resolve(v1::ResolveRequest { session, sequence, first_incomplete: 0 }).await?;
        Ok::<_, Status>(answer.into_inner().kind.unwrap())
    };
    assert_eq!(resolve(2).await.unwrap(), resolve_response::Kind::Refused("lease_not_found".to_owned()));
    for _ in 0..2 {
        assert_eq!(resolve(3).await.unwrap(), resolve_response::Kind::Closed(true));
    }
    // A late copy of what was closed is never applied, and says so.
    let late = kv.put(write(3, "3")).await;
    assert_reason(late, Code::FailedPrecondition, "sequence_closed");
    assert_eq!(server.revision(), revision);
    kv.put(write(4, "4")).await.expect("the next one is open");
    assert_reason(resolve(0).await, Code::InvalidArgument, "invalid_extension");
    server.stop().await;
}
