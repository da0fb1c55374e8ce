//! Byte streams over TCP.

use std::io;
use std::net::SocketAddr;

use futures_util::future::BoxFuture;
use tokio::net::{TcpListener, TcpStream};

use super::{Connection, Network};

/// The members' network in production.
#[derive(Debug)]
pub struct TcpNetwork {
    listener: TcpListener,
}

impl TcpNetwork {
    /// Listens for peers.
    ///
    /// # Errors
    /// As the system's: the address is in use, or not one of this machine's.
    pub async fn bind(address: SocketAddr) -> io::Result<TcpNetwork> {
        Ok(TcpNetwork { listener: TcpListener::bind(address).await? })
    }

    /// The address listened on; of use where port 0 was asked for.
    ///
    /// # Errors
    /// As the system's.
    pub fn local_address(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}

impl Network for TcpNetwork {
    fn connect<'a>(&'a self, address: &'a str) -> BoxFuture<'a, io::Result<Connection>> {
        Box::pin(async move { connection(TcpStream::connect(address).await?) })
    }

    fn accept(&self) -> BoxFuture<'_, io::Result<Connection>> {
        Box::pin(async move { connection(self.listener.accept().await?.0) })
    }
}

fn connection(stream: TcpStream) -> io::Result<Connection> {
    // A frame is a whole message: waiting for more to send would only add latency.
    stream.set_nodelay(true)?;
    let remote = stream.peer_addr()?.to_string();
    let (reader, writer) = stream.into_split();
    Ok(Connection { reader: Box::new(reader), writer: Box::new(writer), remote })
}
