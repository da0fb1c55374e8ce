//! A network in memory, whose links can be cut and slowed.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use parking_lot::Mutex;
use ringfence_consensus::{Connection, Network, rt};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::mpsc;

/// Every node's mailbox for connections, and which links are cut.
#[derive(Debug, Default)]
pub(crate) struct Fabric {
    pub(crate) mailboxes: Mutex<BTreeMap<String, mpsc::Sender<Connection>>>,
    /// How often each node has started: what an earlier process had open is closed.
    pub(crate) lives: Mutex<BTreeMap<String, u64>>,
    /// Pairs between which nothing passes, in either direction.
    pub(crate) cut: Mutex<BTreeSet<(String, String)>>,
    /// How long bytes take, from the one to the other, where it is not at once.
    pub(crate) slow: Mutex<BTreeMap<(String, String), Duration>>,
    /// Bytes that have arrived, by whom they were sent to.
    pub(crate) arrived: Mutex<BTreeMap<String, u64>>,
}

#[derive(Debug)]
pub(crate) struct Port {
    fabric: Arc<Fabric>,
    address: String,
    mailbox: tokio::sync::Mutex<mpsc::Receiver<Connection>>,
}

impl Fabric {
    pub(crate) fn port(self: &Arc<Self>, address: &str) -> Arc<Port> {
        let (sender, mailbox) = mpsc::channel(64);
        self.mailboxes.lock().insert(address.to_owned(), sender);
        *self.lives.lock().entry(address.to_owned()).or_default() += 1;
        Arc::new(Port { fabric: self.clone(), address: address.to_owned(), mailbox: mailbox.into() })
    }

    pub(crate) fn lives_of(&self, (a, b): &(String, String)) -> [u64; 2] {
        let lives = self.lives.lock();
        [a, b].map(|address| lives.get(address).copied().unwrap_or_default())
    }

    pub(crate) fn is_cut(&self, a: &str, b: &str) -> bool {
        let cut = self.cut.lock();
        cut.contains(&(a.to_owned(), b.to_owned())) || cut.contains(&(b.to_owned(), a.to_owned()))
    }

    pub(crate) fn isolate(&self, address: &str) {
        self.separate(&[address.to_owned()]);
    }

    /// Cuts these off from all others.
    pub(crate) fn separate(&self, some: &[String]) {
        let others: Vec<String> =
            self.mailboxes.lock().keys().filter(|other| !some.contains(other)).cloned().collect();
        let pairs = some.iter().flat_map(|one| others.iter().map(|other| (one.clone(), other.clone())));
        self.cut.lock().extend(pairs);
    }

    pub(crate) fn heal(&self) {
        self.cut.lock().clear();
    }
}

impl Network for Port {
    fn connect<'a>(&'a self, address: &'a str) -> BoxFuture<'a, io::Result<Connection>> {
        Box::pin(async move {
            if self.fabric.is_cut(&self.address, address) {
                // A cut link is silence, not an error.
                std::future::pending::<()>().await;
            }
            let mailbox = self.fabric.mailboxes.lock().get(address).cloned();
            let mailbox = mailbox.ok_or(io::ErrorKind::ConnectionRefused)?;
            let (near, middle_near) = tokio::io::duplex(1 << 20);
            let (middle_far, far) = tokio::io::duplex(1 << 20);
            let (near_reader, near_writer) = tokio::io::split(near);
            let (far_reader, far_writer) = tokio::io::split(far);
            let (from_near, to_near) = tokio::io::split(middle_near);
            let (from_far, to_far) = tokio::io::split(middle_far);
            let there = (self.address.clone(), address.to_owned());
            let back = (address.to_owned(), self.address.clone());
            rt::spawn(carry(self.fabric.clone(), there, from_near, to_far));
            rt::spawn(carry(self.fabric.clone(), back, from_far, to_near));
            let arriving = Connection {
                reader: Box::new(far_reader),
                writer: Box::new(far_writer),
                remote: self.address.clone(),
            };
            mailbox.send(arriving).await.map_err(|_| io::ErrorKind::ConnectionRefused)?;
            Ok(Connection {
                reader: Box::new(near_reader),
                writer: Box::new(near_writer),
                remote: address.to_owned(),
            })
        })
    }

    fn accept(&self) -> BoxFuture<'_, io::Result<Connection>> {
        Box::pin(async move {
            let mut mailbox = self.mailbox.lock().await;
            mailbox.recv().await.ok_or_else(|| io::ErrorKind::BrokenPipe.into())
        })
    }
}

/// Carries bytes one way; while the link is cut they wait, as TCP's do.
async fn carry(
    fabric: Arc<Fabric>,
    link: (String, String),
    mut from: tokio::io::ReadHalf<tokio::io::DuplexStream>,
    mut to: tokio::io::WriteHalf<tokio::io::DuplexStream>,
) {
    let mut buffer = vec![0; 64 << 10];
    let lives = fabric.lives_of(&link);
    while fabric.lives_of(&link) == lives {
        let Some(read) = rt::timeout(Duration::from_millis(50), from.read(&mut buffer)).await else {
            continue;
        };
        let Ok(count) = read else { break };
        while fabric.is_cut(&link.0, &link.1) {
            rt::sleep(Duration::from_millis(5)).await;
        }
        let delay = fabric.slow.lock().get(&link).copied();
        if let Some(delay) = delay {
            rt::sleep(delay).await;
        }
        if count == 0 || to.write_all(&buffer[..count]).await.is_err() {
            break;
        }
        *fabric.arrived.lock().entry(link.1.clone()).or_default() += count as u64;
    }
    drop(to.shutdown().await);
}
