//! The Rust client: it finds the leader, retries what is safe to retry, and says of every write that failed whether
//! it may have happened.
//!
//! ```no_run
//! # async fn example() -> Result<(), ringfence_client::Error> {
//! use ringfence_client::{Client, Options};
//!
//! let client = Client::connect(["127.0.0.1:2379", "127.0.0.1:2389"], Options::default())?;
//! client.put_value("greeting", "hello").await?;
//! let greeting = client.get("greeting").await?.expect("it was just put");
//! assert_eq!(greeting.value, "hello");
//! # Ok(())
//! # }
//! ```
//!
//! It speaks the plain etcd v3 API and works with etcd too. What it promises about a write:
//!
//! - [`Error::Refused`] and [`Error::Unavailable`]: *every* attempt ended in a way that proves that it was not applied.
//! - [`Error::Indefinite`]: it may have been applied. Such a write is never sent again by the client itself, since only
//!   the caller knows whether doing it twice is harmless. Writes of a [`Session`] are sent again: the store does them once.
//! - [`Error::Unchecked`]: it was applied, by a server that does not know the fences or the session that it carried.
//! - [`Error::TooFewAcks`]: it was applied, and is not on the disks of as many voters as was asked for.
//!
//! Reads are retried until the deadline. They see every acknowledged write, unless [`Reads`] says that less is enough: then any member
//! can answer, and with a [`CausalToken`] a program still reads its own writes, sees the leases, locks and guards that it has seen, and never
//! goes back in time.
//!
//! A [`Watch`] tells every change of its keys once, in order and whole revisions at a time, through disconnects and changes of
//! members ([`Client::watch`]).
//!
//! Reading order: [`options`], [`error`], `verdict` (what an answer proves), `retry` (what follows from it), `nodes` (where to
//! send), `reads` and `routing` (what reads want, and who answers them), `checked` (whether fences were evaluated), then the
//! calls themselves, `session` with `sequences` (writes that happen once), and `watch`.

mod backoff;
mod calls;
mod checked;
pub mod error;
pub mod fence;
mod fencing;
mod history;
mod leases;
mod locks;
mod nodes;
pub mod options;
mod reads;
mod retry;
mod routing;
mod scan;
mod sequences;
mod session;
mod verdict;
mod watch;

#[cfg(test)]
mod fake;
#[cfg(test)]
mod read_tests;
#[cfg(test)]
mod session_tests;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod watch_tests;

use std::sync::Arc;
use std::time::Duration;

pub use error::Error;
pub use options::{Options, endpoint_authority};
pub use reads::Reads;
pub use ringfence_types::{CausalToken, MalformedToken};
pub use routing::ReadFrom;
pub use scan::Scan;
pub use session::Session;
pub use verdict::may_be_sent_again;
pub use watch::{Watch, Watched, watch_prefix};

use nodes::Nodes;
use reads::Causality;
use routing::Survey;

/// A handle to a cluster: cheap to clone, to be shared by everything in a process that talks to the same cluster.
#[derive(Debug, Clone)]
pub struct Client {
    nodes: Arc<Nodes>,
    survey: Arc<Survey>,
    causality: Arc<Causality>,
    reads: Reads,
    timeout: Duration,
}

impl Client {
    /// A client of the cluster with these endpoints (`host:port`, or URLs that begin with `http://`). Connections are
    /// made when they are first needed, so an unreachable cluster shows in the first call.
    ///
    /// Must be called within a Tokio runtime.
    ///
    /// # Errors
    /// [`Error::BadEndpoint`] where an endpoint cannot be understood, or none is given.
    pub fn connect<E>(endpoints: E, options: Options) -> Result<Client, Error>
    where
        E: IntoIterator,
        E::Item: AsRef<str>,
    {
        let (timeout, reads) = (options.timeout, options.reads);
        let nodes = Arc::new(Nodes::new(endpoints, options)?);
        Ok(Client { nodes, survey: Arc::default(), causality: Arc::default(), reads, timeout })
    }

    /// The same client with another time limit for each call.
    #[must_use]
    pub fn with_timeout(&self, timeout: Duration) -> Client {
        Client { timeout, ..self.clone() }
    }

    /// Every endpoint known: those given, and those learned from hints to the leader.
    #[must_use]
    pub fn endpoints(&self) -> Vec<String> {
        self.nodes.endpoints()
    }

    /// The endpoint to which the next call goes first.
    #[must_use]
    pub fn preferred_endpoint(&self) -> String {
        self.nodes.preferred_endpoint()
    }
}
