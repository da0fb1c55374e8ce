//! Changes of the members that somebody asks for: judged by the leader, written into the replicated state, and waited for.

use std::collections::BTreeSet;
use std::time::Duration;

use openraft::async_runtime::WatchReceiver;
use ringfence_proto::peers::{MemberRefusal, member_refusal, reply, request};
use ringfence_types::{Command, Member, MemberChange, NodeId, Rejection, Reply, limits};

use super::controller::{alive, entries_behind, is_close, removed};
use super::plan::{address_of, has_majority};
use crate::api::{MemberError, ProposeError};
use crate::authority::Authority;
use crate::net::{CallError, Links};
use crate::node::Node;
use crate::propose::{self, Proposer};
use crate::raft::state_machine::Shelf;
use crate::raft::types::Raft;
use crate::rt;

/// Pause between two looks at whether a change has been carried out, and between two tries to reach the leader.
const LOOK: Duration = Duration::from_millis(20);

/// What the judgement of a change needs on the leader.
#[derive(Clone)]
pub(crate) struct Judge {
    pub(crate) raft: Raft,
    pub(crate) shelf: std::sync::Arc<Shelf>,
    pub(crate) authority: std::sync::Arc<Authority>,
    pub(crate) links: std::sync::Arc<Links>,
    pub(crate) proposer: Proposer,
    pub(crate) leader_lease: Duration,
}

impl Node {
    /// Changes who belongs to the cluster, on whichever member leads, and waits until the change is in force; an addition is
    /// in force when it is written down. Once written down it is carried out, whatever becomes of the caller or the leader.
    ///
    /// # Errors
    /// See [`MemberError`].
    pub async fn change_member(
        &self,
        change: &MemberChange,
        deadline: rt::Instant,
    ) -> Result<Member, MemberError> {
        check_form(change)?;
        let member = loop {
            match self.0.judge.anywhere(change, deadline).await {
                Err(MemberError::Propose(ProposeError::NoLeader { .. } | ProposeError::NotReady(_)))
                    if rt::now() + LOOK < deadline && !self.is_stopping() =>
                {
                    rt::sleep(LOOK).await;
                }
                answered => break answered?,
            }
        };
        let in_force = async {
            while !self.is_in_force(change) {
                rt::sleep(LOOK).await;
            }
        };
        match rt::timeout_at(deadline, in_force).await {
            Some(()) => Ok(member),
            None => Err(MemberError::Unfinished(member.id)),
        }
    }

    fn is_in_force(&self, change: &MemberChange) -> bool {
        let metrics = self.0.raft.metrics().borrow_watched().clone();
        let membership = metrics.membership_config.membership();
        let is_settled = membership.get_joint_config().len() == 1;
        let votes = |id: &NodeId| membership.voter_ids().any(|voter| voter == id.0);
        match change {
            MemberChange::Add { .. } | MemberChange::Join { .. } => true,
            MemberChange::Promote { id } => is_settled && votes(id),
            MemberChange::Remove { id } => is_settled && !votes(id),
            MemberChange::Update { id, peer_urls } => {
                let wanted = peer_urls.first().map_or("", |url| address_of(url));
                membership.get_node(&id.0).is_none_or(|node| node.address == wanted)
            }
        }
    }
}

impl Judge {
    /// Has the leader judge a change and write it down.
    async fn anywhere(&self, change: &MemberChange, deadline: rt::Instant) -> Result<Member, MemberError> {
        let leader = {
            let standing = self.authority.standing();
            let leader = standing.leader;
            leader.map(|id| (id, standing.members.get(&id).map(|member| member.address.clone())))
        };
        match leader {
            Some((id, _)) if id == self.authority.node() => self.here(change, deadline).await,
            Some((id, Some(address))) => self.there(id, &address, change, deadline).await,
            _ => Err(ProposeError::NoLeader { read_only: self.authority.read_only() }.into()),
        }
    }

    async fn there(
        &self,
        leader: NodeId,
        address: &str,
        change: &MemberChange,
        deadline: rt::Instant,
    ) -> Result<Member, MemberError> {
        let command = ringfence_proto::command::encode(&Command::ChangeMember(change.clone()));
        let link = self.links.control(leader, address);
        let answered = rt::timeout_at(deadline, link.call(request::Body::ChangeMember(command))).await;
        match answered.unwrap_or_else(|| Err(CallError::Broken("the deadline passed".to_owned()))) {
            Ok(reply::Body::Outcome(outcome)) => match ringfence_proto::outcome::decode(&outcome) {
                Ok(outcome) => member_of(outcome),
                Err(error) => Err(ProposeError::Stopped(format!("the leader's answer: {error}")).into()),
            },
            Ok(reply::Body::MemberRefused(refusal)) => Err(refusal_from_wire(refusal)),
            Ok(reply::Body::Refused(reason)) | Err(CallError::NotSent(reason)) => {
                Err(ProposeError::NotReady(reason).into())
            }
            Ok(_) => Err(ProposeError::LeadershipLost.into()),
            Err(CallError::Broken(_)) => Err(ProposeError::ForwardBroken.into()),
        }
    }

    /// The leader's part.
    pub(crate) async fn here(
        &self,
        change: &MemberChange,
        deadline: rt::Instant,
    ) -> Result<Member, MemberError> {
        self.judge(change)?;
        self.write_down_founder(change, deadline).await?;
        self.write_down(change, deadline).await
    }

    /// Writes a change into the replicated state, on whichever member leads.
    pub(crate) async fn write_down(
        &self,
        change: &MemberChange,
        deadline: rt::Instant,
    ) -> Result<Member, MemberError> {
        member_of(self.propose(&Command::ChangeMember(change.clone()), deadline).await?)
    }

    async fn propose(
        &self,
        command: &Command,
        deadline: rt::Instant,
    ) -> Result<ringfence_types::Outcome, ProposeError> {
        let sealed = ringfence_proto::command::encode(command);
        propose::propose(&self.proposer, &self.authority, &self.links, sealed, deadline).await
    }

    /// A founder that has not published itself yet has no record that could be changed.
    async fn write_down_founder(
        &self,
        change: &MemberChange,
        deadline: rt::Instant,
    ) -> Result<(), MemberError> {
        let (MemberChange::Update { id, .. }
        | MemberChange::Promote { id }
        | MemberChange::Remove { id }
        | MemberChange::Add { replaces: Some(id), .. }) = change
        else {
            return Ok(());
        };
        if self.shelf.store.view().members().contains_key(id) {
            return Ok(());
        }
        let Some(founder) = self.authority.standing().members.get(id).cloned() else { return Ok(()) };
        let publish = Command::PublishMember {
            id: *id,
            name: founder.name,
            peer_urls: vec![format!("http://{}", founder.address)],
            client_urls: Vec::new(),
        };
        self.propose(&publish, deadline).await?.map(|_| ()).map_err(MemberError::Rejected)
    }

    /// Refuses what would leave too few healthy voters, or make a voter of one that is not close.
    fn judge(&self, change: &MemberChange) -> Result<(), MemberError> {
        let metrics = self.raft.metrics().borrow_watched().clone();
        let membership = metrics.membership_config.membership();
        let alive = alive(&metrics, self.authority.node(), self.leader_lease);
        match change {
            MemberChange::Add { .. } | MemberChange::Join { .. } | MemberChange::Update { .. } => Ok(()),
            MemberChange::Promote { id } if membership.voter_ids().any(|voter| voter == id.0) => {
                Err(MemberError::NotLearner(*id))
            }
            MemberChange::Promote { id } if alive.contains(id) && is_close(&metrics, *id) => Ok(()),
            MemberChange::Promote { id } => {
                // One that nobody knows is refused as such where the state is changed.
                let is_known = self.shelf.store.view().members().contains_key(id);
                let reason = match alive.contains(id) {
                    true => format!("it lacks {} entries", entries_behind(&metrics, *id)),
                    false => "it does not answer the leader".to_owned(),
                };
                if is_known { Err(MemberError::NotInSync { id: *id, reason }) } else { Ok(()) }
            }
            MemberChange::Remove { id } => self.judge_removal(*id, membership.voter_ids(), &alive),
        }
    }

    fn judge_removal(
        &self,
        id: NodeId,
        voters: impl Iterator<Item = u64>,
        alive: &BTreeSet<NodeId>,
    ) -> Result<(), MemberError> {
        let leaving = removed(&self.shelf.store.view().members());
        let before: BTreeSet<NodeId> = voters.map(NodeId).filter(|voter| !leaving.contains(voter)).collect();
        if !before.contains(&id) {
            return Ok(());
        }
        let after: BTreeSet<NodeId> = before.into_iter().filter(|voter| *voter != id).collect();
        if has_majority(&after, alive) {
            return Ok(());
        }
        let healthy = after.intersection(alive).count();
        Err(MemberError::NotEnoughHealthy(match after.len() {
            0 => format!("member {id} is the last voter"),
            voters => format!(
                "without member {id} only {healthy} of {voters} voters would answer, and writes would stop"
            ),
        }))
    }
}

/// The answer to a change that another member sent here, if this one leads.
pub(crate) async fn answer(judge: &Judge, command: &[u8]) -> reply::Body {
    let change = match ringfence_proto::command::decode(&bytes::Bytes::copy_from_slice(command)) {
        Ok(Command::ChangeMember(change)) => change,
        Ok(_) => return reply::Body::Refused("no change of members".to_owned()),
        Err(error) => return reply::Body::Refused(error.to_string()),
    };
    if judge.authority.standing().leader != Some(judge.authority.node()) {
        return reply::Body::Refused("this member does not lead".to_owned());
    }
    let deadline = rt::now() + limits::REQUEST_TIMEOUT;
    match judge.here(&change, deadline).await {
        Ok(member) => outcome(Ok(ringfence_types::Applied {
            revision: judge.shelf.store.view().revision(),
            index: ringfence_types::Index(0),
            reply: Reply::Member(member),
        })),
        Err(MemberError::Rejected(rejection)) => outcome(Err(rejection)),
        Err(MemberError::Propose(error)) if error.is_definite() => reply::Body::Refused(error.to_string()),
        Err(MemberError::Propose(error)) => reply::Body::Unknown(error.to_string()),
        Err(error) => reply::Body::MemberRefused(refusal_to_wire(&error)),
    }
}

fn outcome(outcome: ringfence_types::Outcome) -> reply::Body {
    reply::Body::Outcome(ringfence_proto::outcome::encode(&outcome))
}

fn member_of(outcome: Result<ringfence_types::Applied, Rejection>) -> Result<Member, MemberError> {
    match outcome.map_err(MemberError::Rejected)?.reply {
        Reply::Member(member) => Ok(member),
        other => {
            Err(ProposeError::Stopped(format!("a change of members was answered with {other:?}")).into())
        }
    }
}

fn refusal_to_wire(error: &MemberError) -> MemberRefusal {
    let (kind, id, reason) = match error {
        MemberError::NotEnoughHealthy(reason) => (member_refusal::Kind::NotEnoughHealthy, 0, reason.clone()),
        MemberError::NotInSync { id, reason } => (member_refusal::Kind::NotInSync, id.0, reason.clone()),
        MemberError::NotLearner(id) => (member_refusal::Kind::NotLearner, id.0, String::new()),
        other => (member_refusal::Kind::Unspecified, 0, other.to_string()),
    };
    MemberRefusal { kind: kind.into(), id, reason }
}

fn refusal_from_wire(refusal: MemberRefusal) -> MemberError {
    let id = NodeId(refusal.id);
    match refusal.kind() {
        member_refusal::Kind::NotEnoughHealthy => MemberError::NotEnoughHealthy(refusal.reason),
        member_refusal::Kind::NotInSync => MemberError::NotInSync { id, reason: refusal.reason },
        member_refusal::Kind::NotLearner => MemberError::NotLearner(id),
        member_refusal::Kind::Unspecified => MemberError::Propose(ProposeError::NotReady(refusal.reason)),
    }
}

pub(crate) fn check_form(change: &MemberChange) -> Result<(), MemberError> {
    let (MemberChange::Add { peer_urls, .. }
    | MemberChange::Join { peer_urls, .. }
    | MemberChange::Update { peer_urls, .. }) = change
    else {
        return Ok(());
    };
    let invalid = |reason: String| Err(MemberError::Invalid(reason));
    if peer_urls.is_empty() || peer_urls.len() > limits::MEMBER_URLS_MAX {
        return invalid(format!(
            "a member has 1 to {} peer addresses, not {}",
            limits::MEMBER_URLS_MAX,
            peer_urls.len()
        ));
    }
    let has_port = |url: &String| {
        let address = address_of(url);
        let port = address.rsplit_once(':').filter(|(host, _)| !host.is_empty());
        port.is_some_and(|(_, port)| port.parse::<u16>().is_ok_and(|port| port != 0))
    };
    match peer_urls.iter().find(|url| url.len() > limits::MEMBER_TEXT_BYTES_MAX || !has_port(url)) {
        Some(url) => invalid(format!("{url:?} is no address of a peer: host:port, or http://host:port")),
        None => Ok(()),
    }
}
