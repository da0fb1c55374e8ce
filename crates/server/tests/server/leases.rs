//! Leases as a client over the network sees them, on one node and on three.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use futures_util::stream;
use ringfence_proto::etcdserverpb as etcd;
use ringfence_proto::etcdserverpb::lease_client::LeaseClient;
use ringfence_proto::ringfence_v1::error_detail::AttemptApplied;
use tonic::transport::Channel;
use tonic::{Code, Request};

use crate::harness::{Server, assert_refused, detail, put, range};

fn leases(server: &Server) -> LeaseClient<Channel> {
    LeaseClient::new(server.channel.clone())
}

async fn grant(server: &Server, ttl: i64, id: i64) -> etcd::LeaseGrantResponse {
    leases(server).lease_grant(etcd::LeaseGrantRequest { ttl, id }).await.expect("it is granted").into_inner()
}

/// Keeps these alive over one stream, and returns the TTLs of the answers.
async fn keep_alive(server: &Server, ids: &[i64]) -> Vec<(i64, i64)> {
    let requests: Vec<_> = ids.iter().map(|id| etcd::LeaseKeepAliveRequest { id: *id }).collect();
    let mut answers = leases(server).lease_keep_alive(stream::iter(requests)).await.unwrap().into_inner();
    let mut told = Vec::new();
    while let Some(answer) = answers.message().await.unwrap() {
        assert!(answer.header.is_some());
        told.push((answer.id, answer.ttl));
    }
    told
}

async fn time_to_live(server: &Server, id: i64) -> etcd::LeaseTimeToLiveResponse {
    let request = etcd::LeaseTimeToLiveRequest { id, keys: true, freshness: None };
    leases(server).lease_time_to_live(request).await.unwrap().into_inner()
}

async fn in_force(server: &Server) -> BTreeSet<i64> {
    let answer = leases(server).lease_leases(etcd::LeaseLeasesRequest::default()).await.unwrap().into_inner();
    answer.leases.iter().map(|lease| lease.id).collect()
}

async fn put_with(server: &Server, key: &str, lease: i64) -> i64 {
    let put = etcd::PutRequest { lease, ..put(key, "v") };
    server.kv().put(put).await.expect("the lease is in force").into_inner().header.unwrap().revision
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn leases_are_granted_listed_and_revoked() {
    let server = Server::start().await;
    let answer = leases(&server).lease_grant(etcd::LeaseGrantRequest { ttl: 1, id: 0 }).await.unwrap();
    let session = answer.metadata().get("ringfence-session").expect("it names the session").clone();
    let drawn = answer.into_inner();
    assert!(drawn.id > 0 && drawn.grant > 0, "{drawn:?}");
    assert_eq!((drawn.ttl, drawn.error.as_str()), (2, ""), "no lease is shorter than two seconds");
    assert_eq!(session.to_str().unwrap(), format!("{:x};{}", drawn.id, drawn.grant));
    assert_eq!(grant(&server, 60, -7).await.id, -7);
    for (ttl, id, code, message) in [
        (60, -7, Code::FailedPrecondition, "etcdserver: lease already exists"),
        (9_000_000_001, 8, Code::OutOfRange, "etcdserver: too large lease TTL"),
        (i64::MAX, 0, Code::OutOfRange, "etcdserver: too large lease TTL"),
    ] {
        let refused = leases(&server).lease_grant(etcd::LeaseGrantRequest { ttl, id }).await;
        assert_refused(refused, code, message);
    }
    assert_eq!(grant(&server, 9_000_000_000, 9).await.ttl, 9_000_000_000);

    for key in ["a", "b", "c"] {
        put_with(&server, key, -7).await;
    }
    let refused = server.kv().put(etcd::PutRequest { lease: 12, ..put("d", "v") }).await;
    assert_refused(refused, Code::NotFound, "etcdserver: requested lease not found");
    let told = time_to_live(&server, -7).await;
    assert_eq!((told.id, told.granted_ttl, told.keys.len()), (-7, 60, 3));
    assert!((58..=60).contains(&told.ttl), "{told:?}");
    assert!(in_force(&server).await.is_superset(&BTreeSet::from([-7, 9])));

    let before = server.put("other", "v").await.header.unwrap().revision;
    let revoked = leases(&server).lease_revoke(etcd::LeaseRevokeRequest { id: -7 }).await.unwrap();
    assert_eq!(revoked.into_inner().header.unwrap().revision, before + 1, "all keys end at one revision");
    let left = server.kv().range(range("a", "d")).await.unwrap().into_inner();
    assert_eq!(left.count, 0);
    let told = time_to_live(&server, -7).await;
    assert_eq!(
        (told.ttl, told.granted_ttl, told.keys.len()),
        (-1, 0, 0),
        "as etcd tells of one that is gone"
    );
    for id in [-7, 0] {
        let again = leases(&server).lease_revoke(etcd::LeaseRevokeRequest { id }).await;
        assert_refused(again, Code::NotFound, "etcdserver: requested lease not found");
    }
    let metrics = server.get("/metrics").await.1;
    for line in ["etcd_debugging_lease_granted_total 3", "etcd_debugging_lease_revoked_total 1"] {
        assert!(metrics.lines().any(|told| told == line), "{line} in {metrics}");
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lease_that_nobody_keeps_alive_ends_in_time_with_all_its_keys_at_once() {
    let server = Server::start().await;
    let asked = Instant::now();
    let lease = grant(&server, 2, 0).await.id;
    let kept = grant(&server, 2, 0).await.id;
    let answered = Instant::now();
    for key in ["a", "b", "c"] {
        put_with(&server, key, lease).await;
    }
    let last = put_with(&server, "kept", kept).await;
    let revision = loop {
        assert_eq!(keep_alive(&server, &[kept]).await, [(kept, 2)], "it is kept alive");
        let told = server.kv().range(range("a", "d")).await.unwrap().into_inner();
        if told.count == 0 {
            break told.header.unwrap().revision;
        }
        assert_eq!(told.count, 3, "all or none");
        assert!(answered.elapsed() < Duration::from_secs(20), "it never ends");
        tokio::time::sleep(Duration::from_millis(10)).await;
    };
    assert!(asked.elapsed() >= Duration::from_secs(2), "it ended early");
    assert_eq!(revision, last + 1);
    assert_eq!(in_force(&server).await, BTreeSet::from([kept]));
    assert_eq!(keep_alive(&server, &[lease, kept, 77]).await, [(lease, 0), (kept, 2), (77, 0)]);
    assert!(server.get("/metrics").await.1.contains("\netcd_server_lease_expired_total 1\n"));
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_keep_alives_share_few_entries() {
    let server = Server::start().await;
    let mut ids = Vec::new();
    for id in 1..=300 {
        ids.push(grant(&server, 60, id).await.id);
    }
    let applied = || server.node.status().applied.unwrap().index.0;
    let before = applied();
    let begun = Instant::now();
    // Each one twice over the same stream: both are answered, in the order in which they were asked.
    let twice: Vec<i64> = ids.iter().chain(&ids).copied().collect();
    let expected: Vec<(i64, i64)> = twice.iter().map(|id| (*id, 60)).collect();
    assert_eq!(keep_alive(&server, &twice).await, expected);
    let (entries, tenths) = (applied() - before, begun.elapsed().as_millis() as u64 / 100);
    assert!(entries <= tenths + 3, "{entries} entries in {tenths} tenths of a second");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_number_that_is_granted_again_is_another_lease() {
    let servers = Server::start_cluster(3).await;
    for round in 0..5 {
        let (here, there) = (&servers[round % 3], &servers[(round + 1) % 3]);
        let first = grant(here, 60, 5).await;
        // Known on any member at once, whatever that member has applied.
        assert_eq!(keep_alive(there, &[5]).await, [(5, 60)], "round {round}");
        leases(here).lease_revoke(etcd::LeaseRevokeRequest { id: 5 }).await.unwrap();
        assert_eq!(keep_alive(there, &[5]).await, [(5, 0)], "round {round}");
        let second = grant(here, 30, 5).await;
        assert!(second.grant > first.grant, "a grant is never repeated");
        assert_eq!(keep_alive(there, &[5]).await, [(5, 30)], "round {round}");
        leases(there).lease_revoke(etcd::LeaseRevokeRequest { id: 5 }).await.unwrap();
        assert_eq!(time_to_live(here, 5).await.ttl, -1);
    }
    for server in servers {
        server.stop().await;
    }
}

/// A leader's planned change loses none of a lease's time to speak of: what is kept alive never ends, and the rest no earlier than
/// it may and soon after.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn leases_end_in_time_through_transfers_of_the_leadership() {
    let servers = Server::start_cluster(3).await;
    let ttl = Duration::from_secs(4);
    let mut waiting = Vec::new();
    for id in 1..=20 {
        let asked = Instant::now();
        grant(&servers[id as usize % 3], 4, id).await;
        waiting.push((id, asked, Instant::now()));
        grant(&servers[id as usize % 3], 4, 100 + id).await;
    }
    let kept: Vec<i64> = (101..=120).collect();
    let mut ended = BTreeSet::new();
    let mut transferred = Instant::now();
    let begun = Instant::now();
    while ended.len() < waiting.len() {
        assert!(begun.elapsed() < Duration::from_secs(60), "only {ended:?} have ended");
        if transferred.elapsed() >= Duration::from_millis(900) {
            let leader = servers.iter().find(|server| server.node.leader() == Some(server.node.node_id()));
            if let Some(leader) = leader {
                let deadline = ringfence_consensus::rt::now() + Duration::from_secs(5);
                leader.node.transfer_leadership(None, deadline).await.expect("all members are well");
                transferred = Instant::now();
            }
        }
        let expected: Vec<_> = kept.iter().map(|id| (*id, 4)).collect();
        assert_eq!(keep_alive(&servers[1], &kept).await, expected, "what is kept alive does not end");
        let looked = Instant::now();
        let now = in_force(&servers[2]).await;
        for (id, asked, answered) in &waiting {
            if !now.contains(id) && ended.insert(*id) {
                assert!(asked.elapsed() >= ttl, "{id} ended after {:?}", asked.elapsed());
                // The promise is a second; a machine that runs other tests too may take more.
                let late = looked.duration_since(*answered).saturating_sub(ttl);
                assert!(late < Duration::from_millis(2_500), "{id} ended {late:?} after its time");
            }
        }
    }
    for server in servers {
        server.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_that_wants_a_leader_ends_without_one_and_others_are_told_to_ask_again() {
    let mut servers = Server::start_cluster(3).await;
    let server = servers.remove(0);
    grant(&server, 60, 5).await;
    let open = |wants_leader: bool| {
        let first = stream::iter([etcd::LeaseKeepAliveRequest { id: 5 }]);
        let requests = futures_util::StreamExt::chain(first, stream::pending());
        let mut request = Request::new(requests);
        if wants_leader {
            request.metadata_mut().insert("hasleader", "true".parse().unwrap());
        }
        let mut leases = leases(&server);
        async move { leases.lease_keep_alive(request).await.unwrap().into_inner() }
    };
    let (mut strict, mut patient) = (open(true).await, open(false).await);
    assert_eq!(strict.message().await.unwrap().unwrap().ttl, 60);
    assert_eq!(patient.message().await.unwrap().unwrap().ttl, 60);
    for other in servers {
        other.stop().await;
    }
    let ended = tokio::time::timeout(Duration::from_secs(20), strict.message()).await.expect("it ends");
    let status = ended.unwrap_err();
    assert_eq!((status.code(), status.message()), (Code::Unavailable, "etcdserver: no leader"));
    let mut refused = open(false).await;
    let refused = refused.message().await.unwrap_err();
    assert_eq!(refused.code(), Code::Unavailable, "{refused:?}");
    assert_eq!(detail(&refused).attempt_applied(), AttemptApplied::No);
    // The one that asked for no leader goes on until the server stops, and then ends without an error.
    server.shutdown.cancel();
    let ended = tokio::time::timeout(Duration::from_secs(10), patient.message()).await.expect("it ends");
    assert_eq!(ended.unwrap(), None);
}
