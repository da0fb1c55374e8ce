//! Watch responses on their way to the wire: a small front of their own, and events that were encoded once for all who watch
//! them.

use std::sync::Arc;

use bytes::{Buf, BufMut, Bytes};
use prost::Message;
use prost::encoding::{WireType, decode_key, decode_varint};
use ringfence_proto::codec::ScanningDecoder;
use ringfence_proto::etcdserverpb as etcd;
use ringfence_proto::{mvccpb, response};
use ringfence_types::{Event, EventKind, KeyValue, Revision};
use tonic::Status;
use tonic::codec::{Codec, EncodeBuf, Encoder};

/// The number of the field `events` of a watch response.
const EVENTS_FIELD: u32 = 11;
/// What a queued message takes beside its events, in bytes; about right.
pub(super) const MESSAGE_OVERHEAD_BYTES: usize = 64;

/// The events of one revision, encoded as entries of the field `events`. Cheap to clone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Piece {
    /// The revision.
    pub(super) revision: Revision,
    /// Number of events.
    pub(super) events: usize,
    /// The entries.
    pub(super) bytes: Bytes,
}

/// The events of some revisions, in order, shared by all who are told them.
pub(super) type Pieces = Arc<[Piece]>;

/// A watch response that goes out.
#[derive(Debug)]
pub(super) struct Reply {
    /// The response without its events.
    pub(super) front: etcd::WatchResponse,
    /// The events.
    pub(super) events: Vec<Bytes>,
}

impl From<etcd::WatchResponse> for Reply {
    fn from(front: etcd::WatchResponse) -> Reply {
        Reply { front, events: Vec::new() }
    }
}

/// One event as an entry of the field `events`.
pub(super) fn encode_event(event: &Event, before: Option<KeyValue>) -> Bytes {
    let kind = match event.kind {
        EventKind::Put => mvccpb::event::EventType::Put,
        EventKind::Delete => mvccpb::event::EventType::Delete,
    };
    let event = mvccpb::Event {
        r#type: kind.into(),
        kv: Some(response::key_value(event.kv.clone())),
        prev_kv: before.map(response::key_value),
    };
    let mut bytes = Vec::with_capacity(event.encoded_len() + 12);
    prost::encoding::message::encode(EVENTS_FIELD, &event, &mut bytes);
    // Of its own, and no part of a larger buffer: what waits in a queue keeps no more than itself.
    Bytes::from(bytes)
}

/// Joins encoded events, each with its revision and in order, to pieces.
pub(super) fn pieces(events: impl IntoIterator<Item = (Revision, Bytes)>) -> Vec<Piece> {
    let mut pieces: Vec<Piece> = Vec::new();
    let mut joined: Vec<u8> = Vec::new();
    for (revision, bytes) in events {
        match pieces.last_mut().filter(|last| last.revision == revision) {
            None => {
                seal(pieces.last_mut(), &mut joined);
                pieces.push(Piece { revision, events: 1, bytes });
            }
            Some(last) => {
                if joined.is_empty() {
                    joined.extend_from_slice(&last.bytes);
                }
                joined.extend_from_slice(&bytes);
                last.events += 1;
            }
        }
    }
    seal(pieces.last_mut(), &mut joined);
    pieces
}

fn seal(piece: Option<&mut Piece>, joined: &mut Vec<u8>) {
    if let Some(piece) = piece.filter(|_| !joined.is_empty()) {
        piece.bytes = std::mem::take(joined).into();
    }
}

/// The bytes of pieces.
pub(super) fn bytes_of(pieces: &[Piece]) -> usize {
    pieces.iter().map(|piece| piece.bytes.len()).sum()
}

/// Splits events into messages of less than `bytes_max` each, or of one event where that alone has more. As in etcd, all messages
/// but the last are marked.
pub(super) fn fragments(whole: Reply, bytes_max: usize) -> Vec<Reply> {
    let mut replies = Vec::new();
    let mut part: Vec<Bytes> = Vec::new();
    let front_bytes = whole.front.encoded_len();
    let mut bytes = front_bytes;
    for event in whole.events.iter().flat_map(|events| each_event(events.clone())) {
        if !part.is_empty() && bytes + event.len() >= bytes_max {
            let front = etcd::WatchResponse { fragment: true, ..whole.front.clone() };
            replies.push(Reply { front, events: std::mem::take(&mut part) });
            bytes = front_bytes;
        }
        bytes += event.len();
        part.push(event);
    }
    replies.push(Reply { front: whole.front, events: part });
    replies
}

/// The single entries of the field `events`.
fn each_event(mut entries: Bytes) -> impl Iterator<Item = Bytes> {
    std::iter::from_fn(move || {
        if entries.is_empty() {
            return None;
        }
        let mut rest = entries.as_ref();
        let (field, wire_type) = decode_key(&mut rest).expect("the entries are of this build's making");
        assert!(field == EVENTS_FIELD && wire_type == WireType::LengthDelimited, "they are events alone");
        let length = decode_varint(&mut rest).expect("the entries are of this build's making");
        let length = entries.len() - rest.len() + usize::try_from(length).expect("it lies in memory");
        Some(entries.split_to(length))
    })
}

/// The codec of the watch service.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct WatchCodec;

/// The half that writes.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct ReplyEncoder;

impl Codec for WatchCodec {
    type Encode = Reply;
    type Decode = etcd::WatchRequest;
    type Encoder = ReplyEncoder;
    type Decoder = ScanningDecoder<etcd::WatchRequest>;

    fn encoder(&mut self) -> ReplyEncoder {
        ReplyEncoder
    }

    fn decoder(&mut self) -> Self::Decoder {
        ScanningDecoder::default()
    }
}

impl Encoder for ReplyEncoder {
    type Item = Reply;
    type Error = Status;

    fn encode(&mut self, reply: Reply, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        let events: usize = reply.events.iter().map(Bytes::len).sum();
        buffer.reserve(reply.front.encoded_len() + events);
        write(&reply, buffer).map_err(|error| Status::internal(error.to_string()))
    }
}

/// Fields may come in any order and repeated ones in parts, so the events are simply written behind the front.
fn write(reply: &Reply, buffer: &mut impl BufMut) -> Result<(), prost::EncodeError> {
    reply.front.encode(buffer)?;
    reply.events.iter().for_each(|events| buffer.put(events.chunk()));
    Ok(())
}

#[cfg(test)]
mod tests {
    use ringfence_types::LeaseId;

    use super::*;

    fn put(revision: i64, key: &str, value_bytes: usize) -> Event {
        let kv = KeyValue {
            key: Bytes::copy_from_slice(key.as_bytes()),
            create_revision: Revision(2),
            mod_revision: Revision(revision),
            version: 3,
            value: vec![7; value_bytes].into(),
            lease: LeaseId(0),
        };
        Event { kind: EventKind::Put, kv }
    }

    fn encoded(events: &[Event]) -> Vec<Piece> {
        pieces(events.iter().map(|event| (event.kv.mod_revision, encode_event(event, None))))
    }

    fn decode(reply: &Reply) -> etcd::WatchResponse {
        let mut bytes = Vec::new();
        write(reply, &mut bytes).unwrap();
        etcd::WatchResponse::decode(bytes.as_slice()).unwrap()
    }

    fn front() -> etcd::WatchResponse {
        etcd::WatchResponse { watch_id: 9, ..Default::default() }
    }

    #[test]
    fn a_reply_is_read_back_as_the_response_that_it_is() {
        let deletion = Event::deletion("b".into(), Revision(6));
        let events = [put(5, "a", 3), put(6, "a", 4), deletion.clone()];
        let before = put(5, "b", 2).kv;
        let pieces = encoded(&events);
        assert_eq!(pieces.iter().map(|p| (p.revision.0, p.events)).collect::<Vec<_>>(), [(5, 1), (6, 2)]);
        let mut bytes: Vec<Bytes> = pieces.into_iter().map(|piece| piece.bytes).collect();
        bytes.push(encode_event(&deletion, Some(before.clone())));
        let response = decode(&Reply { front: front(), events: bytes });
        assert_eq!((response.watch_id, response.events.len()), (9, 4));
        for (event, read) in events.iter().zip(&response.events) {
            assert_eq!(read.kv, Some(response::key_value(event.kv.clone())));
            assert_eq!(read.r#type == 1, event.kind == EventKind::Delete);
        }
        assert_eq!(response.events[3].prev_kv, Some(response::key_value(before)));
    }

    #[test]
    fn fragments_are_small_enough_and_all_but_the_last_are_marked() {
        let events: Vec<Event> = (0..10).map(|at| put(5, &format!("k{at}"), 100)).collect();
        let bytes: Vec<Bytes> = encoded(&events).into_iter().map(|piece| piece.bytes).collect();
        assert_eq!(bytes.len(), 1, "one revision is one piece");
        let parts = fragments(Reply { front: front(), events: bytes.clone() }, 300);
        let parts: Vec<_> = parts.iter().map(decode).collect();
        assert_eq!(parts.iter().map(|part| part.events.len()).collect::<Vec<_>>(), [2; 5]);
        assert!(parts.iter().all(|part| part.encoded_len() < 300 && part.watch_id == 9));
        assert_eq!(
            parts.iter().map(|part| part.fragment).collect::<Vec<_>>(),
            [true, true, true, true, false]
        );
        let keys: Vec<_> =
            parts.iter().flat_map(|part| &part.events).map(|e| e.kv.clone().unwrap().key).collect();
        assert_eq!(keys, events.iter().map(|event| event.kv.key.clone()).collect::<Vec<_>>());
        let single = fragments(Reply { front: front(), events: bytes }, 1);
        assert_eq!(single.len(), 10, "an event is never split");
    }
}
