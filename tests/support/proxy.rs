//! A TCP proxy that misbehaves on command.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::sleep;

/// How a proxy treats connections.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Treatment {
    /// Holds back all bytes to the server. They pass later, when this is false again.
    pub stall_up: bool,
    /// Holds back all bytes to the client. They pass later, when this is false again.
    pub stall_down: bool,
    /// Passes all bytes one by one.
    pub trickle: bool,
    /// Closes new connections at once.
    pub refuse: bool,
    /// Ends each connection after this many bytes to the server.
    pub cut_up_after: Option<usize>,
    /// Ends each connection after this many bytes to the client.
    pub cut_down_after: Option<usize>,
    /// Ends connections with a reset instead of an orderly close.
    pub reset: bool,
    /// Keeps the connection to one end open after the other end has closed its connection. So an end does not notice
    /// that the other end is gone, as when a machine loses its network.
    pub stall_ends: bool,
    /// Ends the connection with this number, counted from 0.
    pub cut_one: Option<usize>,
    /// Ends each connection at the next line in this direction.
    pub cut_at_line: Option<(Way, Cut)>,
    /// Waits for this time before it passes the bytes of each read.
    pub delay: Duration,
    /// Passes at most this many bytes a second in each direction.
    pub bandwidth: Option<usize>,
    /// An increase of this number closes all connections that are open at that time.
    generation: usize,
}

/// The direction of bytes: up to the server, or down to the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    Up,
    Down,
}

/// Where a connection ends, relative to a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cut {
    Before,
    Within,
    After,
}

impl Cut {
    /// Returns how many of these bytes pass before the connection ends.
    fn allows(self, bytes: &[u8]) -> usize {
        let line = bytes.iter().position(|byte| *byte == b'\n');
        let line = line.map_or(bytes.len(), |end| end + 1);
        match self {
            Self::Before => 0,
            Self::Within => line / 2,
            Self::After => line,
        }
    }
}

pub struct Proxy {
    pub address: String,
    server: Arc<Mutex<String>>,
    treatment: watch::Sender<Treatment>,
    accepted: Arc<AtomicUsize>,
    task: JoinHandle<()>,
}

impl Proxy {
    pub async fn start(server: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let (treatment, treatments) = watch::channel(Treatment::default());
        let accepted = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&accepted);
        let server = Arc::new(Mutex::new(server.to_owned()));
        let leads_to = Arc::clone(&server);
        let task = tokio::spawn(async move {
            loop {
                let (client, _) = listener.accept().await.unwrap();
                let number = counted.fetch_add(1, Ordering::SeqCst);
                if treatments.borrow().refuse {
                    continue;
                }
                let server = leads_to.lock().unwrap().clone();
                tokio::spawn(carry(number, client, server, treatments.clone()));
            }
        });
        Self {
            address,
            server,
            treatment,
            accepted,
            task,
        }
    }

    /// Passes new connections to another server.
    pub fn lead_to(&self, server: &str) {
        server.clone_into(&mut self.server.lock().unwrap());
    }

    /// Changes the treatment of all connections, including open ones.
    pub fn change(&self, change: impl FnOnce(&mut Treatment)) {
        self.treatment.send_modify(change);
    }

    /// Returns to the default treatment, under which everything passes.
    pub fn pass_everything(&self) {
        self.change(|treatment| {
            *treatment = Treatment {
                generation: treatment.generation,
                ..Treatment::default()
            };
        });
    }

    /// Ends all open connections.
    pub fn cut(&self) {
        self.change(|treatment| treatment.generation += 1);
    }

    /// Returns a function that ends all open connections.
    pub fn cutter(&self) -> impl Fn() + Send + Sync + 'static + use<> {
        let treatment = self.treatment.clone();
        move || treatment.send_modify(|treatment| treatment.generation += 1)
    }

    /// Returns how many connections the proxy has accepted, including those that it refused afterwards.
    pub fn accepted(&self) -> usize {
        self.accepted.load(Ordering::SeqCst)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
        self.cut();
    }
}

async fn carry(number: usize, client: TcpStream, server: String, mut treatments: watch::Receiver<Treatment>) {
    let born = treatments.borrow_and_update().generation;
    let Ok(server) = TcpStream::connect(server).await else {
        return;
    };
    client.set_nodelay(true).unwrap();
    server.set_nodelay(true).unwrap();
    let client_reset = socket2::SockRef::from(&client).try_clone().unwrap();
    let server_reset = socket2::SockRef::from(&server).try_clone().unwrap();
    let (from_client, to_client) = client.into_split();
    let (from_server, to_server) = server.into_split();
    let up = pump(Way::Up, from_client, to_server, treatments.clone());
    let down = pump(Way::Down, from_server, to_client, treatments.clone());
    let over = treatments.wait_for(|treatment| treatment.generation != born || treatment.cut_one == Some(number));
    tokio::select! {
        () = up => {}
        () = down => {}
        _ = over => {}
    }
    if treatments.borrow().reset {
        // If the linger time is zero, closing the sockets sends a reset.
        drop(client_reset.set_linger(Some(Duration::ZERO)));
        drop(server_reset.set_linger(Some(Duration::ZERO)));
    }
}

impl Treatment {
    fn stalls(&self, way: Way) -> bool {
        match way {
            Way::Up => self.stall_up,
            Way::Down => self.stall_down,
        }
    }

    fn cuts_after(&self, way: Way) -> Option<usize> {
        match way {
            Way::Up => self.cut_up_after,
            Way::Down => self.cut_down_after,
        }
    }

    /// Returns how many of these bytes may pass now. `passed` bytes have already passed in this direction of the
    /// connection.
    fn allows(&self, way: Way, passed: usize, bytes: &[u8]) -> usize {
        const SLICES_PER_SECOND: usize = 50;
        let until_cut = self
            .cuts_after(way)
            .map_or(usize::MAX, |most| most.saturating_sub(passed));
        let slice = match (self.trickle, self.bandwidth) {
            (true, _) => 1,
            (false, Some(bandwidth)) => (bandwidth / SLICES_PER_SECOND).max(1),
            (false, None) => usize::MAX,
        };
        bytes.len().min(until_cut).min(slice)
    }
}

/// Passes bytes in one direction until the sender closes its end, or until the treatment ends the connection.
async fn pump(way: Way, mut from: OwnedReadHalf, mut to: OwnedWriteHalf, mut treatments: watch::Receiver<Treatment>) {
    // Each connection has two buffers. Large buffers would stay in the heap of the process long after the end of their
    // connections.
    let mut buffer = vec![0; 8 * 1024];
    let mut passed = 0;
    loop {
        let count = from.read(&mut buffer).await.unwrap_or_default();
        if count == 0 {
            // `wait_for` fails only if the proxy was dropped. The connection ends in that case, too.
            drop(treatments.wait_for(|treatment| !treatment.stall_ends).await);
            return;
        }
        let delay = treatments.borrow().delay;
        if !delay.is_zero() {
            sleep(delay).await;
        }
        let mut rest = &buffer[..count];
        while !rest.is_empty() {
            let Ok(treatment) = treatments
                .wait_for(|treatment| !treatment.stalls(way))
                .await
                .map(|treatment| *treatment)
            else {
                return;
            };
            if let Some((_, cut)) = treatment.cut_at_line.filter(|(cut, _)| *cut == way) {
                drop(to.write_all(&rest[..cut.allows(rest)]).await);
                return;
            }
            let now = treatment.allows(way, passed, rest);
            if now == 0 {
                return;
            }
            if to.write_all(&rest[..now]).await.is_err() {
                return;
            }
            passed += now;
            rest = &rest[now..];
            if treatment.cuts_after(way).is_some_and(|most| passed >= most) {
                return;
            }
            if let Some(bandwidth) = treatment.bandwidth {
                sleep(Duration::from_secs(1).mul_f64(now as f64 / bandwidth as f64)).await;
            }
        }
    }
}
