//! A socket whose far end a fuzzer controls.

use std::cell::Cell;
use std::collections::VecDeque;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// The far end of a socket.
#[derive(Default)]
pub(crate) struct Peer {
    /// How many more bytes the socket accepts.
    pub(crate) takes: Cell<usize>,
    /// The bytes that the near end has written.
    pub(crate) written: Cell<Vec<u8>>,
    /// The bytes that were sent and not read yet, in pieces.
    says: Cell<VecDeque<Vec<u8>>>,
    /// The bytes that the near end has read.
    pub(crate) heard: Cell<Vec<u8>>,
    /// Whether it has closed its sending side.
    pub(crate) closed: Cell<bool>,
    /// Whether the socket is broken.
    pub(crate) broken: Cell<bool>,
}

/// The near end.
pub(crate) struct Socket(pub(crate) Rc<Peer>);

impl Peer {
    /// Sends a piece.
    pub(crate) fn say(&self, bytes: &[u8]) {
        let mut says = self.says.take();
        if !bytes.is_empty() {
            says.push_back(bytes.to_vec());
        }
        self.says.set(says);
    }
}

impl AsyncRead for Socket {
    fn poll_read(self: Pin<&mut Self>, _: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let peer = &self.0;
        let mut says = peer.says.take();
        let next = says.pop_front();
        let polled = match next {
            Some(mut piece) => {
                let count = piece.len().min(buffer.remaining());
                buffer.put_slice(&piece[..count]);
                let mut heard = peer.heard.take();
                heard.extend_from_slice(&piece[..count]);
                peer.heard.set(heard);
                piece.drain(..count);
                if !piece.is_empty() {
                    says.push_front(piece);
                }
                Poll::Ready(Ok(()))
            }
            None if peer.broken.get() => Poll::Ready(Err(io::ErrorKind::ConnectionReset.into())),
            None if peer.closed.get() => Poll::Ready(Ok(())),
            None => Poll::Pending,
        };
        peer.says.set(says);
        polled
    }
}

impl AsyncWrite for Socket {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let peer = &self.0;
        if peer.broken.get() {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        let count = bytes.len().min(peer.takes.get());
        if count == 0 {
            return Poll::Pending;
        }
        peer.takes.set(peer.takes.get() - count);
        let mut written = peer.written.take();
        written.extend_from_slice(&bytes[..count]);
        peer.written.set(written);
        Poll::Ready(Ok(count))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
