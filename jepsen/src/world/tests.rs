//! Real clocks, syncs and nodes. What this machine cannot do is skipped, and said.

use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Output};
use std::sync::OnceLock;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use super::control::Control;
use super::{Capabilities, Capability, Host, Keep, Link, Plan, Storage, World, program};
use crate::record::What;

/// Longest wait for what a healthy cluster does within a second or two.
const PATIENCE: Duration = Duration::from_secs(60);

fn capabilities() -> &'static Capabilities {
    static PROBED: OnceLock<Capabilities> = OnceLock::new();
    PROBED.get_or_init(Capabilities::probe)
}

/// Whether a test must be left out, which it says past the capture of tests' output.
pub(super) fn lacks(capability: Capability, test: &str) -> bool {
    let Some(why) = capabilities().why_not(capability) else { return false };
    // The test is left out whether or not anybody can read this.
    let _ = writeln!(std::io::stderr().lock(), "skipped: {test}: no {capability}: {why}");
    true
}

/// Runs a shell's command with the shim.
fn shell(control: &Control, command: &str) -> Output {
    let mut shell = Command::new("/bin/sh");
    shell.args(["-c", command]);
    control.prepare(&mut shell);
    shell.output().expect("there is a shell")
}

fn control(folder: &Path) -> Control {
    let shim = program::shim().expect("the shim can be built");
    Control::create(&shim, folder.join("block")).expect("the folder is writable")
}

fn numbers(output: &Output) -> Vec<u128> {
    let text = String::from_utf8_lossy(&output.stdout);
    text.split_whitespace().map(|word| word.parse().expect("date prints numbers")).collect()
}

#[test]
fn waits_and_clocks_run_at_the_same_rate() {
    if lacks(Capability::Shim, "waits_and_clocks_run_at_the_same_rate") {
        return;
    }
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let control = control(folder.path());
    control.clock.set_rate(99_000_000);
    let begun = Instant::now();
    let output = shell(&control, "date +%s%N; sleep 20; date +%s%N");
    let truly = begun.elapsed().as_nanos();
    let [before, after] = numbers(&output)[..] else { panic!("{output:?}") };
    assert!(after - before >= 20_000_000_000, "no wait ends early by the clock that it is measured with");
    assert!(after - before > truly, "the clock is a hundred times as fast as the true one");
    assert!(control.clock.wrong_readings() >= 2);
    assert_eq!(control.clock.rate(), 99_000_000);
}

#[test]
fn wall_clocks_jump_and_come_back() {
    if lacks(Capability::Shim, "wall_clocks_jump_and_come_back") {
        return;
    }
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let control = control(folder.path());
    let hour: i64 = 3_600_000_000_000;
    let now = || SystemTime::now().duration_since(UNIX_EPOCH).expect("it is after 1970").as_nanos();
    for (offset, least) in [(hour, now() + u128::from(hour.unsigned_abs())), (0, now())] {
        control.clock.set_wall_offset(offset);
        let [shown] = numbers(&shell(&control, "date +%s%N"))[..] else { panic!("date prints a number") };
        let most = now() + u128::from(offset.unsigned_abs());
        assert!((least..=most).contains(&shown), "{least} <= {shown} <= {most}");
    }
}

#[test]
fn a_change_of_rate_is_no_jump() {
    if lacks(Capability::Shim, "a_change_of_rate_is_no_jump") {
        return;
    }
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let clock = control(folder.path()).clock;
    let mut gained = clock.gained();
    for rate in [200_000, 100_000, 500_000, 0] {
        clock.set_rate(rate);
        assert!(clock.gained() >= gained, "a clock that is fast gains, and keeps what it gained");
        gained = clock.gained();
    }
    std::thread::sleep(Duration::from_millis(2));
    assert_eq!(clock.gained(), gained, "at the true rate nothing is gained");
}

#[test]
fn syncs_fail_from_the_chosen_one_on() {
    if lacks(Capability::Shim, "syncs_fail_from_the_chosen_one_on") {
        return;
    }
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let control = control(folder.path());
    let sync = || shell(&control, &format!("sync {}", folder.path().display()));
    assert!(sync().status.success());
    control.syncs.fail(1, libc::EIO);
    assert!(sync().status.success(), "one more succeeds");
    for _ in 0..2 {
        let failed = sync();
        assert!(String::from_utf8_lossy(&failed.stderr).contains("Input/output error"), "{failed:?}");
    }
    assert_eq!((control.syncs.count(), control.syncs.failed()), (4, 2));
    control.syncs.heal();
    assert!(sync().status.success());
    control.syncs.delay(Duration::from_millis(30));
    let begun = Instant::now();
    assert!(sync().status.success());
    assert!(begun.elapsed() >= Duration::from_millis(30));
    assert_eq!(control.syncs.delayed(), 1);
}

/// A world of three nodes, with the folder that it is in.
fn world(capabilities: &Capabilities) -> (World, tempfile::TempDir) {
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let shim = capabilities.has(Capability::Shim).then(|| program::shim().expect("the shim can be built"));
    let plan = Plan {
        nodes: 3,
        directory: folder.path().to_path_buf(),
        program: program::server().expect("the server can be built"),
        shim,
        canaries: Vec::new(),
        flags: Vec::new(),
        storage: Storage::Memory,
        seed: 1,
    };
    (World::start(plan, capabilities).expect("a world can be made here"), folder)
}

fn wait_for<T>(what: &str, look: impl Fn() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < deadline, "waited {PATIENCE:?} in vain for {what}");
        std::thread::sleep(super::LOOK_INTERVAL);
    }
}

#[test]
fn a_leader_is_cut_off_loses_its_power_and_comes_back() {
    let name = "a_leader_is_cut_off_loses_its_power_and_comes_back";
    if lacks(Capability::Network, name) || lacks(Capability::Disk, name) {
        return;
    }
    let (world, _folder) = world(capabilities());
    let first = wait_for("a leader", || world.leader());
    let network = world.network().expect("there is one");
    let others = || network.hosts().iter().copied().filter(|host| *host != Host::CONTROL);
    let alone = Host::node(first);
    network.set_all(others().flat_map(|host| [(alone, host, Link::cut()), (host, alone, Link::cut())]));
    let second = wait_for("another leader", || world.leader().filter(|leader| *leader != first));
    let cut_off = wait_for("the old one to notice", || world.status(first).filter(|status| status.read_only));
    assert!(!cut_off.leads, "a leader that is cut off steps back");
    network.heal();

    world.cut_power(&[second], Keep::NOTHING).expect("the power can be cut");
    assert!(!world.is_running(second));
    world.restore_power(second).expect("the disk can be mounted again");
    world.start_node(second).expect("the node can be started");
    world.wait_all_ready(PATIENCE).expect("all nodes are well");
    let told: Vec<What> = world.samples().into_iter().map(|sample| sample.what).collect();
    let cuts = told.iter().filter(|what| matches!(what, What::Stopped { how } if how == "power cut"));
    assert_eq!(cuts.count(), 1);
    assert!(told.iter().any(|what| matches!(what, What::Status { leads: true, .. })));
}

#[test]
fn a_node_whose_sync_fails_stops_and_that_was_expected() {
    if lacks(Capability::Shim, "a_node_whose_sync_fails_stops_and_that_was_expected") {
        return;
    }
    let (world, _folder) = world(&capabilities().clone().only(&[Capability::Shim]));
    let node = wait_for("a leader", || world.leader());
    world.allow_exit(node, "its syncs fail");
    world.syncs_of(node).expect("there is a shim").fail(0, libc::EIO);
    let mut put = Command::new(program::server().expect("the server was built"));
    put.args(["put", "key", "value", "--endpoints", &world.client_address(node)]);
    world.client_place().prepare(&mut put);
    // Whether the write succeeds on the others is not asked here; it makes the node sync.
    put.output().expect("the client can be run");
    wait_for("the node to stop", || (!world.is_running(node)).then_some(()));
    let exits = world.samples().into_iter().filter_map(|sample| match sample.what {
        What::Exited { expected, reason, .. } => Some((sample.node, expected, reason)),
        _ => None,
    });
    let exits: Vec<_> = exits.collect();
    let [(ended, true, reason)] = &exits[..] else { panic!("{exits:?}") };
    assert_eq!(*ended, node);
    assert!(reason.contains("Input/output error"), "{reason}");
}
