//! The network of a world: a switch in user space, with a TUN device for each host.
//!
//! Linux would delay, lose and reorder packets by itself where `netem` is built in; it often is not. Here one thread
//! holds the other end of every host's only device, and does to each directed link what a fault asks for.

mod forward;
mod link;
mod port;
#[cfg(test)]
mod tests;

use std::fs::File;
use std::io::{self, Write as _};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};

pub use link::{Counters, Host, Link};

use super::place::Place;
use super::sys;
use forward::Forwarder;
use link::State;
use port::Port;

/// The switch. Dropping it takes the network away.
#[derive(Debug)]
pub struct Switch {
    hosts: Vec<Host>,
    places: Vec<Place>,
    links: Arc<Mutex<Links>>,
    stop: File,
    thread: Option<JoinHandle<()>>,
}

impl Switch {
    /// A switch with so many nodes, the clients and the control place, all links open. What is random is drawn from `seed`.
    ///
    /// # Errors
    /// As the system's, where this process may not make networks.
    pub fn start(nodes: usize, seed: u64) -> io::Result<Switch> {
        let mut hosts: Vec<Host> = (1..=nodes).map(Host::node).collect();
        hosts.extend([Host::CLIENTS, Host::CONTROL]);
        let ports: Vec<Port> = hosts.iter().map(|host| Port::open(*host)).collect::<io::Result<_>>()?;
        let places = ports.iter().map(|port| Place::host(Arc::clone(&port.namespace))).collect();
        let links = Arc::new(Mutex::new(Links::new(hosts.clone())));
        let stop = sys::event()?;
        let forwarder = Forwarder::new(ports, Arc::clone(&links), stop.try_clone()?, seed);
        let thread = thread::Builder::new().name("switch".to_owned()).spawn(move || forwarder.run())?;
        Ok(Switch { hosts, places, links, stop, thread: Some(thread) })
    }

    /// All hosts: the nodes in order, the clients, the control place.
    #[must_use]
    pub fn hosts(&self) -> &[Host] {
        &self.hosts
    }

    /// Where a host's threads and processes must be.
    ///
    /// # Panics
    /// Where there is no such host.
    #[must_use]
    pub fn place(&self, host: Host) -> &Place {
        &self.places[self.links().place(host).expect("the host is one of the switch's")]
    }

    /// Sets one direction between two hosts.
    ///
    /// # Panics
    /// As [`Switch::set_all`].
    pub fn set(&self, from: Host, to: Host, link: Link) {
        self.set_all([(from, to, link)]);
    }

    /// Sets several links at once: no packet sees some of them set and others not.
    ///
    /// # Panics
    /// Where a host is none of the switch's, or the control place, which no fault may touch.
    pub fn set_all(&self, links: impl IntoIterator<Item = (Host, Host, Link)>) {
        let mut table = self.links();
        for (from, to, link) in links {
            assert!(from != Host::CONTROL && to != Host::CONTROL, "no fault touches the control place");
            table.between(from, to).link = link;
        }
    }

    /// Opens all links.
    pub fn heal(&self) {
        self.links().states.iter_mut().for_each(|state| state.link = Link::default());
    }

    /// How a link is set.
    ///
    /// # Panics
    /// Where a host is none of the switch's.
    #[must_use]
    pub fn link(&self, from: Host, to: Host) -> Link {
        self.links().between(from, to).link
    }

    /// What has happened to a link's packets since the switch was started.
    ///
    /// # Panics
    /// Where a host is none of the switch's.
    #[must_use]
    pub fn counters(&self, from: Host, to: Host) -> Counters {
        self.links().between(from, to).counters
    }

    /// The same for all links together.
    #[must_use]
    pub fn total(&self) -> Counters {
        self.links().states.iter().fold(Counters::default(), |total, state| total.plus(state.counters))
    }

    fn links(&self) -> MutexGuard<'_, Links> {
        self.links.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Switch {
    fn drop(&mut self) {
        // An event can only be full of wake-ups that nobody has taken yet, which is as good.
        let _ = self.stop.write(&1_u64.to_ne_bytes());
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            eprintln!("the switch had failed");
        }
    }
}

/// All links, by the places of their hosts.
#[derive(Debug)]
struct Links {
    hosts: Vec<Host>,
    /// The link from host `a` to host `b` stands at `a * hosts + b`.
    states: Vec<State>,
}

impl Links {
    fn new(hosts: Vec<Host>) -> Links {
        let states = (0..hosts.len() * hosts.len()).map(|_| State::default()).collect();
        Links { hosts, states }
    }

    /// The place of a host among all; `None`: there is none of this address.
    fn place(&self, host: Host) -> Option<usize> {
        self.hosts.iter().position(|other| *other == host)
    }

    fn state(&mut self, from: usize, to: usize) -> &mut State {
        &mut self.states[from * self.hosts.len() + to]
    }

    fn between(&mut self, from: Host, to: Host) -> &mut State {
        let place = |host| self.place(host).expect("the host is one of the switch's");
        let (from, to) = (place(from), place(to));
        self.state(from, to)
    }
}
