//! One node of a development cluster: its process, its addresses, its files.

use std::fs::{self, File};
use std::net::TcpListener;
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};

use serde::Serialize;

use crate::exit::{Exit, Failure};

/// Lines of a node's log that are shown when it ends during the start.
const LOG_LINES_SHOWN: usize = 5;
/// Distance between the ports of one node and the next.
const PORT_STEP: u16 = 10;

/// Where the nodes are.
#[derive(Debug)]
pub(super) struct Layout {
    /// Absolute.
    pub(super) data_dir: PathBuf,
    pub(super) base_port: u16,
    pub(super) nodes: u16,
}

/// A node that was started. It is killed when this is dropped.
#[derive(Debug, Serialize)]
pub(super) struct DevNode {
    pub(super) name: String,
    pub(super) pid: u32,
    pub(super) client: String,
    pub(super) peer: String,
    pub(super) data_dir: PathBuf,
    #[serde(skip)]
    pub(super) command_file: PathBuf,
    #[serde(skip)]
    log_file: PathBuf,
    #[serde(skip)]
    child: Child,
    /// How it ended, once it has.
    #[serde(skip)]
    status: Option<ExitStatus>,
}

impl Layout {
    fn name(number: u16) -> String {
        format!("node{number}")
    }

    fn client(&self, number: u16) -> String {
        format!("127.0.0.1:{}", self.base_port + PORT_STEP * (number - 1))
    }

    fn peer(&self, number: u16) -> String {
        format!("127.0.0.1:{}", self.base_port + PORT_STEP * (number - 1) + 1)
    }

    fn initial_cluster(&self) -> String {
        let members: Vec<String> = (1..=self.nodes)
            .map(|number| format!("{}={}", Layout::name(number), self.peer(number)))
            .collect();
        members.join(",")
    }

    /// Looks whether all ports are free before anything is started.
    pub(super) fn check_ports(&self) -> Result<(), Failure> {
        for address in (1..=self.nodes).flat_map(|number| [self.client(number), self.peer(number)]) {
            TcpListener::bind(&address).map_err(|error| {
                Failure::new(Exit::AddressInUse, format!("cannot listen on {address}: {error}"))
                    .next("stop what listens there (another cluster?), or give other ports with --base-port")
            })?;
        }
        Ok(())
    }

    /// The flags of `serve` for a node.
    fn serve_flags(&self, number: u16, more: &[String]) -> Vec<String> {
        let data_dir = self.data_dir.join(Layout::name(number));
        let mut flags = vec![
            "serve".to_owned(),
            format!("--name={}", Layout::name(number)),
            format!("--data-dir={}", data_dir.display()),
            format!("--listen-client={}", self.client(number)),
            format!("--listen-peer={}", self.peer(number)),
            format!("--initial-cluster={}", self.initial_cluster()),
        ];
        flags.extend_from_slice(more);
        flags
    }
}

impl DevNode {
    /// Starts a node. Must be called on a thread that lives as long as this process: the kernel ends the node with it.
    pub(super) fn start(layout: &Layout, number: u16, more: &[String]) -> Result<DevNode, Failure> {
        let name = Layout::name(number);
        let beside = |extension: &str| layout.data_dir.join(format!("{name}.{extension}"));
        let (log_file, command_file) = (beside("log"), beside("command"));
        let program = std::env::current_exe()?;
        let flags = layout.serve_flags(number, more);
        fs::write(&command_file, command_line(&program, &flags))?;
        let log = File::options().create(true).append(true).open(&log_file)?;
        let mut command = Command::new(&program);
        command.args(&flags).stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        // In a group of its own, so that Ctrl-C reaches this process alone, which then stops the nodes in order.
        command.process_group(0);
        end_with_this_process(&mut command);
        let child = command.spawn().map_err(|error| {
            Failure::new(Exit::General, format!("cannot start {}: {error}", program.display()))
        })?;
        Ok(DevNode {
            pid: child.id(),
            client: layout.client(number),
            peer: layout.peer(number),
            data_dir: layout.data_dir.join(&name),
            name,
            command_file,
            log_file,
            child,
            status: None,
        })
    }

    /// How the node ended, if it has and this was not asked for since.
    pub(super) fn ended(&mut self) -> Result<Option<String>, Failure> {
        if self.status.is_some() {
            return Ok(None);
        }
        self.status = self.child.try_wait()?;
        Ok(self.status.map(describe))
    }

    /// Whether the node still runs.
    pub(super) fn runs(&mut self) -> bool {
        if self.status.is_none() {
            // An error means that there is no such child: then it does not run.
            self.status = self.child.try_wait().unwrap_or(Some(ExitStatus::from_raw(0)));
        }
        self.status.is_none()
    }

    /// Asks the node to stop in order.
    pub(super) fn terminate(&mut self) {
        if self.runs()
            && let Ok(pid) = libc::pid_t::try_from(self.pid)
        {
            // SAFETY: the child has not been waited for, so its process id is still its own.
            unsafe { libc::kill(pid, libc::SIGTERM) };
        }
    }

    /// What to tell when the node ended during the start: its own exit code, and the end of its log.
    pub(super) fn failure(&self, how: &str) -> Failure {
        let log = fs::read_to_string(&self.log_file).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        let end = lines[lines.len().saturating_sub(LOG_LINES_SHOWN)..].join("\n  ");
        let exit = match self.status.and_then(|status| status.code()) {
            Some(code) if code == Exit::Config as i32 => Exit::Config,
            Some(code) if code == Exit::DataDirectoryInUse as i32 => Exit::DataDirectoryInUse,
            Some(code) if code == Exit::AddressInUse as i32 => Exit::AddressInUse,
            Some(code) if code == Exit::Identity as i32 => Exit::Identity,
            Some(code) if code == Exit::LogCorrupt as i32 => Exit::LogCorrupt,
            Some(code) if code == Exit::StateCorrupt as i32 => Exit::StateCorrupt,
            Some(code) if code == Exit::Disk as i32 => Exit::Disk,
            Some(code) if code == Exit::Consensus as i32 => Exit::Consensus,
            _ => Exit::General,
        };
        Failure::new(exit, format!("{} ended before a leader was elected: {how}\n  {end}", self.name))
            .next(format!("the whole log is {}", self.log_file.display()))
    }
}

impl Drop for DevNode {
    fn drop(&mut self) {
        if self.runs() {
            // Both can only fail because it has ended already.
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

/// Lets the kernel end the command's process when this one ends in whatever way.
#[cfg(target_os = "linux")]
fn end_with_this_process(command: &mut Command) {
    let parent = std::process::id();
    // SAFETY: between fork and exec only these two system calls are made; both may be made there.
    unsafe {
        command.pre_exec(move || {
            if libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGTERM) != 0 {
                return Err(std::io::Error::last_os_error());
            }
            // The parent may have ended before the request was made.
            if libc::getppid().unsigned_abs() != parent {
                return Err(std::io::Error::from_raw_os_error(libc::ESRCH));
            }
            Ok(())
        });
    }
}

#[cfg(not(target_os = "linux"))]
fn end_with_this_process(_command: &mut Command) {}

fn describe(status: ExitStatus) -> String {
    match (status.signal(), status.code()) {
        (Some(signal), _) => format!("signal {signal}"),
        (None, Some(code)) => format!("exit code {code}"),
        (None, None) => "nobody knows how".to_owned(),
    }
}

/// A line for a shell that starts the node again.
fn command_line(program: &Path, flags: &[String]) -> String {
    let mut line = format!("exec {}", quoted(&program.to_string_lossy()));
    for flag in flags {
        line.push(' ');
        line.push_str(&quoted(flag));
    }
    line.push('\n');
    line
}

/// A word as a shell reads it.
fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_=./:,@%+".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layout() -> Layout {
        Layout { data_dir: PathBuf::from("/d"), base_port: 4000, nodes: 3 }
    }

    #[test]
    fn ports_are_ten_apart_and_peers_one_above() {
        assert_eq!(
            (layout().client(1), layout().peer(1)),
            ("127.0.0.1:4000".into(), "127.0.0.1:4001".into())
        );
        assert_eq!(
            (layout().client(3), layout().peer(3)),
            ("127.0.0.1:4020".into(), "127.0.0.1:4021".into())
        );
    }

    #[test]
    fn a_nodes_flags_are_understood_by_serve() {
        use clap::Parser as _;
        for number in 1..=3 {
            let flags = layout().serve_flags(number, &["--checkpoint-interval=5s".to_owned()]);
            let arguments = std::iter::once("ringfence".to_owned()).chain(flags);
            crate::cli::Cli::try_parse_from(arguments).expect("dev must not write what serve cannot read");
        }
    }

    #[test]
    fn a_command_line_survives_a_shell() {
        let line = command_line(
            Path::new("/usr/bin/printf"),
            &["%s|".to_owned(), "it's".to_owned(), "a b".to_owned()],
        );
        let output = Command::new("sh").arg("-c").arg(&line).output().expect("there is a shell");
        assert_eq!(output.stdout, b"it's|a b|");
    }
}
