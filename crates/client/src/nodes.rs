//! Where to send: the nodes known, their connections, and which of them led last.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::RwLock;
use tonic::transport::{Channel, Endpoint};

use crate::options::endpoint_authority;
use crate::{Error, Options};

/// Most nodes that are known at once: those given, then those learned from hints.
const NODES_MAX: usize = 64;
/// While an answer is awaited and nothing comes, the connection is asked this often whether it lives. etcd takes more than
/// one such question in five seconds for an attack and closes the connection.
const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(6);
/// How long it may take to say so before it is given up.
const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(2);
/// Windows large enough that one answer of many keys does not wait for the receiver's permission.
const STREAM_WINDOW_BYTES: u32 = 4 << 20;
const CONNECTION_WINDOW_BYTES: u32 = 8 << 20;

/// The nodes known to a client.
#[derive(Debug)]
pub(crate) struct Nodes {
    options: Options,
    list: RwLock<Vec<Node>>,
    /// Index of the node to try first: the one that led last, or answered last.
    preferred: AtomicUsize,
}

#[derive(Debug)]
struct Node {
    authority: String,
    channels: Vec<Channel>,
    next_channel: AtomicUsize,
}

/// A node picked for an attempt.
#[derive(Debug, Clone)]
pub(crate) struct Target {
    pub(crate) index: usize,
    pub(crate) authority: String,
    pub(crate) channel: Channel,
}

impl Nodes {
    pub(crate) fn new<E>(endpoints: E, options: Options) -> Result<Nodes, Error>
    where
        E: IntoIterator,
        E::Item: AsRef<str>,
    {
        let mut list: Vec<Node> = Vec::new();
        for endpoint in endpoints {
            let authority = endpoint_authority(endpoint.as_ref())?;
            if list.iter().all(|node| node.authority != authority) {
                list.push(Node::new(authority, &options)?);
            }
        }
        if list.is_empty() || list.len() > NODES_MAX {
            let reason = format!("give between 1 and {NODES_MAX} endpoints");
            return Err(Error::BadEndpoint { endpoint: String::new(), reason });
        }
        Ok(Nodes { options, list: RwLock::new(list), preferred: AtomicUsize::new(0) })
    }

    pub(crate) fn options(&self) -> &Options {
        &self.options
    }

    pub(crate) fn endpoints(&self) -> Vec<String> {
        self.list.read().iter().map(|node| node.authority.clone()).collect()
    }

    pub(crate) fn preferred_endpoint(&self) -> String {
        self.list.read()[self.preferred.load(Ordering::Relaxed)].authority.clone()
    }

    /// The node to try next: the preferred one, then the others in turn; `None` once all were tried.
    pub(crate) fn pick(&self, tried: &[usize]) -> Option<Target> {
        let list = self.list.read();
        let first = self.preferred.load(Ordering::Relaxed);
        let index = (0..list.len()).map(|step| (first + step) % list.len()).find(|at| !tried.contains(at))?;
        Some(list[index].target(index))
    }

    /// All nodes known.
    pub(crate) fn all(&self) -> Vec<Target> {
        let list = self.list.read();
        list.iter().enumerate().map(|(index, node)| node.target(index)).collect()
    }

    /// The node with this index, which was known before.
    pub(crate) fn target(&self, index: usize) -> Target {
        self.list.read()[index].target(index)
    }

    /// The node with this endpoint, which must be known.
    pub(crate) fn at(&self, endpoint: &str) -> Result<Target, Error> {
        let authority = endpoint_authority(endpoint)?;
        let index = self.learn(&authority).ok_or_else(|| Error::BadEndpoint {
            endpoint: endpoint.to_owned(),
            reason: format!("{NODES_MAX} nodes are known already"),
        })?;
        Ok(self.list.read()[index].target(index))
    }

    /// Remembers that this node answered well, or leads.
    pub(crate) fn prefer(&self, index: usize) {
        self.preferred.store(index, Ordering::Relaxed);
    }

    /// Makes the next call begin elsewhere than at a node that did not answer.
    pub(crate) fn avoid(&self, index: usize) {
        let next = (index + 1) % self.list.read().len();
        // A node that was preferred meanwhile has earned it.
        let _ = self.preferred.compare_exchange(index, next, Ordering::Relaxed, Ordering::Relaxed);
    }

    /// Follows a hint: the first of the leader's URLs that can be understood becomes the node to try next.
    pub(crate) fn follow_hint(&self, leader: &[String]) {
        let known =
            leader.iter().filter_map(|url| endpoint_authority(url).ok()).find_map(|url| self.learn(&url));
        if let Some(index) = known {
            self.prefer(index);
        }
    }

    /// The index of a node, which is added if it is new and there is room.
    fn learn(&self, authority: &str) -> Option<usize> {
        let position = |list: &[Node]| list.iter().position(|node| node.authority == authority);
        if let Some(index) = position(&self.list.read()) {
            return Some(index);
        }
        let mut list = self.list.write();
        if let Some(index) = position(&list) {
            return Some(index);
        }
        if list.len() >= NODES_MAX {
            return None;
        }
        list.push(Node::new(authority.to_owned(), &self.options).ok()?);
        Some(list.len() - 1)
    }
}

impl Node {
    fn new(authority: String, options: &Options) -> Result<Node, Error> {
        let endpoint = Endpoint::from_shared(format!("http://{authority}"))
            .map_err(|error| Error::BadEndpoint { endpoint: authority.clone(), reason: error.to_string() })?
            .connect_timeout(options.connect_timeout)
            .tcp_nodelay(true)
            .http2_keep_alive_interval(KEEP_ALIVE_INTERVAL)
            .keep_alive_timeout(KEEP_ALIVE_TIMEOUT)
            .initial_stream_window_size(STREAM_WINDOW_BYTES)
            .initial_connection_window_size(CONNECTION_WINDOW_BYTES);
        let channels = (0..options.connections_per_node.max(1)).map(|_| endpoint.connect_lazy()).collect();
        Ok(Node { authority, channels, next_channel: AtomicUsize::new(0) })
    }

    fn target(&self, index: usize) -> Target {
        let turn = self.next_channel.fetch_add(1, Ordering::Relaxed) % self.channels.len();
        Target { index, authority: self.authority.clone(), channel: self.channels[turn].clone() }
    }
}
