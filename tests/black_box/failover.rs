//! The leader dies again and again under load: the others go on, and nothing that was acknowledged is lost.

use std::time::Duration;

use ringfence_tests::cluster::Cluster;
use ringfence_tests::load::Puts;
use ringfence_tests::wait::{self, PATIENCE};

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

/// A disk full of logs is the last thing that is wanted while a member is down.
#[test]
fn a_member_that_is_down_is_named_once_and_once_when_it_is_back() {
    let mut cluster = Cluster::start(3);
    let follower = cluster.follower();
    // Of whoever leads: a machine that stalls may see another leader meanwhile.
    let said = |cluster: &Cluster| -> String {
        let others = cluster.nodes.iter().enumerate().filter(|(at, _)| *at != follower);
        others.map(|(_, node)| node.log()).collect()
    };
    let wait_for = |cluster: &Cluster, words: &str| {
        let look = || said(cluster).contains(words).then_some(()).ok_or_else(|| said(cluster));
        wait::until(words, PATIENCE, look);
    };
    let named = format!("{} (node {})", cluster.nodes[follower].name, follower + 1);
    let before = said(&cluster).lines().count();
    cluster.nodes[follower].kill();
    wait_for(&cluster, &format!("{named} has not answered"));
    std::thread::sleep(Duration::from_secs(3));
    let told = said(&cluster).matches(&format!("{named} has not answered")).count();
    assert!(
        told <= 2,
        "told {told} times, which is more than once by each that can have led: {}",
        said(&cluster)
    );
    let lines = said(&cluster).lines().count() - before;
    assert!(lines < 20, "{lines} lines about a member that is down: {}", said(&cluster));
    cluster.nodes[follower].start();
    wait_for(&cluster, &format!("{named} answers again"));
}
