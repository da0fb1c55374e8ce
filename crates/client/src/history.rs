//! The past of a key.

use ringfence_proto::ringfence_v1::history_client::HistoryClient;
use ringfence_proto::ringfence_v1::{VersionsRequest, VersionsResponse};

use crate::retry::Kind;
use crate::{Client, Error};

impl Client {
    /// The versions of one key, the newest first, deletions included: one part of them, and whether more follow.
    ///
    /// # Errors
    /// See [`Error`]; never [`Error::Indefinite`]. [`Error::Refused`] with `UNIMPLEMENTED` from a server that cannot tell, such as
    /// etcd.
    pub async fn versions(&self, request: VersionsRequest) -> Result<VersionsResponse, Error> {
        self.call(Kind::Read, |channel| {
            let request = request.clone();
            async move { Ok(HistoryClient::new(channel).versions(request).await?.into_inner()) }
        })
        .await
    }
}
