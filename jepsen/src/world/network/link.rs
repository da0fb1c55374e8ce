//! One direction between two hosts: what is done to its packets, and what has been.

use std::fmt;
use std::net::Ipv4Addr;
use std::ops::Sub;
use std::time::Duration;

use rand::{Rng, RngExt as _};

/// What waits in a link for longer than this, because of its rate, is dropped as by a switch whose buffer is full.
const BUFFER: u64 = 1_000_000_000;

/// A host of the switch, by the last number of its address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Host(pub u8);

impl Host {
    /// Where the load's clients are.
    pub const CLIENTS: Host = Host(200);
    /// Where the harness asks nodes how they are: no fault touches it.
    pub const CONTROL: Host = Host(201);
    /// The largest number of a node.
    pub const NODES_MAX: usize = 99;

    /// The host of a node, by its number from 1.
    ///
    /// # Panics
    /// Where there is no such node.
    #[must_use]
    pub fn node(number: usize) -> Host {
        assert!((1..=Host::NODES_MAX).contains(&number), "there is no node {number}");
        Host(u8::try_from(number).expect("99 fits"))
    }

    /// Its address.
    #[must_use]
    pub fn address(self) -> Ipv4Addr {
        Ipv4Addr::new(10, 98, 0, self.0)
    }

    /// The host with this address.
    pub(super) fn at(address: [u8; 4]) -> Option<Host> {
        let [10, 98, 0, last] = address else { return None };
        Some(Host(last))
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Host::CLIENTS => f.write_str("clients"),
            Host::CONTROL => f.write_str("control"),
            Host(number) => write!(f, "{number}"),
        }
    }
}

/// What is done to the packets of a link. The default lets everything pass at once.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Link {
    /// Nothing passes, not even what was under way.
    pub cut: bool,
    /// How long each packet takes.
    pub delay: Duration,
    /// Up to how much longer, drawn evenly.
    pub jitter: Duration,
    /// Whether packets keep their order. Without it, jitter reorders them.
    pub fifo: bool,
    /// The share of packets that are lost.
    pub loss: f64,
    /// The share of packets that arrive twice.
    pub duplicate: f64,
    /// Bytes a second; a buffer of one second stands before it.
    pub rate: Option<u64>,
}

impl Default for Link {
    fn default() -> Link {
        let none = Duration::ZERO;
        Link { cut: false, delay: none, jitter: none, fifo: true, loss: 0.0, duplicate: 0.0, rate: None }
    }
}

impl Link {
    /// A link that lets nothing pass.
    #[must_use]
    pub fn cut() -> Link {
        Link { cut: true, ..Link::default() }
    }
}

/// What has happened to packets.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counters {
    /// Delivered, copies included.
    pub passed: u64,
    /// Lost by a cut, by loss, or by a full buffer.
    pub dropped: u64,
    /// Held back on the way.
    pub delayed: u64,
    /// Sent twice.
    pub duplicated: u64,
    /// Delivered after one that was sent later.
    pub reordered: u64,
}

impl Counters {
    /// Both together.
    #[must_use]
    pub fn plus(self, other: Counters) -> Counters {
        Counters {
            passed: self.passed + other.passed,
            dropped: self.dropped + other.dropped,
            delayed: self.delayed + other.delayed,
            duplicated: self.duplicated + other.duplicated,
            reordered: self.reordered + other.reordered,
        }
    }
}

impl Sub for Counters {
    type Output = Counters;

    /// What has happened since `earlier`.
    fn sub(self, earlier: Counters) -> Counters {
        Counters {
            passed: self.passed - earlier.passed,
            dropped: self.dropped - earlier.dropped,
            delayed: self.delayed - earlier.delayed,
            duplicated: self.duplicated - earlier.duplicated,
            reordered: self.reordered - earlier.reordered,
        }
    }
}

/// A link as it stands. It decides; who moves packets asks it when each is due.
#[derive(Debug, Default)]
pub(super) struct State {
    pub(super) link: Link,
    pub(super) counters: Counters,
    /// When the wire has sent all that it was given.
    free_at: u64,
    /// When the last packet given to the link is due.
    last_due: u64,
    /// How many packets the link was given.
    given: u64,
    /// The newest packet delivered.
    newest_delivered: u64,
}

/// A packet that was let in.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Admitted {
    /// Its number on its link.
    pub(super) number: u64,
    /// When each of its copies is due, in nanoseconds.
    pub(super) due: Vec<u64>,
}

impl State {
    /// Takes in a packet at `now`; `None`: it is lost.
    pub(super) fn admit(&mut self, length: usize, now: u64, random: &mut impl Rng) -> Option<Admitted> {
        if self.link.cut || self.strikes(self.link.loss, random) {
            self.counters.dropped += 1;
            return None;
        }
        let copies = if self.strikes(self.link.duplicate, random) { 2 } else { 1 };
        self.counters.duplicated += copies - 1;
        self.given += 1;
        let due: Vec<u64> = (0..copies).filter_map(|_| self.schedule(length, now, random)).collect();
        if due.is_empty() {
            self.counters.dropped += 1;
            return None;
        }
        if due.iter().any(|due| *due > now) {
            self.counters.delayed += 1;
        }
        Some(Admitted { number: self.given, due })
    }

    /// Whether a packet may leave the link now that it is due.
    pub(super) fn deliver(&mut self, number: u64) -> bool {
        if self.link.cut {
            self.counters.dropped += 1;
            return false;
        }
        self.counters.passed += 1;
        if number < self.newest_delivered {
            self.counters.reordered += 1;
        }
        self.newest_delivered = self.newest_delivered.max(number);
        true
    }

    /// When a copy is due; `None`: the buffer before the wire is full.
    fn schedule(&mut self, length: usize, now: u64, random: &mut impl Rng) -> Option<u64> {
        let link = self.link;
        let mut due = now;
        if let Some(rate) = link.rate {
            let starts = self.free_at.max(now);
            if starts - now > BUFFER {
                return None;
            }
            self.free_at = starts + length as u64 * 1_000_000_000 / rate.max(1);
            due = self.free_at;
        }
        due += nanoseconds(link.delay);
        if !link.jitter.is_zero() {
            due += random.random_range(0..=nanoseconds(link.jitter));
        }
        if link.fifo {
            due = due.max(self.last_due);
        }
        self.last_due = self.last_due.max(due);
        Some(due)
    }

    fn strikes(&self, share: f64, random: &mut impl Rng) -> bool {
        share > 0.0 && random.random_bool(share.min(1.0))
    }
}

fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX / 4)
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng as _;
    use rand::rngs::StdRng;

    use super::*;

    const PACKET: usize = 1_000;

    fn state(link: Link) -> (State, StdRng) {
        (State { link, ..State::default() }, StdRng::seed_from_u64(7))
    }

    #[test]
    fn an_open_link_lets_everything_pass_at_once() {
        let (mut state, mut random) = state(Link::default());
        for now in [5, 6, 7] {
            let admitted = state.admit(PACKET, now, &mut random).expect("nothing is lost");
            assert_eq!(admitted.due, [now]);
            assert!(state.deliver(admitted.number));
        }
        assert_eq!(state.counters, Counters { passed: 3, ..Counters::default() });
    }

    #[test]
    fn a_cut_drops_what_comes_and_what_is_under_way() {
        let (mut state, mut random) = state(Link { delay: Duration::from_nanos(10), ..Link::default() });
        let under_way = state.admit(PACKET, 0, &mut random).expect("the link is open");
        state.link.cut = true;
        assert_eq!(state.admit(PACKET, 1, &mut random), None);
        assert!(!state.deliver(under_way.number));
        assert_eq!(state.counters, Counters { dropped: 2, delayed: 1, ..Counters::default() });
    }

    #[test]
    fn loss_and_duplication_strike_their_share() {
        let (mut state, mut random) = state(Link { loss: 0.2, duplicate: 0.3, ..Link::default() });
        for now in 0..10_000 {
            if let Some(admitted) = state.admit(PACKET, now, &mut random) {
                admitted.due.iter().for_each(|_| assert!(state.deliver(admitted.number)));
            }
        }
        assert!((1_800..2_200).contains(&state.counters.dropped), "{:?}", state.counters);
        assert!((2_200..2_600).contains(&state.counters.duplicated), "{:?}", state.counters);
        assert_eq!(state.counters.passed, 10_000 - state.counters.dropped + state.counters.duplicated);
    }

    #[test]
    fn jitter_reorders_only_without_fifo() {
        for fifo in [true, false] {
            let jitter = Duration::from_nanos(1_000);
            let (mut state, mut random) = state(Link { jitter, fifo, ..Link::default() });
            let mut packets: Vec<(u64, u64)> = Vec::new();
            for now in 0..100 {
                let admitted = state.admit(PACKET, now, &mut random).expect("nothing is lost");
                packets.push((admitted.due[0], admitted.number));
            }
            packets.sort_unstable();
            packets.iter().for_each(|(_, number)| assert!(state.deliver(*number)));
            assert_eq!(state.counters.reordered == 0, fifo, "{:?}", state.counters);
        }
    }

    #[test]
    fn a_slow_wire_spaces_packets_and_drops_what_would_wait_too_long() {
        let (mut state, mut random) = state(Link { rate: Some(1_000_000), ..Link::default() });
        let due: Vec<u64> = (0..1_200)
            .filter_map(|_| state.admit(PACKET, 0, &mut random).map(|admitted| admitted.due[0]))
            .collect();
        assert_eq!(due[..3], [1_000_000, 2_000_000, 3_000_000], "1 ms for each 1,000 bytes");
        assert_eq!(due.len(), 1_001, "the buffer holds a second");
        assert_eq!(state.counters.dropped, 199);
    }
}
