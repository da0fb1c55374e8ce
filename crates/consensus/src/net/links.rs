//! This node's connections to the others, by channel.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;
use ringfence_proto::peers::Channel;
use ringfence_types::NodeId;

use super::handshake::Local;
use super::mux::Mux;
use super::{Network, Transfers, handshake};
use crate::rt;

/// Connections that questions share. Append and snapshot channels belong to whoever streams on them.
#[derive(Debug)]
pub(crate) struct Links {
    pub(super) network: Arc<dyn Network>,
    pub(crate) local: Arc<Local>,
    pub(crate) transfers: Transfers,
    control: Mutex<BTreeMap<NodeId, Arc<Mux>>>,
    forward: Mutex<BTreeMap<NodeId, Arc<Mux>>>,
}

/// What a handshake told about the other side, for the founding of a cluster.
pub(crate) struct Seen {
    pub(crate) disk_id: u64,
}

impl Links {
    pub(crate) fn new(network: Arc<dyn Network>, local: Arc<Local>, transfers: Transfers) -> Links {
        Links { network, local, transfers, control: Mutex::default(), forward: Mutex::default() }
    }

    /// The control channel to a member.
    pub(crate) fn control(&self, target: NodeId, address: &str) -> Arc<Mux> {
        self.shared(&self.control, Channel::Control, target, address)
    }

    /// The forward channel to a member.
    pub(crate) fn forward(&self, target: NodeId, address: &str) -> Arc<Mux> {
        self.shared(&self.forward, Channel::Forward, target, address)
    }

    fn shared(
        &self,
        links: &Mutex<BTreeMap<NodeId, Arc<Mux>>>,
        channel: Channel,
        target: NodeId,
        address: &str,
    ) -> Arc<Mux> {
        let mut links = links.lock();
        if let Some(link) = links.get(&target).filter(|link| link.address() == address) {
            return link.clone();
        }
        // Control questions are answered in a heartbeat; a write may wait for a slow disk.
        let silence = match channel {
            Channel::Control => self.local.leader_lease * 2,
            _ => self.local.leader_lease * 5,
        };
        let (network, local) = (self.network.clone(), self.local.clone());
        let link = Arc::new(Mux::new(network, local, channel, target, address.to_owned(), silence));
        links.insert(target, link.clone());
        link
    }

    /// Shakes hands with a member and hangs up.
    pub(crate) async fn meet(
        &self,
        target: NodeId,
        address: &str,
    ) -> Result<Seen, handshake::HandshakeError> {
        let session =
            super::mux::open(self.network.as_ref(), &self.local, Channel::Control, target, address).await?;
        Ok(Seen { disk_id: session.hello.disk_id })
    }
}

impl Local {
    /// How long opening a connection may take.
    pub(super) fn connect_timeout(&self) -> std::time::Duration {
        self.leader_lease * 2
    }
}

/// Waits a little before another try, longer after each failure, up to a bound.
#[derive(Debug)]
pub(crate) struct Patience {
    next: std::time::Duration,
    max: std::time::Duration,
}

impl Patience {
    pub(crate) fn new(first: std::time::Duration, max: std::time::Duration) -> Patience {
        Patience { next: first, max }
    }

    pub(crate) async fn wait(&mut self) {
        rt::sleep(self.next).await;
        self.next = (self.next * 2).min(self.max);
    }
}
