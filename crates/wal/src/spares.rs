//! The segments to come: made ahead, off the path of a flush, from retired ones where there are any.

use std::collections::VecDeque;
use std::io;

use ringfence_disk::Disk;

use crate::error::WalError;
use crate::layout::SegmentHeader;
use crate::log::Log;
use crate::options::Options;
use crate::segment::{self, Segment};

impl Log {
    /// Whether [`Log::prepare_spare`] has something to do.
    #[must_use]
    pub fn wants_spare(&self) -> bool {
        let state = self.state.lock();
        state.check().is_ok()
            && (state.spares.is_empty() || state.retired.len() > self.options.recycled_segments_max)
    }

    /// Makes the next segment ahead of its use, and gives back to the file system what is retired beyond the bound.
    ///
    /// To be called, whenever [`Log::wants_spare`], by a thread that may wait: filling a new segment takes as long as
    /// writing its size. Staging, reading and flushing go on meanwhile. A flush that needs a segment and finds none
    /// makes it itself, so that a caller who never calls this loses time and nothing else.
    ///
    /// # Errors
    /// The disk's error. A disk too full for a new segment leaves the log as it was; every other error poisons it.
    pub fn prepare_spare(&self) -> Result<(), WalError> {
        let _making = self.segment_making.lock();
        self.remove_excess()?;
        if self.state.lock().spares.is_empty() {
            let segment = self.make_segment(false)?;
            self.state.lock().spares.push_back(segment);
        }
        Ok(())
    }

    /// The segment after the one being written, which it takes the place of.
    pub(crate) fn next_segment(&self) -> Result<Segment, WalError> {
        if let Some(segment) = self.take_spare() {
            return Ok(segment);
        }
        // A spare may be in the making; then it is there once the lock is free.
        let _making = self.segment_making.lock();
        if let Some(segment) = self.take_spare() {
            return Ok(segment);
        }
        self.remove_excess()?;
        let segment = self.make_segment(true)?;
        self.state.lock().segments.push_back(segment.clone());
        Ok(segment)
    }

    /// Moves a spare to the segments, in one step: the next number follows from both.
    fn take_spare(&self) -> Option<Segment> {
        let mut state = self.state.lock();
        let segment = state.spares.pop_front()?;
        state.segments.push_back(segment.clone());
        Some(segment)
    }

    /// Makes a segment with the next number. `must` says that the log cannot go on without it.
    fn make_segment(&self, must: bool) -> Result<Segment, WalError> {
        let (old, header) = {
            let mut state = self.state.lock();
            state.check()?;
            let number = state.next_segment_number();
            let salt = state.segments.back().expect("a log always has a segment").header.salt;
            let header = SegmentHeader { number, bytes: self.options.segment_bytes, salt };
            let alike = state.retired.front().is_some_and(|old| old.header.bytes == header.bytes);
            (if alike { state.retired.pop_front() } else { None }, header)
        };
        let made = match &old {
            Some(old) => Segment::recycle(&*self.disk, old, header),
            None => Segment::create(&*self.disk, header),
        };
        made.map_err(|error| {
            if !must && error.kind() == io::ErrorKind::StorageFull {
                // The file has no number yet, so removing it or not changes nothing but the space that it takes.
                let _ = segment::remove_unfinished(&*self.disk);
                return WalError::Io { doing: "making a spare segment", source: error };
            }
            self.stop(WalError::Io { doing: "making a segment", source: error })
        })
    }

    /// Removes retired segments beyond the bound, and those of another size than new ones have.
    fn remove_excess(&self) -> Result<(), WalError> {
        loop {
            let excess = {
                let mut state = self.state.lock();
                state.check()?;
                let foreign =
                    state.retired.front().is_some_and(|old| old.header.bytes != self.options.segment_bytes);
                if !foreign && state.retired.len() <= self.options.recycled_segments_max {
                    return Ok(());
                }
                state.retired.pop_front()
            };
            let Some(excess) = excess else { return Ok(()) };
            excess.remove(&*self.disk).map_err(|e| self.stop(WalError::io("removing a segment")(e)))?;
        }
    }

    fn stop(&self, error: WalError) -> WalError {
        self.state.lock().poison(&error);
        error
    }
}

/// Takes over the empty segments that an opened log ends with: one at most, if it has the right size.
///
/// Its name may not be durable (if the sync of the directory failed, the process was restarted, and the machine was
/// not): so it is given its name once more, before anything is written into it.
pub(crate) fn adopt(
    disk: &dyn Disk,
    options: &Options,
    mut found: VecDeque<Segment>,
) -> Result<Option<Segment>, WalError> {
    let doing = "taking over a spare segment";
    let stays = usize::from(found.front().is_some_and(|first| first.header.bytes == options.segment_bytes));
    // From the newest on, so that a crash leaves no gap.
    while found.len() > stays {
        if let Some(excess) = found.pop_back() {
            excess.remove(disk).map_err(WalError::io(doing))?;
        }
    }
    let spare = found.pop_front();
    spare.map(|spare| Segment::recycle(disk, &spare, spare.header).map_err(WalError::io(doing))).transpose()
}
