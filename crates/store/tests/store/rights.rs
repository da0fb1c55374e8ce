//! Leases, the holders of locks, fences, guards and sessions: one scenario each.

use bytes::Bytes;
use ringfence_disk::SimDisk;
use ringfence_store::{Store, snapshot_file};
use ringfence_types::{
    Applied, Command, Compare, CompareOperator, CompareTarget, Conditional, DeleteRange, Fence, Grant,
    GuardChange, Holder, Index, KeyRange, Lease, LeaseCommand, LeaseId, LeaseTime, Operation, Outcome, Put,
    PutLease, PutValue, RangeQuery, Rejection, Reply, Resolution, Revision, Scope, SessionStamp, Txn, Write,
    limits,
};

use crate::support::{apply, bytes, open};

fn store() -> Store {
    open(&SimDisk::new(1)).expect("an empty disk")
}

fn put_of(key: &str, value: &str, lease: i64) -> Put {
    let lease = PutLease::Set(LeaseId(lease));
    Put { key: bytes(key), value: PutValue::Set(bytes(value)), lease, prev_kv: false }
}

fn put(store: &Store, key: &str, lease: i64) -> Outcome {
    apply(store, &Command::Put(put_of(key, "v", lease)))
}

fn delete(store: &Store, key: &str) {
    let range = KeyRange::single(bytes(key));
    apply(store, &Command::DeleteRange(DeleteRange { range, prev_kv: false })).expect("deleted");
}

fn at(store: &Store, clock: u64, command: LeaseCommand) -> Outcome {
    apply(store, &Command::Lease { command, clock: LeaseTime(clock) })
}

fn grant(store: &Store, clock: u64, lease: i64, ttl_seconds: u64) -> Grant {
    match at(store, clock, LeaseCommand::Grant { lease: LeaseId(lease), ttl_seconds }) {
        Ok(Applied { reply: Reply::LeaseGranted(lease), .. }) => lease.grant,
        other => panic!("granted: {other:?}"),
    }
}

fn expire(store: &Store, clock: u64, grants: &[Grant]) -> Vec<Grant> {
    match at(store, clock, LeaseCommand::Expire { grants: grants.to_vec() }) {
        Ok(Applied { reply: Reply::LeasesExpired(expired), .. }) => expired,
        other => panic!("judged: {other:?}"),
    }
}

fn renew(store: &Store, clock: u64, grants: &[Grant]) -> Vec<Lease> {
    match at(store, clock, LeaseCommand::Renew { grants: grants.to_vec() }) {
        Ok(Applied { reply: Reply::LeasesRenewed(renewed), .. }) => renewed,
        other => panic!("renewed: {other:?}"),
    }
}

fn exists(store: &Store, key: &str) -> bool {
    !store.view().range(&RangeQuery::new(KeyRange::single(bytes(key)))).expect("readable").kvs.is_empty()
}

fn created(store: &Store, key: &str) -> Revision {
    store.view().range(&RangeQuery::new(KeyRange::single(bytes(key)))).expect("readable").kvs[0]
        .create_revision
}

fn holder(store: &Store, lock: &str) -> Option<(String, i64)> {
    let holder = store.view().holder(&bytes(lock)).expect("readable");
    holder.map(|Holder { key, token }| (String::from_utf8(key.to_vec()).expect("text"), token.0))
}

fn lock(name: &str) -> Scope {
    Scope::Lock(bytes(name))
}

fn fence(scope: Scope, token: i64) -> Fence {
    Fence { scope, token: Revision(token) }
}

fn fenced(store: &Store, key: &str, fences: &[Fence]) -> Outcome {
    let write = Write::Put(put_of(key, "fenced", 0));
    apply(store, &Command::Conditional(Conditional { write, fences: fences.to_vec(), session: None }))
}

fn in_session(store: &Store, key: &str, session: Grant, sequence: u64, first_incomplete: u64) -> Outcome {
    write_in_session(store, Write::Put(put_of(key, "v", 0)), &[], session, sequence, first_incomplete)
}

fn write_in_session(
    store: &Store,
    write: Write,
    fences: &[Fence],
    session: Grant,
    sequence: u64,
    first_incomplete: u64,
) -> Outcome {
    let digest = u128::from(crc32c_of(&write));
    let session = Some(SessionStamp { session, sequence, first_incomplete, digest });
    let outcome =
        apply(store, &Command::Conditional(Conditional { write, fences: fences.to_vec(), session }));
    // Each copy is an entry of its own; what is kept is the answer without it.
    outcome.map(|applied| Applied { index: Index(0), ..applied })
}

fn crc32c_of(write: &Write) -> u32 {
    format!("{write:?}").bytes().fold(0, |sum, byte| sum.wrapping_mul(31).wrapping_add(u32::from(byte)))
}

fn guard(range: KeyRange, scope: Option<Scope>) -> GuardChange {
    GuardChange { range, scope, fences: Vec::new(), overrides: false }
}

fn set_guard(store: &Store, prefix: &str, scope: Scope) {
    apply(store, &Command::ChangeGuard(guard(KeyRange::prefix(bytes(prefix)), Some(scope)))).expect("set");
}

fn owner_txn(key: &str, token: i64, writes: &str) -> Command {
    let range = KeyRange::single(bytes(key));
    let target = CompareTarget::Create(Revision(token));
    let compare = Compare { range, operator: CompareOperator::Equal, target };
    Command::Txn(Txn {
        compares: vec![compare],
        success: vec![Operation::Put(put_of(writes, "owner", 0))],
        failure: vec![],
    })
}

#[test]
fn a_lease_ends_at_one_revision_for_all_its_keys_and_not_before_its_deadline() {
    let store = store();
    let lease = grant(&store, 1_000, 7, 5);
    for key in ["a", "b", "c"] {
        put(&store, key, 7).expect("put");
    }
    assert_eq!(store.view().lease_keys(LeaseId(7)).expect("readable"), ["a", "b", "c"]);
    assert_eq!(store.due_leases(LeaseTime(5_999), 10), []);
    assert_eq!(expire(&store, 5_999, &[lease]), [], "its deadline is at 6,000");
    assert_eq!(store.due_leases(LeaseTime(6_000), 10), [lease]);
    let before = store.view().revision();
    assert_eq!(expire(&store, 6_000, &[lease]), [lease]);
    assert_eq!(store.view().revision(), before.next());
    assert!(!exists(&store, "a") && !exists(&store, "c"));
    assert_eq!(store.view().lease(LeaseId(7)).expect("readable"), None);
    assert_eq!((store.lease_count(), store.due_leases(LeaseTime(9_999), 10)), (0, vec![]));
}

#[test]
fn a_renewal_answered_while_an_end_is_in_flight_keeps_the_lease() {
    let store = store();
    let lease = grant(&store, 0, 7, 5);
    put(&store, "a", 7).expect("put");
    // The leader saw the lease due at 5,000, and the renewal reached the log first.
    let renewed = renew(&store, 4_900, &[lease]);
    assert_eq!(renewed[0].deadline, LeaseTime(9_900));
    assert_eq!(expire(&store, 5_100, &[lease]), []);
    assert!(exists(&store, "a"));
    // The other way round the renewal finds nothing.
    assert_eq!(expire(&store, 9_900, &[lease]), [lease]);
    assert_eq!(renew(&store, 9_901, &[lease]), []);
}

#[test]
fn a_granted_again_number_is_another_lease() {
    let store = store();
    let first = grant(&store, 0, 7, 5);
    assert_eq!(
        at(&store, 0, LeaseCommand::Grant { lease: LeaseId(7), ttl_seconds: 9 }),
        Err(Rejection::LeaseExists)
    );
    at(&store, 0, LeaseCommand::Revoke { lease: LeaseId(7) }).expect("revoked");
    let second = grant(&store, 0, 7, 60);
    assert_ne!(first, second);
    // Late duplicates about the first grant.
    assert_eq!(renew(&store, 10, &[first]), []);
    assert_eq!(expire(&store, 30_000, &[first]), []);
    assert_eq!(in_session(&store, "k", first, 1, 1), Err(Rejection::SessionEnded));
    in_session(&store, "k", second, 1, 1).expect("the second is in force");
}

#[test]
fn the_lease_clock_never_goes_back() {
    let store = store();
    at(&store, 5_000, LeaseCommand::Tick).expect("ticked");
    let lease = grant(&store, 10, 7, 2);
    assert_eq!(store.view().lease_clock(), LeaseTime(5_000));
    assert_eq!(store.view().lease(LeaseId(7)).expect("readable").expect("there").deadline, LeaseTime(7_000));
    assert_eq!(expire(&store, 0, &[lease]), []);
}

#[test]
fn lease_times_are_bounded_and_number_0_is_none() {
    let store = store();
    grant(&store, 0, 1, 0);
    grant(&store, 0, 2, u64::MAX);
    let ttl = |id| store.view().lease(LeaseId(id)).expect("readable").expect("there").ttl_seconds;
    assert_eq!((ttl(1), ttl(2)), (limits::LEASE_TTL_SECONDS_MIN, limits::LEASE_TTL_SECONDS_MAX));
    let zero = at(&store, 0, LeaseCommand::Grant { lease: LeaseId(0), ttl_seconds: 9 });
    assert_eq!(zero, Err(Rejection::LeaseNotFound));
    assert_eq!(put(&store, "a", 9), Err(Rejection::LeaseNotFound));
    assert_eq!(at(&store, 0, LeaseCommand::Revoke { lease: LeaseId(9) }), Err(Rejection::LeaseNotFound));
}

#[test]
fn a_key_hangs_on_the_lease_of_its_last_put() {
    let store = store();
    grant(&store, 0, 1, 5);
    grant(&store, 0, 2, 5);
    put(&store, "k", 1).expect("put");
    put(&store, "k", 2).expect("put");
    let keys = |id| store.view().lease_keys(LeaseId(id)).expect("readable");
    let count = |id| store.view().lease(LeaseId(id)).expect("readable").expect("there").keys;
    assert_eq!((keys(1).len(), count(1), keys(2).len(), count(2)), (0, 0, 1, 1));
    let keep = Put { lease: PutLease::Keep, ..put_of("k", "w", 0) };
    apply(&store, &Command::Put(keep)).expect("put");
    assert_eq!(count(2), 1);
    put(&store, "k", 0).expect("put");
    assert_eq!((keys(2).len(), count(2)), (0, 0));
    put(&store, "k", 2).expect("put");
    delete(&store, "k");
    assert_eq!((keys(2).len(), count(2)), (0, 0));
    at(&store, 0, LeaseCommand::Revoke { lease: LeaseId(2) }).expect("revoked");
}

#[test]
fn no_more_keys_hang_on_a_lease_than_may() {
    let store = store();
    grant(&store, 0, 1, 5);
    for chunk in 0..100 {
        let puts = (0..100).map(|n| Operation::Put(put_of(&format!("{chunk}-{n}"), "v", 1))).collect();
        apply(&store, &Command::Txn(Txn { success: puts, ..Txn::default() })).expect("there is room");
    }
    assert_eq!(put(&store, "one more", 1), Err(Rejection::LeaseFull(limits::LEASE_KEYS_MAX)));
    put(&store, "0-0", 1).expect("it hangs there already");
    delete(&store, "0-0");
    put(&store, "one more", 1).expect("there is room again");
    let before = store.view().revision();
    at(&store, 0, LeaseCommand::Revoke { lease: LeaseId(1) }).expect("revoked");
    assert_eq!(store.view().revision(), before.next());
    assert!(!exists(&store, "99-99"));
}

#[test]
fn the_oldest_candidate_holds_and_its_token_only_grows() {
    let store = store();
    for lease in 1..=3 {
        grant(&store, 0, lease, 5);
        put(&store, &format!("jobs/{lease}"), lease).expect("put");
    }
    let tokens: Vec<i64> = (1..=3).map(|n| created(&store, &format!("jobs/{n}")).0).collect();
    assert_eq!(holder(&store, "jobs"), Some(("jobs/1".to_owned(), tokens[0])));
    // What later puts do to the value or the lease changes nothing.
    put(&store, "jobs/1", 0).expect("put");
    assert_eq!(holder(&store, "jobs"), Some(("jobs/1".to_owned(), tokens[0])));
    delete(&store, "jobs/2");
    delete(&store, "jobs/1");
    assert_eq!(holder(&store, "jobs"), Some(("jobs/3".to_owned(), tokens[2])));
    put(&store, "jobs/1", 1).expect("put");
    assert_eq!(holder(&store, "jobs"), Some(("jobs/3".to_owned(), tokens[2])), "who comes back queues");
    at(&store, 0, LeaseCommand::Revoke { lease: LeaseId(3) }).expect("revoked");
    let last = created(&store, "jobs/1").0;
    assert_eq!(holder(&store, "jobs"), Some(("jobs/1".to_owned(), last)));
    assert!(last > tokens[2]);
    delete(&store, "jobs/1");
    assert_eq!(holder(&store, "jobs"), None);
    assert_eq!(store.view().candidates(&bytes("jobs"), 9).expect("readable"), []);
}

#[test]
fn two_lock_keys_made_by_one_transaction_are_no_candidates() {
    let store = store();
    grant(&store, 0, 1, 5);
    let puts = |keys: &[&str]| keys.iter().map(|key| Operation::Put(put_of(key, "v", 1))).collect::<Vec<_>>();
    let both = Txn { success: puts(&["jobs/a", "jobs/b", "other/c"]), ..Txn::default() };
    apply(&store, &Command::Txn(both)).expect("put");
    assert_eq!(holder(&store, "jobs"), None);
    assert_eq!(holder(&store, "other").map(|(key, _)| key), Some("other/c".to_owned()));
    put(&store, "jobs/d", 1).expect("put");
    assert_eq!(holder(&store, "jobs").map(|(key, _)| key), Some("jobs/d".to_owned()));
    delete(&store, "jobs/a");
    assert_eq!(holder(&store, "jobs").map(|(key, _)| key), Some("jobs/d".to_owned()));
}

#[test]
fn keys_without_a_lease_named_like_the_lock_or_nested_are_no_candidates() {
    let store = store();
    grant(&store, 0, 1, 5);
    put(&store, "jobs/plain", 0).expect("put");
    put(&store, "jobs", 1).expect("put");
    put(&store, "jobs/", 1).expect("put");
    put(&store, "jobs/nested/x", 1).expect("put");
    assert_eq!(holder(&store, "jobs"), None);
    assert_eq!(holder(&store, "jobs/nested").map(|(key, _)| key), Some("jobs/nested/x".to_owned()));
    // A lease that comes later does not make one either: the key was created without.
    put(&store, "jobs/plain", 1).expect("put");
    assert_eq!(holder(&store, "jobs"), None);
}

#[test]
fn a_fenced_write_happens_only_while_its_token_is_in_force() {
    let store = store();
    for lease in [1, 2] {
        grant(&store, 0, lease, 5);
        put(&store, &format!("jobs/{lease}"), lease).expect("put");
    }
    let (first, second) = (created(&store, "jobs/1").0, created(&store, "jobs/2").0);
    fenced(&store, "data", &[fence(lock("jobs"), first)]).expect("it is held");
    let stale = |presented, in_force: Option<i64>| Rejection::StaleFence {
        scope: lock("jobs"),
        presented: Revision(presented),
        in_force: in_force.map(Revision),
    };
    // A waiter's token, and one that nobody was ever granted.
    assert_eq!(fenced(&store, "data", &[fence(lock("jobs"), second)]), Err(stale(second, Some(first))));
    assert_eq!(fenced(&store, "data", &[fence(lock("jobs"), 999)]), Err(stale(999, Some(first))));
    // The holder is paused and its lease ends: the next one holds, and the paused one's token is worth nothing.
    at(&store, 9_000, LeaseCommand::Revoke { lease: LeaseId(1) }).expect("revoked");
    let revision = store.view().revision();
    assert_eq!(fenced(&store, "data", &[fence(lock("jobs"), first)]), Err(stale(first, Some(second))));
    assert_eq!(store.view().revision(), revision, "a refused write changes nothing");
    fenced(&store, "data", &[fence(lock("jobs"), second)]).expect("it is held");
    assert_eq!(
        fenced(&store, "data", &[fence(lock("none"), 3)]),
        Err(Rejection::StaleFence { scope: lock("none"), presented: Revision(3), in_force: None })
    );
}

#[test]
fn a_key_is_a_scope_while_it_exists_and_all_fences_must_hold() {
    let store = store();
    put(&store, "owner", 0).expect("put");
    let token = created(&store, "owner").0;
    let scope = Scope::Key(bytes("owner"));
    fenced(&store, "data", &[fence(scope.clone(), token)]).expect("it exists");
    put(&store, "owner", 0).expect("a change is no new creation");
    fenced(&store, "data", &[fence(scope.clone(), token)]).expect("it exists");
    let both = [fence(scope.clone(), token), fence(lock("jobs"), token)];
    assert!(matches!(fenced(&store, "data", &both), Err(Rejection::StaleFence { .. })));
    delete(&store, "owner");
    put(&store, "owner", 0).expect("put");
    assert!(matches!(fenced(&store, "data", &[fence(scope, token)]), Err(Rejection::StaleFence { .. })));
}

#[test]
fn a_holder_may_release_and_write_in_one_transaction() {
    // Fences are judged on the state before the request.
    let store = store();
    grant(&store, 0, 1, 5);
    put(&store, "jobs/1", 1).expect("put");
    let token = created(&store, "jobs/1").0;
    let release = Write::Txn(Txn {
        success: vec![
            Operation::DeleteRange(DeleteRange { range: KeyRange::single(bytes("jobs/1")), prev_kv: false }),
            Operation::Put(put_of("data", "last", 0)),
        ],
        ..Txn::default()
    });
    let fences = [fence(lock("jobs"), token)];
    let session = grant(&store, 0, 2, 5);
    let done = write_in_session(&store, release.clone(), &fences, session, 1, 1).expect("it is held");
    assert_eq!((exists(&store, "data"), holder(&store, "jobs")), (true, None));
    // A retry of the applied release-and-write gets its answer, although the fence is stale by now.
    let revision = store.view().revision();
    assert_eq!(write_in_session(&store, release.clone(), &fences, session, 1, 1), Ok(done));
    assert_eq!(store.view().revision(), revision);
    let without = Conditional { write: release, fences: fences.to_vec(), session: None };
    assert!(matches!(apply(&store, &Command::Conditional(without)), Err(Rejection::StaleFence { .. })));
}

#[test]
fn a_guarded_range_takes_no_write_without_its_fence() {
    let store = store();
    grant(&store, 0, 1, 5);
    put(&store, "jobs/1", 1).expect("put");
    let token = created(&store, "jobs/1").0;
    set_guard(&store, "data/", lock("jobs"));
    let guarded = |outcome: Outcome| matches!(outcome, Err(Rejection::GuardedRange { .. }));
    assert!(guarded(put(&store, "data/x", 0)));
    put(&store, "elsewhere", 0).expect("it is not guarded");
    // By overlap, whether or not there is a key to delete.
    let range = KeyRange { start: bytes("a"), end: ringfence_types::RangeEnd::Before(bytes("data/a")) };
    assert!(guarded(apply(&store, &Command::DeleteRange(DeleteRange { range, prev_kv: false }))));
    fenced(&store, "data/x", &[fence(lock("jobs"), token)]).expect("it is fenced");
    // A fence of another scope that holds is no fence of the guard's.
    put(&store, "owner", 0).expect("put");
    let other = fence(Scope::Key(bytes("owner")), created(&store, "owner").0);
    assert!(guarded(fenced(&store, "data/x", &[other])));
}

#[test]
fn plain_clients_write_to_a_guarded_range_by_is_owner() {
    let store = store();
    for lease in [1, 2] {
        grant(&store, 0, lease, 5);
        put(&store, &format!("jobs/{lease}"), lease).expect("put");
    }
    let (first, second) = (created(&store, "jobs/1").0, created(&store, "jobs/2").0);
    set_guard(&store, "data/", lock("jobs"));
    apply(&store, &owner_txn("jobs/1", first, "data/x")).expect("the compare proves that it holds");
    let guarded = |outcome: Outcome| matches!(outcome, Err(Rejection::GuardedRange { .. }));
    assert!(
        guarded(apply(&store, &owner_txn("jobs/2", second, "data/x"))),
        "a waiter owns its key, and not the lock"
    );
    at(&store, 0, LeaseCommand::Revoke { lease: LeaseId(1) }).expect("revoked");
    // The compare fails, and the branch taken writes nothing.
    let Ok(Applied { reply: Reply::Txn(reply), .. }) = apply(&store, &owner_txn("jobs/1", first, "data/x"))
    else {
        panic!("a failed compare is an answer")
    };
    assert!(!reply.succeeded);
    apply(&store, &owner_txn("jobs/2", second, "data/x")).expect("the next one holds");
    // A proof counts on its own path alone.
    let Command::Txn(mut txn) = owner_txn("jobs/2", second + 1, "elsewhere") else { unreachable!() };
    txn.failure = vec![Operation::Put(put_of("data/x", "unproven", 0))];
    assert!(guarded(apply(&store, &Command::Txn(txn))));
    let Command::Txn(nested) = owner_txn("jobs/2", second, "data/y") else { unreachable!() };
    let beside = Txn {
        success: vec![Operation::Txn(nested), Operation::Put(put_of("data/z", "unproven", 0))],
        ..Txn::default()
    };
    assert!(guarded(apply(&store, &Command::Txn(beside))), "the nested proof is not the outer one's");
}

#[test]
fn a_guard_over_its_own_lock_is_refused() {
    let store = store();
    let over = guard(KeyRange::prefix(bytes("jobs/")), Some(lock("jobs")));
    let refused = Err(Rejection::GuardOverItsLock { scope: lock("jobs") });
    assert_eq!(apply(&store, &Command::ChangeGuard(over)), refused);
    set_guard(&store, "data/", lock("jobs"));
    // Nor may another guard cover the keys by which the first one's lock is taken.
    let later = guard(KeyRange::prefix(bytes("jo")), Some(lock("else")));
    assert_eq!(apply(&store, &Command::ChangeGuard(later)), refused);
    let covered = guard(KeyRange::prefix(bytes("x")), Some(lock("data")));
    assert_eq!(
        apply(&store, &Command::ChangeGuard(covered)),
        Err(Rejection::GuardOverItsLock { scope: lock("data") })
    );
    assert_eq!(store.view().guards().len(), 1);
}

#[test]
fn a_guard_is_changed_with_a_current_fence_or_by_override() {
    let store = store();
    grant(&store, 0, 1, 5);
    put(&store, "jobs/1", 1).expect("put");
    let token = created(&store, "jobs/1").0;
    set_guard(&store, "data/", lock("jobs"));
    let range = KeyRange::prefix(bytes("data/"));
    let remove = guard(range.clone(), None);
    let guarded = |outcome: Outcome| matches!(outcome, Err(Rejection::GuardedRange { .. }));
    assert!(guarded(apply(&store, &Command::ChangeGuard(remove.clone()))));
    assert!(guarded(apply(
        &store,
        &Command::ChangeGuard(guard(KeyRange::single(bytes("data/x")), Some(lock("l"))))
    )));
    let with_fence = GuardChange { fences: vec![fence(lock("jobs"), token)], ..remove.clone() };
    apply(&store, &Command::ChangeGuard(with_fence)).expect("it is held");
    assert_eq!(store.view().guards(), []);
    assert_eq!(apply(&store, &Command::ChangeGuard(remove.clone())), Err(Rejection::GuardNotFound));
    set_guard(&store, "data/", lock("jobs"));
    apply(&store, &Command::ChangeGuard(GuardChange { overrides: true, ..remove }))
        .expect("an administrator may");
    put(&store, "data/x", 0).expect("nothing guards it");
}

#[test]
fn the_end_of_a_lease_deletes_its_guarded_keys() {
    let store = store();
    grant(&store, 0, 1, 5);
    let lease = grant(&store, 0, 2, 5);
    put(&store, "jobs/1", 1).expect("put");
    put(&store, "data/x", 2).expect("put");
    set_guard(&store, "data/", lock("jobs"));
    assert_eq!(expire(&store, 5_000, &[lease]), [lease]);
    assert!(!exists(&store, "data/x"));
}

#[test]
fn a_write_of_a_session_happens_once() {
    let store = store();
    let session = grant(&store, 0, 1, 5);
    let first = in_session(&store, "k", session, 1, 1).expect("written");
    put(&store, "k", 0).expect("put");
    let revision = store.view().revision();
    assert_eq!(in_session(&store, "k", session, 1, 1), Ok(first), "the same answer, at the same revision");
    assert_eq!(store.view().revision(), revision);
    assert_eq!(in_session(&store, "other", session, 1, 1), Err(Rejection::SequenceReused(1)));
    // A refusal of apply is an answer too.
    let refused = Write::Put(Put { value: PutValue::Keep, ..put_of("absent", "", 0) });
    let refused = || write_in_session(&store, refused.clone(), &[], session, 2, 1);
    assert_eq!(refused(), Err(Rejection::KeyNotFound));
    put(&store, "absent", 0).expect("put");
    assert_eq!(refused(), Err(Rejection::KeyNotFound), "it was decided");
}

#[test]
fn sequences_are_open_in_a_window() {
    let store = store();
    let session = grant(&store, 0, 1, 5);
    let max = limits::SESSION_ANSWERS_MAX;
    in_session(&store, "k", session, max, 1).expect("the last one open");
    let above = Err(Rejection::SequenceAboveWindow { sequence: max + 1, max });
    assert_eq!(in_session(&store, "k", session, max + 1, 1), above);
    in_session(&store, "k", session, max + 1, 2).expect("the window has moved on");
    assert_eq!(in_session(&store, "k", session, 1, 1), Err(Rejection::SequenceClosed(1)));
    in_session(&store, "k", session, max + 2, max + 2).expect("all before are complete");
    assert_eq!(in_session(&store, "k", session, max, 1), Err(Rejection::SequenceClosed(max)));
}

fn resolve(
    store: &Store,
    session: Grant,
    sequence: u64,
    first_incomplete: u64,
) -> Result<Resolution, Rejection> {
    match apply(store, &Command::Resolve { session, sequence, first_incomplete })?.reply {
        Reply::Resolved(resolution) => Ok(resolution),
        other => panic!("{other:?} is no resolution"),
    }
}

#[test]
fn a_question_moves_the_window_as_the_write_would_have() {
    let store = store();
    let session = grant(&store, 0, 1, 5);
    in_session(&store, "k", session, 1, 1).expect("written");
    // None of those that came between reached the log.
    let (max, sequence) = (limits::SESSION_ANSWERS_MAX, limits::SESSION_ANSWERS_MAX + 44);
    let above = Err(Rejection::SequenceAboveWindow { sequence, max });
    assert_eq!(resolve(&store, session, sequence, 0), above, "the store has heard of none of them");
    assert_eq!(resolve(&store, session, sequence, sequence), Ok(Resolution::Closed));
    assert_eq!(
        in_session(&store, "k", session, sequence, sequence),
        Err(Rejection::SequenceClosed(sequence))
    );
    for before in [1, 2, sequence - 1] {
        assert_eq!(in_session(&store, "k", session, before, 1), Err(Rejection::SequenceClosed(before)));
        assert_eq!(resolve(&store, session, before, 0), Err(Rejection::SequenceClosed(before)));
    }
    // A question that comes late moves nothing back, and one about a write that has an answer gets it.
    let answer = in_session(&store, "k", session, sequence + 1, sequence);
    let answered = Ok(Resolution::Answered(Box::new(answer)));
    assert_eq!(resolve(&store, session, sequence + 1, 5), answered);
    assert_eq!(in_session(&store, "k", session, 7, 1), Err(Rejection::SequenceClosed(7)));
}

#[test]
fn what_is_resolved_is_definite() {
    let store = store();
    let session = grant(&store, 0, 1, 5);
    let resolve = |session, sequence| resolve(&store, session, sequence, 0);
    let answer = in_session(&store, "k", session, 1, 1);
    assert_eq!(resolve(session, 1), Ok(Resolution::Answered(Box::new(answer))));
    assert_eq!(resolve(session, 2), Ok(Resolution::Closed));
    assert_eq!(in_session(&store, "k", session, 2, 1), Err(Rejection::SequenceClosed(2)), "a late copy");
    assert_eq!(resolve(session, 2), Ok(Resolution::Closed));
    at(&store, 0, LeaseCommand::Revoke { lease: LeaseId(1) }).expect("revoked");
    assert_eq!(resolve(session, 1), Err(Rejection::SessionEnded));
}

#[test]
fn an_answer_that_is_too_large_says_that_the_write_was_applied() {
    let store = store();
    let session = grant(&store, 0, 1, 5);
    let large = "x".repeat(limits::SESSION_ANSWER_BYTES_MAX + 1);
    apply(&store, &Command::Put(put_of("k", &large, 0))).expect("put");
    let write = Write::Put(Put { prev_kv: true, ..put_of("k", "small", 0) });
    let Applied { revision, .. } =
        write_in_session(&store, write.clone(), &[], session, 1, 1).expect("written");
    let again = write_in_session(&store, write, &[], session, 1, 1);
    assert_eq!(again, Err(Rejection::AnswerNotKept(revision)));
}

#[test]
fn everything_comes_through_checkpoints_snapshots_and_rebuilds() {
    let disk = SimDisk::new(1);
    let (hash, lease, session);
    {
        let store = open(&disk).expect("an empty disk");
        lease = grant(&store, 100, 1, 5);
        session = grant(&store, 100, 2, 9);
        put(&store, "jobs/1", 1).expect("put");
        put(&store, "jobs/2", 2).expect("put");
        set_guard(&store, "data/", lock("jobs"));
        in_session(&store, "k", session, 1, 1).expect("written");
        store.checkpoint().expect("the disk works");
        // Later than the first checkpoint: changed, removed and new records.
        renew(&store, 200, &[lease]);
        delete(&store, "jobs/1");
        in_session(&store, "k2", session, 2, 2).expect("written");
        let view = store.view();
        store.checkpoint().expect("the disk works");
        assert_eq!(view.holder(&bytes("jobs")).expect("readable").expect("held").key, "jobs/2");
        hash = store.view().hash();
    }
    let store = open(&disk).expect("it was closed in order");
    assert_eq!(store.view().hash(), hash);
    assert_eq!(store.due_leases(LeaseTime(5_200), 9), [lease]);
    assert_eq!(store.lease_count(), 2);
    assert_eq!(holder(&store, "jobs").map(|(key, _)| key), Some("jobs/2".to_owned()));
    assert_eq!(in_session(&store, "k", session, 1, 1), Err(Rejection::SequenceClosed(1)));
    assert!(matches!(put(&store, "data/x", 0), Err(Rejection::GuardedRange { .. })));
    let scrubbed = ringfence_store::Scrub::begin(&store.view()).step(&store.view(), u64::MAX).expect("sound");
    assert!(matches!(scrubbed, ringfence_store::ScrubStep::Sound { .. }));

    store.write_snapshot("snap").expect("written");
    let summary = snapshot_file::inspect(&disk, "snap").expect("whole");
    assert_eq!(summary.hash, store.view().hash());
    let other = SimDisk::new(2);
    crate::support::copy_file(&disk, "snap", &other);
    let target = open(&other).expect("an empty disk");
    crate::support::install(&target, "snap").expect("whole");
    assert_eq!(target.view().hash(), store.view().hash());
    assert_eq!(target.due_leases(LeaseTime(5_200), 9), [lease]);

    // Of all this a new cluster keeps the guards, and its clock.
    let restored = SimDisk::new(3);
    crate::support::copy_file(&disk, "snap", &restored);
    let new = SimDisk::new(4);
    snapshot_file::restore(&restored, "snap", &new).expect("restored");
    let new = open(&new).expect("whole");
    assert_eq!((new.lease_count(), holder(&new, "jobs"), new.view().guards().len()), (0, None, 1));
    assert_eq!(new.view().lease_clock(), store.view().lease_clock());
    assert!(!exists(&new, "jobs/2"));
}

#[test]
fn readers_see_the_records_of_their_own_state() {
    let store = store();
    let lease = grant(&store, 0, 1, 5);
    put(&store, "jobs/1", 1).expect("put");
    let view = store.view();
    at(&store, 0, LeaseCommand::Revoke { lease: LeaseId(1) }).expect("revoked");
    grant(&store, 0, 2, 5);
    assert_eq!(view.leases().expect("readable").iter().map(|lease| lease.grant).collect::<Vec<_>>(), [lease]);
    assert!(view.holder(&bytes("jobs")).expect("readable").is_some());
    assert_eq!(view.lease_keys(LeaseId(1)).expect("readable"), [Bytes::from_static(b"jobs/1")]);
    assert_eq!(store.view().leases().expect("readable").len(), 1);
    assert_eq!(store.view().holder(&bytes("jobs")).expect("readable"), None);
}
