//! Every version of every key, as the heads and the base have them together.

use bytes::Bytes;
use ringfence_types::Revision;

use crate::error::StoreError;
use crate::layout;
use crate::row::Row;
use crate::sources::Sources;

/// What is called for each version.
type Visit<'a> = dyn FnMut(&[u8], &Row) -> Result<(), StoreError> + 'a;

impl Sources {
    /// Calls `visit` for every version up to `revision`: by key, newest first.
    pub(crate) fn versions(&self, revision: Revision, visit: &mut Visit<'_>) -> Result<(), StoreError> {
        let visible = |(_, row): &(Bytes, Row)| row.stamp.revision <= revision;
        let mut head = self.head.versions().filter(visible).peekable();
        let mut frozen = self.frozen.iter().flat_map(|frozen| frozen.versions()).filter(visible).peekable();
        // Of one key the head's versions are younger than the frozen head's, and those are younger than the base's.
        let mut visit_heads = |bound: Option<&[u8]>, visit: &mut Visit<'_>| -> Result<(), StoreError> {
            let within = |(key, _): &&(Bytes, Row)| bound.is_none_or(|bound| key.as_ref() <= bound);
            loop {
                let next = match (head.peek().filter(within), frozen.peek().filter(within)) {
                    (None, None) => return Ok(()),
                    (Some((young, _)), Some((old, _))) if old < young => frozen.next(),
                    (None, Some(_)) => frozen.next(),
                    (Some(_), _) => head.next(),
                };
                if let Some((key, row)) = next {
                    visit(&key, &row)?;
                }
            }
        };
        for entry in self.base.versions()? {
            let (index_key, value) = entry?;
            let key = layout::key_of(index_key.value());
            visit_heads(Some(key), visit)?;
            visit(key, &layout::decode_index_row(index_key.value(), value.value())?)?;
        }
        visit_heads(None, visit)
    }
}
