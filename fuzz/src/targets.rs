//! The targets. What each one demands beyond "no panic" stands in its description.

use std::panic::{self, AssertUnwindSafe};
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use prost::Message;
use ringfence_disk::{Disk, Open, SimDisk};
use ringfence_proto::request::Transaction;
use ringfence_proto::{command, etcdserverpb as etcd, metadata, outcome, request, scan};
use ringfence_store::snapshot_file::{self as file, Summary};
use ringfence_store::{Entry, Options, Payload, Store, StoreError};
use ringfence_types::{Command, Index, LogId, NodeId, Put, PutLease, PutValue, Revision, Term};

/// A segment of the log: it opens or is refused, and what opens stays what it is.
pub fn log_segment(data: &[u8]) {
    ringfence_wal::fuzzing::segment(data);
}

/// Batches of the log whose checksums are right: as [`log_segment`].
pub fn log_batches(data: &[u8]) {
    ringfence_wal::fuzzing::batches(data);
}

/// Entries, votes, positions and memberships in the log: what is read is written as what is read again.
pub fn raft_records(data: &[u8]) {
    ringfence_consensus::fuzzing::raft_records(data);
}

/// The lines of an identity file: as [`raft_records`].
pub fn identity_file(data: &[u8]) {
    with_text(data, ringfence_consensus::fuzzing::identity_file);
}

/// Messages of a peer: a request that is read means the same when it is sent on.
pub fn peer_frames(data: &[u8]) {
    ringfence_consensus::fuzzing::peer_frames(data);
}

/// A stranger's part of a handshake: with a secret nobody comes in.
pub fn handshake(data: &[u8]) {
    ringfence_consensus::fuzzing::handshake(data);
}

/// A snapshot on its way to this node: no more is written than was announced.
pub fn snapshot_transfer(data: &[u8]) {
    ringfence_consensus::fuzzing::snapshot_transfer(data);
}

/// What the log holds for the state machine: as [`raft_records`].
pub fn log_messages(data: &[u8]) {
    let bytes = Bytes::copy_from_slice(data);
    if let Ok(decoded) = command::decode(&bytes) {
        assert_eq!(command::decode(&command::encode(&decoded)).expect("our own bytes"), decoded);
    }
    if let Ok(decoded) = outcome::decode(&bytes) {
        assert_eq!(outcome::decode(&outcome::encode(&decoded)).expect("our own bytes"), decoded);
    }
}

/// A client's request (the first byte says which): the command that is made of it survives the log.
pub fn client_requests(data: &[u8]) {
    let Some((kind, bytes)) = data.split_first() else { return };
    let command = match kind % 5 {
        0 => {
            let range = |range| request::range(range, std::iter::empty());
            return drop(etcd::RangeRequest::decode(bytes).map(range));
        }
        1 => etcd::PutRequest::decode(bytes).map(request::put),
        2 => etcd::DeleteRangeRequest::decode(bytes).map(request::delete_range),
        3 => etcd::TxnRequest::decode(bytes).map(|txn| {
            request::txn(txn).map(|txn| match txn {
                Transaction::Read(txn, _) => Command::Txn(txn),
                Transaction::Write(command) => command,
            })
        }),
        _ => etcd::CompactionRequest::decode(bytes).map(|compact| Ok(request::compaction(&compact))),
    };
    if let Ok(Ok(command)) = command {
        let survivor =
            command::decode(&command::encode(&command)).expect("a parsed command has a form in the log");
        assert_eq!(survivor, command);
    }
}

/// A look through a client's request (the first byte says which) for extensions, or a value of its metadata: what a decoder
/// accepts is found well-formed, and what was passed loses nothing from 1000 up when it is written again.
pub fn extensions(data: &[u8]) {
    let Some((kind, bytes)) = data.split_first() else { return };
    match kind % 5 {
        0 => looked_through::<etcd::PutRequest>(bytes),
        1 => looked_through::<etcd::DeleteRangeRequest>(bytes),
        2 => looked_through::<etcd::TxnRequest>(bytes),
        3 => drop(metadata::Carried::read(std::iter::once((metadata::FENCE_KEY, bytes)))),
        _ => drop(metadata::Carried::read(std::iter::once((metadata::SESSION_KEY, bytes)))),
    }
}

fn looked_through<M: Message + Default + 'static>(bytes: &[u8]) {
    let shape = scan::shape_of::<M>().expect("these requests are looked through");
    let found = scan::scan(bytes, shape);
    if let (Ok(message), Ok(())) = (M::decode(bytes), found) {
        scan::scan(&message.encode_to_vec(), shape).expect("what was passed is passed again");
    }
}

/// One line of an import: what is read is written as what is read again.
pub fn import_record(data: &[u8]) {
    with_text(data, ringfence::fuzzing::import_record);
}

/// A configuration file: it is read, or refused with a reason.
pub fn configuration(data: &[u8]) {
    with_text(data, ringfence::fuzzing::configuration);
}

/// A transaction of the command line: as [`configuration`].
pub fn transaction(data: &[u8]) {
    with_text(data, ringfence::fuzzing::transaction);
}

fn with_text(data: &[u8], target: impl Fn(&str)) {
    if let Ok(text) = std::str::from_utf8(data) {
        target(text);
    }
}

/// A snapshot's file. If the first byte is 0, the others are the file; else they change a true snapshot, four bytes for
/// each byte to be changed: its place (three bytes) and what is done to its bits. A snapshot that passes is the one that
/// was written.
pub fn snapshot_file(data: &[u8]) {
    let Some((kind, bytes)) = data.split_first() else { return };
    let (true_file, true_summary) = snapshot();
    let mut content = bytes.to_vec();
    if *kind != 0 {
        content = true_file.clone();
        for change in bytes.chunks_exact(4) {
            let place = u32::from_le_bytes([change[0], change[1], change[2], 0]) as usize;
            let length = content.len();
            content[place % length] ^= change[3];
        }
    }
    let found = inspect(&content);
    if let (true, Ok(found)) = (*kind != 0, &found) {
        assert_eq!(found, true_summary, "damage makes no other snapshot");
    }
}

/// Looks at a file as `ringfence snapshot` and a member that receives it do.
fn inspect(content: &[u8]) -> Result<Summary, StoreError> {
    const NAME: &str = "fuzzed";
    let disk = SimDisk::new(0);
    let opened = disk.open(NAME, Open::New).expect("an empty disk takes a file");
    opened.write_all_at(content, 0).expect("nothing is injected");
    // The database panics on some damage, which the store takes for an answer, and a fuzzer for a crash.
    let hook = panic::take_hook();
    panic::set_hook(Box::new(|_| {}));
    let found = panic::catch_unwind(AssertUnwindSafe(|| file::inspect(&disk, NAME)));
    panic::set_hook(hook);
    found.unwrap_or_else(|cause| match cause.downcast_ref::<String>() {
        Some(message) => panic!("inspecting a snapshot panicked: {message}"),
        None => panic!("inspecting a snapshot panicked: {:?}", cause.downcast_ref::<&str>()),
    })
}

/// A true snapshot, with what it holds.
fn snapshot() -> &'static (Vec<u8>, Summary) {
    static SNAPSHOT: OnceLock<(Vec<u8>, Summary)> = OnceLock::new();
    SNAPSHOT.get_or_init(|| {
        const NAME: &str = "true";
        let disk = SimDisk::new(0);
        let store =
            Store::open(Arc::new(disk.clone()), Options::default()).expect("an empty disk is a new store");
        let entries: Vec<Entry> = (0..20).map(entry).collect();
        store.apply(&entries).expect("lawful entries");
        store.write_snapshot(NAME).expect("nothing is injected");
        let opened = disk.open(NAME, Open::Existing).expect("it was just written");
        let mut content = vec![0; opened.len().expect("it is there") as usize];
        opened.read_exact_at(&mut content, 0).expect("it has that length");
        let summary = file::inspect(&disk, NAME).expect("it is whole");
        (content, summary)
    })
}

/// Puts over a few keys, and a compaction.
fn entry(index: u64) -> Entry {
    let command = match index {
        15 => Command::Compact { revision: Revision(5) },
        _ => Command::Put(Put {
            key: Bytes::from(format!("key-{}", index % 7)),
            value: PutValue::Set(Bytes::from(format!("value {index}"))),
            lease: PutLease::Set(ringfence_types::LeaseId(0)),
            prev_kv: false,
        }),
    };
    let log_id = LogId { term: Term(1), node: NodeId(1), index: Index(index) };
    Entry { log_id, payload: Payload::Command(command::encode(&command)) }
}
