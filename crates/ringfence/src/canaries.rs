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
    for canary in parse(&names)? {
        ringfence_canary::arm(canary);
        tracing::warn!("THIS SERVER IS WRONG ON PURPOSE: {VARIABLE} has armed {}", canary.name());
    }
    Ok(())
}

fn parse(names: &str) -> Result<Vec<Canary>, Failure> {
    let names = names.split(',').map(str::trim).filter(|name| !name.is_empty());
    names.map(|name| Canary::from_name(name).ok_or_else(|| unknown(name))).collect()
}

fn unknown(name: &str) -> Failure {
    let known: Vec<&str> = Canary::ALL.into_iter().map(Canary::name).collect();
    Failure::new(Exit::Config, format!("{VARIABLE} names {name:?}, which is no canary"))
        .next(format!("use some of {}", known.join(", ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_separated_by_commas() {
        let canaries = parse(" lying-sync,local-read, ").expect("both are known");
        assert_eq!(canaries, [Canary::LyingSync, Canary::LocalRead]);
        assert_eq!(parse("").expect("no name is no canary"), []);
    }

    #[test]
    fn an_unknown_name_is_a_mistake_in_the_configuration() {
        let failure = parse("lying-sync,lying").expect_err("it is not known");
        assert_eq!(failure.exit(), Exit::Config);
        assert!(failure.to_string().contains("\"lying\""), "{failure}");
    }
}
