//! Leases of real processes: they outlive their leader, and end in time for all their keys at once.

use std::process::Stdio;
use std::time::{Duration, Instant};

use etcd_client::{Client, Error, LeaseGrantOptions, LeaseTimeToLiveOptions, PutOptions};
use ringfence_tests::cli;
use ringfence_tests::cluster::Cluster;
use ringfence_tests::process::Process;
use ringfence_tests::wait::{self, PATIENCE};

/// Grants a lease through the program.
fn grant(cluster: &Cluster, ttl: &str) -> String {
    let told = cluster.run(["lease", "grant", ttl, "--output=json"]).json();
    assert!(told["grant"].as_u64().is_some_and(|grant| grant > 0), "{told}");
    told["id"].to_string()
}

fn put(cluster: &Cluster, key: &str, lease: &str) {
    drop(cluster.run(["put", key, "v", &format!("--lease={lease}")]).succeeded());
}

fn count(cluster: &Cluster, prefix: &str) -> String {
    cluster.run(["get", prefix, "--prefix", "--count-only", "--timeout=20s"]).line()
}

#[test]
fn a_leader_that_dies_takes_no_lease_with_it() {
    const TTL: Duration = Duration::from_secs(5);
    let mut cluster = Cluster::start(3);
    let kept = grant(&cluster, "10s");
    put(&cluster, "kept/a", &kept);
    let mut keeping = cli::command(["lease", "keep-alive", &kept, "--timeout=20s"]);
    keeping.arg(format!("--endpoints={}", cluster.endpoints())).stdout(Stdio::null());
    let mut keeping = Process::start(keeping);
    let asked = Instant::now();
    let left = grant(&cluster, "5s");
    put(&cluster, "left/a", &left);
    put(&cluster, "left/b", &left);

    let leader = cluster.leader();
    cluster.nodes[leader].kill();
    let ended = wait::until("the lease to end", PATIENCE, || match count(&cluster, "left/").as_str() {
        "0" => Ok(asked.elapsed()),
        "2" => Err("both keys are there".to_owned()),
        other => panic!("{other} of two keys: they end together"),
    });
    assert!(ended >= TTL, "it ended after {ended:?}");
    cluster.run(["lease", "time-to-live", &left]).failed(3, &["there is no lease"]);
    cluster.run(["lease", "keep-alive", &left, "--once"]).failed(3, &["it has ended"]);
    cluster.run(["lease", "revoke", &left]).failed(3, &["there is no lease"]);

    // Longer than the other lease lasts without keep-alives, the time without a leader included.
    wait::until("the time of the lease that is kept alive", PATIENCE, || {
        if asked.elapsed() >= Duration::from_secs(15) {
            Ok(())
        } else {
            Err(format!("{:?}", asked.elapsed()))
        }
    });
    assert!(keeping.runs(), "it goes on through the change of leader");
    assert_eq!(count(&cluster, "kept/"), "1");
    let told = cluster.run(["lease", "time-to-live", &kept, "--keys", "--output=json"]).json();
    assert_eq!((&told["granted_ttl"], &told["keys"][0]), (&10.into(), &"kept/a".into()), "{told}");
    assert_eq!(cluster.run(["lease", "list", "--output=plain"]).line(), kept);
    keeping.kill();
    wait::until("the lease to end that nobody keeps alive", PATIENCE, || {
        let left = count(&cluster, "kept/");
        if left == "0" { Ok(()) } else { Err(left) }
    });
    assert_eq!(cluster.run(["lease", "list", "--output=plain"]).succeeded(), "");
}

#[test]
fn the_command_line_refuses_what_makes_no_lease() {
    let cluster = Cluster::shared();
    for (ttl, words) in [("1500ms", "whole seconds"), ("0s", "whole seconds")] {
        cluster.run(["lease", "grant", ttl]).failed(2, &[words]);
    }
    cluster.run(["lease", "grant", "3000000h"]).failed(4, &["at most 9000000000 s"]);
    cluster.run(["lease", "revoke", "seven"]).failed(2, &["whole number"]);
}

/// The Rust crate `etcd-client`, which knows nothing of us.
#[tokio::test]
async fn a_foreign_client_has_its_leases() {
    let cluster = Cluster::shared();
    let endpoints: Vec<&str> = cluster.nodes.iter().map(|node| node.client.as_str()).collect();
    let mut client = Client::connect(endpoints, None).await.expect("the nodes listen");
    let options = LeaseGrantOptions::new().with_id(0x1ea5e);
    let granted = client.lease_grant(60, Some(options)).await.expect("it is granted");
    assert_eq!((granted.id(), granted.ttl(), granted.error()), (0x1ea5e, 60, ""));
    let drawn = client.lease_grant(60, None).await.expect("it is granted").id();
    assert!(drawn > 0 && drawn != granted.id());

    let hang = PutOptions::new().with_lease(granted.id());
    client.put("foreign/lease", "v", Some(hang)).await.expect("the lease is in force");
    let (mut keeper, mut answers) = client.lease_keep_alive(granted.id()).await.expect("it is in force");
    for _ in 0..3 {
        keeper.keep_alive().await.expect("the stream is open");
        let answer = answers.message().await.expect("the stream is open").expect("it is answered");
        assert_eq!((answer.id(), answer.ttl()), (granted.id(), 60));
    }
    let with_keys = LeaseTimeToLiveOptions::new().with_keys();
    let told = client.lease_time_to_live(granted.id(), Some(with_keys)).await.expect("it is answered");
    assert_eq!((told.granted_ttl(), told.keys()), (60, &[b"foreign/lease".to_vec()][..]));
    assert!((50..=60).contains(&told.ttl()), "{told:?}");
    let all = client.leases().await.expect("it is answered");
    assert!(all.leases().iter().any(|lease| lease.id() == drawn), "{all:?}");

    client.lease_revoke(granted.id()).await.expect("it is in force");
    assert!(client.get("foreign/lease", None).await.expect("it is answered").kvs().is_empty());
    let gone = client.lease_time_to_live(granted.id(), None).await.expect("it is answered");
    assert_eq!(gone.ttl(), -1);
    let ended = client.lease_keep_alive(granted.id()).await.map(drop);
    assert!(matches!(ended, Err(Error::LeaseKeepAliveError(_))), "{ended:?}");
    client.lease_revoke(drawn).await.expect("it is in force");
}
