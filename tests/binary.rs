//! Where the program under test is, and that it is the one of this source tree.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use crate::process;
use std::time::SystemTime;

/// Names a program to test in place of the one that is built: a release, for instance.
const PROGRAM: &str = "RINGFENCE_TEST_PROGRAM";

/// What cargo makes of a package of this source tree.
struct Product {
    package: &'static str,
    /// The file's name in the directory of a profile.
    file: &'static str,
    /// What it is made of.
    sources: &'static [&'static str],
}

const RINGFENCE: Product = Product {
    package: "ringfence",
    file: "ringfence",
    sources: &["crates", "proto", "Cargo.toml", "Cargo.lock"],
};
const SHIM: Product = Product {
    package: "ringfence-shim",
    file: "libringfence_shim.so",
    sources: &["jepsen/shim", "Cargo.lock"],
};

/// The path of the built `ringfence`. The first call builds it, with the profile that the running test was built with,
/// unless it is newer than all that it is made of, so that no test ever runs an old program.
///
/// # Panics
/// Where it cannot be built.
pub fn ringfence() -> &'static Path {
    static BINARY: OnceLock<PathBuf> = OnceLock::new();
    BINARY.get_or_init(|| env::var_os(PROGRAM).map_or_else(|| RINGFENCE.built(), PathBuf::from))
}

/// The path of the built shim, which the harness has in `jepsen/shim`.
///
/// # Panics
/// Where it cannot be built.
pub fn shim() -> &'static Path {
    static LIBRARY: OnceLock<PathBuf> = OnceLock::new();
    LIBRARY.get_or_init(|| SHIM.built())
}

impl Product {
    fn built(&self) -> PathBuf {
        let test = env::current_exe().expect("a running program has a path");
        // A test lies in TARGET/PROFILE/deps.
        let profile_directory = test.parent().and_then(Path::parent).expect("tests lie two folders deep");
        let file = profile_directory.join(self.file);
        // `cargo test --workspace` has just built it. To ask cargo for this package alone would build much of it again,
        // since dependencies' features differ then.
        if modified(&file).is_some_and(|built| built > newest(self.sources)) {
            return file;
        }
        let target = profile_directory.parent().expect("a profile lies in the target directory");
        let profile = match profile_directory.file_name().and_then(|name| name.to_str()) {
            Some("debug") | None => "dev",
            Some(name) => name,
        };
        let mut cargo = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        cargo
            .args(["build", "--quiet", "--package", self.package, "--profile", profile, "--target-dir"])
            .arg(target)
            .current_dir(env!("CARGO_MANIFEST_DIR"));
        let mut building = process::spawn(&mut cargo).expect("cargo can be run, since it ran this test");
        let status = building.wait().expect("a child can be waited for");
        assert!(status.success(), "{} cannot be built", self.package);
        assert!(file.is_file(), "{} was just built", file.display());
        file
    }
}

fn modified(path: &Path) -> Option<SystemTime> {
    fs::metadata(path).and_then(|metadata| metadata.modified()).ok()
}

/// When any of these, or anything in them, was last changed.
fn newest(sources: &[&str]) -> SystemTime {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let mut newest = SystemTime::UNIX_EPOCH;
    let mut waiting: Vec<PathBuf> = sources.iter().map(|name| root.join(name)).collect();
    while let Some(path) = waiting.pop() {
        if let Ok(folder) = fs::read_dir(&path) {
            waiting.extend(folder.flatten().map(|entry| entry.path()));
        } else if let Some(time) = modified(&path) {
            newest = newest.max(time);
        }
    }
    newest
}
