//! The corners of etcd's data model, one scenario each.

use ringfence_disk::SimDisk;
use ringfence_store::{Entry, Payload, Position, ReadError, Store};
use ringfence_types::{
    Alarm, AlarmKind, Applied, Command, Compare, CompareOperator, CompareTarget, DeleteRange, Event,
    EventKind, Index, KeyRange, KeyValue, LeaseId, NodeId, Operation, Put, PutLease, PutReply, PutValue,
    RangeQuery, Rejection, Reply, Revision, SortOrder, SortTarget, Txn,
};

use crate::support::{apply, bytes, log_id, open};

fn store() -> Store {
    open(&SimDisk::new(1)).expect("an empty disk")
}

fn put_of(key: &str, value: &str) -> Put {
    Put {
        key: bytes(key),
        value: PutValue::Set(bytes(value)),
        lease: PutLease::Set(LeaseId(0)),
        prev_kv: true,
    }
}

fn put(key: &str, value: &str) -> Command {
    Command::Put(put_of(key, value))
}

fn delete(key: &str) -> Command {
    Command::DeleteRange(DeleteRange { range: KeyRange::single(bytes(key)), prev_kv: false })
}

fn kv(key: &str, value: &str, create: i64, modified: i64, version: i64) -> KeyValue {
    KeyValue {
        key: bytes(key),
        create_revision: Revision(create),
        mod_revision: Revision(modified),
        version,
        value: bytes(value),
        lease: LeaseId(0),
    }
}

fn get(store: &Store, key: &str) -> Option<KeyValue> {
    store.view().range(&RangeQuery::new(KeyRange::single(bytes(key)))).expect("readable").kvs.pop()
}

fn all() -> RangeQuery {
    RangeQuery::new(KeyRange::all())
}

fn keys(store: &Store, query: &RangeQuery) -> Vec<String> {
    let reply = store.view().range(query).expect("readable");
    reply.kvs.iter().map(|kv| String::from_utf8(kv.key.to_vec()).expect("text")).collect()
}

#[test]
fn an_empty_store_stands_at_revision_1_and_the_first_change_makes_2() {
    let store = store();
    assert_eq!((store.view().revision(), store.applied()), (Revision(1), Position::default()));
    let outcome = apply(&store, &put("a", "1")).expect("applied");
    let reply = Reply::Put(PutReply { prev_kv: None });
    assert_eq!(outcome, Applied { revision: Revision(2), index: Index(0), reply });
    assert_eq!(get(&store, "a"), Some(kv("a", "1", 2, 2, 1)));
}

#[test]
fn the_hash_stays_as_it_is() {
    // Members of one hash version compare it, so a change here needs a new version.
    let store = store();
    for command in [put("a", "1"), put("b", "2"), delete("a"), Command::Compact { revision: Revision(3) }] {
        apply(&store, &command).expect("applied");
    }
    assert_eq!(store.view().hash().to_string(), "dd9e3ad9f8cebb2bf691f63e8b555fe2");
    assert_eq!(store.view().hash_kv(Revision(0)).expect("readable").hash, 2_761_785_860);
}

#[test]
fn the_past_of_a_key_is_told_back_to_what_was_compacted() {
    let store = store();
    for command in [
        put("a", "1"),
        put("a", "2"),
        put("b", "x"),
        delete("a"),
        put("a", "3"),
        put("ab", "y"),
        put("a", "4"),
    ] {
        apply(&store, &command).expect("applied");
    }
    let live = |value: &str, create, modified, version| Event {
        kind: EventKind::Put,
        kv: kv("a", value, create, modified, version),
    };
    let all = [
        live("4", 6, 8, 2),
        live("3", 6, 6, 1),
        Event::deletion(bytes("a"), Revision(5)),
        live("2", 2, 3, 2),
        live("1", 2, 2, 1),
    ];
    let past = |revision, versions_max, bytes_max| {
        store.view().key_versions(&bytes("a"), Revision(revision), versions_max, bytes_max)
    };
    let told = |revision, versions_max, bytes_max| {
        let told = past(revision, versions_max, bytes_max).expect("readable");
        (told.versions, told.more)
    };
    assert_eq!(told(0, 100, 100), (all.to_vec(), false));
    assert_eq!(told(0, 2, 100), (all[..2].to_vec(), true));
    assert_eq!(told(0, 5, 100), (all.to_vec(), false));
    // At least one version, however small the bound.
    assert_eq!(told(7, 0, 0), (all[1..2].to_vec(), true));
    assert_eq!(told(5, 100, 100), (all[2..].to_vec(), false));
    assert!(matches!(past(9, 1, 1), Err(ReadError::Rejected(Rejection::FutureRevision { .. }))));
    let absent = store.view().key_versions(&bytes("aa"), Revision(0), 9, 9).expect("readable");
    assert_eq!((absent.versions, absent.more), (vec![], false));

    for (compacted, kept) in [(2, 5), (3, 4), (4, 4), (5, 2), (6, 2), (7, 2), (8, 1)] {
        apply(&store, &Command::Compact { revision: Revision(compacted) }).expect("applied");
        assert_eq!(told(0, 100, 100), (all[..kept].to_vec(), false), "compacted at {compacted}");
        store.checkpoint().expect("the disk works");
        assert_eq!(told(0, 100, 100), (all[..kept].to_vec(), false), "swept at {compacted}");
    }
    assert!(matches!(past(7, 1, 1), Err(ReadError::Rejected(Rejection::Compacted { oldest: Revision(8) }))));
}

#[test]
fn a_key_that_was_deleted_begins_anew() {
    let store = store();
    for command in [put("a", "1"), put("a", "2"), delete("a"), put("a", "3")] {
        apply(&store, &command).expect("applied");
    }
    assert_eq!(get(&store, "a"), Some(kv("a", "3", 5, 5, 1)));
    let old = RangeQuery { revision: Some(Revision(3)), ..all() };
    assert_eq!(store.view().range(&old).expect("readable").kvs, [kv("a", "2", 2, 3, 2)]);
    let gone = RangeQuery { revision: Some(Revision(4)), ..all() };
    assert_eq!(store.view().range(&gone).expect("readable").count, 0);
}

#[test]
fn what_changes_nothing_makes_no_revision() {
    let store = store();
    apply(&store, &put("a", "1")).expect("applied");
    assert_eq!(apply(&store, &delete("b")).expect("applied").revision, Revision(2));
    let nothing = Txn { success: vec![Operation::Range(all())], ..Txn::default() };
    assert_eq!(apply(&store, &Command::Txn(nothing)).expect("applied").revision, Revision(2));
    assert_eq!(
        apply(&store, &Command::Compact { revision: Revision(2) }).expect("applied").revision,
        Revision(2)
    );
    // Put again with the same value it is a change all the same.
    assert_eq!(apply(&store, &put("a", "1")).expect("applied").revision, Revision(3));
}

#[test]
fn a_transaction_is_one_revision_and_sees_its_own_writes_but_its_compares_do_not() {
    let store = store();
    let exists = Compare {
        range: KeyRange::single(bytes("a")),
        operator: CompareOperator::Greater,
        target: CompareTarget::Create(Revision(0)),
    };
    let nested = Txn {
        compares: vec![exists],
        success: vec![Operation::Put(put_of("seen", ""))],
        failure: vec![Operation::Put(put_of("unseen", ""))],
    };
    let txn = Txn {
        success: vec![Operation::Put(put_of("a", "1")), Operation::Range(all()), Operation::Txn(nested)],
        ..Txn::default()
    };
    let Reply::Txn(reply) = apply(&store, &Command::Txn(txn)).expect("applied").reply else {
        panic!("a txn's reply")
    };
    let Reply::Range(range) = &reply.replies[1] else { panic!("a range's reply") };
    assert_eq!(range.kvs, [kv("a", "1", 2, 2, 1)]);
    assert_eq!(keys(&store, &all()), ["a", "unseen"]);
    assert_eq!(store.view().revision(), Revision(2));
}

#[test]
fn a_refusal_within_a_transaction_refuses_all_of_it() {
    let store = store();
    apply(&store, &put("a", "1")).expect("applied");
    let hash = store.view().hash();
    let refused = |operation: Operation| {
        let txn = Txn { success: vec![Operation::Put(put_of("b", "2")), operation], ..Txn::default() };
        apply(&store, &Command::Txn(txn)).expect_err("refused")
    };
    let future = RangeQuery { revision: Some(Revision(3)), ..all() };
    assert_eq!(refused(Operation::Range(future)), Rejection::FutureRevision { current: Revision(2) });
    let keep = Put { value: PutValue::Keep, ..put_of("absent", "") };
    assert_eq!(refused(Operation::Put(keep)), Rejection::KeyNotFound);
    let leased = Put { lease: PutLease::Set(LeaseId(7)), ..put_of("c", "") };
    assert_eq!(refused(Operation::Put(leased)), Rejection::LeaseNotFound);
    assert_eq!((keys(&store, &all()), store.view().hash()), (vec!["a".to_owned()], hash));
}

#[test]
fn a_value_compare_never_holds_for_an_absent_key() {
    let store = store();
    for operator in
        [CompareOperator::Equal, CompareOperator::NotEqual, CompareOperator::Less, CompareOperator::Greater]
    {
        let compare = Compare {
            range: KeyRange::single(bytes("absent")),
            operator,
            target: CompareTarget::Value(bytes("")),
        };
        let txn = Txn { compares: vec![compare], ..Txn::default() };
        assert!(!store.view().evaluate_within(&txn, u64::MAX).expect("readable").succeeded, "{operator:?}");
    }
    let version = Compare {
        range: KeyRange::single(bytes("absent")),
        operator: CompareOperator::Equal,
        target: CompareTarget::Version(0),
    };
    assert!(
        store
            .view()
            .evaluate_within(&Txn { compares: vec![version], ..Txn::default() }, u64::MAX)
            .expect("readable")
            .succeeded
    );
}

#[test]
fn a_limit_cuts_after_filters_and_sorting_and_the_count_ignores_all_of_them() {
    let store = store();
    for (key, value) in [("c", "1"), ("a", "3"), ("b", "2"), ("d", "0")] {
        apply(&store, &put(key, value)).expect("applied");
    }
    let by_value = RangeQuery { sort_target: SortTarget::Value, limit: 2, ..all() };
    assert_eq!(keys(&store, &by_value), ["d", "c"]);
    let newest =
        RangeQuery { sort_target: SortTarget::Mod, sort_order: SortOrder::Descend, limit: 1, ..all() };
    assert_eq!(keys(&store, &newest), ["d"]);
    let filtered =
        RangeQuery { min_mod_revision: Revision(3), max_mod_revision: Revision(4), limit: 2, ..all() };
    let reply = store.view().range(&filtered).expect("readable");
    assert_eq!((keys(&store, &filtered), reply.more, reply.count), (vec!["a".into(), "b".into()], false, 4));
    let first = store.view().range(&RangeQuery { limit: 3, keys_only: true, ..all() }).expect("readable");
    assert_eq!((first.kvs.len(), first.more, first.count), (3, true, 4));
    assert!(first.kvs.iter().all(|kv| kv.value.is_empty()));
}

#[test]
fn compaction_is_in_force_at_once_and_keeps_its_own_revision() {
    let store = store();
    for value in ["1", "2", "3"] {
        apply(&store, &put("a", value)).expect("applied");
    }
    apply(&store, &Command::Compact { revision: Revision(3) }).expect("applied");
    let at = |revision| store.view().range(&RangeQuery { revision: Some(Revision(revision)), ..all() });
    assert!(at(2).expect_err("refused").to_string().contains("compacted"));
    for _ in 0..3 {
        assert_eq!(at(3).expect("readable").kvs, [kv("a", "2", 2, 3, 2)]);
        store.checkpoint().expect("the disk works");
    }
    assert_eq!(store.stats().expect("stats").versions_compacted, 1, "revision 3 has replaced revision 2");
    for (revision, rejection) in [
        (3, Rejection::Compacted { oldest: Revision(3) }),
        (5, Rejection::FutureRevision { current: Revision(4) }),
    ] {
        let refused = apply(&store, &Command::Compact { revision: Revision(revision) });
        assert_eq!(refused.expect_err("refused"), rejection);
    }
}

#[test]
fn what_a_deletion_replaced_goes_with_its_compaction_and_the_deletion_with_the_next() {
    let store = store();
    for key in ["a", "b"] {
        apply(&store, &put(key, "1")).expect("applied");
    }
    apply(&store, &delete("a")).expect("applied");
    let compacted = |revision| {
        apply(&store, &Command::Compact { revision: Revision(revision) }).expect("applied");
        while store.checkpoint().expect("the disk works").is_some() {}
        store.stats().expect("stats").versions_compacted
    };
    assert_eq!(compacted(4), 1);
    let events = store.view().events(Revision(4), 10).expect("a watch can begin there").events;
    assert_eq!(events.iter().map(|event| event.kind).collect::<Vec<_>>(), [EventKind::Delete]);
    apply(&store, &put("b", "2")).expect("applied");
    assert_eq!(compacted(5), 3, "the deletion, and the first version of the other key");
    assert!(!store.is_checkpoint_due(), "nothing is left to compact");
}

#[test]
fn while_the_members_are_known_to_differ_nothing_is_written() {
    let disk = SimDisk::new(1);
    let store = open(&disk).expect("an empty disk");
    apply(&store, &put("a", "1")).expect("applied");
    let alarm = |member| Alarm { member: NodeId(member), kind: AlarmKind::Corrupt };
    let change = |member, raised| Command::ChangeAlarm { alarm: alarm(member), raised };
    let before = store.view().hash();
    for (member, raised, alarms) in
        [(3, true, vec![alarm(3)]), (2, true, vec![alarm(2), alarm(3)]), (2, true, vec![alarm(2), alarm(3)])]
    {
        let told = apply(&store, &change(member, raised)).expect("alarms are changed in any state");
        assert_eq!((told.revision, told.reply), (Revision(2), Reply::Alarms(alarms)));
    }
    assert_ne!(store.view().hash(), before, "what members know must be the same on all of them");
    store.checkpoint().expect("the disk works");
    drop(store);
    let store = open(&disk).expect("what was written");
    assert_eq!(store.view().alarms(), [alarm(2), alarm(3)]);
    let delete = Command::DeleteRange(DeleteRange { range: KeyRange::all(), prev_kv: false });
    let compact = Command::Compact { revision: Revision(2) };
    for command in [put("a", "2"), delete, Command::Txn(Txn::default()), compact] {
        assert_eq!(apply(&store, &command), Err(Rejection::CorruptCluster), "{command:?}");
    }
    for (member, alarms) in [(2, vec![alarm(3)]), (7, vec![alarm(3)]), (3, vec![])] {
        let told = apply(&store, &change(member, false)).expect("alarms are changed in any state");
        assert_eq!(told.reply, Reply::Alarms(alarms));
    }
    assert_eq!(store.view().hash(), before);
    apply(&store, &put("a", "2")).expect("somebody has decided");
}

#[test]
fn an_entry_that_holds_no_known_command_is_refused_by_all_alike() {
    let store = store();
    let unknown = Entry { log_id: log_id(0), payload: Payload::Command(bytes("")) };
    let outcomes = store.apply(&[unknown]).expect("a refusal is an answer");
    assert!(matches!(outcomes[..], [Err(Rejection::UnknownCommand(_))]), "{outcomes:?}");
    assert_eq!(store.applied().log_id, Some(log_id(0)));
}

#[test]
fn positions_and_memberships_come_back_after_a_restart() {
    let disk = SimDisk::new(1);
    let store = open(&disk).expect("an empty disk");
    let membership = Entry { log_id: log_id(0), payload: Payload::Membership(bytes("three nodes")) };
    let blank = Entry { log_id: log_id(1), payload: Payload::Blank };
    let outcomes = store.apply(&[membership, blank]).expect("applied");
    assert!(
        outcomes.iter().all(|outcome| outcome.as_ref().is_ok_and(|applied| applied.reply == Reply::Blank))
    );
    let position =
        Position { log_id: Some(log_id(1)), membership: Some((Some(log_id(0)), bytes("three nodes"))) };
    assert_eq!((store.applied(), store.checkpointed()), (position.clone(), Position::default()));
    assert_eq!(store.checkpoint().expect("the disk works"), Some(position.clone()));
    assert_eq!(store.checkpoint().expect("the disk works"), None, "nothing to do");
    drop(store);
    let store = open(&disk).expect("what was written");
    assert_eq!((store.applied(), store.checkpointed()), (position.clone(), position));
}

#[test]
#[should_panic(expected = "apply takes exactly the next entry of the log")]
fn a_gap_in_the_log_is_a_bug() {
    let store = store();
    let blank = |index| Entry { log_id: log_id(index), payload: Payload::Blank };
    let _ = store.apply(&[blank(0), blank(2)]);
}
