//! `ringfence lock run` on a real cluster: two holders of one lock never live at the same time, whatever becomes of the
//! first one's wrapper and watchdog, and a change of leader ends nobody's command.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use ringfence_tests::cli;
use ringfence_tests::cluster::Cluster;
use ringfence_tests::marks::{self, Mark, boottime, started};
use ringfence_tests::process::Process;
use ringfence_tests::wait::{self, PATIENCE};

const TTL: Duration = Duration::from_secs(3);
/// Ignores SIGTERM, and has a descendant that has forked twice and called setsid, with a child of its own.
const STUBBORN: &str =
    "trap '' TERM INT HUP; (setsid sh -c 'sleep 301 & sleep 302; sleep 303' &); sleep 304; sleep 305";
const STUBBORN_PROCESSES: usize = 5;
/// The exit code that says that the lock was lost.
const LOCK_LOST: i32 = 20;

/// One who runs a command under a lock.
struct Contender {
    wrapper: Process,
    mark: Mark,
}

impl Contender {
    fn start(endpoints: &str, lock: &str, script: &str) -> Contender {
        let ttl = format!("--ttl={}s", TTL.as_secs());
        let endpoints = format!("--endpoints={endpoints}");
        let mut command = cli::command(["lock", "run", lock, &ttl, &endpoints, "--", "sh", "-c", script]);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let mark = Mark::on(&mut command);
        Contender { wrapper: Process::start(command), mark }
    }

    fn stubborn(endpoints: &str, lock: &str) -> Contender {
        let contender = Contender::start(endpoints, lock, STUBBORN);
        wait::until("the command to run", PATIENCE, || match contender.mark.commands().len() {
            STUBBORN_PROCESSES => Ok(()),
            others => Err(format!("{others} processes")),
        });
        contender
    }

    fn signal(&self, subcommand: &str, signal: libc::c_int) {
        marks::signal(self.mark.program(subcommand).expect("it runs"), signal);
    }
}

impl Drop for Contender {
    /// The watchdog clears away what is left behind a wrapper that was killed.
    fn drop(&mut self) {
        self.wrapper.kill();
        let deadline = Instant::now() + 2 * TTL;
        while !self.mark.all().is_empty() && Instant::now() < deadline {
            thread::sleep(Duration::from_millis(20));
        }
        self.mark.kill();
    }
}

/// The first contender suffers `fault`; the second one takes over, and at no moment do processes of both live.
fn never_two(endpoints: [&str; 2], lock: &str, fault: impl FnOnce(&mut Contender)) -> Contender {
    let mut first = Contender::stubborn(endpoints[0], lock);
    let second = Contender::start(endpoints[1], lock, "sleep 306");
    fault(&mut first);
    let begun = Instant::now();
    let mut first_seen = Duration::ZERO;
    let second_started = loop {
        // In this order: what is seen of the first lives after what was seen of the second.
        let second_started = second.mark.commands().into_iter().filter_map(started).min();
        let before = boottime();
        if !first.mark.commands().is_empty() {
            first_seen = before;
        }
        if let Some(second_started) = second_started {
            break second_started;
        }
        assert!(begun.elapsed() < PATIENCE, "{lock}: the second one waits in vain");
    };
    assert!(
        first_seen < second_started,
        "{lock}: the first one lived {:?} longer",
        first_seen - second_started
    );
    assert!(first.mark.commands().is_empty(), "{lock}: both live");
    first
}

#[test]
fn two_holders_never_live_at_once() {
    let cluster = Cluster::shared();
    let endpoints = cluster.endpoints();
    thread::scope(|scope| {
        scope.spawn(|| {
            let mut stopped = never_two([&endpoints, &endpoints], "a stopped wrapper", |first| {
                first.wrapper.stop();
            });
            stopped.wrapper.go_on();
            assert_eq!(stopped.wrapper.exit_code_within(PATIENCE), LOCK_LOST);
        });
        scope.spawn(|| {
            never_two([&endpoints, &endpoints], "a killed wrapper", |first| first.wrapper.kill());
        });
        scope.spawn(|| {
            let mut stopped = never_two([&endpoints, &endpoints], "a stopped watchdog", |first| {
                first.signal("run-watchdog", libc::SIGSTOP);
            });
            assert_eq!(stopped.wrapper.exit_code_within(PATIENCE), LOCK_LOST);
        });
        scope.spawn(|| {
            let mut stopped = never_two([&endpoints, &endpoints], "both stopped", |first| {
                first.signal("run-watchdog", libc::SIGSTOP);
                first.wrapper.stop();
            });
            stopped.wrapper.go_on();
            assert_eq!(stopped.wrapper.exit_code_within(PATIENCE), LOCK_LOST);
        });
        scope.spawn(|| {
            let network = Network::to(&cluster.nodes[0].client);
            let mut cut_off = never_two([&network.address, &endpoints], "a partition", |_| network.cut());
            assert_eq!(cut_off.wrapper.exit_code_within(PATIENCE), LOCK_LOST);
        });
    });
}

#[test]
fn a_lock_is_handed_on_as_soon_as_the_command_has_ended() {
    let cluster = Cluster::shared();
    let first = Contender::start(&cluster.endpoints(), "handed on", "sleep 1");
    wait::until("the first command", PATIENCE, || {
        (!first.mark.commands().is_empty()).then_some(()).ok_or_else(String::new)
    });
    let mut second = Contender::start(&cluster.endpoints(), "handed on", "exit 7");
    let begun = Instant::now();
    assert_eq!(second.wrapper.exit_code_within(PATIENCE), 7);
    assert!(begun.elapsed() < TTL, "it did not wait for the end of the lease: {:?}", begun.elapsed());
}

#[test]
fn a_command_outlives_the_leader() {
    let mut cluster = Cluster::start(3);
    let mut holder = Contender::start(&cluster.endpoints(), "jobs", "sleep 8; exit 7");
    wait::until("the command", PATIENCE, || {
        (!holder.mark.commands().is_empty()).then_some(()).ok_or_else(String::new)
    });
    let leader = cluster.leader();
    cluster.nodes[leader].kill();
    assert_eq!(holder.wrapper.exit_code_within(PATIENCE), 7);
}

/// A way to a node that can be cut: then nothing arrives any more, and nobody is told.
struct Network {
    address: String,
    is_cut: Arc<AtomicBool>,
}

impl Network {
    fn to(node: &str) -> Network {
        let listener = TcpListener::bind("127.0.0.1:0").expect("loopback has a free port");
        let address = listener.local_addr().expect("a bound listener has an address").to_string();
        let is_cut = Arc::new(AtomicBool::new(false));
        let (node, cut) = (node.to_owned(), Arc::clone(&is_cut));
        thread::spawn(move || {
            for near in listener.incoming().flatten() {
                let Ok(far) = TcpStream::connect(&node) else { continue };
                let ends = (near.try_clone(), far.try_clone());
                let (Ok(near_too), Ok(far_too)) = ends else { continue };
                let (cut, cut_too) = (Arc::clone(&cut), Arc::clone(&cut));
                thread::spawn(move || carry(near, far, &cut));
                thread::spawn(move || carry(far_too, near_too, &cut_too));
            }
        });
        Network { address, is_cut }
    }

    fn cut(&self) {
        self.is_cut.store(true, Ordering::SeqCst);
    }
}

fn carry(mut from: TcpStream, mut to: TcpStream, is_cut: &AtomicBool) {
    let mut bytes = [0; 4_096];
    while let Ok(count @ 1..) = from.read(&mut bytes) {
        if !is_cut.load(Ordering::SeqCst) && to.write_all(&bytes[..count]).is_err() {
            break;
        }
    }
    let _ = to.shutdown(Shutdown::Both);
}
