//! The syncs of a node, ruled from outside: they can be made to take long, as those of a disk that stalls.
//!
//! A shim in the node's process does it, told by a small file that both share; the harness has it in `jepsen/shim`.

use std::ffi::OsStr;
use std::fs::File;
use std::mem::offset_of;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::FileExt as _;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use crate::binary;
use crate::shim_block::{BLOCK_VARIABLE, Block, MAGIC, RATE_TRUE};

/// What rules the syncs of one node.
#[derive(Debug)]
pub struct Syncs {
    path: PathBuf,
    block: File,
}

impl Syncs {
    /// Rules that are to be kept in a file of this name, and rule nothing yet.
    ///
    /// # Panics
    /// Where the file cannot be written.
    #[must_use]
    pub fn create(path: PathBuf) -> Syncs {
        let options = File::options().read(true).write(true).create_new(true).open(&path);
        let syncs = Syncs { block: options.expect("the temporary directory is writable"), path };
        syncs.block.set_len(size_of::<Block>() as u64).expect("there is room");
        syncs.write(offset_of!(Block, rate), RATE_TRUE.cast_unsigned());
        syncs.write(offset_of!(Block, magic), MAGIC);
        syncs
    }

    /// Makes a command start with the shim.
    pub fn prepare(&self, command: &mut Command) {
        let variable = OsStr::from_bytes(BLOCK_VARIABLE.to_bytes());
        command.env("LD_PRELOAD", binary::shim()).env(variable, &self.path);
    }

    /// From now on each sync takes so much longer, to the millisecond.
    pub fn delay(&self, delay: Duration) {
        let milliseconds = u64::try_from(delay.as_millis()).unwrap_or(u64::MAX);
        self.write(offset_of!(Block, sync_delay), milliseconds);
    }

    /// How many syncs were made to take longer.
    ///
    /// # Panics
    /// Where the file is gone.
    #[must_use]
    pub fn delayed(&self) -> u64 {
        let mut bytes = [0; 8];
        let offset = offset_of!(Block, syncs_delayed) as u64;
        self.block.read_exact_at(&mut bytes, offset).expect("the file is there");
        u64::from_ne_bytes(bytes)
    }

    /// The node has the file mapped, and sees it at once.
    fn write(&self, offset: usize, value: u64) {
        self.block.write_all_at(&value.to_ne_bytes(), offset as u64).expect("the file is there");
    }
}
