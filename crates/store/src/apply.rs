//! Entries of the log, carried out one after the other.
//!
//! Deterministic: what comes out depends on the state and the entries alone, so every member gets the same state and the
//! same outcomes, in whatever batches the entries arrive.

use std::sync::Arc;

use bytes::Bytes;
use ringfence_proto::command::{self, DecodeError};
use ringfence_types::{
    Alarm, Applied, Command, Conditional, Fence, Grant, GuardChange, Index, KeyRange, LeaseCommand, LogId,
    Outcome, Rejection, Reply, Revision, Write,
};

use crate::error::{ReadError, StoreError};
use crate::fences::{self, WriteRef};
use crate::record_layout;
use crate::roster;
use crate::sources::Sources;
use crate::state::State;
use crate::transaction::{Made, Transaction};

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
            Ok(command) => {
                let place = Place { index: entry.log_id.index, entry_bytes: bytes.len() };
                carry_out(sources, state, &command, place)?
            }
            Err(error @ DecodeError::Unknown { .. }) => Err(Rejection::UnknownCommand(error.to_string())),
            Err(error) => {
                return Err(StoreError::Command { index: entry.log_id.index.0, reason: error.to_string() });
            }
        },
    };
    state.position.log_id = Some(entry.log_id);
    // Here and nowhere before: what a session keeps of an answer does not depend on where it was first given.
    Ok(outcome.map(|applied| Applied { index: entry.log_id.index, ..applied }))
}

/// Where a command stands in the log, and how large its entry is.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Place {
    pub index: Index,
    pub entry_bytes: usize,
}

/// Carries out one command.
pub(crate) fn carry_out(
    sources: &Sources,
    state: &mut State,
    command: &Command,
    place: Place,
) -> Result<Outcome, StoreError> {
    if state.is_corrupt() && is_refused_when_corrupt(command) {
        return Ok(Err(Rejection::CorruptCluster));
    }
    match command {
        Command::Put(_) | Command::DeleteRange(_) | Command::Txn(_) => {
            in_transaction(sources, state, place, |transaction| write_keys(transaction, command))
        }
        Command::Conditional(conditional) => conditionally(sources, state, place, conditional),
        Command::Lease { command, clock } => {
            // The clock never goes back, whatever a leader of before may have read.
            state.lease_clock = state.lease_clock.max(*clock);
            match command {
                LeaseCommand::Expire { grants } => expire(sources, state, place, grants),
                command => {
                    let now = state.lease_clock;
                    in_transaction(sources, state, place, |transaction| {
                        transaction.change_leases(command, now, place.index)
                    })
                }
            }
        }
        Command::ChangeGuard(change) => change_guard(sources, state, place, change),
        Command::Resolve { session, sequence, first_incomplete } => {
            in_transaction(sources, state, place, |transaction| {
                transaction.resolve(*session, *sequence, *first_incomplete).map(Reply::Resolved)
            })
        }
        Command::ChangeAlarm { alarm, raised } => Ok(change_alarm(state, *alarm, *raised)),
        Command::Compact { revision } => Ok(compact(state, *revision)),
        Command::PublishMember { id, name, peer_urls, client_urls } => {
            let published = roster::publish(state.members_mut(), *id, name, peer_urls, client_urls);
            Ok(published.map(|()| applied(state, Reply::PublishMember)))
        }
        Command::ChangeMember(change) => {
            let changed = roster::change(state.members_mut(), change, place.index);
            Ok(changed.map(|member| applied(state, Reply::Member(member))))
        }
    }
}

/// Everything that changes keys, or decides who may. Renewals go on, so that no lease ends by what the members differ in.
fn is_refused_when_corrupt(command: &Command) -> bool {
    match command {
        Command::Put(_)
        | Command::DeleteRange(_)
        | Command::Txn(_)
        | Command::Conditional(_)
        | Command::ChangeGuard(_)
        | Command::Resolve { .. }
        | Command::Compact { .. } => true,
        Command::Lease { command, .. } => !matches!(command, LeaseCommand::Renew { .. } | LeaseCommand::Tick),
        Command::ChangeAlarm { .. } | Command::PublishMember { .. } | Command::ChangeMember(_) => false,
    }
}

/// A plain write: guards count for it too.
fn write_keys(transaction: &mut Transaction<'_>, command: &Command) -> Result<Reply, ReadError> {
    match command {
        Command::Put(put) => {
            transaction.check_guards(WriteRef::Range(&KeyRange::single(put.key.clone())), &[])?;
            transaction.put(put).map(Reply::Put)
        }
        Command::DeleteRange(delete) => {
            transaction.check_guards(WriteRef::Range(&delete.range), &[])?;
            transaction.delete_range(delete).map(Reply::DeleteRange)
        }
        Command::Txn(txn) => {
            transaction.check_guards(WriteRef::Txn(txn), &[])?;
            transaction.txn(txn).map(Reply::Txn)
        }
        other => unreachable!("no plain write of keys: {other:?}"),
    }
}

/// In order: the session, fences and guards, then the write itself.
fn conditionally(
    sources: &Sources,
    state: &mut State,
    place: Place,
    conditional: &Conditional,
) -> Result<Outcome, StoreError> {
    let Conditional { write, fences, session } = conditional;
    if let Some(stamp) = session {
        match refusable(Transaction::new(sources, state).recall(stamp))? {
            Ok(None) => {}
            Ok(Some(answered)) => return Ok(answered),
            Err(rejection) => return Ok(Err(rejection)),
        }
    }
    let mut transaction = Transaction::new(sources, state);
    let written = fenced(&mut transaction, write, fences);
    let outcome = match refusable(written)? {
        Ok(reply) => Ok(Applied { revision: transaction.revision(), index: Index(0), reply }),
        Err(rejection) => {
            // Of a refused write nothing is left but its answer.
            transaction = Transaction::new(sources, state);
            Err(rejection)
        }
    };
    if let Some(stamp) = session {
        refusable(transaction.keep_answer(stamp, &outcome))?
            .unwrap_or_else(|rejection| unreachable!("the session was open a moment ago: {rejection}"));
    }
    let made = transaction.finish();
    commit(sources, state, place, made)?;
    Ok(outcome)
}

fn fenced(transaction: &mut Transaction<'_>, write: &Write, fences: &[Fence]) -> Result<Reply, ReadError> {
    transaction.check_fences(fences)?;
    fences::touched(write, |touched| transaction.check_guards(touched, fences))?;
    let reply = match write {
        Write::Put(put) => transaction.put(put).map(Reply::Put),
        Write::DeleteRange(delete) => transaction.delete_range(delete).map(Reply::DeleteRange),
        Write::Txn(txn) => transaction.txn(txn).map(Reply::Txn),
    }?;
    transaction.enter_candidates()?;
    Ok(reply)
}

/// Ends those of the leases that are due, each at a revision of its own.
fn expire(
    sources: &Sources,
    state: &mut State,
    place: Place,
    grants: &[Grant],
) -> Result<Outcome, StoreError> {
    let mut expired = Vec::new();
    for grant in grants {
        let mut transaction = Transaction::new(sources, state);
        let Some(lease) = transaction.due(*grant, state.lease_clock)? else { continue };
        refusable(transaction.end_lease(&lease))?
            .unwrap_or_else(|rejection| unreachable!("nothing refuses the end of a lease: {rejection}"));
        let made = transaction.finish();
        commit(sources, state, place, made)?;
        expired.push(*grant);
    }
    Ok(Ok(applied(state, Reply::LeasesExpired(expired))))
}

fn change_guard(
    sources: &Sources,
    state: &mut State,
    place: Place,
    change: &GuardChange,
) -> Result<Outcome, StoreError> {
    let mut transaction = Transaction::new(sources, state);
    match refusable(transaction.change_guard(change))? {
        Ok(guards) => {
            let made = transaction.finish();
            commit(sources, state, place, made)?;
            state.guards = guards;
            Ok(Ok(applied(state, Reply::GuardChanged)))
        }
        Err(rejection) => Ok(Err(rejection)),
    }
}

/// Carries out a command that either makes all of its changes or none.
fn in_transaction(
    sources: &Sources,
    state: &mut State,
    place: Place,
    run: impl FnOnce(&mut Transaction<'_>) -> Result<Reply, ReadError>,
) -> Result<Outcome, StoreError> {
    let mut transaction = Transaction::new(sources, state);
    let reply = run(&mut transaction).and_then(|reply| {
        transaction.enter_candidates()?;
        Ok(reply)
    });
    match refusable(reply)? {
        Ok(reply) => {
            let made = transaction.finish();
            commit(sources, state, place, made)?;
            Ok(Ok(applied(state, reply)))
        }
        Err(rejection) => Ok(Err(rejection)),
    }
}

/// Parts a refusal, which is an answer, from a failure, which is the end.
fn refusable<T>(result: Result<T, ReadError>) -> Result<Result<T, Rejection>, StoreError> {
    match result {
        Ok(answer) => Ok(Ok(answer)),
        Err(ReadError::Rejected(rejection)) => Ok(Err(rejection)),
        Err(ReadError::Store(error)) => Err(error),
    }
}

/// Makes what a command has made a part of the state.
fn commit(sources: &Sources, state: &mut State, place: Place, made: Made) -> Result<(), StoreError> {
    let Made { changes, replaced, records } = made;
    for (key, value) in records {
        let before = match record_layout::is_lease(&key) {
            true => sources.leases.change(&key, value.as_ref())?,
            false => sources.record(None, &key, u64::MAX)?,
        };
        if before == value {
            continue;
        }
        state.account_record(&key, before.as_ref(), value.as_ref());
        sources.head.insert_record(key, place.index.0, value);
    }
    if !changes.is_empty() {
        for (change, replaced) in changes.iter().zip(&replaced) {
            state.account(change, replaced.as_ref());
        }
        sources.head.insert(changes, place.entry_bytes);
        state.revision = state.revision.next();
    }
    Ok(())
}

fn applied(state: &State, reply: Reply) -> Applied {
    Applied { revision: state.revision, index: Index(0), reply }
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
