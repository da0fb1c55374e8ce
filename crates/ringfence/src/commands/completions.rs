//! `ringfence completions`: print the completions of a shell.

use clap::{Args, CommandFactory as _};
use clap_complete::Shell;

use crate::cli::Cli;
use crate::exit::Failure;
use crate::output::print;

/// Print the completions of a shell: for bash, `source <(ringfence completions bash)`.
#[derive(Debug, Args)]
pub(crate) struct Completions {
    /// The shell.
    shell: Shell,
}

impl Completions {
    pub(crate) fn run(self) -> Result<(), Failure> {
        let mut script = Vec::new();
        clap_complete::generate(self.shell, &mut Cli::command(), "ringfence", &mut script);
        print(&script)
    }
}
