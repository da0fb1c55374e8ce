//! The calls about fences: guards, who holds what, and what a write of a session came to.

use ringfence_proto::ringfence_v1::fencing_client::FencingClient;
use ringfence_proto::ringfence_v1::{
    ChangeGuardRequest, ChangeGuardResponse, InspectRequest, InspectResponse, ListGuardsRequest,
    ListGuardsResponse, ResolveRequest, ResolveResponse,
};

use crate::retry::Kind;
use crate::{Client, Error};

impl Client {
    /// Sets, changes or removes a guard: a key range that takes no write without a fence of its scope.
    ///
    /// # Errors
    /// See [`Error`]; [`Error::Indefinite`] where the guard may have been changed.
    pub async fn change_guard(&self, request: ChangeGuardRequest) -> Result<ChangeGuardResponse, Error> {
        let answer = self
            .call(Kind::Write, |channel| {
                let request = request.clone();
                async move { Ok(FencingClient::new(channel).change_guard(request).await?.into_inner()) }
            })
            .await?;
        Ok(self.note(answer))
    }

    /// The guards that are set, by their ranges.
    ///
    /// # Errors
    /// See [`Error`]; never [`Error::Indefinite`].
    pub async fn list_guards(&self) -> Result<ListGuardsResponse, Error> {
        self.ask_of_rights(|channel, freshness| async move {
            Ok(FencingClient::new(channel).list_guards(ListGuardsRequest { freshness }).await?.into_inner())
        })
        .await
    }

    /// Who holds a scope, with which token, and who waits for it.
    ///
    /// # Errors
    /// See [`Error`]; never [`Error::Indefinite`].
    pub async fn inspect(&self, request: InspectRequest) -> Result<InspectResponse, Error> {
        self.ask_of_rights(|channel, freshness| {
            let mut request = request.clone();
            // What the request says itself counts.
            request.freshness = request.freshness.or(freshness);
            async move { Ok(FencingClient::new(channel).inspect(request).await?.into_inner()) }
        })
        .await
    }

    /// Makes a write of a session definite: tells its answer if it was applied or refused, and otherwise closes its number, so
    /// that no late copy of it can ever be applied. Asking again gives the same answer, so it is tried until the deadline.
    ///
    /// # Errors
    /// See [`Error`]; never [`Error::Indefinite`].
    pub async fn resolve(&self, request: ResolveRequest) -> Result<ResolveResponse, Error> {
        let answer = self
            .call(Kind::Read, |channel| async move {
                Ok(FencingClient::new(channel).resolve(request).await?.into_inner())
            })
            .await?;
        Ok(self.note(answer))
    }
}
