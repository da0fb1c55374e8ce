//! Random commands and questions, over few keys, so that they meet.

use bytes::Bytes;
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use ringfence_types::{
    Command, Compare, CompareOperator, CompareTarget, Conditional, DeleteRange, Fence, Grant, GuardChange,
    Index, KeyRange, LeaseCommand, LeaseId, LeaseTime, NodeId, Operation, Put, PutLease, PutValue,
    RangeQuery, Revision, Scope, SortOrder, SortTarget, Txn, Write,
};

/// Keys of which some are prefixes of others, some hold zeros and 0xff, as separators in a layout might.
/// Some stand below the locks `a` and `l`.
const KEYS: [&[u8]; 14] = [
    b"a",
    b"a\0",
    b"a\0\0",
    b"aa",
    b"ab",
    b"b",
    b"b\xff",
    b"b\xff\xff\xff",
    b"c",
    b"\xff",
    b"l/1",
    b"l/2",
    b"l/3",
    b"a/1",
];
/// The locks that keys may be candidates of.
pub const LOCKS: [&[u8]; 2] = [b"a", b"l"];
const LEASES: std::ops::Range<i64> = 1..4;

const VALUES: [&[u8]; 4] = [b"", b"x", b"y", b"zz"];

pub fn key() -> impl Strategy<Value = Bytes> {
    prop::sample::select(&KEYS[..]).prop_map(Bytes::from_static)
}

fn value() -> impl Strategy<Value = Bytes> {
    prop_oneof![
        8 => prop::sample::select(&VALUES[..]).prop_map(Bytes::from_static),
        1 => (0..20_000usize).prop_map(|len| Bytes::from(vec![7; len])),
    ]
}

pub fn range() -> impl Strategy<Value = KeyRange> {
    prop_oneof![
        4 => key().prop_map(KeyRange::single),
        2 => (key(), key()).prop_map(|(start, end)| KeyRange::from_etcd(start, end)),
        1 => key().prop_map(|start| KeyRange::from_etcd(start, Bytes::from_static(&[0]))),
        1 => key().prop_map(KeyRange::prefix),
        1 => Just(KeyRange::all()),
    ]
}

/// Revisions around those that a short history has.
pub fn revision() -> impl Strategy<Value = Revision> {
    (0..40i64).prop_map(Revision)
}

pub fn query() -> impl Strategy<Value = RangeQuery> {
    let order = prop::sample::select(&[SortOrder::None, SortOrder::Ascend, SortOrder::Descend][..]);
    let target = prop::sample::select(
        &[SortTarget::Key, SortTarget::Version, SortTarget::Create, SortTarget::Mod, SortTarget::Value][..],
    );
    let bound = || prop_oneof![3 => Just(Revision(0)), 1 => revision()];
    (
        (range(), 0..5u64, option::of(revision()), any::<bool>(), prop::bool::weighted(0.2)),
        (order, target, bound(), bound(), bound(), bound()),
    )
        .prop_map(
            |((range, limit, revision, keys_only, count_only), (sort_order, sort_target, a, b, c, d))| {
                RangeQuery {
                    range,
                    limit,
                    revision,
                    sort_order,
                    sort_target,
                    keys_only,
                    count_only,
                    min_mod_revision: a,
                    max_mod_revision: b,
                    min_create_revision: c,
                    max_create_revision: d,
                }
            },
        )
}

fn put() -> impl Strategy<Value = Put> {
    let value = prop_oneof![9 => value().prop_map(PutValue::Set), 1 => Just(PutValue::Keep)];
    let lease = prop_oneof![
        20 => Just(PutLease::Set(LeaseId(0))),
        2 => Just(PutLease::Keep),
        6 => LEASES.prop_map(|lease| PutLease::Set(LeaseId(lease))),
        1 => Just(PutLease::Set(LeaseId(9))),
    ];
    (key(), value, lease, any::<bool>()).prop_map(|(key, value, lease, prev_kv)| Put {
        key,
        value,
        lease,
        prev_kv,
    })
}

fn delete() -> impl Strategy<Value = DeleteRange> {
    (range(), any::<bool>()).prop_map(|(range, prev_kv)| DeleteRange { range, prev_kv })
}

fn compare() -> impl Strategy<Value = Compare> {
    let operator = prop::sample::select(
        &[CompareOperator::Equal, CompareOperator::Greater, CompareOperator::Less, CompareOperator::NotEqual]
            [..],
    );
    let target = prop_oneof![
        (0..4i64).prop_map(CompareTarget::Version),
        revision().prop_map(CompareTarget::Create),
        revision().prop_map(CompareTarget::Mod),
        value().prop_map(CompareTarget::Value),
        (0..2i64).prop_map(|lease| CompareTarget::Lease(LeaseId(lease))),
    ];
    (range(), operator, target).prop_map(|(range, operator, target)| Compare { range, operator, target })
}

fn txn() -> impl Strategy<Value = Txn> {
    let leaf = prop_oneof![
        3 => put().prop_map(Operation::Put),
        2 => query().prop_map(Operation::Range),
        1 => delete().prop_map(Operation::DeleteRange),
    ];
    let operation = leaf.prop_recursive(2, 12, 3, |inner| {
        (vec(compare(), 0..2), vec(inner.clone(), 0..3), vec(inner, 0..3))
            .prop_map(|(compares, success, failure)| Operation::Txn(Txn { compares, success, failure }))
    });
    (vec(compare(), 0..3), vec(operation.clone(), 0..4), vec(operation, 0..4))
        .prop_map(|(compares, success, failure)| Txn { compares, success, failure })
}

fn publication() -> impl Strategy<Value = Command> {
    (1..4u64, 0..3usize).prop_map(|(id, urls)| Command::PublishMember {
        id: NodeId(id),
        name: format!("node-{id}"),
        peer_urls: vec!["http://peer".to_owned()],
        client_urls: (0..urls).map(|place| format!("http://client-{place}")).collect(),
    })
}

/// Every grant of every lease that a short history can have made: nobody knows which were.
fn grants() -> Vec<Grant> {
    let of = |lease| (0..80).map(move |index| Grant { lease: LeaseId(lease), index: Index(index) });
    LEASES.flat_map(of).collect()
}

fn lease() -> impl Strategy<Value = Command> {
    let command = prop_oneof![
        6 => (LEASES, 0..6u64)
            .prop_map(|(lease, ttl_seconds)| LeaseCommand::Grant { lease: LeaseId(lease), ttl_seconds }),
        1 => LEASES.prop_map(|lease| LeaseCommand::Revoke { lease: LeaseId(lease) }),
        2 => Just(LeaseCommand::Renew { grants: grants() }),
        2 => Just(LeaseCommand::Expire { grants: grants() }),
        1 => Just(LeaseCommand::Tick),
    ];
    (command, 0..20_000u64).prop_map(|(command, clock)| Command::Lease { command, clock: LeaseTime(clock) })
}

/// Comes and goes under one lock, so that it is held, waited for and handed on.
fn queueing() -> impl Strategy<Value = Command> {
    let key = || (1..4u8).prop_map(|n| Bytes::from(vec![b'l', b'/', b'0' + n]));
    let comes = (key(), LEASES).prop_map(|(key, lease)| {
        let (value, lease) = (PutValue::Set(Bytes::new()), PutLease::Set(LeaseId(lease)));
        Command::Put(Put { key, value, lease, prev_kv: false })
    });
    let goes = key()
        .prop_map(|key| Command::DeleteRange(DeleteRange { range: KeyRange::single(key), prev_kv: false }));
    prop_oneof![3 => comes, 1 => goes]
}

fn scope() -> impl Strategy<Value = Scope> {
    prop_oneof![
        3 => prop::sample::select(&LOCKS[..]).prop_map(|name| Scope::Lock(Bytes::from_static(name))),
        1 => key().prop_map(Scope::Key),
    ]
}

fn fences() -> impl Strategy<Value = Vec<Fence>> {
    let fence = (scope(), 2..20i64).prop_map(|(scope, token)| Fence { scope, token: Revision(token) });
    vec(fence, 0..3)
}

fn conditional() -> impl Strategy<Value = Command> {
    let write = prop_oneof![
        3 => put().prop_map(Write::Put),
        1 => delete().prop_map(Write::DeleteRange),
        2 => txn().prop_map(Write::Txn),
    ];
    (write, fences())
        .prop_map(|(write, fences)| Command::Conditional(Conditional { write, fences, session: None }))
}

fn guard() -> impl Strategy<Value = Command> {
    (range(), option::weighted(0.3, scope()), fences(), prop::bool::weighted(0.8)).prop_map(
        |(range, scope, fences, overrides)| {
            Command::ChangeGuard(GuardChange { range, scope, fences, overrides })
        },
    )
}

pub fn command() -> impl Strategy<Value = Command> {
    prop_oneof![
        8 => put().prop_map(Command::Put),
        3 => delete().prop_map(Command::DeleteRange),
        4 => txn().prop_map(Command::Txn),
        1 => revision().prop_map(|revision| Command::Compact { revision }),
        1 => publication(),
        5 => lease(),
        6 => queueing(),
        2 => conditional(),
        1 => guard(),
    ]
}
