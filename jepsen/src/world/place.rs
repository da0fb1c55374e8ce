//! Where on the network something runs.

use std::fs::File;
use std::io;
use std::net::{SocketAddr, TcpStream};
use std::os::unix::process::CommandExt as _;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use super::sys::{self, Kind};

/// A host of the switch, or this machine's own network. A thread that has [entered](Place::enter) a place stays there for
/// as long as it lives; so do the sockets that it opened, whoever uses them.
#[derive(Debug, Clone, Default)]
pub struct Place {
    network: Option<Arc<File>>,
}

impl Place {
    pub(super) fn host(network: Arc<File>) -> Place {
        Place { network: Some(network) }
    }

    /// Takes the calling thread there, before it opens sockets.
    ///
    /// # Errors
    /// As the system's.
    pub fn enter(&self) -> io::Result<()> {
        match &self.network {
            Some(network) => sys::enter(Kind::Network, network),
            None => Ok(()),
        }
    }

    /// Makes a command start there, and its process die with the *thread* that starts it.
    pub fn prepare(&self, command: &mut Command) {
        let place = self.clone();
        let parent = std::process::id();
        // SAFETY: between fork and exec only system calls are made.
        unsafe {
            command.pre_exec(move || {
                place.enter()?;
                sys::die_with_parent(parent)
            });
        }
    }

    /// Runs something there, on a thread of its own.
    ///
    /// # Errors
    /// As the system's, where the place cannot be entered.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> io::Result<T> {
        match &self.network {
            Some(network) => sys::within(Kind::Network, network, work),
            None => Ok(work()),
        }
    }

    /// A connection from there.
    ///
    /// # Errors
    /// As the system's, and where nobody accepts within `timeout`.
    pub fn connect(&self, address: SocketAddr, timeout: Duration) -> io::Result<TcpStream> {
        self.run(|| TcpStream::connect_timeout(&address, timeout))?
    }
}
