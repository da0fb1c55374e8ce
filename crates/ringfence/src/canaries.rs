//! Arming canaries: the server of a build with the feature `canary` is wrong in the ways that the environment names.

use std::env::{self, VarError};

use ringfence_canary::Canary;

use crate::exit::{Exit, Failure};

/// Names the canaries, separated by commas.
const VARIABLE: &str = "RINGFENCE_CANARY";

/// Arms the canaries that the environment names, for as long as the process lives, and says so in the log.
pub(crate) fn arm() -> Result<(), Failure> {
    let names = match env::var(VARIABLE) {
        Ok(names) => names,
        Err(VarError::NotPresent) => return Ok(()),
        Err(error) => return Err(Failure::new(Exit::Config, format!("{VARIABLE}: {error}"))),
    };
    for canary in Canary::from_names(&names).map_err(unknown)? {
        ringfence_canary::arm(canary);
        tracing::warn!("THIS SERVER IS WRONG ON PURPOSE: {VARIABLE} has armed {}", canary.name());
    }
    Ok(())
}

fn unknown(name: &str) -> Failure {
    let known: Vec<&str> = Canary::ALL.into_iter().map(Canary::name).collect();
    Failure::new(Exit::Config, format!("{VARIABLE} names {name:?}, which is no canary"))
        .next(format!("use some of {}", known.join(", ")))
}
