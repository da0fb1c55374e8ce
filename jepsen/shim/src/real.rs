//! The C library's own functions, behind those that this library puts in their place.

use std::ffi::CStr;
use std::sync::atomic::{AtomicUsize, Ordering};

use libc::{
    c_int, c_long, c_void, clockid_t, epoll_event, nfds_t, off64_t, pollfd, size_t, ssize_t, timespec,
};

pub(crate) type ClockGettime = unsafe extern "C" fn(clockid_t, *mut timespec) -> c_int;
pub(crate) type Nanosleep = unsafe extern "C" fn(*const timespec, *mut timespec) -> c_int;
pub(crate) type ClockNanosleep =
    unsafe extern "C" fn(clockid_t, c_int, *const timespec, *mut timespec) -> c_int;
pub(crate) type EpollWait = unsafe extern "C" fn(c_int, *mut epoll_event, c_int, c_int) -> c_int;
pub(crate) type Poll = unsafe extern "C" fn(*mut pollfd, nfds_t, c_int) -> c_int;
pub(crate) type Syscall = unsafe extern "C" fn(c_long, usize, usize, usize, usize, usize, usize) -> c_long;
pub(crate) type Sync = unsafe extern "C" fn(c_int) -> c_int;
pub(crate) type Pwrite = unsafe extern "C" fn(c_int, *const c_void, size_t, off64_t) -> ssize_t;

/// A function of the C library, looked up once.
pub(crate) struct Real {
    name: &'static CStr,
    address: AtomicUsize,
}

impl Real {
    pub(crate) const fn new(name: &'static CStr) -> Real {
        Real { name, address: AtomicUsize::new(0) }
    }

    /// The function.
    ///
    /// # Safety
    /// `F` must be the type of a pointer to the function of this name.
    pub(crate) unsafe fn get<F: Copy>(&self) -> F {
        const { assert!(size_of::<F>() == size_of::<usize>()) };
        let mut address = self.address.load(Ordering::Relaxed);
        if address == 0 {
            // SAFETY: the name ends with a zero.
            address = unsafe { libc::dlsym(libc::RTLD_NEXT, self.name.as_ptr()) } as usize;
            if address == 0 {
                // SAFETY: it ends the process, which could do nothing without its C library.
                unsafe { libc::abort() };
            }
            self.address.store(address, Ordering::Relaxed);
        }
        // SAFETY: sizes are equal; the address is that of the function, and the caller answers for its type.
        unsafe { std::mem::transmute_copy(&address) }
    }
}
