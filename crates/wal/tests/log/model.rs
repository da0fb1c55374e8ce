//! What a log should hold: a plain model that is driven beside a real log, and compared with it.

use std::collections::BTreeMap;
use std::fmt;

use bytes::Bytes;
use ringfence_wal::{Entry, Log, Ticket, WalError};

/// A small generator of numbers that look random (xorshift); the same seed gives the same ones.
pub struct Draws(u64);

/// The content of a log.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Content {
    pub entries: BTreeMap<u64, Bytes>,
    pub purged: Option<(u64, Bytes)>,
    pub vote: Option<Bytes>,
}

/// A log together with what it held after each record staged in this life.
pub struct Driven {
    pub log: Log,
    /// By ticket: what the log holds if exactly the records through it are durable.
    contents: Vec<Content>,
    /// What the log must hold at least, and what it may hold besides if a flush was under way.
    durable: usize,
    in_flight: Option<usize>,
    committed: Option<Bytes>,
    committed_durable: Option<Bytes>,
}

/// What may be found after a crash.
#[derive(Debug)]
pub struct Expected(Vec<(Content, Option<Bytes>)>);

impl Draws {
    pub fn new(seed: u64) -> Draws {
        Draws(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % bound
    }

    pub fn bytes(&mut self, len_max: u64) -> Bytes {
        let (len, fill) = (self.below(len_max + 1), self.below(256) as u8);
        (0..len).map(|at| fill.wrapping_add(at as u8)).collect()
    }
}

impl Content {
    /// What the log holds, read back through its public face.
    pub fn of(log: &Log) -> Result<Content, WalError> {
        let mut entries = BTreeMap::new();
        if let (Some(first), Some(last)) = (log.first_index(), log.last_index()) {
            let mut next = first;
            while next <= last {
                let found = log.read(next, last + 1, 3000)?;
                assert!(!found.is_empty(), "entry {next} of {first} to {last} is not readable");
                for entry in found {
                    assert_eq!(entry.index, next, "entries are consecutive");
                    entries.insert(entry.index, entry.data);
                    next += 1;
                }
            }
        }
        Ok(Content { entries, purged: log.purged(), vote: log.vote() })
    }

    fn next_index(&self, any: u64) -> u64 {
        let last = self.entries.keys().next_back().copied();
        last.or(self.purged.as_ref().map(|(through, _)| *through)).map_or(any, |last| last + 1)
    }
}

impl fmt::Debug for Content {
    /// Entries in short: their lengths and first bytes tell them apart.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, data) in &self.entries {
            write!(f, "{index}:{}x{:?} ", data.len(), data.first())?;
        }
        write!(f, "purged {:?} vote {:?}", self.purged, self.vote)
    }
}

impl Driven {
    /// Takes over a log that was just opened.
    pub fn new(log: Log) -> Result<Driven, WalError> {
        let content = Content::of(&log)?;
        let committed = log.committed();
        Ok(Driven {
            log,
            contents: vec![content],
            durable: 0,
            in_flight: None,
            committed: committed.clone(),
            committed_durable: committed,
        })
    }

    pub fn content(&self) -> &Content {
        self.contents.last().expect("there is a content before the first record")
    }

    /// Does one random thing. `number` makes votes and marks different from all others.
    pub fn step(&mut self, draws: &mut Draws, number: u64) -> Result<(), WalError> {
        // What is staged always fits into one batch, so that it is known where each batch ends.
        if self.log.stats().staged_bytes > 6000 {
            return self.flush();
        }
        match draws.below(20) {
            0..=5 => self.append(draws, 1500),
            6..=7 => self.save_vote(number),
            8..=9 => self.truncate(draws),
            10..=11 => self.purge(draws, number),
            12 => {
                let mark = Bytes::from(format!("committed {number}"));
                self.log.note_committed(mark.clone());
                self.committed = Some(mark);
                Ok(())
            }
            13..=16 => self.flush(),
            17 if self.log.wants_spare() => self.log.prepare_spare(),
            _ => self.check(),
        }
    }

    pub fn append(&mut self, draws: &mut Draws, len_max: u64) -> Result<(), WalError> {
        let first = self.content().next_index(draws.below(5));
        let count = 1 + draws.below(4);
        let entries: Vec<Entry> =
            (first..first + count).map(|index| Entry { index, data: draws.bytes(len_max) }).collect();
        for entry in &entries {
            let mut content = self.content().clone();
            content.entries.insert(entry.index, entry.data.clone());
            self.contents.push(content);
        }
        let ticket = self.log.append(entries)?;
        self.check_ticket(ticket);
        Ok(())
    }

    fn save_vote(&mut self, number: u64) -> Result<(), WalError> {
        let vote = Bytes::from(format!("vote {number}"));
        let ticket = self.log.save_vote(vote.clone())?;
        self.contents.push(Content { vote: Some(vote), ..self.content().clone() });
        self.check_ticket(ticket);
        Ok(())
    }

    fn truncate(&mut self, draws: &mut Draws) -> Result<(), WalError> {
        let mut content = self.content().clone();
        let (Some(first), Some(last)) = (content.entries.keys().next(), content.entries.keys().next_back())
        else {
            return Ok(());
        };
        let after = (first.saturating_sub(1) + draws.below(last - first + 2)).max(first.saturating_sub(1));
        let all = draws.below(4) == 0;
        let before = content.entries.len();
        content.entries.retain(|index, _| !all && *index <= after);
        let ticket = self.log.truncate_after((!all).then_some(after))?;
        if content.entries.len() != before {
            self.contents.push(content);
        }
        self.check_ticket(ticket);
        Ok(())
    }

    fn purge(&mut self, draws: &mut Draws, number: u64) -> Result<(), WalError> {
        let last = self.content().entries.keys().next_back().copied().unwrap_or(0);
        let through =
            if draws.below(5) == 0 { last + draws.below(4) } else { last.saturating_sub(draws.below(6)) };
        self.purge_through(through, number)
    }

    pub fn purge_through(&mut self, through: u64, number: u64) -> Result<(), WalError> {
        let mut content = self.content().clone();
        let purged = content.purged.as_ref().map_or(0, |(through, _)| *through);
        let mark = Bytes::from(format!("purged {number}"));
        let ticket = self.log.purge(through, mark.clone())?;
        if content.purged.is_none() || through > purged {
            content.entries.retain(|index, _| *index > through);
            content.purged = Some((through, mark));
            self.contents.push(content);
        }
        self.check_ticket(ticket);
        Ok(())
    }

    pub fn flush(&mut self) -> Result<(), WalError> {
        let last = self.contents.len() - 1;
        self.in_flight = Some(last);
        let ticket = self.log.flush()?;
        let reached = usize::try_from(ticket.0).unwrap();
        assert!(
            reached == last || reached > self.durable,
            "a flush writes at least one record if there is one"
        );
        if reached > self.durable {
            self.committed_durable = self.committed.clone();
        }
        (self.durable, self.in_flight) = (reached, None);
        assert_eq!(self.log.durable(), ticket);
        Ok(())
    }

    /// What is staged must be readable at once, durable or not.
    pub fn check(&self) -> Result<(), WalError> {
        assert_eq!(Content::of(&self.log)?, *self.content());
        Ok(())
    }

    /// What may be found if the process stops now.
    pub fn expected(&self) -> Expected {
        let durable = (self.contents[self.durable].clone(), self.committed_durable.clone());
        let in_flight = self.in_flight.map(|last| (self.contents[last].clone(), self.committed.clone()));
        Expected([Some(durable), in_flight].into_iter().flatten().collect())
    }

    fn check_ticket(&self, ticket: Ticket) {
        assert_eq!(
            usize::try_from(ticket.0).unwrap(),
            self.contents.len() - 1,
            "each record has a ticket of its own"
        );
    }
}

impl Expected {
    /// Exactly what `log` holds.
    pub fn exactly(log: &Log) -> Result<Expected, WalError> {
        Ok(Expected(vec![(Content::of(log)?, log.committed())]))
    }

    /// What a directory holds in which nothing has been made yet.
    pub fn nothing() -> Expected {
        Expected(vec![(Content::default(), None)])
    }

    pub fn check(&self, log: &Log, story: &str) -> Result<(), WalError> {
        let found = (Content::of(log)?, log.committed());
        assert!(self.0.contains(&found), "{story}: found {found:#?}\nbut expected one of {:#?}", self.0);
        Ok(())
    }
}
