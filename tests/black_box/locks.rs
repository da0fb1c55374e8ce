//! Locks and elections by the program's own commands: what they hold, whom they keep waiting, and how it goes on when they
//! or a node end.

use std::io::{BufRead as _, BufReader};
use std::process::Stdio;
use std::sync::mpsc::{Receiver, channel};
use std::thread;

use ringfence_tests::cli;
use ringfence_tests::cluster::Cluster;
use ringfence_tests::process::Process;
use ringfence_tests::wait::{self, PATIENCE};
use serde_json::Value;

/// A command that stays, and the lines that it prints.
struct Staying {
    process: Process,
    lines: Receiver<String>,
}

impl Staying {
    fn start(cluster: &Cluster, arguments: &[&str]) -> Staying {
        let mut command = cli::command(arguments);
        command.env("RINGFENCE_ENDPOINTS", cluster.endpoints()).stdout(Stdio::piped());
        let mut process = Process::start(command);
        let stdout = BufReader::new(process.stdout().expect("it was asked for"));
        let (said, lines) = channel();
        thread::spawn(move || {
            for line in stdout.lines().map_while(Result::ok) {
                if said.send(line).is_err() {
                    return;
                }
            }
        });
        Staying { process, lines }
    }

    fn line(&self) -> String {
        self.lines.recv_timeout(PATIENCE).expect("the command says something")
    }

    fn json(&self) -> Value {
        let line = self.line();
        serde_json::from_str(&line).unwrap_or_else(|error| panic!("no JSON ({error}): {line}"))
    }

    /// Ends it as a terminal or a service manager would; it has to give back what it holds.
    fn end(mut self) {
        self.process.signal(libc::SIGTERM);
        assert_eq!(self.process.exit_code_within(PATIENCE), 0);
    }
}

fn waiters(cluster: &Cluster, name: &str) -> Vec<Value> {
    let shown = cluster.run(["lock", "waiters", name, "--output=json"]).json();
    shown["waiters"].as_array().expect("a list").clone()
}

fn wait_for_waiters(cluster: &Cluster, name: &str, count: usize) {
    wait::until("a queue", PATIENCE, || match waiters(cluster, name) {
        waiters if waiters.len() == count => Ok(()),
        waiters => Err(format!("{waiters:?}")),
    });
}

fn token(value: &Value) -> i64 {
    value["token"].as_i64().unwrap_or_else(|| panic!("no token: {value}"))
}

#[test]
fn a_lock_is_taken_waited_for_and_given_back_by_commands() {
    let cluster = Cluster::shared();
    let name = "cli-lock";
    cluster.run(["lock", "holder", name]).failed(3, &["nobody holds the lock"]);
    let first = cluster.run(["lock", "acquire", name, "--ttl=60s", "--output=json"]).json();
    let lease = first["lease"].as_i64().expect("it has a lease");
    assert_eq!((&first["name"], &first["ttl"]), (&name.into(), &60.into()));
    assert_eq!(first["key"], format!("{name}/{lease:x}"));
    let holder = cluster.run(["lock", "holder", name, "--output=json"]).json();
    assert_eq!(
        (&holder["token"], &holder["key"], &holder["lease"]),
        (&first["token"], &first["key"], &first["lease"])
    );

    let hurried = cluster.run(["lock", "acquire", name, "--wait=300ms"]);
    hurried.failed(6, &["the lock \"cli-lock\" is not had within 300ms"]);
    assert_eq!(waiters(&cluster, name), [] as [Value; 0], "who has given up does not wait");

    // Longer than its TTL: it lives while it waits.
    let second = Staying::start(&cluster, &["lock", "acquire", name, "--keep", "--ttl=2s", "-o", "json"]);
    wait_for_waiters(&cluster, name, 1);
    thread::sleep(std::time::Duration::from_secs(3));
    assert_eq!(waiters(&cluster, name).len(), 1);
    let wrong = (token(&first) + 1).to_string();
    let late = cluster.run(["lock", "release", name, "--lease", &lease.to_string(), "--token", &wrong]);
    assert_eq!(late.line(), "it was given back already, or lost");
    let released = cluster.run(["lock", "release", name, "--lease", &lease.to_string(), "-o", "json"]).json();
    assert_eq!(released["token"], first["token"]);
    let held = second.json();
    assert!(token(&held) > token(&first), "{held} after {first}");
    let holder = cluster.run(["lock", "holder", name, "--output=plain"]).line();
    assert_eq!(holder, token(&held).to_string());
    second.end();
    cluster.run(["lock", "holder", name]).failed(3, &["nobody holds the lock"]);
}

#[test]
fn an_election_is_followed_from_leader_to_leader() {
    let cluster = Cluster::shared();
    let name = "cli-election";
    let observer = Staying::start(&cluster, &["elect", name, "--observe", "-o", "plain"]);
    let first = Staying::start(&cluster, &["elect", name, "--value", "a", "-o", "json"]);
    let led = first.json();
    assert_eq!(observer.line(), "a");
    let second = Staying::start(&cluster, &["elect", name, "--value", "b", "-o", "json"]);
    wait_for_waiters(&cluster, name, 1);
    first.end();
    assert_eq!(observer.line(), "b");
    assert!(token(&second.json()) > token(&led));
    second.end();
}

#[test]
fn a_lock_and_its_queue_outlive_the_leaders_process() {
    let mut cluster = Cluster::start(3);
    let name = "jobs";
    let keep = ["lock", "acquire", name, "--keep", "--ttl=30s", "-o", "json"];
    let first = Staying::start(&cluster, &keep);
    let held = first.json();
    let second = Staying::start(&cluster, &keep);
    wait_for_waiters(&cluster, name, 1);
    let third = Staying::start(&cluster, &keep);
    wait_for_waiters(&cluster, name, 2);
    let queue = waiters(&cluster, name);
    let leader = cluster.leader();
    cluster.nodes[leader].kill();
    cluster.leader();
    let holder = cluster.run(["lock", "holder", name, "--output=json"]).json();
    assert_eq!(token(&holder), token(&held), "a change of leader takes no lock away");
    // Whoever waited at the node that is gone has asked another one, and kept its place.
    assert_eq!(
        waiters(&cluster, name).iter().map(token).collect::<Vec<_>>(),
        queue.iter().map(token).collect::<Vec<_>>()
    );
    first.end();
    let now = second.json();
    assert_eq!(token(&now), token(&queue[0]));
    second.end();
    assert_eq!(token(&third.json()), token(&queue[1]));
    third.end();
}
