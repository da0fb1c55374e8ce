//! Loop devices: a file as a disk.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd as _;
use std::path::PathBuf;

use crate::world::sys;

const LOOP_CTL_GET_FREE: libc::Ioctl = 0x4c82;
const LOOP_CONFIGURE: libc::Ioctl = 0x4c0a;
/// The device lets go of its file when nobody uses it any more, however that came about.
const LO_FLAGS_AUTOCLEAR: u32 = 4;
/// The unit in which the device is written.
const BLOCK_BYTES: u32 = 4_096;
/// How often a free device may be snatched away by somebody else.
const TRIES: usize = 20;
/// The major number of all loop devices.
const MAJOR: u32 = 7;

/// A loop device. It is free again when this is dropped and nothing on it is mounted.
#[derive(Debug)]
pub(super) struct LoopDevice {
    number: u32,
    _device: File,
}

/// `struct loop_config` of linux/loop.h, with its `struct loop_info64` within.
#[repr(C)]
struct LoopConfig {
    descriptor: u32,
    block_bytes: u32,
    /// Device, inode, device of the file, offset, size limit: all as they come.
    places: [u64; 5],
    number: u32,
    encryption: [u32; 2],
    flags: u32,
    /// Names, keys and reserved fields that nobody uses here.
    names: [u8; 64 + 64 + 32],
    rest: [u64; 2 + 8],
}

impl LoopDevice {
    /// Makes a disk of a file.
    ///
    /// # Errors
    /// As the system's, where there are no loop devices, or this process may not use them.
    pub(super) fn attach(file: &File) -> io::Result<LoopDevice> {
        let control = OpenOptions::new().read(true).write(true).open("/dev/loop-control")?;
        for _ in 0..TRIES {
            let number = sys::ioctl_number(&control, LOOP_CTL_GET_FREE, 0)?.unsigned_abs();
            let device = OpenOptions::new().read(true).write(true).open(format!("/dev/loop{number}"))?;
            let mut config = LoopConfig {
                descriptor: file.as_raw_fd().unsigned_abs(),
                block_bytes: BLOCK_BYTES,
                places: [0; 5],
                number: 0,
                encryption: [0; 2],
                flags: LO_FLAGS_AUTOCLEAR,
                names: [0; 160],
                rest: [0; 10],
            };
            // SAFETY: the request is defined with a loop_config, which has this layout.
            match unsafe { sys::ioctl(&device, LOOP_CONFIGURE, &mut config) } {
                Ok(_) => return Ok(LoopDevice { number, _device: device }),
                Err(error) if error.raw_os_error() == Some(libc::EBUSY) => {}
                Err(error) => return Err(error),
            }
        }
        Err(io::Error::new(io::ErrorKind::ResourceBusy, "every free loop device was taken by somebody else"))
    }

    /// Such as `loop3`.
    pub(super) fn name(&self) -> String {
        format!("loop{}", self.number)
    }

    /// Its file among the devices.
    pub(super) fn path(&self) -> PathBuf {
        PathBuf::from("/dev").join(self.name())
    }

    /// Its number as the kernel's tables have it, such as `7:3`.
    pub(super) fn device_number(&self) -> String {
        format!("{MAJOR}:{}", self.number)
    }
}

// The layout of the kernel's interface, which never changes.
const _: () = assert!(size_of::<LoopConfig>() == 8 + 232 + 64);
