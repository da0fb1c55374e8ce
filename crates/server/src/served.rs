//! The node as the services see it: what all of them need to answer or to refuse.

use std::sync::Arc;

use ringfence_consensus::Node;
use ringfence_proto::{etcdserverpb, response};
use ringfence_store::{ReadError, View};
use ringfence_types::Revision;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tonic::{Response, Status};

use crate::limits::LONG_READS_MAX;
use crate::status::Trouble;

/// A cheap handle on the node and on what bounds the calls.
#[derive(Clone)]
pub(crate) struct Served {
    pub(crate) node: Node,
    /// Cancelled when the server is to stop: streams without an end of their own end then.
    pub(crate) shutdown: CancellationToken,
    long_reads: Arc<Semaphore>,
}

impl Served {
    pub(crate) fn new(node: Node, shutdown: CancellationToken) -> Served {
        Served { node, shutdown, long_reads: Arc::new(Semaphore::new(LONG_READS_MAX)) }
    }

    /// The header of an answer given at `revision`.
    pub(crate) fn header(&self, revision: Revision) -> etcdserverpb::ResponseHeader {
        response::header(self.node.cluster_id(), self.node.node_id(), revision, self.node.term())
    }

    /// The header of an answer about the state as this member has it.
    pub(crate) fn header_now(&self) -> etcdserverpb::ResponseHeader {
        self.header(self.node.view().revision())
    }

    /// Turns what a service came to into what gRPC sends.
    pub(crate) fn answer<T>(&self, result: Result<T, Trouble>) -> Result<Response<T>, Status> {
        result.map(Response::new).map_err(|trouble| self.status(&trouble))
    }

    /// The status that tells a client of `trouble`, and who leads where that helps.
    pub(crate) fn status(&self, trouble: &Trouble) -> Status {
        if let Trouble::Read(ReadError::Store(error)) = trouble {
            // Whatever this member said from here on would be a guess.
            self.node.report_unreadable(error);
        }
        trouble.status(if trouble.is_elsewhere() { self.leader_client_urls() } else { Vec::new() })
    }

    /// Does a read that may take long on a thread that may block, so that it delays no other call.
    ///
    /// The read gets a view of its own, taken when its turn has come: it is no older than any taken before, and no view
    /// is held, with all that it keeps from being freed, by a call that waits for its turn.
    pub(crate) async fn read_long<T: Send + 'static>(
        &self,
        read: impl FnOnce(&View) -> Result<T, ReadError> + Send + 'static,
    ) -> Result<T, Trouble> {
        let Ok(_permit) = self.long_reads.acquire().await else {
            return Err(Trouble::Busy("the server is stopping"));
        };
        let view = self.node.believed_view()?;
        match tokio::task::spawn_blocking(move || read(&view)).await {
            Ok(result) => Ok(result?),
            Err(panicked) => std::panic::resume_unwind(panicked.into_panic()),
        }
    }

    fn leader_client_urls(&self) -> Vec<String> {
        let Some(leader) = self.node.leader() else { return Vec::new() };
        let members = self.node.view().members();
        members.get(&leader).map(|member| member.client_urls.clone()).unwrap_or_default()
    }
}
