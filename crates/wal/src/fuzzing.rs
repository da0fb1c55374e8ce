//! What fuzz targets reach of this crate, and nobody else: opening a log of any content.

use std::sync::Arc;

use bytes::Bytes;
use ringfence_disk::{Disk, Open, SimDisk};

use crate::layout::{self, Link, Records, SegmentHeader};
use crate::recovery::FIRST_SEGMENT;
use crate::{Entry, Log, Options, segment};

const SEGMENT_BYTES: usize = layout::SEGMENT_BYTES_MIN as usize;

/// Opens a log whose one segment holds `bytes`, with zeros behind them.
///
/// # Panics
/// If the log does not keep what it shows; see [`batches`].
pub fn segment(bytes: &[u8]) {
    let mut content = bytes.to_vec();
    content.resize(SEGMENT_BYTES, 0);
    check(&content);
}

/// Opens a log of batches with right checksums whose payloads `data` holds, each behind its length of two bytes: without
/// them no fuzzer would come as far as a record.
///
/// # Panics
/// If a log that opens shows an entry that it cannot read, takes no more entries, or is another one when it is opened
/// again.
pub fn batches(data: &[u8]) {
    let header = SegmentHeader { number: FIRST_SEGMENT, bytes: layout::SEGMENT_BYTES_MIN, salt: 0 };
    let mut content = header.encode().to_vec();
    let mut link = Link::START;
    let mut rest = data;
    while let Some((length, behind)) = rest.split_first_chunk::<2>() {
        let (payload, behind) = behind.split_at(usize::from(u16::from_le_bytes(*length)).min(behind.len()));
        rest = behind;
        let mut batch = Vec::new();
        layout::begin_batch(&mut batch);
        batch.extend_from_slice(payload);
        let records = u32::try_from(Records::new(payload).count()).expect("a payload has few records");
        link = layout::seal_batch(&mut batch, &header, link.number + 1, link, records);
        if content.len() + batch.len() > SEGMENT_BYTES {
            break;
        }
        content.extend_from_slice(&batch);
    }
    content.resize(SEGMENT_BYTES, 0);
    check(&content);
}

/// Everything that a log shows of itself.
#[derive(Debug, PartialEq)]
struct Shown {
    entries: Vec<Entry>,
    range: Option<(u64, u64)>,
    purged: Option<(u64, Bytes)>,
    vote: Option<Bytes>,
    committed: Option<Bytes>,
}

fn shown(log: &Log) -> Shown {
    let range = log.first_index().zip(log.last_index());
    let entries = range.map_or_else(Vec::new, |(first, last)| {
        let entries =
            log.read(first, last.saturating_add(1), usize::MAX).expect("what is in the log can be read");
        assert_eq!(entries.len() as u64, last - first + 1, "the log holds its whole range");
        entries
    });
    Shown { entries, range, purged: log.purged(), vote: log.vote(), committed: log.committed() }
}

fn check(content: &[u8]) {
    let disk = SimDisk::new(0);
    let file = disk.open(&segment::name(FIRST_SEGMENT), Open::New).expect("an empty disk takes a file");
    file.write_all_at(content, 0).expect("nothing is injected");
    let options = Options { segment_bytes: layout::SEGMENT_BYTES_MIN, ..Options::default() };
    let open = || Log::open(Arc::new(disk.clone()), options.clone());
    let Ok(log) = open() else { return };
    let before = shown(&log);
    drop(log);

    let log = open().expect("a log that opened once opens again");
    assert_eq!(shown(&log), before, "opening a log changes nothing");
    let last = before.range.map(|(_, last)| last).or(before.purged.as_ref().map(|(through, _)| *through));
    let index = last.map_or(1, |last| last + 1);
    log.append(vec![Entry { index, data: Bytes::from_static(b"next") }]).expect("an entry follows");
    log.flush().expect("nothing is injected");
    drop(log);

    let after = shown(&open().expect("what was written by this very code opens"));
    assert_eq!(after.range, Some((before.range.map_or(index, |(first, _)| first), index)));
    assert_eq!(after.entries[..after.entries.len() - 1], before.entries);
}
