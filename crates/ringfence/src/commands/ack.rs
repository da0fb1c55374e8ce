//! How many voters shall have a write on disk: `quorum`, `all` or a number.

use std::num::NonZeroU32;
use std::str::FromStr;
use std::time::Duration;

use clap::Args;
use ringfence_proto::ringfence_v1::{self as v1, ack::Level};

use crate::units::HumanDuration;

/// When a write is answered.
#[derive(Debug, Args)]
pub(crate) struct AckArgs {
    /// Wait until so many voters have it on disk: quorum (a majority, as always), all, or a number. What is not reached in
    /// time is a success that says so: the write is applied.
    #[arg(long, value_name = "quorum|all|N")]
    ack: Option<AckArg>,
    /// How long to wait for them; without it for most of what --timeout allows.
    #[arg(long, requires = "ack")]
    ack_within: Option<HumanDuration>,
}

impl AckArgs {
    /// The level as requests carry it.
    pub(crate) fn to_message(&self) -> Option<v1::Ack> {
        let level = self.ack.as_ref()?.0;
        let within = self.ack_within.map_or(Duration::ZERO, |within| within.0);
        Some(v1::Ack { level: Some(level), within_ms: u32::try_from(within.as_millis()).unwrap_or(u32::MAX) })
    }
}

/// A level.
#[derive(Debug, Clone, Copy, PartialEq)]
struct AckArg(Level);

impl FromStr for AckArg {
    type Err = String;

    fn from_str(text: &str) -> Result<AckArg, String> {
        match text {
            "quorum" => Ok(AckArg(Level::Quorum(true))),
            "all" => Ok(AckArg(Level::All(true))),
            count => match count.parse::<NonZeroU32>() {
                Ok(count) => Ok(AckArg(Level::Count(count.get()))),
                Err(_) => Err("write quorum, all, or a number of voters above 0".to_owned()),
            },
        }
    }
}

/// How far a write came, for people; none where it was not asked for.
pub(crate) fn told(checked: Option<&v1::Checked>) -> Option<String> {
    let acks = checked?.acks.as_ref()?;
    let members: Vec<String> = acks.durable_at.iter().map(u64::to_string).collect();
    Some(format!(
        "on disk at {} voters (members {}), {} wanted",
        acks.reached,
        members.join(", "),
        acks.wanted
    ))
}
