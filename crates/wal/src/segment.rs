//! Segments: files of a fixed size that are filled with zeros before their first use and recycled after their last, so
//! that a sync has nothing but data to make durable.
//!
//! A file gets its number as a name only when its header is durable. So a numbered file with a broken header or of
//! the wrong size is damage and never the trace of a crash.

use std::io;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use ringfence_disk::{Disk, File, Open};

use crate::error::WalError;
use crate::layout::{
    BATCH_HEADER_BYTES, BLOCK_BYTES, BatchHeader, FORMAT, SEGMENT_BYTES_MAX, SegmentDamage, SegmentHeader,
};

/// The name of a file on its way to become a segment.
const UNFINISHED: &str = "unfinished.tmp";
const SUFFIX: &str = ".log";
/// How much is written at once when a new file is filled.
const FILL_BYTES: usize = 1 << 20;

/// An open segment.
#[derive(Debug, Clone)]
pub(crate) struct Segment {
    pub(crate) header: SegmentHeader,
    pub(crate) file: Arc<dyn File>,
}

/// Why a batch could not be read.
#[derive(Debug)]
pub(crate) enum ReadError {
    Io(io::Error),
    Damage(&'static str),
}

/// The numbers of the segments in a directory, ascending.
pub(crate) fn list(disk: &dyn Disk) -> Result<Vec<u64>, WalError> {
    let names = disk.list().map_err(WalError::io("listing segments"))?;
    let mut numbers: Vec<u64> = names.iter().filter_map(|name| parse(name)).collect();
    numbers.sort_unstable();
    Ok(numbers)
}

/// Removes what a crash has left of a segment that was being made.
pub(crate) fn remove_unfinished(disk: &dyn Disk) -> io::Result<()> {
    if disk.list()?.iter().any(|name| name == UNFINISHED) { disk.remove(UNFINISHED) } else { Ok(()) }
}

impl Segment {
    /// Opens a segment that exists.
    pub(crate) fn open(disk: &dyn Disk, number: u64) -> Result<Segment, WalError> {
        let corrupt = |reason| WalError::Corrupt { segment: number, offset: 0, batch: 0, reason };
        let doing = "opening a segment";
        let file = disk.open(&name(number), Open::Existing).map_err(WalError::io(doing))?;
        let bytes = file.len().map_err(WalError::io(doing))?;
        if bytes < BLOCK_BYTES as u64 {
            return Err(corrupt("the segment is shorter than its header"));
        }
        let mut block = [0; BLOCK_BYTES];
        file.read_exact_at(&mut block, 0).map_err(WalError::io(doing))?;
        let header = SegmentHeader::decode(&block).map_err(|damage| match damage {
            SegmentDamage::Broken(reason) => corrupt(reason),
            SegmentDamage::Format(found) => WalError::Format { segment: number, found, known: FORMAT },
        })?;
        if header.number != number {
            return Err(corrupt("the segment's header has another number than its name"));
        }
        if header.bytes != bytes || bytes > SEGMENT_BYTES_MAX {
            return Err(corrupt("the segment has not the size that its header says"));
        }
        Ok(Segment { header, file })
    }

    /// Makes a new segment. When it returns, the segment and its name are durable.
    pub(crate) fn create(disk: &dyn Disk, header: SegmentHeader) -> io::Result<Segment> {
        let file = disk.open(UNFINISHED, Open::Any)?;
        file.set_len(0)?;
        let zeros = vec![0; FILL_BYTES];
        let mut offset = 0;
        while offset < header.bytes {
            let bytes = usize::try_from(header.bytes - offset).unwrap_or(usize::MAX).min(FILL_BYTES);
            file.write_all_at(&zeros[..bytes], offset)?;
            offset += bytes as u64;
        }
        Segment::finish(disk, header, &*file)
    }

    /// Makes a new segment of one that is not needed any more and that has the same size.
    pub(crate) fn recycle(disk: &dyn Disk, old: &Segment, header: SegmentHeader) -> io::Result<Segment> {
        assert_eq!(old.header.bytes, header.bytes, "a recycled segment keeps its size");
        disk.rename(&name(old.header.number), UNFINISHED)?;
        // The old name must be gone before the header changes, or a crash would leave it with a foreign header.
        disk.sync_dir()?;
        let file = disk.open(UNFINISHED, Open::Existing)?;
        Segment::finish(disk, header, &*file)
    }

    fn finish(disk: &dyn Disk, header: SegmentHeader, file: &dyn File) -> io::Result<Segment> {
        file.write_all_at(&header.encode(), 0)?;
        file.sync_data()?;
        disk.rename(UNFINISHED, &name(header.number))?;
        disk.sync_dir()?;
        // Opened anew, so that errors name the file as it is called now.
        let file = disk.open(&name(header.number), Open::Existing)?;
        Ok(Segment { header, file })
    }

    /// Removes a segment. Its name is gone for good when this returns: of several segments the oldest goes first, and
    /// a crash must never leave a gap between those that stay.
    pub(crate) fn remove(&self, disk: &dyn Disk) -> io::Result<()> {
        disk.remove(&name(self.header.number))?;
        disk.sync_dir()
    }

    /// Reads the payload of the batch at `offset`; its checksums are found right.
    pub(crate) fn read_batch(&self, offset: u64) -> Result<Bytes, ReadError> {
        let room = self.header.bytes.saturating_sub(offset);
        if room < BLOCK_BYTES as u64 {
            return Err(ReadError::Damage("there is no room for a batch"));
        }
        let mut block = [0; BLOCK_BYTES];
        self.file.read_exact_at(&mut block, offset).map_err(ReadError::Io)?;
        let header = BatchHeader::decode(&block, &self.header, room).map_err(ReadError::Damage)?;
        let begun = header.payload_bytes.min(BLOCK_BYTES - BATCH_HEADER_BYTES);
        let mut payload = BytesMut::zeroed(header.payload_bytes);
        payload[..begun].copy_from_slice(&block[BATCH_HEADER_BYTES..BATCH_HEADER_BYTES + begun]);
        if begun < header.payload_bytes {
            self.file
                .read_exact_at(&mut payload[begun..], offset + BLOCK_BYTES as u64)
                .map_err(ReadError::Io)?;
        }
        header.check(&payload).map_err(ReadError::Damage)?;
        Ok(payload.freeze())
    }
}

/// The name of a segment's file.
pub(crate) fn name(number: u64) -> String {
    format!("{number:016x}{SUFFIX}")
}

fn parse(file_name: &str) -> Option<u64> {
    let number = u64::from_str_radix(file_name.strip_suffix(SUFFIX)?, 16).ok()?;
    (name(number) == file_name).then_some(number)
}
