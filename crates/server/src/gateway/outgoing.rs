//! The request's messages on their way into the call.

use std::time::Duration;

use bytes::Bytes;
use futures_util::{StreamExt as _, future, stream};
use http_body::Frame;
use http_body_util::{BodyExt as _, Full, StreamBody};
use hyper::body::Incoming;
use tokio::sync::oneshot;
use tonic::body::Body;
use tonic::{Code, Status};

use super::json;
use super::paths::Endpoint;
use super::split::Splitter;
use crate::limits::{GATEWAY_BODY_BYTES_MAX, HTTP_BODY_TIMEOUT};
use crate::served::Served;
use crate::status::Trouble;

/// What goes into a call.
pub(super) enum Outgoing {
    /// One message, framed.
    One(Bytes),
    /// Any number of messages, of which the first has been read.
    Many(Box<Messages>),
}

/// Messages that are read from a body as the call takes them.
pub(super) struct Messages {
    endpoint: Endpoint,
    body: Incoming,
    splitter: Splitter,
    /// A message, framed, that was read before the call began.
    first: Option<Bytes>,
    is_over: bool,
    /// Where the call's answer hears that a message cannot be understood.
    broken: Option<oneshot::Sender<Trouble>>,
}

impl Outgoing {
    /// Reads what the call needs to begin: all of a single message, or the first of several. So what is wrong from the
    /// beginning is told by the code of the answer.
    pub(super) async fn read(
        served: &Served,
        endpoint: &Endpoint,
        body: Incoming,
    ) -> Result<Outgoing, Status> {
        let read = async {
            if endpoint.asks_in_stream {
                let mut messages = Box::new(Messages {
                    endpoint: endpoint.clone(),
                    body,
                    splitter: Splitter::default(),
                    first: None,
                    is_over: false,
                    broken: None,
                });
                messages.first = messages.next().await?;
                return Ok(Outgoing::Many(messages));
            }
            Ok(Outgoing::One(json::to_frame(&endpoint.input, &collect(body).await?)?))
        };
        match tokio::time::timeout(HTTP_BODY_TIMEOUT, read).await {
            Ok(read) => read.map_err(|trouble| served.status(&trouble)),
            Err(_elapsed) => Err(too_slow(HTTP_BODY_TIMEOUT)),
        }
    }

    /// The body of the call, and where it is told that a later message is wrong.
    pub(super) fn into_body(self) -> (Body, oneshot::Receiver<Trouble>) {
        let (broken, told) = oneshot::channel();
        let body = match self {
            Outgoing::One(frame) => Body::new(Full::new(frame)),
            Outgoing::Many(mut messages) => {
                messages.broken = Some(broken);
                messages.into_body()
            }
        };
        (body, told)
    }
}

impl Messages {
    fn into_body(self: Box<Messages>) -> Body {
        let outlives_request = self.endpoint.outlives_request;
        let messages = stream::unfold(self, |mut messages| async move {
            let next = match messages.first.take() {
                Some(first) => Ok(Some(first)),
                None => messages.next().await,
            };
            match next {
                Ok(Some(frame)) => Some((Ok::<_, Status>(Frame::data(frame)), messages)),
                Ok(None) => None,
                Err(trouble) => {
                    // Nobody listens any more where the answer has ended.
                    let _ended = messages.broken.take().map(|broken| broken.send(trouble));
                    None
                }
            }
        });
        if outlives_request {
            return Body::new(StreamBody::new(messages.chain(stream::once(future::pending()))));
        }
        Body::new(StreamBody::new(messages))
    }

    /// The next message, framed; none at the end of the body.
    async fn next(&mut self) -> Result<Option<Bytes>, Trouble> {
        loop {
            if let Some(object) = self.splitter.next()? {
                return json::to_frame(&self.endpoint.input, &object).map(Some);
            }
            if self.is_over {
                return self.splitter.end().map(|()| None);
            }
            match self.body.frame().await {
                None => self.is_over = true,
                Some(frame) => {
                    let frame = frame.map_err(|error| gone(&error))?;
                    if let Some(piece) = frame.data_ref() {
                        self.splitter.push(piece)?;
                    }
                }
            }
        }
    }
}

/// All of a body, which may be no larger than any request's.
async fn collect(mut body: Incoming) -> Result<Vec<u8>, Trouble> {
    let mut text = Vec::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| gone(&error))?;
        let Some(piece) = frame.data_ref() else { continue };
        let size = text.len() + piece.len();
        if size > GATEWAY_BODY_BYTES_MAX {
            return Err(Trouble::TooLarge { size, max: GATEWAY_BODY_BYTES_MAX });
        }
        text.extend_from_slice(piece);
    }
    Ok(text)
}

fn gone(error: &hyper::Error) -> Trouble {
    Trouble::Malformed(format!("the request broke off: {error}"))
}

fn too_slow(limit: Duration) -> Status {
    Status::new(Code::DeadlineExceeded, format!("ringfence: the request did not come within {limit:?}"))
}
