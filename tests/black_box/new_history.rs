//! A majority is lost for good: what one member still holds becomes a new cluster, and the old one cannot touch it.

use std::fs;

use ringfence_tests::cluster::Cluster;
use ringfence_tests::load::Puts;
use ringfence_tests::wait::{self, PATIENCE};
use ringfence_tests::{cli, http};

/// How far the revisions of a new history are above the old one's.
const STEP: i64 = 1_000_000_000;

/// Runs `recover` on the data directory of a node.
fn recover(cluster: &Cluster, node: usize, flags: &[&str]) -> cli::Ran {
    let mut command = cli::command(["recover", "--output=json"]);
    command.arg(format!("--data-dir={}", cluster.nodes[node].data_dir.display())).args(flags);
    cli::capture(command, "")
}

fn revision(cluster: &Cluster, node: usize) -> i64 {
    let page = http::get(&cluster.nodes[node].client, "/metrics").expect("the node listens");
    http::metric(&page.body, "etcd_debugging_mvcc_current_revision").expect("it tells its revision") as i64
}

#[test]
fn the_last_of_three_members_goes_on_as_a_cluster_of_one() {
    let mut cluster = Cluster::start(3);
    let left = cluster.follower();
    let lost: Vec<usize> = (0..3).filter(|node| *node != left).collect();
    let puts = Puts::start(&cluster.endpoints(), "before/");
    puts.wait_for_more(300);
    // The member that is left is one of the majority for every put that is acknowledged from here on.
    cluster.nodes[lost[0]].kill();
    puts.wait_for_more(200);
    let report = puts.stop();
    let acknowledged = report.acknowledged;
    let old_revision = revision(&cluster, left);

    recover(&cluster, left, &["--yes"]).failed(11, &["uses the data directory"]);
    cluster.nodes[lost[1]].kill();
    cluster.nodes[left].kill();
    recover(&cluster, left, &[]).failed(4, &["nobody is there to confirm", "--yes", "never start these"]);
    let told = recover(&cluster, left, &["--yes"]).json();
    let begins = told["revision"].as_i64().expect("it tells where the new history begins");
    assert!(begins >= old_revision + STEP, "{told}");
    let aside = told["set_aside"].as_str().expect("it tells where the old files are");
    assert!(fs::metadata(aside).is_ok_and(|facts| facts.is_dir()), "{told}");
    recover(&cluster, left, &["--yes"]).failed(13, &["has been a member"]);

    an_interrupted_recovery_is_finished_first(&mut cluster, left);

    // The old list of founders is another cluster's; the flag is the one for a cluster of one.
    let node = &mut cluster.nodes[left];
    node.initial_cluster = format!("{}={}", node.name, node.peer);
    node.start();
    node.wait_ready();
    let held = cluster.records_at(left);
    held.assert_contains(&acknowledged, "the member that was left");
    assert_eq!(told["keys"], held.0.len(), "{told}");
    // A put that was not answered may have happened.
    assert!(held.0.len() <= acknowledged.0.len() + report.failed.len(), "nothing is there that nobody put");
    let _ = cluster.run_at(left, ["put", "after", "1"]).succeeded();
    assert!(revision(&cluster, left) > begins);

    the_old_cluster_is_refused_by_name(&mut cluster, left, lost[0]);
    assert_eq!(cluster.run_at(left, ["get", "after", "--output=plain"]).line(), "1");
}

/// No node starts in the middle of a recovery, and the next run ends it.
fn an_interrupted_recovery_is_finished_first(cluster: &mut Cluster, left: usize) {
    let recovering = cluster.nodes[left].data_dir.join("recovering");
    fs::create_dir(&recovering).expect("the directory is writable");
    let (code, said) = cluster.nodes[left].start_and_fail();
    assert!(code == 13 && said.contains("interrupted"), "{code}: {said}");
    let told = recover(cluster, left, &[]).json();
    assert!(told["keys"].is_null() && told["set_aside"].is_string(), "{told}");
    assert!(!recovering.exists());
}

/// A member of the old cluster comes back: neither side takes the other for one of its own.
fn the_old_cluster_is_refused_by_name(cluster: &mut Cluster, new: usize, old: usize) {
    cluster.nodes[old].start();
    let name = cluster.nodes[new].name.clone();
    wait::until("the old member to be refused", PATIENCE, || {
        let log = cluster.nodes[old].log();
        match log.lines().any(|line| line.contains("belongs to cluster") && line.contains(&name)) {
            true => Ok(()),
            false => Err(log),
        }
    });
    assert!(cluster.nodes[old].ready().is_err(), "alone it has no majority");
    let members = cluster.run_at(new, ["member", "list", "--output=json"]).json();
    assert_eq!(members["members"].as_array().map(Vec::len), Some(1), "{members}");
    let _ = cluster.run_at(new, ["put", "beside the old member", "1"]).succeeded();
}
