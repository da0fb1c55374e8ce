//! Nodes that start again, with all that they had, or without.

use std::sync::Arc;
use std::time::Duration;

use ringfence_consensus::{Failure, Node, ProposeError, QuarantineKind, rt};
use ringfence_disk::{Disk, SimDisk};

use crate::support::{Cluster, address, config, deadline, get, put};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_that_restarts_as_a_whole_meets_and_goes_on() {
    for count in [1, 3, 5] {
        let mut cluster = Cluster::start(count).await;
        let all: Vec<usize> = (0..count).collect();
        let leader = cluster.leader(&all).await;
        cluster.nodes[leader].propose(&put("k", "v"), deadline(5)).await.expect("a leader").expect("a put");
        for node in &cluster.nodes {
            node.shutdown().await;
        }
        let begun = rt::now();
        for index in 0..count {
            cluster.start_again(index).await;
        }
        cluster.leader(&all).await;
        let took = rt::since(begun);
        for node in &cluster.nodes {
            assert_eq!(get(node, "k").await, Ok(Some("v".to_owned())));
            assert_eq!(node.status().quarantine, None);
        }
        // A lease that may still run and an election come first in any case; to meet takes a few milliseconds of it.
        assert!(took < Duration::from_secs(5), "{count} nodes took {took:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_alone_after_its_start_acknowledges_nothing() {
    let mut cluster = Cluster::start(5).await;
    let all = [0, 1, 2, 3, 4];
    let leader = cluster.leader(&all).await;
    cluster.settle().await;
    let others: Vec<usize> = all.into_iter().filter(|index| *index != leader).collect();
    // It restarts where only the leader reaches it, which together with it is no majority.
    let alone = others[0];
    cluster.nodes[alone].shutdown().await;
    for other in &others[1..] {
        cluster.fabric.cut.lock().insert((address(alone), address(*other)));
    }
    cluster.start_again(alone).await;
    let before = cluster.nodes[alone].view().applied();
    for number in 0..20 {
        let written = cluster.nodes[leader].propose(&put(&format!("k{number}"), "v"), deadline(5)).await;
        written.expect("the majority is there").expect("a put");
    }
    rt::sleep(Duration::from_secs(1)).await;
    assert_eq!(
        cluster.nodes[alone].view().applied(),
        before,
        "it takes nothing before it has met a majority"
    );
    cluster.fabric.heal();
    cluster.leader(&all).await;
    assert_eq!(get(&cluster.nodes[alone], "k19").await, Ok(Some("v".to_owned())));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_whose_disk_was_emptied_is_not_counted_on() {
    let mut cluster = Cluster::start(3).await;
    let leader = cluster.leader(&[0, 1, 2]).await;
    let away = (leader + 1) % 3;
    cluster.nodes[leader].propose(&put("k", "v"), deadline(5)).await.expect("a leader").expect("a put");
    cluster.nodes[away].shutdown().await;
    cluster.disks[away] = Arc::new(SimDisk::new(77));
    for start in 1..=2 {
        cluster.start_again(away).await;
        for attempt in 0.. {
            let status = cluster.nodes[away].status();
            if let Some(quarantine) = status.quarantine
                && status.read_only.is_some()
            {
                assert_eq!(quarantine.kind, QuarantineKind::Log);
                assert!(quarantine.reason.contains("emptied"), "start {start}: {}", quarantine.reason);
                break;
            }
            assert!(attempt < 1_000, "not in quarantine after 10 s of start {start}");
            rt::sleep(Duration::from_millis(10)).await;
        }
        let refused = cluster.nodes[away].propose(&put("k", "never"), deadline(5)).await;
        assert!(refused.as_ref().is_err_and(ProposeError::is_definite), "{refused:?}");
        let seen = cluster.nodes[leader].status();
        assert!(seen.members[away].refusal.is_some(), "{:?}", seen.members);
        cluster.nodes[leader].propose(&put("k", "w"), deadline(5)).await.expect("a majority").expect("a put");
        cluster.nodes[away].shutdown().await;
    }
    // Nobody is elected with its vote.
    let third = 3 - leader - away;
    cluster.start_again(away).await;
    cluster.fabric.isolate(&address(third));
    for attempt in 0.. {
        if cluster.nodes[leader].status().read_only.is_some() {
            break;
        }
        assert!(attempt < 1_000, "it counts on whom it must not");
        rt::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_foreign_node_and_a_wrong_founders_list_are_refused() {
    let cluster = Cluster::start(3).await;
    cluster.leader(&[0, 1, 2]).await;
    let mut other = config(0, 3);
    other.founders[1].peer_address = "elsewhere:1".to_owned();
    let disk: Arc<dyn Disk> = cluster.disks[0].clone();
    let port = cluster.fabric.port("n9:1");
    let refused = Node::start(other, disk, port.clone()).await.err();
    assert!(matches!(refused, Some(Failure::Identity(_))), "{refused:?}");
    let mut stranger = config(0, 3);
    stranger.name = "stranger".to_owned();
    let refused = Node::start(stranger, Arc::new(SimDisk::new(99)), port).await.err();
    assert!(matches!(refused, Some(Failure::Config(_))), "{refused:?}");
}
