//! The handshake: before a byte of Raft crosses a connection, both sides have shown who they are, and each has refused
//! whoever it must not talk to (DESIGN, section 6, nodes as impostors).
//!
//! The dialling side says [`Hello`], the other answers with its own and a proof, the first proves itself in turn. With a
//! shared secret a proof is an HMAC-SHA256 over both Hellos, whose nonces make it useless on any other connection.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use hmac::{Hmac, Mac};
use parking_lot::Mutex;
use prost::Message;
use ringfence_proto::peers::{Channel, Hello, HelloReply, Proof, hello_reply};
use ringfence_types::{NodeId, limits};
use sha2::Sha256;
use thiserror::Error;

use super::Connection;
use super::frame::{FrameReader, FrameWriter};
use crate::api::Timing;
use crate::identity::Identity;
use crate::rt;

/// Versions of the peers' protocol that this build speaks.
const PROTOCOL_MIN: u32 = 1;
const PROTOCOL_MAX: u32 = 1;
const NONCE_BYTES: usize = 32;
/// A stranger gets this long to show who it is.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(2);

/// What this node says of itself and remembers of others.
#[derive(Debug)]
pub(crate) struct Local {
    pub(crate) identity: Arc<Identity>,
    pub(crate) version: String,
    pub(crate) leader_lease: Duration,
    pub(crate) secret: Option<crate::api::Secret>,
    pub(crate) peers: PeerBook,
}

/// What this node knows of each other node, from the membership and from handshakes.
#[derive(Debug, Default)]
pub(crate) struct PeerBook {
    peers: Mutex<BTreeMap<NodeId, Peer>>,
    /// Who refuses this node, or is refused by it, as of the last try to reach it.
    refusals: Mutex<BTreeMap<NodeId, String>>,
}

#[derive(Debug, Clone, Default)]
struct Peer {
    /// From the membership; none before the cluster has formed.
    disk_id: Option<u64>,
    /// The highest boot number seen, with the process that showed it.
    boot: Option<(u64, u64)>,
    leader_lease: Option<Duration>,
}

/// A connection on which both sides know each other.
pub(super) struct Session {
    pub(super) reader: FrameReader,
    pub(super) writer: FrameWriter,
    pub(super) hello: Hello,
}

/// Why there is no session.
#[derive(Debug, Error)]
pub(crate) enum HandshakeError {
    /// The stream broke.
    #[error("connection: {0}")]
    Io(#[from] io::Error),
    /// This side refuses the other.
    #[error("refused: {0}")]
    Refused(String),
    /// The other side refuses this one.
    #[error("the peer refuses this node: {0}")]
    RefusedByPeer(String),
    /// It took too long.
    #[error("no handshake in {HANDSHAKE_TIMEOUT:?}")]
    Timeout,
}

impl HandshakeError {
    /// Whether what came back was no frame of a peer at all.
    pub(crate) fn is_foreign_protocol(&self) -> bool {
        matches!(self, HandshakeError::Io(error) if error.kind() == io::ErrorKind::InvalidData)
    }
}

impl PeerBook {
    /// Takes over the membership's disk ids.
    pub(crate) fn set_members(&self, members: impl IntoIterator<Item = (NodeId, u64)>) {
        let mut peers = self.peers.lock();
        for (id, disk_id) in members {
            peers.entry(id).or_default().disk_id = Some(disk_id);
        }
    }

    /// The smallest leader lease that the given voters told; one that told nothing counts as the smallest allowed.
    pub(crate) fn leader_lease_min(&self, voters: impl IntoIterator<Item = NodeId>) -> Duration {
        let peers = self.peers.lock();
        let told = voters.into_iter().map(|id| peers.get(&id).and_then(|peer| peer.leader_lease));
        told.map(|lease| lease.unwrap_or(Timing::LEADER_LEASE_MIN)).min().unwrap_or(Duration::MAX)
    }

    /// Why there is no connection to members that could be reached, in plain words.
    pub(crate) fn refusals(&self) -> Vec<String> {
        self.refusals.lock().values().cloned().collect()
    }

    /// Remembers whether a try to reach a member ended in a refusal; a new one is told once, not with each try.
    fn note_refusal(&self, id: NodeId, refusal: Option<String>) {
        let mut refusals = self.refusals.lock();
        let Some(reason) = refusal else {
            refusals.remove(&id);
            return;
        };
        if refusals.get(&id) != Some(&reason) {
            tracing::warn!("no connection to node {id}: {reason}");
            refusals.insert(id, reason);
        }
    }

    /// Why a node that says this of itself is refused, if it is; else it is remembered.
    fn admit(&self, hello: &Hello) -> Result<(), String> {
        let id = NodeId(hello.node_id);
        let mut peers = self.peers.lock();
        let peer = peers.entry(id).or_default();
        if let Some(disk_id) = peer.disk_id.filter(|disk_id| *disk_id != hello.disk_id) {
            return Err(format!(
                "node {id} ({}) has disk {:016x}, but the member of that id has disk {disk_id:016x}: its data \
                 directory was emptied or replaced, and it must be removed and joined anew",
                hello.name, hello.disk_id
            ));
        }
        if let Some((boot, process)) = peer.boot {
            let same_boot_of_other = hello.boot_number == boot && hello.process_id != process;
            if hello.boot_number < boot || same_boot_of_other {
                return Err(format!(
                    "node {id} ({}) shows start {} of its data directory, but start {boot} was seen already: the \
                     directory is an old copy, or is in use twice",
                    hello.name, hello.boot_number
                ));
            }
        }
        peer.boot = Some((hello.boot_number, hello.process_id));
        peer.leader_lease = Some(Duration::from_millis(hello.leader_lease_ms));
        Ok(())
    }
}

impl Local {
    fn hello(&self, channel: Channel, target: NodeId) -> Hello {
        let identity = &self.identity;
        let nonce: Vec<u8> = (0..NONCE_BYTES / 8).flat_map(|_| rt::random_u64().to_le_bytes()).collect();
        Hello {
            protocol_min: PROTOCOL_MIN,
            protocol_max: PROTOCOL_MAX,
            channel: channel.into(),
            cluster_id: identity.cluster_id(),
            founding_digest: Bytes::copy_from_slice(identity.founding_digest()),
            node_id: identity.node_id().0,
            target_id: target.0,
            disk_id: identity.disk_id(),
            boot_number: identity.boot_number(),
            process_id: identity.process_id(),
            leader_lease_ms: self.leader_lease.as_millis() as u64,
            name: identity.name().to_owned(),
            version: self.version.clone(),
            nonce: nonce.into(),
            vote: None,
            last_log_id: None,
        }
    }

    /// Why this node does not talk to one that says this of itself, if it does not. Adopts the cluster's number where
    /// this node is being founded and does not know it yet.
    fn admit(&self, hello: &Hello) -> Result<u32, String> {
        let protocol = hello.protocol_max.min(PROTOCOL_MAX);
        if protocol < hello.protocol_min.max(PROTOCOL_MIN) {
            return Err(format!(
                "no common protocol version: node {} speaks {} to {}, this one {PROTOCOL_MIN} to {PROTOCOL_MAX}",
                hello.name, hello.protocol_min, hello.protocol_max
            ));
        }
        // First of all: the ids of a foreign cluster say nothing here.
        self.identity.check_cluster(hello.cluster_id, &hello.founding_digest, &hello.name)?;
        if hello.target_id != self.identity.node_id().0 {
            return Err(format!(
                "node {} looks for node {:x} at this address, but this is node {} ({})",
                hello.name,
                hello.target_id,
                self.identity.node_id(),
                self.identity.name()
            ));
        }
        self.admit_answering(hello)?;
        Ok(protocol)
    }

    fn admit_answering(&self, hello: &Hello) -> Result<(), String> {
        if hello.nonce.len() != NONCE_BYTES {
            return Err("a handshake without a nonce".to_owned());
        }
        self.identity.check_cluster(hello.cluster_id, &hello.founding_digest, &hello.name)?;
        if hello.node_id == self.identity.node_id().0 {
            return Err(format!("node {} ({}) has this node's own id", hello.node_id, hello.name));
        }
        self.identity.admit_cluster(hello.cluster_id, &hello.founding_digest, &hello.name)?;
        self.peers.admit(hello)
    }

    fn proof(&self, side: &[u8], dialling: &Hello, answering: &Hello) -> Bytes {
        let Some(secret) = &self.secret else { return Bytes::new() };
        let mut mac = Hmac::<Sha256>::new_from_slice(&secret.0).expect("HMAC takes a key of any length");
        mac.update(side);
        for hello in [dialling, answering] {
            mac.update(&hello.encode_length_delimited_to_vec());
        }
        Bytes::copy_from_slice(&mac.finalize().into_bytes())
    }

    /// Checks a proof in a time that does not depend on where it differs.
    fn check_proof(&self, expected: &Bytes, shown: &Bytes, name: &str) -> Result<(), String> {
        use subtle::ConstantTimeEq;
        if bool::from(expected.ct_eq(shown)) {
            return Ok(());
        }
        Err(match (expected.is_empty(), shown.is_empty()) {
            (true, _) => format!("node {name} uses a peer secret, but this node was started without one"),
            (_, true) => format!("node {name} was started without the peer secret"),
            _ => format!("node {name} has another peer secret"),
        })
    }

    /// Dials: connects nothing itself, but speaks first on a fresh connection to node `target`.
    pub(super) async fn dial(
        &self,
        connection: Connection,
        channel: Channel,
        target: NodeId,
    ) -> Result<Session, HandshakeError> {
        let result = self.speak_first(connection, channel, Some(target)).await;
        match &result {
            Ok(_) => self.peers.note_refusal(target, None),
            Err(error @ (HandshakeError::Refused(_) | HandshakeError::RefusedByPeer(_))) => {
                self.peers.note_refusal(target, Some(error.to_string()));
            }
            // Says nothing about who is there.
            Err(HandshakeError::Io(_) | HandshakeError::Timeout) => {}
        }
        result
    }

    /// Dials a member of a cluster that this node does not belong to yet.
    pub(super) async fn dial_to_join(&self, connection: Connection) -> Result<Session, HandshakeError> {
        self.speak_first(connection, Channel::Join, None).await
    }

    async fn speak_first(
        &self,
        connection: Connection,
        channel: Channel,
        target: Option<NodeId>,
    ) -> Result<Session, HandshakeError> {
        let dialling = async {
            let mut reader = FrameReader::new(connection.reader, limits::HANDSHAKE_FRAME_BYTES_MAX);
            let mut writer = FrameWriter::new(connection.writer);
            let own = self.hello(channel, target.unwrap_or(NodeId(0)));
            writer.send(&own).await?;
            let reply: HelloReply = reader.expect().await?;
            let hello = match reply.reply {
                Some(hello_reply::Reply::Hello(hello)) => hello,
                Some(hello_reply::Reply::Refusal(reason)) => {
                    return Err(HandshakeError::RefusedByPeer(reason));
                }
                None => return Err(HandshakeError::Refused("an empty handshake".to_owned())),
            };
            if let Some(target) = target.filter(|target| target.0 != hello.node_id) {
                let found = NodeId(hello.node_id);
                let reason = format!("node {target} was expected at this address, but node {found} is there");
                return Err(HandshakeError::Refused(reason));
            }
            let expected = self.proof(b"answering", &own, &hello);
            self.check_proof(&expected, &reply.mac, &hello.name).map_err(HandshakeError::Refused)?;
            // A node that joins has nothing yet that could contradict the other.
            if target.is_some() {
                self.admit_answering(&hello).map_err(HandshakeError::Refused)?;
            }
            writer.send(&Proof { mac: self.proof(b"dialling", &own, &hello) }).await?;
            reader.set_frame_bytes_max(limits::PEER_FRAME_BYTES_MAX);
            Ok(Session { reader, writer, hello })
        };
        rt::timeout(HANDSHAKE_TIMEOUT, dialling).await.unwrap_or(Err(HandshakeError::Timeout))
    }

    /// Answers on a connection that somebody opened.
    pub(super) async fn answer(&self, connection: Connection) -> Result<Session, HandshakeError> {
        let answering = async {
            let mut reader = FrameReader::new(connection.reader, limits::HANDSHAKE_FRAME_BYTES_MAX);
            let mut writer = FrameWriter::new(connection.writer);
            let hello: Hello = reader.expect().await?;
            let own = self.hello(hello.channel(), NodeId(hello.node_id));
            let mac = self.proof(b"answering", &hello, &own);
            // With a secret nothing is believed, nor adopted, before the proof; without one the checks can come first,
            // so that the refused side is told why.
            let admitted = match (&self.secret, hello.channel()) {
                (_, Channel::Join) => Self::admit_joining(&hello),
                (None, _) => self.admit(&hello),
                (Some(_), _) => self.precheck(&hello),
            };
            let protocol = match admitted {
                Ok(protocol) => protocol,
                Err(reason) => return Self::refuse(&mut writer, reason).await,
            };
            let reply = Some(hello_reply::Reply::Hello(own.clone()));
            writer.send(&HelloReply { reply, mac, protocol }).await?;
            let proof: Proof = reader.expect().await?;
            let expected = self.proof(b"dialling", &hello, &own);
            self.check_proof(&expected, &proof.mac, &hello.name).map_err(HandshakeError::Refused)?;
            if self.secret.is_some() && hello.channel() != Channel::Join {
                self.admit(&hello).map_err(HandshakeError::Refused)?;
            }
            reader.set_frame_bytes_max(limits::PEER_FRAME_BYTES_MAX);
            Ok(Session { reader, writer, hello })
        };
        rt::timeout(HANDSHAKE_TIMEOUT, answering).await.unwrap_or(Err(HandshakeError::Timeout))
    }

    /// Why a node that asks to belong to the cluster is not even listened to, if it is not.
    fn admit_joining(hello: &Hello) -> Result<u32, String> {
        if hello.protocol_max < PROTOCOL_MIN || hello.protocol_min > PROTOCOL_MAX {
            return Err("no common protocol version".to_owned());
        }
        if hello.nonce.len() != NONCE_BYTES || hello.disk_id == 0 {
            return Err("a handshake without a nonce or a disk".to_owned());
        }
        Ok(hello.protocol_max.min(PROTOCOL_MAX))
    }

    /// What can be said of a Hello that is not proven yet: only that the two speak the same protocol.
    fn precheck(&self, hello: &Hello) -> Result<u32, String> {
        if hello.protocol_max < PROTOCOL_MIN || hello.protocol_min > PROTOCOL_MAX {
            return Err("no common protocol version".to_owned());
        }
        self.identity.check_cluster(hello.cluster_id, &hello.founding_digest, &hello.name)?;
        Ok(hello.protocol_max.min(PROTOCOL_MAX))
    }

    async fn refuse(writer: &mut FrameWriter, reason: String) -> Result<Session, HandshakeError> {
        let reply = Some(hello_reply::Reply::Refusal(reason.clone()));
        writer.send(&HelloReply { reply, mac: Bytes::new(), protocol: 0 }).await?;
        Err(HandshakeError::Refused(reason))
    }
}
