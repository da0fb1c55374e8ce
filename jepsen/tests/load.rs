//! Every workload with every kind of client, on a cluster without faults: nothing may be found wrong, and nothing may go
//! unused.

use std::collections::HashMap;
use std::net::TcpListener;
use std::thread;
use std::time::Duration;

use ringfence_checker::{Budget, Event, Function, Kind as End, Verdict};
use ringfence_jepsen::client::{Applied, Caller, Cli, Client, Etcd, Kind, Node, Request, Ringfence};
use ringfence_jepsen::load::{Load, Options};
use ringfence_jepsen::workload;
use ringfence_jepsen::world::{Clock, Place};
use ringfence_tests::binary;
use ringfence_tests::cluster::Cluster;

/// Runs a load for two seconds and returns its history.
fn run(cluster: &Cluster, name: &str, kinds: &[Kind]) -> Vec<Event> {
    let addresses = cluster.nodes.iter().map(|node| node.client.clone()).collect();
    let options = Options { kinds: kinds.to_vec(), ..Options::new(200, 7, binary::ringfence().to_owned()) };
    let sink = cluster.home.path().join(format!("{name}.jsonl"));
    let workload = workload::named(name).expect("it is ready");
    let load = Load::start(Place::default(), addresses, Clock::start(), workload, options, &sink);
    let load = load.expect("the cluster is healthy");
    thread::sleep(Duration::from_secs(2));
    load.stop();
    let progress = load.progress();
    let history = load.finish().expect("the disk holds a history");
    assert!(progress.ok > 0, "{name}: {progress:?}");
    let file = std::fs::File::open(&sink).expect("it was written");
    let read =
        ringfence_checker::history::read(std::io::BufReader::new(file)).expect("it has histories' form");
    assert_eq!(read, history, "{name}: the file holds what was seen");
    history
}

fn done(history: &[Event]) -> HashMap<Function, usize> {
    let mut done = HashMap::new();
    for event in history.iter().filter(|event| event.kind == End::Ok) {
        *done.entry(event.f).or_default() += 1;
    }
    done
}

#[test]
fn a_healthy_cluster_passes_every_workload() {
    let cluster = Cluster::start(3);
    for (name, functions) in [
        ("register", &[Function::Read, Function::Write, Function::Cas, Function::Delete][..]),
        ("counter", &[Function::Add, Function::Read]),
        ("set", &[Function::Add, Function::ReadAll]),
        ("list-append", &[Function::Txn]),
        ("bank", &[Function::Transfer, Function::ReadAll]),
        ("watch", &[Function::Write, Function::WriteAll, Function::Delete, Function::Watch]),
    ] {
        let history = run(&cluster, name, &Kind::ALL);
        let done = done(&history);
        assert!(functions.iter().all(|function| done.contains_key(function)), "{name}: {done:?}");
        let nodes = (1..=3).all(|node| history.iter().any(|event| event.node == Some(node)));
        assert!(nodes, "{name}: every node is asked");
        let info = history.iter().filter(|event| event.kind == End::Info).count();
        assert_eq!(info, 0, "{name}: without faults every outcome is known");
        let workload = workload::named(name).expect("it is ready");
        let findings = workload.check(&history, Budget::default());
        assert!(!findings.is_empty());
        for finding in findings {
            assert_eq!(finding.verdict, Verdict::Ok, "{name}: {finding:?}");
        }
    }
}

#[test]
fn every_kind_of_client_does_every_kind_of_operation() {
    let cluster = Cluster::start(1);
    for kind in Kind::ALL {
        let done = done(&run(&cluster, "register", &[kind]));
        for function in [Function::Read, Function::Write, Function::Cas, Function::Delete] {
            assert!(done.contains_key(&function), "{kind:?}: {done:?}");
        }
        let done = done_of_list(&cluster, kind);
        assert!(done > 0, "{kind:?}");
    }
}

fn done_of_list(cluster: &Cluster, kind: Kind) -> usize {
    done(&run(cluster, "list-append", &[kind])).get(&Function::Txn).copied().unwrap_or(0)
}

#[test]
fn watchers_of_every_kind_are_told_what_happened() {
    let cluster = Cluster::start(1);
    for kind in [Kind::RingfenceOne, Kind::RingfenceAll, Kind::Etcd] {
        let history = run(&cluster, "watch", &[kind]);
        let (mut listening, mut told) = (HashMap::new(), 0);
        for event in history.iter().filter(|event| event.f == Function::Watch) {
            match event.kind {
                // Those that look at the whole history at the end are all of one kind, and do not listen.
                End::Invoke => drop(listening.insert(event.process, event.value["ms"] != 0)),
                _ if listening[&event.process] => {
                    told += event.value["events"].as_array().map_or(0, Vec::len)
                }
                _ => {}
            }
        }
        assert!(told > 100, "{kind:?}: {told}");
    }
}

/// Each kind's answer to a put at an address.
async fn put_at(address: &str) -> Vec<(Kind, Applied)> {
    let mut answers = Vec::new();
    for kind in [Kind::RingfenceOne, Kind::Etcd, Kind::Cli] {
        let node = Node { number: 1, address: address.to_owned() };
        let client: Box<dyn Client> = match kind {
            Kind::RingfenceOne | Kind::RingfenceAll => {
                Box::new(Ringfence::new(vec![node]).expect("it is an address"))
            }
            Kind::Etcd => Box::new(Etcd::new(node).await.expect("it is an address")),
            Kind::Cli => Box::new(Cli::new(node, binary::ringfence().to_owned(), Place::default())),
        };
        let mut caller = Caller::new(client, Duration::from_secs(1), false);
        let put = Request::Put("k".to_owned(), "v".to_owned());
        let failure = caller.call(&put).await.expect_err("nobody serves there");
        answers.push((kind, failure.applied));
    }
    answers
}

#[tokio::test]
async fn where_nobody_listens_nothing_is_applied() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("loopback has a free port");
    let address = listener.local_addr().expect("it is bound").to_string();
    drop(listener);
    for (kind, applied) in put_at(&address).await {
        assert_eq!(applied, Applied::No, "{kind:?}");
    }
}

#[tokio::test]
async fn where_somebody_listens_and_never_answers_nobody_can_tell() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("loopback has a free port");
    let address = listener.local_addr().expect("it is bound").to_string();
    // Connections are made by the kernel, and nobody takes them.
    for (kind, applied) in put_at(&address).await {
        assert_eq!(applied, Applied::Unknown, "{kind:?}");
    }
    drop(listener);
}
