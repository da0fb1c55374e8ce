//! The control block of this process.

use std::ptr;
use std::sync::atomic::{AtomicBool, AtomicPtr, Ordering};

use crate::block::{BLOCK_VARIABLE, Block, MAGIC};

/// The block, mapped for as long as the process lives; `None`: this process is not ruled.
pub(crate) fn block() -> Option<&'static Block> {
    static MAPPED: AtomicPtr<Block> = AtomicPtr::new(ptr::null_mut());
    static TRIED: AtomicBool = AtomicBool::new(false);
    let mut mapped = MAPPED.load(Ordering::Acquire);
    // While one thread maps it, at the very beginning, others are not ruled yet.
    if mapped.is_null() && !TRIED.swap(true, Ordering::AcqRel) {
        // SAFETY: the location of this thread's error number is always valid.
        let error = unsafe { *libc::__errno_location() };
        mapped = map();
        // SAFETY: as above. Callers of the functions replaced here know nothing of files that could be missing.
        unsafe { *libc::__errno_location() = error };
        MAPPED.store(mapped, Ordering::Release);
    }
    // SAFETY: what was mapped is as long as a block, aligned to a page, never unmapped, and used through atomics alone.
    unsafe { mapped.as_ref() }
}

/// Maps the file that the environment names; null where there is none, or it is no block.
fn map() -> *mut Block {
    // SAFETY: the name ends with a zero; nobody changes the environment of a server.
    let path = unsafe { libc::getenv(BLOCK_VARIABLE.as_ptr()) };
    if path.is_null() {
        return ptr::null_mut();
    }
    // SAFETY: the path ends with a zero.
    let file = unsafe { libc::open(path, libc::O_RDWR | libc::O_CLOEXEC) };
    if file < 0 {
        return ptr::null_mut();
    }
    let address = map_file(file);
    // SAFETY: the descriptor is this function's own.
    unsafe { libc::close(file) };
    // SAFETY: it is null, or mapped for good.
    let Some(block) = (unsafe { address.as_ref() }) else { return ptr::null_mut() };
    if block.magic.load(Ordering::Acquire) != MAGIC {
        return ptr::null_mut();
    }
    block.attached.fetch_add(1, Ordering::AcqRel);
    address
}

fn map_file(file: libc::c_int) -> *mut Block {
    let length = size_of::<Block>();
    // SAFETY: the descriptor is open, and seeking in it disturbs nobody. A shorter file could not be read to the block's end.
    if unsafe { libc::lseek(file, 0, libc::SEEK_END) } < length as libc::off_t {
        return ptr::null_mut();
    }
    let protection = libc::PROT_READ | libc::PROT_WRITE;
    // SAFETY: the kernel chooses the address, and the descriptor is open.
    let address = unsafe { libc::mmap(ptr::null_mut(), length, protection, libc::MAP_SHARED, file, 0) };
    if address == libc::MAP_FAILED { ptr::null_mut() } else { address.cast() }
}
