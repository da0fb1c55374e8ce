//! Space goes back to the disk while the cluster serves: by itself once much of a state file is free, and when asked for.

use std::time::Duration;

use etcd_client::{Client, Error};
use ringfence_tests::cluster::Cluster;
use ringfence_tests::load::Puts;
use ringfence_tests::node::Node;
use ringfence_tests::records::Records;
use ringfence_tests::wait::{self, PATIENCE};

/// Keys that are deleted again: with their values some megabytes.
const KEYS: usize = 4_000;
const VALUE_BYTES: usize = 2_000;
/// A client's put that waits for longer would have waited for the rebuild; a busy machine alone takes a good part of it.
const GAP_MAX: Duration = Duration::from_secs(2);

/// A cluster whose state files were full once and hold little now, and what they hold.
fn hollow_cluster(rebuild_free_size: &str) -> (Cluster, Records) {
    let mut cluster = Cluster::prepare(3);
    for node in &mut cluster.nodes {
        node.flags.push(format!("--rebuild-free-size={rebuild_free_size}"));
        node.flags.push("--checkpoint-interval=500ms".to_owned());
    }
    cluster.start_all();
    let gone = Records((0..KEYS).map(|key| (format!("gone/{key:06}"), "x".repeat(VALUE_BYTES))).collect());
    let kept = Records::numbered("kept/", 500);
    for records in [&gone, &kept] {
        let _ = cluster.run_with_input(["import", "-"], &records.lines()).succeeded();
    }
    wait::until("all files to be full", PATIENCE, || {
        // A file grows ahead of what it holds, so its length says nothing of what is in it yet.
        cluster.nodes.iter().try_for_each(|node| match in_use_bytes(node) {
            bytes if bytes > (KEYS * VALUE_BYTES) as f64 => Ok(()),
            bytes => Err(format!("{}: {bytes}", node.name)),
        })
    });
    let _ = cluster.run(["del", "gone/", "--prefix"]).succeeded();
    ask(&cluster.nodes[0], async |mut client| {
        let answer = client.get("kept/", None).await?;
        let revision = answer.header().expect("every answer has one").revision();
        client.compact(revision, None).await.map(drop)
    });
    (cluster, kept)
}

/// Asks one node something that must go well.
fn ask(node: &Node, question: impl AsyncFnOnce(Client) -> Result<(), Error>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let asking = async { question(Client::connect([&node.client], None).await?).await };
    let answer = runtime.expect("a runtime can be started").block_on(asking);
    answer.unwrap_or_else(|error| panic!("{}: {error}", node.name));
}

fn file_bytes(node: &Node) -> f64 {
    node.metric("etcd_mvcc_db_total_size_in_bytes").unwrap_or_default()
}

fn in_use_bytes(node: &Node) -> f64 {
    node.metric("etcd_mvcc_db_total_size_in_use_in_bytes").unwrap_or_default()
}

fn rebuilds(node: &Node) -> f64 {
    node.metric("ringfence_state_rebuilds_total").unwrap_or_default()
}

/// All that was acknowledged is everywhere, and after a kill too.
fn assert_whole(mut cluster: Cluster, mut acknowledged: Records, puts: Puts) {
    let report = puts.stop();
    // A busy machine may change its leader, which leaves the put under way without an answer; that is no wait for a rebuild.
    assert!(report.failed.len() <= 1, "{:?}", report.failed);
    assert!(report.longest_gap < GAP_MAX, "a put waited for {:?}: {:?}", report.longest_gap, report.failed);
    acknowledged.0.extend(report.acknowledged.0);
    cluster.assert_nothing_lost(&acknowledged);
    cluster.kill_all();
    cluster.start_all();
    let held = cluster.assert_nothing_lost(&acknowledged);
    assert!(held.0.keys().all(|key| !key.starts_with("gone/")), "nothing is there that was deleted");
}

#[test]
fn a_file_that_is_mostly_free_shrinks_by_itself() {
    let (cluster, kept) = hollow_cluster("1MiB");
    let puts = Puts::start(&cluster.endpoints(), "meanwhile/");
    wait::until("all files to shrink", PATIENCE, || {
        cluster.nodes.iter().try_for_each(|node| match (rebuilds(node), file_bytes(node)) {
            (rebuilds, bytes) if rebuilds >= 1.0 && bytes < (KEYS * VALUE_BYTES / 2) as f64 => Ok(()),
            told => Err(format!("{}: {told:?}", node.name)),
        })
    });
    for node in &cluster.nodes {
        let given_back = node.metric("ringfence_state_given_back_bytes_total").unwrap_or_default();
        assert!(given_back > (KEYS * VALUE_BYTES / 2) as f64, "{}: {given_back}", node.name);
        assert!(node.log().contains("rebuilt the state file"), "{}", node.log());
    }
    puts.wait_for_more(50);
    assert_whole(cluster, kept, puts);
}

#[test]
fn a_defragmentation_gives_back_at_once_and_stops_nobody() {
    let (cluster, kept) = hollow_cluster("1GiB");
    let puts = Puts::start(&cluster.endpoints(), "meanwhile/");
    // What was compacted away has to be swept before it can be given back.
    wait::until("all files to be hollow", PATIENCE, || {
        cluster.nodes.iter().try_for_each(|node| match in_use_bytes(node) {
            bytes if bytes < (KEYS * VALUE_BYTES / 2) as f64 => Ok(()),
            bytes => Err(format!("{}: {bytes}", node.name)),
        })
    });
    for node in &cluster.nodes {
        let before = file_bytes(node);
        ask(node, async |mut client| client.defragment().await.map(drop));
        assert!(file_bytes(node) < before / 2.0, "{}: {} of {before}", node.name, file_bytes(node));
        assert_eq!(rebuilds(node), 1.0, "{}", node.name);
    }
    puts.wait_for_more(50);
    assert_whole(cluster, kept, puts);
}
