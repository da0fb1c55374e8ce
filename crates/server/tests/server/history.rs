//! History: how long it is kept, how it is compacted, and what is told of it.

use std::time::Duration;

use ringfence_proto::etcdserverpb::{self as etcd};
use ringfence_server::History;
use tonic::{Code, Request};

use crate::harness::{Server, Setup, assert_refused, put, range, until};

const COMPACTED: &str = "etcdserver: mvcc: required revision has been compacted";
const FUTURE: &str = "etcdserver: mvcc: required revision is a future revision";

async fn one(history: History) -> Server {
    let setup = Setup { history, ..Setup::default() };
    let [server] = <[_; 1]>::try_from(Server::start_with(1, setup).await).ok().unwrap();
    server
}

fn at(revision: i64) -> etcd::RangeRequest {
    etcd::RangeRequest { revision, ..range("k", "") }
}

fn revision(response: &etcd::PutResponse) -> i64 {
    response.header.as_ref().unwrap().revision
}

#[tokio::test(flavor = "multi_thread")]
async fn no_more_revisions_are_kept_than_are_wanted() {
    let server = one(History { keep_revisions: 100, ..History::EVERYTHING }).await;
    let mut last = 0;
    for number in 0..400 {
        last = revision(&server.put("k", &number.to_string()).await);
    }
    until("compaction", async || match server.gauge("etcd_debugging_mvcc_compact_revision").await as i64 {
        compacted if compacted >= last - 102 => Ok(()),
        compacted => Err(format!("{compacted} of {last}")),
    })
    .await;
    assert_refused(server.kv().range(at(last - 200)).await, Code::OutOfRange, COMPACTED);
    let kept = server.kv().range(at(last - 99)).await.unwrap().into_inner();
    assert_eq!(kept.kvs[0].value, "300", "the last hundred are kept");
    until("the file to be free of it", async || {
        let removed = server.gauge("etcd_debugging_mvcc_db_compaction_keys_total").await;
        match server.gauge("ringfence_compaction_swept").await {
            1.0 if removed >= 290.0 => Ok(()),
            swept => Err(format!("{swept}, {removed} removed")),
        }
    })
    .await;
    assert!(server.gauge("ringfence_automatic_compactions_total").await >= 1.0);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_older_than_wanted_goes_and_what_is_younger_stays() {
    let server = one(History { keep_age: Duration::from_secs(2), ..History::EVERYTHING }).await;
    let old = revision(&server.put("k", "old").await);
    server.put("k", "older").await;
    let young = until("compaction by age", async || {
        let young = revision(&server.put("k", "young").await);
        match server.kv().range(at(old)).await {
            Err(status) if status.message() == COMPACTED => Ok(young),
            other => Err(format!("{other:?}")),
        }
    })
    .await;
    server.kv().range(at(young)).await.expect("it is younger than two seconds");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn history_is_kept_where_nothing_else_is_wanted() {
    let server = one(History::EVERYTHING).await;
    let first = revision(&server.put("k", "first").await);
    for _ in 0..300 {
        server.put("k", "more").await;
    }
    tokio::time::sleep(Duration::from_millis(1_500)).await;
    assert_eq!(server.kv().range(at(first)).await.unwrap().into_inner().kvs[0].value, "first");
    assert_eq!(server.gauge("etcd_debugging_mvcc_compact_revision").await, 0.0);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_physical_compaction_is_answered_when_the_file_is_free_of_it() {
    let server = one(History::EVERYTHING).await;
    let mut last = 0;
    for number in 0..500 {
        last = revision(&server.put("k", &number.to_string()).await);
    }
    let compact = etcd::CompactionRequest { revision: last, physical: true };
    server.kv().compact(compact).await.expect("it is compacted");
    let status = server.node.status();
    assert!(status.compaction.is_swept, "{:?}", status.compaction);
    assert!(status.compaction.versions_removed >= 498, "{:?}", status.compaction);
    assert_refused(server.kv().range(at(last - 1)).await, Code::OutOfRange, COMPACTED);
    assert_refused(server.kv().compact(compact).await, Code::OutOfRange, COMPACTED);
    let ahead = etcd::CompactionRequest { revision: last + 1, ..compact };
    assert_refused(server.kv().compact(ahead).await, Code::OutOfRange, FUTURE);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn hashes_of_a_revision_are_the_same_on_all_members() {
    let servers = Server::start_cluster(3).await;
    let mut revisions = Vec::new();
    for number in 0..60 {
        revisions.push(revision(&servers[0].put(&format!("k{}", number % 7), &number.to_string()).await));
    }
    let (compacted, looked_at, last) = (revisions[20], revisions[40], revisions[59]);
    let compact = etcd::CompactionRequest { revision: compacted, physical: true };
    // Each member frees its file in its own time; this one has by the time of the answer.
    servers[1].kv().compact(Request::new(compact)).await.expect("it is compacted");
    let mut hashes = Vec::new();
    for server in &servers {
        let read = server.kv().range(range("k0", "")).await.expect("it has applied everything then");
        assert_eq!(read.into_inner().header.unwrap().revision, last);
        let hash = async |revision| server.maintenance().hash_kv(etcd::HashKvRequest { revision }).await;
        let told =
            |answer: etcd::HashKvResponse| (answer.hash, answer.compact_revision, answer.hash_revision);
        let old = told(hash(looked_at).await.unwrap().into_inner());
        assert_eq!((old.1, old.2), (compacted, looked_at));
        let new = told(hash(0).await.unwrap().into_inner());
        assert_eq!((new.1, new.2), (compacted, last));
        assert_ne!(old.0, new.0);
        hashes.push((old, new));
        assert_refused(hash(compacted - 1).await, Code::OutOfRange, COMPACTED);
        assert_refused(hash(last + 1).await, Code::OutOfRange, FUTURE);
    }
    assert!(hashes.iter().all(|hash| *hash == hashes[0]), "{hashes:?}");
    servers[0].kv().put(put("k0", "other")).await.expect("it is taken");
    let old = servers[0].maintenance().hash_kv(etcd::HashKvRequest { revision: looked_at }).await;
    assert_eq!(old.unwrap().into_inner().hash, hashes[0].0.0, "later writes change no older hash");
    for server in servers {
        server.stop().await;
    }
}
