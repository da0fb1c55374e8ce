//! What a power cut took: the files as the node saw them before, beside what the disk gives back.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::hash::{BuildHasher as _, BuildHasherDefault, DefaultHasher};
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

/// The unit in which contents are compared.
const BLOCK_BYTES: usize = 4_096;

/// What is gone.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Loss {
    /// Files that are gone, or hold something else than before.
    pub files: u64,
    /// Bytes of them, counted in blocks of 4 KiB.
    pub bytes: u64,
}

/// The contents of all files below a directory, as hashes of their blocks.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Survey {
    files: BTreeMap<PathBuf, Vec<u64>>,
}

impl Survey {
    /// Reads everything below a directory. Nobody may write meanwhile.
    pub(super) fn of(directory: &Path) -> io::Result<Survey> {
        let mut survey = Survey::default();
        for (path, _) in files_below(directory)? {
            survey.files.insert(path.clone(), blocks_of(&path)?);
        }
        Ok(survey)
    }

    /// What was there, and is not in `after`.
    pub(super) fn lost(&self, after: &Survey) -> Loss {
        let mut loss = Loss::default();
        for (path, before) in &self.files {
            let now = after.files.get(path);
            let same = |at: usize| now.and_then(|blocks| blocks.get(at)) == before.get(at);
            let changed = (0..before.len()).filter(|at| !same(*at)).count();
            if changed > 0 || now.is_none() {
                loss.files += 1;
                loss.bytes += (changed * BLOCK_BYTES) as u64;
            }
        }
        loss
    }
}

/// All regular files below a directory with their lengths, in the order of their paths. A directory or file that is not there,
/// or not any more, holds nothing.
pub(super) fn files_below(directory: &Path) -> io::Result<Vec<(PathBuf, u64)>> {
    let mut files = Vec::new();
    let mut waiting = vec![directory.to_path_buf()];
    while let Some(folder) = waiting.pop() {
        let Some(entries) = if_there(fs::read_dir(&folder))? else { continue };
        for entry in entries {
            let entry = entry?;
            let Some(facts) = if_there(entry.metadata())? else { continue };
            if facts.is_dir() {
                waiting.push(entry.path());
            } else if facts.is_file() {
                files.push((entry.path(), facts.len()));
            }
        }
    }
    files.sort();
    Ok(files)
}

fn if_there<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        result => result.map(Some),
    }
}

fn blocks_of(path: &Path) -> io::Result<Vec<u64>> {
    let hasher = BuildHasherDefault::<DefaultHasher>::default();
    let mut file = File::open(path)?;
    let mut blocks = Vec::new();
    let mut block = Vec::with_capacity(BLOCK_BYTES);
    loop {
        block.clear();
        if (&mut file).take(BLOCK_BYTES as u64).read_to_end(&mut block)? == 0 {
            return Ok(blocks);
        }
        blocks.push(hasher.hash_one(&block));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_loss_counts_blocks_that_differ_and_files_that_are_gone() {
        let folder = tempfile::tempdir().expect("a temporary folder can be made");
        let at = |name: &str| folder.path().join(name);
        fs::create_dir(at("inner")).expect("the folder is writable");
        for (name, byte, length) in [("same", 1, 5_000), ("cut", 2, 10_000), ("inner/gone", 3, 100)] {
            fs::write(at(name), vec![byte; length]).expect("the folder is writable");
        }
        let before = Survey::of(folder.path()).expect("the folder is readable");
        assert_eq!(before.lost(&before), Loss::default());
        fs::write(at("cut"), vec![2; 4_096]).expect("the folder is writable");
        fs::remove_file(at("inner/gone")).expect("the file exists");
        let after = Survey::of(folder.path()).expect("the folder is readable");
        assert_eq!(before.lost(&after), Loss { files: 2, bytes: 3 * 4_096 });
    }
}
