//! The switch between two places, with real packets.

use std::io;
use std::net::UdpSocket;
use std::time::{Duration, Instant};

use super::{Host, Link, Switch};
use crate::world::Capability;
use crate::world::tests::lacks;

const PORT: u16 = 7000;
/// Longest wait for a packet that must come.
const PATIENCE: Duration = Duration::from_secs(20);
const LEFT: Host = Host(1);
const RIGHT: Host = Host(2);

/// Two hosts with a socket each, which knows the other.
struct Pair {
    switch: Switch,
    left: UdpSocket,
    right: UdpSocket,
}

impl Pair {
    fn start() -> Pair {
        let switch = Switch::start(2, 1).expect("networks can be made here");
        let socket = |here: Host, there: Host| -> io::Result<UdpSocket> {
            switch.place(here).run(|| {
                let socket = UdpSocket::bind((here.address(), PORT))?;
                socket.set_read_timeout(Some(PATIENCE))?;
                socket.connect((there.address(), PORT))?;
                Ok(socket)
            })?
        };
        let left = socket(LEFT, RIGHT).expect("an address can be bound in its own place");
        let right = socket(RIGHT, LEFT).expect("an address can be bound in its own place");
        Pair { switch, left, right }
    }

    /// Sends so many numbered packets from left to right, and returns the numbers that arrive, in their order.
    fn send(&self, packets: u32) -> Vec<u32> {
        let before = self.switch.counters(LEFT, RIGHT);
        for number in 0..packets {
            self.left.send(&number.to_be_bytes()).expect("a packet can be sent");
        }
        let passed = loop {
            let now = self.switch.counters(LEFT, RIGHT) - before;
            if now.passed + now.dropped == u64::from(packets) + now.duplicated {
                break now.passed;
            }
            std::thread::yield_now();
        };
        let receive = || {
            let mut packet = [0; 4];
            self.right.recv(&mut packet).expect("the switch has handed it over");
            u32::from_be_bytes(packet)
        };
        (0..passed).map(|_| receive()).collect()
    }

    fn set(&self, link: Link) {
        self.switch.set(LEFT, RIGHT, link);
    }
}

#[test]
fn packets_pass_are_cut_one_way_and_pass_again() {
    if lacks(Capability::Network, "packets_pass_are_cut_one_way_and_pass_again") {
        return;
    }
    let pair = Pair::start();
    assert_eq!(pair.send(50), (0..50).collect::<Vec<_>>());
    pair.set(Link::cut());
    assert!(pair.send(50).is_empty());
    pair.right.send(b"back").expect("a packet can be sent");
    assert_eq!(pair.left.recv(&mut [0; 8]).expect("the other way is open"), 4);
    let counters = pair.switch.counters(LEFT, RIGHT);
    assert_eq!((counters.passed, counters.dropped), (50, 50));
    assert_eq!(pair.switch.counters(RIGHT, LEFT).dropped, 0);
    pair.switch.heal();
    assert_eq!(pair.send(10).len(), 10);
}

#[test]
fn packets_are_delayed_but_keep_their_order() {
    if lacks(Capability::Network, "packets_are_delayed_but_keep_their_order") {
        return;
    }
    let pair = Pair::start();
    let delay = Duration::from_millis(40);
    pair.set(Link { delay, jitter: delay, ..Link::default() });
    let begun = Instant::now();
    assert_eq!(pair.send(30), (0..30).collect::<Vec<_>>());
    assert!(begun.elapsed() >= delay, "no packet is faster than the link");
    let counters = pair.switch.counters(LEFT, RIGHT);
    assert_eq!((counters.delayed, counters.reordered), (30, 0));
}

#[test]
fn packets_are_lost_doubled_and_reordered() {
    if lacks(Capability::Network, "packets_are_lost_doubled_and_reordered") {
        return;
    }
    let pair = Pair::start();
    let jitter = Duration::from_millis(20);
    pair.set(Link { loss: 0.3, duplicate: 0.3, jitter, fifo: false, ..Link::default() });
    let arrived = pair.send(100);
    let counters = pair.switch.counters(LEFT, RIGHT);
    assert!(counters.dropped > 0 && counters.duplicated > 0 && counters.reordered > 0, "{counters:?}");
    assert_eq!(arrived.len() as u64, 100 - counters.dropped + counters.duplicated);
    assert!(!arrived.is_sorted(), "what was counted as reordered is");
}

#[test]
fn there_is_no_way_out() {
    if lacks(Capability::Network, "there_is_no_way_out") {
        return;
    }
    let switch = Switch::start(1, 1).expect("networks can be made here");
    let connected = switch.place(LEFT).connect(([192, 0, 2, 1], 80).into(), PATIENCE);
    assert_eq!(connected.expect_err("nobody is there").kind(), io::ErrorKind::NetworkUnreachable);
}
