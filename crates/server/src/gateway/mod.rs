//! The JSON gateway: the calls of gRPC as `POST /v3/…` with JSON for a body, so that `curl` is a client.
//!
//! A request is translated by the descriptors that reflection shows, and then is a call of gRPC like any other, made inside this
//! process through the same door: nothing of a service is written twice, and no check has a way round it. Reading order:
//! `paths` (which call is behind a path), `json` (from JSON to a message and back), `split` (one JSON message after the other),
//! `frames` (messages out of gRPC's answer), `metadata` (headers), `refusal` (errors), `outgoing` (the request's messages on
//! their way), then this file; `openapi` tells all of it to programs and people.
//!
//! Messages are written as etcd's gateway writes them: fields by their names in the protocol, numbers of 64 bits as strings, bytes
//! in base64, what is unset left out. Streams are one JSON object a line.

mod frames;
mod json;
mod metadata;
mod openapi;
mod outgoing;
mod paths;
mod refusal;
mod split;

use std::sync::Arc;

use bytes::Bytes;
use futures_util::{StreamExt as _, future, stream};
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use http_body::Frame;
use http_body_util::StreamBody;
use hyper::body::Incoming;
use tokio::sync::oneshot;
use tonic::Status;
use tonic::body::Body;

use crate::door::Door;
use crate::served::Served;
use crate::status::Trouble;
use frames::Frames;
use openapi::Pages;
use outgoing::Outgoing;
use paths::{Endpoint, Paths};

/// The gateway; one for the server.
pub(crate) struct Gateway {
    paths: Paths,
    pages: Pages,
}

const JSON: HeaderValue = HeaderValue::from_static("application/json");

impl Gateway {
    pub(crate) fn new() -> Gateway {
        let paths = Paths::of_this_build();
        let pages = Pages::new(&paths);
        Gateway { paths, pages }
    }

    /// Whether a request for this path is the gateway's to answer.
    pub(crate) fn serves(path: &str) -> bool {
        path.starts_with("/v3/") || openapi::is_page(path)
    }

    /// Answers one request of plain HTTP.
    pub(crate) async fn answer(self: Arc<Gateway>, door: Door, request: Request<Incoming>) -> Response<Body> {
        let path = request.uri().path();
        if let Some(page) = self.pages.get(path) {
            return match *request.method() {
                Method::GET | Method::HEAD => page,
                _ => refusal::method_not_allowed("GET"),
            };
        }
        let Some(endpoint) = self.paths.get(path) else { return refusal::not_found() };
        if request.method() != Method::POST {
            return refusal::method_not_allowed("POST");
        }
        if metadata::is_of_another_origin(request.headers()) {
            return refusal::other_origin();
        }
        match call(&door, endpoint.clone(), request).await {
            Ok(response) => response,
            Err(status) => refusal::page(&self.paths, &status),
        }
    }
}

/// Makes the call, and begins its answer.
async fn call(door: &Door, endpoint: Endpoint, request: Request<Incoming>) -> Result<Response<Body>, Status> {
    let served = door.served();
    let (head, body) = request.into_parts();
    let outgoing = Outgoing::read(served, &endpoint, body).await?;
    let (body, broken) = outgoing.into_body();
    let mut inner = Request::new(body);
    *inner.method_mut() = Method::POST;
    *inner.version_mut() = http::Version::HTTP_2;
    *inner.uri_mut() = endpoint.grpc_path.parse().expect("names of services and methods make a path");
    metadata::put_into(&head.headers, inner.headers_mut());

    let Ok(response) = door.call_inside(inner).await;
    let (head, body) = response.into_parts();
    if let Some(status) = Status::from_header_map(&head.headers)
        && status.code() != tonic::Code::Ok
    {
        return Err(status);
    }
    let frames = Frames::new(body);
    let mut response = if endpoint.answers_in_stream {
        Response::new(lines(served.clone(), endpoint, frames, broken))
    } else {
        let message = frames.only().await?;
        Response::new(Body::new(http_body_util::Full::new(
            json::from_message(&endpoint.output, message).await?,
        )))
    };
    response.headers_mut().insert(header::CONTENT_TYPE, JSON);
    metadata::give_back(&head.headers, response.headers_mut());
    Ok(response)
}

/// A stream's answers as they come, one line each; the last line may be an error.
fn lines(served: Served, endpoint: Endpoint, frames: Frames, broken: oneshot::Receiver<Trouble>) -> Body {
    let state = Some((frames, Some(broken)));
    let lines = stream::unfold(state, move |state| {
        let (served, endpoint) = (served.clone(), endpoint.clone());
        async move {
            let (mut frames, mut broken) = state?;
            let next = tokio::select! {
                biased;
                next = frames.next() => next,
                trouble = told(&mut broken), if endpoint.outlives_request => Err(served.status(&trouble)),
            };
            let line = match next {
                // Other calls end with their request: what came before its end is answered first.
                Ok(None) => match broken.as_mut()?.try_recv() {
                    Ok(trouble) => Err(served.status(&trouble)),
                    Err(_) => return None,
                },
                Ok(Some(message)) => json::from_message(&endpoint.output, message).await,
                Err(status) => Err(status),
            };
            match line {
                Ok(object) => Some((refusal::result_line(&object), Some((frames, broken)))),
                Err(status) => Some((refusal::error_line(&status), None)),
            }
        }
    });
    Body::new(StreamBody::new(lines.map(|line: Bytes| Ok::<_, Status>(Frame::data(line)))))
}

/// What was wrong with a message of the request. Never returns where nothing was.
async fn told(broken: &mut Option<oneshot::Receiver<Trouble>>) -> Trouble {
    if let Some(receiver) = broken {
        let told = receiver.await;
        *broken = None;
        if let Ok(trouble) = told {
            return trouble;
        }
    }
    future::pending().await
}

/// An answer that is whole.
fn whole(status: StatusCode, content_type: HeaderValue, body: impl Into<Bytes>) -> Response<Body> {
    let mut response = Response::new(Body::new(http_body_util::Full::new(body.into())));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, content_type);
    response
}
