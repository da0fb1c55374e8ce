//! The Election service of etcd: a lock whose key says something, and whose holder is told to whoever asks.

use std::pin::Pin;

use futures_util::{Stream, stream};
use ringfence_proto::request::ParseError;
use ringfence_proto::v3electionpb::{self as etcd, election_server};
use ringfence_proto::{etcdserverpb, response};
use ringfence_types::{
    Command, CompareTarget, KeyValue, LeaseId, Operation, Put, PutLease, PutValue, Reply, Revision, Txn,
};
use tokio::sync::OwnedSemaphorePermit;
use tonic::metadata::MetadataMap;
use tonic::{Request, Response, Status, async_trait};

use crate::candidacy::{self, Bid};
use crate::holders::{Holders, Place};
use crate::served::{At, Served};
use crate::status::{LockTrouble, Trouble};
use crate::{deadline, gate, queue};

/// The service.
pub(crate) struct Election {
    pub(crate) served: Served,
    pub(crate) holders: Holders,
}

#[async_trait]
impl election_server::Election for Election {
    async fn campaign(
        &self,
        request: Request<etcd::CampaignRequest>,
    ) -> Result<Response<etcd::CampaignResponse>, Status> {
        let (metadata, _, request) = request.into_parts();
        gate::size(&request).map_err(|trouble| self.served.status(&trouble))?;
        let name = request.name.clone();
        let bid = Bid { name: request.name, lease: LeaseId(request.lease), value: request.value };
        let won = candidacy::stand(&self.served, &self.holders, &metadata, bid).await;
        let won = won.map_err(|trouble| self.served.status(&trouble))?;
        let (key, rev, lease) = (won.key.clone(), won.token.0, won.lease.0);
        let mut response = Response::new(etcd::CampaignResponse {
            header: Some(self.served.header(won.at)),
            leader: Some(etcd::LeaderKey { name, key, rev, lease }),
            token: won.token.0,
            lease: won.lease.0,
        });
        candidacy::tell(response.metadata_mut(), &won);
        Ok(response)
    }

    async fn proclaim(
        &self,
        request: Request<etcd::ProclaimRequest>,
    ) -> Result<Response<etcd::ProclaimResponse>, Status> {
        let (metadata, _, request) = request.into_parts();
        let said = match gate::size(&request) {
            Ok(()) => self.proclaim_as(&metadata, request).await,
            Err(trouble) => Err(trouble),
        };
        self.served.answer(said.map(|header| etcd::ProclaimResponse { header: Some(header) }))
    }

    async fn leader(
        &self,
        request: Request<etcd::LeaderRequest>,
    ) -> Result<Response<etcd::LeaderResponse>, Status> {
        let (metadata, _, request) = request.into_parts();
        self.served.answer(self.find_leader(&metadata, &request).await.and_then(|(at, leader)| {
            let leader = leader.ok_or(LockTrouble::NoLeader)?;
            Ok(told(&self.served, at, leader))
        }))
    }

    type ObserveStream = Pin<Box<dyn Stream<Item = Result<etcd::LeaderResponse, Status>> + Send>>;

    async fn observe(
        &self,
        request: Request<etcd::LeaderRequest>,
    ) -> Result<Response<Self::ObserveStream>, Status> {
        let (metadata, _, request) = request.into_parts();
        self.served.answer(self.begin_observing(&metadata, request).await.map(|observation| {
            let leaders = stream::unfold(Some(observation), |observation| async move {
                let mut observation = observation?;
                match observation.next().await {
                    Ok(leader) => Some((Ok(leader), Some(observation))),
                    Err(trouble) => Some((Err(observation.served.status(&trouble)), None)),
                }
            });
            Box::pin(leaders) as Self::ObserveStream
        }))
    }

    async fn resign(
        &self,
        request: Request<etcd::ResignRequest>,
    ) -> Result<Response<etcd::ResignResponse>, Status> {
        let (metadata, _, request) = request.into_parts();
        let leader = gate::unextended(&metadata, &self.served.node).and_then(|()| own(request.leader));
        let resigned = match leader {
            // As in etcd, whoever does not lead any more has resigned already.
            Ok(own) => self
                .as_leader(&metadata, own.clone(), queue::deletion(own.key))
                .await
                .map(|(_, header)| header),
            Err(trouble) => Err(trouble),
        };
        self.served.answer(resigned.map(|header| etcd::ResignResponse { header: Some(header) }))
    }
}

/// The leader's key that a call names.
fn own(leader: Option<etcd::LeaderKey>) -> Result<etcd::LeaderKey, Trouble> {
    let leader = leader.ok_or(LockTrouble::LeaderMissing)?;
    if leader.key.is_empty() { Err(ParseError::KeyNotProvided.into()) } else { Ok(leader) }
}

impl Election {
    async fn proclaim_as(
        &self,
        metadata: &MetadataMap,
        request: etcd::ProclaimRequest,
    ) -> Result<etcdserverpb::ResponseHeader, Trouble> {
        gate::unextended(metadata, &self.served.node)?;
        let own = own(request.leader)?;
        if own.rev <= 0 {
            // No key was ever created then; to compare with 0 is to ask whether there is none.
            return Err(LockTrouble::NotLeader.into());
        }
        let put = Operation::Put(Put {
            key: own.key.clone(),
            value: PutValue::Set(request.value),
            lease: PutLease::Keep,
            prev_kv: false,
        });
        match self.as_leader(metadata, own, put).await? {
            (true, header) => Ok(header),
            (false, _) => Err(LockTrouble::NotLeader.into()),
        }
    }

    /// Does something if the leader's key is still the one that it was elected with, and tells whether it is.
    async fn as_leader(
        &self,
        metadata: &MetadataMap,
        leader: etcd::LeaderKey,
        operation: Operation,
    ) -> Result<(bool, etcdserverpb::ResponseHeader), Trouble> {
        let txn = Txn {
            compares: vec![queue::equal(leader.key, CompareTarget::Create(Revision(leader.rev)))],
            success: vec![operation],
            failure: Vec::new(),
        };
        let applied = self.served.node.propose(&Command::Txn(txn), deadline::of(metadata)).await??;
        match &applied.reply {
            Reply::Txn(reply) => Ok((reply.succeeded, self.served.header(&applied))),
            reply => panic!("the reply to a transaction is of the command's kind, and this one is {reply:?}"),
        }
    }

    async fn find_leader(
        &self,
        metadata: &MetadataMap,
        request: &etcd::LeaderRequest,
    ) -> Result<(At, Option<KeyValue>), Trouble> {
        drop(self.served.fresh_view(metadata, request.freshness).await?);
        read_leader(&self.served, &request.name).await
    }

    async fn begin_observing(
        &self,
        metadata: &MetadataMap,
        request: etcd::LeaderRequest,
    ) -> Result<Observation, Trouble> {
        let permit = self.holders.admit()?;
        let place = self.holders.observe(request.name.clone());
        let (at, leader) = self.find_leader(metadata, &request).await?;
        let first = leader.map(|leader| (at, leader));
        let (served, name) = (self.served.clone(), request.name);
        Ok(Observation { served, name, place, first, newest: Default::default(), _permit: permit })
    }
}

/// Whoever stands first in the newest local state, and when that was.
async fn read_leader(served: &Served, name: &bytes::Bytes) -> Result<(At, Option<KeyValue>), Trouble> {
    let name = name.clone();
    let read = served.read_long(move |view| {
        let leader = match queue::oldest(view, &name)? {
            Some(oldest) => queue::get(view, &oldest.key)?,
            None => None,
        };
        Ok((At::from(view), leader))
    });
    read.await
}

fn told(served: &Served, at: At, leader: KeyValue) -> etcd::LeaderResponse {
    let kv = response::key_values(vec![leader]).pop();
    etcd::LeaderResponse { header: Some(served.header(at)), kv }
}

/// An election that is observed. It tells the newest leader and what it says, not each one in between, and never an older
/// one after a newer one.
struct Observation {
    served: Served,
    name: bytes::Bytes,
    place: Place,
    /// The leader when the observation began.
    first: Option<(At, KeyValue)>,
    /// What was told last: when the leader's key was created, and when it was last changed. Leaders follow each other in the
    /// order in which their keys were created.
    newest: (Revision, Revision),
    _permit: OwnedSemaphorePermit,
}

impl Observation {
    async fn next(&mut self) -> Result<etcd::LeaderResponse, Trouble> {
        let mut found = self.first.take();
        loop {
            if let Some((at, leader)) = found {
                let said = (leader.create_revision, leader.mod_revision);
                if said > self.newest {
                    self.newest = said;
                    return Ok(told(&self.served, at, leader));
                }
            }
            tokio::select! {
                () = self.place.called() => {}
                () = self.served.shutdown.cancelled() => return Err(LockTrouble::Stopping.into()),
            }
            let (at, leader) = read_leader(&self.served, &self.name).await?;
            found = leader.map(|leader| (at, leader));
        }
    }
}
