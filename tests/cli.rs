//! The program run as a command, as a script would run it.

use std::ffi::OsStr;
use std::io::Write as _;
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::{binary, process};

/// What a command left behind.
#[derive(Debug, Clone)]
pub struct Ran {
    /// The exit code; `None` if a signal ended it.
    pub code: Option<i32>,
    /// All of standard output.
    pub stdout: String,
    /// All of standard error.
    pub stderr: String,
}

/// A command of the program, with no settings from the environment.
#[must_use]
pub fn command(arguments: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Command {
    let mut command = Command::new(binary::ringfence());
    without_settings(&mut command);
    command.args(arguments);
    command
}

/// Runs the program with these arguments and an empty standard input.
pub fn run(arguments: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Ran {
    capture(command(arguments), "")
}

/// Runs any command with this standard input.
///
/// # Panics
/// Where the command cannot be run.
pub fn capture(mut command: Command, input: &str) -> Ran {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = process::spawn(&mut command).expect("the command can be started");
    let mut stdin = child.stdin.take().expect("it was asked for");
    let input = input.to_owned();
    // From another thread, since a command may write more than a pipe holds before it reads. One that does not read its
    // input to the end closes it, which is no fault.
    let writer = std::thread::spawn(move || drop(stdin.write_all(input.as_bytes())));
    let output = child.wait_with_output().expect("a child can be waited for");
    writer.join().expect("the writing thread does not panic");
    Ran {
        code: output.status.code(),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

impl Ran {
    /// Standard output of a command that must have gone well.
    ///
    /// # Panics
    /// Where it did not.
    #[must_use]
    pub fn succeeded(self) -> String {
        assert_eq!(self.code, Some(0), "stdout: {}\nstderr: {}", self.stdout, self.stderr);
        self.stdout
    }

    /// The same, without the end of its last line.
    #[must_use]
    pub fn line(self) -> String {
        self.succeeded().trim_end_matches('\n').to_owned()
    }

    /// The same as JSON.
    ///
    /// # Panics
    /// Where it is none.
    #[must_use]
    pub fn json(self) -> Value {
        let text = self.succeeded();
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("no JSON ({error}): {text}"))
    }

    /// Asserts that the command failed with this code and said all of these words.
    ///
    /// # Panics
    /// Where it did not.
    pub fn failed(&self, code: i32, words: &[&str]) {
        assert_eq!(self.code, Some(code), "stdout: {}\nstderr: {}", self.stdout, self.stderr);
        for word in words {
            assert!(self.stderr.contains(word), "it says nothing of {word:?}: {}", self.stderr);
        }
    }
}

/// Takes the settings of the developer's own shell away.
fn without_settings(command: &mut Command) {
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("RINGFENCE_") {
            command.env_remove(name);
        }
    }
}
