//! Leadership is handed over.

use std::time::Duration;

use ringfence_consensus::{Timing, rt};
use ringfence_types::NodeId;

use crate::support::{Cluster, Writers, address, deadline, get, put};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn leadership_is_handed_over_only_to_a_voter_that_can_take_it() {
    let cluster = Cluster::start(3).await;
    let old = cluster.leader(&[0, 1, 2]).await;
    let node = &cluster.nodes[old];
    node.propose(&put("k", "v"), deadline(5)).await.expect("a leader").expect("a put");
    assert!(node.transfer_leadership(Some(NodeId(77)), deadline(5)).await.is_err());
    assert!(node.transfer_leadership(Some(node.node_id()), deadline(5)).await.is_err());
    let follower = &cluster.nodes[(old + 1) % 3];
    assert!(
        follower.transfer_leadership(None, deadline(5)).await.is_err(),
        "a follower has nothing to hand over"
    );

    let taken = node.transfer_leadership(Some(follower.node_id()), deadline(5)).await;
    assert_eq!(taken, Ok(follower.node_id()));
    node.propose(&put("k", "w"), deadline(5)).await.expect("forwarded to the new leader").expect("a put");
    assert_eq!(get(node, "k").await, Ok(Some("w".to_owned())));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_has_a_successor_still_tells_what_became_of_its_writes() {
    let cluster = Cluster::start(3).await;
    let old = cluster.leader(&[0, 1, 2]).await;
    cluster.settle().await;
    let (next, through) = ((old + 1) % 3, (old + 2) % 3);
    // The member hears of the successor before the old leader's answers reach it.
    cluster.fabric.slow.lock().insert((address(old), address(through)), Duration::from_millis(100));
    let writers = Writers::start(std::iter::repeat_n(&cluster.nodes[through], 4));
    rt::sleep(Duration::from_millis(250)).await;
    let target = cluster.nodes[next].node_id();
    let taken = cluster.nodes[old].transfer_leadership(Some(target), deadline(5)).await;
    assert_eq!(taken, Ok(target));
    assert_eq!(writers.stop().await, [const { Ok(()) }; 4]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_write_fails_while_leadership_is_handed_over() {
    let cluster = Cluster::start(3).await;
    cluster.leader(&[0, 1, 2]).await;
    cluster.settle().await;
    let writers = Writers::start(cluster.nodes.iter().cycle().take(12));
    for _ in 0..4 {
        // So long that what a leader last heard as a follower says nothing any more.
        rt::sleep(Timing::LOCAL.leader_lease * 4).await;
        let leader = cluster.leader(&[0, 1, 2]).await;
        cluster.nodes[leader].transfer_leadership(None, deadline(5)).await.expect("the others are fit");
    }
    assert_eq!(writers.stop().await, [const { Ok(()) }; 12], "planned, and failed all the same");
}
