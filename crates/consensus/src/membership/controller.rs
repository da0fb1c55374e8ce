//! The task that brings Raft's membership to what is wanted. It runs on every member and acts on the one that leads.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use openraft::async_runtime::WatchReceiver;
use openraft::{ChangeMembers, RaftMetrics};
use ringfence_types::{Command, Member, MemberChange, NodeId};

use super::absent::Absent;
use super::plan::{self, Facts, Step};
use crate::node::Node;
use crate::raft::types::{PeerNode, TypeConfig};
use crate::rt;

/// A learner is close while it lacks no more entries than this...
const CLOSE_ENTRIES: u64 = 200;
/// ...and is ready to vote once it has been so at this many looks in a row.
const CLOSE_LOOKS: u32 = 5;
/// A step that takes longer is looked at anew: what it began is finished by the next one.
const STEP_TIMEOUT: Duration = Duration::from_secs(5);

/// How often each member was found close in a row.
type Looks = BTreeMap<NodeId, u32>;

/// Looks for what is to be done, for ever, or until the node fails.
pub(crate) async fn run(node: Node) {
    let local = &node.0.links.local;
    let leader_lease = node.0.config.timing.leader_lease;
    let (mut looks, mut absent) = (Looks::new(), Absent::default());
    let mut put_off = String::new();
    loop {
        rt::sleep(node.0.config.timing.heartbeat * 2).await;
        let Ok(view) = node.believed_view() else {
            // Another member will lead soon.
            looks.clear();
            absent.clear();
            continue;
        };
        let members = view.members();
        let metrics = node.0.raft.metrics().borrow_watched().clone();
        local.peers.set_removed(&left(&metrics, &members));
        if has_left(&metrics, &members, node.node_id()) {
            return local.quarantine.expel(&local.identity);
        }
        if node.leader() != Some(node.node_id()) || node.is_stopping() {
            looks.clear();
            absent.clear();
            continue;
        }
        let alive = alive(&metrics, node.node_id(), leader_lease);
        for told in absent.look(&followers(&metrics, &members), &alive, rt::now(), leader_lease) {
            told.log(&members);
        }
        look(&mut looks, &metrics, &alive, node.node_id());
        let facts = facts(&metrics, &members, node.node_id(), alive, &looks);
        if let Some(step) = plan::next(&facts) {
            take(&node, step, &mut put_off).await;
        }
    }
}

/// Those whom a leader sends its entries to, itself included, without those that shall leave.
fn followers(metrics: &RaftMetrics<TypeConfig>, members: &BTreeMap<NodeId, Member>) -> BTreeSet<NodeId> {
    let removed = removed(members);
    let nodes = metrics.membership_config.membership().nodes();
    nodes.map(|(id, _)| NodeId(*id)).filter(|id| !removed.contains(id)).collect()
}

/// The members that have been removed.
pub(crate) fn removed(members: &BTreeMap<NodeId, Member>) -> BTreeSet<NodeId> {
    members.values().filter(|member| !member.is_wanted()).map(|member| member.id).collect()
}

/// Those of them that have left the configuration too. The others have yet to be spoken with: a leader that is to leave hears
/// from its successor what became of its last writes, and that it does not lead any more.
fn left(metrics: &RaftMetrics<TypeConfig>, members: &BTreeMap<NodeId, Member>) -> BTreeSet<NodeId> {
    let membership = metrics.membership_config.membership();
    let mut left = removed(members);
    left.retain(|id| membership.get_node(&id.0).is_none());
    left
}

/// Whether this node knows that it has been removed and votes no more.
fn has_left(metrics: &RaftMetrics<TypeConfig>, members: &BTreeMap<NodeId, Member>, own: NodeId) -> bool {
    let is_removed = members.get(&own).is_some_and(|member| !member.is_wanted());
    is_removed && !metrics.membership_config.membership().voter_ids().any(|id| id == own.0)
}

/// Who answers a leader, itself included.
pub(crate) fn alive(
    metrics: &RaftMetrics<TypeConfig>,
    own: NodeId,
    leader_lease: Duration,
) -> BTreeSet<NodeId> {
    let beats = metrics.heartbeat.iter().flatten();
    let fresh = beats.filter(|(_, acked)| acked.is_some_and(|acked| rt::since(*acked) <= leader_lease));
    fresh.map(|(id, _)| NodeId(*id)).chain([own]).collect()
}

/// How many entries of a leader's log a member is not known to have.
pub(crate) fn entries_behind(metrics: &RaftMetrics<TypeConfig>, id: NodeId) -> u64 {
    let matched = metrics.replication.as_ref().and_then(|peers| peers.get(&id.0).copied().flatten());
    let end = metrics.last_log_index.map_or(0, |last| last + 1);
    end.saturating_sub(matched.map_or(0, |matched| matched.index() + 1))
}

/// Whether a member is close enough to the leader's log to vote.
pub(crate) fn is_close(metrics: &RaftMetrics<TypeConfig>, id: NodeId) -> bool {
    entries_behind(metrics, id) <= CLOSE_ENTRIES
}

fn look(looks: &mut Looks, metrics: &RaftMetrics<TypeConfig>, alive: &BTreeSet<NodeId>, own: NodeId) {
    let is_close = |id: &NodeId| *id == own || is_close(metrics, *id);
    let close: BTreeSet<NodeId> = alive.iter().copied().filter(is_close).collect();
    looks.retain(|id, _| close.contains(id));
    close.into_iter().for_each(|id| *looks.entry(id).or_default() += 1);
}

fn facts<'a>(
    metrics: &RaftMetrics<TypeConfig>,
    members: &'a BTreeMap<NodeId, Member>,
    own: NodeId,
    alive: BTreeSet<NodeId>,
    looks: &Looks,
) -> Facts<'a> {
    let membership = metrics.membership_config.membership();
    let configs = membership.get_joint_config().iter();
    Facts {
        own,
        configs: configs.map(|ids| ids.iter().copied().map(NodeId).collect()).collect(),
        nodes: membership.nodes().map(|(id, node)| (NodeId(*id), node.clone())).collect(),
        roster: members,
        alive,
        ready: looks.iter().filter(|(_, looks)| **looks >= CLOSE_LOOKS).map(|(id, _)| *id).collect(),
    }
}

/// `put_off` is what was told last of a step that could not be taken: it is told once, not with each look.
async fn take(node: &Node, step: Step, put_off: &mut String) {
    let told = step.to_string();
    let taken = rt::timeout(STEP_TIMEOUT, attempt(node, step)).await;
    match taken {
        Some(Ok(())) => {
            put_off.clear();
            tracing::info!("members: {told}");
        }
        // Whatever stands in the way, an earlier change or a new leader, the next look sees it.
        Some(Err(reason)) if *put_off == told => tracing::debug!("members: put off, since {reason}: {told}"),
        Some(Err(reason)) => {
            tracing::info!("members: put off, since {reason}: {told}");
            *put_off = told;
        }
        None => tracing::warn!("members: not done within {STEP_TIMEOUT:?}: {told}"),
    }
}

async fn attempt(node: &Node, step: Step) -> Result<(), String> {
    let deadline = rt::now() + STEP_TIMEOUT;
    let only = |id: NodeId, peer: PeerNode| BTreeMap::from([(id.0, peer)]);
    let raw = |ids: BTreeSet<NodeId>| ids.into_iter().map(|id| id.0).collect();
    let change = match step {
        Step::HandOver => {
            let handed = node.transfer_leadership(None, deadline).await;
            return handed.map(|_| ()).map_err(|error| error.to_string());
        }
        Step::Retire(id) => {
            let remove = Command::ChangeMember(MemberChange::Remove { id });
            let outcome = node.propose(&remove, deadline).await.map_err(|error| error.to_string())?;
            return outcome.map(|_| ()).map_err(|rejection| rejection.to_string());
        }
        Step::Finish(voters) | Step::Vote(voters) => ChangeMembers::ReplaceAllVoters(raw(voters)),
        Step::Learn(id, peer) => ChangeMembers::AddNodes(only(id, peer)),
        Step::Readdress(id, peer) => ChangeMembers::SetNodes(only(id, peer)),
        Step::Forget(id) => ChangeMembers::RemoveNodes(BTreeSet::from([id.0])),
    };
    // Voters that leave go on learning until they are forgotten: so they hear that they have left.
    let changed = node.0.raft.change_membership(change, true).await;
    changed.map(|_| ()).map_err(|error| error.to_string())
}
