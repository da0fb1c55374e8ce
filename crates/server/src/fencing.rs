//! The Fencing service: guards, who holds what, and what a write of a session came to.

use bytes::Bytes;
use ringfence_proto::extension::scope_message;
use ringfence_proto::freshness::token_message;
use ringfence_proto::request;
use ringfence_proto::ringfence_v1::{self as v1, fencing_server, resolve_response};
use ringfence_store::{ReadError, View};
use ringfence_types::{Applied, Command, Guard, KeyRange, KeyValue, RangeQuery, Reply, Resolution, Scope};
use tonic::metadata::MetadataMap;
use tonic::{Request, Response, Status, async_trait};

use crate::limits::INSPECTED_WAITERS_MAX;
use crate::served::{At, Served, unexpected};
use crate::status::{self, Trouble};
use crate::{deadline, gate};

/// The service.
pub(crate) struct Fencing {
    pub(crate) served: Served,
}

#[async_trait]
impl fencing_server::Fencing for Fencing {
    async fn change_guard(
        &self,
        request: Request<v1::ChangeGuardRequest>,
    ) -> Result<Response<v1::ChangeGuardResponse>, Status> {
        let (metadata, _, request) = request.into_parts();
        let changed = self.change(&metadata, request).await;
        self.served.answer_at(changed.map(|at| {
            let position = Some(token_message(self.served.token(at)));
            (at, v1::ChangeGuardResponse { position })
        }))
    }

    async fn list_guards(
        &self,
        request: Request<v1::ListGuardsRequest>,
    ) -> Result<Response<v1::ListGuardsResponse>, Status> {
        let (metadata, _, request) = request.into_parts();
        let view = self.served.fresh_view(&metadata, request.freshness).await;
        self.served.answer(view.map(|view| v1::ListGuardsResponse {
            guards: view.guards().into_iter().map(guard).collect(),
            revision: view.revision().0,
            position: Some(token_message(self.served.token(&view))),
        }))
    }

    async fn inspect(
        &self,
        request: Request<v1::InspectRequest>,
    ) -> Result<Response<v1::InspectResponse>, Status> {
        let (metadata, _, request) = request.into_parts();
        self.served.answer(self.look(&metadata, request).await)
    }

    async fn resolve(
        &self,
        request: Request<v1::ResolveRequest>,
    ) -> Result<Response<v1::ResolveResponse>, Status> {
        let (metadata, _, request) = request.into_parts();
        self.served.answer(self.settle(&metadata, &request).await)
    }
}

impl Fencing {
    async fn change(&self, metadata: &MetadataMap, request: v1::ChangeGuardRequest) -> Result<At, Trouble> {
        gate::unextended(metadata, &self.served.node)?;
        let command = request::guard_change(request)?;
        let changed = self.propose(metadata, &command).await;
        if let Command::ChangeGuard(change) = &command
            && change.overrides
        {
            self.served.refusals.count_override();
            let scope = change.scope.as_ref().map_or_else(|| "none".to_owned(), Scope::to_string);
            let outcome = changed.as_ref().err().map_or("done", |_| "failed, or its outcome is unknown");
            tracing::warn!(
                keys = %change.range.start.escape_ascii(),
                range_end = %change.range.etcd_range_end().escape_ascii(),
                scope,
                outcome,
                "an administrator changed a guard without the fences that this needs"
            );
        }
        let changed = changed?;
        match &changed.reply {
            Reply::GuardChanged => Ok(At::from(&changed)),
            reply => unexpected("a change of guards", reply),
        }
    }

    async fn look(
        &self,
        metadata: &MetadataMap,
        request: v1::InspectRequest,
    ) -> Result<v1::InspectResponse, Trouble> {
        let scope = request::inspection(&request)?;
        let waiters_max = match usize::try_from(request.waiters_max) {
            Ok(0) | Err(_) => INSPECTED_WAITERS_MAX,
            Ok(waiters) => waiters.min(INSPECTED_WAITERS_MAX),
        };
        drop(self.served.fresh_view(metadata, request.freshness).await?);
        let read = move |view: &View| Ok((At::from(view), inspected(view, &scope, waiters_max)?));
        let (at, answer) = self.served.read_long(read).await?;
        Ok(v1::InspectResponse { position: Some(token_message(self.served.token(at))), ..answer })
    }

    async fn settle(
        &self,
        metadata: &MetadataMap,
        request: &v1::ResolveRequest,
    ) -> Result<v1::ResolveResponse, Trouble> {
        gate::unextended(metadata, &self.served.node)?;
        let resolved = self.propose(metadata, &request::resolve(request)?).await?;
        let kind = match &resolved.reply {
            Reply::Resolved(resolution) => resolution_kind(resolution),
            reply => unexpected("a resolution", reply),
        };
        let position = Some(token_message(self.served.token(&resolved)));
        Ok(v1::ResolveResponse { kind: Some(kind), position })
    }

    async fn propose(&self, metadata: &MetadataMap, command: &Command) -> Result<Applied, Trouble> {
        Ok(self.served.node.propose(command, deadline::of(metadata)).await??)
    }
}

/// Who holds a scope, and who waits for it; but for the position.
fn inspected(view: &View, scope: &Scope, waiters_max: usize) -> Result<v1::InspectResponse, ReadError> {
    let keys: Vec<Bytes> = match scope {
        Scope::Key(key) => vec![key.clone()],
        Scope::Lock(name) => {
            view.candidates(name, waiters_max + 1)?.into_iter().map(|candidate| candidate.key).collect()
        }
    };
    let mut candidates = Vec::with_capacity(keys.len());
    for key in keys {
        let found = view.range(&RangeQuery::new(KeyRange::single(key)))?;
        candidates.extend(found.kvs.into_iter().map(candidate));
    }
    let mut candidates = candidates.into_iter();
    Ok(v1::InspectResponse {
        holder: candidates.next(),
        waiters: candidates.collect(),
        revision: view.revision().0,
        position: None,
    })
}

fn candidate(kv: KeyValue) -> v1::Candidate {
    v1::Candidate { key: kv.key, token: kv.create_revision.0, lease: kv.lease.0 }
}

fn guard(guard: Guard) -> v1::Guard {
    let range_end = guard.range.etcd_range_end();
    v1::Guard { key: guard.range.start, range_end, scope: Some(scope_message(&guard.scope)) }
}

fn resolution_kind(resolution: &Resolution) -> resolve_response::Kind {
    match resolution {
        Resolution::Closed => resolve_response::Kind::Closed(true),
        Resolution::AppliedAt(revision) => resolve_response::Kind::Applied(revision.0),
        Resolution::Answered(outcome) => match outcome.as_ref() {
            Ok(applied) => resolve_response::Kind::Applied(applied.revision.0),
            Err(rejection) => resolve_response::Kind::Refused(status::reason(rejection).to_owned()),
        },
    }
}

#[cfg(test)]
mod tests {
    use ringfence_types::{Index, PutReply, Rejection, Revision};

    use super::*;

    #[test]
    fn a_resolution_tells_what_became_of_the_write() {
        let applied =
            Applied { revision: Revision(7), index: Index(9), reply: Reply::Put(PutReply::default()) };
        for (resolution, expected) in [
            (Resolution::Closed, resolve_response::Kind::Closed(true)),
            (Resolution::AppliedAt(Revision(5)), resolve_response::Kind::Applied(5)),
            (Resolution::Answered(Box::new(Ok(applied))), resolve_response::Kind::Applied(7)),
            (
                Resolution::Answered(Box::new(Err(Rejection::LeaseNotFound))),
                resolve_response::Kind::Refused("lease_not_found".to_owned()),
            ),
        ] {
            assert_eq!(resolution_kind(&resolution), expected);
        }
    }
}
