//! The calls: etcd's requests and answers, each run by the retry loop. Fields that this file does not name are the
//! caller's to set in the request.

use bytes::Bytes;
use ringfence_proto::etcdserverpb::cluster_client::ClusterClient;
use ringfence_proto::etcdserverpb::kv_client::KvClient;
use ringfence_proto::etcdserverpb::maintenance_client::MaintenanceClient;
use ringfence_proto::etcdserverpb::{
    CompactionRequest, CompactionResponse, DeleteRangeRequest, DeleteRangeResponse, HashKvRequest,
    HashKvResponse, MemberAddRequest, MemberAddResponse, MemberListRequest, MemberListResponse,
    MemberPromoteRequest, MemberPromoteResponse, MemberRemoveRequest, MemberRemoveResponse,
    MemberUpdateRequest, MemberUpdateResponse, MoveLeaderRequest, MoveLeaderResponse, PutRequest,
    PutResponse, RangeRequest, RangeResponse, SnapshotRequest, SnapshotResponse, StatusRequest,
    StatusResponse, TxnRequest, TxnResponse,
};
use ringfence_proto::mvccpb::KeyValue;
use ringfence_proto::ringfence_v1::integrity_client::IntegrityClient;
use ringfence_proto::ringfence_v1::load_client::LoadClient;
use ringfence_proto::ringfence_v1::{HotPrefix, HottestRequest, ScrubRequest, ScrubResponse};
use ringfence_types::KeyRange;
use tokio::time::timeout;
use tonic::Streaming;
use tonic::transport::Channel;

use crate::checked;
use crate::retry::Kind;
use crate::scan::Scan;
use crate::verdict::{Applied, Verdict};
use crate::{Client, Error};

impl Client {
    /// Stores a value under a key, as `request` says.
    ///
    /// # Errors
    /// See [`Error`]; [`Error::Unchecked`] where `request` carries fences or a session and the server knows none;
    /// [`Error::Indefinite`] where the put may have been applied.
    pub async fn put(&self, request: PutRequest) -> Result<PutResponse, Error> {
        let answer = self
            .call(Kind::Write, |channel| {
                let request = request.clone();
                async move { Ok(self.kv(channel).put(request).await?.into_inner()) }
            })
            .await?;
        let answer = self.note(answer);
        checked::verify(&request.fences, request.session.is_some(), request.ack.is_some(), answer)
    }

    /// Stores a value under a key.
    ///
    /// # Errors
    /// As [`Client::put`].
    pub async fn put_value(
        &self,
        key: impl Into<Bytes>,
        value: impl Into<Bytes>,
    ) -> Result<PutResponse, Error> {
        self.put(PutRequest { key: key.into(), value: value.into(), ..PutRequest::default() }).await
    }

    /// Reads a range of keys, as fresh as the request says, or else as [`Reads`](crate::Reads) does. All of the answer is held in
    /// memory; [`Client::scan`] reads piece by piece.
    ///
    /// # Errors
    /// See [`Error`]; never [`Error::Indefinite`].
    pub async fn range(&self, request: RangeRequest) -> Result<RangeResponse, Error> {
        self.read(request).await
    }

    /// Reads one key; `None` where it does not exist.
    ///
    /// # Errors
    /// As [`Client::range`].
    pub async fn get(&self, key: impl Into<Bytes>) -> Result<Option<KeyValue>, Error> {
        let answer = self.range(RangeRequest { key: key.into(), ..RangeRequest::default() }).await?;
        Ok(answer.kvs.into_iter().next())
    }

    /// Reads a range of keys piece by piece in the order of the keys, all at one revision: the one that `request` names,
    /// else the newest. Sorting and the filters by revision are not for scans.
    #[must_use]
    pub fn scan(&self, request: RangeRequest) -> Scan {
        Scan::new(self.clone(), request)
    }

    /// Deletes the keys of a range.
    ///
    /// # Errors
    /// As [`Client::put`].
    pub async fn delete_range(&self, request: DeleteRangeRequest) -> Result<DeleteRangeResponse, Error> {
        let answer = self
            .call(Kind::Write, |channel| {
                let request = request.clone();
                async move { Ok(self.kv(channel).delete_range(request).await?.into_inner()) }
            })
            .await?;
        let answer = self.note(answer);
        checked::verify(&request.fences, request.session.is_some(), request.ack.is_some(), answer)
    }

    /// Deletes the keys of a range.
    ///
    /// # Errors
    /// As [`Client::delete_range`].
    pub async fn delete(&self, range: KeyRange) -> Result<DeleteRangeResponse, Error> {
        self.delete_range(deletion(range)).await
    }

    /// Compares, then does one of two lists of operations.
    ///
    /// # Errors
    /// As [`Client::put`]. One that only reads is retried as
    /// a read is.
    pub async fn txn(&self, request: TxnRequest) -> Result<TxnResponse, Error> {
        let kind = if is_read_only(&request) { Kind::Read } else { Kind::Write };
        let answer = self
            .call(kind, |channel| {
                let request = request.clone();
                async move { Ok(self.kv(channel).txn(request).await?.into_inner()) }
            })
            .await?;
        let answer = self.note(answer);
        checked::verify(&request.fences, request.session.is_some(), request.ack.is_some(), answer)
    }

    /// Forgets the history below a revision. Doing it twice is harmless but refused the second time, so it is not retried
    /// when its outcome is unknown.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn compact(&self, request: CompactionRequest) -> Result<CompactionResponse, Error> {
        self.call(
            Kind::Write,
            |channel| async move { Ok(self.kv(channel).compact(request).await?.into_inner()) },
        )
        .await
    }

    /// The members of the cluster: as a majority knows them (`linearizable`), or as any one member does.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn member_list(&self, linearizable: bool) -> Result<MemberListResponse, Error> {
        self.call(Kind::Read, |channel| async move {
            let request = MemberListRequest { linearizable };
            Ok(self.cluster(channel).member_list(request).await?.into_inner())
        })
        .await
    }

    /// Adds a member that will start later, known by its peers' addresses. With `replaces` set, a server that does not know
    /// replacements would add it beside the other; the answer's member says whether it was understood.
    ///
    /// # Errors
    /// See [`Error`]; [`Error::Indefinite`] where the member may have been added.
    pub async fn member_add(&self, request: MemberAddRequest) -> Result<MemberAddResponse, Error> {
        self.call(Kind::Write, |channel| {
            let request = request.clone();
            async move { Ok(self.cluster(channel).member_add(request).await?.into_inner()) }
        })
        .await
    }

    /// Removes a member; returns when it votes no more.
    ///
    /// # Errors
    /// See [`Error`]; [`Error::Indefinite`] where the member may have been removed, or is being.
    pub async fn member_remove(&self, id: u64) -> Result<MemberRemoveResponse, Error> {
        self.call(Kind::Write, |channel| async move {
            Ok(self.cluster(channel).member_remove(MemberRemoveRequest { id }).await?.into_inner())
        })
        .await
    }

    /// Makes a voter of a learner that is close to the leader; returns when it votes.
    ///
    /// # Errors
    /// See [`Error`]; [`Error::Indefinite`] where it may vote already, or soon.
    pub async fn member_promote(&self, id: u64) -> Result<MemberPromoteResponse, Error> {
        self.call(Kind::Write, |channel| async move {
            Ok(self.cluster(channel).member_promote(MemberPromoteRequest { id }).await?.into_inner())
        })
        .await
    }

    /// Has a member reached at other addresses by its peers from now on.
    ///
    /// # Errors
    /// See [`Error`]; [`Error::Indefinite`] where the addresses may have been changed.
    pub async fn member_update(
        &self,
        id: u64,
        peer_urls: Vec<String>,
    ) -> Result<MemberUpdateResponse, Error> {
        self.call(Kind::Write, |channel| {
            let request = MemberUpdateRequest { id, peer_ur_ls: peer_urls.clone() };
            async move { Ok(self.cluster(channel).member_update(request).await?.into_inner()) }
        })
        .await
    }

    /// What one node tells about itself. One attempt, since it is about this node and no other.
    ///
    /// # Errors
    /// [`Error::Unavailable`] where the node does not answer; [`Error::Refused`] where it refuses.
    pub async fn status(&self, endpoint: &str) -> Result<StatusResponse, Error> {
        self.ask_one(endpoint, |channel| async move {
            Ok(self.maintenance(channel).status(StatusRequest {}).await?.into_inner())
        })
        .await
    }

    /// The prefixes of keys that the clients of one node ask for most, the hottest first, `limit` at most: reads and writes since
    /// it has started, estimated from one call in so many. One attempt, as [`Client::status`].
    ///
    /// # Errors
    /// As [`Client::status`]; `UNIMPLEMENTED` from a server that cannot tell, such as etcd.
    pub async fn hottest(&self, endpoint: &str, limit: u32) -> Result<Vec<HotPrefix>, Error> {
        self.ask_one(endpoint, |channel| async move {
            let request = HottestRequest { limit };
            Ok(LoadClient::new(channel).hottest(request).await?.into_inner().prefixes)
        })
        .await
    }

    /// The hash of one node's keys up to a revision, 0 for the newest. One attempt, as [`Client::status`].
    ///
    /// # Errors
    /// As [`Client::status`].
    pub async fn hash_kv(&self, endpoint: &str, revision: i64) -> Result<HashKvResponse, Error> {
        self.ask_one(endpoint, |channel| async move {
            Ok(self.maintenance(channel).hash_kv(HashKvRequest { revision }).await?.into_inner())
        })
        .await
    }

    /// Has one node compare its whole state with what was applied. The answers tell how far it is, the last one its verdict;
    /// a stream that is dropped ends the scrub. One attempt, as [`Client::status`].
    ///
    /// # Errors
    /// As [`Client::status`]; what ends the stream later is a [`tonic::Status`].
    pub async fn scrub(&self, endpoint: &str) -> Result<Streaming<ScrubResponse>, Error> {
        self.ask_one(endpoint, |channel| async move {
            Ok(IntegrityClient::new(channel).scrub(ScrubRequest {}).await?.into_inner())
        })
        .await
    }

    /// Hands the leadership to another member; goes to the leader, wherever that is.
    ///
    /// # Errors
    /// See [`Error`]; [`Error::Indefinite`] where the leadership may have changed hands.
    pub async fn move_leader(&self, target_id: u64) -> Result<MoveLeaderResponse, Error> {
        self.find_leader().await;
        self.call(Kind::Write, |channel| async move {
            let request = MoveLeaderRequest { target_id };
            Ok(self.maintenance(channel).move_leader(request).await?.into_inner())
        })
        .await
    }

    /// A snapshot of the whole state, as the preferred node streams it: the file, then the SHA-256 of it. A stream that
    /// breaks cannot be resumed; the caller begins again.
    ///
    /// # Errors
    /// See [`Error`]; what ends the stream later is a [`tonic::Status`].
    pub async fn snapshot(&self) -> Result<Streaming<SnapshotResponse>, Error> {
        self.call(Kind::Read, |channel| async move {
            Ok(self.maintenance(channel).snapshot(SnapshotRequest {}).await?.into_inner())
        })
        .await
    }

    /// Looks for the leader and makes the next calls go there first. Returns its endpoint, or `None` where no reachable
    /// node leads; then nothing changes. Calls work without this: members forward writes to the leader.
    pub async fn find_leader(&self) -> Option<String> {
        for endpoint in self.endpoints() {
            let Ok(status) = self.status(&endpoint).await else { continue };
            let member = status.header.map_or(0, |header| header.member_id);
            if status.leader != 0 && status.leader == member {
                self.nodes.prefer(self.nodes.at(&endpoint).ok()?.index);
                return Some(endpoint);
            }
        }
        None
    }

    /// One attempt of a read at one node.
    async fn ask_one<T, A, F>(&self, endpoint: &str, attempt: A) -> Result<T, Error>
    where
        A: FnOnce(Channel) -> F,
        F: Future<Output = Result<T, tonic::Status>>,
    {
        let target = self.nodes.at(endpoint)?;
        let started = tokio::time::Instant::now();
        let unavailable =
            |message: String| Error::Unavailable { message, attempts: 1, elapsed: started.elapsed() };
        match timeout(self.timeout, attempt(target.channel)).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(status)) => {
                let Verdict { applied, next, code, reason, message, .. } = Verdict::of(&status);
                match (applied, next) {
                    (Applied::No, crate::verdict::Next::GiveUp) => {
                        Err(Error::Refused { code, reason, message })
                    }
                    _ => Err(unavailable(format!("{endpoint}: {message}"))),
                }
            }
            Err(_elapsed) => Err(unavailable(format!("{endpoint}: no answer within {:?}", self.timeout))),
        }
    }

    pub(crate) fn kv(&self, channel: Channel) -> KvClient<Channel> {
        KvClient::new(channel).max_decoding_message_size(self.nodes.options().response_bytes_max)
    }

    fn cluster(&self, channel: Channel) -> ClusterClient<Channel> {
        ClusterClient::new(channel)
    }

    fn maintenance(&self, channel: Channel) -> MaintenanceClient<Channel> {
        MaintenanceClient::new(channel)
    }
}

/// The request to delete the keys of a range.
pub(crate) fn deletion(range: KeyRange) -> DeleteRangeRequest {
    let range_end = range.etcd_range_end();
    // etcd knows no empty key: the range of all keys starts at the smallest one.
    let key = if range.start.is_empty() { Bytes::from_static(&[0]) } else { range.start };
    DeleteRangeRequest { key, range_end, ..DeleteRangeRequest::default() }
}

/// Whether a transaction can change nothing. One nested in another counts as a write, as on the server.
pub(crate) fn is_read_only(request: &TxnRequest) -> bool {
    use ringfence_proto::etcdserverpb::request_op::Request;
    request.success.iter().chain(&request.failure).all(|operation| match &operation.request {
        Some(Request::RequestRange(_)) | None => true,
        Some(Request::RequestPut(_) | Request::RequestDeleteRange(_) | Request::RequestTxn(_)) => false,
    })
}
