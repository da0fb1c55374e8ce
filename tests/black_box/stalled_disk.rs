//! A leader whose disk takes syncs and does not give them back holds nobody up for long: leadership goes to another node.

use std::time::{Duration, Instant};

use ringfence_tests::cluster::Cluster;
use ringfence_tests::load::Puts;
use ringfence_tests::syncs::Syncs;
use ringfence_tests::wait::{self, PATIENCE};

/// The promise: how long after its disk has stalled nobody waits for a leader any more.
const RESUMED: Duration = Duration::from_secs(5);
/// Far longer than any limit.
const STALL: Duration = Duration::from_secs(600);

#[test]
fn a_leader_whose_disk_stalls_hands_over_and_writes_go_on() {
    let mut cluster = Cluster::prepare(3);
    for node in &mut cluster.nodes {
        node.syncs = Some(Syncs::create(cluster.home.path().join(format!("{}.syncs", node.name))));
        node.flags.push("--disk-stall-limit=1s".to_owned());
    }
    cluster.start_all();
    let puts = Puts::start(&cluster.endpoints(), "load/");
    puts.wait_for_more(30);
    let stalled = cluster.leader();
    let syncs = cluster.nodes[stalled].syncs.as_ref().expect("each node has them");
    syncs.delay(STALL);
    let began = Instant::now();
    wait::until("a sync to stall", PATIENCE, || match syncs.delayed() {
        0 => Err("none is delayed yet".to_owned()),
        _ => Ok(()),
    });
    // Asked of the others alone: the stalled node may go on to name itself.
    let others: Vec<usize> = (0..3).filter(|at| *at != stalled).collect();
    let leader = wait::until("another node to lead", PATIENCE, || {
        let leads = |at: &&usize| cluster.nodes[**at].metric("etcd_server_is_leader") == Some(1.0);
        others.iter().find(leads).copied().ok_or_else(|| cluster.nodes[stalled].log())
    });
    puts.wait_for_more(30);
    let took = began.elapsed();
    assert!(took < RESUMED, "{} took over after {took:?}", cluster.nodes[leader].name);
    let told = cluster.nodes[stalled].log();
    assert!(told.contains("a sync of the log takes"), "{told}");
    // Its thread sleeps in the shim for as long as it lives.
    cluster.nodes[stalled].kill();
    cluster.nodes[stalled].syncs.as_ref().expect("each node has them").delay(Duration::ZERO);
    cluster.nodes[stalled].start();
    let report = puts.stop();
    assert!(report.longest_gap < RESUMED, "no put was acknowledged for {:?}", report.longest_gap);
    cluster.assert_nothing_lost(&report.acknowledged);
}
