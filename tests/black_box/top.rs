//! `ringfence top`: what it tells without a terminal, and that it gives a terminal back as it was.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::os::fd::{FromRawFd as _, OwnedFd};
use std::sync::mpsc;
use std::thread;

use ringfence_tests::cluster::Cluster;
use ringfence_tests::process::Process;
use ringfence_tests::{cli, wait};

#[test]
fn one_look_needs_no_terminal() {
    let cluster = Cluster::shared();
    let told = cluster.run(["top", "--once", "--interval=200ms", "--output=json"]).json();
    let nodes = told["nodes"].as_array().expect("it tells the nodes");
    let names: Vec<&str> = nodes.iter().filter_map(|node| node["name"].as_str()).collect();
    assert_eq!(names, ["node1", "node2", "node3"], "{told}");
    assert!(nodes.iter().any(|node| node["role"] == "leader" && node["name"] == told["leader"]), "{told}");
    assert!(told["revision"].as_u64().is_some_and(|revision| revision > 0), "{told}");
    for node in nodes {
        assert!(node["writes_per_second"].is_number() && node["reads_per_second"].is_number(), "{node}");
        assert!(node["memory_bytes"].as_u64().is_some_and(|bytes| bytes > 1 << 20), "{node}");
    }
    let plain = cluster.run(["top", "--once", "--interval=200ms", "--output=plain"]).line();
    assert_eq!(plain.lines().count(), 3, "{plain}");
    assert!(plain.starts_with("node1 "), "{plain}");
    let table = cluster.run(["top", "--once", "--interval=200ms"]).succeeded();
    assert!(table.contains("leads") && table.contains("WRITES/S"), "{table}");
    cluster.run(["top"]).failed(2, &["no terminal", "--once"]);
    cluster.run(["top", "--once", "--interval=1ms"]).failed(2, &["--interval"]);
    cli::run(["top", "--once", "--interval=100ms", "--timeout=300ms", "--endpoints=127.0.0.1:1"])
        .failed(6, &["no node answers"]);
}

/// A terminal: the side that a person looks at, and the side of the program.
fn terminal() -> (File, OwnedFd) {
    let (mut person, mut program) = (0, 0);
    let size = libc::winsize { ws_row: 24, ws_col: 120, ws_xpixel: 0, ws_ypixel: 0 };
    // SAFETY: both descriptors are written by the call, and nothing else is; null pointers leave name and settings as they are.
    let opened = unsafe {
        libc::openpty(
            &raw mut person,
            &raw mut program,
            std::ptr::null_mut(),
            std::ptr::null(),
            &raw const size,
        )
    };
    assert_eq!(opened, 0, "a terminal can be had");
    // SAFETY: the call has just made them, and nobody else has them.
    unsafe { (File::from_raw_fd(person), OwnedFd::from_raw_fd(program)) }
}

/// The settings of a terminal that decide whether keys are echoed and lines edited.
fn modes(terminal: &OwnedFd) -> libc::tcflag_t {
    use std::os::fd::AsRawFd as _;
    // SAFETY: all-zero settings are settings, and the call writes nothing else.
    let mut settings = unsafe { std::mem::zeroed::<libc::termios>() };
    // SAFETY: as above; the descriptor is open.
    assert_eq!(unsafe { libc::tcgetattr(terminal.as_raw_fd(), &raw mut settings) }, 0);
    settings.c_lflag
}

#[test]
fn a_terminal_is_given_back_as_it_was() {
    let cluster = Cluster::shared();
    for ends_by_key in [true, false] {
        let (mut person, program) = terminal();
        let before = modes(&program);
        let mut command = cli::command(["top", "--interval=200ms", "--endpoints"]);
        command.arg(cluster.endpoints()).env("TERM", "xterm-256color");
        let side = || program.try_clone().expect("a descriptor can be cloned");
        command.stdin(side()).stdout(side()).stderr(side());
        let mut top = Process::start(command);

        let (pieces, shown) = mpsc::channel();
        let mut reading = person.try_clone().expect("a descriptor can be cloned");
        thread::spawn(move || {
            let mut piece = [0; 4_096];
            while let Ok(read @ 1..) = reading.read(&mut piece) {
                if pieces.send(piece[..read].to_vec()).is_err() {
                    return;
                }
            }
        });
        let mut screen = String::new();
        let mut until = |words: &str| {
            wait::until(&format!("{words:?} on the screen"), wait::PATIENCE, || {
                for piece in shown.try_iter() {
                    screen += &String::from_utf8_lossy(&piece);
                }
                if screen.contains(words) { Ok(()) } else { Err(screen.clone()) }
            });
        };
        until("\x1b[?1049h");
        until("WRITES/S");
        until("node3");
        assert_ne!(modes(&program), before, "keys reach the program one by one");
        if ends_by_key {
            person.write_all(b"xq").expect("the terminal is open");
        } else {
            top.signal(libc::SIGTERM);
        }
        assert_eq!(top.exit_code_within(wait::PATIENCE), 0);
        until("\x1b[?1049l");
        assert_eq!(modes(&program), before, "the terminal is as it was");
    }
}
