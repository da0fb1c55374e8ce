//! Control groups: how much processor and disk a node may use. Both forms are known: the one hierarchy of version 2, and
//! version 1 with a hierarchy for each controller.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, bail};

use super::sys;

/// Begins the names of all groups; the id of the process that made them follows.
const PREFIX: &str = "ringfence-jepsen-";
/// The span over which processor time is rationed, in microseconds.
const PERIOD: u64 = 100_000;

/// What can be limited.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Controller {
    Cpu,
    Io,
}

/// A group with one controller. Dropping it removes it, if nobody is in it.
#[derive(Debug)]
pub(super) struct Group {
    directory: PathBuf,
    controller: Controller,
    version: Version,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Version {
    One,
    Two,
}

impl Group {
    /// Makes a group of that name.
    ///
    /// # Errors
    /// Where the controller is not to be had.
    pub(super) fn create(controller: Controller, name: &str) -> anyhow::Result<Group> {
        let (root, version) = hierarchy(controller)?;
        remove_leftovers(&root);
        let directory = root.join(format!("{PREFIX}{}-{}-{name}", std::process::id(), sys::serial()));
        fs::create_dir(&directory).with_context(|| format!("{} cannot be made", directory.display()))?;
        Ok(Group { directory, controller, version })
    }

    /// Puts a process into the group.
    pub(super) fn take(&self, process: u32) -> io::Result<()> {
        self.write("cgroup.procs", &process.to_string())
    }

    /// Rations processor time to so many percent of one processor; `None`: as much as there is.
    pub(super) fn limit_cpu(&self, percent: Option<u32>) -> io::Result<()> {
        debug_assert_eq!(self.controller, Controller::Cpu);
        let quota = percent.map(|percent| u64::from(percent.max(1)) * PERIOD / 100);
        match self.version {
            Version::One => {
                self.write("cpu.cfs_period_us", &PERIOD.to_string())?;
                self.write("cpu.cfs_quota_us", &quota.map_or("-1".to_owned(), |quota| quota.to_string()))
            }
            Version::Two => {
                let quota = quota.map_or("max".to_owned(), |quota| quota.to_string());
                self.write("cpu.max", &format!("{quota} {PERIOD}"))
            }
        }
    }

    /// For how long processes of the group had to wait because of their ration.
    pub(super) fn throttled(&self) -> Option<Duration> {
        let stat = fs::read_to_string(self.directory.join("cpu.stat")).ok()?;
        let value =
            |name: &str| stat.lines().find_map(|line| line.strip_prefix(name)?.trim().parse::<u64>().ok());
        match self.version {
            Version::One => value("throttled_time ").map(Duration::from_nanos),
            Version::Two => value("throttled_usec ").map(Duration::from_micros),
        }
    }

    /// Limits what the group writes to a disk to so many bytes a second; `None`: as fast as it goes.
    pub(super) fn limit_writes(&self, device: &str, rate: Option<u64>) -> io::Result<()> {
        debug_assert_eq!(self.controller, Controller::Io);
        match self.version {
            // No limit is written as 0.
            Version::One => self
                .write("blkio.throttle.write_bps_device", &format!("{device} {}", rate.unwrap_or_default())),
            Version::Two => {
                let rate = rate.map_or("max".to_owned(), |rate| rate.to_string());
                self.write("io.max", &format!("{device} wbps={rate}"))
            }
        }
    }

    fn write(&self, file: &str, text: &str) -> io::Result<()> {
        fs::write(self.directory.join(file), text)
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        // Whoever is still in it will be gone when the next run removes what was left.
        let _ = fs::remove_dir(&self.directory);
    }
}

/// Where a controller's groups are made.
fn hierarchy(controller: Controller) -> anyhow::Result<(PathBuf, Version)> {
    let (name_one, name_two) = match controller {
        Controller::Cpu => ("cpu", "cpu"),
        Controller::Io => ("blkio", "io"),
    };
    let mounts = fs::read_to_string("/proc/self/mounts")?;
    for line in mounts.lines() {
        let fields: Vec<&str> = line.split(' ').collect();
        let [_, point, kind, options, ..] = fields[..] else { continue };
        let point = Path::new(point);
        if kind == "cgroup" && options.split(',').any(|option| option == name_one) {
            return Ok((point.to_path_buf(), Version::One));
        }
        let controllers = || fs::read_to_string(point.join("cgroup.controllers")).unwrap_or_default();
        if kind == "cgroup2" && controllers().split_whitespace().any(|one| one == name_two) {
            fs::write(point.join("cgroup.subtree_control"), format!("+{name_two}"))
                .with_context(|| format!("{name_two} cannot be handed down in {}", point.display()))?;
            return Ok((point.to_path_buf(), Version::Two));
        }
    }
    bail!("no control groups with {name_one} or {name_two} are mounted")
}

/// Removes the groups of runs that were killed. Their processes died with them.
fn remove_leftovers(root: &Path) {
    for entry in fs::read_dir(root).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let owner = name.to_str().and_then(|name| name.strip_prefix(PREFIX)?.split('-').next());
        if owner.is_some_and(|owner| !Path::new("/proc").join(owner).exists()) {
            // Another run may be doing the same.
            let _ = fs::remove_dir(entry.path());
        }
    }
}
