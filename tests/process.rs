//! Child processes that never outlive their test, however it ends.

use std::fs;
use std::io;
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::path::PathBuf;
use std::process::{Child, ChildStdin, ChildStdout, Command, ExitStatus};
use std::sync::mpsc::{Sender, channel};
use std::sync::{OnceLock, PoisonError, RwLock};
use std::thread;
use std::time::{Duration, Instant};

use crate::wait::{self, PATIENCE};

/// How often a child is asked whether it has ended.
const LOOK_INTERVAL: Duration = Duration::from_millis(5);

/// A child process. Dropping it kills it; should the test's process itself be killed, the kernel kills it.
#[derive(Debug)]
pub struct Process {
    child: Child,
    status: Option<ExitStatus>,
}

type Spawned = (Command, Sender<io::Result<Child>>);

impl Process {
    /// Starts a command.
    ///
    /// # Panics
    /// Where the command cannot be started.
    #[must_use]
    pub fn start(mut command: Command) -> Process {
        let parent = std::process::id();
        // SAFETY: between fork and exec only system calls are made that may be made there.
        unsafe {
            command.pre_exec(move || {
                if libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) != 0 {
                    return Err(io::Error::last_os_error());
                }
                // The test may have ended before the request was made.
                if libc::getppid().unsigned_abs() != parent {
                    return Err(io::Error::from_raw_os_error(libc::ESRCH));
                }
                Ok(())
            });
        }
        let (answer, answered) = channel();
        spawner().send((command, answer)).expect("the spawning thread never ends");
        let child =
            answered.recv().expect("the spawning thread answers").expect("the command can be started");
        Process { child, status: None }
    }

    /// Its process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Its standard input, once, if it was asked for.
    pub fn stdin(&mut self) -> Option<ChildStdin> {
        self.child.stdin.take()
    }

    /// Its standard output, once, if it was asked for.
    pub fn stdout(&mut self) -> Option<ChildStdout> {
        self.child.stdout.take()
    }

    /// The processor time that it has used.
    ///
    /// # Panics
    /// Where it does not run.
    #[must_use]
    pub fn cpu_time(&self) -> Duration {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.pid())).expect("it runs");
        let fields: Vec<&str> = stat.rsplit_once(") ").expect("the name ends").1.split(' ').collect();
        // User and system time are fields 14 and 15, and the state is field 3; in ticks of which there are 100 a second.
        let ticks = [11, 12].map(|at| fields[at].parse::<u64>().expect("times are numbers"));
        Duration::from_millis(10 * (ticks[0] + ticks[1]))
    }

    /// Whether it still runs.
    pub fn runs(&mut self) -> bool {
        if self.status.is_none() {
            self.status = self.child.try_wait().expect("a child can be waited for");
        }
        self.status.is_none()
    }

    /// Sends it a signal, if it still runs.
    pub fn signal(&mut self, signal: libc::c_int) {
        if self.runs() {
            let pid = libc::pid_t::try_from(self.pid()).expect("process ids are small");
            // SAFETY: the child has not been waited for, so its process id is still its own.
            assert_eq!(unsafe { libc::kill(pid, signal) }, 0, "a running child takes signals");
        }
    }

    /// `kill -9`, and waits until it is gone.
    pub fn kill(&mut self) {
        self.signal(libc::SIGKILL);
        self.status = Some(self.child.wait().expect("a child can be waited for"));
    }

    /// Stops it where it stands, and waits until each of its threads does: on a busy machine they run on for a while.
    pub fn stop(&mut self) {
        self.signal(libc::SIGSTOP);
        let tasks = PathBuf::from(format!("/proc/{}/task", self.pid()));
        wait::until("all threads of a process to stop", PATIENCE, || {
            let threads = fs::read_dir(&tasks).map_err(|error| error.to_string())?;
            for thread in threads {
                let path = thread.map_err(|error| error.to_string())?.path().join("stat");
                let stat = fs::read_to_string(path).unwrap_or_default();
                // The state follows the name, which stands in parentheses.
                let state = stat.rsplit_once(") ").and_then(|(_, rest)| rest.chars().next());
                if state != Some('T') {
                    return Err(format!("a thread is {state:?}"));
                }
            }
            Ok(())
        });
    }

    /// Lets a stopped process go on.
    pub fn go_on(&mut self) {
        self.signal(libc::SIGCONT);
    }

    /// How it ended; `None` if it still runs at the end of that time.
    pub fn ended_within(&mut self, limit: Duration) -> Option<ExitStatus> {
        let deadline = Instant::now() + limit;
        while self.runs() {
            if Instant::now() >= deadline {
                return None;
            }
            thread::sleep(LOOK_INTERVAL);
        }
        self.status
    }

    /// The code with which it ended within that time.
    ///
    /// # Panics
    /// Where it still runs, or a signal ended it.
    pub fn exit_code_within(&mut self, limit: Duration) -> i32 {
        let Some(status) = self.ended_within(limit) else {
            panic!("process {} still runs after {limit:?}", self.pid());
        };
        match status.code() {
            Some(code) => code,
            None => panic!("process {} was ended by signal {:?}", self.pid(), status.signal()),
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if self.runs() {
            // Both can only fail because it has ended already.
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

/// The kernel ends a child with the *thread* that started it. Tests are threads that end, and clusters may be shared by
/// several tests; so one thread that lives as long as the process starts them all.
fn spawner() -> Sender<Spawned> {
    static SPAWNER: OnceLock<Sender<Spawned>> = OnceLock::new();
    SPAWNER
        .get_or_init(|| {
            let (sender, receiver) = channel::<Spawned>();
            let work = move || {
                for (mut command, answer) in receiver {
                    // The asking test may have ended by now; then the child is dropped, which its death signal makes good.
                    let _ = answer.send(spawn(&mut command));
                }
            };
            thread::Builder::new().name("spawner".to_owned()).spawn(work).expect("a thread can be started");
            sender
        })
        .clone()
}

/// Held by everybody who starts a process, until the new process has closed what it inherited.
static FORKS: RwLock<()> = RwLock::new(());

/// Starts a command, of whatever kind. All of this package goes through here; see [`forks_done`].
///
/// # Errors
/// Where the command cannot be started.
pub fn spawn(command: &mut Command) -> io::Result<Child> {
    let _fork = FORKS.read().unwrap_or_else(PoisonError::into_inner);
    command.spawn()
}

/// Waits until every process that is being started has closed what it inherited. For a moment, a new process holds every
/// socket of this one: a port whose listener was dropped here is free only after that.
pub fn forks_done() {
    drop(FORKS.write().unwrap_or_else(PoisonError::into_inner));
}
