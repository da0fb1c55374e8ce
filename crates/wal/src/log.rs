//! The log as its callers see it: staging and reading.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;
use ringfence_disk::Disk;

use crate::error::WalError;
use crate::flush::Writer;
use crate::history::Place;
use crate::layout::{REGISTER_BYTES_MAX, Record, Records, SegmentHeader};
use crate::options::Options;
use crate::recovery::{self, FIRST_SEGMENT, Recovered};
use crate::segment::{ReadError, Segment};
use crate::spares;
use crate::state::State;

/// One entry of the log. What its data means is the caller's business.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The entry's place in the log.
    pub index: u64,
    /// What it holds.
    pub data: Bytes,
}

/// A position in the order in which records were staged since the log was opened. What has a ticket is durable once
/// [`Log::durable`] has reached it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Ticket(pub u64);

/// Numbers about a log, for metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Stats {
    /// Bytes of all segments on disk, spare and retired ones included.
    pub bytes: u64,
    /// Segments that are needed.
    pub segments: usize,
    /// Empty segments, ready to be written.
    pub spares: usize,
    /// Segments that wait to be recycled or removed.
    pub retired: usize,
    /// Index of the oldest entry.
    pub first_index: Option<u64>,
    /// Index of the newest entry.
    pub last_index: Option<u64>,
    /// Batches written since the log was opened; each was one write and one sync.
    pub batches: u64,
    /// Records written since the log was opened.
    pub records: u64,
    /// Bytes of the records that are staged and not yet taken by a flush.
    pub staged_bytes: usize,
    /// Bytes of entries held in memory.
    pub cached_bytes: usize,
    /// Batches whose place is held in memory (24 bytes each).
    pub positions: usize,
}

/// An append-only log of opaque entries with two registers (a vote and a purge mark), truncation and purge.
///
/// Staging is cheap and does no I/O: records are readable at once and get a [`Ticket`]. [`Log::flush`] writes all that
/// is staged in one batch, with one write and one sync, and says through which ticket all is durable. One thread
/// flushes; any number may stage and read meanwhile.
///
/// ```
/// use std::sync::Arc;
/// use bytes::Bytes;
/// use ringfence_disk::SimDisk;
/// use ringfence_wal::{Entry, Log, Options};
///
/// let disk = Arc::new(SimDisk::new(1));
/// let log = Log::open(disk, Options { segment_bytes: 1 << 16, ..Options::default() })?;
/// let ticket = log.append(vec![Entry { index: 1, data: Bytes::from_static(b"hello") }])?;
/// assert_eq!(log.last_index(), Some(1));
/// assert!(log.durable() < ticket);
/// assert_eq!(log.flush()?, ticket);
/// # Ok::<(), ringfence_wal::WalError>(())
/// ```
///
/// What always holds:
///
/// - indexes have no gaps, and the first one is the one after the purge mark, if there is a purge mark;
/// - durable are the records through one ticket, never some beyond it without those before;
/// - after a crash the log is what the records through some ticket at or beyond the durable one had made of it;
/// - after a failed write or sync nothing succeeds any more.
pub struct Log {
    pub(crate) disk: Arc<dyn Disk>,
    pub(crate) options: Options,
    pub(crate) state: Mutex<State>,
    /// Held for the whole of a flush. Order of locks: writer, segment_making, state.
    pub(crate) writer: Mutex<Writer>,
    /// Held while segments are made, recycled or removed.
    pub(crate) segment_making: Mutex<()>,
    /// The batch that was read last: readers that catch up come back for the rest of it.
    last_read: Mutex<Option<(Place, Bytes)>>,
}

impl Log {
    /// Opens the log in `disk`, a directory that nothing else uses, or makes a new one if there is none.
    ///
    /// All that was durable is found again. A batch that a crash has torn is cut off.
    ///
    /// # Errors
    /// [`WalError::Corrupt`] if anything is damaged that had been durable; the log is then left as it is.
    pub fn open(disk: Arc<dyn Disk>, options: Options) -> Result<Log, WalError> {
        options.check()?;
        let recovered = match recovery::recover(&*disk)? {
            Some(recovered) => recovered,
            None => new_log(&*disk, &options)?,
        };
        let spare = spares::adopt(&*disk, &options, recovered.spares)?;
        let mut state = State::new(recovered.history, recovered.segments);
        state.spares.extend(spare);
        state.retired = recovered.leftovers;
        state.retire();
        Ok(Log {
            writer: Mutex::new(Writer::new(recovered.offset, recovered.last)),
            segment_making: Mutex::new(()),
            state: Mutex::new(state),
            last_read: Mutex::new(None),
            disk,
            options,
        })
    }

    /// Stages entries, which follow the last one (or the purge mark, or in an empty log begin anywhere) without a gap.
    /// Returns the ticket of the last one.
    ///
    /// # Errors
    /// [`WalError::TooLarge`] for an entry that no segment can hold (then none is staged), or the log is poisoned.
    ///
    /// # Panics
    /// If there is a gap: the caller is broken, and going on would write a broken log.
    pub fn append(&self, entries: Vec<Entry>) -> Result<Ticket, WalError> {
        let bytes_max = self.options.entry_bytes_max();
        if let Some(bytes) = entries.iter().map(|entry| entry.data.len()).find(|bytes| *bytes > bytes_max) {
            return Err(WalError::TooLarge { bytes, bytes_max });
        }
        self.stage(|state| entries.into_iter().for_each(|entry| state.append(entry)))
    }

    /// Stages a new value of the vote register.
    ///
    /// # Errors
    /// [`WalError::TooLarge`] above 1 KiB, or the log is poisoned.
    pub fn save_vote(&self, vote: Bytes) -> Result<Ticket, WalError> {
        check_register(&vote)?;
        self.stage(|state| state.save_vote(vote))
    }

    /// Stages the removal of all entries with a larger index than `index`, or of all. Returns the ticket of everything
    /// staged so far, also if there was nothing to remove.
    ///
    /// # Errors
    /// The log is poisoned.
    ///
    /// # Panics
    /// If the truncation would reach below what is purged.
    pub fn truncate_after(&self, index: Option<u64>) -> Result<Ticket, WalError> {
        self.stage(|state| state.truncate_after(index))
    }

    /// Stages the removal of all entries up to `through`, and the purge mark. `through` may lie beyond the last entry;
    /// the log is then empty and goes on after it. A purge that goes no further than an earlier one does nothing.
    ///
    /// # Errors
    /// [`WalError::TooLarge`] for a mark above 1 KiB, or the log is poisoned.
    pub fn purge(&self, through: u64, mark: Bytes) -> Result<Ticket, WalError> {
        check_register(&mark)?;
        self.stage(|state| state.purge(through, mark))
    }

    /// Notes how far the log is known to be committed. Stages nothing: the next batch carries the newest mark.
    ///
    /// # Panics
    /// For a mark above 1 KiB.
    pub fn note_committed(&self, mark: Bytes) {
        assert!(mark.len() <= REGISTER_BYTES_MAX, "log rule: a mark has at most {REGISTER_BYTES_MAX} bytes");
        self.state.lock().committed = Some(mark);
    }

    /// Whether a flush would write anything.
    #[must_use]
    pub fn has_staged(&self) -> bool {
        self.state.lock().has_staged()
    }

    /// The ticket of what was staged last.
    #[must_use]
    pub fn staged(&self) -> Ticket {
        self.state.lock().last
    }

    /// The ticket through which all is durable.
    #[must_use]
    pub fn durable(&self) -> Ticket {
        self.state.lock().durable
    }

    /// The entries from `from` up to, and without, `until`: as many as there are and fit into `bytes_max`, but at least
    /// one if `from` is in the log. Nothing if it is not.
    ///
    /// # Errors
    /// [`WalError::Corrupt`] if the disk has not kept an entry, the disk's error, or the log is poisoned.
    pub fn read(&self, from: u64, until: u64, bytes_max: usize) -> Result<Vec<Entry>, WalError> {
        let mut found: Vec<Entry> = Vec::new();
        let mut truncations = None;
        loop {
            let (next, position, until, segment) = {
                let state = self.state.lock();
                state.check()?;
                if truncations.replace(state.truncations).is_some_and(|seen| seen != state.truncations) {
                    found.clear();
                }
                let next = found.last().map_or(from, |entry| entry.index + 1);
                let Some((first, last)) = state.range else { return Ok(found) };
                let until = until.min(last + 1);
                if next < first || next >= until {
                    return Ok(found);
                }
                let cached = state.cache.first().unwrap_or(until);
                if cached <= next {
                    state.cache.read(next, until, bytes_max, &mut found);
                    return Ok(found);
                }
                let (position, end) = state.history.find(next).expect("an entry is durable or in memory");
                let segment = state.segment(position.place.segment).expect("a segment with entries is kept");
                // The disk may still have entries in place of those in memory, which are then newer.
                (next, position, until.min(end).min(cached), segment.clone())
            };
            match self.read_batch(position.place, &segment) {
                Ok(payload) if collect(&payload, next, until, bytes_max, &mut found) => return Ok(found),
                Ok(_) if found.last().is_some_and(|entry| entry.index >= next) => {}
                Ok(_) => return Err(damaged(position.place, "the batch does not hold its entries")),
                // The segment may have been recycled since its place was looked up; then the entries are gone too.
                Err(_) if self.state.lock().segment(position.place.segment).is_none() => {}
                Err(ReadError::Io(source)) => return Err(WalError::Io { doing: "reading a batch", source }),
                Err(ReadError::Damage(reason)) => return Err(damaged(position.place, reason)),
            }
        }
    }

    /// Index of the oldest entry.
    #[must_use]
    pub fn first_index(&self) -> Option<u64> {
        self.state.lock().range.map(|(first, _)| first)
    }

    /// Index of the newest entry.
    #[must_use]
    pub fn last_index(&self) -> Option<u64> {
        self.state.lock().range.map(|(_, last)| last)
    }

    /// The last index purged, with its mark.
    #[must_use]
    pub fn purged(&self) -> Option<(u64, Bytes)> {
        self.state.lock().purged.clone()
    }

    /// The vote register.
    #[must_use]
    pub fn vote(&self) -> Option<Bytes> {
        self.state.lock().vote.clone()
    }

    /// The newest mark of commitment; after opening, the one in the last batch.
    #[must_use]
    pub fn committed(&self) -> Option<Bytes> {
        self.state.lock().committed.clone()
    }

    /// The largest index whose purge leaves the log with at most `bytes_max` (and one segment at least), spare and
    /// retired segments not counted. `None` if the log is small enough.
    #[must_use]
    pub fn purge_to_fit(&self, bytes_max: u64) -> Option<u64> {
        let state = self.state.lock();
        let mut bytes = 0;
        let staying = state.segments.iter().rev().enumerate().take_while(|(at, segment)| {
            bytes += segment.header.bytes;
            *at == 0 || bytes <= bytes_max
        });
        let oldest = staying.last().map(|(_, segment)| segment.header.number)?;
        let stays = state.history.first_in_segment(oldest)?;
        let (first, last) = state.range?;
        (stays > first).then(|| (stays - 1).min(last))
    }

    /// Numbers for metrics.
    #[must_use]
    pub fn stats(&self) -> Stats {
        let state = self.state.lock();
        let all = state.segments.iter().chain(&state.spares).chain(&state.retired);
        Stats {
            bytes: all.map(|segment| segment.header.bytes).sum(),
            segments: state.segments.len(),
            spares: state.spares.len(),
            retired: state.retired.len(),
            first_index: state.range.map(|(first, _)| first),
            last_index: state.range.map(|(_, last)| last),
            batches: state.batches_written,
            records: state.records_written,
            staged_bytes: state.staged_bytes,
            cached_bytes: state.cache.bytes(),
            positions: state.history.positions(),
        }
    }

    fn stage(&self, change: impl FnOnce(&mut State)) -> Result<Ticket, WalError> {
        let mut state = self.state.lock();
        state.check()?;
        change(&mut state);
        Ok(state.last)
    }

    fn read_batch(&self, place: Place, segment: &Segment) -> Result<Bytes, ReadError> {
        if let Some((known, payload)) = &*self.last_read.lock()
            && *known == place
        {
            return Ok(payload.clone());
        }
        let payload = segment.read_batch(place.offset())?;
        *self.last_read.lock() = Some((place, payload.clone()));
        Ok(payload)
    }
}

impl fmt::Debug for Log {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Log({:?}, {:?})", self.disk, self.stats())
    }
}

/// A log in a directory that has none.
fn new_log(disk: &dyn Disk, options: &Options) -> Result<Recovered, WalError> {
    let header = SegmentHeader { number: FIRST_SEGMENT, bytes: options.segment_bytes, salt: options.salt };
    Segment::create(disk, header).map(Recovered::empty).map_err(WalError::io("making the first segment"))
}

fn check_register(value: &Bytes) -> Result<(), WalError> {
    let (bytes, bytes_max) = (value.len(), REGISTER_BYTES_MAX);
    if bytes > bytes_max { Err(WalError::TooLarge { bytes, bytes_max }) } else { Ok(()) }
}

/// Adds the entries of a batch from `next` up to `until`, as they stood at its end. True if no more fit.
fn collect(payload: &Bytes, next: u64, until: u64, bytes_max: usize, found: &mut Vec<Entry>) -> bool {
    let mut entries: Vec<(u64, &[u8])> = Vec::new();
    for record in Records::new(payload) {
        match record {
            Ok(Record::Entry { index, data }) if (next..until).contains(&index) => {
                entries.push((index, data))
            }
            // The batch may itself take back what it began with.
            Ok(Record::Truncate { after }) => {
                let stays = after.map_or(0, |after| entries.partition_point(|(index, _)| *index <= after));
                entries.truncate(stays);
            }
            Ok(_) | Err(_) => {}
        }
    }
    let mut bytes = found.iter().map(|entry| entry.data.len()).sum::<usize>();
    for (index, data) in entries {
        bytes += data.len();
        if bytes > bytes_max && !found.is_empty() {
            return true;
        }
        found.push(Entry { index, data: payload.slice_ref(data) });
    }
    false
}

fn damaged(place: Place, reason: &'static str) -> WalError {
    WalError::Corrupt { segment: place.segment, offset: place.offset(), batch: 0, reason }
}
