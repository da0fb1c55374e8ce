//! The thread that moves packets.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::os::fd::AsRawFd as _;
use std::sync::{Arc, Mutex, PoisonError};

use rand::SeedableRng as _;
use rand::rngs::StdRng;

use super::Links;
use super::link::{Admitted, Host};
use super::port::Port;
use crate::world::sys;

/// Most packets that wait in all links together; more are dropped.
const WAITING_MAX: usize = 1 << 16;
/// Most packets taken from one host before others get their turn.
const BURST: usize = 64;
/// The largest packet.
const PACKET_BYTES: usize = 1 << 16;
/// An IPv4 header without options.
const HEADER_BYTES: usize = 20;

/// Packets on their way, and where they come from and go to.
pub(super) struct Forwarder {
    ports: Vec<Port>,
    links: Arc<Mutex<Links>>,
    stop: File,
    random: StdRng,
    waiting: BinaryHeap<Reverse<Waiting>>,
    /// How many packets ever waited: the order of those that are due at the same time.
    waited: u64,
}

/// A packet that is not due yet. The first two fields are its order.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Waiting {
    due: u64,
    place: u64,
    from: usize,
    to: usize,
    number: u64,
    packet: Vec<u8>,
}

impl Forwarder {
    pub(super) fn new(ports: Vec<Port>, links: Arc<Mutex<Links>>, stop: File, seed: u64) -> Forwarder {
        let random = StdRng::seed_from_u64(seed);
        Forwarder { ports, links, stop, random, waiting: BinaryHeap::new(), waited: 0 }
    }

    /// Moves packets until it is told to stop.
    pub(super) fn run(mut self) {
        let mut polled: Vec<libc::pollfd> = self
            .ports
            .iter()
            .map(|port| &port.device)
            .chain([&self.stop])
            .map(|file| libc::pollfd { fd: file.as_raw_fd(), events: libc::POLLIN, revents: 0 })
            .collect();
        let mut buffer = vec![0; PACKET_BYTES];
        loop {
            poll(&mut polled, self.until_next());
            if polled.last().is_some_and(|stop| stop.revents != 0) {
                return;
            }
            // One time for both: what was due by then is gone before anything newer of the same link can be.
            let now = sys::clock(libc::CLOCK_MONOTONIC);
            self.deliver_due(now);
            for (from, one) in polled.iter().enumerate().take(self.ports.len()) {
                if one.revents != 0 {
                    self.receive(from, now, &mut buffer);
                }
            }
        }
    }

    /// How long nothing is due, in nanoseconds; `None`: nothing waits.
    fn until_next(&self) -> Option<u64> {
        let next = self.waiting.peek()?.0.due;
        Some(next.saturating_sub(sys::clock(libc::CLOCK_MONOTONIC)))
    }

    fn deliver_due(&mut self, now: u64) {
        let mut links = self.links.lock().unwrap_or_else(PoisonError::into_inner);
        while self.waiting.peek().is_some_and(|next| next.0.due <= now) {
            let Some(Reverse(next)) = self.waiting.pop() else { return };
            if links.state(next.from, next.to).deliver(next.number) {
                send(&self.ports[next.to].device, &next.packet);
            }
        }
    }

    /// Takes what a host has sent.
    fn receive(&mut self, from: usize, now: u64, buffer: &mut [u8]) {
        let mut links = self.links.lock().unwrap_or_else(PoisonError::into_inner);
        for _ in 0..BURST {
            let Ok(length) = (&self.ports[from].device).read(buffer) else { return };
            let packet = &buffer[..length];
            let Some(to) = destination(packet).and_then(|host| links.place(host)) else { continue };
            let state = links.state(from, to);
            let Some(Admitted { number, due }) = state.admit(length, now, &mut self.random) else { continue };
            for due in due {
                if due <= now {
                    if state.deliver(number) {
                        send(&self.ports[to].device, packet);
                    }
                } else if self.waiting.len() < WAITING_MAX {
                    self.waited += 1;
                    let packet = packet.to_vec();
                    self.waiting.push(Reverse(Waiting { due, place: self.waited, from, to, number, packet }));
                } else {
                    state.counters.dropped += 1;
                }
            }
        }
    }
}

/// The host that an IPv4 packet goes to.
fn destination(packet: &[u8]) -> Option<Host> {
    if packet.len() < HEADER_BYTES || packet[0] >> 4 != 4 {
        return None;
    }
    Host::at(packet[16..20].try_into().ok()?)
}

/// Hands a packet to a host. A host that takes none at the moment loses it, as with a real device.
fn send(mut device: &File, packet: &[u8]) {
    let _ = device.write(packet);
}

/// Waits until something can be read, or for so many nanoseconds.
fn poll(polled: &mut [libc::pollfd], timeout: Option<u64>) {
    let timeout = timeout.map(|nanoseconds| libc::timespec {
        tv_sec: (nanoseconds / 1_000_000_000).cast_signed(),
        tv_nsec: (nanoseconds % 1_000_000_000).cast_signed(),
    });
    let timeout = timeout.as_ref().map_or(std::ptr::null(), std::ptr::from_ref);
    let count = polled.len() as libc::nfds_t;
    // SAFETY: both pointers are valid for the call (the second may be null), and `count` is the length of the first.
    let result = sys::check(unsafe { libc::ppoll(polled.as_mut_ptr(), count, timeout, std::ptr::null()) });
    if let Err(error) = result {
        assert_eq!(error.kind(), io::ErrorKind::Interrupted, "open descriptors can be polled: {error}");
        polled.iter_mut().for_each(|one| one.revents = 0);
    }
}
