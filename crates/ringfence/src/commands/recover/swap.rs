//! Swapping what lies in a data directory, in steps of which each can be the last before a crash.
//!
//! ```text
//! D/recovering/state/state.redb     the new state: complete once it has this name
//! D/before-recover-1/identity       1. from here on no node starts on D: it holds a log and no identity
//! D/before-recover-1/log, ...       2. everything else of the old node
//! D/before-recover-1/state          3. the old state, last
//! D/state                           4. the new state; D is that of a node that has not been founded
//! ```
//!
//! All of it lies within the data directory, which may be a mount point: nothing can be renamed to beside one.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use ringfence_store::STATE_FILE;

use crate::commands::serve::data_dir::LOCK;
use crate::commands::snapshot::STATE_DIRECTORY;

const RECOVERING: &str = "recovering";
const ASIDE_PREFIX: &str = "before-recover-";
const IDENTITY: &str = "identity";

/// The swap within one data directory, which is locked.
pub(super) struct Swap<'a> {
    data_dir: &'a Path,
}

impl Swap<'_> {
    pub(super) fn new(data_dir: &Path) -> Swap<'_> {
        Swap { data_dir }
    }

    /// Whether an earlier run was stopped after it had begun to move the old files.
    pub(super) fn is_interrupted(&self) -> io::Result<bool> {
        Ok(!self.data_dir.join(IDENTITY).exists()
            && self.data_dir.join(RECOVERING).exists()
            && self.newest_aside()?.is_some())
    }

    /// Makes the directory for the new state, empty; what an earlier run has left there is dropped.
    pub(super) fn prepare(&self) -> io::Result<PathBuf> {
        let recovering = self.data_dir.join(RECOVERING);
        if recovering.exists() {
            fs::remove_dir_all(&recovering)?;
        }
        fs::create_dir(&recovering)?;
        sync(self.data_dir)?;
        Ok(recovering.join(STATE_DIRECTORY))
    }

    /// Puts the new state in the place of everything else, which is kept aside; goes on where an earlier run stopped.
    /// Returns where the old files are.
    pub(super) fn finish(&self) -> io::Result<PathBuf> {
        let aside = self.aside()?;
        let recovering = self.data_dir.join(RECOVERING);
        let (new_state, state) = (recovering.join(STATE_DIRECTORY), self.data_dir.join(STATE_DIRECTORY));
        for name in self.names_to_move()? {
            // The new state in place: the old one has been moved.
            if name != STATE_DIRECTORY || new_state.join(STATE_FILE).exists() {
                fs::rename(self.data_dir.join(&name), aside.join(&name))?;
                sync(&aside)?;
                sync(self.data_dir)?;
            }
        }
        if new_state.exists() {
            fs::rename(&new_state, &state)?;
            sync(self.data_dir)?;
        }
        fs::remove_dir(&recovering)?;
        sync(self.data_dir)?;
        Ok(aside)
    }

    /// What belongs to the old node: its identity first, its state last.
    fn names_to_move(&self) -> io::Result<Vec<String>> {
        let mut names = self.names()?;
        names.retain(|name| name != LOCK && name != RECOVERING && !name.starts_with(ASIDE_PREFIX));
        let rank = |name: &str| match name {
            IDENTITY => 0,
            STATE_DIRECTORY => 2,
            _ => 1,
        };
        names.sort_by(|a, b| rank(a).cmp(&rank(b)).then_with(|| a.cmp(b)));
        Ok(names)
    }

    /// The directory for the old files: a new one, unless an earlier run has made the newest, and perhaps begun to fill it.
    fn aside(&self) -> io::Result<PathBuf> {
        let path = |number: u32| self.data_dir.join(format!("{ASIDE_PREFIX}{number}"));
        let newest = self.newest_aside()?;
        if let Some(newest) = newest.map(path)
            && (!self.data_dir.join(IDENTITY).exists() || fs::read_dir(&newest)?.next().is_none())
        {
            return Ok(newest);
        }
        let aside = path(newest.map_or(1, |number| number + 1));
        fs::create_dir(&aside)?;
        sync(self.data_dir)?;
        Ok(aside)
    }

    fn newest_aside(&self) -> io::Result<Option<u32>> {
        let names = self.names()?;
        Ok(names.iter().filter_map(|name| name.strip_prefix(ASIDE_PREFIX)?.parse().ok()).max())
    }

    fn names(&self) -> io::Result<Vec<String>> {
        // Names that are not UTF-8 are nobody of ours, and stay where they are.
        let names = fs::read_dir(self.data_dir)?.map(|entry| Ok(entry?.file_name().into_string().ok()));
        Ok(names.collect::<io::Result<Vec<_>>>()?.into_iter().flatten().collect())
    }
}

/// Makes durable which names stand in a directory.
fn sync(directory: &Path) -> io::Result<()> {
    File::open(directory)?.sync_all()
}

#[cfg(test)]
mod tests {
    use tempfile::TempDir;

    use super::*;

    /// A data directory of a node, with the files that tell old from new.
    fn old() -> TempDir {
        let folder = tempfile::tempdir().expect("a temporary folder can be made");
        for (name, content) in [
            ("LOCK", "1"),
            ("identity", "old"),
            ("peers", "old"),
            ("log/0001", "old"),
            ("state/state.redb", "old"),
            ("before-recover-1/identity", "older"),
        ] {
            write(&folder.path().join(name), content);
        }
        folder
    }

    fn write(path: &Path, content: &str) {
        fs::create_dir_all(path.parent().expect("it lies in a folder")).expect("the folder is writable");
        fs::write(path, content).expect("the folder is writable");
    }

    fn read(path: PathBuf) -> String {
        fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
    }

    fn prepare(data_dir: &Path) {
        let state = Swap::new(data_dir).prepare().expect("the folder is writable");
        write(&state.join(STATE_FILE), "new");
    }

    fn assert_swapped(data_dir: &Path, aside: &Path) {
        assert_eq!(aside, data_dir.join("before-recover-2"));
        assert_eq!(read(data_dir.join("state/state.redb")), "new");
        for name in ["identity", "peers", "log/0001", "state/state.redb"] {
            assert_eq!(read(aside.join(name)), "old", "{name}");
        }
        assert_eq!(read(data_dir.join("before-recover-1/identity")), "older");
        let mut left = Swap::new(data_dir).names().expect("it can be listed");
        left.sort();
        assert_eq!(left, ["LOCK", "before-recover-1", "before-recover-2", "state"]);
        assert!(!Swap::new(data_dir).is_interrupted().expect("it can be listed"));
    }

    #[test]
    fn the_new_state_takes_the_place_of_all_that_was_there() {
        let folder = old();
        prepare(folder.path());
        let aside = Swap::new(folder.path()).finish().expect("the folder is writable");
        assert_swapped(folder.path(), &aside);
    }

    #[test]
    fn a_run_that_stopped_before_the_first_move_begins_anew() {
        let folder = old();
        for half in ["state/state.redb.unfinished", "state/state.redb"] {
            write(&folder.path().join(RECOVERING).join(half), "half");
            fs::create_dir_all(folder.path().join("before-recover-2")).expect("the folder is writable");
            assert!(!Swap::new(folder.path()).is_interrupted().expect("it can be listed"));
        }
        prepare(folder.path());
        let names = fs::read_dir(folder.path().join(RECOVERING).join("state")).expect("it is there").count();
        assert_eq!(names, 1, "what was half written is gone");
        let aside = Swap::new(folder.path()).finish().expect("the folder is writable");
        assert_swapped(folder.path(), &aside);
    }

    #[test]
    fn a_run_that_stopped_between_two_moves_is_finished_by_the_next() {
        let moves = ["identity", "log", "peers", "state"];
        for stopped in 1..=moves.len() + 1 {
            let folder = old();
            let path = folder.path();
            prepare(path);
            let aside = path.join("before-recover-2");
            fs::create_dir(&aside).expect("the folder is writable");
            for name in moves.iter().take(stopped) {
                fs::rename(path.join(name), aside.join(name)).expect("it is there");
            }
            if stopped > moves.len() {
                fs::rename(path.join("recovering/state"), path.join("state")).expect("it is there");
            }
            let swap = Swap::new(path);
            assert!(swap.is_interrupted().expect("it can be listed"), "after {stopped}");
            assert_swapped(path, &swap.finish().expect("the folder is writable"));
        }
    }
}
