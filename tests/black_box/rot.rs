//! A bit flips in a node's state file: the node is found out, named, and gets another state from the others, and nobody
//! misses anything meanwhile.

use std::fs;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use ringfence_tests::cluster::Cluster;
use ringfence_tests::records::Records;
use ringfence_tests::wait::{self, PATIENCE};
use ringfence_tests::{cli, http};
use serde_json::Value;

/// Flips a bit of a value in the state file of a stopped node.
fn flip_a_value(data_dir: &Path, value: &str) {
    let path = data_dir.join("state/state.redb");
    let bytes = fs::read(&path).expect("a node that stopped in order has written its state");
    let places: Vec<usize> = bytes
        .windows(value.len())
        .enumerate()
        .filter(|(_, window)| *window == value.as_bytes())
        .map(|(place, _)| place)
        .collect();
    assert!(!places.is_empty(), "the value lies in the file");
    let file = fs::File::options().write(true).open(&path).expect("writable");
    for place in places {
        file.write_all_at(&[bytes[place] ^ 0x04], place as u64).expect("writable");
    }
}

fn stop(cluster: &mut Cluster, node: usize) {
    cluster.nodes[node].process().signal(libc::SIGTERM);
    assert_eq!(cluster.nodes[node].process().exit_code_within(PATIENCE), 0, "{}", cluster.nodes[node].log());
}

/// What a scrub said of each node, by name, with its exit code.
fn scrub(cluster: &Cluster) -> (Option<i32>, Value) {
    let scrubbed = cluster.run(["scrub", "--output=json"]);
    let nodes =
        serde_json::from_str(&scrubbed.stdout).unwrap_or_else(|error| panic!("{error}: {scrubbed:?}"));
    (scrubbed.code, nodes)
}

fn verdicts(scrubbed: &Value) -> Vec<(String, String)> {
    let nodes = scrubbed["nodes"].as_array().expect("a list of nodes");
    let text = |value: &'_ Value| value.as_str().unwrap_or_else(|| panic!("{scrubbed}")).to_owned();
    nodes.iter().map(|node| (text(&node["name"]), text(&node["verdict"]))).collect()
}

#[test]
fn a_flipped_bit_in_a_followers_state_is_found_named_and_mended() {
    let mut cluster = Cluster::start(3);
    let records = Records::numbered("pkg/", 3_000);
    let imported = cluster.run_with_input(["import", "-", "--output=plain"], &records.lines());
    assert_eq!(imported.line(), "3000");
    let (code, sound) = scrub(&cluster);
    assert_eq!(code, Some(0), "{sound}");
    assert!(verdicts(&sound).iter().all(|(_, verdict)| verdict == "sound"), "{sound}");

    let follower = cluster.follower();
    let name = cluster.nodes[follower].name.clone();
    stop(&mut cluster, follower);
    flip_a_value(&cluster.nodes[follower].data_dir.clone(), &records.0["pkg/001700"]);
    cluster.start_all();
    let (code, scrubbed) = scrub(&cluster);
    assert_eq!(code, Some(15), "{scrubbed}");
    for (node, verdict) in verdicts(&scrubbed) {
        assert_eq!(verdict, if node == name { "damaged" } else { "sound" }, "{scrubbed}");
    }

    // It says what is wrong with it, wherever it is asked, until the leader comes round.
    let log = cluster.nodes[follower].log();
    assert!(log.contains("state quarantine") && log.contains("not what was written"), "{log}");
    wait::until("the state is rebuilt", PATIENCE, || {
        let quarantined = cluster.nodes[follower].metric("ringfence_state_quarantine");
        if quarantined == Some(1.0) {
            // It may have come back between the two questions.
            if let Err(why) = cluster.nodes[follower].ready() {
                assert!(why.contains("state quarantine"), "{why}");
            }
            return Err("it is still in state quarantine".to_owned());
        }
        cluster.nodes[follower].ready()
    });
    assert!(cluster.nodes[follower].log().contains("state quarantine is over"));
    let held = cluster.assert_nothing_lost(&records);
    assert_eq!(held, records);
    let (code, scrubbed) = scrub(&cluster);
    assert_eq!(code, Some(0), "{scrubbed}");
}

#[test]
fn a_state_file_that_is_no_state_file_any_more_is_replaced_at_the_start() {
    let mut cluster = Cluster::start(3);
    let records = Records::numbered("pkg/", 2_000);
    let imported = cluster.run_with_input(["import", "-", "--output=plain"], &records.lines());
    assert_eq!(imported.line(), "2000");
    let follower = cluster.follower();
    stop(&mut cluster, follower);
    let state = cluster.nodes[follower].data_dir.join("state");
    fs::write(state.join("state.redb"), vec![0x5a; 40_000]).expect("writable");
    cluster.start_all();
    assert_eq!(cluster.assert_nothing_lost(&records), records);
    assert!(state.join("state.redb.damaged").exists(), "the damaged file is kept for inspection");
    let (code, scrubbed) = scrub(&cluster);
    assert_eq!(code, Some(0), "{scrubbed}");
}

#[test]
fn a_sole_node_with_a_rotten_state_ends_and_says_what_to_do() {
    let mut cluster = Cluster::start(1);
    let records = Records::numbered("pkg/", 500);
    let imported = cluster.run_with_input(["import", "-", "--output=plain"], &records.lines());
    assert_eq!(imported.line(), "500");
    stop(&mut cluster, 0);
    flip_a_value(&cluster.nodes[0].data_dir.clone(), &records.0["pkg/000170"]);
    cluster.start_all();
    let scrubbed = cluster.run(["scrub"]);
    scrubbed.failed(15, &["damaged"]);
    let code = cluster.nodes[0].process().exit_code_within(PATIENCE);
    let log = cluster.nodes[0].log();
    assert_eq!(code, 15, "{log}");
    assert!(log.contains("snapshot restore"), "{log}");
}

#[test]
fn the_members_compare_what_they_have() {
    let mut cluster = Cluster::start(3);
    let records = Records::numbered("pkg/", 9_000);
    let imported = cluster.run_with_input(["import", "-", "--output=plain"], &records.lines());
    assert_eq!(imported.line(), "9000");
    let leader = cluster.leader();
    wait::until("hashes are compared", PATIENCE, || {
        let compared = cluster.nodes[leader].metric("ringfence_hashes_compared_total").unwrap_or(0.0);
        // Imports carry one key an entry: some marks lie within 9,000 entries, and two members have each.
        if compared >= 8.0 { Ok(()) } else { Err(format!("{compared} hashes compared")) }
    });
    for node in &cluster.nodes {
        assert_eq!(node.metric("ringfence_state_quarantine"), Some(0.0));
        assert_eq!(http::get(&node.client, "/readyz").expect("it answers").status, 200);
    }
    let missing = cli::run(["scrub", "--endpoints=127.0.0.1:1", "--timeout=1s"]);
    assert_eq!(missing.code, Some(6), "{missing:?}");
}
