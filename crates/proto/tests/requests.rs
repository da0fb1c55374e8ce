//! The checks of form at the door, as tables of requests with what etcd makes of them.

use bytes::Bytes;
use ringfence_proto::etcdserverpb::request_op::Request;
use ringfence_proto::etcdserverpb::{self as etcd, compare::TargetUnion};
use ringfence_proto::request::{self, ParseError, Transaction};
use ringfence_proto::response;
use ringfence_types::limits::{TXN_DEPTH_MAX, TXN_OPERATIONS_MAX};
use ringfence_types::{
    CausalToken, CompareTarget, DeleteRangeReply, Freshness, KeyRange, NodeId, PutReply, RangeEnd,
    RangeQuery, RangeReply, Reply, Revision, SortOrder, SortTarget, Term, TxnReply,
};

fn b(text: &'static str) -> Bytes {
    Bytes::from_static(text.as_bytes())
}

fn op(request: Request) -> etcd::RequestOp {
    etcd::RequestOp { request: Some(request) }
}

fn put(key: &'static str) -> etcd::RequestOp {
    op(Request::RequestPut(etcd::PutRequest { key: b(key), ..Default::default() }))
}

fn delete(key: &'static str, range_end: &'static str) -> etcd::RequestOp {
    op(Request::RequestDeleteRange(etcd::DeleteRangeRequest {
        key: b(key),
        range_end: b(range_end),
        ..Default::default()
    }))
}

fn get(key: &'static str, serializable: bool) -> etcd::RequestOp {
    op(Request::RequestRange(etcd::RangeRequest { key: b(key), serializable, ..Default::default() }))
}

fn nested(success: Vec<etcd::RequestOp>, failure: Vec<etcd::RequestOp>) -> etcd::RequestOp {
    op(Request::RequestTxn(etcd::TxnRequest { compare: vec![], success, failure, ..Default::default() }))
}

fn txn(success: Vec<etcd::RequestOp>, failure: Vec<etcd::RequestOp>) -> etcd::TxnRequest {
    etcd::TxnRequest { compare: vec![], success, failure, ..Default::default() }
}

/// A range without a wish in its metadata.
fn read(request: etcd::RangeRequest) -> Result<(RangeQuery, Freshness), ParseError> {
    request::range(request, std::iter::empty())
}

#[test]
fn keys_and_options_are_checked() {
    assert_eq!(request::put(etcd::PutRequest::default()), Err(ParseError::KeyNotProvided));
    assert_eq!(request::delete_range(etcd::DeleteRangeRequest::default()), Err(ParseError::KeyNotProvided));
    assert_eq!(read(etcd::RangeRequest::default()), Err(ParseError::KeyNotProvided));
    let put = etcd::PutRequest { key: b("k"), ignore_value: true, value: b("v"), ..Default::default() };
    assert_eq!(request::put(put), Err(ParseError::ValueProvided));
    let put = etcd::PutRequest { key: b("k"), ignore_lease: true, lease: 1, ..Default::default() };
    assert_eq!(request::put(put), Err(ParseError::LeaseProvided));
    for (order, target) in [(3, 0), (0, 5), (-1, 0)] {
        let range =
            etcd::RangeRequest { key: b("k"), sort_order: order, sort_target: target, ..Default::default() };
        assert_eq!(read(range), Err(ParseError::InvalidSortOption { order, target }));
    }
    let compare = etcd::Compare { key: b("k"), target: 5, ..Default::default() };
    let request = etcd::TxnRequest { compare: vec![compare], ..Default::default() };
    assert_eq!(request::txn(request), Err(ParseError::InvalidCompare { result: 0, target: 5 }));
    let request = etcd::TxnRequest { compare: vec![etcd::Compare::default()], ..Default::default() };
    assert_eq!(request::txn(request), Err(ParseError::KeyNotProvided));
    let request = txn(vec![etcd::RequestOp { request: None }], vec![]);
    assert_eq!(request::txn(request), Err(ParseError::OperationNotProvided));
}

#[test]
fn a_range_is_read_as_etcd_reads_it() {
    let wire = etcd::RangeRequest {
        key: b("a"),
        range_end: b("\0"),
        limit: -7,
        revision: -1,
        sort_target: etcd::range_request::SortTarget::Mod.into(),
        serializable: true,
        keys_only: true,
        min_mod_revision: 3,
        max_create_revision: 9,
        ..Default::default()
    };
    let (query, freshness) = read(wire).unwrap();
    assert_eq!(freshness, Freshness::Any);
    assert_eq!(query.range, KeyRange { start: b("a"), end: RangeEnd::Unbounded });
    assert_eq!((query.limit, query.revision), (0, None));
    assert_eq!((query.sort_order, query.sort_target), (SortOrder::Ascend, SortTarget::Mod));
    assert_eq!((query.keys_only, query.count_only), (true, false));
    assert_eq!((query.min_mod_revision, query.max_mod_revision), (Revision(3), Revision(0)));
    assert_eq!((query.min_create_revision, query.max_create_revision), (Revision(0), Revision(9)));

    let wire = etcd::RangeRequest { key: b("a"), limit: 5, revision: 8, ..Default::default() };
    let (query, freshness) = read(wire).unwrap();
    assert_eq!(freshness, Freshness::Linearizable);
    assert_eq!((query.limit, query.revision, query.sort_order), (5, Some(Revision(8)), SortOrder::None));
}

#[test]
fn the_named_field_of_a_compare_decides() {
    let target = |target: i32, union| {
        let compare = etcd::Compare { key: b("k"), target, target_union: union, ..Default::default() };
        let request = etcd::TxnRequest { compare: vec![compare], ..Default::default() };
        let Transaction::Read(mut txn, _) = request::txn(request).unwrap() else {
            panic!("it only compares")
        };
        txn.compares.remove(0).target
    };
    assert_eq!(target(0, Some(TargetUnion::Version(4))), CompareTarget::Version(4));
    assert_eq!(target(2, Some(TargetUnion::ModRevision(4))), CompareTarget::Mod(Revision(4)));
    assert_eq!(target(2, Some(TargetUnion::CreateRevision(4))), CompareTarget::Mod(Revision(0)));
    assert_eq!(target(3, None), CompareTarget::Value(Bytes::new()));
}

#[test]
fn a_key_is_changed_once_at_most() {
    let duplicate: Vec<(&str, Vec<etcd::RequestOp>)> = vec![
        ("two puts", vec![put("a"), put("a")]),
        ("a put under a deletion", vec![put("b"), delete("a", "c")]),
        ("a put under a deletion from a key on", vec![put("b"), delete("a", "\0")]),
        ("a put and a deletion of one key", vec![delete("a", ""), put("a")]),
        ("a put and a nested one", vec![put("a"), nested(vec![put("a")], vec![])]),
        ("a nested put under a deletion", vec![nested(vec![], vec![put("b")]), delete("a", "c")]),
        ("a put under a nested deletion", vec![put("b"), nested(vec![delete("a", "c")], vec![])]),
        ("two nested puts", vec![nested(vec![put("a")], vec![]), nested(vec![], vec![put("a")])]),
        (
            "a nested put after a nested deletion",
            vec![nested(vec![delete("a", "")], vec![]), nested(vec![put("a")], vec![])],
        ),
        ("within a nested branch", vec![nested(vec![put("a"), put("a")], vec![])]),
    ];
    for (name, list) in duplicate {
        assert_eq!(request::txn(txn(list.clone(), vec![])), Err(ParseError::DuplicateKey), "{name}");
        assert_eq!(request::txn(txn(vec![], list)), Err(ParseError::DuplicateKey), "{name}, in failure");
    }
    let lawful: Vec<(&str, Vec<etcd::RequestOp>)> = vec![
        ("deletions may overlap", vec![delete("a", "c"), delete("b", "d"), delete("b", "")]),
        ("the end of a deletion is free", vec![put("c"), delete("a", "c")]),
        ("an empty range deletes nothing", vec![put("b"), delete("c", "a")]),
        ("reads may overlap anything", vec![put("a"), get("a", false), get("a", true)]),
        ("branches exclude each other", vec![nested(vec![put("a")], vec![put("a")])]),
        (
            "a nested deletion after a nested put",
            vec![nested(vec![put("a")], vec![]), nested(vec![delete("a", "")], vec![])],
        ),
    ];
    for (name, list) in lawful {
        assert!(request::txn(txn(list.clone(), list)).is_ok(), "{name}");
    }
}

#[test]
fn lists_and_nesting_are_bounded() {
    let puts = |count: usize| {
        (0..count).map(|at| {
            op(Request::RequestPut(etcd::PutRequest { key: at.to_string().into(), ..Default::default() }))
        })
    };
    let max = TXN_OPERATIONS_MAX;
    assert!(request::txn(txn(puts(max).collect(), puts(max).collect())).is_ok());
    let too_many = |count, max| Err(ParseError::TooManyOperations { count, max });
    assert_eq!(request::txn(txn(vec![], puts(max + 1).collect())), too_many(max + 1, max));
    let compare = vec![etcd::Compare { key: b("k"), ..Default::default() }; max + 1];
    let request = etcd::TxnRequest { compare, ..Default::default() };
    assert_eq!(request::txn(request), too_many(max + 1, max));
    // What the outer list uses is lost to the inner one.
    assert!(request::txn(txn(vec![nested(puts(max - 1).collect(), vec![])], vec![])).is_ok());
    assert_eq!(request::txn(txn(vec![nested(puts(max).collect(), vec![])], vec![])), too_many(max, max - 1));

    let deep = |levels: usize| {
        (1..levels)
            .fold(txn(vec![put("a")], vec![]), |inner, _| txn(vec![op(Request::RequestTxn(inner))], vec![]))
    };
    assert!(request::txn(deep(TXN_DEPTH_MAX)).is_ok());
    assert_eq!(request::txn(deep(TXN_DEPTH_MAX + 1)), Err(ParseError::TooDeep));
}

#[test]
fn a_transaction_may_be_stale_only_if_all_its_ranges_may() {
    for (success, failure, expected) in [
        (vec![get("a", true)], vec![get("b", true)], Freshness::Any),
        (vec![get("a", true)], vec![get("b", false)], Freshness::Linearizable),
        (vec![get("a", false), get("a", true)], vec![], Freshness::Linearizable),
        (vec![], vec![], Freshness::Linearizable),
    ] {
        let Transaction::Read(_, freshness) = request::txn(txn(success, failure)).unwrap() else {
            panic!("it only reads")
        };
        assert_eq!(freshness, expected);
    }
}

#[test]
fn a_nested_answer_keeps_its_shape() {
    let token = CausalToken::new(7, 9, 11).expect("the revision is above 0");
    let header = response::header(token, NodeId(2), Term(3));
    assert_eq!(response::token_of(&header), Some(token));
    let reply = TxnReply {
        succeeded: true,
        replies: vec![
            Reply::Put(PutReply::default()),
            Reply::Range(RangeReply { kvs: vec![], more: true, count: 4 }),
            Reply::Txn(TxnReply {
                succeeded: false,
                replies: vec![Reply::DeleteRange(DeleteRangeReply { deleted: 2, prev_kvs: vec![] })],
            }),
        ],
    };
    let answer = response::txn(reply, header);
    assert_eq!(answer.header, Some(header));
    assert!(answer.succeeded);
    let inner = Some(etcd::ResponseHeader { revision: 9, ..Default::default() });
    use etcd::response_op::Response;
    let [put, range, txn] = <[_; 3]>::try_from(answer.responses).unwrap().map(|op| op.response.unwrap());
    assert_eq!(
        put,
        Response::ResponsePut(etcd::PutResponse { header: inner, prev_kv: None, ..Default::default() })
    );
    let expected = etcd::RangeResponse { header: inner, kvs: vec![], more: true, count: 4, age_ms: None };
    assert_eq!(range, Response::ResponseRange(expected));
    let expected =
        etcd::DeleteRangeResponse { header: inner, deleted: 2, prev_kvs: vec![], ..Default::default() };
    let responses = vec![etcd::ResponseOp { response: Some(Response::ResponseDeleteRange(expected)) }];
    assert_eq!(
        txn,
        Response::ResponseTxn(etcd::TxnResponse {
            header: inner,
            succeeded: false,
            responses,
            ..Default::default()
        })
    );
}
