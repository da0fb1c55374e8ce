//! Opening: reads all segments, tells a torn batch from a corrupt log, and leaves the place after the last valid batch
//! ready to be written. The argument stands in the crate's documentation.

use std::collections::VecDeque;
use std::io;

use ringfence_canary::Canary;
use ringfence_disk::Disk;

use crate::error::WalError;
use crate::history::{History, Place};
use crate::layout::{
    BATCH_HEADER_BYTES, BLOCK_BYTES, BROKEN_PAYLOAD, BatchHeader, Link, NO_BATCH, Records, SegmentHeader,
};
use crate::segment::{self, Segment};

/// The number of a log's first segment.
pub(crate) const FIRST_SEGMENT: u64 = 1;

const NOT_NEXT: &str = "the batch does not follow the one before it";

/// A log as found on disk.
#[derive(Debug)]
pub(crate) struct Recovered {
    pub(crate) history: History,
    /// All segments with a valid batch, oldest first; if there is no batch, the first one. The last is written next.
    pub(crate) segments: VecDeque<Segment>,
    /// Segments beyond, which hold nothing.
    pub(crate) spares: VecDeque<Segment>,
    /// Segments of an earlier time that should have been removed.
    pub(crate) leftovers: VecDeque<Segment>,
    /// Where in the last segment the next batch goes.
    pub(crate) offset: u64,
    /// The last valid batch.
    pub(crate) last: Link,
}

/// Goes through the segments in order.
struct Scan {
    history: History,
    last: Option<Last>,
    /// Where the log ends, as it seems; set after the first segment.
    end: Option<End>,
    /// The batch that is missing there, for a message.
    missing: Option<Missing>,
}

/// The last batch that was found valid, and where.
#[derive(Clone, Copy)]
struct Last {
    link: Link,
    segment: usize,
    offset: u64,
    bytes: u64,
}

/// The place behind the last batch.
#[derive(Clone, Copy)]
struct End {
    segment: usize,
    offset: u64,
}

/// A place without a valid batch, and what is wrong with it.
#[derive(Clone, Copy)]
struct Missing {
    /// The segment's number.
    segment: u64,
    offset: u64,
    reason: &'static str,
}

/// Reads the log in `disk`; `None` where there is none.
pub(crate) fn recover(disk: &dyn Disk) -> Result<Option<Recovered>, WalError> {
    segment::remove_unfinished(disk).map_err(WalError::io("removing an unfinished segment"))?;
    // A process that was killed may have left names that are in memory alone.
    disk.sync_dir().map_err(WalError::io("syncing the directory"))?;
    let mut leftovers = open_all(disk)?;
    if leftovers.is_empty() {
        return Ok(None);
    }
    let mut segments = leftovers.split_off(last_run(&leftovers));

    let mut scan = Scan { history: History::default(), last: None, end: None, missing: None };
    let mut buffer = Vec::new();
    for (at, segment) in segments.iter().enumerate() {
        buffer.resize(place(segment.header.bytes), 0);
        segment.file.read_exact_at(&mut buffer, 0).map_err(WalError::io("reading a segment"))?;
        scan.segment(at, &segment.header, &buffer)?;
    }
    drop(buffer);

    let Scan { history, last, end, .. } = scan;
    let end = end.expect("a log with a segment ends somewhere");
    // The first segment goes only when a later one has a batch.
    if !history.is_complete() || (last.is_none() && segments[0].header.number != FIRST_SEGMENT) {
        let reason = "what this segment continues is lost, an older segment";
        return Err(corrupt(&segments[0].header, BLOCK_BYTES as u64, 1, reason));
    }
    make_certain(&segments, last, end)?;
    assert_eq!(
        end.segment,
        last.map_or(0, |last| last.segment),
        "a log ends in the segment of its last batch"
    );
    let spares = segments.split_off(end.segment + 1);
    if last.is_none() {
        let renewed = renew(disk, &segments[0], &spares).map_err(WalError::io("renewing an empty log"))?;
        return Ok(Some(renewed));
    }
    let last = last.map_or(Link::START, |last| last.link);
    Ok(Some(Recovered { history, segments, spares, leftovers, offset: end.offset, last }))
}

fn open_all(disk: &dyn Disk) -> Result<VecDeque<Segment>, WalError> {
    let numbers = segment::list(disk)?;
    let segments: VecDeque<Segment> =
        numbers.into_iter().map(|number| Segment::open(disk, number)).collect::<Result<_, _>>()?;
    if let Some(front) = segments.front()
        && let Some(foreign) = segments.iter().find(|segment| segment.header.salt != front.header.salt)
    {
        return Err(corrupt(&foreign.header, 0, 0, "the segment is of another log"));
    }
    Ok(segments)
}

/// Where the last run of segments without a gap begins. Whether the segments before a gap are still needed is seen
/// when the run is read: its first batch says which entries came before.
fn last_run(segments: &VecDeque<Segment>) -> usize {
    let numbers: Vec<u64> = segments.iter().map(|segment| segment.header.number).collect();
    numbers.windows(2).rposition(|pair| pair[0] + 1 != pair[1]).map_or(0, |gap| gap + 1)
}

impl Scan {
    fn segment(&mut self, at: usize, header: &SegmentHeader, bytes: &[u8]) -> Result<(), WalError> {
        let mut offset = BLOCK_BYTES;
        // The log goes on here if the segment before was full; else it has ended there.
        let first = decode(header, bytes, offset);
        let goes_on = self.end.is_none() || first.is_ok_and(|(batch, _)| self.follows(&batch));
        let reason = if goes_on {
            let reason = loop {
                match self.take(at, header, bytes, offset)? {
                    Ok(next) => offset = next,
                    Err(reason) => break reason,
                }
            };
            self.end = Some(End { segment: at, offset: offset as u64 });
            Some(reason)
        } else {
            // The missing batch may have been the first one here, if nothing stands where the segment before ends.
            first.err().filter(|_| self.missing.is_some_and(|missing| missing.reason == NO_BATCH))
        };
        if let Some(reason) = reason {
            self.missing = Some(Missing { segment: header.number, offset: offset as u64, reason });
        }
        self.refuse_later_batches(header, bytes, offset)
    }

    /// Takes in the batch at `offset` and returns where the next one would be, or why there is none.
    fn take(
        &mut self,
        at: usize,
        header: &SegmentHeader,
        bytes: &[u8],
        offset: usize,
    ) -> Result<Result<usize, &'static str>, WalError> {
        let (batch, payload) = match decode(header, bytes, offset) {
            Ok(found) => found,
            Err(reason) if reason == BROKEN_PAYLOAD && Canary::TornIsCorrupt.sings() => {
                // A batch that was under way at a crash is reported as rot.
                return Err(corrupt(header, offset as u64, 0, reason));
            }
            Err(reason) => return Ok(Err(reason)),
        };
        // The batches before the oldest segment are gone, so its first batch may follow any other.
        if !(self.follows(&batch) || (at == 0 && self.last.is_none())) {
            return Ok(Err(NOT_NEXT));
        }
        let block = u32::try_from(offset / BLOCK_BYTES).expect("a segment's size is bounded");
        let corrupt = |reason| corrupt(header, offset as u64, batch.number, reason);
        if Records::new(payload).count() != batch.records as usize {
            return Err(corrupt("the batch has not the number of records that it says"));
        }
        self.history
            .apply(Place { segment: header.number, block }, Records::new(payload))
            .map_err(corrupt)?;
        self.last = Some(Last {
            link: batch.link(),
            segment: at,
            offset: offset as u64,
            bytes: batch.padded_bytes(),
        });
        Ok(Ok(offset + place(batch.padded_bytes())))
    }

    fn follows(&self, batch: &BatchHeader) -> bool {
        batch.previous == self.last.map_or(Link::START, |last| last.link)
    }

    /// Whatever is missing had been durable if a later batch is valid: then it is not torn but lost.
    fn refuse_later_batches(
        &self,
        header: &SegmentHeader,
        bytes: &[u8],
        from: usize,
    ) -> Result<(), WalError> {
        if Canary::CorruptIsTorn.sings() {
            // Whatever is missing is cut off, with all that had been acknowledged behind it.
            return Ok(());
        }
        let last = self.last.map_or(0, |last| last.link.number);
        let later = (from..bytes.len())
            .step_by(BLOCK_BYTES)
            .filter_map(|offset| decode(header, bytes, offset).ok())
            .any(|(batch, _)| batch.number > last);
        if !later {
            return Ok(());
        }
        let Missing { segment, offset, reason } =
            self.missing.expect("it is looked for behind what is missing");
        Err(WalError::Corrupt { segment, offset, batch: last + 1, reason })
    }
}

/// The valid batch at `offset`, with its payload.
fn decode<'a>(
    segment: &SegmentHeader,
    bytes: &'a [u8],
    offset: usize,
) -> Result<(BatchHeader, &'a [u8]), &'static str> {
    let bytes = &bytes[offset..];
    let header = BatchHeader::decode(bytes, segment, bytes.len() as u64)?;
    let payload = &bytes[BATCH_HEADER_BYTES..BATCH_HEADER_BYTES + header.payload_bytes];
    header.check(payload)?;
    Ok((header, payload))
}

/// Sees to it that what was read is durable, and that no trace of a torn batch stays where a header could be.
fn make_certain(segments: &VecDeque<Segment>, last: Option<Last>, end: End) -> Result<(), WalError> {
    let doing = "making the end of the log certain";
    if let Some(last) = last {
        // It may be in memory alone, and after a failed sync a plain sync would not write it: so it is written again.
        let file = &segments[last.segment].file;
        let mut bytes = vec![0; place(last.bytes)];
        file.read_exact_at(&mut bytes, last.offset).map_err(WalError::io(doing))?;
        file.write_all_at(&bytes, last.offset).map_err(WalError::io(doing))?;
        file.sync_data().map_err(WalError::io(doing))?;
    }
    let later = (end.segment + 1..segments.len()).map(|at| (at, BLOCK_BYTES as u64));
    for (at, offset) in [(end.segment, end.offset)].into_iter().chain(later) {
        let segment = &segments[at];
        if offset >= segment.header.bytes {
            continue;
        }
        let mut block = [0; BLOCK_BYTES];
        segment.file.read_exact_at(&mut block, offset).map_err(WalError::io(doing))?;
        if block != [0; BLOCK_BYTES] {
            segment.file.write_all_at(&[0; BLOCK_BYTES], offset).map_err(WalError::io(doing))?;
            segment.file.sync_data().map_err(WalError::io(doing))?;
        }
    }
    Ok(())
}

/// Makes an empty log of one whose every batch was torn: its first segment is all that stays, and is given its name once
/// more, which may not be durable.
fn renew(disk: &dyn Disk, first: &Segment, spares: &VecDeque<Segment>) -> io::Result<Recovered> {
    for spare in spares.iter().rev() {
        spare.remove(disk)?;
    }
    Segment::recycle(disk, first, first.header).map(Recovered::empty)
}

impl Recovered {
    /// A log without a batch, in its first segment.
    pub(crate) fn empty(first: Segment) -> Recovered {
        assert_eq!(first.header.number, FIRST_SEGMENT, "log rule: an empty log has its first segment");
        Recovered {
            history: History::default(),
            segments: VecDeque::from([first]),
            spares: VecDeque::new(),
            leftovers: VecDeque::new(),
            offset: BLOCK_BYTES as u64,
            last: Link::START,
        }
    }
}

fn corrupt(segment: &SegmentHeader, offset: u64, batch: u64, reason: &'static str) -> WalError {
    WalError::Corrupt { segment: segment.number, offset, batch, reason }
}

fn place(offset: u64) -> usize {
    usize::try_from(offset).expect("a segment's size is bounded")
}
