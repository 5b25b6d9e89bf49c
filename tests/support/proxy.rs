//! A TCP proxy that misbehaves on command.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// How a proxy treats connections.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Weather {
    /// Nothing passes to the server; it is kept back, not lost.
    pub stall_up: bool,
    /// Nothing passes to the client; it is kept back, not lost.
    pub stall_down: bool,
    /// Everything passes byte by byte.
    pub trickle: bool,
    /// New connections are closed at once.
    pub refuse: bool,
    /// Each connection ends once so many bytes have passed to the server.
    pub cut_up_after: Option<usize>,
    /// Each connection ends once so many bytes have passed to the client.
    pub cut_down_after: Option<usize>,
    /// Connections end with a reset instead of an orderly close.
    pub reset: bool,
    /// When one side ends its connection, the other does not hear of it: as where a machine is cut off.
    pub stall_ends: bool,
    /// The connection that is ended, in their order from 0.
    pub cut_one: Option<usize>,
    /// Connections made before this generation are over.
    generation: usize,
}

pub struct Proxy {
    pub address: String,
    weather: watch::Sender<Weather>,
    accepted: Arc<AtomicUsize>,
    task: JoinHandle<()>,
}

impl Proxy {
    pub async fn start(server: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let (weather, forecast) = watch::channel(Weather::default());
        let accepted = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&accepted);
        let server = server.to_owned();
        let task = tokio::spawn(async move {
            loop {
                let (client, _) = listener.accept().await.unwrap();
                let number = counted.fetch_add(1, Ordering::SeqCst);
                if forecast.borrow().refuse {
                    continue;
                }
                tokio::spawn(carry(number, client, server.clone(), forecast.clone()));
            }
        });
        Self {
            address,
            weather,
            accepted,
            task,
        }
    }

    /// Changes how connections are treated, those that are open included.
    pub fn change(&self, change: impl FnOnce(&mut Weather)) {
        self.weather.send_modify(change);
    }

    /// Everything passes again.
    pub fn clear_up(&self) {
        self.change(|weather| {
            *weather = Weather {
                generation: weather.generation,
                ..Weather::default()
            };
        });
    }

    /// Ends all connections that are open.
    pub fn cut(&self) {
        self.change(|weather| weather.generation += 1);
    }

    /// How many connections were made.
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

async fn carry(number: usize, client: TcpStream, server: String, mut forecast: watch::Receiver<Weather>) {
    let born = forecast.borrow_and_update().generation;
    let Ok(server) = TcpStream::connect(server).await else {
        return;
    };
    client.set_nodelay(true).unwrap();
    server.set_nodelay(true).unwrap();
    let client_reset = socket2::SockRef::from(&client).try_clone().unwrap();
    let server_reset = socket2::SockRef::from(&server).try_clone().unwrap();
    let (from_client, to_client) = client.into_split();
    let (from_server, to_server) = server.into_split();
    let up = pump(from_client, to_server, forecast.clone(), |weather| {
        (weather.stall_up, weather.cut_up_after)
    });
    let down = pump(from_server, to_client, forecast.clone(), |weather| {
        (weather.stall_down, weather.cut_down_after)
    });
    let over = forecast.wait_for(|weather| weather.generation != born || weather.cut_one == Some(number));
    tokio::select! {
        () = up => {}
        () = down => {}
        _ = over => {}
    }
    if forecast.borrow().reset {
        // Closing with nothing to linger for sends a reset.
        drop(client_reset.set_linger(Some(std::time::Duration::ZERO)));
        drop(server_reset.set_linger(Some(std::time::Duration::ZERO)));
    }
}

/// Carries bytes one way until there are no more, or the weather ends it.
async fn pump(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    mut forecast: watch::Receiver<Weather>,
    here: impl Fn(&Weather) -> (bool, Option<usize>),
) {
    let mut buffer = vec![0; 64 * 1024];
    let mut passed = 0;
    loop {
        let count = from.read(&mut buffer).await.unwrap_or_default();
        if count == 0 {
            // Without a forecast the proxy is gone.
            drop(forecast.wait_for(|weather| !weather.stall_ends).await);
            return;
        }
        let mut rest = &buffer[..count];
        while !rest.is_empty() {
            let Ok(weather) = forecast
                .wait_for(|weather| !here(weather).0)
                .await
                .map(|weather| *weather)
            else {
                return;
            };
            let allowed = here(&weather).1.map_or(usize::MAX, |most| most.saturating_sub(passed));
            let now = rest
                .len()
                .min(allowed)
                .min(if weather.trickle { 1 } else { usize::MAX });
            if now == 0 {
                return;
            }
            if to.write_all(&rest[..now]).await.is_err() {
                return;
            }
            passed += now;
            rest = &rest[now..];
            if here(&weather).1.is_some_and(|most| passed >= most) {
                return;
            }
        }
    }
}
