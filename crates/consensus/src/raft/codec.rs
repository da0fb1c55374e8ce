//! openraft's types to and from the messages of `peers.proto`, which are also what lies in the log's records.

use std::collections::{BTreeMap, BTreeSet};
use std::io;

use bytes::Bytes;
use openraft::EntryPayload;
use prost::Message;
use ringfence_proto::peers as wire;

use super::types::{
    LeaderId, PeerNode, RaftEntry, RaftLogId, RaftMembership, RaftPayload, RaftStoredMembership, RaftVote,
    Sealed,
};

/// Bytes that are not what the protocol or the format says.
fn malformed(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("malformed {what}"))
}

pub(crate) fn log_id_to_wire(log_id: &RaftLogId) -> wire::LogId {
    let leader = log_id.committed_leader_id();
    wire::LogId { term: leader.term, node: leader.node_id, index: log_id.index() }
}

pub(crate) fn log_id_from_wire(log_id: &wire::LogId) -> RaftLogId {
    RaftLogId::new(LeaderId { term: log_id.term, node_id: log_id.node }, log_id.index)
}

pub(crate) fn vote_to_wire(vote: &RaftVote) -> wire::Vote {
    wire::Vote { term: vote.leader_id.term, node: vote.leader_id.node_id, committed: vote.committed }
}

pub(crate) fn vote_from_wire(vote: &wire::Vote) -> RaftVote {
    RaftVote { leader_id: LeaderId { term: vote.term, node_id: vote.node }, committed: vote.committed }
}

/// The vote of a message, which always carries one.
pub(crate) fn required_vote(vote: Option<&wire::Vote>) -> io::Result<RaftVote> {
    vote.map(vote_from_wire).ok_or_else(|| malformed("message: it carries no vote"))
}

pub(crate) fn encode_vote(vote: &RaftVote) -> Bytes {
    vote_to_wire(vote).encode_to_vec().into()
}

pub(crate) fn decode_vote(bytes: &Bytes) -> io::Result<RaftVote> {
    let vote = wire::Vote::decode(bytes.clone()).map_err(|_| malformed("vote"))?;
    Ok(vote_from_wire(&vote))
}

pub(crate) fn encode_log_id(log_id: &RaftLogId) -> Bytes {
    log_id_to_wire(log_id).encode_to_vec().into()
}

pub(crate) fn decode_log_id(bytes: &Bytes) -> io::Result<RaftLogId> {
    let log_id = wire::LogId::decode(bytes.clone()).map_err(|_| malformed("log id"))?;
    Ok(log_id_from_wire(&log_id))
}

fn membership_to_wire(membership: &RaftMembership) -> wire::Membership {
    let configs = membership.get_joint_config().iter();
    let nodes = membership.nodes();
    wire::Membership {
        configs: configs.map(|ids| wire::VoterSet { ids: ids.iter().copied().collect() }).collect(),
        nodes: nodes
            .map(|(id, node)| wire::NodeRecord {
                id: *id,
                name: node.name.clone(),
                peer_address: node.address.clone(),
                disk_id: node.disk_id,
            })
            .collect(),
    }
}

fn membership_from_wire(membership: wire::Membership) -> io::Result<RaftMembership> {
    let configs: Vec<BTreeSet<u64>> =
        membership.configs.into_iter().map(|set| set.ids.into_iter().collect()).collect();
    let nodes: BTreeMap<u64, PeerNode> = membership
        .nodes
        .into_iter()
        .map(|node| {
            (node.id, PeerNode { name: node.name, address: node.peer_address, disk_id: node.disk_id })
        })
        .collect();
    RaftMembership::new(configs, nodes).map_err(|error| malformed(&format!("membership: {error}")))
}

/// A stored membership as the state machine keeps it.
pub(crate) fn encode_membership(membership: &RaftMembership) -> Bytes {
    membership_to_wire(membership).encode_to_vec().into()
}

pub(crate) fn decode_membership(bytes: &Bytes) -> io::Result<RaftMembership> {
    membership_from_wire(wire::Membership::decode(bytes.clone()).map_err(|_| malformed("membership"))?)
}

pub(crate) fn stored_membership_to_wire(stored: &RaftStoredMembership) -> wire::StoredMembership {
    wire::StoredMembership {
        log_id: stored.log_id().as_ref().map(log_id_to_wire),
        membership: Some(membership_to_wire(stored.membership())),
    }
}

pub(crate) fn stored_membership_from_wire(
    stored: wire::StoredMembership,
) -> io::Result<RaftStoredMembership> {
    let membership = membership_from_wire(stored.membership.unwrap_or_default())?;
    Ok(RaftStoredMembership::new(stored.log_id.as_ref().map(log_id_from_wire), membership))
}

/// An entry as it lies in the log and travels to peers.
pub(crate) fn encode_entry(entry: &RaftEntry) -> Bytes {
    if let EntryPayload::Normal(Sealed { entry: Some(bytes), .. }) = &entry.payload {
        return bytes.clone();
    }
    let payload = match &entry.payload {
        EntryPayload::Blank => wire::entry::Payload::Blank(wire::Blank {}),
        EntryPayload::Normal(sealed) => wire::entry::Payload::Command(sealed.command.clone()),
        EntryPayload::Membership(membership) => {
            wire::entry::Payload::Membership(membership_to_wire(membership))
        }
    };
    wire::Entry { log_id: Some(log_id_to_wire(&entry.log_id)), payload: Some(payload) }.encode_to_vec().into()
}

/// Reads an entry; a command's bytes stay where they are and are shared.
pub(crate) fn decode_entry(bytes: &Bytes) -> io::Result<RaftEntry> {
    let entry = wire::Entry::decode(bytes.clone()).map_err(|_| malformed("entry"))?;
    let log_id = entry.log_id.as_ref().ok_or_else(|| malformed("entry: it has no log id"))?;
    let payload: RaftPayload = match entry.payload.ok_or_else(|| malformed("entry: it has no payload"))? {
        wire::entry::Payload::Blank(_) => EntryPayload::Blank,
        wire::entry::Payload::Command(command) => {
            EntryPayload::Normal(Sealed { command, entry: Some(bytes.clone()) })
        }
        wire::entry::Payload::Membership(membership) => {
            EntryPayload::Membership(membership_from_wire(membership)?)
        }
    };
    Ok(openraft::Entry { log_id: log_id_from_wire(log_id), payload })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn log_id(term: u64, node: u64, index: u64) -> RaftLogId {
        RaftLogId::new(LeaderId { term, node_id: node }, index)
    }

    #[test]
    fn entries_come_back_as_they_were() {
        let node = PeerNode { name: "a".into(), address: "127.0.0.1:2380".into(), disk_id: 77 };
        let nodes = BTreeMap::from([(1, node.clone()), (2, node.clone()), (3, node)]);
        let joint = RaftMembership::new(vec![BTreeSet::from([1, 2]), BTreeSet::from([1, 3])], nodes)
            .expect("all voters are nodes");
        for payload in [
            EntryPayload::Blank,
            EntryPayload::Normal(Sealed::new(Bytes::from_static(b"\0command\xff"))),
            EntryPayload::Normal(Sealed::new(Bytes::new())),
            EntryPayload::Membership(joint),
        ] {
            let entry: RaftEntry = openraft::Entry { log_id: log_id(5, 2, 9), payload };
            assert_eq!(decode_entry(&encode_entry(&entry)).expect("our own bytes"), entry);
        }
    }

    #[test]
    fn nonsense_is_refused_and_not_guessed() {
        for bytes in [&b"\xff\xff\xff"[..], b"", b"\x0a\x00"] {
            assert!(decode_entry(&Bytes::copy_from_slice(bytes)).is_err(), "{bytes:?}");
        }
        let stray_voter = wire::Membership { configs: vec![wire::VoterSet { ids: vec![9] }], nodes: vec![] };
        assert!(decode_membership(&stray_voter.encode_to_vec().into()).is_err());
    }

    #[test]
    fn votes_and_positions_come_back() {
        let vote = RaftVote { leader_id: LeaderId { term: 3, node_id: 2 }, committed: true };
        assert_eq!(decode_vote(&encode_vote(&vote)).expect("our own bytes"), vote);
        assert_eq!(decode_log_id(&encode_log_id(&log_id(0, 0, 0))).expect("our own bytes"), log_id(0, 0, 0));
    }
}
