//! Entries of the log, carried out one after the other.
//!
//! Deterministic: what comes out depends on the state and the entries alone, so every member gets the same state and the
//! same outcomes, in whatever batches the entries arrive.

use std::sync::Arc;

use bytes::Bytes;
use ringfence_proto::command::{self, DecodeError};
use ringfence_types::{Alarm, Applied, Command, Index, LogId, Outcome, Rejection, Reply, Revision};

use crate::error::{ReadError, StoreError};
use crate::roster;
use crate::sources::Sources;
use crate::state::State;
use crate::transaction::Transaction;

/// An entry of the log.
#[derive(Debug, Clone)]
pub struct Entry {
    /// Its identity.
    pub log_id: LogId,
    /// What it carries.
    pub payload: Payload,
}

/// What an entry of the log carries.
#[derive(Debug, Clone)]
pub enum Payload {
    /// Nothing.
    Blank,
    /// An encoded command.
    Command(Bytes),
    /// A membership, in bytes that the store keeps and does not look into.
    Membership(Bytes),
}

/// Carries out one entry on `state`, whose rows are in `sources`.
pub(crate) fn entry(sources: &Sources, state: &mut State, entry: &Entry) -> Result<Outcome, StoreError> {
    let expected = state.position.log_id.map_or(0, |log_id| log_id.index.0 + 1);
    assert_eq!(entry.log_id.index.0, expected, "apply takes exactly the next entry of the log");
    assert!(
        state.position.log_id.is_none_or(|log_id| log_id < entry.log_id),
        "the leaderships of applied entries never fall"
    );
    let outcome = match &entry.payload {
        Payload::Blank => Ok(applied(state, Reply::Blank)),
        Payload::Membership(membership) => {
            state.position.membership = Some((Some(entry.log_id), membership.clone()));
            Ok(applied(state, Reply::Blank))
        }
        Payload::Command(bytes) => match command::decode(bytes) {
            Ok(command) => carry_out(sources, state, &command, entry.log_id.index, bytes.len())?,
            Err(error @ DecodeError::Unknown { .. }) => Err(Rejection::UnknownCommand(error.to_string())),
            Err(error) => {
                return Err(StoreError::Command { index: entry.log_id.index.0, reason: error.to_string() });
            }
        },
    };
    state.position.log_id = Some(entry.log_id);
    Ok(outcome)
}

/// Carries out one command that stands at `index`, in `entry_bytes` bytes.
pub(crate) fn carry_out(
    sources: &Sources,
    state: &mut State,
    command: &Command,
    index: Index,
    entry_bytes: usize,
) -> Result<Outcome, StoreError> {
    match command {
        Command::ChangeAlarm { alarm, raised } => return Ok(change_alarm(state, *alarm, *raised)),
        Command::Put(_) | Command::DeleteRange(_) | Command::Txn(_) | Command::Compact { .. }
            if state.is_corrupt() =>
        {
            return Ok(Err(Rejection::CorruptCluster));
        }
        Command::Compact { revision } => return Ok(compact(state, *revision)),
        Command::PublishMember { id, name, peer_urls, client_urls } => {
            let published = roster::publish(state.members_mut(), *id, name, peer_urls, client_urls);
            return Ok(published.map(|()| applied(state, Reply::PublishMember)));
        }
        Command::ChangeMember(change) => {
            let changed = roster::change(state.members_mut(), change, index);
            return Ok(changed.map(|member| applied(state, Reply::Member(member))));
        }
        Command::Put(_) | Command::DeleteRange(_) | Command::Txn(_) => {}
        _ => unimplemented!(),
    }
    let mut transaction = Transaction::new(sources, state);
    let reply = match command {
        Command::Put(put) => transaction.put(put).map(Reply::Put),
        Command::DeleteRange(delete) => transaction.delete_range(delete).map(Reply::DeleteRange),
        Command::Txn(txn) => transaction.txn(txn).map(Reply::Txn),
        Command::Compact { .. }
        | Command::ChangeAlarm { .. }
        | Command::PublishMember { .. }
        | Command::ChangeMember(_)
        | _ => {
            unreachable!("answered above")
        }
    };
    let reply = match reply {
        Ok(reply) => reply,
        Err(ReadError::Rejected(rejection)) => return Ok(Err(rejection)),
        Err(ReadError::Store(error)) => return Err(error),
    };
    let (changes, replaced) = transaction.into_changes();
    if !changes.is_empty() {
        for (change, replaced) in changes.iter().zip(&replaced) {
            state.account(change, replaced.as_ref());
        }
        sources.head.insert(changes, entry_bytes);
        state.revision = state.revision.next();
    }
    Ok(Ok(applied(state, reply)))
}

fn applied(state: &State, reply: Reply) -> Applied {
    Applied { revision: state.revision, reply }
}

/// The answer tells the alarms that are raised then.
fn change_alarm(state: &mut State, alarm: Alarm, raised: bool) -> Outcome {
    let alarms = Arc::make_mut(&mut state.alarms);
    if raised {
        alarms.insert(alarm);
    } else {
        alarms.remove(&alarm);
    }
    let alarms = alarms.iter().copied().collect();
    Ok(applied(state, Reply::Alarms(alarms)))
}

fn compact(state: &mut State, revision: Revision) -> Outcome {
    if revision <= state.compacted {
        return Err(Rejection::Compacted { oldest: state.compacted });
    }
    if revision > state.revision {
        return Err(Rejection::FutureRevision { current: state.revision });
    }
    state.compacted = revision;
    Ok(applied(state, Reply::Compact))
}
