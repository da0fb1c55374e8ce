//! Locks and elections of a cluster of one node, as clients over the network see them.

use std::time::Duration;

use bytes::Bytes;
use prost::Message as _;
use ringfence_consensus::rt;
use ringfence_proto::etcdserverpb::request_op::Request as Op;
use ringfence_proto::etcdserverpb::{self as etcd};
use ringfence_proto::ringfence_v1::error_detail::AttemptApplied;
use ringfence_proto::v3electionpb::election_client::ElectionClient;
use ringfence_proto::v3electionpb::{
    CampaignRequest, CampaignResponse, LeaderKey, LeaderRequest, ProclaimRequest, ResignRequest,
};
use ringfence_proto::v3lockpb::lock_client::LockClient;
use ringfence_proto::v3lockpb::{LockRequest, LockResponse, UnlockRequest};
use ringfence_types::{Command, LeaseCommand, LeaseId, LeaseTime};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tonic::transport::Channel;
use tonic::{Code, Response, Status};

use crate::harness::{Server, assert_refused, detail, keys, put, range};

/// Longer than anything here takes, unless it never comes.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long something that must not happen is given to happen.
const GRACE: Duration = Duration::from_millis(150);

/// A call that is waiting for its lock.
type Waiting = JoinHandle<Result<Response<LockResponse>, Status>>;

impl Server {
    fn locks(&self) -> LockClient<Channel> {
        LockClient::new(self.channel.clone())
    }

    fn elections(&self) -> ElectionClient<Channel> {
        ElectionClient::new(self.channel.clone())
    }

    /// A connection of its own, which breaks when this is dropped.
    async fn another_channel(&self) -> Channel {
        Channel::from_shared(format!("http://{}", self.address)).unwrap().connect().await.unwrap()
    }

    /// Ends a session, with all keys that hang on it.
    async fn end(&self, lease: i64) {
        self.lease(LeaseCommand::Revoke { lease: LeaseId(lease) }).await;
    }

    async fn lease(&self, command: LeaseCommand) {
        let command = Command::Lease { command, clock: LeaseTime(0) };
        self.node.propose(&command, rt::now() + PATIENCE).await.unwrap().unwrap();
    }

    async fn lock(&self, name: &'static str, lease: i64) -> LockResponse {
        let locked = self.locks().lock(lock(name, lease)).await;
        locked.expect("the lock is free").into_inner()
    }

    /// A call that waits: its key is in the queue when this returns.
    async fn begin_lock(&self, name: &'static str, lease: i64) -> Waiting {
        self.begin_lock_over(self.channel.clone(), name, lease).await
    }

    async fn begin_lock_over(&self, channel: Channel, name: &'static str, lease: i64) -> Waiting {
        let key = format!("{name}/{lease:x}");
        let before = self.modified(&key).await;
        let waiting = tokio::spawn(async move { LockClient::new(channel).lock(lock(name, lease)).await });
        until("the key is written", || async { self.modified(&key).await > before }).await;
        waiting
    }

    async fn unlock(&self, key: &Bytes, token: i64) {
        self.locks().unlock(UnlockRequest { key: key.clone(), token }).await.expect("it is given back");
    }

    /// The mod revision of a key, 0 where there is none.
    async fn modified(&self, key: &str) -> i64 {
        let get = etcd::RangeRequest { key: key.to_owned().into(), ..Default::default() };
        let answer = self.kv().range(get).await.unwrap().into_inner();
        answer.kvs.first().map_or(0, |kv| kv.mod_revision)
    }

    async fn exists(&self, key: &str) -> bool {
        self.modified(key).await > 0
    }

    async fn put_leased(&self, key: &str, lease: i64) -> i64 {
        let put = etcd::PutRequest { lease, ..put(key, "") };
        self.kv().put(put).await.unwrap().into_inner().header.unwrap().revision
    }

    async fn delete(&self, key: &'static str) {
        let delete = etcd::DeleteRangeRequest { key: key.into(), ..Default::default() };
        assert_eq!(self.kv().delete_range(delete).await.unwrap().into_inner().deleted, 1);
    }

    async fn campaign(&self, name: &'static str, lease: i64, value: &'static str) -> CampaignResponse {
        let campaign = CampaignRequest { name: name.into(), lease, value: value.into() };
        let elected = self.elections().campaign(campaign).await;
        elected.expect("nobody else stands").into_inner()
    }
}

fn lock(name: &'static str, lease: i64) -> LockRequest {
    LockRequest { name: name.into(), lease }
}

/// Waits for something that must come.
async fn until<F: Future<Output = bool>>(what: &str, mut is: impl FnMut() -> F) {
    let waiting = async {
        while !is().await {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(PATIENCE, waiting).await.unwrap_or_else(|_| panic!("it never comes: {what}"));
}

async fn granted(waiting: Waiting) -> LockResponse {
    let ended = timeout(PATIENCE, waiting).await.expect("the lock is free now").unwrap();
    ended.expect("the lock is granted").into_inner()
}

async fn refused(waiting: Waiting) -> Status {
    timeout(PATIENCE, waiting).await.expect("the call ends").unwrap().expect_err("nothing is granted")
}

async fn assert_waits(waiting: &mut Waiting) {
    assert!(timeout(GRACE, waiting).await.is_err(), "it must wait");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lock_is_taken_given_back_and_taken_again_with_a_larger_token() {
    let server = Server::start().await;
    server.grant(0x2a).await;
    let answer = server.locks().lock(lock("jobs", 0x2a)).await.unwrap();
    assert_eq!(answer.metadata().get("ringfence-lease").unwrap(), "2a");
    let told = answer.metadata().get("ringfence-token").unwrap().clone();
    let first = answer.into_inner();
    assert_eq!((first.key.as_ref(), first.lease), (&b"jobs/2a"[..], 0x2a));
    assert_eq!(told, first.token.to_string().as_str());
    let stored = server.kv().range(range("jobs/2a", "")).await.unwrap().into_inner();
    assert_eq!((stored.kvs[0].create_revision, stored.kvs[0].lease), (first.token, 0x2a));

    let again = server.lock("jobs", 0x2a).await;
    assert_eq!((again.token, &again.key), (first.token, &first.key), "a session has a lock once");
    assert!(server.modified("jobs/2a").await > first.token, "each call writes the key");

    server.unlock(&first.key, first.token).await;
    assert!(!server.exists("jobs/2a").await);
    let later = server.lock("jobs", 0x2a).await;
    assert!(later.token > first.token);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lock_without_a_lease_gets_one_of_sixty_seconds() {
    let server = Server::start().await;
    let first = server.lock("jobs", 0).await;
    assert!(first.lease > 0);
    assert_eq!(first.key, format!("jobs/{:x}", first.lease));
    let lease = server.node.view().lease(LeaseId(first.lease)).unwrap().expect("it was granted");
    assert_eq!((lease.ttl_seconds, lease.keys), (60, 1));
    let absent = server.locks().lock(lock("other", 77)).await;
    assert_refused(absent, Code::NotFound, "etcdserver: requested lease not found");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn waiters_have_the_lock_in_the_order_in_which_they_came() {
    const WAITERS: i64 = 40;
    let server = Server::start().await;
    let mut holder = {
        server.grant(1).await;
        server.lock("jobs", 1).await
    };
    let mut waiting = Vec::new();
    // Their leases' numbers, and so their keys, are in another order than they come in.
    for lease in (2..WAITERS + 2).rev() {
        server.grant(lease).await;
        waiting.push((lease, server.begin_lock("jobs", lease).await));
    }
    for (lease, mut next) in waiting {
        assert!(!next.is_finished(), "nobody has the lock before it is given back");
        server.unlock(&holder.key, holder.token).await;
        let granted =
            timeout(PATIENCE, &mut next).await.expect("it is the next").unwrap().unwrap().into_inner();
        assert_eq!(granted.lease, lease);
        assert!(granted.token > holder.token);
        holder = granted;
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_names_are_waited_for_at_once() {
    let server = Server::start().await;
    let names = ["a", "b", "c/d", "", "c"];
    for lease in [1, 2] {
        server.grant(lease).await;
    }
    let mut held = Vec::new();
    // The last one first: the keys of "c/d" lie below "c".
    for name in names.into_iter().rev() {
        held.push(server.lock(name, 1).await);
    }
    let mut waiting = Vec::new();
    for name in names {
        waiting.push(server.begin_lock(name, 2).await);
    }
    for (held, waiting) in held.into_iter().rev().zip(waiting) {
        assert!(!waiting.is_finished(), "{held:?}");
        server.unlock(&held.key, held.token).await;
        let granted = granted(waiting).await;
        assert_eq!(granted.lease, 2);
        server.unlock(&granted.key, granted.token).await;
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lock_is_never_handed_to_a_session_that_ended_while_it_waited() {
    let server = Server::start().await;
    for lease in [1, 2, 3] {
        server.grant(lease).await;
    }
    let holder = server.lock("jobs", 1).await;
    let ended = server.begin_lock("jobs", 2).await;
    let alive = server.begin_lock("jobs", 3).await;
    server.end(2).await;
    server.unlock(&holder.key, holder.token).await;
    assert_eq!(granted(alive).await.lease, 3);
    let status = refused(ended).await;
    assert_eq!((status.code(), status.message()), (Code::FailedPrecondition, "mutex: session is expired"));
    assert_eq!(detail(&status).reason, "session_expired");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_that_ends_is_told_while_the_lock_is_still_held() {
    let server = Server::start().await;
    for lease in [1, 2] {
        server.grant(lease).await;
    }
    server.lock("jobs", 1).await;
    let waiting = server.begin_lock("jobs", 2).await;
    server.end(2).await;
    // Granted again, its key put again: another candidacy, which is not this call's.
    server.grant(2).await;
    server.put_leased("jobs/2", 2).await;
    assert_eq!(refused(waiting).await.message(), "mutex: session is expired");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_lock_keys_made_by_one_transaction() {
    let server = Server::start().await;
    for lease in [1, 2, 3] {
        server.grant(lease).await;
    }
    let both = ["jobs/1", "jobs/2"].map(|key| {
        let put = etcd::PutRequest { lease: 1, ..put(key, "") };
        etcd::RequestOp { request: Some(Op::RequestPut(put)) }
    });
    server.kv().txn(etcd::TxnRequest { success: both.to_vec(), ..Default::default() }).await.unwrap();
    // They share a create revision, so neither has the lock, and a session that has one of the keys never will.
    let never = server.locks().lock(lock("jobs", 2)).await.unwrap_err();
    assert_eq!((never.code(), detail(&never).reason.as_str()), (Code::FailedPrecondition, "not_a_candidate"));
    // They are older than whoever comes, so a lock taken by such keys is not handed to another either.
    let mut other = server.begin_lock("jobs", 3).await;
    assert_waits(&mut other).await;
    server.delete("jobs/1").await;
    assert_waits(&mut other).await;
    server.delete("jobs/2").await;
    assert_eq!(granted(other).await.lease, 3);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_named_like_the_lock() {
    let server = Server::start().await;
    for lease in [1, 2] {
        server.grant(lease).await;
    }
    // Neither is below the lock's name with something behind the slash that could be a session.
    server.put_leased("jobs", 2).await;
    server.put_leased("jobs0", 2).await;
    assert_eq!(server.lock("jobs", 1).await.lease, 1);
    // "other/" is below it, and it is nobody's: as in etcd it keeps everybody else waiting.
    server.put_leased("other/", 2).await;
    let mut waiting = server.begin_lock("other", 1).await;
    assert_waits(&mut waiting).await;
    server.delete("other/").await;
    granted(waiting).await;
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_nested_name() {
    let server = Server::start().await;
    for lease in [1, 2, 3] {
        server.grant(lease).await;
    }
    let nested = server.lock("a/b", 1).await;
    // The keys of "a/b" lie below "a": whoever comes later waits for them, as in etcd, and is told of by no token of theirs.
    let mut outer = server.begin_lock("a", 2).await;
    assert_waits(&mut outer).await;
    assert_eq!(server.node.view().holder(&"a".into()).unwrap().unwrap().key, "a/2");
    // The other way round nothing is in the way.
    let second = server.lock("a/c", 3).await;
    assert!(second.token > nested.token);
    server.unlock(&nested.key, nested.token).await;
    assert_eq!(granted(outer).await.lease, 2);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_recipe_of_a_client_and_the_service_exclude_each_other() {
    let server = Server::start().await;
    for lease in [1, 2, 3, 4] {
        server.grant(lease).await;
    }
    // A recipe's key may have any name below the lock's, and no lease.
    server.kv().put(put("jobs/recipe", "")).await.unwrap();
    let mut waiting = server.begin_lock("jobs", 1).await;
    assert_waits(&mut waiting).await;
    // One that comes later stands behind the service's.
    let behind = server.put_leased("jobs/a-recipe", 2).await;
    server.delete("jobs/recipe").await;
    let held = granted(waiting).await;
    assert!(held.token < behind);
    let mut next = server.begin_lock("jobs", 3).await;
    server.unlock(&held.key, held.token).await;
    assert_waits(&mut next).await;
    assert_eq!(server.node.view().holder(&"jobs".into()).unwrap().unwrap().token.0, behind);
    server.end(2).await;
    granted(next).await;
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_that_was_put_without_a_lease_never_holds_its_lock() {
    let server = Server::start().await;
    server.grant(1).await;
    server.kv().put(put("jobs/1", "")).await.unwrap();
    let never = server.locks().lock(lock("jobs", 1)).await.unwrap_err();
    assert_eq!((never.code(), detail(&never).reason.as_str()), (Code::FailedPrecondition, "not_a_candidate"));
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_waiter_whose_client_has_gone_is_removed() {
    let server = Server::start().await;
    for lease in [1, 2, 3] {
        server.grant(lease).await;
    }
    let holder = server.lock("jobs", 1).await;
    let broken = server.another_channel().await;
    let gone = server.begin_lock_over(broken, "jobs", 2).await;
    let next = server.begin_lock("jobs", 3).await;
    gone.abort();
    until("the waiter's key is removed", || async { !server.exists("jobs/2").await }).await;
    assert!(server.node.view().lease(LeaseId(2)).unwrap().is_some(), "the session itself lives on");
    server.unlock(&holder.key, holder.token).await;
    granted(next).await;
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_waiter_whose_deadline_has_passed_is_removed() {
    let server = Server::start().await;
    for lease in [1, 2] {
        server.grant(lease).await;
    }
    server.lock("jobs", 1).await;
    // By hand: a client's library would keep the deadline by itself, and show nothing of what the server does.
    let message = lock("jobs", 2).encode_to_vec();
    let length = u32::try_from(message.len()).unwrap().to_be_bytes();
    let body = [&[0], length.as_slice(), &message].concat();
    let head = format!(
        "POST /v3lockpb.Lock/Lock HTTP/1.1\r\nHost: x\r\nContent-Type: application/grpc\r\nTE: trailers\r\n\
         grpc-timeout: 200m\r\nConnection: close\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    let mut stream = TcpStream::connect(&server.address).await.unwrap();
    stream.write_all(&[head.as_bytes(), &body].concat()).await.unwrap();
    let mut answer = Vec::new();
    timeout(PATIENCE, stream.read_to_end(&mut answer)).await.expect("it is answered").unwrap();
    let answer = String::from_utf8_lossy(&answer).to_lowercase();
    assert!(answer.contains("grpc-status: 4\r\n"), "{answer}");
    assert!(answer.contains("grpc-message: etcdserver:%20context%20deadline%20exceeded\r\n"), "{answer}");
    until("the waiter's key is removed", || async { !server.exists("jobs/2").await }).await;
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_waiter_removed_by_a_broken_connection_while_its_retry_holds() {
    let server = Server::start().await;
    for lease in [1, 2, 3] {
        server.grant(lease).await;
    }
    let holder = server.lock("jobs", 1).await;
    let broken = server.another_channel().await;
    let first = server.begin_lock_over(broken, "jobs", 2).await;
    let place = server.kv().range(range("jobs/2", "")).await.unwrap().into_inner().kvs[0].create_revision;
    let mut retry = server.begin_lock("jobs", 2).await;
    // The first call ends now that its session's retry stands in its place: the key must stay.
    first.abort();
    assert_waits(&mut retry).await;
    assert!(server.exists("jobs/2").await);
    server.unlock(&holder.key, holder.token).await;
    let held = granted(retry).await;
    assert_eq!(held.token, place, "the retry has the first call's place");

    // Where the first call has not ended when its session's turn comes, both are told the same.
    let first = server.begin_lock_over(server.another_channel().await, "jobs", 3).await;
    let retry = server.begin_lock("jobs", 3).await;
    server.unlock(&held.key, held.token).await;
    assert_eq!(granted(first).await.token, granted(retry).await.token);
    assert!(server.exists("jobs/3").await);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_late_unlock() {
    let server = Server::start().await;
    for lease in [1, 2] {
        server.grant(lease).await;
    }
    let first = server.lock("jobs", 1).await;
    server.unlock(&first.key, first.token).await;
    // The same session has the lock again, with the same key and another token.
    let second = server.lock("jobs", 1).await;
    server.unlock(&first.key, first.token).await;
    assert!(server.exists("jobs/1").await, "a late call with its token gives back nobody else's lock");
    server.unlock(&second.key, second.token).await;
    assert!(!server.exists("jobs/1").await);
    // What has gone is given back, with a token and without, as in etcd.
    server.unlock(&second.key, second.token).await;
    server.unlock(&second.key, 0).await;
    server.lock("jobs", 1).await;
    server.unlock(&first.key, 0).await;
    assert!(!server.exists("jobs/1").await, "without a token it is etcd's Unlock");
    let nothing = server.locks().unlock(UnlockRequest::default()).await;
    assert_refused(nothing, Code::InvalidArgument, "etcdserver: key is not provided");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stopping_server_leaves_waiters_to_their_leases() {
    let server = Server::start().await;
    for lease in [1, 2] {
        server.grant(lease).await;
    }
    server.lock("jobs", 1).await;
    let waiting = server.begin_lock("jobs", 2).await;
    server.shutdown.cancel();
    let status = refused(waiting).await;
    assert_eq!((status.code(), status.message()), (Code::Unavailable, "etcdserver: server stopped"));
    assert_eq!(detail(&status).attempt_applied(), AttemptApplied::Unknown);
    let keys = server.node.view().candidates(&"jobs".into(), 10).unwrap();
    assert_eq!(keys.iter().map(|holder| holder.key.as_ref()).collect::<Vec<_>>(), [b"jobs/1", b"jobs/2"]);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_election_is_won_proclaimed_and_resigned() {
    let server = Server::start().await;
    for lease in [1, 2] {
        server.grant(lease).await;
    }
    let mut elections = server.elections();
    let nobody = elections.leader(LeaderRequest { name: "boss".into(), freshness: None }).await;
    assert_refused(nobody, Code::Unknown, "election: no leader");

    let won = server.campaign("boss", 1, "a").await;
    let leader = won.leader.unwrap();
    assert_eq!((leader.key.as_ref(), leader.name.as_ref(), leader.lease), (&b"boss/1"[..], &b"boss"[..], 1));
    assert_eq!((leader.rev, won.token, won.lease), (won.token, leader.rev, 1));
    let said = |elections: &ElectionClient<Channel>| {
        let mut elections = elections.clone();
        async move {
            let answer = elections
                .leader(LeaderRequest { name: "boss".into(), freshness: None })
                .await
                .unwrap()
                .into_inner();
            let kv = answer.kv.unwrap();
            (kv.value, kv.create_revision, kv.lease)
        }
    };
    assert_eq!(said(&elections).await, ("a".into(), leader.rev, 1));
    let again = server.campaign("boss", 1, "b").await;
    assert_eq!(again.leader.as_ref(), Some(&leader));
    assert_eq!(said(&elections).await, ("b".into(), leader.rev, 1));
    let proclaim = |leader: &LeaderKey| ProclaimRequest { leader: Some(leader.clone()), value: "c".into() };
    elections.proclaim(proclaim(&leader)).await.unwrap();
    assert_eq!(said(&elections).await, ("c".into(), leader.rev, 1), "the lease stays");

    let resign = |leader: &LeaderKey| ResignRequest { leader: Some(leader.clone()) };
    let other = LeaderKey { rev: leader.rev + 1, ..leader.clone() };
    elections.resign(resign(&other)).await.expect("who does not lead has resigned");
    assert_eq!(said(&elections).await.0, "c");
    elections.resign(resign(&leader)).await.unwrap();
    for stale in [leader.clone(), other, LeaderKey { rev: 0, ..leader }] {
        let late = elections.proclaim(proclaim(&stale)).await;
        assert_refused(late, Code::Unknown, "election: not leader");
    }
    assert!(!server.exists("boss/1").await);
    let nobody = elections.proclaim(ProclaimRequest::default()).await;
    assert_refused(nobody, Code::InvalidArgument, "\"leader\" field must be provided");
    let nobody = elections.resign(ResignRequest::default()).await;
    assert_refused(nobody, Code::InvalidArgument, "\"leader\" field must be provided");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_observes_sees_each_leader_and_never_an_older_one_again() {
    let server = Server::start().await;
    for lease in [1, 2] {
        server.grant(lease).await;
    }
    let mut elections = server.elections();
    let mut observed =
        elections.observe(LeaderRequest { name: "boss".into(), freshness: None }).await.unwrap().into_inner();
    let mut next = async || {
        let leader = timeout(PATIENCE, observed.message()).await.expect("it is told").unwrap().unwrap();
        let kv = leader.kv.unwrap();
        assert!(leader.header.unwrap().revision >= kv.mod_revision);
        (kv.value, kv.create_revision, kv.mod_revision)
    };
    let first = server.campaign("boss", 1, "a").await.leader.unwrap();
    let told = next().await;
    assert_eq!((told.0, told.1), ("a".into(), first.rev));
    // The second says something before the first says it again: its key is younger, and was changed earlier.
    let channel = server.channel.clone();
    let campaign = CampaignRequest { name: "boss".into(), lease: 2, value: "b".into() };
    let second = tokio::spawn(async move { ElectionClient::new(channel).campaign(campaign).await });
    until("the second stands", || server.exists("boss/2")).await;
    let proclaim = ProclaimRequest { leader: Some(first.clone()), value: "c".into() };
    elections.proclaim(proclaim).await.unwrap();
    let told = next().await;
    assert_eq!((told.0, told.1), ("c".into(), first.rev));
    elections.resign(ResignRequest { leader: Some(first) }).await.unwrap();
    let second = timeout(PATIENCE, second).await.expect("it leads now").unwrap().unwrap().into_inner();
    let told = next().await;
    assert_eq!((told.0, told.1), ("b".into(), second.token));
    // Who begins to observe now is told of the leader at once.
    let mut late =
        elections.observe(LeaderRequest { name: "boss".into(), freshness: None }).await.unwrap().into_inner();
    let now = timeout(PATIENCE, late.message()).await.expect("it is told").unwrap().unwrap();
    assert_eq!(now.kv.unwrap().value, "b");
    server.shutdown.cancel();
    let ended = timeout(PATIENCE, late.message()).await.expect("it ends").unwrap_err();
    assert_eq!(ended.code(), Code::Unavailable);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_for_locks_are_counted() {
    let server = Server::start().await;
    let held = server.lock("jobs", 0).await;
    server.unlock(&held.key, held.token).await;
    let (_, metrics) = server.get("/metrics").await;
    for method in ["Lock", "Unlock"] {
        let line =
            format!("grpc_server_started_total{{grpc_method=\"{method}\",grpc_service=\"v3lockpb.Lock\"}} 1");
        assert!(metrics.contains(&line), "{line}");
    }
    let left = server.kv().range(range("jobs/", "jobs0")).await.unwrap().into_inner();
    assert_eq!(keys(&left.kvs), Vec::<String>::new());
    server.stop().await;
}
