//! `ringfence guard`: key ranges that take no write without a fence.

use bytes::Bytes;
use clap::{Args, Subcommand};
use ringfence_proto::ringfence_v1::{ChangeGuardRequest, Guard as Shown};
use ringfence_types::{KeyRange, RangeEnd};
use serde_json::json;

use crate::cli::Shared;
use crate::commands::range::prefix_to_etcd;
use crate::commands::scope::{FenceArgs, ScopeArg, shown_scope};
use crate::exit::Failure;
use crate::output::{Output, print_json, print_line, print_table};
use crate::record::shown;

/// Key ranges that take no write without a fence.
#[derive(Debug, Subcommand)]
pub(crate) enum Guard {
    /// From now on writes of the keys need a fence of a scope: `--fence`, or a compare of the create revision of the key that
    /// holds it, as plain etcd clients write it.
    Set {
        #[command(flatten)]
        keys: GuardedKeys,
        /// The scope: a lock by its name (or lock:NAME), or key:KEY.
        #[arg(long)]
        scope: ScopeArg,
        #[command(flatten)]
        change: ChangeArgs,
    },
    /// Show the guards.
    List,
    /// Remove the guard that was set on exactly these keys.
    Remove {
        #[command(flatten)]
        keys: GuardedKeys,
        #[command(flatten)]
        change: ChangeArgs,
    },
}

/// The keys that a guard is about.
#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
pub(crate) struct GuardedKeys {
    /// All keys that begin with this. Empty means all keys.
    #[arg(long)]
    prefix: Option<String>,
    /// This key.
    #[arg(long)]
    key: Option<String>,
    /// The keys from the first up to the second, without it.
    #[arg(long, num_args = 2, value_names = ["FIRST", "END"])]
    range: Vec<String>,
}

/// What a change over guarded keys needs.
#[derive(Debug, Args)]
pub(crate) struct ChangeArgs {
    #[command(flatten)]
    fences: FenceArgs,
    /// Do it without the fences that changing the guards of guarded keys needs. The servers log and count it.
    #[arg(long = "override")]
    overrides: bool,
}

impl Guard {
    pub(crate) async fn run(self, shared: &Shared) -> Result<(), Failure> {
        match self {
            Guard::Set { keys, scope, change } => change_guard(shared, &keys, Some(scope), &change).await,
            Guard::Remove { keys, change } => change_guard(shared, &keys, None, &change).await,
            Guard::List => list(shared).await,
        }
    }
}

impl GuardedKeys {
    /// The request's key and range end, as etcd writes them.
    fn to_etcd(&self) -> (Bytes, Bytes) {
        let bytes = |text: &str| Bytes::copy_from_slice(text.as_bytes());
        match (&self.prefix, &self.key, self.range.as_slice()) {
            (Some(prefix), ..) => prefix_to_etcd(&bytes(prefix)),
            (_, Some(key), _) => (bytes(key), Bytes::new()),
            (_, _, [first, end]) => (bytes(first), bytes(end)),
            // The parser of the command line lets nothing else through.
            (_, _, other) => unreachable!("--range has two values, and not {}", other.len()),
        }
    }
}

async fn change_guard(
    shared: &Shared,
    keys: &GuardedKeys,
    scope: Option<ScopeArg>,
    change: &ChangeArgs,
) -> Result<(), Failure> {
    let (key, range_end) = keys.to_etcd();
    let request = ChangeGuardRequest {
        key: key.clone(),
        range_end: range_end.clone(),
        scope: scope.as_ref().map(ScopeArg::to_message),
        fences: change.fences.to_messages(),
        r#override: change.overrides,
    };
    shared.client()?.change_guard(request).await?;
    let scope = scope.map(|scope| scope.to_string());
    match shared.output {
        Output::Json => print_json(&json!({
            "key": shown(&key),
            "range_end": shown(&range_end),
            "scope": scope,
        })),
        Output::Plain => print_line(&scope.unwrap_or_default()),
        Output::Table => {
            let keys = in_words(&key, &range_end);
            print_line(&match scope {
                Some(scope) => format!("{keys}: writes need a fence of {scope} from now on"),
                None => format!("{keys}: not guarded any more"),
            })
        }
    }
}

async fn list(shared: &Shared) -> Result<(), Failure> {
    let answer = shared.client()?.list_guards().await?;
    match shared.output {
        Output::Json => {
            let guards = answer.guards.iter().map(|guard| {
                json!({
                    "key": shown(&guard.key),
                    "range_end": shown(&guard.range_end),
                    "scope": shown_scope(guard.scope.as_ref()),
                })
            });
            print_json(&json!({ "revision": answer.revision, "guards": guards.collect::<Vec<_>>() }))
        }
        Output::Plain => answer.guards.iter().map(row).try_for_each(|row| print_line(&row.join("  "))),
        Output::Table => print_table(["KEYS", "SCOPE"], &answer.guards.iter().map(row).collect::<Vec<_>>()),
    }
}

fn row(guard: &Shown) -> [String; 2] {
    [in_words(&guard.key, &guard.range_end), shown_scope(guard.scope.as_ref())]
}

/// A range of keys as the flags name it.
fn in_words(key: &Bytes, range_end: &Bytes) -> String {
    let range = KeyRange::from_etcd(key.clone(), range_end.clone());
    match &range.end {
        RangeEnd::Single => format!("key {}", shown(key)),
        _ if range == KeyRange::prefix(key.clone()) => format!("prefix {}", shown(key)),
        RangeEnd::Before(end) => format!("range {} {}", shown(key), shown(end)),
        RangeEnd::Unbounded if key.as_ref() == [0] || key.is_empty() => "all keys".to_owned(),
        RangeEnd::Unbounded => format!("all keys from {} on", shown(key)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_told_as_they_are_given() {
        let keys = |prefix: Option<&str>, key: Option<&str>, range: &[&str]| {
            let text = |text: &str| text.to_owned();
            let range = range.iter().map(|key| text(key)).collect();
            let (key, end) = GuardedKeys { prefix: prefix.map(text), key: key.map(text), range }.to_etcd();
            in_words(&key, &end)
        };
        assert_eq!(keys(Some("jobs/"), None, &[]), "prefix jobs/");
        assert_eq!(keys(Some(""), None, &[]), "all keys");
        assert_eq!(keys(None, Some("k"), &[]), "key k");
        assert_eq!(keys(None, None, &["a", "c"]), "range a c");
        assert_eq!(keys(None, None, &["a", "b"]), "prefix a");
        assert_eq!(in_words(&"a".into(), &"\0".into()), "all keys from a on");
    }
}
