//! A cluster of nodes on loopback, each a process of its own in a directory of its own.

use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use serde_json::Value;
use tempfile::TempDir;

use crate::cli::{self, Ran};
use crate::node::Node;
use crate::ports::Ports;
use crate::records::Records;
use crate::wait::{self, PATIENCE};

/// Lines of each node's log that are told when a test fails.
const LOG_LINES_TOLD: usize = 40;

/// A cluster. Dropping it kills its nodes and removes its directories.
#[derive(Debug)]
pub struct Cluster {
    /// The nodes, in the order of their names.
    pub nodes: Vec<Node>,
    /// The directory of the nodes' logs, and of their data where nothing else was said.
    pub home: TempDir,
    ports: Ports,
}

impl Cluster {
    /// A cluster of `nodes` nodes that is ready.
    #[must_use]
    pub fn start(nodes: usize) -> Cluster {
        let mut cluster = Cluster::prepare(nodes);
        cluster.start_all();
        cluster
    }

    /// A cluster of three nodes that several tests use at once: each keeps to keys that begin with what no other
    /// file's begin with, and does nothing that others would notice. It ends with the last test that uses it.
    #[must_use]
    pub fn shared() -> Arc<Cluster> {
        static SHARED: Mutex<Weak<Cluster>> = Mutex::new(Weak::new());
        let mut shared = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
        shared.upgrade().unwrap_or_else(|| {
            let cluster = Arc::new(Cluster::start(3));
            *shared = Arc::downgrade(&cluster);
            cluster
        })
    }

    /// A cluster of which no node runs yet, each with its data below the cluster's own directory.
    ///
    /// # Panics
    /// Where no temporary directory can be made.
    #[must_use]
    pub fn prepare(nodes: usize) -> Cluster {
        let home = tempfile::Builder::new().prefix("ringfence-test-").tempdir();
        let home = home.expect("the temporary directory is writable");
        let directories = (1..=nodes).map(|number| home.path().join(format!("node{number}"))).collect();
        Cluster::lay_out(home, directories)
    }

    /// The same, each node with its data in the given directory.
    ///
    /// # Panics
    /// Where no temporary directory can be made.
    #[must_use]
    pub fn prepare_in(directories: Vec<PathBuf>) -> Cluster {
        let home = tempfile::Builder::new().prefix("ringfence-test-").tempdir();
        Cluster::lay_out(home.expect("the temporary directory is writable"), directories)
    }

    fn lay_out(home: TempDir, directories: Vec<PathBuf>) -> Cluster {
        let ports = Ports::take();
        let mut nodes = Vec::new();
        for (number, data_dir) in (0_u16..).zip(directories) {
            let name = format!("node{}", number + 1);
            let log = home.path().join(format!("{name}.log"));
            nodes.push(Node::new(
                name,
                ports.address(10 * number),
                ports.address(10 * number + 1),
                data_dir,
                log,
            ));
        }
        let founders: Vec<String> = nodes.iter().map(|node| format!("{}={}", node.name, node.peer)).collect();
        for node in &mut nodes {
            node.initial_cluster = founders.join(",");
        }
        Cluster { nodes, home, ports }
    }

    /// Starts all nodes that do not run, and waits until all are ready, name the same leader, and tell clients' addresses
    /// of each.
    pub fn start_all(&mut self) {
        for node in &mut self.nodes {
            if !node.is_running() {
                node.start();
            }
        }
        self.wait_ready();
        self.wait_published();
    }

    /// One more node, on an empty directory, that joins through the first two when it is started. Returns which it is.
    pub fn add(&mut self, name: &str) -> usize {
        let at = self.nodes.len();
        let offset = 10 * u16::try_from(at).expect("a block has room for nine nodes");
        let (client, peer) = (self.ports.address(offset), self.ports.address(offset + 1));
        let (data_dir, log) = (
            self.home.path().join(format!("{name}-{at}")),
            self.home.path().join(format!("{name}-{at}.log")),
        );
        let mut node = Node::new(name.to_owned(), client, peer, data_dir, log);
        node.flags = vec![format!("--join={},{}", self.nodes[0].peer, self.nodes[1].peer)];
        self.nodes.push(node);
        at
    }

    /// Waits until exactly these nodes vote, by what the cluster says.
    pub fn wait_voters(&self, expected: &[usize]) {
        let mut expected: Vec<&str> = expected.iter().map(|at| self.nodes[*at].peer.as_str()).collect();
        expected.sort_unstable();
        wait::until("the right nodes to vote", PATIENCE, || {
            let list = self.run(["member", "list", "--linearizable", "--output=json"]);
            let list: Value = serde_json::from_str(&list.stdout).map_err(|_| list.stderr)?;
            let members = list["members"].as_array().ok_or_else(|| list.to_string())?;
            let voters = members.iter().filter(|member| member["learner"] == false);
            let peers = voters.filter_map(|member| member["peer_urls"][0].as_str()?.strip_prefix("http://"));
            let mut peers: Vec<&str> = peers.collect();
            peers.sort_unstable();
            if peers == expected { Ok(()) } else { Err(list.to_string()) }
        });
    }

    /// Waits until every node knows where clients reach each: a node tells it only after it has joined.
    fn wait_published(&self) {
        wait::until("all nodes to have told their addresses", PATIENCE, || {
            for at in 0..self.nodes.len() {
                let list = self.run_at(at, ["member", "list", "--output=json"]).json();
                let members = list["members"].as_array().ok_or_else(|| list.to_string())?;
                let told =
                    |member: &Value| member["client_urls"].as_array().is_some_and(|urls| !urls.is_empty());
                if members.len() != self.nodes.len() || !members.iter().all(told) {
                    return Err(format!("{} knows {list}", self.nodes[at].name));
                }
            }
            Ok(())
        });
    }

    /// Waits until all nodes are ready and name the same leader; returns which it is.
    ///
    /// # Panics
    /// Where a node has ended, or they do not become ready.
    pub fn wait_ready(&mut self) -> usize {
        self.nodes.iter_mut().for_each(Node::wait_ready);
        self.leader()
    }

    /// The node that leads, by what all running nodes say. Waits for an election that is under way.
    ///
    /// # Panics
    /// Where nobody leads for long.
    pub fn leader(&mut self) -> usize {
        wait::until("a leader that all running nodes name", PATIENCE, || {
            let status = self.status();
            let name = status["leader"].as_str().ok_or_else(|| format!("nobody leads: {status}"))?;
            let at = self.nodes.iter().position(|node| node.name == name);
            let at = at.ok_or_else(|| format!("the leader is no node of ours: {status}"))?;
            match self.nodes[at].is_running() {
                true => Ok(at),
                false => Err(format!("{name} does not run, and is still named: {status}")),
            }
        })
    }

    /// A node that runs and does not lead.
    ///
    /// # Panics
    /// Where there is none.
    pub fn follower(&mut self) -> usize {
        let leader = self.leader();
        let other = (0..self.nodes.len()).find(|at| *at != leader && self.nodes[*at].is_running());
        other.expect("the cluster has a follower")
    }

    /// What `ringfence status` says.
    pub fn status(&self) -> Value {
        let ran = self.run(["status", "--output=json", "--timeout=2s"]);
        serde_json::from_str(&ran.stdout).unwrap_or(Value::Null)
    }

    /// Where clients reach the nodes, separated by commas.
    #[must_use]
    pub fn endpoints(&self) -> String {
        let endpoints: Vec<&str> = self.nodes.iter().map(|node| node.client.as_str()).collect();
        endpoints.join(",")
    }

    /// Runs the program as a client of all nodes.
    pub fn run(&self, arguments: impl IntoIterator<Item = impl Into<OsString>>) -> Ran {
        self.run_with_input(arguments, "")
    }

    /// The same with a standard input.
    pub fn run_with_input(
        &self,
        arguments: impl IntoIterator<Item = impl Into<OsString>>,
        input: &str,
    ) -> Ran {
        run_at(&self.endpoints(), arguments, input)
    }

    /// Runs the program as a client of one node.
    pub fn run_at(&self, node: usize, arguments: impl IntoIterator<Item = impl Into<OsString>>) -> Ran {
        run_at(&self.nodes[node].client, arguments, "")
    }

    /// Kills all nodes at once.
    pub fn kill_all(&mut self) {
        for node in &mut self.nodes {
            node.process().signal(libc::SIGKILL);
        }
        self.nodes.iter_mut().for_each(Node::kill);
    }

    /// Waits until a node's state has this revision or a later one.
    pub fn wait_for_revision(&self, node: usize, revision: f64) {
        let node = &self.nodes[node];
        wait::until("a revision", PATIENCE, || match node.metric("etcd_debugging_mvcc_current_revision") {
            Some(reached) if reached >= revision => Ok(()),
            reached => Err(format!("{} has {reached:?}", node.name)),
        });
    }

    /// What one node holds, by what it has on its own.
    #[must_use]
    pub fn records_at(&self, node: usize) -> Records {
        Records::parse(&self.run_at(node, ["export", "--serializable"]).succeeded())
    }

    /// Waits until all nodes have applied the same, asserts that their state hashes and their histories' hashes are equal,
    /// and that each holds all of `acknowledged`; returns what they hold.
    ///
    /// # Panics
    /// Where a node lacks something, or the nodes differ.
    pub fn assert_nothing_lost(&mut self, acknowledged: &Records) -> Records {
        self.wait_ready();
        let hashes = wait::until("all nodes to hold the same", PATIENCE, || {
            let hashes: Vec<Hashes> = self.nodes.iter().map(Hashes::of).collect::<Result<_, _>>()?;
            match hashes.iter().all(|other| *other == hashes[0]) {
                true => Ok(hashes[0]),
                false => Err(format!("{hashes:?}")),
            }
        });
        assert!(hashes.applied > 0, "a cluster that is ready has applied its own membership");
        let first = self.records_at(0);
        first.assert_contains(acknowledged, &self.nodes[0].name);
        for at in 1..self.nodes.len() {
            let others = self.records_at(at);
            others.assert_contains(acknowledged, &self.nodes[at].name);
            assert!(
                others == first,
                "{} and {} hold different keys",
                self.nodes[at].name,
                self.nodes[0].name
            );
        }
        first
    }
}

impl Drop for Cluster {
    /// The nodes' logs go with the cluster's directory; of a test that fails, their ends are told before.
    fn drop(&mut self) {
        if std::thread::panicking() {
            for node in &self.nodes {
                let log = node.log();
                let lines: Vec<&str> = log.lines().collect();
                let end = &lines[lines.len().saturating_sub(LOG_LINES_TOLD)..];
                println!("--- the end of what {} said:\n{}", node.name, end.join("\n"));
            }
        }
    }
}

fn run_at(endpoints: &str, arguments: impl IntoIterator<Item = impl Into<OsString>>, input: &str) -> Ran {
    let mut all: Vec<OsString> = arguments.into_iter().map(Into::into).collect();
    all.push(format!("--endpoints={endpoints}").into());
    cli::capture(cli::command(all), input)
}

/// What must be the same on all nodes once they have applied the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Hashes {
    applied: u64,
    revision: i64,
    state: u32,
    history: u32,
}

impl Hashes {
    fn of(node: &Node) -> Result<Hashes, String> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.expect("a runtime can be started");
        let ask = async {
            let mut client = etcd_client::Client::connect([&node.client], None).await?;
            let before = client.status().await?;
            let state = client.maintenance_client().hash().await?;
            let history = client.hash_kv(0).await?;
            Ok::<Hashes, etcd_client::Error>(Hashes {
                applied: before.raft_applied_index(),
                revision: history.header().map_or(0, etcd_client::ResponseHeader::revision),
                state: state.hash(),
                history: history.hash(),
            })
        };
        runtime.block_on(ask).map_err(|error| format!("{}: {error}", node.name))
    }
}
