//! The next step from the members that vote now to those that are wanted: a decision on facts alone.
//!
//! Each step is one change of Raft's membership, or what has to come before it. No step leaves a configuration in which no
//! majority would answer, and a step that another leader began is finished before anything else (Ongaro's thesis,
//! sections 4.2 and 4.3; joint consensus as in section 6 of the Raft paper).

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use ringfence_types::{Member, NodeId, Wanted};

use crate::raft::types::PeerNode;

/// What the leader knows when it decides.
#[derive(Debug)]
pub(crate) struct Facts<'a> {
    /// The leader.
    pub(crate) own: NodeId,
    /// One set of voters, or two while a change is under way.
    pub(crate) configs: Vec<BTreeSet<NodeId>>,
    /// Every member that Raft knows, learners included.
    pub(crate) nodes: BTreeMap<NodeId, PeerNode>,
    /// What is wanted.
    pub(crate) roster: &'a BTreeMap<NodeId, Member>,
    /// Who answers, the leader included.
    pub(crate) alive: BTreeSet<NodeId>,
    /// Who answers and has been close to the leader's log for several looks in a row.
    pub(crate) ready: BTreeSet<NodeId>,
}

/// One step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Step {
    /// Leave the joint configuration for its second set.
    Finish(BTreeSet<NodeId>),
    /// Begin to send everything to a member that has started.
    Learn(NodeId, PeerNode),
    /// Reach a member elsewhere from now on.
    Readdress(NodeId, PeerNode),
    /// Another one leads first: this leader is to leave the voters.
    HandOver,
    /// These vote from now on.
    Vote(BTreeSet<NodeId>),
    /// A member that has been replaced is not wanted any more.
    Retire(NodeId),
    /// Stop sending to a member that is not wanted any more.
    Forget(NodeId),
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ids = |ids: &BTreeSet<NodeId>| ids.iter().map(NodeId::to_string).collect::<Vec<_>>().join(", ");
        match self {
            Step::Finish(voters) => write!(f, "an earlier change is finished, {} vote", ids(voters)),
            Step::Learn(id, node) => {
                write!(f, "{} (member {id}) at {} is sent everything from now on", node.name, node.address)
            }
            Step::Readdress(id, node) => {
                write!(f, "{} (member {id}) is reached at {} from now on", node.name, node.address)
            }
            Step::HandOver => write!(f, "this leader is to leave, and hands over"),
            Step::Vote(voters) => write!(f, "{} vote from now on", ids(voters)),
            Step::Retire(id) => write!(f, "member {id} has been replaced and leaves"),
            Step::Forget(id) => write!(f, "member {id} has left"),
        }
    }
}

/// The next step, if there is one that can be taken now.
pub(crate) fn next(facts: &Facts<'_>) -> Option<Step> {
    if let [_, target] = facts.configs.as_slice() {
        return Some(Step::Finish(target.clone()));
    }
    facts
        .learn()
        .or_else(|| facts.readdress())
        .or_else(|| facts.replace())
        .or_else(|| facts.remove())
        .or_else(|| facts.promote())
        .or_else(|| facts.forget())
}

/// Whether a majority of `voters` answers.
pub(crate) fn has_majority(voters: &BTreeSet<NodeId>, alive: &BTreeSet<NodeId>) -> bool {
    voters.intersection(alive).count() > voters.len() / 2
}

/// `host:port` in a peer's URL.
pub(crate) fn address_of(url: &str) -> &str {
    url.split_once("://").map_or(url, |(_, address)| address).trim_end_matches('/')
}

impl Facts<'_> {
    fn voters(&self) -> &BTreeSet<NodeId> {
        self.configs.last().unwrap_or(const { &BTreeSet::new() })
    }

    fn wanted(&self) -> impl Iterator<Item = &Member> {
        self.roster.values().filter(|member| member.is_wanted())
    }

    /// Members that vote, or that follow already and shall.
    fn promotable(&self) -> impl Iterator<Item = &Member> {
        let shall_vote = self.wanted().filter(|member| member.wanted == Wanted::Voter);
        shall_vote.filter(|member| self.ready.contains(&member.id) && !self.voters().contains(&member.id))
    }

    fn learn(&self) -> Option<Step> {
        let started = self.wanted().filter(|member| member.disk_id != 0);
        let unknown = started.into_iter().find(|member| !self.nodes.contains_key(&member.id))?;
        let address = address_of(unknown.peer_urls.first()?).to_owned();
        let node = PeerNode { name: unknown.name.clone(), address, disk_id: unknown.disk_id };
        Some(Step::Learn(unknown.id, node))
    }

    fn readdress(&self) -> Option<Step> {
        self.wanted().find_map(|member| {
            let node = self.nodes.get(&member.id)?;
            let address = address_of(member.peer_urls.first()?);
            let moved = PeerNode { address: address.to_owned(), ..node.clone() };
            (node.address != address).then_some(Step::Readdress(member.id, moved))
        })
    }

    /// A replacement is one step: the new member votes from the moment in which the old one does not.
    fn replace(&self) -> Option<Step> {
        let done = |new: &&Member| self.voters().contains(&new.id);
        let replacing = || self.wanted().filter_map(|new| Some((new, new.replaces?)));
        let is_wanted = |old: &NodeId| self.roster.get(old).is_none_or(Member::is_wanted);
        let retiring = replacing().find(|(new, old)| {
            done(new) && is_wanted(old) && self.nodes.contains_key(old) && !self.voters().contains(old)
        });
        if let Some((_, old)) = retiring {
            return Some(Step::Retire(old));
        }
        let (new, old) = self.promotable().find_map(|new| {
            let old = new.replaces.filter(|old| self.voters().contains(old))?;
            Some((new.id, old))
        })?;
        let mut voters = self.voters().clone();
        voters.remove(&old);
        voters.insert(new);
        self.vote(voters)
    }

    fn remove(&self) -> Option<Step> {
        let mut leaving = self.voters().iter().filter(|id| self.is_removed(**id));
        let leaving = leaving.next()?;
        let mut voters = self.voters().clone();
        voters.remove(leaving);
        self.vote(voters)
    }

    fn promote(&self) -> Option<Step> {
        // One that replaces a voter comes in together with the other's leaving.
        let mut alone = self
            .promotable()
            .filter(|member| member.replaces.is_none_or(|replaced| !self.voters().contains(&replaced)));
        let mut voters = self.voters().clone();
        voters.insert(alone.next()?.id);
        self.vote(voters)
    }

    fn forget(&self) -> Option<Step> {
        let mut learners = self.nodes.keys().filter(|id| !self.voters().contains(id));
        // One that answers is told that it has been removed before it is left alone.
        learners
            .find(|id| self.is_removed(**id) && (self.ready.contains(id) || !self.alive.contains(id)))
            .map(|id| Step::Forget(*id))
    }

    fn is_removed(&self, id: NodeId) -> bool {
        self.roster.get(&id).is_some_and(|member| !member.is_wanted())
    }

    /// The step to other voters, if a majority of them answers.
    fn vote(&self, voters: BTreeSet<NodeId>) -> Option<Step> {
        if !has_majority(&voters, &self.alive) {
            return None;
        }
        if voters.contains(&self.own) { Some(Step::Vote(voters)) } else { Some(Step::HandOver) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ids(ids: &[u64]) -> BTreeSet<NodeId> {
        ids.iter().copied().map(NodeId).collect()
    }

    fn node(id: u64) -> PeerNode {
        PeerNode { name: format!("n{id}"), address: format!("n{id}:1"), disk_id: id + 100 }
    }

    fn member(id: u64, wanted: Wanted) -> Member {
        Member {
            id: NodeId(id),
            name: format!("n{id}"),
            peer_urls: vec![format!("http://n{id}:1")],
            client_urls: Vec::new(),
            disk_id: id + 100,
            wanted,
            replaces: None,
        }
    }

    /// Three voters, of which 1 leads; all answer and are close.
    struct Scene {
        configs: Vec<BTreeSet<NodeId>>,
        nodes: Vec<u64>,
        roster: Vec<Member>,
        alive: Vec<u64>,
        ready: Vec<u64>,
    }

    fn three() -> Scene {
        Scene {
            configs: vec![ids(&[1, 2, 3])],
            nodes: vec![1, 2, 3],
            roster: (1..=3).map(|id| member(id, Wanted::Voter)).collect(),
            alive: vec![1, 2, 3],
            ready: vec![1, 2, 3],
        }
    }

    impl Scene {
        fn next(&self) -> Option<Step> {
            let roster = self.roster.iter().map(|member| (member.id, member.clone())).collect();
            next(&Facts {
                own: NodeId(1),
                configs: self.configs.clone(),
                nodes: self.nodes.iter().map(|id| (NodeId(*id), node(*id))).collect(),
                roster: &roster,
                alive: ids(&self.alive),
                ready: ids(&self.ready),
            })
        }

        fn want(&mut self, id: u64, wanted: Wanted) {
            self.roster.retain(|member| member.id != NodeId(id));
            self.roster.push(member(id, wanted));
        }
    }

    #[test]
    fn what_is_as_wanted_stays() {
        assert_eq!(three().next(), None);
        // A founder that has not published itself yet is nobody's to remove.
        assert_eq!(Scene { roster: Vec::new(), ..three() }.next(), None);
    }

    #[test]
    fn a_joint_configuration_is_finished_first() {
        let configs = vec![ids(&[1, 2, 3]), ids(&[1, 2, 4])];
        let scene = Scene { configs, nodes: vec![1, 2, 3, 4], ..three() };
        assert_eq!(scene.next(), Some(Step::Finish(ids(&[1, 2, 4]))));
    }

    #[test]
    fn a_new_member_learns_and_votes_once_it_is_close() {
        let mut scene = three();
        scene.want(4, Wanted::Voter);
        assert_eq!(scene.next(), Some(Step::Learn(NodeId(4), node(4))));
        scene.nodes.push(4);
        scene.alive.push(4);
        assert_eq!(scene.next(), None, "it lags");
        scene.ready.push(4);
        assert_eq!(scene.next(), Some(Step::Vote(ids(&[1, 2, 3, 4]))));
        scene.want(4, Wanted::Learner);
        assert_eq!(scene.next(), None, "it is to go on learning");
    }

    #[test]
    fn one_that_has_not_started_is_left_alone() {
        let mut scene = three();
        scene.roster.push(Member { disk_id: 0, name: String::new(), ..member(4, Wanted::Voter) });
        assert_eq!(scene.next(), None);
    }

    #[test]
    fn a_removed_voter_leaves_and_is_forgotten_once_it_knows() {
        let mut scene = three();
        scene.want(3, Wanted::Removed);
        assert_eq!(scene.next(), Some(Step::Vote(ids(&[1, 2]))));
        scene.configs = vec![ids(&[1, 2])];
        scene.ready = vec![1, 2];
        assert_eq!(scene.next(), None, "it answers, and has not heard of it");
        scene.alive = vec![1, 2];
        assert_eq!(scene.next(), Some(Step::Forget(NodeId(3))));
    }

    #[test]
    fn the_leader_hands_over_before_it_leaves() {
        let mut scene = three();
        scene.want(1, Wanted::Removed);
        assert_eq!(scene.next(), Some(Step::HandOver));
    }

    #[test]
    fn nothing_is_done_that_would_leave_no_majority() {
        let mut scene = three();
        scene.want(3, Wanted::Removed);
        scene.alive = vec![1, 3];
        assert_eq!(scene.next(), None, "of 1 and 2 only 1 answers");
        let mut alone = Scene { configs: vec![ids(&[1])], nodes: vec![1], ..three() };
        alone.roster = vec![member(1, Wanted::Removed)];
        assert_eq!(alone.next(), None, "the last voter stays");
    }

    #[test]
    fn a_replacement_takes_the_place_in_one_step() {
        let mut scene = three();
        scene.nodes.push(4);
        scene.roster.push(Member { replaces: Some(NodeId(3)), ..member(4, Wanted::Voter) });
        scene.alive = vec![1, 2, 4];
        assert_eq!(scene.next(), None, "the new one lags");
        scene.ready = vec![1, 2, 4];
        assert_eq!(scene.next(), Some(Step::Vote(ids(&[1, 2, 4]))));
        scene.configs = vec![ids(&[1, 2, 4])];
        assert_eq!(scene.next(), Some(Step::Retire(NodeId(3))));
        scene.want(3, Wanted::Removed);
        assert_eq!(scene.next(), Some(Step::Forget(NodeId(3))));
        scene.nodes.retain(|id| *id != 3);
        assert_eq!(scene.next(), None);
    }

    #[test]
    fn a_replacement_of_the_leader_waits_for_another_leader() {
        let mut scene = three();
        scene.nodes.push(4);
        scene.roster.push(Member { replaces: Some(NodeId(1)), ..member(4, Wanted::Voter) });
        (scene.alive, scene.ready) = (vec![1, 2, 3, 4], vec![2, 3, 4]);
        assert_eq!(scene.next(), Some(Step::HandOver));
    }

    #[test]
    fn a_member_that_moved_is_reached_at_its_new_address() {
        let mut scene = three();
        scene.roster[2].peer_urls = vec!["http://elsewhere:2".to_owned()];
        let moved = PeerNode { address: "elsewhere:2".to_owned(), ..node(3) };
        assert_eq!(scene.next(), Some(Step::Readdress(NodeId(3), moved)));
    }
}
