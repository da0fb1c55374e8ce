//! A small file of lines, the last of them a checksum over the others, that is always replaced whole, by a rename: what a
//! node must know of itself and of its peers before it speaks to anybody.

use std::fmt::Write as _;
use std::io;

use ringfence_disk::{Disk, read_whole, replace_whole};
use sha2::{Digest, Sha256};

const FILE_BYTES_MAX: u64 = 64 << 10;
/// Bytes of the checksum that are kept.
const CHECKSUM_BYTES: usize = 8;

/// What a file of this name holds; none where there is no such file.
pub(crate) fn read(disk: &dyn Disk, name: &str) -> io::Result<Option<String>> {
    let Some(bytes) = read_whole(disk, name, FILE_BYTES_MAX)? else { return Ok(None) };
    String::from_utf8(bytes).map(Some).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
}

/// Puts `text` in the place of what the file of this name held, durably.
pub(crate) fn replace(disk: &dyn Disk, name: &str, text: &str) -> io::Result<()> {
    replace_whole(disk, name, text.as_bytes())
}

/// Lines, each with its end, as they are written: under their checksum.
pub(crate) fn seal(lines: &str) -> String {
    format!("{lines}checksum={}\n", checksum(lines))
}

/// The lines under a right checksum, or what is wrong with it.
pub(crate) fn unseal(text: &str) -> Result<&str, &'static str> {
    let (lines, sum) = text.rsplit_once("checksum=").ok_or("no checksum")?;
    if checksum(lines) != sum.trim_end() {
        return Err("its checksum is wrong");
    }
    Ok(lines)
}

/// Bytes as hexadecimal digits.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").expect("writing to a string cannot fail");
        text
    })
}

fn checksum(lines: &str) -> String {
    hex(&Sha256::digest(lines.as_bytes())[..CHECKSUM_BYTES])
}
