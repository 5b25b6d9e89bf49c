//! A server with scripted answers.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

/// Listens on a local port, and passes each connection to a script.
pub struct FakeServer {
    pub address: String,
    accepted: Arc<AtomicUsize>,
    task: JoinHandle<()>,
}

impl FakeServer {
    /// Calls `script` with each connection and the connection's number, counted from 0.
    pub async fn start<F, R>(script: F) -> Self
    where
        F: Fn(FakeConnection, usize) -> R + Send + Sync + 'static,
        R: Future<Output = ()> + Send + 'static,
    {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let accepted = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&accepted);
        let task = tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let number = counted.fetch_add(1, Ordering::SeqCst);
                tokio::spawn(script(FakeConnection::new(stream), number));
            }
        });
        Self {
            address,
            accepted,
            task,
        }
    }

    pub fn accepted(&self) -> usize {
        self.accepted.load(Ordering::SeqCst)
    }
}

impl Drop for FakeServer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

pub struct FakeConnection {
    stream: BufReader<TcpStream>,
}

impl FakeConnection {
    fn new(stream: TcpStream) -> Self {
        stream.set_nodelay(true).unwrap();
        Self {
            stream: BufReader::new(stream),
        }
    }

    /// Returns the next request: command, key and argument. `None` if the client has closed the connection.
    pub async fn request(&mut self) -> Option<[String; 3]> {
        let mut lines = [String::new(), String::new(), String::new()];
        for line in &mut lines {
            if self.stream.read_line(line).await.ok()? == 0 {
                return None;
            }
            line.truncate(line.trim_end_matches('\n').len());
        }
        Some(lines)
    }

    pub async fn say(&mut self, bytes: &str) {
        drop(self.stream.write_all(bytes.as_bytes()).await);
    }

    /// Sends bytes. Returns whether the connection still accepted them.
    pub async fn is_said(&mut self, bytes: &str) -> bool {
        self.stream.write_all(bytes.as_bytes()).await.is_ok()
    }

    /// Answers the `ping` that a client sends first.
    pub async fn handshake(&mut self) {
        if let Some([command, ..]) = self.request().await {
            assert_eq!(command, "ping");
            self.say("ok\n").await;
        }
    }

    /// Ends the connection with a TCP reset.
    pub fn reset(self) {
        let stream = self.stream.into_inner();
        // If the linger time is zero, closing the socket sends a reset.
        socket2::SockRef::from(&stream)
            .set_linger(Some(std::time::Duration::ZERO))
            .unwrap();
    }

    /// Reads requests, and answers none of them, until the client closes the connection.
    pub async fn until_hung_up(mut self) {
        while self.request().await.is_some() {}
    }
}
