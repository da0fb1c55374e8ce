//! A host's side of the network: a namespace that only its descriptors keep alive, and a TUN device in it whose other end
//! the switch holds.

use std::fs::{File, OpenOptions};
use std::io;
use std::net::{Ipv4Addr, UdpSocket};
use std::os::fd::{FromRawFd as _, OwnedFd};
use std::os::unix::fs::OpenOptionsExt as _;
use std::sync::Arc;

use super::link::Host;
use crate::world::sys::{self, Kind};

/// The device's name, the same in each namespace.
const DEVICE: &[u8] = b"net0";
const LOOPBACK: &[u8] = b"lo";
const NETMASK: Ipv4Addr = Ipv4Addr::new(255, 255, 255, 0);

/// A host's namespace and the switch's end of its device.
#[derive(Debug)]
pub(super) struct Port {
    pub(super) namespace: Arc<File>,
    pub(super) device: File,
}

impl Port {
    /// Makes a namespace in which there are the host's address and loopback, and nothing else.
    ///
    /// # Errors
    /// As the system's, where this process may not do that.
    pub(super) fn open(host: Host) -> io::Result<Port> {
        sys::on_own_thread(|| {
            sys::unshare(Kind::Network)?;
            let namespace = Arc::new(Kind::Network.of_this_thread()?);
            let mut options = OpenOptions::new();
            let device =
                options.read(true).write(true).custom_flags(libc::O_NONBLOCK).open("/dev/net/tun")?;
            let mut request = named(DEVICE);
            request.ifr_ifru.ifru_flags = (libc::IFF_TUN | libc::IFF_NO_PI) as libc::c_short;
            // SAFETY: the request is defined with an ifreq.
            unsafe { sys::ioctl(&device, libc::TUNSETIFF as libc::Ioctl, &mut request)? };
            configure(host.address())?;
            Ok(Port { namespace, device })
        })
    }
}

/// Gives the device its address, and takes both devices up.
fn configure(address: Ipv4Addr) -> io::Result<()> {
    // SAFETY: the call takes no pointer.
    let socket =
        sys::check(unsafe { libc::socket(libc::AF_INET, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0) })?;
    // SAFETY: the descriptor is new, and nobody else's.
    let socket = File::from(unsafe { OwnedFd::from_raw_fd(socket) });
    let with_address = |address| {
        let mut request = named(DEVICE);
        request.ifr_ifru.ifru_addr = socket_address(address);
        request
    };
    let up = |name| {
        let mut request = named(name);
        request.ifr_ifru.ifru_flags = (libc::IFF_UP | libc::IFF_RUNNING) as libc::c_short;
        request
    };
    for (request, mut argument) in [
        (libc::SIOCSIFADDR, with_address(address)),
        (libc::SIOCSIFNETMASK, with_address(NETMASK)),
        (libc::SIOCSIFFLAGS, up(DEVICE)),
        (libc::SIOCSIFFLAGS, up(LOOPBACK)),
    ] {
        // SAFETY: all of these requests are defined with an ifreq.
        unsafe { sys::ioctl(&socket, request as libc::Ioctl, &mut argument)? };
    }
    // A socket that can be bound to the address proves that the kernel took it.
    UdpSocket::bind((address, 0)).map(drop)
}

fn named(name: &[u8]) -> libc::ifreq {
    // SAFETY: all bytes zero are a lawful ifreq.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(name) {
        *to = from.cast_signed();
    }
    request
}

fn socket_address(address: Ipv4Addr) -> libc::sockaddr {
    let mut bytes = [0; 14];
    // Two bytes of port stand before the address.
    for (to, from) in bytes[2..6].iter_mut().zip(address.octets()) {
        *to = from.cast_signed();
    }
    libc::sockaddr { sa_family: libc::AF_INET as libc::sa_family_t, sa_data: bytes }
}
