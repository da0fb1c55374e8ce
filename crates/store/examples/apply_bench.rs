//! The measured reason of the head: what a put costs in apply, in the merge of a checkpoint, and in a get, beside what it
//! costs straight into redb's tables.
//!
//! ```text
//! cargo run --release -p ringfence-store --example apply_bench -- DIRECTORY [KEYS] [PUTS] [VALUE_BYTES]
//! ```
//!
//! Loads KEYS keys, then puts PUTS of them again in random order, in batches of 64, with a checkpoint whenever one is due.

// A measurement needs the clock that the crate itself may not read.
#![allow(clippy::disallowed_methods)]

use std::time::{Duration, Instant};

use bytes::Bytes;
use redb::{Database, ReadableTable, TableDefinition};
use ringfence_disk::OsDisk;
use ringfence_proto::command;
use ringfence_store::{Entry, Options, Payload, Store};
use ringfence_types::{
    Command, Index, KeyRange, LeaseId, LogId, NodeId, Put, PutLease, PutValue, RangeQuery, Term,
};

const BATCH: u64 = 64;
const BASELINE_INDEX: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("index");
const BASELINE_HISTORY: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("history");

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let Some(directory) = arguments.first() else {
        eprintln!("usage: apply_bench DIRECTORY [KEYS] [PUTS] [VALUE_BYTES]");
        std::process::exit(2);
    };
    let number = |place: usize, default: u64| {
        arguments.get(place).map_or(default, |text| text.parse().expect("a number"))
    };
    let (keys, puts, value_bytes) = (number(1, 1_000_000), number(2, 200_000), number(3, 256));
    let value = Bytes::from(vec![0x61; usize::try_from(value_bytes).expect("a length")]);

    let mut bench = Bench::open(directory, value.clone());
    bench.run("load, in the order of the keys", keys, |place| place);
    drop(bench);
    let mut bench = Bench::open(directory, value.clone());
    bench.run("puts on random keys", puts, |place| scatter(place) % keys);
    bench.gets(keys);
    bench.describe();
    baseline(directory, keys.min(200_000), puts.min(100_000), &value);
}

struct Bench {
    store: Store,
    value: Bytes,
    next: u64,
}

impl Bench {
    fn open(directory: &str, value: Bytes) -> Bench {
        let start = Instant::now();
        let disk = OsDisk::open(directory).expect("the directory can be opened");
        let store = Store::open(disk, Options::default()).expect("the state can be opened");
        println!("open: {:.1} ms", start.elapsed().as_secs_f64() * 1e3);
        let next = store.applied().log_id.map_or(0, |log_id| log_id.index.0 + 1);
        Bench { store, value, next }
    }

    fn run(&mut self, what: &str, count: u64, key_of: impl Fn(u64) -> u64) {
        let (mut applying, mut merging, mut encoding) = (Duration::ZERO, Duration::ZERO, Duration::ZERO);
        let mut longest_batch = Duration::ZERO;
        let merged_before = self.store.stats().expect("stats").rows_merged;
        let mut place = 0;
        while place < count {
            let start = Instant::now();
            let batch: Vec<Entry> =
                (place..count.min(place + BATCH)).map(|place| self.entry(key_of(place))).collect();
            let encoded = Instant::now();
            place += batch.len() as u64;
            self.store.apply(&batch).expect("applied");
            let applied = Instant::now();
            encoding += encoded - start;
            applying += applied - encoded;
            longest_batch = longest_batch.max(applied - encoded);
            if self.store.is_checkpoint_due() || place == count {
                self.store.checkpoint().expect("checkpointed");
                merging += applied.elapsed();
            }
        }
        let merged = self.store.stats().expect("stats").rows_merged - merged_before;
        println!(
            "{what}: {count} puts, apply {:.2} us, merge {:.2} us a put, longest batch {:.2} ms (encoding {:.2} us)",
            micros(applying, count),
            micros(merging, merged),
            longest_batch.as_secs_f64() * 1e3,
            micros(encoding, count),
        );
    }

    fn entry(&mut self, key: u64) -> Entry {
        let put = Put {
            key: key_bytes(key),
            value: PutValue::Set(self.value.clone()),
            lease: PutLease::Set(LeaseId(0)),
            prev_kv: false,
        };
        let log_id = LogId { term: Term(1), node: NodeId(1), index: Index(self.next) };
        self.next += 1;
        Entry { log_id, payload: Payload::Command(command::encode(&Command::Put(put))) }
    }

    fn gets(&self, keys: u64) {
        for (what, among) in [("one hot key", 1), ("1,000 hot keys", 1_000.min(keys)), ("all keys", keys)] {
            let count = 100_000;
            let start = Instant::now();
            for place in 0..count {
                let query = RangeQuery::new(KeyRange::single(key_bytes(scatter(place) % among)));
                let reply = self.store.view().range(&query).expect("readable");
                assert_eq!(reply.count, 1, "every key was put");
            }
            println!("get, {what}: {:.2} us", micros(start.elapsed(), count));
        }
    }

    fn describe(&self) {
        let stats = self.store.stats().expect("stats");
        println!("file {} MB, rows {} MB", stats.file_bytes >> 20, stats.in_use_bytes >> 20);
        let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
        for line in status.lines().filter(|line| line.starts_with("VmHWM") || line.starts_with("VmRSS")) {
            println!("{line}");
        }
    }
}

/// The same puts straight into two redb tables, with a synced commit every 16,384.
fn baseline(directory: &str, keys: u64, puts: u64, value: &Bytes) {
    let path = std::path::Path::new(directory).join("baseline.redb");
    let _ = std::fs::remove_file(&path);
    let database = Database::create(&path).expect("a database");
    let mut revision = 0;
    let mut apply = |count: u64, key_of: &dyn Fn(u64) -> u64| {
        let start = Instant::now();
        let mut longest = Duration::ZERO;
        let mut place = 0;
        while place < count {
            let mut transaction = database.begin_write().expect("a transaction");
            transaction.set_quick_repair(true);
            {
                let mut index = transaction.open_table(BASELINE_INDEX).expect("a table");
                let mut history = transaction.open_table(BASELINE_HISTORY).expect("a table");
                for place in place..count.min(place + 16_384) {
                    let key = key_bytes(key_of(place));
                    let previous = index.get(key.as_ref()).expect("readable").map(|guard| guard.value()[0]);
                    let row = [previous.unwrap_or(0); 41];
                    index.insert(key.as_ref(), row.as_slice()).expect("inserted");
                    history.insert(revision, value.as_ref()).expect("inserted");
                    revision += 1;
                }
            }
            place += 16_384;
            let commit = Instant::now();
            transaction.commit().expect("committed");
            longest = longest.max(commit.elapsed());
        }
        (micros(start.elapsed(), count), longest)
    };
    apply(keys, &|place| place);
    let (each, longest) = apply(puts, &|place| scatter(place) % keys);
    println!(
        "straight into redb with {keys} keys: {each:.2} us a put, and each commit stops all others, for up to {:.0} ms",
        longest.as_secs_f64() * 1e3
    );
    drop(database);
    let _ = std::fs::remove_file(&path);
}

fn key_bytes(key: u64) -> Bytes {
    Bytes::from(format!("/registry/objects/{key:012}"))
}

/// Spreads numbers over all 64 bits, the same way in every run.
fn scatter(number: u64) -> u64 {
    let mixed = (number ^ 0x9e37_79b9_7f4a_7c15).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    (mixed ^ (mixed >> 29)).wrapping_mul(0x94d0_49bb_1331_11eb) >> 8
}

#[allow(clippy::cast_precision_loss)] // A count of puts is far below 2^52.
fn micros(time: Duration, count: u64) -> f64 {
    time.as_secs_f64() * 1e6 / count.max(1) as f64
}
