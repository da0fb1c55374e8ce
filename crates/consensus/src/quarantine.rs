//! When a node must not be counted on (DESIGN, section 6): after a start for a while, and for good when the others have
//! found out that it is not the member whose name it bears.
//!
//! After a start a lease that an earlier process granted may still run, and nobody may have told this node yet that its data
//! directory is an old copy. So it neither votes nor campaigns until such a lease is over, and neither that nor
//! acknowledges anything until it has shaken hands with enough voters to be a majority with itself. It dials them itself.
//!
//! A node that another one has proven to be an impostor is in *log quarantine*: it speaks with no other member any more, so
//! that it neither votes, acknowledges nor leads, and says so in the file `quarantine`, so that a restart changes nothing.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use ringfence_disk::Disk;
use ringfence_types::NodeId;

use crate::api::{self, Failure, QuarantineKind};
use crate::failures::Failures;
use crate::identity::Identity;
use crate::net::{Links, Patience};
use crate::node::Node;
use crate::raft::types::{Raft, RaftMembership};
use crate::rt::{self, watch};
use crate::small_file;

const FILE: &str = "quarantine";
/// Pauses between two tries to meet a voter.
const PATIENCE_FIRST: Duration = Duration::from_millis(20);
const PATIENCE_MAX: Duration = Duration::from_secs(1);

/// What keeps a node from being counted on.
#[derive(Debug)]
pub(crate) struct Quarantine {
    disk: Arc<dyn Disk>,
    failures: Failures,
    /// While set, a lease that an earlier process granted may still run.
    lease_may_run: AtomicBool,
    /// While set, too few voters have accepted this process.
    is_unmet: AtomicBool,
    imposed: watch::Sender<Option<Imposed>>,
}

/// A log quarantine, and since when this process knows of it.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Imposed {
    pub(crate) reason: String,
    pub(crate) since: rt::Instant,
}

impl Quarantine {
    /// `has_history` says that an earlier process may have voted, granted leases and acknowledged entries.
    pub(crate) fn open(
        disk: Arc<dyn Disk>,
        failures: Failures,
        has_history: bool,
        lease_may_run: bool,
    ) -> Result<Quarantine, Failure> {
        let text = small_file::read(disk.as_ref(), FILE);
        let text = text.map_err(|error| Failure::Disk(format!("the file {FILE}: {error}")))?;
        let imposed = text.map(|text| {
            // Damaged or not: that there is such a file says enough.
            let reason = small_file::unseal(&text).unwrap_or("for a reason that can no longer be read");
            Imposed { reason: reason.trim_end().to_owned(), since: rt::now() }
        });
        if let Some(imposed) = &imposed {
            tracing::error!("{}", imposed.clone().told());
        }
        Ok(Quarantine {
            disk,
            failures,
            lease_may_run: AtomicBool::new(lease_may_run),
            is_unmet: AtomicBool::new(has_history),
            imposed: watch::Sender::new(imposed),
        })
    }

    /// Why this node may not vote now, if it may not.
    pub(crate) fn check_vote(&self) -> Result<(), String> {
        if self.lease_may_run.load(Ordering::Acquire) {
            return Err("this node has just started and may have granted a leader lease before".to_owned());
        }
        self.check_acknowledge()
    }

    /// Why nothing that this node says of its log may count, if it may not.
    pub(crate) fn check_acknowledge(&self) -> Result<(), String> {
        if self.is_unmet.load(Ordering::Acquire) {
            return Err("this node has just started and has not met a majority of the voters yet".to_owned());
        }
        self.check_imposed()
    }

    /// Why this node speaks with no other member, if it does not.
    pub(crate) fn check_imposed(&self) -> Result<(), String> {
        match &*self.imposed.borrow() {
            Some(imposed) => Err(format!("it is in log quarantine: {}", imposed.reason)),
            None => Ok(()),
        }
    }

    /// Takes the node out of its cluster for good.
    pub(crate) fn impose(self: &Arc<Self>, reason: &str) {
        let now = Imposed { reason: reason.to_owned(), since: rt::now() };
        let is_first = self.imposed.send_if_modified(|imposed| {
            let is_first = imposed.is_none();
            imposed.get_or_insert_with(|| now.clone());
            is_first
        });
        if !is_first {
            return;
        }
        tracing::error!("{}", now.told());
        let (this, text) = (self.clone(), small_file::seal(&format!("{reason}\n")));
        rt::spawn(async move {
            let disk = this.disk.clone();
            let written = rt::blocking(move || small_file::replace(disk.as_ref(), FILE, &text));
            if let Err(error) = written.await.and_then(|written| written) {
                this.failures.report(Failure::Disk(format!("the file {FILE}: {error}")));
            }
        });
    }

    /// Ends the node: it is a member of its cluster no more.
    pub(crate) fn expel(&self, identity: &Identity) {
        self.failures.report(Failure::Identity(format!(
            "node {} ({}) was removed from the cluster; to bring it back, start it with --join on an empty data directory",
            identity.node_id(),
            identity.name()
        )));
    }

    /// The log quarantine that this node is in.
    pub(crate) fn imposed(&self) -> Option<Imposed> {
        self.imposed.borrow().clone()
    }

    /// Waits until this node is in log quarantine.
    pub(crate) async fn wait_imposed(&self) {
        let mut imposed = self.imposed.subscribe();
        let waited = imposed.wait_for(Option::is_some).await;
        waited.map(drop).expect("this handle keeps the channel open");
    }
}

impl Imposed {
    /// In the form that is told.
    pub(crate) fn told(self) -> api::Quarantine {
        api::Quarantine { kind: QuarantineKind::Log, reason: self.reason }
    }
}

/// Leaves what a start brings with it as soon as that is safe, and keeps out of elections in a log quarantine.
pub(crate) async fn leave(node: Node, links: Arc<Links>, started: rt::Instant) {
    let parts = &node.0;
    let quarantine = &links.local.quarantine;
    let Some(membership) = membership(&parts.raft).await else { return };
    let own = parts.identity.node_id();
    // A sole voter granted a lease to nobody but itself, and a node without a membership has promised nothing to anybody.
    let lease_ended = async {
        if membership.voter_ids().ne([own.0]) && quarantine.lease_may_run.load(Ordering::Acquire) {
            let lease = parts.config.timing.leader_lease;
            // Counted from the start of the process: the lease was granted by an earlier one.
            rt::sleep_until(started + lease + lease / 4).await;
        }
        quarantine.lease_may_run.store(false, Ordering::Release);
    };
    let met = async {
        wait_met(&links, own, &membership).await;
        quarantine.is_unmet.store(false, Ordering::Release);
    };
    let elections = async {
        tokio::join!(lease_ended, met);
        node.settle_campaigning();
        quarantine.wait_imposed().await;
        node.settle_campaigning();
    };
    tokio::join!(elections, meet_voters(&links, own, &membership));
}

/// The membership in force when openraft has started; none when it has ended before.
async fn membership(raft: &Raft) -> Option<RaftMembership> {
    let reading = raft.with_raft_state(|state| state.membership_state.effective().membership().clone());
    reading.await.ok()
}

/// Waits until the voters that have accepted this process are a majority with it, of each configuration in force.
async fn wait_met(links: &Links, own: NodeId, membership: &RaftMembership) {
    let mut changes = links.local.peers.subscribe_met();
    loop {
        let met = links.local.peers.met();
        let is_met = |id: &u64| *id == own.0 || met.contains(&NodeId(*id));
        let is_majority = |voters: &std::collections::BTreeSet<u64>| {
            voters.iter().filter(|id| is_met(id)).count() > voters.len() / 2 || voters.is_empty()
        };
        if membership.get_joint_config().iter().all(is_majority) {
            return;
        }
        if changes.changed().await.is_err() {
            return;
        }
    }
}

/// Shakes hands with every other voter, however long it takes each to come up: those that a majority can do without may be
/// the ones that know this node for an impostor.
async fn meet_voters(links: &Links, own: NodeId, membership: &RaftMembership) {
    let voters = membership.voter_ids().filter(|id| *id != own.0);
    let mut meetings: FuturesUnordered<_> = voters
        .filter_map(|id| membership.get_node(&id).map(|peer| meet(links, NodeId(id), &peer.address)))
        .collect();
    let meeting_all = async { while meetings.next().await.is_some() {} };
    tokio::select! {
        biased;
        () = links.local.quarantine.wait_imposed() => {}
        () = meeting_all => {}
    }
}

async fn meet(links: &Links, id: NodeId, address: &str) {
    let mut patience = Patience::new(PATIENCE_FIRST, PATIENCE_MAX);
    // Whoever has dialled this node meanwhile need not be dialled.
    while !links.local.peers.met().contains(&id) {
        match links.meet(id, address).await {
            Ok(_) => return,
            Err(error) => tracing::debug!("meeting node {id} at {address}: {error}"),
        }
        patience.wait().await;
    }
}
