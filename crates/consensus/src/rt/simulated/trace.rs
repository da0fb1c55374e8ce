//! The trace: what happened, in order, as a number that two runs can compare and, where asked for, as lines of text.

use std::fmt;
use std::io::Write;

/// Where the lines of a trace go.
pub type Journal = Box<dyn Write + Send>;

/// The digest of all that has happened so far, and the journal, if one is kept.
pub(super) struct Trace {
    digest: u64,
    journal: Option<Journal>,
}

impl Trace {
    pub(super) fn new(journal: Option<Journal>) -> Trace {
        Trace { digest: 0xcbf2_9ce4_8422_2325, journal }
    }

    pub(super) fn digest(&self) -> u64 {
        self.digest
    }

    /// Takes a step into the digest, and its line into the journal.
    pub(super) fn step(&mut self, time: u64, words: [u64; 3], line: fmt::Arguments<'_>) {
        for word in [time].into_iter().chain(words) {
            self.digest = (self.digest ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(23);
        }
        self.line(time, line);
    }

    /// Takes a remark into the journal alone.
    pub(super) fn line(&mut self, time: u64, line: fmt::Arguments<'_>) {
        if let Some(journal) = &mut self.journal {
            let written = writeln!(journal, "{:>4}.{:09} {line}", time / 1_000_000_000, time % 1_000_000_000);
            written.expect("the journal of a simulation can be written");
        }
    }

    pub(super) fn finish(&mut self) {
        if let Some(journal) = &mut self.journal {
            journal.flush().expect("the journal of a simulation can be written");
        }
    }
}
