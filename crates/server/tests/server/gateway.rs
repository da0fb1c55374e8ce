//! The JSON gateway, as `curl` sees it.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;

use crate::harness::Server;

/// What came back.
struct Page {
    code: u16,
    head: String,
    body: String,
}

impl Page {
    fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("no JSON ({error}): {}", self.body))
    }

    fn header(&self, name: &str) -> Option<&str> {
        let start = format!("{name}: ");
        self.head.lines().find_map(|line| line.strip_prefix(&start))
    }

    /// The error is etcd's, and promises that nothing was done.
    fn refused(&self, code: u16, grpc_code: i32, message: &str) {
        let told = self.json();
        assert_eq!((self.code, &told["code"]), (code, &grpc_code.into()), "{told}");
        assert_eq!((&told["error"], &told["message"]), (&message.into(), &message.into()));
        assert_eq!(told["details"][0]["attempt_applied"], "NO", "{told}");
        assert_eq!(told["details"][0]["@type"], "type.googleapis.com/ringfence.v1.ErrorDetail");
    }
}

/// A request whose answer ends with the connection, so that a stream comes as it is. Its body may go on.
async fn open(server: &Server, head: &str, headers: &[(&str, &str)], length: Option<usize>) -> TcpStream {
    let mut stream = TcpStream::connect(&server.address).await.unwrap();
    let mut text = format!("{head} HTTP/1.0\r\nHost: {}\r\n", server.address);
    for (name, value) in headers {
        text += &format!("{name}: {value}\r\n");
    }
    if let Some(length) = length {
        text += &format!("Content-Length: {length}\r\n");
    }
    stream.write_all(format!("{text}\r\n").as_bytes()).await.unwrap();
    stream
}

async fn send(server: &Server, head: &str, headers: &[(&str, &str)], body: &str) -> Page {
    let mut stream = open(server, head, headers, Some(body.len())).await;
    // A server that refuses does not read to the end.
    let _refused = stream.write_all(body.as_bytes()).await;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").expect("an HTTP answer");
    let code = head.split(' ').nth(1).unwrap().parse().unwrap();
    Page { code, head: head.to_owned(), body: body.to_owned() }
}

async fn post(server: &Server, path: &str, body: &Value) -> Page {
    send(server, &format!("POST {path}"), &[], &body.to_string()).await
}

/// The answer of a call that must go well, without its header.
async fn answer(server: &Server, path: &str, body: Value) -> Value {
    let page = post(server, path, &body).await;
    assert_eq!(page.code, 200, "{path} {body}: {}", page.body);
    assert_eq!(page.header("content-type"), Some("application/json"));
    let mut answer = page.json();
    let header = answer.as_object_mut().unwrap().remove("header").expect("every answer has one");
    assert_eq!(header["member_id"], server.node.node_id().0.to_string());
    answer
}

fn b64(text: &str) -> String {
    BASE64.encode(text)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keys_are_written_and_read_in_json() {
    let server = Server::start().await;
    let (key, value) = (b64("k"), b64("v"));
    assert_eq!(answer(&server, "/v3/kv/put", json!({"key": key, "value": value})).await, json!({}));
    let again = json!({"key": key, "value": b64("w"), "prevKv": true});
    let kv = json!({"key": key, "create_revision": "2", "mod_revision": "2", "version": "1", "value": value});
    assert_eq!(answer(&server, "/v3/kv/put", again).await, json!({"prev_kv": kv}));
    let page = post(&server, "/v3/kv/range", &json!({"key": key, "revision": "2"})).await;
    let told = page.json();
    assert_eq!((&told["kvs"], &told["count"]), (&json!([kv]), &"1".into()), "{told}");
    assert_eq!(told["header"]["revision"], "3");
    assert!(told.get("more").is_none(), "what is unset is left out: {told}");
    let all =
        json!({"key": "AA==", "range_end": "AA==", "keys_only": true, "sort_target": "MOD", "sort_order": 2});
    let told = answer(&server, "/v3/kv/range", all).await;
    assert_eq!(
        told["kvs"],
        json!([{"key": key, "create_revision": "2", "mod_revision": "3", "version": "2"}])
    );

    let txn = json!({
        "compare": [{"key": key, "target": "VALUE", "result": "EQUAL", "value": b64("w")}],
        "success": [{"requestPut": {"key": b64("t"), "value": b64("1")}}, {"request_range": {"key": b64("t")}}],
        "failure": [{"request_delete_range": {"key": key}}],
    });
    let told = answer(&server, "/v3/kv/txn", txn).await;
    assert_eq!(told["succeeded"], true);
    assert_eq!(told["responses"][0]["response_put"]["header"], json!({"revision": "4"}), "{told}");
    assert_eq!(told["responses"][1]["response_range"]["kvs"][0]["value"], b64("1"), "{told}");
    let deleted = answer(&server, "/v3/kv/deleterange", json!({"key": key, "prev_kv": true})).await;
    assert_eq!((&deleted["deleted"], &deleted["prev_kvs"][0]["value"]), (&"1".into(), &b64("w").into()));
    assert_eq!(
        answer(&server, "/v3/kv/compaction", json!({"revision": 5, "physical": true})).await,
        json!({})
    );
    let versions = json!({"key": b64("t")});
    let told = post(&server, "/v3/ringfence/history/versions", &versions).await.json();
    assert_eq!(
        (&told["versions"][0]["value"], &told["compacted"]),
        (&b64("1").into(), &"5".into()),
        "{told}"
    );

    // They are counted as the calls that they are.
    let metrics = server.get("/metrics").await.1;
    let puts =
        "grpc_server_handled_total{grpc_code=\"OK\",grpc_method=\"Put\",grpc_service=\"etcdserverpb.KV\"} 2";
    assert!(metrics.lines().any(|line| line == puts), "{metrics}");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn errors_have_the_code_of_http_and_etcds_words() {
    let server = Server::start().await;
    for value in ["1", "2", "3"] {
        server.put("k", value).await;
    }
    answer(&server, "/v3/kv/compaction", json!({"revision": 3})).await;
    let range = |revision: i64| json!({"key": b64("k"), "revision": revision});
    let large = json!({"key": b64("k"), "value": BASE64.encode(vec![0; 1_600_000])});
    for (path, body, code, grpc_code, message) in [
        ("kv/range", range(2), 400, 11, "etcdserver: mvcc: required revision has been compacted"),
        ("kv/range", range(99), 400, 11, "etcdserver: mvcc: required revision is a future revision"),
        ("kv/put", json!({"value": b64("v")}), 400, 3, "etcdserver: key is not provided"),
        ("kv/put", json!({"key": b64("x"), "ignore_value": true}), 400, 3, "etcdserver: key not found"),
        ("kv/put", large, 400, 3, "etcdserver: request is too large"),
        ("kv/lease/revoke", json!({"ID": 9}), 404, 5, "etcdserver: requested lease not found"),
        ("lease/grant", json!({"TTL": "9000000001"}), 400, 11, "etcdserver: too large lease TTL"),
        ("cluster/member/remove", json!({"ID": "77"}), 404, 5, "etcdserver: member not found"),
    ] {
        post(&server, &format!("/v3/{path}"), &body).await.refused(code, grpc_code, message);
    }
    let malformed = post(&server, "/v3/kv/put", &json!({"key": b64("k"), "vlaue": "eA=="})).await;
    malformed.refused(400, 3, "ringfence: unrecognized field name 'vlaue' at line 1 column 21");
    assert_eq!(malformed.json()["details"][0]["reason"], "malformed_json");
    // Little more than is taken in, so that the server has read it when it refuses, and the answer is not lost by a reset.
    let huge = format!("{{\"key\":\"{}\"}}", "a".repeat(3_320_488));
    send(&server, "POST /v3/kv/put", &[], &huge).await.refused(400, 3, "etcdserver: request is too large");

    let page = send(&server, "GET /v3/kv/range", &[], "").await;
    assert_eq!((page.code, page.header("allow"), &page.json()["code"]), (405, Some("POST"), &12.into()));
    for path in ["/v3/kv", "/v3/kv/nothing", "/v3/"] {
        let page = post(&server, path, &json!({})).await;
        assert_eq!((page.code, &page.json()["code"]), (404, &5.into()), "{path}");
    }
    // A page that somebody looks at may not write into the server on their machine; the server's own may.
    let body = json!({"key": b64("k"), "value": b64("4")}).to_string();
    let foreign = send(&server, "POST /v3/kv/put", &[("Origin", "http://example.org")], &body).await;
    assert_eq!((foreign.code, &foreign.json()["code"]), (403, &7.into()));
    assert_eq!(answer(&server, "/v3/kv/range", json!({"key": b64("k")})).await["kvs"][0]["value"], b64("3"));
    let own = format!("http://{}", server.address);
    assert_eq!(send(&server, "POST /v3/kv/put", &[("Origin", &own)], &body).await.code, 200);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fences_are_fields_or_headers() {
    let server = Server::start().await;
    let lease = answer(&server, "/v3/lease/grant", json!({"TTL": 60})).await["ID"].clone();
    let taken = answer(&server, "/v3/lock/lock", json!({"name": b64("jobs"), "lease": lease})).await;
    let token = taken["token"].as_str().expect("the answer has the token").to_owned();
    let put = |fences: Value| json!({"key": b64("k"), "value": b64("v"), "fences": fences});
    let fence = |token: &str| json!([{"scope": {"lock": b64("jobs")}, "token": token}]);
    let told = answer(&server, "/v3/kv/put", put(fence(&token))).await;
    assert_eq!(told["checked"]["fences"], fence(&token), "{told}");
    let refused = post(&server, "/v3/kv/put", &put(fence("1"))).await;
    let told = refused.json();
    assert_eq!((refused.code, &told["code"]), (400, &9.into()), "{told}");
    assert_eq!(told["details"][0]["reason"], "stale_fence");
    assert_eq!(told["details"][0]["stale_fence"]["in_force"], token.as_str());

    let plain = json!({"key": b64("k"), "value": b64("v")}).to_string();
    let held = format!("lock:jobs;{token}");
    let page = send(&server, "POST /v3/kv/put", &[("ringfence-fence", &held)], &plain).await;
    assert_eq!((page.code, page.header("ringfence-checked")), (200, Some(held.as_str())), "{}", page.body);
    let page =
        send(&server, "POST /v3/kv/put", &[("Grpc-Metadata-ringfence-fence", "lock:jobs;1")], &plain).await;
    assert_eq!(page.json()["details"][0]["reason"], "stale_fence", "{}", page.body);
    let page = send(&server, "POST /v3/kv/put", &[("ringfence-fences", &held)], &plain).await;
    assert_eq!((page.code, &page.json()["code"]), (400, &3.into()), "{}", page.body);
    let inspected =
        post(&server, "/v3/ringfence/fencing/inspect", &json!({"scope": {"lock": b64("jobs")}})).await;
    assert_eq!(inspected.json()["holder"]["token"], token.as_str());
    answer(&server, "/v3/lock/unlock", json!({"key": taken["key"]})).await;
    server.stop().await;
}

/// The lines of a stream, as they come.
struct Lines(BufReader<TcpStream>);

impl Lines {
    async fn open(server: &Server, path: &str, body: &str, length: Option<usize>) -> Lines {
        // A body of unknown length comes in chunks, for which the answer is chunked too: so all of a body that goes on is sent
        // under a length that is never reached.
        let mut stream = open(server, &format!("POST {path}"), &[], length.or(Some(body.len()))).await;
        stream.write_all(body.as_bytes()).await.unwrap();
        let mut lines = Lines(BufReader::new(stream));
        assert!(lines.line().await.starts_with("HTTP/1.0 200"));
        while !lines.line().await.trim().is_empty() {}
        lines
    }

    async fn line(&mut self) -> String {
        let mut line = String::new();
        let read = self.0.read_line(&mut line);
        tokio::time::timeout(Duration::from_secs(20), read).await.expect("a line in time").unwrap();
        line
    }

    async fn result(&mut self) -> Value {
        let line = self.line().await;
        let told: Value = serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line:?}"));
        told["result"].clone()
    }

    async fn ended(mut self) {
        assert_eq!(self.line().await, "");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn streams_are_a_line_an_answer() {
    let server = Server::start().await;
    let lease = answer(&server, "/v3/lease/grant", json!({"TTL": 60, "ID": "7"})).await["ID"].clone();
    let one = json!({"ID": lease}).to_string();
    let mut kept = Lines::open(&server, "/v3/lease/keepalive", &one, None).await;
    let told = kept.result().await;
    assert_eq!((&told["ID"], &told["TTL"]), (&"7".into(), &"60".into()), "{told}");
    kept.ended().await;

    // Messages are answered while the request goes on, and what is wrong with one is told at its place.
    let mut kept = Lines::open(&server, "/v3/lease/keepalive", &one, Some(1_000)).await;
    assert_eq!(kept.result().await["TTL"], "60");
    kept.0.get_mut().write_all(one.as_bytes()).await.unwrap();
    assert_eq!(kept.result().await["TTL"], "60");
    kept.0.get_mut().write_all(b"{\"ID\": \"7\", \"TTL\": 5}").await.unwrap();
    let error: Value = serde_json::from_str(&kept.line().await).unwrap();
    assert_eq!(
        (&error["error"]["grpc_code"], &error["error"]["http_code"]),
        (&3.into(), &400.into()),
        "{error}"
    );
    assert!(error["error"]["message"].as_str().unwrap().contains("'TTL'"), "{error}");
    kept.ended().await;
    let wrong = send(&server, "POST /v3/lease/keepalive", &[], "[]").await;
    wrong.refused(400, 3, "ringfence: each message is a JSON object");
    let empty = send(&server, "POST /v3/lease/keepalive", &[], "").await;
    assert_eq!((empty.code, empty.body.as_str()), (200, ""));

    let campaign = json!({"name": b64("boss"), "value": b64("me"), "lease": lease});
    let leader = answer(&server, "/v3/election/campaign", campaign).await["leader"].clone();
    let name = json!({"name": b64("boss")}).to_string();
    let mut observed = Lines::open(&server, "/v3/election/observe", &name, None).await;
    assert_eq!(observed.result().await["kv"]["value"], b64("me"));
    answer(&server, "/v3/election/proclaim", json!({"leader": leader, "value": b64("still me")})).await;
    assert_eq!(observed.result().await["kv"]["value"], b64("still me"));
    drop(observed);

    let mut saved = Lines::open(&server, "/v3/maintenance/snapshot", "{}", None).await;
    let mut bytes = 0;
    loop {
        let line = saved.line().await;
        if line.is_empty() {
            break;
        }
        let told: Value = serde_json::from_str(&line).unwrap();
        let blob = told["result"]["blob"].as_str().unwrap_or_default();
        bytes += BASE64.decode(blob).unwrap().len();
    }
    assert!(bytes > 4_096, "{bytes} bytes");

    // A stream does not hold up a stop.
    let observed = Lines::open(&server, "/v3/election/observe", &name, None).await;
    server.stop().await;
    drop(observed);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_gateway_describes_itself() {
    let server = Server::start().await;
    let (code, document) = server.get("/openapi.json").await;
    let document: Value = serde_json::from_str(&document).unwrap();
    assert_eq!((code, &document["openapi"]), (200, &"3.0.3".into()));
    assert!(document["paths"]["/v3/kv/put"]["post"].is_object());
    let (code, page) = server.get("/openapi").await;
    assert_eq!(code, 200);
    assert!(page.contains("/openapi.json") && !page.contains("https://"), "it needs nothing from elsewhere");
    assert_eq!(send(&server, "POST /openapi", &[], "").await.code, 405);
    server.stop().await;
}
