//! Frames: a length of four bytes, big-endian, then one protobuf message.

use std::io;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use prost::Message;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

const LENGTH_BYTES: usize = 4;
/// What is asked of the stream at once when a frame is small.
const READ_BYTES: usize = 64 << 10;
/// A buffer that a large frame has grown beyond this is given back.
const BUFFER_KEPT_BYTES: usize = 1 << 20;

/// Reads frames. A call that was cancelled loses nothing: what was read stays in the buffer.
pub(super) struct FrameReader {
    stream: Box<dyn AsyncRead + Send + Sync + Unpin>,
    buffer: BytesMut,
    frame_bytes_max: usize,
}

/// Writes frames, many with one call of the stream.
pub(super) struct FrameWriter {
    stream: Box<dyn AsyncWrite + Send + Sync + Unpin>,
    buffer: BytesMut,
}

impl FrameReader {
    pub(super) fn new(
        stream: Box<dyn AsyncRead + Send + Sync + Unpin>,
        frame_bytes_max: usize,
    ) -> FrameReader {
        FrameReader { stream, buffer: BytesMut::new(), frame_bytes_max }
    }

    /// From now on accepts frames up to this size: a stranger may send only small ones.
    pub(super) fn set_frame_bytes_max(&mut self, frame_bytes_max: usize) {
        self.frame_bytes_max = frame_bytes_max;
    }

    /// The next frame, decoded; `None` when the stream ended between two frames.
    pub(super) async fn next<M: Message + Default>(&mut self) -> io::Result<Option<M>> {
        let Some(frame) = self.next_bytes().await? else { return Ok(None) };
        let message = M::decode(frame).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
        Ok(Some(message))
    }

    /// The next frame that must be there.
    pub(super) async fn expect<M: Message + Default>(&mut self) -> io::Result<M> {
        self.next().await?.ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
    }

    async fn next_bytes(&mut self) -> io::Result<Option<Bytes>> {
        loop {
            let mut missing = 1;
            if self.buffer.len() >= LENGTH_BYTES {
                let length = (&self.buffer[..]).get_u32() as usize;
                if length > self.frame_bytes_max {
                    let reason =
                        format!("a frame of {length} bytes, at most {} allowed", self.frame_bytes_max);
                    return Err(io::Error::new(io::ErrorKind::InvalidData, reason));
                }
                let whole = LENGTH_BYTES + length;
                if self.buffer.len() >= whole {
                    let frame = self.buffer.split_to(whole).freeze().slice(LENGTH_BYTES..);
                    return Ok(Some(frame));
                }
                missing = whole - self.buffer.len();
            }
            // A new buffer is taken only when this one is used up: frames that are still in use keep theirs.
            if self.buffer.capacity() - self.buffer.len() < missing {
                self.buffer.reserve(missing.max(READ_BYTES));
            }
            if self.stream.read_buf(&mut self.buffer).await? == 0 {
                if self.buffer.is_empty() {
                    return Ok(None);
                }
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
    }
}

impl FrameWriter {
    pub(super) fn new(stream: Box<dyn AsyncWrite + Send + Sync + Unpin>) -> FrameWriter {
        FrameWriter { stream, buffer: BytesMut::new() }
    }

    /// Puts a frame into the buffer.
    pub(super) fn push<M: Message>(&mut self, message: &M) {
        let length = message.encoded_len();
        self.buffer.reserve(LENGTH_BYTES + length);
        self.buffer.put_u32(u32::try_from(length).expect("frames are bounded far below 4 GiB"));
        message.encode(&mut self.buffer).expect("the buffer grows as needed");
    }

    /// Sends what the buffer holds.
    pub(super) async fn flush(&mut self) -> io::Result<()> {
        self.stream.write_all(&self.buffer).await?;
        self.buffer.clear();
        if self.buffer.capacity() > BUFFER_KEPT_BYTES {
            self.buffer = BytesMut::new();
        }
        self.stream.flush().await
    }

    /// Sends one frame.
    pub(super) async fn send<M: Message>(&mut self, message: &M) -> io::Result<()> {
        self.push(message);
        self.flush().await
    }
}

#[cfg(test)]
mod tests {
    use ringfence_proto::peers::{LogId, SnapshotChunk};

    use super::*;

    fn pair(limit: usize) -> (FrameWriter, FrameReader) {
        let (near, far) = tokio::io::duplex(1 << 16);
        (FrameWriter::new(Box::new(near)), FrameReader::new(Box::new(far), limit))
    }

    #[tokio::test]
    async fn frames_arrive_whole_and_in_order() {
        let (mut writer, mut reader) = pair(1 << 10);
        let messages =
            [LogId { term: 1, node: 2, index: 3 }, LogId::default(), LogId { term: 9, ..Default::default() }];
        for message in &messages {
            writer.push(message);
        }
        writer.flush().await.expect("room in the pipe");
        for message in messages {
            assert_eq!(reader.expect::<LogId>().await.expect("a frame"), message);
        }
        drop(writer);
        assert_eq!(reader.next::<LogId>().await.expect("a clean end"), None);
    }

    #[tokio::test]
    async fn a_frame_over_the_limit_is_refused_before_it_is_read() {
        let (mut writer, mut reader) = pair(100);
        let large = SnapshotChunk { offset: 0, data: vec![7; 101].into(), crc: 0 };
        writer.send(&large).await.expect("room in the pipe");
        let error = reader.next::<SnapshotChunk>().await.expect_err("too large");
        assert!(error.to_string().contains("at most 100"), "{error}");
    }

    #[tokio::test]
    async fn an_end_within_a_frame_is_an_error() {
        let (near, far) = tokio::io::duplex(64);
        let mut reader = FrameReader::new(Box::new(far), 1 << 10);
        let mut near = near;
        near.write_all(&[0, 0, 0, 9, 1, 2]).await.expect("room in the pipe");
        drop(near);
        assert_eq!(
            reader.next::<LogId>().await.expect_err("half a frame").kind(),
            io::ErrorKind::UnexpectedEof
        );
    }
}
