//! An image with files, without a node.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt as _;
use std::sync::mpsc::channel;
use std::thread;
use std::time::Duration;

use tempfile::TempDir;

use super::{Image, Loss};
use crate::world::tests::lacks;
use crate::world::{Capability, sys};

const DISK_BYTES: u64 = 64 << 20;
/// Longer than a write needs that waits for nothing.
const A_WHILE: Duration = Duration::from_millis(200);

struct Disk {
    image: Image,
    _folder: TempDir,
}

impl Disk {
    fn create() -> Disk {
        let folder = tempfile::tempdir().expect("a temporary folder can be made");
        let backing = sys::memory_file("test").expect("a file in memory can be made");
        backing.set_len(DISK_BYTES).expect("it has no size yet");
        let image = Image::create(backing, folder.path().join("disk")).expect("disks can be made here");
        let disk = Disk { image, _folder: folder };
        disk.inside(|| fs::create_dir(disk.image.data_dir()));
        disk.inside(|| File::open(disk.image.data_dir())?.sync_all());
        disk
    }

    fn inside<T: Send>(&self, work: impl FnOnce() -> io::Result<T> + Send) -> T {
        let result = self.image.inside(work).expect("the namespace can be entered");
        result.expect("the file system works")
    }

    fn read(&self, name: &str) -> Vec<u8> {
        self.inside(|| fs::read(self.image.data_dir().join(name)))
    }

    /// A file of eight blocks, synced as 'a's and overwritten with 'b's, and another that was never synced.
    fn write(&self) {
        self.inside(|| {
            let directory = self.image.data_dir();
            let file = File::create(directory.join("synced"))?;
            file.write_all_at(&[b'a'; 8 * 4_096], 0)?;
            file.sync_all()?;
            File::open(&directory)?.sync_all()?;
            file.write_all_at(&[b'b'; 8 * 4_096], 0)?;
            fs::write(directory.join("unsynced"), [b'c'; 5_000])
        });
    }
}

#[test]
fn a_power_cut_takes_what_was_not_synced_and_nothing_else() {
    if lacks(Capability::Disk, "a_power_cut_takes_what_was_not_synced_and_nothing_else") {
        return;
    }
    let disk = Disk::create();
    disk.write();
    disk.image.cut_power(0.0, 0).expect("the power can be cut");
    disk.image.check_writable().expect_err("there is no power");
    let loss = disk.image.restore().expect("nobody uses the disk");
    assert_eq!(disk.read("synced"), [b'a'; 8 * 4_096]);
    assert_eq!(loss, Loss { files: 2, bytes: (8 + 2) * 4_096 });
    disk.image.check_writable().expect("the power is back");
}

#[test]
fn a_power_cut_may_keep_some_of_it() {
    if lacks(Capability::Disk, "a_power_cut_may_keep_some_of_it") {
        return;
    }
    let disk = Disk::create();
    disk.write();
    disk.image.cut_power(1.0, 0).expect("the power can be cut");
    let loss = disk.image.restore().expect("nobody uses the disk");
    assert_eq!(disk.read("synced"), [b'b'; 8 * 4_096], "all of it was written back");
    assert_eq!(loss.files, 1, "the directory was not synced after the second file was made");
}

#[test]
fn a_frozen_disk_lets_nobody_write_until_it_thaws() {
    if lacks(Capability::Freeze, "a_frozen_disk_lets_nobody_write_until_it_thaws") {
        return;
    }
    let disk = Disk::create();
    disk.image.freeze().expect("the disk can be frozen");
    disk.image.freeze().expect_err("it is frozen already");
    thread::scope(|scope| {
        let (done, is_done) = channel();
        let image = &disk.image;
        scope.spawn(move || {
            let written = image.check_writable();
            done.send(written).expect("the test waits");
        });
        is_done.recv_timeout(A_WHILE).expect_err("the disk is frozen");
        disk.image.thaw().expect("a frozen disk can be thawed");
        is_done.recv().expect("the writer answers").expect("the disk works again");
    });
}

#[test]
fn a_disk_can_be_full_and_free_again() {
    if lacks(Capability::Disk, "a_disk_can_be_full_and_free_again") {
        return;
    }
    let disk = Disk::create();
    assert!(disk.image.fill(0).expect("files can be made") > DISK_BYTES / 4);
    let error = disk.image.check_writable().expect_err("there is no room");
    assert_eq!(error.kind(), io::ErrorKind::StorageFull);
    disk.image.free().expect("the ballast can be removed");
    disk.image.check_writable().expect("there is room again");
}

#[test]
fn a_disk_can_turn_read_only_and_be_mounted_anew() {
    if lacks(Capability::Disk, "a_disk_can_turn_read_only_and_be_mounted_anew") {
        return;
    }
    let disk = Disk::create();
    disk.image.turn_read_only().expect("an error can be triggered");
    let error = disk.image.check_writable().expect_err("it turned read-only");
    assert_eq!(error.kind(), io::ErrorKind::ReadOnlyFilesystem);
    disk.image.restore().expect("nobody uses the disk");
    disk.image.check_writable().expect("it was mounted anew");
}
