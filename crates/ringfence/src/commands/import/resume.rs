//! How an import goes on where it stopped: a small file says how many lines from the start were all acknowledged, with a
//! digest of them, so that another input is noticed instead of silently cut.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::hash::Hasher as _;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use siphasher::sip::SipHasher13;

use crate::exit::{Exit, Failure};

/// The digest of one line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct LineDigest(u64);

/// Lines from the start of the input that were all acknowledged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Prefix {
    lines: u64,
    digest: u64,
}

/// What was acknowledged, and the file that remembers it.
#[derive(Debug)]
pub(super) struct Journal {
    path: Option<PathBuf>,
    start: Prefix,
    prefix: Prefix,
    saved: Prefix,
    /// Acknowledged lines behind the first one that is not.
    ahead: BTreeMap<u64, LineDigest>,
}

/// The part of the input that was imported before, as the reader passes over it.
#[derive(Debug)]
pub(super) struct Start {
    wanted: Prefix,
    passed: Prefix,
}

impl LineDigest {
    pub(super) fn of(line: &str) -> LineDigest {
        let mut hasher = SipHasher13::new();
        hasher.write(line.as_bytes());
        LineDigest(hasher.finish())
    }
}

impl Prefix {
    fn extend(&mut self, line: LineDigest) {
        let mut hasher = SipHasher13::new();
        hasher.write_u64(self.digest);
        hasher.write_u64(line.0);
        *self = Prefix { lines: self.lines + 1, digest: hasher.finish() };
    }
}

impl Journal {
    /// Opens the journal at `path`; without a path nothing is remembered.
    pub(super) fn open(path: Option<&Path>) -> Result<Journal, Failure> {
        let start = match path {
            Some(path) if path.exists() => {
                let wrong = |error: &dyn std::fmt::Display| {
                    Failure::new(
                        Exit::General,
                        format!("{} is no state of an import: {error}", path.display()),
                    )
                    .next("remove the file to import everything from the start")
                };
                let text = fs::read_to_string(path).map_err(|error| wrong(&error))?;
                serde_json::from_str(&text).map_err(|error| wrong(&error))?
            }
            _ => Prefix::default(),
        };
        Ok(Journal {
            path: path.map(Path::to_path_buf),
            start,
            prefix: start,
            saved: start,
            ahead: BTreeMap::new(),
        })
    }

    /// Lines that were imported before this run.
    pub(super) fn lines_done(&self) -> u64 {
        self.start.lines
    }

    pub(super) fn start(&self) -> Start {
        Start { wanted: self.start, passed: Prefix::default() }
    }

    /// Notes that a line, counted from 0, was acknowledged.
    pub(super) fn acknowledge(&mut self, number: u64, digest: LineDigest) {
        self.ahead.insert(number, digest);
        while let Some(entry) = self.ahead.first_entry()
            && *entry.key() == self.prefix.lines
        {
            self.prefix.extend(entry.remove());
        }
    }

    /// Brings the file up to date, in one step: it is always whole.
    pub(super) fn save(&mut self) -> Result<(), Failure> {
        let Some(path) = &self.path else { return Ok(()) };
        if self.prefix == self.saved {
            return Ok(());
        }
        let text = serde_json::to_string(&self.prefix).map_err(std::io::Error::from)?;
        let part = path.with_extension("part");
        let mut file = File::create(&part)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        fs::rename(&part, path)?;
        self.saved = self.prefix;
        Ok(())
    }
}

impl Start {
    /// Whether the next line of the input was imported before.
    pub(super) fn was_done(&mut self, line: LineDigest) -> Result<bool, Failure> {
        if self.passed.lines == self.wanted.lines {
            return Ok(false);
        }
        self.passed.extend(line);
        if self.passed.lines == self.wanted.lines && self.passed.digest != self.wanted.digest {
            return Err(Start::other_input());
        }
        Ok(true)
    }

    /// Whether the input was at least as long as what was imported before.
    pub(super) fn check_reached(&self) -> Result<(), Failure> {
        if self.passed.lines < self.wanted.lines { Err(Start::other_input()) } else { Ok(()) }
    }

    fn other_input() -> Failure {
        Failure::new(Exit::General, "the file of --state belongs to another input than this one")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINES: [&str; 4] = ["a", "b", "c", "d"];

    fn pass(start: &mut Start, lines: &[&str]) -> Result<Vec<bool>, Failure> {
        lines.iter().map(|line| start.was_done(LineDigest::of(line))).collect()
    }

    #[test]
    fn only_lines_without_a_gap_before_them_are_remembered() {
        let folder = tempfile::tempdir().expect("a temporary folder can be made");
        let path = folder.path().join("state");
        let mut journal = Journal::open(Some(&path)).expect("there is none yet");
        for number in [1, 3, 0] {
            journal.acknowledge(number, LineDigest::of(LINES[number as usize]));
        }
        journal.save().expect("the folder is writable");

        let journal = Journal::open(Some(&path)).expect("it was just written");
        assert_eq!(journal.lines_done(), 2);
        let passed = pass(&mut journal.start(), &LINES).expect("it is the same input");
        assert_eq!(passed, [true, true, false, false]);
    }

    #[test]
    fn another_input_is_noticed() {
        let folder = tempfile::tempdir().expect("a temporary folder can be made");
        let path = folder.path().join("state");
        let mut journal = Journal::open(Some(&path)).expect("there is none yet");
        for (number, line) in (0..).zip(LINES) {
            journal.acknowledge(number, LineDigest::of(line));
        }
        journal.save().expect("the folder is writable");

        let journal = Journal::open(Some(&path)).expect("it was just written");
        assert!(pass(&mut journal.start(), &["a", "b", "x", "d"]).is_err());
        let mut start = journal.start();
        pass(&mut start, &LINES[..3]).expect("so far it is the same");
        assert!(start.check_reached().is_err(), "a shorter input must be noticed");
        fs::write(&path, "nonsense").expect("the folder is writable");
        assert!(Journal::open(Some(&path)).is_err());
    }
}
