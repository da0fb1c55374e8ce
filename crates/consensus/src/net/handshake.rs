//! The handshake: before a byte of Raft crosses a connection, both sides have shown who they are, and each has refused
//! whoever it must not talk to (DESIGN, section 6, nodes as impostors).
//!
//! The dialling side says [`Hello`], the other answers with its own and a proof, the first proves itself and says whether it
//! accepts the other, which says the same in turn. With a shared secret a proof is an HMAC-SHA256 over all that was said,
//! and the nonces in it make it useless on any other connection. Nothing is believed, remembered or adopted before that: a
//! refusal that takes a node out of its cluster least of all.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use hmac::{Hmac, Mac};
use prost::Message;
use ringfence_proto::peers::{
    self as wire, Channel, Hello, HelloReply, Proof, Refusal, Verdict, hello_reply,
};
use ringfence_types::{NodeId, limits};
use sha2::Sha256;
use thiserror::Error;

use super::Connection;
use super::frame::{FrameReader, FrameWriter};
use super::peer_book::{AdmitError, PeerBook};
use super::witness::Witness;
use crate::identity::Identity;
use crate::quarantine::Quarantine;
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
    pub(crate) quarantine: Arc<Quarantine>,
    /// What was durable when this process started.
    pub(crate) found: FoundDurable,
}

/// What a process finds durable at its start.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct FoundDurable {
    pub(crate) vote: Option<wire::Vote>,
    pub(crate) last_log_id: Option<wire::LogId>,
}

/// A connection on which both sides know and accept each other.
pub(super) struct Session {
    pub(super) reader: FrameReader,
    pub(super) writer: FrameWriter,
    pub(super) hello: Hello,
    /// Where the other side's acknowledgements are noted.
    pub(super) witness: Arc<Witness>,
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

/// Why a connection ends whose other side has started anew meanwhile.
pub(super) const SUPERSEDED: &str = "a later start of the peer has been seen, or it was removed";

/// Waits until a connection that was lawful is so no more, and says why.
pub(super) async fn disowned(witness: &Witness, quarantine: &Quarantine) -> &'static str {
    tokio::select! {
        biased;
        () = witness.superseded() => SUPERSEDED,
        () = quarantine.wait_imposed() => "this node is in log quarantine",
    }
}

/// Both Hellos of a connection: what proofs are about.
struct Greetings<'a> {
    dialling: &'a Hello,
    answering: &'a Hello,
}

/// A refusal that says nothing against the other's data directory.
fn refusal(reason: String) -> Refusal {
    Refusal { reason, ..Refusal::default() }
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
            vote: self.found.vote,
            last_log_id: self.found.last_log_id,
        }
    }

    /// Why this node does not talk to one that says this of itself, whoever that is; else the protocol's version.
    fn check_unproven(&self, hello: &Hello) -> Result<u32, String> {
        let protocol = hello.protocol_max.min(PROTOCOL_MAX);
        if protocol < hello.protocol_min.max(PROTOCOL_MIN) {
            return Err(format!(
                "no common protocol version: node {} speaks {} to {}, this one {PROTOCOL_MIN} to {PROTOCOL_MAX}",
                hello.name, hello.protocol_min, hello.protocol_max
            ));
        }
        if hello.nonce.len() != NONCE_BYTES || hello.disk_id == 0 {
            return Err("a handshake without a nonce or a disk".to_owned());
        }
        // A node that asks to belong to the cluster does not belong to it yet.
        if hello.channel() != Channel::Join {
            self.identity.check_cluster(hello.cluster_id, &hello.founding_digest, &hello.name)?;
        }
        Ok(protocol)
    }

    /// As [`Local::check_unproven`], for one that dials.
    fn check_dialling(&self, hello: &Hello) -> Result<u32, String> {
        let protocol = self.check_unproven(hello)?;
        if hello.channel() == Channel::Join {
            return Ok(protocol);
        }
        let (own_id, own_name) = (self.identity.node_id(), self.identity.name());
        if hello.target_id != own_id.0 {
            return Err(format!(
                "node {} looks for node {:x} at this address, but this is node {own_id} ({own_name})",
                hello.name, hello.target_id
            ));
        }
        if hello.node_id == own_id.0 {
            return Err(format!("node {own_id} ({}) has this node's own id", hello.name));
        }
        Ok(protocol)
    }

    /// Remembers a node that is accepted, durably, and adopts the cluster's number where this node is being founded and
    /// does not know it yet.
    async fn remember(&self, hello: &Hello) -> Result<Arc<Witness>, AdmitError> {
        let (cluster_id, digest) = (hello.cluster_id, &hello.founding_digest);
        let adopted = self.identity.admit_cluster(cluster_id, digest, &hello.name);
        adopted.map_err(|reason| AdmitError::Refused(refusal(reason)))?;
        self.peers.admit(hello).await
    }

    fn proof(&self, side: &[u8], greetings: &Greetings<'_>, refusal: Option<&Refusal>) -> Bytes {
        let Some(secret) = &self.secret else { return Bytes::new() };
        let mut mac = Hmac::<Sha256>::new_from_slice(&secret.0).expect("HMAC takes a key of any length");
        mac.update(side);
        for hello in [greetings.dialling, greetings.answering] {
            mac.update(&hello.encode_length_delimited_to_vec());
        }
        if let Some(refusal) = refusal {
            mac.update(&refusal.encode_length_delimited_to_vec());
        }
        Bytes::copy_from_slice(&mac.finalize().into_bytes())
    }

    /// Checks a proof in a time that does not depend on where it differs.
    fn check_proof(&self, expected: &Bytes, shown: &Bytes, name: &str) -> Result<(), HandshakeError> {
        use subtle::ConstantTimeEq;
        if bool::from(expected.ct_eq(shown)) {
            return Ok(());
        }
        Err(HandshakeError::Refused(match (expected.is_empty(), shown.is_empty()) {
            (true, _) => format!("node {name} uses a peer secret, but this node was started without one"),
            (_, true) => format!("node {name} was started without the peer secret"),
            _ => format!("node {name} has another peer secret"),
        }))
    }

    /// What it means that a node, which has proven who it is, refuses this one.
    fn refused_by(&self, name: &str, refusal: Refusal) -> HandshakeError {
        if refusal.impostor {
            self.quarantine.impose(&format!("{name} refuses it: {}", refusal.reason));
        }
        if refusal.removed {
            self.quarantine.expel(&self.identity);
        }
        HandshakeError::RefusedByPeer(refusal.reason)
    }

    /// Dials: connects nothing itself, but speaks first on a fresh connection to node `target`.
    pub(super) async fn dial(
        &self,
        connection: Connection,
        channel: Channel,
        target: NodeId,
    ) -> Result<Session, HandshakeError> {
        let greeting = self.greet(connection, channel, Some(target));
        let result = rt::timeout(HANDSHAKE_TIMEOUT, greeting).await.unwrap_or(Err(HandshakeError::Timeout));
        self.note_end(target, &result);
        result
    }

    /// Dials a member of a cluster that this node does not belong to yet.
    pub(super) async fn dial_to_join(&self, connection: Connection) -> Result<Session, HandshakeError> {
        let greeting = self.greet(connection, Channel::Join, None);
        rt::timeout(HANDSHAKE_TIMEOUT, greeting).await.unwrap_or(Err(HandshakeError::Timeout))
    }

    async fn greet(
        &self,
        connection: Connection,
        channel: Channel,
        target: Option<NodeId>,
    ) -> Result<Session, HandshakeError> {
        self.quarantine.check_imposed().map_err(HandshakeError::Refused)?;
        let mut reader = FrameReader::new(connection.reader, limits::HANDSHAKE_FRAME_BYTES_MAX);
        let mut writer = FrameWriter::new(connection.writer);
        let own = self.hello(channel, target.unwrap_or(NodeId(0)));
        writer.send(&own).await?;
        let reply: HelloReply = reader.expect().await?;
        let hello = match reply.reply {
            Some(hello_reply::Reply::Hello(hello)) => hello,
            Some(hello_reply::Reply::Refusal(reason)) => return Err(HandshakeError::RefusedByPeer(reason)),
            None => return Err(HandshakeError::Refused("an empty handshake".to_owned())),
        };
        if let Some(target) = target.filter(|target| target.0 != hello.node_id) {
            let found = NodeId(hello.node_id);
            let reason = format!("node {target} was expected at this address, but node {found} is there");
            return Err(HandshakeError::Refused(reason));
        }
        let greetings = Greetings { dialling: &own, answering: &hello };
        self.check_proof(&self.proof(b"answering", &greetings, None), &reply.mac, &hello.name)?;
        self.check_unproven(&hello).map_err(HandshakeError::Refused)?;
        // A node that joins has nothing yet that could contradict the other.
        let refusal = target.and_then(|_| self.peers.judge(&hello).err());
        let mac = self.proof(b"dialling", &greetings, refusal.as_ref());
        writer.send(&Proof { mac, refusal: refusal.clone() }).await?;
        if let Some(refusal) = refusal {
            return Err(HandshakeError::Refused(refusal.reason));
        }
        let verdict: Verdict = reader.expect().await?;
        let expected = self.proof(b"judging", &greetings, verdict.refusal.as_ref());
        self.check_proof(&expected, &verdict.mac, &hello.name)?;
        if let Some(refusal) = verdict.refusal {
            return Err(self.refused_by(&hello.name, refusal));
        }
        let witness = match target {
            Some(_) => self.remember(&hello).await?,
            None => Arc::default(),
        };
        reader.set_frame_bytes_max(limits::PEER_FRAME_BYTES_MAX);
        Ok(Session { reader, writer, hello, witness })
    }

    /// Answers on a connection that somebody opened.
    pub(super) async fn answer(&self, connection: Connection) -> Result<Session, HandshakeError> {
        let answering = self.welcome(connection);
        rt::timeout(HANDSHAKE_TIMEOUT, answering).await.unwrap_or(Err(HandshakeError::Timeout))
    }

    async fn welcome(&self, connection: Connection) -> Result<Session, HandshakeError> {
        let mut reader = FrameReader::new(connection.reader, limits::HANDSHAKE_FRAME_BYTES_MAX);
        let mut writer = FrameWriter::new(connection.writer);
        let hello: Hello = reader.expect().await?;
        let protocol = match self.check_dialling(&hello) {
            Ok(protocol) => protocol,
            Err(reason) => {
                let reply = Some(hello_reply::Reply::Refusal(reason.clone()));
                writer.send(&HelloReply { reply, mac: Bytes::new(), protocol: 0 }).await?;
                return Err(HandshakeError::Refused(reason));
            }
        };
        let own = self.hello(hello.channel(), NodeId(hello.node_id));
        let greetings = Greetings { dialling: &hello, answering: &own };
        let mac = self.proof(b"answering", &greetings, None);
        let reply = Some(hello_reply::Reply::Hello(own.clone()));
        writer.send(&HelloReply { reply, mac, protocol }).await?;
        let proof: Proof = reader.expect().await?;
        let expected = self.proof(b"dialling", &greetings, proof.refusal.as_ref());
        self.check_proof(&expected, &proof.mac, &hello.name)?;
        let admitted = match proof.refusal {
            Some(refusal) => Err(self.refused_by(&hello.name, refusal)),
            None => self.admit_dialling(&mut writer, &greetings).await,
        };
        let session = admitted.map(|witness| {
            reader.set_frame_bytes_max(limits::PEER_FRAME_BYTES_MAX);
            Session { reader, writer, hello: hello.clone(), witness }
        });
        self.note_end(NodeId(hello.node_id), &session);
        session
    }

    /// Judges whoever dials, and tells it what came of that.
    async fn admit_dialling(
        &self,
        writer: &mut FrameWriter,
        greetings: &Greetings<'_>,
    ) -> Result<Arc<Witness>, HandshakeError> {
        let remembered = match (self.quarantine.check_imposed(), greetings.dialling.channel()) {
            (Err(reason), _) => Err(AdmitError::Refused(refusal(reason))),
            (Ok(()), Channel::Join) => Ok(Arc::default()),
            (Ok(()), _) => self.remember(greetings.dialling).await,
        };
        let (refusal, admitted) = match remembered {
            Ok(witness) => (None, Ok(witness)),
            Err(AdmitError::Refused(refusal)) => {
                let reason = refusal.reason.clone();
                (Some(refusal), Err(HandshakeError::Refused(reason)))
            }
            Err(error @ AdmitError::Disk(_)) => return Err(error.into()),
        };
        let mac = self.proof(b"judging", greetings, refusal.as_ref());
        writer.send(&Verdict { mac, refusal }).await?;
        admitted
    }

    /// Remembers how a handshake with a node that is known by then ended.
    fn note_end(&self, id: NodeId, result: &Result<Session, HandshakeError>) {
        match result {
            Ok(_) => self.peers.note_end(id, None),
            Err(error @ (HandshakeError::Refused(_) | HandshakeError::RefusedByPeer(_))) => {
                self.peers.note_end(id, Some(&error.to_string()));
            }
            // Says nothing about who is there.
            Err(HandshakeError::Io(_) | HandshakeError::Timeout) => {}
        }
    }
}

impl From<AdmitError> for HandshakeError {
    fn from(error: AdmitError) -> HandshakeError {
        match error {
            AdmitError::Refused(refusal) => HandshakeError::Refused(refusal.reason),
            AdmitError::Disk(error) => HandshakeError::Io(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use ringfence_disk::SimDisk;

    use super::*;
    use crate::api::{Config, Founder, Secret};
    use crate::failures::Failures;
    use crate::identity::Found;

    /// One of two founders, on a disk of its own.
    fn local(name: &str, secret: Option<&str>) -> Local {
        let founder = |name: &str| Founder { name: name.to_owned(), peer_address: format!("{name}:1") };
        let config = Config {
            founders: vec![founder("a"), founder("b")],
            peer_secret: secret.map(|secret| Secret(secret.as_bytes().to_vec())),
            ..Config::sample(name)
        };
        let disk = Arc::new(SimDisk::new(0));
        let identity = Identity::open(disk.clone(), &config, Found::Fresh { restored: 0 });
        let quarantine = Quarantine::open(disk.clone(), Failures::new(), false, false);
        Local {
            identity: Arc::new(identity.expect("a fresh disk")),
            version: config.version,
            leader_lease: Duration::from_millis(400),
            secret: config.peer_secret,
            peers: PeerBook::open(disk).expect("a fresh disk"),
            quarantine: Arc::new(quarantine.expect("a fresh disk")),
            found: FoundDurable::default(),
        }
    }

    fn connection() -> (Connection, Connection) {
        let (near, far) = tokio::io::duplex(1 << 16);
        let end = |stream| {
            let (reader, writer) = tokio::io::split(stream);
            Connection { reader: Box::new(reader), writer: Box::new(writer), remote: "test:1".to_owned() }
        };
        (end(near), end(far))
    }

    /// What each side comes to: none for a session.
    async fn shake(dialling: &Local, answering: &Local) -> (Option<String>, Option<String>) {
        let (near, far) = connection();
        let target = answering.identity.node_id();
        let (dialled, answered) =
            tokio::join!(dialling.dial(near, Channel::Control, target), answering.answer(far));
        (dialled.err().map(|error| error.to_string()), answered.err().map(|error| error.to_string()))
    }

    fn is_out(local: &Local) -> bool {
        local.quarantine.imposed().is_some()
    }

    #[tokio::test]
    async fn two_that_fit_each_other_have_met() {
        for secret in [None, Some("a secret of both")] {
            let (a, b) = (local("a", secret), local("b", secret));
            assert_eq!(shake(&a, &b).await, (None, None));
            assert_eq!((a.peers.met(), b.peers.met()), (vec![NodeId(2)], vec![NodeId(1)]));
        }
    }

    #[tokio::test]
    async fn an_impostor_is_told_so_whoever_dials() {
        for secret in [None, Some("a secret of both")] {
            for impostor_dials in [false, true] {
                let (a, b) = (local("a", secret), local("b", secret));
                a.peers.set_members([(NodeId(2), b.identity.disk_id() ^ 1)]);
                let (dialling, answering) = if impostor_dials { (&b, &a) } else { (&a, &b) };
                let (dialled, answered) = shake(dialling, answering).await;
                for told in [dialled, answered] {
                    let told = told.expect("both sides know");
                    assert!(told.contains("emptied or replaced"), "{told}");
                }
                assert!(is_out(&b) && !is_out(&a));
                assert!(b.peers.met().is_empty() && a.peers.met().is_empty());
                // From now on it speaks with nobody.
                a.peers.set_members([(NodeId(2), b.identity.disk_id())]);
                let (dialled, _) = shake(&a, &b).await;
                assert!(dialled.is_some_and(|told| told.contains("log quarantine")));
            }
        }
    }

    #[tokio::test]
    async fn nobody_without_the_secret_puts_a_node_out() {
        for (one, other) in
            [(Some("a secret"), Some("another")), (Some("a secret"), None), (None, Some("a secret"))]
        {
            for impostor_dials in [false, true] {
                let (a, b) = (local("a", one), local("b", other));
                a.peers.set_members([(NodeId(2), b.identity.disk_id() ^ 1)]);
                let (dialling, answering) = if impostor_dials { (&b, &a) } else { (&a, &b) };
                let (dialled, answered) = shake(dialling, answering).await;
                assert!(dialled.is_some() && answered.is_some());
                assert!(!is_out(&a) && !is_out(&b));
            }
        }
    }
}
