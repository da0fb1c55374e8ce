//! Valid inputs for every target, made by the product's own code where it has a writer. They lie in `corpus/TARGET/seed-N`;
//! the test `corpus` says how to write them anew when a format has changed.

use std::sync::Arc;

use bytes::Bytes;
use prost::Message;
use ringfence_disk::{Disk, Open, SimDisk};
use ringfence_proto::etcdserverpb::{self as etcd, compare, request_op};
use ringfence_proto::peers::{
    self as wire, append_reply, hello_reply, reply, request, snapshot_reply, snapshot_request,
};
use ringfence_proto::{command, outcome, ringfence_v1 as fence};
use ringfence_types::{self as types, Command, KeyRange, LeaseId, Operation, PutLease, PutValue, Revision};
use ringfence_wal::{Entry, Log, Options};

/// The seeds of the target of that name.
///
/// # Panics
/// If there is no such target.
#[must_use]
pub fn of(target: &str) -> Vec<Vec<u8>> {
    match target {
        "log_segment" => vec![log_segment()],
        "log_batches" => log_batches(),
        "raft_records" => raft_records(),
        "identity_file" => vec![IDENTITY.into()],
        "peer_frames" => peer_frames(),
        "handshake" => handshakes(),
        "snapshot_transfer" => vec![snapshot_transfer()],
        "snapshot_file" => vec![vec![1, 0, 0, 0, 0], vec![1, 0, 16, 0, 1, 9, 32, 0, 0x80]],
        "log_messages" => log_messages(),
        "client_requests" => client_requests(),
        "extensions" => extensions(),
        "import_record" => texts(&RECORDS),
        "configuration" => texts(&CONFIGURATIONS),
        "transaction" => texts(&TRANSACTIONS),
        other => panic!("there is no target {other}"),
    }
}

const IDENTITY: &str = "format=1\nname=b\nnode_id=2\ndisk_id=0000000000000abc\ncluster_id=0000000000001234\n\
    founding_digest=0102ff\nrestored=00000000000000000000000000000000\nboot_number=7\n";

const RECORDS: [&str; 3] = [
    r#"{"key":"pkg/zlib1g","value":"1:1.3"}"#,
    r#"{"key_b64":"/wA=","value_b64":"gGEKIg=="}"#,
    r#"{"value":"\u00fc\n","key":"schl\u00fcssel"}"#,
];

const CONFIGURATIONS: [&str; 2] = [
    "# a node\nname = \"a\"\nlisten-client = \"127.0.0.1:2379\"\ninitial-cluster = \"a=h1:2380,b=h2:2380\"\n\
     heartbeat-interval = \"80ms\"\nleader-lease = \"1s\"\ntiming = \"wide-area\"\nlog-format = \"json\"\n",
    "bootstrap = true\nlog-retention-bytes = 1048576\nlog-segment-size = \"64MiB\"\nlog-retention-time = \"10m\"\n\
     runtime-threads = 2\ninsecure = true\n",
];

const TRANSACTIONS: [&str; 2] = [
    "# take the lock\nif missing lock/a\nif value b != \"x\\x00\\n\"\nthen put lock/a \"me and nobody\"\nelse get lock/a\n\
     else del-prefix old/\n",
    r#"{"compare":[{"key":"a","target":"version","op":"=","operand":0}],"success":[{"put":{"key":"a","value":"b"}}],
"failure":[{"get":{"key_b64":"/w==","prefix":true}},{"txn":{"success":[{"del":{"key":"c","range_end":"d"}}]}}]}"#,
];

fn texts(texts: &[&str]) -> Vec<Vec<u8>> {
    texts.iter().map(|text| text.as_bytes().to_vec()).collect()
}

/// The one segment of a log that was appended to, cut and purged, without the zeros behind it.
fn log_segment() -> Vec<u8> {
    let disk = SimDisk::new(0);
    let options = Options { segment_bytes: 16 << 10, ..Options::default() };
    let log = Log::open(Arc::new(disk.clone()), options).expect("an empty disk is a new log");
    let entry = |index| Entry { index, data: Bytes::from(format!("entry {index}")) };
    let flush = || log.flush().expect("nothing is injected");
    log.save_vote(Bytes::from_static(b"vote")).expect("it is short");
    log.append((1..4).map(entry).collect()).expect("entries follow");
    flush();
    log.truncate_after(Some(2)).expect("nothing is purged");
    log.append((3..6).map(entry).collect()).expect("entries follow");
    log.note_committed(Bytes::from_static(b"commit"));
    flush();
    log.purge(1, Bytes::from_static(b"mark")).expect("it is short");
    flush();
    let names = disk.list().expect("nothing is injected");
    let file = disk.open(&names[0], Open::Existing).expect("it is listed");
    let mut content = vec![0; file.len().expect("it is there") as usize];
    file.read_exact_at(&mut content, 0).expect("it has that length");
    let used = content.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
    content.truncate(used);
    content
}

/// Records as the log's layout has them: kind, length, body.
fn log_batches() -> Vec<Vec<u8>> {
    let record = |kind: u8, body: &[u8]| [&[kind][..], &(body.len() as u32).to_le_bytes(), body].concat();
    let numbered = |kind: u8, number: u64, data: &[u8]| record(kind, &[&number.to_le_bytes(), data].concat());
    let batch = |records: &[Vec<u8>]| {
        let payload = records.concat();
        [&(payload.len() as u16).to_le_bytes()[..], &payload].concat()
    };
    let first = batch(&[record(6, b""), record(2, b"vote"), numbered(1, 1, b"one"), numbered(1, 2, b"two")]);
    let second =
        batch(&[record(5, b"mark"), numbered(3, 1, b""), numbered(1, 2, b"other"), numbered(4, 1, b"p")]);
    let third = batch(&[record(3, b""), numbered(1, 2, b"again")]);
    vec![[first.clone(), second.clone()].concat(), [first, second, third].concat()]
}

fn kinds(messages: Vec<Vec<u8>>) -> Vec<Vec<u8>> {
    (0..).zip(messages).map(|(kind, bytes)| [vec![kind], bytes].concat()).collect()
}

fn log_id(index: u64) -> Option<wire::LogId> {
    Some(wire::LogId { term: 3, node: 1, index })
}

fn vote() -> Option<wire::Vote> {
    Some(wire::Vote { term: 3, node: 1, committed: true })
}

fn membership() -> wire::Membership {
    let node = |id: u64| wire::NodeRecord {
        id,
        name: format!("n{id}"),
        peer_address: format!("h{id}:1"),
        disk_id: id,
    };
    wire::Membership {
        configs: vec![wire::VoterSet { ids: vec![1, 2] }, wire::VoterSet { ids: vec![1, 3] }],
        nodes: (1..4).map(node).collect(),
    }
}

fn raft_entry(index: u64, payload: wire::entry::Payload) -> Bytes {
    wire::Entry { log_id: log_id(index), payload: Some(payload) }.encode_to_vec().into()
}

fn raft_records() -> Vec<Vec<u8>> {
    let mut records = kinds(vec![
        raft_entry(7, wire::entry::Payload::Command(command::encode(&put()))).to_vec(),
        vote().expect("a constant").encode_to_vec(),
        log_id(9).expect("a constant").encode_to_vec(),
        membership().encode_to_vec(),
    ]);
    let entry = raft_entry(8, wire::entry::Payload::Membership(membership()));
    records.push([&[0][..], &entry].concat());
    records
}

fn frame(message: &impl Message) -> Vec<u8> {
    [&(message.encoded_len() as u32).to_be_bytes()[..], &message.encode_to_vec()].concat()
}

fn append() -> wire::AppendRequest {
    let entries = vec![
        raft_entry(7, wire::entry::Payload::Blank(wire::Blank {})),
        raft_entry(8, wire::entry::Payload::Command(command::encode(&put()))),
    ];
    wire::AppendRequest {
        vote: vote(),
        prev_log_id: log_id(6),
        leader_commit: log_id(5),
        entries,
        no_majority: false,
    }
}

fn peer_frames() -> Vec<Vec<u8>> {
    let ask = |id, body| wire::Request { id, body: Some(body) };
    let requests = vec![
        ask(1, request::Body::Heartbeat(append())),
        ask(2, request::Body::ReadIndex(wire::ReadIndexRequest { quorum_round: true })),
        ask(3, request::Body::Command(command::encode(&put()))),
    ];
    let answers = vec![
        wire::Reply {
            id: 2,
            body: Some(reply::Body::ReadIndex(wire::ReadIndexReply { index: 8, error: String::new() })),
        },
        wire::Reply { id: 3, body: Some(reply::Body::Refused("not now".to_owned())) },
    ];
    let matched = append_reply::Reply::Matched(wire::Matched { log_id: log_id(8) });
    let chunk = snapshot_request::Body::Chunk(wire::SnapshotChunk {
        offset: 0,
        data: Bytes::from_static(b"a"),
        crc: 1,
    });
    kinds(vec![
        frame(&wire::RequestFrame { requests }),
        frame(&wire::ReplyFrame { replies: answers }),
        [frame(&append()), frame(&append())].concat(),
        frame(&wire::AppendReply { reply: Some(matched) }),
        frame(&wire::SnapshotRequest { body: Some(chunk) }),
        frame(&wire::SnapshotReply { body: Some(snapshot_reply::Body::Offset(5)) }),
    ])
}

/// What node 2 says to node 1, when it is the one that dialled and when it answers.
fn handshakes() -> Vec<Vec<u8>> {
    let hello = wire::Hello {
        protocol_min: 1,
        protocol_max: 1,
        channel: wire::Channel::Append.into(),
        cluster_id: 0x1234,
        node_id: 2,
        target_id: 1,
        disk_id: 5,
        boot_number: 1,
        process_id: 6,
        leader_lease_ms: 400,
        name: "b".to_owned(),
        version: "0".to_owned(),
        nonce: Bytes::from_static(&[7; 32]),
        ..wire::Hello::default()
    };
    let mac = Bytes::from_static(&[9; 32]);
    let proof = frame(&wire::Proof { mac: mac.clone(), refusal: None });
    let dialled = [frame(&hello), proof].concat();
    let reply = Some(hello_reply::Reply::Hello(hello));
    let answered = frame(&wire::HelloReply { reply, mac: mac.clone(), protocol: 1 });
    let refusal = Some(wire::Refusal { reason: "an old copy".to_owned(), impostor: true, removed: false });
    let verdict = frame(&wire::Verdict { mac, refusal });
    let answered = [answered, verdict].concat();
    kinds(vec![dialled.clone(), answered.clone(), dialled, answered])
}

fn snapshot_transfer() -> Vec<u8> {
    let request = |body| frame(&wire::SnapshotRequest { body: Some(body) });
    let begin = wire::SnapshotBegin {
        vote: vote(),
        last_log_id: log_id(8),
        membership: Some(wire::StoredMembership { log_id: log_id(1), membership: Some(membership()) }),
        file_id: 77,
        bytes: 8,
        rebuild: false,
    };
    // The checksums are CRC32C of what is sent.
    let chunk = |offset, data, crc| {
        snapshot_request::Body::Chunk(wire::SnapshotChunk { offset, data: Bytes::from_static(data), crc })
    };
    [
        request(snapshot_request::Body::Begin(begin)),
        request(chunk(0, b"123456789".split_at(4).0, 0xf63a_f4ee)),
        request(chunk(4, b"\0\0\0\0", 0x4867_4bc7)),
        request(snapshot_request::Body::End(wire::SnapshotEnd { vote: vote() })),
    ]
    .concat()
}

fn put() -> Command {
    Command::Put(types::Put {
        key: Bytes::from_static(b"key"),
        value: PutValue::Set(Bytes::from_static(b"value\0\xff")),
        lease: PutLease::Set(LeaseId(0)),
        prev_kv: true,
    })
}

fn log_messages() -> Vec<Vec<u8>> {
    let range = KeyRange::from_etcd(Bytes::from_static(b"a"), Bytes::from_static(b"b"));
    let delete = types::DeleteRange { range: range.clone(), prev_kv: false };
    let compare = types::Compare {
        range,
        operator: types::CompareOperator::Greater,
        target: types::CompareTarget::Mod(Revision(4)),
    };
    let txn = Command::Txn(types::Txn {
        compares: vec![compare],
        success: vec![Operation::DeleteRange(delete)],
        failure: vec![Operation::Txn(types::Txn::default())],
    });
    let member = Command::PublishMember {
        id: types::NodeId(2),
        name: "b".to_owned(),
        peer_urls: vec!["http://b:2380".to_owned()],
        client_urls: vec!["http://b:2379".to_owned()],
    };
    let change = Command::ChangeMember(types::MemberChange::Join {
        name: "d".to_owned(),
        peer_urls: vec!["http://d:2380".to_owned()],
        disk_id: 7,
        wanted: types::Wanted::Learner,
    });
    let reply = types::Reply::Put(types::PutReply { prev_kv: None });
    let done = types::Applied { revision: Revision(9), index: types::Index(11), reply };
    vec![
        command::encode(&put()).to_vec(),
        command::encode(&txn).to_vec(),
        command::encode(&Command::Compact { revision: Revision(3) }).to_vec(),
        command::encode(&member).to_vec(),
        command::encode(&change).to_vec(),
        outcome::encode(&Ok(done)).to_vec(),
        outcome::encode(&Err(types::Rejection::KeyNotFound)).to_vec(),
    ]
}

fn extensions() -> Vec<Vec<u8>> {
    let kind = fence::scope::Kind::Lock(Bytes::from_static(b"jobs"));
    let fences = vec![fence::Fence { scope: Some(fence::Scope { kind: Some(kind) }), token: 7 }];
    let session = Some(fence::Session { lease: 5, grant: 6 });
    let session = Some(fence::SessionStamp { session, sequence: 9, first_incomplete: 8 });
    let (key, value) = (Bytes::from_static(b"a"), Bytes::from_static(b"v"));
    let put = etcd::PutRequest { key: key.clone(), value, fences, session, ..Default::default() };
    let delete = etcd::DeleteRangeRequest { key, session, ..Default::default() };
    let nested = etcd::RequestOp { request: Some(request_op::Request::RequestPut(put.clone())) };
    let txn = etcd::TxnRequest { success: vec![nested], fences: put.fences.clone(), ..Default::default() };
    kinds(vec![
        put.encode_to_vec(),
        delete.encode_to_vec(),
        txn.encode_to_vec(),
        b"lock:a%2Fb;17,key:%00;5".to_vec(),
        b"1f3a;905;12;11".to_vec(),
    ])
}

fn client_requests() -> Vec<Vec<u8>> {
    let (key, range_end) = (Bytes::from_static(b"a"), Bytes::from_static(b"b"));
    let range =
        etcd::RangeRequest { key: key.clone(), range_end: range_end.clone(), limit: 5, ..Default::default() };
    let put = etcd::PutRequest { key: key.clone(), value: Bytes::from_static(b"v"), ..Default::default() };
    let delete =
        etcd::DeleteRangeRequest { key: key.clone(), range_end, prev_kv: true, ..Default::default() };
    let operation = |request| etcd::RequestOp { request: Some(request) };
    let nested = etcd::TxnRequest {
        success: vec![operation(request_op::Request::RequestDeleteRange(delete.clone()))],
        ..Default::default()
    };
    let compare = etcd::Compare {
        result: compare::CompareResult::Equal.into(),
        target: compare::CompareTarget::Version.into(),
        key,
        target_union: Some(compare::TargetUnion::Version(1)),
        ..Default::default()
    };
    let txn = etcd::TxnRequest {
        compare: vec![compare],
        success: vec![operation(request_op::Request::RequestPut(put.clone()))],
        failure: vec![operation(request_op::Request::RequestTxn(nested))],
        ..Default::default()
    };
    kinds(vec![
        range.encode_to_vec(),
        put.encode_to_vec(),
        delete.encode_to_vec(),
        txn.encode_to_vec(),
        etcd::CompactionRequest { revision: 7, physical: true }.encode_to_vec(),
    ])
}
