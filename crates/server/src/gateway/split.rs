//! One JSON message after the other, out of a body that comes in pieces.

use bytes::{Buf as _, Bytes, BytesMut};

use crate::limits::GATEWAY_BODY_BYTES_MAX;
use crate::status::Trouble;

/// Takes pieces and gives objects. Each byte is looked at once, however small the pieces are.
#[derive(Debug, Default)]
pub(super) struct Splitter {
    buffer: BytesMut,
    /// Bytes of the buffer that were looked at.
    seen: usize,
    /// Objects and arrays that are open.
    depth: u32,
    in_string: bool,
    is_escaped: bool,
}

impl Splitter {
    /// Takes a piece.
    pub(super) fn push(&mut self, piece: &[u8]) -> Result<(), Trouble> {
        let size = self.buffer.len() + piece.len();
        if size > GATEWAY_BODY_BYTES_MAX {
            return Err(Trouble::TooLarge { size, max: GATEWAY_BODY_BYTES_MAX });
        }
        self.buffer.extend_from_slice(piece);
        Ok(())
    }

    /// The next object that is whole, if there is one.
    pub(super) fn next(&mut self) -> Result<Option<Bytes>, Trouble> {
        while let Some(byte) = self.buffer.get(self.seen).copied() {
            if self.depth == 0 {
                match byte {
                    b'{' => self.depth = 1,
                    byte if byte.is_ascii_whitespace() => {
                        self.buffer.advance(1);
                        continue;
                    }
                    _ => return Err(Trouble::Malformed("each message is a JSON object".to_owned())),
                }
            } else if self.in_string {
                match byte {
                    _ if self.is_escaped => self.is_escaped = false,
                    b'\\' => self.is_escaped = true,
                    b'"' => self.in_string = false,
                    _ => {}
                }
            } else {
                match byte {
                    b'"' => self.in_string = true,
                    b'{' | b'[' => self.depth += 1,
                    b'}' | b']' => self.depth -= 1,
                    _ => {}
                }
            }
            self.seen += 1;
            if self.depth == 0 {
                let object = self.buffer.split_to(self.seen).freeze();
                self.seen = 0;
                return Ok(Some(object));
            }
        }
        Ok(None)
    }

    /// At the end of the body.
    pub(super) fn end(&self) -> Result<(), Trouble> {
        if self.buffer.is_empty() {
            return Ok(());
        }
        Err(Trouble::Malformed("the last message is not whole".to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn split(pieces: &[&[u8]]) -> Result<Vec<String>, String> {
        let mut splitter = Splitter::default();
        let mut objects = Vec::new();
        let told = |trouble: Trouble| format!("{trouble:?}");
        for piece in pieces {
            splitter.push(piece).map_err(told)?;
            while let Some(object) = splitter.next().map_err(told)? {
                objects.push(String::from_utf8(object.to_vec()).expect("the test writes text"));
            }
        }
        splitter.end().map_err(told)?;
        Ok(objects)
    }

    #[test]
    fn objects_are_found_however_the_pieces_are_cut() {
        let text = br#" {"a":"}\"{"}
            {"b":[{},{"c":"\\"}]}{} "#;
        let expected =
            vec![r#"{"a":"}\"{"}"#.to_owned(), r#"{"b":[{},{"c":"\\"}]}"#.to_owned(), "{}".to_owned()];
        for size in 1..=text.len() {
            let pieces: Vec<&[u8]> = text.chunks(size).collect();
            assert_eq!(split(&pieces), Ok(expected.clone()), "in pieces of {size}");
        }
        assert_eq!(split(&[b" "]), Ok(vec![]));
    }

    #[test]
    fn what_is_no_object_or_too_large_is_refused() {
        for text in [&b"[]"[..], b"5", b"{},", b"}"] {
            let refused = split(&[text]).expect_err("it is no object");
            assert!(refused.contains("JSON object"), "{refused}");
        }
        let refused = split(&[b"{\"a\":"]).expect_err("it is cut off");
        assert!(refused.contains("not whole"), "{refused}");
        let half = vec![b' '; GATEWAY_BODY_BYTES_MAX / 2 + 1];
        let mut splitter = Splitter::default();
        assert!(splitter.push(b"{").and_then(|()| splitter.push(&half)).is_ok());
        assert!(matches!(splitter.push(&half), Err(Trouble::TooLarge { .. })));
    }
}
