//! A plain connection to a server, over which a test sends and receives lines of text.

use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::time::timeout;

pub struct RawConnection {
    reader: BufReader<OwnedReadHalf>,
    writer: OwnedWriteHalf,
}

/// What a server does within a time.
#[derive(Debug, PartialEq, Eq)]
pub enum Heard {
    Line(String),
    Closed,
    Nothing,
}

impl RawConnection {
    pub async fn open(address: &str) -> Self {
        Self::try_open(address).await.expect("the server listens")
    }

    pub async fn try_open(address: &str) -> Option<Self> {
        let stream = TcpStream::connect(address).await.ok()?;
        stream.set_nodelay(true).ok()?;
        let (reader, writer) = stream.into_split();
        Some(Self {
            reader: BufReader::new(reader),
            writer,
        })
    }

    /// Sends text. Ignores errors, because the next [`hear`](Self::hear) shows them.
    pub async fn send(&mut self, text: &str) {
        self.send_bytes(text.as_bytes()).await;
    }

    pub async fn send_bytes(&mut self, bytes: &[u8]) {
        drop(self.writer.write_all(bytes).await);
    }

    /// Closes the sending direction. The connection can still receive.
    pub async fn end_sending(&mut self) {
        drop(self.writer.shutdown().await);
    }

    pub async fn request(&mut self, command: &str, key: &str, argument: &str) -> String {
        self.send(&format!("{command}\n{key}\n{argument}\n")).await;
        match self.hear(Duration::from_secs(30)).await {
            Heard::Line(line) => line,
            other => panic!("{command} {key} {argument}: {other:?}"),
        }
    }

    pub async fn hear(&mut self, within: Duration) -> Heard {
        let mut line = String::new();
        match timeout(within, self.reader.read_line(&mut line)).await {
            Err(_) => Heard::Nothing,
            Ok(Ok(0) | Err(_)) => Heard::Closed,
            Ok(Ok(_)) => Heard::Line(line.trim_end_matches('\n').to_owned()),
        }
    }

    /// Closes the sending direction, and waits until the server closes the connection. By then the server has freed the
    /// keys of the connection.
    ///
    /// Waits for two seconds at most. If the connection waits for a key, some versions of the server close it only when
    /// the wait ends.
    pub async fn hang_up(mut self) {
        drop(self.writer.shutdown().await);
        let mut rest = Vec::new();
        drop(timeout(Duration::from_secs(2), self.reader.read_to_end(&mut rest)).await);
    }
}
