//! Small changes of an input, drawn by a seed: what the plain test tries where no fuzzer is at hand.

/// Draws changes; the same seed draws the same ones (splitmix64).
#[derive(Debug)]
pub struct Mutator(u64);

/// Bytes that decoders treat in a way of their own.
const TELLING: [u8; 8] = [0, 1, 0x7f, 0x80, 0xff, b'"', b'\n', b'='];
/// An input grows no longer than this.
const INPUT_BYTES_MAX: usize = 4 << 10;

impl Mutator {
    /// Draws by `seed`.
    #[must_use]
    pub fn new(seed: u64) -> Mutator {
        Mutator(seed)
    }

    /// Changes `input` at one to four places; `other` may lend it a part.
    #[must_use]
    pub fn mutate(&mut self, input: &[u8], other: &[u8]) -> Vec<u8> {
        let mut changed = input.to_vec();
        for _ in 0..=self.below(4) {
            self.change(&mut changed, other);
        }
        changed.truncate(INPUT_BYTES_MAX);
        changed
    }

    fn change(&mut self, bytes: &mut Vec<u8>, other: &[u8]) {
        let at = self.below(bytes.len() + 1);
        let end = at + self.below(bytes.len() - at + 1);
        match self.below(7) {
            0 if at < bytes.len() => bytes[at] ^= 1 << self.below(8),
            1 if at < bytes.len() => bytes[at] = TELLING[self.below(TELLING.len())],
            2 if at < bytes.len() => bytes[at] = self.next() as u8,
            3 => bytes.truncate(at),
            4 => drop(bytes.drain(at..end)),
            5 => {
                let copy = bytes[at..end].to_vec();
                bytes.splice(at..at, copy);
            }
            _ => {
                let from = self.below(other.len() + 1);
                let until = from + self.below(other.len() - from + 1);
                bytes.splice(at..end, other[from..until].iter().copied());
            }
        }
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut drawn = self.0;
        drawn = (drawn ^ (drawn >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        drawn = (drawn ^ (drawn >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        drawn ^ (drawn >> 31)
    }

    fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound as u64) as usize
    }
}
