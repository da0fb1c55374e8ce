//! `ringfence history`: the versions of a key.

use bytes::Bytes;
use clap::Args;
use ringfence_client::{Client, Error};
use ringfence_proto::ringfence_v1::{Version, VersionsRequest};
use serde_json::{Value, json};

use crate::cli::Shared;
use crate::exit::{Exit, Failure};
use crate::output::{Output, print_json, print_line, print_table};
use crate::record::{shown, text_of};

/// Characters of a value that a table shows.
const VALUE_CHARS_MAX: usize = 48;

/// Show the versions of a key, the newest first, deletions included, as far back as history is kept. Exits with 3 if the key
/// has none.
#[derive(Debug, Args)]
pub(crate) struct History {
    /// The key.
    key: String,
    /// Leave out what is younger than this revision; 0 for nothing.
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(i64).range(0..))]
    rev: i64,
    /// Most versions to show; 0 for all.
    #[arg(long, default_value_t = 100)]
    limit: usize,
}

/// What was found of a key's past.
struct Past {
    versions: Vec<Version>,
    /// Whether there are older versions than the limit allows.
    more: bool,
    /// The oldest revision that can be read; 0 if nothing was compacted.
    compacted: i64,
    /// The store's revision.
    revision: i64,
}

impl History {
    pub(crate) async fn run(self, shared: &Shared) -> Result<(), Failure> {
        let past = self.look_back(&shared.client()?).await?;
        match shared.output {
            Output::Json => print_json(&json!({
                "revision": past.revision,
                "compacted": past.compacted,
                "more": past.more,
                "versions": past.versions.iter().map(as_json).collect::<Vec<_>>(),
            }))?,
            Output::Plain => {
                for version in &past.versions {
                    print_line(&version.mod_revision.to_string())?;
                }
            }
            Output::Table => self.show(&past)?,
        }
        if past.versions.is_empty() {
            return Err(Failure::new(Exit::NotFound, "the key has no version in the history that is kept"));
        }
        Ok(())
    }

    async fn look_back(&self, client: &Client) -> Result<Past, Failure> {
        let limit = if self.limit == 0 { usize::MAX } else { self.limit };
        let mut past = Past { versions: Vec::new(), more: false, compacted: 0, revision: 0 };
        let mut revision = self.rev;
        loop {
            let left = limit - past.versions.len();
            let request = VersionsRequest {
                key: Bytes::copy_from_slice(self.key.as_bytes()),
                revision,
                limit: u32::try_from(left).unwrap_or(0),
            };
            let answer = match client.versions(request).await {
                Ok(answer) => answer,
                // It went on while we were reading: what was read is what there is.
                Err(Error::Refused { code: tonic::Code::OutOfRange, .. }) if !past.versions.is_empty() => {
                    past.compacted = past.compacted.max(revision + 1);
                    return Ok(past);
                }
                Err(error) => return Err(unable(error)),
            };
            (past.compacted, past.revision) = (answer.compacted, answer.revision);
            past.versions.extend(answer.versions);
            past.more = answer.more;
            match past.versions.last() {
                Some(oldest) if answer.more && past.versions.len() < limit => {
                    revision = oldest.mod_revision - 1;
                }
                _ => return Ok(past),
            }
        }
    }

    fn show(&self, past: &Past) -> Result<(), Failure> {
        let rows: Vec<_> = past.versions.iter().map(row).collect();
        if !rows.is_empty() {
            print_table(["REVISION", "VERSION", "CREATED", "LEASE", "SIZE", "VALUE"], &rows)?;
        }
        match (past.more, past.compacted) {
            (true, _) => print_line("(there are older versions: raise --limit)"),
            (false, 0) => Ok(()),
            (false, compacted) => {
                print_line(&format!("(what was before revision {compacted} has been compacted)"))
            }
        }
    }
}

fn unable(error: Error) -> Failure {
    match error {
        Error::Refused { code: tonic::Code::Unimplemented, .. } => {
            Failure::new(Exit::Refused, "this server does not tell the versions of a key: it is no Ringfence")
        }
        error => error.into(),
    }
}

fn as_json(version: &Version) -> Value {
    if version.deleted {
        return json!({ "mod_revision": version.mod_revision, "deleted": true });
    }
    let (value, value_b64) = text_of(&version.value);
    let mut shown = json!({
        "mod_revision": version.mod_revision,
        "deleted": false,
        "create_revision": version.create_revision,
        "version": version.version,
        "lease": version.lease,
        "size": version.value.len(),
    });
    for (name, text) in [("value", value), ("value_b64", value_b64)] {
        if let Some(text) = text {
            shown[name] = text.into();
        }
    }
    shown
}

fn row(version: &Version) -> [String; 6] {
    if version.deleted {
        let none = || "-".to_owned();
        return [version.mod_revision.to_string(), none(), none(), none(), none(), "(deleted)".to_owned()];
    }
    let lease = if version.lease == 0 { "-".to_owned() } else { version.lease.to_string() };
    [
        version.mod_revision.to_string(),
        version.version.to_string(),
        version.create_revision.to_string(),
        lease,
        version.value.len().to_string(),
        beginning(&shown(&version.value)),
    ]
}

/// As much of a text as a table has room for.
fn beginning(text: &str) -> String {
    match text.char_indices().nth(VALUE_CHARS_MAX) {
        None => text.to_owned(),
        Some((end, _)) => format!("{}…", &text[..end]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_values_are_cut_between_characters() {
        assert_eq!(beginning("short"), "short");
        let long = "ü".repeat(VALUE_CHARS_MAX + 1);
        assert_eq!(beginning(&long), format!("{}…", "ü".repeat(VALUE_CHARS_MAX)));
    }
}
