//! Acknowledgement levels: a write that waits for more voters than a majority, and what it says of those that do not answer.

use std::time::{Duration, Instant};

use ringfence_tests::cluster::Cluster;

/// The exit code of a write that is applied and on fewer disks than wanted.
const TOO_FEW_ACKS: i32 = 8;
const REFUSED: i32 = 4;

#[test]
fn a_write_waits_for_the_voters_that_it_wants() {
    let mut cluster = Cluster::start(3);
    let (leader, away) = (cluster.leader(), cluster.follower());
    let other = (0..3).find(|node| *node != leader && *node != away).expect("three nodes");

    // Through a member that leads and one that does not: the leader's knowledge it is both times.
    for through in [leader, other] {
        let told = cluster.run_at(through, ["put", "k", "v", "--ack", "all"]).succeeded();
        assert!(told.contains("on disk at 3 voters (members 1, 2, 3), 3 wanted"), "{told}");
    }
    cluster.run(["put", "k", "v", "--ack", "4"]).failed(REFUSED, &["4 voters", "the cluster has 3"]);

    cluster.nodes[away].process().stop();
    for through in [leader, other] {
        let began = Instant::now();
        let late = cluster.run_at(through, ["put", "k", "late", "--ack", "all", "--ack-within", "500ms"]);
        late.failed(TOO_FEW_ACKS, &["applied at revision", "2 voters of 3 wanted"]);
        assert!(began.elapsed() >= Duration::from_millis(500), "it gave up after {:?}", began.elapsed());
        let told = cluster.run_at(through, ["del", "k", "--ack", "2"]).succeeded();
        assert!(told.contains("on disk at 2 voters"), "{told}");
        let told = cluster.run_at(through, ["put", "k", "again", "--ack", "quorum"]).succeeded();
        assert!(told.contains("2 wanted"), "{told}");
    }
    // What was too late is applied all the same, and told once the voter is back.
    cluster
        .run(["put", "late", "1", "--ack", "3", "--ack-within", "100ms"])
        .failed(TOO_FEW_ACKS, &["2 voters of 3"]);
    assert_eq!(cluster.run(["--output", "plain", "get", "late"]).line(), "1");
    cluster.nodes[away].process().go_on();
    let transaction = cluster.run_with_input(["txn", "--ack", "all"], "then put late 2\n").succeeded();
    assert!(transaction.contains("on disk at 3 voters"), "{transaction}");
}

#[test]
fn levels_and_freshness_are_refused_where_they_mean_nothing() {
    let cluster = Cluster::shared();
    let write = cluster.run_with_input(["txn", "--freshness", "any"], "then put acks/k v\n");
    write.failed(REFUSED, &["is for reads to say"]);
    let read = cluster.run_with_input(["txn", "--ack", "all"], "then get acks/k\n");
    read.failed(REFUSED, &["the transaction only reads"]);
    for freshness in ["quorum", "any", "revision=1", "max-age=1s"] {
        drop(cluster.run_with_input(["txn", "--freshness", freshness], "then get acks/k\n").succeeded());
    }
    cluster.run(["get", "acks/k"]).failed(3, &["no such key"]);
}
