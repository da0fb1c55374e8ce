//! One node: where its data is, its process, and how that came and went.

use std::fs::{self, File};
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::net::SocketAddr;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};

use super::cgroup::Group;
use super::control::Control;
use super::disk::Image;
use super::place::Place;
use super::samples::Samples;
use super::sys::{self, Kind};
use super::{spawner, status};
use crate::record::What;

/// How often a node that was told to stop is looked at.
const LOOK_INTERVAL: Duration = Duration::from_millis(5);
/// The flag that names the founders.
pub(super) const FOUNDERS_FLAG: &str = "--initial-cluster=";
/// Of a log's end, what is read in search for a node's last words.
const LOG_READ_BYTES: u64 = 64 << 10;

/// A node and everything that was made for it. Dropping it kills its process.
#[derive(Debug)]
pub(super) struct Node {
    pub(super) number: usize,
    pub(super) client: SocketAddr,
    pub(super) peer: SocketAddr,
    pub(super) place: Place,
    pub(super) disk: Option<Image>,
    pub(super) control: Option<Control>,
    pub(super) cpu: Option<Group>,
    pub(super) io: Option<Group>,
    pub(super) data_dir: PathBuf,
    /// What it prints.
    pub(super) log: PathBuf,
    /// The command line of `ringfence serve`, whole.
    pub(super) arguments: Vec<String>,
    pub(super) program: PathBuf,
    /// The names of canaries to arm, separated by commas.
    pub(super) canaries: String,
    pub(super) samples: Arc<Samples>,
    pub(super) running: Mutex<Running>,
}

/// The process, if there is one.
#[derive(Debug, Default)]
pub(super) struct Running {
    child: Option<Child>,
    /// Where the log of the newest process begins, in bytes.
    log_begins: u64,
    /// Why the process may end by itself now; `None`: it may not.
    exit_allowed: Option<String>,
}

impl Node {
    /// Starts the process.
    ///
    /// # Errors
    /// Where it runs already, or cannot be started.
    pub(super) fn start(&self) -> anyhow::Result<()> {
        self.start_with(self.arguments.clone())
    }

    /// Starts the process as one that asks the members at these addresses to belong to them.
    ///
    /// # Errors
    /// As of [`Node::start`].
    pub(super) fn start_joining(&self, via: &str) -> anyhow::Result<()> {
        let kept = self.arguments.iter().filter(|argument| !argument.starts_with(FOUNDERS_FLAG)).cloned();
        self.start_with(kept.chain([format!("--join={via}")]).collect())
    }

    fn start_with(&self, arguments: Vec<String>) -> anyhow::Result<()> {
        let mut running = self.lock();
        ensure!(running.child.is_none(), "node {} runs already", self.number);
        running.log_begins = fs::metadata(&self.log).map_or(0, |facts| facts.len());
        let child = spawner::spawn(self.command(arguments)?);
        let child = child.with_context(|| format!("{} cannot be started", self.program.display()))?;
        let process = child.id();
        running.child = Some(child);
        self.samples.push(self.number, What::Started);
        for group in [&self.cpu, &self.io].into_iter().flatten() {
            group.take(process).context("the node cannot be put into its control group")?;
        }
        Ok(())
    }

    /// `kill -9`, and waits until the process is gone. Says whether it ran.
    pub(super) fn kill(&self, how: &str) -> bool {
        let mut running = self.lock();
        self.reap(&mut running);
        let Some(mut child) = running.child.take() else { return false };
        // Both can only fail for a process that was waited for already, and this one was not.
        child.kill().expect("a child that was not waited for takes signals");
        child.wait().expect("a child can be waited for");
        self.samples.push(self.number, What::Stopped { how: how.to_owned() });
        true
    }

    /// Sends a signal. Says whether the process ran.
    pub(super) fn signal(&self, signal: libc::c_int) -> bool {
        let mut running = self.lock();
        self.reap(&mut running);
        let Some(child) = &running.child else { return false };
        let process = libc::pid_t::try_from(child.id()).expect("process ids are small");
        // SAFETY: the call takes no pointer; the child has not been waited for, so that its process id is still its own.
        let sent = unsafe { libc::kill(process, signal) };
        assert_eq!(sent, 0, "a running child takes signals");
        true
    }

    /// Asks the process to stop in order, and kills it if it has not by then. Says whether it has.
    pub(super) fn terminate(&self, limit: Duration) -> bool {
        let deadline = Instant::now() + limit;
        {
            let mut running = self.lock();
            self.reap(&mut running);
            running.exit_allowed = Some("it was asked to stop".to_owned());
        }
        let stopped = self.signal(libc::SIGTERM)
            && loop {
                if !self.is_running() {
                    break true;
                }
                if Instant::now() >= deadline {
                    self.kill("kill -9, since it did not stop in order");
                    break false;
                }
                thread::sleep(LOOK_INTERVAL);
            };
        self.lock().exit_allowed = None;
        stopped
    }

    /// Whether the process runs, however slowly.
    pub(super) fn is_running(&self) -> bool {
        let mut running = self.lock();
        self.reap(&mut running);
        running.child.is_some()
    }

    /// The process id while it runs.
    pub(super) fn process(&self) -> Option<u32> {
        let mut running = self.lock();
        self.reap(&mut running);
        running.child.as_ref().map(Child::id)
    }

    /// Says whether, and why, the process may end by itself from now on.
    pub(super) fn allow_exit(&self, reason: Option<&str>) {
        let mut running = self.lock();
        self.reap(&mut running);
        running.exit_allowed = reason.map(str::to_owned);
    }

    /// Runs something where the node's files are, with the path of its data directory.
    pub(super) fn in_data_dir<T: Send>(&self, work: impl FnOnce(&Path) -> T + Send) -> io::Result<T> {
        match &self.disk {
            Some(disk) => disk.inside(|| work(&self.data_dir)),
            None => Ok(work(&self.data_dir)),
        }
    }

    /// Gets a page from the node, from where no fault reaches.
    pub(super) fn http(&self, control: &Place, path: &str) -> io::Result<(u16, String)> {
        status::get(control, self.client, path)
    }

    /// What the node said at last since it was started.
    pub(super) fn last_words(&self) -> String {
        self.last_words_since(self.lock().log_begins)
    }

    fn last_words_since(&self, begin: u64) -> String {
        let read = || -> io::Result<Vec<u8>> {
            let mut log = File::open(&self.log)?;
            let end = log.metadata()?.len();
            log.seek(SeekFrom::Start(begin.max(end.saturating_sub(LOG_READ_BYTES))))?;
            let mut text = Vec::new();
            log.read_to_end(&mut text)?;
            Ok(text)
        };
        match read() {
            Ok(text) => last_words(&String::from_utf8_lossy(&text)),
            Err(error) => format!("its log cannot be read: {error}"),
        }
    }

    fn command(&self, arguments: Vec<String>) -> anyhow::Result<Command> {
        let mut command = Command::new(&self.program);
        command.args(arguments);
        if !self.canaries.is_empty() {
            command.env("RINGFENCE_CANARY", &self.canaries);
        }
        if let Some(control) = &self.control {
            control.prepare(&mut command);
        }
        let log = File::options().create(true).append(true).open(&self.log)?;
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        if let Some(disk) = &self.disk {
            let mounts = Arc::clone(disk.mounts());
            // SAFETY: between fork and exec only system calls are made.
            unsafe { command.pre_exec(move || sys::enter(Kind::Mounts, &mounts)) };
        }
        // Ctrl-C at a terminal is for the harness alone, which then ends the run in order.
        command.process_group(0);
        self.place.prepare(&mut command);
        Ok(command)
    }

    /// Takes note of a process that has ended by itself.
    fn reap(&self, running: &mut Running) {
        let Some(child) = &mut running.child else { return };
        let Some(status) = child.try_wait().expect("a child can be waited for") else { return };
        running.child = None;
        self.samples.push(
            self.number,
            What::Exited {
                code: ExitStatus::code(&status),
                expected: running.exit_allowed.is_some(),
                reason: self.last_words_since(running.log_begins),
            },
        );
    }

    fn lock(&self) -> MutexGuard<'_, Running> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        // A process that waits for a frozen disk cannot even be killed.
        if let Some(Err(error)) = self.disk.as_ref().map(Image::thaw) {
            eprintln!("node {}: {error:#}", self.number);
        }
        self.kill("the end of the run");
    }
}

/// What a process printed at last that tells why it ended: a panic's place and message, an error, or else the last line.
fn last_words(log: &str) -> String {
    let lines: Vec<&str> = log.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    let panicked =
        lines.iter().rposition(|line| line.starts_with("thread '") && line.contains("panicked at"));
    if let Some(at) = panicked {
        return lines[at..].iter().take(2).copied().collect::<Vec<_>>().join(" ");
    }
    let error = lines.iter().rfind(|line| line.starts_with("error: "));
    error.or(lines.last()).copied().unwrap_or("it said nothing").to_owned()
}

#[cfg(test)]
mod tests {
    use super::last_words;

    #[test]
    fn last_words_tell_why() {
        for (log, words) in [
            ("", "it said nothing"),
            ("a\nstopped\n\n", "stopped"),
            ("error: old\nerror: the disk failed\nnext:  look at it\n", "error: the disk failed"),
            (
                "thread 'main' (7) panicked at a.rs:1:2:\nno\nstack backtrace:\n",
                "thread 'main' (7) panicked at a.rs:1:2: no",
            ),
        ] {
            assert_eq!(last_words(log), words);
        }
    }
}
