//! `kill -9` in the middle of an import: no acknowledged key is missing, on any node, and all nodes hold the same.

use ringfence_tests::cluster::Cluster;
use ringfence_tests::load::Import;
use ringfence_tests::records::Records;
use ringfence_tests::wait::{self, PATIENCE};

/// Enough that a kill falls into the middle.
const RECORDS: usize = 20_000;

#[test]
fn the_leader_is_killed_in_the_middle_of_an_import_and_started_again() {
    let mut cluster = Cluster::start(3);
    let records = Records::numbered("pkg/", RECORDS);
    let leader = cluster.leader();
    let import = Import::start(&cluster.endpoints(), &records);
    cluster.wait_for_revision(leader, RECORDS as f64 / 4.0);
    cluster.nodes[leader].kill();
    assert!(!import.is_finished(), "the kill must fall into the middle of the import");
    let next = cluster.leader();
    assert_ne!(next, leader);
    cluster.nodes[leader].start();
    assert_eq!(import.acknowledged(), RECORDS as u64);
    let held = cluster.assert_nothing_lost(&records);
    assert_eq!(held, records, "nothing is there that nobody put");
}

#[test]
fn all_nodes_are_killed_at_once_in_the_middle_of_an_import() {
    let mut cluster = Cluster::start(3);
    let records = Records::numbered("pkg/", RECORDS);
    let import = Import::start(&cluster.endpoints(), &records);
    let leader = cluster.leader();
    cluster.wait_for_revision(leader, RECORDS as f64 / 4.0);
    cluster.kill_all();
    assert!(!import.is_finished(), "the kill must fall into the middle of the import");
    cluster.start_all();
    assert_eq!(import.acknowledged(), RECORDS as u64);
    let held = cluster.assert_nothing_lost(&records);
    assert_eq!(held, records, "nothing is there that nobody put");
}

#[test]
fn an_import_that_breaks_off_goes_on_where_it_stopped() {
    let mut cluster = Cluster::start(1);
    let records = Records::numbered("pkg/", 3_000);
    let file = cluster.home.path().join("records");
    let state = cluster.home.path().join("state");
    std::fs::write(&file, records.lines()).expect("the home is writable");
    let import = |more: &[&str]| {
        let mut arguments = vec!["import".to_owned(), file.display().to_string(), "--output=json".to_owned()];
        arguments.push(format!("--state={}", state.display()));
        arguments.extend(more.iter().map(|word| (*word).to_owned()));
        cluster.run(arguments)
    };
    // A line in the middle that cannot be read breaks the import off.
    let mut lines: Vec<String> = records.lines().lines().map(str::to_owned).collect();
    lines.insert(2_000, "{\"key\":\"pkg/x\",\"vlaue\":\"y\"}".to_owned());
    std::fs::write(&file, lines.join("\n")).expect("the home is writable");
    let broken = import(&[]);
    broken.failed(1, &["line 2001", "vlaue", "correct the input"]);
    std::fs::write(&file, records.lines()).expect("the home is writable");
    let told = import(&[]).json();
    let (acknowledged, skipped) = (told["acknowledged"].as_u64(), told["skipped"].as_u64());
    assert_eq!(skipped, Some(2_000), "{told}");
    assert_eq!(acknowledged, Some(1_000), "{told}");
    // Once all is done, a further run does nothing.
    assert_eq!(import(&[]).json()["acknowledged"], 0);
    assert_eq!(cluster.assert_nothing_lost(&records), records);
    wait::until("the count", PATIENCE, || {
        match cluster.run(["get", "", "--prefix", "--count-only"]).line() {
            count if count == "3000" => Ok(()),
            count => Err(count),
        }
    });
}
