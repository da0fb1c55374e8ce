//! How many voters have a write on disk: for callers that want more than a majority.
//!
//! The question is not about one entry but about everything that the leader's log holds when it is asked. A write that was
//! acknowledged before is among it, under whichever leader: its index need not be known, and the answer is never too good.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use openraft::async_runtime::WatchReceiver;
use openraft::{RaftMetrics, ServerState};
use ringfence_proto::peers::{AcksReply, AcksRequest, acks_request, reply, request};
use ringfence_types::{Ack, Acks, NodeId};

use crate::authority::Authority;
use crate::node::Node;
use crate::raft::log_store::LogStore;
use crate::raft::types::{Raft, TypeConfig};
use crate::rt;

/// Pause before a leader that did not answer is asked again, or its successor.
const RETRY_PAUSE: Duration = Duration::from_millis(10);

impl Node {
    /// Waits until as many voters as `ack` wants have on disk every write that was acknowledged before this call, but not
    /// beyond `until`. The voters are those of the configuration in force then. Tells how far it came: if no leader could be
    /// asked, that nothing is known of any voter.
    pub async fn acks(&self, ack: Ack, until: rt::Instant) -> Acks {
        let authority = &self.0.authority;
        let mut known = Acks { durable_at: Vec::new(), wanted: ack.wanted(voters(authority)) };
        loop {
            let leader = {
                let standing = authority.standing();
                let member = |id| standing.members.get(&id).map(|member| (id, member.address.clone()));
                standing.leader.and_then(member)
            };
            // A question that waits for longer than this would be taken for a dead connection.
            let slice = (rt::now() + self.0.config.timing.leader_lease / 2).min(until);
            let asked = match leader {
                Some((id, _)) if id == self.node_id() => counted(&self.0.raft, &self.0.log, ack, slice).await,
                Some((id, address)) => self.ask_for_acks(id, &address, ack, slice).await,
                None => None,
            };
            let is_answered = asked.is_some();
            known = asked.unwrap_or(known);
            if known.is_reached() || rt::now() >= until {
                return known;
            }
            if !is_answered {
                rt::sleep(RETRY_PAUSE).await;
            }
        }
    }

    /// The number of voters, as far as this node knows.
    #[must_use]
    pub fn voter_count(&self) -> usize {
        voters(&self.0.authority)
    }

    async fn ask_for_acks(
        &self,
        leader: NodeId,
        address: &str,
        ack: Ack,
        until: rt::Instant,
    ) -> Option<Acks> {
        let question = to_wire(ack, until - rt::now());
        let link = self.0.links.control(leader, address);
        let answered = rt::timeout_at(
            until + self.0.config.timing.leader_lease,
            link.call(request::Body::Acks(question)),
        );
        match answered.await {
            Some(Ok(reply::Body::Acks(reply))) => Some(Acks {
                durable_at: reply.durable_at.into_iter().map(NodeId).collect(),
                wanted: usize::try_from(reply.wanted).unwrap_or(usize::MAX),
            }),
            _ => None,
        }
    }
}

fn voters(authority: &Arc<Authority>) -> usize {
    authority.standing().members.values().filter(|member| member.is_voter).count()
}

/// The leader's answer; none on any other member.
pub(crate) async fn counted(raft: &Raft, log: &LogStore, ack: Ack, until: rt::Instant) -> Option<Acks> {
    let (_, last, _) = log.positions().ok()?;
    let last = last?.index();
    let mut metrics = raft.metrics();
    loop {
        let acks = durable(&metrics.borrow_watched().clone(), last, ack)?;
        if acks.is_reached() {
            return Some(acks);
        }
        match rt::timeout_at(until, metrics.changed()).await {
            Some(Ok(())) => {}
            _ => return Some(acks),
        }
    }
}

/// The answer to a member that asks. Without its leader lease a node may have a successor, whose writes its log does not hold.
pub(crate) async fn answer(
    authority: &Authority,
    raft: &Raft,
    log: &LogStore,
    request: &AcksRequest,
) -> Result<reply::Body, String> {
    if authority.standing().leader != Some(authority.node()) {
        return Err("this node does not lead, or not for certain".to_owned());
    }
    let (ack, patience) = from_wire(request).ok_or("a question for acknowledgements without a level")?;
    let acks = counted(raft, log, ack, rt::now() + patience).await;
    let Acks { durable_at, wanted } = acks.ok_or("this node does not lead")?;
    let durable_at = durable_at.into_iter().map(|id| id.0).collect();
    Ok(reply::Body::Acks(AcksReply { durable_at, wanted: wanted as u64 }))
}

/// The voters whose logs are durable up to `last`, by what they told a leader; none where this node does not lead.
fn durable(metrics: &RaftMetrics<TypeConfig>, last: u64, ack: Ack) -> Option<Acks> {
    let matched = metrics.replication.as_ref().filter(|_| metrics.state == ServerState::Leader)?;
    let voters: BTreeSet<u64> = metrics.membership_config.membership().voter_ids().collect();
    let has_all =
        |id: &u64| matched.get(id).copied().flatten().is_some_and(|matched| matched.index() >= last);
    let durable_at = voters.iter().copied().filter(has_all).map(NodeId).collect();
    Some(Acks { durable_at, wanted: ack.wanted(voters.len()) })
}

fn to_wire(ack: Ack, patience: Duration) -> AcksRequest {
    let level = match ack {
        Ack::Quorum => acks_request::Level::Count(0),
        Ack::All => acks_request::Level::All(true),
        Ack::Count(count) => acks_request::Level::Count(count),
    };
    AcksRequest { level: Some(level), patience_ms: u32::try_from(patience.as_millis()).unwrap_or(u32::MAX) }
}

/// The level, and how long the answer may take: less than what would be taken for silence, whatever the other side says.
fn from_wire(request: &AcksRequest) -> Option<(Ack, Duration)> {
    let ack = match request.level? {
        acks_request::Level::All(_) => Ack::All,
        acks_request::Level::Count(0) => Ack::Quorum,
        acks_request::Level::Count(count) => Ack::Count(count),
    };
    Some((ack, Duration::from_millis(request.patience_ms.into()).min(Duration::from_secs(1))))
}
