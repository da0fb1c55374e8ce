//! Three nodes: any of them serves any client, and one that has lost the others says so.

use std::time::{Duration, Instant};

use ringfence_proto::etcdserverpb as etcd;
use ringfence_proto::etcdserverpb::lease_client::LeaseClient;
use ringfence_proto::ringfence_v1::error_detail::AttemptApplied;
use ringfence_proto::ringfence_v1::fencing_client::FencingClient;
use ringfence_proto::ringfence_v1::{self as v1, freshness};
use ringfence_proto::v3electionpb::election_client::ElectionClient;
use ringfence_proto::v3electionpb::{CampaignRequest, LeaderRequest};
use tonic::metadata::MetadataMap;
use tonic::{Code, Request, Status};

use crate::harness::{Server, assert_refused, detail, put, range};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_node_takes_writes_and_answers_reads() {
    let servers = Server::start_cluster(3).await;
    let leaders = servers.iter().filter(|server| server.node.leader() == Some(server.node.node_id())).count();
    assert_eq!(leaders, 1);
    for (at, writer) in servers.iter().enumerate() {
        let value = at.to_string();
        let written = writer.put("k", &value).await.header.unwrap();
        assert_eq!(
            written.member_id,
            writer.node.node_id().0,
            "the answering member is the one that was asked"
        );
        for reader in &servers {
            let read = reader.kv().range(range("k", "")).await.unwrap().into_inner();
            assert_eq!(read.kvs[0].value, value.as_bytes(), "each read sees the write that ended before it");
            assert!(read.header.unwrap().revision >= written.revision);
        }
    }
    // A refusal that apply decided comes back over the followers' way to the leader as the same refusal.
    for server in &servers {
        let kept = etcd::PutRequest { ignore_value: true, ..put("absent", "") };
        assert_refused(server.kv().put(kept).await, Code::InvalidArgument, "etcdserver: key not found");
    }
    for server in servers {
        server.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn leadership_moves_to_the_member_that_was_named() {
    let servers = Server::start_cluster(3).await;
    let leader = servers.iter().find(|server| server.node.leader() == Some(server.node.node_id())).unwrap();
    let other = servers.iter().find(|server| server.node.node_id() != leader.node.node_id()).unwrap();
    let target = etcd::MoveLeaderRequest { target_id: other.node.node_id().0 };
    let refused = other.maintenance().move_leader(target).await;
    assert_refused(refused, Code::FailedPrecondition, "etcdserver: not leader");
    leader.maintenance().move_leader(target).await.expect("the target is in step");
    let status = leader.maintenance().status(etcd::StatusRequest {}).await.unwrap().into_inner();
    assert_eq!(status.leader, other.node.node_id().0);
    for server in servers {
        server.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_without_a_majority_is_read_only_and_says_so() {
    let mut servers = Server::start_cluster(3).await;
    servers[0].put("k", "v").await;
    let left = servers.swap_remove(0);
    assert_eq!(left.kv().range(range("k", "")).await.unwrap().into_inner().count, 1);
    for server in servers {
        server.stop().await;
    }

    let asked = Instant::now();
    let status = left.kv().put(put("k", "lost")).await.unwrap_err();
    assert!(asked.elapsed() < Duration::from_secs(1), "answered after {:?}: {status:?}", asked.elapsed());
    assert_eq!(status.code(), Code::Unavailable, "{status:?}");
    until_read_only(&left).await;

    let asked = Instant::now();
    let status = left.kv().put(put("k", "lost")).await.unwrap_err();
    assert!(asked.elapsed() < Duration::from_millis(200), "refused at once, not after {:?}", asked.elapsed());
    assert_eq!((status.code(), status.message()), (Code::Unavailable, "etcdserver: no leader"));
    let told = detail(&status);
    assert_eq!((told.reason.as_str(), told.attempt_applied()), ("read_only", AttemptApplied::No));
    assert!(told.message.contains("read-only since"), "{}", told.message);

    let mut linearizable = Request::new(range("k", ""));
    linearizable.set_timeout(Duration::from_secs(2));
    assert_refused(left.kv().range(linearizable).await, Code::Unavailable, "etcdserver: no leader");
    let local = etcd::RangeRequest { serializable: true, ..range("k", "") };
    let read = left.kv().range(local.clone()).await.unwrap().into_inner();
    assert_eq!(read.kvs[0].value.as_ref(), b"v");
    let mut required = Request::new(local);
    required.metadata_mut().insert("hasleader", "true".parse().unwrap());
    assert_refused(left.kv().range(required).await, Code::Unavailable, "etcdserver: no leader");

    let status = left.maintenance().status(etcd::StatusRequest {}).await.unwrap().into_inner();
    assert_eq!(status.leader, 0);
    assert!(status.errors.iter().any(|error| error.contains("read-only since")), "{:?}", status.errors);
    let (code, body) = left.get("/readyz").await;
    assert!(code == 503 && body.contains("read-only since"), "{code} {body}");
    assert_eq!(
        left.get("/health").await,
        (503, r#"{"health":"false","reason":"RAFT NO LEADER"}"#.to_owned())
    );
    assert_eq!(left.get("/health?serializable=true").await.0, 200);
    assert_eq!(left.get("/livez").await.0, 200);
    let (_, metrics) = left.get("/metrics").await;
    for line in ["etcd_server_has_leader 0", "ringfence_read_only 1"] {
        assert!(metrics.lines().any(|written| written == line), "{line} in {metrics}");
    }
    left.stop().await;
}

async fn until_read_only(server: &Server) {
    for _ in 0..100 {
        if server.node.status().read_only.is_some() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("two seconds after the majority was lost the node is not read-only");
}

/// The token that an answer tells in its metadata.
fn position(metadata: &MetadataMap) -> String {
    metadata.get("ringfence-position").expect("nothing else tells it").to_str().unwrap().to_owned()
}

/// A request that wants what the owner of a token has seen.
fn as_fresh_as<T>(token: &str, message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.metadata_mut().insert("ringfence-freshness", format!("token={token}").parse().unwrap());
    request
}

/// The field that says the same.
fn field_of(token: &str) -> Option<v1::Freshness> {
    let token: ringfence_types::CausalToken = token.parse().unwrap();
    let token = ringfence_proto::freshness::token_message(token);
    Some(v1::Freshness { kind: Some(freshness::Kind::Token(token)) })
}

/// What comes of a question that is asked with a token on one member: of each that may say how fresh its answer must be.
async fn ask_all(
    server: &Server,
    token: &str,
    patience: Duration,
) -> Vec<(&'static str, Result<u64, Status>)> {
    let channel = || server.channel.clone();
    let (mut leases, mut fencing) = (LeaseClient::new(channel()), FencingClient::new(channel()));
    let index = |header: Option<etcd::ResponseHeader>| header.unwrap().applied_index;
    let mut asked = as_fresh_as(token, etcd::LeaseTimeToLiveRequest { id: 7, ..Default::default() });
    asked.set_timeout(patience);
    let time_to_live = leases.lease_time_to_live(asked).await;
    let mut asked = Request::new(etcd::LeaseLeasesRequest { freshness: field_of(token) });
    asked.set_timeout(patience);
    let all = leases.lease_leases(asked).await;
    let mut asked = as_fresh_as(token, LeaderRequest { name: "boss".into(), freshness: None });
    asked.set_timeout(patience);
    let leader = ElectionClient::new(channel()).leader(asked).await;
    let mut asked = Request::new(v1::ListGuardsRequest { freshness: field_of(token) });
    asked.set_timeout(patience);
    let guards = fencing.list_guards(asked).await;
    let scope = Some(v1::Scope { kind: Some(v1::scope::Kind::Lock("boss".into())) });
    let asked = v1::InspectRequest { scope, freshness: field_of(token), ..Default::default() };
    let mut asked = Request::new(asked);
    asked.set_timeout(patience);
    let holder = fencing.inspect(asked).await;
    vec![
        ("LeaseTimeToLive", time_to_live.map(|answer| index(answer.into_inner().header))),
        ("LeaseLeases", all.map(|answer| index(answer.into_inner().header))),
        ("Leader", leader.map(|answer| index(answer.into_inner().header))),
        ("ListGuards", guards.map(|answer| answer.into_inner().position.unwrap().index)),
        ("Inspect", holder.map(|answer| answer.into_inner().position.unwrap().index)),
    ]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn leases_guards_and_locks_are_told_as_fresh_as_a_token_wants_them() {
    let servers = Server::start_cluster(3).await;
    let writer = &servers[0];
    let grant = etcd::LeaseGrantRequest { ttl: 3_600, id: 7 };
    let granted = LeaseClient::new(writer.channel.clone()).lease_grant(grant).await.unwrap();
    let campaign = CampaignRequest { name: "boss".into(), lease: 7, value: "me".into() };
    let mut elections = ElectionClient::new(writer.channel.clone());
    let won = elections.campaign(campaign).await.unwrap().into_inner().header.unwrap();
    let change = v1::ChangeGuardRequest {
        key: "k".into(),
        scope: Some(v1::Scope { kind: Some(v1::scope::Kind::Lock("boss".into())) }),
        ..Default::default()
    };
    let changed = FencingClient::new(writer.channel.clone()).change_guard(change).await.unwrap();
    // What changes no revision tells its position in the metadata, too.
    let (at_first, token) = (position(granted.metadata()), position(changed.metadata()));
    let header = granted.into_inner().header.unwrap();
    let cluster = header.cluster_id;
    assert_eq!(at_first, format!("{cluster:016x}.{}.{}", header.revision, header.applied_index));
    let told = changed.into_inner().position.unwrap();
    assert_eq!(token, format!("{cluster:016x}.{}.{}", told.revision, told.index));
    assert!(header.applied_index < won.applied_index && won.applied_index < told.index);
    assert_eq!(told.revision, won.revision);

    for server in &servers {
        for (call, answer) in ask_all(server, &token, Duration::from_secs(10)).await {
            assert!(answer.unwrap() >= told.index, "{call}");
        }
        // What is of another cluster is refused, and what has not happened yet is waited for in vain.
        let foreign = format!("{:016x}.{}", cluster ^ 1, told.revision);
        for (call, answer) in ask_all(server, &foreign, Duration::from_secs(10)).await {
            let status = answer.expect_err(call);
            assert_eq!(
                (status.code(), detail(&status).reason.as_str()),
                (Code::FailedPrecondition, "other_cluster")
            );
        }
        let ahead = format!("{cluster:016x}.{}.{}", told.revision, told.index + 1_000);
        for (call, answer) in ask_all(server, &ahead, Duration::from_millis(100)).await {
            let status = answer.expect_err(call);
            let late = [Code::Unavailable, Code::DeadlineExceeded, Code::Cancelled];
            assert!(late.contains(&status.code()), "{call}: {status:?}");
        }
    }
    let twice = as_fresh_as(&token, v1::ListGuardsRequest { freshness: field_of(&token) });
    let status = FencingClient::new(writer.channel.clone()).list_guards(twice).await.unwrap_err();
    assert_eq!(
        (status.code(), detail(&status).reason.as_str()),
        (Code::InvalidArgument, "invalid_freshness")
    );
    for server in servers {
        server.stop().await;
    }
}
