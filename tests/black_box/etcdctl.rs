//! Debian's `etcdctl` (package `etcd-client`), as its users use it, against a cluster of ours.

use std::io::{BufRead as _, BufReader};
use std::process::{Command, Stdio};
use std::sync::Arc;

use ringfence_tests::cli::{self, Ran};
use ringfence_tests::cluster::Cluster;
use ringfence_tests::{process, skip, wait};
use serde_json::Value;

/// Runs `etcdctl` against some endpoints.
struct Etcdctl {
    endpoints: String,
    cluster: Arc<Cluster>,
}

impl Etcdctl {
    fn run(&self, arguments: &[&str]) -> Ran {
        self.run_with_input(arguments, "")
    }

    fn run_with_input(&self, arguments: &[&str], input: &str) -> Ran {
        let mut command = Command::new("etcdctl");
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("ETCDCTL_") {
                command.env_remove(name);
            }
        }
        command.env("ETCDCTL_API", "3").args(arguments).arg(format!("--endpoints={}", self.endpoints));
        cli::capture(command, input)
    }

    /// The output of a command that must go well.
    fn say(&self, arguments: &[&str]) -> String {
        self.run(arguments).line()
    }

    fn json(&self, arguments: &[&str]) -> Value {
        self.run(arguments).json()
    }
}

/// `etcdctl` for all nodes of a cluster that others use too, or nothing where it is not installed.
fn etcdctl(test: &str) -> Option<Etcdctl> {
    let mut version = Command::new("etcdctl");
    version.arg("version").stdout(Stdio::null()).stderr(Stdio::null());
    match process::spawn(&mut version).and_then(|mut child| child.wait()) {
        Ok(_) => {
            let cluster = Cluster::shared();
            Some(Etcdctl { endpoints: cluster.endpoints(), cluster })
        }
        Err(error) => {
            skip::skipped(test, &format!("etcdctl is not installed ({error}): apt-get install etcd-client"));
            None
        }
    }
}

#[test]
fn put_with_every_flag() {
    let Some(etcdctl) = etcdctl("etcdctl put") else { return };
    assert_eq!(etcdctl.say(&["put", "put/a", "1"]), "OK");
    assert_eq!(etcdctl.say(&["put", "put/a", "2", "--prev-kv"]), "OK\nput/a\n1");
    assert_eq!(etcdctl.run_with_input(&["put", "put/a"], "3").line(), "OK");
    assert_eq!(etcdctl.say(&["put", "put/a", "--ignore-value"]), "OK");
    assert_eq!(etcdctl.say(&["put", "put/a", "4", "--ignore-lease"]), "OK");
    let got = etcdctl.json(&["get", "put/a", "-w", "json"]);
    assert_eq!((&got["kvs"][0]["version"], &got["kvs"][0]["value"]), (&5.into(), &"NA==".into()), "{got}");
    for (arguments, message) in [
        (["put", "put/absent", "v", "--ignore-lease"], "etcdserver: key not found"),
        (["put", "put/absent", "v", "--lease=77"], "etcdserver: requested lease not found"),
        (["put", "", "v", "--prev-kv"], "etcdserver: key is not provided"),
    ] {
        etcdctl.run(&arguments).failed(1, &[message]);
    }
    etcdctl.run(&["put", "put/absent", "--ignore-value"]).failed(1, &["etcdserver: key not found"]);
    let large = "x".repeat(1_600_000);
    let refused = etcdctl.run_with_input(&["put", "put/large"], &large);
    refused.failed(1, &["etcdserver: request is too large"]);
}

#[test]
fn get_with_every_flag() {
    let Some(etcdctl) = etcdctl("etcdctl get") else { return };
    let first = etcdctl.json(&["put", "get/a", "3", "-w", "json"])["header"]["revision"].to_string();
    for (key, value) in [("get/b", "1"), ("get/c", "2"), ("get/d", "0"), ("get/b", "1")] {
        assert_eq!(etcdctl.say(&["put", key, value]), "OK");
    }
    let keys = ["get/a", "get/b", "get/c", "get/d"];
    let only = |arguments: &[&str]| {
        let said = etcdctl.say(&[&["get", "--keys-only"], arguments].concat());
        said.split_whitespace().map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(etcdctl.say(&["get", "get/a"]), "get/a\n3");
    assert_eq!(etcdctl.say(&["get", "get/a", "--hex"]), r"\x67\x65\x74\x2f\x61".to_owned() + "\n\\x33");
    assert_eq!(etcdctl.say(&["get", "get/a", "--print-value-only"]), "3");
    assert_eq!(etcdctl.say(&["get", "get/absent"]), "");
    assert_eq!(only(&["get/b", "get/d"]), keys[1..3]);
    assert_eq!(only(&["get/", "--prefix"]), keys);
    assert_eq!(only(&["get/c", "--from-key", "--limit=2"]), keys[2..]);
    assert_eq!(only(&["get/", "--prefix", "--limit=3"]), keys[..3]);
    assert_eq!(only(&["get/", "--prefix", "--order=DESCEND"]), ["get/d", "get/c", "get/b", "get/a"]);
    for (target, order) in [
        ("--sort-by=KEY", keys),
        ("--sort-by=VALUE", ["get/d", "get/b", "get/c", "get/a"]),
        ("--sort-by=CREATE", keys),
        ("--sort-by=MODIFY", ["get/a", "get/c", "get/d", "get/b"]),
    ] {
        assert_eq!(only(&["get/", "--prefix", target, "--order=ASCEND"]), order, "{target}");
    }
    assert_eq!(only(&["get/", "--prefix", "--sort-by=VERSION", "--order=DESCEND"])[0], "get/b");
    assert_eq!(etcdctl.say(&["get", "get/", "--prefix", "--keys-only", &format!("--rev={first}")]), "get/a");
    for consistency in ["--consistency=l", "--consistency=s"] {
        assert_eq!(etcdctl.say(&["get", "get/a", consistency]), "get/a\n3");
    }
    let got = etcdctl.json(&["get", "get/", "--prefix", "--limit=1", "-w", "json"]);
    assert_eq!((&got["count"], &got["more"]), (&4.into(), &true.into()), "{got}");
    let fields = etcdctl.say(&["get", "get/b", "-w", "fields"]);
    assert!(fields.contains("\"Key\" : \"get/b\"") && fields.contains("\"Version\" : 2"), "{fields}");
    etcdctl.run(&["get", "get/a", "--rev=999999"]).failed(1, &["required revision is a future revision"]);
}

#[test]
fn del_with_every_flag() {
    let Some(etcdctl) = etcdctl("etcdctl del") else { return };
    for key in ["del/a", "del/b", "del/c", "del/d", "del/x/1", "del/x/2"] {
        assert_eq!(etcdctl.say(&["put", key, "v"]), "OK");
    }
    assert_eq!(etcdctl.say(&["del", "del/absent"]), "0");
    assert_eq!(etcdctl.say(&["del", "del/a", "--prev-kv"]), "1\ndel/a\nv");
    assert_eq!(etcdctl.say(&["del", "del/b", "del/d"]), "2");
    assert_eq!(etcdctl.say(&["del", "del/x/", "--prefix"]), "2");
    assert_eq!(etcdctl.say(&["get", "del/", "--prefix", "--keys-only"]).trim(), "del/d");
    assert_eq!(etcdctl.say(&["put", "\u{10ffff}z/del", "v"]), "OK");
    assert_eq!(etcdctl.say(&["del", "\u{10ffff}z/del", "--from-key"]), "1");
}

#[test]
fn txn_takes_either_branch() {
    let Some(etcdctl) = etcdctl("etcdctl txn") else { return };
    assert_eq!(etcdctl.say(&["put", "txn/a", "1"]), "OK");
    let all_kinds = "value(\"txn/a\") = \"1\"\nversion(\"txn/a\") = \"1\"\nmod(\"txn/a\") > \"1\"\n\
                     create(\"txn/a\") != \"0\"\nmod(\"txn/a\") < \"999999\"\n\n\
                     put txn/b then\nget txn/b\n\nput txn/b else\n\n";
    assert_eq!(etcdctl.run_with_input(&["txn"], all_kinds).line(), "SUCCESS\n\nOK\n\ntxn/b\nthen");
    let fails = "version(\"txn/a\") = \"7\"\n\nput txn/b then\n\ndel txn/b\nget txn/a\n\n";
    assert_eq!(etcdctl.run_with_input(&["txn"], fails).line(), "FAILURE\n\n1\n\ntxn/a\n1");
    let twice = "\nput txn/c 1\nput txn/c 2\n\n\n";
    let refused = etcdctl.run_with_input(&["txn"], twice);
    refused.failed(1, &["etcdserver: duplicate key given in txn request"]);
    assert_eq!(etcdctl.say(&["get", "txn/c"]), "");
}

#[test]
fn leases_with_every_subcommand() {
    let Some(etcdctl) = etcdctl("etcdctl lease") else { return };
    let said = etcdctl.say(&["lease", "grant", "100"]);
    let id = said.split(' ').nth(1).expect("it names the lease").to_owned();
    assert_eq!(said, format!("lease {id} granted with TTL(100s)"));
    assert_eq!(etcdctl.say(&["put", "lease/a", "1", &format!("--lease={id}")]), "OK");
    assert_eq!(etcdctl.say(&["put", "lease/a", "2", "--ignore-lease"]), "OK");
    let left = etcdctl.say(&["lease", "timetolive", &id, "--keys"]);
    assert!(left.starts_with(&format!("lease {id} granted with TTL(100s), remaining(")), "{left}");
    assert!(left.ends_with("s), attached keys([lease/a])"), "{left}");
    let kept = etcdctl.say(&["lease", "keep-alive", "--once", &id]);
    assert_eq!(kept, format!("lease {id} keepalived with TTL(100)"));
    let list = etcdctl.say(&["lease", "list"]);
    assert!(list.lines().any(|line| line == id), "{list}");
    assert_eq!(etcdctl.say(&["lease", "revoke", &id]), format!("lease {id} revoked"));
    assert_eq!(etcdctl.say(&["get", "lease/a"]), "");
    assert_eq!(etcdctl.say(&["lease", "timetolive", &id]), format!("lease {id} already expired"));
    etcdctl.run(&["lease", "revoke", &id]).failed(1, &["etcdserver: requested lease not found"]);
    etcdctl.run(&["lease", "grant", "9000000001"]).failed(1, &["etcdserver: too large lease TTL"]);
}

#[test]
fn endpoints_have_a_status_a_health_and_the_same_hash() {
    let Some(etcdctl) = etcdctl("etcdctl endpoint") else { return };
    assert_eq!(etcdctl.say(&["put", "endpoint/a", "1"]), "OK");
    let status = etcdctl.json(&["endpoint", "status", "-w", "json"]);
    let nodes = status.as_array().expect("one for each endpoint");
    assert_eq!(nodes.len(), 3);
    for node in nodes {
        let status = &node["Status"];
        assert_eq!(status["leader"], nodes[0]["Status"]["leader"], "all name the same leader");
        assert!(status["dbSize"].as_u64().is_some_and(|size| size > 0), "{status}");
        assert!(status["raftTerm"].as_u64().is_some_and(|term| term > 0), "{status}");
        assert_eq!(status["errors"], Value::Null, "{status}");
    }
    let table = etcdctl.say(&["endpoint", "status", "-w", "table"]);
    assert_eq!(table.matches("127.0.0.1:").count(), 3, "{table}");
    let health = etcdctl.run(&["endpoint", "health"]);
    let said = format!("{}{}", health.stdout, health.stderr);
    assert_eq!((health.code, said.matches("is healthy").count()), (Some(0), 3), "{said}");

    // At one revision, which all nodes have once each has answered a linearizable read.
    let revision = etcdctl.json(&["get", "endpoint/a", "-w", "json"])["header"]["revision"].to_string();
    for node in 0..3 {
        assert_eq!(etcdctl.cluster.run_at(node, ["get", "endpoint/a", "--output=plain"]).line(), "1");
    }
    let hashes = etcdctl.json(&["endpoint", "hashkv", &format!("--rev={revision}"), "-w", "json"]);
    let hashes = hashes.as_array().expect("one for each endpoint");
    assert_eq!(hashes.len(), 3);
    for node in hashes {
        let hash = &node["HashKV"]["hash"];
        assert!(hash.as_u64().is_some_and(|hash| hash > 0), "{node}");
        assert_eq!(*hash, hashes[0]["HashKV"]["hash"], "{hashes:?}");
    }
}

#[test]
fn members_are_listed_with_their_addresses() {
    let Some(etcdctl) = etcdctl("etcdctl member list") else { return };
    let list = etcdctl.json(&["member", "list", "-w", "json"]);
    let members = list["members"].as_array().expect("it lists members");
    let names: Vec<&str> = members.iter().filter_map(|member| member["name"].as_str()).collect();
    assert_eq!(names, ["node1", "node2", "node3"]);
    for (member, node) in members.iter().zip(&etcdctl.cluster.nodes) {
        assert_eq!(member["clientURLs"][0], format!("http://{}", node.client));
        assert_eq!(member["peerURLs"][0], format!("http://{}", node.peer));
    }
    let simple = etcdctl.say(&["member", "list"]);
    assert_eq!(simple.matches("started").count(), 3, "{simple}");
}

#[test]
fn the_leadership_moves_and_a_follower_refuses_to_move_it() {
    // A cluster of its own: the others' must not change its leader under their feet.
    let Some(mut etcdctl) = etcdctl("etcdctl move-leader") else { return };
    let mut cluster = Cluster::start(3);
    let (leader, follower) = (cluster.leader(), cluster.follower());
    etcdctl.endpoints = cluster.endpoints();
    let list = etcdctl.json(&["member", "list", "-w", "json"]);
    let id_of = |node: usize| {
        let id = list["members"][node]["ID"].as_u64().expect("members have ids");
        format!("{id:x}")
    };
    etcdctl.endpoints.clone_from(&cluster.nodes[follower].client);
    etcdctl.run(&["move-leader", &id_of(follower)]).failed(128, &["no leader endpoint given at"]);
    etcdctl.endpoints = cluster.endpoints();
    etcdctl.run(&["move-leader", "abcdef"]).failed(1, &["etcdserver: bad leader transferee"]);
    let said = etcdctl.say(&["move-leader", &id_of(follower)]);
    assert_eq!(said, format!("Leadership transferred from {} to {}", id_of(leader), id_of(follower)));
    assert_eq!(cluster.leader(), follower);
}

#[test]
fn a_snapshot_is_saved_whole() {
    let Some(mut etcdctl) = etcdctl("etcdctl snapshot save") else { return };
    let cluster = Cluster::start(1);
    etcdctl.endpoints = cluster.endpoints();
    assert_eq!(etcdctl.say(&["put", "snapshot/a", "1"]), "OK");
    let file = cluster.home.path().join("saved");
    let path = file.to_string_lossy().into_owned();
    let saved = etcdctl.run(&["snapshot", "save", &path]);
    assert_eq!(saved.code, Some(0), "{saved:?}");
    // Ours checks its hash and every row of it.
    let status = cli::run(["snapshot", "status", &path, "--output=json"]).json();
    assert_eq!((&status["keys"], &status["revision"]), (&1.into(), &2.into()), "{status}");
}

#[test]
fn compaction_hides_the_past_and_nothing_else() {
    let Some(mut etcdctl) = etcdctl("etcdctl compact") else { return };
    let cluster = Cluster::start(1);
    etcdctl.endpoints = cluster.endpoints();
    for value in ["1", "2", "3"] {
        assert_eq!(etcdctl.say(&["put", "compact/a", value]), "OK");
    }
    assert_eq!(etcdctl.say(&["get", "compact/a", "--rev=2"]), "compact/a\n1");
    assert_eq!(etcdctl.say(&["compact", "3", "--physical"]), "compacted revision 3");
    etcdctl.run(&["get", "compact/a", "--rev=2"]).failed(1, &["required revision has been compacted"]);
    etcdctl.run(&["compact", "3"]).failed(1, &["required revision has been compacted"]);
    etcdctl.run(&["compact", "99"]).failed(1, &["required revision is a future revision"]);
    assert_eq!(etcdctl.say(&["get", "compact/a", "--rev=3"]), "compact/a\n2");
    assert_eq!(etcdctl.say(&["get", "compact/a"]), "compact/a\n3");
    assert_eq!(etcdctl.say(&["alarm", "list"]), "");
    assert!(etcdctl.say(&["defrag"]).contains("Finished defragmenting"));
}

#[test]
fn a_lock_and_an_election_exclude_our_own_commands() {
    let Some(etcdctl) = etcdctl("etcdctl lock and elect") else { return };
    let cluster = &etcdctl.cluster;
    let key = etcdctl.say(&["lock", "etcdctl-lock", "printenv", "ETCD_LOCK_KEY"]);
    assert!(key.starts_with("etcdctl-lock/"), "{key}");
    cluster.run(["lock", "holder", "etcdctl-lock"]).failed(3, &["nobody holds the lock"]);

    // A recipe of the client's own library; ours is a call of the service. They stand in the same queue.
    let mut elect = Command::new("etcdctl");
    elect.env("ETCDCTL_API", "3").args(["elect", "etcdctl-election", "a"]);
    elect.arg(format!("--endpoints={}", etcdctl.endpoints)).stdout(Stdio::null());
    let mut elected = process::Process::start(elect);
    let holder = wait::until("a leader", wait::PATIENCE, || {
        let ran = cluster.run(["lock", "holder", "etcdctl-election", "--output=json"]);
        if ran.code == Some(0) { Ok(ran.json()) } else { Err(ran.stderr) }
    });
    assert_eq!(holder["value"], "a");
    let refused = cluster.run(["lock", "acquire", "etcdctl-election", "--wait=300ms"]);
    refused.failed(6, &["others come first"]);
    elected.signal(libc::SIGTERM);
    let taken = cluster.run(["lock", "acquire", "etcdctl-election", "--wait=20s", "--output=json"]).json();
    assert!(taken["token"].as_i64() > holder["token"].as_i64(), "{taken} after {holder}");
    let key = taken["key"].as_str().expect("it has a key");
    assert_eq!(cluster.run(["lock", "release", key, "--output=plain"]).line(), taken["token"].to_string());
}

#[test]
fn a_watch_resumes_where_it_was_and_a_lock_is_waited_for() {
    let Some(mut etcdctl) = etcdctl("etcdctl watch") else { return };
    let cluster = Cluster::start(1);
    etcdctl.endpoints = cluster.endpoints();
    let start = |arguments: &[&str]| {
        let mut command = Command::new("etcdctl");
        command.env("ETCDCTL_API", "3").args(arguments).arg(format!("--endpoints={}", etcdctl.endpoints));
        command.stdin(Stdio::null()).stdout(Stdio::piped());
        let mut process = process::Process::start(command);
        let lines = BufReader::new(process.stdout().expect("it was asked for")).lines();
        (process, lines.map(|line| line.expect("its output can be read")))
    };
    let first = etcdctl.json(&["put", "watch/a", "1", "-w", "json"])["header"]["revision"].to_string();
    assert_eq!(etcdctl.say(&["put", "watch/b", "2"]), "OK");
    assert_eq!(etcdctl.say(&["del", "watch/a"]), "1");
    let (mut watch, lines) = start(&["watch", "watch/", "--prefix", "--prev-kv", &format!("--rev={first}")]);
    let told: Vec<String> = lines.take(9).collect();
    // The key, and the value where there is one; of what was before, too.
    assert_eq!(told, ["PUT", "watch/a", "1", "PUT", "watch/b", "2", "DELETE", "watch/a", "1"]);
    watch.kill();
    let next = first.parse::<u64>().expect("a number") + 2;
    assert_eq!(etcdctl.say(&["put", "watch/c", "3"]), "OK");
    let (mut watch, lines) = start(&["watch", "watch/", "--prefix", &format!("--rev={next}")]);
    let told: Vec<String> = lines.take(6).collect();
    assert_eq!(told, ["DELETE", "watch/a", "", "PUT", "watch/c", "3"]);
    watch.kill();
    assert_eq!(etcdctl.say(&["compact", &next.to_string()]), format!("compacted revision {next}"));
    let gone = etcdctl.run(&["watch", "watch/", "--prefix", "--rev=1"]);
    assert!(gone.stderr.contains("etcdserver: mvcc: required revision has been compacted"), "{gone:?}");

    let (mut holder, mut held) = start(&["lock", "watch-lock"]);
    assert!(held.next().is_some_and(|key| key.starts_with("watch-lock/")));
    let (mut waiter, mut had) = start(&["lock", "watch-lock"]);
    wait::until("somebody to wait", wait::PATIENCE, || {
        let waiters = cluster.run(["lock", "waiters", "watch-lock", "--output=json"]);
        if waiters.stdout.contains("watch-lock/") { Ok(()) } else { Err(waiters.stdout) }
    });
    holder.signal(libc::SIGTERM);
    assert!(had.next().is_some_and(|key| key.starts_with("watch-lock/")));
    waiter.kill();
}
