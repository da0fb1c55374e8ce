//! The binary's twin for tests: `RINGFENCE_CANARY=NAME[,NAME]` makes its server wrong on purpose.

use std::process::ExitCode;

fn main() -> ExitCode {
    ringfence::run()
}
