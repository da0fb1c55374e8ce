//! Messages out of the body of an answer of gRPC.

use bytes::{Buf as _, Bytes, BytesMut};
use http_body_util::BodyExt as _;
use tonic::body::Body;
use tonic::{Code, Status};

use super::json::PREFIX_BYTES;
use crate::limits::GATEWAY_ANSWER_BYTES_MAX;

/// Reads one message after the other.
pub(super) struct Frames {
    body: Body,
    buffer: BytesMut,
    is_over: bool,
}

impl Frames {
    pub(super) fn new(body: Body) -> Frames {
        Frames { body, buffer: BytesMut::new(), is_over: false }
    }

    /// The next message; none at the end of a call that went well.
    pub(super) async fn next(&mut self) -> Result<Option<Bytes>, Status> {
        loop {
            if let Some(message) = self.take_whole()? {
                return Ok(Some(message));
            }
            if self.is_over {
                return Ok(None);
            }
            match self.body.frame().await {
                None => self.is_over = true,
                Some(Err(status)) => return Err(status),
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => self.buffer.extend_from_slice(&data),
                    Err(frame) => self.end(frame.trailers_ref())?,
                },
            }
        }
    }

    /// The message of a call that has one answer.
    pub(super) async fn only(mut self) -> Result<Bytes, Status> {
        let message = self.next().await?;
        // The status comes behind the message.
        while self.next().await?.is_some() {}
        message.ok_or_else(|| Status::internal("ringfence: the call ended without an answer"))
    }

    fn take_whole(&mut self) -> Result<Option<Bytes>, Status> {
        let Some(mut prefix) = self.buffer.get(..PREFIX_BYTES) else { return Ok(None) };
        let is_compressed = prefix.get_u8() != 0;
        let length = prefix.get_u32() as usize;
        debug_assert!(!is_compressed, "the gateway says of no compression that it understands it");
        if length > GATEWAY_ANSWER_BYTES_MAX {
            return Err(Status::new(
                Code::ResourceExhausted,
                format!(
                    "ringfence: the call was made, but its answer of {length} bytes is too large for JSON (at most {GATEWAY_ANSWER_BYTES_MAX}); ask for less at a time"
                ),
            ));
        }
        if self.buffer.len() < PREFIX_BYTES + length {
            return Ok(None);
        }
        self.buffer.advance(PREFIX_BYTES);
        Ok(Some(self.buffer.split_to(length).freeze()))
    }

    fn end(&mut self, trailers: Option<&http::HeaderMap>) -> Result<(), Status> {
        self.is_over = true;
        match trailers.and_then(Status::from_header_map) {
            Some(status) if status.code() != Code::Ok => Err(status),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::stream;
    use http_body::Frame;
    use http_body_util::StreamBody;

    use super::*;

    fn frames(pieces: Vec<Frame<Bytes>>) -> Frames {
        Frames::new(Body::new(StreamBody::new(stream::iter(pieces.into_iter().map(Ok::<_, Status>)))))
    }

    fn data(bytes: &'static [u8]) -> Frame<Bytes> {
        Frame::data(Bytes::from_static(bytes))
    }

    fn trailers(status: &Status) -> Frame<Bytes> {
        let mut headers = http::HeaderMap::new();
        status.add_header(&mut headers).expect("a status fits into headers");
        Frame::trailers(headers)
    }

    #[tokio::test]
    async fn messages_are_whole_however_they_are_cut() {
        let mut all = frames(vec![
            data(b"\0\0"),
            data(b"\0\0\x02a"),
            data(b"b\0\0\0\0\0\0\0\0\0\x01c"),
            trailers(&Status::ok("")),
        ]);
        for expected in [Some("ab"), Some(""), Some("c"), None, None] {
            let next = all.next().await.expect("it went well");
            assert_eq!(next, expected.map(Bytes::from));
        }
        let only = frames(vec![data(b"\0\0\0\0\x01a"), trailers(&Status::ok(""))]).only().await;
        assert_eq!(only.expect("it went well"), "a");
    }

    #[tokio::test]
    async fn a_status_behind_the_messages_counts() {
        let lost = Status::unavailable("etcdserver: no leader");
        let mut all = frames(vec![data(b"\0\0\0\0\x01a"), trailers(&lost)]);
        assert!(all.next().await.is_ok_and(|next| next.is_some()));
        assert_eq!(all.next().await.expect_err("it did not end well").message(), "etcdserver: no leader");
        let failed = frames(vec![data(b"\0\0\0\0\x01a"), trailers(&lost)]).only().await;
        assert_eq!(failed.expect_err("it did not end well").code(), Code::Unavailable);
    }

    #[tokio::test]
    async fn an_answer_that_is_too_large_is_not_taken_in() {
        let refused = frames(vec![data(b"\0\xff\xff\xff\xff")]).next().await.expect_err("4 GiB");
        assert!(refused.message().contains("the call was made"), "{refused}");
    }
}
