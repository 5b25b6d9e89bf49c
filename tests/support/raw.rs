//! A connection without a client: lines out, lines in.

use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::time::timeout;

pub struct RawConnection {
    reader: BufReader<OwnedReadHalf>,
    writer: OwnedWriteHalf,
}

/// The next thing from a server.
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

    /// Ignores errors; the next [`hear`](Self::hear) finds them.
    pub async fn send(&mut self, text: &str) {
        self.send_bytes(text.as_bytes()).await;
    }

    pub async fn send_bytes(&mut self, bytes: &[u8]) {
        drop(self.writer.write_all(bytes).await);
    }

    /// Shuts the sending side down, and keeps receiving.
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

    /// Ends the connection, and waits until the server has closed it too: by then the server has freed the keys of the
    /// connection. It waits for two seconds at most, because some releases notice the end only when the connection is
    /// granted a key.
    pub async fn hang_up(mut self) {
        drop(self.writer.shutdown().await);
        let mut rest = Vec::new();
        drop(timeout(Duration::from_secs(2), self.reader.read_to_end(&mut rest)).await);
    }
}
