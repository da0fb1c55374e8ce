//! A control group (v2) of its own for the command: the kernel ends all of it at one write, whatever forks meanwhile.

use std::fs;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

/// A control group that was made for one command.
#[derive(Debug, Clone)]
pub(super) struct Cgroup {
    path: PathBuf,
}

impl Cgroup {
    /// Makes one below this process's own.
    ///
    /// # Errors
    /// Where there is no cgroup v2, this user may make none, or the kernel is too old to end a group (before 5.14).
    pub(super) fn make() -> Result<Cgroup, String> {
        let parent = own_directory()?;
        let path = parent.join(format!("ringfence-lock-run-{}", std::process::id()));
        match fs::create_dir(&path) {
            Ok(()) => {}
            // A wrapper of the same process id was killed together with its watchdog. What it left must be empty to be removed.
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {
                remove(&path).and_then(|()| fs::create_dir(&path)).map_err(|error| told(&path, &error))?;
            }
            Err(error) => return Err(told(&path, &error)),
        }
        let cgroup = Cgroup { path };
        if !cgroup.path.join("cgroup.kill").exists() {
            cgroup.remove();
            return Err("this kernel cannot end a cgroup (cgroup.kill, since 5.14)".to_owned());
        }
        Ok(cgroup)
    }

    /// The one that another process made.
    pub(super) fn made(path: PathBuf) -> Cgroup {
        Cgroup { path }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Moves this process into it.
    pub(super) fn join(&self) -> Result<(), String> {
        let file = self.path.join("cgroup.procs");
        fs::write(&file, "0").map_err(|error| told(&file, &error))
    }

    /// Kills everything in it, this process included if it is in it.
    pub(super) fn kill(&self) {
        // It fails only where the group has been removed, and an empty group alone can be.
        let _ = fs::write(self.path.join("cgroup.kill"), "1");
    }

    /// Removes it, empty as it is. One that cannot be removed does no harm.
    pub(super) fn remove(&self) {
        let _ = remove(&self.path);
    }
}

/// Removes a group with the groups that the command may have made below it.
fn remove(path: &Path) -> io::Result<()> {
    for entry in fs::read_dir(path)?.flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove(&entry.path())?;
        }
    }
    fs::remove_dir(path)
}

fn own_directory() -> Result<PathBuf, String> {
    let read = |file: &str| fs::read_to_string(file).map_err(|error| told(Path::new(file), &error));
    let own = own_group(&read("/proc/self/cgroup")?).map(str::to_owned);
    let (root, mount) = mounted(&read("/proc/self/mountinfo")?).ok_or("no cgroup v2 is mounted")?;
    let own = own.ok_or("this process is in no cgroup v2")?;
    // In a container, the mount may show a part of the tree alone.
    let below =
        Path::new(&own).strip_prefix(&root).map_err(|_| "this process's own cgroup is not mounted")?;
    Ok(mount.join(below))
}

/// The group in `/proc/self/cgroup`: in the line of the hierarchy 0, which is v2's.
fn own_group(cgroups: &str) -> Option<&str> {
    cgroups.lines().find_map(|line| line.strip_prefix("0::"))
}

/// The part of the tree that is mounted, and where, from `/proc/self/mountinfo`.
fn mounted(mounts: &str) -> Option<(PathBuf, PathBuf)> {
    mounts.lines().find_map(|line| {
        let (fields, kind) = line.split_once(" - ")?;
        let mut fields = fields.split(' ').skip(3);
        let (root, mount) = (fields.next()?, fields.next()?);
        kind.starts_with("cgroup2 ").then(|| (PathBuf::from(root), PathBuf::from(mount)))
    })
}

fn told(path: &Path, error: &io::Error) -> String {
    format!("{}: {error}", path.display())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_group_of_this_process_is_found_beside_those_of_v1() {
        let cgroups = "9:name=systemd:/x\n4:memory:/y\n0::/user.slice/a b\n";
        assert_eq!(own_group(cgroups), Some("/user.slice/a b"));
        assert_eq!(own_group("4:memory:/y\n"), None);
    }

    #[test]
    fn the_mount_is_found_with_the_part_that_it_shows() {
        let mounts = "\
21 1 0:5 / /proc rw shared:1 - proc proc rw
30 25 0:26 /docker/x /sys/fs/cgroup ro,nosuid master:9 - cgroup2 cgroup rw,nsdelegate
";
        let found = mounted(mounts);
        assert_eq!(found, Some((PathBuf::from("/docker/x"), PathBuf::from("/sys/fs/cgroup"))));
        assert_eq!(mounted("30 25 0:26 / /sys/fs/cgroup rw - cgroup cgroup rw,cpu\n"), None);
    }
}
