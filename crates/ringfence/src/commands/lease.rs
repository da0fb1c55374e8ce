//! `ringfence lease`: rights that last for a time, and the keys that hang on them.

use std::time::Duration;

use clap::Subcommand;
use ringfence_client::{Client, Error};
use ringfence_proto::etcdserverpb::LeaseTimeToLiveResponse;
use serde_json::json;
use tonic::Code;

use crate::cli::Shared;
use crate::exit::{Exit, Failure};
use crate::output::{Output, print_json, print_line, print_table};
use crate::record::shown;
use crate::units::HumanDuration;

/// A lease is kept alive three times in its time: two answers may be lost.
const KEEP_ALIVES_A_LEASE: u32 = 3;

/// Grant leases, keep them alive, and end them.
#[derive(Debug, Subcommand)]
pub(crate) enum Lease {
    /// Grant a lease. Keys are hung on it with `put --lease`; it ends with all of them unless it is kept alive.
    Grant {
        /// How long it lasts: whole seconds, such as 10s or 5m.
        ttl: HumanDuration,
        /// Its number; one is drawn if left out.
        #[arg(long, default_value_t = 0, value_parser = parse_id, allow_hyphen_values = true)]
        id: i64,
    },
    /// End a lease now, and delete all keys that hang on it.
    Revoke {
        /// Its number.
        #[arg(value_parser = parse_id, allow_hyphen_values = true)]
        id: i64,
    },
    /// Keep a lease alive, until the command is interrupted or the lease has ended.
    KeepAlive {
        /// Its number.
        #[arg(value_parser = parse_id, allow_hyphen_values = true)]
        id: i64,
        /// Only once.
        #[arg(long)]
        once: bool,
    },
    /// Show how long a lease will last.
    TimeToLive {
        /// Its number.
        #[arg(value_parser = parse_id, allow_hyphen_values = true)]
        id: i64,
        /// Show the keys that hang on it.
        #[arg(long)]
        keys: bool,
    },
    /// Show the numbers of all leases.
    List,
}

impl Lease {
    pub(crate) async fn run(self, shared: &Shared) -> Result<(), Failure> {
        let client = shared.client()?;
        match self {
            Lease::Grant { ttl, id } => grant(shared.output, &client, ttl, id).await,
            Lease::Revoke { id } => {
                let answer = client.lease_revoke(id).await.map_err(|error| no_such_lease(error, id))?;
                let revision = answer.header.as_ref().map_or(0, |header| header.revision);
                match shared.output {
                    Output::Json => print_json(&json!({ "id": id, "revision": revision })),
                    Output::Plain => print_line(&revision.to_string()),
                    Output::Table => print_line(&format!("lease {id} has ended, at revision {revision}")),
                }
            }
            Lease::KeepAlive { id, once } => keep_alive(shared.output, &client, id, once).await,
            Lease::TimeToLive { id, keys } => {
                let answer = client.lease_time_to_live(id, keys).await?;
                if answer.ttl < 0 {
                    return Err(ended(id));
                }
                show_time_to_live(shared.output, &answer)
            }
            Lease::List => {
                let leases = client.leases().await?.leases;
                match shared.output {
                    Output::Json => print_json(&json!({
                        "leases": leases.iter().map(|lease| lease.id).collect::<Vec<_>>(),
                    })),
                    Output::Plain => leases.iter().try_for_each(|lease| print_line(&lease.id.to_string())),
                    Output::Table => {
                        let rows: Vec<_> = leases.iter().map(|lease| [lease.id.to_string()]).collect();
                        print_table(["LEASE"], &rows)
                    }
                }
            }
        }
    }
}

async fn grant(output: Output, client: &Client, ttl: HumanDuration, id: i64) -> Result<(), Failure> {
    let seconds = i64::try_from(ttl.0.as_secs()).unwrap_or(i64::MAX);
    if ttl.0.subsec_nanos() != 0 || seconds == 0 {
        return Err(Failure::new(Exit::Usage, format!("a lease lasts whole seconds, and {ttl} is none")));
    }
    let answer = client.lease_grant(seconds, id).await?;
    match output {
        Output::Json => print_json(&json!({ "id": answer.id, "ttl": answer.ttl, "grant": answer.grant })),
        Output::Plain => print_line(&answer.id.to_string()),
        Output::Table => print_line(&format!("lease {} lasts {} s", answer.id, answer.ttl)),
    }
}

async fn keep_alive(output: Output, client: &Client, id: i64, once: bool) -> Result<(), Failure> {
    loop {
        let answer = client.lease_keep_alive_once(id).await?;
        if answer.ttl <= 0 {
            return Err(ended(id));
        }
        match output {
            Output::Json => print_json(&json!({ "id": id, "ttl": answer.ttl }))?,
            Output::Plain => print_line(&answer.ttl.to_string())?,
            Output::Table => print_line(&format!("lease {id} lasts {} s from now on", answer.ttl))?,
        }
        if once {
            return Ok(());
        }
        let ttl = Duration::from_secs(answer.ttl.unsigned_abs());
        tokio::time::sleep(ttl / KEEP_ALIVES_A_LEASE).await;
    }
}

fn show_time_to_live(output: Output, answer: &LeaseTimeToLiveResponse) -> Result<(), Failure> {
    let keys: Vec<String> = answer.keys.iter().map(|key| shown(key)).collect();
    match output {
        Output::Json => print_json(&json!({
            "id": answer.id,
            "ttl": answer.ttl,
            "granted_ttl": answer.granted_ttl,
            "keys": keys,
        })),
        Output::Plain => print_line(&answer.ttl.to_string()),
        Output::Table => {
            let (id, left, granted) = (answer.id, answer.ttl, answer.granted_ttl);
            print_line(&format!("lease {id} lasts {left} s more, of {granted} s"))?;
            keys.iter().try_for_each(|key| print_line(key))
        }
    }
}

/// A lease's number: in decimal digits as this program shows it, or in hexadecimal ones after 0x as others do.
pub(crate) fn parse_id(text: &str) -> Result<i64, String> {
    let parsed = match text.strip_prefix("0x") {
        Some(digits) => u64::from_str_radix(digits, 16).map(u64::cast_signed),
        None => text.parse(),
    };
    parsed.map_err(|_| "a lease's number is a whole number of 64 bits, such as 17 or 0x11".to_owned())
}

fn ended(id: i64) -> Failure {
    Failure::new(Exit::NotFound, format!("there is no lease {id}: it has ended, or never was granted"))
}

fn no_such_lease(error: Error, id: i64) -> Failure {
    match error {
        Error::Refused { code: Code::NotFound, .. } => ended(id),
        error => error.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_leases_number_is_decimal_or_marked_as_hexadecimal() {
        for (text, id) in [
            ("17", Some(17)),
            ("-17", Some(-17)),
            ("0x11", Some(17)),
            ("0xffffffffffffffff", Some(-1)),
            ("9223372036854775807", Some(i64::MAX)),
            ("9223372036854775808", None),
            ("11f", None),
            ("0x", None),
            ("", None),
        ] {
            assert_eq!(parse_id(text).ok(), id, "{text:?}");
        }
    }
}
