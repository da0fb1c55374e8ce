//! Who may write: this node's own judgement, made anew several times a leader lease.
//!
//! openraft never says that a quorum is lost (reference: openraft, section 3.7): a leader stays one for ever, and a follower
//! goes on naming a leader that has long been silent. So this node measures both by its own clock: a leader the age of the
//! newest message that a majority answered, a follower the time since it heard from a leader that has its majority.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use openraft::async_runtime::WatchReceiver;
use openraft::{RaftMetrics, ServerState};
use parking_lot::Mutex;
use ringfence_proto::command::wants_lease_clock;
use ringfence_store::Store;
use ringfence_types::{LeaseTime, NodeId, Term, limits};

use crate::api::{ProposalCounts, ProposeError, ReadOnly, Role, Timing};
use crate::lease_clock::LeaseClock;
use crate::measure::Recorder;
use crate::net::Local;
use crate::raft::types::{Raft, TypeConfig};
use crate::rt::{self, watch};

/// Where this node stands.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Standing {
    pub(crate) role: Role,
    /// Whoever may take writes now, as far as this node can tell.
    pub(crate) leader: Option<NodeId>,
    pub(crate) read_only: Option<Silence>,
    pub(crate) members: Arc<BTreeMap<NodeId, Member>>,
    /// Grows when the writes under way must be given up: nobody can tell any more what becomes of them.
    pub(crate) abandoned: u64,
    pub(crate) leader_changes: u64,
    /// Whether this node has heard nothing for so long that writes under way were given up.
    is_silent: bool,
    /// The last leader known, to count changes.
    last_leader: Option<NodeId>,
}

/// Since when this node refuses writes, and why.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Silence {
    pub(crate) since: rt::Instant,
    pub(crate) reason: String,
}

/// A member of the configuration in force.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Member {
    pub(crate) name: String,
    pub(crate) address: String,
    pub(crate) disk_id: u64,
    pub(crate) is_voter: bool,
}

/// The judgement, the facts that it is made from, and the writes that hang on it.
#[derive(Debug)]
pub(crate) struct Authority {
    node: NodeId,
    timing: Timing,
    started: rt::Instant,
    /// Nanoseconds on the runtime's clock, and the leader, of the last message of a leader.
    heard_at: AtomicU64,
    heard_from: AtomicU64,
    /// Whether the leader said last that no majority answers it.
    majority_lost: AtomicBool,
    /// When this node began to lead, in nanoseconds on the runtime's clock; 0 while it does not.
    leading_since: AtomicU64,
    /// Locked for the moment of a look.
    lease_clock: Mutex<LeaseClock>,
    standing: watch::Sender<Standing>,
    pending: AtomicUsize,
    pending_bytes: AtomicUsize,
    answered: AtomicU64,
    failed: AtomicU64,
    pub(crate) propose_time: Recorder,
}

/// A write that counts as pending until this is dropped.
#[derive(Debug)]
pub(crate) struct Permit {
    authority: Arc<Authority>,
    bytes: usize,
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.authority.pending.fetch_sub(1, Ordering::Relaxed);
        self.authority.pending_bytes.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

impl Authority {
    pub(crate) fn new(node: NodeId, timing: Timing) -> Authority {
        let standing = Standing {
            role: Role::Learner,
            leader: None,
            read_only: None,
            members: Arc::default(),
            abandoned: 0,
            leader_changes: 0,
            is_silent: false,
            last_leader: None,
        };
        Authority {
            node,
            timing,
            started: rt::now(),
            heard_at: AtomicU64::new(0),
            heard_from: AtomicU64::new(0),
            majority_lost: AtomicBool::new(false),
            leading_since: AtomicU64::new(0),
            lease_clock: Mutex::new(LeaseClock::new(timing.leader_lease)),
            standing: watch::Sender::new(standing),
            pending: AtomicUsize::new(0),
            pending_bytes: AtomicUsize::new(0),
            answered: AtomicU64::new(0),
            failed: AtomicU64::new(0),
            propose_time: Recorder::default(),
        }
    }

    pub(crate) fn node(&self) -> NodeId {
        self.node
    }

    pub(crate) fn timing(&self) -> &Timing {
        &self.timing
    }

    /// The judgement in force.
    pub(crate) fn standing(&self) -> watch::Ref<'_, Standing> {
        self.standing.borrow()
    }

    /// To be told when it changes.
    pub(crate) fn subscribe(&self) -> watch::Receiver<Standing> {
        self.standing.subscribe()
    }

    /// A message of a leader that has not been deposed has arrived. One that no majority answers proves nothing: it may have
    /// been replaced, and can take no write either.
    pub(crate) fn heard_from_leader(&self, leader: NodeId, no_majority: bool) {
        self.majority_lost.store(no_majority, Ordering::Relaxed);
        if no_majority {
            return;
        }
        self.heard_from.store(leader.0, Ordering::Relaxed);
        self.heard_at.store(rt::now().nanoseconds(), Ordering::Relaxed);
    }

    /// Whether this node leads, and no majority has answered it for a leader lease.
    pub(crate) fn lacks_majority(&self) -> bool {
        let standing = self.standing.borrow();
        standing.role == Role::Leader && standing.read_only.is_some()
    }

    /// The lease clock's reading of this moment; none unless this node leads, holds its leader lease, and has applied the
    /// first entry of its leadership.
    pub(crate) fn lease_clock(&self) -> Option<LeaseTime> {
        self.lease_clock.lock().read(rt::now())
    }

    /// Admits a write, if there is room for it among those that wait. What lets leases last or end has some room of its own.
    pub(crate) fn admit(self: &Arc<Self>, command: &Bytes) -> Result<Permit, ProposeError> {
        let (bytes, is_of_leases) = (command.len(), wants_lease_clock(command));
        let reserved = if is_of_leases { limits::LEASE_PROPOSALS_RESERVED } else { 0 };
        let pending_max = limits::PROPOSALS_WAITING_MAX + reserved;
        let pending = self.pending.fetch_add(1, Ordering::Relaxed);
        let pending_bytes = self.pending_bytes.fetch_add(bytes, Ordering::Relaxed);
        let permit = Permit { authority: self.clone(), bytes };
        if pending >= pending_max {
            return Err(ProposeError::Overloaded(format!("{pending} of at most {pending_max}")));
        }
        if !is_of_leases && pending_bytes + bytes > limits::PROPOSAL_BYTES_WAITING_MAX {
            let max = limits::PROPOSAL_BYTES_WAITING_MAX;
            return Err(ProposeError::Overloaded(format!("{pending_bytes} bytes of at most {max}")));
        }
        Ok(permit)
    }

    /// Counts a write that has ended.
    pub(crate) fn count(&self, is_answered: bool) {
        let counter = if is_answered { &self.answered } else { &self.failed };
        counter.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn counts(&self) -> ProposalCounts {
        ProposalCounts {
            pending: self.pending.load(Ordering::Relaxed) as u64,
            answered: self.answered.load(Ordering::Relaxed),
            failed: self.failed.load(Ordering::Relaxed),
        }
    }

    /// The refusal in force, in the form that callers get.
    pub(crate) fn read_only(&self) -> Option<ReadOnly> {
        let standing = self.standing.borrow();
        let silence = standing.read_only.as_ref()?;
        Some(ReadOnly { since: rt::since(silence.since), reason: silence.reason.clone() })
    }

    /// Follows openraft and the clock for ever, and keeps the judgement up to date.
    pub(crate) async fn follow(self: Arc<Self>, raft: Raft, local: Arc<Local>, store: Arc<Store>) {
        let mut server = raft.server_metrics();
        let metrics = raft.metrics();
        loop {
            let now = metrics.borrow_watched().clone();
            self.judge(&now, &local);
            let counts = self.judge_lease_clock(&now, &store);
            // A change of role is acted on at once; silence makes no sound and has to be looked for.
            // While nobody leads, the next look comes soon: a new leader is one with its first answers of a majority, and
            // grants leases from its first entry on.
            let leader = self.standing().leader;
            let is_settled = leader.is_some_and(|leader| leader != self.node || counts);
            let look = if is_settled { 2 } else { 16 };
            if let Some(Err(_closed)) = rt::timeout(self.timing.heartbeat / look, server.changed()).await {
                return;
            }
        }
    }

    fn judge(&self, metrics: &RaftMetrics<TypeConfig>, local: &Local) {
        let (members, peers) = (members_of(metrics), &local.peers);
        match (metrics.state == ServerState::Leader, self.leading_since.load(Ordering::Relaxed)) {
            (true, 0) => self.leading_since.store(rt::now().nanoseconds(), Ordering::Relaxed),
            (false, _) => self.leading_since.store(0, Ordering::Relaxed),
            _ => {}
        }
        let (role, mut leader, mut silence, age) = match metrics.state {
            ServerState::Leader => self.judge_leading(metrics, &members),
            state => self.judge_following(state, metrics.current_leader.map(NodeId), &members),
        };
        if let Some(imposed) = local.quarantine.imposed() {
            leader = None;
            silence =
                Some(Silence { since: imposed.since, reason: "this node is in log quarantine".to_owned() });
        } else if let Some(silence) = &mut silence {
            for refusal in peers.refusals() {
                silence.reason.push_str("; ");
                silence.reason.push_str(&refusal);
            }
        }
        let give_up_after = match role {
            Role::Leader => self.timing.leader_lease * 2,
            _ => self.patience(),
        };
        self.standing.send_if_modified(|standing| {
            let mut next = standing.clone();
            if *standing.members != members {
                peers.set_members(members.iter().map(|(id, member)| (*id, member.disk_id)));
                next.members = Arc::new(members);
            }
            // Only the step into silence counts: each write under way then is given up once.
            next.is_silent = age > give_up_after && leader.is_none();
            if next.is_silent && !standing.is_silent {
                next.abandoned += 1;
            }
            if leader.is_some() && leader != standing.last_leader {
                next.leader_changes += 1;
                next.last_leader = leader;
            }
            (next.role, next.leader) = (role, leader);
            // The reason may become another one; the beginning stays.
            next.read_only = match (&standing.read_only, silence) {
                (Some(known), Some(silence)) => Some(Silence { since: known.since, ..silence }),
                (_, silence) => silence,
            };
            report_change(standing, &next);
            let changed = *standing != next;
            *standing = next;
            changed
        });
    }

    /// Lets the lease clock run while this node leads, from the first entry of its leadership on. Whether it runs.
    fn judge_lease_clock(&self, metrics: &RaftMetrics<TypeConfig>, store: &Store) -> bool {
        let term = Term(metrics.current_term);
        let voters = metrics.membership_config.membership().voter_ids().count();
        let now = rt::now();
        let acked = match &metrics.last_quorum_acked {
            _ if metrics.state != ServerState::Leader => None,
            // A sole voter is a majority at any moment.
            _ if voters <= 1 => Some(now),
            acked => acked.as_ref().map(|acked| **acked),
        };
        let mut clock = self.lease_clock.lock();
        let Some(acked) = acked else {
            clock.stop();
            return false;
        };
        if clock.runs_in(term) {
            clock.hold(now, acked);
            return true;
        }
        clock.stop();
        let view = store.view();
        let is_own = view.applied().is_some_and(|last| last.node == self.node && last.term == term);
        if is_own {
            clock.start(term, view.lease_clock(), acked);
        }
        is_own
    }

    /// How long a follower that hears of no leader waits before it calls itself read-only: an election in the normal
    /// course ends sooner.
    fn patience(&self) -> Duration {
        self.timing.leader_lease + self.timing.election_timeout_max()
    }

    fn judge_leading(
        &self,
        metrics: &RaftMetrics<TypeConfig>,
        members: &BTreeMap<NodeId, Member>,
    ) -> Judgement {
        let voters = members.values().filter(|member| member.is_voter).count();
        let began = self.leading_since.load(Ordering::Relaxed);
        let age = match &metrics.last_quorum_acked {
            _ if voters <= 1 => Duration::ZERO,
            Some(acked) => {
                self.remember_leading(**acked);
                rt::since(**acked)
            }
            // Elected, and no majority has answered since.
            None => rt::since(rt::Instant::from_nanoseconds(began)),
        };
        if age <= self.timing.leader_lease {
            // Without an answer there is no lease yet, and nothing to complain of either.
            let holds = voters <= 1 || metrics.last_quorum_acked.is_some();
            return (Role::Leader, holds.then_some(self.node), None, age);
        }
        let silent: Vec<String> = silent_members(metrics, members, self.node, self.timing.leader_lease);
        let reason = format!(
            "this node leads, but no majority of the {voters} voters answers it (silent: {})",
            silent.join(", ")
        );
        let since = rt::now() - age.saturating_sub(self.timing.leader_lease);
        (Role::Leader, None, Some(Silence { since, reason }), age)
    }

    /// A leader hears from nobody. Deposed, it waits for its successor from its own last answer of a majority on.
    fn remember_leading(&self, acked: rt::Instant) {
        self.majority_lost.store(false, Ordering::Relaxed);
        self.heard_from.store(self.node.0, Ordering::Relaxed);
        self.heard_at.store(acked.nanoseconds(), Ordering::Relaxed);
    }

    fn judge_following(
        &self,
        state: ServerState,
        named: Option<NodeId>,
        members: &BTreeMap<NodeId, Member>,
    ) -> Judgement {
        let role = match state {
            ServerState::Candidate => Role::Candidate,
            ServerState::Follower => Role::Follower,
            _ => Role::Learner,
        };
        let heard_at = rt::Instant::from_nanoseconds(self.heard_at.load(Ordering::Relaxed)).max(self.started);
        let heard_from = NodeId(self.heard_from.load(Ordering::Relaxed));
        let age = rt::since(heard_at);
        let leader = named.filter(|leader| {
            *leader != self.node && *leader == heard_from && age <= self.timing.leader_lease * 3 / 2
        });
        if leader.is_some() || age <= self.patience() {
            return (role, leader, None, age);
        }
        let reason = match members.get(&heard_from) {
            Some(leader) if self.majority_lost.load(Ordering::Relaxed) => {
                format!("no majority answers {}, which this node follows", leader.name)
            }
            Some(last) => format!(
                "this node hears from no leader (it last heard from {}), and cannot win an election",
                last.name
            ),
            None => {
                "this node has heard from no leader since it started, and cannot win an election".to_owned()
            }
        };
        let since = heard_at + self.timing.leader_lease;
        (role, None, Some(Silence { since, reason }), age)
    }
}

/// Role, leader, why this node is read-only, and the age of what the judgement rests on.
type Judgement = (Role, Option<NodeId>, Option<Silence>, Duration);

fn members_of(metrics: &RaftMetrics<TypeConfig>) -> BTreeMap<NodeId, Member> {
    let membership = metrics.membership_config.membership();
    let voters: std::collections::BTreeSet<u64> = membership.voter_ids().collect();
    let nodes = membership.nodes().map(|(id, node)| {
        let is_voter = voters.contains(id);
        let (name, address) = (node.name.clone(), node.address.clone());
        (NodeId(*id), Member { name, address, disk_id: node.disk_id, is_voter })
    });
    nodes.collect()
}

fn silent_members(
    metrics: &RaftMetrics<TypeConfig>,
    members: &BTreeMap<NodeId, Member>,
    own: NodeId,
    leader_lease: Duration,
) -> Vec<String> {
    let answers = |id: &NodeId| {
        let acked = metrics.heartbeat.as_ref().and_then(|heartbeat| heartbeat.get(&id.0).copied().flatten());
        acked.is_some_and(|acked| rt::since(*acked) <= leader_lease)
    };
    let others = members.iter().filter(|(id, member)| **id != own && member.is_voter);
    others.filter(|(id, _)| !answers(id)).map(|(_, member)| member.name.clone()).collect()
}

fn report_change(before: &Standing, after: &Standing) {
    if before.leader != after.leader
        && let Some(leader) = after.leader
    {
        let name = after.members.get(&leader).map_or("", |member| member.name.as_str());
        tracing::info!("{name} (node {leader}) leads");
    }
    match (&before.read_only, &after.read_only) {
        (None, Some(silence)) => tracing::warn!("read-only: {}", silence.reason),
        (Some(silence), None) => {
            tracing::info!("no longer read-only, after {:.1} s", rt::since(silence.since).as_secs_f64());
        }
        _ => {}
    }
}
