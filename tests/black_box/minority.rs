//! A node that cannot reach a majority turns read-only by itself, says so, and says since when.

use std::time::{Duration, Instant};

use etcd_client::{Client, Error, GetOptions};
use ringfence_proto::ringfence_v1::error_detail::AttemptApplied;
use ringfence_tests::cluster::Cluster;
use ringfence_tests::wait::{self, PATIENCE};
use ringfence_tests::{http, node::Node};
use tonic::{Code, Status};

use crate::detail::detail;

/// The promise for the first put after the loss.
const FIRST_ANSWER: Duration = Duration::from_secs(1);
/// "At once", on a machine that does other things too.
const AT_ONCE: Duration = Duration::from_millis(300);

#[tokio::test]
async fn two_of_three_nodes_are_killed() {
    let mut cluster = Cluster::start(3);
    let (left, others) = the_leader_and_the_others(&mut cluster);
    put_before(&cluster.nodes[left]).await;
    for other in others {
        cluster.nodes[other].kill();
    }
    the_node_left_is_read_only(&cluster, left).await;
    for other in others {
        cluster.nodes[other].start();
    }
    writes_go_on(&mut cluster, left).await;
}

#[tokio::test]
async fn two_of_three_nodes_are_stopped_and_do_not_know_it() {
    let mut cluster = Cluster::start(3);
    let (left, others) = the_leader_and_the_others(&mut cluster);
    put_before(&cluster.nodes[left]).await;
    for other in others {
        cluster.nodes[other].process().stop();
    }
    the_node_left_is_read_only(&cluster, left).await;
    for other in others {
        cluster.nodes[other].process().go_on();
    }
    writes_go_on(&mut cluster, left).await;
}

#[tokio::test]
async fn a_follower_that_is_left_alone_is_read_only_too() {
    let mut cluster = Cluster::start(3);
    let left = cluster.follower();
    put_before(&cluster.nodes[left]).await;
    for other in (0..3).filter(|other| *other != left) {
        cluster.nodes[other].kill();
    }
    the_node_left_is_read_only(&cluster, left).await;
    for other in (0..3).filter(|other| *other != left) {
        cluster.nodes[other].start();
    }
    writes_go_on(&mut cluster, left).await;
}

/// A dead peer is tried again and again, but with pauses: a leader without peers neither burns the machine nor fills the
/// disk with its log.
#[test]
fn a_leader_without_peers_is_quiet() {
    const LOG_BYTES_MAX: usize = 64 << 10;
    const WATCHED: Duration = Duration::from_secs(2);
    let mut cluster = Cluster::start(3);
    let (left, others) = the_leader_and_the_others(&mut cluster);
    for other in others {
        cluster.nodes[other].kill();
    }
    wait_until_read_only(&cluster.nodes[left]);
    let (log, began) = (cluster.nodes[left].log().len(), cluster.nodes[left].process().cpu_time());
    std::thread::sleep(WATCHED);
    let said = cluster.nodes[left].log().len() - log;
    let used = cluster.nodes[left].process().cpu_time() - began;
    assert!(said < LOG_BYTES_MAX, "it wrote {said} bytes to its log in {WATCHED:?}");
    assert!(used < WATCHED / 4, "it used {used:?} of the processor in {WATCHED:?}");
}

fn the_leader_and_the_others(cluster: &mut Cluster) -> (usize, [usize; 2]) {
    let leader = cluster.leader();
    (leader, [(leader + 1) % 3, (leader + 2) % 3])
}

/// Puts what is asked for later, and sees to it that this very node has it: an acknowledgement says so of a majority alone.
async fn put_before(node: &Node) {
    put(node, "before", "1").await.expect("the cluster is whole");
    let mut client = Client::connect([&node.client], None).await.expect("the node listens");
    let got = client.get("before", None).await.expect("the cluster is whole");
    assert_eq!(got.kvs()[0].value(), b"1");
}

async fn put(node: &Node, key: &str, value: &str) -> Result<(), Status> {
    let mut client = Client::connect([&node.client], None).await.expect("the node listens");
    match client.put(key, value, None).await {
        Ok(_) => Ok(()),
        Err(Error::GRpcStatus(status)) => Err(status),
        Err(other) => panic!("no status: {other}"),
    }
}

/// Everything that a node without a majority promises.
async fn the_node_left_is_read_only(cluster: &Cluster, left: usize) {
    let node = &cluster.nodes[left];
    the_first_put_is_answered_in_time(node).await;
    let since = wait_until_read_only(node);
    every_later_put_is_refused_at_once(node).await;
    serializable_reads_go_on(node).await;
    // A linearizable read needs a majority, and says that there is none.
    let mut client = Client::connect([&node.client], None).await.expect("the node listens");
    match client.get("before", None).await {
        Err(Error::GRpcStatus(status)) => {
            assert_eq!((status.code(), status.message()), (Code::Unavailable, "etcdserver: no leader"));
            assert!(detail(&status).message.contains("read-only"), "{:?}", detail(&status));
        }
        other => panic!("a linearizable read was answered without a majority: {other:?}"),
    }
    it_tells_everybody(cluster, left, since).await;
}

async fn the_first_put_is_answered_in_time(node: &Node) {
    let began = Instant::now();
    let status = put(node, "during", "0").await.expect_err("there is no majority");
    let took = began.elapsed();
    assert!(took < FIRST_ANSWER, "the first put was answered after {took:?}: {status:?}");
    assert_eq!(status.code(), Code::Unavailable, "{status:?}");
    let detail = detail(&status);
    assert!(!detail.message.is_empty(), "it says why: {detail:?}");
    // Refused, or unknown; never said to be applied.
    assert_ne!(detail.attempt_applied(), AttemptApplied::Yes, "{detail:?}");
    if detail.attempt_applied() == AttemptApplied::No {
        assert!(["read_only", "no_leader", "not_ready"].contains(&detail.reason.as_str()), "{detail:?}");
    }
}

fn wait_until_read_only(node: &Node) -> f64 {
    wait::until("the node to say that it is read-only", PATIENCE, || {
        match (node.metric("ringfence_read_only"), node.metric("ringfence_read_only_since_seconds")) {
            (Some(1.0), Some(since)) => Ok(since),
            other => Err(format!("{other:?}")),
        }
    })
}

async fn every_later_put_is_refused_at_once(node: &Node) {
    for attempt in 0..5 {
        let began = Instant::now();
        let status = put(node, &format!("later/{attempt}"), "0").await.expect_err("there is no majority");
        let took = began.elapsed();
        assert!(took < AT_ONCE, "a later put was answered after {took:?}");
        assert_eq!((status.code(), status.message()), (Code::Unavailable, "etcdserver: no leader"));
        let detail = detail(&status);
        assert_eq!(detail.attempt_applied(), AttemptApplied::No, "{detail:?}");
        assert_eq!(detail.reason, "read_only", "{detail:?}");
        assert!(detail.message.contains("read-only since"), "{detail:?}");
    }
}

async fn serializable_reads_go_on(node: &Node) {
    let mut client = Client::connect([&node.client], None).await.expect("the node listens");
    let options = GetOptions::new().with_serializable();
    let answer = client.get("before", Some(options)).await.expect("a serializable read needs nobody else");
    assert_eq!(answer.kvs()[0].value(), b"1");
}

/// The status, the probes, the metrics and the command line all say it, and since when.
async fn it_tells_everybody(cluster: &Cluster, left: usize, since: f64) {
    let node = &cluster.nodes[left];
    let mut client = Client::connect([&node.client], None).await.expect("the node listens");
    let status = client.status().await.expect("a status needs nobody else");
    assert!(status.errors().iter().any(|error| error.contains("read-only since")), "{:?}", status.errors());
    let ready = http::get(&node.client, "/readyz").expect("the node listens");
    assert_eq!(ready.status, 503);
    assert!(ready.body.contains("read-only since"), "{}", ready.body);
    assert_eq!(http::get(&node.client, "/livez").expect("the node listens").status, 200);
    assert_eq!(http::get(&node.client, "/health").expect("the node listens").status, 503);
    assert_eq!(http::get(&node.client, "/health?serializable=true").expect("the node listens").status, 200);
    let shown = cluster.run_at(left, ["status", "--output=json", "--timeout=1s"]).json();
    let nodes = shown["nodes"].as_array().expect("it shows the nodes");
    let ours =
        nodes.iter().find(|other| other["name"] == *node.name).expect("it shows the node that was asked");
    assert_eq!(ours["read_only"], true, "{ours}");
    assert!(ours["since"].as_f64().is_some_and(|later| later >= since), "time goes on: {ours} after {since}");
    let put = cluster.run_at(left, ["put", "k", "v", "--timeout=1s"]);
    put.failed(6, &["read-only since", "majority"]);
    let get = cluster.run_at(left, ["get", "before", "--serializable", "--output=plain"]);
    assert_eq!(get.line(), "1");
}

async fn writes_go_on(cluster: &mut Cluster, left: usize) {
    cluster.wait_ready();
    let node = &cluster.nodes[left];
    let mut client = Client::connect([&node.client], None).await.expect("the node listens");
    client.put("after", "1", None).await.expect("there is a majority again");
    assert_eq!(node.metric("ringfence_read_only"), Some(0.0));
    assert_eq!(node.metric("ringfence_read_only_since_seconds"), Some(0.0));
    // What was refused as surely not applied is not there.
    let later = client.get("later/", Some(GetOptions::new().with_prefix())).await.expect("it is whole again");
    assert_eq!(later.count(), 0, "a refused put was applied");
    assert_eq!(client.get("before", None).await.expect("it is whole again").kvs()[0].value(), b"1");
}
