//! The low-level functions, over a blocking stream and over an async stream: both send the same bytes and return the
//! same values. `tests/it/functions.rs` lists these bytes.
// Clippy proposes the names of the generic functions instead of the closures, but that does not compile: a closure
// accepts streams of every lifetime, and the name of a generic function does not.
#![allow(clippy::redundant_closure)]

use std::fmt::Debug;
use std::io::{self, Read, Write};

use dflockd_client::protocol::functions::Wire;
use dflockd_client::protocol::{AuthToken, Channel, Payload, StableRef, blocking as threads, functions as tasks};
use dflockd_client::{ErrorKind, Key, Limit, Result, Token, Ttl, WaitSecs};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};

const TOKEN: &str = "00000000000000070123456789abcdef";

/// A stream whose reads return the given pieces. It records the bytes that are written to it.
#[derive(Debug, Default)]
struct Scripted {
    says: Vec<io::Result<Vec<u8>>>,
    heard: Vec<u8>,
}

impl Scripted {
    fn saying(pieces: impl IntoIterator<Item = io::Result<Vec<u8>>>) -> Self {
        let mut says: Vec<_> = pieces.into_iter().collect();
        says.reverse();
        Self {
            says,
            ..Self::default()
        }
    }

    fn byte_by_byte(answer: &str) -> Self {
        Self::saying(answer.bytes().map(|byte| Ok(vec![byte])))
    }
}

impl Read for Scripted {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let piece = self.says.pop().unwrap_or(Ok(Vec::new()))?;
        buffer[..piece.len()].copy_from_slice(&piece);
        Ok(piece.len())
    }
}

impl Write for Scripted {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        // A write to a socket may take only some of the bytes.
        let taken = bytes.len().min(3);
        self.heard.extend_from_slice(&bytes[..taken]);
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Calls `task` and `thread` with the same answer. Compares the bytes that they send and the values that they return.
async fn same<T: Debug>(
    answer: &str,
    task: impl AsyncFnOnce(&mut Wire<DuplexStream>) -> Result<T>,
    thread: impl FnOnce(&mut Wire<&mut Scripted>) -> Result<T>,
) {
    let (near, mut far) = duplex(64 * 1024);
    far.write_all(answer.as_bytes()).await.unwrap();
    far.shutdown().await.unwrap();
    let mut near = Wire::new(near);
    let expected = task(&mut near).await;
    drop(near);
    let mut expected_words = String::new();
    far.read_to_string(&mut expected_words).await.unwrap();

    let mut stream = Scripted::byte_by_byte(answer);
    let made = thread(&mut Wire::new(&mut stream));
    assert_eq!(String::from_utf8(stream.heard).unwrap(), expected_words);
    assert_eq!(format!("{made:?}"), format!("{expected:?}"), "{answer:?}");
}

#[tokio::test]
async fn every_function_is_the_same_for_threads_as_for_tasks() {
    let (key, token) = (Key::new("orders/42").unwrap(), Token::new(TOKEN).unwrap());
    let (ttl, five, limit) = (
        Ttl::from_secs(9),
        WaitSecs::from_secs(5).unwrap(),
        Limit::new(3).unwrap(),
    );
    let channel = Channel::new("orders.new").unwrap();
    let payload = Payload::new(&channel, "no. 42").unwrap();
    let secret = AuthToken::new("s3cret").unwrap();
    let session = StableRef::new("session-1").unwrap();
    let granted = format!("ok {TOKEN} 30\n");
    let acquired = format!("acquired {TOKEN} 30\r\n");
    let (key, token) = (&key, &token);
    for answer in [
        granted.as_str(),
        &acquired,
        "queued\n",
        "timeout\n",
        "ok\n",
        "ok 5\n",
        "error\n",
    ]
    .into_iter()
    .chain([
        "error_max_locks\n",
        "error_limit_mismatch\n",
        "ok {\"connections\":3}\n",
        "nonsense\n",
        "ok 00",
    ]) {
        same(
            answer,
            async |w| tasks::acquire(w, key, five, ttl).await,
            |w| threads::acquire(w, key, five, ttl),
        )
        .await;
        same(
            answer,
            async |w| tasks::release(w, key, token).await,
            |w| threads::release(w, key, token),
        )
        .await;
        same(
            answer,
            async |w| tasks::renew(w, key, token, ttl).await,
            |w| threads::renew(w, key, token, ttl),
        )
        .await;
        same(
            answer,
            async |w| tasks::enqueue(w, key, ttl).await,
            |w| threads::enqueue(w, key, ttl),
        )
        .await;
        same(
            answer,
            async |w| tasks::wait(w, key, five).await,
            |w| threads::wait(w, key, five),
        )
        .await;
        same(
            answer,
            async |w| tasks::sem_acquire(w, key, five, limit, ttl).await,
            |w| threads::sem_acquire(w, key, five, limit, ttl),
        )
        .await;
        same(
            answer,
            async |w| tasks::sem_release(w, key, token).await,
            |w| threads::sem_release(w, key, token),
        )
        .await;
        same(
            answer,
            async |w| tasks::sem_renew(w, key, token, ttl).await,
            |w| threads::sem_renew(w, key, token, ttl),
        )
        .await;
        same(
            answer,
            async |w| tasks::sem_enqueue(w, key, limit, ttl).await,
            |w| threads::sem_enqueue(w, key, limit, ttl),
        )
        .await;
        same(
            answer,
            async |w| tasks::sem_wait(w, key, five).await,
            |w| threads::sem_wait(w, key, five),
        )
        .await;
        same(answer, async |w| tasks::stats(w).await, |w| threads::stats(w)).await;
        same(answer, async |w| tasks::ping(w).await, |w| threads::ping(w)).await;
        same(
            answer,
            async |w| tasks::auth(w, secret.clone()).await,
            |w| threads::auth(w, secret.clone()),
        )
        .await;
        same(answer, async |w| tasks::barrier(w).await, |w| threads::barrier(w)).await;
        same(
            answer,
            async |w| tasks::stable_ref(w, session.clone()).await,
            |w| threads::stable_ref(w, session.clone()),
        )
        .await;
        same(
            answer,
            async |w| tasks::sig_emit(w, channel.clone(), payload.clone()).await,
            |w| threads::sig_emit(w, channel.clone(), payload.clone()),
        )
        .await;
    }
}

#[test]
fn an_interrupted_read_continues_and_a_failed_read_leaves_the_stream_out_of_step() {
    let interrupted = || Err(io::ErrorKind::Interrupted.into());
    let mut stream = Scripted::saying([interrupted(), Ok(b"o".to_vec()), interrupted(), Ok(b"k\n".to_vec())]);
    threads::ping(&mut Wire::new(&mut stream)).unwrap();

    let late = || Err(io::ErrorKind::WouldBlock.into());
    let mut wire = Wire::new(Scripted::saying([Ok(b"o".to_vec()), late(), Ok(b"k\nok\n".to_vec())]));
    for reason in ["failed before the answer", "out of step"] {
        let error = threads::ping(&mut wire).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Disconnected);
        assert!(error.to_string().contains(reason), "{error}");
    }
    assert!(wire.into_stream().is_err());
}

#[test]
fn several_answers_in_one_read_are_for_several_calls() {
    let mut wire = Wire::new(Scripted::saying([Ok(b"ok\nok 7\n".to_vec())]));
    let (key, token) = (Key::new("k").unwrap(), Token::new(TOKEN).unwrap());
    threads::ping(&mut wire).unwrap();
    assert_eq!(threads::renew(&mut wire, &key, &token, None).unwrap(), Some(7));
    assert!(wire.into_stream().is_ok());
}
