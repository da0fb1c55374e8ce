//! How reads are made: where they go, how old their answers may be, and that they never go back in time.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use ringfence_proto::etcdserverpb::{self as etcd, RangeRequest, RangeResponse};
use ringfence_proto::{freshness, response, ringfence_v1 as v1, v3electionpb, v3lockpb};
use ringfence_types::{CausalToken, Freshness, Revision};
use tonic::Status;
use tonic::transport::Channel;

use crate::retry::{Kind, Way};
use crate::routing::ReadFrom;
use crate::{Client, Error};

/// The reason of a member whose cluster is not the token's.
const OTHER_CLUSTER: &str = "other_cluster";

/// How a client reads, where a request does not say itself how fresh its answer must be.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Reads {
    /// Which nodes are asked.
    pub from: ReadFrom,
    /// Whether a read need only see what this client has seen before, by reading or writing, or by the token that it was given
    /// ([`Client::with_causal_token`]). Any member can answer such a read alone. A client that has seen nothing takes whatever
    /// the member has. Otherwise a read sees every write that was acknowledged before it began.
    pub causal: bool,
    /// How old an answer may be at most. A member whose state is young enough answers alone.
    pub max_age: Option<Duration>,
}

/// What a client and its clones have seen.
#[derive(Debug, Default)]
pub(crate) struct Causality(Mutex<Seen>);

#[derive(Debug, Clone, Copy, Default)]
struct Seen {
    token: Option<CausalToken>,
    /// Whether a member of the token's cluster has answered this client.
    is_met: bool,
}

impl Causality {
    pub(crate) fn token(&self) -> Option<CausalToken> {
        self.0.lock().token
    }

    /// The position of an answer, or one that another client has seen.
    ///
    /// # Errors
    /// [`Error::OtherCluster`]; nothing is noted then.
    fn see(&self, seen: CausalToken, is_answer: bool) -> Result<(), Error> {
        let mut known = self.0.lock();
        match &mut known.token {
            Some(token) if token.cluster_id != seen.cluster_id => {
                return Err(Error::OtherCluster { token: *token, cluster_id: seen.cluster_id });
            }
            Some(token) => *token = token.join(seen),
            None => known.token = Some(seen),
        }
        known.is_met |= is_answer;
        Ok(())
    }
}

impl Client {
    /// The same client, reading in another way. It goes on sharing what it has seen.
    #[must_use]
    pub fn with_reads(&self, reads: Reads) -> Client {
        Client { reads, ..self.clone() }
    }

    /// How far this client and its clones have seen; none before the first answer.
    #[must_use]
    pub fn causal_token(&self) -> Option<CausalToken> {
        self.causality.token()
    }

    /// A client that has seen what the owner of `token` has, beside what this one has seen. It shares nothing with this one from
    /// then on. Whether the token is of this cluster is known with the first answer: a causal read fails then.
    ///
    /// # Errors
    /// [`Error::OtherCluster`] where this client knows already that the token is not of its cluster.
    pub fn with_causal_token(&self, token: CausalToken) -> Result<Client, Error> {
        let causality = Causality(Mutex::new(*self.causality.0.lock()));
        causality.see(token, false).map_err(|error| match error {
            Error::OtherCluster { token: own, .. } => {
                Error::OtherCluster { token, cluster_id: own.cluster_id }
            }
            error => error,
        })?;
        Ok(Client { causality: Arc::new(causality), ..self.clone() })
    }

    /// Takes note of the position of a write's answer. That of another cluster is nothing to this client: its next causal read
    /// will say so.
    pub(crate) fn note<T: Positioned>(&self, answer: T) -> T {
        let _ = self.note_read(answer.position());
        answer
    }

    fn note_read(&self, position: Option<CausalToken>) -> Result<(), Error> {
        let Some(seen) = position else { return Ok(()) };
        match self.causality.see(seen, true) {
            // Who does not care begins anew with a cluster that took the other's place.
            Err(_) if !self.reads.causal => {
                *self.causality.0.lock() = Seen { token: Some(seen), is_met: true };
                Ok(())
            }
            noted => noted,
        }
    }

    /// Takes note of the revision of a write whose answer is lost.
    pub(crate) fn note_revision(&self, revision: i64) {
        let mut known = self.causality.0.lock();
        if let Some(token) = &mut known.token {
            token.revision = token.revision.max(Revision(revision));
        }
    }

    /// Reads a range of keys as the request says, or else as this client reads.
    pub(crate) async fn read(&self, request: RangeRequest) -> Result<RangeResponse, Error> {
        self.meet().await?;
        let seen = self.causality.token().map_or(0, |token| token.revision.0);
        let wish = self.wish(&request);
        let answer = self.ask(&request, wish).await?;
        let revision = answer.header.map_or(0, |header| header.revision);
        if self.reads.causal && wish.is_some() && revision < seen {
            // Young enough, and yet older than what was seen before: the newest state is both.
            return self.ask(&request, Some(Freshness::Linearizable)).await;
        }
        Ok(answer)
    }

    /// How fresh this client wants the answer to a request; none where the request says it, or nothing needs to be said.
    pub(crate) fn wish(&self, request: &RangeRequest) -> Option<Freshness> {
        if request.serializable || request.freshness.is_some() {
            return None;
        }
        let seen = self.causality.token();
        match self.reads {
            // Whether there is such a revision, the leader knows.
            _ if request.revision > seen.map_or(0, |token| token.revision.0) => None,
            Reads { causal: false, max_age: None, .. } => None,
            // The past is the same however old the state is that it is read from.
            _ if request.revision > 0 => Some(Freshness::Revision(Revision(request.revision))),
            Reads { max_age: Some(max_age), .. } => Some(Freshness::MaxAge(max_age)),
            Reads { max_age: None, .. } => Some(seen.map_or(Freshness::Any, Freshness::Token)),
        }
    }

    /// How fresh this client wants what is told of leases, guards and locks. They are few and decide who may write, so that a limit on age
    /// is not for them.
    fn wish_of_rights(&self) -> Option<Freshness> {
        let seen = self.causality.token();
        self.reads.causal.then(|| seen.map_or(Freshness::Any, Freshness::Token))
    }

    /// The way of a read that wants its answer so fresh.
    pub(crate) fn way(&self, wish: Option<Freshness>) -> Way {
        // Who lacks a token's position says so as one that will have it.
        let wants_known_revision = matches!(wish, Some(Freshness::Revision(_)));
        Way { from: self.reads.from, wants_known_revision }
    }

    async fn ask(&self, request: &RangeRequest, wish: Option<Freshness>) -> Result<RangeResponse, Error> {
        let request = fresh(request.clone(), wish);
        let asking = self.call_by(self.way(wish), Kind::Read, |channel| {
            let request = request.clone();
            async move { Ok(self.kv(channel).range(request).await?.into_inner()) }
        });
        self.noted(asking.await).await
    }

    /// Asks about leases, guards or locks as this client reads: `attempt` makes the call at a node, with how fresh the answer must be.
    pub(crate) async fn ask_of_rights<T, A, F>(&self, attempt: A) -> Result<T, Error>
    where
        T: Positioned,
        A: Fn(Channel, Option<v1::Freshness>) -> F,
        F: Future<Output = Result<T, Status>>,
    {
        self.meet().await?;
        let wish = self.wish_of_rights();
        let way = if wish.is_some() { self.way(wish) } else { Way::default() };
        let asking = self.call_by(way, Kind::Read, |channel| attempt(channel, wish.map(freshness::to_field)));
        self.noted(asking.await).await
    }

    /// Takes note of where an answer to a read was given, or finds out whose token a member has refused.
    async fn noted<T: Positioned>(&self, answered: Result<T, Error>) -> Result<T, Error> {
        if let Err(Error::Refused { reason, .. }) = &answered
            && reason == OTHER_CLUSTER
        {
            // It has taken the place of the one that this client knew, and the answer to this says which it is.
            self.look_where().await?;
        }
        let answer = answered?;
        self.note_read(answer.position())?;
        Ok(answer)
    }

    /// Makes sure that the token that this client was given is of the cluster that it reads from.
    async fn meet(&self) -> Result<(), Error> {
        let Seen { token, is_met } = *self.causality.0.lock();
        if !self.reads.causal || token.is_none() || is_met {
            return Ok(());
        }
        self.look_where().await
    }

    /// Asks any member of which cluster it is: any answer tells.
    async fn look_where(&self) -> Result<(), Error> {
        let key = Bytes::from_static(&[0]);
        let question = RangeRequest { key, serializable: true, count_only: true, ..RangeRequest::default() };
        let asking = self.call_by(self.way(None), Kind::Read, |channel| {
            let question = question.clone();
            async move { Ok(self.kv(channel).range(question).await?.into_inner()) }
        });
        self.note_read(asking.await?.position())
    }
}

/// An answer that says where in the cluster's history it was given.
pub(crate) trait Positioned {
    /// None where the answer does not tell, as those of old servers about guards.
    fn position(&self) -> Option<CausalToken>;
}

macro_rules! positioned {
    ($($answer:ty),* $(,)?) => {
        $(impl Positioned for $answer {
            fn position(&self) -> Option<CausalToken> {
                self.header.as_ref().and_then(response::token_of)
            }
        })*
    };
}

macro_rules! positioned_by_token {
    ($($answer:ty),* $(,)?) => {
        $(impl Positioned for $answer {
            fn position(&self) -> Option<CausalToken> {
                self.position.as_ref().and_then(freshness::token_of)
            }
        })*
    };
}

positioned_by_token!(
    v1::ChangeGuardResponse,
    v1::ListGuardsResponse,
    v1::InspectResponse,
    v1::ResolveResponse
);

positioned!(
    etcd::RangeResponse,
    etcd::PutResponse,
    etcd::DeleteRangeResponse,
    etcd::TxnResponse,
    etcd::LeaseGrantResponse,
    etcd::LeaseRevokeResponse,
    etcd::LeaseKeepAliveResponse,
    etcd::LeaseTimeToLiveResponse,
    etcd::LeaseLeasesResponse,
    v3lockpb::LockResponse,
    v3lockpb::UnlockResponse,
    v3electionpb::CampaignResponse,
    v3electionpb::ProclaimResponse,
    v3electionpb::LeaderResponse,
    v3electionpb::ResignResponse,
);

/// The request that says how fresh its answer must be, where there is something to say.
pub(crate) fn fresh(request: RangeRequest, wish: Option<Freshness>) -> RangeRequest {
    match wish {
        Some(wish) => RangeRequest { freshness: Some(freshness::to_field(wish)), ..request },
        None => request,
    }
}
