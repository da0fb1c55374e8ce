//! `ringfence serve`: run one node.
//!
//! [`settings`] has the flags, which are the configuration file's keys too; [`plan`] is what follows from them once they
//! have been checked, [`bounds`] the part of it that bounds what the node takes; [`data_dir`] locks the directory; [`node`] starts, runs and stops; [`panics`] tells
//! damage from bugs.

mod bounds;
pub(crate) mod data_dir;
mod logging;
mod node;
mod panics;
pub(crate) mod plan;
pub(crate) mod settings;

use std::path::PathBuf;

use clap::Args;

use crate::exit::Failure;
pub(crate) use node::from_node;
use plan::Plan;
use settings::Settings;

/// Run one node. Every flag is also a key of the configuration file and an environment variable RINGFENCE_FLAG_NAME; a flag
/// goes before the environment, that before the file, and that before the default.
#[derive(Debug, Args)]
pub(crate) struct Serve {
    /// A configuration file in TOML; its keys are the flags' names, such as listen-client = "127.0.0.1:2379".
    #[arg(long, env = "RINGFENCE_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,
    #[command(flatten)]
    settings: Settings,
}

impl Serve {
    pub(crate) fn run(self) -> Result<(), Failure> {
        let settings = match &self.config {
            Some(path) => self.settings.or(Settings::read(path)?),
            None => self.settings,
        };
        let plan = Plan::new(settings)?;
        logging::start(&plan)?;
        #[cfg(feature = "canary")]
        crate::canaries::arm()?;
        panics::tell_damage_from_bugs();
        node::run(plan)
    }
}
