//! A server that does not know all commands. It passes requests on to an embedded server, and counts the requests of
//! each command.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// The behaviour of an [`OldServer`].
#[derive(Clone, Default)]
pub struct Habits {
    /// The commands that the server does not know.
    pub unknown: &'static [&'static str],
    /// Whether the server closes a connection after an unknown command, as the Python server 0.5.0 does.
    pub closes: bool,
    /// An increase of this number closes all connections that are open at that time.
    generation: usize,
}

pub struct OldServer {
    pub address: String,
    behind: String,
    habits: watch::Sender<Habits>,
    received: Arc<Mutex<BTreeMap<String, usize>>>,
    task: Option<JoinHandle<()>>,
}

impl OldServer {
    pub async fn start(behind: &str, unknown: &'static [&'static str], closes: bool) -> Self {
        let mut server = Self {
            address: "127.0.0.1:0".to_owned(),
            behind: behind.to_owned(),
            habits: watch::Sender::new(Habits {
                unknown,
                closes,
                generation: 0,
            }),
            received: Arc::default(),
            task: None,
        };
        server.open().await;
        server
    }

    /// Listens at `address`. Its port is 0 at first, and afterwards it is the port that the system has chosen.
    pub async fn open(&mut self) {
        let listener = TcpListener::bind(&self.address).await.unwrap();
        self.address = listener.local_addr().unwrap().to_string();
        let (behind, habits, received) = (self.behind.clone(), self.habits.subscribe(), Arc::clone(&self.received));
        self.task = Some(tokio::spawn(async move {
            loop {
                let (client, _) = listener.accept().await.unwrap();
                tokio::spawn(carry(client, behind.clone(), habits.clone(), Arc::clone(&received)));
            }
        }));
    }

    /// Closes all connections, and accepts no new ones.
    pub async fn close(&mut self) {
        if let Some(task) = self.task.take() {
            task.abort();
            drop(task.await);
        }
        self.cut();
    }

    /// Closes all connections.
    pub fn cut(&self) {
        self.habits.send_modify(|habits| habits.generation += 1);
    }

    /// Makes this server behave like another release. The change affects open connections, too.
    pub fn become_another(&self, unknown: &'static [&'static str], closes: bool) {
        self.habits
            .send_modify(|habits| (habits.unknown, habits.closes) = (unknown, closes));
    }

    /// Returns how often clients have sent this command.
    pub fn received(&self, command: &str) -> usize {
        self.received.lock().unwrap().get(command).copied().unwrap_or_default()
    }
}

impl Drop for OldServer {
    fn drop(&mut self) {
        self.task.iter().for_each(JoinHandle::abort);
        self.cut();
    }
}

async fn carry(
    client: TcpStream,
    behind: String,
    mut habits: watch::Receiver<Habits>,
    received: Arc<Mutex<BTreeMap<String, usize>>>,
) {
    let born = habits.borrow_and_update().generation;
    let Ok(server) = TcpStream::connect(behind).await else {
        return;
    };
    client.set_nodelay(true).unwrap();
    server.set_nodelay(true).unwrap();
    let (from_client, mut to_client) = client.into_split();
    let (mut from_server, mut to_server) = server.into_split();
    let now = habits.clone();
    let up = async move {
        let mut from_client = BufReader::new(from_client);
        loop {
            let mut lines = [String::new(), String::new(), String::new()];
            for line in &mut lines {
                if !matches!(from_client.read_line(line).await, Ok(1..)) {
                    return;
                }
            }
            let command = lines[0].trim_end().to_owned();
            *received.lock().unwrap().entry(command.clone()).or_default() += 1;
            let (is_unknown, closes) = {
                let habits = now.borrow();
                (habits.unknown.contains(&&*command), habits.closes)
            };
            if is_unknown {
                // The embedded server does not know `unheard-of`. It answers `error`, in the order of the requests.
                lines = ["unheard-of\n", "_\n", "_\n"].map(str::to_owned);
            }
            if to_server.write_all(lines.concat().as_bytes()).await.is_err() {
                return;
            }
            if is_unknown && closes {
                // After the shutdown, the embedded server sends the answer and closes the connection. That ends `down`.
                drop(to_server.shutdown().await);
                std::future::pending::<()>().await;
            }
        }
    };
    let down = async { drop(tokio::io::copy(&mut from_server, &mut to_client).await) };
    let over = habits.wait_for(|habits| habits.generation != born);
    tokio::select! {
        () = up => {}
        () = down => {}
        _ = over => {}
    }
}
