//! A large range by RangeStream takes little of the node's memory, however large it is.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use ringfence_client::{Client, Options};
use ringfence_proto::etcdserverpb::RangeRequest;
use ringfence_tests::cluster::Cluster;
use ringfence_tests::process::Process;
use ringfence_tests::records::Records;
use ringfence_tests::wait::{self, PATIENCE};

const KEYS: usize = 100_000;
const VALUE_BYTES: usize = 1_024;
const GROWTH_MAX: u64 = 20 << 20;

/// Memory of a process that is no page of a file, in bytes.
fn anonymous_bytes(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("the process runs");
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).expect("Linux tells it");
    let kilobytes: u64 = line.trim().trim_end_matches(" kB").trim().parse().expect("a number");
    kilobytes * 1_024
}

/// The most that the process took while `work` ran.
fn peak_during(process: &Process, work: impl FnOnce()) -> u64 {
    let (pid, over) = (process.pid(), Arc::new(AtomicBool::new(false)));
    let peak = Arc::new(AtomicU64::new(anonymous_bytes(pid)));
    let watching = {
        let (over, peak) = (over.clone(), peak.clone());
        std::thread::spawn(move || {
            while !over.load(Ordering::Relaxed) {
                peak.fetch_max(anonymous_bytes(pid), Ordering::Relaxed);
                std::thread::sleep(Duration::from_millis(1));
            }
        })
    };
    work();
    over.store(true, Ordering::Relaxed);
    watching.join().expect("to watch does not fail");
    peak.load(Ordering::Relaxed)
}

/// Reads all keys by RangeStream; how many there were.
fn read_all(endpoint: &str) -> usize {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().expect("it can be started");
    runtime.block_on(async {
        let client = Client::connect([endpoint], Options::default()).expect("the endpoint is lawful");
        let request = RangeRequest { key: "large/".into(), range_end: "large0".into(), ..Default::default() };
        let mut scan = client.scan(request);
        let mut keys = 0;
        while let Some(kvs) = scan.next().await.expect("it can be read") {
            keys += kvs.len();
        }
        keys
    })
}

#[test]
fn a_streamed_range_of_100_mb_takes_less_than_20_mb() {
    let mut cluster = Cluster::prepare(1);
    // A large cache would be filled by the first read, whatever it is.
    cluster.nodes[0].flags =
        ["--store-cache-size=8MiB", "--checkpoint-interval=500ms"].map(str::to_owned).to_vec();
    cluster.start_all();
    let value = "v".repeat(VALUE_BYTES);
    let records = Records((0..KEYS).map(|key| (format!("large/{key:06}"), value.clone())).collect());
    let _ = cluster.run_with_input(["import", "-"], &records.lines()).succeeded();
    wait::until("a checkpoint", PATIENCE, || match cluster.nodes[0].metric("ringfence_head_bytes") {
        Some(0.0) => Ok(()),
        bytes => Err(format!("{bytes:?} wait in memory")),
    });
    let client = cluster.nodes[0].client.clone();
    // What is allocated once and kept is no memory of the range.
    assert_eq!(read_all(&client), KEYS);
    let process = cluster.nodes[0].process();
    let before = anonymous_bytes(process.pid());
    let peak = peak_during(process, || assert_eq!(read_all(&client), KEYS));
    let growth = peak.saturating_sub(before);
    println!("memory before {before}, at most {peak} while {KEYS} keys of {VALUE_BYTES} bytes were streamed");
    assert!(growth < GROWTH_MAX, "{growth} bytes more than {before}");
}
