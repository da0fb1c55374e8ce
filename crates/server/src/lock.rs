//! The Lock service of etcd. Its answers also tell the fencing token: the create revision of the lock's key.

use ringfence_proto::request::ParseError;
use ringfence_proto::v3lockpb::{self as etcd, lock_server};
use ringfence_types::{Command, CompareTarget, DeleteRange, KeyRange, LeaseId, Revision, Txn};
use tonic::metadata::MetadataMap;
use tonic::{Request, Response, Status, async_trait};

use crate::candidacy::{self, Bid};
use crate::holders::Holders;
use crate::served::Served;
use crate::status::Trouble;
use crate::{deadline, gate, queue};

/// The service.
pub(crate) struct Lock {
    pub(crate) served: Served,
    pub(crate) holders: Holders,
}

#[async_trait]
impl lock_server::Lock for Lock {
    async fn lock(
        &self,
        request: Request<etcd::LockRequest>,
    ) -> Result<Response<etcd::LockResponse>, Status> {
        let (metadata, _, request) = request.into_parts();
        let bid = gate::size(&request).map(|()| Bid {
            name: request.name,
            lease: LeaseId(request.lease),
            value: bytes::Bytes::new(),
        });
        let won = match bid {
            Ok(bid) => candidacy::stand(&self.served, &self.holders, &metadata, bid).await,
            Err(trouble) => Err(trouble),
        };
        let won = won.map_err(|trouble| self.served.status(&trouble))?;
        let mut response = Response::new(etcd::LockResponse {
            header: Some(self.served.header(won.at)),
            key: won.key.clone(),
            token: won.token.0,
            lease: won.lease.0,
        });
        candidacy::tell(response.metadata_mut(), &won);
        Ok(response)
    }

    async fn unlock(
        &self,
        request: Request<etcd::UnlockRequest>,
    ) -> Result<Response<etcd::UnlockResponse>, Status> {
        let (metadata, _, request) = request.into_parts();
        self.served.answer(self.give_back(&metadata, request).await)
    }
}

impl Lock {
    /// Deletes the lock's key: with a token, only if it is the one that the token is of. As in etcd, giving back what is gone
    /// already goes well.
    async fn give_back(
        &self,
        metadata: &MetadataMap,
        request: etcd::UnlockRequest,
    ) -> Result<etcd::UnlockResponse, Trouble> {
        gate::unextended(metadata, &self.served.node)?;
        gate::size(&request)?;
        if request.key.is_empty() {
            return Err(ParseError::KeyNotProvided.into());
        }
        let command = if request.token == 0 {
            let range = KeyRange::single(request.key);
            Command::DeleteRange(DeleteRange { range, prev_kv: false })
        } else {
            let token = CompareTarget::Create(Revision(request.token));
            Command::Txn(Txn {
                compares: vec![queue::equal(request.key.clone(), token)],
                success: vec![queue::deletion(request.key)],
                failure: Vec::new(),
            })
        };
        let applied = self.served.node.propose(&command, deadline::of(metadata)).await??;
        Ok(etcd::UnlockResponse { header: Some(self.served.header(&applied)) })
    }
}
