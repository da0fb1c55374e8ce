//! The sending side of the snapshot channel: a file in chunks with offsets and checksums, at a set rate, resumed where it
//! broke. It goes to members whose entries are no longer in the log, as openraft asks, and to members whose state is not to
//! be believed.

use std::sync::Arc;
use std::time::Duration;

use openraft::errors::{NetworkError, StreamingError, Unreachable};
use openraft::raft::SnapshotResponse;
use ringfence_proto::peers::{self as wire, Channel, SnapshotReply, snapshot_reply, snapshot_request};
use ringfence_types::{NodeId, limits};

use super::frame::FrameReader;
use super::handshake::Session;
use super::links::Links;
use super::transfers::Turn;
use crate::raft::codec;
use crate::raft::state_machine::{Shelf, SnapshotFile, SnapshotHandle};
use crate::raft::types::{RaftVote, TypeConfig};
use crate::rt;

/// A peer that says nothing for this long while it owes an answer is dead, or the connection to it is.
const SILENCE: Duration = Duration::from_secs(5);

/// Chunks that are sent before the first of them is answered.
const CHUNKS_UNDER_WAY: u64 = 8;

type Snapshot = openraft::alias::SnapshotOf<TypeConfig, SnapshotHandle>;
type Failed = StreamingError<TypeConfig>;

/// Sends a snapshot. A handle without a file has one made and fails: openraft's next try finds the file.
pub(super) async fn send(
    links: &Links,
    shelf: &Arc<Shelf>,
    target: NodeId,
    address: &str,
    vote: RaftVote,
    snapshot: Snapshot,
) -> Result<SnapshotResponse<TypeConfig>, Failed> {
    let Some(file) = snapshot.snapshot.file.clone() else {
        tracing::info!("node {target} needs a snapshot: its entries are no longer in the log");
        shelf.make_file().await.map_err(|error| failed(&error.to_string()))?;
        return Err(failed("the snapshot's file had to be made first"));
    };
    let sent = transfer(links, shelf, target, address, vote, &file, false).await;
    sent.map(|vote| SnapshotResponse { vote })
}

/// Makes a snapshot and sends it to a member in state quarantine, which puts it in the place of its state.
pub(crate) async fn send_rebuild(
    links: &Links,
    shelf: &Arc<Shelf>,
    target: NodeId,
    address: &str,
    vote: RaftVote,
) -> Result<(), String> {
    let file = shelf.make_file().await.map_err(|error| error.to_string())?;
    let sent = transfer(links, shelf, target, address, vote, &file, true).await;
    sent.map(drop).map_err(|error| error.to_string())
}

/// Sends a file. Returns the receiver's vote.
async fn transfer(
    links: &Links,
    shelf: &Arc<Shelf>,
    target: NodeId,
    address: &str,
    vote: RaftVote,
    file: &Arc<SnapshotFile>,
    rebuild: bool,
) -> Result<RaftVote, Failed> {
    let _pinned = shelf.pin(file);
    let opening = super::mux::open(links.network.as_ref(), &links.local, Channel::Snapshot, target, address);
    let mut session = opening.await.map_err(|error| unreachable(&error.to_string()))?;
    // Only now: whoever cannot be reached keeps nobody waiting.
    let turn = links.transfers.turn(target, file.bytes).await;
    let begin = wire::SnapshotBegin {
        vote: Some(codec::vote_to_wire(&vote)),
        last_log_id: file.meta.last_log_id.as_ref().map(codec::log_id_to_wire),
        membership: Some(codec::stored_membership_to_wire(&file.meta.last_membership)),
        file_id: file.id,
        bytes: file.bytes,
        rebuild,
    };
    let offset = expect_offset(ask(&mut session, snapshot_request::Body::Begin(begin)).await?)?;
    tracing::info!("sending a snapshot of {} bytes to node {target}, from byte {offset} on", file.bytes);
    let began = rt::now();
    turn.note(offset);
    send_chunks(&mut session, &turn, file, offset).await?;
    tracing::info!("node {target} has all of the snapshot after {:.1} s", rt::since(began).as_secs_f64());
    let end = wire::SnapshotEnd { vote: Some(codec::vote_to_wire(&vote)) };
    let ended = install(&mut session, snapshot_request::Body::End(end)).await;
    // The member may have installed it although its answer is lost.
    shelf.snapshot_ended.notify_one();
    match ended? {
        snapshot_reply::Body::Installed(vote) => {
            tracing::info!(
                "node {target} has installed the snapshot, {:.1} s after it began to be sent",
                rt::since(began).as_secs_f64()
            );
            Ok(codec::vote_from_wire(&vote))
        }
        refusal @ snapshot_reply::Body::Error(_) => {
            // It has all chunks as they were read here, so what it finds wrong is wrong with the file.
            shelf.discard(file);
            Err(unexpected(&refusal))
        }
        other => Err(unexpected(&other)),
    }
}

/// Sends what the member does not have yet. Some chunks are under way at once, so that neither side waits for the other's disk;
/// each is answered with where the next one goes.
async fn send_chunks(
    session: &mut Session,
    turn: &Turn<'_>,
    file: &Arc<SnapshotFile>,
    from: u64,
) -> Result<(), Failed> {
    let (mut sent, mut taken) = (from, from);
    while taken < file.bytes {
        if sent < file.bytes && sent - taken < CHUNKS_UNDER_WAY * limits::SNAPSHOT_CHUNK_BYTES as u64 {
            let length = (file.bytes - sent).min(limits::SNAPSHOT_CHUNK_BYTES as u64);
            turn.pay(length).await;
            let chunk = read_chunk(file, sent, length as usize).await?;
            tell(session, snapshot_request::Body::Chunk(chunk)).await?;
            sent += length;
        } else {
            let next = expect_offset(answer(&mut session.reader, SILENCE).await?)?;
            if next <= taken || next > sent {
                return Err(failed(&format!("the peer wants byte {next}, of {taken} to {sent} under way")));
            }
            taken = next;
            turn.note(taken);
        }
    }
    Ok(())
}

async fn read_chunk(
    file: &Arc<SnapshotFile>,
    offset: u64,
    length: usize,
) -> Result<wire::SnapshotChunk, Failed> {
    let source = file.clone();
    let read = move || {
        let mut data = vec![0; length];
        source.file.read_exact_at(&mut data, offset).map(|()| data)
    };
    let data = rt::blocking(read).await.and_then(|read| read).map_err(|error| failed(&error.to_string()))?;
    let crc = crc32c::crc32c(&data);
    Ok(wire::SnapshotChunk { offset, data: data.into(), crc })
}

async fn ask(session: &mut Session, body: snapshot_request::Body) -> Result<snapshot_reply::Body, Failed> {
    tell(session, body).await?;
    answer(&mut session.reader, SILENCE).await
}

async fn tell(session: &mut Session, body: snapshot_request::Body) -> Result<(), Failed> {
    let request = wire::SnapshotRequest { body: Some(body) };
    let sent = rt::timeout(SILENCE, session.writer.send(&request)).await;
    sent.ok_or_else(|| failed("the peer takes no bytes"))?.map_err(|error| failed(&error.to_string()))
}

/// Has the peer install what it has, however long that takes, as long as it says that it is at it. A peer that lost its
/// power in the middle would say nothing for ever, and its connection would never break.
async fn install(session: &mut Session, end: snapshot_request::Body) -> Result<snapshot_reply::Body, Failed> {
    let mut reply = ask(session, end).await?;
    while matches!(reply, snapshot_reply::Body::Installing(_)) {
        reply = answer(&mut session.reader, SILENCE).await?;
    }
    Ok(reply)
}

async fn answer(reader: &mut FrameReader, patience: Duration) -> Result<snapshot_reply::Body, Failed> {
    let reply = rt::timeout(patience, reader.expect::<SnapshotReply>()).await;
    let reply = reply.ok_or_else(|| failed("the peer is silent"))?;
    reply.map_err(|error| failed(&error.to_string()))?.body.ok_or_else(|| failed("an empty answer"))
}

fn expect_offset(body: snapshot_reply::Body) -> Result<u64, Failed> {
    match body {
        snapshot_reply::Body::Offset(offset) => Ok(offset),
        other => Err(unexpected(&other)),
    }
}

fn unexpected(body: &snapshot_reply::Body) -> Failed {
    match body {
        snapshot_reply::Body::Error(reason) => unreachable(reason),
        _ => unreachable("the answer does not fit the question"),
    }
}

fn failed(reason: &str) -> Failed {
    StreamingError::Network(NetworkError::from_string(reason))
}

fn unreachable(reason: &str) -> Failed {
    StreamingError::Unreachable(Unreachable::from_string(reason))
}
