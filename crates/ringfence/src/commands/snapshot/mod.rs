//! `ringfence snapshot`: the whole state as one file, as etcd sends it: the file's part, padded to a multiple of 512 bytes,
//! then its SHA-256.

mod file;

use std::fs::{self, File};
use std::io::{BufWriter, Write as _};
use std::path::{Path, PathBuf};

use clap::Subcommand;
use ringfence_disk::OsDisk;
use ringfence_store::snapshot_file::{self, Summary};
use ringfence_store::{STATE_FILE, StoreError};
use serde_json::json;
use sha2::{Digest as _, Sha256};

use crate::cli::Shared;
use crate::commands::serve::data_dir;
use crate::exit::{Exit, Failure};
use crate::output::{Output, print_json, print_line};
use crate::units::ByteSize;
use file::{SNAPSHOT, SnapshotDisk};

/// Where in its data directory a node keeps its state.
pub(crate) const STATE_DIRECTORY: &str = "state";

/// Save, check and restore the whole state.
#[derive(Debug, Subcommand)]
pub(crate) enum Snapshot {
    /// Save the state of one node to a file, which appears only once it is complete, checked and durable.
    Save {
        /// The file.
        file: PathBuf,
    },
    /// Check a file that was saved, all of it, and show what it holds.
    Status {
        /// The file.
        file: PathBuf,
    },
    /// Begin a new cluster from a file that was saved. Do this for every member of the new cluster, with the same file and
    /// a fresh directory each; then start them with --initial-cluster. The new cluster's revisions begin far above the old
    /// ones, so that nothing that was derived from them is ever given twice.
    Restore {
        /// The file.
        file: PathBuf,
        /// The fresh data directory [default: ringfence-data/NAME].
        #[arg(long, value_name = "DIR")]
        data_dir: Option<PathBuf>,
        /// The member's name.
        #[arg(long, default_value = "node1")]
        name: String,
    },
}

impl Snapshot {
    pub(crate) async fn run(self, shared: &Shared) -> Result<(), Failure> {
        match self {
            Snapshot::Save { file } => save(shared, &file).await,
            Snapshot::Status { file } => show(shared.output, "holds", &status(&file)?),
            Snapshot::Restore { file, data_dir, name } => {
                let data_dir = data_dir.unwrap_or_else(|| Path::new("ringfence-data").join(&name));
                show(shared.output, "restored", &restore(&file, &data_dir)?)?;
                if shared.output == Output::Table {
                    print_line(&format!(
                        "when all members are restored, start each: ringfence serve --name {name} --data-dir {} \
                         --initial-cluster ...",
                        data_dir.display()
                    ))?;
                }
                Ok(())
            }
        }
    }
}

async fn save(shared: &Shared, path: &Path) -> Result<(), Failure> {
    let broken = |message: String| {
        Failure::new(Exit::Unavailable, format!("the snapshot broke off: {message}"))
            .next("run the same command again")
    };
    let mut stream = shared.client()?.snapshot().await?;
    let part = path.with_extension("part");
    let mut writer = BufWriter::with_capacity(1 << 20, File::create(&part)?);
    let mut hash = TrailingHash::default();
    loop {
        let next =
            tokio::time::timeout(shared.timeout().max(file::PIECE_TIMEOUT_MIN), stream.message()).await;
        let message = next.map_err(|_| broken("the node fell silent".to_owned()))?;
        let Some(piece) = message.map_err(|status| broken(status.message().to_owned()))? else { break };
        hash.update(&piece.blob);
        writer.write_all(&piece.blob)?;
    }
    let bytes = hash.finish().map_err(broken)?;
    writer.into_inner().map_err(std::io::IntoInnerError::into_error)?.sync_all()?;
    fs::rename(&part, path)?;
    match shared.output {
        Output::Json => print_json(&json!({ "file": path, "bytes": bytes })),
        Output::Plain => print_line(&bytes.to_string()),
        Output::Table => print_line(&format!("saved {} to {}", ByteSize(bytes), path.display())),
    }
}

fn status(path: &Path) -> Result<Summary, Failure> {
    let disk = SnapshotDisk::open(path)?;
    snapshot_file::inspect(&disk, SNAPSHOT).map_err(|error| unusable(path, &error))
}

fn restore(path: &Path, data_dir: &Path) -> Result<Summary, Failure> {
    let source = SnapshotDisk::open(path)?;
    let _lock = data_dir::lock(data_dir)?;
    let target = OsDisk::open(data_dir)?;
    let names = ringfence_disk::Disk::list(target.as_ref())?;
    if names.iter().any(|name| name != data_dir::LOCK) || has_folders(data_dir)? {
        return Err(Failure::new(Exit::Identity, format!("{} is not empty", data_dir.display()))
            .next("restore into a fresh directory: give another --data-dir"));
    }
    let state = ringfence_disk::Disk::subdirectory(target.as_ref(), STATE_DIRECTORY)?;
    snapshot_file::restore(&source, SNAPSHOT, state.as_ref()).map_err(|error| unusable(path, &error))
}

fn has_folders(path: &Path) -> Result<bool, Failure> {
    for entry in fs::read_dir(path)? {
        if entry?.file_type()?.is_dir() {
            return Ok(true);
        }
    }
    Ok(false)
}

fn unusable(path: &Path, error: &StoreError) -> Failure {
    Failure::new(Exit::StateCorrupt, format!("{} is no usable snapshot: {error}", path.display()))
        .next("save a new one; it is checked while it is being saved")
}

fn show(output: Output, verb: &str, summary: &Summary) -> Result<(), Failure> {
    let hash = format!("{:032x}", summary.hash.0);
    match output {
        Output::Json => print_json(&json!({
            "revision": summary.revision.0,
            "compacted": summary.compacted.0,
            "keys": summary.keys,
            "versions": summary.versions,
            "hash": hash,
            "bytes": summary.bytes,
        })),
        Output::Plain => print_line(&hash),
        Output::Table => {
            print_line(&format!(
                "{verb} {} keys in {} versions at revision {}, {}",
                summary.keys,
                summary.versions,
                summary.revision,
                ByteSize(summary.bytes)
            ))?;
            print_line(&format!("state hash {hash} ({STATE_FILE}, checked row by row)"))
        }
    }
}

/// Checks a stream whose last 32 bytes are the SHA-256 of all before, without knowing beforehand where it ends.
#[derive(Default)]
struct TrailingHash {
    hash: Sha256,
    /// The newest bytes, which may be the hash.
    tail: Vec<u8>,
    bytes: u64,
}

impl TrailingHash {
    fn update(&mut self, piece: &[u8]) {
        self.tail.extend_from_slice(piece);
        let before = self.tail.len().saturating_sub(file::HASH_BYTES);
        self.hash.update(&self.tail[..before]);
        self.bytes += before as u64;
        self.tail.drain(..before);
    }

    /// The number of bytes before the hash, if it is right.
    fn finish(self) -> Result<u64, String> {
        if self.tail.len() < file::HASH_BYTES
            || !self.bytes.is_multiple_of(file::SECTOR_BYTES)
            || self.bytes == 0
        {
            return Err("it ended before its hash".to_owned());
        }
        if self.hash.finalize()[..] != self.tail[..] {
            return Err("its hash is wrong".to_owned());
        }
        Ok(self.bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_is_whole_only_with_its_hash() {
        let content = vec![7u8; 1_024];
        let mut whole = content.clone();
        whole.extend_from_slice(&Sha256::digest(&content));
        let check = |bytes: &[u8], piece: usize| {
            let mut hash = TrailingHash::default();
            bytes.chunks(piece).for_each(|piece| hash.update(piece));
            hash.finish()
        };
        for piece in [1, 31, 32, 33, 512, 4_096] {
            assert_eq!(check(&whole, piece), Ok(1_024), "in pieces of {piece}");
        }
        assert!(check(&whole[..whole.len() - 1], 512).is_err());
        assert!(check(&content, 512).is_err());
        assert!(check(&[], 512).is_err());
        whole[3] ^= 1;
        assert!(check(&whole, 512).is_err());
    }
}
