//! Sessions on real processes: however often a write is sent, it happens once.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use ringfence_client::{Client, Error, Options, Session};
use ringfence_proto::etcdserverpb::compare::{CompareResult, CompareTarget, TargetUnion};
use ringfence_proto::etcdserverpb::{
    Compare, DeleteRangeRequest, PutRequest, RangeRequest, RequestOp, TxnRequest, request_op,
};
use ringfence_proto::mvccpb::KeyValue;
use ringfence_tests::cluster::Cluster;
use ringfence_tests::wait::{self, PATIENCE};

const CLIENTS: usize = 16;
const KILLS: usize = 5;
const REGISTER: &str = "register";
/// Increments between two kills.
const INCREMENTS_BETWEEN: u64 = 100;

/// What came of the increments.
#[derive(Debug, Default)]
struct Tally {
    acknowledged: AtomicU64,
    indefinite: AtomicU64,
    stop: AtomicBool,
}

impl Tally {
    fn acknowledged(&self) -> u64 {
        self.acknowledged.load(Ordering::Relaxed)
    }
}

/// Puts the next number, if nobody has changed the register since it was read.
fn increment(read: &KeyValue) -> TxnRequest {
    let number: u64 = std::str::from_utf8(&read.value).expect("it is text").parse().expect("it is a number");
    let unchanged = Compare {
        key: REGISTER.into(),
        result: CompareResult::Equal.into(),
        target: CompareTarget::Mod.into(),
        target_union: Some(TargetUnion::ModRevision(read.mod_revision)),
        ..Compare::default()
    };
    let value = (number + 1).to_string().into();
    let put = PutRequest { key: REGISTER.into(), value, ..PutRequest::default() };
    let success = vec![RequestOp { request: Some(request_op::Request::RequestPut(put)) }];
    TxnRequest { compare: vec![unchanged], success, ..TxnRequest::default() }
}

async fn client(endpoints: &str) -> (Client, Session) {
    let client = Client::connect(endpoints.split(','), Options::default()).expect("they are lawful");
    let session = client.session(Duration::from_secs(60)).await.expect("it is granted");
    (client, session)
}

/// Increments until it is told to stop.
async fn increment_on(endpoints: String, tally: Arc<Tally>) {
    let (client, session) = client(&endpoints).await;
    while !tally.stop.load(Ordering::Relaxed) {
        let Ok(Some(read)) = client.get(REGISTER).await else { continue };
        match session.txn(increment(&read)).await {
            Ok(answer) if answer.succeeded => drop(tally.acknowledged.fetch_add(1, Ordering::Relaxed)),
            Ok(_) => {}
            Err(error) if error.is_definite() => {}
            Err(Error::AnswerNotKept { .. }) => panic!("the answers are small"),
            Err(_) => drop(tally.indefinite.fetch_add(1, Ordering::Relaxed)),
        }
    }
}

/// The increment compares what it read, so one that is done twice fails the second time. Sent again without a session it would
/// be reported as not done, though it was: the register would run ahead of what was acknowledged.
#[test]
fn a_register_is_incremented_once_for_each_increment_while_leaders_are_killed() {
    let mut cluster = Cluster::start(3);
    let runtime = tokio::runtime::Runtime::new().expect("a runtime can be started");
    drop(cluster.run(["put", REGISTER, "0"]).succeeded());
    let tally = Arc::new(Tally::default());
    let work: Vec<_> =
        (0..CLIENTS).map(|_| runtime.spawn(increment_on(cluster.endpoints(), Arc::clone(&tally)))).collect();
    for _ in 0..KILLS {
        let wanted = tally.acknowledged() + INCREMENTS_BETWEEN;
        wait::until("increments", PATIENCE, || match tally.acknowledged() {
            reached if reached >= wanted => Ok(()),
            reached => Err(format!("{reached} of {wanted}")),
        });
        let leader = cluster.leader();
        cluster.nodes[leader].kill();
        cluster.nodes[leader].start();
        cluster.wait_ready();
    }
    tally.stop.store(true, Ordering::Relaxed);
    for client in work {
        runtime.block_on(client).expect("no client panics");
    }
    let value: u64 = cluster.run(["get", REGISTER, "--output=plain"]).line().parse().expect("it is a number");
    let (acknowledged, indefinite) = (tally.acknowledged(), tally.indefinite.load(Ordering::Relaxed));
    println!(
        "the register holds {value}; {acknowledged} increments were acknowledged, {indefinite} indefinite"
    );
    assert!(
        (acknowledged..=acknowledged + indefinite).contains(&value),
        "the register holds {value}, {acknowledged} increments were acknowledged and {indefinite} are indefinite"
    );
}

#[tokio::test]
async fn a_session_has_its_writes_its_lease_and_its_end() {
    let cluster = Cluster::shared();
    let (client, session) = client(&cluster.endpoints()).await;
    session.put_value("session/a", "1").await.expect("it is put");
    let hanging = PutRequest { key: "session/b".into(), lease: session.lease(), ..PutRequest::default() };
    session.put(hanging).await.expect("the lease is in force");
    // More at once than the store keeps answers of.
    let puts = (0..400).map(|number| {
        let session = session.clone();
        tokio::spawn(async move { session.put_value(format!("session/many/{number:03}"), "v").await })
    });
    for put in puts.collect::<Vec<_>>() {
        put.await.expect("no put panics").expect("there is room for each in its turn");
    }
    let many = RangeRequest {
        key: "session/many/".into(),
        range_end: "session/many0".into(),
        count_only: true,
        ..RangeRequest::default()
    };
    assert_eq!(client.range(many).await.expect("it is read").count, 400);
    let deletion = DeleteRangeRequest { key: "session/a".into(), ..DeleteRangeRequest::default() };
    assert_eq!(session.delete_range(deletion).await.expect("it is deleted").deleted, 1);
    assert_eq!(client.get("session/a").await.expect("it is read"), None);

    // Ended by somebody else, it says so with the next write, and what hung on it is gone.
    client.lease_revoke(session.lease()).await.expect("it is in force");
    let error = session.put_value("session/a", "2").await.expect_err("the session has ended");
    assert!(matches!(error, Error::SessionLost { perhaps_applied: false }), "{error:?}");
    assert_eq!(client.get("session/a").await.expect("it is read"), None);
    assert_eq!(client.get("session/b").await.expect("it is read"), None);
    session.ended().await;
    session.close().await.expect("what has ended is closed");
}
