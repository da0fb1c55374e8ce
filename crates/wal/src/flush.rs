//! Flushing: all that is staged becomes one batch, with one write and one sync.

use bytes::Bytes;

use crate::error::WalError;
use crate::history::Place;
use crate::layout::{BATCH_HEADER_BYTES, BLOCK_BYTES, Link, Record, begin_batch, padded, seal_batch};
use crate::log::{Log, Ticket};
use crate::segment::Segment;
use crate::state::Staged;

/// Where the next batch goes, and what it is written with.
#[derive(Debug)]
pub(crate) struct Writer {
    /// In the segment being written.
    offset: u64,
    last: Link,
    next_number: u64,
    records: Vec<Staged>,
    buffer: Vec<u8>,
}

/// What is written besides the records themselves.
struct Context {
    segment: Segment,
    committed: Option<Bytes>,
    /// What the first batch of a segment restates: the log before the batch.
    range: Option<(u64, u64)>,
    purged: Option<(u64, Bytes)>,
    vote: Option<Bytes>,
}

impl Writer {
    pub(crate) fn new(offset: u64, last: Link) -> Writer {
        // One number is left out at each opening: a torn batch may have had it, and no two batches share a number.
        let next_number = last.number + 2;
        Writer { offset, last, next_number, records: Vec::new(), buffer: Vec::new() }
    }
}

impl Log {
    /// Makes what is staged durable: takes the oldest records up to the batch's bound, writes them as one batch and
    /// syncs. Returns the ticket through which all is durable; if more is staged, call it again.
    ///
    /// # Errors
    /// The disk's error, after which the log is poisoned: call after call then fails.
    pub fn flush(&self) -> Result<Ticket, WalError> {
        let mut writer = self.writer.lock();
        let Some(context) = self.take(&mut writer)? else { return Ok(self.durable()) };
        let committed = context.committed.clone();
        let written = self.write(&mut writer, context);
        let mut state = self.state.lock();
        match written {
            Ok(place) => {
                state.settle(place, &writer.records, committed.as_ref(), self.options.cache_bytes);
                writer.records.clear();
                Ok(state.durable)
            }
            Err(error) => {
                state.poison(&error);
                Err(error)
            }
        }
    }

    fn take(&self, writer: &mut Writer) -> Result<Option<Context>, WalError> {
        let mut state = self.state.lock();
        state.check()?;
        if !state.has_staged() {
            return Ok(None);
        }
        let bytes_max = self.options.batch_bytes_max.min(self.options.records_bytes_max());
        state.take_staged(bytes_max, &mut writer.records);
        Ok(Some(Context {
            segment: state.segments.back().expect("a log always has a segment").clone(),
            committed: state.committed.clone(),
            range: state.history.range,
            purged: state.history.purged.clone(),
            vote: state.history.vote.clone(),
        }))
    }

    fn write(&self, writer: &mut Writer, mut context: Context) -> Result<Place, WalError> {
        if !context.fits(writer) {
            context.segment = self.next_segment()?;
            writer.offset = BLOCK_BYTES as u64;
            assert!(context.fits(writer), "log rule: a fresh segment holds any batch");
        }
        let records = context.encode(writer);
        let Writer { offset, last, next_number, buffer, .. } = writer;
        let header = &context.segment.header;
        *last = seal_batch(buffer, header, *next_number, *last, records);
        *next_number += 1;
        context.segment.file.write_all_at(buffer, *offset).map_err(WalError::io("writing a batch"))?;
        context.segment.file.sync_data().map_err(WalError::io("syncing a batch"))?;
        let block = u32::try_from(*offset / BLOCK_BYTES as u64).expect("a segment's size is bounded");
        *offset += buffer.len() as u64;
        Ok(Place { segment: header.number, block })
    }
}

impl Context {
    /// The records that the batch begins with.
    fn restated(&self, offset: u64) -> impl Iterator<Item = Record<'_>> {
        let first = offset == BLOCK_BYTES as u64;
        let range = first.then_some(Record::Range(self.range));
        let purged = self.purged.as_ref().filter(|_| first);
        let vote = self.vote.as_ref().filter(|_| first);
        range
            .into_iter()
            .chain(purged.map(|(through, mark)| Record::Purge { through: *through, mark }))
            .chain(vote.map(|vote| Record::Vote(vote)))
            .chain(self.committed.as_ref().map(|mark| Record::Committed(mark)))
    }

    fn fits(&self, writer: &Writer) -> bool {
        let records = self.restated(writer.offset).chain(writer.records.iter().map(Staged::record));
        let bytes = BATCH_HEADER_BYTES + records.map(|record| record.encoded_bytes()).sum::<usize>();
        writer.offset + padded(bytes) as u64 <= self.segment.header.bytes
    }

    /// Writes the records into the writer's buffer and returns their number.
    fn encode(&self, writer: &mut Writer) -> u32 {
        let Writer { offset, records, buffer, .. } = writer;
        begin_batch(buffer);
        let mut number = 0;
        for record in self.restated(*offset).chain(records.iter().map(Staged::record)) {
            record.encode(buffer);
            number += 1;
        }
        number
    }
}
