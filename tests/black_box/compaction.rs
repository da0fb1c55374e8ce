//! Compaction of a long history holds up nobody who writes.

use std::time::{Duration, Instant};

use etcd_client::{Client, CompactionOptions, Txn, TxnOp};
use ringfence_tests::cluster::Cluster;
use ringfence_tests::load::Puts;
use ringfence_tests::wait::{self, PATIENCE};

/// Changes of keys that are compacted; `RINGFENCE_LONG_TESTS` makes it a million.
const CHANGES: usize = 100_000;
const CHANGES_LONG: usize = 1_000_000;
const CHANGES_A_TXN: usize = 100;
const KEYS: usize = 10_000;
/// The longest that a put may take meanwhile, on a machine that has nothing else to do: looked at in the long form alone.
const GAP_MAX: Duration = Duration::from_millis(100);

fn is_long() -> bool {
    std::env::var_os("RINGFENCE_LONG_TESTS").is_some()
}

fn changes() -> usize {
    if is_long() { CHANGES_LONG } else { CHANGES }
}

fn block_on<T>(work: impl Future<Output = T>) -> T {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().expect("it can be started");
    runtime.block_on(work)
}

/// Changes the keys again and again; the last revision.
async fn change(client: &mut Client) -> i64 {
    let mut last = 0;
    let value = "v".repeat(100);
    for txn in 0..changes() / CHANGES_A_TXN {
        let put = |at: usize| {
            let key = format!("changed/{:06}", (txn * CHANGES_A_TXN + at) % KEYS);
            TxnOp::put(key, value.clone(), None)
        };
        let txn = Txn::new().and_then((0..CHANGES_A_TXN).map(put).collect::<Vec<_>>());
        last = client.txn(txn).await.expect("it is taken").header().expect("it has one").revision();
    }
    last
}

#[test]
fn nobody_waits_for_a_long_history_to_be_compacted() {
    let mut cluster = Cluster::start(3);
    let leader = cluster.leader();
    let client = cluster.nodes[leader].client.clone();
    let last = block_on(async { change(&mut Client::connect([&client], None).await.unwrap()).await });
    let puts = Puts::start(&client, "meanwhile/");
    puts.wait_for_more(50);
    let began = Instant::now();
    block_on(async {
        let mut client = Client::connect([&client], None).await.unwrap();
        let physical = CompactionOptions::new().with_physical();
        client.compact(last, Some(physical)).await.expect("it is answered when the file is free of it");
    });
    let took = began.elapsed();
    wait::until("all members to have freed their files", PATIENCE, || {
        cluster.nodes.iter().try_for_each(|node| match node.metric("ringfence_compaction_swept") {
            Some(1.0) => Ok(()),
            swept => Err(format!("{}: {swept:?}", node.name)),
        })
    });
    puts.wait_for_more(50);
    let report = puts.stop();
    println!(
        "{} changes compacted in {took:.1?}; the longest put took {:.1?}",
        changes(),
        report.longest_gap
    );
    assert!(report.failed.is_empty(), "{:?}", report.failed);
    assert!(!is_long() || report.longest_gap < GAP_MAX, "a put waited for {:?}", report.longest_gap);
    let removed = cluster.nodes[leader].metric("etcd_debugging_mvcc_db_compaction_keys_total");
    assert!(
        removed.is_some_and(|removed| removed >= (changes() - KEYS - CHANGES_A_TXN) as f64),
        "{removed:?}"
    );
}
