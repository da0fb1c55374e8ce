//! Sessions: writes that happen once, however often they are sent.
//!
//! A session is one grant of a lease. The store keeps the answer to each of its writes, and a copy of a write gets that answer and
//! changes nothing. So a write of a session is sent again, to whichever node, until somebody answers. Where nobody has in
//! time, the store is asked what became of it ([`Client::resolve`]), which closes the write if it has not happened.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use bytes::Bytes;
use ringfence_proto::etcdserverpb::kv_client::KvClient;
use ringfence_proto::etcdserverpb::lease_client::LeaseClient;
use ringfence_proto::etcdserverpb::{
    DeleteRangeRequest, DeleteRangeResponse, LeaseGrantRequest, LeaseRevokeRequest, PutRequest, PutResponse,
    TxnRequest, TxnResponse,
};
use ringfence_proto::extension::{Checks, Extended};
use ringfence_proto::ringfence_v1::resolve_response::Kind as Resolution;
use ringfence_proto::ringfence_v1::{self as v1, ResolveRequest, SessionStamp};
use ringfence_types::KeyRange;
use tokio::sync::watch;
use tokio::task::AbortHandle;
use tokio::time::{Instant, sleep_until, timeout_at};
use tonic::transport::Channel;
use tonic::{Code, Response, Status};

use crate::calls::{deletion, is_read_only};
use crate::reads::Positioned;
use crate::retry::Kind;
use crate::sequences::{Open, SPAN_MAX, Sequences};
use crate::{Client, Error, checked};

/// A session's lease is kept alive three times in its time: two answers may be lost.
const KEEP_ALIVES_A_LEASE: u32 = 3;
/// The shortest time that a keep-alive is given.
const KEEP_ALIVE_MIN: Duration = Duration::from_secs(1);
/// Pause before a keep-alive that failed is tried again.
const KEEP_ALIVE_PAUSE: Duration = Duration::from_millis(200);
/// The reason with which the store refuses whatever is of a session that has ended.
const SESSION_ENDED: &str = "session_ended";

/// An identity for writes that happen once. Cheap to clone; as many calls as one likes may be made at once, and those for which
/// the store has no room wait.
///
/// Its lease is kept alive until the last clone is dropped, or [`Session::close`]; keys may hang on it, and locks be taken with
/// it ([`Session::lease`]).
///
/// ```no_run
/// # async fn example(client: ringfence_client::Client) -> Result<(), ringfence_client::Error> {
/// # use std::time::Duration;
/// let session = client.session(Duration::from_secs(10)).await?;
/// session.put_value("greeting", "hello").await?;
/// session.close().await
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct Session {
    shared: Arc<Shared>,
    timeout: Duration,
}

#[derive(Debug)]
struct Shared {
    client: Client,
    id: v1::Session,
    ttl: Duration,
    sequences: Sequences,
    /// Whether the session is known to be over: the cluster said so, or it was closed.
    over: Arc<watch::Sender<bool>>,
    keeper: AbortHandle,
}

impl Drop for Shared {
    fn drop(&mut self) {
        self.keeper.abort();
    }
}

impl Client {
    /// Begins a session. It is lost when the cluster has not heard of it for `ttl`, which is rounded up to whole seconds and is at
    /// least what the server says ([`Session::ttl`]). A task of its own keeps it alive.
    ///
    /// # Errors
    /// See [`Error`]; never [`Error::Indefinite`]. [`Error::Refused`] with the reason `no_sessions` where the server knows none,
    /// as etcd.
    pub async fn session(&self, ttl: Duration) -> Result<Session, Error> {
        let ttl_seconds = i64::try_from(ttl.as_millis().div_ceil(1_000)).unwrap_or(i64::MAX);
        let sent = Instant::now();
        // Repeated as a read is: a grant that nobody heard of does no harm, and ends by itself.
        let granted = self
            .call(Kind::Read, |channel| async move {
                let request = LeaseGrantRequest { ttl: ttl_seconds, id: 0 };
                Ok(LeaseClient::new(channel).lease_grant(request).await?.into_inner())
            })
            .await?;
        if granted.grant == 0 {
            return Err(Error::Refused {
                code: Code::Unimplemented,
                reason: "no_sessions".to_owned(),
                message: "the server names no grant of the lease: it knows no sessions".to_owned(),
            });
        }
        let ttl = Duration::from_secs(granted.ttl.unsigned_abs());
        let over = Arc::new(watch::Sender::new(false));
        let keeping = keep_alive(self.clone(), granted.id, ttl, sent, Arc::clone(&over));
        let shared = Shared {
            client: self.clone(),
            id: v1::Session { lease: granted.id, grant: granted.grant },
            ttl,
            sequences: Sequences::new(),
            over,
            keeper: tokio::spawn(keeping).abort_handle(),
        };
        Ok(Session { shared: Arc::new(shared), timeout: self.timeout })
    }
}

impl Session {
    /// The number of the session's lease: what keys and locks hang on that shall end with it.
    #[must_use]
    pub fn lease(&self) -> i64 {
        self.shared.id.lease
    }

    /// How long the session lives on when the cluster does not hear of it.
    #[must_use]
    pub fn ttl(&self) -> Duration {
        self.shared.ttl
    }

    /// The same session with another time limit for each call.
    #[must_use]
    pub fn with_timeout(&self, timeout: Duration) -> Session {
        Session { shared: Arc::clone(&self.shared), timeout }
    }

    /// Waits until the session is known to be over: its lease has ended, or it was closed. The clock alone does not tell, since
    /// the time without a leader does not count.
    pub async fn ended(&self) {
        let mut over = self.shared.over.subscribe();
        // It cannot fail: the sender lives as long as this session.
        let _ = over.wait_for(|over| *over).await;
    }

    /// Stores a value under a key, as `request` says; its place in the session is set here. It is sent again until the time limit
    /// is over; to settle then what became of it may take as long again.
    ///
    /// # Errors
    /// See [`Error`]; [`Error::SessionLost`] where the session has ended, [`Error::AnswerNotKept`] where it was applied and only
    /// its answer is lost, and [`Error::Indefinite`] where nobody could be asked what became of it.
    pub async fn put(&self, request: PutRequest) -> Result<PutResponse, Error> {
        self.once(request, |mut kv, request| async move { kv.put(request).await }).await
    }

    /// Stores a value under a key.
    ///
    /// # Errors
    /// As [`Session::put`].
    pub async fn put_value(
        &self,
        key: impl Into<Bytes>,
        value: impl Into<Bytes>,
    ) -> Result<PutResponse, Error> {
        self.put(PutRequest { key: key.into(), value: value.into(), ..PutRequest::default() }).await
    }

    /// Deletes the keys of a range, as `request` says; as [`Session::put`].
    ///
    /// # Errors
    /// As [`Session::put`].
    pub async fn delete_range(&self, request: DeleteRangeRequest) -> Result<DeleteRangeResponse, Error> {
        self.once(request, |mut kv, request| async move { kv.delete_range(request).await }).await
    }

    /// Deletes the keys of a range.
    ///
    /// # Errors
    /// As [`Session::put`].
    pub async fn delete(&self, range: KeyRange) -> Result<DeleteRangeResponse, Error> {
        self.delete_range(deletion(range)).await
    }

    /// Compares, then does one of two lists of operations; as [`Session::put`]. One that only reads needs no session, and is sent
    /// without.
    ///
    /// # Errors
    /// As [`Session::put`].
    pub async fn txn(&self, request: TxnRequest) -> Result<TxnResponse, Error> {
        if is_read_only(&request) {
            return self.shared.client.with_timeout(self.timeout).txn(request).await;
        }
        self.once(request, |mut kv, request| async move { kv.txn(request).await }).await
    }

    /// Ends the session, with all keys that hang on its lease. Writes under way may be lost: wait for them first.
    ///
    /// # Errors
    /// See [`Error`]; the lease then ends by itself, after its time.
    pub async fn close(&self) -> Result<(), Error> {
        self.shared.keeper.abort();
        self.shared.over.send_replace(true);
        let request = LeaseRevokeRequest { id: self.lease() };
        // Repeated as a read is: nobody else has a use for this lease.
        let revoked = self
            .shared
            .client
            .with_timeout(self.timeout)
            .call(Kind::Read, |channel| async move {
                Ok(LeaseClient::new(channel).lease_revoke(request).await?.into_inner())
            })
            .await;
        match revoked {
            // It had ended, by its time or by an attempt whose answer was lost.
            Ok(_) | Err(Error::Refused { code: Code::NotFound, .. }) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// The way of every write: it gets its place in the session, and is sent until it is answered or the time is over.
    async fn once<R, T, S, F>(&self, mut request: R, send: S) -> Result<T, Error>
    where
        R: Extended + Clone,
        T: Checks + Positioned,
        S: Fn(KvClient<Channel>, R) -> F,
        F: Future<Output = Result<Response<T>, Status>>,
    {
        if *self.shared.over.borrow() {
            return Err(Error::SessionLost { perhaps_applied: false });
        }
        let started = Instant::now();
        let Ok(open) = timeout_at(started + self.timeout, self.shared.sequences.take()).await else {
            let message = format!("{SPAN_MAX} writes of the session came first, and the oldest is not done");
            return Err(Error::Unavailable { message, attempts: 0, elapsed: started.elapsed() });
        };
        *request.session() = Some(SessionStamp {
            session: Some(self.shared.id),
            sequence: open.sequence,
            first_incomplete: open.first_incomplete,
        });
        let attempts = AtomicU32::new(0);
        let attempt = |channel| {
            attempts.fetch_add(1, Ordering::Relaxed);
            let answering = send(self.shared.client.kv(channel), request.clone());
            async move { Ok(answering.await?.into_inner()) }
        };
        let left = self.timeout.saturating_sub(started.elapsed());
        let mut outcome = self.shared.client.with_timeout(left).call(Kind::Once, &attempt).await;
        if let Err(Error::Indefinite { message }) = outcome {
            outcome = self.settle(&open, message, &attempt).await.map_err(|error| match error {
                // The attempts are those of the write, not of the questions about it.
                Error::Unavailable { message, .. } => Error::Unavailable {
                    message,
                    attempts: attempts.load(Ordering::Relaxed),
                    elapsed: started.elapsed(),
                },
                error => error,
            });
        }
        match outcome {
            Ok(answer) => {
                let (answer, has_ack) = (self.shared.client.note(answer), request.ack().is_some());
                checked::verify(request.fences(), true, has_ack, answer)
            }
            Err(Error::Refused { reason, .. }) if reason == SESSION_ENDED => Err(self.lost(false)),
            Err(error) => Err(error),
        }
    }

    /// Asks what became of a write whose outcome is unknown; what has not happened will not. A copy of one that is decided gets
    /// the answer that was kept.
    async fn settle<T, A, F>(&self, open: &Open<'_>, message: String, attempt: &A) -> Result<T, Error>
    where
        A: Fn(Channel) -> F,
        F: Future<Output = Result<T, Status>>,
    {
        let client = self.shared.client.with_timeout(self.timeout);
        let question = ResolveRequest {
            session: Some(self.shared.id),
            sequence: open.sequence,
            first_incomplete: open.first_incomplete,
        };
        let decided = match client.resolve(question).await.map(|answer| answer.kind) {
            Ok(Some(Resolution::Closed(true))) => {
                let message = format!("{message}; it was withdrawn, and will not be applied");
                return Err(Error::Unavailable { message, attempts: 0, elapsed: Duration::ZERO });
            }
            Ok(Some(Resolution::Applied(revision))) => {
                self.shared.client.note_revision(revision);
                Error::AnswerNotKept { revision }
            }
            Ok(Some(Resolution::Refused(reason))) => {
                let message = format!("an earlier attempt was refused with the reason {reason}");
                Error::Refused { code: Code::FailedPrecondition, reason, message }
            }
            Err(Error::Refused { reason, .. }) if reason == SESSION_ENDED => return Err(self.lost(true)),
            Ok(_) | Err(_) => return Err(Error::Indefinite { message }),
        };
        let again = client.call(Kind::Once, attempt).await;
        match (again, decided) {
            (Ok(answer), _) => Ok(answer),
            (Err(refusal @ Error::Refused { .. }), Error::Refused { .. }) => Err(refusal),
            (Err(_), decided) => Err(decided),
        }
    }

    /// The cluster has said that the session is over.
    fn lost(&self, perhaps_applied: bool) -> Error {
        self.shared.over.send_replace(true);
        Error::SessionLost { perhaps_applied }
    }
}

/// Lets the lease begin anew, again and again, until the cluster says that it has ended.
async fn keep_alive(
    client: Client,
    lease: i64,
    ttl: Duration,
    granted: Instant,
    over: Arc<watch::Sender<bool>>,
) {
    let pause = ttl / KEEP_ALIVES_A_LEASE;
    let mut due = granted + pause;
    loop {
        sleep_until(due).await;
        let sent = Instant::now();
        match client.with_timeout(pause.max(KEEP_ALIVE_MIN)).lease_keep_alive_once(lease).await {
            Ok(answer) if answer.ttl > 0 => due = sent + pause,
            Ok(_) => {
                over.send_replace(true);
                return;
            }
            // The lease may live for long yet: the time without a leader does not count.
            Err(_) => due = Instant::now() + KEEP_ALIVE_PAUSE,
        }
    }
}
