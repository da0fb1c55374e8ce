//! What the command is contained in, so that all of it can be ended.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Args, ValueEnum};

use super::cgroup::Cgroup;
use super::tree;

/// A way to contain a command, the better ones first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Means {
    /// A cgroup (v2) of its own.
    Cgroup,
    /// A namespace of process ids of its own.
    PidNamespace,
    /// The kernel's tree of processes, with the orphans brought home.
    Subreaper,
}

/// How a process is told which container it is in, or watches: the flags of the two hidden commands.
#[derive(Debug, Clone, Args)]
pub(crate) struct ContainerFlags {
    /// The socket to the process that started this one.
    #[arg(long)]
    pub(super) control: i32,
    #[arg(long, value_enum)]
    means: Means,
    /// The cgroup that was made.
    #[arg(long)]
    cgroup: Option<PathBuf>,
    /// The command with its arguments.
    #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true)]
    pub(super) command: Vec<OsString>,
}

/// A container for one command.
#[derive(Debug, Clone)]
pub(super) struct Container {
    means: Means,
    cgroup: Option<Cgroup>,
}

impl Container {
    /// Makes one.
    ///
    /// # Errors
    /// Where it cannot be had here. Some means show that only when they are used.
    pub(super) fn make(means: Means) -> Result<Container, String> {
        let cgroup = if means == Means::Cgroup { Some(Cgroup::make()?) } else { None };
        Ok(Container { means, cgroup })
    }

    /// The one that another process made.
    pub(super) fn made(flags: &ContainerFlags) -> Container {
        Container { means: flags.means, cgroup: flags.cgroup.clone().map(Cgroup::made) }
    }

    /// The arguments by which another process of this program learns of it.
    pub(super) fn arguments(&self, subcommand: &str, control: i32, command: &[OsString]) -> Vec<OsString> {
        let means = match self.means {
            Means::Cgroup => "cgroup",
            Means::PidNamespace => "pid-namespace",
            Means::Subreaper => "subreaper",
        };
        let mut arguments = vec![subcommand.into(), format!("--control={control}").into()];
        arguments.push(format!("--means={means}").into());
        if let Some(cgroup) = &self.cgroup {
            arguments.extend(["--cgroup".into(), cgroup.path().into()]);
        }
        arguments.push("--".into());
        arguments.extend_from_slice(command);
        arguments
    }

    pub(super) fn means(&self) -> Means {
        self.means
    }

    pub(super) fn cgroup(&self) -> Option<&Cgroup> {
        self.cgroup.as_ref()
    }

    /// Kills everything in it, by one of its guards, which is a subreaper; those below `strangers` are not in it. Returns when
    /// the last process has ended.
    pub(super) fn kill_and_wait(&self, strangers: &BTreeSet<i32>) {
        tree::kill_all(strangers, || self.kill());
    }

    /// Has the kernel kill what it can kill at one blow.
    pub(super) fn kill(&self) {
        if let Some(cgroup) = &self.cgroup {
            cgroup.kill();
        }
    }

    /// Clears away what is left of it once it is empty.
    pub(super) fn remove(&self) {
        if let Some(cgroup) = &self.cgroup {
            cgroup.remove();
        }
    }
}

impl std::fmt::Display for Container {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match (self.means, &self.cgroup) {
            (Means::PidNamespace, _) => f.write_str("a PID namespace of its own"),
            (_, Some(cgroup)) => write!(f, "a cgroup of its own ({})", cgroup.path().display()),
            _ => f.write_str("a subreaper"),
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Hidden {
        #[command(flatten)]
        flags: ContainerFlags,
    }

    #[test]
    fn a_container_is_told_to_another_process_as_it_is() {
        let cgroup = Cgroup::made(PathBuf::from("/a b"));
        let command = ["sh".into(), "-c".into(), "--control=9".into()];
        for container in [
            Container { means: Means::Cgroup, cgroup: Some(cgroup) },
            Container { means: Means::PidNamespace, cgroup: None },
            Container { means: Means::Subreaper, cgroup: None },
        ] {
            let arguments = container.arguments("hidden", 5, &command);
            let hidden = Hidden::try_parse_from(arguments).expect("it is understood");
            assert_eq!(hidden.flags.control, 5);
            assert_eq!(hidden.flags.command, command);
            assert_eq!(Container::made(&hidden.flags).to_string(), container.to_string());
        }
    }
}
