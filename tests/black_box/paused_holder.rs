//! The paused holder: a process takes a lock, stands still for longer than its lease lasts, and writes when it goes on. By then
//! another one has the lock and has written. Played by clients of ours, whose writes carry a fence, and by plain clients of etcd,
//! whose transactions compare as `IsOwner` does; both write to keys with a guard.

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::Duration;

use etcd_client::{Compare, CompareOp, LockOptions, Txn, TxnOp};
use ringfence_client::{Client, Error, Options};
use ringfence_proto::etcdserverpb::PutRequest;
use ringfence_proto::ringfence_v1 as v1;
use ringfence_tests::cluster::Cluster;
use ringfence_tests::process::Process;
use ringfence_tests::wait::{self, PATIENCE};

/// The shortest that there is.
const TTL_SECONDS: i64 = 2;
/// What a process of this program reads its part from; without it there is none to play.
const PART: &str = "RINGFENCE_TEST_HOLDER";
/// What a holder says begins so, since the frame of the tests speaks too.
const SAYS: &str = "holder: ";

/// How a client shows that it holds its lock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// By a fence.
    Fenced,
    /// By a compare, as any client of etcd can.
    Plain,
}

const KINDS: [Kind; 2] = [Kind::Fenced, Kind::Plain];

impl Kind {
    /// The lock in a scene, and the prefix of the keys that are written under it.
    fn lock(self, scene: &str) -> String {
        format!("paused-{scene}-{self:?}").to_lowercase()
    }
}

/// A process that holds a lock, or waits for it.
struct Holder {
    process: Process,
    stdin: ChildStdin,
    said: Receiver<String>,
}

impl Holder {
    fn start(kind: Kind, lock: &str, endpoints: &str) -> Holder {
        let mut command = Command::new(std::env::current_exe().expect("a process knows its program"));
        command.args(["paused_holder::a_process_that_holds_a_lock", "--exact", "--nocapture"]);
        command.env(PART, format!("{kind:?} {lock} {endpoints}"));
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut process = Process::start(command);
        let stdin = process.stdin().expect("it was asked for");
        let stdout = BufReader::new(process.stdout().expect("it was asked for"));
        let (said, hears) = channel();
        thread::spawn(move || {
            for line in stdout.lines().map_while(Result::ok) {
                // The frame ends its own line only after the test.
                if let Some((_, words)) = line.split_once(SAYS)
                    && said.send(words.to_owned()).is_err()
                {
                    return;
                }
            }
        });
        Holder { process, stdin, said: hears }
    }

    fn says(&self) -> String {
        self.said.recv_timeout(PATIENCE).expect("the holder says something")
    }

    /// Its token, once it holds the lock.
    fn token(&self) -> i64 {
        let words = self.says();
        let token = words.strip_prefix("holds ").and_then(|token| token.parse().ok());
        token.unwrap_or_else(|| panic!("it holds nothing: {words}"))
    }

    /// What comes of a write.
    fn write(&mut self, value: &str) -> String {
        writeln!(self.stdin, "{value}").expect("the holder reads");
        self.says()
    }
}

/// Plays the scene with both kinds of clients. The first holders know the node `near` alone, the second ones all but `away`.
/// `pause` and `go_on` are what becomes of the cluster when the first ones stop, and right before they go on.
fn play(
    cluster: &mut Cluster,
    scene: &str,
    near: usize,
    away: Option<usize>,
    pause: impl FnOnce(&mut Cluster),
    go_on: impl FnOnce(&mut Cluster),
) {
    let near = cluster.nodes[near].client.clone();
    let mut first = KINDS.map(|kind| {
        let lock = kind.lock(scene);
        drop(
            cluster.run(["guard", "set", "--prefix", &format!("{lock}-data/"), "--scope", &lock]).succeeded(),
        );
        Holder::start(kind, &lock, &near)
    });
    let tokens: Vec<i64> = first.iter().map(Holder::token).collect();
    for holder in &mut first {
        assert_eq!(holder.write("first"), "wrote");
        holder.process.stop();
    }
    pause(cluster);

    let others = cluster.nodes.iter().enumerate().filter(|(at, _)| Some(*at) != away);
    let endpoints = others.map(|(_, node)| node.client.as_str()).collect::<Vec<_>>().join(",");
    let mut second = KINDS.map(|kind| Holder::start(kind, &kind.lock(scene), &endpoints));
    let newer: Vec<i64> = second.iter().map(Holder::token).collect();
    assert!(newer.iter().zip(&tokens).all(|(newer, token)| newer > token), "{newer:?} after {tokens:?}");
    for holder in &mut second {
        assert_eq!(holder.write("second"), "wrote");
    }
    go_on(cluster);

    for (at, holder) in first.iter_mut().enumerate() {
        holder.process.go_on();
        let refusal = holder.write("late");
        let expected = match KINDS[at] {
            Kind::Fenced => format!("token {} is in force", newer[at]),
            Kind::Plain => "it is not the owner".to_owned(),
        };
        assert!(refusal.starts_with("refused") && refusal.contains(&expected), "{scene}: {refusal}");
    }
    for (kind, holder) in KINDS.into_iter().zip(&mut second) {
        let key = format!("{}-data/k", kind.lock(scene));
        assert!(
            cluster.run(["get", &key]).succeeded().contains("second"),
            "{scene}: a late write was applied"
        );
        assert_eq!(holder.write("third"), "wrote");
        cluster.run(["put", &key, "unfenced"]).failed(4, &["guarded"]);
    }
}

#[test]
fn a_holder_that_was_paused_is_fenced_off() {
    let mut cluster = Cluster::start(3);
    play(&mut cluster, "alone", 0, None, |_| (), |_| ());
    let leader = cluster.leader();
    let handed_over = |cluster: &mut Cluster| drop(cluster.run(["leader", "transfer"]).succeeded());
    play(&mut cluster, "handover", leader, None, handed_over, |_| ());
}

#[test]
fn a_holder_that_was_paused_is_fenced_off_across_the_death_of_the_leader() {
    let mut cluster = Cluster::start(3);
    let (leader, follower) = (cluster.leader(), cluster.follower());
    play(&mut cluster, "death", follower, Some(leader), |cluster| cluster.nodes[leader].kill(), |_| ());
}

#[test]
fn a_holder_that_was_paused_together_with_the_leader_is_fenced_off() {
    let mut cluster = Cluster::start(3);
    let leader = cluster.leader();
    // The leader that granted the lock wakes up with it, and for it the first holder's lease is in force.
    let pause = |cluster: &mut Cluster| {
        let stopped = cluster.nodes[leader].name.clone();
        cluster.nodes[leader].process().stop();
        // A write sent to the leader that stands still would have no answer that a plain client could go on with.
        wait::until("the others to have a leader of their own", PATIENCE, || {
            let status = cluster.status();
            let other = status["leader"].as_str().is_some_and(|name| name != stopped);
            if other { Ok(()) } else { Err(status.to_string()) }
        });
    };
    let go_on = |cluster: &mut Cluster| cluster.nodes[leader].process().go_on();
    play(&mut cluster, "leader", leader, Some(leader), pause, go_on);
}

/// No test by itself: the part of a holder, in a process of its own.
#[test]
fn a_process_that_holds_a_lock() {
    let Ok(part) = std::env::var(PART) else { return };
    let mut words = part.split(' ');
    let mut word = || words.next().expect("a part has three words").to_owned();
    let (kind, lock, endpoints) = (word(), word(), word());
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
    let acting = async {
        match kind == format!("{:?}", Kind::Fenced) {
            true => hold_with_fences(&lock, &endpoints).await,
            false => hold_as_any_client(&lock, &endpoints).await,
        }
    };
    runtime.expect("a runtime can be started").block_on(acting);
}

fn say(words: &str) {
    println!("{SAYS}{words}");
}

/// The values that the holder is told to write, one a line.
fn orders() -> impl Iterator<Item = String> {
    std::io::stdin().lines().map_while(Result::ok)
}

async fn hold_with_fences(lock: &str, endpoints: &str) {
    let options = Options { timeout: PATIENCE, ..Options::default() };
    let client = Client::connect(endpoints.split(','), options).expect("the endpoints are lawful");
    let lease = client.lease_grant(TTL_SECONDS, 0).await.expect("it is granted").id;
    let keeper = client.clone();
    tokio::spawn(async move {
        while keeper.lease_keep_alive_once(lease).await.is_ok_and(|answer| answer.ttl > 0) {
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
    });
    let token = client.lock(lock.to_owned(), lease).await.expect("it is had in the end").token;
    say(&format!("holds {token}"));
    for value in orders() {
        let scope = v1::Scope { kind: Some(v1::scope::Kind::Lock(lock.to_owned().into())) };
        let put = PutRequest {
            key: format!("{lock}-data/k").into(),
            value: value.into(),
            fences: vec![v1::Fence { scope: Some(scope), token }],
            ..PutRequest::default()
        };
        match client.put(put).await {
            Ok(_) => say("wrote"),
            Err(Error::Refused { message, .. }) => say(&format!("refused: {message}")),
            Err(error) => say(&format!("failed: {error}")),
        }
    }
}

async fn hold_as_any_client(lock: &str, endpoints: &str) {
    let endpoints: Vec<&str> = endpoints.split(',').collect();
    let mut client = etcd_client::Client::connect(endpoints, None).await.expect("a node listens");
    let lease = client.lease_grant(TTL_SECONDS, None).await.expect("it is granted").id();
    let mut keeping = client.clone();
    tokio::spawn(async move {
        let Ok((mut keeper, mut answers)) = keeping.lease_keep_alive(lease).await else { return };
        while keeper.keep_alive().await.is_ok() && matches!(answers.message().await, Ok(Some(_))) {
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
    });
    let held =
        client.lock(lock, Some(LockOptions::new().with_lease(lease))).await.expect("it is had in the end");
    let key = held.key().to_vec();
    let found = client.get(key.clone(), None).await.expect("it is answered");
    let token = found.kvs().first().expect("the lock's key is there").create_revision();
    say(&format!("holds {token}"));
    for value in orders() {
        let is_owner = Compare::create_revision(key.clone(), CompareOp::Equal, token);
        let put = TxnOp::put(format!("{lock}-data/k"), value, None);
        let txn = Txn::new().when([is_owner]).and_then([put]);
        let deadline = tokio::time::Instant::now() + PATIENCE;
        let answer = loop {
            match client.txn(txn.clone()).await {
                // A node that has just woken up may not know yet who leads. To ask again does no harm under a compare.
                Err(etcd_client::Error::GRpcStatus(status))
                    if status.code() == tonic::Code::Unavailable
                        && tokio::time::Instant::now() < deadline =>
                {
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
                answer => break answer,
            }
        };
        match answer {
            Ok(answer) if answer.succeeded() => say("wrote"),
            Ok(_) => say("refused: it is not the owner"),
            Err(error) => say(&format!("failed: {error}")),
        }
    }
}
