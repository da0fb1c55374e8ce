//! The log of a node: to standard error, so that standard output stays free.

use std::io::{self, IsTerminal as _};

use tracing_subscriber::EnvFilter;

use super::plan::Plan;
use super::settings::LogFormat;
use crate::exit::{Exit, Failure};

/// Starts logging as the plan says.
pub(super) fn start(plan: &Plan) -> Result<(), Failure> {
    let filter = EnvFilter::try_new(&plan.log_level).map_err(|error| {
        Failure::new(Exit::Config, format!("log-level {:?}: {error}", plan.log_level))
            .next("use error, warn, info, debug or trace, or a filter such as info,ringfence_consensus=debug")
    })?;
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr);
    let started = match plan.log_format {
        LogFormat::Text => log.with_ansi(io::stderr().is_terminal()).try_init(),
        LogFormat::Json => log.json().flatten_event(true).try_init(),
    };
    started.map_err(|error| Failure::new(Exit::General, format!("cannot start the log: {error}")))
}
