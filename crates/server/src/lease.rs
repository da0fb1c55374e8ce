//! The Lease service: rights that last for a time, and the keys that hang on them.
//!
//! Leases that are granted carry their grant beside their number, in the answer and in its metadata: the two together name a
//! session.

use std::pin::Pin;

use futures_util::{Stream, StreamExt, stream};
use ringfence_consensus::rt::{self, Instant};
use ringfence_proto::etcdserverpb::lease_server;
use ringfence_proto::etcdserverpb::{self as etcd};
use ringfence_store::View;
use ringfence_types::limits::{LEASE_TTL_SECONDS_MAX, LEASE_TTL_SECONDS_MIN};
use ringfence_types::{Command, Grant, Lease as Granted, LeaseCommand, LeaseId, LeaseTime, Rejection, Reply};
use tonic::metadata::{AsciiMetadataValue, MetadataMap};
use tonic::{Request, Response, Status, Streaming, async_trait};

use crate::door::overlooked;
use crate::limits::KEEP_ALIVES_PER_CALL_MAX;
use crate::served::{At, Served, unexpected};
use crate::status::Trouble;
use crate::{deadline, gate};

/// The metadata in which the answer to a grant names the session: the lease's number in hexadecimal digits, a semicolon, and the
/// grant in decimal digits.
pub(crate) const SESSION_KEY: &str = "ringfence-session";
/// How often a number is drawn for a lease before the grant is given up. A number that is in use is drawn once in 10¹³ times
/// where a million leases are in force.
const DRAWS_MAX: usize = 8;

/// The service.
pub(crate) struct Lease {
    pub(crate) served: Served,
}

#[async_trait]
impl lease_server::Lease for Lease {
    async fn lease_grant(
        &self,
        request: Request<etcd::LeaseGrantRequest>,
    ) -> Result<Response<etcd::LeaseGrantResponse>, Status> {
        let (metadata, _, request) = request.into_parts();
        let granted = async {
            gate::unextended(&metadata, &self.served.node)?;
            grant(&self.served, LeaseId(request.id), request.ttl, deadline::of(&metadata)).await
        };
        let granted = granted.await.map(|(at, lease)| {
            let answer = etcd::LeaseGrantResponse {
                header: Some(self.served.header(at)),
                id: lease.grant.lease.0,
                ttl: seconds(lease.ttl_seconds),
                error: String::new(),
                grant: lease.grant.index.0,
            };
            (at, (answer, session(lease.grant)))
        });
        let (mut metadata, (answer, session), extensions) = self.served.answer_at(granted)?.into_parts();
        metadata.insert(SESSION_KEY, session);
        Ok(Response::from_parts(metadata, answer, extensions))
    }

    async fn lease_revoke(
        &self,
        request: Request<etcd::LeaseRevokeRequest>,
    ) -> Result<Response<etcd::LeaseRevokeResponse>, Status> {
        let (metadata, _, request) = request.into_parts();
        let revoked = self.revoke(&metadata, LeaseId(request.id)).await;
        self.served.answer_at(
            revoked.map(|at| (at, etcd::LeaseRevokeResponse { header: Some(self.served.header(at)) })),
        )
    }

    type LeaseKeepAliveStream =
        Pin<Box<dyn Stream<Item = Result<etcd::LeaseKeepAliveResponse, Status>> + Send>>;

    async fn lease_keep_alive(
        &self,
        request: Request<Streaming<etcd::LeaseKeepAliveRequest>>,
    ) -> Result<Response<Self::LeaseKeepAliveStream>, Status> {
        let (metadata, _, requests) = request.into_parts();
        let opened = gate::unextended(&metadata, &self.served.node);
        self.served.answer(opened.map(|()| {
            Box::pin(keep_alives(self.served.clone(), &metadata, requests)) as Self::LeaseKeepAliveStream
        }))
    }

    async fn lease_time_to_live(
        &self,
        request: Request<etcd::LeaseTimeToLiveRequest>,
    ) -> Result<Response<etcd::LeaseTimeToLiveResponse>, Status> {
        let (metadata, _, request) = request.into_parts();
        self.served.answer(self.time_to_live(&metadata, request).await)
    }

    async fn lease_leases(
        &self,
        request: Request<etcd::LeaseLeasesRequest>,
    ) -> Result<Response<etcd::LeaseLeasesResponse>, Status> {
        let (metadata, _, request) = request.into_parts();
        self.served.answer(self.leases(&metadata, request).await)
    }
}

/// Grants a lease of `ttl` seconds, and of the shortest time that there is where it is less; with a number of the server's choice
/// where `wanted` is 0.
pub(crate) async fn grant(
    served: &Served,
    wanted: LeaseId,
    ttl: i64,
    deadline: Instant,
) -> Result<(At, Granted), Trouble> {
    let ttl_seconds = u64::try_from(ttl).unwrap_or(0).max(LEASE_TTL_SECONDS_MIN);
    if ttl_seconds > LEASE_TTL_SECONDS_MAX {
        return Err(Trouble::LeaseTtl { seconds: ttl_seconds });
    }
    let mut draws = 1;
    loop {
        let lease = if wanted == LeaseId(0) { draw() } else { wanted };
        let command = LeaseCommand::Grant { lease, ttl_seconds };
        match served.node.propose(&by_leader(command), deadline).await? {
            Ok(applied) => match &applied.reply {
                Reply::LeaseGranted(lease) => {
                    served.lease_counts.count_granted();
                    return Ok((At::from(&applied), *lease));
                }
                reply => unexpected("a grant", reply),
            },
            Err(Rejection::LeaseExists) if wanted == LeaseId(0) && draws < DRAWS_MAX => draws += 1,
            Err(rejection) => return Err(rejection.into()),
        }
    }
}

/// A number for a lease, above 0.
fn draw() -> LeaseId {
    LeaseId(i64::try_from(rt::random_u64() >> 1).unwrap_or(i64::MAX).max(1))
}

/// A command about leases; the leader puts its clock on it.
fn by_leader(command: LeaseCommand) -> Command {
    Command::Lease { command, clock: LeaseTime(0) }
}

fn session(grant: Grant) -> AsciiMetadataValue {
    let session = format!("{:x};{}", grant.lease.0, grant.index.0);
    AsciiMetadataValue::try_from(session).expect("digits and a semicolon are plain text")
}

/// The answers to a stream of keep-alives, in the order in which they were asked. Many may wait: a client keeps all its leases
/// alive over one stream.
fn keep_alives(
    served: Served,
    metadata: &MetadataMap,
    requests: Streaming<etcd::LeaseKeepAliveRequest>,
) -> impl Stream<Item = Result<etcd::LeaseKeepAliveResponse, Status>> + Send + use<> {
    let ended = Box::pin(served.clone().stream_end(gate::wants_leader(metadata)));
    let answers = requests.map(move |request| {
        let served = served.clone();
        async move {
            let explained = |status| overlooked(&status).map_or(status, |trouble| served.status(&trouble));
            keep_alive(&served, LeaseId(request.map_err(explained)?.id)).await
        }
    });
    let answers = Box::pin(answers.buffered(KEEP_ALIVES_PER_CALL_MAX));
    stream::unfold(Some((answers, ended)), |state| async move {
        let (mut answers, mut ended) = state?;
        let next = tokio::select! {
            biased;
            end = &mut ended => end.map(Err),
            next = answers.next() => next,
        };
        // An error ends the stream, so that the client asks again.
        next.map(|answer| {
            answer.map_or_else(|error| (Err(error), None), |answer| (Ok(answer), Some((answers, ended))))
        })
    })
}

async fn keep_alive(served: &Served, lease: LeaseId) -> Result<etcd::LeaseKeepAliveResponse, Status> {
    let renewed = served.renewals.keep_alive(&served.node, lease).await;
    let renewed = renewed.map_err(|trouble| served.status(&trouble))?;
    if renewed.is_some() {
        served.lease_counts.count_renewed();
    }
    Ok(etcd::LeaseKeepAliveResponse {
        header: Some(renewed.map_or_else(|| served.header_now(), |(_, at)| served.header(at))),
        id: lease.0,
        ttl: renewed.map_or(0, |(lease, _)| seconds(lease.ttl_seconds)),
    })
}

impl Lease {
    async fn revoke(&self, metadata: &MetadataMap, lease: LeaseId) -> Result<At, Trouble> {
        gate::unextended(metadata, &self.served.node)?;
        let command = by_leader(LeaseCommand::Revoke { lease });
        let applied = self.served.node.propose(&command, deadline::of(metadata)).await??;
        match &applied.reply {
            Reply::LeaseRevoked => {
                self.served.lease_counts.count_revoked();
                Ok(At::from(&applied))
            }
            reply => unexpected("a revocation", reply),
        }
    }

    async fn time_to_live(
        &self,
        metadata: &MetadataMap,
        request: etcd::LeaseTimeToLiveRequest,
    ) -> Result<etcd::LeaseTimeToLiveResponse, Trouble> {
        let lease = LeaseId(request.id);
        let view = self.served.fresh_view(metadata, request.freshness).await?;
        let clock = self.served.node.lease_clock();
        let (known, keys, at) = if request.keys {
            drop(view);
            // The lease and its keys by one view.
            let read = move |view: &View| Ok((view.lease(lease)?, view.lease_keys(lease)?, At::from(view)));
            self.served.read_long(read).await?
        } else {
            (view.lease(lease)?, Vec::new(), At::from(&view))
        };
        // A leader knows the time; a follower only what the log has carried to it, which is up to a second less.
        let clock = clock.unwrap_or_default().max(self.served.node.view().lease_clock());
        Ok(etcd::LeaseTimeToLiveResponse {
            header: Some(self.served.header(at)),
            id: lease.0,
            ttl: known.map_or(-1, |known| seconds(known.seconds_left(clock))),
            granted_ttl: known.map_or(0, |known| seconds(known.ttl_seconds)),
            keys,
        })
    }

    async fn leases(
        &self,
        metadata: &MetadataMap,
        request: etcd::LeaseLeasesRequest,
    ) -> Result<etcd::LeaseLeasesResponse, Trouble> {
        drop(self.served.fresh_view(metadata, request.freshness).await?);
        let read = |view: &View| Ok((view.leases()?, At::from(view)));
        let (leases, at) = self.served.read_long(read).await?;
        let status = |lease: Granted| etcd::LeaseStatus { id: lease.grant.lease.0 };
        Ok(etcd::LeaseLeasesResponse {
            header: Some(self.served.header(at)),
            leases: leases.into_iter().map(status).collect(),
        })
    }
}

/// Seconds as etcd writes them.
fn seconds(seconds: u64) -> i64 {
    i64::try_from(seconds).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use ringfence_types::Index;

    use super::*;

    #[test]
    fn a_session_is_told_in_metadata() {
        let told = |lease| session(Grant { lease: LeaseId(lease), index: Index(70) });
        assert_eq!(told(255).to_str().unwrap(), "ff;70");
        assert_eq!(told(-1).to_str().unwrap(), "ffffffffffffffff;70");
    }

    #[test]
    fn numbers_that_are_drawn_are_above_zero() {
        let drawn: std::collections::BTreeSet<_> = (0..100).map(|_| draw()).collect();
        assert!(drawn.len() > 90 && drawn.iter().all(|lease| lease.0 > 0), "{drawn:?}");
    }
}
