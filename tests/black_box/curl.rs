//! `curl` on the JSON gateway, as somebody without a client uses it.

use std::io::{BufRead as _, BufReader};
use std::process::{Command, Stdio};

use ringfence_tests::cluster::Cluster;
use ringfence_tests::process::Process;
use ringfence_tests::{cli, process, skip};
use serde_json::{Value, json};

/// Whether there is a `curl`.
fn is_installed(test: &str) -> bool {
    let mut version = Command::new("curl");
    version.arg("--version").stdout(Stdio::null()).stderr(Stdio::null());
    match process::spawn(&mut version).and_then(|mut child| child.wait()) {
        Ok(_) => true,
        Err(error) => {
            skip::skipped(test, &format!("curl is not installed ({error}): apt-get install curl"));
            false
        }
    }
}

/// `curl -d BODY http://NODE/v3/PATH`, as the manual has it: with no header of its own.
fn curl(node: &str, path: &str, body: &Value) -> Command {
    let mut command = Command::new("curl");
    command.args(["--silent", "--no-buffer", "--noproxy", "*", "--max-time", "60", "--data"]);
    command.arg(body.to_string()).arg(format!("http://{node}/v3/{path}"));
    command
}

/// The code of HTTP and the answer of a node of a cluster, which differs from call to call.
struct Gateway<'a> {
    cluster: &'a Cluster,
}

impl Gateway<'_> {
    fn ask(&self, node: usize, path: &str, body: Value) -> (u16, Value) {
        let mut command = curl(&self.cluster.nodes[node].client, path, &body);
        command.args(["--write-out", "\n%{http_code}"]);
        let said = cli::capture(command, "").succeeded();
        let (text, code) = said.rsplit_once('\n').expect("the code stands on a line of its own");
        let answer = serde_json::from_str(text).unwrap_or_else(|error| panic!("{path}: {error}: {text}"));
        (code.parse().expect("a number"), answer)
    }

    fn answer(&self, node: usize, path: &str, body: Value) -> Value {
        let (code, answer) = self.ask(node, path, body.clone());
        assert_eq!(code, 200, "{path} {body}: {answer}");
        answer
    }

    fn refused(&self, path: &str, body: Value, code: u16, grpc_code: i32, message: &str) {
        let (told_code, told) = self.ask(1, path, body);
        assert_eq!((told_code, &told["code"], &told["message"]), (code, &grpc_code.into(), &message.into()));
    }
}

#[test]
fn curl_is_a_client() {
    if !is_installed("curl_is_a_client") {
        return;
    }
    let cluster = Cluster::shared();
    let gateway = Gateway { cluster: &cluster };
    // "curl/a", "curl/b", "1", "2", and the end of all that begins with "curl/".
    let (a, b, one, two, end) = ("Y3VybC9h", "Y3VybC9i", "MQ==", "Mg==", "Y3VybDA=");
    let put = gateway.answer(0, "kv/put", json!({"key": a, "value": one}));
    let created = put["header"]["revision"].as_str().expect("numbers are strings").to_owned();
    gateway.answer(1, "kv/put", json!({"key": b, "value": two}));
    // Written through one member, read through another, at once.
    let all = gateway.answer(2, "kv/range", json!({"key": a, "range_end": end, "sort_order": "DESCEND"}));
    assert_eq!(
        (&all["count"], &all["kvs"][0]["key"], &all["kvs"][1]["value"]),
        (&"2".into(), &b.into(), &one.into())
    );
    let limited =
        gateway.answer(2, "kv/range", json!({"key": a, "range_end": end, "limit": 1, "keys_only": true}));
    assert_eq!((&limited["more"], &limited["kvs"][0]["value"]), (&true.into(), &Value::Null));
    let txn = json!({
        "compare": [{"key": a, "target": "CREATE", "create_revision": created}],
        "success": [{"request_put": {"key": a, "value": two, "prev_kv": true}}],
    });
    let told = gateway.answer(1, "kv/txn", txn);
    assert_eq!(told["responses"][0]["response_put"]["prev_kv"]["value"], one, "{told}");
    let old = gateway.answer(0, "kv/range", json!({"key": a, "revision": created}));
    assert_eq!(old["kvs"][0]["value"], one);
    assert_eq!(gateway.answer(0, "kv/deleterange", json!({"key": b}))["deleted"], "1");

    let lease = gateway.answer(0, "lease/grant", json!({"TTL": "60"}))["ID"].clone();
    gateway.answer(1, "kv/put", json!({"key": b, "value": one, "lease": lease}));
    let kept = gateway.answer(2, "lease/keepalive", json!({"ID": lease}));
    assert_eq!((&kept["result"]["ID"], &kept["result"]["TTL"]), (&lease, &"60".into()));
    let told = gateway.answer(0, "lease/timetolive", json!({"ID": lease, "keys": true}));
    assert_eq!((&told["grantedTTL"], &told["keys"]), (&"60".into(), &json!([b])), "{told}");
    // The lock "curl-lock": below the name "curl" lie keys, which would be taken for older candidates.
    let lock = gateway.answer(0, "lock/lock", json!({"name": "Y3VybC1sb2Nr", "lease": lease}));
    assert!(lock["token"].is_string(), "{lock}");
    gateway.answer(1, "lock/unlock", json!({"key": lock["key"]}));
    gateway.answer(2, "lease/revoke", json!({"ID": lease}));
    assert_eq!(gateway.answer(1, "kv/range", json!({"key": b})).get("kvs"), None);
    let members = gateway.answer(0, "cluster/member/list", json!({}));
    assert_eq!(members["members"].as_array().map(Vec::len), Some(3), "{members}");
    assert!(gateway.answer(0, "maintenance/status", json!({}))["dbSize"].is_string());

    gateway.refused("kv/put", json!({"value": one}), 400, 3, "etcdserver: key is not provided");
    gateway.refused("lease/revoke", json!({"ID": "77"}), 404, 5, "etcdserver: requested lease not found");
    let future = "etcdserver: mvcc: required revision is a future revision";
    gateway.refused("kv/range", json!({"key": a, "revision": 1_i64 << 40}), 400, 11, future);
    let message = "ringfence: unrecognized field name 'kee' at line 1 column 6";
    gateway.refused("kv/range", json!({"kee": a}), 400, 3, message);
    assert_eq!(gateway.ask(0, "kv/rage", json!({})).0, 404);
}

#[test]
fn curl_observes_an_election_line_by_line() {
    if !is_installed("curl_observes_an_election_line_by_line") {
        return;
    }
    let cluster = Cluster::shared();
    let gateway = Gateway { cluster: &cluster };
    // The election "curl-election", and the values "1" and "2".
    let (name, one, two) = ("Y3VybC1lbGVjdGlvbg==", "MQ==", "Mg==");
    let lease = gateway.answer(0, "lease/grant", json!({"TTL": "60"}))["ID"].clone();
    let campaign = json!({"name": name, "value": one, "lease": lease});
    let leader = gateway.answer(0, "election/campaign", campaign)["leader"].clone();
    let mut observe = curl(&cluster.nodes[1].client, "election/observe", &json!({"name": name}));
    observe.stdout(Stdio::piped());
    let mut observing = Process::start(observe);
    let mut lines = BufReader::new(observing.stdout().expect("it was asked for")).lines();
    let mut next = || -> Value {
        let line = lines.next().expect("the stream goes on").expect("it can be read");
        serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line}"))
    };
    assert_eq!(next()["result"]["kv"]["value"], one);
    gateway.answer(2, "election/proclaim", json!({"leader": leader, "value": two}));
    assert_eq!(next()["result"]["kv"]["value"], two);
    observing.kill();
    gateway.answer(0, "election/resign", json!({"leader": leader}));
    gateway.refused("election/leader", json!({"name": name}), 500, 2, "election: no leader");
}

#[test]
fn curl_watches_from_a_revision_on() {
    if !is_installed("curl_watches_from_a_revision_on") {
        return;
    }
    let cluster = Cluster::start(1);
    let gateway = Gateway { cluster: &cluster };
    // "curl-watch", and the values "1" and "2".
    let (key, one, two) = ("Y3VybC13YXRjaA==", "MQ==", "Mg==");
    let put = |value: &str| {
        let told = gateway.answer(0, "kv/put", json!({"key": key, "value": value}));
        told["header"]["revision"].as_str().expect("numbers are strings").to_owned()
    };
    let first = put(one);
    let start = |start_revision: &str| {
        let body = json!({"create_request": {"key": key, "start_revision": start_revision}});
        let mut watch = curl(&cluster.nodes[0].client, "watch", &body);
        watch.stdout(Stdio::piped());
        let mut watching = Process::start(watch);
        let lines = BufReader::new(watching.stdout().expect("it was asked for")).lines();
        let lines = lines.map(|line| {
            let line = line.expect("it can be read");
            let told: Value = serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line}"));
            told["result"].clone()
        });
        (watching, lines)
    };
    let (mut watching, mut lines) = start(&first);
    assert_eq!(lines.next().expect("it begins")["created"], true);
    let told = lines.next().expect("it goes on");
    assert_eq!(told["events"][0]["kv"]["value"], one, "{told}");
    assert_eq!(told["events"][0].get("type"), None, "a put is what is not said");
    gateway.answer(0, "kv/deleterange", json!({"key": key}));
    let told = lines.next().expect("it goes on");
    assert_eq!(
        (&told["events"][0]["type"], &told["events"][0]["kv"]["key"]),
        (&"DELETE".into(), &key.into())
    );
    let deleted: i64 =
        told["events"][0]["kv"]["mod_revision"].as_str().unwrap_or("0").parse().expect("a number");
    watching.kill();

    // Resumed behind what was seen: nothing twice, nothing missing.
    let second = put(two);
    let (mut watching, mut lines) = start(&(deleted + 1).to_string());
    assert_eq!(lines.next().expect("it begins")["created"], true);
    let told = lines.next().expect("it goes on");
    assert_eq!(told["events"].as_array().map(Vec::len), Some(1), "{told}");
    assert_eq!(told["events"][0]["kv"]["mod_revision"], second.as_str());
    watching.kill();

    gateway.answer(0, "kv/compaction", json!({"revision": second}));
    let (mut watching, lines) = start(&first);
    let cancelled = lines.into_iter().find(|told| told["canceled"] == true).expect("it is cancelled");
    assert_eq!(cancelled["compact_revision"], second.as_str());
    assert_eq!(cancelled["cancel_reason"], "etcdserver: mvcc: required revision has been compacted");
    watching.kill();
}
