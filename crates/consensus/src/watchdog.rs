//! Watches for what makes no sound: openraft's core gone, or a sync that never returns.

use std::time::Duration;

use openraft::async_runtime::WatchReceiver;

use crate::api::Failure;
use crate::failures::Failures;
use crate::node::Node;
use crate::raft::log_store::LogStore;
use crate::raft::types::Raft;
use crate::rt;

/// A sync that has been going on for this long will not be waited for any longer: the disk is gone.
const SYNC_LOST: Duration = Duration::from_secs(30);

/// Fails the node when openraft's core has ended: after a panic of it, its metrics channel is closed and nothing else
/// tells (reference: openraft, section 8).
pub(crate) async fn watch_core(node: Node, raft: Raft, failures: Failures) {
    // These change with the role alone; the full metrics change with every batch of writes.
    let mut server = raft.server_metrics();
    while server.changed().await.is_ok() {}
    let reason = match raft.metrics().borrow_watched().running_state.clone() {
        Err(fatal) => fatal.to_string(),
        Ok(()) => "the core of consensus has ended".to_owned(),
    };
    // A stop that was asked for is no failure.
    if !node.is_stopping() {
        failures.report(Failure::Consensus(reason));
    }
}

/// A leader whose disk stalls holds the whole cluster hostage. It hands its leadership over when a sync takes longer than
/// the limit, and any node stops when a sync does not return at all.
pub(crate) async fn watch_disk(node: Node, log: LogStore, failures: Failures) {
    let limit = node.0.config.disk_stall_limit;
    // The limit is kept to an eighth of it.
    let look = limit / 8;
    loop {
        rt::sleep(look).await;
        let Some(time) = log.flushing_for().filter(|time| *time > limit) else { continue };
        if time > SYNC_LOST {
            let reason = format!("a sync of the log has not returned for {} s", time.as_secs());
            return failures.report(Failure::Disk(reason));
        }
        tracing::warn!("a sync of the log takes {:.1} s already", time.as_secs_f64());
        if node.leader() == Some(node.node_id()) {
            match node.transfer_leadership(None, rt::now() + limit).await {
                Ok(to) => {
                    tracing::warn!("handed leadership over to node {to}, since this node's disk stalls")
                }
                Err(error) => tracing::warn!("this node's disk stalls; handing leadership over: {error}"),
            }
        }
    }
}
