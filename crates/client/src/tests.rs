//! The client's rules, played against fake nodes.

use std::net::TcpListener;
use std::time::Duration;

use ringfence_proto::etcdserverpb::{PutRequest, RangeRequest, TxnRequest};
use ringfence_proto::ringfence_v1::error_detail::AttemptApplied;
use ringfence_proto::ringfence_v1::{ErrorDetail, Fence, Scope, SessionStamp, scope};
use tonic::Status;

use crate::fake::{Answer, FakeNode, attach};
use crate::{Client, Error, Options};

fn client<'a>(nodes: impl IntoIterator<Item = &'a FakeNode>) -> Client {
    let endpoints: Vec<String> = nodes.into_iter().map(FakeNode::url).collect();
    Client::connect(endpoints, Options::default()).expect("the fakes' endpoints are lawful")
}

fn told(applied: AttemptApplied, leader: &[String]) -> Answer {
    let mut status = Status::unavailable("etcdserver: no leader");
    let detail = ErrorDetail {
        reason: "no_leader".to_owned(),
        attempt_applied: applied.into(),
        leader_client_urls: leader.to_vec(),
        message: "no leader is known".to_owned(),
        ..Default::default()
    };
    attach(&mut status, &detail);
    Answer::Fail(status)
}

#[tokio::test]
async fn a_write_that_is_surely_not_applied_is_sent_again() {
    let node = FakeNode::start([told(AttemptApplied::No, &[]), told(AttemptApplied::No, &[])]).await;
    client([&node]).put_value("k", "v").await.expect("the third attempt is answered");
    assert_eq!(node.puts(), 3);
}

#[tokio::test]
async fn a_write_whose_outcome_is_unknown_is_not_sent_again() {
    let timed_out = Answer::Fail(Status::unavailable("etcdserver: request timed out"));
    for answer in [told(AttemptApplied::Unknown, &[]), told(AttemptApplied::Yes, &[]), timed_out] {
        let (first, second) = (FakeNode::start([answer]).await, FakeNode::start([]).await);
        let error = client([&first, &second]).put_value("k", "v").await.expect_err("its outcome is unknown");
        assert!(matches!(error, Error::Indefinite { .. }), "{error:?}");
        assert_eq!((first.puts(), second.puts()), (1, 0));
    }
}

#[tokio::test]
async fn a_definite_attempt_before_it_does_not_make_an_unknown_one_definite() {
    let node = FakeNode::start([told(AttemptApplied::No, &[]), told(AttemptApplied::Unknown, &[])]).await;
    let error =
        client([&node]).put_value("k", "v").await.expect_err("the second attempt's outcome is unknown");
    assert!(!error.is_definite(), "{error:?}");
    assert_eq!(node.puts(), 2);
}

#[tokio::test]
async fn a_write_without_an_answer_is_indefinite_at_the_deadline() {
    let node = FakeNode::start([Answer::Hang]).await;
    let client = client([&node]).with_timeout(Duration::from_millis(200));
    let error = client.put_value("k", "v").await.expect_err("nobody answers");
    assert!(matches!(error, Error::Indefinite { .. }), "{error:?}");
    assert_eq!(node.puts(), 1);
}

#[tokio::test]
async fn the_call_after_one_without_an_answer_goes_elsewhere() {
    let (first, second) = (FakeNode::start([Answer::Hang]).await, FakeNode::start([]).await);
    let client = client([&first, &second]).with_timeout(Duration::from_millis(200));
    client.put_value("k", "v").await.expect_err("the first node does not answer");
    client.put_value("k", "v").await.expect("the second node answers");
    assert_eq!((first.puts(), second.puts()), (1, 1));
}

#[tokio::test]
async fn a_read_is_tried_again_whatever_ended_it() {
    let unknown = Answer::Fail(Status::unknown("broken pipe"));
    let (first, second) = (FakeNode::start([unknown]).await, FakeNode::start([]).await);
    let client = client([&first, &second]);
    assert_eq!(client.get("k").await.expect("the second node answers"), None);
    assert_eq!(client.preferred_endpoint(), second.address.to_string());
    client.get("k").await.expect("the second node answers again");
    assert_eq!((first.ranges().len(), second.ranges().len()), (1, 2));
}

#[tokio::test]
async fn a_read_that_hangs_on_one_node_is_answered_by_another() {
    let (first, second) = (FakeNode::start([Answer::Hang]).await, FakeNode::start([]).await);
    client([&first, &second]).get("k").await.expect("the second node answers");
    assert_eq!((first.ranges().len(), second.ranges().len()), (1, 1));
}

#[tokio::test]
async fn a_transaction_without_operations_is_a_read() {
    let node = FakeNode::start([Answer::Fail(Status::unknown("broken pipe"))]).await;
    client([&node]).txn(TxnRequest::default()).await.expect("the second attempt is answered");
}

#[tokio::test]
async fn the_hint_to_the_leader_is_followed_first_and_remembered() {
    let leader = FakeNode::start([]).await;
    let follower = FakeNode::start([told(AttemptApplied::No, &[leader.url()])]).await;
    let bystander = FakeNode::start([]).await;
    // The leader is not among the endpoints: the hint alone leads there.
    let client = client([&follower, &bystander]);
    for _ in 0..3 {
        client.put_value("k", "v").await.expect("the leader answers");
    }
    assert_eq!((follower.puts(), bystander.puts(), leader.puts()), (1, 0, 3));
}

#[tokio::test]
async fn an_unreachable_node_is_passed_over_even_by_a_write() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("loopback has a free port");
    let closed = listener.local_addr().expect("a bound listener has an address").to_string();
    drop(listener);
    let node = FakeNode::start([]).await;
    let client = Client::connect([closed, node.url()], Options::default()).expect("both are lawful");
    client.put_value("k", "v").await.expect("the second node answers");
    assert_eq!(node.puts(), 1);
}

#[tokio::test]
async fn nobody_reachable_is_unavailable_and_definite() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("loopback has a free port");
    let closed = listener.local_addr().expect("a bound listener has an address").to_string();
    drop(listener);
    let client = Client::connect([closed], Options::default()).expect("it is lawful");
    let client = client.with_timeout(Duration::from_millis(100));
    let error = client.put_value("k", "v").await.expect_err("nobody listens");
    assert!(matches!(error, Error::Unavailable { attempts: 2.., .. }), "{error:?}");
    assert!(error.is_definite());
}

#[tokio::test]
async fn a_refusal_is_final() {
    let node =
        FakeNode::start([Answer::Fail(Status::invalid_argument("etcdserver: key is not provided"))]).await;
    let error = client([&node]).put_value("", "v").await.expect_err("it is refused");
    assert!(matches!(error, Error::Refused { .. }), "{error:?}");
    assert_eq!(node.puts(), 1);
}

#[tokio::test]
async fn a_scan_without_range_stream_reads_pages_at_one_revision() {
    let node = FakeNode::start_with_keys([], 2_500).await;
    let request =
        |limit| RangeRequest { key: "k".into(), range_end: "l".into(), limit, ..RangeRequest::default() };
    for (limit, expected) in [(0, 2_500), (1_200, 1_200), (2_500, 2_500)] {
        let mut scan = client([&node]).scan(request(limit));
        let mut keys = Vec::new();
        while let Some(kvs) = scan.next().await.expect("the fake answers") {
            keys.extend(kvs.into_iter().map(|kv| kv.key));
        }
        assert_eq!(keys.len(), expected);
        assert!(keys.is_sorted_by(|a, b| a < b), "a key came twice or out of order");
        assert_eq!(scan.revision(), 42);
    }
    assert!(node.ranges().iter().all(|range| range.count_only || range.revision == 42));
}

#[tokio::test]
async fn a_lock_of_a_session_is_asked_for_again_whatever_ended_the_attempt() {
    let broken = Answer::Fail(Status::unknown("broken pipe"));
    let (first, second) = (FakeNode::start([broken.clone()]).await, FakeNode::start([]).await);
    let held = client([&first, &second]).lock("jobs", 1).await.expect("the second node answers");
    assert_eq!((held.token, first.locks(), second.locks()), (7, 1, 1));
    // Without a lease of its own each call is another session: the first may hold the lock already.
    let node = FakeNode::start([broken.clone()]).await;
    let error = client([&node]).lock("jobs", 0).await.expect_err("its outcome is unknown");
    assert!(matches!(error, Error::Indefinite { .. }), "{error:?}");
    assert_eq!(node.locks(), 1);

    let node = FakeNode::start([broken.clone()]).await;
    client([&node]).unlock("jobs/1", 7).await.expect("the second attempt is answered");
    let node = FakeNode::start([broken]).await;
    let error = client([&node]).unlock("jobs/1", 0).await.expect_err("the key may be another's by now");
    assert!(matches!(error, Error::Indefinite { .. }), "{error:?}");
}

#[tokio::test]
async fn a_lock_that_is_waited_for_is_waited_for_at_one_node() {
    let (first, second) = (FakeNode::start([Answer::Hang]).await, FakeNode::start([]).await);
    let client = client([&first, &second]).with_timeout(Duration::from_millis(1_500));
    let error = client.lock("jobs", 1).await.expect_err("the first node does not answer");
    // To ask elsewhere early would give the place in the queue up.
    assert!(matches!(error, Error::Indefinite { .. }), "{error:?}");
    assert_eq!((first.locks(), second.locks()), (1, 0));
}

#[tokio::test]
async fn a_refusal_after_an_unknown_attempt_does_not_make_it_definite() {
    let refusal = Status::not_found("etcdserver: requested lease not found");
    let script = [Answer::Fail(Status::unknown("broken pipe")), Answer::Fail(refusal)];
    let node = FakeNode::start(script).await;
    let error = client([&node]).lock("jobs", 1).await.expect_err("the lease has ended");
    assert!(matches!(error, Error::Indefinite { .. }), "{error:?}");
    assert_eq!(node.locks(), 2);
}

#[tokio::test]
async fn a_fence_sent_to_a_server_that_does_not_know_fences() {
    // The fake answers as etcd does: it skips the fields that it does not know, and puts.
    let node = FakeNode::start([]).await;
    let client = client([&node]);
    let scope = Some(Scope { kind: Some(scope::Kind::Lock("jobs".into())) });
    let fenced =
        PutRequest { key: "k".into(), fences: vec![Fence { scope, token: 7 }], ..Default::default() };
    let of_session =
        PutRequest { key: "k".into(), session: Some(SessionStamp::default()), ..Default::default() };
    for request in [fenced, of_session] {
        let error = client.put(request).await.expect_err("the promise was not kept");
        assert!(matches!(error, Error::Unchecked { .. }), "{error:?}");
        assert!(!error.is_definite(), "the write was applied: {error:?}");
    }
    client.put_value("k", "v").await.expect("a plain put promises nothing more");
    assert_eq!(node.puts(), 3, "no unchecked write is sent again");
}
