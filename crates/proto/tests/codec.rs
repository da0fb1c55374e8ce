//! The log's format: what is written can be read back, the bytes of a known command never change, and damage is an
//! error.

use bytes::Bytes;
use proptest::prelude::*;
use ringfence_proto::command::DecodeError;
use ringfence_proto::{command, outcome};
use ringfence_types::{
    Alarm, AlarmKind, Applied, Command, Compare, CompareOperator, CompareTarget, DeleteRange,
    DeleteRangeReply, Index, KeyRange, KeyValue, LeaseId, Member, MemberChange, NodeId, Operation, Outcome,
    Put, PutLease, PutReply, PutValue, RangeEnd, RangeQuery, RangeReply, Rejection, Reply, Revision,
    SortOrder, SortTarget, Txn, TxnReply, Wanted,
};

fn bytes() -> impl Strategy<Value = Bytes> {
    prop::collection::vec(any::<u8>(), 0..12).prop_map(Bytes::from)
}

fn revision() -> impl Strategy<Value = Revision> {
    any::<i64>().prop_map(Revision)
}

fn range() -> impl Strategy<Value = KeyRange> {
    let end =
        prop_oneof![Just(RangeEnd::Single), Just(RangeEnd::Unbounded), bytes().prop_map(RangeEnd::Before)];
    (bytes(), end).prop_map(|(start, end)| KeyRange { start, end })
}

fn put() -> impl Strategy<Value = Put> {
    let value = prop_oneof![bytes().prop_map(PutValue::Set), Just(PutValue::Keep)];
    let lease = prop_oneof![any::<i64>().prop_map(|id| PutLease::Set(LeaseId(id))), Just(PutLease::Keep)];
    (bytes(), value, lease, any::<bool>()).prop_map(|(key, value, lease, prev_kv)| Put {
        key,
        value,
        lease,
        prev_kv,
    })
}

fn delete_range() -> impl Strategy<Value = DeleteRange> {
    (range(), any::<bool>()).prop_map(|(range, prev_kv)| DeleteRange { range, prev_kv })
}

fn query() -> impl Strategy<Value = RangeQuery> {
    let order = prop::sample::select(vec![SortOrder::None, SortOrder::Ascend, SortOrder::Descend]);
    let target = prop::sample::select(vec![
        SortTarget::Key,
        SortTarget::Version,
        SortTarget::Create,
        SortTarget::Mod,
        SortTarget::Value,
    ]);
    let bounds = (revision(), revision(), revision(), revision());
    (range(), any::<u64>(), prop::option::of(revision()), order, target, any::<[bool; 2]>(), bounds).prop_map(
        |(range, limit, revision, sort_order, sort_target, [keys_only, count_only], bounds)| RangeQuery {
            range,
            limit,
            revision,
            sort_order,
            sort_target,
            keys_only,
            count_only,
            min_mod_revision: bounds.0,
            max_mod_revision: bounds.1,
            min_create_revision: bounds.2,
            max_create_revision: bounds.3,
        },
    )
}

fn compare() -> impl Strategy<Value = Compare> {
    let operator = prop::sample::select(vec![
        CompareOperator::Equal,
        CompareOperator::Greater,
        CompareOperator::Less,
        CompareOperator::NotEqual,
    ]);
    let target = prop_oneof![
        any::<i64>().prop_map(CompareTarget::Version),
        revision().prop_map(CompareTarget::Create),
        revision().prop_map(CompareTarget::Mod),
        bytes().prop_map(CompareTarget::Value),
        any::<i64>().prop_map(|id| CompareTarget::Lease(LeaseId(id))),
    ];
    (range(), operator, target).prop_map(|(range, operator, target)| Compare { range, operator, target })
}

fn txn() -> impl Strategy<Value = Txn> {
    let leaf = prop_oneof![
        query().prop_map(Operation::Range),
        put().prop_map(Operation::Put),
        delete_range().prop_map(Operation::DeleteRange),
    ];
    let operation = leaf.prop_recursive(3, 24, 4, |inner| txn_of(inner).prop_map(Operation::Txn));
    txn_of(operation)
}

fn txn_of(operation: impl Strategy<Value = Operation> + Clone) -> impl Strategy<Value = Txn> {
    let list = prop::collection::vec(operation, 0..4);
    (prop::collection::vec(compare(), 0..3), list.clone(), list)
        .prop_map(|(compares, success, failure)| Txn { compares, success, failure })
}

fn urls() -> impl Strategy<Value = Vec<String>> {
    prop::collection::vec("[a-z:/]{0,8}", 0..3)
}

fn wanted() -> impl Strategy<Value = Wanted> {
    prop_oneof![Just(Wanted::Voter), Just(Wanted::Learner), Just(Wanted::Removed)]
}

fn other_member() -> impl Strategy<Value = Option<NodeId>> {
    prop::option::of((1..=u64::MAX).prop_map(NodeId))
}

fn member() -> impl Strategy<Value = Member> {
    let texts = ("[a-zß]{0,8}", urls(), urls());
    (any::<u64>(), texts, any::<u64>(), wanted(), other_member()).prop_map(
        |(id, (name, peer_urls, client_urls), disk_id, wanted, replaces)| Member {
            id: NodeId(id),
            name,
            peer_urls,
            client_urls,
            disk_id,
            wanted,
            replaces,
        },
    )
}

fn member_change() -> impl Strategy<Value = MemberChange> {
    let id = || any::<u64>().prop_map(NodeId);
    prop_oneof![
        (urls(), wanted(), other_member()).prop_map(|(peer_urls, wanted, replaces)| MemberChange::Add {
            peer_urls,
            wanted,
            replaces
        }),
        ("[a-zß]{0,8}", urls(), any::<u64>(), wanted()).prop_map(|(name, peer_urls, disk_id, wanted)| {
            MemberChange::Join { name, peer_urls, disk_id, wanted }
        }),
        (id(), urls()).prop_map(|(id, peer_urls)| MemberChange::Update { id, peer_urls }),
        id().prop_map(|id| MemberChange::Promote { id }),
        id().prop_map(|id| MemberChange::Remove { id }),
    ]
}

fn any_command() -> impl Strategy<Value = Command> {
    prop_oneof![
        put().prop_map(Command::Put),
        delete_range().prop_map(Command::DeleteRange),
        txn().prop_map(Command::Txn),
        revision().prop_map(|revision| Command::Compact { revision }),
        (alarm(), any::<bool>()).prop_map(|(alarm, raised)| Command::ChangeAlarm { alarm, raised }),
        (any::<u64>(), "[a-zß]{0,8}", urls(), urls()).prop_map(|(id, name, peer_urls, client_urls)| {
            Command::PublishMember { id: NodeId(id), name, peer_urls, client_urls }
        }),
        member_change().prop_map(Command::ChangeMember),
    ]
}

fn alarm() -> impl Strategy<Value = Alarm> {
    (any::<u64>(), prop_oneof![Just(AlarmKind::Corrupt), Just(AlarmKind::NoSpace)])
        .prop_map(|(member, kind)| Alarm { member: NodeId(member), kind })
}

fn key_value() -> impl Strategy<Value = KeyValue> {
    (bytes(), revision(), revision(), any::<i64>(), bytes(), any::<i64>()).prop_map(
        |(key, create_revision, mod_revision, version, value, lease)| KeyValue {
            key,
            create_revision,
            mod_revision,
            version,
            value,
            lease: LeaseId(lease),
        },
    )
}

fn reply() -> impl Strategy<Value = Reply> {
    let kvs = || prop::collection::vec(key_value(), 0..4);
    let leaf = prop_oneof![
        Just(Reply::Blank),
        Just(Reply::Compact),
        Just(Reply::PublishMember),
        member().prop_map(Reply::Member),
        prop::collection::vec(alarm(), 0..3).prop_map(Reply::Alarms),
        prop::option::of(key_value()).prop_map(|prev_kv| Reply::Put(PutReply { prev_kv })),
        (any::<u64>(), kvs())
            .prop_map(|(deleted, prev_kvs)| Reply::DeleteRange(DeleteRangeReply { deleted, prev_kvs })),
        (kvs(), any::<bool>(), any::<u64>()).prop_map(|(kvs, more, count)| Reply::Range(RangeReply {
            kvs,
            more,
            count
        })),
    ];
    leaf.prop_recursive(3, 16, 4, |inner| {
        (any::<bool>(), prop::collection::vec(inner, 0..4))
            .prop_map(|(succeeded, replies)| Reply::Txn(TxnReply { succeeded, replies }))
    })
}

fn any_outcome() -> impl Strategy<Value = Outcome> {
    prop_oneof![
        (revision(), any::<u64>(), reply()).prop_map(|(revision, index, reply)| Ok(Applied {
            revision,
            index: Index(index),
            reply
        })),
        revision().prop_map(|oldest| Err(Rejection::Compacted { oldest })),
        revision().prop_map(|current| Err(Rejection::FutureRevision { current })),
        Just(Err(Rejection::KeyNotFound)),
        Just(Err(Rejection::LeaseNotFound)),
        Just(Err(Rejection::CorruptCluster)),
        "[a-z]{0,8}".prop_map(|kind| Err(Rejection::UnknownCommand(kind))),
        (1..=u64::MAX).prop_map(|id| Err(Rejection::MemberNotFound(NodeId(id)))),
        (1..=u64::MAX).prop_map(|id| Err(Rejection::MemberRemoved(NodeId(id)))),
        ("[a-z]{0,8}", 1..=u64::MAX)
            .prop_map(|(what, id)| Err(Rejection::MemberTaken { what, member: NodeId(id) })),
        (1..1000usize).prop_map(|members| Err(Rejection::TooManyMembers(members))),
    ]
}

proptest! {
    #[test]
    fn a_command_comes_back_as_it_was_written(written in any_command()) {
        prop_assert_eq!(command::decode(&command::encode(&written)).unwrap(), written);
    }

    #[test]
    fn an_outcome_comes_back_as_it_was_written(written in any_outcome()) {
        prop_assert_eq!(outcome::decode(&outcome::encode(&written)).unwrap(), written);
    }

    #[test]
    fn any_bytes_are_a_command_or_an_error_and_a_command_is_stable(noise in prop::collection::vec(any::<u8>(), 0..64)) {
        if let Ok(read) = command::decode(&Bytes::from(noise)) {
            prop_assert_eq!(command::decode(&command::encode(&read)).unwrap(), read);
        }
    }
}

#[test]
fn decoded_keys_and_values_share_the_memory_of_the_message() {
    let encoded = command::encode(&Command::Put(Put {
        key: Bytes::from_static(b"key"),
        value: PutValue::Set(Bytes::from(vec![7; 4096])),
        lease: PutLease::Set(LeaseId(0)),
        prev_kv: false,
    }));
    let Command::Put(Put { key, value: PutValue::Set(value), .. }) = command::decode(&encoded).unwrap()
    else {
        panic!("a put was written");
    };
    let message = encoded.as_ptr_range();
    assert!(message.contains(&key.as_ptr()) && message.contains(&value.as_ptr()));
}

/// The bytes of one command of each kind. They lie in logs on disks: this test may gain lines, never change one.
#[test]
fn the_bytes_of_known_commands_never_change() {
    let b = |text: &'static str| Bytes::from_static(text.as_bytes());
    let put = |value, lease| Put { key: b("k"), value, lease, prev_kv: true };
    let golden = [
        (Command::Put(put(PutValue::Set(b("v")), PutLease::Set(LeaseId(5)))), "0a0a0a016b12017618052001"),
        (Command::Put(put(PutValue::Keep, PutLease::Keep)), "0a090a016b200128013001"),
        (
            Command::DeleteRange(DeleteRange { range: KeyRange::from_etcd(b("a"), b("c")), prev_kv: false }),
            "12080a060a0161120163",
        ),
        (
            Command::Txn(Txn {
                compares: vec![Compare {
                    range: KeyRange::single(b("k")),
                    operator: CompareOperator::NotEqual,
                    target: CompareTarget::Mod(Revision(0)),
                }],
                success: vec![Operation::Range(RangeQuery::new(KeyRange::all()))],
                failure: vec![Operation::Put(put(PutValue::Set(b("")), PutLease::Set(LeaseId(0))))],
            }),
            "1a1c0a090a030a016b1003280012060a040a0218011a0712050a016b2001",
        ),
        (Command::Compact { revision: Revision(300) }, "220308ac02"),
        (
            Command::ChangeAlarm {
                alarm: Alarm { member: NodeId(3), kind: AlarmKind::Corrupt },
                raised: true,
            },
            "c201080a04080310011001",
        ),
        (
            Command::PublishMember {
                id: NodeId(3),
                name: "n3".to_owned(),
                peer_urls: vec!["http://p".to_owned()],
                client_urls: vec!["http://c".to_owned()],
            },
            "82011a080312026e331a08687474703a2f2f702208687474703a2f2f63",
        ),
    ];
    for (written, expected) in golden {
        let encoded = command::encode(&written);
        assert_eq!(hex(&encoded), expected, "{written:?}");
        assert_eq!(command::decode(&encoded).unwrap(), written);
    }
}

#[test]
fn what_no_writer_writes_is_refused() {
    let decode = |text: &str| command::decode(&unhex(text)).unwrap_err();
    // Nothing at all; a kind (field 99) that this version does not know.
    assert!(matches!(decode(""), DecodeError::Unknown { field: "Command.kind" }));
    assert!(matches!(decode("9a0600"), DecodeError::Unknown { field: "Command.kind" }));
    // A put that keeps the value and brings one; a range whose end is the flag `unbounded` set to false.
    assert!(matches!(decode("0a080a016b1201762801"), DecodeError::Contradiction { field: "Put.value" }));
    assert!(matches!(decode("12040a021800"), DecodeError::Contradiction { field: "KeyRange.unbounded" }));
    assert!(matches!(decode("1200"), DecodeError::Unknown { field: "DeleteRange.range" }));
    assert!(matches!(decode("0a050a"), DecodeError::Malformed(_)));
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn unhex(text: &str) -> Bytes {
    (0..text.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(&text[at..at + 2], 16).expect("hex digits"))
        .collect()
}
