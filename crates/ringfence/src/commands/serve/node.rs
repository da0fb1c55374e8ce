//! Starting, running and stopping a node.

use std::sync::Arc;
use std::time::Duration;

use ringfence_consensus::{Failure as NodeFailure, Node, TcpNetwork};
use ringfence_disk::OsDisk;
use ringfence_server::{ServerConfig, WATCH_PROGRESS_INTERVAL};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;

use super::data_dir;
use super::plan::Plan;
use crate::commands::{recover, runtime};
use crate::exit::{Exit, Failure};

/// Longest that a node may take to stop in order; then it ends as if it had been killed, which loses nothing.
const STOP_TIMEOUT: Duration = Duration::from_secs(30);

/// Runs a node until it is told to stop, or cannot go on.
pub(super) fn run(plan: Plan) -> Result<(), Failure> {
    let _lock = data_dir::lock(&plan.data_dir)?;
    recover::check_not_interrupted(&plan.data_dir)?;
    let runtime = runtime(plan.runtime_threads)?;
    let result = runtime.block_on(run_locked(plan));
    // A thread that hangs in the file system must not keep a process alive that has given its answer.
    runtime.shutdown_background();
    result
}

async fn run_locked(plan: Plan) -> Result<(), Failure> {
    // Signals are heard from the first moment, so that a stop during the start is no kill.
    let mut stop = StopSignals::listen()?;
    let listener = ringfence_server::bind(plan.listen_client)
        .await
        .map_err(|error| address_in_use(error.to_string(), "--listen-client"))?;
    let network = TcpNetwork::bind(plan.listen_peer).await.map_err(|error| {
        address_in_use(format!("cannot listen for peers on {}: {error}", plan.listen_peer), "--listen-peer")
    })?;
    let disk = OsDisk::open(&plan.data_dir).map_err(|error| {
        Failure::new(Exit::Disk, format!("the data directory {}: {error}", plan.data_dir.display()))
    })?;
    tracing::info!(
        name = plan.consensus.name,
        data_dir = %plan.data_dir.display(),
        clients = %plan.listen_client,
        peers = %plan.listen_peer,
        version = plan.consensus.version,
        "starting"
    );
    let node = tokio::select! {
        started = Node::start(plan.consensus, disk, Arc::new(network)) => started.map_err(from_node)?,
        () = stop.received() => return Ok(()),
    };
    let shutdown = CancellationToken::new();
    let config = ServerConfig { listeners: vec![listener], watch_progress_interval: WATCH_PROGRESS_INTERVAL };
    let mut serving = tokio::spawn(ringfence_server::serve(config, node.clone(), shutdown.clone()));
    let result = tokio::select! {
        failure = node.failed() => Err(from_node(failure)),
        () = stop.received() => {
            tracing::info!("stopping: handing leadership over, then a checkpoint");
            stop_in_order(&node, &shutdown, &mut stop).await
        }
        ended = &mut serving => Err(Failure::new(Exit::General, format!("the clients' side ended by itself: {ended:?}"))),
    };
    match &result {
        Ok(()) => tracing::info!("stopped"),
        Err(failure) => tracing::error!("the node cannot go on: {failure}"),
    }
    shutdown.cancel();
    // A member that was removed is as sound as one that was told to stop; any other must not answer any more.
    if result.as_ref().err().is_none_or(|failure| failure.exit() == Exit::Identity) {
        // The server bounds the time for which it lets calls end.
        drop(serving.await);
    }
    result
}

/// Hands leadership over and makes a checkpoint while clients are still answered, then sends them away.
async fn stop_in_order(
    node: &Node,
    shutdown: &CancellationToken,
    stop: &mut StopSignals,
) -> Result<(), Failure> {
    // That the node is "failed" from here on is what was asked for.
    let stopped = tokio::select! {
        stopped = tokio::time::timeout(STOP_TIMEOUT, node.shutdown()) => stopped.is_ok(),
        () = stop.received() => false,
    };
    shutdown.cancel();
    if stopped {
        return Ok(());
    }
    Err(Failure::new(Exit::General, "the node did not stop in order: it was told twice, or took too long")
        .next("nothing is lost; the next start replays the end of the log"))
}

/// The signals that ask a process to stop.
struct StopSignals {
    terminate: Signal,
    interrupt: Signal,
}

impl StopSignals {
    fn listen() -> Result<StopSignals, Failure> {
        Ok(StopSignals {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    async fn received(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

fn address_in_use(message: String, flag: &str) -> Failure {
    Failure::new(Exit::AddressInUse, message)
        .next(format!("stop what listens there, or give another address with {flag}"))
}

/// What a node's failure means to whoever started it.
pub(crate) fn from_node(failure: NodeFailure) -> Failure {
    let message = failure.to_string();
    let (exit, next) = match failure {
        NodeFailure::Config(_) => (Exit::Config, "correct the flags or the configuration file"),
        NodeFailure::Identity(_) => {
            (Exit::Identity, "start the node with its own --data-dir, --name and --initial-cluster")
        }
        NodeFailure::Listen { .. } => {
            (Exit::AddressInUse, "stop what listens there, or give another address with --listen-peer")
        }
        NodeFailure::LogCorrupt(_) => (
            Exit::LogCorrupt,
            "keep the directory as it is for inspection; the other members have everything that was acknowledged",
        ),
        NodeFailure::StateCorrupt(_) => (
            Exit::StateCorrupt,
            "no other member is known that this state could be rebuilt from: keep the directory as it is for inspection, and \
             restore a snapshot (`ringfence snapshot restore`) into a new one",
        ),
        NodeFailure::Disk(_) => {
            (Exit::Disk, "look at the disk and the space on it, then start the node again")
        }
        NodeFailure::Consensus(_) => (Exit::Consensus, "this is a bug: please report it with the node's log"),
    };
    Failure::new(exit, message).next(next)
}
