//! Room: what is refused when there is none, what goes on all the same, and that it is over by itself.

use std::time::Duration;

use futures_util::future::join_all;
use ringfence_consensus::{Failure, SpaceLimits};
use ringfence_disk::Fault;
use ringfence_proto::etcdserverpb::lease_client::LeaseClient;
use ringfence_proto::etcdserverpb::request_op::Request as Op;
use ringfence_proto::etcdserverpb::{self as etcd, alarm_request::AlarmAction};
use ringfence_proto::v3lockpb as lock;
use ringfence_proto::v3lockpb::lock_client::LockClient;
use tonic::{Code, Status};

use crate::harness::{Server, Setup, assert_refused, detail, put, range, until};

const NO_SPACE: &str = "etcdserver: mvcc: database space exceeded";
const QUOTA: u64 = 4 << 20;
const VALUE_BYTES: usize = 64 << 10;
/// Calls to lock and to unlock, together.
const LOCK_CALLS: usize = 10_000;
const LOCKERS: usize = 50;

fn limited() -> Setup {
    let space = SpaceLimits { quota_bytes: QUOTA, ..SpaceLimits::default() };
    Setup { space, ..Setup::default() }
}

fn large(at: usize) -> etcd::PutRequest {
    put(&format!("fill/{at:04}"), &"x".repeat(VALUE_BYTES))
}

/// Puts large values through `server` until they are refused; how many were taken, and the refusal.
async fn fill(server: &Server) -> (usize, Status) {
    for at in 0.. {
        if let Err(refusal) = server.kv().put(large(at)).await {
            return (at, refusal);
        }
    }
    unreachable!("the quota is reached at some time")
}

async fn alarms(server: &Server) -> Vec<etcd::AlarmMember> {
    let get = etcd::AlarmRequest { action: AlarmAction::Get.into(), ..Default::default() };
    server.maintenance().alarm(get).await.unwrap().into_inner().alarms
}

async fn until_raised(server: &Server) {
    until("the alarm", async || match alarms(server).await.first() {
        Some(alarm) if alarm.alarm() == etcd::AlarmType::Nospace => Ok(()),
        other => Err(format!("{other:?}")),
    })
    .await;
}

async fn until_cleared(server: &Server) {
    until("the end of the alarm", async || match alarms(server).await.as_slice() {
        [] => Ok(()),
        alarms => Err(format!("{alarms:?}, {:?}", server.node.status().space)),
    })
    .await;
}

async fn empty(server: &Server) {
    let delete =
        etcd::DeleteRangeRequest { key: "fill/".into(), range_end: "fill0".into(), ..Default::default() };
    let deleted = server.kv().delete_range(delete).await.expect("deletions always pass").into_inner();
    assert!(deleted.deleted > 10, "{deleted:?}");
    let revision = deleted.header.unwrap().revision;
    let compact = etcd::CompactionRequest { revision, physical: false };
    server.kv().compact(compact).await.expect("compaction always passes");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_needs_room_is_refused_in_etcds_words() {
    let [server] = <[_; 1]>::try_from(Server::start_with(1, limited()).await).ok().unwrap();
    server.put("small", "v").await;
    let (taken, refusal) = fill(&server).await;
    assert!(taken * VALUE_BYTES <= QUOTA as usize && (taken + 4) * VALUE_BYTES > QUOTA as usize, "{taken}");
    assert_refused(Err::<(), _>(refusal.clone()), Code::ResourceExhausted, NO_SPACE);
    assert_eq!(detail(&refusal).reason, "no_space");
    assert!(detail(&refusal).message.contains("the quota is 4194304"), "{refusal:?}");
    until_raised(&server).await;
    let alarm = &alarms(&server).await[0];
    assert_eq!(alarm.member_id, server.node.node_id().0);
    let status = server.maintenance().status(etcd::StatusRequest {}).await.unwrap().into_inner();
    assert_eq!(status.db_size_quota, QUOTA as i64);
    let alarm_words = format!("memberID:{} alarm:NOSPACE", server.node.node_id());
    assert!(status.errors.contains(&alarm_words), "{:?}", status.errors);
    assert_eq!(server.gauge("ringfence_quota_near").await, 1.0);
    assert!(server.gauge("ringfence_no_space_refusals_total").await >= 1.0);
    assert_eq!(server.get("/health").await.0, 503);
    assert_eq!(server.get("/health?exclude=NOSPACE").await.0, 200);

    let puts = |key: &str| etcd::RequestOp { request: Some(Op::RequestPut(put(key, "v"))) };
    let txn = etcd::TxnRequest { success: vec![puts("t")], ..Default::default() };
    assert_refused(server.kv().txn(txn).await, Code::ResourceExhausted, NO_SPACE);
    assert_refused(server.kv().put(put("tiny", "")).await, Code::ResourceExhausted, NO_SPACE);
    let leased = etcd::PutRequest { lease: 77, ..put("without-a-name-above", "") };
    assert_refused(server.kv().put(leased).await, Code::ResourceExhausted, NO_SPACE);
    let reads = etcd::RequestOp { request: Some(Op::RequestRange(range("small", ""))) };
    let deletes = etcd::DeleteRangeRequest { key: "small".into(), ..Default::default() };
    let deletes = etcd::RequestOp { request: Some(Op::RequestDeleteRange(deletes)) };
    let txn = etcd::TxnRequest { success: vec![reads, deletes], ..Default::default() };
    server.kv().txn(txn).await.expect("it needs no room");

    empty(&server).await;
    until_cleared(&server).await;
    server.put("small", "again").await;
    assert_eq!(server.gauge("ringfence_quota_near").await, 0.0);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn at_full_quota_locks_leases_deletions_and_compaction_go_on() {
    let [server] = <[_; 1]>::try_from(Server::start_with(1, limited()).await).ok().unwrap();
    fill(&server).await;
    until_raised(&server).await;
    let locking = (0..LOCKERS).map(|locker| {
        let channel = server.channel.clone();
        async move {
            let mut leases = LeaseClient::new(channel.clone());
            let granted = leases.lease_grant(etcd::LeaseGrantRequest { ttl: 600, id: 0 }).await;
            let lease = granted.expect("leases are granted from the reserve").into_inner().id;
            let mut locks = LockClient::new(channel);
            for _ in 0..LOCK_CALLS / LOCKERS / 2 {
                let name = format!("lock-{}", locker % 10).into();
                let locked = locks.lock(lock::LockRequest { name, lease }).await;
                let key = locked.expect("locks are had from the reserve").into_inner().key;
                let unlock = lock::UnlockRequest { key, ..Default::default() };
                locks.unlock(unlock).await.expect("to give back always passes");
            }
            // Half of them end by themselves.
            if locker % 2 == 0 {
                leases.lease_revoke(etcd::LeaseRevokeRequest { id: lease }).await.expect("it is in force");
            }
        }
    });
    join_all(locking).await;
    let short = LeaseClient::new(server.channel.clone())
        .lease_grant(etcd::LeaseGrantRequest { ttl: 2, id: 0 })
        .await
        .expect("from the reserve");
    let lease = short.into_inner().id;
    until("the lease to end", async || {
        let asked = etcd::LeaseTimeToLiveRequest { id: lease, ..Default::default() };
        let told =
            LeaseClient::new(server.channel.clone()).lease_time_to_live(asked).await.unwrap().into_inner();
        if told.ttl == -1 { Ok(()) } else { Err(format!("{told:?}")) }
    })
    .await;
    until_raised(&server).await;
    assert_refused(server.kv().put(put("k", "v")).await, Code::ResourceExhausted, NO_SPACE);
    empty(&server).await;
    until_cleared(&server).await;
    server.put("k", "v").await;
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_leader_judges_what_comes_through_other_members_too() {
    let servers = Server::start_with(3, limited()).await;
    let leader = servers.iter().find(|server| server.node.leader() == Some(server.node.node_id())).unwrap();
    let follower = servers.iter().find(|server| server.node.node_id() != leader.node.node_id()).unwrap();
    let (_, refusal) = fill(follower).await;
    assert_refused(Err::<(), _>(refusal.clone()), Code::ResourceExhausted, NO_SPACE);
    assert_eq!(detail(&refusal).reason, "no_space");
    until_raised(follower).await;
    assert_eq!(alarms(follower).await[0].member_id, leader.node.node_id().0, "it is about the leader's file");
    // Whoever leads next judges by its own file, which is as full.
    leader
        .node
        .transfer_leadership(None, ringfence_consensus::rt::now() + Duration::from_secs(5))
        .await
        .unwrap();
    let again = until("an answer of the new leader", async || match follower.kv().put(large(9_000)).await {
        Err(status) if status.code() == Code::ResourceExhausted => Ok(status),
        other => Err(format!("{other:?}")),
    });
    assert_eq!(again.await.message(), NO_SPACE);
    empty(follower).await;
    until_cleared(follower).await;
    follower.put("small", "v").await;
    for server in servers {
        server.stop().await;
    }
}

const DISK: SpaceLimits =
    SpaceLimits { quota_bytes: 0, disk_low_bytes: 400 << 20, disk_reserve_bytes: 200 << 20 };

/// Leaves so many bytes on a member's disk.
fn leave(server: &Server, bytes: u64) {
    server.disk.clear_faults();
    server.disk.inject(Fault::Full { bytes: server.disk.used_bytes() + bytes });
}

async fn errors(server: &Server) -> Vec<String> {
    server.maintenance().status(etcd::StatusRequest {}).await.unwrap().into_inner().errors
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_whose_disk_runs_low_takes_no_more_keys_until_there_is_room() {
    let setup = Setup { space: DISK, ..Setup::default() };
    let [server] = <[_; 1]>::try_from(Server::start_with(1, setup).await).ok().unwrap();
    server.put("k", "v").await;
    leave(&server, 300 << 20);
    until_raised(&server).await;
    let refused = server.kv().put(put("k", "v")).await;
    assert!(detail(refused.as_ref().unwrap_err()).message.contains("disk"), "{refused:?}");
    assert_refused(refused, Code::ResourceExhausted, NO_SPACE);
    assert!(errors(&server).await.iter().any(|error| error.contains("disk of this member runs low")));
    server.disk.clear_faults();
    until_cleared(&server).await;
    server.put("k", "v").await;
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_follower_whose_disk_runs_low_says_so_and_stops_below_its_reserve() {
    let setup = Setup { space: DISK, ..Setup::default() };
    let servers = Server::start_with(3, setup).await;
    let leader = servers.iter().find(|server| server.node.leader() == Some(server.node.node_id())).unwrap();
    let follower = servers.iter().find(|server| server.node.node_id() != leader.node.node_id()).unwrap();
    leave(follower, 300 << 20);
    until("the follower to say so", async || match follower.gauge("ringfence_disk_low").await {
        1.0 => Ok(()),
        low => Err(low.to_string()),
    })
    .await;
    assert!(errors(follower).await.iter().any(|error| error.contains("runs low")));
    leader.put("k", "v").await;
    assert_eq!(alarms(leader).await, [], "the others have room");
    leave(follower, 100 << 20);
    let failure = tokio::time::timeout(Duration::from_secs(20), follower.node.failed()).await;
    let failure = failure.expect("it stops");
    assert!(matches!(&failure, Failure::Disk(words) if words.contains("are needed to go on")), "{failure:?}");
    leader.put("k", "v").await;
    for server in servers {
        server.disk.clear_faults();
        server.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_alarm_is_raised_and_disarmed_by_hand_as_in_etcd() {
    let server = Server::start().await;
    until("the member to be known", async || match server.node.view().members().len() {
        1 => Ok(()),
        members => Err(format!("{members} members")),
    })
    .await;
    let member_id = server.node.node_id().0;
    let alarm = etcd::AlarmType::Nospace.into();
    let change = |action: AlarmAction| etcd::AlarmRequest { action: action.into(), member_id, alarm };
    let raised = server.maintenance().alarm(change(AlarmAction::Activate)).await.unwrap().into_inner();
    assert_eq!(raised.alarms, [etcd::AlarmMember { member_id, alarm }]);
    assert_refused(server.kv().put(put("k", "v")).await, Code::ResourceExhausted, NO_SPACE);
    let disarmed = server.maintenance().alarm(change(AlarmAction::Deactivate)).await.unwrap().into_inner();
    assert_eq!(disarmed.alarms, [etcd::AlarmMember { member_id, alarm }]);
    server.put("k", "v").await;
    let again = server.maintenance().alarm(change(AlarmAction::Deactivate)).await.unwrap().into_inner();
    assert_eq!(again.alarms, [], "to disarm what is not raised is no error");
    server.stop().await;
}
