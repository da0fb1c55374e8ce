//! Requests about leases, locks and what is written under them, as each kind of client makes them.

use bytes::Bytes;
use etcd_client::{Client as Etcd, Compare, CompareOp, LeaseGrantOptions, LockOptions, Txn, TxnOp};
use ringfence_client::{Client as Ringfence, Error};
use ringfence_proto::etcdserverpb::PutRequest;
use ringfence_proto::ringfence_v1 as v1;

use super::{Answer, Failure, Found};

/// Something about leases and locks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Right {
    /// Grants a lease of this number, which lasts for so many seconds.
    Grant(i64, i64),
    /// Lets a lease begin anew; the answer tells whether it was there.
    KeepAlive(i64),
    /// Looks whether a lease is there.
    Look(i64),
    /// Takes a lock, with a lease of its own that lasts for so many seconds. The answer has found the key that holds it, with the
    /// fencing token as the revision of its change.
    Acquire(String, i64),
    /// Gives a lock back whose key was created at this revision.
    Release(String, u64),
    /// From now on a key takes no write that does not show the token of a lock. Done twice it is as done once.
    Guard {
        /// The key.
        key: String,
        /// The lock.
        lock: String,
    },
    /// Puts a value under a lock: with its token, or as plain clients do, by comparing when the holder's key was created.
    PutUnder {
        /// The key.
        key: String,
        /// The value.
        value: String,
        /// The lock.
        lock: String,
        /// The key that holds it.
        holder: String,
        /// Its token.
        token: u64,
    },
}

impl Right {
    /// Whether it can change anything.
    #[must_use]
    pub fn changes(&self) -> bool {
        !matches!(self, Right::Look(_))
    }

    /// As arguments of the program, where it is one that a script would make again and again.
    pub(super) fn command_line(&self) -> Option<Vec<String>> {
        let Right::PutUnder { key, value, lock, token, .. } = self else { return None };
        Some(vec!["put".to_owned(), key.clone(), value.clone(), format!("--fence={lock}={token}")])
    }
}

fn told(held: bool, revision: u64) -> Answer {
    Answer { revision, held, got: Vec::new() }
}

fn revision(revision: i64) -> u64 {
    u64::try_from(revision).unwrap_or(0)
}

fn token_of(token: u64) -> i64 {
    i64::try_from(token).unwrap_or(i64::MAX)
}

fn held(key: &[u8], token: i64, at: i64) -> Result<Answer, Failure> {
    Ok(Answer { revision: revision(at), held: true, got: vec![vec![Found::new(key, b"", token)?]] })
}

/// By the project's own client.
pub(super) async fn by_ringfence(client: &Ringfence, right: &Right) -> Result<Answer, Failure> {
    let failed = |error: Error| Failure::of_ringfence_client(&error);
    match right {
        Right::Grant(lease, ttl) => {
            client.lease_grant(*ttl, *lease).await.map(|_| told(true, 0)).map_err(failed)
        }
        Right::KeepAlive(lease) => {
            let answer = client.lease_keep_alive_once(*lease).await.map_err(failed)?;
            Ok(told(answer.ttl > 0, 0))
        }
        Right::Look(lease) => {
            let answer = client.lease_time_to_live(*lease, false).await.map_err(failed)?;
            Ok(told(answer.ttl >= 0, 0))
        }
        Right::Acquire(name, ttl) => {
            let lease = client.lease_grant(*ttl, 0).await.map_err(failed)?.id;
            let answer = client.lock(name.clone(), lease).await.map_err(failed)?;
            held(&answer.key, answer.token, answer.header.map_or(0, |header| header.revision))
        }
        Right::Release(key, token) => {
            let answer = client.unlock(key.clone(), token_of(*token)).await.map_err(failed)?;
            Ok(told(true, answer.header.map_or(0, |header| revision(header.revision))))
        }
        Right::Guard { key, lock } => {
            let request = v1::ChangeGuardRequest {
                key: Bytes::from(key.clone()),
                scope: Some(scope(lock)),
                ..v1::ChangeGuardRequest::default()
            };
            match client.change_guard(request).await {
                Ok(_) => Ok(told(true, 0)),
                // To change one that is there needs a fence.
                Err(Error::Refused { reason, .. }) if reason == "guarded_range" => Ok(told(true, 0)),
                Err(error) => Err(failed(error)),
            }
        }
        Right::PutUnder { key, value, lock, token, .. } => {
            let put = PutRequest {
                key: Bytes::from(key.clone()),
                value: Bytes::from(value.clone()),
                fences: vec![v1::Fence { scope: Some(scope(lock)), token: token_of(*token) }],
                ..PutRequest::default()
            };
            let answer = client.put(put).await.map_err(failed)?;
            Ok(told(true, answer.header.map_or(0, |header| revision(header.revision))))
        }
    }
}

fn scope(lock: &str) -> v1::Scope {
    v1::Scope { kind: Some(v1::scope::Kind::Lock(Bytes::copy_from_slice(lock.as_bytes()))) }
}

/// By a client of etcd.
pub(super) async fn by_etcd(client: &mut Etcd, right: &Right) -> Result<Answer, Failure> {
    let failed = |error: etcd_client::Error| Failure::of_etcd_client(&error);
    match right {
        Right::Grant(lease, ttl) => {
            let options = LeaseGrantOptions::new().with_id(*lease);
            client.lease_grant(*ttl, Some(options)).await.map(|_| told(true, 0)).map_err(failed)
        }
        Right::KeepAlive(lease) => match client.lease_keep_alive(*lease).await {
            Ok(_) => Ok(told(true, 0)),
            Err(etcd_client::Error::LeaseKeepAliveError(words)) if words == "lease not found" => {
                Ok(told(false, 0))
            }
            Err(error) => Err(failed(error)),
        },
        Right::Look(lease) => {
            let answer = client.lease_time_to_live(*lease, None).await.map_err(failed)?;
            Ok(told(answer.ttl() >= 0, 0))
        }
        Right::Acquire(name, ttl) => {
            let lease = client.lease_grant(*ttl, None).await.map_err(failed)?.id();
            let options = LockOptions::new().with_lease(lease);
            let answer = client.lock(name.as_str(), Some(options)).await.map_err(failed)?;
            let found = client.get(answer.key(), None).await.map_err(failed)?;
            let kv = found.kvs().first().ok_or_else(|| Failure::definite("the lock was lost at once"))?;
            let at = answer.header().map_or(0, etcd_client::ResponseHeader::revision);
            held(kv.key(), kv.create_revision(), at)
        }
        Right::Release(key, _) => {
            let answer = client.unlock(key.as_str()).await.map_err(failed)?;
            Ok(told(true, answer.header().map_or(0, |header| revision(header.revision()))))
        }
        Right::Guard { .. } => Err(Failure::definite("a client of etcd knows no guards")),
        Right::PutUnder { key, value, holder, token, .. } => {
            let is_owner = Compare::create_revision(holder.as_str(), CompareOp::Equal, token_of(*token));
            let put = TxnOp::put(key.as_str(), value.as_str(), None);
            let answer = client.txn(Txn::new().when([is_owner]).and_then([put])).await.map_err(failed)?;
            if !answer.succeeded() {
                return Err(Failure::definite("not the owner"));
            }
            Ok(told(true, answer.header().map_or(0, |header| revision(header.revision()))))
        }
    }
}
