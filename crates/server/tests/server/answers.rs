//! Answers that are too large: refused before they take the memory, with a way on.

use ringfence_proto::etcdserverpb::request_op::Request as Op;
use ringfence_proto::etcdserverpb::{self as etcd};
use ringfence_server::Limits;
use tonic::Code;

use crate::harness::{Server, Setup, assert_refused, detail, keys, put, range};

const ANSWER_BYTES_MAX: u64 = 1 << 20;
const VALUE_BYTES: usize = 128 << 10;
/// Their values have twice what an answer may have.
const KEYS: usize = 16;
const REFUSAL: &str = "ringfence: the answer would have more than 1048576 bytes: ask for fewer keys (limit, keys_only), or use \
                       RangeStream";

async fn start() -> Server {
    let limits = Limits { answer_bytes: ANSWER_BYTES_MAX, ..Limits::default() };
    let [server] =
        <[_; 1]>::try_from(Server::start_with(1, Setup { limits, ..Setup::default() }).await).ok().unwrap();
    for at in 0..KEYS {
        server.put(&format!("k/{at:02}"), &"v".repeat(VALUE_BYTES)).await;
    }
    server
}

fn all() -> etcd::RangeRequest {
    range("k/", "k0")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_range_that_is_too_large_is_refused_with_a_way_on() {
    let server = start().await;
    let refused = server.kv().range(all()).await;
    assert_eq!(detail(refused.as_ref().unwrap_err()).reason, "answer_too_large");
    assert_refused(refused, Code::ResourceExhausted, REFUSAL);
    let old = etcd::RangeRequest { revision: 1 + KEYS as i64, serializable: true, ..all() };
    assert_refused(server.kv().range(old).await, Code::ResourceExhausted, REFUSAL);
    let by_value =
        etcd::RangeRequest { limit: 1, sort_target: etcd::range_request::SortTarget::Value.into(), ..all() };
    assert_refused(server.kv().range(by_value).await, Code::ResourceExhausted, REFUSAL);
    let read = etcd::RequestOp { request: Some(Op::RequestRange(all())) };
    let txn = etcd::TxnRequest { success: vec![read], ..Default::default() };
    assert_refused(server.kv().txn(txn).await, Code::ResourceExhausted, REFUSAL);
    let half = etcd::RequestOp { request: Some(Op::RequestRange(etcd::RangeRequest { limit: 5, ..all() })) };
    let twice = etcd::TxnRequest { success: vec![half.clone(), half], ..Default::default() };
    assert_refused(server.kv().txn(twice).await, Code::ResourceExhausted, REFUSAL);

    let limited = server.kv().range(etcd::RangeRequest { limit: 7, ..all() }).await.unwrap().into_inner();
    assert_eq!((limited.kvs.len(), limited.more, limited.count), (7, true, KEYS as i64));
    let names =
        server.kv().range(etcd::RangeRequest { keys_only: true, ..all() }).await.unwrap().into_inner();
    assert_eq!(keys(&names.kvs).len(), KEYS);
    let count =
        server.kv().range(etcd::RangeRequest { count_only: true, ..all() }).await.unwrap().into_inner();
    assert_eq!(count.count, KEYS as i64);
    let mut stream = server.kv().range_stream(all()).await.unwrap().into_inner();
    let mut streamed = 0;
    while let Some(part) = stream.message().await.unwrap() {
        streamed += part.range_response.unwrap().kvs.len();
    }
    assert_eq!(streamed, KEYS);
    server.stop().await;
}

/// What a write answers is bounded by the same for all members, since it decides whether the write is applied.
#[tokio::test(flavor = "multi_thread")]
async fn a_write_whose_answer_is_too_large_changes_nothing() {
    let server = start().await;
    for at in 0..10 {
        server.put(&format!("large/{at}"), &"v".repeat(1 << 20)).await;
    }
    let refusal = "ringfence: the answer would have more than 8388608 bytes: ask for fewer keys (limit, keys_only), or use \
                   RangeStream";
    let large = range("large/", "large0");
    let read = etcd::RequestOp { request: Some(Op::RequestRange(large.clone())) };
    let write = etcd::RequestOp { request: Some(Op::RequestPut(put("written", "v"))) };
    let txn = etcd::TxnRequest { success: vec![write, read], ..Default::default() };
    assert_refused(server.kv().txn(txn).await, Code::ResourceExhausted, refusal);
    let written = server.kv().range(range("written", "")).await.unwrap().into_inner();
    assert_eq!(written.count, 0);
    let delete =
        etcd::DeleteRangeRequest { key: large.key, range_end: large.range_end, ..Default::default() };
    let delete = |prev_kv| etcd::DeleteRangeRequest { prev_kv, ..delete.clone() };
    assert_refused(server.kv().delete_range(delete(true)).await, Code::ResourceExhausted, refusal);
    let deleted = server.kv().delete_range(delete(false)).await.unwrap().into_inner();
    assert_eq!(deleted.deleted, 10, "all of them were still there");
    server.stop().await;
}
