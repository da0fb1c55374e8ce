//! How a command can end: the exit codes, which scripts may rely on, and the failure that carries one.

use std::fmt;
use std::io;
use std::process::ExitCode;

use ringfence_client::Error;

/// The exit codes. A code is never given another meaning.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Exit {
    /// Something that has no code of its own.
    General = 1,
    /// The command line cannot be understood (given by the parser of the command line).
    Usage = 2,
    /// What was asked for does not exist.
    NotFound = 3,
    /// The cluster refused: nothing has changed.
    Refused = 4,
    /// The outcome is unknown: the write may have been applied.
    Indefinite = 5,
    /// No node could do it in time; a write was surely not applied.
    Unavailable = 6,
    /// The write was applied by a server that did not check the fences that it carried.
    Unchecked = 7,
    /// The write was applied, and fewer voters have it on disk than was asked for.
    TooFewAcks = 8,
    /// The configuration makes no sense.
    Config = 10,
    /// Another process uses the data directory.
    DataDirectoryInUse = 11,
    /// An address cannot be listened on: the port is in use, or the address is not this machine's.
    AddressInUse = 12,
    /// The data directory belongs to another node or cluster.
    Identity = 13,
    /// The log is damaged where it must not be.
    LogCorrupt = 14,
    /// The state file is damaged.
    StateCorrupt = 15,
    /// The disk refused a read, a write or a sync, or is full.
    Disk = 16,
    /// Consensus stopped: a bug.
    Consensus = 17,
    /// The lock was lost, or could not be watched any more: the command that needed it was ended, if there was one.
    LockLost = 20,
}

impl Exit {
    /// Every code with its meaning, for `--help` and the manual.
    pub(crate) const TABLE: &'static str = "\
Exit codes:
   0  it went well
   1  something went wrong that has no code of its own
   2  the command line cannot be understood
   3  not found
   4  refused: nothing has changed
   5  indefinite: the write may have been applied
   6  unavailable: no node could do it in time; a write was surely not applied
   7  unchecked: the write was applied by a server that did not check its fences
   8  too few: the write was applied, and fewer voters have it on disk than --ack wants
  10  (serve) the configuration makes no sense
  11  (serve) another process uses the data directory
  12  (serve, dev) an address cannot be listened on
  13  (serve) the data directory belongs to another node or cluster
  14  (serve) the log is damaged where it must not be
  15  (serve) the state file is damaged
  16  (serve) the disk failed or is full
  17  (serve) consensus stopped: a bug
  20  (lock, elect) the lock was lost; lock run has ended its command
      (lock run ends with the command's own code otherwise)";
}

/// Why a command failed, with the code it ends in and what to do next.
#[derive(Debug)]
pub(crate) struct Failure {
    exit: Exit,
    message: String,
    next: Option<String>,
    /// The code of another program whose fate this one shares, instead of one of ours.
    passed_on: Option<u8>,
}

impl Failure {
    pub(crate) fn new(exit: Exit, message: impl Into<String>) -> Failure {
        Failure { exit, message: message.into(), next: None, passed_on: None }
    }

    /// Another program's failure, about which it has said itself what there was to say.
    pub(crate) fn passed_on(code: u8) -> Failure {
        let message = format!("the command ended with code {code}");
        Failure { passed_on: Some(code), ..Failure::new(Exit::General, message) }
    }

    /// The same failure, telling what to do next.
    #[must_use]
    pub(crate) fn next(mut self, next: impl Into<String>) -> Failure {
        self.next = Some(next.into());
        self
    }

    pub(crate) fn exit(&self) -> Exit {
        self.exit
    }

    /// Tells the failure on standard error.
    pub(crate) fn report(&self) -> ExitCode {
        if let Some(code) = self.passed_on {
            return ExitCode::from(code);
        }
        // The reader of our output went away, as `head` does: nothing is wrong, and nobody reads a message.
        if self.message != BROKEN_PIPE {
            eprintln!("error: {}", self.message);
            if let Some(next) = &self.next {
                eprintln!("next:  {next}");
            }
        }
        ExitCode::from(self.exit as u8)
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

/// The message of a failure about which nothing is told.
const BROKEN_PIPE: &str = "the reader of the output went away";

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Failure {
        if error.kind() == io::ErrorKind::BrokenPipe {
            return Failure::new(Exit::General, BROKEN_PIPE);
        }
        Failure::new(Exit::General, error.to_string())
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Failure {
        let message = error.to_string();
        match error {
            Error::Refused { .. } => Failure::new(Exit::Refused, message),
            Error::Indefinite { .. } => Failure::new(Exit::Indefinite, message)
                .next("read the key to see whether it was applied before you try again"),
            Error::TooFewAcks { .. } => Failure::new(Exit::TooFewAcks, message)
                .next("nothing is lost, and a majority has it; the others will have it when they have caught up: `ringfence status`"),
            Error::Unchecked { .. } => Failure::new(Exit::Unchecked, message)
                .next("check that --endpoints names nodes of Ringfence, all of a version that knows fences"),
            Error::OtherCluster { .. } | Error::SessionLost { perhaps_applied: false } => Failure::new(Exit::Refused, message),
            Error::Compacted { .. } => Failure::new(Exit::Refused, message)
                .next("read what is there now, and watch from the revision of that answer on"),
            Error::SessionLost { perhaps_applied: true } => Failure::new(Exit::Indefinite, message),
            Error::AnswerNotKept { .. } => Failure::new(Exit::General, message),
            Error::Unavailable { .. } => Failure::new(Exit::Unavailable, message)
                .next("check --endpoints and `ringfence status`; a majority of the nodes must run and reach each other"),
            Error::BadEndpoint { .. } => Failure::new(Exit::Usage, message),
            Error::Protocol(_) => {
                Failure::new(Exit::General, message).next("check that --endpoints names the clients' ports")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn the_table_names_every_code_once() {
        for exit in [
            Exit::General,
            Exit::Usage,
            Exit::NotFound,
            Exit::Refused,
            Exit::Indefinite,
            Exit::Unavailable,
            Exit::Unchecked,
            Exit::TooFewAcks,
            Exit::Config,
            Exit::DataDirectoryInUse,
            Exit::AddressInUse,
            Exit::Identity,
            Exit::LogCorrupt,
            Exit::StateCorrupt,
            Exit::Disk,
            Exit::Consensus,
            Exit::LockLost,
        ] {
            let start = format!("{:4}  ", exit as u8);
            let lines = Exit::TABLE.lines().filter(|line| line.starts_with(&start)).count();
            assert_eq!(lines, 1, "{exit:?}");
        }
    }

    #[test]
    fn an_errors_code_says_what_is_known_of_its_side_effects() {
        let refused = Error::Refused {
            code: tonic::Code::InvalidArgument,
            reason: String::new(),
            message: "no".to_owned(),
        };
        let unavailable =
            Error::Unavailable { message: "no".to_owned(), attempts: 1, elapsed: Duration::from_secs(1) };
        let indefinite = Error::Indefinite { message: "perhaps".to_owned() };
        assert_eq!(Failure::from(refused).exit(), Exit::Refused);
        assert_eq!(Failure::from(unavailable).exit(), Exit::Unavailable);
        let unchecked = Error::Unchecked { message: "nobody looked".to_owned() };
        assert_eq!(Failure::from(unchecked).exit(), Exit::Unchecked);
        assert_eq!(Failure::from(indefinite).exit(), Exit::Indefinite);
    }
}
