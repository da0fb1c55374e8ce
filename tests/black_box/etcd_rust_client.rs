//! The Rust crate `etcd-client`, which knows nothing of us, against a cluster of ours.

use std::sync::Arc;
use std::time::Duration;

use etcd_client::{
    Client, CompactionOptions, Compare, CompareOp, DeleteOptions, Error, Event, EventType, GetOptions,
    GetResponse, KeyValue, LockOptions, ObserveStream, ProclaimOptions, PutOptions, ResignOptions, SortOrder,
    SortTarget, Txn, TxnOp, TxnOpResponse, WatchOptions,
};
use ringfence_proto::ringfence_v1::error_detail::AttemptApplied;
use ringfence_tests::cluster::Cluster;
use tonic::Code;

use crate::detail::detail;

/// A client of all nodes of a cluster that others use too.
async fn shared() -> (Arc<Cluster>, Client) {
    let cluster = Cluster::shared();
    let client = client_of(&cluster).await;
    (cluster, client)
}

async fn alone(nodes: usize) -> (Cluster, Client) {
    let cluster = Cluster::start(nodes);
    let client = client_of(&cluster).await;
    (cluster, client)
}

async fn client_of(cluster: &Cluster) -> Client {
    let endpoints: Vec<&str> = cluster.nodes.iter().map(|node| node.client.as_str()).collect();
    Client::connect(endpoints, None).await.expect("the nodes listen")
}

fn keys(answer: &GetResponse) -> Vec<&str> {
    answer.kvs().iter().map(|kv| kv.key_str().expect("the tests' keys are text")).collect()
}

/// Asserts that a call was refused with etcd's code and message, surely without effect.
fn assert_refused<T: std::fmt::Debug>(result: Result<T, Error>, code: Code, message: &str) {
    let status = match result {
        Err(Error::GRpcStatus(status)) => status,
        other => panic!("it should have been refused with {message:?}: {other:?}"),
    };
    assert_eq!((status.code(), status.message()), (code, message));
    let detail = detail(&status);
    assert_eq!(detail.attempt_applied(), AttemptApplied::No, "{detail:?}");
    assert!(!detail.reason.is_empty() && !detail.message.is_empty(), "{detail:?}");
}

#[tokio::test]
async fn a_key_lives_as_in_etcd() {
    let (_cluster, mut client) = shared().await;
    let first = client.put("rust/life/a", "1", None).await.expect("it is put");
    let created = first.header().expect("every answer has a header").revision();
    let previous = PutOptions::new().with_prev_key();
    let second = client.put("rust/life/a", "2", Some(previous)).await.expect("it is put");
    let old = second.prev_key().expect("it was asked for");
    assert_eq!((old.value(), old.version(), old.mod_revision()), (&b"1"[..], 1, created));

    let kept = PutOptions::new().with_ignore_value();
    client.put("rust/life/a", "", Some(kept)).await.expect("the value stays");
    let got = client.get("rust/life/a", None).await.expect("it is read");
    let kv: &KeyValue = &got.kvs()[0];
    assert_eq!((kv.value(), kv.version(), kv.create_revision(), kv.lease()), (&b"2"[..], 3, created, 0));
    assert!(kv.mod_revision() > created);

    let deletion =
        client.delete("rust/life/a", Some(DeleteOptions::new().with_prev_key())).await.expect("it is");
    assert_eq!((deletion.deleted(), deletion.prev_kvs()[0].version()), (1, 3));
    assert_eq!(client.delete("rust/life/a", None).await.expect("it is").deleted(), 0);
    assert!(client.get("rust/life/a", None).await.expect("it is read").kvs().is_empty());

    // A key that comes again begins again.
    client.put("rust/life/a", "4", None).await.expect("it is put");
    let again = client.get("rust/life/a", None).await.expect("it is read");
    assert_eq!(again.kvs()[0].version(), 1);
    assert!(again.kvs()[0].create_revision() > created);
    // Its past is still there.
    let past = GetOptions::new().with_revision(created);
    assert_eq!(client.get("rust/life/a", Some(past)).await.expect("it is read").kvs()[0].value(), b"1");
}

#[tokio::test]
async fn ranges_are_limited_sorted_and_filtered() {
    let (_cluster, mut client) = shared().await;
    let mut revisions = Vec::new();
    for (key, value) in
        [("rust/range/c", "1"), ("rust/range/a", "3"), ("rust/range/b", "2"), ("rust/range/c", "0")]
    {
        let put = client.put(key, value, None).await.expect("it is put");
        revisions.push(put.header().expect("every answer has a header").revision());
    }
    let all = || GetOptions::new().with_prefix();
    let mut get =
        async |options: GetOptions| client.get("rust/range/", Some(options)).await.expect("it is read");

    assert_eq!(keys(&get(all()).await), ["rust/range/a", "rust/range/b", "rust/range/c"]);
    let limited = get(all().with_limit(2)).await;
    assert_eq!(
        (keys(&limited), limited.count(), limited.more()),
        (vec!["rust/range/a", "rust/range/b"], 3, true)
    );
    let counted = get(all().with_count_only()).await;
    assert_eq!((counted.count(), counted.kvs().len()), (3, 0));
    let without_values = get(all().with_keys_only()).await;
    assert!(without_values.kvs().iter().all(|kv| kv.value().is_empty()));
    assert_eq!(without_values.kvs().len(), 3);
    assert_eq!(keys(&get(all().with_serializable()).await).len(), 3);
    assert_eq!(
        keys(&get(GetOptions::new().with_range("rust/range/c")).await),
        ["rust/range/a", "rust/range/b"]
    );

    for (target, ascending) in [
        (SortTarget::Key, ["rust/range/a", "rust/range/b", "rust/range/c"]),
        (SortTarget::Create, ["rust/range/c", "rust/range/a", "rust/range/b"]),
        (SortTarget::Mod, ["rust/range/a", "rust/range/b", "rust/range/c"]),
        (SortTarget::Value, ["rust/range/c", "rust/range/b", "rust/range/a"]),
    ] {
        let up = get(all().with_sort(target, SortOrder::Ascend)).await;
        assert_eq!(keys(&up), ascending, "{target:?}");
        let down = get(all().with_sort(target, SortOrder::Descend)).await;
        assert_eq!(keys(&down), ascending.into_iter().rev().collect::<Vec<_>>(), "{target:?}");
    }
    let newest_version = get(all().with_sort(SortTarget::Version, SortOrder::Descend).with_limit(1)).await;
    assert_eq!(keys(&newest_version), ["rust/range/c"]);

    let [c, a, b, c_again] = revisions[..] else { panic!("four puts have four revisions") };
    assert_eq!(keys(&get(all().with_revision(a)).await), ["rust/range/a", "rust/range/c"]);
    assert_eq!(get(all().with_revision(c)).await.kvs()[0].value(), b"1");
    assert_eq!(keys(&get(all().with_min_mod_revision(b)).await), ["rust/range/b", "rust/range/c"]);
    assert_eq!(keys(&get(all().with_max_mod_revision(b)).await), ["rust/range/a", "rust/range/b"]);
    assert_eq!(keys(&get(all().with_min_create_revision(a)).await), ["rust/range/a", "rust/range/b"]);
    assert_eq!(keys(&get(all().with_max_create_revision(c)).await), ["rust/range/c"]);
    assert!(keys(&get(all().with_min_mod_revision(c_again + 1)).await).is_empty());
    let from = client.get("rust/range/b", Some(GetOptions::new().with_from_key().with_limit(2))).await;
    assert_eq!(keys(&from.expect("it is read")), ["rust/range/b", "rust/range/c"]);
    let deletion = client.delete("rust/range/a", Some(DeleteOptions::new().with_range("rust/range/c"))).await;
    assert_eq!(deletion.expect("it is deleted").deleted(), 2);
}

#[tokio::test]
async fn a_transaction_compares_everything_that_can_be_compared() {
    use CompareOp::{Equal, Greater, Less, NotEqual};
    let (_cluster, mut client) = shared().await;
    client.put("rust/txn/a", "m", None).await.expect("it is put");
    let got = client.get("rust/txn/a", None).await.expect("it is read");
    let revision = got.kvs()[0].mod_revision();
    for (compare, holds) in [
        (Compare::value("rust/txn/a", Equal, "m"), true),
        (Compare::value("rust/txn/a", NotEqual, "m"), false),
        (Compare::value("rust/txn/a", Greater, "l"), true),
        (Compare::value("rust/txn/a", Less, "l"), false),
        (Compare::version("rust/txn/a", Equal, 1), true),
        (Compare::version("rust/txn/a", Greater, 1), false),
        (Compare::version("rust/txn/absent", Equal, 0), true),
        (Compare::version("rust/txn/absent", NotEqual, 0), false),
        (Compare::create_revision("rust/txn/a", Equal, revision), true),
        (Compare::create_revision("rust/txn/a", Less, revision), false),
        (Compare::create_revision("rust/txn/absent", Equal, 0), true),
        (Compare::mod_revision("rust/txn/a", Less, revision + 1), true),
        (Compare::mod_revision("rust/txn/a", NotEqual, revision), false),
        (Compare::lease("rust/txn/a", Equal, 0), true),
        (Compare::lease("rust/txn/a", Greater, 0), false),
        // A value is compared with what there is; with nothing, no comparison holds.
        (Compare::value("rust/txn/absent", NotEqual, "x"), false),
        // A range holds if all its keys do.
        (Compare::version("rust/txn/a", Greater, 0).with_range("rust/txn/b"), true),
        (Compare::value("rust/txn/a", Equal, "z").with_prefix(), false),
    ] {
        let what = format!("{compare:?}");
        let answer = client.txn(Txn::new().when([compare])).await.expect("it is judged");
        assert_eq!(answer.succeeded(), holds, "{what}");
    }
    let both = [Compare::version("rust/txn/a", Equal, 1), Compare::version("rust/txn/a", Equal, 2)];
    assert!(!client.txn(Txn::new().when(both)).await.expect("it is judged").succeeded(), "all must hold");
}

#[tokio::test]
async fn a_transaction_does_its_branch_at_one_revision_with_nested_ones() {
    let (_cluster, mut client) = shared().await;
    client.put("rust/nest/a", "1", None).await.expect("it is put");
    let inner = Txn::new()
        .when([Compare::value("rust/nest/b", CompareOp::Equal, "just put")])
        .and_then([TxnOp::put("rust/nest/inner", "yes", None), TxnOp::get("rust/nest/inner", None)])
        .or_else([TxnOp::put("rust/nest/inner", "no", None)]);
    let txn = Txn::new()
        .when([Compare::value("rust/nest/a", CompareOp::Equal, "1")])
        .and_then([
            TxnOp::get("rust/nest/a", None),
            TxnOp::put("rust/nest/b", "just put", Some(PutOptions::new().with_prev_key())),
            TxnOp::get("rust/nest/b", None),
            TxnOp::delete("rust/nest/a", Some(DeleteOptions::new().with_prev_key())),
            TxnOp::txn(inner),
        ])
        .or_else([TxnOp::put("rust/nest/else", "1", None)]);
    let answer = client.txn(txn.clone()).await.expect("it is applied");
    assert!(answer.succeeded());
    let revision = answer.header().expect("every answer has a header").revision();
    let responses = answer.op_responses();
    let [
        TxnOpResponse::Get(a),
        TxnOpResponse::Put(_),
        TxnOpResponse::Get(b),
        TxnOpResponse::Delete(deletion),
        TxnOpResponse::Txn(nested),
    ] = &responses[..]
    else {
        panic!("the answers come in the order of the operations: {responses:?}")
    };
    assert_eq!(a.kvs()[0].value(), b"1");
    assert_eq!((b.kvs()[0].value(), b.kvs()[0].mod_revision()), (&b"just put"[..], revision));
    assert_eq!(deletion.prev_kvs()[0].value(), b"1");
    // As in etcd, the compares of nested transactions see the state before the whole one.
    assert!(!nested.succeeded());
    let got = client.get("rust/nest/", Some(GetOptions::new().with_prefix())).await.expect("it is read");
    assert_eq!(keys(&got), ["rust/nest/b", "rust/nest/inner"]);
    assert_eq!(got.kvs()[1].value(), b"no");
    assert!(got.kvs().iter().all(|kv| kv.mod_revision() == revision), "all at one revision");

    let otherwise = client.txn(txn).await.expect("it is applied");
    assert!(!otherwise.succeeded());
    assert_eq!(client.get("rust/nest/else", None).await.expect("it is read").count(), 1);
}

#[tokio::test]
async fn what_is_malformed_is_refused_with_etcds_words() {
    let (_cluster, mut client) = shared().await;
    use Code::{InvalidArgument, NotFound, OutOfRange};
    assert_refused(client.put("", "v", None).await, InvalidArgument, "etcdserver: key is not provided");
    assert_refused(client.get("", None).await, InvalidArgument, "etcdserver: key is not provided");
    let keep_value = PutOptions::new().with_ignore_value();
    let both = client.put("rust/bad/a", "v", Some(keep_value.clone())).await;
    assert_refused(both, InvalidArgument, "etcdserver: value is provided");
    let absent = client.put("rust/bad/absent", "", Some(keep_value)).await;
    assert_refused(absent, InvalidArgument, "etcdserver: key not found");
    let keep_lease = PutOptions::new().with_lease(7).with_ignore_lease();
    assert_refused(
        client.put("rust/bad/a", "v", Some(keep_lease)).await,
        InvalidArgument,
        "etcdserver: lease is provided",
    );
    let leased = client.put("rust/bad/a", "v", Some(PutOptions::new().with_lease(7))).await;
    assert_refused(leased, NotFound, "etcdserver: requested lease not found");
    let future = GetOptions::new().with_revision(1 << 40);
    let message = "etcdserver: mvcc: required revision is a future revision";
    assert_refused(client.get("rust/bad/a", Some(future)).await, OutOfRange, message);
    let large = client.put("rust/bad/large", vec![0; 1_600_000], None).await;
    assert_refused(large, InvalidArgument, "etcdserver: request is too large");
    let huge = client.put("rust/bad/huge", vec![0; 8 << 20], None).await;
    assert_refused(huge, InvalidArgument, "etcdserver: request is too large");
    let many: Vec<TxnOp> = (0..129).map(|n| TxnOp::put(format!("rust/bad/{n}"), "v", None)).collect();
    let message = "etcdserver: too many operations in txn request";
    assert_refused(client.txn(Txn::new().and_then(many)).await, InvalidArgument, message);
    let twice = [TxnOp::put("rust/bad/a", "1", None), TxnOp::put("rust/bad/a", "2", None)];
    let message = "etcdserver: duplicate key given in txn request";
    assert_refused(client.txn(Txn::new().and_then(twice)).await, InvalidArgument, message);
    // Nothing of all that was done.
    let left = client.get("rust/bad/", Some(GetOptions::new().with_prefix())).await.expect("it is read");
    assert_eq!(left.count(), 0);
    // The largest lawful transaction is done.
    let lawful: Vec<TxnOp> = (0..128).map(|n| TxnOp::put(format!("rust/good/{n}"), "v", None)).collect();
    client.txn(Txn::new().and_then(lawful)).await.expect("128 operations are lawful");
}

#[tokio::test]
async fn compaction_forgets_the_past_for_good() {
    let (_cluster, mut client) = alone(1).await;
    let mut revision = 0;
    for value in ["1", "2", "3"] {
        let put = client.put("a", value, None).await.expect("it is put");
        revision = put.header().expect("every answer has a header").revision();
    }
    let compact = client.compact(revision - 1, Some(CompactionOptions::new().with_physical())).await;
    compact.expect("it is compacted");
    let compacted = "etcdserver: mvcc: required revision has been compacted";
    let past = GetOptions::new().with_revision(revision - 2);
    assert_refused(client.get("a", Some(past)).await, Code::OutOfRange, compacted);
    assert_refused(client.compact(revision - 1, None).await, Code::OutOfRange, compacted);
    let future = "etcdserver: mvcc: required revision is a future revision";
    assert_refused(client.compact(revision + 1, None).await, Code::OutOfRange, future);
    let kept = GetOptions::new().with_revision(revision - 1);
    assert_eq!(client.get("a", Some(kept)).await.expect("it is kept").kvs()[0].value(), b"2");
    assert_eq!(client.get("a", None).await.expect("it is read").kvs()[0].value(), b"3");
}

#[tokio::test]
async fn the_cluster_tells_of_itself() {
    let (cluster, mut client) = shared().await;
    let members = client.member_list().await.expect("it lists members");
    let names: Vec<&str> = members.members().iter().map(|member| member.name()).collect();
    assert_eq!(names, ["node1", "node2", "node3"]);
    for (member, node) in members.members().iter().zip(&cluster.nodes) {
        assert_eq!(member.client_urls(), [format!("http://{}", node.client)]);
        assert_eq!(member.peer_urls(), [format!("http://{}", node.peer)]);
        assert!(!member.is_learner());
        let mut of_one = Client::connect([&node.client], None).await.expect("it listens");
        let status = of_one.status().await.expect("it tells its status");
        assert_eq!(status.header().expect("every answer has a header").member_id(), member.id());
        assert!(members.members().iter().any(|other| other.id() == status.leader()));
        assert!(status.errors().is_empty() && !status.is_learner() && status.db_size() > 0);
        assert!(status.raft_applied_index() <= status.raft_index() && status.raft_term() > 0);
    }
    // The same hash at the same revision on every node.
    client.put("rust/tell/a", "1", None).await.expect("it is put");
    let revision = client.get("rust/tell/a", None).await.expect("it is read").kvs()[0].mod_revision();
    let mut hashes = Vec::new();
    for node in &cluster.nodes {
        let mut of_one = Client::connect([&node.client], None).await.expect("it listens");
        // A linearizable read first: then the node has applied that far.
        of_one.get("rust/tell/a", None).await.expect("it is read");
        hashes.push(of_one.hash_kv(revision).await.expect("it hashes").hash());
    }
    assert!(hashes.iter().all(|hash| *hash == hashes[0]), "{hashes:?}");
    assert!(client.alarm(etcd_client::AlarmAction::Get, etcd_client::AlarmType::None, None).await.is_ok());
    client.defragment().await.expect("it has nothing to do, and says so");
}

#[tokio::test]
async fn the_leadership_moves_when_the_leader_is_told_to() {
    let (mut cluster, _client) = alone(3).await;
    let (leader, follower) = (cluster.leader(), cluster.follower());
    let mut of_leader = Client::connect([&cluster.nodes[leader].client], None).await.expect("it listens");
    let mut of_follower = Client::connect([&cluster.nodes[follower].client], None).await.expect("it listens");
    let target = of_follower.status().await.expect("it tells its status");
    let target = target.header().expect("every answer has a header").member_id();
    let refused = of_follower.move_leader(target).await;
    assert_refused(refused, Code::FailedPrecondition, "etcdserver: not leader");
    let unknown = of_leader.move_leader(0xabcdef).await;
    assert_refused(unknown, Code::FailedPrecondition, "etcdserver: bad leader transferee");
    of_leader.move_leader(target).await.expect("it moves");
    assert_eq!(cluster.leader(), follower);
    assert_eq!(of_follower.status().await.expect("it tells its status").leader(), target);
    of_leader.put("moved", "1", None).await.expect("a follower passes writes on");
}

#[tokio::test]
async fn a_snapshot_streams_to_its_end() {
    let (_cluster, mut client) = alone(1).await;
    client.put("a", vec![b'x'; 100_000], None).await.expect("it is put");
    let mut stream = client.snapshot().await.expect("it streams");
    let (mut bytes, mut left) = (0, u64::MAX);
    while let Some(piece) = stream.message().await.expect("it goes on") {
        bytes += piece.blob().len();
        assert!(piece.remaining_bytes() <= left, "it comes nearer to its end");
        left = piece.remaining_bytes();
    }
    assert_eq!(left, 0, "it says when it is whole");
    // Pages, and the hash behind them.
    assert!(bytes > 100_000 && bytes % 512 == 32, "{bytes}");
}

#[tokio::test]
async fn a_watch_tells_what_happens_and_is_resumed_where_it_was() {
    let (_cluster, mut client) = shared().await;
    let options = || WatchOptions::new().with_prefix();
    let (mut watcher, mut stream) =
        client.watch("rust/watch/", Some(options().with_prev_key())).await.expect("it begins");
    let mut revisions = Vec::new();
    for (key, value) in [("rust/watch/a", "1"), ("rust/watch/b", "1"), ("rust/watch/a", "2")] {
        let put = client.put(key, value, None).await.expect("it is put");
        revisions.push(put.header().expect("every answer has a header").revision());
    }
    let mut told = Vec::new();
    while told.len() < 2 {
        let answer = stream.message().await.expect("it goes on").expect("it goes on");
        told.extend(
            answer.events().iter().map(|event| event.kv().expect("it is about a key").mod_revision()),
        );
    }
    assert_eq!(told[..2], revisions[..2]);
    drop(stream);
    client.delete("rust/watch/b", None).await.expect("it is deleted");
    // The first stream ended behind its second event.
    let resumed = options().with_start_revision(revisions[1] + 1).with_prev_key();
    let (_, mut stream) = client.watch("rust/watch/", Some(resumed)).await.expect("it begins");
    let mut events = Vec::new();
    while events.len() < 2 {
        let answer = stream.message().await.expect("it goes on").expect("it goes on");
        events.extend(answer.events().iter().cloned());
    }
    let previous = |event: &Event| event.prev_kv().map(|kv| (kv.key().to_vec(), kv.value().to_vec()));
    assert_eq!(
        (events[0].event_type(), previous(&events[0])),
        (EventType::Put, Some((b"rust/watch/a".to_vec(), b"1".to_vec())))
    );
    assert_eq!(
        (events[1].event_type(), previous(&events[1])),
        (EventType::Delete, Some((b"rust/watch/b".to_vec(), b"1".to_vec())))
    );
    // The stream that was dropped takes its watcher with it.
    drop(watcher.cancel().await);

    let (mut watcher, mut stream) = client.watch("rust/watch/c", None).await.expect("it begins");
    watcher.request_progress().await.expect("it is sent");
    let progress = stream.message().await.expect("it goes on").expect("it goes on");
    assert!(progress.events().is_empty() && progress.watch_id() == -1, "{progress:?}");
    watcher.cancel().await.expect("it is sent");
    let canceled = stream.message().await.expect("it goes on").expect("it goes on");
    assert!(canceled.canceled() && canceled.watch_id() == watcher.watch_id(), "{canceled:?}");
}

#[tokio::test]
async fn a_lock_is_handed_from_one_to_the_next() {
    let (cluster, mut client) = shared().await;
    let mut leases = Vec::new();
    for _ in 0..2 {
        leases.push(client.lease_grant(60, None).await.expect("it is granted").id());
    }
    let lock = |lease| Some(LockOptions::new().with_lease(lease));
    let held = client.lock("rust/lock", lock(leases[0])).await.expect("it is free");
    assert!(held.key().starts_with(b"rust/lock/"), "{held:?}");
    let (mut waiter, lease) = (client_of(&cluster).await, leases[1]);
    let waiting = tokio::spawn(async move { waiter.lock("rust/lock", lock(lease)).await });
    // The waiter stands in the queue before the lock is given back.
    while client.get("rust/lock/", Some(GetOptions::new().with_prefix())).await.expect("it is read").count()
        < 2
    {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(!waiting.is_finished());
    client.unlock(held.key()).await.expect("it is given back");
    let next = waiting.await.expect("it goes on").expect("it is its turn");
    assert_ne!(next.key(), held.key());
    client.lease_revoke(lease).await.expect("it is revoked");
    assert!(client.get(next.key(), None).await.expect("it is read").kvs().is_empty(), "gone with its lease");
    let without = client.lock("rust/lock", lock(lease)).await;
    assert_refused(without, Code::NotFound, "etcdserver: requested lease not found");
}

#[tokio::test]
async fn an_election_has_one_leader_who_says_what_it_stands_for() {
    let (_cluster, mut client) = shared().await;
    let nobody = client.leader("rust/election").await;
    assert_refused(nobody, Code::Unknown, "election: no leader");
    let lease = client.lease_grant(60, None).await.expect("it is granted").id();
    let mut elected = client.campaign("rust/election", "first", lease).await.expect("nobody else stands");
    let leader = elected.take_leader().expect("the answer names the leader");
    assert_eq!((leader.name(), leader.lease()), (&b"rust/election"[..], lease));
    let mut observed = client.observe("rust/election").await.expect("it begins");
    let value = async |observed: &mut ObserveStream| {
        let told = observed.message().await.expect("it goes on").expect("it goes on");
        told.kv().expect("there is a leader").value_str().expect("it is text").to_owned()
    };
    assert_eq!(value(&mut observed).await, "first");
    let proclaim = ProclaimOptions::new().with_leader(leader.clone());
    client.proclaim("second", Some(proclaim)).await.expect("it leads");
    assert_eq!(value(&mut observed).await, "second");
    let told = client.leader("rust/election").await.expect("there is one");
    assert_eq!(told.kv().expect("there is one").key(), leader.key());
    client.resign(Some(ResignOptions::new().with_leader(leader))).await.expect("it leads");
    let nobody = client.leader("rust/election").await;
    assert_refused(nobody, Code::Unknown, "election: no leader");
}
