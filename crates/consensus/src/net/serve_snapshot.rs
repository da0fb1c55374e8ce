//! The answering side of the snapshot channel: writes the chunks to a file of the state machine's disk and has openraft
//! install it.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use ringfence_disk::{Disk, File, Open};
use ringfence_proto::peers::{
    SnapshotBegin, SnapshotChunk, SnapshotReply, SnapshotRequest, snapshot_reply, snapshot_request,
};
use ringfence_types::limits;

use super::frame::FrameWriter;
use super::handshake::Session;
use super::serve::Door;
use crate::raft::codec;
use crate::raft::state_machine::{SnapshotFile, SnapshotHandle};
use crate::raft::types::{RaftVote, TypeConfig};
use crate::rt;

/// Pause between two signs of life of an installation.
const SIGN_OF_LIFE: Duration = Duration::from_secs(1);

/// A file that is being received.
pub(super) struct Incoming {
    begin: SnapshotBegin,
    name: String,
    file: Arc<dyn File>,
    offset: u64,
}

pub(super) async fn serve(door: &Arc<Door>, session: Session) -> io::Result<()> {
    door.local.quarantine.check_acknowledge().map_err(io::Error::other)?;
    let Session { mut reader, mut writer, .. } = session;
    let mut incoming = None;
    while let Some(request) = reader.next::<SnapshotRequest>().await? {
        let answered = match request.body {
            Some(snapshot_request::Body::Begin(begin)) => Incoming::open(door.shelf.disk().as_ref(), begin)
                .map(|opened| {
                    let offset = opened.offset;
                    incoming = Some(opened);
                    snapshot_reply::Body::Offset(offset)
                }),
            Some(snapshot_request::Body::Chunk(chunk)) => match &mut incoming {
                Some(incoming) => incoming.write(chunk).await.map(snapshot_reply::Body::Offset),
                None => Err(io::Error::other("a chunk before the beginning")),
            },
            Some(snapshot_request::Body::End(end)) => match incoming.take() {
                Some(incoming) => {
                    let vote = codec::required_vote(end.vote.as_ref())?;
                    alive_until(install(door, incoming, vote), &mut writer).await?
                }
                None => Err(io::Error::other("an end before the beginning")),
            },
            None => Err(io::Error::other("an empty message")),
        };
        let body = answered.unwrap_or_else(|error| snapshot_reply::Body::Error(error.to_string()));
        writer.send(&SnapshotReply { body: Some(body) }).await?;
    }
    Ok(())
}

impl Incoming {
    /// Opens the file that a transfer goes to; one of the same number goes on where it broke.
    pub(super) fn open(disk: &dyn Disk, begin: SnapshotBegin) -> io::Result<Incoming> {
        let name = format!("incoming-{:016x}.snapshot", begin.file_id);
        let stale = disk.list()?.into_iter().filter(|other| other.starts_with("incoming-") && *other != name);
        for other in stale {
            disk.remove(&other)?;
        }
        if disk.free_bytes()? < begin.bytes {
            return Err(io::Error::other(format!("no room for a snapshot of {} bytes", begin.bytes)));
        }
        let file = disk.open(&name, Open::Any)?;
        // Files of an earlier process are gone since the start; the last chunk may have been written in part.
        let chunk = limits::SNAPSHOT_CHUNK_BYTES as u64;
        let offset = (file.len()?.min(begin.bytes) / chunk).saturating_sub(1) * chunk;
        Ok(Incoming { offset, begin, name, file })
    }

    /// Writes a chunk and returns where the next one goes.
    pub(super) async fn write(&mut self, chunk: SnapshotChunk) -> io::Result<u64> {
        let (length, room) = (chunk.data.len() as u64, self.begin.bytes - self.offset);
        if chunk.offset != self.offset || length > room {
            return Err(io::Error::other(format!("chunk at {}, expected {}", chunk.offset, self.offset)));
        }
        if crc32c::crc32c(&chunk.data) != chunk.crc {
            return Err(io::Error::other(format!("the chunk at {} is damaged", chunk.offset)));
        }
        let file = self.file.clone();
        rt::blocking(move || file.write_all_at(&chunk.data, chunk.offset))
            .await
            .and_then(|written| written)?;
        self.offset += length;
        Ok(self.offset)
    }
}

/// Says that something is being done until it is done.
async fn alive_until<T>(doing: impl Future<Output = T>, writer: &mut FrameWriter) -> io::Result<T> {
    let mut doing = std::pin::pin!(doing);
    loop {
        tokio::select! {
            biased;
            done = &mut doing => return Ok(done),
            () = rt::sleep(SIGN_OF_LIFE) => {
                writer.send(&SnapshotReply { body: Some(snapshot_reply::Body::Installing(true)) }).await?;
            }
        }
    }
}

async fn install(door: &Door, incoming: Incoming, vote: RaftVote) -> io::Result<snapshot_reply::Body> {
    let Incoming { begin, name, file, offset } = incoming;
    if offset != begin.bytes {
        return Err(io::Error::other(format!("{offset} of {} bytes have arrived", begin.bytes)));
    }
    let syncing = file.clone();
    rt::blocking(move || syncing.sync_data()).await.and_then(|synced| synced)?;
    // A damaged file is an answer to the sender here; found by openraft's install, it would end this node.
    let (store, looked_at) = (door.shelf.store.clone(), name.clone());
    let examined = match rt::blocking(move || store.examine_snapshot(&looked_at)).await? {
        Ok(examined) => Some(examined),
        Err(error) => {
            door.shelf.disk().remove(&name)?;
            return Err(io::Error::other(format!("the snapshot that arrived is not whole: {error}")));
        }
    };
    let meta = openraft::alias::SnapshotMetaOf::<TypeConfig> {
        last_log_id: begin.last_log_id.as_ref().map(codec::log_id_from_wire),
        last_membership: codec::stored_membership_from_wire(begin.membership.unwrap_or_default())?,
    };
    let (id, bytes, meta_sent) = (begin.file_id, begin.bytes, meta.clone());
    let received = SnapshotFile { id, name, bytes, file, meta: meta_sent, examined };
    if begin.rebuild {
        let (shelf, log) = (door.shelf.clone(), door.log.clone());
        // A task of its own: half a rebuilding must not be left behind by a connection that breaks.
        let rebuilding = rt::spawn(async move { shelf.rebuild(&received, &log).await });
        rebuilding.await.map_err(|error| io::Error::other(error.to_string()))??;
        return Ok(snapshot_reply::Body::Installed(codec::vote_to_wire(&vote)));
    }
    let snapshot = SnapshotHandle { file: Some(Arc::new(received)) };
    let response = door
        .raft
        .install_full_snapshot(
            vote,
            openraft::alias::SnapshotOf::<TypeConfig, SnapshotHandle> { meta, snapshot },
        )
        .await
        .map_err(|error| io::Error::other(error.to_string()))?;
    Ok(snapshot_reply::Body::Installed(codec::vote_to_wire(&response.vote)))
}

#[cfg(test)]
mod tests {
    use ringfence_disk::{Fault, SimDisk};
    use ringfence_store::Store;

    use super::*;
    use crate::failures::Failures;
    use crate::raft::quarantine::StateQuarantine;
    use crate::raft::state_machine::Shelf;

    const CHUNK: usize = 700;

    /// Takes all chunks of a transfer, from where the receiver wants them, and makes them durable.
    async fn receive(disk: &dyn Disk, file_id: u64, bytes: &[u8]) -> io::Result<Incoming> {
        let begin = SnapshotBegin { file_id, bytes: bytes.len() as u64, ..SnapshotBegin::default() };
        let mut incoming = Incoming::open(disk, begin)?;
        while incoming.offset < bytes.len() as u64 {
            let rest = &bytes[incoming.offset as usize..];
            let data = bytes::Bytes::copy_from_slice(&rest[..rest.len().min(CHUNK)]);
            let crc = crc32c::crc32c(&data);
            incoming.write(SnapshotChunk { offset: incoming.offset, data, crc }).await?;
        }
        incoming.file.sync_data()?;
        Ok(incoming)
    }

    #[tokio::test]
    async fn a_power_cut_at_any_step_of_a_transfer_leaves_nothing_in_the_way_of_the_next() {
        let bytes: Vec<u8> = (0..5_000_u32).map(|number| number as u8).collect();
        for cut in 1.. {
            let disk = SimDisk::new(cut);
            let state = || disk.subdirectory("state").expect("no fault yet");
            let receiving = state();
            disk.inject(Fault::CrashAtStep(disk.steps() + cut));
            if receive(receiving.as_ref(), 1, &bytes).await.is_ok() && !disk.is_down() {
                assert!(cut > 7, "it was cut off at each chunk");
                return;
            }
            disk.crash();
            let store = Arc::new(Store::open(state(), Default::default()).expect("a fresh state file"));
            let quarantine = StateQuarantine::open(state()).expect("no fault");
            let _shelf =
                Shelf::new(store, state(), Arc::default(), Failures::new(), quarantine).expect("no fault");
            // Another file's remains would be in the way, too: a new leader sends one of its own.
            drop(receive(state().as_ref(), 2, &bytes[..CHUNK]).await.expect("no fault"));
            let arrived = receive(state().as_ref(), 1, &bytes).await.expect("no fault");
            let mut read = vec![0; bytes.len()];
            arrived.file.read_exact_at(&mut read, 0).expect("it is whole");
            assert_eq!(read, bytes, "cut {cut}");
            let names = state().list().expect("no fault");
            let snapshots = names.iter().filter(|name| name.contains(".snapshot"));
            assert_eq!(snapshots.collect::<Vec<_>>(), ["incoming-0000000000000001.snapshot"]);
        }
    }

    #[tokio::test]
    async fn a_long_installation_gives_signs_of_life() {
        let (near, far) = tokio::io::duplex(1 << 10);
        let mut writer = FrameWriter::new(Box::new(near));
        let mut reader = super::super::frame::FrameReader::new(Box::new(far), 1 << 10);
        let installing = rt::sleep(SIGN_OF_LIFE * 5 / 2);
        alive_until(installing, &mut writer).await.expect("the reader is there");
        drop(writer);
        for _ in 0..2 {
            let sign: SnapshotReply = reader.expect().await.expect("a sign");
            assert_eq!(sign.body, Some(snapshot_reply::Body::Installing(true)));
        }
        assert!(reader.next::<SnapshotReply>().await.expect("the end").is_none());
    }

    #[tokio::test]
    async fn a_chunk_that_does_not_follow_is_refused_wherever_it_says_it_lies() {
        let begin = SnapshotBegin { bytes: 8, ..SnapshotBegin::default() };
        let mut incoming = Incoming::open(&SimDisk::new(0), begin).expect("there is room");
        for offset in [1, u64::MAX] {
            let chunk = SnapshotChunk { offset, data: vec![0; 4].into(), crc: 0x4867_4bc7 };
            incoming.write(chunk).await.expect_err("it does not follow");
        }
        let chunk = SnapshotChunk { offset: 0, data: vec![0; 4].into(), crc: 0x4867_4bc7 };
        assert_eq!(incoming.write(chunk).await.expect("it follows"), 4);
    }
}
