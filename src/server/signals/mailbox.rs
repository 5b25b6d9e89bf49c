//! The signals that wait for one connection: a bounded queue between those who publish and the task that writes.

use bytes::{Bytes, BytesMut};
use tokio::sync::{Semaphore, mpsc};
use tokio_util::sync::{CancellationToken, DropGuard};

/// Where signals for a connection are put. Dropping it cuts the connection.
pub(super) struct Outbox {
    lines: mpsc::Sender<Bytes>,
    _cut: DropGuard,
}

/// Where a connection finds its signals.
pub(in crate::server) struct Inbox {
    lines: mpsc::Receiver<Bytes>,
    cut: CancellationToken,
}

/// The connection did not read, and its buffer was full: it is to end.
pub(in crate::server) struct Cut;

/// A queue of at most `buffer` signals, and at least one.
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
    /// Puts a line in, if there is room.
    pub(super) fn put(&self, line: Bytes) -> bool {
        self.lines.try_send(line).is_ok()
    }
}

impl Inbox {
    /// Moves all lines that are here to `out`.
    pub(in crate::server) fn take(&mut self, out: &mut BytesMut) {
        while let Ok(line) = self.lines.try_recv() {
            out.extend_from_slice(&line);
        }
    }

    /// Waits until a line is here, and moves all that are to `out`. Dropping the future loses none.
    pub(in crate::server) async fn wait(&mut self, out: &mut BytesMut) -> Result<(), Cut> {
        let line = self.lines.recv().await.ok_or(Cut)?;
        out.extend_from_slice(&line);
        self.take(out);
        Ok(())
    }

    /// Resolves when the connection is to end.
    pub(in crate::server) async fn cut(&self) -> Cut {
        self.cut.cancelled().await;
        Cut
    }

    #[cfg(test)]
    pub(super) fn is_cut(&self) -> bool {
        self.cut.is_cancelled()
    }
}
