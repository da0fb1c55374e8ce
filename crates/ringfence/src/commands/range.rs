//! The range of keys that `get`, `del` and `export` are about, as it is given on a command line.

use bytes::Bytes;
use clap::Args;

/// A key, or a range of keys.
#[derive(Debug, Args)]
pub(crate) struct RangeArgs {
    /// The key; or where the range begins.
    key: String,
    /// The range goes up to this key, without it.
    #[arg(conflicts_with_all = ["prefix", "from_key"])]
    range_end: Option<String>,
    /// All keys that begin with KEY. An empty KEY means all keys.
    #[arg(long, conflicts_with = "from_key")]
    prefix: bool,
    /// All keys from KEY on.
    #[arg(long)]
    from_key: bool,
}

impl RangeArgs {
    /// The request's key and range end, as etcd writes them.
    pub(crate) fn to_etcd(&self) -> (Bytes, Bytes) {
        let key = Bytes::copy_from_slice(self.key.as_bytes());
        if self.prefix {
            return prefix_to_etcd(&key);
        }
        if self.from_key {
            return (first_key_if_empty(key), Bytes::from_static(&[0]));
        }
        let end =
            self.range_end.as_ref().map_or_else(Bytes::new, |end| Bytes::copy_from_slice(end.as_bytes()));
        (key, end)
    }
}

/// The keys that begin with `prefix`, as etcd writes them.
pub(crate) fn prefix_to_etcd(prefix: &Bytes) -> (Bytes, Bytes) {
    let end = ringfence_types::KeyRange::prefix(prefix.clone()).etcd_range_end();
    (first_key_if_empty(prefix.clone()), end)
}

/// etcd knows no empty key: a range of all keys begins at the smallest one.
fn first_key_if_empty(key: Bytes) -> Bytes {
    if key.is_empty() { Bytes::from_static(&[0]) } else { key }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(key: &str, range_end: Option<&str>, prefix: bool, from_key: bool) -> (Bytes, Bytes) {
        RangeArgs { key: key.to_owned(), range_end: range_end.map(str::to_owned), prefix, from_key }.to_etcd()
    }

    #[test]
    fn ranges_are_written_as_etcd_writes_them() {
        for (given, key, end) in [
            (range("a", None, false, false), "a", ""),
            (range("a", Some("c"), false, false), "a", "c"),
            (range("a", None, true, false), "a", "b"),
            (range("", None, true, false), "\0", "\0"),
            (range("a", None, false, true), "a", "\0"),
            (range("", None, false, true), "\0", "\0"),
        ] {
            assert_eq!(given, (Bytes::from_static(key.as_bytes()), Bytes::from_static(end.as_bytes())));
        }
    }
}
