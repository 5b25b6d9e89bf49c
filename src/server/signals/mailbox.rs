//! The signals that wait for one connection: a bounded queue between the publishers and the task that writes to the
//! connection.

use bytes::{Bytes, BytesMut};
use tokio::sync::{Semaphore, mpsc};
use tokio_util::sync::{CancellationToken, DropGuard};

/// The sending half of a connection's queue of signals. Dropping it ends the connection.
pub(super) struct Outbox {
    lines: mpsc::Sender<Bytes>,
    _cut: DropGuard,
}

/// The receiving half of a connection's queue of signals.
pub(in crate::server) struct Inbox {
    lines: mpsc::Receiver<Bytes>,
    cut: CancellationToken,
}

/// The connection has to end: its client did not read, and its buffer was full.
pub(in crate::server) struct Cut;

/// Opens a queue with room for `buffer` signals, at least for one.
pub(super) fn open(buffer: usize) -> (Outbox, Inbox) {
    let (sender, receiver) = mpsc::channel(buffer.clamp(1, Semaphore::MAX_PERMITS));
    let cut = CancellationToken::new();
    let outbox = Outbox {
        lines: sender,
        _cut: cut.clone().drop_guard(),
    };
    let inbox = Inbox { lines: receiver, cut };
    (outbox, inbox)
}

impl Outbox {
    /// Adds a line if there is room. Returns whether there was.
    pub(super) fn put(&self, line: Bytes) -> bool {
        self.lines.try_send(line).is_ok()
    }
}

impl Inbox {
    /// Moves all waiting lines to `out`.
    pub(in crate::server) fn take(&mut self, out: &mut BytesMut) {
        while let Ok(line) = self.lines.try_recv() {
            out.extend_from_slice(&line);
        }
    }

    /// Waits for a line, and moves all waiting lines to `out`. Dropping the future loses no line.
    pub(in crate::server) async fn wait(&mut self, out: &mut BytesMut) -> Result<(), Cut> {
        let line = self.lines.recv().await.ok_or(Cut)?;
        out.extend_from_slice(&line);
        self.take(out);
        Ok(())
    }

    /// Resolves when the connection has to end.
    pub(in crate::server) async fn cut(&self) -> Cut {
        self.cut.cancelled().await;
        Cut
    }

    #[cfg(test)]
    pub(super) fn is_cut(&self) -> bool {
        self.cut.is_cancelled()
    }
}
