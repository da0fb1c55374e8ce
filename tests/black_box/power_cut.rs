//! A real power cut under all nodes, in the middle of an import: what was acknowledged had been synced by a majority, and is
//! there again afterwards.

use std::fs::{self, File};
use std::io::Write as _;

use ringfence_tests::cluster::Cluster;
use ringfence_tests::load::Import;
use ringfence_tests::power::Mounted;
use ringfence_tests::records::Records;
use ringfence_tests::skip;

const RECORDS: usize = 20_000;
/// Room for the log's segments and the state.
const DISK_BYTES: u64 = 1 << 30;

/// File systems whose power can be cut, or the reason why this machine has none.
fn disks<const N: usize>(test: &str) -> Option<[Mounted; N]> {
    if !skip::is_root() {
        skip::skipped(test, "mounting loop devices needs root");
        return None;
    }
    let disks: Result<Vec<Mounted>, String> = (0..N).map(|_| Mounted::loop_ext4(DISK_BYTES)).collect();
    match disks {
        Ok(disks) => disks.try_into().ok(),
        Err(reason) => {
            skip::skipped(test, &format!("no loop device can be mounted: {reason}"));
            None
        }
    }
}

/// Were the cut to cut nothing, the test below would prove nothing.
#[test]
fn a_power_cut_loses_what_was_not_synced_and_keeps_what_was() {
    let Some([disk]) = disks("the canary of the power cut") else { return };
    let write = |name: &str, content: &[u8]| {
        let mut file = File::create(disk.path().join(name)).expect("the disk is fresh");
        file.write_all(content).expect("the disk is fresh");
        file
    };
    let mut synced = write("synced", &[b'A'; 8_192]);
    synced.sync_all().expect("the disk works");
    File::open(disk.path()).and_then(|root| root.sync_all()).expect("the disk works");
    synced.write_all(&[b'B'; 8_192]).expect("the disk works");
    let unsynced = write("unsynced", &[b'C'; 100_000]);
    disk.cut_power();
    drop((synced, unsynced));
    disk.restore_power();
    assert_eq!(fs::read(disk.path().join("synced")).expect("it was synced"), [b'A'; 8_192]);
    let left = fs::read(disk.path().join("unsynced")).unwrap_or_default();
    assert!(!left.contains(&b'C'), "{} bytes that nobody synced survived", left.len());
}

#[test]
fn the_power_of_all_nodes_is_cut_in_the_middle_of_an_import() {
    let Some(disks) = disks::<3>("a power cut under three nodes") else { return };
    // Declared after the disks, so dropped before: no node uses them when they are unmounted.
    let mut cluster = Cluster::prepare_in(disks.iter().map(|disk| disk.path().join("data")).collect());
    cluster.start_all();
    let records = Records::numbered("pkg/", RECORDS);
    let import = Import::start(&cluster.endpoints(), &records);
    let leader = cluster.leader();
    cluster.wait_for_revision(leader, RECORDS as f64 / 4.0);
    disks.iter().for_each(Mounted::cut_power);
    assert!(!import.is_finished(), "the cut must fall into the middle of the import");
    cluster.kill_all();
    disks.iter().for_each(Mounted::restore_power);
    cluster.start_all();
    assert_eq!(import.acknowledged(), RECORDS as u64);
    let held = cluster.assert_nothing_lost(&records);
    assert_eq!(held, records, "nothing is there that nobody put");
}
