//! A node that is not the member whose name it bears is refused by name, knows it, and is not counted on; the others go on,
//! and nothing that was acknowledged is lost.

use std::fs;
use std::path::Path;

use ringfence_tests::cluster::Cluster;
use ringfence_tests::load::Puts;
use ringfence_tests::node::Node;
use ringfence_tests::ports::Ports;
use ringfence_tests::wait::{self, PATIENCE};

/// Puts that are to succeed in each phase.
const SOME: u64 = 30;

#[test]
fn an_emptied_data_directory_is_no_member() {
    let mut cluster = Cluster::start(3);
    let puts = Puts::start(&cluster.endpoints(), "load/");
    puts.wait_for_more(SOME);
    // The first founder: on an empty directory its part would be to found the cluster.
    cluster.nodes[0].kill();
    fs::remove_dir_all(&cluster.nodes[0].data_dir).expect("nobody uses it");
    cluster.nodes[0].start();
    let quarantine = wait_for_quarantine(&cluster.nodes[0]);
    assert!(quarantine.contains("emptied or replaced"), "{quarantine}");
    the_others_name_it(&cluster, 0, "emptied or replaced");
    it_is_told_to_people(&cluster, 0, "emptied or replaced");
    puts.wait_for_more(SOME);

    // It is no member after a restart either.
    cluster.nodes[0].kill();
    cluster.nodes[0].start();
    let quarantine = wait_for_quarantine(&cluster.nodes[0]);
    assert!(quarantine.contains("emptied or replaced"), "{quarantine}");
    puts.wait_for_more(SOME);
    the_others_have_everything(&cluster, 0, puts);
}

#[test]
fn a_data_directory_restored_from_an_old_copy_is_no_member() {
    let mut cluster = Cluster::start(3);
    let puts = Puts::start(&cluster.endpoints(), "load/");
    puts.wait_for_more(SOME);
    let at = cluster.follower();
    cluster.nodes[at].kill();
    let copy = cluster.home.path().join("copy");
    copy_directory(&cluster.nodes[at].data_dir, &copy);
    cluster.nodes[at].start();
    cluster.nodes[at].wait_ready();
    puts.wait_for_more(SOME);

    cluster.nodes[at].kill();
    fs::remove_dir_all(&cluster.nodes[at].data_dir).expect("nobody uses it");
    copy_directory(&copy, &cluster.nodes[at].data_dir);
    cluster.nodes[at].start();
    let quarantine = wait_for_quarantine(&cluster.nodes[at]);
    assert!(quarantine.contains("old copy"), "{quarantine}");
    the_others_name_it(&cluster, at, "old copy");
    puts.wait_for_more(SOME);
    // With more starts than the others have seen it is still what it is.
    for _ in 0..2 {
        cluster.nodes[at].kill();
        cluster.nodes[at].start();
        wait_for_quarantine(&cluster.nodes[at]);
    }
    it_is_told_to_people(&cluster, at, "old copy");
    the_others_have_everything(&cluster, at, puts);
}

#[test]
fn a_copied_data_directory_beside_its_original_is_no_member() {
    let mut cluster = Cluster::start(3);
    let puts = Puts::start(&cluster.endpoints(), "load/");
    puts.wait_for_more(SOME);
    let at = cluster.follower();
    cluster.nodes[at].kill();
    let copy = cluster.home.path().join("copy");
    copy_directory(&cluster.nodes[at].data_dir, &copy);
    cluster.nodes[at].start();
    cluster.nodes[at].wait_ready();

    let ports = Ports::take();
    let log = cluster.home.path().join("copy.log");
    let original = &cluster.nodes[at];
    let mut copied = Node::new(original.name.clone(), ports.address(0), ports.address(1), copy, log);
    copied.initial_cluster.clone_from(&original.initial_cluster);
    copied.start();
    let quarantine = wait_for_quarantine(&copied);
    assert!(quarantine.contains("another process was seen with that start"), "{quarantine}");
    puts.wait_for_more(SOME);
    // The original is the member that it was.
    let report = puts.stop();
    cluster.assert_nothing_lost(&report.acknowledged);
    assert_eq!(cluster.nodes[at].metric(QUARANTINE), Some(0.0));
}

#[test]
fn a_node_of_another_cluster_is_refused_with_both_numbers() {
    let mut cluster = Cluster::start(3);
    let at = cluster.follower();
    cluster.nodes[at].kill();
    let ports = Ports::take();
    let (client, peer) = (ports.address(0), cluster.nodes[at].peer.clone());
    let home = cluster.home.path();
    let mut foreign =
        Node::new("foreign".to_owned(), client, peer.clone(), home.join("foreign"), home.join("foreign.log"));
    foreign.initial_cluster = format!("foreign={peer}");
    foreign.start();
    foreign.wait_ready();
    let (ours, theirs) = (cluster_of(&cluster.nodes[(at + 1) % 3]), cluster_of(&foreign));
    wait::until("the foreign node to tell whom it refuses", PATIENCE, || {
        let log = foreign.log();
        match log.contains(&ours) && log.contains(&format!("to cluster {theirs}")) {
            true => Ok(()),
            false => Err(log),
        }
    });
    the_others_name_it(&cluster, at, &theirs);
    assert_eq!(foreign.metric(QUARANTINE), Some(0.0), "it is well, and at a wrong address");
    let _ = cluster.run_at((at + 1) % 3, ["put", "k", "v"]).succeeded();
    foreign.kill();
    // Nothing has happened to the member whose address it was.
    cluster.nodes[at].start();
    cluster.wait_ready();
}

#[test]
fn a_second_process_on_a_data_directory_is_refused() {
    let mut cluster = Cluster::start(3);
    let at = cluster.follower();
    let ports = Ports::take();
    let node = &cluster.nodes[at];
    let log = cluster.home.path().join("second.log");
    let mut second =
        Node::new(node.name.clone(), ports.address(0), ports.address(1), node.data_dir.clone(), log);
    second.initial_cluster.clone_from(&node.initial_cluster);
    let (code, said) = second.start_and_fail();
    assert_eq!(code, 11, "{said}");
    let pid = cluster.nodes[at].process().pid();
    assert!(said.contains(&format!("process {pid} uses the data directory")), "{said}");
    cluster.wait_ready();
}

/// The metric that says whether a node is in log quarantine.
const QUARANTINE: &str = "ringfence_log_quarantine";

/// Waits until a node says that it is in log quarantine, and returns what it says of it.
fn wait_for_quarantine(node: &Node) -> String {
    wait::until("a node to be in quarantine", PATIENCE, || match (node.metric(QUARANTINE), node.ready()) {
        (Some(1.0), Err(why)) if why.contains("log quarantine") => {
            assert!(why.contains("ringfence member rejoin"), "it names the way back: {why}");
            Ok(why)
        }
        other => Err(format!("{other:?}")),
    })
}

/// What the program shows of a node in quarantine; its own state can still be read.
fn it_is_told_to_people(cluster: &Cluster, at: usize, reason: &str) {
    let status = cluster.status();
    let node = cluster.nodes[at].client.as_str();
    let nodes = status["nodes"].as_array().expect("it shows the nodes");
    let shown = nodes.iter().find(|shown| shown["client"] == node);
    let shown = shown.unwrap_or_else(|| panic!("{node} is not in {status}"));
    assert_eq!(shown["quarantine"], "log", "{status}");
    assert!(shown["problems"].to_string().contains(reason), "{status}");
    let table = cluster.run(["status"]).succeeded();
    assert!(table.contains("quarantine") && table.contains(reason), "{table}");
    cluster.run_at(at, ["put", "k", "v", "--timeout=2s"]).failed(6, &["log quarantine"]);
    let _ = cluster.run_at(at, ["export", "--serializable"]).succeeded();
}

/// Whoever leads says by name what is wrong with a member.
fn the_others_name_it(cluster: &Cluster, at: usize, reason: &str) {
    wait::until("the leader to say whom it refuses", PATIENCE, || {
        let status = cluster.status();
        let leader = status["leader"].as_str().ok_or_else(|| status.to_string())?;
        let nodes = status["nodes"].as_array().ok_or_else(|| status.to_string())?;
        let problems =
            nodes.iter().find(|node| node["name"] == leader).map(|node| node["problems"].to_string());
        let problems = problems.unwrap_or_default();
        match problems.contains(&cluster.nodes[at].name) && problems.contains(reason) {
            true => Ok(()),
            false => Err(format!("{leader}: {problems}")),
        }
    });
}

fn the_others_have_everything(cluster: &Cluster, at: usize, puts: Puts) {
    let report = puts.stop();
    for other in (0..cluster.nodes.len()).filter(|other| *other != at) {
        wait::until("a member to hold what was acknowledged", PATIENCE, || {
            let held = cluster.records_at(other);
            let lacks = report.acknowledged.0.iter().find(|(key, value)| held.0.get(*key) != Some(*value));
            lacks.map_or(Ok(()), |(key, _)| Err(format!("{} lacks {key}", cluster.nodes[other].name)))
        });
    }
}

/// The number of a node's cluster, as its directory has it.
fn cluster_of(node: &Node) -> String {
    let identity = fs::read_to_string(node.data_dir.join("identity")).expect("it has run");
    let line = identity.lines().find_map(|line| line.strip_prefix("cluster_id="));
    line.expect("it knows its cluster").to_owned()
}

fn copy_directory(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("the temporary directory is writable");
    for entry in fs::read_dir(from).expect("the directory is there") {
        let entry = entry.expect("the directory can be read");
        let target = to.join(entry.file_name());
        if entry.file_type().expect("it is there").is_dir() {
            copy_directory(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), &target).expect("there is room");
        }
    }
}
