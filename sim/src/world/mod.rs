//! The simulated world: machines that run nodes on simulated disks, and the network between them.

mod machine;
mod network;
mod stream;

use std::sync::Arc;

use ringfence_consensus::rt::simulated::Host;
use ringfence_consensus::{Config, Founder, Retention, Timing};

pub use machine::{Death, Life, Machine, Stop};
pub use network::{Fabric, NetworkCounts, Pace, Port};

/// Clients share a host, which no fault but a cut touches.
pub const CLIENTS: Host = Host(1_000);

/// A cluster's machines and their network.
pub struct World {
    /// The machines; node `n` is the one at `n - 1`.
    pub machines: Vec<Arc<Machine>>,
    /// Their network.
    pub fabric: Fabric,
}

/// What is the same for all nodes of a world.
#[derive(Debug, Clone, Copy)]
pub struct Shape {
    /// Number of nodes.
    pub nodes: usize,
    /// Small retention: members that are away need a snapshot soon.
    pub forgets_soon: bool,
    /// The first node has the settings of a wide area, and so a longer leader lease than the others, as in the middle of a
    /// rolling change.
    pub uneven_leases: bool,
}

impl World {
    /// A world in which nothing runs yet.
    #[must_use]
    pub fn new(shape: Shape, seed: u64) -> World {
        let fabric = Fabric::default();
        let machines = (1..=shape.nodes).map(|number| {
            let config = config(number, shape);
            Arc::new(Machine::new(number, config, fabric.clone(), seed.wrapping_add(number as u64)))
        });
        World { machines: machines.collect(), fabric }
    }

    /// The machine of a node, counted from 1.
    #[must_use]
    pub fn machine(&self, number: usize) -> &Arc<Machine> {
        &self.machines[number - 1]
    }

    /// The machines whose nodes run.
    pub fn running(&self) -> impl Iterator<Item = &Arc<Machine>> {
        self.machines.iter().filter(|machine| machine.node().is_some())
    }

    /// The number of a node that leads and holds its leader lease.
    #[must_use]
    pub fn leader(&self) -> Option<usize> {
        let leads = |machine: &&Arc<Machine>| {
            machine.node().is_some_and(|node| node.leader() == Some(node.node_id()))
        };
        self.machines.iter().find(leads).map(|machine| machine.number)
    }
}

/// The host of a node, counted from 1.
#[must_use]
pub fn host_of(number: usize) -> Host {
    Host(u32::try_from(number).expect("a cluster is small"))
}

fn address(number: usize) -> String {
    format!("n{number}:1")
}

fn config(number: usize, shape: Shape) -> Config {
    let founder = |number| Founder { name: format!("n{number}"), peer_address: address(number) };
    let retention = if shape.forgets_soon {
        Retention { bytes: 1 << 20, time: std::time::Duration::from_secs(5) }
    } else {
        Retention::default()
    };
    Config {
        name: format!("n{number}"),
        advertise_peer: address(number),
        client_urls: vec![format!("http://n{number}:2")],
        founders: (1..=shape.nodes).map(founder).collect(),
        join: None,
        peer_secret: None,
        timing: if shape.uneven_leases && number == 1 { Timing::WIDE_AREA } else { Timing::LOCAL },
        checkpoint_interval: std::time::Duration::from_secs(3),
        retention,
        wal_segment_bytes: 4 << 20,
        store_cache_bytes: 1 << 20,
        rebuild_free_bytes_min: 64 << 10,
        snapshot_bytes_per_second: Config::SNAPSHOT_BYTES_PER_SECOND,
        disk_stall_limit: Config::DISK_STALL_LIMIT,
        integrity: Default::default(),
        space: Default::default(),
        version: "simulated".to_owned(),
    }
}
