//! `ringfence lock run` as real processes against a fake cluster: whoever is stopped, killed or cut off, nothing of the
//! command lives when the lock can be another's.

mod fake;
mod processes;
mod scene;

use std::time::Duration;

use crate::fake::TOKEN;
use crate::processes::{VARIABLE, signal};
use crate::scene::{Scene, with_every_means};

/// The exit code that says that the lock was lost.
const LOCK_LOST: Option<i32> = Some(20);

#[test]
fn a_command_gets_token_scope_and_endpoints_and_its_code_is_passed_on() {
    with_every_means(|means| {
        let script = "echo $RINGFENCE_TOKEN $RINGFENCE_SCOPE $RINGFENCE_ENDPOINTS; exit 7";
        let scene = Scene::start(&["--containment", means], &["sh", "-c", script], |_| {});
        let address = scene.fake.address;
        scene.until("the lease to be given back", |scene| scene.fake.state().revoked);
        assert_eq!(scene.fake.state().unlocked, Some((TOKEN, 0)), "{means}");
        let ended = scene.ended();
        assert_eq!(ended.code, Some(7), "{means}: {}", ended.stderr);
        assert_eq!(ended.stdout, format!("{TOKEN} lock:the%20jobs {address}\n"), "{means}");
        let named = if means == "pid-namespace" { "PID namespace" } else { means };
        assert!(ended.stderr.contains(named), "{means}: {}", ended.stderr);
    });
}

#[test]
fn a_stopped_wrapper() {
    with_every_means(|means| {
        let scene = Scene::stubborn(means);
        signal(scene.wrapper(), libc::SIGSTOP);
        scene.gone_in_time(means);
        assert_eq!(scene.fake.state().unlocked, None, "{means}");
        signal(scene.wrapper(), libc::SIGCONT);
        let ended = scene.ended();
        assert_eq!(ended.code, LOCK_LOST, "{means}: {}", ended.stderr);
    });
}

/// The kernel hangs up a process group that becomes an orphaned one while something in it is stopped. This must not come of
/// the end of our processes: whoever started the wrapper is in its group.
#[test]
fn a_stopped_wrapper_whose_group_is_not_hung_up() {
    with_every_means(|means| {
        let before = "exec setsid sh -c '\"$0\" \"$@\"; echo it ended with $?' \"$0\" \"$@\";";
        let flags = ["--ttl", "3s", "--containment", means];
        let scene = Scene::start_by(before, &flags, &["sleep", "300"], |_| {});
        scene.until("the command to run", |scene| scene.mark.command_runs(&["sleep", "300"]));
        let wrapper = scene.mark.role("lock");
        signal(wrapper, libc::SIGSTOP);
        scene.until("the command's end", |scene| !scene.mark.command_runs(&["sleep", "300"]));
        scene.until("the watchdog's end", |scene| scene.mark.roles("run-watchdog").is_empty());
        signal(wrapper, libc::SIGCONT);
        let ended = scene.ended();
        assert_eq!(ended.stdout, "it ended with 20\n", "{means}: {:?} {}", ended.code, ended.stderr);
    });
}

#[test]
fn a_killed_wrapper() {
    with_every_means(|means| {
        let scene = Scene::stubborn(means);
        signal(scene.wrapper(), libc::SIGKILL);
        scene.gone_in_time(means);
        scene.until("the watchdog's end", |scene| scene.mark.marked().is_empty());
    });
}

#[test]
fn a_partition_from_the_cluster() {
    with_every_means(|means| {
        let scene = Scene::stubborn(means);
        scene.fake.state().silent = true;
        scene.gone_in_time(means);
        let ended = scene.ended();
        assert_eq!(ended.code, LOCK_LOST, "{means}: {}", ended.stderr);
        assert!(ended.stderr.contains("not renewed in time"), "{means}: {}", ended.stderr);
    });
}

#[test]
fn a_stopped_watchdog() {
    with_every_means(|means| {
        let scene = Scene::stubborn(means);
        signal(scene.mark.role("run-watchdog"), libc::SIGSTOP);
        scene.gone_in_time(means);
        let ended = scene.ended();
        assert_eq!(ended.code, LOCK_LOST, "{means}: {}", ended.stderr);
    });
}

#[test]
fn a_stopped_watchdog_of_a_stopped_wrapper() {
    with_every_means(|means| {
        let scene = Scene::stubborn(means);
        signal(scene.mark.role("run-watchdog"), libc::SIGSTOP);
        signal(scene.wrapper(), libc::SIGSTOP);
        scene.gone_in_time(means);
        signal(scene.wrapper(), libc::SIGCONT);
        let ended = scene.ended();
        assert_eq!(ended.code, LOCK_LOST, "{means}: {}", ended.stderr);
    });
}

#[test]
fn everything_of_ours_stopped_in_a_pid_namespace() {
    with_every_means(|means| {
        if means != "pid-namespace" {
            return;
        }
        let scene = Scene::stubborn(means);
        signal(scene.mark.role("run-init"), libc::SIGSTOP);
        signal(scene.mark.role("run-watchdog"), libc::SIGSTOP);
        signal(scene.wrapper(), libc::SIGSTOP);
        scene.gone_in_time(means);
    });
}

#[test]
fn a_killed_watchdog() {
    with_every_means(|means| {
        let scene = Scene::stubborn(means);
        signal(scene.mark.role("run-watchdog"), libc::SIGKILL);
        scene.gone_in_time(means);
        let ended = scene.ended();
        assert_eq!(ended.code, LOCK_LOST, "{means}: {}", ended.stderr);
    });
}

#[test]
fn a_killed_first_process() {
    with_every_means(|means| {
        let scene = Scene::stubborn(means);
        signal(scene.mark.role("run-init"), libc::SIGKILL);
        scene.gone_in_time(means);
        let ended = scene.ended();
        assert_eq!(ended.code, Some(1), "{means}: {}", ended.stderr);
    });
}

#[test]
fn a_lease_that_has_ended() {
    with_every_means(|means| {
        let scene = Scene::stubborn(means);
        scene.fake.state().lease_ended = true;
        let ended = scene.ended();
        assert_eq!(ended.code, LOCK_LOST, "{means}: {}", ended.stderr);
        assert!(ended.stderr.contains("its lease has ended"), "{means}: {}", ended.stderr);
    });
}

#[test]
fn a_key_deleted_by_somebody_else() {
    with_every_means(|means| {
        let scene = Scene::stubborn(means);
        scene.fake.state().key_deleted = true;
        let deleted = processes::now();
        let mut seen = Duration::ZERO;
        while !scene.mark.command_processes().is_empty() {
            seen = processes::now() - deleted;
            // It is looked for after every keep-alive, three of which come in a TTL.
            assert!(seen < Duration::from_secs(2), "{means}: {seen:?}");
        }
        let ended = scene.ended();
        assert_eq!(ended.code, LOCK_LOST, "{means}: {}", ended.stderr);
        assert!(ended.stderr.contains("deleted"), "{means}: {}", ended.stderr);
        // What it says of the overlap is not less than what was seen.
        let said = ended.stderr.split_once("for ").and_then(|(_, rest)| rest.split_once(" ms at most"));
        let said: u128 = said.and_then(|(number, _)| number.parse().ok()).expect(&ended.stderr);
        assert!(said >= seen.as_millis(), "{means}: {said} ms, but {seen:?} was seen");
    });
}

#[test]
fn children_that_the_wrapper_had_before_are_none_of_ours() {
    with_every_means(|means| {
        let before = format!("env -u {VARIABLE} sleep 30 </dev/null >/dev/null 2>&1 & echo $!;");
        let scene = Scene::stubborn_by(&before, means);
        // Now the wrapper has to end the command itself.
        signal(scene.mark.role("run-watchdog"), libc::SIGSTOP);
        scene.gone_in_time(means);
        let ended = scene.ended();
        assert_eq!(ended.code, LOCK_LOST, "{means}: {}", ended.stderr);
        signal(ended.stdout.trim().parse().expect("the shell told its id"), libc::SIGKILL);
    });
}

/// A user that may make neither cgroups nor namespaces.
#[test]
fn a_user_without_rights_gets_a_subreaper_and_is_told_why() {
    let nobody = "exec setpriv --reuid=65534 --regid=65534 --clear-groups \"$0\" \"$@\";";
    let able = Scene::start_by(nobody, &["--help"], &["true"], |_| {}).ended();
    if able.code != Some(0) {
        return scene::skipped("subreaper of another user", &able.stderr);
    }
    let scene = Scene::stubborn_by(nobody, "any");
    signal(scene.wrapper(), libc::SIGSTOP);
    scene.gone_in_time("subreaper of another user");
    signal(scene.wrapper(), libc::SIGCONT);
    let ended = scene.ended();
    assert_eq!(ended.code, LOCK_LOST, "{}", ended.stderr);
    assert!(ended.stderr.contains("contained by a subreaper; "), "{}", ended.stderr);
}

#[test]
fn a_command_in_the_foreground_of_a_terminal_reads_from_it_and_gets_its_signals_once() {
    if std::process::Command::new("script").arg("--version").output().is_err() {
        return scene::skipped("the foreground of a terminal", "there is no script(1)");
    }
    with_every_means(|means| {
        // None of the arguments has a single quote in it.
        let terminal = "exec script -qec \"exec $(printf \" '%s'\" \"$0\" \"$@\")\" /dev/null;";
        // The trap would say so a second time if the signal came again.
        let script = "trap \"echo interrupted\" INT; read line; echo got $line; sleep 300; sleep 0.3; exit 9";
        let mut scene = Scene::start_by(terminal, &["--containment", means], &["sh", "-c", script], |_| {});
        scene.type_in(b"hello\n");
        scene.until("the line to be read", |scene| scene.mark.command_runs(&["sleep", "300"]));
        scene.type_in(b"\x03");
        let ended = scene.ended();
        assert_eq!(ended.code, Some(9), "{means}: {}", ended.stdout);
        assert!(ended.stdout.contains("got hello"), "{means}: {}", ended.stdout);
        assert_eq!(ended.stdout.matches("interrupted").count(), 1, "{means}: {}", ended.stdout);
    });
}

#[test]
fn signals_are_passed_on() {
    with_every_means(|means| {
        let script = "trap 'exit 9' TERM; while :; do sleep 0.05; done";
        let scene = Scene::start(&["--containment", means], &["sh", "-c", script], |_| {});
        // The loop has begun, so the trap is set.
        scene.until("the command to run", |scene| scene.mark.command_processes().len() == 2);
        signal(scene.wrapper(), libc::SIGTERM);
        scene.until("the lock to be given back", |scene| scene.fake.state().unlocked.is_some());
        assert_eq!(scene.fake.state().unlocked, Some((TOKEN, 0)), "{means}");
        let ended = scene.ended();
        assert_eq!(ended.code, Some(9), "{means}: {}", ended.stderr);
    });
}

#[test]
fn what_a_command_leaves_behind_ends_before_the_lock_is_given_back() {
    with_every_means(|means| {
        let flags = ["--containment", means, "--grace", "100ms"];
        let script = "trap '' TERM; (setsid sleep 300 &); exit 0";
        let scene = Scene::start(&flags, &["sh", "-c", script], |_| {});
        scene.until("the lock to be given back", |scene| scene.fake.state().unlocked.is_some());
        assert_eq!(scene.fake.state().unlocked, Some((TOKEN, 0)), "{means}");
        let ended = scene.ended();
        assert_eq!(ended.code, Some(0), "{means}: {}", ended.stderr);
    });
}

#[test]
fn a_command_that_a_signal_ends_or_that_is_not_there() {
    let by_signal = Scene::start(&[], &["sh", "-c", "kill -USR1 $$"], |_| {}).ended();
    assert_eq!(by_signal.code, Some(128 + libc::SIGUSR1), "{}", by_signal.stderr);
    let missing = Scene::start(&[], &["/no/such/program"], |_| {}).ended();
    assert_eq!(missing.code, Some(127), "{}", missing.stderr);
    assert!(missing.stderr.contains("/no/such/program"), "{}", missing.stderr);
}

#[test]
fn the_wait_for_the_lock_has_a_limit_and_ends_with_a_signal() {
    let scene = Scene::start(&["--wait", "200ms"], &["true"], |state| state.taken = true);
    scene.until("the lease to be given back", |scene| scene.fake.state().revoked);
    let ended = scene.ended();
    assert_eq!(ended.code, Some(6), "{}", ended.stderr);
    let scene = Scene::start(&[], &["true"], |state| state.taken = true);
    scene.until("the lease to be granted", |scene| !scene.fake.state().ttl.is_zero());
    signal(scene.wrapper(), libc::SIGTERM);
    let ended = scene.ended();
    assert_eq!(ended.code, Some(128 + libc::SIGTERM), "{}", ended.stderr);
}

#[test]
fn times_that_make_no_sense_are_usage_errors() {
    for flags in [["--ttl", "1s"], ["--ttl", "2500ms"], ["--grace", "9s"]] {
        let scene = Scene::start(&flags, &["true"], |_| {});
        assert!(scene.fake.state().ttl.is_zero(), "{flags:?}");
        assert_eq!(scene.ended().code, Some(2), "{flags:?}");
    }
}
