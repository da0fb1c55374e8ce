//! The clients' port of a cluster of one node, as a client over the network sees it.

#![allow(clippy::unwrap_used, reason = "what fails here fails the test that asked for it")]

#[path = "one_node/gateway.rs"]
mod gateway;
mod harness;
#[path = "one_node/watch.rs"]
mod watch;

use std::time::Duration;

use bytes::Bytes;
use harness::{Server, assert_refused, detail, keys, put, range};
use ringfence_proto::etcdserverpb::cluster_client::ClusterClient;
use ringfence_proto::etcdserverpb::request_op::Request as Op;
use ringfence_proto::etcdserverpb::{self as etcd, response_op};
use ringfence_proto::freshness::{self, AGE_KEY, FRESHNESS_KEY};
use ringfence_proto::mvccpb;
use ringfence_server::ETCD_VERSION;
use sha2::{Digest, Sha256};
use tonic::{Code, Request};
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;
use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keys_are_put_read_deleted_and_compacted() {
    let server = Server::start().await;
    let mut kv = server.kv();

    let first = server.put("a", "1").await;
    let header = first.header.unwrap();
    assert_eq!((header.revision, first.prev_kv), (2, None));
    assert_eq!(header.member_id, server.node.node_id().0);
    assert!(header.raft_term > 0);
    let second = server.put("a", "2").await;
    assert_eq!(second.header.unwrap().revision, 3);
    assert_eq!(second.prev_kv.unwrap().value, Bytes::from_static(b"1"));

    let answer = kv.range(range("a", "")).await.unwrap().into_inner();
    assert_eq!(answer.header.unwrap().revision, 3);
    let expected = mvccpb::KeyValue {
        key: "a".into(),
        create_revision: 2,
        mod_revision: 3,
        version: 2,
        value: "2".into(),
        lease: 0,
    };
    assert_eq!((answer.kvs, answer.count, answer.more), (vec![expected], 1, false));
    let old = kv.range(etcd::RangeRequest { revision: 2, ..range("a", "") }).await.unwrap().into_inner();
    assert_eq!(old.kvs[0].value, Bytes::from_static(b"1"));
    let local = etcd::RangeRequest { serializable: true, ..range("a", "\0") };
    assert_eq!(kv.range(local).await.unwrap().into_inner().count, 1);

    let delete = etcd::DeleteRangeRequest { key: "a".into(), prev_kv: true, ..Default::default() };
    let deleted = kv.delete_range(delete).await.unwrap().into_inner();
    assert_eq!((deleted.deleted, deleted.prev_kvs.len(), deleted.header.unwrap().revision), (1, 1, 4));

    let compacted = kv.compact(etcd::CompactionRequest { revision: 4, physical: true }).await.unwrap();
    assert_eq!(compacted.into_inner().header.unwrap().revision, 4);
    let gone = kv.range(etcd::RangeRequest { revision: 2, ..range("a", "") }).await;
    assert_refused(gone, Code::OutOfRange, "etcdserver: mvcc: required revision has been compacted");
    let ahead = kv.range(etcd::RangeRequest { revision: 99, ..range("a", "") }).await;
    assert_refused(ahead, Code::OutOfRange, "etcdserver: mvcc: required revision is a future revision");
    let again = kv.compact(etcd::CompactionRequest { revision: 4, physical: false }).await;
    assert_refused(again, Code::OutOfRange, "etcdserver: mvcc: required revision has been compacted");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn transactions_write_or_only_read() {
    let server = Server::start().await;
    let mut kv = server.kv();
    let op = |request| etcd::RequestOp { request: Some(request) };
    let absent = etcd::Compare { key: "k".into(), target: 1, ..Default::default() };
    let create = etcd::TxnRequest {
        compare: vec![absent],
        success: vec![op(Op::RequestPut(put("k", "v"))), op(Op::RequestRange(range("k", "")))],
        failure: vec![op(Op::RequestRange(range("k", "")))],
        ..Default::default()
    };
    let created = kv.txn(create.clone()).await.unwrap().into_inner();
    assert!(created.succeeded);
    assert_eq!(created.header.unwrap().revision, 2);
    let Some(response_op::Response::ResponseRange(seen)) = &created.responses[1].response else {
        panic!("the second answer is a range's: {created:?}")
    };
    assert_eq!(seen.kvs[0].value, Bytes::from_static(b"v"), "a transaction sees its own writes");
    let second = kv.txn(create).await.unwrap().into_inner();
    assert!(!second.succeeded);
    assert_eq!(second.header.unwrap().revision, 2, "what changes no key makes no revision");

    let applied = server.node.view().applied();
    let reads = [Op::RequestRange(range("k", "")), Op::RequestRange(range("a", "z"))];
    let only_reads = etcd::TxnRequest { success: reads.map(op).to_vec(), ..Default::default() };
    let read = kv.txn(only_reads).await.unwrap().into_inner();
    assert!(read.succeeded && read.responses.len() == 2);
    assert_eq!(server.node.view().applied(), applied, "a transaction that only reads is not proposed");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_read_says_how_fresh_it_wants_the_state_and_is_told_how_old_it_was() {
    let server = Server::start().await;
    let mut kv = server.kv();
    server.put("k", "v").await;
    let fresh = |text: &str| Some(freshness::to_field(freshness::parse(text).expect("well-formed")));
    for text in ["linearizable", "quorum", "any", "revision=2", "max-age=2s"] {
        let asked = etcd::RangeRequest { freshness: fresh(text), ..range("k", "") };
        let answer = kv.range(asked).await.unwrap();
        assert_eq!(answer.metadata().get(AGE_KEY).map(|age| age.as_bytes()), Some(&b"0"[..]), "{text}");
        let answer = answer.into_inner();
        // The leader has whatever is acknowledged.
        assert_eq!((answer.count, answer.age_ms), (1, Some(0)), "{text}");
        let mut asked = Request::new(range("k", ""));
        asked.metadata_mut().insert(FRESHNESS_KEY, text.parse().unwrap());
        assert_eq!(kv.range(asked).await.unwrap().into_inner().count, 1, "{text}");
    }
    // A state that is not there yet is waited for.
    let mut waiting = kv.clone();
    let ahead = etcd::RangeRequest { freshness: fresh("revision=3"), ..range("k", "") };
    let ahead = tokio::spawn(async move { waiting.range(ahead).await });
    server.put("k", "w").await;
    let answer = ahead.await.unwrap().unwrap().into_inner();
    assert_eq!((answer.kvs[0].mod_revision, answer.header.unwrap().revision), (3, 3));

    let refused = |answer: Result<_, tonic::Status>| {
        let status: tonic::Status = answer.map(|_: tonic::Response<etcd::RangeResponse>| ()).unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument, "{status:?}");
        assert_eq!(detail(&status).reason, "invalid_freshness");
    };
    let both = etcd::RangeRequest { serializable: true, freshness: fresh("quorum"), ..range("k", "") };
    refused(kv.range(both).await);
    let mut twice = Request::new(etcd::RangeRequest { freshness: fresh("any"), ..range("k", "") });
    twice.metadata_mut().insert(FRESHNESS_KEY, "any".parse().unwrap());
    refused(kv.range(twice).await);
    let mut unclear = Request::new(range("k", ""));
    unclear.metadata_mut().insert(FRESHNESS_KEY, "max-age=soon".parse().unwrap());
    refused(kv.range(unclear).await);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_malformed_or_too_large_is_refused_in_etcds_words() {
    let server = Server::start().await;
    let mut kv = server.kv();
    assert_refused(kv.put(put("", "v")).await, Code::InvalidArgument, "etcdserver: key is not provided");
    let kept = etcd::PutRequest { ignore_value: true, ..put("absent", "") };
    assert_refused(kv.put(kept).await, Code::InvalidArgument, "etcdserver: key not found");
    let leased = etcd::PutRequest { lease: 77, ..put("k", "v") };
    assert_refused(kv.put(leased).await, Code::NotFound, "etcdserver: requested lease not found");
    let sorted = etcd::RangeRequest { sort_order: 9, ..range("a", "") };
    assert_refused(kv.range(sorted).await, Code::InvalidArgument, "etcdserver: invalid sort option");
    let twice =
        [put("k", "1"), put("k", "2")].map(|put| etcd::RequestOp { request: Some(Op::RequestPut(put)) });
    let twice = etcd::TxnRequest { success: twice.to_vec(), ..Default::default() };
    assert_refused(
        kv.txn(twice).await,
        Code::InvalidArgument,
        "etcdserver: duplicate key given in txn request",
    );

    let largest = put("k", &"x".repeat(3 * 512 * 1024 - 7));
    kv.put(largest).await.expect("a request of the largest size is taken");
    for bytes in [3 * 512 * 1024, 9 << 20] {
        let larger = put("k", &"x".repeat(bytes));
        assert_refused(kv.put(larger).await, Code::InvalidArgument, "etcdserver: request is too large");
    }

    let mut required = Request::new(put("k", "v"));
    required.metadata_mut().insert("hasleader", "true".parse().unwrap());
    kv.put(required).await.expect("there is a leader");
    let nowhere = ClusterClient::new(server.channel.clone())
        .member_add(etcd::MemberAddRequest::default())
        .await
        .unwrap_err();
    assert_eq!((nowhere.code(), detail(&nowhere).reason.as_str()), (Code::InvalidArgument, "member_urls"));
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_streamed_range_merges_to_what_one_range_answers() {
    let server = Server::start().await;
    let mut kv = server.kv();
    for at in 0..40 {
        server.put(&format!("k{at:02}"), &at.to_string().repeat(20_000)).await;
    }
    server.put("z", "outside").await;
    let order = |order: etcd::range_request::SortOrder| etcd::RangeRequest {
        sort_order: order.into(),
        sort_target: etcd::range_request::SortTarget::Mod.into(),
        ..range("k", "l")
    };
    for (request, parts_at_least) in [
        (range("k", "l"), 2),
        (etcd::RangeRequest { limit: 30, ..range("k", "l") }, 2),
        (etcd::RangeRequest { limit: 40, ..range("k", "l") }, 2),
        (etcd::RangeRequest { keys_only: true, ..range("k", "l") }, 1),
        (etcd::RangeRequest { count_only: true, ..range("k", "l") }, 1),
        (etcd::RangeRequest { revision: 11, ..range("k", "l") }, 1),
        (etcd::RangeRequest { min_mod_revision: 20, ..range("k", "l") }, 1),
        (order(etcd::range_request::SortOrder::Descend), 1),
        (range("k07", ""), 1),
        (range("nothing", "o"), 1),
    ] {
        let whole = kv.range(request.clone()).await.unwrap().into_inner();
        let mut stream = kv.range_stream(request.clone()).await.unwrap().into_inner();
        let mut parts = Vec::new();
        while let Some(part) = stream.message().await.unwrap() {
            parts.push(part.range_response.unwrap());
        }
        assert!(parts.len() >= parts_at_least, "{} parts of {request:?}", parts.len());
        let (last, earlier) = parts.split_last().unwrap();
        assert!(earlier.iter().all(|part| part.header.is_none() && part.count == 0 && !part.more));
        let kvs: Vec<_> = parts.iter().flat_map(|part| part.kvs.clone()).collect();
        assert_eq!(keys(&kvs), keys(&whole.kvs), "{request:?}");
        assert!(kvs == whole.kvs, "values of {request:?}");
        assert_eq!(
            (last.header, last.count, last.more),
            (whole.header, whole.count, whole.more),
            "{request:?}"
        );
    }
    let mut ahead =
        kv.range_stream(etcd::RangeRequest { revision: 999, ..range("k", "l") }).await.unwrap().into_inner();
    let message = "etcdserver: mvcc: required revision is a future revision";
    assert_refused(ahead.message().await, Code::OutOfRange, message);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_operator_sees_how_the_member_stands() {
    let server = Server::start().await;
    server.put("a", "1").await;
    let mut maintenance = server.maintenance();
    let status = maintenance.status(etcd::StatusRequest {}).await.unwrap().into_inner();
    assert_eq!(status.leader, server.node.node_id().0);
    assert_eq!((status.version.as_str(), status.storage_version.as_str()), (ETCD_VERSION, "ringfence/1.2.3"));
    assert!(status.raft_applied_index > 0 && status.raft_applied_index <= status.raft_index, "{status:?}");
    assert!(status.errors.is_empty() && !status.is_learner, "{status:?}");

    let hash = |revision| etcd::HashKvRequest { revision };
    let before = maintenance.hash_kv(hash(0)).await.unwrap().into_inner();
    assert_eq!(before.hash_revision, 2);
    server.put("a", "2").await;
    let after = maintenance.hash_kv(hash(0)).await.unwrap().into_inner();
    assert_ne!(before.hash, after.hash);
    assert_eq!(maintenance.hash_kv(hash(2)).await.unwrap().into_inner().hash, before.hash);
    maintenance.hash(etcd::HashRequest {}).await.unwrap();

    let alarms = maintenance.alarm(etcd::AlarmRequest::default()).await.unwrap().into_inner();
    assert!(alarms.alarms.is_empty() && alarms.header.is_some());
    maintenance.defragment(etcd::DefragmentRequest {}).await.unwrap();
    let target = etcd::MoveLeaderRequest { target_id: 99 };
    let moved = maintenance.move_leader(target).await;
    assert_refused(moved, Code::FailedPrecondition, "etcdserver: bad leader transferee");
    let cancel = etcd::DowngradeRequest { action: 2, version: String::new() };
    let cancelled = maintenance.downgrade(cancel).await;
    assert_refused(cancelled, Code::FailedPrecondition, "etcdserver: no inflight downgrade job");

    let member = published(&server).await;
    assert_eq!((member.name.as_str(), member.is_learner), ("n1", false));
    assert_eq!(member.id, server.node.node_id().0);
    assert_eq!(member.client_ur_ls, [format!("http://{}", server.address)]);
    server.stop().await;
}

/// The only member, once it has told where clients reach it, which it does by a write of its own after its start.
async fn published(server: &Server) -> etcd::Member {
    let mut cluster = ClusterClient::new(server.channel.clone());
    for _ in 0..200 {
        let list = etcd::MemberListRequest { linearizable: true };
        let members = cluster.member_list(list).await.unwrap().into_inner().members;
        let [member] = <[_; 1]>::try_from(members).expect("one member");
        assert_eq!(member.name, "n1", "the name is known before that");
        if !member.client_ur_ls.is_empty() {
            return member;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("not published within four seconds");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_snapshot_is_a_file_and_its_hash() {
    let server = Server::start().await;
    server.put("a", "1").await;
    let mut stream = server.maintenance().snapshot(etcd::SnapshotRequest {}).await.unwrap().into_inner();
    let mut blobs = Vec::new();
    let mut remaining = Vec::new();
    while let Some(part) = stream.message().await.unwrap() {
        assert_eq!(part.version, "1.2.3");
        remaining.push((part.remaining_bytes, part.blob.len()));
        blobs.extend_from_slice(&part.blob);
    }
    assert_eq!(blobs.len() % 512, 32);
    let (file, hash) = blobs.split_at(blobs.len() - 32);
    assert!(!file.is_empty());
    assert_eq!(hash, Sha256::digest(file).as_slice());
    let mut left = file.len();
    for (told, sent) in &remaining[..remaining.len() - 1] {
        left -= sent;
        assert_eq!(*told, left as u64);
    }
    assert_eq!(*remaining.last().unwrap(), (0, 32));
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn probes_and_metrics_share_the_port() {
    let server = Server::start().await;
    server.put("a", "1").await;
    assert_eq!(server.get("/health").await, (200, r#"{"health":"true","reason":""}"#.to_owned()));
    assert_eq!(server.get("/health?serializable=true").await.0, 200);
    assert_eq!(server.get("/livez").await, (200, "ok\n".to_owned()));
    assert_eq!(server.get("/readyz").await, (200, "ok\n".to_owned()));
    assert_eq!(server.get("/nothing").await.0, 404);
    let (code, version) = server.get("/version").await;
    assert_eq!(code, 200);
    assert!(
        version.contains(r#""etcdserver":"3.7.0""#) && version.contains(r#""ringfence":"1.2.3""#),
        "{version}"
    );
    let (code, metrics) = server.get("/metrics").await;
    assert_eq!(code, 200);
    let put =
        "grpc_server_handled_total{grpc_code=\"OK\",grpc_method=\"Put\",grpc_service=\"etcdserverpb.KV\"} 1";
    for line in ["etcd_server_has_leader 1", "ringfence_read_only 0", put] {
        assert!(metrics.lines().any(|written| written == line), "{line} in {metrics}");
    }

    let mut health = HealthClient::new(server.channel.clone());
    let check = HealthCheckRequest { service: "etcdserverpb.KV".to_owned() };
    let serving = HealthCheckResponse { status: ServingStatus::Serving.into() };
    assert_eq!(health.check(check).await.unwrap().into_inner(), serving);
    let unknown = health.check(HealthCheckRequest { service: "nobody".to_owned() }).await.unwrap_err();
    assert_eq!(unknown.code(), Code::NotFound);
    let mut watch = health.watch(HealthCheckRequest::default()).await.unwrap().into_inner();
    assert_eq!(watch.message().await.unwrap(), Some(serving));
    assert!(reflected(&server).await.contains(&"etcdserverpb.KV".to_owned()));

    // Stopping ends the watch, which has no end of its own, long before the drain would cut it off.
    server.shutdown.cancel();
    let ended = tokio::time::timeout(Duration::from_secs(2), async {
        while let Ok(Some(_)) = watch.message().await {}
    });
    ended.await.expect("the watch ends when the server stops");
    server.stop().await;
}

/// The services that reflection lists.
async fn reflected(server: &Server) -> Vec<String> {
    use tonic_reflection::pb::v1::ServerReflectionRequest;
    use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
    use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
    use tonic_reflection::pb::v1::server_reflection_response::MessageResponse;
    let message_request = Some(MessageRequest::ListServices(String::new()));
    let request = ServerReflectionRequest { host: String::new(), message_request };
    let requests = futures_util::stream::iter([request]);
    let mut client = ServerReflectionClient::new(server.channel.clone());
    let mut answers = client.server_reflection_info(requests).await.unwrap().into_inner();
    match answers.message().await.unwrap().unwrap().message_response {
        Some(MessageResponse::ListServicesResponse(list)) => {
            list.service.into_iter().map(|service| service.name).collect()
        }
        other => panic!("a list was asked for, and this came: {other:?}"),
    }
}
