//! One direction of a connection: bytes on their way from one host to another.
//!
//! A stream keeps its promise whatever the network does: bytes arrive in order and once, or the stream breaks. What the
//! network can do is to let them arrive late, or not for as long as it is cut, which is what TCP makes of losses.

use std::collections::VecDeque;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use bytes::{Buf, Bytes};
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Bytes that a writer may have on the way before it must wait, as a kernel's buffers.
const WINDOW_BYTES: usize = 1 << 20;

/// What both ends and the network share.
#[derive(Debug, Default)]
pub(super) struct Stream(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    /// Written and not arrived, with the true time before which each part does not arrive.
    under_way: VecDeque<(u64, Bytes)>,
    arrived: VecDeque<Bytes>,
    /// Bytes in both.
    bytes: usize,
    closed: bool,
    /// Everything has arrived, and the reader has been told that no more comes.
    ended: bool,
    broken: bool,
    /// The machine of the writer, or of the reader, lost its power: it says nothing of it.
    writer_gone: bool,
    reader_gone: bool,
    reader: Option<Waker>,
    writer: Option<Waker>,
    carrier: Option<Waker>,
}

/// What the network is to do next.
pub(super) enum Errand {
    /// Bring this to the reader, not before this true time.
    Bring(u64),
    /// Tell the reader that no more comes.
    End,
    /// Nothing more: the stream is broken.
    Leave,
}

impl State {
    fn wake(waker: &mut Option<Waker>) {
        if let Some(waker) = waker.take() {
            waker.wake();
        }
    }
}

impl Stream {
    /// The stream breaks: both ends get an error, and what is under way is lost.
    pub(super) fn reset(&self) {
        let mut state = self.0.lock();
        state.broken = true;
        state.under_way.clear();
        state.arrived.clear();
        for waker in [state.reader.take(), state.writer.take(), state.carrier.take()].into_iter().flatten() {
            waker.wake();
        }
    }

    /// The writer's machine lost its power: what it closes, it closes without a word.
    pub(super) fn lose_writer(&self) {
        self.0.lock().writer_gone = true;
    }

    /// The reader's machine lost its power: nobody says that bytes are not read.
    pub(super) fn lose_reader(&self) {
        self.0.lock().reader_gone = true;
    }

    /// Whether the reader's machine lost its power, so that the one that came back knows nothing of the stream.
    pub(super) fn is_reader_gone(&self) -> bool {
        self.0.lock().reader_gone
    }

    /// Waits until there is something to do for the network.
    pub(super) async fn errand(&self) -> Errand {
        std::future::poll_fn(|context| {
            let mut state = self.0.lock();
            if state.broken {
                return Poll::Ready(Errand::Leave);
            }
            if let Some((when, _)) = state.under_way.front() {
                return Poll::Ready(Errand::Bring(*when));
            }
            if state.closed && !state.writer_gone {
                return Poll::Ready(Errand::End);
            }
            state.carrier = Some(context.waker().clone());
            Poll::Pending
        })
        .await
    }

    /// Brings to the reader what is due. Returns the bytes brought.
    pub(super) fn bring(&self, now: u64) -> usize {
        let mut state = self.0.lock();
        let mut brought = 0;
        while state.under_way.front().is_some_and(|(when, _)| *when <= now) {
            let (_, bytes) = state.under_way.pop_front().expect("it was looked at");
            brought += bytes.len();
            state.arrived.push_back(bytes);
        }
        State::wake(&mut state.reader);
        brought
    }

    /// Tells the reader that no more comes.
    pub(super) fn end(&self) {
        let mut state = self.0.lock();
        state.ended = true;
        State::wake(&mut state.reader);
    }
}

/// Tells the true time at which bytes of a number, written now, arrive at the earliest.
pub(super) type Arrival = Arc<dyn Fn(usize) -> u64 + Send + Sync>;

/// The writing end.
pub(super) struct WriteEnd {
    stream: Arc<Stream>,
    arrival: Arrival,
    last_arrival: u64,
}

impl WriteEnd {
    pub(super) fn new(stream: Arc<Stream>, arrival: Arrival) -> WriteEnd {
        WriteEnd { stream, arrival, last_arrival: 0 }
    }
}

impl AsyncWrite for WriteEnd {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = &mut *self;
        let mut state = this.stream.0.lock();
        if state.broken {
            return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
        }
        let room = WINDOW_BYTES.saturating_sub(state.bytes);
        if room == 0 {
            state.writer = Some(context.waker().clone());
            return Poll::Pending;
        }
        let count = bytes.len().min(room);
        this.last_arrival = this.last_arrival.max((this.arrival)(count));
        state.bytes += count;
        state.under_way.push_back((this.last_arrival, Bytes::copy_from_slice(&bytes[..count])));
        State::wake(&mut state.carrier);
        Poll::Ready(Ok(count))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.stream.close();
        Poll::Ready(Ok(()))
    }
}

impl Stream {
    fn close(&self) {
        let mut state = self.0.lock();
        state.closed = true;
        State::wake(&mut state.carrier);
    }
}

impl Drop for WriteEnd {
    fn drop(&mut self) {
        self.stream.close();
    }
}

/// The reading end.
pub(super) struct ReadEnd(pub(super) Arc<Stream>);

impl AsyncRead for ReadEnd {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let mut state = self.0.0.lock();
        if state.broken {
            return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
        }
        let mut read = 0;
        while let Some(first) = state.arrived.front_mut()
            && buffer.remaining() > 0
        {
            let count = first.len().min(buffer.remaining());
            buffer.put_slice(&first[..count]);
            first.advance(count);
            read += count;
            if first.is_empty() {
                state.arrived.pop_front();
            }
        }
        if read > 0 {
            state.bytes -= read;
            State::wake(&mut state.writer);
            return Poll::Ready(Ok(()));
        }
        if state.ended {
            return Poll::Ready(Ok(()));
        }
        state.reader = Some(context.waker().clone());
        Poll::Pending
    }
}

impl Drop for ReadEnd {
    /// A kernel answers bytes that nobody will read with a reset; a machine without power does not answer.
    fn drop(&mut self) {
        if !self.0.is_reader_gone() {
            self.0.reset();
        }
    }
}
