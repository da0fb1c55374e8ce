//! The lease clock of a cluster: stamped by the leader, carried by the log, and no faster than time, whoever leads.

use std::time::Duration;

use ringfence_consensus::{Node, rt};
use ringfence_types::{Applied, Command, Grant, Lease, LeaseCommand, LeaseId, LeaseTime, Reply};

use crate::support::{Cluster, address, deadline};

fn about(command: LeaseCommand) -> Command {
    // Whatever a client's node puts there, the leader's reading takes its place.
    Command::Lease { command, clock: LeaseTime(u64::MAX / 2) }
}

async fn propose(node: &Node, command: LeaseCommand) -> Applied {
    node.propose(&about(command), deadline(10)).await.expect("a leader is known").expect("it is lawful")
}

async fn grant(node: &Node, lease: i64, ttl_seconds: u64) -> Lease {
    match propose(node, LeaseCommand::Grant { lease: LeaseId(lease), ttl_seconds }).await.reply {
        Reply::LeaseGranted(lease) => lease,
        other => panic!("the answer to a grant is one, and this is {other:?}"),
    }
}

/// Waits until a node that leads has a reading.
async fn reading(node: &Node) -> LeaseTime {
    for _ in 0..1_000 {
        if let Some(reading) = node.lease_clock() {
            return reading;
        }
        rt::sleep(Duration::from_millis(5)).await;
    }
    panic!("a leader has no lease clock after 5 s");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_leader_alone_has_a_clock_and_stamps_what_others_forward() {
    let cluster = Cluster::start(3).await;
    let leader = cluster.leader(&[0, 1, 2]).await;
    let mut last = reading(&cluster.nodes[leader]).await;
    for (at, node) in cluster.nodes.iter().enumerate() {
        assert_eq!(node.lease_clock().is_some(), at == leader, "node {at}");
        let lease = grant(node, at as i64 + 1, 30).await;
        let now = reading(&cluster.nodes[leader]).await;
        let granted_at = LeaseTime(lease.deadline.0 - 30_000);
        assert!(last <= granted_at && granted_at <= now, "{last} to {now}: {lease:?}");
        last = now;
    }
    assert_eq!(cluster.nodes[leader].lease_count(), 3);
    let due = cluster.nodes[leader].due_leases(last.plus(31_000), 2);
    assert_eq!(due.iter().map(|grant| grant.lease).collect::<Vec<_>>(), [LeaseId(1), LeaseId(2)]);
    assert_eq!(cluster.nodes[leader].due_leases(last, 2), []);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn planned_changes_of_leader_lose_little_of_the_clock_and_gain_nothing() {
    let cluster = Cluster::start(3).await;
    let mut leader = cluster.leader(&[0, 1, 2]).await;
    reading(&cluster.nodes[leader]).await;
    grant(&cluster.nodes[leader], 7, 3_600).await;
    let (before, began) = (rt::now(), reading(&cluster.nodes[leader]).await);
    let after = rt::now();
    for _ in 0..5 {
        let waited = rt::now();
        rt::sleep(Duration::from_millis(400)).await;
        assert!(rt::since(waited) >= Duration::from_millis(400));
        let next = cluster.nodes[leader].transfer_leadership(None, deadline(10)).await.expect("all are well");
        leader = usize::try_from(next.0).expect("a small number") - 1;
        let mut counted = reading(&cluster.nodes[leader]).await;
        assert!(counted.0 - began.0 <= (rt::now() - before).as_millis() as u64, "never faster than time");
        for _ in 0..20 {
            let again = reading(&cluster.nodes[leader]).await;
            assert!(again >= counted, "the clock never goes back");
            counted = again;
        }
    }
    let counted = reading(&cluster.nodes[leader]).await.0 - began.0;
    let elapsed = (rt::now() - after).as_millis() as u64;
    // Five changes, each far below the second that a leader's death may cost.
    assert!(counted + 5 * 500 >= elapsed, "{counted} ms counted of {elapsed} ms");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_is_cut_off_counts_no_further_and_its_successor_goes_on_from_the_log() {
    let cluster = Cluster::start(3).await;
    let old = cluster.leader(&[0, 1, 2]).await;
    reading(&cluster.nodes[old]).await;
    let lease = grant(&cluster.nodes[old], 7, 2).await;
    let granted = rt::now();
    rt::sleep(Duration::from_millis(300)).await;
    cluster.fabric.isolate(&address(old));
    let rest: Vec<usize> = (0..3).filter(|index| *index != old).collect();
    // For a moment they go on naming the one that they heard from last.
    let mut new = cluster.leader(&rest).await;
    while new == old {
        rt::sleep(Duration::from_millis(10)).await;
        new = cluster.leader(&rest).await;
    }
    let now = reading(&cluster.nodes[new]).await;
    assert!(now.0 + 2_000 >= lease.deadline.0, "the successor knows at least the grant's reading");
    assert!(now.0 - (lease.deadline.0 - 2_000) < rt::since(granted).as_millis() as u64);
    assert_eq!(cluster.nodes[old].lease_clock(), None, "its leader lease has run out");
    let refused = cluster.nodes[old].propose(&about(LeaseCommand::Tick), deadline(1)).await;
    assert!(refused.as_ref().is_err_and(ringfence_consensus::ProposeError::is_definite), "{refused:?}");

    // The end is judged by what is replicated: too early, it ends nothing; renewed meanwhile, nothing either.
    let grants = vec![lease.grant, Grant { lease: LeaseId(7), index: ringfence_types::Index(1) }];
    let early = propose(&cluster.nodes[new], LeaseCommand::Expire { grants: grants.clone() }).await;
    assert_eq!(early.reply, Reply::LeasesExpired(vec![]));
    let renewed = propose(&cluster.nodes[new], LeaseCommand::Renew { grants: grants.clone() }).await;
    let Reply::LeasesRenewed(renewed) = renewed.reply else { panic!("{renewed:?}") };
    assert_eq!(renewed.iter().map(|lease| lease.grant).collect::<Vec<_>>(), [lease.grant]);
    assert!(renewed[0].deadline > lease.deadline);
    while cluster.nodes[new].due_leases(reading(&cluster.nodes[new]).await, 1).is_empty() {
        assert!(rt::since(granted) < Duration::from_secs(30), "the lease is never due");
        rt::sleep(Duration::from_millis(20)).await;
    }
    assert!(rt::since(granted) >= Duration::from_secs(2));
    let ended = propose(&cluster.nodes[new], LeaseCommand::Expire { grants }).await;
    assert_eq!(ended.reply, Reply::LeasesExpired(vec![lease.grant]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sole_member_counts_while_it_leads() {
    let cluster = Cluster::start(1).await;
    cluster.leader(&[0]).await;
    let node = &cluster.nodes[0];
    let (first, began) = (reading(node).await, rt::now());
    // Far beyond a leader lease.
    rt::sleep(Duration::from_millis(1_200)).await;
    let (counted, elapsed) = (reading(node).await.0 - first.0, rt::since(began).as_millis() as u64);
    assert!(counted >= 1_000 && counted <= elapsed + 100, "{counted} ms of {elapsed}");
}
