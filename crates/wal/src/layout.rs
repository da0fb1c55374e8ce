//! Every layout that the log has on disk. All numbers are little-endian.
//!
//! A *segment* is a file of a fixed size. Its first block is the segment header:
//!
//! | bytes | field | |
//! |---|---|---|
//! | 0..8 | magic | `RFWALSEG` |
//! | 8..12 | format | the version of all the layouts on this page |
//! | 12..16 | CRC32C | of bytes 16..40 |
//! | 16..24 | number | the segment's place in the log and its incarnation: a recycled file gets a new one |
//! | 24..32 | size | of the whole file |
//! | 32..40 | salt | mixed into the checksums of batch headers, the same in all segments of a log |
//!
//! Batches follow, each at a multiple of [`BLOCK_BYTES`], padded by zeros. A batch header:
//!
//! | bytes | field | |
//! |---|---|---|
//! | 0..4 | magic | `RFB1` |
//! | 4..8 | header CRC32C | of the salt and bytes 8..56 |
//! | 8..12 | payload CRC32C | of the payload |
//! | 12..16 | payload length | without padding |
//! | 16..24 | incarnation | the number of the segment that the batch was written into |
//! | 24..32 | number | grows from batch to batch, with gaps |
//! | 32..40 | previous number | of the batch before this one, 0 for none |
//! | 40..44 | chain | the header CRC32C of the batch before this one |
//! | 44..48 | records | their number |
//! | 48..50 | format | as in the segment header |
//! | 50..56 | zero | |
//!
//! The payload is a row of records: kind (1 byte), length of the body (4 bytes), body.
//!
//! | kind | record | body |
//! |---|---|---|
//! | 1 | entry | index (8 bytes), data |
//! | 2 | vote | the register's value |
//! | 3 | truncate | nothing (drop all), or the last index that stays (8 bytes) |
//! | 4 | purge | last index dropped (8 bytes), mark |
//! | 5 | committed | mark |
//! | 6 | range | nothing (no entry), or first and last index (16 bytes): the entries before this batch |
//!
//! The first batch of each segment begins with a range, and restates the purge and the vote, so that no older segment
//! is needed to know them.

/// Everything is written in multiples of this, the unit that disks write whole.
pub(crate) const BLOCK_BYTES: usize = 512;
/// The version of the layouts on this page.
pub(crate) const FORMAT: u32 = 1;
/// Length of a batch header.
pub(crate) const BATCH_HEADER_BYTES: usize = 56;
/// What a record needs beyond its body.
pub(crate) const RECORD_HEADER_BYTES: usize = 5;
/// Largest value of a register: the vote, and the marks of purge and commitment.
pub(crate) const REGISTER_BYTES_MAX: usize = 1024;
/// Smallest and largest size of a segment.
pub(crate) const SEGMENT_BYTES_MIN: u64 = 16 << 10;
pub(crate) const SEGMENT_BYTES_MAX: u64 = 1 << 30;
/// Most bytes that a batch needs beside its own records: header, range, and three registers.
pub(crate) const RESTATED_BYTES_MAX: usize =
    BATCH_HEADER_BYTES + (RECORD_HEADER_BYTES + 16) + 3 * (RECORD_HEADER_BYTES + 8 + REGISTER_BYTES_MAX);

/// Said of a block that does not even look like a batch.
pub(crate) const NO_BATCH: &str = "there is no batch";
/// Said of a batch whose header is there, but whose payload is not what the header tells.
pub(crate) const BROKEN_PAYLOAD: &str = "the batch's checksum is wrong";

const SEGMENT_MAGIC: &[u8; 8] = b"RFWALSEG";
const BATCH_MAGIC: &[u8; 4] = b"RFB1";

const _: () = assert!(
    BLOCK_BYTES + 2 * RESTATED_BYTES_MAX <= SEGMENT_BYTES_MIN as usize,
    "the smallest segment must hold a batch with all that it restates and some records"
);

/// The first block of a segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SegmentHeader {
    pub(crate) number: u64,
    pub(crate) bytes: u64,
    pub(crate) salt: u64,
}

/// Why a block is no segment header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SegmentDamage {
    Format(u32),
    Broken(&'static str),
}

/// A batch as its successor names it; `Link::START` stands before the first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Link {
    pub(crate) number: u64,
    pub(crate) crc: u32,
}

/// The header of a batch, its own checksum found right.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct BatchHeader {
    pub(crate) crc: u32,
    pub(crate) payload_crc: u32,
    pub(crate) payload_bytes: usize,
    pub(crate) incarnation: u64,
    pub(crate) number: u64,
    pub(crate) previous: Link,
    pub(crate) records: u32,
}

/// One record, borrowed from the batch or from what is to be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Record<'a> {
    Entry { index: u64, data: &'a [u8] },
    Vote(&'a [u8]),
    Truncate { after: Option<u64> },
    Purge { through: u64, mark: &'a [u8] },
    Committed(&'a [u8]),
    Range(Option<(u64, u64)>),
}

/// The records of a payload, in order. Stops after the first that is malformed.
#[derive(Debug, Clone)]
pub(crate) struct Records<'a> {
    rest: &'a [u8],
}

impl SegmentHeader {
    pub(crate) fn encode(&self) -> [u8; BLOCK_BYTES] {
        let mut block = [0; BLOCK_BYTES];
        block[0..8].copy_from_slice(SEGMENT_MAGIC);
        block[8..12].copy_from_slice(&FORMAT.to_le_bytes());
        block[16..24].copy_from_slice(&self.number.to_le_bytes());
        block[24..32].copy_from_slice(&self.bytes.to_le_bytes());
        block[32..40].copy_from_slice(&self.salt.to_le_bytes());
        let crc = crc32c::crc32c(&block[16..40]);
        block[12..16].copy_from_slice(&crc.to_le_bytes());
        block
    }

    pub(crate) fn decode(block: &[u8; BLOCK_BYTES]) -> Result<SegmentHeader, SegmentDamage> {
        if &block[0..8] != SEGMENT_MAGIC {
            return Err(SegmentDamage::Broken("the file does not begin as a segment"));
        }
        let format = u32_at(block, 8);
        if format != FORMAT {
            return Err(SegmentDamage::Format(format));
        }
        if u32_at(block, 12) != crc32c::crc32c(&block[16..40]) {
            return Err(SegmentDamage::Broken("the segment header's checksum is wrong"));
        }
        Ok(SegmentHeader { number: u64_at(block, 16), bytes: u64_at(block, 24), salt: u64_at(block, 32) })
    }
}

impl Link {
    /// What stands before the first batch of a log.
    pub(crate) const START: Link = Link { number: 0, crc: 0 };
}

impl BatchHeader {
    /// The header at the beginning of `bytes`, if one was written there into this incarnation of the segment.
    ///
    /// The payload is not looked at, except that its length must fit into `bytes_max` together with the header.
    pub(crate) fn decode(
        bytes: &[u8],
        segment: &SegmentHeader,
        bytes_max: u64,
    ) -> Result<BatchHeader, &'static str> {
        let Some(bytes) = bytes.first_chunk::<BATCH_HEADER_BYTES>() else {
            return Err(NO_BATCH);
        };
        if &bytes[0..4] != BATCH_MAGIC {
            return Err(NO_BATCH);
        }
        let header = BatchHeader {
            crc: u32_at(bytes, 4),
            payload_crc: u32_at(bytes, 8),
            payload_bytes: u32_at(bytes, 12) as usize,
            incarnation: u64_at(bytes, 16),
            number: u64_at(bytes, 24),
            previous: Link { number: u64_at(bytes, 32), crc: u32_at(bytes, 40) },
            records: u32_at(bytes, 44),
        };
        if header.incarnation != segment.number {
            return Err("the batch is of an older incarnation of the file");
        }
        if header.crc != header_crc(segment.salt, bytes) {
            return Err("the batch header's checksum is wrong");
        }
        if u32::from(u16::from_le_bytes([bytes[48], bytes[49]])) != FORMAT {
            return Err("the batch has another format than its segment");
        }
        if (BATCH_HEADER_BYTES + header.payload_bytes) as u64 > bytes_max {
            return Err("the batch is longer than its segment");
        }
        Ok(header)
    }

    /// Whether `payload` is what was written under this header.
    pub(crate) fn check(&self, payload: &[u8]) -> Result<(), &'static str> {
        if payload.len() == self.payload_bytes && crc32c::crc32c(payload) == self.payload_crc {
            Ok(())
        } else {
            Err(BROKEN_PAYLOAD)
        }
    }

    /// Bytes on disk, padding included.
    pub(crate) fn padded_bytes(&self) -> u64 {
        padded(BATCH_HEADER_BYTES + self.payload_bytes) as u64
    }

    /// How the next batch names this one.
    pub(crate) fn link(&self) -> Link {
        Link { number: self.number, crc: self.crc }
    }
}

/// Makes room for a header at the beginning of an empty `buffer`.
pub(crate) fn begin_batch(buffer: &mut Vec<u8>) {
    buffer.clear();
    buffer.resize(BATCH_HEADER_BYTES, 0);
}

/// Fills in the header of a batch whose records are in `buffer`, and pads it. Returns how the next batch names it.
pub(crate) fn seal_batch(
    buffer: &mut Vec<u8>,
    segment: &SegmentHeader,
    number: u64,
    previous: Link,
    records: u32,
) -> Link {
    let payload_bytes = buffer.len() - BATCH_HEADER_BYTES;
    let payload_bytes = u32::try_from(payload_bytes).expect("a batch fits into a segment");
    let payload_crc = crc32c::crc32c(&buffer[BATCH_HEADER_BYTES..]);
    buffer[0..4].copy_from_slice(BATCH_MAGIC);
    buffer[8..12].copy_from_slice(&payload_crc.to_le_bytes());
    buffer[12..16].copy_from_slice(&payload_bytes.to_le_bytes());
    buffer[16..24].copy_from_slice(&segment.number.to_le_bytes());
    buffer[24..32].copy_from_slice(&number.to_le_bytes());
    buffer[32..40].copy_from_slice(&previous.number.to_le_bytes());
    buffer[40..44].copy_from_slice(&previous.crc.to_le_bytes());
    buffer[44..48].copy_from_slice(&records.to_le_bytes());
    buffer[48..50].copy_from_slice(&FORMAT.to_le_bytes()[..2]);
    let header = buffer.first_chunk::<BATCH_HEADER_BYTES>().expect("the room was made when the batch began");
    let crc = header_crc(segment.salt, header);
    buffer[4..8].copy_from_slice(&crc.to_le_bytes());
    buffer.resize(padded(buffer.len()), 0);
    Link { number, crc }
}

impl<'a> Record<'a> {
    /// Bytes that the record takes in a batch.
    pub(crate) fn encoded_bytes(&self) -> usize {
        RECORD_HEADER_BYTES
            + match self {
                Record::Entry { data, .. } => 8 + data.len(),
                Record::Vote(value) | Record::Committed(value) => value.len(),
                Record::Truncate { after } => after.map_or(0, |_| 8),
                Record::Purge { mark, .. } => 8 + mark.len(),
                Record::Range(range) => range.map_or(0, |_| 16),
            }
    }

    /// Adds the record to a batch.
    pub(crate) fn encode(&self, buffer: &mut Vec<u8>) {
        let body_bytes = self.encoded_bytes() - RECORD_HEADER_BYTES;
        let body_bytes = u32::try_from(body_bytes).expect("a record fits into a segment");
        buffer.push(self.kind());
        buffer.extend_from_slice(&body_bytes.to_le_bytes());
        match self {
            Record::Entry { index: number, data } | Record::Purge { through: number, mark: data } => {
                buffer.extend_from_slice(&number.to_le_bytes());
                buffer.extend_from_slice(data);
            }
            Record::Vote(value) | Record::Committed(value) => buffer.extend_from_slice(value),
            Record::Truncate { after } => {
                if let Some(after) = after {
                    buffer.extend_from_slice(&after.to_le_bytes());
                }
            }
            Record::Range(range) => {
                if let Some((first, last)) = range {
                    buffer.extend_from_slice(&first.to_le_bytes());
                    buffer.extend_from_slice(&last.to_le_bytes());
                }
            }
        }
    }

    fn kind(&self) -> u8 {
        match self {
            Record::Entry { .. } => 1,
            Record::Vote(_) => 2,
            Record::Truncate { .. } => 3,
            Record::Purge { .. } => 4,
            Record::Committed(_) => 5,
            Record::Range(_) => 6,
        }
    }

    fn decode(kind: u8, body: &'a [u8]) -> Option<Record<'a>> {
        Some(match kind {
            1 => split_u64(body).map(|(index, data)| Record::Entry { index, data })?,
            2 => Record::Vote(body),
            3 if body.is_empty() => Record::Truncate { after: None },
            3 => Record::Truncate { after: Some(u64::from_le_bytes(body.try_into().ok()?)) },
            4 => split_u64(body).map(|(through, mark)| Record::Purge { through, mark })?,
            5 => Record::Committed(body),
            6 if body.is_empty() => Record::Range(None),
            6 => {
                let (first, rest) = split_u64(body)?;
                Record::Range(Some((first, u64::from_le_bytes(rest.try_into().ok()?))))
            }
            _ => return None,
        })
    }
}

impl<'a> Records<'a> {
    pub(crate) fn new(payload: &'a [u8]) -> Records<'a> {
        Records { rest: payload }
    }

    fn take(&mut self) -> Option<Record<'a>> {
        let (kind, rest) = self.rest.split_first()?;
        let (length, rest) = rest.split_first_chunk::<4>()?;
        let length = usize::try_from(u32::from_le_bytes(*length)).ok()?;
        let (body, rest) = rest.split_at_checked(length)?;
        self.rest = rest;
        Record::decode(*kind, body)
    }
}

impl<'a> Iterator for Records<'a> {
    type Item = Result<Record<'a>, &'static str>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        Some(self.take().ok_or_else(|| {
            self.rest = &[];
            "a record is malformed although the batch's checksum is right"
        }))
    }
}

/// The length rounded up to whole blocks.
pub(crate) fn padded(bytes: usize) -> usize {
    bytes.next_multiple_of(BLOCK_BYTES)
}

fn header_crc(salt: u64, header: &[u8; BATCH_HEADER_BYTES]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&salt.to_le_bytes()), &header[8..])
}

fn split_u64(bytes: &[u8]) -> Option<(u64, &[u8])> {
    bytes.split_first_chunk::<8>().map(|(number, rest)| (u64::from_le_bytes(*number), rest))
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(*bytes[at..].first_chunk().expect("the field lies within the header"))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(*bytes[at..].first_chunk().expect("the field lies within the header"))
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    const SEGMENT: SegmentHeader = SegmentHeader { number: 7, bytes: SEGMENT_BYTES_MIN, salt: 11 };

    #[derive(Debug, Clone)]
    struct Owned(u8, u64, u64, Vec<u8>);

    impl Owned {
        fn record(&self) -> Record<'_> {
            let Owned(kind, number, other, bytes) = self;
            let present = number % 3 > 0;
            match kind {
                0 => Record::Entry { index: *number, data: bytes },
                1 => Record::Vote(bytes),
                2 => Record::Truncate { after: present.then_some(*number) },
                3 => Record::Purge { through: *number, mark: bytes },
                4 => Record::Committed(bytes),
                _ => Record::Range(present.then_some((*number, *other))),
            }
        }
    }

    fn records() -> impl Strategy<Value = Vec<Owned>> {
        let record = (0..6_u8, any::<u64>(), any::<u64>(), vec(any::<u8>(), 0..300));
        vec(record.prop_map(|(kind, number, other, bytes)| Owned(kind, number, other, bytes)), 0..20)
    }

    fn sealed(records: &[Owned]) -> (Vec<u8>, Link) {
        let mut buffer = Vec::new();
        begin_batch(&mut buffer);
        for owned in records {
            let before = buffer.len();
            owned.record().encode(&mut buffer);
            assert_eq!(buffer.len() - before, owned.record().encoded_bytes());
        }
        let previous = Link { number: 3, crc: 5 };
        let link = seal_batch(&mut buffer, &SEGMENT, 4, previous, u32::try_from(records.len()).unwrap());
        (buffer, link)
    }

    fn open(bytes: &[u8]) -> Result<(BatchHeader, &[u8]), &'static str> {
        let header = BatchHeader::decode(bytes, &SEGMENT, bytes.len() as u64)?;
        let payload = &bytes[BATCH_HEADER_BYTES..BATCH_HEADER_BYTES + header.payload_bytes];
        header.check(payload)?;
        Ok((header, payload))
    }

    proptest! {
        #[test]
        fn what_was_encoded_is_decoded(owned in records()) {
            let (bytes, link) = sealed(&owned);
            prop_assert_eq!(bytes.len() % BLOCK_BYTES, 0);
            let (header, payload) = open(&bytes).unwrap();
            prop_assert_eq!((header.link(), header.previous), (link, Link { number: 3, crc: 5 }));
            prop_assert_eq!(header.padded_bytes(), bytes.len() as u64);
            let decoded: Vec<Record<'_>> = Records::new(payload).map(Result::unwrap).collect();
            prop_assert_eq!(decoded, owned.iter().map(Owned::record).collect::<Vec<_>>());
        }

        #[test]
        fn no_changed_byte_goes_unnoticed(owned in records(), at in any::<prop::sample::Index>(), mask in 1..=255_u8) {
            let (mut bytes, _) = sealed(&owned);
            let (_, payload) = open(&bytes).unwrap();
            let length = BATCH_HEADER_BYTES + payload.len();
            bytes[at.index(length)] ^= mask;
            prop_assert!(open(&bytes).is_err());
        }

        #[test]
        fn a_batch_cut_short_is_no_batch(owned in records(), at in any::<prop::sample::Index>()) {
            let (bytes, _) = sealed(&owned);
            let (_, payload) = open(&bytes).unwrap();
            let length = BATCH_HEADER_BYTES + payload.len();
            prop_assert!(open(&bytes[..at.index(length)]).is_err());
        }

        #[test]
        fn malformed_records_end_the_row(bytes in vec(any::<u8>(), 0..600)) {
            let decoded: Vec<_> = Records::new(&bytes).collect();
            prop_assert!(decoded.iter().rev().skip(1).all(Result::is_ok), "an error is the last");
            let kept = decoded.iter().flatten().map(Record::encoded_bytes).sum::<usize>();
            prop_assert!(kept <= bytes.len());
            prop_assert!(kept == bytes.len() || decoded.last().is_some_and(Result::is_err));
        }

        #[test]
        fn segment_headers_are_kept(number in any::<u64>(), bytes in any::<u64>(), salt in any::<u64>()) {
            let header = SegmentHeader { number, bytes, salt };
            prop_assert_eq!(SegmentHeader::decode(&header.encode()), Ok(header));
        }

        #[test]
        fn batches_of_another_incarnation_or_salt_do_not_count(number in any::<u64>(), salt in any::<u64>()) {
            let (bytes, _) = sealed(&[]);
            prop_assume!(number != SEGMENT.number && salt != SEGMENT.salt);
            for other in [SegmentHeader { number, ..SEGMENT }, SegmentHeader { salt, ..SEGMENT }] {
                prop_assert!(BatchHeader::decode(&bytes, &other, bytes.len() as u64).is_err());
            }
        }
    }
}
