//! `ringfence watch`: every event once and in order, past ones too, whichever nodes come and go.

use std::io::{BufRead as _, BufReader, Lines};
use std::process::{ChildStdout, Stdio};

use ringfence_tests::cluster::Cluster;
use ringfence_tests::process::Process;
use ringfence_tests::{cli, wait};
use serde_json::Value;

/// A watch that runs, and its lines.
struct Watching {
    process: Process,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Watching {
    fn start(cluster: &Cluster, arguments: &[&str]) -> Watching {
        let mut command = cli::command(["watch"]);
        command.args(arguments).arg(format!("--endpoints={}", cluster.endpoints())).stdout(Stdio::piped());
        let mut process = Process::start(command);
        let lines = BufReader::new(process.stdout().expect("it was asked for")).lines();
        Watching { process, lines }
    }

    fn line(&mut self) -> String {
        self.lines.next().expect("the watch goes on").expect("its output can be read")
    }

    fn json(&mut self) -> Value {
        let line = self.line();
        serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line}"))
    }
}

fn put(cluster: &Cluster, key: &str, value: &str) -> i64 {
    let told = cluster.run(["put", key, value, "--timeout=30s", "--output=json"]).json();
    told["revision"].as_i64().expect("it tells the revision")
}

#[test]
fn a_watch_tells_what_was_and_what_comes() {
    let cluster = Cluster::shared();
    let first = put(&cluster, "watched/a", "1");
    put(&cluster, "watched/a", "2");
    drop(cluster.run(["del", "watched/a"]).succeeded());
    put(&cluster, "watched-not", "1");
    let from = format!("--rev={first}");
    let mut watch = Watching::start(&cluster, &["watched/", "--prefix", &from, "--prev-kv", "--output=json"]);
    let put_first = watch.json();
    assert_eq!((&put_first["event"], &put_first["revision"]), (&"put".into(), &first.into()), "{put_first}");
    assert_eq!((&put_first["kv"]["value"], &put_first["prev_kv"]), (&"1".into(), &Value::Null));
    let put_second = watch.json();
    assert_eq!((&put_second["kv"]["value"], &put_second["prev_kv"]["value"]), (&"2".into(), &"1".into()));
    let deleted = watch.json();
    assert_eq!((&deleted["event"], &deleted["prev_kv"]["value"]), (&"delete".into(), &"2".into()));
    let now = put(&cluster, "watched/b", "now");
    assert_eq!(watch.json()["revision"], now);
    watch.process.signal(libc::SIGINT);

    let told = |flags: &[&str]| {
        let all = [&["watch", "watched/", "--prefix", &from, "--output=plain"], flags].concat();
        cluster.run(all).line()
    };
    assert_eq!(told(&["--count=4"]), "put watched/a\nput watched/a\ndelete watched/a\nput watched/b");
    assert_eq!(told(&["--count=1", "--no-put"]), "delete watched/a");
    assert_eq!(told(&["--count=3", "--no-delete"]), "put watched/a\nput watched/a\nput watched/b");
    let table = cluster.run(["watch", "watched/a", &from, "--count=1"]).line();
    assert_eq!(table, format!("{first}  put     watched/a  1"));
}

#[test]
fn a_command_finds_the_event_in_its_environment() {
    let cluster = Cluster::shared();
    let from = format!("--rev={}", put(&cluster, "executed", "1"));
    put(&cluster, "executed", "two words");
    drop(cluster.run(["del", "executed"]).succeeded());
    let script = "echo \"$RINGFENCE_EVENT $RINGFENCE_KEY=$RINGFENCE_VALUE after $RINGFENCE_PREV_VALUE, read: $(cat)\"; exit 3";
    let ran = cluster.run(["watch", "executed", &from, "--prev-kv", "--count=3", "--exec", script]);
    assert_eq!(ran.stderr.matches("the command ended with exit status: 3").count(), 3, "{}", ran.stderr);
    let expected = "put executed=1 after , read: 1\nput executed=two words after 1, read: two words\n\
                    delete executed= after two words, read: \n";
    assert_eq!(ran.succeeded(), expected);
}

#[test]
fn a_watch_goes_on_through_changes_of_members() {
    let mut cluster = Cluster::start(3);
    let mut watch = Watching::start(&cluster, &["k/", "--prefix", "--rev=1", "--output=json"]);
    let mut expected = Vec::new();
    for round in 0..3 {
        for n in 0..10 {
            expected.push(put(&cluster, &format!("k/{n}"), &round.to_string()));
        }
        // Each in turn, so that the one that serves the watch is among them.
        cluster.nodes[round].kill();
        expected.push(put(&cluster, "k/while", &round.to_string()));
        cluster.start_all();
    }
    let told: Vec<i64> = expected.iter().map(|_| watch.json()["revision"].as_i64().unwrap_or(0)).collect();
    assert_eq!(told, expected, "each once, in order");
    assert!(watch.process.runs());
    watch.process.kill();

    drop(cluster.run(["compact", &expected[5].to_string()]).succeeded());
    let compacted = cluster.run(["watch", "k/", "--prefix", "--rev=1"]);
    compacted.failed(4, &["compacted"]);
    // Without anybody to ask it waits, and says so.
    cluster.kill_all();
    let mut command = cli::command(["watch", "k/", "--prefix", "--timeout=300ms"]);
    command.arg(format!("--endpoints={}", cluster.endpoints())).stderr(Stdio::null());
    let mut unable = Process::start(command);
    assert!(unable.ended_within(wait::PATIENCE).is_some_and(|status| status.code() == Some(6)));
}
