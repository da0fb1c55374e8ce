//! The clients of Python and Node that are called `etcd3`, each with a program that does what its users do.

use std::path::Path;
use std::process::Command;

use ringfence_tests::cli;
use ringfence_tests::cluster::Cluster;

use crate::tools;

/// The Python client was generated for a protobuf of before version 4.
const PYTHON: [&str; 2] = ["etcd3==0.12.0", "protobuf==3.20.3"];
const NODE: &str = "etcd3@1.1.2";

/// Runs a program that must come to its end.
fn done(command: Command, program: &str) {
    let ran = cli::capture(command, program);
    assert_eq!((ran.code, ran.stdout.as_str()), (Some(0), "done\n"), "{}", ran.stderr);
}

fn python(home: &Path, address: &str) -> Command {
    let mut python = Command::new("timeout");
    python.args(["120", "python3", "-", address]).env("PYTHONPATH", home);
    python
}

fn node(home: &Path, addresses: &str) -> Command {
    let mut node = Command::new("timeout");
    node.args(["120", "node", "-", addresses]).current_dir(home);
    node
}

#[test]
fn the_python_client_works_unchanged() {
    let Some(home) = tools::pip("the_python_client_works_unchanged", &PYTHON) else { return };
    let cluster = Cluster::shared();
    done(python(home.path(), &cluster.nodes[0].client), include_str!("foreign/etcd3.py"));
    done(python(home.path(), &cluster.nodes[1].client), include_str!("foreign/etcd3_watch.py"));
}

#[test]
fn the_node_client_works_unchanged() {
    let Some(home) = tools::npm("the_node_client_works_unchanged", NODE) else { return };
    let cluster = Cluster::shared();
    done(node(home.path(), &cluster.endpoints()), include_str!("foreign/etcd3.js"));
    done(node(home.path(), &cluster.endpoints()), include_str!("foreign/etcd3_watch.js"));
}
