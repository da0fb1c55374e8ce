//! The calls about leases: one attempt after the other, as the retry loop has it.

use ringfence_proto::etcdserverpb::lease_client::LeaseClient;
use ringfence_proto::etcdserverpb::{
    LeaseGrantRequest, LeaseGrantResponse, LeaseKeepAliveRequest, LeaseKeepAliveResponse, LeaseLeasesRequest,
    LeaseLeasesResponse, LeaseRevokeRequest, LeaseRevokeResponse, LeaseTimeToLiveRequest,
    LeaseTimeToLiveResponse,
};
use tonic::Status;

use crate::retry::Kind;
use crate::{Client, Error};

impl Client {
    /// Grants a lease of `ttl_seconds`, counted from now and from each keep-alive on; with a number of the server's choice where
    /// `id` is 0. The answer says how long it really lasts: the server has a shortest time.
    ///
    /// # Errors
    /// See [`Error`]; [`Error::Indefinite`] where the lease may have been granted. One whose number nobody knows ends by itself
    /// after its time.
    pub async fn lease_grant(&self, ttl_seconds: i64, id: i64) -> Result<LeaseGrantResponse, Error> {
        let answer = self
            .call(Kind::Write, |channel| async move {
                let request = LeaseGrantRequest { ttl: ttl_seconds, id };
                Ok(LeaseClient::new(channel).lease_grant(request).await?.into_inner())
            })
            .await?;
        Ok(self.note(answer))
    }

    /// Ends a lease, with all keys that hang on it.
    ///
    /// # Errors
    /// See [`Error`]; [`Error::Refused`] where there is no such lease, [`Error::Indefinite`] where it may have been ended.
    pub async fn lease_revoke(&self, id: i64) -> Result<LeaseRevokeResponse, Error> {
        let answer = self
            .call(Kind::Write, |channel| async move {
                Ok(LeaseClient::new(channel).lease_revoke(LeaseRevokeRequest { id }).await?.into_inner())
            })
            .await?;
        Ok(self.note(answer))
    }

    /// Lets a lease begin anew, once. The answer's TTL is 0 where it has ended. Whoever counts on the lease counts its time from
    /// the moment of this call, not from the answer's.
    ///
    /// # Errors
    /// See [`Error`]; never [`Error::Indefinite`]: doing it twice does no harm, so it is tried until the time is over.
    pub async fn lease_keep_alive_once(&self, id: i64) -> Result<LeaseKeepAliveResponse, Error> {
        let answer = self
            .call(Kind::Read, |channel| async move {
                let request = futures_util::stream::iter([LeaseKeepAliveRequest { id }]);
                let mut answers = LeaseClient::new(channel).lease_keep_alive(request).await?.into_inner();
                let answer = answers.message().await?;
                answer.ok_or_else(|| Status::unavailable("the stream ended without an answer"))
            })
            .await?;
        Ok(self.note(answer))
    }

    /// How long a lease will last, and with `keys` what hangs on it. The answer's TTL is -1 where there is no such lease.
    ///
    /// # Errors
    /// See [`Error`]; never [`Error::Indefinite`].
    pub async fn lease_time_to_live(&self, id: i64, keys: bool) -> Result<LeaseTimeToLiveResponse, Error> {
        self.ask_of_rights(|channel, freshness| async move {
            let request = LeaseTimeToLiveRequest { id, keys, freshness };
            // The names of all keys of a lease come in one message.
            let mut leases =
                LeaseClient::new(channel).max_decoding_message_size(self.nodes.options().response_bytes_max);
            Ok(leases.lease_time_to_live(request).await?.into_inner())
        })
        .await
    }

    /// The leases that are in force.
    ///
    /// # Errors
    /// See [`Error`]; never [`Error::Indefinite`].
    pub async fn leases(&self) -> Result<LeaseLeasesResponse, Error> {
        self.ask_of_rights(|channel, freshness| async move {
            let mut leases =
                LeaseClient::new(channel).max_decoding_message_size(self.nodes.options().response_bytes_max);
            Ok(leases.lease_leases(LeaseLeasesRequest { freshness }).await?.into_inner())
        })
        .await
    }
}
