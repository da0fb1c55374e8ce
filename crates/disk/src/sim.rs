//! A disk in memory that fails on purpose: it loses, tears and refuses what was not synced, as a seed decides.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::io;
use std::sync::Arc;

use parking_lot::Mutex;
use ringfence_canary::Canary;

use crate::unsynced::{Content, Draws, Names, place};
use crate::{Disk, File, Open, check_name};

/// What a disk without a bound says is free.
const FREE_BYTES: u64 = 1 << 40;

/// A directory of a disk in memory. Clones are the same directory.
///
/// Every operation, reads included, is a *step*, counted from 1. A *life* ends with [`SimDisk::crash`] or
/// [`SimDisk::kill`]: handles opened in it return an I/O error from then on. The same seed and the same calls give the
/// same disk, step for step.
///
/// ```
/// use ringfence_disk::{Disk, Fault, Open, SimDisk};
///
/// let disk = SimDisk::new(7);
/// let file = disk.open("a", Open::New)?;
/// file.write_all_at(b"kept", 0)?;
/// file.sync_data()?;
/// disk.sync_dir()?;
/// file.write_all_at(b"lost, torn or kept", 4)?;
/// disk.inject(Fault::CrashAtStep(disk.steps() + 1));
/// assert!(file.sync_data().is_err());
/// disk.crash();
/// let mut bytes = [0; 4];
/// disk.open("a", Open::Existing)?.read_exact_at(&mut bytes, 0)?;
/// assert_eq!(&bytes, b"kept");
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Clone)]
pub struct SimDisk {
    machine: Arc<Mutex<Machine>>,
    /// The path from the root, empty or ending with a slash.
    directory: String,
}

/// Something that goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The operation of this step and all later ones fail until [`SimDisk::crash`] or [`SimDisk::kill`]. What that one
    /// operation was to do may or may not be found after a crash.
    CrashAtStep(u64),
    /// The first read at or after this step fails.
    FailRead(u64),
    /// The first write at or after this step fails; a part of its bytes may have been written.
    FailWrite(u64),
    /// The first sync (of data or of names) at or after this step fails: some of what it was for is durable. No later
    /// sync makes up for the rest of the data, although reads go on to show it; names are made up for.
    FailSync(u64),
    /// The disk holds no more than this many bytes in all its files.
    Full {
        /// The number of bytes.
        bytes: u64,
    },
}

struct SimFile {
    machine: Arc<Mutex<Machine>>,
    number: u64,
    life: u64,
}

/// Everything behind the handles.
#[derive(Clone)]
struct Machine {
    draws: Draws,
    steps: u64,
    life: u64,
    /// Set by a fault: nothing works until the next life.
    down: bool,
    faults: Vec<Fault>,
    files: BTreeMap<u64, Content>,
    directories: BTreeMap<String, Names>,
    last_file: u64,
}

/// What an operation does, as far as faults tell them apart.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Ask,
    Read,
    Write,
    Sync,
    Names,
}

/// How an operation ends.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Verdict {
    Works,
    /// It fails, and perhaps has done a part of its work.
    Fails,
}

impl SimDisk {
    /// An empty disk.
    #[must_use]
    pub fn new(seed: u64) -> SimDisk {
        let machine = Machine {
            draws: Draws::new(seed),
            steps: 0,
            life: 1,
            down: false,
            faults: Vec::new(),
            files: BTreeMap::new(),
            directories: BTreeMap::from([(String::new(), Names::default())]),
            last_file: 0,
        };
        SimDisk { machine: Arc::new(Mutex::new(machine)), directory: String::new() }
    }

    /// A disk of its own that holds the same, synced and unsynced, and decides by another seed from here on. Faults
    /// are not copied, and no handle of this disk works on it.
    #[must_use]
    pub fn fork(&self, seed: u64) -> SimDisk {
        let mut machine = self.machine.lock().clone();
        machine.draws = Draws::new(seed);
        machine.faults.clear();
        machine.down = false;
        SimDisk { machine: Arc::new(Mutex::new(machine)), directory: self.directory.clone() }
    }

    /// Number of steps so far.
    #[must_use]
    pub fn steps(&self) -> u64 {
        self.machine.lock().steps
    }

    /// Bytes in all files.
    #[must_use]
    pub fn used_bytes(&self) -> u64 {
        self.machine.lock().used_bytes()
    }

    /// A directory within this one, looked at from outside: no step is counted, and nothing is made.
    #[must_use]
    pub fn inner(&self, name: &str) -> Option<SimDisk> {
        let directory = format!("{}{name}/", self.directory);
        let known = self.machine.lock().directories.contains_key(&directory);
        known.then(|| SimDisk { machine: self.machine.clone(), directory })
    }

    /// The files of this directory with their lengths, looked at from outside: no step is counted.
    #[must_use]
    pub fn files(&self) -> Vec<(String, u64)> {
        let mut machine = self.machine.lock();
        let names = machine.names(&self.directory).list();
        let numbers: Vec<u64> =
            names.iter().filter_map(|name| machine.names(&self.directory).get(name)).collect();
        names.into_iter().zip(numbers).map(|(name, number)| (name, machine.content(number).len())).collect()
    }

    /// Adds a fault. Those that name a step happen once.
    pub fn inject(&self, fault: Fault) {
        self.machine.lock().faults.push(fault);
    }

    /// Takes back all faults that have not happened.
    pub fn clear_faults(&self) {
        self.machine.lock().faults.clear();
    }

    /// Whether a crash fault has happened and the next life has not begun.
    #[must_use]
    pub fn is_down(&self) -> bool {
        self.machine.lock().down
    }

    /// Power is cut and comes back: each unsynced write is kept, lost or torn, and each unsynced name kept or lost, as
    /// the seed decides. Old handles are dead and faults are cleared.
    pub fn crash(&self) {
        let machine = &mut *self.machine.lock();
        for content in machine.files.values_mut() {
            content.crash(&mut machine.draws);
        }
        for names in machine.directories.values_mut() {
            names.crash(&mut machine.draws);
        }
        machine.next_life();
    }

    /// The process is killed and started again on a machine that stays up: nothing is lost, and nothing more is
    /// durable than before. Old handles are dead and faults are cleared.
    pub fn kill(&self) {
        self.machine.lock().next_life();
    }

    /// Flips the bits of `mask` in one byte of a file in this directory, behind everybody's back.
    ///
    /// # Panics
    /// Where there is no such file or byte: the test means another one.
    pub fn corrupt(&self, name: &str, offset: u64, mask: u8) {
        let mut machine = self.machine.lock();
        let number = machine.names(&self.directory).get(name).expect("the file to corrupt exists");
        assert!(machine.content(number).corrupt(offset, mask), "the byte to corrupt exists");
    }
}

impl Disk for SimDisk {
    fn open(&self, name: &str, mode: Open) -> io::Result<Arc<dyn File>> {
        check_name(name)?;
        let mut machine = self.machine.lock();
        let number = match (machine.names(&self.directory).get(name), mode) {
            (Some(number), Open::Existing | Open::Any) => {
                machine.step(Kind::Ask)?;
                number
            }
            (Some(_), Open::New) => return machine.refuse(io::ErrorKind::AlreadyExists, name),
            (None, Open::Existing) => return machine.refuse(io::ErrorKind::NotFound, name),
            (None, Open::New | Open::Any) => {
                let verdict = machine.begin(Kind::Names)?;
                machine.last_file += 1;
                let number = machine.last_file;
                machine.files.insert(number, Content::default());
                machine.names(&self.directory).create(name, number);
                verdict.end()?;
                number
            }
        };
        Ok(Arc::new(SimFile { machine: self.machine.clone(), number, life: machine.life }))
    }

    fn list(&self) -> io::Result<Vec<String>> {
        let mut machine = self.machine.lock();
        machine.step(Kind::Ask)?;
        Ok(machine.names(&self.directory).list())
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        check_name(from).and(check_name(to))?;
        let mut machine = self.machine.lock();
        let Some(number) = machine.names(&self.directory).get(from) else {
            return machine.refuse(io::ErrorKind::NotFound, from);
        };
        let verdict = machine.begin(Kind::Names)?;
        machine.names(&self.directory).rename(from, to, number);
        verdict.end()
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        check_name(name)?;
        let mut machine = self.machine.lock();
        if machine.names(&self.directory).get(name).is_none() {
            return machine.refuse(io::ErrorKind::NotFound, name);
        }
        let verdict = machine.begin(Kind::Names)?;
        machine.names(&self.directory).remove(name);
        verdict.end()
    }

    fn sync_dir(&self) -> io::Result<()> {
        let mut machine = self.machine.lock();
        let verdict = machine.begin(Kind::Sync)?;
        if verdict == Verdict::Works {
            machine.names(&self.directory).sync();
        } else if !machine.down {
            let machine = &mut *machine;
            let names = machine.directories.get_mut(&self.directory).expect("a directory is never removed");
            names.sync_failed(&mut machine.draws);
        }
        verdict.end()
    }

    fn subdirectory(&self, name: &str) -> io::Result<Arc<dyn Disk>> {
        check_name(name)?;
        let mut machine = self.machine.lock();
        let verdict = machine.begin(Kind::Names)?;
        let directory = format!("{}{name}/", self.directory);
        machine.directories.entry(directory.clone()).or_default();
        verdict.end()?;
        Ok(Arc::new(SimDisk { machine: self.machine.clone(), directory }))
    }

    fn free_bytes(&self) -> io::Result<u64> {
        let mut machine = self.machine.lock();
        machine.step(Kind::Ask)?;
        Ok(machine.free_bytes())
    }
}

impl SimFile {
    /// The machine, if this handle is of its present life.
    fn enter(&self) -> io::Result<parking_lot::MutexGuard<'_, Machine>> {
        let machine = self.machine.lock();
        if machine.life == self.life {
            Ok(machine)
        } else {
            Err(io_error("the handle is of an earlier life"))
        }
    }
}

impl File for SimFile {
    fn len(&self) -> io::Result<u64> {
        let mut machine = self.enter()?;
        machine.step(Kind::Ask)?;
        Ok(machine.content(self.number).len())
    }

    fn disk_bytes(&self) -> io::Result<u64> {
        let mut machine = self.enter()?;
        machine.step(Kind::Ask)?;
        Ok(machine.content(self.number).disk_bytes())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let mut machine = self.enter()?;
        let verdict = machine.begin(Kind::Write)?;
        if len.saturating_sub(machine.content(self.number).len()) > machine.free_bytes() {
            return Err(io::Error::from(io::ErrorKind::StorageFull));
        }
        machine.content(self.number).set_len(len);
        verdict.end()
    }

    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        let mut machine = self.enter()?;
        machine.step(Kind::Read)?;
        let Some(bytes) = machine.content(self.number).read(offset, buffer.len()) else {
            return Err(io::Error::from(io::ErrorKind::UnexpectedEof));
        };
        buffer.copy_from_slice(bytes);
        Ok(())
    }

    fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let mut machine = self.enter()?;
        let verdict = machine.begin(Kind::Write)?;
        let grows = (offset + bytes.len() as u64).saturating_sub(machine.content(self.number).len());
        if let lacking @ 1.. = grows.saturating_sub(machine.free_bytes()) {
            let fits = (bytes.len() as u64).saturating_sub(lacking);
            machine.content(self.number).write(offset, &bytes[..place(fits)]);
            return Err(io::Error::from(io::ErrorKind::StorageFull));
        }
        // A crash may tear the write by itself; a failed write has written its beginning.
        let written = if verdict == Verdict::Works || machine.down {
            bytes.len()
        } else {
            place(machine.draws.below(bytes.len() as u64 + 1))
        };
        machine.content(self.number).write(offset, &bytes[..written]);
        verdict.end()
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut machine = self.enter()?;
        let verdict = machine.begin(Kind::Sync)?;
        if Canary::LyingSync.sings() {
            return verdict.end();
        }
        if verdict == Verdict::Works {
            machine.content(self.number).sync();
        } else if !machine.down {
            let machine = &mut *machine;
            let content = machine.files.get_mut(&self.number).expect("an open file has content");
            content.sync_failed(&mut machine.draws);
        }
        verdict.end()
    }
}

impl Machine {
    /// Counts a step and judges it. An error means that the operation must not begin.
    fn begin(&mut self, kind: Kind) -> io::Result<Verdict> {
        if self.down {
            return Err(io_error("the disk is down"));
        }
        self.steps += 1;
        let step = self.steps;
        let strikes = |fault: &Fault| match *fault {
            Fault::CrashAtStep(at) => step >= at,
            Fault::FailRead(from) => kind == Kind::Read && step >= from,
            Fault::FailWrite(from) => kind == Kind::Write && step >= from,
            Fault::FailSync(from) => kind == Kind::Sync && step >= from,
            Fault::Full { .. } => false,
        };
        let Some(place) = self.faults.iter().position(strikes) else { return Ok(Verdict::Works) };
        let fault = self.faults.remove(place);
        self.down |= matches!(fault, Fault::CrashAtStep(_));
        Ok(Verdict::Fails)
    }

    /// Counts a step that changes nothing.
    fn step(&mut self, kind: Kind) -> io::Result<()> {
        self.begin(kind)?.end()
    }

    /// Counts a step that the file system refuses.
    fn refuse<T>(&mut self, kind: io::ErrorKind, name: &str) -> io::Result<T> {
        self.step(Kind::Ask)?;
        Err(io::Error::new(kind, format!("{name}: {kind}")))
    }

    fn next_life(&mut self) {
        self.life += 1;
        self.down = false;
        self.faults.clear();
        // Files without a name lived by their handles alone.
        let named: BTreeSet<u64> = self.directories.values().flat_map(Names::reachable_files).collect();
        self.files.retain(|number, _| named.contains(number));
    }

    fn names(&mut self, directory: &str) -> &mut Names {
        self.directories.get_mut(directory).expect("a directory is never removed")
    }

    fn content(&mut self, number: u64) -> &mut Content {
        self.files.get_mut(&number).expect("a handle of this life keeps its file")
    }

    fn free_bytes(&self) -> u64 {
        let capacity = self.faults.iter().find_map(|fault| match fault {
            Fault::Full { bytes } => Some(*bytes),
            _ => None,
        });
        let Some(capacity) = capacity else { return FREE_BYTES };
        capacity.saturating_sub(self.used_bytes())
    }

    fn used_bytes(&self) -> u64 {
        let named = self.directories.values().flat_map(Names::files);
        named.filter_map(|number| self.files.get(&number)).map(Content::len).sum()
    }
}

impl Verdict {
    fn end(self) -> io::Result<()> {
        match self {
            Verdict::Works => Ok(()),
            Verdict::Fails => Err(io_error("a simulated fault")),
        }
    }
}

impl fmt::Debug for SimDisk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SimDisk(/{})", self.directory)
    }
}

impl fmt::Debug for SimFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SimFile({} of life {})", self.number, self.life)
    }
}

fn io_error(what: &str) -> io::Error {
    // `Error::from_raw_os_error(EIO)` has no kind of its own in std either; the text says that it was simulated.
    io::Error::other(format!("input/output error: {what}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECTOR: usize = 512;

    fn read(disk: &SimDisk, name: &str) -> Vec<u8> {
        let file = disk.open(name, Open::Existing).unwrap();
        let mut bytes = vec![0; file.len().unwrap().try_into().unwrap()];
        file.read_exact_at(&mut bytes, 0).unwrap();
        bytes
    }

    /// A disk with one durable file of `sectors` sectors of ones.
    fn disk_with_ones(seed: u64, sectors: usize) -> (SimDisk, Arc<dyn File>) {
        let disk = SimDisk::new(seed);
        let file = disk.open("a", Open::New).unwrap();
        file.write_all_at(&vec![1; sectors * SECTOR], 0).unwrap();
        file.sync_data().unwrap();
        disk.sync_dir().unwrap();
        (disk, file)
    }

    #[test]
    fn a_crash_keeps_what_was_synced_and_keeps_loses_or_tears_the_rest() {
        let (mut kept, mut lost, mut torn) = (0, 0, 0);
        for seed in 0..200 {
            let (disk, file) = disk_with_ones(seed, 8);
            file.write_all_at(&[2; 4 * SECTOR], 2 * SECTOR as u64).unwrap();
            disk.crash();
            let bytes = read(&disk, "a");
            assert_eq!(bytes.len(), 8 * SECTOR);
            assert!(bytes[..2 * SECTOR].iter().chain(&bytes[6 * SECTOR..]).all(|byte| *byte == 1));
            let written = &bytes[2 * SECTOR..6 * SECTOR];
            assert!(written.chunks(SECTOR).all(|sector| sector.iter().all(|byte| *byte == sector[0])));
            match written.iter().filter(|byte| **byte == 2).count() / SECTOR {
                0 => lost += 1,
                4 => kept += 1,
                _ => torn += 1,
            }
            assert!(file.len().is_err(), "the handle is of an earlier life");
        }
        assert!(kept > 20 && lost > 20 && torn > 20, "kept {kept}, lost {lost}, torn {torn}");
    }

    #[test]
    fn names_are_durable_once_the_directory_is_synced() {
        let mut outcomes = BTreeSet::new();
        for seed in 0..50 {
            let (disk, _) = disk_with_ones(seed, 1);
            disk.open("b", Open::New).unwrap();
            disk.rename("a", "c").unwrap();
            let synced = disk.fork(seed);
            synced.sync_dir().unwrap();
            synced.crash();
            assert_eq!(synced.list().unwrap(), ["b", "c"]);
            disk.crash();
            outcomes.insert(disk.list().unwrap());
        }
        let expected = [&["a"][..], &["a", "b"], &["b", "c"], &["c"]];
        assert_eq!(outcomes.into_iter().collect::<Vec<_>>(), expected);
    }

    #[test]
    fn after_a_crash_fault_nothing_works_until_the_next_life() {
        let (disk, file) = disk_with_ones(3, 1);
        disk.inject(Fault::CrashAtStep(disk.steps() + 2));
        file.write_all_at(&[2], 0).unwrap();
        assert!(file.sync_data().is_err() && disk.is_down());
        assert!(file.len().is_err() && disk.list().is_err() && disk.sync_dir().is_err());
        disk.crash();
        assert_eq!(disk.list().unwrap(), ["a"]);
    }

    #[test]
    fn a_failed_sync_is_not_made_good_by_a_later_one() {
        let mut lost = 0;
        for seed in 0..50 {
            let (disk, file) = disk_with_ones(seed, 1);
            file.write_all_at(&[2; SECTOR], 0).unwrap();
            disk.inject(Fault::FailSync(0));
            assert!(file.sync_data().is_err());
            file.sync_data().unwrap();
            disk.kill();
            assert_eq!(
                read(&disk, "a"),
                [2; SECTOR],
                "reads show what was written as long as the machine is up"
            );
            disk.crash();
            lost += u32::from(read(&disk, "a") == [1; SECTOR]);
        }
        assert!(lost > 5, "{lost}");
    }

    #[test]
    fn single_faults_strike_once_and_only_their_kind() {
        let (disk, file) = disk_with_ones(1, 1);
        disk.inject(Fault::FailWrite(0));
        disk.inject(Fault::FailRead(0));
        file.sync_data().unwrap();
        assert!(file.write_all_at(&[2], 0).is_err());
        assert!(file.read_exact_at(&mut [0], 0).is_err());
        file.write_all_at(&[2], 0).unwrap();
        file.read_exact_at(&mut [0], 0).unwrap();
    }

    #[test]
    fn a_full_disk_refuses_what_would_make_files_grow() {
        let (disk, file) = disk_with_ones(1, 1);
        disk.inject(Fault::Full { bytes: SECTOR as u64 + 3 });
        assert_eq!(disk.free_bytes().unwrap(), 3);
        let error = file.write_all_at(&[2; 4], SECTOR as u64).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::StorageFull);
        assert_eq!(file.len().unwrap(), SECTOR as u64 + 3, "what fits has been written");
        file.write_all_at(&[3; 4], 0).unwrap();
        assert_eq!(file.set_len(4 * SECTOR as u64).unwrap_err().kind(), io::ErrorKind::StorageFull);
    }

    #[test]
    fn subdirectories_are_durable_and_apart() {
        let disk = SimDisk::new(1);
        let inner = disk.subdirectory("inner").unwrap();
        inner.open("x", Open::New).unwrap();
        inner.sync_dir().unwrap();
        disk.crash();
        assert!(disk.list().unwrap().is_empty());
        assert_eq!(disk.subdirectory("inner").unwrap().list().unwrap(), ["x"]);
        assert!(disk.open("inner/x", Open::Existing).is_err());
    }

    #[test]
    fn the_same_seed_gives_the_same_disk() {
        let run = || {
            let (disk, file) = disk_with_ones(42, 64);
            file.write_all_at(&[2; 64 * SECTOR], 0).unwrap();
            disk.crash();
            read(&disk, "a")
        };
        assert_eq!(run(), run());
    }

    #[test]
    fn a_removed_name_may_come_back_with_its_content() {
        let mut came_back = 0;
        for seed in 0..20 {
            let (disk, _) = disk_with_ones(seed, 1);
            disk.remove("a").unwrap();
            disk.kill();
            disk.crash();
            if disk.list().unwrap() == ["a"] {
                assert_eq!(read(&disk, "a"), [1; SECTOR]);
                came_back += 1;
            }
        }
        assert!(came_back > 2);
    }
}
