//! The control block: a small file that the harness and one server map, through which the first rules the second's clocks
//! and disk while it runs, and sees what came of it. Both are built from this very file.

use std::ffi::CStr;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

/// The environment variable that names the block's file. Without it, or with a file that is no block, the shim does nothing.
pub const BLOCK_VARIABLE: &CStr = c"RINGFENCE_SHIM";
/// Stands at the beginning of every block; changes with the layout.
pub const MAGIC: u64 = 0x5246_5348_494d_0001;
/// The rate of a clock that runs as it should: millionths.
pub const RATE_TRUE: i64 = 1_000_000;

/// The block. All bytes zero, but for the magic and the rate, rule nothing.
#[derive(Debug)]
#[repr(C)]
pub struct Block {
    /// [`MAGIC`].
    pub magic: AtomicU64,
    /// How many processes have mapped the block.
    pub attached: AtomicU64,
    /// Grows by one before and after each change of the four numbers below: odd while they are being changed.
    pub clock_version: AtomicU64,
    /// A moment on the true `CLOCK_MONOTONIC`, in nanoseconds.
    pub base_true: AtomicI64,
    /// What the server's clock showed at that moment.
    pub base_shown: AtomicI64,
    /// How fast its clocks run since then, in millionths.
    pub rate: AtomicI64,
    /// What is added to the wall clock, in nanoseconds.
    pub wall_offset: AtomicI64,
    /// How often the server read a clock that was wrong.
    pub wrong_readings: AtomicU64,
    /// From which sync on, counted from 1 since the block was made, all fail; 0: none.
    pub sync_fails_from: AtomicU64,
    /// The error number of syncs that fail.
    pub sync_error: AtomicU64,
    /// How many milliseconds each sync takes longer.
    pub sync_delay: AtomicU64,
    /// The error number with which every positioned write fails; 0: none does.
    pub write_error: AtomicU64,
    /// Syncs begun.
    pub syncs: AtomicU64,
    /// Syncs that failed by this block's will.
    pub syncs_failed: AtomicU64,
    /// Syncs that were delayed.
    pub syncs_delayed: AtomicU64,
    /// Writes that failed by this block's will.
    pub writes_failed: AtomicU64,
}

/// How a server's clocks run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Course {
    /// A moment on the true `CLOCK_MONOTONIC`, in nanoseconds.
    pub base_true: i64,
    /// What the server's clock showed at that moment.
    pub base_shown: i64,
    /// How fast its clocks run since then, in millionths; above 0.
    pub rate: i64,
    /// What is added to the wall clock, in nanoseconds.
    pub wall_offset: i64,
}

impl Course {
    /// Clocks that run as they should.
    pub const TRUE: Course = Course { base_true: 0, base_shown: 0, rate: RATE_TRUE, wall_offset: 0 };

    /// What the server's monotonic clock shows at a true moment.
    #[must_use]
    pub fn shown(&self, at: i64) -> i64 {
        self.base_shown.saturating_add(self.to_shown(at.saturating_sub(self.base_true)))
    }

    /// The true moment at which the server's monotonic clock shows this.
    #[must_use]
    pub fn true_moment(&self, shown: i64) -> i64 {
        self.base_true.saturating_add(self.to_true(shown.saturating_sub(self.base_shown)))
    }

    /// How long a true span is by the server's clock.
    #[must_use]
    pub fn to_shown(&self, span: i64) -> i64 {
        scale(span, self.rate, RATE_TRUE)
    }

    /// How long a span of the server's clock is in truth.
    #[must_use]
    pub fn to_true(&self, span: i64) -> i64 {
        scale(span, RATE_TRUE, self.rate)
    }
}

impl Block {
    /// Something that follows from how the clocks run, and perhaps from a reading of a true clock within `work`, which is done
    /// again if the course was changed meanwhile. So no reading by an old course comes after one by a new course.
    pub fn with_course<T>(&self, work: impl Fn(Course) -> T) -> T {
        loop {
            let version = self.clock_version.load(Ordering::Acquire);
            if version.is_multiple_of(2) {
                let result = work(self.load_course());
                if version == self.clock_version.load(Ordering::Acquire) {
                    return result;
                }
            }
            // A change takes a few stores, but whoever makes it may have lost its processor in between.
            std::thread::yield_now();
        }
    }

    /// Makes the clocks run otherwise. Nobody sees a clock while `change` works. Only one may do this at a time.
    pub fn change_course(&self, change: impl FnOnce(Course) -> Course) {
        self.clock_version.fetch_add(1, Ordering::AcqRel);
        let course = change(self.load_course());
        self.base_true.store(course.base_true, Ordering::Release);
        self.base_shown.store(course.base_shown, Ordering::Release);
        self.rate.store(course.rate, Ordering::Release);
        self.wall_offset.store(course.wall_offset, Ordering::Release);
        self.clock_version.fetch_add(1, Ordering::AcqRel);
    }

    fn load_course(&self) -> Course {
        Course {
            base_true: self.base_true.load(Ordering::Acquire),
            base_shown: self.base_shown.load(Ordering::Acquire),
            rate: self.rate.load(Ordering::Acquire),
            wall_offset: self.wall_offset.load(Ordering::Acquire),
        }
    }
}

/// `span * numerator / denominator`, kept within what fits.
fn scale(span: i64, numerator: i64, denominator: i64) -> i64 {
    let scaled = i128::from(span) * i128::from(numerator) / i128::from(denominator.max(1));
    i64::try_from(scaled).unwrap_or(if scaled < 0 { i64::MIN } else { i64::MAX })
}
