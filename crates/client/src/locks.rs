//! Locks and elections. A session stands in each queue at most once, so that asking again with its lease comes to the same
//! as asking once: such calls are retried, and keep their place in the queue.

use bytes::Bytes;
use ringfence_proto::v3electionpb::election_client::ElectionClient;
use ringfence_proto::v3electionpb::{
    CampaignRequest, CampaignResponse, LeaderKey, LeaderRequest, LeaderResponse, ProclaimRequest,
    ProclaimResponse, ResignRequest, ResignResponse,
};
use ringfence_proto::v3lockpb::lock_client::LockClient;
use ringfence_proto::v3lockpb::{LockRequest, LockResponse, UnlockRequest, UnlockResponse};
use tonic::Streaming;

use crate::retry::Kind;
use crate::{Client, Error};

/// Whether asking twice is the same as asking once: a call that brings no lease gets another one each time.
fn kind_of_bid(lease: i64) -> Kind {
    if lease == 0 { Kind::Write } else { Kind::Repeatable }
}

impl Client {
    /// Waits until the session of `lease` holds a lock; with lease 0, one is granted for 60 s. The answer's `token` is what
    /// fences carry. The client's time limit bounds the wait, so give it as much as the wait may take
    /// ([`Client::with_timeout`]); the lease must be kept alive meanwhile.
    ///
    /// # Errors
    /// [`Error::Refused`] where the lease has ended, also while it waited; [`Error::Indefinite`] where the time is over: the
    /// session may hold the lock, or come to, until its lease ends.
    pub async fn lock(&self, name: impl Into<Bytes>, lease: i64) -> Result<LockResponse, Error> {
        let request = LockRequest { name: name.into(), lease };
        let answer = self
            .call(kind_of_bid(lease), |channel| {
                let request = request.clone();
                async move { Ok(LockClient::new(channel).lock(request).await?.into_inner()) }
            })
            .await?;
        Ok(self.note(answer))
    }

    /// Gives a lock back: deletes its key if it is the one of `token`. What has gone already is given back.
    ///
    /// # Errors
    /// See [`Error`]; [`Error::Indefinite`] where the key may have been deleted. With token 0 whatever has the key is given back,
    /// and no attempt is made again whose outcome is unknown.
    pub async fn unlock(&self, key: impl Into<Bytes>, token: i64) -> Result<UnlockResponse, Error> {
        let request = UnlockRequest { key: key.into(), token };
        let kind = if token == 0 { Kind::Write } else { Kind::Repeatable };
        let answer = self
            .call(kind, |channel| {
                let request = request.clone();
                async move { Ok(LockClient::new(channel).unlock(request).await?.into_inner()) }
            })
            .await?;
        Ok(self.note(answer))
    }

    /// Waits until the session of `lease` leads an election, and says `value` then and while it waits. As [`Client::lock`].
    ///
    /// # Errors
    /// As [`Client::lock`].
    pub async fn campaign(
        &self,
        name: impl Into<Bytes>,
        lease: i64,
        value: impl Into<Bytes>,
    ) -> Result<CampaignResponse, Error> {
        let request = CampaignRequest { name: name.into(), lease, value: value.into() };
        let answer = self
            .call(kind_of_bid(lease), |channel| {
                let request = request.clone();
                async move { Ok(ElectionClient::new(channel).campaign(request).await?.into_inner()) }
            })
            .await?;
        Ok(self.note(answer))
    }

    /// Says another value as a leader.
    ///
    /// # Errors
    /// [`Error::Refused`] where `leader` does not stand in the election any more; [`Error::Indefinite`] where the value may have
    /// been said.
    pub async fn proclaim(
        &self,
        leader: LeaderKey,
        value: impl Into<Bytes>,
    ) -> Result<ProclaimResponse, Error> {
        let request = ProclaimRequest { leader: Some(leader), value: value.into() };
        let answer = self
            .call(Kind::Write, |channel| {
                let request = request.clone();
                async move { Ok(ElectionClient::new(channel).proclaim(request).await?.into_inner()) }
            })
            .await?;
        Ok(self.note(answer))
    }

    /// Who leads an election, and what it says.
    ///
    /// # Errors
    /// [`Error::Refused`] where nobody does; never [`Error::Indefinite`].
    pub async fn leader(&self, name: impl Into<Bytes>) -> Result<LeaderResponse, Error> {
        let name = name.into();
        self.ask_of_rights(|channel, freshness| {
            let request = LeaderRequest { name: name.clone(), freshness };
            async move { Ok(ElectionClient::new(channel).leader(request).await?.into_inner()) }
        })
        .await
    }

    /// Tells who leads an election, then each change: not every one, but always the newest, and never an older one after a
    /// newer one. A stream that breaks is begun anew by the caller.
    ///
    /// # Errors
    /// See [`Error`]; what ends the stream later is a [`tonic::Status`].
    pub async fn observe(&self, name: impl Into<Bytes>) -> Result<Streaming<LeaderResponse>, Error> {
        let request = LeaderRequest { name: name.into(), freshness: None };
        self.call(Kind::Read, |channel| {
            let request = request.clone();
            async move { Ok(ElectionClient::new(channel).observe(request).await?.into_inner()) }
        })
        .await
    }

    /// Gives the leadership of an election up, or the place in its queue. What has gone already is given up.
    ///
    /// # Errors
    /// See [`Error`]; [`Error::Indefinite`] where it may have been given up.
    pub async fn resign(&self, leader: LeaderKey) -> Result<ResignResponse, Error> {
        let request = ResignRequest { leader: Some(leader) };
        let answer = self
            .call(Kind::Repeatable, |channel| {
                let request = request.clone();
                async move { Ok(ElectionClient::new(channel).resign(request).await?.into_inner()) }
            })
            .await?;
        Ok(self.note(answer))
    }
}
