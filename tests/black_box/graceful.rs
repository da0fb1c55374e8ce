//! What an operator does on purpose: stop a node, move the leadership, save the state and begin a new cluster from it.

use ringfence_tests::cluster::Cluster;
use ringfence_tests::load::Puts;
use ringfence_tests::records::Records;
use ringfence_tests::wait::PATIENCE;
use ringfence_tests::{cli, http};

#[test]
fn a_leader_that_is_told_to_stop_hands_over_first() {
    let mut cluster = Cluster::start(3);
    let puts = Puts::start(&cluster.endpoints(), "load/");
    puts.wait_for_more(50);
    let leader = cluster.leader();
    cluster.nodes[leader].process().signal(libc::SIGTERM);
    let code = cluster.nodes[leader].process().exit_code_within(PATIENCE);
    assert_eq!(code, 0, "{}", cluster.nodes[leader].log());
    puts.wait_for_more(50);
    assert_ne!(cluster.leader(), leader);
    let report = puts.stop();
    assert!(http::get(&cluster.nodes[leader].client, "/livez").is_err(), "it has left its port");
    // It starts again and has everything that was acknowledged meanwhile.
    cluster.start_all();
    cluster.assert_nothing_lost(&report.acknowledged);
}

#[test]
fn all_nodes_are_told_to_stop_and_start_again_with_everything() {
    let mut cluster = Cluster::start(3);
    let records = Records::numbered("k/", 500);
    let imported = cluster.run_with_input(["import", "-", "--output=plain"], &records.lines());
    assert_eq!(imported.line(), "500");
    for node in &mut cluster.nodes {
        node.process().signal(libc::SIGTERM);
    }
    for node in &mut cluster.nodes {
        assert_eq!(node.process().exit_code_within(PATIENCE), 0, "{}", node.log());
    }
    cluster.start_all();
    assert_eq!(cluster.assert_nothing_lost(&records), records);
}

#[test]
fn the_leadership_moves_under_load_when_it_is_told_to() {
    let mut cluster = Cluster::start(3);
    let puts = Puts::start(&cluster.endpoints(), "load/");
    puts.wait_for_more(20);
    let target = cluster.follower();
    let name = cluster.nodes[target].name.clone();
    let moved = cluster.run(["leader", "transfer", "--output=plain", "--to", &name]);
    assert_eq!(moved.line(), name);
    assert_eq!(cluster.leader(), target);
    puts.wait_for_more(20);
    // Told again, it is no error; told without a name, it picks another.
    assert_eq!(cluster.run(["leader", "transfer", "--output=plain", "--to", &name]).line(), name);
    assert_ne!(cluster.run(["leader", "transfer", "--output=plain"]).line(), name);
    assert_ne!(cluster.leader(), target);
    cluster.run(["leader", "transfer", "--to", "nobody"]).failed(3, &["nobody", "member list"]);
    puts.wait_for_more(20);
    let report = puts.stop();
    cluster.assert_nothing_lost(&report.acknowledged);
}

#[test]
fn a_saved_state_begins_a_new_cluster_far_above_the_old_revisions() {
    let mut old = Cluster::start(3);
    let records = Records::numbered("k/", 1_000);
    assert_eq!(old.run_with_input(["import", "-", "--output=plain"], &records.lines()).line(), "1000");
    let file = old.home.path().join("saved");
    let path = file.to_string_lossy().into_owned();
    let _ = old.run(["snapshot", "save", &path]).succeeded();
    let _ = old.run(["put", "k/after", "the snapshot"]).succeeded();

    let status = cli::run(["snapshot", "status", &path, "--output=json"]).json();
    assert_eq!(
        (status["keys"].as_u64(), status["revision"].as_u64()),
        (Some(1_000), Some(1_001)),
        "{status}"
    );
    let old_revision = status["revision"].as_i64().expect("it is a number");

    let mut new = Cluster::prepare(3);
    for node in &new.nodes {
        let data_dir = format!("--data-dir={}", node.data_dir.display());
        let restore = ["snapshot", "restore", &path, &data_dir, "--name", &node.name, "--output=json"];
        assert_eq!(cli::run(restore).json()["keys"].as_u64(), Some(1_000));
        // A directory that holds something is never written over.
        cli::run(restore).failed(13, &["not empty", "--data-dir"]);
    }
    new.start_all();
    assert_eq!(new.assert_nothing_lost(&records), records, "it is the state that was saved");
    let put = new.run(["get", "k/000001", "--output=json"]).json();
    let revision = put["revision"].as_i64().expect("it is a number");
    assert!(revision >= old_revision + 1_000_000_000, "no revision is given twice: {revision}");
    let _ = new.run(["put", "k/new", "1"]).succeeded();
    assert_eq!(new.run(["get", "k/new", "--output=plain"]).line(), "1");
    // The old one goes on as if nothing had been.
    assert_eq!(old.run(["get", "k/after", "--output=plain"]).line(), "the snapshot");
    old.wait_ready();
}

#[test]
fn a_saved_state_that_was_damaged_is_not_taken() {
    let cluster = Cluster::start(1);
    let records = Records::numbered("k/", 200);
    assert_eq!(cluster.run_with_input(["import", "-", "--output=plain"], &records.lines()).line(), "200");
    let file = cluster.home.path().join("saved");
    let path = file.to_string_lossy().into_owned();
    let _ = cluster.run(["snapshot", "save", &path]).succeeded();
    let mut bytes = std::fs::read(&file).expect("it was just saved");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 0x10;
    std::fs::write(&file, &bytes).expect("the home is writable");
    cli::run(["snapshot", "status", &path]).failed(15, &["save a new one"]);
    let fresh = cluster.home.path().join("fresh");
    let data_dir = format!("--data-dir={}", fresh.display());
    cli::run(["snapshot", "restore", &path, &data_dir]).failed(15, &["save a new one"]);
}
