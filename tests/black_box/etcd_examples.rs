//! The examples of `docs/fencing.md` with plain etcd clients in Python and Node, run as their readers run them.

use std::process::Command;

use ringfence_tests::cli::{self, Ran};
use ringfence_tests::cluster::Cluster;

use crate::tools;

const PAGE: &str = include_str!("../../docs/fencing.md");
/// The address that the examples name.
const ADDRESS: &str = "127.0.0.1:2379";
/// The guard that the page sets before them.
const GUARD: [&str; 6] = ["guard", "set", "--prefix", "data/", "--scope", "key:/locks/jobs"];

/// The one piece of code of a language on the page.
fn example(language: &str, node: &str) -> String {
    let fence = format!("```{language}\n");
    let (_, rest) =
        PAGE.split_once(&fence).unwrap_or_else(|| panic!("the page has an example in {language}"));
    let (code, rest) = rest.split_once("\n```").expect("the example ends");
    assert!(!rest.contains(&fence), "the page has one example in {language}");
    assert!(code.contains(ADDRESS), "the example says where the server is");
    code.replace(ADDRESS, node)
}

/// Runs an example, then what a test makes of it: the same lock is lost to somebody else in the middle.
fn run(cluster: &Cluster, command: Command, example: &str, more: &str) -> Ran {
    drop(cluster.run(GUARD).succeeded());
    let ran = cli::capture(command, &format!("{example}\n{more}"));
    let read = cluster.run(["get", "data/x", "--output=plain"]);
    assert_eq!(read.line(), "mine", "what the example wrote is there, and nothing else: {ran:?}");
    ran
}

#[test]
fn the_example_in_python_writes_guarded_keys_while_it_holds_the_lock() {
    let test = "the_example_in_python_writes_guarded_keys_while_it_holds_the_lock";
    let packages = ["etcd-sdk-python==0.0.7", "protobuf>=5.27,<8"];
    let Some(home) = tools::pip(test, &packages) else { return };
    let cluster = Cluster::start(1);
    let mut python = Command::new("python3");
    python.arg("-").env("PYTHONPATH", home.path());
    let more = r#"
def refused(write):
    try:
        write()
    except Exception as error:
        return type(error).__name__ + ": " + str(error)
    raise AssertionError("it should have been refused")

print("without the lock:", refused(lambda: etcd.put("data/x", "somebody's")))
etcd.delete(lock.key)
print("after the lock:", refused(lambda: put("data/x", "late")))
"#;
    let said = run(&cluster, python, &example("python", &cluster.nodes[0].client), more).succeeded();
    assert!(said.contains("without the lock: PreconditionFailedError"), "{said}");
    assert!(said.contains("after the lock: RuntimeError: the lock is lost"), "{said}");
}

#[test]
fn the_example_in_node_writes_guarded_keys_while_it_holds_the_lock() {
    let test = "the_example_in_node_writes_guarded_keys_while_it_holds_the_lock";
    let Some(home) = tools::npm(test, "etcd3@1.1.2") else { return };
    let cluster = Cluster::start(1);
    let mut node = Command::new("node");
    node.arg("-").current_dir(home.path());
    let more = r#"
const refused = (write) => write.then(
  () => { throw new Error("it should have been refused"); },
  (error) => `${error.name}: ${error.message}`,
);
held
  .then(async (put) => {
    await put("data/x", "mine");
    console.log("without the lock:", await refused(etcd.put("data/x").value("somebody's").exec()));
    await etcd.delete().key("/locks/jobs").exec();
    console.log("after the lock:", await refused(put("data/x", "late")));
  })
  .then(() => process.exit(0), (error) => { console.error(error); process.exit(1); });
"#;
    let said = run(&cluster, node, &example("javascript", &cluster.nodes[0].client), more).succeeded();
    assert!(said.contains("without the lock: ") && said.contains("are guarded"), "{said}");
    assert!(said.contains("after the lock: Error: the lock is lost"), "{said}");
}
