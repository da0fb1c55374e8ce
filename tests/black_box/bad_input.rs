//! What people get wrong and disks do wrong: each ends in a clear sentence and an exit code of its own, and nothing is lost:
//! once the damage is undone, the data is there.

use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::net::TcpListener;
use std::path::{Path, PathBuf};

use ringfence_tests::cluster::Cluster;
use ringfence_tests::load::Import;
use ringfence_tests::power::Mounted;
use ringfence_tests::records::Records;
use ringfence_tests::wait::PATIENCE;
use ringfence_tests::{cli, process, skip};

/// A node alone that holds some records, and was killed.
fn killed_node_with_records() -> (Cluster, Records) {
    let mut cluster = Cluster::start(1);
    let records = Records::numbered("k/", 2_000);
    assert_eq!(cluster.run_with_input(["import", "-", "--output=plain"], &records.lines()).line(), "2000");
    cluster.nodes[0].kill();
    (cluster, records)
}

#[test]
fn an_unknown_flag_names_the_one_that_was_meant() {
    cli::run(["serve", "--data-dri", "x"]).failed(2, &["--data-dri", "--data-dir"]);
    cli::run(["get", "k", "--prefiks"]).failed(2, &["--prefiks", "--prefix"]);
    cli::run(["gett", "k"]).failed(2, &["gett", "get"]);
}

#[test]
fn a_broken_configuration_file_is_told_with_its_line() {
    let home = tempfile::tempdir().expect("the temporary directory is writable");
    let file = home.path().join("ringfence.toml");
    for (text, words) in [
        ("name = \"a\"\nlisten-client = 127.0.0.1:2379\n", ["line 2", "ringfence.toml"]),
        ("name = \"a\"\n\nlisten-clinet = \"127.0.0.1:2379\"\n", ["line 3", "listen-client"]),
        ("name = \"a\"\nheartbeat-interval = \"fast\"\n", ["line 2", "fast"]),
        ("name = \"a\"\nruntime-threads = -1\n", ["line 2", "-1"]),
    ] {
        fs::write(&file, text).expect("the home is writable");
        for command in [["serve", "--config"], ["config", "check"]] {
            let [first, second] = command;
            cli::run([first, second, &file.to_string_lossy()]).failed(10, &words);
        }
    }
    let absent = home.path().join("absent.toml");
    cli::run(["serve", "--config", &absent.to_string_lossy()]).failed(10, &["absent.toml"]);
    // Settings that can be read and make no sense together.
    fs::write(&file, "bootstrap = true\nleader-lease = \"500ms\"\nheartbeat-interval = \"400ms\"\n").unwrap();
    cli::run(["serve", "--config", &file.to_string_lossy()])
        .failed(10, &["heartbeat-interval", "leader-lease"]);
}

#[test]
fn a_port_in_use_stops_the_start_before_anything_is_touched() {
    let (mut cluster, records) = killed_node_with_records();
    for address in [cluster.nodes[0].client.clone(), cluster.nodes[0].peer.clone()] {
        let taken = TcpListener::bind(&address).expect("the node is dead");
        let (code, said) = cluster.nodes[0].start_and_fail();
        assert_eq!(code, 12, "{said}");
        assert!(said.contains(&address) && said.contains("--listen-"), "{said}");
        drop(taken);
        process::forks_done();
    }
    cluster.start_all();
    assert_eq!(cluster.assert_nothing_lost(&records), records);
}

#[test]
fn a_data_directory_in_use_is_left_to_its_user() {
    let mut cluster = Cluster::start(1);
    let mut second = Cluster::prepare(1);
    second.nodes[0].data_dir.clone_from(&cluster.nodes[0].data_dir);
    let (code, said) = second.nodes[0].start_and_fail();
    assert_eq!(code, 11, "{said}");
    let pid = cluster.nodes[0].process().pid();
    assert!(said.contains(&format!("process {pid}")) && said.contains("--data-dir"), "{said}");
    let _ = cluster.run(["put", "k", "v"]).succeeded();
}

#[test]
fn a_data_directory_of_another_cluster_or_node_is_refused() {
    let mut ours = Cluster::start(3);
    let mut others = Cluster::start(3);
    let records = Records::numbered("k/", 200);
    assert_eq!(ours.run_with_input(["import", "-", "--output=plain"], &records.lines()).line(), "200");
    let _ = others.run(["put", "other", "1"]).succeeded();
    let own = ours.nodes[1].data_dir.clone();
    ours.nodes[1].kill();
    others.kill_all();

    // The same name, and another cluster: only the peers can tell.
    ours.nodes[1].data_dir.clone_from(&others.nodes[1].data_dir);
    let (code, said) = ours.nodes[1].start_and_fail();
    assert_eq!(code, 13, "{said}");
    assert!(said.contains("cluster"), "{said}");
    // Another node of the same cluster.
    ours.nodes[0].kill();
    ours.nodes[1].data_dir = ours.nodes[0].data_dir.clone();
    let (code, said) = ours.nodes[1].start_and_fail();
    assert_eq!(code, 13, "{said}");
    assert!(said.contains("node1") && said.contains("node2"), "{said}");

    ours.nodes[1].data_dir = own;
    ours.start_all();
    assert_eq!(ours.assert_nothing_lost(&records), records);
    others.start_all();
    assert_eq!(others.run(["get", "other", "--output=plain"]).line(), "1");
}

#[test]
fn values_that_are_too_large_and_keys_that_are_empty_are_refused() {
    let cluster = Cluster::shared();
    let large = "x".repeat(1_600_000);
    let refused = cluster.run_with_input(["put", "bad_input/large", "-"], &large);
    refused.failed(4, &["1572864", "bytes"]);
    cluster.run(["get", "bad_input/large"]).failed(3, &[]);
    let fits = "x".repeat(1_500_000);
    let _ = cluster.run_with_input(["put", "bad_input/fits", "-"], &fits).succeeded();
    assert_eq!(cluster.run(["get", "bad_input/fits", "--output=plain"]).line().len(), fits.len());
    cluster.run(["put", "", "v"]).failed(4, &["key"]);
    cluster.run(["get", ""]).failed(4, &["key"]);
    let import = cluster.run_with_input(["import", "-"], "{\"key\":\"\",\"value\":\"v\"}\n");
    import.failed(1, &["line 1", "empty"]);
}

#[test]
fn a_log_that_is_damaged_in_the_middle_stops_the_node() {
    let (mut cluster, records) = killed_node_with_records();
    let segment = first_segment(&cluster.nodes[0].data_dir);
    let whole = fs::read(&segment).expect("it is there");
    let mut damaged = whole.clone();
    damaged[middle_batch(&whole) + 60] ^= 0x04;
    fs::write(&segment, &damaged).expect("it is writable");
    let (code, said) = cluster.nodes[0].start_and_fail();
    assert_eq!(code, 14, "{said}");
    let name = segment.file_stem().expect("it has a name").to_string_lossy().into_owned();
    assert!(said.contains(&name) && said.contains("next:"), "it says where, and what to do: {said}");
    // It stays refused, and nothing was patched in place.
    assert_eq!(cluster.nodes[0].start_and_fail().0, 14);
    assert!(fs::read(&segment).expect("it is there") == damaged, "the damaged log was written to");
    fs::write(&segment, &whole).expect("it is writable");
    cluster.start_all();
    assert_eq!(cluster.assert_nothing_lost(&records), records);
}

/// The oldest segment of a node's log.
fn first_segment(data_dir: &Path) -> PathBuf {
    let entries = fs::read_dir(data_dir.join("log")).expect("the log is a directory");
    let mut segments: Vec<PathBuf> = entries.map(|entry| entry.expect("it can be listed").path()).collect();
    segments.sort();
    segments.into_iter().find(|path| path.extension().is_some_and(|end| end == "log")).expect("there is one")
}

/// Where the batch in the middle of a segment begins.
fn middle_batch(segment: &[u8]) -> usize {
    let starts = (0..segment.len()).step_by(512).filter(|at| segment[*at..].starts_with(b"RFB1"));
    let starts: Vec<usize> = starts.collect();
    assert!(starts.len() >= 10, "the import was written in {} batches", starts.len());
    starts[starts.len() / 2]
}

#[test]
fn a_state_file_that_was_cut_short_stops_the_node() {
    let mut cluster = Cluster::start(1);
    let records = Records::numbered("k/", 2_000);
    assert_eq!(cluster.run_with_input(["import", "-", "--output=plain"], &records.lines()).line(), "2000");
    // An orderly stop makes a checkpoint, so that the file holds something.
    cluster.nodes[0].process().signal(libc::SIGTERM);
    assert_eq!(cluster.nodes[0].process().exit_code_within(PATIENCE), 0);
    let file = cluster.nodes[0].data_dir.join("state/state.redb");
    let whole = fs::read(&file).expect("it is there");
    for left in [whole.len() / 2, 4_096, 100, 0] {
        fs::write(&file, &whole[..left]).expect("it is writable");
        let (code, said) = cluster.nodes[0].start_and_fail();
        assert_eq!(code, 15, "with {left} bytes left: {said}");
        assert!(said.contains("state") && said.contains("next:"), "it says what, and what to do: {said}");
    }
    fs::write(&file, &whole).expect("it is writable");
    cluster.start_all();
    assert_eq!(cluster.assert_nothing_lost(&records), records);
}

#[test]
fn a_full_disk_stops_its_node_alone_and_loses_nothing() {
    const ROOM: u64 = 48 << 20;
    let test = "a full disk under one node";
    if !skip::is_root() {
        return skip::skipped(test, "mounting a small file system needs root");
    }
    let disk = match Mounted::tmpfs(ROOM) {
        Ok(disk) => disk,
        Err(reason) => return skip::skipped(test, &reason),
    };
    let mut cluster = Cluster::prepare(3);
    let full = 2;
    cluster.nodes[full].data_dir = disk.path().join("data");
    // The reserve, which is larger than this disk, would stop the node before.
    cluster.nodes[full].flags = ["--disk-low-size=0", "--disk-reserve-size=0"].map(str::to_owned).to_vec();
    cluster.start_all();
    let before = Records::numbered("before/", 500);
    assert_eq!(cluster.run_with_input(["import", "-", "--output=plain"], &before.lines()).line(), "500");
    fill(&disk.path());

    // More than the log's file in use has room for, so that the node must ask for more.
    let mut during = Records::default();
    for number in 0..20_000 {
        during.0.insert(format!("during/{number:05}"), format!("{number:01200}"));
    }
    let import = Import::start(&cluster.endpoints(), &during);
    let code = cluster.nodes[full].process().exit_code_within(PATIENCE);
    let said = cluster.nodes[full].log();
    assert_eq!(code, 16, "{said}");
    assert!(said.contains("No space left") && said.contains("next:"), "{said}");
    // The others go on without it.
    assert_eq!(import.acknowledged(), 20_000);
    // As long as the disk is full it does not start, and says why again.
    let (code, said) = cluster.nodes[full].start_and_fail();
    assert_eq!(code, 16, "{said}");

    disk.resize(ROOM * 8);
    fs::remove_file(disk.path().join("ballast")).expect("it is there");
    cluster.start_all();
    let mut all = before;
    all.0.extend(during.0);
    assert_eq!(cluster.assert_nothing_lost(&all), all);
}

/// Writes until the disk is full.
fn fill(disk: &Path) {
    let mut ballast = OpenOptions::new().create_new(true).append(true).open(disk.join("ballast"));
    let ballast = ballast.as_mut().expect("the disk is writable");
    while ballast.write_all(&[1; 4_096]).is_ok() {}
}
