//! The peers' transport: from byte streams ([`Network`]) over frames and the handshake to the channels between two
//! members. A simulator replaces [`Network`] alone; frames, handshake and channels are the real ones there too.

mod frame;
#[cfg(feature = "fuzzing")]
pub(crate) mod fuzzing;
mod handshake;
pub(crate) mod join;
mod links;
mod mux;
mod peer_book;
mod pipeline;
mod raft_network;
mod serve;
mod serve_append;
mod serve_forward;
mod serve_snapshot;
mod snapshot;
mod tcp;
mod transfers;
mod witness;

use std::fmt;
use std::io;

use futures_util::future::BoxFuture;
use tokio::io::{AsyncRead, AsyncWrite};

pub(crate) use handshake::{FoundDurable, Local};
pub(crate) use links::{Links, Patience};
pub(crate) use mux::CallError;
pub(crate) use peer_book::PeerBook;
pub(crate) use raft_network::PeerNetworkFactory;
pub(crate) use serve::{Door, serve_peers};
pub(crate) use snapshot::send_rebuild;
pub use tcp::TcpNetwork;
pub(crate) use transfers::Transfers;

/// Ordered byte streams between members.
pub trait Network: fmt::Debug + Send + Sync + 'static {
    /// Opens a stream to `address` (`host:port`).
    fn connect<'a>(&'a self, address: &'a str) -> BoxFuture<'a, io::Result<Connection>>;

    /// The next stream that somebody opened to this node.
    fn accept(&self) -> BoxFuture<'_, io::Result<Connection>>;
}

/// One ordered byte stream in each direction.
pub struct Connection {
    /// What the other side writes.
    pub reader: Box<dyn AsyncRead + Send + Sync + Unpin>,
    /// What the other side reads.
    pub writer: Box<dyn AsyncWrite + Send + Sync + Unpin>,
    /// Whom the network says the other side is, for messages to people.
    pub remote: String,
}
