//! The peers' transport as a stranger can reach it; see [`crate::fuzzing`].

use std::io::Cursor;
use std::sync::Arc;

use futures_util::FutureExt;
use prost::Message;
use ringfence_disk::SimDisk;
use ringfence_proto::peers::{self as wire, Channel, snapshot_request};
use ringfence_types::{NodeId, limits};

use super::Connection;
use super::frame::FrameReader;
use super::handshake::{FoundDurable, Local};
use super::peer_book::PeerBook;
use super::pipeline;
use super::serve_snapshot::Incoming;
use crate::api::{Config, Founder, Secret};
use crate::failures::Failures;
use crate::identity::{Found, Identity};
use crate::quarantine::Quarantine;

/// Reads frames as a channel does that is past its handshake: the first byte says which messages they hold.
///
/// # Panics
/// If a request that can be read means something else when it is sent on.
pub fn peer_frames(data: &[u8]) {
    let Some((kind, bytes)) = data.split_first() else { return };
    match kind % 6 {
        0 => frames(bytes, |_: wire::RequestFrame| {}),
        1 => frames(bytes, |_: wire::ReplyFrame| {}),
        2 => frames(bytes, append_request),
        3 => frames(bytes, |reply: wire::AppendReply| drop(pipeline::result_from_wire(reply))),
        4 => frames(bytes, |_: wire::SnapshotRequest| {}),
        _ => frames(bytes, |_: wire::SnapshotReply| {}),
    }
}

fn append_request(request: wire::AppendRequest) {
    if let Ok(request) = pipeline::from_wire(&request) {
        let again = pipeline::from_wire(&pipeline::to_wire(&request)).expect("our own message");
        assert_eq!(again.entries, request.entries);
        assert_eq!((again.vote, again.prev_log_id), (request.vote, request.prev_log_id));
    }
}

/// All frames of a stream, up to the first that is none.
fn frames<M: Message + Default>(bytes: &[u8], take: impl Fn(M)) {
    let mut reader = FrameReader::new(stream(bytes), limits::PEER_FRAME_BYTES_MAX);
    while let Ok(Some(message)) = reader.next().now_or_never().expect("a buffer is always ready") {
        take(message);
    }
}

fn stream(bytes: &[u8]) -> Box<Cursor<Vec<u8>>> {
    Box::new(Cursor::new(bytes.to_vec()))
}

/// Shakes hands with somebody who says `data` whatever this side says. Bits of the first byte: whether this side dials,
/// and whether it has a secret.
///
/// # Panics
/// If a side with a secret lets in whoever cannot have answered this very greeting.
pub fn handshake(data: &[u8]) {
    let Some((kind, bytes)) = data.split_first() else { return };
    let secret = (kind & 2 != 0).then(|| Secret(b"a secret of peers".to_vec()));
    let local = local(secret);
    let connection = Connection {
        reader: stream(bytes),
        writer: Box::new(tokio::io::sink()),
        remote: "a stranger".to_owned(),
    };
    let session = on_a_runtime(async {
        match kind & 1 {
            0 => local.answer(connection).await,
            _ => local.dial(connection, Channel::Append, NodeId(2)).await,
        }
    });
    assert!(local.secret.is_none() || session.is_err(), "a proof answers a nonce that was drawn just now");
}

/// Node 1 of two founders, on a disk of its own.
fn local(secret: Option<Secret>) -> Local {
    let founder = |name: &str| Founder { name: name.to_owned(), peer_address: format!("{name}:1") };
    let config = Config {
        founders: vec![founder("a"), founder("b")],
        peer_secret: secret.clone(),
        ..Config::sample("a")
    };
    let disk = Arc::new(SimDisk::new(0));
    let identity = Identity::open(disk.clone(), &config, Found::Fresh { restored: 0 }).expect("a fresh disk");
    let quarantine = Quarantine::open(disk.clone(), Failures::new(), false, false).expect("a fresh disk");
    Local {
        identity: Arc::new(identity),
        version: config.version,
        leader_lease: config.timing.leader_lease,
        secret,
        peers: PeerBook::open(disk).expect("a fresh disk"),
        quarantine: Arc::new(quarantine),
        found: FoundDurable::default(),
    }
}

/// Receives a snapshot as the messages in `data` say, up to the point where it would be installed.
///
/// # Panics
/// If more is written than the sender has announced.
pub fn snapshot_transfer(data: &[u8]) {
    let disk = SimDisk::new(0);
    let mut reader = FrameReader::new(stream(data), limits::PEER_FRAME_BYTES_MAX);
    on_a_runtime(async {
        let mut incoming: Option<(Incoming, u64)> = None;
        while let Ok(Some(request)) = reader.next::<wire::SnapshotRequest>().await {
            match request.body {
                Some(snapshot_request::Body::Begin(begin)) => {
                    let announced = begin.bytes;
                    incoming = Incoming::open(&disk, begin).ok().map(|opened| (opened, announced));
                }
                Some(snapshot_request::Body::Chunk(chunk)) => {
                    if let Some((incoming, announced)) = &mut incoming
                        && let Ok(offset) = incoming.write(chunk).await
                    {
                        assert!(offset <= *announced, "{offset} bytes of {announced}");
                    }
                }
                Some(snapshot_request::Body::End(_)) | None => {}
            }
        }
    });
}

fn on_a_runtime<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build();
    runtime.expect("a runtime without threads can be had").block_on(future)
}
