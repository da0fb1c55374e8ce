//! `ringfence dev`: one command starts a cluster, which every client command can use, and which has its data when it is
//! started again.

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{ChildStdout, Command, Stdio};

use ringfence_tests::cli::{self, Ran};
use ringfence_tests::ports::Ports;
use ringfence_tests::process::Process;
use ringfence_tests::{http, wait};
use serde_json::Value;

/// A development cluster, as its user sees it.
struct Dev {
    process: Process,
    told: Value,
}

impl Dev {
    fn start(data_dir: &Path, ports: &Ports) -> Dev {
        let mut command = cli::command(["dev", "--json", "--base-port"]);
        command.arg(ports.first().to_string()).arg("--data-dir").arg(data_dir);
        command.args(["--", "--log-segment-size=16MiB"]).stdout(Stdio::piped());
        let mut process = Process::start(command);
        let stdout: ChildStdout = process.stdout().expect("it was asked for");
        let mut line = String::new();
        BufReader::new(stdout).read_line(&mut line).expect("it tells what it started");
        let told =
            serde_json::from_str(&line).unwrap_or_else(|error| panic!("no line of JSON ({error}): {line:?}"));
        Dev { process, told }
    }

    fn nodes(&self) -> &Vec<Value> {
        self.told["nodes"].as_array().expect("it tells the nodes")
    }

    fn client(&self, node: usize) -> &str {
        self.nodes()[node]["client"].as_str().expect("each node tells where clients reach it")
    }

    fn pid(&self, node: usize) -> u64 {
        self.nodes()[node]["pid"].as_u64().expect("each node tells its process")
    }

    /// Runs the program as a client of one node.
    fn run_at<const N: usize>(&self, node: usize, arguments: [&str; N]) -> Ran {
        let endpoint = ["--endpoints", self.client(node)];
        cli::run(arguments.into_iter().chain(endpoint))
    }

    /// Ctrl-C.
    fn interrupt(mut self) {
        let pids: Vec<u64> = (0..self.nodes().len()).map(|node| self.pid(node)).collect();
        self.process.signal(libc::SIGINT);
        assert_eq!(
            self.process.exit_code_within(wait::PATIENCE),
            0,
            "a stop that was asked for is no failure"
        );
        for pid in pids {
            assert!(!Path::new("/proc").join(pid.to_string()).exists(), "process {pid} was left behind");
        }
    }
}

#[test]
fn a_cluster_is_one_command_and_has_its_data_when_it_is_started_again() {
    let home = tempfile::Builder::new().prefix("ringfence-test-").tempdir();
    let home = home.expect("the temporary directory is writable");
    let ports = Ports::take();
    let dev = Dev::start(home.path(), &ports);
    assert_eq!(dev.nodes().len(), 3);
    for node in 0..3 {
        assert_eq!(dev.client(node), ports.address(10 * node as u16), "clients are 10 ports apart");
        assert_eq!(dev.nodes()[node]["peer"], ports.address(10 * node as u16 + 1), "peers are one above");
    }
    every_node_reads_and_writes(&dev);
    status_shows_every_node(&dev);
    a_killed_node_starts_again_from_its_command_file(&dev, home.path());
    dev.interrupt();

    let again = Dev::start(home.path(), &ports);
    for node in 0..3 {
        assert_eq!(again.run_at(node, ["get", "key/0", "--output=plain"]).line(), "value 0");
    }
    again.interrupt();
}

fn every_node_reads_and_writes(dev: &Dev) {
    for node in 0..3 {
        let (key, value) = (format!("key/{node}"), format!("value {node}"));
        let other = (node + 1) % 3;
        let _ = dev.run_at(node, ["put", &key, &value]).succeeded();
        // Linearizable: on another node, at once.
        assert_eq!(dev.run_at(other, ["get", &key, "--output=plain"]).line(), value);
        let txn = cli::command(["txn", "--output=json", "--endpoints", dev.client(node)]);
        let text = format!(
            "if value {key} = \"{value}\"\nthen put {key}/txn done\nthen get {key}\nelse put {key}/txn not\n"
        );
        let answer = cli::capture(txn, &text).json();
        assert_eq!(answer["succeeded"], true);
        assert_eq!(answer["responses"][1]["get"]["kvs"][0]["value"], *value);
        assert_eq!(dev.run_at(other, ["get", &format!("{key}/txn"), "--output=plain"]).line(), "done");
        let _ = dev.run_at(node, ["del", &format!("{key}/txn")]).succeeded();
        dev.run_at(other, ["get", &format!("{key}/txn")]).failed(3, &["no such key"]);
        dev.run_at(node, ["del", &format!("{key}/txn")]).failed(3, &[]);
    }
    assert_eq!(dev.run_at(0, ["get", "key/", "--prefix", "--count-only"]).line(), "3");
}

fn status_shows_every_node(dev: &Dev) {
    let status = dev.run_at(1, ["status", "--output=json"]).json();
    let nodes = status["nodes"].as_array().expect("it shows the nodes");
    let leaders: Vec<&Value> = nodes.iter().filter(|node| node["role"] == "leader").collect();
    assert_eq!((nodes.len(), leaders.len()), (3, 1), "{status}");
    assert_eq!(status["leader"], leaders[0]["name"]);
    for node in nodes {
        assert_eq!(node["read_only"], false, "{node}");
        assert!(node["id"].as_u64().is_some_and(|id| id > 0), "{node}");
        assert_eq!(node["error"], Value::Null);
    }
    let table = dev.run_at(1, ["status"]).succeeded();
    let name = status["leader"].as_str().expect("somebody leads");
    assert!(table.contains(&format!("{name} leads")), "{table}");
}

fn a_killed_node_starts_again_from_its_command_file(dev: &Dev, home: &Path) {
    // SAFETY: no memory is involved; the process is one of the cluster's nodes.
    assert_eq!(unsafe { libc::kill(dev.pid(2) as libc::pid_t, libc::SIGKILL) }, 0);
    wait::until("the killed node to be gone", wait::PATIENCE, || match http::get(dev.client(2), "/livez") {
        Err(_) => Ok(()),
        Ok(page) => Err(page.body),
    });
    let _ = dev.run_at(0, ["put", "while/away", "1"]).succeeded();
    let mut shell = Command::new("sh");
    shell.arg(home.join("node3.command")).stdout(Stdio::null()).stderr(Stdio::null());
    let mut node = Process::start(shell);
    wait::until("the node to be ready again", wait::PATIENCE, || match http::get(dev.client(2), "/readyz") {
        Ok(page) if page.status == 200 => Ok(()),
        other => Err(format!("{other:?}")),
    });
    assert_eq!(dev.run_at(2, ["get", "while/away", "--output=plain"]).line(), "1");
    node.signal(libc::SIGTERM);
    assert_eq!(node.exit_code_within(wait::PATIENCE), 0);
}

#[test]
fn a_port_in_use_is_told_before_anything_starts() {
    let home = tempfile::tempdir().expect("the temporary directory is writable");
    let ports = Ports::take();
    let taken = ports.address(11);
    let _listener = std::net::TcpListener::bind(&taken).expect("the block is ours");
    let base = ports.first().to_string();
    let data = home.path().join("data");
    let ran = cli::run(["dev", "--base-port", &base, "--data-dir", &data.to_string_lossy()]);
    ran.failed(12, &[&taken, "--base-port"]);
    assert!(!data.join("node1").exists(), "no node was started");
}
