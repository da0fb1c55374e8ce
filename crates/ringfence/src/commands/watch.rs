//! `ringfence watch`: what happens to keys, as it happens.

use std::io;
use std::process::Stdio;

use clap::Args;
use ringfence_client::{Client, Error, Watch as Watching, Watched};
use ringfence_proto::etcdserverpb::WatchCreateRequest;
use ringfence_proto::etcdserverpb::watch_create_request::FilterType;
use ringfence_proto::mvccpb::event::EventType;
use ringfence_proto::mvccpb::{Event, KeyValue};
use serde_json::json;
use tokio::io::AsyncWriteExt as _;
use tokio::process::Command;

use crate::cli::Shared;
use crate::commands::range::RangeArgs;
use crate::exit::Failure;
use crate::output::{Output, print_json, print_line};
use crate::record::{ShownKey, shown};

/// Longest value that a command finds in its environment; any value comes on its standard input.
const VARIABLE_BYTES_MAX: usize = 64 << 10;

/// Show what happens to a key or a range of keys, as it happens: each event once and in order, whichever nodes come and go.
/// Goes on until it is interrupted. With --output json each event is a line.
#[derive(Debug, Args)]
pub(crate) struct Watch {
    #[command(flatten)]
    range: RangeArgs,
    /// Begin with the events of this revision, which may be past; 0 for what happens from now on.
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(i64).range(0..))]
    rev: i64,
    /// Show what was there before, too.
    #[arg(long)]
    prev_kv: bool,
    /// Leave puts out.
    #[arg(long)]
    no_put: bool,
    /// Leave deletions out.
    #[arg(long, conflicts_with = "no_put")]
    no_delete: bool,
    /// End after this many events.
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..))]
    count: Option<u64>,
    /// Run this in a shell for each event, one after the other, instead of printing it. The event is in the environment:
    /// RINGFENCE_EVENT (put or delete), RINGFENCE_REVISION, RINGFENCE_KEY, RINGFENCE_VALUE, RINGFENCE_VERSION,
    /// RINGFENCE_CREATE_REVISION, RINGFENCE_LEASE, and RINGFENCE_PREV_VALUE with --prev-kv; the value is on standard input too.
    #[arg(long, value_name = "COMMAND")]
    exec: Option<String>,
}

impl Watch {
    pub(crate) async fn run(self, shared: &Shared) -> Result<(), Failure> {
        let client = shared.client()?;
        let mut watching = self.begin(&client).await?;
        let mut left = self.count.unwrap_or(u64::MAX);
        loop {
            let events = match watching.next().await {
                Ok(Watched::Change { events, .. }) => events,
                Ok(Watched::Progress { .. }) => continue,
                // Nothing is lost: it goes on where it was once somebody answers.
                Err(error @ Error::Unavailable { .. }) => {
                    eprintln!("waiting: {error}");
                    continue;
                }
                Err(error) => return Err(error.into()),
            };
            for event in &events {
                match &self.exec {
                    Some(command) => execute(command, event).await?,
                    None => show(shared.output, event)?,
                }
                left -= 1;
                if left == 0 {
                    return Ok(());
                }
            }
        }
    }

    async fn begin(&self, client: &Client) -> Result<Watching, Error> {
        let (key, range_end) = self.range.to_etcd();
        let filters = [(self.no_put, FilterType::Noput), (self.no_delete, FilterType::Nodelete)];
        client
            .watch(WatchCreateRequest {
                key,
                range_end,
                start_revision: self.rev,
                prev_kv: self.prev_kv,
                filters: filters
                    .iter()
                    .filter(|(wanted, _)| *wanted)
                    .map(|(_, kind)| (*kind).into())
                    .collect(),
                ..WatchCreateRequest::default()
            })
            .await
    }
}

/// The key of an event; events always have one.
fn key_value(event: &Event) -> KeyValue {
    event.kv.clone().unwrap_or_default()
}

fn word(event: &Event) -> &'static str {
    match event.r#type() {
        EventType::Put => "put",
        EventType::Delete => "delete",
    }
}

fn show(output: Output, event: &Event) -> Result<(), Failure> {
    let kv = key_value(event);
    match output {
        Output::Json => {
            let mut line =
                json!({ "event": word(event), "revision": kv.mod_revision, "kv": ShownKey::new(&kv) });
            if let Some(before) = &event.prev_kv {
                line["prev_kv"] = json!(ShownKey::new(before));
            }
            print_json(&line)
        }
        Output::Plain => print_line(&format!("{} {}", word(event), shown(&kv.key))),
        Output::Table => print_line(&line(event, &kv)),
    }
}

/// An event for people.
fn line(event: &Event, kv: &KeyValue) -> String {
    let (revision, key) = (kv.mod_revision, shown(&kv.key));
    let before = event.prev_kv.as_ref().map(|before| shown(&before.value));
    match (event.r#type(), before) {
        (EventType::Put, None) => format!("{revision}  put     {key}  {}", shown(&kv.value)),
        (EventType::Put, Some(before)) => {
            format!("{revision}  put     {key}  {before} -> {}", shown(&kv.value))
        }
        (EventType::Delete, None) => format!("{revision}  delete  {key}"),
        (EventType::Delete, Some(before)) => format!("{revision}  delete  {key}  {before}"),
    }
}

/// Runs the command for one event to its end. That it fails is told, and no reason to miss what comes next.
async fn execute(command: &str, event: &Event) -> Result<(), Failure> {
    let kv = key_value(event);
    let mut shell = Command::new("sh");
    shell.arg("-c").arg(command).stdin(Stdio::piped());
    for (name, value) in variables(event, &kv) {
        shell.env(name, value);
    }
    let mut child = shell.spawn()?;
    if let Some(mut stdin) = child.stdin.take() {
        // One that does not read to the end closes it, which is no fault.
        match stdin.write_all(&kv.value).await {
            Err(error) if error.kind() != io::ErrorKind::BrokenPipe => return Err(error.into()),
            _ => {}
        }
    }
    let status = child.wait().await?;
    if !status.success() {
        eprintln!("at revision {}, for {}: the command ended with {status}", kv.mod_revision, shown(&kv.key));
    }
    Ok(())
}

/// What a command finds in its environment. What no variable can hold is left out.
fn variables(event: &Event, kv: &KeyValue) -> Vec<(&'static str, std::ffi::OsString)> {
    use std::os::unix::ffi::OsStringExt as _;
    let number = |value: i64| value.to_string().into_bytes();
    let mut all = vec![
        ("RINGFENCE_EVENT", word(event).as_bytes().to_vec()),
        ("RINGFENCE_REVISION", number(kv.mod_revision)),
        ("RINGFENCE_KEY", kv.key.to_vec()),
        ("RINGFENCE_VALUE", kv.value.to_vec()),
        ("RINGFENCE_VERSION", number(kv.version)),
        ("RINGFENCE_CREATE_REVISION", number(kv.create_revision)),
        ("RINGFENCE_LEASE", number(kv.lease)),
    ];
    if let Some(before) = &event.prev_kv {
        all.push(("RINGFENCE_PREV_VALUE", before.value.to_vec()));
    }
    all.retain(|(_, value)| value.len() <= VARIABLE_BYTES_MAX && !value.contains(&0));
    all.into_iter().map(|(name, value)| (name, std::ffi::OsString::from_vec(value))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(kind: EventType, value: &[u8], before: Option<&'static str>) -> Event {
        let kv = |value: &[u8]| KeyValue {
            key: "k".into(),
            value: value.to_vec().into(),
            mod_revision: 7,
            ..KeyValue::default()
        };
        Event {
            r#type: kind.into(),
            kv: Some(kv(value)),
            prev_kv: before.map(|before| kv(before.as_bytes())),
        }
    }

    #[test]
    fn an_event_is_a_line() {
        for (event, expected) in [
            (event(EventType::Put, b"v", None), "7  put     k  v"),
            (event(EventType::Put, b"v", Some("u")), "7  put     k  u -> v"),
            (event(EventType::Delete, b"", None), "7  delete  k"),
            (event(EventType::Delete, b"", Some("u")), "7  delete  k  u"),
        ] {
            assert_eq!(line(&event, &key_value(&event)), expected);
        }
    }

    #[test]
    fn what_no_variable_can_hold_is_left_out() {
        let names = |value: &[u8], before| {
            let event = event(EventType::Put, value, before);
            variables(&event, &key_value(&event)).into_iter().map(|(name, _)| name).collect::<Vec<_>>()
        };
        assert!(names(b"v", None).contains(&"RINGFENCE_VALUE"));
        assert!(!names(b"v", None).contains(&"RINGFENCE_PREV_VALUE"));
        assert!(names(b"a\0b", Some("u")).contains(&"RINGFENCE_PREV_VALUE"));
        assert!(!names(b"a\0b", None).contains(&"RINGFENCE_VALUE"));
        assert!(!names(&vec![b'x'; VARIABLE_BYTES_MAX + 1], None).contains(&"RINGFENCE_VALUE"));
    }
}
