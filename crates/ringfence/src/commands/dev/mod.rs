//! `ringfence dev`: a whole cluster on this machine.
//!
//! Each node is a process of its own, started as `ringfence serve` would be by hand; the exact command line of each stands
//! in a file beside its data directory. Nodes that end are told and left alone: starting one again is the user's.

mod node;
mod ready;

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use serde::Serialize;
use tokio::signal::unix::{SignalKind, signal};

use crate::exit::{Exit, Failure};
use crate::output::{print_json, print_line, print_table};
use node::{DevNode, Layout};

/// Longest wait for the nodes to stop in order; then they are killed.
const STOP_TIMEOUT: Duration = Duration::from_secs(15);
/// How often the nodes are looked at.
const LOOK_INTERVAL: Duration = Duration::from_millis(100);

/// Run a whole cluster on this machine, for development. Ctrl-C stops it; started again over the same directory, it has its
/// data.
#[derive(Debug, Args)]
pub(crate) struct Dev {
    /// Where the nodes keep their data, each in a directory of its own, with its log and its command line beside it.
    #[arg(long, default_value = "dev-data", value_name = "DIR")]
    data_dir: PathBuf,
    /// Number of nodes.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..=9))]
    nodes: u16,
    /// Port for clients of the first node; the next nodes' are 10 further each. Peers use the port above.
    #[arg(long, default_value_t = 2379, value_parser = clap::value_parser!(u16).range(1024..=65_000))]
    base_port: u16,
    /// Print one line of JSON when a leader is elected: {"nodes":[{"name","pid","client","peer","data_dir"}]}.
    #[arg(long)]
    json: bool,
    /// Give up if no leader is elected within this time.
    #[arg(long, default_value = "60s")]
    start_timeout: crate::units::HumanDuration,
    /// More flags of `serve` for every node, after "--".
    #[arg(last = true, value_name = "SERVE FLAGS")]
    serve_flags: Vec<String>,
}

/// What `--json` prints.
#[derive(Debug, Serialize)]
struct Shown<'a> {
    nodes: &'a [DevNode],
}

impl Dev {
    pub(crate) async fn run(self) -> Result<(), Failure> {
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut hang_up = signal(SignalKind::hangup())?;
        let mut nodes = self.start_nodes().await?;
        let outcome = tokio::select! {
            outcome = self.run_nodes(&mut nodes) => outcome,
            _ = terminate.recv() => Ok(()),
            _ = interrupt.recv() => Ok(()),
            _ = hang_up.recv() => Ok(()),
        };
        stop(&mut nodes).await;
        outcome
    }

    async fn start_nodes(&self) -> Result<Vec<DevNode>, Failure> {
        std::fs::create_dir_all(&self.data_dir).map_err(|error| {
            Failure::new(Exit::Disk, format!("{}: {error}", self.data_dir.display()))
                .next("give a directory that this user may write with --data-dir")
        })?;
        let data_dir = std::fs::canonicalize(&self.data_dir)?;
        let layout = Layout { data_dir, base_port: self.base_port, nodes: self.nodes };
        layout.check_ports()?;
        let mut nodes = Vec::new();
        for number in 1..=self.nodes {
            match DevNode::start(&layout, number, &self.serve_flags) {
                Ok(node) => nodes.push(node),
                Err(failure) => {
                    stop(&mut nodes).await;
                    return Err(failure);
                }
            }
        }
        Ok(nodes)
    }

    /// Waits for a leader, tells what runs where, then tells of each node that ends.
    async fn run_nodes(&self, nodes: &mut [DevNode]) -> Result<(), Failure> {
        let leader = tokio::select! {
            leader = ready::wait_for_leader(nodes.iter().map(|node| node.client.clone()).collect()) => leader,
            failure = first_end(nodes) => return Err(failure),
            () = tokio::time::sleep(self.start_timeout.0) => {
                return Err(Failure::new(Exit::Unavailable, format!("no leader after {}", self.start_timeout))
                    .next(format!("look at the nodes' logs: {}/*.log", self.data_dir.display())));
            }
        };
        self.tell(nodes, &leader)?;
        loop {
            tokio::time::sleep(LOOK_INTERVAL).await;
            for node in nodes.iter_mut() {
                if let Some(how) = node.ended()? {
                    eprintln!("{} (process {}) ended: {how}", node.name, node.pid);
                    eprintln!("start it again with: sh {}", node.command_file.display());
                }
            }
        }
    }

    fn tell(&self, nodes: &[DevNode], leader: &str) -> Result<(), Failure> {
        if self.json {
            return print_json(&Shown { nodes });
        }
        let row = |node: &DevNode| {
            [
                node.name.clone(),
                node.pid.to_string(),
                node.client.clone(),
                node.peer.clone(),
                node.data_dir.display().to_string(),
                if node.client == leader { "leads" } else { "" }.to_owned(),
            ]
        };
        let rows: Vec<_> = nodes.iter().map(row).collect();
        print_table(["NAME", "PID", "CLIENTS", "PEERS", "DATA", ""], &rows)?;
        let endpoints: Vec<&str> = nodes.iter().map(|node| node.client.as_str()).collect();
        print_line("")?;
        print_line(
            "The log of each node and its command line stand beside its data, in NAME.log and NAME.command.",
        )?;
        print_line("In another terminal:")?;
        print_line(&format!("  export RINGFENCE_ENDPOINTS={}", endpoints.join(",")))?;
        print_line("  ringfence put greeting hello && ringfence get greeting && ringfence status")?;
        print_line("Ctrl-C stops all nodes.")
    }
}

/// Waits until a node ends although it should not have; nodes are needed from the start.
async fn first_end(nodes: &mut [DevNode]) -> Failure {
    loop {
        for node in nodes.iter_mut() {
            match node.ended() {
                Ok(Some(how)) => return node.failure(&how),
                Ok(None) => {}
                Err(failure) => return failure,
            }
        }
        tokio::time::sleep(LOOK_INTERVAL).await;
    }
}

/// Stops all nodes in order, and kills those that take too long.
async fn stop(nodes: &mut [DevNode]) {
    nodes.iter_mut().for_each(DevNode::terminate);
    let all_ended = async {
        while nodes.iter_mut().any(DevNode::runs) {
            tokio::time::sleep(LOOK_INTERVAL / 5).await;
        }
    };
    if tokio::time::timeout(STOP_TIMEOUT, all_ended).await.is_err() {
        eprintln!("some nodes did not stop within {STOP_TIMEOUT:?} and are killed; nothing is lost");
    }
    // Dropping a node kills it if it still runs.
}
