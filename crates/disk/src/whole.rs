//! Small files that are read and replaced as a whole.

use std::io;

use crate::{Disk, Open};

/// Reads a whole file; none where there is no such file.
///
/// # Errors
/// As the file system's, and `InvalidData` where it has more than `bytes_max` bytes: those are not read.
pub fn read_whole(disk: &dyn Disk, name: &str, bytes_max: u64) -> io::Result<Option<Vec<u8>>> {
    let file = match disk.open(name, Open::Existing) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        other => other?,
    };
    let length = file.len()?;
    if length > bytes_max {
        return Err(io::Error::new(io::ErrorKind::InvalidData, format!("{name} is too large")));
    }
    let mut bytes = vec![0; usize::try_from(length).map_err(io::Error::other)?];
    file.read_exact_at(&mut bytes, 0)?;
    Ok(Some(bytes))
}

/// Puts a file with these bytes in the place of what has the name, in one step, and durably.
///
/// # Errors
/// As the file system's. Either the old file is there then or the new one; after an error of a sync the caller must stop.
pub fn replace_whole(disk: &dyn Disk, name: &str, bytes: &[u8]) -> io::Result<()> {
    let unfinished = format!("{name}.new");
    let file = match disk.open(&unfinished, Open::New) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            disk.remove(&unfinished)?;
            disk.open(&unfinished, Open::New)?
        }
        other => other?,
    };
    file.write_all_at(bytes, 0)?;
    file.sync_data()?;
    disk.rename(&unfinished, name)?;
    disk.sync_dir()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Fault, SimDisk};

    #[test]
    fn a_crash_at_any_step_leaves_the_old_or_the_new_file() {
        let (mut old, mut new) = (0, 0);
        for step in 0..32 {
            let disk = SimDisk::new(step);
            replace_whole(&disk, "file", b"old").expect("no fault yet");
            disk.inject(Fault::CrashAtStep(disk.steps() + step));
            let replaced = replace_whole(&disk, "file", b"another");
            disk.crash();
            match read_whole(&disk, "file", 100).expect("readable").as_deref() {
                Some(b"old") if replaced.is_err() => old += 1,
                Some(b"another") => new += 1,
                other => panic!("step {step}: {other:?} after {replaced:?}"),
            }
        }
        assert!(old > 0 && new > 0, "{old} old, {new} new");
    }

    #[test]
    fn an_absent_file_is_none_and_a_large_one_is_not_read() {
        let disk = SimDisk::new(0);
        assert_eq!(read_whole(&disk, "file", 100).expect("no fault"), None);
        replace_whole(&disk, "file", b"12345").expect("no fault");
        assert_eq!(read_whole(&disk, "file", 5).expect("no fault").as_deref(), Some(&b"12345"[..]));
        assert!(read_whole(&disk, "file", 4).is_err());
    }
}
