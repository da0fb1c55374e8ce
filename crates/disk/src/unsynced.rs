//! What a crash does to writes and names that were not synced: a file and a directory of the simulated disk, each with
//! its durable part, its present part, and the steps that lie between the two.

use std::collections::BTreeMap;

/// The unit that reaches the disk whole or not at all.
const SECTOR_BYTES: u64 = 512;

/// A small generator of numbers that look random (splitmix64); the same seed gives the same ones.
#[derive(Debug, Clone)]
pub(crate) struct Draws(u64);

/// A file's content.
#[derive(Debug, Clone, Default)]
pub(crate) struct Content {
    present: Vec<u8>,
    durable: Vec<u8>,
    /// Changes of the present that are not durable, oldest first.
    unsynced: Vec<Change>,
}

#[derive(Debug, Clone)]
enum Change {
    Write { offset: u64, bytes: Vec<u8> },
    SetLen(u64),
}

/// The names in a directory, each with the number of its file.
#[derive(Debug, Clone, Default)]
pub(crate) struct Names {
    present: BTreeMap<String, u64>,
    durable: BTreeMap<String, u64>,
    /// Changes of the present that are not durable, oldest first.
    unsynced: Vec<NameChange>,
}

#[derive(Debug, Clone)]
enum NameChange {
    Create { name: String, file: u64 },
    Rename { from: String, to: String, file: u64 },
    Remove { name: String },
}

impl Draws {
    pub(crate) fn new(seed: u64) -> Draws {
        Draws(seed)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `bound`, which is not 0.
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    fn coin(&mut self) -> bool {
        self.below(2) == 0
    }
}

impl Content {
    pub(crate) fn len(&self) -> u64 {
        self.present.len() as u64
    }

    /// The bytes that are not a hole: here, all up to the last one that is not 0.
    pub(crate) fn disk_bytes(&self) -> u64 {
        let used = self.present.iter().rposition(|byte| *byte != 0).map_or(0, |last| last as u64 + 1);
        used.next_multiple_of(SECTOR_BYTES)
    }

    /// The bytes from `offset` on; `None` where the file ends before.
    pub(crate) fn read(&self, offset: u64, len: usize) -> Option<&[u8]> {
        let start = usize::try_from(offset).ok()?;
        self.present.get(start..start.checked_add(len)?)
    }

    pub(crate) fn write(&mut self, offset: u64, bytes: &[u8]) {
        let change = Change::Write { offset, bytes: bytes.to_vec() };
        change.apply(&mut self.present);
        self.unsynced.push(change);
    }

    pub(crate) fn set_len(&mut self, len: u64) {
        let change = Change::SetLen(len);
        change.apply(&mut self.present);
        self.unsynced.push(change);
    }

    pub(crate) fn sync(&mut self) {
        for change in self.unsynced.drain(..) {
            change.apply(&mut self.durable);
        }
    }

    /// A sync that failed: some of the changes are durable and the others never will be by any later sync, although
    /// reads still show them. So Linux behaves: a page whose writing failed counts as clean.
    pub(crate) fn sync_failed(&mut self, draws: &mut Draws) {
        for change in self.unsynced.drain(..) {
            change.apply_in_part(&mut self.durable, draws);
        }
    }

    pub(crate) fn crash(&mut self, draws: &mut Draws) {
        self.sync_failed(draws);
        self.present.clone_from(&self.durable);
    }

    /// Flips bits, in what is present and in what is durable alike. False where the file ends before `offset`.
    pub(crate) fn corrupt(&mut self, offset: u64, mask: u8) -> bool {
        let Ok(place) = usize::try_from(offset) else { return false };
        let mut found = false;
        for bytes in [&mut self.present, &mut self.durable] {
            if let Some(byte) = bytes.get_mut(place) {
                *byte ^= mask;
                found = true;
            }
        }
        found
    }
}

impl Change {
    fn apply(&self, bytes: &mut Vec<u8>) {
        match self {
            Change::Write { offset, bytes: written } => put(bytes, *offset, written),
            Change::SetLen(len) => bytes.resize(place(*len), 0),
        }
    }

    /// Applies the change wholly, not at all, or, if it is a write, sector by sector as the draws fall.
    fn apply_in_part(&self, bytes: &mut Vec<u8>, draws: &mut Draws) {
        match (draws.below(4), self) {
            (0, _) => {}
            (1, _) | (_, Change::SetLen(_)) => self.apply(bytes),
            (_, Change::Write { offset, bytes: written }) => {
                let mut start = 0;
                while start < written.len() {
                    let from = offset + start as u64;
                    let room = place(SECTOR_BYTES - from % SECTOR_BYTES);
                    let end = (start + room).min(written.len());
                    if draws.coin() {
                        put(bytes, from, &written[start..end]);
                    }
                    start = end;
                }
            }
        }
    }
}

impl Names {
    pub(crate) fn get(&self, name: &str) -> Option<u64> {
        self.present.get(name).copied()
    }

    pub(crate) fn list(&self) -> Vec<String> {
        self.present.keys().cloned().collect()
    }

    /// The numbers of the files that have a name now.
    pub(crate) fn files(&self) -> impl Iterator<Item = u64> + '_ {
        self.present.values().copied()
    }

    /// The numbers of the files that have a name now or may have one again after a crash.
    pub(crate) fn reachable_files(&self) -> impl Iterator<Item = u64> + '_ {
        let unsynced = self.unsynced.iter().filter_map(|change| match change {
            NameChange::Create { file, .. } | NameChange::Rename { file, .. } => Some(*file),
            NameChange::Remove { .. } => None,
        });
        self.files().chain(self.durable.values().copied()).chain(unsynced)
    }

    pub(crate) fn create(&mut self, name: &str, file: u64) {
        self.change(NameChange::Create { name: name.to_owned(), file });
    }

    pub(crate) fn rename(&mut self, from: &str, to: &str, file: u64) {
        self.change(NameChange::Rename { from: from.to_owned(), to: to.to_owned(), file });
    }

    pub(crate) fn remove(&mut self, name: &str) {
        self.change(NameChange::Remove { name: name.to_owned() });
    }

    pub(crate) fn sync(&mut self) {
        for change in self.unsynced.drain(..) {
            change.apply(&mut self.durable);
        }
    }

    /// A sync that failed: the first changes may be durable, in their order, and the others wait for another sync. So a
    /// file system with a journal behaves: unlike pages of data, no name is forgotten while it is still shown.
    pub(crate) fn sync_failed(&mut self, draws: &mut Draws) {
        while !self.unsynced.is_empty() && draws.coin() {
            self.unsynced.remove(0).apply(&mut self.durable);
        }
    }

    pub(crate) fn crash(&mut self, draws: &mut Draws) {
        for change in self.unsynced.drain(..) {
            if draws.coin() {
                change.apply(&mut self.durable);
            }
        }
        self.present.clone_from(&self.durable);
    }

    fn change(&mut self, change: NameChange) {
        change.apply(&mut self.present);
        self.unsynced.push(change);
    }
}

impl NameChange {
    fn apply(&self, names: &mut BTreeMap<String, u64>) {
        match self {
            NameChange::Create { name, file } => {
                names.insert(name.clone(), *file);
            }
            NameChange::Rename { from, to, file } => {
                names.remove(from);
                names.insert(to.clone(), *file);
            }
            NameChange::Remove { name } => {
                names.remove(name);
            }
        }
    }
}

fn put(bytes: &mut Vec<u8>, offset: u64, written: &[u8]) {
    let start = place(offset);
    let end = start + written.len();
    if bytes.len() < end {
        bytes.resize(end, 0);
    }
    bytes[start..end].copy_from_slice(written);
}

/// An offset or length as a place in memory.
pub(crate) fn place(offset: u64) -> usize {
    usize::try_from(offset).expect("a simulated file fits into memory")
}
