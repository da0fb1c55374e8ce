//! etcd's fixed errors: each that this server can give is given in some test by its code and words, and of each other one it is
//! written here why it is never given.

use std::path::Path;
use std::time::Duration;

use ringfence_proto::etcdserverpb::cluster_client::ClusterClient;
use ringfence_proto::etcdserverpb::request_op::Request as Op;
use ringfence_proto::etcdserverpb::{
    self as etcd, alarm_request::AlarmAction, downgrade_request::DowngradeAction,
};
use ringfence_proto::ringfence_v1::error_detail::AttemptApplied;
use tonic::Code;

use crate::harness::{Server, assert_refused, detail, put, range, until};

/// Where an error is given, or why it is not.
enum Place {
    /// In these tests of real servers, by the files' paths in this repository.
    Tests(&'static [&'static str]),
    /// In the table of `server::status` alone: it takes a fault that no quick test brings about, or a cluster of two versions.
    Table,
    /// With the Watch service.
    Watch,
    /// Never.
    Never(&'static str),
}

use Place::{Never, Table, Tests, Watch};

const USERS: Place = Never("there are no users");
const HERE: &str = "crates/server/tests/server/etcd_errors.rs";
const ONE_NODE: &str = "crates/server/tests/server/one_node.rs";
const LEASES: &str = "crates/server/tests/server/leases.rs";
const AUTH: &str = "crates/server/tests/server/auth.rs";
const ETCD_CLIENT: &str = "tests/black_box/etcd_rust_client.rs";
const MEMBERS: &str = "tests/black_box/members.rs";

const PLACES: &[(&str, Place)] = &[
    ("etcdserver: key is not provided", Tests(&[ONE_NODE, ETCD_CLIENT])),
    ("etcdserver: key not found", Tests(&[ONE_NODE, HERE])),
    ("etcdserver: value is provided", Tests(&[HERE, ETCD_CLIENT])),
    ("etcdserver: lease is provided", Tests(&[HERE, ETCD_CLIENT])),
    ("etcdserver: too many operations in txn request", Tests(&[HERE, ETCD_CLIENT])),
    ("etcdserver: duplicate key given in txn request", Tests(&[ONE_NODE, ETCD_CLIENT])),
    ("etcdserver: invalid client api version", Never("any version that a client names is served")),
    ("etcdserver: invalid sort option", Tests(&[ONE_NODE])),
    (
        "etcdserver: mvcc: required revision has been compacted",
        Tests(&[ONE_NODE, "crates/server/tests/server/history.rs"]),
    ),
    (
        "etcdserver: mvcc: required revision is a future revision",
        Tests(&[ONE_NODE, "crates/server/tests/server/history.rs"]),
    ),
    ("etcdserver: mvcc: database space exceeded", Tests(&["crates/server/tests/server/quota.rs"])),
    ("etcdserver: requested lease not found", Tests(&[ONE_NODE, LEASES])),
    ("etcdserver: lease already exists", Tests(&[LEASES])),
    ("etcdserver: too large lease TTL", Tests(&[LEASES])),
    ("etcdserver: watch canceled", Watch),
    ("etcdserver: member ID already exist", Never("numbers of members are never used again")),
    ("etcdserver: Peer URLs already exists", Tests(&[MEMBERS])),
    ("etcdserver: re-configuration failed due to not enough started members", Tests(&[HERE])),
    ("etcdserver: given member URLs are invalid", Tests(&[MEMBERS])),
    ("etcdserver: member not found", Tests(&[MEMBERS])),
    ("etcdserver: can only promote a learner member", Tests(&[MEMBERS])),
    ("etcdserver: can only promote a learner member which is in sync with leader", Tests(&[MEMBERS])),
    ("etcdserver: too many learner members in cluster", Tests(&[HERE])),
    ("etcdserver: cluster ID mismatch", Never("peers do not speak this protocol")),
    ("etcdserver: request is too large", Tests(&[ONE_NODE, ETCD_CLIENT])),
    ("etcdserver: too many requests", Tests(&["crates/server/tests/server/overload.rs"])),
    ("etcdserver: root user does not exist", Tests(&[AUTH])),
    ("etcdserver: root user does not have root role", USERS),
    ("etcdserver: user name already exists", USERS),
    ("etcdserver: user name is empty", Tests(&[AUTH])),
    ("etcdserver: user name not found", Tests(&[AUTH])),
    ("etcdserver: role name already exists", USERS),
    ("etcdserver: role name not found", Tests(&[AUTH])),
    ("etcdserver: role name is empty", Tests(&[AUTH])),
    ("etcdserver: authentication failed, invalid user ID or password", USERS),
    ("etcdserver: permission not given", Tests(&[AUTH])),
    ("etcdserver: permission denied", USERS),
    ("etcdserver: role is not granted to the user", USERS),
    ("etcdserver: permission is not granted to the role", USERS),
    ("etcdserver: authentication is not enabled", Tests(&[AUTH])),
    ("etcdserver: invalid auth token", USERS),
    ("etcdserver: invalid auth management", USERS),
    ("etcdserver: revision of auth store is old", USERS),
    ("etcdserver: no leader", Tests(&["crates/server/tests/server/three_nodes.rs"])),
    ("etcdserver: not leader", Tests(&["crates/server/tests/server/three_nodes.rs"])),
    (
        "etcdserver: leader changed",
        Never("a read that meets a change of leader is asked again by the member"),
    ),
    ("etcdserver: not capable", Table),
    ("etcdserver: server stopped", Tests(&["crates/server/tests/server/locks.rs"])),
    ("etcdserver: request timed out", Table),
    ("etcdserver: request timed out, possibly due to previous leader failure", Tests(&[HERE])),
    ("etcdserver: request timed out, possibly due to connection lost", Table),
    (
        "etcdserver: request timed out, waiting for the applied index took too long",
        Never("such a read times out as any other"),
    ),
    ("etcdserver: unhealthy cluster", Table),
    ("etcdserver: corrupt cluster", Tests(&[HERE])),
    ("etcdserver: rpc not supported for learner", Never("learners serve everything")),
    ("etcdserver: bad leader transferee", Tests(&[ONE_NODE, ETCD_CLIENT])),
    ("etcdserver: wrong downgrade target version format", Tests(&[HERE])),
    ("etcdserver: invalid downgrade target version", Tests(&[HERE])),
    ("etcdserver: cluster version not found during downgrade", Never("there is no downgrade")),
    ("etcdserver: cluster has a downgrade job in progress", Never("there is no downgrade")),
    ("etcdserver: no inflight downgrade job", Tests(&[ONE_NODE])),
    ("etcdserver: request canceled", Never("whoever cancels a call is not there to be told")),
    ("etcdserver: context deadline exceeded", Table),
];

#[test]
fn each_of_etcds_errors_has_its_test_or_its_reason() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let read = |path: &str| std::fs::read_to_string(root.join(path)).expect(path);
    let list = read("crates/server/src/etcd_errors.txt");
    let listed: Vec<&str> = list.lines().filter_map(|line| Some(line.split_once('\t')?.1)).collect();
    let placed: Vec<&str> = PLACES.iter().map(|(message, _)| *message).collect();
    assert_eq!(listed, placed, "the list and this table go together");
    let given = read("crates/server/src/etcd_errors.rs");
    for (message, place) in PLACES {
        let quoted = format!("\"{message}\"");
        match place {
            Tests(files) => {
                // In this file the table itself has the words once.
                let least = |file: &str| if file == HERE { 2 } else { 1 };
                for file in *files {
                    let count = read(file).matches(&quoted).count();
                    assert!(count >= least(file), "{file} has {message:?} {count} times");
                }
            }
            Table => assert!(given.contains(&quoted), "{message}"),
            Watch => {}
            Never(reason) => {
                assert!(!given.contains(&quoted), "{message} is said to be never given: {reason}")
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn malformed_writes() {
    let server = Server::start().await;
    server.put("k", "v").await;
    let valued = etcd::PutRequest { ignore_value: true, ..put("k", "v") };
    assert_refused(server.kv().put(valued).await, Code::InvalidArgument, "etcdserver: value is provided");
    let leased = etcd::PutRequest { ignore_lease: true, lease: 5, ..put("k", "v") };
    assert_refused(server.kv().put(leased).await, Code::InvalidArgument, "etcdserver: lease is provided");
    let reads = |count| vec![etcd::RequestOp { request: Some(Op::RequestRange(range("k", ""))) }; count];
    let txn = |success| etcd::TxnRequest { success, ..Default::default() };
    server.kv().txn(txn(reads(128))).await.expect("as many as may be");
    let many = server.kv().txn(txn(reads(129))).await;
    assert_refused(many, Code::InvalidArgument, "etcdserver: too many operations in txn request");
    let nothing = server.kv().txn(txn(vec![etcd::RequestOp { request: None }])).await;
    assert_refused(nothing, Code::InvalidArgument, "etcdserver: key not found");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_whose_members_differ_takes_no_writes() {
    let server = Server::start().await;
    until("the member to be known", async || match server.node.view().members().len() {
        1 => Ok(()),
        members => Err(format!("{members} members")),
    })
    .await;
    let (member_id, alarm) = (server.node.node_id().0, etcd::AlarmType::Corrupt.into());
    let change = |action: AlarmAction| etcd::AlarmRequest { action: action.into(), member_id, alarm };
    server.maintenance().alarm(change(AlarmAction::Activate)).await.expect("it can be raised by hand");
    assert_refused(server.kv().put(put("k", "v")).await, Code::DataLoss, "etcdserver: corrupt cluster");
    server.maintenance().alarm(change(AlarmAction::Deactivate)).await.expect("and disarmed");
    server.put("k", "v").await;
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn there_is_nothing_to_go_back_to() {
    let server = Server::start().await;
    for action in [DowngradeAction::Validate, DowngradeAction::Enable] {
        for (version, message) in [
            ("3.6.0", "etcdserver: invalid downgrade target version"),
            ("3.6", "etcdserver: invalid downgrade target version"),
            ("", "etcdserver: wrong downgrade target version format"),
            ("3", "etcdserver: wrong downgrade target version format"),
            ("3.x", "etcdserver: wrong downgrade target version format"),
            ("3.6.0.1", "etcdserver: wrong downgrade target version format"),
        ] {
            let request = etcd::DowngradeRequest { action: action.into(), version: version.to_owned() };
            assert_refused(server.maintenance().downgrade(request).await, Code::InvalidArgument, message);
        }
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn there_are_only_so_many_members() {
    let server = Server::start().await;
    let mut cluster = ClusterClient::new(server.channel.clone());
    let mut added = 0;
    let refused = loop {
        let peer_ur_ls = vec![format!("http://127.0.0.1:{}", 20_000 + added)];
        match cluster
            .member_add(etcd::MemberAddRequest { peer_ur_ls, is_learner: true, ..Default::default() })
            .await
        {
            Ok(_) => added += 1,
            refused => break refused,
        }
        assert!(added < 1_000, "there is a bound");
    };
    let message = "etcdserver: too many learner members in cluster";
    assert_refused(refused, Code::FailedPrecondition, message);
    assert_eq!(added, ringfence_types::limits::MEMBERS_MAX - 1);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_is_kept_where_too_few_would_be_left() {
    let mut servers = Server::start_cluster(3).await;
    let at = servers.iter().position(|server| server.node.leader() != Some(server.node.node_id())).unwrap();
    servers.swap_remove(at).stop().await;
    let leader = servers.iter().find(|server| server.node.leader() == Some(server.node.node_id())).unwrap();
    let other = servers.iter().find(|server| server.node.node_id() != leader.node.node_id()).unwrap();
    // The leader has to notice that the third one is silent.
    until("the silence of a member", async || {
        let members = leader.node.status().members;
        let silent =
            members.iter().any(|member| member.answered_ago.is_none_or(|ago| ago > Duration::from_secs(1)));
        if silent { Ok(()) } else { Err(format!("{members:?}")) }
    })
    .await;
    let mut cluster = ClusterClient::new(leader.channel.clone());
    let removed = cluster.member_remove(etcd::MemberRemoveRequest { id: other.node.node_id().0 }).await;
    let message = "etcdserver: re-configuration failed due to not enough started members";
    assert_refused(removed, Code::FailedPrecondition, message);
    leader.put("k", "v").await;
    for server in servers {
        server.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_write_under_way_when_the_majority_goes_is_left_open() {
    let mut servers = Server::start_cluster(3).await;
    let at = servers.iter().position(|server| server.node.leader() == Some(server.node.node_id())).unwrap();
    let leader = servers.swap_remove(at);
    // One put after the other begins, while the others stop: those of the last moment get no answer of a majority.
    let kv = leader.kv();
    let putting = tokio::spawn(async move {
        let mut puts = Vec::new();
        for number in 0..150 {
            let mut kv = kv.clone();
            puts.push(tokio::spawn(async move { kv.put(put("k", &number.to_string())).await }));
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        puts
    });
    for server in servers {
        server.node.shutdown().await;
        server.stop().await;
    }
    let mut left_open = Vec::new();
    for put in putting.await.unwrap() {
        if let Err(status) = put.await.unwrap()
            && detail(&status).attempt_applied() == AttemptApplied::Unknown
        {
            left_open.push(status);
        }
    }
    let expected =
        (Code::Unavailable, "etcdserver: request timed out, possibly due to previous leader failure");
    assert!(!left_open.is_empty(), "some were under way");
    assert!(left_open.iter().all(|status| (status.code(), status.message()) == expected), "{left_open:?}");
    leader.stop().await;
}
