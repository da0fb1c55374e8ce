//! Checkpoints, the log that stays behind them, and members that need a snapshot.

use std::time::Duration;

use ringfence_consensus::{Node, Transfer, rt};

use crate::fabric::Fabric;
use crate::support::{Cluster, address, deadline, get, put};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn checkpoints_leave_the_log_to_the_retention() {
    let interval = Duration::from_millis(50);
    let cluster = Cluster::start_with(3, |config| config.checkpoint_interval = interval).await;
    let leader = &cluster.nodes[cluster.leader(&[0, 1, 2]).await];
    // More entries than openraft purges at a time, and a second round: it purges after a checkpoint that it was told of.
    for round in 0..2 {
        for number in 0..400 {
            let written = leader.propose(&put(&format!("key-{number}"), "value"), deadline(5)).await;
            written.expect("the majority is there").expect("a put");
        }
        let applied = leader.view().applied();
        for attempt in 0.. {
            if leader.status().checkpointed >= applied {
                break;
            }
            assert!(attempt < 1_000, "no checkpoint of round {round} in 10 s");
            rt::sleep(Duration::from_millis(10)).await;
        }
    }
    let last = leader.status().checkpointed;
    leader.propose(&put("end", "1"), deadline(5)).await.expect("a leader").expect("a put");
    while leader.status().checkpointed == last {
        rt::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(leader.status().purged, None, "the log is far below what the retention allows");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_that_missed_a_purge_is_brought_back_by_a_snapshot() {
    let mut cluster = Cluster::start(3).await;
    let leader = cluster.leader(&[0, 1, 2]).await;
    cluster.settle().await;
    let away = (leader + 1) % 3;
    cluster.fabric.isolate(&address(away));
    for round in 0..3_000 {
        let key = format!("key-{}", round % 50);
        let written = cluster.nodes[leader].propose(&put(&key, &round.to_string()), deadline(5)).await;
        written.expect("the majority is there").expect("a put");
    }
    // Everything that the absent member needs is dropped from both logs.
    for index in [leader, (leader + 2) % 3] {
        cluster.nodes[index].checkpoint().await.expect("a disk without faults");
        cluster.nodes[index].purge_to_checkpoint().await;
        for attempt in 0.. {
            let status = cluster.nodes[index].status();
            let (purged, checkpointed) = (status.purged, status.checkpointed.map(|log_id| log_id.index));
            if purged == checkpointed {
                break;
            }
            assert!(attempt < 1_000, "dropped in 10 s: {purged:?} of {checkpointed:?}");
            rt::sleep(Duration::from_millis(10)).await;
        }
    }
    cluster.fabric.heal();
    let expected = cluster.nodes[leader].view();
    for _ in 0..1_500 {
        if cluster.nodes[away].view().applied() >= expected.applied() {
            break;
        }
        rt::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(cluster.nodes[away].view().hash(), expected.hash());
    // It is a full member again, the next write reaches it through the log.
    cluster.nodes[leader].propose(&put("end", "1"), deadline(5)).await.expect("a leader").expect("a put");
    assert_eq!(get(&cluster.nodes[away], "end").await, Ok(Some("1".to_owned())));
    cluster.nodes.clear();
}

/// Waits until the leader is past so many bytes of the snapshot that it sends to a member.
async fn wait_sent(leader: &Node, member: usize, bytes: u64) -> Transfer {
    for _ in 0..3_000 {
        if let Some(transfer) =
            leader.status().members[member].snapshot.filter(|transfer| transfer.sent >= bytes)
        {
            return transfer;
        }
        rt::sleep(Duration::from_millis(10)).await;
    }
    panic!("no snapshot is sent in 30 s: {:?}", leader.status().members);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_snapshot_goes_on_where_its_connection_broke_and_keeps_the_log_behind_it() {
    const CHUNK: u64 = ringfence_types::limits::SNAPSHOT_CHUNK_BYTES as u64;
    const RATE: u64 = 4 << 20;
    // What a link holds at the break, a mebibyte at either end, may arrive in vain; the last chunk written counts as written in part;
    // and members say other things as well.
    const AGAIN_MAX: u64 = 6 * CHUNK;
    let cluster = Cluster::start_with(3, |config| config.snapshot_bytes_per_second = RATE).await;
    let leader = cluster.leader(&[0, 1, 2]).await;
    cluster.settle().await;
    let away = (leader + 1) % 3;
    cluster.fabric.isolate(&address(away));
    let value = "v".repeat(8 << 10);
    for number in 0..1_200 {
        let written =
            cluster.nodes[leader].propose(&put(&format!("key-{number}"), &value), deadline(5)).await;
        written.expect("the majority is there").expect("a put");
    }
    let forget = async || {
        for index in [leader, 3 - leader - away] {
            cluster.nodes[index].checkpoint().await.expect("a disk without faults");
            cluster.nodes[index].purge_to_checkpoint().await;
        }
    };
    forget().await;
    // While a member may still take entries from the log, they stay.
    for attempt in 0.. {
        let status = cluster.nodes[leader].status();
        if status.purged >= status.checkpointed.map(|log_id| log_id.index) {
            break;
        }
        assert!(attempt < 1_000, "the leader has not purged its log in 10 s: {status:?}");
        rt::sleep(Duration::from_millis(10)).await;
        cluster.nodes[leader].purge_to_checkpoint().await;
    }
    let arrived = |fabric: &Fabric| fabric.arrived.lock().get(&address(away)).copied().unwrap_or_default();
    let before = arrived(&cluster.fabric);
    cluster.fabric.heal();
    let begun = rt::now();
    let total = wait_sent(&cluster.nodes[leader], away, 2 * AGAIN_MAX).await.total;
    cluster.fabric.isolate(&address(away));
    // What is written now, and checkpointed, is behind the file that is sent: the member will need it.
    for number in 0..100 {
        let written = cluster.nodes[leader].propose(&put(&format!("late-{number}"), "v"), deadline(5)).await;
        written.expect("the majority is there").expect("a put");
    }
    forget().await;
    while cluster.nodes[leader].status().members[away].snapshot.is_some() {
        rt::sleep(Duration::from_millis(10)).await;
    }
    cluster.fabric.heal();
    wait_sent(&cluster.nodes[leader], away, 2 * AGAIN_MAX).await;
    for attempt in 0.. {
        if cluster.nodes[away].view().applied() >= cluster.nodes[leader].view().applied() {
            break;
        }
        assert!(attempt < 3_000, "the member has not caught up in 30 s");
        rt::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(cluster.nodes[away].view().hash(), cluster.nodes[leader].view().hash());
    assert!(total > 3 * AGAIN_MAX, "{total} bytes are too few for this test");
    let excess = (arrived(&cluster.fabric) - before).saturating_sub(total);
    assert!(excess < AGAIN_MAX, "{excess} bytes were sent again, of a snapshot of {total}");
    let least = Duration::from_secs_f64((total - CHUNK) as f64 / RATE as f64);
    assert!(rt::since(begun) >= least, "{total} bytes took {:?}", rt::since(begun));
}
