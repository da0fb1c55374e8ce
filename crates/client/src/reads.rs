//! How reads are made: where they go, how old their answers may be, and that they never go back in time.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use ringfence_proto::etcdserverpb::{self as etcd, RangeRequest, RangeResponse, ResponseHeader};
use ringfence_proto::{freshness, v3electionpb, v3lockpb};
use ringfence_types::{Freshness, Revision};

use crate::retry::{Kind, Way};
use crate::routing::ReadFrom;
use crate::token::CausalToken;
use crate::{Client, Error};

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
            Some(token) => token.revision = token.revision.max(seen.revision),
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
        let _ = self.note_read(answer.header());
        answer
    }

    fn note_read(&self, header: Option<&ResponseHeader>) -> Result<(), Error> {
        let Some(seen) = header.and_then(CausalToken::of) else { return Ok(()) };
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
            token.revision = token.revision.max(revision);
        }
    }

    /// Reads a range of keys as the request says, or else as this client reads.
    pub(crate) async fn read(&self, request: RangeRequest) -> Result<RangeResponse, Error> {
        self.meet().await?;
        let seen = self.causality.token().map_or(0, |token| token.revision);
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
        let seen = self.causality.token().map_or(0, |token| token.revision);
        let at_least = |revision| Some(Freshness::Revision(Revision(revision)));
        match self.reads {
            // Whether there is such a revision, the leader knows.
            _ if request.revision > seen => None,
            Reads { causal: true, max_age: None, .. } if seen == 0 => Some(Freshness::Any),
            Reads { causal: true, max_age: None, .. } => at_least(seen),
            Reads { max_age: Some(max_age), .. } if request.revision <= 0 => Some(Freshness::MaxAge(max_age)),
            // The past is the same however old the state is that it is read from.
            Reads { max_age: Some(_), .. } => at_least(request.revision),
            Reads { max_age: None, .. } => None,
        }
    }

    /// The way of a read that wants its answer so fresh.
    pub(crate) fn way(&self, wish: Option<Freshness>) -> Way {
        let wants_known_revision = matches!(wish, Some(Freshness::Revision(_)));
        Way { from: self.reads.from, wants_known_revision }
    }

    async fn ask(&self, request: &RangeRequest, wish: Option<Freshness>) -> Result<RangeResponse, Error> {
        let request = fresh(request.clone(), wish);
        let answer = self
            .call_by(self.way(wish), Kind::Read, |channel| {
                let request = request.clone();
                async move { Ok(self.kv(channel).range(request).await?.into_inner()) }
            })
            .await?;
        self.note_read(answer.header.as_ref())?;
        Ok(answer)
    }

    /// Makes sure that the token that this client was given is of the cluster that it reads from: a member would wait in vain for
    /// the revisions of another one.
    async fn meet(&self) -> Result<(), Error> {
        let Seen { token, is_met } = *self.causality.0.lock();
        if !self.reads.causal || token.is_none() || is_met {
            return Ok(());
        }
        // Any answer of any member tells.
        let key = Bytes::from_static(&[0]);
        let question = RangeRequest { key, serializable: true, count_only: true, ..RangeRequest::default() };
        self.ask(&question, None).await.map(drop)
    }
}

/// An answer that says where in the cluster's history it was given.
pub(crate) trait Positioned {
    fn header(&self) -> Option<&ResponseHeader>;
}

macro_rules! positioned {
    ($($answer:ty),* $(,)?) => {
        $(impl Positioned for $answer {
            fn header(&self) -> Option<&ResponseHeader> {
                self.header.as_ref()
            }
        })*
    };
}

positioned!(
    etcd::PutResponse,
    etcd::DeleteRangeResponse,
    etcd::TxnResponse,
    etcd::LeaseGrantResponse,
    etcd::LeaseRevokeResponse,
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
