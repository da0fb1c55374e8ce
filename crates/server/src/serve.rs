//! The clients' port: accepts connections, within a bound, and lets them end before it stops.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use ringfence_consensus::Node;
use thiserror::Error;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::door::Door;
use crate::gather::Gather;
use crate::lease_keeper;
use crate::limits::{
    CALL_WINDOW_BYTES, CALLS_PER_CONNECTION_MAX, CONNECTION_WINDOW_BYTES, CONNECTIONS_MAX, DRAIN_TIMEOUT,
    FRAME_BYTES_MAX, HTTP_HEAD_TIMEOUT, KEEPALIVE_INTERVAL, KEEPALIVE_TIMEOUT, SEND_BUFFER_BYTES_MAX,
};
use crate::renewals::{self, Renewals};
use crate::served::Served;

/// How long an accept that failed for lack of descriptors or memory is not tried again.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// How clients are served.
#[derive(Debug)]
pub struct ServerConfig {
    /// The sockets to serve on, bound by [`bind`].
    pub listeners: Vec<TcpListener>,
    /// How often a watch that asked for it is told how far it is while nothing happens; usually
    /// [`WATCH_PROGRESS_INTERVAL`](crate::WATCH_PROGRESS_INTERVAL).
    pub watch_progress_interval: Duration,
}

/// Why clients cannot be served.
#[derive(Debug, Error)]
pub enum ServeError {
    /// The address cannot be listened on.
    #[error("cannot listen for clients on {address}: {source}")]
    Bind {
        /// The address.
        address: SocketAddr,
        /// The system's reason.
        source: io::Error,
    },
    /// There is nothing to serve on.
    #[error("no address to listen on for clients")]
    NoListener,
}

/// Takes an address, so that a start fails early where it is in use.
///
/// # Errors
/// Where the system refuses the address.
pub async fn bind(address: SocketAddr) -> Result<TcpListener, ServeError> {
    TcpListener::bind(address).await.map_err(|source| ServeError::Bind { address, source })
}

/// Serves clients until `shutdown` is cancelled; then lets calls under way end, within a bound, and returns.
///
/// # Errors
/// Where there is nothing to serve on.
pub async fn serve(config: ServerConfig, node: Node, shutdown: CancellationToken) -> Result<(), ServeError> {
    if config.listeners.is_empty() {
        return Err(ServeError::NoListener);
    }
    let permits = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let connections = TaskTracker::new();
    let (renewals, waiting) = Renewals::new();
    connections.spawn(renewals::collect(node.clone(), waiting, shutdown.clone()));
    let served = Served::new(node.clone(), shutdown.clone(), renewals);
    let counts = served.lease_counts.clone();
    let count_ended = move |ended| counts.count_expired(ended);
    connections.spawn(lease_keeper::run(node, count_ended, shutdown.clone().cancelled_owned()));
    let door = Door::new(served, config.watch_progress_interval);
    let accepting = config.listeners.into_iter().map(|listener| {
        let (door, permits, connections, shutdown) =
            (door.clone(), Arc::clone(&permits), connections.clone(), shutdown.clone());
        async move {
            while let Some((stream, permit)) = accept(&listener, &permits, &shutdown).await {
                connections.spawn(Gather::new(connection(stream, permit, door.clone(), shutdown.clone())));
            }
        }
    });
    join_all(accepting).await;
    connections.close();
    connections.wait().await;
    Ok(())
}

/// The next connection; none when the server is to stop.
async fn accept(
    listener: &TcpListener,
    permits: &Arc<Semaphore>,
    shutdown: &CancellationToken,
) -> Option<(TcpStream, OwnedSemaphorePermit)> {
    let next = async {
        // The permit comes first: beyond the bound, clients wait in the kernel's queue.
        let permit = Arc::clone(permits).acquire_owned().await.ok()?;
        loop {
            match listener.accept().await {
                Ok((stream, _)) => return Some((stream, permit)),
                Err(error) if is_of_one_connection(&error) => {}
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a client's connection");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    };
    tokio::select! {
        () = shutdown.cancelled() => None,
        accepted = next => accepted,
    }
}

/// Whether a failed accept says something about the one connection alone.
fn is_of_one_connection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset | io::ErrorKind::ConnectionRefused
    )
}

/// Serves one connection to its end.
async fn connection(
    stream: TcpStream,
    permit: OwnedSemaphorePermit,
    door: Door,
    shutdown: CancellationToken,
) {
    let _permit = permit;
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "the connection has ended already");
        return;
    }
    let protocol = protocol();
    let service = service_fn(move |request| door.call(request));
    let serving = protocol.serve_connection(TokioIo::new(stream), service);
    tokio::pin!(serving);
    let ended = tokio::select! {
        ended = &mut serving => Some(ended),
        () = shutdown.cancelled() => None,
    };
    let ended = match ended {
        Some(ended) => ended,
        None => {
            serving.as_mut().graceful_shutdown();
            match tokio::time::timeout(DRAIN_TIMEOUT, serving).await {
                Ok(ended) => ended,
                Err(_) => return tracing::info!("calls under way are cut off: the server stops"),
            }
        }
    };
    if let Err(error) = ended {
        tracing::debug!(error = %error, "a client's connection broke");
    }
}

/// HTTP/2 for gRPC and HTTP/1 for people and probes; which one is seen from the connection's first bytes.
fn protocol() -> auto::Builder<TokioExecutor> {
    let mut protocol = auto::Builder::new(TokioExecutor::new());
    protocol.http1().timer(TokioTimer::new()).header_read_timeout(HTTP_HEAD_TIMEOUT);
    protocol
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(CALLS_PER_CONNECTION_MAX)
        .initial_stream_window_size(CALL_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .max_frame_size(FRAME_BYTES_MAX)
        .max_send_buf_size(SEND_BUFFER_BYTES_MAX)
        .keep_alive_interval(KEEPALIVE_INTERVAL)
        .keep_alive_timeout(KEEPALIVE_TIMEOUT);
    protocol
}
