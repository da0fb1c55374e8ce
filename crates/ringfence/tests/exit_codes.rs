//! The exit codes that scripts rely on, as the program itself gives them.

use std::fs::File;
use std::net::TcpListener;
use std::os::fd::AsRawFd as _;
use std::process::{Command, Output};

/// Runs the program with these arguments and no settings from the environment.
fn ringfence(arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ringfence"));
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("RINGFENCE_") {
            command.env_remove(name);
        }
    }
    command.args(arguments).output().expect("the program was built")
}

fn check(arguments: &[&str], code: i32, words: &str) {
    let output = ringfence(arguments);
    let told = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{arguments:?}: {told}");
    assert!(told.contains(words), "{arguments:?} says nothing of {words:?}: {told}");
}

#[test]
fn what_cannot_be_understood_is_2() {
    check(&["get", "k", "--prefiks"], 2, "--prefix");
    check(&["put", "k", "v", "--endpoints", "nowhere"], 2, "host:port");
}

#[test]
fn nobody_there_is_6() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("loopback has a free port");
    let closed = listener.local_addr().expect("a bound listener has an address").to_string();
    drop(listener);
    check(&["put", "k", "v", "--timeout", "200ms", "--endpoints", &closed], 6, "ringfence status");
    check(&["status", "--timeout", "200ms", "--endpoints", &closed], 6, "no node answers");
}

#[test]
fn a_wrong_configuration_is_10() {
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let path = folder.path().join("ringfence.toml");
    std::fs::write(&path, "name = \"a\"\nleder-lease = \"1s\"\n").expect("the folder is writable");
    let path = path.to_str().expect("temporary folders have plain names");
    check(
        &["serve", "--config", path],
        10,
        "line 2: unknown setting \"leder-lease\"; did you mean \"leader-lease\"?",
    );
    check(&["config", "check", path], 10, "line 2");
    check(&["serve", "--bootstrap", "--listen-peer", "0.0.0.0:2380"], 10, "--peer-secret-file");
}

#[test]
fn a_data_directory_in_use_is_11() {
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    std::fs::write(folder.path().join("LOCK"), "4711\n").expect("the folder is writable");
    let lock = File::open(folder.path().join("LOCK")).expect("it was just written");
    // SAFETY: the descriptor is that of `lock`, which is open.
    assert_eq!(unsafe { libc::flock(lock.as_raw_fd(), libc::LOCK_EX) }, 0);
    let path = folder.path().to_str().expect("temporary folders have plain names");
    check(&["serve", "--bootstrap", "--data-dir", path], 11, "process 4711");
}

#[test]
fn a_port_in_use_is_12() {
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let path = folder.path().to_str().expect("temporary folders have plain names");
    let listener = TcpListener::bind("127.0.0.1:0").expect("loopback has a free port");
    let taken = listener.local_addr().expect("a bound listener has an address").to_string();
    check(&["serve", "--bootstrap", "--data-dir", path, "--listen-client", &taken], 12, "--listen-client");
    let free = ["--listen-client", "127.0.0.1:0", "--advertise-client", "127.0.0.1:1"];
    let peers = [&["serve", "--bootstrap", "--data-dir", path, "--listen-peer", &taken], &free[..]].concat();
    check(&peers, 12, "--listen-peer");
}

#[test]
fn a_snapshot_that_was_cut_short_is_15() {
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let path = folder.path().join("snapshot");
    std::fs::write(&path, [0; 700]).expect("the folder is writable");
    check(
        &["snapshot", "status", path.to_str().expect("temporary folders have plain names")],
        15,
        "not complete",
    );
}
