//! The programs of a run: the server under test, the one with canaries, and the shim; each of this source tree.

use std::env;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::SystemTime;

use anyhow::{Context as _, bail, ensure};

/// Names a program to test in place of the one that is built: a release, for instance.
const PROGRAM: &str = "RINGFENCE_TEST_PROGRAM";
/// What the harness is built into, below the target directory: it builds the others alike.
const PROFILE: &str = if cfg!(debug_assertions) { "debug" } else { "release" };

/// Something that cargo builds.
struct Product {
    file: &'static str,
    /// More arguments of `cargo build`. Servers are built as parts of the whole workspace, as `cargo test --workspace` builds
    /// them: for one package alone dependencies have other features, and most of them would be built once more.
    arguments: &'static [&'static str],
    /// The folders and files that it is made of, from the workspace's root.
    sources: &'static [&'static str],
}

const SERVER: Product = Product {
    file: "ringfence",
    arguments: &["--workspace", "--bin", "ringfence"],
    sources: &["crates", "proto", "Cargo.toml", "Cargo.lock"],
};

const CANARY_SERVER: Product = Product {
    file: "ringfence-canary",
    arguments: &["--workspace", "--features", "ringfence/canary", "--bin", "ringfence-canary"],
    sources: SERVER.sources,
};

const SHIM: Product = Product {
    file: "libringfence_shim.so",
    arguments: &["--package", "ringfence-shim"],
    sources: &["jepsen/shim", "Cargo.toml", "Cargo.lock"],
};

/// The server under test, built if need be; `RINGFENCE_TEST_PROGRAM` names another.
///
/// # Errors
/// Where it cannot be built.
pub fn server() -> anyhow::Result<PathBuf> {
    match env::var_os(PROGRAM) {
        Some(program) => {
            let program = fs::canonicalize(&program);
            program.with_context(|| format!("{PROGRAM} names no program"))
        }
        None => SERVER.built(),
    }
}

/// The server in which canaries can be armed, built if need be.
///
/// # Errors
/// Where it cannot be built.
pub fn canary_server() -> anyhow::Result<PathBuf> {
    CANARY_SERVER.built()
}

/// The shim, built if need be.
///
/// # Errors
/// Where it cannot be built.
pub fn shim() -> anyhow::Result<PathBuf> {
    SHIM.built()
}

impl Product {
    /// Its path, once it is newer than all that it is made of, so that no run ever uses an old program.
    fn built(&self) -> anyhow::Result<PathBuf> {
        let root = workspace()?;
        let target = target_directory(&root)?;
        let product = target.join(PROFILE).join(self.file);
        if modified(&product).is_some_and(|built| built > newest(&root, self.sources)) {
            return Ok(product);
        }
        let mut cargo = Command::new(env::var_os("CARGO").unwrap_or_else(|| OsString::from("cargo")));
        cargo.args(["build", "--quiet", "--locked"]).args(self.arguments);
        if PROFILE == "release" {
            cargo.arg("--release");
        }
        let status = cargo.arg("--target-dir").arg(&target).current_dir(&root).status();
        let status = status.context("cargo cannot be run")?;
        ensure!(status.success(), "{} cannot be built", self.file);
        ensure!(product.is_file(), "{} was built, but is not in {}", self.file, target.display());
        Ok(product)
    }
}

/// The root of the source tree that this harness was built from.
fn workspace() -> anyhow::Result<PathBuf> {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR"));
    let root = manifest.parent().context("the harness lies in the workspace")?;
    if !root.join("Cargo.toml").is_file() {
        bail!("the source tree that this harness was built from is gone: {}", root.display());
    }
    Ok(root.to_path_buf())
}

/// Where cargo put the harness, and so puts everything else: this program lies in TARGET/PROFILE, a test in a folder of it.
fn target_directory(root: &Path) -> anyhow::Result<PathBuf> {
    let this = env::current_exe()?;
    let profile = this.ancestors().find(|folder| folder.ends_with(PROFILE));
    let target = profile.and_then(Path::parent).map_or_else(|| root.join("target"), Path::to_path_buf);
    Ok(target)
}

fn modified(path: &Path) -> Option<SystemTime> {
    fs::metadata(path).and_then(|facts| facts.modified()).ok()
}

/// When anything of a product's sources was last changed.
fn newest(root: &Path, sources: &[&str]) -> SystemTime {
    let mut newest = SystemTime::UNIX_EPOCH;
    let mut waiting: Vec<PathBuf> = sources.iter().map(|source| root.join(source)).collect();
    while let Some(path) = waiting.pop() {
        match fs::read_dir(&path) {
            Ok(folder) => waiting.extend(folder.flatten().map(|entry| entry.path())),
            Err(_) => newest = newest.max(modified(&path).unwrap_or(SystemTime::UNIX_EPOCH)),
        }
    }
    newest
}
