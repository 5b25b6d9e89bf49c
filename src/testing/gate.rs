//! A pair of streams that can be stopped in both directions.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use tokio::io::{AsyncRead, AsyncWrite, DuplexStream, ReadBuf};

/// The gate that all streams of a server pass. Clones share it.
#[derive(Clone, Default)]
pub(super) struct Gate(Arc<Mutex<GateState>>);

#[derive(Default)]
struct GateState {
    is_shut: bool,
    /// The wakers of tasks that want to read.
    readers: Vec<Waker>,
}

impl Gate {
    /// Stops all reads from now on.
    pub(super) fn shut(&self) {
        self.state().is_shut = true;
    }

    /// Lets reads continue, including those of bytes that were written meanwhile.
    pub(super) fn open(&self) {
        let readers = {
            let mut state = self.state();
            state.is_shut = false;
            std::mem::take(&mut state.readers)
        };
        readers.into_iter().for_each(Waker::wake);
    }

    fn poll_open(&self, cx: &mut Context<'_>) -> Poll<()> {
        let mut state = self.state();
        if !state.is_shut {
            return Poll::Ready(());
        }
        if !state.readers.iter().any(|reader| reader.will_wake(cx.waker())) {
            state.readers.push(cx.waker().clone());
        }
        Poll::Pending
    }

    fn state(&self) -> MutexGuard<'_, GateState> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One end of a connection in memory. Written bytes are buffered, as by a network. While the gate is shut, nothing can
/// be read, not even the end of the stream.
pub(super) struct GatedStream {
    stream: DuplexStream,
    gate: Gate,
}

/// The capacity in each direction, similar to that between sockets of one machine.
const BUFFER: usize = 64 * 1024;

impl GatedStream {
    /// Creates both ends of a connection.
    pub(super) fn pair(gate: &Gate) -> (Self, Self) {
        let (near, far) = tokio::io::duplex(BUFFER);
        let gated = |stream| Self {
            stream,
            gate: gate.clone(),
        };
        (gated(near), gated(far))
    }
}

impl AsyncRead for GatedStream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        std::task::ready!(self.gate.poll_open(cx));
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl AsyncWrite for GatedStream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
