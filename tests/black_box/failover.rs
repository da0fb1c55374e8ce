//! The leader dies again and again under load: the others go on, and nothing that was acknowledged is lost.

use std::time::Duration;

use ringfence_tests::cluster::Cluster;
use ringfence_tests::load::Puts;

/// Far above what it takes; how long it takes is measured elsewhere, on a machine that does nothing else.
const LONGEST_GAP: Duration = Duration::from_secs(5);

#[test]
fn the_leader_is_killed_three_times_under_load() {
    let mut cluster = Cluster::start(3);
    let puts = Puts::start(&cluster.endpoints(), "load/");
    for _ in 0..3 {
        puts.wait_for_more(50);
        let leader = cluster.leader();
        cluster.nodes[leader].kill();
        puts.wait_for_more(50);
        assert_ne!(cluster.leader(), leader, "a dead node leads nobody");
        cluster.nodes[leader].start();
        cluster.wait_ready();
    }
    let report = puts.stop();
    assert!(report.acknowledged.0.len() >= 300);
    assert!(report.longest_gap < LONGEST_GAP, "no put was acknowledged for {:?}", report.longest_gap);
    let held = cluster.assert_nothing_lost(&report.acknowledged);
    // Of the puts around a kill some failed with an unknown outcome; nothing else may be there.
    let unknown = held.0.len() - report.acknowledged.0.len();
    assert!(unknown <= report.failed.len(), "{unknown} keys are there that nobody put");
}

/// A paused leader that wakes up finds another one, and does not take it back.
#[test]
fn the_leader_is_stopped_for_a_while_and_wakes_up_as_a_follower() {
    let mut cluster = Cluster::start(3);
    let puts = Puts::start(&cluster.endpoints(), "load/");
    puts.wait_for_more(20);
    let old = cluster.leader();
    cluster.nodes[old].process().stop();
    puts.wait_for_more(20);
    cluster.nodes[old].process().go_on();
    puts.wait_for_more(20);
    assert_ne!(cluster.wait_ready(), old, "who was away for long does not lead");
    let report = puts.stop();
    cluster.assert_nothing_lost(&report.acknowledged);
}
