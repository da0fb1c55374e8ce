//! The state as one file for the operator: the copy in parts, then its SHA-256, as etcd sends it. The file's part is
//! padded with zeros to a multiple of 512 bytes, so that the 32 bytes behind it are known to be the hash.

use std::io;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::Stream;
use futures_util::stream;
use ringfence_consensus::SnapshotFile;
use ringfence_proto::etcdserverpb as etcd;
use ringfence_types::limits::SNAPSHOT_CHUNK_BYTES;
use sha2::{Digest, Sha256};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tonic::Status;

use crate::served::Served;
use crate::status::Trouble;

/// The file's part is a multiple of this.
const SECTOR_BYTES: u64 = 512;
const _: () =
    assert!((SNAPSHOT_CHUNK_BYTES as u64).is_multiple_of(SECTOR_BYTES), "only the last part needs padding");

/// Makes a copy of the state and returns the messages that send it.
pub(crate) async fn open(
    served: &Served,
    snapshots: &Arc<Semaphore>,
) -> Result<impl Stream<Item = Result<etcd::SnapshotResponse, Status>> + Send + use<>, Trouble> {
    let permit = Arc::clone(snapshots)
        .try_acquire_owned()
        .map_err(|_| Trouble::Busy("other snapshots are being made or sent; try again when they are done"))?;
    let file = served.node.write_snapshot().await.map_err(Trouble::Snapshot)?;
    let bytes = file.file.len().map_err(Trouble::SnapshotFile)?;
    let sending = Sending {
        file,
        bytes,
        offset: 0,
        hash: Sha256::new(),
        header: Some(served.header_now()),
        version: served.node.status().version,
        _permit: permit,
    };
    let served = served.clone();
    Ok(stream::unfold(Some(sending), move |sending| {
        let served = served.clone();
        async move {
            let sending = sending?;
            let next = match tokio::task::spawn_blocking(move || sending.next()).await {
                Ok(next) => next,
                Err(panicked) => std::panic::resume_unwind(panicked.into_panic()),
            };
            match next {
                Ok((message, rest)) => Some((Ok(message), rest)),
                Err(error) => Some((Err(served.status(&Trouble::SnapshotFile(error))), None)),
            }
        }
    }))
}

/// A copy on its way.
struct Sending {
    file: SnapshotFile,
    /// The file's length.
    bytes: u64,
    /// How much of the file is sent.
    offset: u64,
    hash: Sha256,
    /// Sent once, with the first part.
    header: Option<etcd::ResponseHeader>,
    version: String,
    _permit: OwnedSemaphorePermit,
}

impl Sending {
    /// The next message, and what remains to be sent; nothing after the hash.
    fn next(mut self) -> io::Result<(etcd::SnapshotResponse, Option<Sending>)> {
        let total = self.bytes.next_multiple_of(SECTOR_BYTES);
        let mut message = etcd::SnapshotResponse {
            header: self.header.take(),
            version: self.version.clone(),
            ..Default::default()
        };
        if self.offset == total {
            message.blob = Bytes::copy_from_slice(&self.hash.finalize());
            return Ok((message, None));
        }
        let length = (total - self.offset).min(SNAPSHOT_CHUNK_BYTES as u64) as usize;
        let mut blob = vec![0; length];
        let filled = length.min((self.bytes - self.offset) as usize);
        self.file.file.read_exact_at(&mut blob[..filled], self.offset)?;
        self.hash.update(&blob);
        self.offset += length as u64;
        message.blob = Bytes::from(blob);
        message.remaining_bytes = total - self.offset;
        Ok((message, Some(self)))
    }
}
