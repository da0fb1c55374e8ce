//! What writes carry beyond etcd's API: how it is parsed, and that nothing of it is overlooked.

use std::time::Duration;

use bytes::Bytes;
use proptest::prelude::*;
use prost::Message;
use ringfence_proto::etcdserverpb::request_op::Request;
use ringfence_proto::etcdserverpb::{self as etcd};
use ringfence_proto::extension::{self, AckWish, ExtensionError};
use ringfence_proto::freshness::FreshnessError;
use ringfence_proto::request::{self, ParseError, Transaction};
use ringfence_proto::ringfence_v1::ack::Level;
use ringfence_proto::scan::{scan, shape_of};
use ringfence_proto::{command, ringfence_v1 as v1, v3electionpb as election, v3lockpb as locks};
use ringfence_types::limits::{FENCES_MAX, SCOPE_BYTES_MAX, TXN_DEPTH_MAX};
use ringfence_types::{
    Ack, Command, Conditional, Fence, Freshness, Grant, Index, KeyRange, LeaseId, Revision, Scope, Write,
};

fn lock(name: &'static str, token: i64) -> v1::Fence {
    fence(v1::scope::Kind::Lock(name.into()), token)
}

fn fence(kind: v1::scope::Kind, token: i64) -> v1::Fence {
    v1::Fence { scope: Some(v1::Scope { kind: Some(kind) }), token }
}

fn stamp(lease: i64, grant: u64, sequence: u64, first_incomplete: u64) -> v1::SessionStamp {
    v1::SessionStamp { session: Some(v1::Session { lease, grant }), sequence, first_incomplete }
}

fn put(fences: Vec<v1::Fence>, session: Option<v1::SessionStamp>) -> etcd::PutRequest {
    etcd::PutRequest { key: "k".into(), value: "v".into(), fences, session, ..Default::default() }
}

fn op(request: Request) -> etcd::RequestOp {
    etcd::RequestOp { request: Some(request) }
}

fn txn(success: Vec<etcd::RequestOp>) -> etcd::TxnRequest {
    etcd::TxnRequest { success, ..Default::default() }
}

fn conditional(command: Command) -> Conditional {
    match command {
        Command::Conditional(conditional) => conditional,
        other => panic!("{other:?} has conditions"),
    }
}

#[test]
fn a_request_without_extensions_is_a_plain_command() {
    assert!(matches!(request::put(put(vec![], None)).unwrap(), Command::Put(_)));
    let delete = etcd::DeleteRangeRequest { key: "k".into(), ..Default::default() };
    assert!(matches!(request::delete_range(delete).unwrap(), Command::DeleteRange(_)));
    let write = request::txn(txn(vec![op(Request::RequestPut(put(vec![], None)))])).unwrap();
    assert!(matches!(write, Transaction::Write(Command::Txn(_))));
}

#[test]
fn fences_and_a_session_make_a_write_conditional() {
    let kinds = vec![lock("a/b", 7), fence(v1::scope::Kind::Key("k".into()), 9), lock("", 1)];
    let expected = [
        Fence { scope: Scope::Lock("a/b".into()), token: Revision(7) },
        Fence { scope: Scope::Key("k".into()), token: Revision(9) },
        Fence { scope: Scope::Lock("".into()), token: Revision(1) },
    ];
    let made = request::put(put(kinds.clone(), Some(stamp(5, 6, 7, 7)))).unwrap();
    let checked = extension::checked(&made).unwrap();
    assert_eq!(checked, v1::Checked { fences: kinds.clone(), session: true, acks: None });
    let made = conditional(made);
    assert_eq!(made.fences, expected);
    let session = made.session.unwrap();
    assert_eq!(session.session, Grant { lease: LeaseId(5), index: Index(6) });
    assert_eq!((session.sequence, session.first_incomplete), (7, 7));
    assert!(matches!(made.write, Write::Put(_)));

    let delete = etcd::DeleteRangeRequest { key: "k".into(), fences: kinds.clone(), ..Default::default() };
    let made = conditional(request::delete_range(delete).unwrap());
    assert!(matches!(made.write, Write::DeleteRange(_)) && made.fences == expected && made.session.is_none());
    let write = etcd::TxnRequest {
        session: Some(stamp(1, 1, 1, 0)),
        ..txn(vec![op(Request::RequestPut(put(vec![], None)))])
    };
    let Transaction::Write(made) = request::txn(write).unwrap() else { panic!("it puts") };
    assert!(matches!(conditional(made).write, Write::Txn(_)));
    assert_eq!(extension::checked(&Command::Compact { revision: Revision(1) }), None);
}

#[test]
fn what_makes_no_sense_is_refused() {
    use ExtensionError::*;
    let key = |key: &'static str, token| fence(v1::scope::Kind::Key(key.into()), token);
    let scopeless = |scope| v1::Fence { scope, token: 1 };
    let long = Bytes::from(vec![b'x'; SCOPE_BYTES_MAX + 1]);
    let (low, negative) = (
        InvalidToken { scope: Scope::Lock("a".into()), token: 0 },
        InvalidToken { scope: Scope::Lock("a".into()), token: -3 },
    );
    for (request, expected) in [
        (put(vec![scopeless(None)], None), NoScope),
        (put(vec![scopeless(Some(v1::Scope { kind: None }))], None), NoScope),
        (put(vec![key("", 3)], None), EmptyKey),
        (put(vec![fence(v1::scope::Kind::Lock(long.clone()), 1)], None), ScopeTooLong(long.len())),
        (put(vec![lock("a", 0)], None), low),
        (put(vec![lock("a", -3)], None), negative),
        (put(vec![lock("a", 1), key("a", 1), lock("a", 2)], None), ScopeTwice(Scope::Lock("a".into()))),
        (put(vec![lock("a", 1); FENCES_MAX + 1], None), TooManyFences(FENCES_MAX + 1)),
        (put(vec![], Some(v1::SessionStamp { sequence: 1, ..Default::default() })), NoSession),
        (put(vec![], Some(stamp(0, 1, 1, 1))), NoSession),
        (put(vec![], Some(stamp(1, 0, 1, 1))), NoSession),
        (put(vec![], Some(stamp(1, 1, 0, 0))), NoSequence),
        (put(vec![], Some(stamp(1, 1, 3, 4))), SequenceComplete { sequence: 3, first_incomplete: 4 }),
    ] {
        assert_eq!(request::put(request), Err(ParseError::Extension(expected)));
    }
    let get = || op(Request::RequestRange(etcd::RangeRequest { key: "k".into(), ..Default::default() }));
    for read in [
        etcd::TxnRequest { fences: vec![lock("a", 1)], ..txn(vec![get()]) },
        etcd::TxnRequest { session: Some(stamp(1, 1, 1, 1)), ..txn(vec![]) },
    ] {
        assert_eq!(request::txn(read), Err(ParseError::Extension(OnRead)));
    }
    let fenced = || put(vec![lock("a", 1)], None);
    let delete =
        etcd::DeleteRangeRequest { key: "k".into(), fences: vec![lock("a", 1)], ..Default::default() };
    let inner = etcd::TxnRequest { session: Some(stamp(1, 1, 1, 1)), ..Default::default() };
    for nested in [
        txn(vec![op(Request::RequestPut(fenced()))]),
        txn(vec![op(Request::RequestDeleteRange(delete))]),
        txn(vec![op(Request::RequestTxn(inner))]),
        txn(vec![op(Request::RequestTxn(txn(vec![op(Request::RequestPut(fenced()))])))]),
        txn(vec![op(Request::RequestPut(etcd::PutRequest {
            ack: ack(Level::All(true)),
            ..put(vec![], None)
        }))]),
        txn(vec![op(Request::RequestTxn(etcd::TxnRequest { freshness: any_state(), ..txn(vec![get()]) }))]),
    ] {
        assert_eq!(request::txn(nested.clone()), Err(ParseError::Extension(Nested)));
        let shape = shape_of::<etcd::TxnRequest>().unwrap();
        assert_eq!(scan(&nested.encode_to_vec(), shape), Err(Nested), "the bytes show it too");
    }
}

fn ack(level: Level) -> Option<v1::Ack> {
    Some(v1::Ack { level: Some(level), within_ms: 0 })
}

fn any_state() -> Option<v1::Freshness> {
    Some(v1::Freshness { kind: Some(v1::freshness::Kind::Any(true)) })
}

#[test]
fn acknowledgement_levels_are_taken_and_checked() {
    let taken = |level| AckWish::take(&mut etcd::PutRequest { ack: level, ..put(vec![], None) });
    let wish = |ack| Ok(Some(AckWish { ack, within: None }));
    assert_eq!(taken(None), Ok(None));
    assert_eq!(taken(ack(Level::Quorum(true))), wish(Ack::Quorum));
    assert_eq!(taken(ack(Level::All(true))), wish(Ack::All));
    assert_eq!(taken(ack(Level::Count(2))), wish(Ack::Count(2)));
    let within = taken(Some(v1::Ack { level: Some(Level::All(true)), within_ms: 250 })).unwrap();
    assert_eq!(within.unwrap().within, Some(Duration::from_millis(250)));
    for nothing in [Some(v1::Ack::default()), ack(Level::All(false)), ack(Level::Count(0))] {
        assert_eq!(taken(nothing), Err(ExtensionError::NoLevel));
    }
    let check = |ack| AckWish { ack, within: None }.check(3);
    assert!(check(Ack::Count(1)).is_ok() && check(Ack::Count(3)).is_ok() && check(Ack::All).is_ok());
    assert_eq!(check(Ack::Count(4)), Err(ExtensionError::TooManyAcks { wanted: 4, voters: 3 }));
    // A level is no part of the write: the same write in a session is the same write whatever its caller waits for.
    let plain = put(vec![], Some(stamp(1, 1, 1, 1)));
    let mut with_ack = etcd::PutRequest { ack: ack(Level::All(true)), ..plain.clone() };
    assert!(AckWish::take(&mut with_ack).unwrap().is_some());
    assert_eq!(request::put(with_ack), request::put(plain));
}

#[test]
fn freshness_is_for_transactions_that_only_read() {
    let get = |serializable| {
        op(Request::RequestRange(etcd::RangeRequest { key: "k".into(), serializable, ..Default::default() }))
    };
    let fresh = |operation| etcd::TxnRequest { freshness: any_state(), ..txn(vec![operation]) };
    assert!(matches!(request::txn(fresh(get(false))), Ok(Transaction::Read(_, Freshness::Any))));
    assert_eq!(request::txn(fresh(get(true))), Err(ParseError::Freshness(FreshnessError::GivenTwice)));
    let write = fresh(op(Request::RequestPut(put(vec![], None))));
    assert_eq!(request::txn(write), Err(ParseError::Freshness(FreshnessError::OnWrite)));
}

#[test]
fn guards_and_resolutions_are_checked() {
    let change = |key: &'static str, range_end: &'static str| v1::ChangeGuardRequest {
        key: key.into(),
        range_end: range_end.into(),
        scope: lock("jobs", 1).scope,
        ..Default::default()
    };
    let Command::ChangeGuard(made) = request::guard_change(change("a", "b")).unwrap() else {
        panic!("it is one")
    };
    assert_eq!(made.range, KeyRange::from_etcd("a".into(), "b".into()));
    assert_eq!(made.scope, Some(Scope::Lock("jobs".into())));
    assert!(
        request::guard_change(change("a", "")).is_ok() && request::guard_change(change("a", "\0")).is_ok()
    );
    for (key, end) in [("b", "b"), ("b", "a")] {
        assert_eq!(request::guard_change(change(key, end)), Err(ParseError::EmptyGuard));
    }
    assert_eq!(request::guard_change(change("", "z")), Err(ParseError::KeyNotProvided));
    let long = v1::ChangeGuardRequest { key: vec![1; SCOPE_BYTES_MAX + 1].into(), ..change("", "") };
    assert_eq!(request::guard_change(long), Err(ParseError::GuardTooLong(SCOPE_BYTES_MAX + 1)));
    let unknown = v1::ChangeGuardRequest { scope: Some(v1::Scope { kind: None }), ..change("a", "b") };
    assert_eq!(request::guard_change(unknown), Err(ParseError::Extension(ExtensionError::NoScope)));

    let resolve = |session, sequence| {
        request::resolve(&v1::ResolveRequest { session, sequence, first_incomplete: sequence.min(2) })
    };
    let session = Some(v1::Session { lease: 3, grant: 4 });
    let expected = Command::Resolve {
        session: Grant { lease: LeaseId(3), index: Index(4) },
        sequence: 5,
        first_incomplete: 2,
    };
    assert_eq!(resolve(session, 5), Ok(expected));
    assert_eq!(resolve(session, 0), Err(ParseError::Extension(ExtensionError::NoSequence)));
    assert_eq!(resolve(None, 5), Err(ParseError::Extension(ExtensionError::NoSession)));
}

fn digest(request: etcd::PutRequest) -> u128 {
    let made = conditional(request::put(request).expect("it is well-formed"));
    made.session.expect("it was given one").digest
}

#[test]
fn a_digest_tells_writes_apart_and_copies_together_in_every_version() {
    let first = put(vec![lock("a", 1)], Some(stamp(5, 6, 7, 7)));
    // Written down once: another number here means that copies of a write that come in through members of two versions are
    // taken for two writes.
    assert_eq!(format!("{:032x}", digest(first.clone())), "83d0c018746f85c175a3c79db3d1a44e");
    let retried = etcd::PutRequest { session: Some(stamp(5, 6, 8, 8)), ..first.clone() };
    assert_eq!(digest(retried), digest(first.clone()), "the place in the session is no part of the write");
    for other in [
        etcd::PutRequest { value: "w".into(), ..first.clone() },
        etcd::PutRequest { key: "l".into(), ..first.clone() },
        etcd::PutRequest { prev_kv: true, ..first.clone() },
        etcd::PutRequest { fences: vec![lock("a", 2)], ..first.clone() },
        etcd::PutRequest { fences: vec![], ..first.clone() },
    ] {
        assert_ne!(digest(other), digest(first.clone()));
    }
}

/// A field as bytes: number, then a message of that content.
fn field(number: u32, content: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    prost::encoding::bytes::encode(number, &content.to_vec(), &mut bytes);
    bytes
}

#[test]
fn unknown_extensions_are_found_wherever_they_stand() {
    let put_shape = shape_of::<etcd::PutRequest>().unwrap();
    let txn_shape = shape_of::<etcd::TxnRequest>().unwrap();
    let plain = put(vec![lock("a", 1)], Some(stamp(1, 2, 3, 3))).encode_to_vec();
    assert_eq!(scan(&plain, put_shape), Ok(()));
    let with = |extra: Vec<u8>| [plain.clone(), extra].concat();
    assert_eq!(scan(&with(field(999, b"x")), put_shape), Ok(()), "a newer etcd's field is etcd's business");
    for number in [1004, 1005, 536_870_911] {
        let unknown = Err(ExtensionError::UnknownField(number));
        assert_eq!(scan(&with(field(number, b"")), put_shape), unknown);
        // In front of everything, and as a number instead of bytes.
        let mut varint = Vec::new();
        prost::encoding::uint64::encode(number, &1, &mut varint);
        assert_eq!(scan(&[varint, plain.clone()].concat(), put_shape), unknown);
        // Inside an operation, a compare, and an operation of a nested transaction.
        let operation = field(2, &field(number, b""));
        assert_eq!(scan(&field(2, &operation), txn_shape), unknown);
        assert_eq!(scan(&field(1, &field(number, b"")), txn_shape), unknown);
        let nested = field(3, &field(4, &field(2, &operation)));
        assert_eq!(scan(&nested, txn_shape), unknown);
        let compaction = shape_of::<etcd::CompactionRequest>().unwrap();
        assert_eq!(scan(&field(number, b""), compaction), unknown);
    }
    // A part of a fence or a session that this version does not know may be the part that matters.
    for (inside, number) in [
        (field(1000, &field(3, b"x")), 3),
        (field(1000, &field(1, &field(3, b"x"))), 3),
        (field(1001, &field(4, b"")), 4),
        (field(1001, &field(1, &field(3, b""))), 3),
    ] {
        assert_eq!(scan(&with(inside), put_shape), Err(ExtensionError::UnknownField(number)));
    }
    let token = field(1003, &field(6, &field(4, b"")));
    assert_eq!(scan(&token, txn_shape), Err(ExtensionError::UnknownField(4)));
    let guard = shape_of::<v1::ChangeGuardRequest>().unwrap();
    assert_eq!(scan(&field(6, b""), guard), Err(ExtensionError::UnknownField(6)));
    assert!(shape_of::<etcd::StatusRequest>().is_none() && shape_of::<etcd::PutResponse>().is_none());
}

/// Every extension that this version knows in a request survives the look at it, and the next number after it does not.
#[test]
fn every_request_that_may_change_something_or_say_how_fresh_its_answer_must_be_is_looked_through() {
    fn check<M: Message + Default + std::fmt::Debug + 'static>(full: M, first_unknown: u32) {
        let Some(shape) = shape_of::<M>() else { panic!("nobody looks through {full:?}") };
        let plain = full.encode_to_vec();
        assert_eq!(scan(&plain, shape), Ok(()), "{full:?}");
        for number in [first_unknown, first_unknown + 1, 536_870_911] {
            let unknown = Err(ExtensionError::UnknownField(number));
            let extended = [plain.clone(), field(number, b"x")].concat();
            assert!(M::decode(extended.as_slice()).is_ok(), "a decoder overlooks it");
            assert_eq!(scan(&extended, shape), unknown, "{full:?} with the field {number}");
            let mut extended = Vec::new();
            prost::encoding::uint64::encode(number, &7, &mut extended);
            assert_eq!(scan(&extended, shape), unknown, "{full:?} with the number {number}");
        }
    }
    let token = ringfence_types::CausalToken::new(1, 2, 3).expect("the revision is above 0");
    let freshness = Some(ringfence_proto::freshness::to_field(Freshness::Token(token)));
    let (name, key) = (|| Bytes::from_static(b"jobs"), || Bytes::from_static(b"jobs/1"));
    check(etcd::RangeRequest { key: key(), freshness, ..Default::default() }, 1001);
    check(put(vec![lock("a", 1)], Some(stamp(1, 2, 3, 3))), 1003);
    check(etcd::DeleteRangeRequest { fences: vec![lock("a", 1)], ..Default::default() }, 1003);
    check(etcd::TxnRequest { freshness, ..txn(vec![]) }, 1004);
    check(etcd::CompactionRequest { revision: 1, physical: true }, 1000);
    check(etcd::LeaseGrantRequest { ttl: 1, id: 2 }, 1000);
    check(etcd::LeaseRevokeRequest { id: 2 }, 1000);
    check(etcd::LeaseKeepAliveRequest { id: 2 }, 1000);
    check(etcd::LeaseTimeToLiveRequest { id: 2, keys: true, freshness }, 1001);
    check(etcd::LeaseLeasesRequest { freshness }, 1001);
    check(locks::LockRequest { name: name(), lease: 2 }, 1000);
    check(locks::UnlockRequest { key: key(), token: 3 }, 1001);
    let leader = || Some(election::LeaderKey { name: name(), key: key(), rev: 3, lease: 2 });
    check(election::CampaignRequest { name: name(), lease: 2, value: key() }, 1000);
    check(election::ProclaimRequest { leader: leader(), value: key() }, 1000);
    check(election::ResignRequest { leader: leader() }, 1000);
    check(election::LeaderRequest { name: name(), freshness }, 1001);
    check(etcd::MemberAddRequest { replaces: 5, ..Default::default() }, 1001);
    check(etcd::MemberRemoveRequest { id: 5 }, 1000);
    check(etcd::MemberUpdateRequest { id: 5, ..Default::default() }, 1000);
    check(etcd::MemberPromoteRequest { id: 5 }, 1000);
    check(etcd::AlarmRequest { member_id: 5, ..Default::default() }, 1000);
    check(etcd::MoveLeaderRequest { target_id: 5 }, 1000);
    let fences = vec![lock("a", 1)];
    let scope = fences[0].scope.clone();
    check(v1::ChangeGuardRequest { scope: scope.clone(), fences, ..Default::default() }, 6);
    check(v1::ListGuardsRequest { freshness }, 2);
    check(v1::InspectRequest { scope, waiters_max: 1, freshness }, 4);
    let session = Some(v1::Session { lease: 1, grant: 2 });
    check(v1::ResolveRequest { session, sequence: 4, first_incomplete: 3 }, 4);

    // In the leader's key that a call names, too.
    let of_leader = shape_of::<election::ResignRequest>().unwrap();
    let unknown = Err(ExtensionError::UnknownField(1000));
    assert_eq!(scan(&field(1, &field(1000, b"x")), of_leader), unknown);
}

#[test]
fn a_scan_goes_as_deep_as_a_request_may_and_no_deeper() {
    let shape = shape_of::<etcd::TxnRequest>().unwrap();
    let deep = |levels: usize| {
        let innermost = txn(vec![op(Request::RequestPut(put(vec![], None)))]);
        (1..levels).fold(innermost, |inner, _| txn(vec![op(Request::RequestTxn(inner))])).encode_to_vec()
    };
    assert_eq!(scan(&deep(TXN_DEPTH_MAX), shape), Ok(()));
    assert_eq!(scan(&deep(TXN_DEPTH_MAX + 1), shape), Err(ExtensionError::Malformed));
    let mut bytes = Vec::new();
    for _ in 0..100_000 {
        // Longer than what follows: cut off, and never followed deeper than a request may be.
        bytes.extend([2 << 3 | 2, 0xff, 0xff, 0x3f, 4 << 3 | 2, 0xff, 0xff, 0x3f]);
    }
    assert_eq!(scan(&bytes, shape), Err(ExtensionError::Malformed));
}

proptest! {
    #[test]
    fn whatever_comes_in_a_scan_ends_and_nothing_it_passed_is_lost(bytes in any::<Vec<u8>>()) {
        let shape = shape_of::<etcd::TxnRequest>().unwrap();
        let found = scan(&bytes, shape);
        if let Ok(message) = etcd::TxnRequest::decode(bytes.as_slice()) {
            // What a decoder reads, the scan can read too.
            prop_assert_ne!(found, Err(ExtensionError::Malformed));
            prop_assert_ne!(scan(&message.encode_to_vec(), shape), Err(ExtensionError::Malformed));
        }
    }

    #[test]
    fn an_extension_added_anywhere_to_a_request_is_found(
        keys in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..20), 1..6),
        number in 1002u32..=536_870_911,
        place in any::<prop::sample::Index>(),
        content in any::<Vec<u8>>(),
    ) {
        let puts: Vec<Vec<u8>> = keys
            .iter()
            .map(|key| etcd::PutRequest { key: Bytes::from(key.clone()), ..Default::default() }.encode_to_vec())
            .collect();
        let place = place.index(puts.len());
        let message = |extended: Option<usize>| -> Vec<u8> {
            puts.iter()
                .enumerate()
                .flat_map(|(at, put)| {
                    let mut put = put.clone();
                    if extended == Some(at) {
                        put.extend(field(number, &content));
                    }
                    field(2, &field(2, &put))
                })
                .collect()
        };
        let shape = shape_of::<etcd::TxnRequest>().unwrap();
        prop_assert_eq!(scan(&message(None), shape), Ok(()));
        prop_assert_eq!(scan(&message(Some(place)), shape), Err(ExtensionError::UnknownField(number)));
    }

    #[test]
    fn a_conditional_command_survives_the_log(
        fences in prop::collection::btree_map(any::<Vec<u8>>(), 1..i64::MAX, 0..FENCES_MAX),
        session in prop::option::of((1..i64::MAX, 1..u64::MAX, 1..u64::MAX)),
    ) {
        let fences = fences
            .into_iter()
            .map(|(name, token)| fence(v1::scope::Kind::Lock(name.into()), token))
            .collect();
        let session = session.map(|(lease, grant, sequence)| stamp(lease, grant, sequence, sequence));
        let made = request::put(put(fences, session)).unwrap();
        prop_assert_eq!(command::decode(&command::encode(&made)).unwrap(), made);
    }
}
