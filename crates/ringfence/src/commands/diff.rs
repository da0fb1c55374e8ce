//! `ringfence diff`: what changed between two revisions.

use std::cmp::Ordering;
use std::collections::VecDeque;

use bytes::Bytes;
use clap::Args;
use ringfence_client::{Client, Error, Scan};
use ringfence_proto::etcdserverpb::RangeRequest;
use ringfence_proto::mvccpb::KeyValue;
use serde_json::json;

use crate::cli::Shared;
use crate::commands::range::prefix_to_etcd;
use crate::exit::{Exit, Failure};
use crate::output::{Output, print, print_line};
use crate::record::{ShownKey, shown};

/// Show which keys differ between two revisions. Both are read piece by piece, side by side, so a large store takes time and no
/// memory. The numbers are told on standard error; with --output json each line is one key.
#[derive(Debug, Args)]
pub(crate) struct Diff {
    /// The older revision.
    #[arg(long, value_parser = clap::value_parser!(i64).range(1..))]
    from: i64,
    /// The younger revision; 0 for the newest.
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(i64).range(0..))]
    to: i64,
    /// Only the keys that begin with this.
    #[arg(long, default_value = "")]
    prefix: String,
    /// Leave the values out.
    #[arg(long)]
    keys_only: bool,
}

/// One key that differs.
#[derive(Debug, PartialEq)]
enum Difference {
    Created(KeyValue),
    Changed(KeyValue, KeyValue),
    Deleted(KeyValue),
}

/// How many keys differ, and how.
#[derive(Debug, Default)]
struct Counts {
    created: u64,
    changed: u64,
    deleted: u64,
}

/// The keys of one revision in their order, of which a piece is in memory.
struct Side {
    scan: Scan,
    piece: VecDeque<KeyValue>,
    is_over: bool,
}

impl Diff {
    pub(crate) async fn run(self, shared: &Shared) -> Result<(), Failure> {
        let client = shared.client()?;
        let to = self.younger(&client).await?;
        let (mut old, mut new) = (self.side(&client, self.from), self.side(&client, to));
        let mut counts = Counts::default();
        while let Some(difference) = next(&mut old, &mut new).await? {
            counts.add(&difference);
            match shared.output {
                Output::Json => print(json_line(&difference).as_bytes())?,
                Output::Plain => print_line(&difference.plain())?,
                Output::Table => print_line(&difference.text(self.keys_only))?,
            }
        }
        let Counts { created, changed, deleted } = counts;
        eprintln!(
            "{created} created, {changed} changed, {deleted} deleted from revision {} to {to}",
            self.from
        );
        Ok(())
    }

    /// The younger revision, once it is known to be one.
    async fn younger(&self, client: &Client) -> Result<i64, Failure> {
        let (key, range_end) = self.range();
        let question = RangeRequest { key, range_end, count_only: true, limit: 1, ..RangeRequest::default() };
        let to = match self.to {
            0 => client.range(question).await?.header.map_or(0, |header| header.revision),
            to => to,
        };
        if self.from > to {
            let message =
                format!("--from {} is younger than {to}, up to which it shall be compared", self.from);
            return Err(Failure::new(Exit::Usage, message));
        }
        Ok(to)
    }

    fn range(&self) -> (Bytes, Bytes) {
        prefix_to_etcd(&Bytes::copy_from_slice(self.prefix.as_bytes()))
    }

    fn side(&self, client: &Client, revision: i64) -> Side {
        let (key, range_end) = self.range();
        let request =
            RangeRequest { key, range_end, revision, keys_only: self.keys_only, ..RangeRequest::default() };
        Side { scan: client.scan(request), piece: VecDeque::new(), is_over: false }
    }
}

impl Side {
    /// The next key, which stays the next.
    async fn peek(&mut self) -> Result<Option<&KeyValue>, Error> {
        if self.piece.is_empty() && !self.is_over {
            match self.scan.next().await? {
                Some(kvs) => self.piece = kvs.into(),
                None => self.is_over = true,
            }
        }
        Ok(self.piece.front())
    }

    fn take(&mut self) -> KeyValue {
        self.piece.pop_front().expect("it was looked at before")
    }
}

/// The next key that differs, in the order of the keys.
async fn next(old: &mut Side, new: &mut Side) -> Result<Option<Difference>, Error> {
    loop {
        let order = match (old.peek().await?, new.peek().await?) {
            (None, None) => return Ok(None),
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (Some(old), Some(new)) => old.key.cmp(&new.key),
        };
        match order {
            Ordering::Less => return Ok(Some(Difference::Deleted(old.take()))),
            Ordering::Greater => return Ok(Some(Difference::Created(new.take()))),
            Ordering::Equal => {
                let (old, new) = (old.take(), new.take());
                if old.mod_revision != new.mod_revision {
                    return Ok(Some(Difference::Changed(old, new)));
                }
            }
        }
    }
}

impl Counts {
    fn add(&mut self, difference: &Difference) {
        match difference {
            Difference::Created(_) => self.created += 1,
            Difference::Changed(..) => self.changed += 1,
            Difference::Deleted(_) => self.deleted += 1,
        }
    }
}

impl Difference {
    fn word(&self) -> &'static str {
        match self {
            Difference::Created(_) => "created",
            Difference::Changed(..) => "changed",
            Difference::Deleted(_) => "deleted",
        }
    }

    fn key(&self) -> &[u8] {
        match self {
            Difference::Created(kv) | Difference::Changed(_, kv) | Difference::Deleted(kv) => &kv.key,
        }
    }

    fn plain(&self) -> String {
        format!("{} {}", self.word(), shown(self.key()))
    }

    /// As `diff` shows it.
    fn text(&self, keys_only: bool) -> String {
        let key = shown(self.key());
        match self {
            _ if keys_only => format!("{} {key}", self.sign()),
            Difference::Created(kv) | Difference::Deleted(kv) => {
                format!("{} {key}  {}", self.sign(), shown(&kv.value))
            }
            Difference::Changed(old, new) => {
                format!("~ {key}  {} -> {}", shown(&old.value), shown(&new.value))
            }
        }
    }

    fn sign(&self) -> char {
        match self {
            Difference::Created(_) => '+',
            Difference::Changed(..) => '~',
            Difference::Deleted(_) => '-',
        }
    }
}

fn json_line(difference: &Difference) -> String {
    let (old, new) = match difference {
        Difference::Created(new) => (None, Some(new)),
        Difference::Changed(old, new) => (Some(old), Some(new)),
        Difference::Deleted(old) => (Some(old), None),
    };
    let line = json!({
        "difference": difference.word(),
        "from": old.map(ShownKey::new),
        "to": new.map(ShownKey::new),
    });
    format!("{line}\n")
}
