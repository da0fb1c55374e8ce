//! One node: a `ringfence serve` process with its addresses, its directory and its log.

use std::fs::{self, File};
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use crate::cli;
use crate::http;
use crate::process::Process;
use crate::syncs::Syncs;
use crate::wait;

/// A node, running or not.
#[derive(Debug)]
pub struct Node {
    /// Its name.
    pub name: String,
    /// Where clients reach it.
    pub client: String,
    /// Where peers reach it.
    pub peer: String,
    /// Where it keeps everything.
    pub data_dir: PathBuf,
    /// The file that has what it said on standard error.
    pub log_file: PathBuf,
    /// The founders of its cluster, as `--initial-cluster` takes them; empty for one that joins.
    pub initial_cluster: String,
    /// More flags of `serve`.
    pub flags: Vec<String>,
    /// What rules its syncs, if anything does.
    pub syncs: Option<Syncs>,
    process: Option<Process>,
}

impl Node {
    /// A node that has not been started.
    #[must_use]
    pub fn new(name: String, client: String, peer: String, data_dir: PathBuf, log_file: PathBuf) -> Node {
        Node {
            name,
            client,
            peer,
            data_dir,
            log_file,
            initial_cluster: String::new(),
            flags: Vec::new(),
            syncs: None,
            process: None,
        }
    }

    /// Starts the node; whether it becomes ready is another question.
    ///
    /// # Panics
    /// Where it already runs.
    pub fn start(&mut self) {
        assert!(!self.is_running(), "{} already runs", self.name);
        let mut command = cli::command(["serve"]);
        command
            .arg(format!("--name={}", self.name))
            .arg(format!("--data-dir={}", self.data_dir.display()))
            .arg(format!("--listen-client={}", self.client))
            .arg(format!("--listen-peer={}", self.peer))
            // Small segments, so that tests see many of them and fill no disk.
            .arg("--log-segment-size=16MiB")
            .args(&self.flags);
        if !self.initial_cluster.is_empty() {
            command.arg(format!("--initial-cluster={}", self.initial_cluster));
        }
        if let Some(syncs) = &self.syncs {
            syncs.prepare(&mut command);
        }
        let log =
            File::options().create(true).append(true).open(&self.log_file).expect("the log is writable");
        command.stdin(Stdio::null()).stdout(log.try_clone().expect("a file can be cloned")).stderr(log);
        self.process = Some(Process::start(command));
    }

    /// The process of a node that was started.
    ///
    /// # Panics
    /// Where it never was.
    pub fn process(&mut self) -> &mut Process {
        self.process.as_mut().expect("the node was started")
    }

    /// Whether it runs.
    pub fn is_running(&mut self) -> bool {
        self.process.as_mut().is_some_and(Process::runs)
    }

    /// `kill -9`, and waits until it is gone.
    pub fn kill(&mut self) {
        self.process().kill();
    }

    /// Starts the node and waits until it ends by itself; returns its exit code and what it said this time.
    ///
    /// # Panics
    /// Where it goes on running.
    pub fn start_and_fail(&mut self) -> (i32, String) {
        let before = self.log().len();
        self.start();
        let limit = wait::PATIENCE;
        let Some(status) = self.process().ended_within(limit) else {
            panic!("{} should have ended, and still runs after {limit:?}:\n{}", self.name, self.log());
        };
        let said = self.log().split_off(before);
        (status.code().unwrap_or_else(|| panic!("a signal ended {}: {said}", self.name)), said)
    }

    /// Everything that it has said.
    #[must_use]
    pub fn log(&self) -> String {
        fs::read_to_string(&self.log_file).unwrap_or_default()
    }

    /// Whether it says that it is ready, or why it is not.
    ///
    /// # Errors
    /// Where it is not ready.
    pub fn ready(&self) -> Result<(), String> {
        match http::get(&self.client, "/readyz") {
            Ok(page) if page.status == 200 => Ok(()),
            Ok(page) => Err(format!("{}: {}", self.name, page.body.trim_end())),
            Err(error) => Err(format!("{}: {error}", self.name)),
        }
    }

    /// A number from its page of metrics.
    #[must_use]
    pub fn metric(&self, name: &str) -> Option<f64> {
        http::metric(&http::get(&self.client, "/metrics").ok()?.body, name)
    }

    /// Waits until it is ready.
    ///
    /// # Panics
    /// Where it has ended, or does not become ready.
    pub fn wait_ready(&mut self) {
        let deadline = Duration::from_secs(60);
        wait::until("a node to become ready", deadline, || {
            assert!(self.is_running(), "{} has ended:\n{}", self.name, self.log());
            self.ready()
        });
    }
}
