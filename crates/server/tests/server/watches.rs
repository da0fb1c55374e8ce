//! The Watch service, as etcd's clients know it.

use std::time::Duration;

use ringfence_proto::etcdserverpb::watch_client::WatchClient;
use ringfence_proto::etcdserverpb::watch_create_request::FilterType;
use ringfence_proto::etcdserverpb::watch_request::RequestUnion;
use ringfence_proto::etcdserverpb::{self as etcd, request_op};
use ringfence_proto::mvccpb::Event;
use tokio::time::timeout;
use tonic::{Code, Request};

use crate::harness::{Server, assert_refused, put};
use crate::watching::{SOON, Stream, from, told, until, watch};

async fn delete(server: &Server, key: &'static str, range_end: &'static str) -> i64 {
    let request =
        etcd::DeleteRangeRequest { key: key.into(), range_end: range_end.into(), ..Default::default() };
    server.kv().delete_range(request).await.unwrap().into_inner().header.unwrap().revision
}

async fn compact(server: &Server, revision: i64) {
    server.kv().compact(etcd::CompactionRequest { revision, physical: true }).await.unwrap();
}

async fn metric(server: &Server, name: &str) -> u64 {
    let page = server.get("/metrics").await.1;
    let line = page.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ').map(str::to_owned));
    line.expect("the metric is there").parse().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn watches_are_told_what_happens_from_now_on_from_the_past_and_from_the_future() {
    let server = Server::start().await;
    server.put("a", "1").await;
    server.put("b", "1").await;
    let mut stream = Stream::open(&server).await;
    let now = stream.create(watch("a", "")).await;
    assert_eq!((now.watch_id, now.header.unwrap().revision), (0, 3), "the server's ids begin at 0");
    assert_eq!(now.header.unwrap().member_id, server.node.node_id().0);
    server.put("a", "2").await;
    server.put("b", "2").await;
    assert_eq!(told(&stream.events(1).await), ["+a@4"]);

    let past = stream.create(from(2, "a", "c")).await;
    assert_eq!(past.watch_id, 1);
    assert_eq!(told(&stream.events(4).await), ["+a@2", "+b@3", "+a@4", "+b@5"]);
    let future = stream.create(etcd::WatchCreateRequest { watch_id: 77, ..from(8, "", "\0") }).await;
    assert_eq!((future.watch_id, future.header.unwrap().revision), (77, 5));
    stream.cancel(0);
    let canceled = stream.next().await;
    assert!(canceled.canceled && canceled.watch_id == 0 && canceled.compact_revision == 0, "{canceled:?}");
    assert_eq!(canceled.cancel_reason, "");
    // What is no watch of the stream is not answered, and neither is a message without a request.
    stream.cancel(5);
    stream.requests.send(etcd::WatchRequest::default()).unwrap();
    for (at, key) in ["a", "b", "c", "a"].into_iter().enumerate() {
        assert_eq!(server.put(key, "3").await.header.unwrap().revision, 6 + at as i64);
    }
    let mut each = std::collections::BTreeMap::<i64, Vec<String>>::new();
    while each.values().map(Vec::len).sum::<usize>() < 5 {
        let response = stream.next().await;
        each.entry(response.watch_id).or_default().extend(told(&response.events));
    }
    assert_eq!(each[&1], ["+a@6", "+b@7", "+a@9"]);
    assert_eq!(each[&77], ["+c@8", "+a@9"]);
    // An id that is free again is given again only when asked for.
    assert_eq!(stream.create(watch("z", "")).await.watch_id, 2);
    assert_eq!(stream.create(etcd::WatchCreateRequest { watch_id: 3, ..watch("z", "") }).await.watch_id, 3);
    assert_eq!(stream.create(watch("z", "")).await.watch_id, 4);
    assert_eq!(metric(&server, "etcd_debugging_mvcc_watcher_total").await, 5);
    assert_eq!(metric(&server, "etcd_debugging_mvcc_watch_stream_total").await, 1);
    assert_eq!(metric(&server, "etcd_debugging_mvcc_events_total").await, 10);
    drop(stream);
    until("the watches are gone with their stream", async || {
        metric(&server, "etcd_debugging_mvcc_watcher_total").await == 0
            && metric(&server, "etcd_debugging_mvcc_watch_stream_total").await == 0
    })
    .await;
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ranges_filters_and_previous_values_are_etcds() {
    let server = Server::start().await;
    let mut stream = Stream::open(&server).await;
    let with = |filters: &[FilterType], prev_kv, request| etcd::WatchCreateRequest {
        filters: filters.iter().map(|filter| i32::from(*filter)).collect(),
        prev_kv,
        ..request
    };
    use FilterType::{Nodelete, Noput};
    let requests = [
        with(&[], true, watch("a", "b")),
        with(&[Noput], false, watch("a", "b")),
        with(&[Nodelete], true, watch("a", "b")),
        with(&[Noput, Nodelete], false, watch("a", "b")),
        with(&[], false, watch("a", "\0")),
        with(&[], false, watch("", "\0")),
        // As in etcd, the empty key is the first key of all.
        with(&[], false, watch("", "")),
    ];
    for request in &requests {
        stream.create(request.clone()).await;
    }
    server.put("a1", "v").await;
    server.put("a1", "w").await;
    delete(&server, "a", "b").await;
    server.put("b", "x").await;
    server.put("\0", "y").await;
    let expected: [&[&str]; 7] = [
        &["+a1@2", "+a1@3", "-a1@4"],
        &["-a1@4"],
        &["+a1@2", "+a1@3"],
        &[],
        &["+a1@2", "+a1@3", "-a1@4", "+b@5"],
        &["+a1@2", "+a1@3", "-a1@4", "+b@5", "+\0@6"],
        &["+\0@6"],
    ];
    let mut live = vec![Vec::new(); 7];
    while live.iter().map(Vec::len).sum::<usize>() < 16 {
        let response = stream.next().await;
        live[usize::try_from(response.watch_id).unwrap()].extend(response.events);
    }
    // The same from history.
    let mut past = Vec::new();
    for (request, expected) in requests.iter().zip(&expected) {
        let mut stream = Stream::open(&server).await;
        stream.create(etcd::WatchCreateRequest { start_revision: 1, ..request.clone() }).await;
        past.push(stream.events(expected.len()).await);
    }
    assert_eq!(live, past);
    for (events, expected) in live.iter().zip(expected) {
        assert_eq!(told(events), expected);
    }
    let before = |event: &Event| event.prev_kv.as_ref().map(|kv| (kv.mod_revision, kv.value.clone()));
    let previous: Vec<_> = live[0].iter().map(before).collect();
    assert_eq!(previous, [None, Some((2, "v".into())), Some((3, "w".into()))]);
    assert!(live[1].iter().chain(&live[4]).all(|event| event.prev_kv.is_none()));
    let deleted = live[0][2].kv.clone().unwrap();
    let expected =
        ringfence_proto::mvccpb::KeyValue { key: "a1".into(), mod_revision: 4, ..Default::default() };
    assert_eq!(deleted, expected, "a deletion tells the key and its revision alone");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn watches_that_cannot_begin_are_created_and_canceled() {
    let server = Server::start().await;
    let mut stream = Stream::open(&server).await;
    stream.create(etcd::WatchCreateRequest { watch_id: 9, ..watch("k", "") }).await;
    for (request, reason) in [
        (
            etcd::WatchCreateRequest { watch_id: 9, ..watch("k", "") },
            "mvcc: duplicate watch ID provided on the WatchStream",
        ),
        (watch("b", "a"), "mvcc: watcher range is empty"),
        (watch("b", "b"), "mvcc: watcher range is empty"),
    ] {
        let refused = stream.create(request).await;
        assert!(refused.canceled && refused.compact_revision == 0, "{refused:?}");
        assert_eq!((refused.watch_id, refused.cancel_reason.as_str()), (-1, reason));
        assert_eq!(refused.header.unwrap().revision, 1);
    }
    // The watch whose id was wanted goes on.
    server.put("k", "v").await;
    assert_eq!(stream.next().await.watch_id, 9);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_takes_so_many_watches_and_refuses_one_more() {
    let server = Server::start().await;
    let mut stream = Stream::open(&server).await;
    let max = 100_000;
    (0..max).for_each(|_| stream.ask(RequestUnion::CreateRequest(watch("k", ""))));
    for id in 0..max {
        let created = stream.next().await;
        assert!(created.created && !created.canceled && created.watch_id == id, "{created:?}");
    }
    let refused = stream.create(watch("k", "")).await;
    assert!(refused.canceled && refused.watch_id == -1, "{refused:?}");
    assert_eq!(refused.cancel_reason, "etcdserver: too many requests");
    // Those that there are go on, and one that ends makes room for another.
    stream.cancel(7);
    assert!(stream.next().await.canceled);
    assert!(!stream.create(watch("z", "")).await.canceled);
    server.put("z", "1").await;
    assert_eq!(stream.next().await.watch_id, max);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_watch_ends_where_the_history_that_it_needs_is_gone() {
    let server = Server::start().await;
    for at in 0..8 {
        server.put("k", &at.to_string()).await;
    }
    let mut live = Stream::open(&server).await;
    live.create(watch("k", "")).await;
    compact(&server, 6).await;
    let mut stream = Stream::open(&server).await;
    for (start, id) in [(5, 0), (1, 1), (-3, 2)] {
        let created = stream.create(from(start, "k", "")).await;
        assert!(!created.canceled && created.watch_id == id, "{created:?}");
        let ended = stream.next().await;
        assert!(ended.canceled && !ended.created && ended.events.is_empty(), "{ended:?}");
        assert_eq!((ended.watch_id, ended.compact_revision), (id, 6));
        assert_eq!(ended.cancel_reason, "etcdserver: mvcc: required revision has been compacted");
    }
    stream.create(etcd::WatchCreateRequest { prev_kv: true, ..from(6, "k", "") }).await;
    let events = stream.events(4).await;
    assert_eq!(told(&events), ["+k@6", "+k@7", "+k@8", "+k@9"]);
    let known: Vec<bool> = events.iter().map(|event| event.prev_kv.is_some()).collect();
    assert_eq!(known, [false, true, true, true], "what is compacted is left out");
    // Who is up to date is not concerned, and an id is free again.
    server.put("k", "8").await;
    assert_eq!(told(&live.events(1).await), ["+k@10"]);
    assert_eq!(told(&stream.events(1).await), ["+k@10"]);
    stream.create(etcd::WatchCreateRequest { watch_id: 1, ..watch("k", "") }).await;
    assert_eq!(metric(&server, "ringfence_watches_compacted_total").await, 3);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn progress_is_told_when_all_is_told() {
    let server = Server::start().await;
    for at in 0..1_500 {
        server.put("k", &at.to_string()).await;
        if at % 500 == 0 {
            server.node.checkpoint().await.unwrap();
        }
    }
    let mut stream = Stream::open(&server).await;
    stream.ask_progress();
    let progress = stream.next().await;
    assert_eq!((progress.watch_id, progress.header.unwrap().revision), (-1, 1_501), "all of no watches");
    // The answer waits until the watch has been told the whole past.
    stream.create(from(2, "k", "")).await;
    stream.ask_progress();
    let events = stream.events(1_500).await;
    assert!(told(&events).into_iter().eq((2..1_502).map(|revision| format!("+k@{revision}"))));
    let progress = stream.next().await;
    assert!(!progress.created && !progress.canceled && progress.events.is_empty());
    assert_eq!((progress.watch_id, progress.header.unwrap().revision), (-1, 1_501));
    // And it is never older than what was acknowledged before it was asked for.
    for _ in 0..50 {
        let written = server.put("other", "x").await.header.unwrap().revision;
        stream.ask_progress();
        let progress = stream.next().await;
        assert_eq!((progress.watch_id, progress.header.unwrap().revision), (-1, written));
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_watch_that_wants_it_is_told_how_far_it_is_while_nothing_happens() {
    let server = Server::start().await;
    let mut stream = Stream::open(&server).await;
    stream.create(watch("quiet", "")).await;
    let noted = etcd::WatchCreateRequest { progress_notify: true, ..watch("k", "") };
    assert_eq!(stream.create(noted).await.watch_id, 1);
    for _ in 0..2 {
        let written = server.put("other", "x").await.header.unwrap().revision;
        loop {
            let progress = stream.next().await;
            assert_eq!((progress.watch_id, progress.events.len()), (1, 0), "only who asked for it is told");
            if progress.header.unwrap().revision == written {
                break;
            }
        }
    }
    server.put("k", "v").await;
    assert_eq!(
        told(&loop {
            let response = stream.next().await;
            if !response.events.is_empty() {
                break response.events;
            }
        }),
        ["+k@4"]
    );
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn large_revisions_come_whole_or_in_fragments() {
    let server = Server::start().await;
    let value = "v".repeat(100 << 10);
    for at in 0..40 {
        server.put(&format!("k{at:02}"), &value).await;
    }
    let mut whole = Stream::open(&server).await;
    let mut parts = Stream::open(&server).await;
    let request = etcd::WatchCreateRequest { prev_kv: true, ..watch("k", "l") };
    whole.create(request.clone()).await;
    parts.create(etcd::WatchCreateRequest { fragment: true, ..request.clone() }).await;
    let revision = delete(&server, "k", "l").await;
    let mut past = Stream::open(&server).await;
    let start_revision = revision;
    past.create(etcd::WatchCreateRequest { fragment: true, start_revision, ..request }).await;
    let response = whole.next().await;
    assert!(response.events.len() == 40 && !response.fragment, "one revision is one answer");
    for stream in [&mut parts, &mut past] {
        let (mut events, mut sizes) = (Vec::new(), Vec::new());
        loop {
            let part = stream.next().await;
            sizes.push(part.events.len());
            assert_eq!((part.watch_id, part.header.unwrap().revision), (0, revision));
            assert!(part.events.len() > 1);
            events.extend(part.events);
            if !part.fragment {
                break;
            }
        }
        assert_eq!(events, response.events);
        assert_eq!(sizes, [15, 15, 10], "each of less than 1.5 MiB");
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_watch_holds_nobody_and_misses_nothing() {
    let server = Server::start().await;
    let (mut slow, mut quick) = (Stream::open(&server).await, Stream::open(&server).await);
    // Two watches that share their events, and one that wants others.
    slow.create(watch("k", "l")).await;
    slow.create(watch("k0", "")).await;
    quick.create(watch("k", "l")).await;
    let value = "v".repeat(64 << 10);
    let mut expected = Vec::new();
    for at in 0..200 {
        let key = format!("k{}", at % 3);
        let revision = server.put(&key, &value).await.header.unwrap().revision;
        expected.push(format!("+{key}@{revision}"));
        assert_eq!(told(&quick.events(1).await), expected[at..], "at once, whoever is slow");
    }
    until("the slow one has fallen behind", async || {
        metric(&server, "ringfence_watches_fallen_behind_total").await >= 1
    })
    .await;
    let mut each = [Vec::new(), Vec::new()];
    while each[0].len() + each[1].len() < 267 {
        let response = slow.next().await;
        each[usize::try_from(response.watch_id).unwrap()].extend(told(&response.events));
    }
    assert_eq!(each[0], expected);
    assert_eq!(each[1], expected.into_iter().filter(|event| event.starts_with("+k0@")).collect::<Vec<_>>());
    // They are up to date again.
    slow.ask_progress();
    assert_eq!(slow.next().await.watch_id, -1);
    assert_eq!(metric(&server, "etcd_debugging_mvcc_slow_watcher_total").await, 0);
    let revision = server.put("k1", "v").await.header.unwrap().revision;
    assert_eq!(told(&slow.events(1).await), [format!("+k1@{revision}")]);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn compaction_under_a_slow_watch_ends_it_behind_its_last_event() {
    let server = Server::start().await;
    let mut slow = Stream::open(&server).await;
    slow.create(watch("k", "")).await;
    let value = "v".repeat(64 << 10);
    let mut last = 0;
    for _ in 0..200 {
        last = server.put("k", &value).await.header.unwrap().revision;
    }
    until("it has fallen behind", async || {
        metric(&server, "ringfence_watches_fallen_behind_total").await >= 1
    })
    .await;
    compact(&server, last).await;
    let mut next = 2;
    let ended = loop {
        let response = slow.next().await;
        if response.canceled {
            break response;
        }
        for event in response.events {
            assert_eq!(event.kv.unwrap().mod_revision, next, "nothing is left out before the end");
            next += 1;
        }
    };
    assert!(next > 2 && next < last, "{next}");
    assert_eq!((ended.watch_id, ended.compact_revision), (0, last));
    assert_eq!(ended.cancel_reason, "etcdserver: mvcc: required revision has been compacted");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn events_of_one_revision_come_together_and_watches_join_without_gap_or_double() {
    let server = Server::start().await;
    let writer = {
        let mut kv = server.kv();
        tokio::spawn(async move {
            for _ in 0..400 {
                let operation = |key: &'static str| etcd::RequestOp {
                    request: Some(request_op::Request::RequestPut(put(key, "v"))),
                };
                let success = vec![operation("k1"), operation("k2")];
                kv.txn(etcd::TxnRequest { success, ..Default::default() }).await.unwrap();
            }
        })
    };
    // Each of them begins in the past while the writer goes on, and so has to find the present.
    let mut readers = Vec::new();
    for at in 0..20 {
        let mut stream = Stream::open(&server).await;
        stream.create(from(2, "k", if at % 2 == 0 { "l" } else { "k2" })).await;
        readers.push((
            at,
            tokio::spawn(async move {
                let mut next = 2;
                while next < 402 {
                    let response = stream.next().await;
                    let told = told(&response.events);
                    let mut expected = Vec::new();
                    while expected.len() < told.len() {
                        expected.push(format!("+k1@{next}"));
                        if at % 2 == 0 {
                            expected.push(format!("+k2@{next}"));
                        }
                        next += 1;
                    }
                    assert_eq!(told, expected);
                }
            }),
        ));
        tokio::time::sleep(Duration::from_millis(3)).await;
    }
    writer.await.unwrap();
    for (at, reader) in readers {
        reader.await.unwrap_or_else(|error| panic!("reader {at}: {error}"));
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stopping_server_ends_its_streams_so_that_clients_go_elsewhere() {
    let server = Server::start().await;
    let mut stream = Stream::open(&server).await;
    stream.create(watch("k", "")).await;
    let ended = tokio::spawn(async move { stream.try_next().await });
    server.stop().await;
    assert_refused(ended.await.unwrap(), Code::Unavailable, "etcdserver: server stopped");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_has_nothing_more_to_ask_is_told_events_all_the_same() {
    let server = Server::start().await;
    let request = etcd::WatchRequest { request_union: Some(RequestUnion::CreateRequest(watch("k", ""))) };
    let mut service = WatchClient::new(server.channel.clone());
    let outgoing = Request::new(futures_util::stream::iter([request]));
    let mut responses = service.watch(outgoing).await.unwrap().into_inner();
    assert!(responses.message().await.unwrap().unwrap().created);
    server.put("k", "v").await;
    let response = timeout(SOON, responses.message()).await.unwrap().unwrap().unwrap();
    assert_eq!(told(&response.events), ["+k@2"]);
    let unknown = http::uri::PathAndQuery::from_static("/etcdserverpb.Watch/Glance");
    let mut grpc = tonic::client::Grpc::new(server.channel.clone());
    grpc.ready().await.unwrap();
    let codec = tonic_codec();
    let status = grpc.unary(Request::new(etcd::WatchRequest::default()), unknown, codec).await.unwrap_err();
    assert_eq!(status.code(), Code::Unimplemented);
    drop(responses);
    server.stop().await;
}

fn tonic_codec() -> ringfence_proto::codec::ScanningCodec<etcd::WatchRequest, etcd::WatchResponse> {
    Default::default()
}
