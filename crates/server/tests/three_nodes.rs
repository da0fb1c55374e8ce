//! Three nodes: any of them serves any client, and one that has lost the others says so.

#![allow(clippy::unwrap_used, reason = "what fails here fails the test that asked for it")]

mod harness;
#[path = "three_nodes/watch.rs"]
mod watch;

use std::time::{Duration, Instant};

use harness::{Server, assert_refused, detail, put, range};
use ringfence_proto::etcdserverpb as etcd;
use ringfence_proto::ringfence_v1::error_detail::AttemptApplied;
use tonic::{Code, Request};

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
