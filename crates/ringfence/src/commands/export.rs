//! `ringfence export`: write keys as JSON lines.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::PathBuf;

use bytes::Bytes;
use clap::Args;
use ringfence_client::Scan;
use ringfence_proto::etcdserverpb::RangeRequest;

use crate::cli::Shared;
use crate::commands::range::prefix_to_etcd;
use crate::exit::Failure;
use crate::record::Record;

/// Write all keys, or those with a prefix, as JSON lines, all at one revision. The lines are what `import` reads:
/// {"key":"a","value":"b"}, with key_b64 and value_b64 in place of what is not UTF-8. The number of keys and the revision
/// are told on standard error.
#[derive(Debug, Args)]
pub(crate) struct Export {
    /// Only the keys that begin with this.
    #[arg(long, default_value = "")]
    prefix: String,
    /// Write the state as it was at this revision; 0 for the newest.
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(i64).range(0..))]
    rev: i64,
    /// Let one node answer from what it has, which may be old: works without a majority, and shows what that node holds.
    #[arg(long)]
    serializable: bool,
    /// Write to this file, which appears only once it is complete and durable.
    #[arg(long, value_name = "FILE")]
    to: Option<PathBuf>,
}

impl Export {
    pub(crate) async fn run(self, shared: &Shared) -> Result<(), Failure> {
        let (key, range_end) = prefix_to_etcd(&Bytes::from(self.prefix));
        let request = RangeRequest {
            key,
            range_end,
            revision: self.rev,
            serializable: self.serializable,
            ..RangeRequest::default()
        };
        let mut scan = shared.client()?.scan(request);
        let keys = match &self.to {
            None => write_lines(&mut scan, BufWriter::new(io::stdout().lock())).await?.0,
            Some(path) => {
                let part = path.with_extension("part");
                let (keys, writer) = write_lines(&mut scan, BufWriter::new(File::create(&part)?)).await?;
                writer.into_inner().map_err(io::IntoInnerError::into_error)?.sync_all()?;
                std::fs::rename(&part, path)?;
                keys
            }
        };
        eprintln!("exported {keys} keys at revision {}", scan.revision());
        Ok(())
    }
}

/// Writes the rest of a scan; returns the number of keys and the flushed writer.
async fn write_lines<W: Write>(scan: &mut Scan, mut writer: W) -> Result<(u64, W), Failure> {
    let mut keys = 0;
    while let Some(kvs) = scan.next().await? {
        for kv in kvs {
            let mut line = Record { key: kv.key, value: kv.value }.to_line();
            line.push('\n');
            writer.write_all(line.as_bytes())?;
            keys += 1;
        }
    }
    writer.flush()?;
    Ok((keys, writer))
}
