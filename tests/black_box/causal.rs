//! Reads that any member may answer: they never go back in time, and with a limit on age they are mostly answered by the member
//! that is asked.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use ringfence_client::{CausalToken, Client, Error, Options, ReadFrom, Reads};
use ringfence_proto::etcdserverpb::compare::{CompareResult, CompareTarget, TargetUnion};
use ringfence_proto::etcdserverpb::{
    Compare, PutRequest, RangeRequest, RangeResponse, RequestOp, TxnRequest, request_op,
};
use ringfence_proto::ringfence_v1 as v1;
use ringfence_tests::cluster::Cluster;
use ringfence_tests::wait::{self, PATIENCE};

/// Programs that read and write at once.
const PROGRAMS: usize = 8;
/// Operations that must end well, unless the environment asks for more.
const OPERATIONS: u64 = 5_000;
const OPERATIONS_VARIABLE: &str = "RINGFENCE_TEST_CAUSAL_OPERATIONS";
/// How long a follower stands still, and then runs.
const STOPPED: Duration = Duration::from_secs(2);
const RUNNING: Duration = Duration::from_secs(1);
/// Longest time of one operation: those at a member that stands still are given up.
const PATIENCE_OF_PROGRAMS: Duration = Duration::from_millis(400);

fn options() -> Options {
    Options { timeout: PATIENCE_OF_PROGRAMS, ..Options::default() }
}

fn key(program: usize) -> String {
    format!("causal/{program}")
}

/// The text of a number, in whose order numbers grow.
fn text(number: u64) -> String {
    format!("{number:010}")
}

/// Puts a program's next number, unless a larger one stands there: a put that was given up may be applied after later ones.
fn growing(program: usize, number: u64) -> TxnRequest {
    let (key, value) = (key(program), text(number));
    let is_smaller = Compare {
        key: key.clone().into(),
        result: CompareResult::Less.into(),
        target: CompareTarget::Value.into(),
        target_union: Some(TargetUnion::Value(value.clone().into())),
        ..Compare::default()
    };
    let put = PutRequest { key: key.into(), value: value.into(), ..PutRequest::default() };
    let success = vec![RequestOp { request: Some(request_op::Request::RequestPut(put)) }];
    TxnRequest { compare: vec![is_smaller], success, ..TxnRequest::default() }
}

/// The way of a program's operations through the cluster.
enum Journey {
    /// One client a member; each operation goes to the next one, with the token of the one before in its form as text.
    HandedOn { clients: Vec<Client>, token: Option<String>, at: usize },
    /// One client of all members, which moves by itself.
    ByItself(Client),
}

impl Journey {
    async fn begin(program: usize, endpoints: &[String]) -> Journey {
        let from = [ReadFrom::FollowerPreferred, ReadFrom::Nearest, ReadFrom::LastAnswered];
        let causal = |from| Reads { from, causal: true, max_age: None };
        if program % 2 == 1 {
            let client = Client::connect(endpoints, options()).expect("they are lawful");
            return Journey::ByItself(client.with_reads(causal(from[program / 2 % from.len()])));
        }
        let mut clients = Vec::new();
        for endpoint in endpoints {
            let client = Client::connect([endpoint], options()).expect("it is lawful");
            let client = client.with_reads(causal(ReadFrom::LastAnswered));
            client.get("causal").await.expect("all members run yet");
            clients.push(client);
        }
        Journey::HandedOn { clients, token: None, at: program }
    }

    /// The client of the next operation.
    fn next(&mut self) -> Client {
        match self {
            Journey::ByItself(client) => client.clone(),
            Journey::HandedOn { clients, token, at } => {
                *at += 1;
                let client = &clients[*at % clients.len()];
                match token {
                    None => client.clone(),
                    Some(token) => {
                        let token: CausalToken = token.parse().expect("it is a token's text");
                        client.with_causal_token(token).expect("it is of the same cluster")
                    }
                }
            }
        }
    }

    fn done(&mut self, client: &Client) {
        if let Journey::HandedOn { token, .. } = self {
            *token = client.causal_token().map(|token| token.to_string());
        }
    }
}

/// What all programs share.
#[derive(Debug, Default)]
struct Shared {
    operations: AtomicU64,
    given_up: AtomicU64,
    stop: AtomicBool,
}

/// One program: puts growing numbers under a key of its own, and reads its own and another one's. Returns the violations.
async fn program(number: usize, endpoints: Vec<String>, shared: Arc<Shared>) -> Vec<String> {
    let mut journey = Journey::begin(number, &endpoints).await;
    let (mut put, mut newest_revision, mut newest_of_other) = (0_u64, 0, 0);
    let mut violations = Vec::new();
    for step in 1_u64.. {
        if shared.stop.load(Ordering::Relaxed) {
            break;
        }
        let client = journey.next();
        let outcome = match step % 5 {
            0 => client.txn(growing(number, step)).await.map(|answer| {
                if answer.succeeded {
                    put = step;
                } else {
                    violations.push(format!("{step} is not above what only this program puts"));
                }
            }),
            turn => {
                let read = if turn % 2 == 1 { number } else { (number + 1) % PROGRAMS };
                client.range(RangeRequest { key: key(read).into(), ..RangeRequest::default() }).await.map(
                    |answer| {
                        let (revision, value) = seen(&answer);
                        let mut demand = |holds: bool, what: String| {
                            if !holds {
                                violations.push(what)
                            }
                        };
                        demand(
                            revision >= newest_revision,
                            format!("revision {revision} after {newest_revision}"),
                        );
                        newest_revision = revision.max(newest_revision);
                        if read == number {
                            demand(value >= put, format!("it read {value} after it had put {put}"));
                        } else {
                            demand(
                                value >= newest_of_other,
                                format!("it read {value} after {newest_of_other}"),
                            );
                            newest_of_other = value.max(newest_of_other);
                        }
                    },
                )
            }
        };
        match outcome {
            Ok(()) => {
                journey.done(&client);
                shared.operations.fetch_add(1, Ordering::Relaxed);
            }
            Err(Error::Unavailable { .. } | Error::Indefinite { .. }) => {
                shared.given_up.fetch_add(1, Ordering::Relaxed);
            }
            Err(error) => violations.push(format!("an operation ended in {error}")),
        }
    }
    violations
}

/// The revision of an answer, and the number that it holds.
fn seen(answer: &RangeResponse) -> (i64, u64) {
    let revision = answer.header.expect("every answer has a header").revision;
    let value = answer
        .kvs
        .first()
        .map_or(0, |kv| std::str::from_utf8(&kv.value).expect("it is text").parse().expect("it is a number"));
    (revision, value)
}

#[test]
fn a_program_reads_its_own_writes_and_never_goes_back_on_whatever_member() {
    let asked = std::env::var(OPERATIONS_VARIABLE).ok();
    let wanted = asked.map_or(OPERATIONS, |text| text.parse().expect("a number of operations"));
    let mut cluster = Cluster::start(3);
    let runtime = tokio::runtime::Runtime::new().expect("a runtime can be started");
    let endpoints: Vec<String> = cluster.nodes.iter().map(|node| node.client.clone()).collect();
    for number in 0..PROGRAMS {
        drop(cluster.run(["put", &key(number), &text(0)]).succeeded());
    }
    let shared = Arc::new(Shared::default());
    let programs: Vec<_> = (0..PROGRAMS)
        .map(|number| runtime.spawn(program(number, endpoints.clone(), Arc::clone(&shared))))
        .collect();
    let started = Instant::now();
    let mut stops = 0;
    while shared.operations.load(Ordering::Relaxed) < wanted || stops < 2 {
        let follower = cluster.follower();
        cluster.nodes[follower].process().stop();
        std::thread::sleep(STOPPED);
        cluster.nodes[follower].process().go_on();
        stops += 1;
        std::thread::sleep(RUNNING);
    }
    shared.stop.store(true, Ordering::Relaxed);
    let mut violations = Vec::new();
    for program in programs {
        violations.extend(runtime.block_on(program).expect("no program panics"));
    }
    let (operations, given_up) = (&shared.operations, &shared.given_up);
    println!(
        "{operations:?} operations in {:?}, {given_up:?} more were given up, {stops} stops",
        started.elapsed()
    );
    assert_eq!(violations, Vec::<String>::new());
}

/// Where a read was answered.
#[derive(Debug, Default)]
struct Places {
    /// By a follower, from a state that was known to be young enough before the read was sent.
    local: u32,
    others: u32,
}

#[test]
fn with_a_limit_on_age_most_reads_are_answered_by_the_member_asked_while_another_one_stands_still() {
    const MAX_AGE: Duration = Duration::from_secs(2);
    const READS: u32 = 4_000;
    let mut cluster = Cluster::start(3);
    let leader = cluster.leader();
    drop(cluster.run(["put", "young", "0"]).succeeded());
    let follower = cluster.follower();
    let runtime = tokio::runtime::Runtime::new().expect("a runtime can be started");
    let _in_runtime = runtime.enter();
    let client =
        Client::connect(cluster.endpoints().split(','), Options::default()).expect("they are lawful");
    let status = runtime.block_on(client.status(&cluster.nodes[leader].client)).expect("the leader answers");
    let leader = status.header.expect("every answer has a header").member_id;
    for from in [ReadFrom::FollowerPreferred, ReadFrom::Nearest] {
        let client = client.with_reads(Reads { from, causal: false, max_age: Some(MAX_AGE) });
        let mut places = Places::default();
        for number in 0..READS {
            if number == READS / 4 {
                cluster.nodes[follower].process().stop();
            }
            let sent = Instant::now();
            let request = RangeRequest { key: "young".into(), ..RangeRequest::default() };
            let answer = runtime.block_on(client.range(request)).expect("two members can answer");
            let age = Duration::from_millis(answer.age_ms.expect("it was asked for"));
            assert!(age <= MAX_AGE, "an answer is {age:?} old");
            let member = answer.header.expect("every answer has a header").member_id;
            // Had the member asked the leader for this read, its state would be younger than the read.
            if member != leader && age > sent.elapsed() {
                places.local += 1;
            } else {
                places.others += 1;
            }
        }
        cluster.nodes[follower].process().go_on();
        println!("{from:?}: {places:?}");
        if from == ReadFrom::FollowerPreferred {
            assert!(places.local >= READS * 6 / 10, "of {READS} reads, {places:?}");
        }
    }
}

/// A client of one node alone, that reads causally and has been answered there.
async fn of_node(cluster: &Cluster, node: usize) -> Client {
    let client = Client::connect([&cluster.nodes[node].client], Options::default()).expect("it is lawful");
    let client = client.with_reads(Reads { causal: true, ..Reads::default() });
    client.get("causal").await.expect("all members run yet");
    client
}

/// Asks a member while it stands still, and lets it go on: the question waits for it beside what it has missed.
fn ask_on_waking<T: Send + 'static>(
    cluster: &mut Cluster,
    node: usize,
    runtime: &tokio::runtime::Runtime,
    asking: impl Future<Output = Result<T, Error>> + Send + 'static,
) -> T {
    let asking = runtime.spawn(asking);
    std::thread::sleep(Duration::from_millis(50));
    cluster.nodes[node].process().go_on();
    runtime.block_on(asking).expect("nothing panics").expect("it is answered")
}

#[test]
fn a_member_that_lags_behind_tells_of_leases_and_guards_when_it_has_seen_them() {
    const ROUNDS: usize = 8;
    let mut cluster = Cluster::start(3);
    let (leader, follower) = (cluster.leader(), cluster.follower());
    let runtime = tokio::runtime::Runtime::new().expect("a runtime can be started");
    let (writer, reader) =
        runtime.block_on(async { (of_node(&cluster, leader).await, of_node(&cluster, follower).await) });
    for round in 0..ROUNDS {
        // As text, as one program hands it on to another.
        let handed_on = || {
            let token = writer.causal_token().expect("an answer has come").to_string();
            reader
                .with_causal_token(token.parse().expect("it is a token's text"))
                .expect("it is of this cluster")
        };
        cluster.nodes[follower].process().stop();
        let lease = runtime.block_on(writer.lease_grant(60, 0)).expect("it is granted").id;
        let reading = handed_on();
        let told = ask_on_waking(&mut cluster, follower, &runtime, async move {
            reading.lease_time_to_live(lease, false).await
        });
        assert!(told.ttl > 0, "round {round}: the lease is not there");

        cluster.nodes[follower].process().stop();
        let scope = v1::Scope { kind: Some(v1::scope::Kind::Lock("causal-lock".into())) };
        let key = format!("causal-guarded/{round}");
        let guard =
            v1::ChangeGuardRequest { key: key.clone().into(), scope: Some(scope), ..Default::default() };
        runtime.block_on(writer.change_guard(guard)).expect("nothing is guarded there");
        let reading = handed_on();
        let told =
            ask_on_waking(&mut cluster, follower, &runtime, async move { reading.list_guards().await });
        assert!(told.guards.iter().any(|guard| guard.key == key), "round {round}: the guard is not there");

        // A session that asks a member which has not heard of it keeps its place.
        let held = runtime.block_on(writer.lock("causal-lock", lease)).expect("it is free");
        cluster.nodes[follower].process().stop();
        runtime.block_on(writer.lock("causal-lock", lease)).expect("it is held");
        let asking = reader.clone();
        let again = ask_on_waking(&mut cluster, follower, &runtime, async move {
            asking.lock("causal-lock", lease).await
        });
        assert_eq!((again.token, &again.key), (held.token, &held.key), "round {round}");

        cluster.nodes[follower].process().stop();
        runtime.block_on(writer.lease_revoke(lease)).expect("it is in force");
        let reading = handed_on();
        let told = ask_on_waking(&mut cluster, follower, &runtime, async move {
            reading.lease_time_to_live(lease, false).await
        });
        assert_eq!(told.ttl, -1, "round {round}: the lease has ended");
    }
}

#[test]
fn a_token_of_another_cluster_is_refused_by_name() {
    let (here, there) = (Cluster::start(1), Cluster::start(1));
    let runtime = tokio::runtime::Runtime::new().expect("a runtime can be started");
    let client = |cluster: &Cluster| {
        let client = Client::connect([cluster.endpoints()], Options::default()).expect("it is lawful");
        client.with_reads(Reads { causal: true, ..Reads::default() })
    };
    runtime.block_on(async {
        let (here, there) = (client(&here), client(&there));
        there.put_value("a", "1").await.expect("it is put");
        let token = there.causal_token().expect("an answer has come");
        // Before anything is known of the cluster, with the first read; afterwards at once.
        let moved = here.with_causal_token(token).expect("nothing is known yet");
        let refused = |error: Error| match error {
            Error::OtherCluster { token: foreign, cluster_id } => {
                assert_eq!(foreign, token);
                assert_ne!(cluster_id, token.cluster_id);
            }
            other => panic!("it should be refused by name: {other}"),
        };
        refused(moved.get("a").await.expect_err("its token is foreign"));
        here.get("a").await.expect("it has no token yet");
        refused(here.with_causal_token(token).expect_err("its token is foreign"));
        let own = here.causal_token().expect("an answer has come");
        assert!(here.with_causal_token(own).expect("it is of this cluster").get("a").await.is_ok());
    });
    wait::until("both clusters to go on", PATIENCE, || here.nodes[0].ready().and(there.nodes[0].ready()));
}
