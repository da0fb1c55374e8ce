//! One run of `ringfence lock run` against a fake cluster.

use std::io::{Read as _, Write as _};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use crate::fake::{Fake, State};
use crate::processes::{self, Mark, VARIABLE};

/// Longest wait for anything that takes a moment: reached only when a test fails.
const PATIENCE: Duration = Duration::from_secs(60);
const LOOK_INTERVAL: Duration = Duration::from_millis(5);

/// The ways to contain a command.
pub const MEANS: [&str; 3] = ["cgroup", "pid-namespace", "subreaper"];

/// Ignores SIGTERM, and has a descendant that has forked twice and called setsid, with a child of its own.
const STUBBORN: &str =
    "trap '' TERM INT HUP; (setsid sh -c 'sleep 301 & sleep 302; sleep 303' &); sleep 304; sleep 305";
/// How many processes that is.
const STUBBORN_PROCESSES: usize = 5;

/// A run.
pub struct Scene {
    pub fake: Fake,
    pub mark: Mark,
    wrapper: Child,
}

/// How a run ended.
#[derive(Debug)]
pub struct Ended {
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

impl Scene {
    /// Starts a run with these flags and this command; `prepare` sets the fake up.
    pub fn start(flags: &[&str], command: &[&str], prepare: impl FnOnce(&mut State)) -> Scene {
        Scene::start_by("", flags, command, prepare)
    }

    /// The same by a shell that does something before and then becomes the wrapper.
    pub fn start_by(
        before: &str,
        flags: &[&str],
        command: &[&str],
        prepare: impl FnOnce(&mut State),
    ) -> Scene {
        let mark = Mark::new();
        let fake = Fake::start(&mark);
        prepare(&mut fake.state());
        let mut wrapper = Command::new("sh");
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("RINGFENCE_") {
                wrapper.env_remove(name);
            }
        }
        wrapper
            .args(["-c", &format!("{before} exec \"$0\" \"$@\""), env!("CARGO_BIN_EXE_ringfence")])
            .args(["lock", "run", "the jobs", "--endpoints", &fake.address.to_string()])
            .args(flags)
            .arg("--")
            .args(command)
            .env(VARIABLE, mark.value())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let wrapper = wrapper.spawn().expect("the program was built");
        Scene { fake, mark, wrapper }
    }

    /// Starts a command that will not go by itself, and waits until all of it runs and the lease was kept alive once.
    pub fn stubborn(means: &str) -> Scene {
        Scene::stubborn_by("", means)
    }

    /// The same by a shell that does something before; the program chooses the means if they are "any".
    pub fn stubborn_by(before: &str, means: &str) -> Scene {
        let flags = ["--ttl", "3s", "--containment", means];
        let flags = if means == "any" { &flags[..2] } else { &flags };
        let scene = Scene::start_by(before, flags, &["sh", "-c", STUBBORN], |_| {});
        scene.until("the command to run", |scene| {
            scene.mark.command_processes().len() == STUBBORN_PROCESSES && scene.fake.state().keep_alives > 0
        });
        scene
    }

    pub fn wrapper(&self) -> i32 {
        i32::try_from(self.wrapper.id()).expect("process ids are small")
    }

    /// Writes to the wrapper's standard input.
    pub fn type_in(&mut self, bytes: &[u8]) {
        let stdin = self.wrapper.stdin.as_mut().expect("it is piped");
        stdin.write_all(bytes).expect("somebody reads");
        stdin.flush().expect("somebody reads");
    }

    /// Waits until `fact` holds.
    pub fn until(&self, what: &str, fact: impl Fn(&Scene) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !fact(self) {
            assert!(Instant::now() < deadline, "waited in vain for {what}");
            thread::sleep(LOOK_INTERVAL);
        }
    }

    /// Waits until every process of the command is gone, and checks that it is so before the lock can be another's.
    pub fn gone_in_time(&self, means: &str) {
        self.until("the command's end", |scene| scene.mark.command_processes().is_empty());
        let (gone, end) = (processes::now(), self.fake.lease_end());
        assert!(gone < end, "{means}: the last process was seen to end {:?} too late", gone - end);
    }

    /// Waits for the wrapper's end.
    pub fn ended(mut self) -> Ended {
        let deadline = Instant::now() + PATIENCE;
        let status = loop {
            if let Some(status) = self.wrapper.try_wait().expect("a child can be waited for") {
                break status;
            }
            assert!(Instant::now() < deadline, "the wrapper still runs");
            thread::sleep(LOOK_INTERVAL);
        };
        self.until("the last process's end", |scene| scene.mark.marked().is_empty());
        let (mut stdout, mut stderr) = (String::new(), String::new());
        let pipes = (self.wrapper.stdout.take(), self.wrapper.stderr.take());
        pipes.0.expect("it is piped").read_to_string(&mut stdout).expect("it is text");
        pipes.1.expect("it is piped").read_to_string(&mut stderr).expect("it is text");
        Ended { code: status.code(), stdout, stderr }
    }
}

impl Drop for Scene {
    fn drop(&mut self) {
        // Only a test that fails leaves anything.
        for pid in self.mark.marked() {
            // SAFETY: kill touches no memory.
            unsafe { libc::kill(pid, libc::SIGKILL) };
        }
        let _ = self.wrapper.wait();
    }
}

/// Plays a scene with every means that this machine has, all at once.
pub fn with_every_means(scene: impl Fn(&str) + Sync) {
    thread::scope(|scope| {
        for means in MEANS {
            let scene = &scene;
            scope.spawn(move || {
                if can_be_had(means) {
                    scene(means);
                }
            });
        }
    });
}

/// Tells that something was left out, past the capture of the test's own output: silently it would look as if it had passed.
pub fn skipped(what: &str, why: &str) {
    let _ = writeln!(std::io::stderr().lock(), "skipped: {what}: {}", why.trim());
}

fn can_be_had(means: &str) -> bool {
    let ended = Scene::start(&["--containment", means], &["true"], |_| {}).ended();
    let missing = ended.code == Some(1) && ended.stderr.contains("cannot be contained");
    if missing {
        skipped(means, &ended.stderr);
    } else {
        assert_eq!(ended.code, Some(0), "{means}: {}", ended.stderr);
    }
    !missing
}
