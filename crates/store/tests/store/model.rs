//! The store against the naive model: the same commands, the same questions, the same answers; and a hash that knows
//! nothing of batches, checkpoints, compaction and snapshots.

use bytes::Bytes;
use proptest::collection::vec;
use proptest::prelude::*;
use ringfence_disk::SimDisk;
use ringfence_store::{EventQuery, ReadError, STATE_FILE, Store, View, snapshot_file};
use ringfence_types::{
    Command, Event, EventKind, KeyRange, Lease, Outcome, RangeEnd, RangeQuery, Rejection, Revision, Scope,
};

use crate::support::model::Model;
use crate::support::{entry, generate, next_index, open};

#[derive(Debug, Clone)]
enum Action {
    Apply(Vec<Command>),
    Ask(RangeQuery),
    Checkpoint,
    Reopen,
    Snapshot,
}

fn action() -> impl Strategy<Value = Action> {
    prop_oneof![
        8 => vec(generate::command(), 1..5).prop_map(Action::Apply),
        8 => generate::query().prop_map(Action::Ask),
        3 => Just(Action::Checkpoint),
        1 => Just(Action::Reopen),
        1 => Just(Action::Snapshot),
    ]
}

fn rejected<T>(result: Result<T, ReadError>) -> Result<T, Rejection> {
    match result {
        Ok(answer) => Ok(answer),
        Err(ReadError::Rejected(rejection)) => Err(rejection),
        Err(ReadError::Store(error)) => panic!("the disk works: {error}"),
    }
}

fn batch(store: &Store, commands: &[Command]) -> Vec<ringfence_types::Outcome> {
    let first = next_index(store);
    let entries: Vec<_> = (first..).zip(commands).map(|(index, command)| entry(index, command)).collect();
    store.apply(&entries).expect("the disk works")
}

/// A range read in small chunks, with a new view for each, as a stream does.
fn scanned(store: &Store, range: &KeyRange, revision: Revision) -> Vec<ringfence_types::KeyValue> {
    let mut kvs = Vec::new();
    loop {
        let after = kvs.last().map(|kv: &ringfence_types::KeyValue| kv.key.clone());
        let chunk = store.view().scan(range, Some(revision), after.as_ref(), false, 2, 10).expect("readable");
        kvs.extend(chunk.kvs);
        if !chunk.more {
            return kvs;
        }
    }
}

/// A refused guard names a scope that is covered; which one of several is not the model's to know.
fn without_scope(outcome: &Outcome) -> Outcome {
    match outcome {
        Err(Rejection::GuardOverItsLock { .. }) => {
            Err(Rejection::GuardOverItsLock { scope: Scope::Key(Bytes::new()) })
        }
        // Nor which one of several guards a write runs into first.
        Err(Rejection::GuardedRange { .. }) => {
            Err(Rejection::GuardedRange { range: KeyRange::all(), scope: Scope::Key(Bytes::new()) })
        }
        other => other.clone(),
    }
}

fn check_rights(view: &View, model: &Model) {
    let (rights, keys) = (&model.rights, model.newest());
    assert_eq!(view.lease_clock(), rights.clock);
    let leases: Vec<Lease> = rights.leases.values().map(|lease| rights.told(lease, keys)).collect();
    assert_eq!(view.leases().expect("readable"), leases);
    for lease in &leases {
        let hanging: Vec<Bytes> =
            keys.values().filter(|kv| kv.lease == lease.grant.lease).map(|kv| kv.key.clone()).collect();
        assert_eq!(view.lease_keys(lease.grant.lease).expect("readable"), hanging);
        assert_eq!(view.lease(lease.grant.lease).expect("readable").as_ref(), Some(lease));
    }
    for lock in generate::LOCKS.map(Bytes::from_static) {
        let candidates = rights.candidates_of(&lock, keys);
        assert_eq!(view.holder(&lock).expect("readable").as_ref(), candidates.first());
        assert_eq!(view.candidates(&lock, usize::MAX).expect("readable"), candidates);
    }
    let guards = view.guards();
    assert_eq!(guards.len(), rights.guards.len());
    assert!(guards.iter().all(|guard| rights.guards.contains(guard)));
}

fn check_everything(view: &View, model: &Model) {
    check_rights(view, model);
    check_events(view, model);
    assert_eq!(view.revision(), model.revision());
    assert_eq!(view.compacted(), Revision(model.compacted));
    for revision in model.compacted.max(1)..=model.revision().0 {
        let query = RangeQuery { revision: Some(Revision(revision)), ..RangeQuery::new(KeyRange::all()) };
        assert_eq!(rejected(view.range(&query)), model.range(&query), "at revision {revision}");
    }
    let from = Revision(model.compacted.max(2));
    let events = view.events(from, usize::MAX).expect("nothing from there on is compacted").events;
    if model.compacted == 0 {
        assert_eq!(events, model.events);
    } else {
        // At the compacted revision and before, what later changes replaced may be gone; from there on all is there.
        let since = |events: &[ringfence_types::Event]| -> Vec<ringfence_types::Event> {
            events.iter().filter(|event| event.kv.mod_revision >= from).cloned().collect()
        };
        assert_eq!(events, since(&model.events));
    }
}

/// The history by key and by range, in small parts, is the same as in one; and so is what an event replaced.
fn check_events(view: &View, model: &Model) {
    let from = Revision(model.compacted.max(2));
    let known: Vec<&Event> = model.events.iter().filter(|event| event.kv.mod_revision >= from).collect();
    let keys: std::collections::BTreeSet<_> = known.iter().map(|event| event.kv.key.clone()).collect();
    let singles = keys.iter().cloned().map(KeyRange::single);
    let rest = keys.iter().nth(1).map(|key| KeyRange { start: key.clone(), end: RangeEnd::Unbounded });
    for range in singles.chain(rest) {
        for (events_max, looked_max, deletes) in [(1, usize::MAX, true), (usize::MAX, 2, false)] {
            let mut query = EventQuery { events_max, looked_max, deletes, ..EventQuery::new(&range, from) };
            let mut read = Vec::new();
            while query.from <= view.revision() {
                let chunk = view.events_of(&query).expect("nothing from there on is compacted");
                assert!(
                    chunk.next > query.from && chunk.events.iter().all(|e| e.kv.mod_revision < chunk.next)
                );
                query.from = chunk.next;
                read.extend(chunk.events);
            }
            let wanted =
                |event: &Event| range.contains(&event.kv.key) && (deletes || event.kind == EventKind::Put);
            let expected: Vec<_> = known.iter().filter(|event| wanted(event)).map(|e| (*e).clone()).collect();
            assert_eq!(read, expected, "{range:?}");
        }
    }
    for event in known {
        let before = Revision(event.kv.mod_revision.0 - 1);
        let range = KeyRange::single(event.kv.key.clone());
        let query = RangeQuery { revision: Some(before), ..RangeQuery::new(range) };
        // As in etcd, what is created replaces nothing, even where the same revision has deleted its namesake.
        let is_new = event.kind == EventKind::Put && event.kv.create_revision == event.kv.mod_revision;
        let is_unknown = before.0 < model.compacted.max(1);
        let existed = if is_new || is_unknown { None } else { model.range(&query).ok() };
        let existed = existed.and_then(|reply| reply.kvs.into_iter().next());
        assert_eq!(view.before(event).expect("readable"), existed, "before {event:?}");
    }
}

/// What is left when compaction has done all its work: everything from the compacted revision on, and of what is older
/// the newest of each key, unless it is a deletion or was replaced at the compacted revision.
fn kept_by_compaction(model: &Model) -> Vec<&Event> {
    let is_older = |event: &Event| event.kv.mod_revision.0 < model.compacted;
    let is_superseded = |place: usize, event: &Event| {
        let mut later = model.events[place + 1..].iter().filter(|later| later.kv.key == event.kv.key);
        later.any(|later| later.kv.mod_revision.0 <= model.compacted)
    };
    let is_gone = |place: usize, event: &Event| {
        is_older(event) && (event.kind == EventKind::Delete || is_superseded(place, event))
    };
    let events = model.events.iter().enumerate();
    events.filter(|(place, event)| !is_gone(*place, event)).map(|(_, event)| event).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn answers_as_the_model_does(actions in vec(action(), 1..25)) {
        let disk = SimDisk::new(1);
        let mut store = open(&disk).expect("an empty disk");
        let mut model = Model::new();
        // The same commands one by one, never checkpointed: its hash must always be the same.
        let plain = open(&SimDisk::new(2)).expect("an empty disk");
        for action in &actions {
            match action {
                Action::Apply(commands) => {
                    let outcomes = batch(&store, commands);
                    let expected: Vec<_> = commands.iter().map(|command| model.apply(command)).collect();
                    let (told, expected): (Vec<_>, Vec<_>) = (
                        outcomes.iter().map(without_scope).collect(),
                        expected.iter().map(without_scope).collect(),
                    );
                    prop_assert_eq!(told, expected);
                    for (command, outcome) in commands.iter().zip(&outcomes) {
                        prop_assert_eq!(&crate::support::apply(&plain, command), outcome);
                    }
                }
                Action::Ask(query) => {
                    prop_assert_eq!(rejected(store.view().range(query)), model.range(query));
                    if let Ok(reply) = model.range(&RangeQuery { revision: query.revision, ..RangeQuery::new(query.range.clone()) }) {
                        let revision = query.revision.unwrap_or(Revision(0));
                        prop_assert_eq!(scanned(&store, &query.range, revision), reply.kvs);
                    }
                }
                Action::Checkpoint => {
                    let position = store.applied();
                    store.checkpoint().expect("the disk works");
                    prop_assert_eq!(store.checkpointed(), position);
                    prop_assert_eq!(store.head_bytes(), 0);
                }
                Action::Reopen => {
                    store.checkpoint().expect("the disk works");
                    drop(store);
                    store = open(&disk).expect("what was written");
                }
                Action::Snapshot => {
                    let before = store.applied();
                    let meta = store.write_snapshot("snapshot").expect("the disk works");
                    prop_assert_eq!(meta.hash, store.view().hash());
                    let old = store.view();
                    prop_assert_eq!(crate::support::install(&store, "snapshot").expect("just written"), before);
                    check_everything(&old, &model);
                }
            }
            // What is asked for again and again is read in another way.
            let all = RangeQuery::new(KeyRange::all());
            prop_assert_eq!(rejected(store.view().range(&all)), model.range(&all));
            prop_assert_eq!(store.view().hash(), plain.view().hash());
            prop_assert_eq!(store.view().members(), plain.view().members());
            check_rights(&store.view(), &model);
        }
        check_everything(&store.view(), &model);
        let hash_kv = plain.view().hash_kv(Revision(0)).expect("readable");
        prop_assert_eq!(store.view().hash_kv(Revision(0)).expect("readable"), hash_kv);
        // Compaction to its end changes neither answers nor hashes.
        while store.checkpoint().expect("the disk works").is_some() {}
        let kept: Vec<_> = kept_by_compaction(&model);
        let bytes: u64 = kept.iter().map(|event| 94 + 2 * event.kv.key.len() as u64 + event.kv.value.len() as u64).sum();
        prop_assert_eq!(store.stats().expect("stats").in_use_bytes, bytes);
        drop(store);
        let summary = snapshot_file::inspect(&disk, STATE_FILE).expect("whole");
        prop_assert_eq!(summary.versions, kept.len() as u64);
        let store = open(&disk).expect("what was written");
        check_everything(&store.view(), &model);
        prop_assert_eq!(store.view().hash(), plain.view().hash());
        prop_assert_eq!(store.view().hash_kv(Revision(0)).expect("readable"), hash_kv);
    }
}
