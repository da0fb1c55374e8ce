//! What `lock run` asks of the cluster, each call with the time limit that the lock's deadline gives it.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures_util::{StreamExt as _, stream};
use ringfence_client::{Options, endpoint_authority};
use ringfence_proto::etcdserverpb::kv_client::KvClient;
use ringfence_proto::etcdserverpb::lease_client::LeaseClient;
use ringfence_proto::etcdserverpb::{
    LeaseGrantRequest, LeaseKeepAliveRequest, LeaseRevokeRequest, RangeRequest,
};
use ringfence_proto::v3lockpb::lock_client::LockClient;
use ringfence_proto::v3lockpb::{LockRequest, UnlockRequest};
use ringfence_types::limits::LEASE_TTL_SECONDS_MAX;
use tokio::time::timeout;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Status};

use crate::exit::{Exit, Failure};

/// Between two attempts of a call that is made until it succeeds.
const PAUSE: Duration = Duration::from_millis(200);
/// While a lock is waited for, the connection is asked this often whether it lives. etcd takes more for an attack.
const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(6);

/// A lock that is held.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Held {
    /// The key that holds it while it exists.
    pub(super) key: Bytes,
    /// What fences present.
    pub(super) token: i64,
}

/// The cluster.
#[derive(Debug)]
pub(super) struct Service {
    nodes: Vec<Channel>,
    /// The node that the next call goes to: the one that answered last, or after it.
    next: AtomicUsize,
}

impl Service {
    pub(super) fn connect(endpoints: &[String]) -> Result<Service, Failure> {
        let channel = |endpoint: &String| -> Result<Channel, Failure> {
            let authority = endpoint_authority(endpoint)?;
            let endpoint = Endpoint::from_shared(format!("http://{authority}"))
                .map_err(|error| Failure::new(Exit::Usage, format!("{authority}: {error}")))?;
            Ok(endpoint
                .connect_timeout(Options::default().connect_timeout)
                .http2_keep_alive_interval(KEEP_ALIVE_INTERVAL)
                .connect_lazy())
        };
        Ok(Service {
            nodes: endpoints.iter().map(channel).collect::<Result<_, _>>()?,
            next: AtomicUsize::new(0),
        })
    }

    /// Grants a lease; returns its id and TTL, which may be longer than asked for. A grant whose answer is lost ends by itself.
    pub(super) async fn grant(&self, ttl: Duration, limit: Duration) -> Result<(i64, Duration), Failure> {
        let seconds = i64::try_from(ttl.as_secs()).unwrap_or(i64::MAX);
        let granting = self.until_answered(|channel| async move {
            let request = LeaseGrantRequest { ttl: seconds, id: 0 };
            Ok(LeaseClient::new(channel).lease_grant(request).await?.into_inner())
        });
        let answer = timeout(limit, granting).await.map_err(|_| {
            Failure::new(Exit::Unavailable, format!("no node granted a lease within {limit:?}"))
                .next("check --endpoints and `ringfence status`")
        })??;
        let seconds = answer.ttl.unsigned_abs().min(LEASE_TTL_SECONDS_MAX);
        Ok((answer.id, Duration::from_secs(seconds)))
    }

    /// Waits for the lock. It is the same call for the same lease however often it is made, so it is made until it is answered.
    pub(super) async fn lock(&self, name: &str, lease: i64) -> Result<Held, Failure> {
        let answer = self
            .until_answered(|channel| async move {
                let request = LockRequest { name: Bytes::copy_from_slice(name.as_bytes()), lease };
                Ok(LockClient::new(channel).lock(request).await?.into_inner())
            })
            .await?;
        if answer.token != 0 {
            return Ok(Held { key: answer.key, token: answer.token });
        }
        // etcd does not tell the token; it is the key's create revision there too.
        match self.until_answered(|channel| create_revision(channel, answer.key.clone())).await? {
            Some(token) => Ok(Held { key: answer.key, token }),
            None => Err(Failure::new(Exit::Refused, "the lock's key was deleted as soon as it was taken")),
        }
    }

    /// Keeps the lease alive: one attempt. Returns its TTL in seconds, 0 or less if it has ended.
    pub(super) async fn keep_alive(&self, lease: i64, limit: Duration) -> Result<i64, Status> {
        self.attempt(limit, |channel| async move {
            // The stream stays open until it is answered: its end would mean that nobody wants the answer.
            let requests = stream::iter([LeaseKeepAliveRequest { id: lease }]).chain(stream::pending());
            let mut answers = LeaseClient::new(channel).lease_keep_alive(requests).await?.into_inner();
            let answer = answers.message().await?;
            answer.map(|answer| answer.ttl).ok_or_else(|| Status::unavailable("no answer"))
        })
        .await
    }

    /// Whether the lock is known to be another's: its key is gone, or was made anew. One attempt.
    pub(super) async fn is_lost(&self, held: &Held, limit: Duration) -> Result<bool, Status> {
        let found = self.attempt(limit, |channel| create_revision(channel, held.key.clone())).await?;
        Ok(found != Some(held.token))
    }

    /// Gives the lock and the lease back. Both end by themselves if nobody can be told.
    pub(super) async fn give_back(&self, held: Option<&Held>, lease: i64, limit: Duration) {
        let giving = self.until_answered(|channel| async move {
            if let Some(Held { key, token }) = held.cloned() {
                let unlocked = LockClient::new(channel.clone()).unlock(UnlockRequest { key, token }).await;
                // Where the lock is another's by now, the lease is ours all the same.
                unlocked
                    .map(|_| ())
                    .or_else(|status| if is_refusal(&status) { Ok(()) } else { Err(status) })?;
            }
            LeaseClient::new(channel).lease_revoke(LeaseRevokeRequest { id: lease }).await
        });
        let _ = timeout(limit, giving).await;
    }

    /// Makes a call at one node after the other until one answers, or refuses as every node would.
    async fn until_answered<T, F>(&self, call: impl Fn(Channel) -> F) -> Result<T, Failure>
    where
        F: Future<Output = Result<T, Status>>,
    {
        loop {
            let node = self.next.load(Ordering::Relaxed);
            match call(self.nodes[node].clone()).await {
                Ok(answer) => return Ok(answer),
                Err(status) if is_refusal(&status) => {
                    return Err(Failure::new(Exit::Refused, format!("refused: {}", status.message())));
                }
                Err(_) => self.avoid(node),
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// Makes a call once.
    async fn attempt<T, F>(&self, limit: Duration, call: impl Fn(Channel) -> F) -> Result<T, Status>
    where
        F: Future<Output = Result<T, Status>>,
    {
        let node = self.next.load(Ordering::Relaxed);
        let answer = timeout(limit, call(self.nodes[node].clone())).await;
        let answer = answer.unwrap_or_else(|_| Err(Status::deadline_exceeded("no answer in time")));
        if answer.is_err() {
            self.avoid(node);
        }
        answer
    }

    fn avoid(&self, node: usize) {
        self.next.store((node + 1) % self.nodes.len(), Ordering::Relaxed);
    }
}

async fn create_revision(channel: Channel, key: Bytes) -> Result<Option<i64>, Status> {
    let request = RangeRequest { key, keys_only: true, ..RangeRequest::default() };
    let answer = KvClient::new(channel).range(request).await?.into_inner();
    Ok(answer.kvs.first().map(|found| found.create_revision))
}

/// Whether another attempt would be answered in the same way.
fn is_refusal(status: &Status) -> bool {
    matches!(
        status.code(),
        Code::InvalidArgument
            | Code::FailedPrecondition
            | Code::NotFound
            | Code::OutOfRange
            | Code::PermissionDenied
            | Code::Unauthenticated
            | Code::Unimplemented
    )
}
