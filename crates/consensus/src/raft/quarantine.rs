//! State quarantine: a node whose log is good and whose state is not.
//!
//! Such a node votes and acknowledges as ever, since both need the log alone. It neither leads nor serves, and carries out
//! nothing: entries that are committed are only counted, until a state that another member vouches for has been put in the
//! place of its own (see `rebuild`). A file beside the state keeps that from being forgotten by a restart.

use std::io;
use std::sync::Arc;

use bytes::Bytes;
use prost::Message;
use ringfence_disk::{Disk, read_whole, replace_whole};
use ringfence_proto::peers as wire;
use ringfence_store::Position;
use ringfence_types::LogId;
use ringfence_wal::Log;

use super::codec;
use super::types::{log_id_from_raft, log_id_to_raft};
use crate::rt::{self, watch};

/// Says that the state beside it is not to be believed, and why.
const MARKER: &str = "quarantine";
/// The newest membership that the state has seen, for the day on which the state itself cannot be read any more.
const MEMBERSHIP: &str = "membership";
const FILE_BYTES_MAX: u64 = 1 << 20;

/// What is known of a state that is not to be believed.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Quarantined {
    /// What is wrong, in plain words.
    pub(crate) reason: String,
    /// When this process came to know.
    pub(crate) since: rt::Instant,
    /// What the lost state held, as far as the log needs it to go on; none where there is a state, if only a bad one.
    pub(crate) lost: Option<Position>,
}

/// Whether a node is in state quarantine.
#[derive(Debug)]
pub(crate) struct StateQuarantine {
    disk: Arc<dyn Disk>,
    now: watch::Sender<Option<Quarantined>>,
}

impl StateQuarantine {
    /// Reads what an earlier process found out about the state on `disk`.
    pub(crate) fn open(disk: Arc<dyn Disk>) -> io::Result<StateQuarantine> {
        let known =
            read_whole(disk.as_ref(), MARKER, FILE_BYTES_MAX)?.map(|bytes| decode(&bytes)).transpose()?;
        if let Some(known) = &known {
            tracing::warn!("state quarantine goes on: {}", known.reason);
        }
        Ok(StateQuarantine { disk, now: watch::Sender::new(known) })
    }

    /// Whether the state is not to be believed.
    pub(crate) fn is_on(&self) -> bool {
        self.now.borrow().is_some()
    }

    /// What is known, if the state is not to be believed.
    pub(crate) fn now(&self) -> Option<Quarantined> {
        self.now.borrow().clone()
    }

    /// Nothing while the state is sound, else the reason why it is not used.
    pub(crate) fn check(&self) -> Result<(), String> {
        match self.now.borrow().as_ref() {
            Some(known) => Err(format!("this node is in state quarantine: {}", known.reason)),
            None => Ok(()),
        }
    }

    /// To be told of a change.
    pub(crate) fn subscribe(&self) -> watch::Receiver<Option<Quarantined>> {
        self.now.subscribe()
    }

    /// From now on the state is not believed, durably. The first reason is the one that counts.
    pub(crate) fn enter(&self, reason: &str, lost: Option<Position>) -> io::Result<()> {
        let mut known = Quarantined { reason: reason.to_owned(), since: rt::now(), lost };
        // Believed no longer even if that cannot be written down.
        let is_first = self.now.send_if_modified(|now| {
            let before = now.take();
            let is_first = before.is_none();
            if let Some(before) = before {
                known = Quarantined { lost: known.lost.take().or(before.lost), ..before };
            }
            *now = Some(known.clone());
            is_first
        });
        if is_first {
            tracing::error!(
                "state quarantine: {reason}; this node votes, but neither leads nor serves, until its state is rebuilt"
            );
        }
        replace_whole(self.disk.as_ref(), MARKER, &encode(&known)?)
    }

    /// The state has been replaced by a good one.
    pub(crate) fn leave(&self) -> io::Result<()> {
        self.disk.remove(MARKER)?;
        self.disk.sync_dir()?;
        let known = self.now.send_replace(None);
        let time = known.map_or(0.0, |known| rt::since(known.since).as_secs_f64());
        tracing::warn!("state quarantine is over after {time:.1} s: the state is rebuilt");
        Ok(())
    }
}

fn encode(known: &Quarantined) -> io::Result<Vec<u8>> {
    let lost = known.lost.as_ref().map(|position| -> io::Result<wire::LostState> {
        let applied = position.log_id.map(log_id_to_wire);
        let membership = position.membership.as_ref().map(membership_to_wire).transpose()?;
        Ok(wire::LostState { applied, membership })
    });
    Ok(wire::StateQuarantine { reason: known.reason.clone(), lost: lost.transpose()? }.encode_to_vec())
}

fn decode(bytes: &[u8]) -> io::Result<Quarantined> {
    let known = wire::StateQuarantine::decode(bytes).map_err(malformed)?;
    let lost = known.lost.map(|lost| Position {
        log_id: lost.applied.as_ref().map(log_id_from_wire),
        membership: lost.membership.map(membership_from_wire),
    });
    Ok(Quarantined { reason: known.reason, since: rt::now(), lost })
}

/// Writes down the membership that a state has, unless that is known already.
pub(crate) fn keep_membership(disk: &dyn Disk, position: &Position) -> io::Result<()> {
    let Some(membership) = &position.membership else { return Ok(()) };
    let bytes = membership_to_wire(membership)?.encode_to_vec();
    if read_whole(disk, MEMBERSHIP, FILE_BYTES_MAX)?.is_some_and(|known| known == bytes) {
        return Ok(());
    }
    replace_whole(disk, MEMBERSHIP, &bytes)
}

/// The membership that was written down last.
pub(crate) fn kept_membership(disk: &dyn Disk) -> io::Result<Option<StateMembership>> {
    let Some(bytes) = read_whole(disk, MEMBERSHIP, FILE_BYTES_MAX)? else { return Ok(None) };
    Ok(Some(membership_from_wire(wire::StoredMembership::decode(bytes.as_slice()).map_err(malformed)?)))
}

/// What a state held that cannot be read any more, as far as the log needs it: where the log begins, and who the members
/// are. None where the node would not know whom to ask for another state.
pub(crate) fn lost_state(disk: &dyn Disk, log: &Log) -> io::Result<Option<Position>> {
    let Some(membership) = kept_membership(disk)? else { return Ok(None) };
    if codec::decode_membership(&membership.1)?.voter_ids().count() < 2 {
        return Ok(None);
    }
    let purged = log.purged().map(|(_, mark)| codec::decode_log_id(&mark)).transpose()?;
    let log_id = purged.as_ref().map(log_id_from_raft);
    // A membership that still stands in the log is found there.
    let membership = Some(membership).filter(|(set_by, _)| *set_by <= log_id);
    Ok(Some(Position { log_id, membership }))
}

/// A membership in the form in which a state has it.
type StateMembership = (Option<LogId>, Bytes);

fn membership_to_wire((log_id, membership): &StateMembership) -> io::Result<wire::StoredMembership> {
    let membership = wire::Membership::decode(membership.clone()).map_err(malformed)?;
    Ok(wire::StoredMembership { log_id: log_id.map(log_id_to_wire), membership: Some(membership) })
}

fn membership_from_wire(stored: wire::StoredMembership) -> StateMembership {
    let membership = stored.membership.unwrap_or_default();
    (stored.log_id.as_ref().map(log_id_from_wire), membership.encode_to_vec().into())
}

fn log_id_to_wire(log_id: LogId) -> wire::LogId {
    codec::log_id_to_wire(&log_id_to_raft(log_id))
}

fn log_id_from_wire(log_id: &wire::LogId) -> LogId {
    log_id_from_raft(&codec::log_id_from_wire(log_id))
}

fn malformed(error: prost::DecodeError) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}

#[cfg(test)]
mod tests {
    use ringfence_disk::SimDisk;
    use ringfence_types::{Index, NodeId, Term};

    use super::*;

    fn disk() -> Arc<dyn Disk> {
        Arc::new(SimDisk::new(1))
    }

    fn position() -> Position {
        let log_id = LogId { term: Term(3), node: NodeId(2), index: Index(77) };
        let voters = wire::VoterSet { ids: vec![1, 2] };
        let membership = wire::Membership { configs: vec![voters], nodes: Vec::new() }.encode_to_vec();
        Position { log_id: Some(log_id), membership: Some((Some(log_id), membership.into())) }
    }

    #[test]
    fn a_restart_does_not_forget_that_the_state_is_not_to_be_believed() {
        let disk = disk();
        let quarantine = StateQuarantine::open(disk.clone()).expect("the disk works");
        assert!(!quarantine.is_on() && quarantine.check().is_ok());
        quarantine.enter("the first reason", Some(position())).expect("the disk works");
        quarantine.enter("another reason", None).expect("the disk works");
        let found = StateQuarantine::open(disk.clone()).expect("the disk works");
        let known = found.now().expect("it is on");
        assert_eq!((known.reason.as_str(), known.lost), ("the first reason", Some(position())));
        assert!(found.check().expect_err("it is on").contains("the first reason"));
        found.leave().expect("the disk works");
        assert!(!found.is_on());
        assert!(!StateQuarantine::open(disk).expect("the disk works").is_on());
    }

    #[test]
    fn the_membership_outlives_the_state() {
        let disk = disk();
        assert_eq!(kept_membership(disk.as_ref()).expect("the disk works"), None);
        keep_membership(disk.as_ref(), &Position::default()).expect("the disk works");
        assert_eq!(kept_membership(disk.as_ref()).expect("the disk works"), None);
        keep_membership(disk.as_ref(), &position()).expect("the disk works");
        assert_eq!(kept_membership(disk.as_ref()).expect("the disk works"), position().membership);
    }
}
