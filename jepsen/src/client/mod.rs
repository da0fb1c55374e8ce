//! Clients of three kinds behind one trait: the project's own crate, the crate `etcd-client`, and the command line.
//!
//! Reading order: [`request`] (what they are asked), [`right`] (the same about leases and locks), [`watching`] (what is no request),
//! [`outcome`] (what an error proves; `OUTCOMES.md` is its table), `ringfence`, `etcd` and `cli` (the kinds), [`caller`] (the rules
//! that are the same for all).

pub mod caller;
mod cli;
mod etcd;
#[cfg(test)]
pub(crate) mod fake;
pub mod outcome;
pub mod request;
pub mod right;
mod ringfence;
pub mod watching;

use tokio::time::Instant;

pub use caller::Caller;
pub use cli::Cli;
pub use etcd::Etcd;
pub use outcome::{Applied, Failure};
use request::prefix_end;
pub use request::{Answer, Demand, Found, Freshness, Keys, Request, Step};
pub use right::Right;
pub use ringfence::Ringfence;
pub use watching::{Told, Watched, Watching};

/// A node as clients see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    /// Its number, from 1.
    pub number: u64,
    /// Where clients reach it, `host:port`.
    pub address: String,
}

/// A client: one request at a time.
#[tonic::async_trait]
pub trait Client: Send {
    /// The number of the node that the next request goes to; none where that is not known.
    fn node(&self) -> Option<u64>;

    /// Makes a request, and gives up at the deadline.
    ///
    /// # Errors
    /// A [`Failure`], which says whether the request may have changed something.
    async fn call(&mut self, request: &Request, deadline: Instant) -> Result<Answer, Failure>;

    /// Watches for a while, and tells what it was told before the deadline.
    ///
    /// # Errors
    /// A [`Failure`] where the watch never began.
    async fn watch(&mut self, _watching: &Watching, _deadline: Instant) -> Result<Watched, Failure> {
        Err(Failure::definite("this kind of client is not asked to watch"))
    }
}

/// The kinds of clients.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// The project's client, which knows one node at first.
    RingfenceOne,
    /// The project's client, which knows all nodes.
    RingfenceAll,
    /// The crate `etcd-client`, bound to one node.
    Etcd,
    /// The command line, a process a request.
    Cli,
}

impl Kind {
    /// All of them.
    pub const ALL: [Kind; 4] = [Kind::RingfenceOne, Kind::RingfenceAll, Kind::Etcd, Kind::Cli];
}
