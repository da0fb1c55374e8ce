//! Clients of other people, fetched from their registries into a directory of the test's own.

use std::path::Path;
use std::process::Command;

use ringfence_tests::{cli, skip};
use tempfile::TempDir;

/// Runs an installer that is given the directory to install into; nothing where it cannot be had, which is told.
pub(crate) fn installed(
    test: &str,
    program: &str,
    arguments: impl Fn(&Path) -> Vec<String>,
) -> Option<TempDir> {
    let home = tempfile::Builder::new().prefix("ringfence-example-").tempdir();
    let home = home.expect("the temporary directory is writable");
    let mut install = Command::new("timeout");
    install.arg("240").arg(program).args(arguments(home.path())).current_dir(home.path());
    let ran = cli::capture(install, "");
    if ran.code == Some(0) {
        return Some(home);
    }
    let last = ran.stderr.lines().last().unwrap_or("it said nothing").to_owned();
    skip::skipped(test, &format!("{program} cannot install the etcd client: {last}"));
    None
}

/// Packages of Python.
pub(crate) fn pip(test: &str, packages: &[&str]) -> Option<TempDir> {
    installed(test, "python3", |home| {
        let mut words: Vec<String> = ["-m", "pip", "install", "--quiet", "--target"].map(String::from).into();
        words.push(home.display().to_string());
        words.extend(packages.iter().map(ToString::to_string));
        words
    })
}

/// A package of Node.
pub(crate) fn npm(test: &str, package: &str) -> Option<TempDir> {
    installed(test, "npm", |home| {
        let words = ["install", "--silent", "--no-fund", "--no-audit", "--ignore-scripts", "--prefix"];
        let mut words: Vec<String> = words.map(String::from).into();
        words.extend([home.display().to_string(), package.to_owned()]);
        words
    })
}
