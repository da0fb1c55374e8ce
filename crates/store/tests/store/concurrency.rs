//! One thread applies, one checkpoints, others read: every view is one state, whole.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;

use ringfence_disk::SimDisk;
use ringfence_types::{
    Command, KeyRange, LeaseId, Operation, Put, PutLease, PutValue, RangeQuery, Revision, Txn,
};

use crate::support::{bytes, entry, open};

const KEYS: u64 = 40;
const ROUNDS: u64 = 1_500;

/// Puts the same value under all keys of a group, in one transaction.
fn round(number: u64) -> Command {
    let group = number % 4;
    let puts = (0..KEYS).map(|key| {
        Operation::Put(Put {
            key: bytes(&format!("{group}-{key:02}")),
            value: PutValue::Set(bytes(&number.to_string())),
            lease: PutLease::Set(LeaseId(0)),
            prev_kv: false,
        })
    });
    Command::Txn(Txn { success: puts.collect(), ..Txn::default() })
}

#[test]
fn views_are_whole_while_others_apply_checkpoint_compact_and_copy() {
    let store = open(&SimDisk::new(1)).expect("an empty disk");
    let done = AtomicBool::new(false);
    let views_checked = AtomicU64::new(0);
    thread::scope(|scope| {
        scope.spawn(|| {
            let mut index = 0;
            for number in 0..ROUNDS {
                let mut batch = vec![entry(index, &round(number))];
                index += 1;
                if number % 100 == 99 {
                    let oldest = Revision(i64::try_from(number).expect("small") - 50);
                    batch.push(entry(index, &Command::Compact { revision: oldest }));
                    index += 1;
                }
                while store.is_full() {
                    thread::yield_now();
                }
                let outcomes = store.apply(&batch).expect("the disk works");
                assert!(outcomes.iter().all(Result::is_ok));
            }
            done.store(true, Ordering::Release);
        });
        scope.spawn(|| {
            while !done.load(Ordering::Acquire) {
                store.checkpoint().expect("the disk works");
            }
        });
        scope.spawn(|| {
            while !done.load(Ordering::Acquire) {
                let meta = store.write_snapshot("snapshot").expect("the copy agrees with the running hash");
                assert!(meta.position.log_id <= store.applied().log_id);
            }
        });
        for group in 0..2 {
            let (store, done, views_checked) = (&store, &done, &views_checked);
            scope.spawn(move || {
                let mut last = Revision(0);
                while !done.load(Ordering::Acquire) {
                    let view = store.view();
                    assert!(view.revision() >= last, "views never go back");
                    last = view.revision();
                    let query = RangeQuery::new(KeyRange::prefix(bytes(&format!("{group}-"))));
                    let reply = view.range(&query).expect("readable");
                    assert!(reply.kvs.is_empty() || reply.count == KEYS, "a transaction is seen whole");
                    assert!(
                        reply.kvs.windows(2).all(|pair| pair[0].value == pair[1].value),
                        "and all of one"
                    );
                    assert_eq!(view.range(&query).expect("readable"), reply, "a view never changes");
                    let at = RangeQuery { revision: Some(last), ..query };
                    assert_eq!(view.range(&at).expect("readable"), reply);
                    views_checked.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
    });
    assert!(views_checked.load(Ordering::Relaxed) > 50);
    assert!(store.stats().expect("stats").checkpoints > 5, "the head fills up many times");
    while store.checkpoint().expect("the disk works").is_some() {}
    assert!(store.stats().expect("stats").versions_compacted > 0);
    store.write_snapshot("snapshot").expect("the copy agrees with the running hash");
}
