//! Divergence: members compare the hashes of their states, and one that differs from a majority gets another state.
//!
//! The leader asks everybody, every few seconds, for the hashes that they remember (see `ringfence_store::HashMark`), and
//! compares those of one entry and one hash version alone. It tells a member that differs from a majority, which goes into
//! state quarantine, and then sends it a snapshot: one member at a time. A leader that finds itself in the minority goes into
//! quarantine itself and hands its leadership over first. Where no majority agrees, nobody can say who is right.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures_util::future::join_all;
use openraft::async_runtime::WatchReceiver;
use parking_lot::Mutex;
use ringfence_proto::peers as wire;
use ringfence_proto::peers::{reply, request};
use ringfence_store::{HASH_MARKS_MAX, HashMark, StateHash};
use ringfence_types::{Alarm, AlarmKind, Command, Index, NodeId, limits};

use crate::api::Role;
use crate::authority::Member;
use crate::net::{Door, send_rebuild};
use crate::node::Node;
use crate::raft::codec;
use crate::rt;

/// How often a node looks for its own quarantine, should it have missed the news.
const LOOK_INTERVAL_MAX: Duration = Duration::from_secs(60);

/// What a leader found out about the members' states since it leads, for others to look at.
#[derive(Debug, Default)]
pub(crate) struct Findings {
    /// Members that said last that they are in state quarantine.
    quarantined: Mutex<BTreeSet<NodeId>>,
    compared: AtomicU64,
    rebuilt: AtomicU64,
}

impl Findings {
    /// Whether a member said last that its state is not to be believed.
    pub(crate) fn is_quarantined(&self, node: NodeId) -> bool {
        self.quarantined.lock().contains(&node)
    }

    /// Hashes of other members that this node has compared.
    pub(crate) fn compared(&self) -> u64 {
        self.compared.load(Ordering::Relaxed)
    }

    /// Members' states that this node has rebuilt.
    pub(crate) fn rebuilt(&self) -> u64 {
        self.rebuilt.load(Ordering::Relaxed)
    }
}

/// The hash that one member has at one entry, with its version.
type Hash = (u8, StateHash);
/// The members' hashes at one entry.
type Hashes = BTreeMap<NodeId, Hash>;

/// What the hashes at one entry say.
#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    /// Nobody differs, as far as is known.
    Agreed,
    /// These differ from a majority.
    Differ { agreeing: BTreeSet<NodeId>, hash: Hash, differing: BTreeSet<NodeId> },
    /// No majority can agree, whatever those say that have not answered.
    NoMajority,
    /// Hashes of different versions, or too few to tell.
    Unknown,
}

/// Judges the hashes at one entry. Voters in quarantine have none, and will have the one that they are given: they agree with
/// nobody.
fn judge(hashes: &Hashes, voters: &BTreeSet<NodeId>, quarantined: &BTreeSet<NodeId>) -> Verdict {
    let versions: BTreeSet<u8> = hashes.values().map(|(version, _)| *version).collect();
    if versions.len() > 1 {
        return Verdict::Unknown;
    }
    let mut groups: BTreeMap<StateHash, BTreeSet<NodeId>> = BTreeMap::new();
    for (node, (_, hash)) in hashes {
        groups.entry(*hash).or_default().insert(*node);
    }
    let votes = |group: &BTreeSet<NodeId>| group.intersection(voters).count();
    let Some((hash, agreeing)) = groups.iter().max_by_key(|(_, group)| votes(group)) else {
        return Verdict::Unknown;
    };
    let may_answer = |voter: &&NodeId| !hashes.contains_key(voter) && !quarantined.contains(voter);
    let missing = voters.iter().filter(may_answer).count();
    let majority = voters.len() / 2 + 1;
    match votes(agreeing) {
        most if most >= majority => {
            let differing: BTreeSet<NodeId> =
                hashes.keys().filter(|node| !agreeing.contains(node)).copied().collect();
            if differing.is_empty() {
                return Verdict::Agreed;
            }
            Verdict::Differ { agreeing: agreeing.clone(), hash: hashes_of(hashes, *hash), differing }
        }
        most if most + missing < majority => Verdict::NoMajority,
        _ => Verdict::Unknown,
    }
}

fn hashes_of(hashes: &Hashes, hash: StateHash) -> Hash {
    *hashes.values().find(|(_, known)| *known == hash).expect("the hash is one of them")
}

/// What a leader collects while it leads.
#[derive(Debug, Default)]
struct Collected(BTreeMap<Index, Hashes>);

impl Collected {
    /// Takes in what a member remembers; how many hashes were new.
    fn add(&mut self, node: NodeId, marks: &[HashMark]) -> u64 {
        let mut new = 0;
        for mark in marks {
            let known = self.0.entry(mark.index).or_default().insert(node, (mark.version, mark.hash));
            new += u64::from(known.is_none());
        }
        while self.0.len() > HASH_MARKS_MAX {
            self.0.pop_first();
        }
        new
    }

    /// The first entry at which the members are known to differ.
    fn finding(&self, voters: &BTreeSet<NodeId>, quarantined: &BTreeSet<NodeId>) -> Option<(Index, Verdict)> {
        let mut judged = self.0.iter().map(|(index, hashes)| (*index, judge(hashes, voters, quarantined)));
        judged.find(|(_, verdict)| matches!(verdict, Verdict::Differ { .. } | Verdict::NoMajority))
    }

    /// Forgets what a member had: its state will be another one.
    fn forget(&mut self, node: NodeId) {
        for hashes in self.0.values_mut() {
            hashes.remove(&node);
        }
    }

    /// After which entry members are asked: hashes from before are known of everybody, or too old.
    fn asked_after(&self, members: usize) -> Index {
        let incomplete = self.0.iter().find(|(_, hashes)| hashes.len() < members);
        match (incomplete, self.0.last_key_value()) {
            (Some((index, _)), _) => Index(index.0.saturating_sub(1)),
            (None, Some((last, _))) => *last,
            (None, None) => Index(0),
        }
    }
}

/// Who votes.
fn voters(members: &BTreeMap<NodeId, Member>) -> BTreeSet<NodeId> {
    members.iter().filter(|(_, member)| member.is_voter).map(|(id, _)| *id).collect()
}

/// What another member answered.
struct Told {
    node: NodeId,
    marks: Vec<HashMark>,
    is_quarantined: bool,
}

/// Compares, and has states rebuilt, for as long as the node runs; only while it leads.
pub(crate) async fn watch(node: Node, interval: Duration) {
    let mut collected = Collected::default();
    while !node.is_stopping() {
        rt::sleep(interval).await;
        if node.leader() != Some(node.node_id()) {
            collected = Collected::default();
            node.0.findings.quarantined.lock().clear();
            continue;
        }
        node.compare_states(&mut collected).await;
    }
}

impl Node {
    async fn compare_states(&self, collected: &mut Collected) {
        let parts = &self.0;
        let members = parts.authority.standing().members.clone();
        let after = collected.asked_after(members.len());
        let others = members.iter().filter(|(id, _)| **id != self.node_id());
        let told = join_all(others.map(|(id, member)| self.ask_hashes(*id, member, after))).await;
        let told: Vec<Told> = told.into_iter().flatten().collect();
        let quarantined: BTreeSet<NodeId> =
            told.iter().filter(|told| told.is_quarantined).map(|told| told.node).collect();
        parts.findings.quarantined.lock().clone_from(&quarantined);
        if parts.shelf.quarantine.is_on() {
            // Whoever leads next sees to everything.
            return collected.forget(self.node_id());
        }
        collected.add(self.node_id(), &parts.shelf.store.hash_marks(after));
        for told in &told {
            if told.is_quarantined {
                collected.forget(told.node);
            } else {
                parts.findings.compared.fetch_add(collected.add(told.node, &told.marks), Ordering::Relaxed);
            }
        }
        match (collected.finding(&voters(&members), &quarantined), quarantined.first()) {
            // Whatever state a member were given, nobody could say that it is the right one.
            (Some((index, Verdict::NoMajority)), _) => {
                self.raise_corrupt(index, &collected.0[&index], &members).await;
            }
            // One at a time: the next one when this one is whole again.
            (_, Some(patient)) => self.rebuild_member(*patient, &members).await,
            (Some((index, Verdict::Differ { agreeing, hash, differing })), None) => {
                let mark = HashMark { index, version: hash.0, hash: hash.1 };
                let patient = differing.first().copied().expect("somebody differs");
                self.impose_quarantine(patient, mark, &agreeing, &members).await;
                collected.forget(patient);
            }
            (_, None) => {}
        }
    }

    async fn ask_hashes(&self, id: NodeId, member: &Member, after: Index) -> Option<Told> {
        let question = request::Body::Hashes(wire::HashesRequest { after: after.0 });
        let reply::Body::Hashes(reply) = self.ask_member(id, member, question).await? else { return None };
        let marks = reply.marks.iter().take(HASH_MARKS_MAX).filter_map(mark_from_wire);
        Some(Told { node: id, marks: marks.collect(), is_quarantined: !reply.quarantine.is_empty() })
    }

    async fn ask_member(&self, id: NodeId, member: &Member, question: request::Body) -> Option<reply::Body> {
        let link = self.0.links.control(id, &member.address);
        rt::timeout(self.0.config.timing.leader_lease * 3, link.call(question)).await?.ok()
    }

    /// Has a member that differs from a majority go into state quarantine: itself, or another one.
    async fn impose_quarantine(
        &self,
        patient: NodeId,
        mark: HashMark,
        agreeing: &BTreeSet<NodeId>,
        members: &BTreeMap<NodeId, Member>,
    ) {
        let Some(member) = members.get(&patient) else { return };
        if patient == self.node_id() {
            let reason = difference(mark, agreeing, members);
            let entered = self.0.shelf.quarantine.enter(&reason, None);
            return self.0.shelf.report_disk(entered);
        }
        tracing::error!("the state of {} differs: {}", member.name, difference(mark, agreeing, members));
        let request = wire::QuarantineRequest {
            vote: Some(codec::vote_to_wire(&self.0.raft.server_metrics().borrow_watched().vote)),
            mark: Some(mark_to_wire(&mark)),
            agreeing: agreeing.iter().map(|id| id.0).collect(),
        };
        match self.ask_member(patient, member, request::Body::Quarantine(request)).await {
            Some(reply::Body::Quarantine(reply)) if reply.refusal.is_empty() => {}
            Some(reply::Body::Quarantine(reply)) => {
                tracing::warn!("{} does not go into state quarantine: {}", member.name, reply.refusal);
            }
            _ => tracing::warn!("{} does not answer that it is in state quarantine", member.name),
        }
    }

    async fn rebuild_member(&self, patient: NodeId, members: &BTreeMap<NodeId, Member>) {
        let parts = &self.0;
        let Some(member) = members.get(&patient) else { return };
        let vote = parts.raft.server_metrics().borrow_watched().vote;
        tracing::warn!("{} is in state quarantine: sending it this node's state", member.name);
        match send_rebuild(&parts.links, &parts.shelf, patient, &member.address, vote).await {
            Ok(()) => {
                parts.findings.rebuilt.fetch_add(1, Ordering::Relaxed);
                tracing::warn!("the state of {} is rebuilt", member.name);
            }
            Err(error) => tracing::warn!("the state of {} is not rebuilt yet: {error}", member.name),
        }
    }

    /// Nobody can say who is right: no more is written until somebody has decided. As etcd does, the leader raises the alarm
    /// for each member that differs from itself.
    async fn raise_corrupt(&self, index: Index, hashes: &Hashes, members: &BTreeMap<NodeId, Member>) {
        let own = hashes.get(&self.node_id());
        let raised = self.view().alarms();
        for member in hashes.iter().filter(|(_, hash)| Some(*hash) != own).map(|(id, _)| *id) {
            let alarm = Alarm { member, kind: AlarmKind::Corrupt };
            if raised.contains(&alarm) {
                continue;
            }
            let name = members.get(&member).map_or("a member", |member| member.name.as_str());
            tracing::error!(
                "the state of {name} differs from this node's at entry {index}, and no majority agrees: raising the alarm CORRUPT"
            );
            let command = Command::ChangeAlarm { alarm, raised: true };
            if let Err(error) = self.propose(&command, rt::now() + limits::REQUEST_TIMEOUT).await {
                tracing::warn!("raising the alarm CORRUPT: {error}");
            }
        }
    }
}

fn difference(mark: HashMark, agreeing: &BTreeSet<NodeId>, members: &BTreeMap<NodeId, Member>) -> String {
    let names: Vec<&str> =
        agreeing.iter().filter_map(|id| members.get(id)).map(|member| member.name.as_str()).collect();
    format!("at entry {} the state differs from the one that {} agree on", mark.index, names.join(" and "))
}

/// What this node tells a leader of its state.
pub(crate) fn told(door: &Door, request: &wire::HashesRequest) -> wire::HashesReply {
    match door.shelf.quarantine.now() {
        Some(known) => wire::HashesReply { marks: Vec::new(), quarantine: known.reason },
        None => {
            let marks = door.shelf.store.hash_marks(Index(request.after));
            wire::HashesReply { marks: marks.iter().map(mark_to_wire).collect(), quarantine: String::new() }
        }
    }
}

/// Goes into state quarantine because the leader says that a majority has another state; this node looks for itself at what
/// there is to see.
pub(crate) fn enter_quarantine(door: &Door, request: &wire::QuarantineRequest) -> Result<(), String> {
    let vote = codec::required_vote(request.vote.as_ref()).map_err(|error| error.to_string())?;
    let own_vote = door.raft.server_metrics().borrow_watched().vote;
    if vote != own_vote || !vote.committed {
        return Err("the question is not the leader's".to_owned());
    }
    let mark = request.mark.as_ref().and_then(mark_from_wire).ok_or("the question has no hash")?;
    let before = Index(mark.index.0.saturating_sub(1));
    let own = door.shelf.store.hash_marks(before).into_iter().find(|own| own.index == mark.index);
    let own = own.ok_or("this node no longer knows its hash there")?;
    if own.version != mark.version || own.hash == mark.hash {
        return Err("this node's hash there does not differ".to_owned());
    }
    let members = door.authority.standing().members.clone();
    let agreeing: BTreeSet<NodeId> = request.agreeing.iter().map(|id| NodeId(*id)).collect();
    let voters = voters(&members);
    if agreeing.contains(&door.authority.node()) || agreeing.intersection(&voters).count() * 2 <= voters.len()
    {
        return Err("those who agree are no majority".to_owned());
    }
    let entered = door.shelf.quarantine.enter(&difference(mark, &agreeing, &members), None);
    door.shelf.report_disk(entered);
    Ok(())
}

/// Sees to it that a node in state quarantine neither campaigns nor leads, for ever.
pub(crate) async fn keep_from_leading(node: Node) {
    let pause = node.0.config.timing.leader_lease;
    let mut quarantine = node.0.shelf.quarantine.subscribe();
    while !node.is_stopping() {
        node.settle_campaigning();
        let is_on = node.0.shelf.quarantine.is_on();
        let leads = node.0.authority.standing().role == Role::Leader;
        if is_on && leads {
            match node.hand_over(None, rt::now() + pause * 5).await {
                Ok(to) => tracing::warn!(
                    "handed leadership over to node {to}, since this node is in state quarantine"
                ),
                Err(error) => {
                    tracing::warn!("this node is in state quarantine, and nobody takes over: {error}")
                }
            }
        }
        // Whether it leads has to be looked for.
        let limit = if is_on { pause } else { LOOK_INTERVAL_MAX };
        if let Some(Err(_closed)) = rt::timeout(limit, quarantine.changed()).await {
            return;
        }
    }
}

fn mark_to_wire(mark: &HashMark) -> wire::HashMark {
    let hash = mark.hash.0.to_be_bytes().to_vec().into();
    wire::HashMark { index: mark.index.0, version: u32::from(mark.version), hash }
}

/// None where the mark is no mark of this build's.
fn mark_from_wire(mark: &wire::HashMark) -> Option<HashMark> {
    let hash = <[u8; 16]>::try_from(mark.hash.as_ref()).ok()?;
    let hash = StateHash(u128::from_be_bytes(hash));
    Some(HashMark { index: Index(mark.index), version: u8::try_from(mark.version).ok()?, hash })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ids(ids: &[u64]) -> BTreeSet<NodeId> {
        ids.iter().map(|id| NodeId(*id)).collect()
    }

    fn hashes(of: &[(u64, u8, u128)]) -> Hashes {
        of.iter().map(|(id, version, hash)| (NodeId(*id), (*version, StateHash(*hash)))).collect()
    }

    #[test]
    fn one_that_differs_from_a_majority_is_found_and_nobody_else() {
        let voters = ids(&[1, 2, 3]);
        let differ = |agreeing: &[u64], hash, differing: &[u64]| Verdict::Differ {
            agreeing: ids(agreeing),
            hash: (1, StateHash(hash)),
            differing: ids(differing),
        };
        for (told, verdict) in [
            (vec![], Verdict::Unknown),
            (vec![(1, 1, 7)], Verdict::Unknown),
            (vec![(1, 1, 7), (2, 1, 7)], Verdict::Agreed),
            (vec![(1, 1, 7), (2, 1, 8)], Verdict::Unknown),
            (vec![(1, 1, 7), (2, 1, 7), (3, 1, 7)], Verdict::Agreed),
            (vec![(1, 1, 7), (2, 1, 8), (3, 1, 7)], differ(&[1, 3], 7, &[2])),
            (vec![(1, 1, 7), (2, 1, 8), (3, 1, 9)], Verdict::NoMajority),
            // A learner has no say, and may be wrong.
            (vec![(1, 1, 7), (9, 1, 7)], Verdict::Unknown),
            (vec![(1, 1, 7), (2, 1, 7), (9, 1, 8)], differ(&[1, 2], 7, &[9])),
            // Other versions say nothing, whatever their hashes are.
            (vec![(1, 1, 7), (2, 2, 8), (3, 1, 7)], Verdict::Unknown),
            (vec![(1, 1, 7), (2, 2, 7), (3, 2, 9)], Verdict::Unknown),
        ] {
            assert_eq!(judge(&hashes(&told), &voters, &ids(&[])), verdict, "{told:?}");
        }
    }

    #[test]
    fn two_that_differ_are_no_majority_and_of_five_two_pairs_wait_for_the_fifth() {
        assert_eq!(judge(&hashes(&[(1, 1, 7), (2, 1, 8)]), &ids(&[1, 2]), &ids(&[])), Verdict::NoMajority);
        let pairs = [(1, 1, 7), (2, 1, 7), (3, 1, 8), (4, 1, 8)];
        let five = ids(&[1, 2, 3, 4, 5]);
        assert_eq!(judge(&hashes(&pairs), &five, &ids(&[])), Verdict::Unknown);
        let mut all = pairs.to_vec();
        all.push((5, 1, 9));
        assert_eq!(judge(&hashes(&all), &five, &ids(&[])), Verdict::NoMajority);
        assert_eq!(judge(&hashes(&[(1, 1, 7)]), &ids(&[1]), &ids(&[])), Verdict::Agreed);
    }

    #[test]
    fn one_in_quarantine_gives_no_majority_to_two_that_differ() {
        let (voters, patient) = (ids(&[1, 2, 3]), ids(&[3]));
        assert_eq!(judge(&hashes(&[(1, 1, 7), (2, 1, 8)]), &voters, &patient), Verdict::NoMajority);
        assert_eq!(judge(&hashes(&[(1, 1, 7), (2, 1, 7)]), &voters, &patient), Verdict::Agreed);
        assert_eq!(
            judge(&hashes(&[(1, 1, 7)]), &voters, &patient),
            Verdict::Unknown,
            "the other one may agree"
        );
    }

    #[test]
    fn what_is_collected_is_bounded_and_asked_for_once() {
        let mark = |index| HashMark { index: Index(index), version: 1, hash: StateHash(u128::from(index)) };
        let marks: Vec<HashMark> = (1..=100).map(mark).collect();
        let mut collected = Collected::default();
        assert_eq!(collected.asked_after(2), Index(0));
        assert_eq!(collected.add(NodeId(1), &marks), 100);
        assert_eq!(collected.0.len(), HASH_MARKS_MAX);
        assert_eq!(collected.asked_after(2), Index(100 - HASH_MARKS_MAX as u64));
        assert_eq!(collected.add(NodeId(2), &marks[50..]), 50);
        assert_eq!(collected.add(NodeId(2), &marks[50..]), 0);
        collected.add(NodeId(2), &marks[36..]);
        assert_eq!(collected.asked_after(2), Index(100));
        collected.forget(NodeId(2));
        assert!(collected.0.values().all(|hashes| hashes.len() == 1));
    }

    #[test]
    fn marks_come_back_and_nonsense_does_not() {
        let mark = HashMark { index: Index(2_048), version: 1, hash: StateHash(u128::MAX - 5) };
        assert_eq!(mark_from_wire(&mark_to_wire(&mark)), Some(mark));
        let short = wire::HashMark { hash: vec![0; 15].into(), ..mark_to_wire(&mark) };
        let strange = wire::HashMark { version: 256, ..mark_to_wire(&mark) };
        assert!(mark_from_wire(&short).is_none() && mark_from_wire(&strange).is_none());
    }
}
