//! The state file as redb sees it: a file of the seam to the disk.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

use parking_lot::Mutex;
use redb::StorageBackend;
use ringfence_disk::File;

/// One file of a disk, for redb.
#[derive(Debug)]
pub(crate) struct FileBackend(pub Arc<dyn File>);

impl StorageBackend for FileBackend {
    fn len(&self) -> io::Result<u64> {
        self.0.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.0.read_exact_at(out, offset)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.0.set_len(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.0.sync_data()
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.0.write_all_at(data, offset)
    }
}

/// Bytes of the file that the overlay replaces at a time.
const BLOCK_BYTES: u64 = 4_096;

/// A file that redb may look at and believes to change: what it writes (the record of a check, not much) stays in
/// memory, and the file as it is.
#[derive(Debug)]
pub(crate) struct OverlayBackend {
    file: Arc<dyn File>,
    overlay: Mutex<Overlay>,
}

#[derive(Debug)]
struct Overlay {
    len: u64,
    /// What the file itself still has a say in: it may have been shortened and extended since.
    file_len: u64,
    blocks: BTreeMap<u64, Box<[u8]>>,
}

impl OverlayBackend {
    pub fn new(file: Arc<dyn File>) -> io::Result<OverlayBackend> {
        let len = file.len()?;
        Ok(OverlayBackend {
            file,
            overlay: Mutex::new(Overlay { len, file_len: len, blocks: BTreeMap::new() }),
        })
    }
}

impl Overlay {
    /// Fills `out` from within one block.
    fn read(&self, file: &dyn File, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let (block, within) = place(offset);
        if let Some(content) = self.blocks.get(&block) {
            out.copy_from_slice(&content[within..within + out.len()]);
            return Ok(());
        }
        let there =
            usize::try_from(self.file_len.saturating_sub(offset)).unwrap_or(usize::MAX).min(out.len());
        out[there..].fill(0);
        if there == 0 { Ok(()) } else { file.read_exact_at(&mut out[..there], offset) }
    }

    /// Writes within one block.
    fn write(&mut self, file: &dyn File, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let (block, within) = place(offset);
        if !self.blocks.contains_key(&block) {
            let mut content = vec![0; BLOCK_BYTES as usize].into_boxed_slice();
            self.read(file, block * BLOCK_BYTES, &mut content)?;
            self.blocks.insert(block, content);
        }
        let content = self.blocks.get_mut(&block).expect("inserted above");
        content[within..within + bytes.len()].copy_from_slice(bytes);
        Ok(())
    }
}

/// The block of an offset, and the place within it.
fn place(offset: u64) -> (u64, usize) {
    (offset / BLOCK_BYTES, (offset % BLOCK_BYTES) as usize)
}

/// The bytes from `offset` to the end of its block.
fn rest_of_block(offset: u64) -> usize {
    BLOCK_BYTES as usize - place(offset).1
}

impl StorageBackend for OverlayBackend {
    fn len(&self) -> io::Result<u64> {
        Ok(self.overlay.lock().len)
    }

    fn read(&self, mut offset: u64, mut out: &mut [u8]) -> io::Result<()> {
        let overlay = self.overlay.lock();
        if offset + out.len() as u64 > overlay.len {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        while !out.is_empty() {
            let (part, rest) = out.split_at_mut(rest_of_block(offset).min(out.len()));
            overlay.read(self.file.as_ref(), offset, part)?;
            offset += part.len() as u64;
            out = rest;
        }
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let mut overlay = self.overlay.lock();
        overlay.len = len;
        overlay.file_len = overlay.file_len.min(len);
        overlay.blocks.retain(|block, _| block * BLOCK_BYTES < len);
        if let Some(content) = overlay.blocks.get_mut(&(len / BLOCK_BYTES)) {
            content[place(len).1..].fill(0);
        }
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        Ok(())
    }

    fn write(&self, mut offset: u64, mut data: &[u8]) -> io::Result<()> {
        let mut overlay = self.overlay.lock();
        while !data.is_empty() {
            let (part, rest) = data.split_at(rest_of_block(offset).min(data.len()));
            overlay.write(self.file.as_ref(), offset, part)?;
            offset += part.len() as u64;
            data = rest;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use ringfence_disk::{Disk, Open, SimDisk};

    use super::*;

    #[test]
    fn an_overlay_reads_what_was_written_over_it_and_leaves_the_file_alone() {
        let disk = SimDisk::new(1);
        let file = disk.open("file", Open::New).unwrap();
        let original: Vec<u8> = (0..10_000u32).map(|place| place as u8).collect();
        file.write_all_at(&original, 0).unwrap();
        let overlay = OverlayBackend::new(Arc::clone(&file)).unwrap();
        let mut expected = original.clone();
        let check = |expected: &[u8]| {
            let mut content = vec![0xee; expected.len()];
            overlay.read(0, &mut content).unwrap();
            assert!(content == expected);
            assert_eq!(overlay.len().unwrap(), expected.len() as u64);
            assert!(overlay.read(1, &mut content).is_err(), "nothing lies beyond the end");
        };
        check(&expected);

        overlay.write(4_000, &[1; 5_000]).unwrap();
        expected[4_000..9_000].fill(1);
        check(&expected);

        for len in [9_500, 20_000, 8_500, 9_100, 100, 5_000] {
            overlay.set_len(len).unwrap();
            expected.resize(usize::try_from(len).unwrap(), 0);
            check(&expected);
        }
        overlay.write(4_999, &[9]).unwrap();
        expected[4_999] = 9;
        check(&expected);

        let mut content = vec![0; original.len()];
        file.read_exact_at(&mut content, 0).unwrap();
        assert!(content == original);
    }
}
