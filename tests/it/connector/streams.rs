//! Streams that behave in ways that are rare for sockets.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use dflockd_client::{Client, ErrorKind, LostReason};
use tokio::io::{AsyncRead, AsyncWrite, BufStream, DuplexStream, ReadBuf};
use tokio::time::timeout;
use tower::ServiceExt;

use super::{builder, served};
use crate::support::until;

const SOON: Duration = Duration::from_secs(30);

async fn acquire_and_release(client: &Client) {
    let guard = client.lock("k").unwrap().acquire().await.unwrap();
    assert_eq!(client.stats().await.unwrap().locks.len(), 1);
    guard.release().await.unwrap();
}

/// A stream that is pending once before each read, write and flush, and that reads and writes one byte at a time.
struct Trickle {
    inner: DuplexStream,
    pauses: [bool; 3],
}

impl Trickle {
    fn new(inner: DuplexStream) -> Self {
        Self {
            inner,
            pauses: [false; 3],
        }
    }

    /// Returns whether this call is pending. If it is pending, this function also wakes the task.
    fn pause(&mut self, which: usize, cx: &mut Context<'_>) -> bool {
        self.pauses[which] = !self.pauses[which];
        if self.pauses[which] {
            cx.waker().wake_by_ref();
        }
        self.pauses[which]
    }
}

impl AsyncRead for Trickle {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.pause(0, cx) {
            return Poll::Pending;
        }
        let mut byte = [0];
        let mut one = ReadBuf::new(&mut byte);
        let polled = Pin::new(&mut self.inner).poll_read(cx, &mut one);
        buffer.put_slice(one.filled());
        polled
    }
}

impl AsyncWrite for Trickle {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if self.pause(1, cx) {
            return Poll::Pending;
        }
        Pin::new(&mut self.inner).poll_write(cx, &bytes[..bytes.len().min(1)])
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.pause(2, cx) {
            return Poll::Pending;
        }
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}

#[tokio::test]
async fn a_stream_may_transfer_one_byte_at_a_time() {
    let (_server, network) = served().await;
    let connector = network.connector().map_response(Trickle::new);
    acquire_and_release(&builder().connector(connector).connect().await.unwrap()).await;
}

/// A stream that buffers its writes sends nothing before it is flushed. So the client must flush its writes.
#[tokio::test]
async fn a_stream_may_buffer_writes_until_it_is_flushed() {
    let (_server, network) = served().await;
    let connector = network.connector().map_response(BufStream::new);
    acquire_and_release(&builder().connector(connector).connect().await.unwrap()).await;
}

/// The faults of a connector's streams.
#[derive(Clone, Default)]
struct Faults {
    /// Whether the next read panics.
    read: Arc<AtomicBool>,
    /// Whether each destructor panics.
    drop: Arc<AtomicBool>,
    dropped: Arc<AtomicUsize>,
}

impl Faults {
    fn in_stream(&self) -> impl FnOnce(DuplexStream) -> Faulty + Clone + use<> {
        let faults = self.clone();
        move |inner| Faulty { inner, faults }
    }
}

struct Faulty {
    inner: DuplexStream,
    faults: Faults,
}

impl AsyncRead for Faulty {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        assert!(!self.faults.read.swap(false, Ordering::SeqCst), "the stream has a bug");
        Pin::new(&mut self.inner).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Faulty {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}

impl Drop for Faulty {
    fn drop(&mut self) {
        self.faults.dropped.fetch_add(1, Ordering::SeqCst);
        assert!(!self.faults.drop.load(Ordering::SeqCst), "the destructor has a bug");
    }
}

/// Sends an acquire, so that the pipelined connection reads. If the read panics, the acquire may fail.
async fn wake(client: &Client) {
    if let Err(error) = client.lock("other").unwrap().acquire().await {
        assert_eq!(error.kind(), ErrorKind::Disconnected, "{error}");
        assert!(error.to_string().contains("panicked: the stream has a bug"), "{error}");
    }
}

/// A panic has the same effect as a lost connection: the client loses the leases that it acquired over the connection.
#[tokio::test]
async fn a_stream_that_panics_is_a_lost_connection() {
    let (_server, network) = served().await;
    let faults = Faults::default();
    let connector = network.connector().map_response(faults.in_stream());
    let client = builder().connector(connector).connect().await.unwrap();
    let guard = client.lock("k").unwrap().acquire().await.unwrap();
    faults.read.store(true, Ordering::SeqCst);
    wake(&client).await;
    assert_eq!(timeout(SOON, guard.lost()).await.unwrap(), LostReason::Disconnected);
    acquire_and_release(&client).await;
}

/// The shard and its other connections are not affected.
#[tokio::test]
async fn a_stream_whose_destructor_panics_costs_nothing() {
    let (_server, network) = served().await;
    let faults = Faults::default();
    let client = builder()
        .connector(network.connector().map_response(faults.in_stream()))
        .idle_connection_timeout(Duration::from_millis(50))
        .connect()
        .await
        .unwrap();
    let connected = client.health()[0].since;
    let guard = client.lock("k").unwrap().acquire().await.unwrap();
    client.stats().await.unwrap();
    faults.drop.store(true, Ordering::SeqCst);
    let closed = faults.dropped.load(Ordering::SeqCst);
    until("the connection for stats is closed", || {
        faults.dropped.load(Ordering::SeqCst) > closed
    })
    .await;
    client.stats().await.unwrap();
    assert!(guard.is_held());
    assert_eq!(client.health()[0].since, connected);
    guard.release().await.unwrap();
    // This time, the shard itself drops the stream.
    faults.read.store(true, Ordering::SeqCst);
    wake(&client).await;
    assert!(!faults.read.load(Ordering::SeqCst), "it panicked");
    acquire_and_release(&client).await;
}
