//! What `lock run` asks of the cluster, each call with the time limit that the lock's deadline gives it.

use std::time::Duration;

use bytes::Bytes;
use ringfence_client::{Client, Error};
use ringfence_types::limits::LEASE_TTL_SECONDS_MAX;

use crate::cli::Shared;
use crate::exit::{Exit, Failure};

/// Longest wait for a lock: as good as for ever, and still a time that can be added to any other.
const WAIT_MAX: Duration = Duration::from_secs(10 * 365 * 24 * 3_600);

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
    client: Client,
}

impl Service {
    pub(super) fn connect(shared: &Shared) -> Result<Service, Failure> {
        Ok(Service { client: shared.client()? })
    }

    /// Grants a lease; returns its id and TTL, which may be longer than asked for.
    pub(super) async fn grant(&self, ttl: Duration) -> Result<(i64, Duration), Failure> {
        let seconds = i64::try_from(ttl.as_secs()).unwrap_or(i64::MAX);
        let answer = match self.client.lease_grant(seconds, 0).await {
            // A lease whose number nobody knows ends by itself: for the caller it is as if there were none.
            Err(Error::Indefinite { message }) => return Err(Failure::new(Exit::Unavailable, message)),
            answer => answer?,
        };
        let seconds = answer.ttl.unsigned_abs().min(LEASE_TTL_SECONDS_MAX);
        Ok((answer.id, Duration::from_secs(seconds)))
    }

    /// Waits for the lock.
    pub(super) async fn lock(&self, name: &str, lease: i64) -> Result<Held, Failure> {
        let answer = self.client.with_timeout(WAIT_MAX).lock(name.to_owned(), lease).await?;
        if answer.token != 0 {
            return Ok(Held { key: answer.key, token: answer.token });
        }
        // etcd does not tell the token; it is the key's create revision there too.
        match self.client.get(answer.key.clone()).await? {
            Some(found) => Ok(Held { key: answer.key, token: found.create_revision }),
            None => Err(Failure::new(Exit::Refused, "the lock's key was deleted as soon as it was taken")),
        }
    }

    /// Keeps the lease alive. Returns its TTL in seconds, counted from the moment of this call; 0 or less if it has ended.
    pub(super) async fn keep_alive(&self, lease: i64, limit: Duration) -> Result<i64, Error> {
        Ok(self.client.with_timeout(limit).lease_keep_alive_once(lease).await?.ttl)
    }

    /// Whether the lock is known to be another's: its key is gone, or was made anew.
    pub(super) async fn is_lost(&self, held: &Held, limit: Duration) -> Result<bool, Error> {
        let found = self.client.with_timeout(limit).get(held.key.clone()).await?;
        Ok(found.is_none_or(|found| found.create_revision != held.token))
    }

    /// Gives the lock and the lease back. Both end by themselves if nobody can be told, and may have ended already.
    pub(super) async fn give_back(&self, held: Option<&Held>, lease: i64, limit: Duration) {
        let client = self.client.with_timeout(limit);
        let giving = async {
            if let Some(Held { key, token }) = held.cloned() {
                let _ = client.unlock(key, token).await;
            }
            let _ = client.lease_revoke(lease).await;
        };
        let _ = tokio::time::timeout(limit, giving).await;
    }
}
