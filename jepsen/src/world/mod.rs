//! The world in which servers under test live: real processes, each on a network and a disk of its own, with clocks of its
//! own; and everything that can be done to them.
//!
//! Reading order: [`capabilities`] (what this machine allows), [`Plan`] and [`World`]; then the parts: [`network`] (a switch in
//! user space), [`disk`] (a file system in an image), [`control`] (clocks and syncs, through a shim), `cgroup` (processor
//! and disk time), `node` (the process), `samples` (what is known of nodes over time). `sys` has the system calls.
//!
//! Nothing of a world has a name on the machine but its run's directory and its control groups. Namespaces, mounts and loop
//! devices live as long as somebody holds their descriptors, and processes as long as the thread that started them; so all
//! is gone when the harness is, however it ends. Control groups of a run that was killed are removed by the next one.

#[path = "../../shim/src/block.rs"]
pub mod block;
pub mod capabilities;
mod cgroup;
mod clock;
pub mod control;
pub mod disk;
mod founding;
pub mod network;
mod node;
mod place;
mod power;
pub mod program;
mod samples;
mod spawner;
mod status;
mod sys;
#[cfg(test)]
mod tests;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};

pub use capabilities::{Capabilities, Capability};
pub use clock::Clock;
pub use control::{NodeClock, NodeSyncs};
pub use disk::{Image, Loss};
pub use network::{Counters, Host, Link, Switch};
pub use place::Place;
pub use power::Keep;
pub use status::NodeStatus;

use crate::record::Sample;
use founding::Folder;
use node::Node;
use samples::{Sampler, Samples};

/// How often a condition that is waited for is looked at.
const LOOK_INTERVAL: Duration = Duration::from_millis(10);
/// Longest wait for a new cluster to be ready.
const READY_TIMEOUT: Duration = Duration::from_secs(60);

/// What a world is to be like.
#[derive(Debug, Clone)]
pub struct Plan {
    /// How many nodes found the cluster.
    pub nodes: usize,
    /// The run's directory: nodes' logs go into `nodes` in it, and what only a living world needs into `world`.
    pub directory: PathBuf,
    /// The server under test.
    pub program: PathBuf,
    /// The shim for its clocks and syncs; `None`: it runs without.
    pub shim: Option<PathBuf>,
    /// Canaries to arm in it, by name.
    pub canaries: Vec<String>,
    /// More flags of `ringfence serve`.
    pub flags: Vec<String>,
    /// Where disks are.
    pub storage: Storage,
    /// What the switch does at random is drawn from this.
    pub seed: u64,
}

/// Where the images of nodes' disks are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Storage {
    /// In a file of the run's directory, which has no name: syncs cost what they cost there.
    Disk,
    /// In memory: fast.
    Memory,
}

/// A cluster and its surroundings. Nodes are numbered from 1. Dropping it ends everything.
#[derive(Debug)]
pub struct World {
    // Fields are dropped in this order: first those who ask, then those who are asked, then what is around them.
    _sampler: Sampler,
    nodes: Vec<Arc<Node>>,
    switch: Option<Switch>,
    _folder: Folder,
    clients: Place,
    control: Place,
    samples: Arc<Samples>,
    clock: Clock,
}

impl World {
    /// Makes networks and disks as far as this machine can, starts all nodes, and waits until they are ready.
    ///
    /// # Errors
    /// Where something cannot be made, or a node does not become ready.
    pub fn start(plan: Plan, capabilities: &Capabilities) -> anyhow::Result<World> {
        let world = founding::found(&plan, capabilities)?;
        for node in 1..=world.nodes() {
            world.start_node(node)?;
        }
        world.wait_all_ready(READY_TIMEOUT)?;
        let is_deaf =
            |node: &&Arc<Node>| node.control.as_ref().is_some_and(|control| control.attached() == 0);
        if let Some(deaf) = world.nodes.iter().find(is_deaf) {
            bail!(
                "node {} runs without its shim: the program is linked statically, or for another system",
                deaf.number
            );
        }
        Ok(world)
    }

    /// The time of this run.
    #[must_use]
    pub fn clock(&self) -> Clock {
        self.clock
    }

    /// How many nodes there are.
    #[must_use]
    pub fn nodes(&self) -> usize {
        self.nodes.len()
    }

    /// Where clients reach a node, from the [clients' place](World::client_place).
    #[must_use]
    pub fn client_address(&self, node: usize) -> String {
        self.node(node).client.to_string()
    }

    /// Where clients must be: threads [enter](Place::enter) it before they open sockets, child processes are
    /// [prepared](Place::prepare) for it.
    #[must_use]
    pub fn client_place(&self) -> Place {
        self.clients.clone()
    }

    /// A place from which every node can be reached whatever the faults.
    #[must_use]
    pub fn control_place(&self) -> Place {
        self.control.clone()
    }

    /// Gets a page from a node, from where no fault of the network reaches: its status code and its body.
    ///
    /// # Errors
    /// Where there is no answer within half a second.
    pub fn http(&self, node: usize, path: &str) -> io::Result<(u16, String)> {
        self.node(node).http(&self.control, path)
    }

    /// How a node says that it stands; `None`: it does not say.
    #[must_use]
    pub fn status(&self, node: usize) -> Option<NodeStatus> {
        self.samples.ask(self.node(node), &self.control)
    }

    /// How all nodes say that they stand, in their order. They are asked side by side, so that those which do not answer cost
    /// half a second together.
    #[must_use]
    pub fn statuses(&self) -> Vec<Option<NodeStatus>> {
        thread::scope(|scope| {
            let asked: Vec<_> =
                (1..=self.nodes()).map(|node| scope.spawn(move || self.status(node))).collect();
            let answer = |thread: thread::ScopedJoinHandle<'_, Option<NodeStatus>>| {
                thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
            };
            asked.into_iter().map(answer).collect()
        })
    }

    /// The node that says that it leads; of several the one of the latest term.
    #[must_use]
    pub fn leader(&self) -> Option<usize> {
        let leading = |(node, status): (usize, Option<NodeStatus>)| {
            status.filter(|status| status.leads).map(|status| (status.term, node))
        };
        (1..).zip(self.statuses()).filter_map(leading).max().map(|(_, node)| node)
    }

    /// Whether a node says that it is ready, or why it is not.
    ///
    /// # Errors
    /// The node's reason, or that it does not answer.
    pub fn ready(&self, node: usize) -> Result<(), String> {
        match self.http(node, "/readyz") {
            Ok((200, _)) => Ok(()),
            Ok((_, body)) => Err(body.trim_end().to_owned()),
            Err(error) => Err(format!("it does not answer: {error}")),
        }
    }

    /// Waits until all nodes are ready and know who leads.
    ///
    /// # Errors
    /// Where one has ended, or is not ready in time.
    pub fn wait_all_ready(&self, limit: Duration) -> anyhow::Result<()> {
        let deadline = Instant::now() + limit;
        for node in 1..=self.nodes() {
            while let Err(why) = self.ready(node) {
                if !self.is_running(node) {
                    bail!("node {node} has ended: {}", self.node(node).last_words());
                }
                if Instant::now() >= deadline {
                    bail!("node {node} is not ready after {limit:?}: {why}");
                }
                thread::sleep(LOOK_INTERVAL);
            }
        }
        Ok(())
    }

    /// Starts a node that does not run, on the disk that it had.
    ///
    /// # Errors
    /// Where it runs, or cannot be started. Whether it gets ready is another question.
    pub fn start_node(&self, node: usize) -> anyhow::Result<()> {
        self.node(node).start().with_context(|| format!("node {node}"))
    }

    /// Starts a node that does not run on an emptied disk: it asks the others to belong to them.
    ///
    /// # Errors
    /// As of [`World::start_node`].
    pub fn start_joining(&self, node: usize) -> anyhow::Result<()> {
        let others = self.nodes.iter().filter(|other| other.number != node);
        let via: Vec<String> = others.map(|other| other.peer.to_string()).collect();
        self.node(node).start_joining(&via.join(",")).with_context(|| format!("node {node}"))
    }

    /// `kill -9`, and waits until the process is gone. Says whether it ran. A process that waits for a frozen disk cannot be
    /// killed before that thaws.
    pub fn kill(&self, node: usize) -> bool {
        self.node(node).kill("kill -9")
    }

    /// Kills several nodes as nearly at once as can be. Returns those that ran.
    pub fn kill_all(&self, nodes: &[usize]) -> Vec<usize> {
        for node in nodes {
            self.signal(*node, libc::SIGSTOP);
        }
        nodes.iter().copied().filter(|node| self.kill(*node)).collect()
    }

    /// Sends a signal to a node's process. Says whether it runs.
    pub fn signal(&self, node: usize, signal: libc::c_int) -> bool {
        self.node(node).signal(signal)
    }

    /// Asks a node to stop in order (SIGTERM), and kills it after `limit`. Says whether it stopped by itself.
    pub fn terminate(&self, node: usize, limit: Duration) -> bool {
        self.node(node).terminate(limit)
    }

    /// Whether a node's process runs, be it stopped or hanging.
    #[must_use]
    pub fn is_running(&self, node: usize) -> bool {
        self.node(node).is_running()
    }

    /// A node's process id, while it runs.
    #[must_use]
    pub fn process(&self, node: usize) -> Option<u32> {
        self.node(node).process()
    }

    /// From now on the node may end by itself, for this reason. Otherwise that is recorded as unexpected.
    pub fn allow_exit(&self, node: usize, reason: &str) {
        self.node(node).allow_exit(Some(reason));
    }

    /// From now on the node may not end by itself.
    pub fn forbid_exit(&self, node: usize) {
        self.node(node).allow_exit(None);
    }

    /// The network, where nodes have one of their own.
    #[must_use]
    pub fn network(&self) -> Option<&Switch> {
        self.switch.as_ref()
    }

    /// A node's disk, where it has one of its own.
    #[must_use]
    pub fn disk(&self, node: usize) -> Option<&Image> {
        self.node(node).disk.as_ref()
    }

    /// Runs something where a node's files are, with the path of its data directory, which holds there alone.
    ///
    /// # Errors
    /// As the system's, where that place cannot be entered.
    pub fn in_data_dir<T: Send>(&self, node: usize, work: impl FnOnce(&Path) -> T + Send) -> io::Result<T> {
        self.node(node).in_data_dir(work)
    }

    /// A node's clocks, where it was started with the shim.
    #[must_use]
    pub fn clock_of(&self, node: usize) -> Option<&NodeClock> {
        self.node(node).control.as_ref().map(|control| &control.clock)
    }

    /// A node's syncs and writes, where it was started with the shim.
    #[must_use]
    pub fn syncs_of(&self, node: usize) -> Option<&NodeSyncs> {
        self.node(node).control.as_ref().map(|control| &control.syncs)
    }

    /// Rations a node's processor time to so many percent of one processor; `None`: as much as there is.
    ///
    /// # Errors
    /// Where there is no such control group, or it refuses.
    pub fn cpu(&self, node: usize, percent: Option<u32>) -> anyhow::Result<()> {
        let group = self.node(node).cpu.as_ref().context("processor time cannot be rationed here")?;
        group.limit_cpu(percent).context("the ration of processor time is refused")
    }

    /// For how long threads of the node had to wait because of their ration, over all of them and the whole run.
    #[must_use]
    pub fn cpu_throttled(&self, node: usize) -> Option<Duration> {
        self.node(node).cpu.as_ref().and_then(cgroup::Group::throttled)
    }

    /// Limits what a node writes to its disk to so many bytes a second; `None`: as fast as it goes.
    ///
    /// # Errors
    /// Where there is no such control group or no disk of its own, or it refuses.
    pub fn slow_disk(&self, node: usize, bytes_per_second: Option<u64>) -> anyhow::Result<()> {
        let node = self.node(node);
        let group = node.io.as_ref().context("writes cannot be limited here")?;
        let disk = node.disk.as_ref().context("the node has no disk of its own")?;
        group.limit_writes(&disk.device_number(), bytes_per_second).context("the limit of writes is refused")
    }

    /// What is known of the nodes so far, in the order of time. Each is asked every 100 ms.
    #[must_use]
    pub fn samples(&self) -> Vec<Sample> {
        self.samples.all()
    }

    /// The end of what a node printed.
    #[must_use]
    pub fn last_words(&self, node: usize) -> String {
        self.node(node).last_words()
    }

    fn node(&self, number: usize) -> &Node {
        assert!((1..=self.nodes.len()).contains(&number), "there is no node {number}");
        &self.nodes[number - 1]
    }
}
