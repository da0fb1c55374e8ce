//! Which keys clients ask for most: one call in [`ONE_IN`] is noticed, by the prefix of its keys, and a bounded table keeps the
//! prefixes that occur most (the space-saving algorithm: Metwally, Agrawal, El Abbadi, "Efficient computation of frequent and
//! top-k elements in data streams", ICDT 2005, section 3).

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use bytes::Bytes;
use parking_lot::Mutex;
use ringfence_proto::ringfence_v1::{self as v1, load_server};
use ringfence_types::{Command, Conditional, Operation, Write};
use tonic::{Request, Response, Status, async_trait};

use crate::served::Served;

/// One call in so many is noticed: enough for what is hot, and next to nothing for a call.
const ONE_IN: u64 = 16;
/// Prefixes that are known at a time.
const PREFIXES_MAX: usize = 128;
/// Bytes of a prefix that are told apart.
const PREFIX_BYTES_MAX: usize = 256;

/// What a call does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Use {
    Read,
    Write,
}

/// The table of a member.
#[derive(Debug, Default)]
pub(crate) struct Hottest {
    calls: AtomicU64,
    table: Mutex<HashMap<Bytes, Uses>>,
}

#[derive(Debug, Clone, Copy, Default)]
struct Uses {
    reads: u64,
    writes: u64,
    /// How many more there may have been by the count of whoever had this place before.
    inherited: u64,
}

impl Uses {
    fn count(&self) -> u64 {
        self.reads + self.writes + self.inherited
    }
}

impl Hottest {
    /// A call reads keys from `start` on.
    pub(crate) fn notice_read(&self, start: &[u8]) {
        if self.is_noticed() {
            self.count(prefix_of(start), Use::Read);
        }
    }

    /// A call writes, by this command.
    pub(crate) fn notice_write(&self, command: &Command) {
        if self.is_noticed()
            && let Some(key) = key_of(command)
        {
            self.count(prefix_of(key), Use::Write);
        }
    }

    fn is_noticed(&self) -> bool {
        self.calls.fetch_add(1, Relaxed).is_multiple_of(ONE_IN)
    }

    fn count(&self, prefix: &[u8], used: Use) {
        let mut table = self.table.lock();
        if !table.contains_key(prefix) {
            let inherited = if table.len() < PREFIXES_MAX { 0 } else { make_room(&mut table) };
            // A copy: the key is a part of a whole request, which would stay in memory with it.
            let prefix = Bytes::copy_from_slice(prefix);
            table.insert(prefix, Uses { inherited, ..Uses::default() });
        }
        let Some(uses) = table.get_mut(prefix) else { return };
        match used {
            Use::Read => uses.reads += 1,
            Use::Write => uses.writes += 1,
        }
    }

    /// The prefixes that were surely used, the hottest first.
    fn hottest(&self, limit: usize) -> Vec<v1::HotPrefix> {
        let mut all: Vec<(Bytes, Uses)> =
            self.table.lock().iter().map(|(prefix, uses)| (prefix.clone(), *uses)).collect();
        all.sort_unstable_by(|(a, one), (b, other)| {
            (other.reads + other.writes).cmp(&(one.reads + one.writes)).then_with(|| a.cmp(b))
        });
        all.truncate(limit);
        let tell = |(prefix, uses): (Bytes, Uses)| v1::HotPrefix {
            prefix,
            reads: uses.reads * ONE_IN,
            writes: uses.writes * ONE_IN,
        };
        all.into_iter().map(tell).collect()
    }
}

/// Takes out the prefix that occurred least; how often that was.
fn make_room(table: &mut HashMap<Bytes, Uses>) -> u64 {
    let least = table.iter().min_by_key(|(_, uses)| uses.count());
    let Some((prefix, count)) = least.map(|(prefix, uses)| (prefix.clone(), uses.count())) else { return 0 };
    table.remove(&prefix);
    count
}

/// A key that stands for all that a command writes, or compares where it only may write.
fn key_of(command: &Command) -> Option<&[u8]> {
    match command {
        Command::Put(put) | Command::Conditional(Conditional { write: Write::Put(put), .. }) => {
            Some(&put.key)
        }
        Command::DeleteRange(delete)
        | Command::Conditional(Conditional { write: Write::DeleteRange(delete), .. }) => {
            Some(&delete.range.start)
        }
        Command::Txn(txn) | Command::Conditional(Conditional { write: Write::Txn(txn), .. }) => {
            let written = txn.success.iter().chain(&txn.failure).find_map(|operation| match operation {
                Operation::Put(put) => Some(&put.key),
                Operation::DeleteRange(delete) => Some(&delete.range.start),
                Operation::Range(_) | Operation::Txn(_) => None,
            });
            let compared = || txn.compares.first().map(|compare| &compare.range.start);
            written.or_else(compared).map(AsRef::as_ref)
        }
        _ => None,
    }
}

/// All up to the last slash, the whole key where there is none.
fn prefix_of(key: &[u8]) -> &[u8] {
    let key = &key[..key.len().min(PREFIX_BYTES_MAX)];
    key.iter().rposition(|byte| *byte == b'/').map_or(key, |slash| &key[..=slash])
}

/// The service.
pub(crate) struct Load {
    pub(crate) served: Served,
}

#[async_trait]
impl load_server::Load for Load {
    async fn hottest(
        &self,
        request: Request<v1::HottestRequest>,
    ) -> Result<Response<v1::HottestResponse>, Status> {
        let limit = match request.get_ref().limit {
            0 => PREFIXES_MAX,
            limit => usize::try_from(limit).unwrap_or(PREFIXES_MAX),
        };
        Ok(Response::new(v1::HottestResponse { prefixes: self.served.hottest.hottest(limit) }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_ends_with_the_last_slash() {
        for (key, prefix) in
            [("/a/b/c", "/a/b/"), ("a/", "a/"), ("/a", "/"), ("key", "key"), ("", ""), ("//", "//")]
        {
            assert_eq!(prefix_of(key.as_bytes()), prefix.as_bytes(), "{key}");
        }
        let long = vec![b'x'; 2 * PREFIX_BYTES_MAX];
        assert_eq!(prefix_of(&long).len(), PREFIX_BYTES_MAX);
    }

    #[test]
    fn the_hottest_are_known_however_many_others_there_are() {
        let hottest = Hottest::default();
        for round in 0..1_000 {
            hottest.count(b"hot/", Use::Write);
            hottest.count(b"warm/", if round % 2 == 0 { Use::Read } else { Use::Write });
            // Each of these occurs once.
            (0..3).for_each(|n| hottest.count(format!("cold/{round}/{n}/").as_bytes(), Use::Read));
        }
        assert_eq!(hottest.table.lock().len(), PREFIXES_MAX);
        let told = hottest.hottest(2);
        let counts: Vec<_> = told.iter().map(|hot| (&hot.prefix[..], hot.reads, hot.writes)).collect();
        assert_eq!(counts, [(&b"hot/"[..], 0, 16_000), (&b"warm/"[..], 8_000, 8_000)]);
        assert!(hottest.hottest(PREFIXES_MAX)[2].reads <= 3 * ONE_IN, "what one inherits is not its own");
    }

    #[test]
    fn one_call_in_so_many_is_noticed() {
        let hottest = Hottest::default();
        (0..10 * ONE_IN).for_each(|_| hottest.notice_read(b"k/1"));
        let told = hottest.hottest(9);
        assert_eq!((told.len(), told[0].reads), (1, 10 * ONE_IN));
    }
}
