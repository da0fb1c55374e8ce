//! The watch's rules, played against fake nodes.

use ringfence_proto::etcdserverpb::{ResponseHeader, WatchCreateRequest, WatchResponse};
use ringfence_proto::mvccpb::{Event, KeyValue};
use tonic::Status;

use crate::fake::FakeNode;
use crate::{Client, Error, Options, Watched, watch_prefix};

type Answer = Result<WatchResponse, Status>;

fn response(revision: i64) -> WatchResponse {
    let header = Some(ResponseHeader { revision, ..ResponseHeader::default() });
    WatchResponse { header, ..WatchResponse::default() }
}

fn created(revision: i64) -> Answer {
    Ok(WatchResponse { created: true, ..response(revision) })
}

fn event(revision: i64) -> Event {
    let kv = KeyValue { key: "k".into(), mod_revision: revision, ..KeyValue::default() };
    Event { kv: Some(kv), ..Event::default() }
}

fn events(revisions: &[i64], fragment: bool) -> Answer {
    let last = revisions.last().copied().unwrap_or_default();
    let events = revisions.iter().copied().map(event).collect();
    Ok(WatchResponse { events, fragment, ..response(last) })
}

fn change(revision: i64, events: usize) -> Watched {
    Watched::Change { revision, events: vec![event(revision); events] }
}

fn broken() -> Answer {
    Err(Status::unavailable("etcdserver: no leader"))
}

async fn fake(streams: impl IntoIterator<Item = Vec<Answer>>) -> (FakeNode, Client) {
    let node = FakeNode::start([]).await;
    node.play_streams(streams);
    let client = Client::connect([node.url()], Options::default()).expect("the fake's endpoint is lawful");
    (node, client)
}

fn starts(node: &FakeNode) -> Vec<i64> {
    node.watches().iter().map(|request| request.start_revision).collect()
}

#[tokio::test]
async fn a_watch_goes_on_behind_the_last_whole_revision() {
    let (node, client) = fake([
        vec![created(10), events(&[12, 12, 14], false), events(&[15], true), broken()],
        // Nothing is told of a revision of which only a part had come.
        vec![created(20), events(&[15], true), events(&[15, 16], true), events(&[16], false)],
    ])
    .await;
    let mut watch = client.watch(watch_prefix("k")).await.expect("it begins");
    assert_eq!(watch.next_revision(), 11, "it begins with what happens next");
    for expected in [change(12, 2), change(14, 1), change(15, 2), change(16, 2)] {
        assert_eq!(watch.next().await.expect("told"), expected);
    }
    assert_eq!(starts(&node), [0, 15]);
    assert_eq!(watch.next_revision(), 17);
    let request = node.watches().remove(0);
    assert!(request.fragment && request.range_end == "l", "{request:?}");
}

#[tokio::test]
async fn progress_moves_a_watch_on_and_streams_that_bring_nothing_are_tried_again() {
    let (node, client) = fake([
        vec![created(10), Ok(response(30)), broken()],
        vec![created(30), broken()],
        vec![created(30), broken()],
        vec![created(40), events(&[35], false)],
    ])
    .await;
    let request = WatchCreateRequest { start_revision: 5, ..watch_prefix("k") };
    let mut watch = client.watch(request).await.expect("it begins");
    assert_eq!(watch.next().await.expect("told"), Watched::Progress { revision: 30 });
    assert_eq!(watch.next().await.expect("told"), change(35, 1));
    assert_eq!(starts(&node), [5, 31, 31, 31]);
}

#[tokio::test]
async fn a_watch_ends_where_its_history_is_gone() {
    let compacted = WatchResponse { canceled: true, compact_revision: 9, ..response(20) };
    let (_node, client) = fake([vec![created(20), Ok(compacted)]]).await;
    let request = WatchCreateRequest { start_revision: 5, ..watch_prefix("k") };
    let mut watch = client.watch(request).await.expect("it begins");
    for _ in 0..2 {
        let error = watch.next().await.expect_err("the history is gone");
        assert!(matches!(error, Error::Compacted { wanted: 5, oldest: 9 }), "{error:?}");
        assert!(error.is_definite());
    }
}

#[tokio::test]
async fn a_refused_watch_says_why_and_one_of_too_many_is_tried_again() {
    let refusal = |reason: &str| {
        Ok(WatchResponse { created: true, canceled: true, cancel_reason: reason.to_owned(), ..response(20) })
    };
    let (node, client) = fake([
        vec![refusal("etcdserver: too many requests")],
        vec![created(20)],
        vec![refusal("mvcc: watcher range is empty")],
    ])
    .await;
    client.watch(watch_prefix("k")).await.expect("the second attempt is answered");
    assert_eq!(node.watches().len(), 2);
    let error = client.watch(watch_prefix("k")).await.expect_err("refused");
    assert!(
        matches!(&error, Error::Refused { message, .. } if message == "mvcc: watcher range is empty"),
        "{error:?}"
    );
}

#[tokio::test]
async fn what_was_told_is_never_told_again() {
    let (_node, client) = fake([vec![created(10), events(&[12], false), events(&[12], false)]]).await;
    let mut watch = client.watch(watch_prefix("k")).await.expect("it begins");
    assert_eq!(watch.next().await.expect("told"), change(12, 1));
    assert!(matches!(watch.next().await, Err(Error::Protocol(_))));
}
